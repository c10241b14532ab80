"""Compiled sorting of plays that mostly lie in order already."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import unlocked

BLOCK: Final = 16
"""Rows that are sorted by insertion before blocks are merged."""

Ints = npt.NDArray[np.int64]


@unlocked
def comes_later(one: int, other: int, key: Ints, place: Ints) -> bool:
    """Whether a row belongs behind another, by key and then by place."""
    return key[one] > key[other] or (key[one] == key[other] and place[one] > place[other])


@unlocked
def sort_rows(rows: Ints, key: Ints, place: Ints, spare: Ints) -> None:
    """Sort rows by key and then by place; ``rows`` and as much of ``spare`` are changed."""
    total, width = len(rows), BLOCK
    for low in range(0, total, width):
        for i in range(low + 1, min(low + width, total)):
            row, j = rows[i], i
            while j > low and comes_later(rows[j - 1], row, key, place):
                rows[j] = rows[j - 1]
                j -= 1
            rows[j] = row
    while width < total:
        for low in range(0, total - width, 2 * width):
            middle = low + width
            if comes_later(rows[middle - 1], rows[middle], key, place):
                _merge(rows[low : min(middle + width, total)], width, key, place, spare)
        width *= 2


@unlocked
def _merge(rows: Ints, width: int, key: Ints, place: Ints, spare: Ints) -> None:
    """Merge the first ``width`` rows, which are sorted, with the others; ``rows`` is changed."""
    spare[:width] = rows[:width]
    left, right, to = 0, width, 0
    while left < width:
        if right < len(rows) and comes_later(spare[left], rows[right], key, place):
            rows[to] = rows[right]
            right += 1
        else:
            rows[to] = spare[left]
            left += 1
        to += 1


@unlocked
def end_of_listener(rows: Ints, first: int, user: npt.NDArray[np.int32]) -> int:
    """The place in an order behind the last play of the listener whose first play is given."""
    last = first + 1
    while last < len(rows) and user[rows[last]] == user[rows[first]]:
        last += 1
    return last


def by_listener(user: npt.NDArray[np.int32]) -> Ints:
    """An order in which plays of a listener lie together ``(plays,)``, ascending."""
    if (user[1:] >= user[:-1]).all():
        return np.arange(len(user))
    return np.argsort(user, kind="stable")
