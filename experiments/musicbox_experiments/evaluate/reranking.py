"""Re-ranking: an agent chooses among the plays that each logged session still held.

Every label is then a logged one: the protocol for claims about real logs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent

from musicbox_env.schema import MAX_SESSION_LENGTH, is_skip
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.evaluate.metrics import PerSession
from musicbox_experiments.evaluate.rollout import Rollout, roll_out


def rerank(
    agent: Agent,
    options: Mapping[str, Any],
    sessions: npt.NDArray[np.int64],
    *,
    seed: int = 0,
    training_seed: int = 0,
) -> PerSession:
    """Let an agent choose its first slate among the plays that each session still holds.

    Returns:
        For each session the skips of the slate, beside those that a random choice of as many of
        the same plays would have on average.
    """
    options = {**options, "candidates": "session", "horizon": None}
    rollout = roll_out(
        agent,
        options,
        sessions,
        listener="replay",
        seed=seed,
        training_seed=training_seed,
        max_steps=1,
    )
    log = open_dataset(options.get("data")).sessions
    levels = log.padded("level", sessions, MAX_SESSION_LENGTH)
    second_half = np.arange(levels.shape[1]) >= log.num_shown(sessions)[:, None]
    return reranking(rollout, np.where(second_half, levels, -1).astype(np.int8))


def reranking(rollout: Rollout, candidate_levels: npt.NDArray[np.integer]) -> PerSession:
    """Skips of the first slate, and those expected of a random choice of the same plays.

    Its mean is ``sum(skips) / sum(m * candidates' skip rate)`` with m the songs of the slate:
    1 for a random choice, 0.94 for 6 % fewer skips. Every label is real. The expectation over all
    random choices is exact, since a play drawn at random is a skip with the rate of its session.

    Args:
        rollout: Made with ``candidates="session"`` and the replay listener.
        candidate_levels: Levels of all plays that the logged session still held
            ``(n, c)``, -1 pads; row i belongs to ``rollout.sessions[i]``.

    Raises:
        ValueError: A label of a first slate is imputed, or a session has no candidates.
    """
    first = rollout.levels[:, 0]
    heard = first >= 0
    if not rollout.logged[:, 0][heard].all():
        raise ValueError(
            "Re-ranking needs real labels, and some levels of the first slates are imputed; "
            'make the rollout with candidates="session" and listener="replay".'
        )
    candidates = (candidate_levels >= 0).sum(axis=1)
    if len(candidates) != len(first) or (candidates < heard.sum(axis=1)).any():
        raise ValueError(
            f"candidate_levels has shape {candidate_levels.shape}; expected {len(first)} rows, "
            "each with at least as many plays as its first slate has songs."
        )
    rate = is_skip(candidate_levels).sum(axis=1) / np.maximum(candidates, 1)
    return PerSession(
        numerator=is_skip(first).sum(axis=1, dtype=np.float64), denominator=rate * heard.sum(axis=1)
    )
