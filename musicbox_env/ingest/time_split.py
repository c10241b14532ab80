"""Sessions divided by when they were: training, a gap, validation, and test last.

Sessions that belong together, the windows of a run of plays, go together. Each lies wholly before
or wholly behind an edge: one that is across it, or begins within the gap, is left out and counted.
So every session of validation and test begins after the last one of training has ended, by more
than the gap, whoever heard them.

Times are held in memory alone. What a part, and then the dataset, keeps is the split of each
session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.data.sessions import assign_splits
from musicbox_env.data.splits import SplitConfig, zone_named
from musicbox_env.errors import InputError
from musicbox_env.ingest.parts import Part
from musicbox_env.ingest.spelling.precision import DAY
from musicbox_env.schema import SPLITS, UNKNOWN

TRAIN, _, VALIDATION, TEST = range(len(SPLITS))
"""Codes of sessions; those of training fall to a fold later, by `with_folds`."""
IN_GAP, ACROSS, UNTIMED = range(len(SPLITS), len(SPLITS) + 3)
PARTS: Final[Mapping[str, int]] = {"training": TRAIN, "validation": VALIDATION, "test": TEST}
LEFT_OUT: Final[Mapping[str, int]] = {
    "in the gap": IN_GAP,
    "across the end of training or the beginning of test": ACROSS,
    "without a date": UNTIMED,
}
"""Codes of sessions in no split, by what they are."""
MEND: Final = (
    "Name a shorter --gap, other shares (--train, --validation, --test) or dates (--train-until, "
    "--test-from), or split by hash."
)

EARLIEST, LATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max

Codes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Spans:
    """When sessions were, in the order in which they are stored."""

    def __init__(self) -> None:
        """Begin with no sessions."""
        self._start: list[Ints] = []
        self._end: list[Ints] = []
        self._run: list[Ints] = []
        self._runs = 0

    def __len__(self) -> int:
        return sum(map(len, self._run))

    def add(
        self, session: Ints, run: Ints, start: Ints, end: Ints, known: Mask | None = None
    ) -> None:
        """Add sessions by their plays.

        Args:
            session: Session of each play ``(plays,)``; those of a session follow each other.
            run: What sessions must not be divided by, the same for all plays of a session; other
                numbers than in another call are other runs.
            start: Milliseconds of the play's beginning.
            end: Of its end.
            known: Whether both are known; so they are if it is left out.
        """
        if not len(session):
            return
        first = np.flatnonzero(np.diff(session, prepend=session[0] - 1))
        known = np.ones(len(session), np.bool_) if known is None else known
        self._start.append(np.minimum.reduceat(np.where(known, start, LATEST), first))
        self._end.append(np.maximum.reduceat(np.where(known, end, EARLIEST), first))
        runs, number = np.unique(run[first], return_inverse=True)
        self._run.append(number.astype(np.int64) + self._runs)
        self._runs += len(runs)

    def codes(self, config: SplitConfig, timezone: str | None = None) -> Codes:
        """Split code of each session, or one of `LEFT_OUT`; none where there are no sessions.

        Raises:
            InputError: There is nothing to divide the sessions by.
        """
        if not len(self):
            return np.empty(0, np.uint8)
        of_session, of_end, run = map(np.concatenate, (self._start, self._end, self._run))
        start, end = np.full(self._runs, LATEST), np.full(self._runs, EARLIEST)
        np.minimum.at(start, run, of_session)
        np.maximum.at(end, run, of_end)
        timed = start <= end
        sizes = np.bincount(run, minlength=self._runs)
        edges = config.edges_ms(zone_named(timezone))
        until, test = edges or _edges(start[timed], sizes[timed], config)
        behind = start >= until + config.gap_ms
        codes = np.select(
            [~timed, end < until, start >= test, behind & (end < test), behind, start >= until],
            [UNTIMED, TRAIN, TEST, VALIDATION, ACROSS, IN_GAP],
            ACROSS,
        )
        return codes.astype(np.uint8)[run]


def _edges(start: Ints, sizes: Ints, config: SplitConfig) -> tuple[int, int]:
    """When training ends and when test begins, by shares of the sessions.

    Training has its share of all sessions; validation and test share what begins behind the gap.

    Args:
        start: When each run of sessions began ``(runs,)``.
        sizes: Sessions of each.
        config: Shares and gap.
    """
    if len(np.unique(start)) < 2:
        raise InputError(
            f"All {sizes.sum():,} sessions began at the same time (or day): --split time has "
            "nothing to divide them by. Split by hash."
        )
    until = _edge(start, sizes, config.train)
    later = start >= until + config.gap_ms
    moments = len(np.unique(start[later]))
    if moments < 2:
        raise InputError(
            f"Behind the training sessions and a gap of {config.gap} {sizes[later].sum():,} of "
            f"{sizes.sum():,} sessions begin, at {moments} different times: --split time leaves "
            f"validation or test empty. {MEND}"
        )
    share = config.validation / (config.validation + config.test)
    return until, _edge(start[later], sizes[later], share)


def _edge(start: Ints, sizes: Ints, share: float) -> int:
    """The time before which the nearest to this share of the sessions begins, some in any case."""
    moments, of = np.unique(start, return_inverse=True)
    before = np.cumsum(np.bincount(of, weights=sizes))[:-1] / sizes.sum()
    return int(moments[1 + np.abs(before - share).argmin()])


def codes_of(parts: Sequence[Part], config: SplitConfig) -> list[Codes | None]:
    """Codes of the sessions of each part; None where sessions are split by hash.

    A part of histories was made with them; those of logs come from the dates of their plays.

    Raises:
        InputError: A table has no dates, or there is nothing to divide the sessions by.
    """
    if not config.by_time:
        return [None] * len(parts)
    logs = Spans()
    for part in parts:
        if part.split_codes is None:
            _add_days(part, logs)
    of_logs = logs.codes(config)
    own: list[Codes | None] = []
    before = 0
    for part in parts:
        codes = part.split_codes
        if codes is None:
            codes = of_logs[before : before + part.about["sessions"]]
            before += part.about["sessions"]
        own.append(codes)
    return own


def _add_days(part: Part, spans: Spans) -> None:
    """Add the sessions of a log, each of them from the beginning of a day to the end of one."""
    dated: Counter[str] = Counter()
    for table, batch in part.blocks():
        session = batch["session_id"].indices.to_numpy().astype(np.int64)
        date = batch["date"].to_numpy().astype(np.int64)
        known = date != UNKNOWN
        dated[table] += int(known.sum())
        spans.add(session, session, date * DAY, (date + 1) * DAY - 1, known)
    if without := [table for table, count in dated.items() if not count]:
        raise InputError(
            f"{without[0]}: no row has a date, so nothing tells when its sessions were, and "
            "--split time cannot divide them. Logs need a column date, as 2018-07-15; or split by "
            "hash."
        )


def with_folds(codes: Codes | None, keys: pa.StringArray, seed: int) -> Codes | None:
    """Codes ``(n,)`` with training halved into its folds by hash of the sessions' keys."""
    if codes is None:
        return None
    folds = assign_splits(keys, seed=seed, shares=(1.0, 0.0, 0.0))
    return np.where(codes == TRAIN, folds, codes).astype(np.uint8)


def require_dates(config: SplitConfig) -> None:
    """Refuse to divide histories and logs together by shares.

    Raises:
        InputError: They are divided so.
    """
    if config.by_time and config.train_until is None:
        raise InputError(
            "Histories tell times and logs days, and each of them is divided by itself: with both, "
            "--split time needs dates (--train-until, --test-from) in place of shares."
        )


def require_one_clock(config: SplitConfig, relative: Collection[bool]) -> None:
    """Refuse to divide by time what no one clock orders.

    Args:
        config: How sessions are divided.
        relative: Of each table of plays whether its times count from a moment that is not known.

    Raises:
        InputError: Times cannot be compared with each other, or with the dates.
    """
    if not config.by_time or not any(relative):
        return
    if config.train_until is not None:
        raise InputError(
            "The times of these plays count from a moment that nobody names, so --train-until and "
            "--test-from say nothing of them. Split by shares: --train, --validation, --test."
        )
    if not all(relative):
        raise InputError(
            "Some times count from a moment that nobody names, others are dates: nothing orders "
            "the ones among the others. Ingest them one by one, or split by hash."
        )


def account(config: SplitConfig, counts: Mapping[str, int]) -> dict[str, Any]:
    """What ``dataset.json`` says of a split by time and of what it left out.

    Args:
        config: How sessions were divided.
        counts: ``{rule}_sessions`` and ``{rule}_plays`` by the names of `LEFT_OUT`.
    """
    return {
        **config.about(),
        "left_out": {
            what: {"sessions": counts[f"{what}_sessions"], "plays": counts[f"{what}_plays"]}
            for what in LEFT_OUT
        },
    }


def require_every_split(counts: Mapping[str, int]) -> None:
    """Refuse a split by time that leaves a part empty, unless there was nothing to split.

    Args:
        counts: Sessions by the names of `PARTS`, and as for `account`.

    Raises:
        InputError: Training, validation or test has no session.
    """
    if not any(counts[name] for name in (*PARTS, *(f"{what}_sessions" for what in LEFT_OUT))):
        return
    if empty := [name for name in PARTS if not counts[name]]:
        found = [f"{counts[name]:,} {name}" for name in PARTS]
        found += [f"{n:,} {what}" for what in LEFT_OUT if (n := counts[f"{what}_sessions"])]
        raise InputError(
            f"--split time leaves {' and '.join(empty)} empty. Sessions: {', '.join(found)}. {MEND}"
        )
