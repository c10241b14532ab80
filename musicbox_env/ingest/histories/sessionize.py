"""Plays of listeners cut into sessions, by the definition of the challenge data set.

A session is a run of plays with at most 60 seconds without play between two of them, 10 to 20
plays long. Longer runs are cut, or divided into windows; shorter ones are no sessions. Windows of
one run are so alike that they must not be divided between training and test: a session's id names
its run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import MAX_SESSION_LENGTH, MIN_SESSION_LENGTH, UNKNOWN

CLOCK_MS: Final = 5_000
"""How far two plays of one player may overlap by the clock, beyond the clock's own resolution:
players note the end of a play late."""
NO_SESSION: Final = -1
OVERLAPS: Final = (
    "plays that begin before the last one ends, by the clock alone",
    "plays at the same time as another, on a second player",
    "of these on another device",
)
FATES: Final = ("plays in runs too short", "plays cut off long runs", "plays in sessions")
FOUND: Final = (
    "runs of plays",
    "runs too short for a session",
    "runs too long for a session",
    "sessions",
)


@dataclass(frozen=True)
class SessionConfig:
    """What a session is.

    Attributes:
        max_gap: Longest time without play within a session, in seconds.
        min_plays: Fewest plays of a session; shorter runs are left out.
        max_plays: Most plays of a session.
        long_runs: Runs of more plays than that: ``window`` divides them into sessions as equal
            as can be, ``cut`` keeps their first plays.
    """

    max_gap: float = 60.0
    min_plays: int = MIN_SESSION_LENGTH
    max_plays: int = MAX_SESSION_LENGTH
    long_runs: Literal["window", "cut"] = "window"

    def __post_init__(self) -> None:
        if self.max_gap < 0:
            raise ValueError(f"max_gap is {self.max_gap}; 0 seconds or more expected.")
        if not 2 <= self.min_plays <= self.max_plays <= MAX_SESSION_LENGTH:
            raise ValueError(
                f"min_plays is {self.min_plays} and max_plays {self.max_plays}; 2 to "
                f"{MAX_SESSION_LENGTH} expected, the first no more than the second."
            )
        if self.long_runs not in ("window", "cut"):
            raise ValueError(f"long_runs is {self.long_runs!r}; 'window' or 'cut' expected.")


def session_name(listener: str, run: str, window: str) -> str:
    """Id of a session: a window of a run of a listener's plays, each given as a hash."""
    return f"{listener}-{run}-{window}"


def run_of(session_id: str) -> str:
    """The run that a session is a window of.

    >>> run_of(session_name("hortensia", "monday", "2nd"))
    'hortensia-monday'
    """
    return session_id.rpartition("-")[0]


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
        heard = np.where(measured, listens["ms"], lengths).astype(np.int64)
        start = np.where(listens["time_is_start"], listens["time"], listens["time"] - heard)
        end = np.where(listens["time_is_start"], listens["time"] + heard, listens["time"])
        return cls(start, end, listens["resolution"].astype(np.int64), measured)

    def take(self, order: npt.NDArray[np.int64]) -> Clock:
        """The same of other plays."""
        return Clock(self.start[order], self.end[order], self.slack[order], self.measured[order])


def without_duplicates(listens: npt.NDArray) -> tuple[npt.NDArray, int]:
    """Leave out plays that are listed twice, the later row each time; also returns how many.

    Twice is the same user, track, moment and time heard. Times exact to the minute are those of
    an archive that may list the plays of another archive, exact to the second, once more: there
    the minute counts.
    """
    if not len(listens):
        return listens, 0
    minute = listens["time"] // 60_000
    user, track, ms = (listens[name] for name in ("user", "track", "ms"))
    time, exactness = listens["time"], listens["resolution"]
    order = np.lexsort((listens["order"], time, exactness, minute, ms, track, user))
    listens, time, exactness = listens[order], time[order], exactness[order]
    new = _changes(user[order], track[order], ms[order], minute[order])
    finest = np.minimum.reduceat(exactness, np.flatnonzero(new))[np.cumsum(new) - 1]
    again = ~(new | _changes(time, exactness)) | (exactness > finest)
    return listens[~again], int(again.sum())


def _changes(*columns: npt.NDArray) -> npt.NDArray[np.bool_]:
    """Rows in which a column differs from the row before ``(rows,)``; the first row is one."""
    changes = np.ones(len(columns[0]), np.bool_)
    changes[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return changes


def find_runs(
    listens: npt.NDArray, clock: Clock, config: SessionConfig, counts: Counter[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Order plays and find the runs without a longer pause.

    Args:
        listens: Plays ``(plays,)`` of `listens.LISTEN`, duplicates left out.
        clock: When they were.
        config: What a session is.
        counts: Receives overlapping plays.

    Returns:
        The order of the plays, and the number of each one's run in that order, both ``(plays,)``.
    """
    # Any moment of a play orders it, but the stated one best: what is reckoned from a time and a
    # time heard that are exact to different fractions may swap plays that were skipped at once.
    mixed = ~listens["time_is_start"].all()
    moment = np.where(clock.measured & mixed, clock.end, listens["time"])
    order = np.lexsort((listens["order"], moment, listens["user"]))
    clock, user = clock.take(order), listens["user"][order]
    player = _players(user, clock, listens["device"][order], counts)
    regroup = np.lexsort((np.arange(len(order)), player, user))
    order, user, player, clock = (
        order[regroup],
        user[regroup],
        player[regroup],
        clock.take(regroup),
    )
    allowed = config.max_gap * 1000 + _shared_slack(clock)
    breaks = _changes(user, player)
    breaks[1:] |= clock.start[1:] - clock.end[:-1] > allowed
    return order, np.cumsum(breaks) - 1


def _shared_slack(clock: Clock) -> npt.NDArray[np.int64]:
    """How wrong the time between neighbours may be: nothing to speak of but for whole minutes."""
    coarse = np.maximum(clock.slack[1:], clock.slack[:-1])
    return np.where(coarse > 1_000, coarse, 0)


def _players(
    user: npt.NDArray[np.int32],
    clock: Clock,
    device: npt.NDArray[np.int32],
    counts: Counter[str],
) -> npt.NDArray[np.int64]:
    """Which player of its user each play ran on, ``(plays,)``, plays ordered by user and time.

    One player plays one thing at a time. A play that begins well before another has ended ran
    on a second player; a little before is what clocks do, and means no time between.
    """
    player = np.zeros(len(user), np.int64)
    if len(user) < 2:
        return player
    overlap = np.where(user[1:] == user[:-1], clock.end[:-1] - clock.start[1:], 0)
    overlap[~(clock.measured[1:] & clock.measured[:-1])] = 0
    tolerated = CLOCK_MS + np.maximum(clock.slack[1:], clock.slack[:-1])
    at_once = overlap > tolerated
    known = at_once & (device[1:] >= 0) & (device[:-1] >= 0)
    elsewhere = known & (device[1:] != device[:-1])
    by_clock = (overlap > tolerated - CLOCK_MS) & ~at_once
    for what, mask in zip(OVERLAPS, (by_clock, at_once, elsewhere), strict=True):
        counts[what] += int(mask.sum())
    for each in np.unique(user[1:][at_once]).tolist():
        rows = np.flatnonzero(user == each)
        player[rows] = _assign_players(clock.take(rows))
    return player


def _assign_players(clock: Clock) -> npt.NDArray[np.int64]:
    """Give each play of one user to the player that stopped last before it began."""
    ends: list[int] = []
    player = np.zeros(len(clock.start), np.int64)
    slack = (clock.slack + CLOCK_MS).tolist()
    starts, stops = clock.start.tolist(), clock.end.tolist()
    for i, measured in enumerate(clock.measured.tolist()):
        free = [p for p, end in enumerate(ends) if end <= starts[i] + slack[i] or not measured]
        chosen = max(free, key=ends.__getitem__, default=len(ends))
        if chosen == len(ends):
            ends.append(stops[i])
        ends[chosen] = stops[i]
        player[i] = chosen
    return player


def overlaps_if_flipped(listens: npt.NDArray, lengths: npt.NDArray[np.int32]) -> int:
    """Plays that would overlap if each time were the other end of its play than it is read as."""
    flipped = listens.copy()
    flipped["time_is_start"] = ~flipped["time_is_start"]
    clock = Clock.of(flipped, lengths)
    order = np.lexsort((flipped["order"], flipped["time"], flipped["user"]))
    counts: Counter[str] = Counter()
    _players(flipped["user"][order], clock.take(order), flipped["device"][order], counts)
    return counts[OVERLAPS[1]]


def cut_sessions(
    run: npt.NDArray[np.int64], config: SessionConfig, counts: Counter[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Divide runs into sessions.

    Args:
        run: Number of each play's run ``(plays,)``, ascending from 0.
        config: What a session is.
        counts: Receives what was found and left out.

    Returns:
        Session of each play (`NO_SESSION` where it is in none), its position in it from 1, and
        the session's length, all ``(plays,)``.
    """
    lengths, most = np.bincount(run), config.max_plays
    windows = -(-lengths // most)
    even = (lengths // windows >= config.min_plays) & (config.long_runs == "window")
    # One entry a window from here on: its run, and its number w within the run.
    of_run = np.repeat(np.arange(len(lengths)), windows)
    w = np.arange(len(of_run)) - np.repeat(np.cumsum(windows) - windows, windows)
    n, k = lengths[of_run], windows[of_run]
    # Of k even windows in a run of n plays, window w begins at ceil(w n / k).
    begin, end = (
        np.where(even[of_run], -(-i * n // k), np.minimum(i * most, n)) for i in (w, w + 1)
    )
    size = end - begin
    kept = size >= config.min_plays
    if config.long_runs == "cut":
        kept &= w == 0
    short, long = lengths < config.min_plays, lengths > most
    fates = lengths[short].sum(), size[~kept & ~short[of_run]].sum(), size[kept].sum()
    found = len(lengths), short.sum(), long.sum(), kept.sum()
    for what, count in zip((*FATES, *FOUND), (*fates, *found), strict=True):
        counts[what] += int(count)
    session = np.where(kept, np.cumsum(kept) - 1, NO_SESSION)
    position = np.arange(len(run)) - np.repeat(np.cumsum(size) - size, size) + 1
    return np.repeat(session, size), position, np.repeat(np.where(kept, size, UNKNOWN), size)
