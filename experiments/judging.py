"""Judging the trained agents of a run, each rollout kept in a file so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from experiments.evaluation import rerank, roll_out
from experiments.metrics import PerSession, Rollout
from experiments.training import TrainingJob, trained

CHEAP_OVER_THE_CATALOGUE = ("ground_truth", "replay")
"""Judges that can price every track of the catalogue for every session, as the skyline asks."""


def judge_all(
    jobs: Sequence[TrainingJob],
    options: Mapping[str, Any],
    judges: Mapping[str, str],
    sessions: npt.NDArray[np.int64],
    out: Path,
    seed: int,
) -> tuple[list[Rollout], dict[str, dict[int, PerSession]]]:
    """Every agent before every judge and over real labels; what a file already holds is read.

    Args:
        jobs: Finished trainings.
        options: Keywords of the environment, without the listener.
        judges: Keyword of each judge by name.
        sessions: Which logged sessions ``(n,)``.
        out: Folder of the run.
        seed: Of the judges' random numbers.
    """
    rollouts: list[Rollout] = []
    reranking: dict[str, dict[int, PerSession]] = {}
    folder = out / "rollouts"
    folder.mkdir(exist_ok=True)
    total = len(jobs) * (len(judges) + 1) * len(sessions)
    with tqdm(total=total, unit="session", desc="judging") as bar:
        for job in jobs:
            agent = trained(job)
            for judge, listener in judges.items():
                if job.agent == "skyline" and listener not in CHEAP_OVER_THE_CATALOGUE:
                    bar.update(len(sessions))
                    continue
                file = folder / f"{judge}-{job.agent}-{job.seed}.npz"
                if not file.is_file():
                    made = roll_out(
                        agent,
                        options,
                        sessions,
                        listener=listener,
                        judge=judge,
                        seed=seed,
                        training_seed=job.seed,
                        progress=bar.update,
                    )
                    made.save(file)
                rollouts.append(Rollout.load(file))
            reranking.setdefault(job.agent, {})[job.seed] = rerank(
                agent, options, sessions, seed=seed, training_seed=job.seed
            )
            bar.update(len(sessions))
    return rollouts, reranking
