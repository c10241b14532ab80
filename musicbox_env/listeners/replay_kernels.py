"""The inner loops of the replay listener: donors and their shares.

Conventions are those of `musicbox_env.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import (
    Floats,
    Indices,
    Ints,
    LogArrays,
    compiled,
    in_registers,
    level_at,
    level_is_skip,
    record_slates,
)
from musicbox_env.schema import NUM_LEVELS, UNHEARD

State = tuple[Floats, npt.NDArray[np.int8], npt.NDArray[np.bool_]]


@compiled
def begin_replay(
    rows: Indices,
    sessions: Ints,
    log: LogArrays,
    embedding: Floats,
    heard: tuple[npt.NDArray[np.int8], Ints],
    state: State,
) -> None:
    """Read logged sessions into the state of the replay listener, in place.

    Args:
        rows: Sessions that begin ``(m,)``.
        sessions: Logged session of each of the batch ``(n,)``.
        log: `SessionLog.replayed`.
        embedding: Of all tracks ``(num_tracks, d)``.
        heard: Levels heard ``(n, capacity)`` and how many ``(n,)``.
        state: `ReplayState.arrays`; changed.
    """
    offsets, track_column, level_column = log
    heard_levels, count = heard
    vectors, levels, skipped = state
    for i in range(len(rows)):
        row = rows[i]
        begin = offsets[sessions[row]]
        length = offsets[sessions[row] + 1] - begin
        for play in range(length):
            track = track_column[begin + play]
            levels[row, play] = level_column[begin + play]
            for j in range(embedding.shape[1]):
                vectors[row, play, j] = embedding[track, j]
        levels[row, length:], vectors[row, length:] = UNHEARD, 0
        skipped[row] = level_is_skip(heard_levels[row, count[row] - 1])


@in_registers
def likeness_to_donors(
    rows: Indices,
    tracks: Indices,
    embedding: Floats,
    vectors: Floats,
    levels: npt.NDArray[np.int8],
    temperature: float,
) -> Floats:
    """``cosine / temperature`` of candidates and donors ``(m, c, width)``, 0 where there is none.

    Args:
        rows: Sessions ``(m,)``.
        tracks: Candidates ``(m, c)``; of what is below 0 the answer means nothing.
        embedding: Of all tracks, unit vectors ``(num_tracks, d)``.
        vectors: Those of the logged plays of all sessions ``(n, width, d)``.
        levels: Their levels ``(n, width)``, -1 where there is none.
        temperature: Above 0.
    """
    alike = np.zeros((*tracks.shape, vectors.shape[1]), np.float32)
    scale, last = np.float32(temperature), tracks.shape[1] - 1
    for i in range(len(rows)):
        donors, of_donors = vectors[rows[i]], levels[rows[i]]
        for first in range(0, tracks.shape[1], 3):  # at a time: a donor is read once for them
            second, third = min(first + 1, last), min(first + 2, last)
            song = embedding[max(tracks[i, first], 0)]
            other = embedding[max(tracks[i, second], 0)]
            another = embedding[max(tracks[i, third], 0)]
            for play in range(vectors.shape[1]):
                if of_donors[play] < 0:
                    continue
                of_song: Any = np.float32(0)
                of_other: Any = np.float32(0)
                of_another: Any = np.float32(0)
                for j in range(vectors.shape[2]):
                    of_song += donors[play, j] * song[j]
                    of_other += donors[play, j] * other[j]
                    of_another += donors[play, j] * another[j]
                alike[i, first, play] = of_song / scale
                alike[i, second, play] = of_other / scale
                alike[i, third, play] = of_another / scale
    return alike


@compiled
def _donor_shares(
    weights: npt.NDArray[np.float32],
    levels: npt.NDArray[np.int8],
    skipped: bool,
    persistence: float,
    sums: npt.NDArray[np.float64],
) -> tuple[float, float, float, float, float]:
    """Sum the donors' weights by their level, 0 to 4; see `ReplayListener`.

    The last argument is room to sum in, ``(1 + levels, 3)``: no donors, and those of each level;
    of the session's first play, and of those after one that was kept or skipped.
    """
    sums[:] = 0
    sums[levels[0] + 1, 0] = weights[0]
    for play in range(1, len(levels)):  # without branches: which way they go, nothing predicts
        sums[levels[play] + 1, 1 + level_is_skip(levels[play - 1])] += weights[play]
    after_keep, after_skip = (1.0, persistence) if skipped else (persistence, 1.0)
    brief = sums[1, 0] + sums[1, 1] * after_keep + sums[1, 2] * after_skip
    short = sums[2, 0] + sums[2, 1] * after_keep + sums[2, 2] * after_skip
    most = sums[3, 0] + sums[3, 1] * after_keep + sums[3, 2] * after_skip
    cut = sums[4, 0] + sums[4, 1] * after_keep + sums[4, 2] * after_skip
    full = sums[5, 0] + sums[5, 1] * after_keep + sums[5, 2] * after_skip
    return brief, short, most, cut, full


@compiled
def replay_probabilities(
    weights: npt.NDArray[np.float32],
    levels: npt.NDArray[np.int8],
    skipped: npt.NDArray[np.bool_],
    persistence: float,
    plays: Indices,
    chances: npt.NDArray[np.float64],
) -> None:
    """Write the answers of the replay listener into ``chances`` ``(m, c, 5)``.

    Args:
        weights: Of candidates by donors, without persistence ``(m, c, width)``.
        levels: Logged levels ``(m, width)``, -1 after the session's end.
        skipped: Whether the song just heard was skipped ``(m,)``.
        persistence: Factor of donors that follow a play like the one just heard.
        plays: Logged play that each candidate is, or -1 ``(m, c)``.
        chances: Probabilities of the levels; changed.
    """
    sums = np.empty((NUM_LEVELS + 1, 3))
    for i in range(len(chances)):
        for c in range(chances.shape[1]):
            answer = chances[i, c]
            if plays[i, c] >= 0:
                answer[:] = 0.0
                answer[levels[i, plays[i, c]]] = 1.0
            else:
                shares = _donor_shares(weights[i, c], levels[i], skipped[i], persistence, sums)
                total = sum(shares)
                for level, share in enumerate(shares):
                    answer[level] = share / total


@compiled
def replay_slates(
    rows: Indices,
    slates: Ints,
    plays: Ints,
    uniforms: npt.NDArray[np.float64],
    weights: Floats,
    persistence: float,
    state: State,
    history: tuple[npt.NDArray[np.int32], npt.NDArray[np.int8], Ints],
) -> npt.NDArray[np.int8]:
    """Levels at which the replay listener hears slates ``(m, k)``, -1 where there is no song.

    Args:
        rows: Sessions ``(m,)``.
        slates: Songs in order, -1 for none ``(m, k)``.
        plays: Logged play that each is, or -1 ``(m, k)``.
        uniforms: A random number in [0, 1) for each ``(m, k)``.
        weights: Of songs by donors, without persistence ``(m, k, width)``.
        persistence: Factor of donors that follow a play like the one just heard.
        state: `ReplayState.arrays`; changed.
        history: `History.arrays`; changed.
    """
    _, logged, skipped = state
    heard = np.full(slates.shape, UNHEARD, np.int8)
    sums = np.empty((NUM_LEVELS + 1, 3))
    for i in range(len(rows)):
        row = rows[i]
        for place in range(slates.shape[1]):
            if slates[i, place] < 0:
                continue
            if plays[i, place] >= 0:
                level = int(logged[row, plays[i, place]])
            else:
                shares = _donor_shares(
                    weights[i, place], logged[row], skipped[row], persistence, sums
                )
                level = level_at(shares, uniforms[i, place])
            heard[i, place] = level
            skipped[row] = level_is_skip(level)
    tracks, levels, count = history
    record_slates(rows, slates, heard, tracks, levels, count)
    return heard
