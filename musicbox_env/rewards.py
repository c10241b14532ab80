"""The reward of a slate: named terms and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import compiled
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD, UNHEARD, Level, brief, require_known

Float = npt.NDArray[np.float64]
LARGEST = 1e6
"""Weight of a term: products and sums of larger ones may overflow."""


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the reward terms.

    Attributes:
        listen: Weight of the songs that were not skipped, the ground truth of the data set.
        graded: Weight of how far the songs were heard, 0 for brief to 1 for full.
        diversity: Weight of how unlike the songs of the slate are.
        novelty: Weight of how rarely the songs are played.
        gamma_position: Factor from each place of the slate to the next, for ``listen`` and
            ``graded`` (the list discount of LIRD, arXiv:1801.00209, equation 5).
    """

    listen: float = 1.0
    graded: float = 0.0
    diversity: float = 0.0
    novelty: float = 0.0
    gamma_position: float = 0.9

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not abs(value) <= LARGEST:
                raise ValueError(
                    f"Reward setting {name} is {brief(value)}; it must be a finite number, from "
                    f"{-LARGEST:,.0f} to {LARGEST:,.0f}."
                )
        if not 0 <= self.gamma_position <= 1:
            raise ValueError(f"gamma_position is {self.gamma_position}; it must be in [0, 1].")

    @cached_property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The terms that count, and how much."""
        weights = [(name, getattr(self, name)) for name in TERMS]
        return tuple((name, weight) for name, weight in weights if weight)

    @cached_property
    def of_levels(self) -> Float:
        """What a song earns at levels from -1, not heard, to the highest ``(1 + NUM_LEVELS,)``."""
        levels = np.arange(UNHEARD, NUM_LEVELS, dtype=np.int8)[:, None]
        return total_reward(self, reward_terms(self, levels, None, None))

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> RewardConfig:
        """Build from JSON-able keyword values; an unknown name is refused with a suggestion."""
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError(
                f"reward is {brief(settings)}; expected a dictionary of weights, such as "
                "{'listen': 1.0, 'diversity': 0.1}."
            )
        settings = dict(settings or {})
        for name in settings:
            require_known("reward setting", name, [f.name for f in fields(cls)])
        return cls(**settings)


TERMS = ("listen", "graded", "diversity", "novelty")


def reward_terms(
    config: RewardConfig,
    levels: npt.NDArray[np.int8],
    vectors: npt.NDArray[np.float32] | None,
    surprise: npt.NDArray[np.float64] | None,
) -> dict[str, Float]:
    """Value of each term, before weighting, for a batch of slates.

    Args:
        config: Position discount, and the weights that say which terms are needed: one of
            weight 0 is reported as 0 and not computed.
        levels: Listen levels in the order heard ``(n, k)``, -1 where a song was not heard.
        vectors: Unit-norm embeddings of the songs ``(n, k, d)``; needed for ``diversity``.
        surprise: -log2 of the songs' popularity, scaled to [0, 1], ``(n, k)``; for ``novelty``.

    Returns:
        For each of `TERMS` an array ``(n,)``.
    """
    discount = discounts(config.gamma_position, levels.shape[1])
    zeros = np.zeros(len(levels))
    listened = np.empty(len(levels))
    _sum_kept(levels, discount, listened)
    terms = {"listen": listened, "graded": zeros, "diversity": zeros, "novelty": zeros}
    if config.graded:
        terms["graded"] = (np.maximum(levels, 0) / float(Level.FULL)) @ discount
    if config.diversity and vectors is not None:
        terms["diversity"] = slate_diversity(vectors, levels >= 0)
    if config.novelty and surprise is not None:
        heard = levels >= 0
        terms["novelty"] = (surprise * heard).sum(1) / np.maximum(heard.sum(1), 1)
    return terms


@compiled
def _sum_kept(levels: npt.NDArray[np.int8], discount: Float, listened: Float) -> None:
    """Sum the ``discount`` ``(k,)`` of the songs of each slate that were not skipped, in place."""
    for i in range(len(levels)):
        listened[i] = 0.0
        for place in range(levels.shape[1]):
            if levels[i, place] >= SKIP_THRESHOLD:
                listened[i] += discount[place]


@cache
def discounts(gamma: float, places: int) -> Float:
    """What the reward of a song counts at each place of a slate, ``gamma ** k`` ``(places,)``."""
    return gamma ** np.arange(places, dtype=np.float64)


def slate_diversity(vectors: npt.NDArray[np.float32], counted: npt.NDArray[np.bool_]) -> Float:
    """1 - mean pairwise cosine of the songs of each slate; 0 where fewer than two count.

    Args:
        vectors: Rows of unit norm ``(n, k, d)``.
        counted: Which songs count ``(n, k)``.
    """
    vectors = np.where(counted[..., None], vectors, 0).astype(np.float64)
    total = vectors.sum(1)
    pairs = counted.sum(1) * (counted.sum(1) - 1)
    cosines = (total * total).sum(1) - (vectors * vectors).sum((1, 2))
    return np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), 0.0)


def total_reward(config: RewardConfig, terms: Mapping[str, Float]) -> Float:
    """Weighted sum of the terms ``(n,)``."""
    total = np.zeros(len(terms["listen"]))
    for name, weight in config.weights:
        total += weight * terms[name]
    return total


def song_rewards(config: RewardConfig, levels: npt.NDArray[np.int8]) -> Float:
    """What each song earns by how far it was heard, 0 where it was not, ``(n, k)``.

    The reward of a slate is the sum of its songs' by `discounts` of their places, and the weighted
    terms that slates have as a whole: ``diversity`` and ``novelty``.

    Args:
        config: Weights of the terms.
        levels: Listen levels ``(n, k)``, -1 where a song was not heard.
    """
    return config.of_levels.take(levels - UNHEARD)
