"""Compiled loops that several rooms share, and how kernels are compiled.

A kernel is a function that numba compiles. It loops over sessions and reads as one session would;
numpy would need dozens of passes over short rows in its place. Numba compiles a kernel when it is
first called, which takes seconds once in an installation; the machine code is kept in a folder, see
`cache.kernel_folder`. Kernels of one room lie in that room.

Arrays that are changed come last and are named in the docstring. Nothing is checked here; callers
pass valid rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from musicbox_env.cache import kernel_folder
from musicbox_env.schema import SKIP_THRESHOLD

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Ints = npt.NDArray[np.int64]
Indices = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]
LogArrays = tuple[Ints, npt.NDArray[np.int32], npt.NDArray[np.int8]]


def _kept_on_disk(decorator: Callable[[Kernel], Any], function: Kernel) -> Kernel:
    """Apply one of numba's decorators, the machine code kept in `cache.kernel_folder`.

    Numba reads the folder's name when it decorates; other users of numba keep theirs.
    """
    config: Any = numba.config
    given = config.CACHE_DIR
    config.CACHE_DIR = str(kernel_folder(given))
    try:
        return cast(Kernel, decorator(function))
    finally:
        config.CACHE_DIR = given


def compiled(function: Kernel) -> Kernel:
    """Compile on first use, and keep the machine code on disk."""
    return _kept_on_disk(numba.njit(cache=True), function)


def unlocked(function: Kernel) -> Kernel:
    """As `compiled`, for loops so long that other threads should run beside them."""
    return _kept_on_disk(numba.njit(cache=True, nogil=True), function)


def in_registers(function: Kernel) -> Kernel:
    """Compile, and let sums go in any order and products fuse, as vector registers want it."""
    allowed = {"reassoc", "contract", "nsz"}
    return _kept_on_disk(numba.njit(cache=True, fastmath=allowed, error_model="numpy"), function)


def elementwise(function: Kernel) -> Kernel:
    """Compile a function of numbers into one of arrays that broadcasts."""
    return _kept_on_disk(numba.vectorize(cache=True), function)


@in_registers
def dot(a: Floats, b: Floats) -> float:
    """Dot product in single precision."""
    total: Any = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@compiled
def level_is_skip(level: int) -> bool:
    """`schema.is_skip` of one level."""
    return 0 <= level < SKIP_THRESHOLD


@compiled
def holds(values: Indices, value: int) -> bool:
    """Whether a row of songs holds one."""
    found = False
    for i in range(len(values)):  # to the end: a loop without exits runs in vector registers
        found |= values[i] == value
    return found


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
            before[i, place] = holds(tracks[rows[i]], song) or holds(slates[i, :place], song)
    return before


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
def level_at(shares: Sequence[float] | npt.NDArray[np.float64], uniform: float) -> int:
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
        levels[i] = level_at(probabilities[i], uniforms[i])
    return levels
