"""The order of a listener's plays, and the fewest players that they can have run on.

A stated time orders plays only as far as it is exact. Plays of one minute, or of one second, may
stand in a file in any order: the one in which they can follow each other is taken, before a second
player is assumed.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.clock import CLOCK_MS, Clock

OVERLAPS: Final = (
    "plays that begin before the last one ends, by the clock alone",
    "plays at the same time as another, on a second player",
    "of these on another device",
)
ORDER_TRUSTED: Final = 0.02
"""Share of plays of one moment that may not be able to follow each other in the file's order, for
that order to count as theirs."""
JUST_MS: Final = 60_000
"""How long ago a device may have stopped to go on where it was, two players being in use."""
MOST_SWAPS: Final = 64
"""Places that a play is moved at most."""


def play_order(listens: npt.NDArray, clock: Clock) -> npt.NDArray[np.int64]:
    """Order plays of `listens.LISTEN` by user and time, ``(plays,)``.

    Plays of one moment keep the file's order, or its reverse, if nearly all of the user's can
    follow each other so. Otherwise the file's order says nothing, and the play that began first
    comes first, reckoned from one end: it is the longest of those that ended in one minute, and
    most likely the first, since the others take the less of that minute. Last, neighbours of nearly
    one moment change places where that lets them follow each other.
    """
    # Any moment of a play orders it, but the stated one best: what is reckoned from a time and a
    # time heard that are exact to different fractions may swap plays that were skipped at once.
    mixed = ~listens["time_is_start"].all()
    moment = np.where(clock.measured & mixed, clock.end, listens["time"])
    user, place = listens["user"], listens["order"]
    other_end = np.where(listens["time_is_start"] & ~mixed, clock.end, clock.start)
    ways = [
        np.lexsort((place, moment, user)),
        np.lexsort((-place, moment, user)),
        np.lexsort((place, other_end, moment, user)),
    ]
    chosen = np.full(user.max(initial=0) + 1, len(ways) - 1)
    for number in range(len(ways) - 2, -1, -1):
        ties, bad = _ties(ways[number], user, moment, clock)
        chosen[bad <= ORDER_TRUSTED * ties] = number
    way = chosen[user]
    # All ways hold the plays of a user in the same places.
    order = np.choose(way[ways[0]], ways)
    return _let_follow(order, user, moment, clock)


def _ties(
    order: npt.NDArray[np.int64],
    user: npt.NDArray[np.int32],
    moment: npt.NDArray[np.int64],
    clock: Clock,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Neighbours of one moment, and those of them that cannot follow each other, ``(users,)``."""
    clock, user, moment = clock.take(order), user[order], moment[order]
    tie = (user[1:] == user[:-1]) & (moment[1:] == moment[:-1])
    bad = tie & (clock.overlaps() > clock.tolerated())
    size = user.max(initial=0) + 1
    return np.bincount(user[1:][tie], minlength=size), np.bincount(user[1:][bad], minlength=size)


def _let_follow(
    order: npt.NDArray[np.int64],
    user: npt.NDArray[np.int32],
    moment: npt.NDArray[np.int64],
    clock: Clock,
) -> npt.NDArray[np.int64]:
    """Swap neighbours of nearly one moment that overlap, where they would not the other way."""
    for _ in range(MOST_SWAPS):
        of, at, who = clock.take(order), moment[order], user[order]
        swap = (who[1:] == who[:-1]) & (at[1:] - at[:-1] <= CLOCK_MS)
        swap &= (of.overlaps() > of.tolerated()) & (of.end[1:] - of.start[:-1] <= of.tolerated())
        # A play changes places with one neighbour at a time.
        swap[1:] &= ~swap[:-1]
        rows = np.flatnonzero(swap)
        if not len(rows):
            break
        order = order.copy()
        order[rows], order[rows + 1] = order[rows + 1], order[rows]
    return order


def find_players(
    user: npt.NDArray[np.int32],
    clock: Clock,
    device: npt.NDArray[np.int32],
    counts: Counter[str],
) -> npt.NDArray[np.int64]:
    """Which player of its user each play ran on, ``(plays,)``, plays in `play_order`.

    One player plays one thing at a time. A play that begins well before another has ended ran
    on a second player; a little before is what clocks do, and means no time between.

    Args:
        user: User of each play ``(plays,)``.
        clock: When they were.
        device: Device of each, negative where unknown ``(plays,)``.
        counts: Receives `OVERLAPS`.
    """
    player = np.zeros(len(user), np.int64)
    if len(user) < 2:
        return player
    overlap = np.where(user[1:] == user[:-1], clock.overlaps(), 0)
    tolerated = clock.tolerated()
    at_once = overlap > tolerated
    known = at_once & (device[1:] >= 0) & (device[:-1] >= 0)
    elsewhere = known & (device[1:] != device[:-1])
    by_clock = (overlap > tolerated - CLOCK_MS) & ~at_once
    for what, mask in zip(OVERLAPS, (by_clock, at_once, elsewhere), strict=True):
        counts[what] += int(mask.sum())
    for each in np.unique(user[1:][at_once]).tolist():
        rows = np.flatnonzero(user == each)
        player[rows] = _assign_players(clock.take(rows), device[rows])
    return player


def _assign_players(clock: Clock, device: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Give each play of one user to a player that stopped before it began.

    To one that its own device has just stopped on, and else to the one that stopped last.
    """
    ends: list[int] = []
    devices: list[int] = []
    player = np.zeros(len(clock.start), np.int64)
    slack = (clock.slack + CLOCK_MS).tolist()
    starts, stops, on = clock.start.tolist(), clock.end.tolist(), device.tolist()
    for i, measured in enumerate(clock.measured.tolist()):
        free = [p for p, end in enumerate(ends) if end <= starts[i] + slack[i] or not measured]
        same = [p for p in free if devices[p] == on[i] >= 0 and starts[i] - ends[p] <= JUST_MS]
        chosen = max(same or free, key=ends.__getitem__, default=len(ends))
        if chosen == len(ends):
            ends.append(stops[i])
            devices.append(on[i])
        ends[chosen], devices[chosen] = stops[i], on[i]
        player[i] = chosen
    return player


def overlaps_if_flipped(listens: npt.NDArray, lengths: npt.NDArray[np.int32]) -> int:
    """Plays that would overlap if each time were the other end of its play than it is read as."""
    flipped = listens.copy()
    flipped["time_is_start"] = ~flipped["time_is_start"]
    clock = Clock.of(flipped, lengths)
    order = play_order(flipped, clock)
    counts: Counter[str] = Counter()
    find_players(flipped["user"][order], clock.take(order), flipped["device"][order], counts)
    return counts[OVERLAPS[1]]
