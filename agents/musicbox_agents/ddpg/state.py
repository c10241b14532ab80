"""Sessions as the networks read them: statistics and means, which need no learning.

Shapes: ``B`` sessions of a batch, ``H`` places of the history, ``d`` dimensions of the embedding
space.
"""

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicbox_agents.ddpg.recency import NUM_MEANS, means_by_age
from musicbox_env.data.summaries import GROUPS, PLAYED, add_to_groups
from musicbox_env.kernels import compiled
from musicbox_env.schema import NUM_LEVELS
from musicbox_env.simulator.observations import CONTEXT_SIZE

HALF_LIVES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 100.0)
"""Songs after which a play counts half, for each of the statistics; the last is plain means."""


class State(NamedTuple):
    """A batch of sessions.

    Attributes:
        statistics: Shares of each listen level, and the mean rate of the songs, under weights that
            halve every `HALF_LIVES` songs; the context; how much of the history there is.
            ``(B, num_statistics)``.
        means: Mean embedding of the songs played, kept and skipped ``(B, 3, d)``, 0 where there is
            none; where order counts, ``(B, 6, d)``, with `recency.means_by_age`. Kept apart since
            they say different things: taste shows in everything that was played, whereas kept minus
            skipped cancels it, because skipped songs share the liked genre. The rate is left at 0:
            that of the songs played says nothing of what is liked.
        heard: Embeddings of the songs, the newest last, with 0 for the rate and where there is none
            ``(B, H, d)``; ``(B, 0, d)`` where order does not count.
    """

    statistics: Tensor
    means: Tensor
    heard: Tensor


def num_statistics(*, rate: bool) -> int:
    """Length of `State.statistics`."""
    return len(HALF_LIVES) * (NUM_LEVELS + rate) + CONTEXT_SIZE + 1


def num_means(*, ordered: bool) -> int:
    """Number of `State.means`."""
    return len(GROUPS) + NUM_MEANS * ordered


def read_sessions(
    space: npt.NDArray[np.float32],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    context: npt.NDArray[np.float32],
    *,
    rate: bool,
    ordered: bool = False,
) -> State:
    """Summarize sessions.

    Args:
        space: Embeddings of all tracks ``(num_tracks, d)``.
        tracks: Songs heard ``(B, H)``, the newest last; anything where padded.
        levels: How far each was heard ``(B, H)``, -1 where padded.
        context: Context features of the observation ``(B, CONTEXT_SIZE)``.
        rate: Whether the last dimension of the embeddings is the songs' rate.
        ordered: Whether the order of the songs counts.
    """
    statistics = np.zeros((len(tracks), num_statistics(rate=rate)), np.float32)
    means = np.zeros((len(tracks), len(GROUPS), space.shape[1]), np.float32)
    weights = _half_life_weights(tracks.shape[1])
    _read_plays(np.asarray(space), tracks, levels, context, weights, rate, statistics, means)
    plain = torch.from_numpy(means)
    heard = embedded(space, tracks if ordered else tracks[:, :0])
    if rate:
        heard[..., -1] = 0
    if ordered:
        plain = torch.cat([plain, means_by_age(heard, torch.from_numpy(levels >= 0))], dim=1)
    return State(torch.from_numpy(statistics), plain, heard)


def embedded(space: npt.NDArray[np.float32], tracks: npt.NDArray[np.integer]) -> Tensor:
    """Embeddings of tracks ``(..., d)``, 0 for -1."""
    vectors = space.take(tracks, axis=0, mode="clip")  # of a mapped file, not a copy
    vectors[tracks < 0] = 0
    return torch.from_numpy(np.asarray(vectors))


@compiled
def _read_plays(
    space: npt.NDArray[np.float32],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    context: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    rate: bool,
    statistics: npt.NDArray[np.float32],
    means: npt.NDArray[np.float32],
) -> None:
    """Fill in statistics and means, which begin at 0."""
    lives, rows = weights.shape[1], NUM_LEVELS + rate
    number = np.zeros((len(tracks), len(GROUPS)), np.float32)
    total = np.empty(lives, np.float32)
    for i in range(len(tracks)):
        total[:] = 0
        for place in range(tracks.shape[1]):
            level, track = levels[i, place], tracks[i, place]
            if level < 0:
                continue
            add_to_groups(i, track, level, space, means, number)
            for life in range(lives):
                total[life] += weights[place, life]
                statistics[i, level * lives + life] += weights[place, life]
                if rate:
                    of_rate = weights[place, life] * space[track, -1]
                    statistics[i, NUM_LEVELS * lives + life] += of_rate
        for row in range(rows if number[i, PLAYED] else 0):
            for life in range(lives):
                statistics[i, row * lives + life] /= total[life]
        for group in range(len(GROUPS)):
            for j in range(space.shape[1] - rate):
                means[i, group, j] /= max(number[i, group], np.float32(1))
            if rate:
                means[i, group, -1] = 0
        for c in range(context.shape[1]):
            statistics[i, rows * lives + c] = context[i, c]
        statistics[i, -1] = number[i, PLAYED] / np.float32(tracks.shape[1])


@cache
def _half_life_weights(length: int) -> npt.NDArray[np.float32]:
    """Weights of the places of a history ``(length, number of half-lives)``, the newest 1."""
    age = np.arange(length - 1, -1, -1)[:, None]
    return (0.5 ** (age / np.array(HALF_LIVES))).astype(np.float32)
