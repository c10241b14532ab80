"""The order of a listener's plays, and the fewest players that they can have run on.

A stated time orders plays only as far as it is exact. Plays of one minute, or of one second, may
stand in a file in any order: the one in which they can follow each other is taken, before a second
player is assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.timing.clock import (
    CLOCK_MS,
    Clock,
    by_user_and,
    by_user_moment_and_place,
    changes,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.kernels import compiled

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
LOOKED_AT: Final = 200_000
USUAL_PLAY_MS: Final = 20 * 60_000


@dataclass(frozen=True)
class TimesRead:
    """Which end of its play a time is, as the plays themselves show it.

    Attributes:
        are_starts: Whether it is the start.
        follow: Plays that follow another at once if times are ends, and if they are starts.
        overlap: Plays that overlap another, likewise.
    """

    are_starts: bool
    follow: tuple[int, ...] = (0, 0)
    overlap: tuple[int, ...] = (0, 0)

    @property
    def note(self) -> str:
        """What was decided, and on what."""
        ends, starts = (
            f"{follow:,} plays follow another at once and {overlap:,} overlap it"
            for follow, overlap in zip(self.follow, self.overlap, strict=True)
        )
        read = "start" if self.are_starts else "end"
        return (
            f"Times were read as the {read} of their plays, which the data do not say: as ends "
            f"{ends}, as starts {starts}."
        )


def play_order(listens: Listens, clock: Clock) -> npt.NDArray[np.int64]:
    """Order plays by user and time, ``(plays,)``.

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
    order = by_user_and(user, moment)
    of_one = ~changes(user[order], moment[order])
    of_one[:-1] |= of_one[1:]
    tied = np.flatnonzero(of_one)
    if len(tied):
        rows = order[tied]
        order[tied] = rows[
            _of_one_moment(user[rows], moment[rows], place[rows], other_end[rows], clock.take(rows))
        ]
    return _let_follow(order, user, moment, clock)


def _of_one_moment(
    user: npt.NDArray[np.int32],
    moment: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    other_end: npt.NDArray[np.int64],
    clock: Clock,
) -> npt.NDArray[np.int64]:
    """Order plays that others share their moment with, by the first way of `play_order` that fits.

    Args:
        user: Of each play ``(plays,)``, ascending.
        moment: What is ordered by, ascending within a user.
        place: Row in the file.
        other_end: The moment of the play's other end.
        clock: When the plays were.
    """
    first = changes(user, moment)
    group, begins = np.cumsum(first) - 1, np.append(np.flatnonzero(first), len(first))
    as_filed = by_user_and(group, place)
    reversed_ = as_filed[(begins[:-1] + begins[1:] - 1)[group] - np.arange(len(group))]
    ways = [as_filed, reversed_, by_user_moment_and_place(group, other_end, place)]
    chosen = np.full(user[-1] + 1, len(ways) - 1)
    for number in range(len(ways) - 2, -1, -1):
        ties, bad = _ties(user, group, clock.take(ways[number]))
        chosen[bad <= ORDER_TRUSTED * ties] = number
    # All ways hold the plays of a user in the same places.
    return np.choose(chosen[user], ways)


def _ties(
    user: npt.NDArray[np.int32], group: npt.NDArray[np.int64], clock: Clock
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Neighbours of one moment, and those of them that cannot follow each other, ``(users,)``."""
    tie = group[1:] == group[:-1]
    bad = tie & (clock.overlaps() > clock.tolerated())
    size = user[-1] + 1
    return np.bincount(user[1:][tie], minlength=size), np.bincount(user[1:][bad], minlength=size)


def _let_follow(
    order: npt.NDArray[np.int64],
    user: npt.NDArray[np.int32],
    moment: npt.NDArray[np.int64],
    clock: Clock,
) -> npt.NDArray[np.int64]:
    """Swap neighbours of nearly one moment that overlap, where they would not the other way."""
    at, who = moment[order], user[order]
    first = np.flatnonzero((who[1:] == who[:-1]) & (at[1:] - at[:-1] <= CLOCK_MS))
    order = order.copy()
    for _ in range(MOST_SWAPS):
        one, other = order[first], order[first + 1]
        near = (user[one] == user[other]) & (moment[other] - moment[one] <= CLOCK_MS)
        tolerated = CLOCK_MS + np.maximum(clock.slack[one], clock.slack[other])
        guess = ~(clock.measured[one] & clock.measured[other])
        overlap = np.where(guess, 0, clock.end[one] - clock.start[other])
        swap = near & (overlap > tolerated)
        swap &= clock.end[other] - clock.start[one] <= tolerated
        rows = first[swap]
        if not len(rows):
            break
        # A play changes places with one neighbour at a time.
        rows = rows[np.diff(rows, prepend=-2) > 1]
        order[rows], order[rows + 1] = order[rows + 1], order[rows]
        first = np.unique(np.concatenate([first[swap], rows - 1, rows, rows + 1]))
        first = first[(first >= 0) & (first < len(order) - 1)]
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
    begins = np.append(np.flatnonzero(changes(user)), len(user))
    several = np.unique(np.searchsorted(begins, np.flatnonzero(at_once) + 1, side="right") - 1)
    for number in several.tolist():
        rows = slice(begins[number], begins[number + 1])
        _assign_players(
            clock.start[rows],
            clock.end[rows],
            clock.slack[rows] + CLOCK_MS,
            clock.measured[rows],
            device[rows],
            player[rows],
        )
    return player


@compiled
def _assign_players(
    start: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    slack: npt.NDArray[np.int64],
    measured: npt.NDArray[np.bool_],
    device: npt.NDArray[np.int32],
    player: npt.NDArray[np.int64],
) -> None:
    """Give each play of one user to a player that stopped before it began; changes ``player``.

    To one that its own device has just stopped on, and else to the one that stopped last.
    """
    ends, devices = np.empty(len(start), np.int64), np.empty(len(start), np.int32)
    players = 0
    for i in range(len(start)):
        chosen, own = players, False
        for p in range(players):
            if measured[i] and ends[p] > start[i] + slack[i]:
                continue
            same = devices[p] == device[i] and device[i] >= 0 and start[i] - ends[p] <= JUST_MS
            if (same and not own) or (
                same == own and (chosen == players or ends[p] > ends[chosen])
            ):
                chosen, own = p, same
        if chosen == players:
            players += 1
        ends[chosen], devices[chosen] = end[i], device[i]
        player[i] = chosen


def overlaps_if_flipped(listens: Listens, lengths: npt.NDArray[np.int32]) -> int:
    """Plays that would overlap if each time were the other end of its play than it is read as."""
    flipped = listens.copy()
    flipped["time_is_start"] = ~flipped["time_is_start"]
    clock = Clock.of(flipped, lengths)
    order = play_order(flipped, clock)
    return int(_at_once(flipped["user"][order], clock.take(order)).sum())


def _at_once(user: npt.NDArray[np.int32], clock: Clock) -> npt.NDArray[np.bool_]:
    """Plays but the first that begin well before the user's last one has ended ``(plays - 1,)``."""
    return (user[1:] == user[:-1]) & (clock.overlaps() > clock.tolerated())


def times_are_starts(samples: Iterable[Listens]) -> TimesRead:
    """Whether times are the starts of plays, or their ends, by how the plays then follow.

    Of neighbours of a listener, those that follow each other at once speak for a reading, and
    those that overlap against it.

    Args:
        samples: Plays by user and time; no more than `LOOKED_AT` are looked at.
    """
    follow, overlap, looked_at = np.zeros(2, np.int64), np.zeros(2, np.int64), 0
    for listens in samples:
        looked_at += len(listens)
        known = (listens["ms"] >= 0) & (listens["ms"] <= USUAL_PLAY_MS)
        pairs = (listens["user"][1:] == listens["user"][:-1]) & known[1:] & known[:-1]
        passed, heard = np.diff(listens["time"])[pairs], listens["ms"].astype(np.int64)
        for reading, of_first in enumerate((False, True)):
            lasted = (heard[:-1] if of_first else heard[1:])[pairs]
            # Plays of no length follow in either reading.
            long = lasted > 4 * CLOCK_MS
            follow[reading] += int((long & (np.abs(passed - lasted) <= 2 * CLOCK_MS)).sum())
            overlap[reading] += int((long & (lasted - passed > 2 * CLOCK_MS)).sum())
        if looked_at >= LOOKED_AT:
            break
    are_starts = follow[1] - overlap[1] > follow[0] - overlap[0]
    return TimesRead(bool(are_starts), tuple(follow.tolist()), tuple(overlap.tolist()))
