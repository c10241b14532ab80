"""When plays began and ended, as far as what services note of it can be true.

Services note times late, and some tell the start of a play beside a time that is its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.timing.records import Listens, rearranged, repeated
from musicbox_env.ingest.spelling.precision import DAY, SECOND
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
    def of(cls, listens: Listens, lengths: npt.NDArray[np.int32]) -> Clock:
        """Times of plays, lengths of their tracks given."""
        measured, time = listens["ms"] >= 0, listens["time"]
        heard = np.where(measured, listens["ms"], lengths).astype(np.int64)
        heard += listens.kept("pause")
        start, end = time - heard, time
        if listens["time_is_start"].any():
            start = np.where(listens["time_is_start"], time, start)
            end = np.where(listens["time_is_start"], time + heard, time)
        slack = listens.kept("resolution").astype(np.int64)
        return cls(start, end, slack if slack.ndim else repeated(slack, len(time)), measured)

    def take(self, order: npt.NDArray[np.int64]) -> Clock:
        """The same of other plays."""
        columns = (self.start, self.end, self.slack, self.measured)
        return Clock(*(rearranged(of, order) for of in columns))

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


def by_user_moment_and_place(
    user: npt.NDArray[np.integer], moment: npt.NDArray[np.int64], place: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Order by user, moment and row of the file ``(plays,)``."""
    order = by_user_and(user, moment)
    tie = ~changes(user[order], moment[order])[1:]
    placed = place[order]
    if (tie & (placed[1:] < placed[:-1])).any():
        order = np.lexsort((place, moment, user))
    return order


def sorted_by_start(listens: Listens, clock: Clock) -> tuple[npt.NDArray[np.int64], bool]:
    """Order by user, start and row of the file ``(plays,)``, and whether they lie so already."""
    order = by_user_moment_and_place(listens["user"], clock.start, listens["order"])
    return order, bool((order[1:] > order[:-1]).all())


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
