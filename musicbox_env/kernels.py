"""The inner loops of the dynamics, compiled by numba: what a session does, song by song.

Each kernel loops over sessions and reads as one session would; numpy would need dozens of passes
over short rows in its place. Numba compiles a kernel when it is first called, which takes seconds
once in an installation: the machine code is kept beside this file or in the user's cache.

Arrays that are changed come last and are named in the docstring. Nothing is checked here; callers
pass valid rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from musicbox_env.rng import DRAWS_PER_SONG, LEVEL_DRAW, uniform_number
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD, UNHEARD, UNKNOWN, num_shown

register_jitable(num_shown)

BLOCK_ITEMS = 128
"""Items scored before any of them is looked at: few enough to stay in the processor's cache."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]


def _all_sources() -> str:
    """Digest of the package's code: kernels contain each other, and constants of any file."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


ALL_SOURCES: Final = _all_sources()


def _kept(kernel: Any) -> Any:
    """Let machine code on disk count only for the sources that it was made from.

    Numba goes by the kernel's own file. But the code contains that of the kernels it calls, of
    other files too; left over from another version it would read and write out of bounds.
    """
    file = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if file is not None:  # there is none where compiling is switched off
        file._source_stamp = (file._source_stamp, ALL_SOURCES)
    return kernel


def compiled(function: Kernel) -> Kernel:
    """Compile on first use, and keep the machine code on disk."""
    return cast(Kernel, _kept(numba.njit(cache=True)(function)))


def in_registers(function: Kernel) -> Kernel:
    """Compile, and let sums go in any order and products fuse, as vector registers want it."""
    allowed = {"reassoc", "contract", "nsz"}
    kernel = numba.njit(cache=True, fastmath=allowed, error_model="numpy")(function)
    return cast(Kernel, _kept(kernel))


@in_registers
def dot(a: Floats, b: Floats) -> float:
    """Dot product in single precision."""
    total: Any = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@compiled
def level_is_skip(level: int) -> bool:
    """What `schema.is_skip` says of one level."""
    return 0 <= level < SKIP_THRESHOLD


@compiled
def fill_rows(column: npt.NDArray, first: Ints, count: Ints, rows: npt.NDArray) -> None:
    """Copy ``column[first : first + count]`` to the front of each row of ``rows``, in place."""
    for i in range(len(first)):
        for j in range(count[i]):
            rows[i, j] = column[first[i] + j]


@compiled
def copy_rows(source: npt.NDArray, come: Indices, target: npt.NDArray, go: Indices) -> None:
    """Copy rows ``come`` of one table over the rows ``go`` of another, in place."""
    for i in range(len(come)):
        for j in range(source.shape[1]):
            target[go[i], j] = source[come[i], j]


@compiled
def _holds(values: Indices, value: int) -> bool:
    found = False
    for i in range(len(values)):  # to the end: a loop without exits runs in vector registers
        found |= values[i] == value
    return found


@compiled
def all_in_catalog(slates: Ints, playing: npt.NDArray[np.bool_], num_tracks: int) -> bool:
    """Whether slates ``(m, k)`` of the sessions that are not over ``(m,)`` name tracks alone."""
    for i in range(len(slates)):
        for place in range(slates.shape[1]):
            if playing[i] and not 0 <= slates[i, place] < num_tracks:
                return False
    return True


@compiled
def allow_slates(
    playing: npt.NDArray[np.bool_],
    barred: Indices,
    repeats: bool,
    slates: Ints,
    replaced: Ints,
) -> None:
    """Take slates ``(m, k)`` at their word, but for songs that may not be played.

    Unless ``repeats``, songs that are barred or that a slate names twice are replaced: their
    places go, in order, to the most popular songs that are neither barred nor in the slate.

    Args:
        playing: Which sessions are not over ``(m,)``; slates of the others become -1.
        barred: Songs that each may not be recommended ``(m, b)``, -1 for none.
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
            replaced[i] = _replace_forbidden(barred[i], slate, wrong)


@compiled
def _replace_forbidden(barred: Indices, slate: Ints, wrong: npt.NDArray[np.bool_]) -> int:
    """Replace in one slate what is barred or stands there twice; count it."""
    replaced, popular = 0, 0
    for place in range(len(slate)):
        wrong[place] = _holds(barred, slate[place]) or _holds(slate[:place], slate[place])
    for place in range(len(slate)):
        if wrong[place]:
            slate[place] = UNKNOWN
    for place in range(len(slate)):
        if wrong[place]:
            while _holds(barred, popular) or _holds(slate, popular):
                popular += 1
            slate[place] = popular
            replaced += 1
    return replaced


@compiled
def line_up(
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
    if _holds(logged, track):
        for play in range(len(logged)):
            if held[play] and logged[play] == track:
                return play
    return UNKNOWN


@compiled
def begin_sessions(
    rows: Indices,
    sessions: Ints,
    offsets: Ints,
    track_column: npt.NDArray[np.int32],
    level_column: npt.NDArray[np.int8],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    shown: Ints,
    remaining: Ints,
    logged_tracks: npt.NDArray[np.int32],
    held: npt.NDArray[np.bool_],
) -> None:
    """Fill in what was heard when sessions begin, and what their log still holds, in place.

    Args:
        rows: Sessions of the batch that begin ``(m,)``.
        sessions: Logged session of each ``(m,)``.
        offsets: First play of each logged session in the columns.
        track_column: Tracks of all logged plays.
        level_column: Their levels.
        tracks: Heard ``(n, capacity)``; changed.
        levels: How far ``(n, capacity)``; changed.
        shown: How many that are, by `schema.num_shown` ``(n,)``; changed.
        remaining: How many are not shown ``(n,)``; changed.
        logged_tracks: Of the whole logged sessions ``(n, width)``; changed.
        held: Which of these plays are not shown ``(n, width)``; changed.
    """
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
def fill_context(
    rows: Indices,
    plays: Ints,
    hour: npt.NDArray[np.integer],
    premium: npt.NDArray[np.integer],
    shuffle: npt.NDArray[np.integer],
    context_type: npt.NDArray[np.integer],
    hours: Floats,
    flags: Floats,
    context_types: Floats,
    context: Floats,
) -> None:
    """Look up the context of plays ``(m,)`` for sessions ``(m,)``; see `context_features`.

    Args:
        rows: Sessions ``(m,)``.
        plays: Their place in the columns ``(m,)``.
        hour: A column; -1 is unknown, as in the others.
        premium: A column.
        shuffle: A column.
        context_type: A column.
        hours: Features of each hour ``(25, 2)``, the last those of -1, as in the others.
        flags: Feature of each flag ``(3,)``.
        context_types: Features of each type ``(types + 1, types)``.
        context: Features ``(n, 5 + types)``; changed, the last is 0.
    """
    types = context_types.shape[1]
    for i in range(len(rows)):
        play, of_row = plays[i], context[rows[i]]
        of_row[0], of_row[1] = hours[hour[play], 0], hours[hour[play], 1]
        of_row[2], of_row[3] = flags[premium[play]], flags[shuffle[play]]
        for j in range(types):
            of_row[4 + j] = context_types[context_type[play], j]
        of_row[4 + types] = 0


@compiled
def heard_before(rows: Indices, tracks: Indices, slates: Indices) -> npt.NDArray[np.bool_]:
    """Whether each song of a slate ``(m, k)`` was heard, or stands in the slate before it.

    Args:
        rows: Sessions ``(m,)``.
        tracks: What all sessions heard ``(n, capacity)``, -1 after the last.
        slates: Songs in order.
    """
    before = np.zeros(slates.shape, np.bool_)
    for i in range(len(rows)):
        for place in range(slates.shape[1]):
            song = slates[i, place]
            before[i, place] = _holds(tracks[rows[i]], song) or _holds(slates[i, :place], song)
    return before


@compiled
def discounted_listens(
    levels: npt.NDArray[np.int8],
    discount: npt.NDArray[np.float64],
    listened: npt.NDArray[np.float64],
) -> None:
    """Sum the ``discount`` ``(k,)`` of the songs of each slate ``(m, k)`` that were not skipped."""
    for i in range(len(levels)):
        listened[i] = 0.0
        for place in range(levels.shape[1]):
            if levels[i, place] >= SKIP_THRESHOLD:
                listened[i] += discount[place]


@compiled
def by_level(
    levels: npt.NDArray[np.int8],
    of_levels: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
) -> None:
    """Write what a table of levels from -1 on says of ``levels`` ``(m, k)`` to ``values``."""
    for i in range(levels.shape[0]):
        for place in range(levels.shape[1]):
            values[i, place] = of_levels[levels[i, place] - UNHEARD]


@compiled
def find_logged(
    slates: Ints,
    plays: Ints,
    answers_from_log: bool,
    logged: npt.NDArray[np.bool_],
    share: npt.NDArray[np.float64],
) -> None:
    """Tell which songs heard were answered by the log.

    Args:
        slates: Songs, -1 where none was heard ``(m, k)``.
        plays: Logged play that each is, or -1 ``(m, k)``.
        answers_from_log: Whether the listener answers such a song with its logged level.
        logged: Which songs were ``(m, k)``; changed.
        share: Share of the songs heard that were, 0 of none ``(m,)``; changed.
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
def record_slates(
    rows: Indices,
    slates: Ints,
    slate_levels: npt.NDArray[np.int8],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    count: Ints,
) -> None:
    """Add what was heard of the slates to ``tracks``, ``levels`` and ``count``, in place."""
    for i in range(len(rows)):
        row = rows[i]
        for place in range(slates.shape[1]):
            if slate_levels[i, place] >= 0:
                tracks[row, count[row]] = slates[i, place]
                levels[row, count[row]] = slate_levels[i, place]
                count[row] += 1


@compiled
def look_back(
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


@compiled
def begin_replay(
    rows: Indices,
    sessions: Ints,
    offsets: Ints,
    track_column: npt.NDArray[np.int32],
    level_column: npt.NDArray[np.int8],
    embedding: Floats,
    heard_levels: npt.NDArray[np.int8],
    count: Ints,
    vectors: Floats,
    levels: npt.NDArray[np.int8],
    skipped: npt.NDArray[np.bool_],
) -> None:
    """Read logged sessions into the state of the replay listener, in place.

    Args:
        rows: Sessions that begin ``(m,)``.
        sessions: Logged session of each of the batch ``(n,)``.
        offsets: First play of each logged session in the columns.
        track_column: Tracks of all logged plays.
        level_column: Their levels.
        embedding: Of all tracks ``(num_tracks, d)``.
        heard_levels: Levels heard ``(n, capacity)``.
        count: Songs heard ``(n,)``.
        vectors: Of the logged plays ``(n, width, d)``, 0 after the session's end; changed.
        levels: Their levels ``(n, width)``, -1 after the session's end; changed.
        skipped: Whether the last song heard was skipped ``(n,)``; changed.
    """
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
    weights: npt.NDArray[np.float32],
    logged: npt.NDArray[np.int8],
    persistence: float,
    skipped: npt.NDArray[np.bool_],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    count: Ints,
) -> npt.NDArray[np.int8]:
    """Levels at which the replay listener hears slates ``(m, k)``, -1 where there is no song.

    Args:
        rows: Sessions ``(m,)``.
        slates: Songs in order, -1 for none ``(m, k)``.
        plays: Logged play that each is, or -1 ``(m, k)``.
        uniforms: A random number in [0, 1) for each ``(m, k)``.
        weights: Of songs by donors, without persistence ``(m, k, width)``.
        logged: Logged levels of all sessions ``(n, width)``.
        persistence: Factor of donors that follow a play like the one just heard.
        skipped: Whether the song just heard was skipped, of all sessions ``(n,)``; changed.
        tracks: What all sessions heard ``(n, capacity)``; changed.
        levels: How far ``(n, capacity)``; changed.
        count: How many songs that is ``(n,)``; changed.
    """
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
                level = _level_at(shares, uniforms[i, place])
            heard[i, place] = level
            skipped[row] = level_is_skip(level)
    record_slates(rows, slates, heard, tracks, levels, count)
    return heard


@compiled
def _level_at(shares: Sequence[float] | npt.NDArray[np.float64], uniform: float) -> int:
    """Invert one distribution over levels, whatever it sums to."""
    total = 0.0
    for share in shares:
        total += share
    level, reached, target = 0, 0.0, uniform * total
    for share in shares[:-1]:
        reached += share
        level += target >= reached
    return level


@compiled
def sample_levels(
    probabilities: npt.NDArray[np.float64], uniforms: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """See `listeners.sample_levels`."""
    levels = np.empty(len(uniforms), np.int8)
    for i in range(len(uniforms)):
        levels[i] = _level_at(probabilities[i], uniforms[i])
    return levels


@compiled
def best_items(
    points: Floats,
    items: Floats,
    barred: Ints,
    rows: Ints,
    scores: Floats,
) -> bool:
    """Find the items of highest dot product with each point in one pass over them.

    Args:
        points: ``(q, d)``.
        items: ``(n, d)``.
        barred: Items that a point may not have ``(q, b)``, -1 for none.
        rows: The best items, best first, ties to the lower row ``(q, k)``; changed.
        scores: Their scores ``(q, k)``; changed, -inf before.

    Returns:
        Whether all scores are numbers.
    """
    sound, last = True, rows.shape[1] - 1
    block = np.empty(BLOCK_ITEMS, np.float32)
    for i in range(len(points)):
        best, who = scores[i], rows[i]
        for start in range(0, len(items), BLOCK_ITEMS):
            here = block[: len(items) - start]
            _score(points[i], items[start : start + BLOCK_ITEMS], here)
            if _all_at_most(here, best[last]):
                continue
            for item in range(start, start + len(here)):
                score = here[item - start]
                if score > best[last] and not _holds(barred[i], item):
                    _enter(item, score, who, best)
                elif score != score:
                    sound = False
    return sound


@compiled
def best_in_lists(
    points: Floats,
    items: Floats,
    starts: Ints,
    filed: Indices,
    lists: Indices,
    barred: Ints,
    rows: Ints,
) -> None:
    """Find the items of highest dot product with each point among those of some lists.

    Args:
        points: ``(q, d)``.
        items: ``(n, d)``.
        starts: Where each list begins in ``filed``, and the last ends ``(lists + 1,)``.
        filed: Items of all lists ``(n,)``.
        lists: Lists that each point looks into ``(q, p)``.
        barred: Items that a point may not have ``(q, b)``, -1 for none.
        rows: The best items, -1 before ``(q, k)``; changed.
    """
    last = rows.shape[1] - 1
    best = np.empty(rows.shape[1], np.float32)
    for i in range(len(points)):
        best[:] = -np.inf
        for number in lists[i]:
            for item in filed[starts[number] : starts[number + 1]]:
                score = dot(points[i], items[item])
                if score > best[last] and not _holds(barred[i], item):
                    _enter(item, score, rows[i], best)


@in_registers
def summarize_lists(
    items: Floats, starts: Ints, filed: Indices, lists: Indices, mean: Floats, variance: Floats
) -> None:
    """Mean and variance of the items of some lists along each axis, in place.

    Args:
        items: ``(n, d)``.
        starts: Where each list begins in ``filed``, and the last ends ``(lists + 1,)``.
        filed: Items of all lists ``(n,)``.
        lists: Numbers of the lists that are looked at ``(m,)``.
        mean: Of the items of all lists ``(lists, d)``, 0 of none; changed.
        variance: Likewise ``(lists, d)``; changed.
    """
    for number in lists:
        mean[number], variance[number] = 0, 0
        within = filed[starts[number] : starts[number + 1]]
        for item in within:
            for j in range(items.shape[1]):
                mean[number, j] += items[item, j] / len(within)
        for item in within:
            for j in range(items.shape[1]):
                variance[number, j] += (items[item, j] - mean[number, j]) ** 2 / len(within)


@in_registers
def promise_of_lists(points: Floats, mean: Floats, variance: Floats, deviations: float) -> Floats:
    """What the best item of each list may score ``(q, lists)``.

    Args:
        points: ``(q, d)``.
        mean: Of the lists' items ``(lists, d)``.
        variance: Of them ``(lists, d)``.
        deviations: Standard deviations of the scores that are added to their mean.
    """
    promise = np.empty((len(points), len(mean)), np.float32)
    for i in range(len(points)):
        for number in range(len(mean)):
            score: Any = np.float32(0)
            spread: Any = np.float32(0)
            for j in range(points.shape[1]):
                score += points[i, j] * mean[number, j]
                spread += points[i, j] ** 2 * variance[number, j]
            promise[i, number] = score + deviations * np.sqrt(spread)
    return promise


@in_registers
def _score(point: Floats, items: Floats, scores: Floats) -> None:
    """Dot products of a point and items, four at a time: each number of the point is read once."""
    fours = len(items) - len(items) % 4
    for item in range(0, fours, 4):
        first: Any = np.float32(0)
        second: Any = np.float32(0)
        third: Any = np.float32(0)
        fourth: Any = np.float32(0)
        for j in range(len(point)):
            first += point[j] * items[item, j]
            second += point[j] * items[item + 1, j]
            third += point[j] * items[item + 2, j]
            fourth += point[j] * items[item + 3, j]
        scores[item], scores[item + 1] = first, second
        scores[item + 2], scores[item + 3] = third, fourth
    for item in range(fours, len(items)):
        scores[item] = dot(point, items[item])


@in_registers
def score_exactly(points: Floats, items: npt.NDArray, rows: Indices) -> Floats:
    """Dot products of points and their own items ``(q, m)``, -inf where the row is -1.

    They are summed in double precision, and the same wherever an item stands.

    Args:
        points: ``(q, d)``.
        items: ``(n, d)``.
        rows: ``(q, m)``.
    """
    scores = np.full(rows.shape, -np.inf, np.float32)
    for i in range(len(points)):
        for m in range(rows.shape[1]):
            if rows[i, m] >= 0:
                total = 0.0
                for j in range(points.shape[1]):
                    total += np.float64(points[i, j]) * np.float64(items[rows[i, m], j])
                scores[i, m] = total
    return scores


@in_registers
def largest_norms(items: npt.NDArray, rows: Indices) -> npt.NDArray[np.float64]:
    """The largest squared norm of the items ``(n, d)`` in each row of ``rows`` ``(q, m)``."""
    largest = np.zeros(len(rows))
    for i in range(len(rows)):
        for m in range(rows.shape[1]):
            square = 0.0
            for j in range(items.shape[1]):
                square += np.float64(items[rows[i, m], j]) ** 2
            largest[i] = max(largest[i], square)
    return largest


@compiled
def _all_at_most(scores: Floats, limit: float) -> bool:
    """Whether no score is above the limit, or no number; to the end, as `_holds`."""
    low = True
    for score in scores:
        low &= score <= limit
    return low


@compiled
def _enter(item: int, score: float, rows: Ints, scores: Floats) -> None:
    """Put an item in its place among the best; the last one falls out."""
    place = len(rows) - 1
    while place > 0 and score > scores[place - 1]:
        scores[place], rows[place] = scores[place - 1], rows[place - 1]
        place -= 1
    scores[place], rows[place] = score, item
