"""Summaries of what sessions heard, for listeners, agents and reports.

Arrays are rectangles with a row a session and its songs in the order heard; -1 is no song.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import compiled, heard_before, level_is_skip
from musicbox_env.schema import is_skip

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

GROUPS = ("played", "kept", "skipped")
"""Songs whose vectors are added up; each song is in the first group and in one of the others."""
PLAYED, KEPT, SKIPPED = range(3)
NEUTRAL = 0.5
"""Running mean of the skips before anything was heard."""


def holds(heard: Ints, tracks: Ints) -> npt.NDArray[np.bool_]:
    """Which of the tracks ``(n, c)`` stand in the same row of ``heard`` ``(n, w)``, ``(n, c)``."""
    return (tracks[:, :, None] == heard[:, None, :]).any(axis=2)


def repeats(tracks: Ints) -> npt.NDArray[np.bool_]:
    """Which songs ``(n, w)`` stand at an earlier place of their row; no -1 does."""
    nothing = np.empty((len(tracks), 0), tracks.dtype)
    return heard_before(np.arange(len(tracks)), nothing, tracks) & (tracks >= 0)


def skip_share(levels: npt.NDArray[np.integer], count: Ints) -> Array:
    """Share skipped of each session's first ``count`` plays ``(n,)``.

    Args:
        levels: Listen levels ``(n, w)``.
        count: At least 1 ``(n,)``.
    """
    first = np.arange(levels.shape[1]) < count[:, None]
    share: Array = (is_skip(levels) & first).sum(axis=1) / count
    return share


@compiled
def faded(mean: float, keep: float, value: float) -> float:
    """An exponentially weighted mean that one more value joins; ``keep`` weighs the old mean."""
    return keep * mean + (1.0 - keep) * value


def running_skips(levels: npt.NDArray[np.integer], keep: float) -> Array:
    """`faded` mean of the skips after each play ``(n, w)``, from `NEUTRAL`; -1 changes nothing.

    Args:
        levels: Listen levels ``(n, w)``.
        keep: Weight of the old mean at each play.
    """
    means = np.empty(levels.shape)
    _fill_running(levels, keep, means)
    return means


@compiled
def _fill_running(levels: npt.NDArray[np.integer], keep: float, means: Array) -> None:
    for i in range(len(levels)):
        mean = NEUTRAL
        for place in range(levels.shape[1]):
            if levels[i, place] >= 0:
                mean = faded(mean, keep, level_is_skip(levels[i, place]))
            means[i, place] = mean


def mean_vectors(vectors: Floats, tracks: Ints, counted: npt.NDArray[np.bool_]) -> Array:
    """Mean of the vectors of some of each session's songs ``(n, d)``, 0 where none counts.

    Args:
        vectors: Of all tracks ``(num_tracks, d)``.
        tracks: Songs heard ``(n, w)``.
        counted: Which of them count ``(n, w)``; none that is -1.
    """
    weights = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)
    return np.einsum("nw,nwd->nd", weights, vectors[tracks])


@compiled
def add_to_groups(
    row: int, track: int, level: int, vectors: Floats, sums: Floats, counts: Floats
) -> None:
    """Add a song of a session to its two `GROUPS`, in place.

    Args:
        row: The session.
        track: The song.
        level: How far it was heard.
        vectors: Of all tracks ``(num_tracks, d)``.
        sums: Vectors of the songs of each group, added up ``(n, 3, d)``; changed.
        counts: How many these are ``(n, 3)``; changed.
    """
    group = SKIPPED if level_is_skip(level) else KEPT
    counts[row, PLAYED] += 1
    counts[row, group] += 1
    for j in range(vectors.shape[1]):
        sums[row, PLAYED, j] += vectors[track, j]
        sums[row, group, j] += vectors[track, j]
