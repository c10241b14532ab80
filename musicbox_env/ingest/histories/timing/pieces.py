"""Plays that a service tells in pieces around a pause, made one play again.

A row that goes on with the play before it is counted, and becomes no second play and no skip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.levels import ended_itself
from musicbox_env.ingest.histories.timing.clock import (
    CLOCK_MS,
    PAUSE_MS,
    Clock,
    on_two_devices,
    sorted_by_start,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.spelling.precision import SECOND
from musicbox_env.kernels import unlocked
from musicbox_env.schema import REASONS_END, REASONS_START, UNKNOWN

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
JOINED: Final = (
    *("ms", "pause", "time", "time_is_start", "share"),
    *("reason_end", "skipped", "completed"),
)
REMOTE: Final = REASONS_END.index("remote"), REASONS_START.index("remote")
"""Another device took over, or pressed a button: only where the device changes is it the first."""


def may_be_pieces(listens: Listens) -> npt.NDArray[np.bool_]:
    """Plays that may go on with another ``(plays,)``: what they last is no track's length."""
    clock = Clock.of(listens, np.zeros(len(listens), np.int32))
    order = sorted_by_start(listens, clock)
    pieces = np.zeros(len(listens), np.bool_)
    pieces[order[_go_on(listens, clock, order)]] = True
    return pieces


class PiecesCount:
    """How many plays, of all that are read, are pieces if no reason says that they are none."""

    def __init__(self) -> None:
        """Begin."""
        self._unclear = self._untold = 0

    def add(
        self, listens: Listens, lengths: npt.NDArray[np.int32], known: npt.NDArray[np.bool_]
    ) -> None:
        """Count those of some listeners; arguments as of `with_pieces_joined`."""
        if not _tell_no_pause(listens):
            pairs = _Pairs.of(listens, lengths, known)
            self._unclear += int(pairs.unclear.sum())
            self._untold += _untold(listens, pairs.order)

    @property
    def usual(self) -> bool:
        """Whether they are so many that few listeners would begin a song again so often."""
        return self._unclear > max(PIECES_USUAL * self._untold, FEWEST_PIECES)


def with_pieces_joined(
    listens: Listens,
    lengths: npt.NDArray[np.int32],
    known: npt.NDArray[np.bool_],
    *,
    usual: bool,
) -> tuple[npt.NDArray[np.int64] | slice, Listens, int, int]:
    """Join the pieces of plays that were paused and went on.

    Pieces follow each other in the listener's plays, are of one song, hold no more than its length
    together, and are not what a listener leaves behind who skips, goes back or starts anew. Where
    no reason tells, a song that is begun again looks the same: then they are joined only where
    such pairs are usual.

    Args:
        listens: The plays.
        lengths: Lengths of their tracks in milliseconds ``(plays,)``.
        known: Where these are more than a guess ``(plays,)``.
        usual: What `PiecesCount` found over all plays.

    Returns:
        Rows that are left, these plays, how many rows went into others, and how many that might
        have did not.
    """
    if _tell_no_pause(listens):
        return slice(None), listens, 0, 0
    pairs = _Pairs.of(listens, lengths, known)
    order, second = pairs.order, pairs.second[pairs.told | (pairs.unclear & usual)]
    unjoined = 0 if usual else int(pairs.unclear.sum())
    if not len(second):
        return slice(None), listens, 0, unjoined
    of, left = _joined(listens.take(order), pairs.clock.take(order), second, pairs.limit)
    return order[left], of.compress(left), int((~left).sum()), unjoined


def _tell_no_pause(listens: Listens) -> bool:
    """Whether all times are too rough for it."""
    return bool((listens.kept("resolution") > SECOND).all())


@dataclass(frozen=True)
class _Pairs:
    """Neighbours that may be pieces of one play.

    Attributes:
        clock: When the plays were.
        order: They by listener and start ``(plays,)``.
        limit: How long each in that order may be with what goes on with it ``(plays,)``.
        second: Places in the order of those that may go on with the one before ``(pairs,)``.
        told: Whether a reason says so ``(pairs,)``.
        unclear: Whether none does, and the length is known ``(pairs,)``.
    """

    clock: Clock
    order: npt.NDArray[np.int64]
    limit: npt.NDArray[np.float64]
    second: npt.NDArray[np.int64]
    told: npt.NDArray[np.bool_]
    unclear: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls, listens: Listens, lengths: npt.NDArray[np.int32], known: npt.NDArray[np.bool_]
    ) -> _Pairs:
        """Those of some listeners; arguments as of `with_pieces_joined`."""
        clock = Clock.of(listens, lengths)
        order = sorted_by_start(listens, clock)
        second = _go_on(listens, clock, order)
        # A reason is word enough where no length is known.
        limit = np.where(known, ONE_LENGTH * lengths, np.inf)[order]
        one, other = order[second - 1], order[second]
        fit = listens["ms"][other].astype(np.int64) + listens["ms"][one] <= limit[second - 1]
        second, one, other = second[fit], one[fit], other[fit]
        told = (listens["reason_end"][one] >= 0) | (listens["reason_start"][other] >= 0)
        return cls(clock, order, limit, second, told, ~told & known[one])


def _untold(listens: Listens, order: npt.NDArray[np.int64]) -> int:
    """Neighbours in an order of which no reason says how one ended or the other began."""
    end, start = listens.kept("reason_end"), listens.kept("reason_start")
    if not end.ndim and not start.ndim:
        return (len(order) - 1) * bool(end < 0 and start < 0)
    end, start = listens["reason_end"][order], listens["reason_start"][order]
    return int(((end[:-1] < 0) & (start[1:] < 0)).sum())


def _joined(
    of: Listens,
    clock: Clock,
    second: npt.NDArray[np.int64],
    limit: npt.NDArray[np.float64],
) -> tuple[Listens, npt.NDArray[np.bool_]]:
    """Join plays, in their order, with those that go on with them.

    Args:
        of: All plays ``(plays,)``.
        clock: When they were.
        second: Places of those that go on with the one before them.
        limit: How long each may be with what goes on with it ``(plays,)``.

    Returns:
        The plays, and which of them are left ``(plays,)``.
    """
    left = np.ones(len(of), np.bool_)
    columns = {name: of[name].copy() for name in JOINED}
    ms, first = columns["ms"], -1
    for row in second.tolist():
        if left[row - 1]:
            first = row - 1
        if int(ms[first]) + int(ms[row]) > limit[first]:
            continue
        _join(columns, clock, first, row)
        left[row] = False
    for name, values in columns.items():
        of[name] = values
    return of, left


def _go_on(listens: Listens, clock: Clock, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places in an order of plays that may go on with the one before them."""
    again = np.zeros(len(order), np.bool_)
    _mark_song_again(listens.dense("user"), listens.dense("song"), order, again)
    second = np.flatnonzero(again)
    before, after = order[second - 1], order[second]
    pairs = np.stack([before, after], axis=1).ravel()
    may = _may_go_on(listens.take(pairs), clock.take(pairs))[::2] if len(pairs) else second > 0
    return second[may]


@unlocked
def _mark_song_again(
    user: npt.NDArray[np.int32],
    song: npt.NDArray[np.int32],
    order: npt.NDArray[np.int64],
    again: npt.NDArray[np.bool_],
) -> None:
    """Mark places in an order whose play is of the listener and song before; changes ``again``."""
    for place in range(1, len(order)):
        one, other = order[place - 1], order[place]
        again[place] = user[one] == user[other] and song[one] == song[other]


def _may_go_on(of: Listens, clock: Clock) -> npt.NDArray[np.bool_]:
    """Whether each play but the first may go on with the one before it, ``(plays - 1,)``.

    Both must be the user's, of one song.
    """
    end, start = of["reason_end"][:-1], of["reason_start"][1:]
    moved = on_two_devices(of)
    interrupted = np.isin(end, list(INTERRUPTED)) | (moved & (end == REMOTE[0]))
    resumed = np.isin(start, list(RESUMED)) | (moved & (start == REMOTE[1]))
    may = interrupted | (end == UNKNOWN)
    may &= resumed | (start == UNKNOWN)
    may &= ~ended_itself(of)[:-1] & (of["skipped"][:-1] != 1)
    may &= clock.measured[1:] & clock.measured[:-1]
    slack = np.maximum(clock.slack[1:], clock.slack[:-1])
    may &= slack <= SECOND
    gap = clock.start[1:] - clock.end[:-1]
    longest = np.where(interrupted | resumed, PAUSE_MS, SHORT_PAUSE_MS)
    return may & (gap >= -CLOCK_MS - slack) & (gap <= longest)


def _join(of: dict[str, npt.NDArray], clock: Clock, first: int, second: int) -> None:
    """Make one play of two, in the place of the first; changes the columns `JOINED`."""
    of["ms"][first] += of["ms"][second]
    span = clock.end[second] - clock.start[first]
    of["pause"][first] = max(int(span) - int(of["ms"][first]), 0)
    of["time"][first], of["time_is_start"][first] = clock.start[first], True
    of["share"][first] += of["share"][second]
    for name in ("reason_end", "skipped", "completed"):
        of[name][first] = of[name][second]
