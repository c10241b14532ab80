"""Evaluate the agents of a run; each roll-out is kept, so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent
from tqdm import tqdm

from musicbox_experiments.evaluate.metrics import PerSession, Rollout
from musicbox_experiments.evaluate.reranking import rerank
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.train.jobs import TrainingJob, trained

SKYLINE_EVALUATORS = ("ground_truth", "replay")
"""Evaluators that the skyline plays before: those whose answers a product of vectors orders. At
others it would be the best of songs that look likely, which shows no bound."""
SLOW_ROLL_OUT = 5.0
"""Seconds after which a roll-out shows how far it is."""
RERANKED = "rerank-"
"""How the files begin that hold re-rankings of real plays; the others hold rollouts."""


@dataclass(frozen=True)
class Evaluation:
    """How trained agents are evaluated.

    Attributes:
        evaluator: The listener's name.
        listener: Its keyword.
        options: Keywords of the environment, without the listener.
        sessions: Which logged sessions ``(n,)``.
        folder: Where rollouts are kept.
        seed: Of the evaluator's random numbers.
    """

    evaluator: str
    listener: str
    options: Mapping[str, Any]
    sessions: npt.NDArray[np.int64]
    folder: Path
    seed: int


def evaluations_for(
    evaluators: Mapping[str, str],
    options: Mapping[str, Any],
    sessions: npt.NDArray[np.int64],
    out: Path,
    seed: int,
) -> list[Evaluation]:
    """One evaluation for each evaluator.

    Args:
        evaluators: Keyword of each evaluator by name.
        options: Keywords of the environment, without the listener.
        sessions: Which logged sessions ``(n,)``.
        out: Folder of the run.
        seed: Of the evaluators' random numbers.
    """
    return [
        Evaluation(evaluator, listener, options, sessions, out / "rollouts", seed)
        for evaluator, listener in evaluators.items()
    ]


def evaluate_all(
    jobs: Sequence[TrainingJob], by: Sequence[Evaluation]
) -> tuple[list[Rollout], dict[str, dict[int, PerSession]]]:
    """Every agent at every evaluator and over real labels; what a file holds is read."""
    rollouts: list[Rollout] = []
    reranking: dict[str, dict[int, PerSession]] = {}
    for job in tqdm(jobs, unit="training", desc="evaluation"):
        agent = trained(job)
        rollouts += [evaluated(agent, job, evaluation) for evaluation in _affordable(job, by)]
        reranking.setdefault(job.agent, {})[job.seed] = _reranked(agent, job, by[0])
    return rollouts, reranking


def evaluate_one(job: TrainingJob, by: Sequence[Evaluation]) -> None:
    """Do what `evaluate_all` will ask of one training, and leave the files."""
    agent = trained(job)
    for evaluation in _affordable(job, by):
        evaluated(agent, job, evaluation)
    _reranked(agent, job, by[0])


def _affordable(job: TrainingJob, by: Sequence[Evaluation]) -> list[Evaluation]:
    return [
        evaluation
        for evaluation in by
        if job.agent != "skyline" or evaluation.listener in SKYLINE_EVALUATORS
    ]


def evaluated(agent: Agent, job: TrainingJob, by: Evaluation, label: str | None = None) -> Rollout:
    """Rollout of a trained agent before an evaluator; read from its file if there is one.

    Args:
        agent: The agent.
        job: Its training.
        by: How it is evaluated.
        label: What the result calls it; the training's label if left out.
    """
    label = label or job.agent
    file = by.folder / f"{by.evaluator}-{label}-{job.seed}.npz"
    if not file.is_file():
        with tqdm(
            total=len(by.sessions),
            desc=f"{label} before {by.evaluator}",
            unit="session",
            delay=SLOW_ROLL_OUT,
            leave=False,
        ) as bar:
            made = roll_out(
                agent,
                by.options,
                by.sessions,
                listener=by.listener,
                label=label,
                evaluator=by.evaluator,
                seed=by.seed,
                training_seed=job.seed,
                progress=bar.update,
            )
        _write_whole(file, made.save)
    return Rollout.load(file)


def _reranked(agent: Agent, job: TrainingJob, by: Evaluation) -> PerSession:
    """The agent's first slates over real labels, see `evaluation.rerank`; kept in a file too."""
    file = by.folder / f"{RERANKED}{job.agent}-{job.seed}.npz"
    if not file.is_file():
        made = rerank(agent, by.options, by.sessions, seed=by.seed, training_seed=job.seed)
        _write_whole(file, made.save)
    return PerSession.load(file)


def _write_whole(file: Path, save: Callable[[Path], None]) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    save(temporary)
    temporary.replace(file)
