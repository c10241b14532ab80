"""The inner loops of the dynamics: how sessions begin, what may be played, what is observed.

Conventions are those of `musicbox_env.kernels`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from musicbox_env.kernels import Floats, Indices, Ints, LogArrays, compiled, holds
from musicbox_env.rng import DRAWS_PER_SONG, LEVEL_DRAW, uniform_number
from musicbox_env.schema import UNHEARD, UNKNOWN, num_shown

register_jitable(num_shown)


@compiled
def begin_sessions(
    rows: Indices,
    sessions: Ints,
    log: LogArrays,
    heard: tuple[npt.NDArray[np.int32], npt.NDArray[np.int8], Ints],
    remaining: Ints,
    logged: tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]],
) -> None:
    """Fill in what was heard when sessions begin, and what their log still holds, in place.

    Args:
        rows: Sessions of the batch that begin ``(m,)``.
        sessions: Logged session of each ``(m,)``.
        log: `SessionLog.replayed`.
        heard: Tracks and levels heard ``(n, capacity)``, and how many were shown, by
            `schema.num_shown` ``(n,)``; changed.
        remaining: How many are not shown ``(n,)``; changed.
        logged: Tracks of the whole logged sessions, and which of these plays are not shown
            ``(n, width)``; changed.
    """
    offsets, track_column, level_column = log
    tracks, levels, shown = heard
    logged_tracks, held = logged
    for i in range(len(rows)):
        row, begin = rows[i], offsets[sessions[i]]
        length = offsets[sessions[i] + 1] - begin
        half = num_shown(length)
        shown[row], remaining[row] = half, length - half
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
    heard: Indices,
    repeats: bool,
    slates: Ints,
    replaced: Ints,
) -> None:
    """Replace the songs of slates ``(m, k)`` that may not be played, in place.

    Unless ``repeats``, these are songs that were heard and songs that a slate names twice. Their
    places go, in order, to the most popular songs that are neither heard nor in the slate.

    Args:
        rows: Sessions ``(m,)``.
        playing: Which sessions are not over ``(m,)``; slates of the others become -1.
        heard: Songs that all sessions heard ``(n, capacity)``, -1 for none.
        repeats: Whether all songs may be played.
        slates: Songs chosen, rows of the catalog; changed.
        replaced: How many songs of each slate were replaced ``(m,)``; changed.
    """
    wrong = np.zeros(slates.shape[1], np.bool_)
    for i in range(len(slates)):
        slate = slates[i]
        replaced[i] = 0
        if not playing[i]:
            slate[:] = UNKNOWN
        elif not repeats:
            replaced[i] = _replace_forbidden(heard[rows[i]], slate, wrong)


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
    logged_tracks: Indices,
    remaining: Ints,
    held: npt.NDArray[np.bool_],
    slates: Ints,
    plays: Ints,
    uniforms: npt.NDArray[np.float64],
) -> None:
    """Make slates ``(m, k)`` ready to be heard: as far as sessions go, with all that decides.

    Args:
        rows: Sessions ``(m,)``.
        keys: Seeds of all sessions' random numbers ``(n,)``.
        count: Songs that all sessions heard ``(n,)``.
        logged_tracks: Tracks of all logged sessions ``(n, width)``.
        remaining: Songs that each session still hears ``(n,)``; those heard now are taken off.
        held: Which logged plays may still be chosen ``(n, width)``; those taken are no longer.
        slates: Songs in order, -1 for none; what is no longer heard is taken out.
        plays: Logged play that each song is; where it is -1, that is the first of its track that
            the session still holds, if there is one; changed.
        uniforms: A random number in [0, 1) for the level of each song; changed.
    """
    for i in range(len(rows)):
        row, heard = rows[i], 0
        for place in range(slates.shape[1]):
            uniforms[i, place] = 0.0
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


@compiled
def _first_held(logged: Indices, held: npt.NDArray[np.bool_], track: int) -> int:
    """The first play of a track that the session still holds, or -1."""
    if holds(logged, track):
        for play in range(len(logged)):
            if held[play] and logged[play] == track:
                return play
    return UNKNOWN


@compiled
def find_logged(
    slates: Ints,
    plays: Ints,
    answers_from_log: bool,
    logged: npt.NDArray[np.bool_],
    share: npt.NDArray[np.float64],
) -> None:
    """Find the songs heard whose level is the logged one.

    Args:
        slates: Songs, -1 where none was heard ``(m, k)``.
        plays: Logged play that each is, or -1 ``(m, k)``.
        answers_from_log: Whether the listener answers such a song with its logged level.
        logged: Which songs they are ``(m, k)``; changed.
        share: Their share of the songs heard, 0 of none ``(m,)``; changed.
    """
    for i in range(len(slates)):
        heard, found = 0, 0
        for place in range(slates.shape[1]):
            is_heard = slates[i, place] >= 0
            logged[i, place] = is_heard and plays[i, place] >= 0 and answers_from_log
            heard += is_heard
            found += logged[i, place]
        share[i] = found / max(heard, 1)


@compiled
def fill_window(
    rows: Indices,
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    count: Ints,
    context: Floats,
    longest: int,
    last_tracks: npt.NDArray[np.int32],
    last_levels: npt.NDArray[np.int8],
    last_context: Floats,
) -> None:
    """Copy what is observed of sessions ``(m,)``: their last songs, their context and position.

    Args:
        rows: Sessions ``(m,)``.
        tracks: Heard ``(n, capacity)``.
        levels: How far ``(n, capacity)``.
        count: Songs heard ``(n,)``.
        context: Context features ``(n, c)``.
        longest: Songs of the longest session; the position is their share that was heard.
        last_tracks: The last songs ``(m, length)``, the newest last, -1 in front; changed.
        last_levels: How far they were heard, likewise; changed.
        last_context: Context, the position in its last place ``(m, c)``; changed.
    """
    length = last_tracks.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        heard = count[row]
        for place in range(length):
            play = heard - length + place
            last_tracks[i, place] = tracks[row, play] if play >= 0 else UNKNOWN
            last_levels[i, place] = levels[row, play] if play >= 0 else UNHEARD
        for j in range(context.shape[1]):
            last_context[i, j] = context[row, j]
        last_context[i, -1] = min(heard / longest, 1.0)
