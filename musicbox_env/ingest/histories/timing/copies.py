"""Rows that tell a play once more, in the same words or at another time.

Services tell a play twice some seconds apart, and archives list the plays of other archives. One
listener hears a song once at a time, so that a second row of a song that cannot be another play is
a copy of the first. Each is counted, and none becomes a second player or a skip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.levels import ended_itself
from musicbox_env.ingest.histories.timing.clock import (
    AT_ONCE_MS,
    CLOCK_MS,
    Clock,
    changes,
    on_two_devices,
    sorted_by_start,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.spelling.precision import SECOND
from musicbox_env.kernels import compiled
from musicbox_env.schema import UNKNOWN

AGAIN_MS: Final = 30_000
"""How far apart the times of a play are that is told twice."""
NEAR_MS: Final = 5 * 60_000
"""How far apart rows of a song are of which one is a copy since it overlaps other plays."""


def without_duplicates(listens: Listens) -> tuple[Listens, int]:
    """Leave out plays that are listed twice, the later row each time; also returns how many.

    Twice is the same user, song, moment and time heard, and no other start told. Times exact to
    the minute are those of an archive that may list the plays of another archive, exact to the
    second, once more: there the minute counts.
    """
    minute = listens["time"] // 60_000
    alike = np.zeros(len(listens), np.bool_)
    user, song, ms = (np.ascontiguousarray(listens[name]) for name in ("user", "song", "ms"))
    _mark_alike(user, song, ms, minute, alike)
    rows = np.flatnonzero(alike)
    if not len(rows):
        return listens, 0
    kept = np.ones(len(listens), np.bool_)
    kept[rows[_told_again(listens.take(rows), minute[rows])]] = False
    return listens.compress(kept), int((~kept).sum())


@compiled
def _empty_table(number: int) -> npt.NDArray[np.int32]:
    """A hash table of rows with room for so many, -1 where there is none; a power of 2."""
    size = 16
    while size < 2 * number:
        size *= 2
    return np.full(size, -1, np.int32)


@compiled
def _mark_alike(
    user: npt.NDArray[np.int32],
    song: npt.NDArray[np.int32],
    ms: npt.NDArray[np.int32],
    minute: npt.NDArray[np.int64],
    alike: npt.NDArray[np.bool_],
) -> None:
    """Mark plays that agree with another in all columns; ``alike`` is changed."""
    last = _empty_table(len(song))
    size = len(last)
    for i in range(len(song)):
        key = ((minute[i] * 31 + user[i]) * 1_000_003 + song[i]) * 1_000_003 + ms[i]
        slot = ((key * 2654435761) >> 16) & (size - 1)
        j = last[slot]
        while j >= 0 and not (
            song[j] == song[i] and minute[j] == minute[i] and ms[j] == ms[i] and user[j] == user[i]
        ):
            slot = (slot + 1) & (size - 1)
            j = last[slot]
        if j >= 0:
            alike[i] = alike[j] = True
        last[slot] = i


def _told_again(listens: Listens, minute: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows of these plays that list one of them again."""
    user, song, ms = (listens[name] for name in ("user", "song", "ms"))
    time, exactness = listens["time"], listens["resolution"]
    # Of two rows alike the one that tells more stays.
    began = np.where(listens["began"] > 0, listens["began"], np.iinfo(np.int64).max)
    order = np.lexsort((listens["order"], began, time, exactness, minute, ms, song, user))
    began, time, exactness = began[order], time[order], exactness[order]
    new = changes(user[order], song[order], ms[order], minute[order])
    finest = np.minimum.reduceat(exactness, np.flatnonzero(new))[np.cumsum(new) - 1]
    # Noted at one moment, as when a device comes back to the network, but begun at several.
    apart = np.zeros(len(listens), np.bool_)
    apart[1:] = (listens["began"][order][1:] > 0) & (began[1:] - began[:-1] > AT_ONCE_MS)
    again = ~(new | apart | changes(time, exactness)) | (exactness > finest)
    return order[again]


def without_copies(listens: Listens) -> tuple[Listens, int]:
    """Leave out rows that tell a play once more at another time; also returns how many.

    Of two rows of a song, one after the other and on no two devices, one is a copy if

    1. they overlap for more than half of the shorter one,
    2. both tell the same start,
    3. both were cut at the same millisecond within `AGAIN_MS`, or
    4. they were heard equally long within `NEAR_MS`, and one of them alone overlaps other plays.

    The one that overlaps no other play stays, or else that which was heard longest. What is a copy
    by its overlap with others is told after all other copies are gone.
    """
    total = len(listens)
    clock = Clock.of(listens, np.zeros(len(listens), np.int32))
    order, lie_so = sorted_by_start(listens, clock)
    if not lie_so:
        listens, clock = listens.take(order), clock.take(order)
    rows = _near_others(listens, clock)
    for linked in (_same_play, _one_crowded):
        copies = rows[_copies(listens.take(rows), clock.take(rows), linked)] if len(rows) else rows
        if len(copies):
            kept = np.setdiff1d(np.arange(len(listens)), copies)
            listens, clock = listens.take(kept), clock.take(kept)
            rows = _near_others(listens, clock)
    return listens, total - len(listens)


def _copies(
    listens: Listens, clock: Clock, linked: Callable[..., npt.NDArray[np.bool_]]
) -> npt.NDArray[np.int64]:
    """Rows of these plays that are copies, each but the best of those that ``linked`` links."""
    order = np.lexsort((listens["order"], clock.start, listens["song"], listens["user"]))
    shared = _shared_time(listens, clock)[order]
    of, clock = listens.take(order), clock.take(order)
    copy = linked(of, clock, shared > CLOCK_MS + of["resolution"])
    copy &= ~changes(of["user"], of["song"])[1:] & ~on_two_devices(of)
    told = np.cumsum(np.concatenate([[True], ~copy]))
    crowded = shared > np.minimum(AT_ONCE_MS + of["resolution"], of["ms"] // 2)
    best = np.lexsort((np.arange(len(told)), -of["ms"], crowded, told))
    return order[best[~changes(told[best])]]


def _near_others(listens: Listens, clock: Clock) -> npt.NDArray[np.int64]:
    """Rows whose song the listener plays again so soon that one may be a copy of the other.

    Those before and behind each of them are with them, since they may overlap it.

    Args:
        listens: Plays ``(plays,)`` by user and start.
        clock: When they were.
    """
    user, song = np.ascontiguousarray(listens["user"]), np.ascontiguousarray(listens["song"])
    again = np.zeros(len(listens), np.bool_)
    _mark_again(user, song, clock.start, clock.end, again)
    if not again.any():
        return np.arange(0)
    first = changes(user, song)
    number, begins = np.cumsum(first) - 1, np.append(np.flatnonzero(first), len(first))
    rows = np.flatnonzero(again)
    beside = np.concatenate([rows, begins[number[rows]] - 1, begins[number[rows] + 1]])
    return np.unique(beside[(beside >= 0) & (beside < len(first))])


@compiled
def _mark_again(
    user: npt.NDArray[np.int32],
    song: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    again: npt.NDArray[np.bool_],
) -> None:
    """Mark plays that the user's last or next play of the song is near to; ``again`` is changed."""
    last = _empty_table(len(song))
    size = len(last)
    for i in range(len(song)):
        slot = (np.int64(song[i]) * 2654435761) & (size - 1)
        while last[slot] >= 0 and song[last[slot]] != song[i]:
            slot = (slot + 1) & (size - 1)
        j = last[slot]
        near = j >= 0 and start[i] - start[j] <= max(NEAR_MS, end[j] - start[j])
        if near and user[j] == user[i]:
            again[i] = again[j] = True
        last[slot] = i


def _same_play(of: Listens, clock: Clock, crowded: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Rules 1 to 3 of `without_copies` for neighbours, ``(plays - 1,)``."""
    ms, began = of["ms"].astype(np.int64), of["began"]
    slack = np.maximum(clock.slack[1:], clock.slack[:-1])
    overlap = _overlaps_in_any_order(clock)
    allowed = np.where(_alike(ms), slack, clock.tolerated())
    copy = overlap > np.maximum(allowed, np.minimum(ms[1:], ms[:-1]) // 2)
    copy |= (began[1:] == began[:-1]) & (of["time"] == began)[1:] & (of["time"] == began)[:-1]
    cut_alike = (slack <= SECOND) & (ms[1:] == ms[:-1]) & (ms[1:] > 0) & (ms[1:] % 1_000 > 0)
    repeated = ended_itself(of)[1:]
    repeated |= (of["reason_end"][1:] == UNKNOWN) & (np.abs(overlap) <= AT_ONCE_MS)
    return copy | (cut_alike & (clock.start[1:] - clock.start[:-1] <= AGAIN_MS) & ~repeated)


def _one_crowded(
    of: Listens, clock: Clock, crowded: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Rule 4 of `without_copies` for neighbours, ``(plays - 1,)``."""
    near = clock.start[1:] - clock.start[:-1] <= NEAR_MS
    return near & _alike(of["ms"].astype(np.int64)) & (crowded[1:] != crowded[:-1])


def _alike(ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether neighbours were heard for as good as the same time, ``(plays - 1,)``."""
    return (np.abs(ms[1:] - ms[:-1]) <= AT_ONCE_MS) & (ms[1:] > 0) & (ms[:-1] > 0)


def _overlaps_in_any_order(clock: Clock) -> npt.NDArray[np.int64]:
    """By how much neighbours overlap, the one first with which they overlap least."""
    swapped = clock.end[1:] - clock.start[:-1]
    return np.minimum(clock.overlaps(), swapped)


def _shared_time(listens: Listens, clock: Clock) -> npt.NDArray[np.int64]:
    """By how much each play overlaps the listener's last or next one of another song.

    In milliseconds ``(plays,)``, the one first with which they overlap least; 0 where they do not.
    """
    order = np.lexsort((listens["order"], clock.start, listens["user"]))
    of, user = clock.take(order), listens["user"][order]
    first = np.flatnonzero(changes(user, listens["song"][order]))
    size = np.diff(first, append=len(order))
    shared, rows = np.zeros(len(order), np.int64), np.arange(len(order))
    for neighbour in (np.repeat(first - 1, size), np.repeat(first + size, size)):
        there = (neighbour >= 0) & (neighbour < len(order))
        one, other = rows[there], neighbour[there]
        both = (user[one] == user[other]) & of.measured[one] & of.measured[other]
        together = np.minimum(of.end[one] - of.start[other], of.end[other] - of.start[one])
        shared[one] = np.maximum(shared[one], np.where(both, together, 0))
    found = np.empty_like(shared)
    found[order] = shared
    return found
