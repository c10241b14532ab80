"""The inner loops of the dynamics: how sessions begin, what may be played, what is observed.

Conventions are those of `musicbox_env.kernels`. Arguments that recur, of m sessions in a batch of
n:

- ``rows``: sessions ``(m,)``
- ``heard``: `History.arrays`
- ``logged``: tracks of the whole logged sessions ``(n, width)``, and which of these plays may still
  be chosen ``(n, width)``
- ``remaining``: songs that each session still hears ``(n,)``
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from musicbox_env.kernels import Floats, Indices, Ints, LogArrays, compiled, holds
from musicbox_env.rng import DRAWS_PER_SONG, LEVEL_DRAW, uniform_number
from musicbox_env.schema import UNHEARD, UNKNOWN, num_shown

Heard = tuple[npt.NDArray[np.int32], npt.NDArray[np.int8], Ints]
Logged = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]

register_jitable(num_shown)


@compiled
def begin_sessions(
    rows: Indices, sessions: Ints, log: LogArrays, heard: Heard, logged: Logged, remaining: Ints
) -> None:
    """Fill in what was heard when sessions begin, and what their log still holds, in place.

    Args:
        rows: Sessions that begin.
        sessions: Logged session of each ``(m,)``.
        log: `SessionLog.replayed`.
        heard: The plays shown, by `schema.num_shown`; changed.
        logged: All plays, those shown no longer to be chosen; changed.
        remaining: How many are not shown; changed.

    Raises:
        ValueError: A row is not in the batch, or a session is not in the log.
    """
    offsets, track_column, level_column = log
    tracks, levels, count = heard
    logged_tracks, held = logged
    right = len(rows) == len(sessions)
    for i in range(len(rows) if right else 0):
        right &= 0 <= rows[i] < len(count) and 0 <= sessions[i] < len(offsets) - 1
    if not right:
        raise ValueError("rows must be in the batch, and sessions in the log, one for each row")
    for i in range(len(rows)):
        row, begin = rows[i], offsets[sessions[i]]
        length = offsets[sessions[i] + 1] - begin
        half = num_shown(length)
        count[row], remaining[row] = half, length - half
        for play in range(tracks.shape[1]):
            tracks[row, play], levels[row, play] = UNKNOWN, UNHEARD
        for play in range(held.shape[1]):
            logged_tracks[row, play], held[row, play] = UNKNOWN, half <= play < length
        for play in range(length):
            logged_tracks[row, play] = track_column[begin + play]
        for play in range(half):
            tracks[row, play] = track_column[begin + play]
            levels[row, play] = level_column[begin + play]


@compiled
def allow_slates(
    rows: Indices,
    playing: npt.NDArray[np.bool_],
    heard_tracks: Indices,
    repeats: bool,
    slates: Ints,
) -> Ints:
    """Replace the songs of slates ``(m, k)`` that may not be played, in place.

    Unless ``repeats``, these are songs that were heard and songs that a slate names twice. Their
    places go, in order, to the most popular songs that are neither heard nor in the slate.

    Args:
        rows: Sessions.
        playing: Which sessions are not over ``(m,)``; slates of the others become -1.
        heard_tracks: Songs that all sessions heard ``(n, capacity)``, -1 for none.
        repeats: Whether all songs may be played.
        slates: Songs chosen, rows of the catalog; changed.

    Returns:
        How many songs of each slate were replaced ``(m,)``.
    """
    wrong = np.zeros(slates.shape[1], np.bool_)
    replaced = np.zeros(len(slates), np.int64)
    for i in range(len(slates)):
        if not playing[i]:
            slates[i, :] = UNKNOWN
        elif not repeats:
            replaced[i] = _replace_forbidden(heard_tracks[rows[i]], slates[i], wrong)
    return replaced


@compiled
def _replace_forbidden(barred: Indices, slate: Ints, wrong: npt.NDArray[np.bool_]) -> int:
    """Replace in one slate what is barred or stands there twice; count it."""
    replaced, popular = 0, 0
    for place in range(len(slate)):
        wrong[place] = holds(barred, slate[place]) or holds(slate[:place], slate[place])
    for place in range(len(slate)):
        if wrong[place]:
            slate[place] = UNKNOWN
    for place in range(len(slate)):
        if wrong[place]:
            while holds(barred, popular) or holds(slate, popular):
                popular += 1
            slate[place] = popular
            replaced += 1
    return replaced


@compiled
def prepare_slates(
    rows: Indices,
    keys: npt.NDArray[np.uint64],
    count: Ints,
    logged: Logged,
    remaining: Ints,
    slates: Ints,
    plays: Ints,
) -> npt.NDArray[np.float64]:
    """Make slates ``(m, k)`` ready to be heard: as far as sessions go, with all that decides.

    Args:
        rows: Sessions.
        keys: Seeds of all sessions' random numbers ``(n,)``.
        count: Songs that all sessions heard ``(n,)``.
        logged: Plays that are taken may no longer be chosen; changed.
        remaining: Songs heard now are taken off; changed.
        slates: Songs in order, -1 for none; what is no longer heard is taken out.
        plays: Logged play that each song is; where it is -1, that is the first of its track that
            the session still holds, if there is one; changed.

    Returns:
        A random number in [0, 1) for the level of each song ``(m, k)``.
    """
    logged_tracks, held = logged
    uniforms = np.zeros(slates.shape)
    for i in range(len(rows)):
        row, heard = rows[i], 0
        for place in range(slates.shape[1]):
            if heard == remaining[row]:
                slates[i, place] = UNKNOWN
            if slates[i, place] < 0:
                plays[i, place] = UNKNOWN
                continue
            if plays[i, place] < 0:
                plays[i, place] = _first_held(logged_tracks[row], held[row], slates[i, place])
            if plays[i, place] >= 0:
                held[row, plays[i, place]] = False
            draw = (count[row] + heard) * DRAWS_PER_SONG + LEVEL_DRAW
            uniforms[i, place] = uniform_number(keys[row], draw)
            heard += 1
        remaining[row] -= heard
    return uniforms


@compiled
def _first_held(logged: Indices, held: npt.NDArray[np.bool_], track: int) -> int:
    """The first play of a track that the session still holds, or -1."""
    if holds(logged, track):
        for play in range(len(logged)):
            if held[play] and logged[play] == track:
                return play
    return UNKNOWN


@compiled
def last_songs(
    rows: Indices, heard: Heard, context: Floats, longest: int, length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8], Floats]:
    """What is observed of sessions: their last songs, their context and position.

    Args:
        rows: Sessions.
        heard: What all sessions heard.
        context: Context features ``(n, c)``.
        longest: Songs of the longest session; the position is their share that was heard.
        length: How many songs are observed.

    Returns:
        The last songs, the newest last, -1 in front, and how far they were heard, both
        ``(m, length)``; the context, the position in its last place ``(m, c)``.

    Raises:
        ValueError: A row is not in the batch.
    """
    tracks, levels, count = heard
    last_tracks = np.full((len(rows), length), UNKNOWN, np.int32)
    last_levels = np.full((len(rows), length), UNHEARD, np.int8)
    last_context = np.empty((len(rows), context.shape[1]), np.float32)
    for i in range(len(rows)):
        row = rows[i]
        if not 0 <= row < len(count):
            raise ValueError("rows must be in the batch")
        for place in range(max(length - count[row], 0), length):
            play = count[row] - length + place
            last_tracks[i, place], last_levels[i, place] = tracks[row, play], levels[row, play]
        for j in range(context.shape[1]):
            last_context[i, j] = context[row, j]
        last_context[i, -1] = min(count[row] / longest, 1.0)
    return last_tracks, last_levels, last_context
