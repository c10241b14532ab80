"""The order of a listener's plays, and the fewest players that they can have run on.

A stated time orders plays only as far as it is exact. Plays of one minute, or of one second, may
stand in a file in any order: the one in which they can follow each other is taken, before a second
player is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.timing.clock import (
    CLOCK_MS,
    END,
    MEASURED,
    SLACK,
    START,
    Clock,
    Ints,
    excess,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.histories.timing.sorting import by_listener, end_of_listener, sort_rows
from musicbox_env.kernels import unlocked

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


@unlocked
def order_plays(
    rows: Ints, moment: Ints, place: Ints, other_end: Ints, times: Ints, spare: Ints
) -> None:
    """Order the plays of a listener by time; ``rows`` and ``spare`` are changed.

    Plays of one moment keep the file's order, or its reverse, if nearly all of the listener's can
    follow each other so. Otherwise the file's order says nothing, and the play that began first
    comes first, reckoned from one end: it is the longest of those that ended in one minute, and
    most likely the first, since the others take the less of that minute. Last, neighbours of nearly
    one moment change places where that lets them follow each other.

    Args:
        rows: The listener's plays, in any order.
        moment: What all plays are ordered by.
        place: Row in the file.
        other_end: The moment of a play's other end.
        times: Those of `Clock`.
        spare: As long as ``rows`` or longer.
    """
    sort_rows(rows, moment, place, spare)
    ties = bad_as_filed = bad_reversed = 0
    for i in range(1, len(rows)):
        one, other = rows[i - 1], rows[i]
        if moment[one] == moment[other]:
            ties += 1
            bad_as_filed += excess(one, other, times) > 0
            bad_reversed += excess(other, one, times) > 0
    if bad_as_filed > ORDER_TRUSTED * ties:
        first = 0
        for last in range(1, len(rows) + 1):
            if last < len(rows) and moment[rows[last]] == moment[rows[first]]:
                continue
            if last - first > 1:
                if bad_reversed <= ORDER_TRUSTED * ties:
                    rows[first:last] = rows[first:last][::-1].copy()
                else:
                    sort_rows(rows[first:last], other_end, place, spare)
            first = last
    _let_follow(rows, moment, times)


@unlocked
def _let_follow(rows: Ints, moment: Ints, times: Ints) -> None:
    """Swap neighbours of nearly one moment that overlap, where they would not the other way.

    A play changes places with one neighbour at a time; ``rows`` is changed.
    """
    places = np.arange(len(rows) - 1)
    for _ in range(MOST_SWAPS):
        found = 0
        for i in places:
            one, other = rows[i], rows[i + 1]
            if moment[other] - moment[one] <= CLOCK_MS and excess(one, other, times) > 0:
                slack = max(times[one, SLACK], times[other, SLACK])
                if times[other, END] - times[one, START] <= CLOCK_MS + slack:
                    places[found] = i
                    found += 1
        if not found:
            return
        places = _swap(rows, places[:found])


@unlocked
def _swap(rows: Ints, found: Ints) -> Ints:
    """Swap plays at these places with the next; ``rows`` is changed. Where to look again."""
    again, number, last = np.empty(3 * len(found), np.int64), 0, -1
    for k in range(len(found)):
        i = found[k]
        swapped = k == 0 or i - found[k - 1] > 1
        if swapped:
            rows[i], rows[i + 1] = rows[i + 1], rows[i]
        for place in range(i - swapped, i + swapped + 1):
            if last < place < len(rows) - 1:
                again[number] = last = place
                number += 1
    return again[:number]


@unlocked
def find_players(
    rows: Ints, times: Ints, device: npt.NDArray[np.int32], player: Ints, found: Ints
) -> int:
    """Tell which player each play of a listener ran on.

    One player plays one thing at a time. A play that begins well before another has ended ran
    on a second player; a little before is what clocks do, and means no time between.

    Args:
        rows: The listener's plays as `order_plays` orders them.
        times: Those of `Clock`.
        device: Device of each play, negative where unknown.
        player: Changed: the number of each play's player, in the order of ``rows``.
        found: Changed: how many there are of each of `OVERLAPS`.

    Returns:
        How many players there are.
    """
    by_clock = at_once = elsewhere = 0
    for i in range(1, len(rows)):
        one, other = rows[i - 1], rows[i]
        more = excess(one, other, times)
        by_clock += -CLOCK_MS < more <= 0
        if more > 0:
            at_once += 1
            known = device[one] >= 0 and device[other] >= 0
            elsewhere += known and device[one] != device[other]
    found[0] += by_clock
    found[1] += at_once
    found[2] += elsewhere
    player[:] = 0
    return _assign_players(rows, times, device, player) if at_once else 1


@unlocked
def group_by_player(rows: Ints, player: Ints, players: int) -> None:
    """Put plays of a player together, in their order; ``rows`` and ``player`` are changed."""
    row_of, player_of, to = rows.copy(), player.copy(), 0
    for number in range(players):
        for i in range(len(rows)):
            if player_of[i] == number:
                rows[to], player[to] = row_of[i], number
                to += 1


@unlocked
def _assign_players(rows: Ints, times: Ints, device: npt.NDArray[np.int32], player: Ints) -> int:
    """Give each play of a listener to a player that stopped before it began; changes ``player``.

    To one that its own device has just stopped on, and else to the one that stopped last.
    """
    ends, devices = np.empty(len(rows), np.int64), np.empty(len(rows), np.int32)
    players = 0
    for i in range(len(rows)):
        row = rows[i]
        start, chosen, own = times[row, START], players, False
        latest = start + times[row, SLACK] + CLOCK_MS
        for p in range(players):
            if times[row, MEASURED] and ends[p] > latest:
                continue
            ran = devices[p] == device[row] and device[row] >= 0
            same = ran and start - ends[p] <= JUST_MS
            if (same and not own) or (
                same == own and (chosen == players or ends[p] > ends[chosen])
            ):
                chosen, own = p, same
        if chosen == players:
            players += 1
        ends[chosen], devices[chosen] = times[row, END], device[row]
        player[i] = chosen
    return players


def moments(listens: Listens, clock: Clock) -> tuple[Ints, Ints]:
    """What plays are ordered by, and the moment of each one's other end, ``(plays,)``.

    Any moment of a play orders it, but the stated one best: what is reckoned from a time and a
    time heard that are exact to different fractions may swap plays that were skipped at once.
    """
    if listens.kept("time_is_start").all():
        return listens.dense("time"), np.ascontiguousarray(clock.end)
    moment = np.where(clock.measured, clock.end, listens["time"])
    return moment, np.ascontiguousarray(clock.start)


def overlaps_if_flipped(listens: Listens, lengths: npt.NDArray[np.int32]) -> int:
    """Plays that would overlap if each time were the other end of its play than it is read as."""
    flipped = listens.copy()
    flipped["time_is_start"] = ~flipped["time_is_start"]
    clock, user = Clock.of(flipped, lengths), listens.dense("user")
    moment, other_end = moments(flipped, clock)
    place, order = listens.dense("order"), by_listener(user)
    return int(_count_overlaps(user, moment, place, other_end, clock.times, order))


@unlocked
def _count_overlaps(
    user: npt.NDArray[np.int32],
    moment: Ints,
    place: Ints,
    other_end: Ints,
    times: Ints,
    order: Ints,
) -> int:
    """Plays that begin well before the listener's last one has ended; ``order`` is changed."""
    spare, first, count = np.empty_like(order), 0, 0
    while first < len(order):
        last = end_of_listener(order, first, user)
        rows = order[first:last]
        order_plays(rows, moment, place, other_end, times, spare)
        for i in range(1, len(rows)):
            count += excess(rows[i - 1], rows[i], times) > 0
        first = last
    return count


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
