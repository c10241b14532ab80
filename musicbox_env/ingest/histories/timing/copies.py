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
    END,
    START,
    Clock,
    by_user_and,
    changes,
    on_two_devices,
    sorted_by_start,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.histories.timing.sorting import end_of_listener
from musicbox_env.ingest.spelling.precision import MINUTE, SECOND
from musicbox_env.kernels import unlocked
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
    alike = np.zeros(len(listens), np.bool_)
    order = by_user_and(listens["user"], listens["time"])
    user, song, ms, time = map(listens.dense, ("user", "song", "ms", "time"))
    _mark_alike(user, song, ms, time, order, alike)
    rows = np.flatnonzero(alike)
    if not len(rows):
        return listens, 0
    kept = np.ones(len(listens), np.bool_)
    kept[rows[_told_again(listens.take(rows))]] = False
    return listens.compress(kept), int((~kept).sum())


def without_opinions_again(opinions: Listens) -> tuple[Listens, int]:
    """Leave out opinions that are listed twice, by user, song, moment and kind; also how many."""
    keys = [opinions[name] for name in ("opinion", "song", "time", "user")]
    order = np.lexsort(keys)
    once = np.empty(len(opinions), np.bool_)
    once[order] = changes(*(key[order] for key in keys))
    return opinions.compress(once), int((~once).sum())


@unlocked
def _begin_table(table: npt.NDArray[np.int32], number: int) -> int:
    """Empty a hash table of rows, as much of it as so many take; gives its size, a power of 2."""
    size = 16
    while size < 2 * number:
        size *= 2
    table[:size] = -1
    return size


@unlocked
def _table_for(number: int) -> npt.NDArray[np.int32]:
    """Room for the hash table of so many rows, see `_begin_table`."""
    return np.empty(max(16, 4 * number), np.int32)


@unlocked
def _mark_alike(
    user: npt.NDArray[np.int32],
    song: npt.NDArray[np.int32],
    ms: npt.NDArray[np.int32],
    time: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    alike: npt.NDArray[np.bool_],
) -> None:
    """Mark plays that agree with another in all columns, and in the minute; changes ``alike``."""
    table, first = _table_for(len(order)), 0
    while first < len(order):
        one, last = order[first], first + 1
        minute = time[one] // MINUTE
        while (
            last < len(order)
            and time[order[last]] // MINUTE == minute
            and user[order[last]] == user[one]
        ):
            last += 1
        if last - first > 1:
            _mark_alike_of_minute(song, ms, order[first:last], table, alike)
        first = last


@unlocked
def _mark_alike_of_minute(
    song: npt.NDArray[np.int32],
    ms: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
    table: npt.NDArray[np.int32],
    alike: npt.NDArray[np.bool_],
) -> None:
    """Mark plays among these rows that agree with another; ``table`` and ``alike`` are changed."""
    size = _begin_table(table, len(rows))
    for i in rows:
        slot = ((np.int64(song[i]) * 1_000_003 + ms[i]) * 2654435761 >> 16) & (size - 1)
        j = table[slot]
        while j >= 0 and not (song[j] == song[i] and ms[j] == ms[i]):
            slot = (slot + 1) & (size - 1)
            j = table[slot]
        if j >= 0:
            alike[i] = alike[j] = True
        table[slot] = i


def _told_again(listens: Listens) -> npt.NDArray[np.int64]:
    """Rows of these plays that list one of them again."""
    user, song, ms = (listens[name] for name in ("user", "song", "ms"))
    time, exactness = listens["time"], listens["resolution"]
    minute = time // MINUTE
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
    clock = Clock.of(listens, np.zeros(len(listens), np.int32))
    order, kept = sorted_by_start(listens, clock), np.ones(len(listens), np.bool_)
    may, near = np.zeros((2, len(listens)), np.bool_)
    user, song, ms, time = map(listens.dense, ("user", "song", "ms", "time"))
    _mark_near(user, song, ms, time, clock.times, order, may, near)
    for linked in (_same_play, _one_crowded):
        rows = order[near[order]]
        copies = rows[:0]
        if len(rows):
            copies = rows[_copies(listens.take(rows), clock.take(rows), may[rows], linked)]
        if len(copies):
            kept[copies] = False
            order = order[kept[order]]
            own = order[np.isin(user[order], np.unique(user[copies]))]
            _mark_near(user, song, ms, time, clock.times, own, may, near)
    lie_so = len(order) == len(listens) and bool((order[1:] > order[:-1]).all())
    return listens if lie_so else listens.take(order), len(listens) - len(order)


def _copies(
    listens: Listens,
    clock: Clock,
    may: npt.NDArray[np.bool_],
    linked: Callable[..., npt.NDArray[np.bool_]],
) -> npt.NDArray[np.int64]:
    """Rows of these plays that are copies, each but the best of those that ``linked`` links.

    Only those that ``may`` be are looked at: between others, plays of their song are missing.
    """
    order = np.lexsort((listens["order"], clock.start, listens["song"], listens["user"]))
    shared = _shared_time(listens, clock)[order]
    of, clock = listens.take(order), clock.take(order)
    copy = linked(of, clock, shared > CLOCK_MS + of["resolution"])
    copy &= ~changes(of["user"], of["song"])[1:] & ~on_two_devices(of)
    copy &= may[order[1:]] & may[order[:-1]]
    told = np.cumsum(np.concatenate([[True], ~copy]))
    crowded = shared > np.minimum(AT_ONCE_MS + of["resolution"], of["ms"] // 2)
    best = np.lexsort((np.arange(len(told)), -of["ms"], crowded, told))
    return order[best[~changes(told[best])]]


@unlocked
def _mark_near(
    user: npt.NDArray[np.int32],
    song: npt.NDArray[np.int32],
    ms: npt.NDArray[np.int32],
    time: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    may: npt.NDArray[np.bool_],
    near: npt.NDArray[np.bool_],
) -> None:
    """Mark plays of which one may be a copy of the next of its song; changes ``may``, ``near``.

    Plays of a song that are near each other are a chain; all of it is marked where any two in it
    may be one play, and with each play those before and behind it, since they may overlap it.

    Args:
        user: Of the plays ``(plays,)``.
        song: Likewise.
        ms: Likewise.
        time: Likewise.
        times: Those of `Clock`.
        order: The plays by user and start.
        may: Plays that are marked.
        near: These, and those before and behind them.
    """
    table, first = _table_for(len(order)), 0
    chain, hot = np.empty(len(order), np.int64), np.zeros(len(order), np.bool_)
    while first < len(order):
        last = end_of_listener(order, first, user)
        size = _begin_table(table, last - first)
        for place in range(first, last):
            i = order[place]
            chain[place] = place
            slot = (np.int64(song[i]) * 2654435761) & (size - 1)
            while table[slot] >= 0 and song[order[table[slot]]] != song[i]:
                slot = (slot + 1) & (size - 1)
            if table[slot] >= 0:
                j = order[table[slot]]
                passed = times[i, START] - times[j, START]
                if passed <= max(NEAR_MS, times[j, END] - times[j, START]):
                    chain[place] = chain[table[slot]]
                    overlap = passed < times[j, END] - times[j, START]
                    alike = abs(ms[i] - ms[j]) <= AT_ONCE_MS or time[i] == time[j]
                    hot[chain[place]] |= overlap or alike
            table[slot] = place
        first = last
    for place in range(len(order)):
        may[order[place]] = near[order[place]] = hot[chain[place]]
    _mark_beside(user, song, order, near)


@unlocked
def _mark_beside(
    user: npt.NDArray[np.int32],
    song: npt.NDArray[np.int32],
    order: npt.NDArray[np.int64],
    near: npt.NDArray[np.bool_],
) -> None:
    """Mark the plays of other songs before and behind those that are marked; changes ``near``."""
    first, marked_before = 0, False
    while first < len(order):
        one, last, marked = order[first], first, False
        while (
            last < len(order) and song[order[last]] == song[one] and user[order[last]] == user[one]
        ):
            marked |= near[order[last]]
            last += 1
        near[one] |= marked_before
        if marked and first:
            near[order[first - 1]] = True
        first, marked_before = last, marked


def _same_play(of: Listens, clock: Clock, crowded: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Rules 1 to 3 of `without_copies` for neighbours, ``(plays - 1,)``."""
    ms, began = of["ms"].astype(np.int64), of["began"]
    slack = np.maximum(clock.slack[1:], clock.slack[:-1])
    overlap = _overlaps_in_any_order(clock)
    allowed = np.where(_alike(ms), slack, CLOCK_MS + slack)
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
    """By how much neighbours overlap, the one first with which they overlap least; 0 of guesses."""
    both = clock.measured[1:] & clock.measured[:-1]
    first = np.where(both, clock.end[:-1] - clock.start[1:], 0)
    return np.minimum(first, clock.end[1:] - clock.start[:-1])


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
