"""When plays began and ended, as far as what services note of it can be true.

Services note times late, and some tell the start of a play beside a time that is its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.histories.timing.sorting import by_listener, end_of_listener, sort_rows
from musicbox_env.ingest.spelling.precision import DAY, SECOND
from musicbox_env.kernels import unlocked
from musicbox_env.schema import UNKNOWN

CLOCK_MS: Final = 5_000
"""How far two plays of one player may overlap by the clock, beyond the clock's own resolution:
players note the end of a play late."""
NOTED_LATE_MS: Final = 31 * DAY
"""How late the end of a play may be noted: a device without network must report once a month."""
AT_ONCE_MS: Final = 2_000
"""Times no further apart than this are one moment, noted twice."""
PAUSE_MS: Final = 30 * 60_000
"""Longest pause within a play; after a longer one it counts as another play."""


Ints = npt.NDArray[np.int64]
START, END, SLACK, MEASURED = range(4)
"""Columns of `Clock.times`."""


@dataclass(frozen=True)
class Clock:
    """When plays began and ended.

    Attributes:
        times: Milliseconds since 1970 UTC of the start and of the end of each play, by how many
            each of both may be wrong, and 1 where the time heard is known, 0 where it is a guess;
            ``(plays, 4)``. Compiled loops take all of it.
    """

    times: Ints

    @classmethod
    def of(cls, listens: Listens, lengths: npt.NDArray[np.int32]) -> Clock:
        """Times of plays, lengths of their tracks given."""
        times = np.empty((len(listens), 4), np.int64)
        time, is_start, ms = map(listens.dense, ("time", "time_is_start", "ms"))
        pause, resolution = listens.dense("pause"), listens.dense("resolution")
        _tell_times(time, is_start, ms, pause, resolution, lengths, times)
        return cls(times)

    @property
    def start(self) -> Ints:
        """When each play began ``(plays,)``."""
        return self.times[:, START]

    @property
    def end(self) -> Ints:
        """When each ended ``(plays,)``."""
        return self.times[:, END]

    @property
    def slack(self) -> Ints:
        """By how much each time may be wrong, ``(plays,)`` milliseconds."""
        return self.times[:, SLACK]

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """Plays whose time heard is known ``(plays,)``."""
        return self.times[:, MEASURED] > 0

    def take(self, order: Ints) -> Clock:
        """The same of other plays."""
        return Clock(self.times[order])

    def spans(self, rows: Ints, sizes: Ints) -> Ints:
        """When sessions began and ended, and when at the earliest and the latest, ``(4, n)``.

        Times to the second count as exact.

        Args:
            rows: Their plays, in order, one session behind the other.
            sizes: Plays of each ``(n,)``.
        """
        found = np.empty((4, len(sizes)), np.int64)
        _tell_spans(self.times, rows, sizes, found)
        return found


@unlocked
def _tell_times(
    time: Ints,
    time_is_start: npt.NDArray[np.bool_],
    ms: npt.NDArray[np.int32],
    pause: npt.NDArray[np.int32],
    resolution: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int32],
    times: Ints,
) -> None:
    """Tell when plays began and ended; ``times`` are changed."""
    for i in range(len(time)):
        lasted = np.int64(ms[i] if ms[i] >= 0 else lengths[i]) + pause[i]
        times[i, START] = time[i] if time_is_start[i] else time[i] - lasted
        times[i, END] = times[i, START] + lasted
        times[i, SLACK] = resolution[i]
        times[i, MEASURED] = ms[i] >= 0


@unlocked
def _tell_spans(times: Ints, rows: Ints, sizes: Ints, found: Ints) -> None:
    """See `Clock.spans`; ``found`` is changed."""
    place = 0
    for number in range(len(sizes)):
        last = place + sizes[number]
        begin, end = times[rows[place], START], times[rows[last - 1], END]
        earliest, latest = begin, times[rows[place], END]
        for row in rows[place:last]:
            unsure = times[row, SLACK] if times[row, SLACK] > SECOND else 0
            earliest = min(earliest, times[row, START] - unsure)
            latest = max(latest, times[row, END] + unsure)
        found[0, number], found[1, number] = begin, end
        found[2, number], found[3, number] = earliest, latest
        place = last


@unlocked
def excess(one: int, other: int, times: Ints) -> int:
    """By how much more a play begins before the one before it ends than clocks make it seem.

    Negative where it may follow; where one of both is a guess it may.
    """
    allowed = CLOCK_MS + max(times[one, SLACK], times[other, SLACK])
    if times[one, MEASURED] and times[other, MEASURED]:
        return times[one, END] - times[other, START] - allowed
    return -allowed


def changes(*columns: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Rows in which a column differs from the row before ``(rows,)``; the first row is one."""
    different = np.ones(len(columns[0]), np.bool_)
    different[1:] = columns[0][1:] != columns[0][:-1]
    for column in columns[1:]:
        different[1:] |= column[1:] != column[:-1]
    return different


def by_user_and(
    user: npt.NDArray[np.integer], moment: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Order by user and moment ``(plays,)``; what is equal in both stays as it is.

    Both go into one key wherever they fit, which is sorted in a third of the time of two.
    """
    rises = moment[1:] >= moment[:-1]
    if ((user[1:] > user[:-1]) | ((user[1:] == user[:-1]) & rises)).all():
        return np.arange(len(user))
    latest, first = int(moment.max()), int(user.min())
    span = latest - int(moment.min()) + 1
    if (int(user.max()) - first + 1) * span + max(latest, 0) >= 1 << 63:
        return np.lexsort((moment, user))
    key = (user.astype(np.int64) - first) * span
    key += moment
    return np.argsort(key, kind="stable")


def sorted_by_start(listens: Listens, clock: Clock) -> Ints:
    """Order by user, start and row of the file ``(plays,)``."""
    user = listens.dense("user")
    order = by_listener(user)
    start = np.ascontiguousarray(clock.start)
    _sort_by_start(user, start, listens.dense("order"), order)
    return order


@unlocked
def _sort_by_start(
    user: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
) -> None:
    """Sort the plays of each listener; ``order`` is changed."""
    spare = np.empty_like(order)
    first = 0
    while first < len(order):
        last = end_of_listener(order, first, user)
        sort_rows(order[first:last], start, place, spare)
        first = last


def on_two_devices(of: Listens) -> npt.NDArray[np.bool_]:
    """Whether each play but the first ran on another device than the one before it."""
    device = of["device"]
    return (device[1:] >= 0) & (device[:-1] >= 0) & (device[1:] != device[:-1])


def with_true_starts(listens: Listens) -> Listens:
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
    listens = listens.copy()
    noted = np.where(usable & ~at_start & ~listens["time_is_start"], listens["time"], 0)
    listens["time"] = np.where(usable, listens["began"], listens["time"])
    listens["time_is_start"] = listens["time_is_start"] | usable
    listens["resolution"] = np.where(usable, SECOND, listens["resolution"])
    listens["pause"] = _pauses(listens, noted, heard)
    return listens


def _shared_starts(listens: Listens, heard: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Plays whose start is told of several songs that the listener heard ``(plays,)``."""
    order = np.lexsort((listens["began"], listens["user"]))
    first = changes(listens["user"][order], listens["began"][order])
    places, song = np.flatnonzero(first), listens["song"][order]
    lowest = np.minimum.reduceat(np.where(heard[order], song, np.iinfo(np.int32).max), places)
    highest = np.maximum.reduceat(np.where(heard[order], song, UNKNOWN), places)
    shared = np.zeros(len(listens), np.bool_)
    shared[order] = (lowest < highest)[np.cumsum(first) - 1]
    return shared


def _second_pieces(listens: Listens, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
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
    listens: Listens, noted: npt.NDArray[np.int64], heard: npt.NDArray[np.int64]
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
