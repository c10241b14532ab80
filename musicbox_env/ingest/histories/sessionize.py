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

from musicbox_env.ingest.histories.timing.clock import END, SLACK, START, Clock, Ints
from musicbox_env.ingest.histories.timing.players import (
    OVERLAPS,
    find_players,
    group_by_player,
    moments,
    order_plays,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.histories.timing.sorting import by_listener, end_of_listener
from musicbox_env.ingest.spelling.precision import SECOND
from musicbox_env.kernels import unlocked
from musicbox_env.schema import MAX_SESSION_LENGTH, MIN_SESSION_LENGTH

LONGEST_GAP: Final = 10**9
"""Seconds, thirty years: what is longer than any log is not told apart, and its milliseconds fit in
any column."""
FATES: Final = ("plays in runs too short", "plays cut off long runs", "plays in sessions")
LONG_RUNS: Final = {
    "window": "runs longer than a session, divided into several",
    "cut": "runs longer than a session, of which the first plays are kept",
}
"""What becomes of long runs, by `SessionConfig.long_runs`."""


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
        if not 0 <= self.max_gap <= LONGEST_GAP:
            raise ValueError(f"max_gap is {self.max_gap}; 0 to {LONGEST_GAP:,} seconds expected.")
        if not 2 <= self.min_plays <= self.max_plays <= MAX_SESSION_LENGTH:
            raise ValueError(
                f"min_plays is {self.min_plays} and max_plays {self.max_plays}; 2 to "
                f"{MAX_SESSION_LENGTH} expected, the first no more than the second."
            )
        if self.long_runs not in ("window", "cut"):
            raise ValueError(f"long_runs is {self.long_runs!r}; 'window' or 'cut' expected.")


def found_names(config: SessionConfig) -> tuple[str, str, str, str]:
    """Names of the counts of runs and sessions."""
    long = LONG_RUNS[config.long_runs]
    return "runs of plays", "runs too short for a session", long, "sessions"


def find_runs(
    listens: Listens, clock: Clock, config: SessionConfig, counts: Counter[str]
) -> tuple[Ints, Ints]:
    """Order plays and find the runs without a longer pause.

    Args:
        listens: Plays, duplicates left out.
        clock: When they were.
        config: What a session is.
        counts: Receives overlapping plays.

    Returns:
        The order of the plays, and the number of each one's run in that order, both ``(plays,)``.
    """
    user, device, place = map(listens.dense, ("user", "device", "order"))
    moment, other_end = moments(listens, clock)
    order, found = by_listener(user), np.zeros(len(OVERLAPS), np.int64)
    run = np.empty_like(order)
    gap = float(config.max_gap * 1000)
    _find_runs(user, moment, place, other_end, clock.times, device, gap, order, run, found)
    counts.update(dict(zip(OVERLAPS, found.tolist(), strict=True)))
    return order, run


@unlocked
def _find_runs(
    user: npt.NDArray[np.int32],
    moment: Ints,
    place: Ints,
    other_end: Ints,
    times: Ints,
    device: npt.NDArray[np.int32],
    max_gap: float,
    order: Ints,
    run: Ints,
    found: Ints,
) -> None:
    """See `find_runs`; ``order``, ``run`` and ``found`` are changed."""
    spare, player, number, first = np.empty_like(order), np.empty_like(order), -1, 0
    while first < len(order):
        last = end_of_listener(order, first, user)
        rows, players = order[first:last], player[first:last]
        order_plays(rows, moment, place, other_end, times, spare)
        several = find_players(rows, times, device, player[first:last], found)
        if several > 1:
            group_by_player(rows, players, several)
        for i in range(len(rows)):
            breaks = i == 0 or players[i] != players[i - 1]
            if not breaks:
                one, other = rows[i - 1], rows[i]
                coarse = max(times[one, SLACK], times[other, SLACK])
                # Pauses are as wrong as times: nothing to speak of but for whole minutes.
                allowed = max_gap + (coarse if coarse > SECOND else 0)
                breaks = times[other, START] - times[one, END] > allowed
            number += breaks
            run[first + i] = number
        first = last


def cut_sessions(
    run: Ints, config: SessionConfig, counts: Counter[str]
) -> tuple[Ints, npt.NDArray[np.int64]]:
    """Divide runs into sessions.

    Args:
        run: Number of each play's run ``(plays,)``, ascending from 0.
        config: What a session is.
        counts: Receives what was found and left out.

    Returns:
        Place of the first play of each session, and how many there are, both ``(sessions,)``.
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
    for what, count in zip((*FATES, *found_names(config)), (*fates, *found), strict=True):
        counts[what] += int(count)
    return (np.cumsum(size) - size)[kept], size[kept]


def plays_of(first: Ints, size: Ints) -> Ints:
    """Places of all plays of some sessions ``(plays,)``, one session behind the other."""
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return np.repeat(first, size) + within
