"""A made-up comparison of agents with known skip rates."""

from pathlib import Path

import numpy as np
from musicbox_experiments.compare.study import Study
from musicbox_experiments.evaluate.metrics import CatalogStats, PerSession, Rollout

SESSIONS, TRACKS = 160, 40


RATES = {
    # agent: skip rate at the listener trained with, and at the honest evaluator
    "logged": (0.5, 0.5),
    "random": (0.6, 0.6),
    "honest": (0.3, 0.32),
    "exploiter": (0.2, 0.5),
    "skyline": (0.1, 0.1),
}


RESAMPLES = 200


def toy_world() -> CatalogStats:
    rng = np.random.default_rng(0)
    return CatalogStats(
        features=rng.uniform(size=(TRACKS, 8)),
        embedding=rng.normal(size=(TRACKS, 4)),
        plays=rng.integers(0, 50, size=TRACKS),
    )


def toy_rollout(agent: str, evaluator: str, rate: float, seed: int, sessions: int) -> Rollout:
    rng = np.random.default_rng((len(agent), len(evaluator), seed))
    slates = rng.integers(0, TRACKS, size=(sessions, 2, 3)).astype(np.int32)
    levels = np.where(rng.random(slates.shape) < rate, 1, 4).astype(np.int8)
    slates[:, 1, 2] = levels[:, 1, 2] = -1
    return Rollout(
        agent=agent,
        seed=seed,
        evaluator=evaluator,
        sessions=np.arange(sessions),
        slates=slates,
        levels=levels,
        logged=np.full(slates.shape, agent == "logged"),
        returns=(levels == 4).sum(axis=(1, 2)).astype(float),
    )


def toy_study(sessions: int = SESSIONS) -> Study:
    rollouts = [
        toy_rollout(agent, evaluator, rate, seed, sessions)
        for agent, rates in RATES.items()
        for evaluator, rate in zip(("trained-with", "honest evaluator"), rates, strict=True)
        for seed in (range(3) if agent in ("honest", "exploiter") else range(1))
    ]
    return Study(
        rollouts=rollouts,
        world=toy_world(),
        config={"out": Path("runs/toy"), "seeds": 3, "rate": np.float32(0.5)},
        dataset={"sessions": 1000, "plays": 16000, "tracks": TRACKS},
        command="musicbox compare --seeds 3",
        trained_with="trained-with",
        reranking={
            "honest": {s: PerSession(np.full(50, 0.94), np.ones(50)) for s in range(2)},
        },
        curves={
            "honest": {s: [(0, 0.5), (10, 0.4 - 0.01 * s), (20, 0.3)] for s in range(3)},
            "exploiter": {0: [(0, 0.5), (20, 0.2)]},
        },
        first_figures={
            "honest": {
                "skip_rate": 0.49,
                "skip_rate_all_data": 0.54,
                "share_in_session": 0.01,
                "diversity_percent": 9.3,
                "diversity_percent_sessions": 7.6,
            }
        },
        descriptions={"honest": "Learns what is there.", "honest evaluator": "Another listener."},
        notes=["A note for the reader."],
    )
