"""What the order of songs is worth where songs wear out: the same songs in a random order.

The exact law answers both: what an agent played as the evaluator heard it, and the songs of each
session shuffled. Where nothing wears out, any order of the same songs is as good.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import GroundTruthListener, History
from musicbox_env.schema import UNKNOWN, is_skip, num_shown
from musicbox_experiments.evaluate.metrics import PerSession, Rollout, skip_rate
from musicbox_experiments.evaluate.pooling import grouped
from musicbox_experiments.evaluate.statistics import paired_bootstrap

DRAWS: Final = 4
"""Orders of each session that are drawn."""


def shuffled_skips(
    rollout: Rollout, listener: GroundTruthListener, rng: np.random.Generator, *, draws: int = DRAWS
) -> PerSession:
    """Share of songs skipped, were the songs of each session heard in a random order.

    Args:
        rollout: What was played.
        listener: The exact law.
        rng: Of the orders and of how the songs are heard.
        draws: Orders that are averaged.
    """
    sessions = rollout.sessions
    shown = num_shown(listener.dataset.sessions.lengths(sessions))
    songs = rollout.slates.reshape(len(sessions), -1).astype(np.int64)
    skips, heard = np.zeros(len(sessions)), (songs >= 0).sum(axis=1)
    for _ in range(draws):
        # Songs of random rank first, places without a song last.
        order = np.argsort(np.where(songs >= 0, rng.random(songs.shape), 2.0), axis=1)
        shuffled = np.take_along_axis(songs, order, axis=1)
        room = int(shown.max()) + songs.shape[1]
        history = History.logged(listener.dataset, sessions, shown, room)
        levels = listener.simulate_response(
            listener.begin(history),
            history,
            np.arange(len(sessions)),
            shuffled,
            np.full(songs.shape, UNKNOWN),
            rng.random(songs.shape),
        )
        skips += is_skip(levels).sum(axis=1) / draws
    return PerSession(skips, heard.astype(np.float64))


def worth_of_order(
    rollouts: Mapping[str, Mapping[int, Rollout]], dataset: Dataset, *, resamples: int = 2000
) -> dict[str, Any]:
    """Skips of each agent's songs in a random order, and those as played minus these.

    Args:
        rollouts: At the exact law, by agent and seed.
        dataset: Synthetic sessions.
        resamples: Of the bootstrap.

    Returns:
        By agent, the estimates ``shuffled`` and ``difference``, ready for JSON.
    """
    listener, found = GroundTruthListener(dataset), {}
    for agent, by_seed in rollouts.items():
        rng = np.random.default_rng(0)
        parts: dict[str, list[PerSession]] = {"played": [], "shuffled": []}
        for rollout in by_seed.values():
            both = skip_rate(rollout), shuffled_skips(rollout, listener, rng)
            for name, part in zip(parts, both, strict=True):
                parts[name].append(grouped(part, rollout.sessions, rollout.source))
        bootstrap = paired_bootstrap(parts, rng=rng, resamples=resamples)
        difference = bootstrap.difference("played", "shuffled", lower_is_better=True)
        found[agent] = {
            "shuffled": asdict(bootstrap.estimate("shuffled")),
            "difference": asdict(difference.estimate),
        }
    return found
