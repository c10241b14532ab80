"""What a learned evaluator knows of the songs that agents recommend.

A gain that lives only on songs of which the evaluator heard next to nothing is no gain: there it
answers by what such songs are usually worth. So skip rates are told apart by how many plays of a
song the evaluator was fitted on.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import is_skip
from musicbox_experiments.evaluate.metrics import PerSession, Rollout
from musicbox_experiments.evaluate.pooling import grouped
from musicbox_experiments.evaluate.statistics import paired_bootstrap

HEARD: Final = (20, 5)
"""Plays from which on an evaluator counts as knowing a song: well, and at all."""

Chosen = Callable[[Rollout], npt.NDArray[np.bool_]]


def _heard(plays: int) -> Chosen:
    return lambda rollout: _known(rollout) >= plays


def _known(rollout: Rollout) -> npt.NDArray[np.int64]:
    assert rollout.known is not None
    return rollout.known


def _held(rollout: Rollout) -> npt.NDArray[np.bool_]:
    assert rollout.held is not None
    return rollout.held


KINDS: Final[Mapping[str, Chosen]] = {
    **{f"heard_{plays}": _heard(plays) for plays in HEARD},
    "never_heard": lambda rollout: _known(rollout) == 0,
}
"""Songs by what the evaluator knows of them."""


def knowledge(
    rollouts: Mapping[str, Mapping[int, Rollout]], reference: str, *, resamples: int
) -> dict[str, Any]:
    """For each agent the share of its plays of each kind of song, and the skip rate on these.

    Args:
        rollouts: At one evaluator, by agent and seed.
        reference: Agent that the others are compared with.
        resamples: Times that sessions are drawn anew.

    Returns:
        By agent: of each of `KINDS` ``share``, ``skip_rate``, and ``difference`` to the reference
        on the same kind of song; and under ``held`` the share of plays that the logged session
        itself held at that moment, so that there is a logged label. Each an estimate. Empty where
        the evaluator does not answer by what it learned of songs.
    """
    every = [rollout for by_seed in rollouts.values() for rollout in by_seed.values()]
    if any(rollout.known is None for rollout in every):
        return {}
    found: dict[str, Any] = {agent: {} for agent in rollouts}
    for kind, chosen in KINDS.items():
        shares = _bootstrap(rollouts, chosen, None, resamples)
        skips = _bootstrap(rollouts, None, chosen, resamples)
        for agent in rollouts:
            against = None
            if agent != reference:
                difference = skips.difference(agent, reference, lower_is_better=True)
                against = asdict(difference.estimate)
            found[agent][kind] = {
                "share": asdict(shares.estimate(agent)),
                "skip_rate": asdict(skips.estimate(agent)),
                "difference": against,
            }
    held = _bootstrap(rollouts, _held, None, resamples)
    for agent in rollouts:
        found[agent]["held"] = {"share": asdict(held.estimate(agent))}
    return found


def _bootstrap(
    rollouts: Mapping[str, Mapping[int, Rollout]],
    counted: Chosen | None,
    among: Chosen | None,
    resamples: int,
) -> Any:
    """Share of the songs heard that are counted, or skipped, among those chosen, or all."""

    def part(rollout: Rollout) -> PerSession:
        songs = rollout.heard if among is None else rollout.heard & among(rollout)
        hits = is_skip(rollout.levels) if counted is None else counted(rollout)
        numbers = ((songs & hits), songs)
        return grouped(
            PerSession(*(n.sum(axis=(1, 2), dtype=np.float64) for n in numbers)),
            rollout.sessions,
            rollout.source,
        )

    parts = {agent: [part(r) for r in by_seed.values()] for agent, by_seed in rollouts.items()}
    return paired_bootstrap(parts, rng=np.random.default_rng(0), resamples=resamples)
