"""The trust report in words and tables: which figures are close enough, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from musicbox_experiments.trust.boosting import BAR_NAMES
from musicbox_experiments.trust.evaluators import AGREEMENT, TRUTH
from musicbox_experiments.trust.lists import LISTS
from musicbox_experiments.trust.measures import (
    CHALLENGE,
    FREE,
    FREE_FILTERED,
    FREE_LASTING,
    GREEDY,
    LAST_ACTION,
    LOG_NAME,
    NEXT,
    NEXT_LEVELS,
    PRICE,
    Findings,
    Record,
)
from musicbox_experiments.trust.protocols import LAGS

INFINITE: Final = math.inf
REFERENCES: Final = (LAST_ACTION, *BAR_NAMES.values())
"""Rows that are no listeners."""
Band = tuple[float, float]


@dataclass(frozen=True)
class About:
    """What a report is about.

    Attributes:
        dataset: ``Dataset.about``.
        sessions: Sessions asked about.
        plays: Their plays.
        config: The options in force.
        command: Command line that makes it again.
        sees_session: Listeners whose answers use labels of the whole session.
        split: Which sessions these are.
    """

    dataset: Mapping[str, Any]
    sessions: int
    plays: int
    config: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    sees_session: Sequence[str] = ()
    split: str = "test"


# How close is close enough.

NEAR: Final[Mapping[str, float]] = {
    "skip_rate": 0.03,
    "skip_after_keep": 0.03,
    "skip_after_skip": 0.03,
    **{f"autocorrelation_{lag}": 0.04 for lag in LAGS},
    "spread": 0.025,
}
"""How far from the log a figure of free running may be."""
NEAR_BY_POSITION: Final = 0.03
SLOPE_BAND: Final = (0.85, 1.15)


@dataclass(frozen=True)
class Check:
    """A question that a reader asks of a listener.

    Attributes:
        question: In plain words.
        protocol: Where the answer is found.
        bands: For each metric the values at which the answer is yes.
    """

    question: str
    protocol: str
    bands: Mapping[str, Band]


CHECKS: Final = (
    Check(
        "Does it get out of the past what gradient boosting does?",
        NEXT,
        {"auc_over_bar": (-0.005, INFINITE)},
    ),
    Check(
        "Do its probabilities come true?",
        NEXT,
        {"calibration_excess": (-INFINITE, 0.01), "bias": (-0.02, 0.02)},
    ),
    Check(
        "Does it predict second halves better than repeating the last action?",
        CHALLENGE,
        {"mean_average_accuracy_over_bar": (0.0, INFINITE)},
    ),
    Check(
        "Do sessions left to it run like real ones?",
        FREE,
        {f"{metric}_off": (-near, near) for metric, near in NEAR.items()},
    ),
    Check(
        "Do skips change along a session as in real ones that lasted as long?",
        FREE_LASTING,
        {"skip_by_position_distance": (0.0, NEAR_BY_POSITION)},
    ),
    Check(
        "Is a song heard for the first time priced rightly?",
        PRICE,
        {"slope_first_hearings": SLOPE_BAND},
    ),
    Check("Is a repeated song priced rightly?", PRICE, {"slope_repeats": SLOPE_BAND}),
    Check(
        "Is the gain that it promises for re-ranking kept by real labels?",
        PRICE,
        {"reranking_unkept": (-0.03, INFINITE)},
    ),
    Check(
        "Does it know songs that the session was never offered?",
        TRUTH,
        {"slope[random songs]": SLOPE_BAND, "bias[random songs]": (-0.03, 0.03)},
    ),
    Check(
        "Are the songs that it likes best as good as it says?",
        TRUTH,
        {"bias[own favourites]": (-0.03, INFINITE)},
    ),
)

ANSWERS: Final = ("yes", "probably", "doubtful", "no")
"""Answers from good to bad; a question has the worst of its figures' answers."""


def answer(record: Record, band: Band) -> str:
    """Whether a figure lies in a band: surely, probably, probably not, surely not.

    >>> answer(Record("l", "p", "m", 0.5, 0.4, 0.6), (0.3, 0.7))
    'yes'
    >>> answer(Record("l", "p", "m", 0.5, 0.2, 0.6), (0.3, 0.7))
    'probably'
    """
    assert record.value is not None
    low = record.value if record.low is None else record.low
    high = record.value if record.high is None else record.high
    if band[0] <= low and high <= band[1]:
        return "yes"
    if high < band[0] or low > band[1]:
        return "no"
    return "probably" if band[0] <= record.value <= band[1] else "doubtful"


def verdicts(findings: Findings, listeners: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """For each question the answer for each listener; none where it was not measured."""
    found = []
    for check in CHECKS:
        row = {}
        for listener in listeners:
            answers = [
                answer(record, band)
                for metric, band in check.bands.items()
                if (record := findings.value(listener, check.protocol, metric)) is not None
                and record.value is not None
            ]
            if answers:
                row[listener] = max(answers, key=ANSWERS.index)
        if row:
            found.append((check.question, row))
    return found


# Tables.


@dataclass(frozen=True)
class Column:
    """One figure in a table.

    Attributes:
        metric: Its name in the records.
        label: Its name for people.
        percent: Whether it is a share, shown in percent.
        band: Values that are good, where such can be said.
        signed: Whether to write a plus sign.
    """

    metric: str
    label: str
    percent: bool = False
    band: Band | None = None
    signed: bool = False

    def text(self, value: float | None) -> str:
        """The value as text."""
        if value is None or math.isnan(value):
            return "-"
        sign = "+" if self.signed else ""
        if self.percent:
            return f"{100 * value:{sign}.1f} %"
        return f"{value:{sign}.3f}"

    def bare(self, value: float | None) -> str:
        """The same without the unit."""
        return self.text(value).removesuffix(" %")

    def interval(self, record: Record) -> str:
        """The record's interval in brackets."""
        if record.low is None or record.high is None:
            return ""
        return f"[{self.bare(record.low)}, {self.bare(record.high)}]"

    def verdict(self, cells: Mapping[str, Record]) -> str:
        """Answer by the band, or for a figure of the log by the distance to it; else nothing."""
        record, band = cells.get(self.metric), self.band
        if self.metric in NEAR and f"{self.metric}_off" in cells:
            record, band = cells[f"{self.metric}_off"], (-NEAR[self.metric], NEAR[self.metric])
        if record is None or band is None or record.value is None:
            return ""
        return answer(record, band)


@dataclass(frozen=True)
class Table:
    """One table of the report.

    Attributes:
        key: Anchor of its section.
        title: Short title.
        protocol: Whose records it shows.
        columns: Its figures.
        bar_row: Name of a row made of the records' bars, if they stand for one thing.
        down: Whether listeners go down and figures across: there are many of them, few figures.
    """

    key: str
    title: str
    protocol: str
    columns: tuple[Column, ...]
    bar_row: str | None = None
    down: bool = False


_SCORES: Final = (
    Column("auc", "AUC"),
    Column("auc_over_bar", "AUC over boosting", signed=True, band=(-0.005, INFINITE)),
    Column("log_loss", "log-loss"),
    Column("brier", "Brier"),
    Column("accuracy", "accuracy", percent=True),
    Column("bias", "predicted - real", percent=True, signed=True, band=(-0.02, 0.02)),
    Column("calibration_error", "calibration error"),
    Column("calibration_excess", "of it beyond noise", signed=True, band=(-INFINITE, 0.01)),
)


def _shape_columns() -> tuple[Column, ...]:
    names = {
        "skip_rate": ("skip rate", True),
        "skip_after_keep": ("skip after keep", True),
        "skip_after_skip": ("skip after skip", True),
        **{f"autocorrelation_{lag}": (f"lag {lag}", False) for lag in LAGS},
        "skip_run": ("run of skips", False),
        "keep_run": ("run of keeps", False),
        "spread": ("spread", False),
        "constant": ("constant sessions", True),
    }
    return tuple(Column(metric, label, percent=share) for metric, (label, share) in names.items())


SHAPE_COLUMNS: Final = _shape_columns()
_POSITION: Final = Column(
    "skip_by_position_distance",
    "off by position",
    percent=True,
    band=(0.0, NEAR_BY_POSITION),
)
TABLES: Final = (
    Table("next", "Next play, given all that was logged before it", NEXT, _SCORES),
    Table("next-levels", "Next play, given only what a simulation knows", NEXT_LEVELS, _SCORES),
    Table(
        "challenge",
        "Second halves without feedback",
        CHALLENGE,
        (
            Column("mean_average_accuracy", "mean average accuracy"),
            Column(
                "mean_average_accuracy_over_bar",
                "over the last action",
                signed=True,
                band=(0.0, INFINITE),
            ),
            Column("first_accuracy", "first prediction"),
            Column(f"mean_average_accuracy{GREEDY}", "the likeliest way: mean average accuracy"),
            Column(
                f"mean_average_accuracy_over_bar{GREEDY}",
                "the likeliest way: over the last action",
                signed=True,
            ),
        ),
    ),
    Table("free", "Left to itself", FREE, (*SHAPE_COLUMNS, _POSITION), LOG_NAME),
    Table(
        "free-filtered",
        "The same, constant sessions drawn anew",
        FREE_FILTERED,
        (*SHAPE_COLUMNS, _POSITION),
        LOG_NAME,
    ),
    Table(
        "free-lasting",
        "The same, lasting as long as the log's sessions",
        FREE_LASTING,
        (*SHAPE_COLUMNS, _POSITION),
        LOG_NAME,
    ),
    Table(
        "price",
        "What the choice of a song is worth",
        PRICE,
        (
            Column("slope", "slope"),
            Column("slope_first_hearings", "slope, first hearings", band=SLOPE_BAND),
            Column("slope_repeats", "slope, repeats", band=SLOPE_BAND),
            Column("slope_within_session", "from the half: slope"),
            Column("slope_within_session_first_hearings", "from the half: first hearings"),
            Column("slope_within_session_repeats", "from the half: repeats"),
            Column("reranking_promised", "re-ranking promised", percent=True, signed=True),
            Column("reranking_real", "re-ranking real", percent=True, signed=True),
            Column("variance_mood", "mood", percent=True),
            Column("variance_song", "song", percent=True),
        ),
    ),
    Table(
        "lists",
        "Reward of lists of three",
        LISTS,
        (
            Column("correlation", "r with the logged reward"),
            Column("shuffled", "lists shuffled"),
            Column("of_songs", "of the songs", signed=True, band=(0.0, INFINITE)),
            Column("sd", "sd of the prediction"),
        ),
        down=True,
    ),
)


def listeners_of(findings: Findings) -> list[str]:
    """The listeners examined, in order, bars left out."""
    named = dict.fromkeys(r.listener for r in findings.records if r.protocol == FREE)
    return list(named)


def rows_of(table: Table, records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """For each row of a table its records by metric; what is no listener comes last."""
    rows: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.protocol == table.protocol:
            rows.setdefault(record.listener, {})[record.metric] = record
    if table.bar_row and rows:
        first = next(iter(rows.values()))
        bars = {
            m: Record(table.bar_row, table.protocol, m, r.bar)
            for m, r in first.items()
            if not m.endswith("_off")
        }
        # The bar of a distance is what noise alone would make of it, not a figure of the log.
        bars.pop(_POSITION.metric, None)
        rows = {table.bar_row: bars, **rows}
    last = [name for name in rows if name in REFERENCES]
    ordered = [*(name for name in rows if name not in last), *last]
    return {
        name: rows[name]
        for name in ordered
        if any(column.metric in rows[name] for column in table.columns)
    }


def truth_table(records: Sequence[Record]) -> dict[str, dict[str, dict[str, Record]]]:
    """For each kind of songs and listener the records against exact probabilities."""
    found: dict[str, dict[str, dict[str, Record]]] = {}
    for record in records:
        if record.protocol == TRUTH:
            metric, _, kind = record.metric.removesuffix("]").partition("[")
            found.setdefault(kind, {}).setdefault(record.listener, {})[metric] = record
    return found


TRUTH_COLUMNS: Final = (
    Column("predicted", "predicted skip rate", percent=True),
    Column("true", "true skip rate", percent=True),
    Column("bias", "predicted - true", percent=True, signed=True, band=(-0.03, 0.03)),
    Column("mean_distance", "mean distance", percent=True),
    Column("correlation", "correlation"),
    Column("slope", "slope within sessions", band=SLOPE_BAND),
)


def bracketed(records: Sequence[Record], metric: str) -> dict[str, dict[str, Record]]:
    """Records named ``metric[part]``: for each listener by part."""
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.metric.startswith(f"{metric}["):
            part = record.metric.removeprefix(f"{metric}[").removesuffix("]")
            found.setdefault(record.listener, {})[part] = record
    return found


# For a terminal.


def text_table(records: Sequence[Record], about: About) -> str:
    """The tables as text, under a line that says what they are about."""
    about_line = (
        f"{about.sessions:,} {about.split} sessions, {about.plays:,} plays; [ ] 95 % intervals."
    )
    return "\n\n".join([about_line, *text_blocks(records)])


def text_blocks(records: Sequence[Record]) -> list[str]:
    """Each table as text."""
    blocks = []
    for table in TABLES:
        rows = rows_of(table, records)
        if rows:
            blocks.append(_text_block(table.title, table.columns, rows, down=table.down))
    for kind, rows in truth_table(records).items():
        blocks.append(_text_block(f"Against the truth: {kind}", TRUTH_COLUMNS, rows))
    for name, metric in (
        ("Agents ranked alike (Kendall's tau)", "tau"),
        ("Gain lost at another evaluator, in skip rate", "gain_lost"),
    ):
        found = bracketed([r for r in records if r.protocol == AGREEMENT], metric)
        if found:
            parts = dict.fromkeys(part for row in found.values() for part in row)
            columns = tuple(Column(part, part, signed=True) for part in parts)
            blocks.append(_text_block(name, columns, found))
    return blocks


def _text_block(
    title: str,
    columns: Sequence[Column],
    rows: Mapping[str, Mapping[str, Record]],
    *,
    down: bool = False,
) -> str:
    """A figure a line, a listener a column: intervals need room; or the other way round."""
    lines = [[title, *rows]]
    for column in columns:
        cells = [row.get(column.metric) for row in rows.values()]
        if any(cell is not None for cell in cells):
            texts = [
                f"{column.text(cell.value)} {column.interval(cell)}".rstrip() if cell else ""
                for cell in cells
            ]
            lines.append([column.label, *texts])
    if down:
        lines = [list(line) for line in zip(*lines, strict=True)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])
