"""When plays began and ended: one row is one play only where the clock allows it.

Services note times late, tell a play twice some seconds apart, and tell one in pieces around a
pause. One listener hears a song once at a time, so that a second row of a song that cannot be
another play is a copy of the first or goes on with it. Each is counted, and none becomes a second
player or a skip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.levels import ended_itself
from musicbox_env.ingest.spelling.precision import DAY, SECOND
from musicbox_env.kernels import compiled
from musicbox_env.schema import REASONS_END, REASONS_START, UNKNOWN

CLOCK_MS: Final = 5_000
"""How far two plays of one player may overlap by the clock, beyond the clock's own resolution:
players note the end of a play late."""
NOTED_LATE_MS: Final = 31 * DAY
"""How late the end of a play may be noted: a device without network must report once a month."""
AT_ONCE_MS: Final = 2_000
"""Times no further apart than this are one moment, noted twice."""
AGAIN_MS: Final = 30_000
"""How far apart the times of a play are that is told twice."""
NEAR_MS: Final = 5 * 60_000
"""How far apart rows of a song are of which one is a copy since it overlaps other plays."""
PAUSE_MS: Final = 30 * 60_000
"""Longest pause within a play; after a longer one it counts as another play."""
SHORT_PAUSE_MS: Final = 60_000
"""The same where no reason says that a play was interrupted."""
ONE_LENGTH: Final = 1.02
"""Pieces of one play are no longer together than this share of the track's length."""
PIECES_USUAL: Final = 0.05
FEWEST_PIECES: Final = 5
"""Share and number of plays from which on pieces are what a service tells, where no reason says
so."""
INTERRUPTED: Final = frozenset(
    REASONS_END.index(name) for name in ("endplay", "logout", "appload", "trackerror")
)
RESUMED: Final = frozenset(
    REASONS_START.index(name) for name in ("appload", "playbtn", "trackerror")
)
REMOTE: Final = REASONS_END.index("remote"), REASONS_START.index("remote")
"""Another device took over, or pressed a button: only where the device changes is it the first."""


@dataclass(frozen=True)
class Clock:
    """When plays began and ended.

    Attributes:
        start: Milliseconds since 1970 UTC ``(plays,)``.
        end: The same of the end.
        slack: By how much each time may be wrong, ``(plays,)`` milliseconds.
        measured: Plays whose time heard is known; that of the others is a guess ``(plays,)``.
    """

    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    slack: npt.NDArray[np.int64]
    measured: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, listens: npt.NDArray, lengths: npt.NDArray[np.int32]) -> Clock:
        """Times of records of `listens.LISTEN`, lengths of their tracks given."""
        measured = listens["ms"] >= 0
        heard = np.where(measured, listens["ms"], lengths).astype(np.int64) + listens["pause"]
        start = np.where(listens["time_is_start"], listens["time"], listens["time"] - heard)
        end = np.where(listens["time_is_start"], listens["time"] + heard, listens["time"])
        return cls(start, end, listens["resolution"].astype(np.int64), measured)

    def take(self, order: npt.NDArray[np.int64]) -> Clock:
        """The same of other plays."""
        return Clock(self.start[order], self.end[order], self.slack[order], self.measured[order])

    def bounds(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The earliest beginning and the latest end of each play, by what a time may be wrong.

        Times to the second count as exact.
        """
        slack = np.where(self.slack > SECOND, self.slack, 0)
        return self.start - slack, self.end + slack

    def overlaps(self) -> npt.NDArray[np.int64]:
        """By how much each play but the first begins before the one before it ends.

        0 where one of both is a guess; negative where time passes between, ``(plays - 1,)``.
        """
        guess = ~(self.measured[1:] & self.measured[:-1])
        return np.where(guess, 0, self.end[:-1] - self.start[1:])

    def tolerated(self) -> npt.NDArray[np.int64]:
        """How large an overlap is what clocks do, ``(plays - 1,)``."""
        return CLOCK_MS + np.maximum(self.slack[1:], self.slack[:-1])


def changes(*columns: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Rows in which a column differs from the row before ``(rows,)``; the first row is one."""
    different = np.ones(len(columns[0]), np.bool_)
    different[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return different


def by_user_and(
    user: npt.NDArray[np.int32], moment: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Order by user and moment ``(plays,)``; what is equal in both stays as it is.

    Both go into one key wherever they fit, which is sorted in a third of the time of two.
    """
    if not len(user):
        return np.arange(0)
    lowest, first = int(moment.min()), int(user.min())
    span = int(moment.max()) - lowest + 1
    if (int(user.max()) - first + 1) * span >= 1 << 63:
        return np.lexsort((moment, user))
    key = (user.astype(np.int64) - first) * span + (moment - lowest)
    if (key[1:] >= key[:-1]).all():
        return np.arange(len(key))
    return np.argsort(key, kind="stable")


def sorted_by_start(listens: npt.NDArray, clock: Clock) -> tuple[npt.NDArray[np.int64], bool]:
    """Order by user, start and row of the file ``(plays,)``, and whether they lie so already."""
    user, place = listens["user"], listens["order"]
    order = by_user_and(user, clock.start)
    tie = ~changes(user[order], clock.start[order])[1:]
    placed = place[order]
    if (tie & (placed[1:] < placed[:-1])).any():
        order = np.lexsort((place, clock.start, user))
    return order, bool((order[1:] > order[:-1]).all())


def without_duplicates(listens: npt.NDArray) -> tuple[npt.NDArray, int]:
    """Leave out plays that are listed twice, the later row each time; also returns how many.

    Twice is the same user, song, moment and time heard, and no other start told. Times exact to
    the minute are those of an archive that may list the plays of another archive, exact to the
    second, once more: there the minute counts.
    """
    minute = listens["time"] // 60_000
    rows = _alike_rows(listens["user"], listens["song"], listens["ms"], minute)
    if not len(rows):
        return listens, 0
    kept = np.ones(len(listens), np.bool_)
    kept[rows[_told_again(listens.take(rows), minute[rows])]] = False
    return listens.compress(kept), int((~kept).sum())


def _alike_rows(*columns: npt.NDArray) -> npt.NDArray[np.int64]:
    """Rows that agree with another in all columns, and some by chance that do not."""
    key = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    ordered = np.sort(key)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return np.arange(0)
    place = np.minimum(np.searchsorted(twice, key), len(twice) - 1)
    return np.flatnonzero(twice[place] == key)


def _told_again(listens: npt.NDArray, minute: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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


def with_true_starts(listens: npt.NDArray) -> npt.NDArray:
    """Take the moment at which a play began for its time, wherever it can be true.

    It cannot where the play would have ended after its end was noted, or over a month before, nor
    where the listener began another song at that moment and heard both. Where the noted end is
    the moment of the start itself, both are the start, unless most plays are so: then it is no
    start that is told. A play that was noted late without another one in between was paused.
    """
    heard = np.maximum(listens["ms"], 0).astype(np.int64)
    if not (listens["began"] > 0).any():
        return listens
    late = listens["time"] - listens["began"] - np.where(listens["time_is_start"], 0, heard)
    known = listens["began"] > 0
    usable = known & (late >= -CLOCK_MS - listens["resolution"]) & (late <= NOTED_LATE_MS)
    long = known & ~listens["time_is_start"] & (heard > 4 * CLOCK_MS)
    at_start = known & ~listens["time_is_start"]
    at_start &= np.abs(listens["time"] - listens["began"]) <= AT_ONCE_MS
    if 2 * (at_start & long).sum() > long.sum():
        return listens
    usable |= at_start
    usable &= ~_shared_starts(listens, known & (heard > CLOCK_MS))
    usable &= ~_second_pieces(listens, usable)
    if not usable.any():
        return listens
    listens = listens.take(np.arange(len(listens)))
    noted = np.where(usable & ~at_start & ~listens["time_is_start"], listens["time"], 0)
    listens["time"] = np.where(usable, listens["began"], listens["time"])
    listens["time_is_start"] |= usable
    listens["resolution"] = np.where(usable, SECOND, listens["resolution"])
    listens["pause"] = _pauses(listens, noted, heard)
    return listens


def _shared_starts(listens: npt.NDArray, heard: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Plays whose start is told of several songs that the listener heard ``(plays,)``."""
    order = np.lexsort((listens["began"], listens["user"]))
    first = changes(listens["user"][order], listens["began"][order])
    places, song = np.flatnonzero(first), listens["song"][order]
    lowest = np.minimum.reduceat(np.where(heard[order], song, np.iinfo(np.int32).max), places)
    highest = np.maximum.reduceat(np.where(heard[order], song, UNKNOWN), places)
    shared = np.zeros(len(listens), np.bool_)
    shared[order] = (lowest < highest)[np.cumsum(first) - 1]
    return shared


def _second_pieces(listens: npt.NDArray, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Plays that tell the start of an earlier piece of themselves ``(plays,)``.

    Their noted ends leave room for both; copies of a play, noted late, do not, or are equal.
    """
    rows = np.flatnonzero(usable & (listens["ms"] >= 0) & ~listens["time_is_start"])
    keys = [listens[name][rows] for name in ("time", "began", "song", "user")]
    rows = rows[np.lexsort(keys)]
    of = listens.take(rows)
    again = ~changes(of["user"], of["song"], of["began"])[1:]
    ms, time = of["ms"].astype(np.int64), of["time"]
    again &= np.abs(ms[1:] - ms[:-1]) > AT_ONCE_MS
    again &= time[1:] - ms[1:] >= time[:-1] - CLOCK_MS
    second = np.zeros(len(listens), np.bool_)
    second[rows[1:][again]] = True
    return second


def _pauses(
    listens: npt.NDArray, noted: npt.NDArray[np.int64], heard: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """Milliseconds between what was heard of a play and its noted end ``(plays,)``.

    0 where the end is unknown, or was noted after the listener's next play began.
    """
    start = np.where(listens["time_is_start"], listens["time"], listens["time"] - heard)
    order = np.lexsort((listens["order"], start, listens["user"]))
    following = np.full(len(order), np.iinfo(np.int64).max)
    same = listens["user"][order][1:] == listens["user"][order][:-1]
    following[order[:-1][same]] = start[order[1:][same]]
    pause = noted - start - heard
    paused = (pause > AT_ONCE_MS) & (pause <= PAUSE_MS) & (noted <= following + CLOCK_MS)
    return np.where(paused, pause, 0).astype(np.int32)


def without_copies(listens: npt.NDArray) -> tuple[npt.NDArray, int]:
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
    listens: npt.NDArray, clock: Clock, linked: Callable[..., npt.NDArray[np.bool_]]
) -> npt.NDArray[np.int64]:
    """Rows of these plays that are copies, each but the best of those that ``linked`` links."""
    order = np.lexsort((listens["order"], clock.start, listens["song"], listens["user"]))
    shared = _shared_time(listens, clock)[order]
    of, clock = listens.take(order), clock.take(order)
    copy = linked(of, clock, shared > CLOCK_MS + of["resolution"])
    copy &= ~changes(of["user"], of["song"])[1:] & ~_on_two_devices(of)
    told = np.cumsum(np.concatenate([[True], ~copy]))
    crowded = shared > np.minimum(AT_ONCE_MS + of["resolution"], of["ms"] // 2)
    best = np.lexsort((np.arange(len(told)), -of["ms"], crowded, told))
    return order[best[~changes(told[best])]]


def _near_others(listens: npt.NDArray, clock: Clock) -> npt.NDArray[np.int64]:
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
    size = 16
    while size < 2 * len(song):
        size *= 2
    last = np.full(size, -1, np.int32)
    for i in range(len(song)):
        slot = (np.int64(song[i]) * 2654435761) & (size - 1)
        while last[slot] >= 0 and song[last[slot]] != song[i]:
            slot = (slot + 1) & (size - 1)
        j = last[slot]
        near = j >= 0 and start[i] - start[j] <= max(NEAR_MS, end[j] - start[j])
        if near and user[j] == user[i]:
            again[i] = again[j] = True
        last[slot] = i


def _same_play(
    of: npt.NDArray, clock: Clock, crowded: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
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
    of: npt.NDArray, clock: Clock, crowded: npt.NDArray[np.bool_]
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


def _shared_time(listens: npt.NDArray, clock: Clock) -> npt.NDArray[np.int64]:
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


def may_be_pieces(listens: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Plays that may go on with another ``(plays,)``: what they last is no track's length."""
    clock = Clock.of(listens, np.zeros(len(listens), np.int32))
    order, _ = sorted_by_start(listens, clock)
    pieces = np.zeros(len(listens), np.bool_)
    pieces[order[_go_on(listens, clock, order)]] = True
    return pieces


def with_pieces_joined(
    listens: npt.NDArray, lengths: npt.NDArray[np.int32], known: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray, int, int]:
    """Join the pieces of plays that were paused and went on.

    Pieces follow each other in the listener's plays, are of one song, hold no more than its length
    together, and are not what a listener leaves behind who skips, goes back or starts anew. Where
    no reason tells, a song that is begun again looks the same: then they are joined only where
    more than `PIECES_USUAL` of the plays are such pairs, which few listeners would make.

    Args:
        listens: Plays ``(plays,)`` of `listens.LISTEN`.
        lengths: Lengths of their tracks in milliseconds ``(plays,)``.
        known: Where these are more than a guess ``(plays,)``.

    Returns:
        Rows that are left, these plays, how many rows went into others, and how many that might
        have did not.
    """
    if (listens["resolution"] > SECOND).all():  # no times that tell a pause
        return np.arange(len(listens)), listens, 0, 0
    clock = Clock.of(listens, lengths)
    order, lie_so = sorted_by_start(listens, clock)
    second = _go_on(listens, clock, order)
    if not len(second):
        return order, listens if lie_so else listens.take(order), 0, 0
    of, clock = listens.take(order), clock.take(order)
    # A reason is word enough where no length is known.
    limit = np.where(known[order], ONE_LENGTH * lengths[order], np.inf)
    together = of["ms"][second].astype(np.int64) + of["ms"][second - 1]
    second = second[together <= limit[second - 1]]
    told = (of["reason_end"][:-1] >= 0) | (of["reason_start"][1:] >= 0)
    unclear = ~told[second - 1] & known[order][second - 1]
    usual = unclear.sum() > max(PIECES_USUAL * (~told).sum(), FEWEST_PIECES)
    left = np.ones(len(of), np.bool_)
    first = -1
    for row in second[told[second - 1] | (unclear & usual)].tolist():
        if left[row - 1]:
            first = row - 1
        if int(of["ms"][first]) + int(of["ms"][row]) > limit[first]:
            continue
        _join(of, clock, first, row)
        left[row] = False
    return order[left], of.compress(left), int((~left).sum()), 0 if usual else int(unclear.sum())


def _on_two_devices(of: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Whether each play but the first ran on another device than the one before it."""
    device = of["device"]
    return (device[1:] >= 0) & (device[:-1] >= 0) & (device[1:] != device[:-1])


def _go_on(
    listens: npt.NDArray, clock: Clock, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Places in an order of plays that may go on with the one before them."""
    second = np.flatnonzero(~changes(listens["user"][order], listens["song"][order]))
    before, after = order[second - 1], order[second]
    pairs = np.stack([before, after], axis=1).ravel()
    may = _may_go_on(listens.take(pairs), clock.take(pairs))[::2] if len(pairs) else second > 0
    return second[may]


def _may_go_on(of: npt.NDArray, clock: Clock) -> npt.NDArray[np.bool_]:
    """Whether each play but the first may go on with the one before it, ``(plays - 1,)``.

    Both must be the user's, of one song.
    """
    end, start = of["reason_end"][:-1], of["reason_start"][1:]
    moved = _on_two_devices(of)
    interrupted = np.isin(end, list(INTERRUPTED)) | (moved & (end == REMOTE[0]))
    resumed = np.isin(start, list(RESUMED)) | (moved & (start == REMOTE[1]))
    may = interrupted | (end == UNKNOWN)
    may &= resumed | (start == UNKNOWN)
    may &= ~ended_itself(of)[:-1] & (of["skipped"][:-1] != 1)
    may &= clock.measured[1:] & clock.measured[:-1]
    may &= np.maximum(clock.slack[1:], clock.slack[:-1]) <= SECOND
    gap = clock.start[1:] - clock.end[:-1]
    longest = np.where(interrupted | resumed, PAUSE_MS, SHORT_PAUSE_MS)
    return may & (gap >= -clock.tolerated()) & (gap <= longest)


def _join(of: npt.NDArray, clock: Clock, first: int, second: int) -> None:
    """Make one play of two, in the place of the first."""
    of["ms"][first] += of["ms"][second]
    span = clock.end[second] - clock.start[first]
    of["pause"][first] = max(int(span) - int(of["ms"][first]), 0)
    of["time"][first], of["time_is_start"][first] = clock.start[first], True
    of["share"][first] += of["share"][second]
    for name in ("reason_end", "skipped", "completed"):
        of[name][first] = of[name][second]
