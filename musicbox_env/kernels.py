"""The inner loops of the dynamics, compiled by numba: what a session does, song by song.

Each kernel loops over sessions and reads as one session would; numpy would need dozens of passes
over short rows in its place. Numba compiles a kernel when it is first called, which takes seconds
once in an installation: the machine code is kept beside this file or in the user's cache.

Arrays that are changed come last and are named in the docstring. Nothing is checked here; callers
pass valid rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from musicbox_env.schema import SKIP_THRESHOLD, UNHEARD, UNKNOWN

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]


def compiled(function: Kernel) -> Kernel:
    """Compile on first use, and keep the machine code on disk."""
    return cast(Kernel, numba.njit(cache=True)(function))


def in_registers(function: Kernel) -> Kernel:
    """Compile, and let sums go in any order and products fuse, as vector registers want it."""
    allowed = {"reassoc", "contract", "nsz"}
    return cast(Kernel, numba.njit(cache=True, fastmath=allowed, error_model="numpy")(function))


@in_registers
def dot(a: Floats, b: Floats) -> float:
    """Dot product in single precision."""
    total: Any = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@in_registers
def tanh(x: Any) -> Any:
    """Hyperbolic tangent in single precision, to 3e-7: Eigen's rational function of x.

    Unlike a library's function it is computed for a whole vector register at once.
    """
    x = min(max(np.float32(x), np.float32(-7.90531)), np.float32(7.90531))
    y = x * x
    p = y * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
    p = p * y + np.float32(-8.60467152213735e-11)
    p = p * y + np.float32(5.12229709037114e-08)
    p = p * y + np.float32(1.48572235717979e-05)
    p = p * y + np.float32(6.37261928875436e-04)
    p = p * y + np.float32(4.89352455891786e-03)
    q = y * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
    q = q * y + np.float32(2.26843463243900e-03)
    q = q * y + np.float32(4.89352518554385e-03)
    return x * p / q


@in_registers
def gru_step(
    of_input: Floats,
    of_memory: Floats,
    input_bias: Floats,
    memory_bias: Floats,
    memory: Floats,
    following: Floats,
) -> None:
    """One step of the gated recurrent units of M networks (Cho et al., arXiv:1406.1078).

    ::

        r = sigmoid(W_r x + b_r + U_r h + c_r)
        u = sigmoid(W_u x + b_u + U_u h + c_u)
        n = tanh(W_n x + b_n + r * (U_n h + c_n))
        h = u * h + (1 - u) * n

    Args:
        of_input: ``W x`` ``(M, n, 3 H)``, in the order r, u, n.
        of_memory: ``U h`` ``(M, n, 3 H)``.
        input_bias: ``b`` ``(M, 3 H)``.
        memory_bias: ``c`` ``(M, 3 H)``.
        memory: ``h`` before ``(n, M, H)``.
        following: ``h`` after ``(n, M, H)``; changed.
    """
    x, m, b, c, size = of_input, of_memory, input_bias, memory_bias, memory.shape[2]
    half = np.float32(0.5)  # sigmoid(z) = (1 + tanh(z / 2)) / 2
    for net in range(memory.shape[1]):
        for i in range(len(memory)):
            for j in range(size):
                of_r = x[net, i, j] + b[net, j] + m[net, i, j] + c[net, j]
                of_u = x[net, i, size + j] + b[net, size + j]
                of_u += m[net, i, size + j] + c[net, size + j]
                of_n = m[net, i, 2 * size + j] + c[net, 2 * size + j]
                r, u = half + half * tanh(half * of_r), half + half * tanh(half * of_u)
                n = tanh(x[net, i, 2 * size + j] + b[net, 2 * size + j] + r * of_n)
                following[i, net, j] = n + u * (memory[i, net, j] - n)


@in_registers
def gru_factors(
    of_input: Floats,
    of_memory: Floats,
    input_bias: Floats,
    memory_bias: Floats,
    memory: Floats,
    factors: Floats,
) -> None:
    """Derivatives of `gru_step`, of one network, by what goes into it.

    Args:
        of_input: ``W x`` ``(n, 3 H)``, in the order r, u, n.
        of_memory: ``U h`` ``(n, 3 H)``.
        input_bias: ``b`` ``(3 H,)``.
        memory_bias: ``c`` ``(3 H,)``.
        memory: ``h`` before ``(n, H)``.
        factors: Of the new h ``(n, 5, H)`` by ``U h``, in its order; by ``W_n x``, the others of
            ``W x`` being those of ``U h``; and by h before, but for what goes through ``U h``;
            changed.
    """
    size, half, one = memory.shape[1], np.float32(0.5), np.float32(1)
    r, u, n, of_n = np.empty((4, size), np.float32)
    for i in range(len(memory)):  # loops that write one array each stay in vector registers
        x, m, h, into = of_input[i], of_memory[i], memory[i], factors[i]
        for j in range(size):
            r[j] = half + half * tanh(half * (x[j] + input_bias[j] + m[j] + memory_bias[j]))
        for j in range(size):
            k = size + j
            u[j] = half + half * tanh(half * (x[k] + input_bias[k] + m[k] + memory_bias[k]))
        for j in range(size):
            of_n[j] = m[2 * size + j] + memory_bias[2 * size + j]
        for j in range(size):
            n[j] = tanh(x[2 * size + j] + input_bias[2 * size + j] + r[j] * of_n[j])
        for j in range(size):
            into[3, j] = (one - u[j]) * (one - n[j] * n[j])
        for j in range(size):
            into[0, j] = (one - u[j]) * (one - n[j] * n[j]) * of_n[j] * r[j] * (one - r[j])
        for j in range(size):
            into[1, j] = (h[j] - n[j]) * u[j] * (one - u[j])
        for j in range(size):
            into[2, j] = (one - u[j]) * (one - n[j] * n[j]) * r[j]
        for j in range(size):
            into[4, j] = u[j]


@compiled
def fill_rows(column: npt.NDArray, first: Ints, count: Ints, rows: npt.NDArray) -> None:
    """Copy ``column[first : first + count]`` to the front of each row of ``rows``, in place."""
    for i in range(len(first)):
        for j in range(count[i]):
            rows[i, j] = column[first[i] + j]


@compiled
def _holds(values: Indices, value: int) -> bool:
    found = False
    for i in range(len(values)):  # to the end: a loop without exits runs in vector registers
        found |= values[i] == value
    return found


@compiled
def replace_forbidden(rows: Indices, tracks: Indices, count: Ints, slates: Ints) -> Ints:
    """Replace songs that were heard or that a slate names twice, in ``slates`` ``(m, k)``.

    Their places go, in order, to the most popular songs that are neither heard nor in the slate.

    Args:
        rows: Sessions ``(m,)``.
        tracks: What all sessions heard ``(n, capacity)``.
        count: How many songs that is ``(n,)``.
        slates: Songs chosen; changed.

    Returns:
        How many songs of each slate were replaced ``(m,)``.
    """
    replaced = np.zeros(len(rows), np.int64)
    wrong = np.zeros(slates.shape[1], np.bool_)
    for i in range(len(rows)):
        slate, heard = slates[i], tracks[rows[i], : count[rows[i]]]
        for place in range(len(slate)):
            wrong[place] = _holds(heard, slate[place]) or _holds(slate[:place], slate[place])
        for place in range(len(slate)):
            if wrong[place]:
                slate[place] = UNKNOWN
        popular = 0
        for place in range(len(slate)):
            if wrong[place]:
                while _holds(heard, popular) or _holds(slate, popular):
                    popular += 1
                slate[place] = popular
                replaced[i] += 1
    return replaced


@compiled
def cut_short(rows: Indices, remaining: Ints, slates: Ints) -> Ints:
    """Take out of ``slates`` ``(m, k)`` what is no longer heard, in place.

    Args:
        rows: Sessions ``(m,)``.
        remaining: Songs that each session still hears ``(n,)``; those heard now are taken off.
        slates: Songs in order, -1 for none; changed.

    Returns:
        How many songs of the slate are heard before each ``(m, k)``.
    """
    before = np.zeros(slates.shape, np.int64)
    for i in range(len(rows)):
        heard = 0
        for place in range(slates.shape[1]):
            before[i, place] = heard
            if heard == remaining[rows[i]]:
                slates[i, place] = UNKNOWN
            if slates[i, place] >= 0:
                heard += 1
        remaining[rows[i]] -= heard
    return before


@compiled
def begin_sessions(
    rows: Indices,
    first: Ints,
    lengths: Ints,
    shown: Ints,
    track_column: npt.NDArray[np.int32],
    level_column: npt.NDArray[np.int8],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    logged_tracks: npt.NDArray[np.int32],
    held: npt.NDArray[np.bool_],
) -> None:
    """Fill in what was heard when sessions begin, and what their log still holds, in place.

    Args:
        rows: Sessions of the batch that begin ``(m,)``.
        first: First play of the logged session of each, in the columns ``(m,)``.
        lengths: Its plays ``(m,)``.
        shown: How many of them are shown ``(m,)``.
        track_column: Tracks of all logged plays.
        level_column: Their levels.
        tracks: Heard ``(n, capacity)``; changed.
        levels: How far ``(n, capacity)``; changed.
        logged_tracks: Of the whole logged sessions ``(n, width)``; changed.
        held: Which of these plays are not shown ``(n, width)``; changed.
    """
    for i in range(len(rows)):
        row, begin, length, seen = rows[i], first[i], lengths[i], shown[i]
        for play in range(tracks.shape[1]):
            tracks[row, play] = track_column[begin + play] if play < seen else UNKNOWN
            levels[row, play] = level_column[begin + play] if play < seen else UNHEARD
        for play in range(held.shape[1]):
            logged_tracks[row, play] = track_column[begin + play] if play < length else UNKNOWN
            held[row, play] = seen <= play < length


@compiled
def take_plays(
    rows: Indices,
    slates: Ints,
    logged_tracks: Indices,
    held: npt.NDArray[np.bool_],
) -> Ints:
    """Find the logged play that each song is; from then on it is no longer ``held``.

    Args:
        rows: Sessions ``(m,)``.
        slates: Songs ``(m, k)``, -1 for none.
        logged_tracks: Tracks of all logged sessions ``(n, width)``.
        held: Which of these plays may still be chosen ``(n, width)``; changed.

    Returns:
        The first play of that track that was still held ``(m, k)``, or -1.
    """
    plays = np.full(slates.shape, UNKNOWN, np.int64)
    for i in range(len(rows)):
        row = rows[i]
        for place in range(slates.shape[1]):
            if not _holds(logged_tracks[row], slates[i, place]):
                continue
            for play in range(held.shape[1]):
                if held[row, play] and logged_tracks[row, play] == slates[i, place]:
                    plays[i, place] = play
                    held[row, play] = False
                    break
    return plays


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
def shares_logged(slates: Indices, logged: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Share of the songs heard ``(m, k)``, -1 for none, that are ``logged``; 0 of none."""
    shares = np.zeros(len(slates))
    for i in range(len(slates)):
        heard = 0
        for place in range(slates.shape[1]):
            heard += slates[i, place] >= 0
            shares[i] += logged[i, place]
        shares[i] /= max(heard, 1)
    return shares


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
def last_songs(
    rows: Indices,
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    count: Ints,
    length: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
    """The last ``length`` songs of each session ``(m, length)``, the newest last, -1 in front."""
    last_tracks = np.full((len(rows), length), UNKNOWN, np.int32)
    last_levels = np.full((len(rows), length), UNHEARD, np.int8)
    for i in range(len(rows)):
        row = rows[i]
        for back in range(1, min(length, count[row]) + 1):
            last_tracks[i, length - back] = tracks[row, count[row] - back]
            last_levels[i, length - back] = levels[row, count[row] - back]
    return last_tracks, last_levels


@compiled
def _is_skip(level: int) -> bool:
    return 0 <= level < SKIP_THRESHOLD


@compiled
def _donor_shares(
    weights: npt.NDArray[np.float32],
    levels: npt.NDArray[np.int8],
    skipped: bool,
    persistence: float,
    shares: npt.NDArray[np.float64],
) -> None:
    """Sum the donors' weights by their level into ``shares`` ``(5,)``; see `ReplayListener`."""
    shares[:] = 0.0
    for play in range(len(levels)):
        if levels[play] < 0:
            break
        alike = play > 0 and _is_skip(levels[play - 1]) == skipped
        shares[levels[play]] += weights[play] * (persistence if alike else 1.0)


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
    for i in range(len(chances)):
        for c in range(chances.shape[1]):
            answer = chances[i, c]
            if plays[i, c] >= 0:
                answer[:] = 0.0
                answer[levels[i, plays[i, c]]] = 1.0
            else:
                _donor_shares(weights[i, c], levels[i], skipped[i], persistence, answer)
                answer /= answer.sum()


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
    """
    heard = np.full(slates.shape, UNHEARD, np.int8)
    shares = np.zeros(5)
    for i in range(len(rows)):
        row = rows[i]
        for place in range(slates.shape[1]):
            if slates[i, place] < 0:
                continue
            if plays[i, place] >= 0:
                level = int(logged[row, plays[i, place]])
            else:
                _donor_shares(weights[i, place], logged[row], skipped[row], persistence, shares)
                level = _level_at(shares, uniforms[i, place])
            heard[i, place] = level
            skipped[row] = _is_skip(level)
    return heard


@compiled
def _level_at(shares: npt.NDArray[np.float64], uniform: float) -> int:
    """Invert the distribution over levels, as `listeners.sample_levels` does."""
    target = uniform * shares.sum()
    level, reached = 0, shares[0]
    while level < len(shares) - 1 and target >= reached:
        level += 1
        reached += shares[level]
    return level


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
    sound = True
    for i in range(len(points)):
        best, who, last = scores[i], rows[i], rows.shape[1] - 1
        for item in range(len(items)):
            score = dot(points[i], items[item])
            if score > best[last] and not _holds(barred[i], item):
                place = last
                while place > 0 and score > best[place - 1]:
                    best[place], who[place] = best[place - 1], who[place - 1]
                    place -= 1
                best[place], who[place] = score, item
            elif score != score:
                sound = False
    return sound
