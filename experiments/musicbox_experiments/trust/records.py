"""Figures of a simulator validation report: how they are kept, written, read and averaged."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from musicbox_env.data.splits import TIME
from musicbox_env.data.writing import write_json
from musicbox_env.errors import InputError
from musicbox_experiments.evaluate.resampling import CONFIDENCE, Measured

RECORDS_FILE: Final = "trust.json"
WIDTHS: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard errors from the middle of an interval to its end."""

Key = tuple[str, str, str]
"""Listener, protocol, metric."""
Rows = dict[str, dict[str, "Record"]]
"""Records of each listener, by metric."""
CurvePoint = tuple[float, Measured]
"""Mean prediction of a bin, and its real rate."""


@dataclass(frozen=True)
class Record:
    """One figure of the report.

    Attributes:
        listener: Whose it is.
        protocol: How it was taken.
        metric: What it is; a figure of a part of the data names it: ``auc[position=5]``.
        value: The figure; None where there was nothing to measure.
        low: Lower end of its 95 % interval, None where it has none.
        high: Upper end.
        reference: What it is compared with (the log, a baseline, a perfect listener's figure);
            None where there is nothing.
    """

    listener: str
    protocol: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reference: float | None = None

    @property
    def key(self) -> Key:
        """What the figure is of."""
        return self.listener, self.protocol, self.metric


@dataclass
class Findings:
    """What was found, on its way to the report.

    Attributes:
        records: All figures.
        calibration: For each listener and for boosting the calibration curve on next plays.
        truth: For each kind of songs and listener its curve against exact probabilities.
        by_place: For each listener, and the log, the skip rate at each place of free-running
            second halves ``(width,)``.
        notes: What was left out, and why.
    """

    records: list[Record] = field(default_factory=list)
    calibration: dict[str, list[CurvePoint]] = field(default_factory=dict)
    truth: dict[str, dict[str, list[CurvePoint]]] = field(default_factory=dict)
    by_place: dict[str, list[Measured]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def get(self, listener: str, protocol: str, metric: str) -> Record | None:
        """The record of that name, if there is one with a value."""
        wanted = (listener, protocol, metric)
        return next((r for r in self.records if r.key == wanted and r.value is not None), None)


def rows_of(records: Iterable[Record], protocol: str) -> Rows:
    """Records of a protocol for each listener, by metric."""
    rows: Rows = {}
    for record in records:
        if record.protocol == protocol:
            rows.setdefault(record.listener, {})[record.metric] = record
    return rows


@dataclass(frozen=True)
class Report:
    """What `RECORDS_FILE` holds.

    Attributes:
        figures: All figures.
        split: How the sessions were divided that they are of: ``split`` of ``dataset.json``; in
            means what their splits share, and ``test_folds``.
    """

    figures: Mapping[Key, Record]
    split: Mapping[str, Any]


def write_records(folder: Path, records: Sequence[Record], split: Mapping[str, Any]) -> None:
    """Write every figure, and the split, into `RECORDS_FILE` of a folder, made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: list[Any] = [asdict(record) for record in records]
    write_json(folder / RECORDS_FILE, {"split": dict(split), "figures": figures})


def read_report(folder: Path) -> Report:
    """The figures of a report, and of which split they are.

    Raises:
        FileNotFoundError: The folder holds none.
        ValueError: It holds something else.
    """
    file = folder / RECORDS_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no {file}; write it with `musicbox trust --out {folder}`."
        )
    try:
        held = json.loads(file.read_text())
        if isinstance(held, list):
            raise TypeError("it names no split, as those of older versions")
        split, records = held["split"], [Record(**figure) for figure in held["figures"]]
        if not isinstance(split, dict):
            raise TypeError(f"its split is {str(split)[:60]!r}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is not a list of figures and their split ({error}); it must be a file that "
            "this version of `musicbox trust` wrote. Write it again."
        ) from None
    return Report({record.key: record for record in records}, split)


def pooled_split(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the splits of reports, by the names of these, have in common, and their test folds.

    Raises:
        ValueError: They are not disjoint test folds of one split.
    """
    folds: dict[int, str] = {}
    shared: dict[str, Any] | None = None
    for name, split in splits.items():
        if split.get("kind") == TIME:
            raise ValueError(
                f"{name} is a report on a split by time, which has one test split, the latest "
                "sessions. --pool averages reports on disjoint test folds, those of `musicbox "
                "ingest --test-fold 0, 1, ...`; read this one by itself."
            )
        others = dict(split)
        fold = others.pop("test_fold", others.pop("turn", None))  # "turn" before it was renamed
        if not isinstance(fold, int):
            raise ValueError(
                f"{name} is not a report on one test fold; --pool averages those that `musicbox "
                "trust` wrote of data from `musicbox ingest --test-fold 0, 1, ...`."
            )
        if fold in folds:
            raise ValueError(
                f"{folds[fold]} and {name} are both reports on test fold {fold}; expected one "
                "of each. Leave one out."
            )
        folds[fold] = name
        if shared is not None and shared != others:
            raise ValueError(
                f"{next(iter(splits))} is a report on test sessions by {shared}, and {name} by "
                f"{others}; expected test folds of one split, of the same shares and seed."
            )
        shared = others
    return {**(shared or {}), "test_folds": sorted(folds)}


def pooled(reports: Sequence[Mapping[Key, Record]]) -> list[Record]:
    """Means of the figures that all reports hold, over test folds of the same sessions.

    Test folds are disjoint, so the variance of a mean is the sum of theirs over their number
    squared, each read from its interval. Listeners were fitted on sessions that they share in part,
    which makes the intervals a little too narrow (Bengio & Grandvalet, JMLR 5, 2004).

    Raises:
        ValueError: They have no figure in common.
    """
    shared = [key for key in reports[0] if all(key in report for report in reports)]
    if not shared:
        raise ValueError(
            "The reports have no figure in common; expected reports on the same listeners, by name."
        )
    return [_mean(key, [report[key] for report in reports]) for key in shared]


def _mean(key: Key, records: Sequence[Record]) -> Record:
    number = len(records)

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / number if len(known) == number else None

    value, reference = mean(r.value for r in records), mean(r.reference for r in records)
    widths = [r.high - r.low for r in records if r.low is not None and r.high is not None]
    if value is None or len(widths) < number:
        return Record(*key, value, reference=reference)
    errors = [width / (2 * WIDTHS) for width in widths]
    off = WIDTHS * math.sqrt(sum(e**2 for e in errors)) / number
    return Record(*key, value, value - off, value + off, reference)
