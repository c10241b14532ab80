"""Evaluate the agents of a run; each roll-out is kept, so that a killed run goes on."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent
from musicbox_agents.baselines.bounds import SkylineAgent

from musicbox_env.data.checks import CheckedFile
from musicbox_env.locks import held
from musicbox_env.progress import tqdm
from musicbox_env.schema import UNKNOWN
from musicbox_experiments.evaluate.metrics import PerSession, Rollout
from musicbox_experiments.evaluate.reranking import rerank
from musicbox_experiments.evaluate.rollout import MEND, roll_out
from musicbox_experiments.train.jobs import BEST, TrainingJob, open_same, trained

SKYLINE_EVALUATORS = ("ground_truth", "replay")
"""Evaluators of the oracle: those whose answers a product of vectors orders. At others it would be
the best of songs that look likely, which shows no bound."""
SLOW_ROLL_OUT = 5.0
"""Seconds after which a roll-out shows how far it is."""
MADE_OF = ".made_of"
"""Ends the name of the file beside a rollout that says which agent and evaluator made it."""
RERANKED = "rerank-"
"""How the files begin that hold re-rankings of logged candidates; the others hold rollouts."""


@dataclass(frozen=True)
class Evaluation:
    """How trained agents are evaluated.

    Attributes:
        evaluators: Keyword of each evaluator by name.
        options: Keywords of the environment, without the listener.
        sessions: Which logged sessions ``(n,)``.
        folder: Where rollouts are kept.
        seed: Of the evaluators' random numbers.
    """

    evaluators: Mapping[str, str]
    options: Mapping[str, Any]
    sessions: npt.NDArray[np.int64]
    folder: Path
    seed: int


def evaluate_all(
    jobs: Sequence[TrainingJob], by: Evaluation
) -> tuple[list[Rollout], dict[str, dict[int, PerSession]]]:
    """Every agent at every evaluator and over real labels; what a file holds is read."""
    rollouts: list[Rollout] = []
    reranking: dict[str, dict[int, PerSession]] = {}
    for job in tqdm(jobs, unit="training", desc="evaluation"):
        of_job, reranking.setdefault(job.agent, {})[job.seed] = evaluate_one(job, by)
        rollouts += of_job
    return rollouts, reranking


def evaluate_one(job: TrainingJob, by: Evaluation) -> tuple[list[Rollout], PerSession]:
    """One trained agent at every evaluator, and its first slates over real labels (`rerank`)."""
    agent = trained(job)
    training = _digest(sorted((Path(job.folder) / BEST).iterdir()))
    rollouts = [
        _rolled_out(agent, job, by, evaluator, training)
        for evaluator, listener in by.evaluators.items()
        if not isinstance(agent, SkylineAgent) or listener in SKYLINE_EVALUATORS
    ]
    file = by.folder / f"{RERANKED}{job.agent}-{job.seed}.npz"
    if not _is_of(file, training):
        made = rerank(agent, by.options, by.sessions, seed=by.seed, training_seed=job.seed)
        open_same(job)
        _write_whole(file, made.save, training)
    parts, checked = PerSession.load(file), CheckedFile(file, MEND)
    checked.require(
        len(parts.numerator) == len(by.sessions),
        f"{len(parts.numerator):,} sessions",
        f"the {len(by.sessions):,} evaluated",
    )
    for name in ("numerator", "denominator"):
        checked.require_numbers(getattr(parts, name), name)
    return rollouts, parts


def _rolled_out(
    agent: Agent, job: TrainingJob, by: Evaluation, evaluator: str, training: str
) -> Rollout:
    """Roll out an agent at an evaluator, or read the file of these very two."""
    file = by.folder / f"{evaluator}-{job.agent}-{job.seed}.npz"
    listener = by.evaluators[evaluator]
    made_of = training + (_digest([Path(listener)]) if Path(listener).is_file() else listener)
    if not _is_of(file, made_of):
        with tqdm(
            total=len(by.sessions),
            desc=f"{job.agent} at {evaluator}",
            unit="session",
            delay=SLOW_ROLL_OUT,
            leave=False,
        ) as bar:
            made = roll_out(
                agent,
                by.options,
                by.sessions,
                listener=by.evaluators[evaluator],
                label=job.agent,
                evaluator=evaluator,
                seed=by.seed,
                training_seed=job.seed,
                progress=bar.update,
            )
        open_same(job)
        _write_whole(file, made.save, made_of)
    found, of = Rollout.load(file), (job.agent, job.seed, evaluator)
    checked, tracks = CheckedFile(file, MEND), len(agent.dataset.catalog)
    checked.require((found.agent, found.seed, found.evaluator) == of, "another roll-out", f"{of}")
    checked.require(np.array_equal(found.sessions, by.sessions), "other sessions", "those asked")
    checked.require_within(found.slates, (UNKNOWN, tracks - 1), "slates")
    return found


def _digest(files: Iterable[Path]) -> str:
    """Of the content of files."""
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()[:32]


def _is_of(file: Path, made_of: str) -> bool:
    """Whether a file is there and was made of the agent and evaluator that are there now."""
    note = file.with_suffix(MADE_OF)
    return file.is_file() and note.is_file() and note.read_bytes() == made_of.encode()


def _write_whole(file: Path, save: Callable[[Path], None], made_of: str) -> None:
    """Write a file whole or not at all; a worker whose parent was killed may be at it too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with held(file, wait=True):
        temporary = file.with_suffix(".tmp")
        save(temporary)
        temporary.replace(file)
        file.with_suffix(MADE_OF).write_text(made_of)
