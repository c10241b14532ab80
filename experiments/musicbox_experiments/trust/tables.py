"""Tables of a simulator validation report, for a terminal and for the page, and its verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from musicbox_experiments import text
from musicbox_experiments.trust.agreement import AGREEMENT
from musicbox_experiments.trust.boosting import BOOSTING_NAMES
from musicbox_experiments.trust.exact_law import OWN_FAVORITES, RANDOM_SONGS, TRUTH
from musicbox_experiments.trust.item_effect import ITEM_EFFECT
from musicbox_experiments.trust.list_reward import LISTS
from musicbox_experiments.trust.metrics import LAGS
from musicbox_experiments.trust.prediction import (
    CHALLENGE,
    FREE,
    LAST_ACTION,
    LOG_NAME,
    NEXT,
    NEXT_LEVELS,
)
from musicbox_experiments.trust.records import Record, Rows, rows_of

REFERENCES: Final = (LAST_ACTION, *BOOSTING_NAMES.values(), LOG_NAME)
"""Rows that are no listeners."""
Band = tuple[float, float]
AT_LEAST_0: Final = (0.0, math.inf)
SLOPE_BAND: Final = (0.85, 1.15)
NEAR: Final[Mapping[str, float]] = {
    "skip_rate": 0.03,
    "skip_after_keep": 0.03,
    "skip_after_skip": 0.03,
    **{f"autocorrelation_{lag}": 0.04 for lag in LAGS},
    "spread": 0.025,
}
"""How far from the log a figure of free running may be."""

CHECKS: Final[Mapping[str, tuple[str, Mapping[str, Band]]]] = {
    "Does it get out of the past what gradient boosting does?": (
        NEXT,
        {"auc_over_boosting": (-0.005, math.inf)},
    ),
    "Are its probabilities calibrated?": (
        NEXT,
        {"calibration_excess": (-math.inf, 0.01), "bias": (-0.02, 0.02)},
    ),
    "Does it predict second halves better than repeating the last action?": (
        CHALLENGE,
        {"mean_average_accuracy_over_last_action": AT_LEAST_0},
    ),
    "Do its free runs go like real sessions?": (
        FREE,
        {f"{metric}_off": (-near, near) for metric, near in NEAR.items()},
    ),
    "Do skips change along its free runs as along real sessions?": (
        FREE,
        {"skip_by_position_distance": (0.0, 0.03)},
    ),
    "Is the effect of a song heard for the first time calibrated?": (
        ITEM_EFFECT,
        {"slope_first_hearings": SLOPE_BAND},
    ),
    "Is the effect of a repeated song calibrated?": (ITEM_EFFECT, {"slope_repeats": SLOPE_BAND}),
    "Do real labels confirm the gain that it predicts for re-ranking?": (
        ITEM_EFFECT,
        {"reranking_excess": (-0.03, math.inf)},
    ),
    "Does it predict songs that the session was never offered?": (
        TRUTH,
        {f"slope[{RANDOM_SONGS}]": SLOPE_BAND, f"bias[{RANDOM_SONGS}]": (-0.03, 0.03)},
    ),
    "Are its favorite songs as good as it predicts?": (
        TRUTH,
        {f"bias[{OWN_FAVORITES}]": (-0.03, math.inf)},
    ),
}
"""For each question to a listener the protocol, and the bands in which its metrics must lie."""
BANDS: Final = {
    (protocol, metric): band
    for protocol, bands in CHECKS.values()
    for metric, band in bands.items()
} | {(LISTS, "of_songs"): AT_LEAST_0}
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


@dataclass(frozen=True)
class Column:
    """A figure in a table: its metric, its name for people, and how it is written."""

    metric: str
    label: str
    percent: bool = False
    signed: bool = False


@dataclass(frozen=True)
class Cell:
    """A figure as text, its interval in brackets, and the answer where its band is known."""

    text: str = ""
    interval: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table as written: what it shows, names across, and for each label down its cells."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    def __str__(self) -> str:
        lines = [(self.title, *self.head), *((n, *map(str, cells)) for n, cells in self.rows)]
        first, *others = text.columns(lines, left=len(lines[0])).splitlines()
        return "\n".join([first, "-" * max(map(len, [first, *others])), *others])


_SCORES: Final = (
    Column("auc", "AUC"),
    Column("auc_over_boosting", "AUC over boosting", signed=True),
    Column("log_loss", "log-loss"),
    Column("brier", "Brier"),
    Column("accuracy", "accuracy", percent=True),
    Column("bias", "predicted - real", percent=True, signed=True),
    Column("calibration_error", "calibration error"),
    Column("calibration_excess", "of it beyond noise", signed=True),
)
SHAPE: Final = (
    Column("skip_rate", "skip rate", percent=True),
    Column("skip_after_keep", "skip after keep", percent=True),
    Column("skip_after_skip", "skip after skip", percent=True),
    *(Column(f"autocorrelation_{lag}", f"lag {lag}") for lag in LAGS),
    Column("skip_run", "run of skips"),
    Column("keep_run", "run of keeps"),
    Column("spread", "spread"),
    Column("constant", "constant before selection", percent=True),
)
_TRUTH: Final = (
    Column("predicted", "predicted skip rate", percent=True),
    Column("true", "true skip rate", percent=True),
    Column("bias", "predicted - true", percent=True, signed=True),
    Column("mean_distance", "mean distance", percent=True),
    Column("correlation", "correlation"),
    Column("slope", "slope within sessions"),
)
TABLES: Final[Mapping[str, tuple[str, str, tuple[Column, ...]]]] = {
    "next": ("Next play, given all that was logged before it", NEXT, _SCORES),
    "next-levels": ("Next play, given only what a simulation knows", NEXT_LEVELS, _SCORES),
    "challenge": (
        "Second halves without feedback",
        CHALLENGE,
        (
            Column("mean_average_accuracy", "mean average accuracy"),
            Column("mean_average_accuracy_over_last_action", "over the last action", signed=True),
            Column("first_accuracy", "first prediction"),
        ),
    ),
    "free": (
        "Free runs",
        FREE,
        (*SHAPE, Column("skip_by_position_distance", "off by position", percent=True)),
    ),
    "item": (
        "Effect of the choice of song",
        ITEM_EFFECT,
        (
            Column("slope", "slope"),
            Column("slope_first_hearings", "slope, first hearings"),
            Column("slope_repeats", "slope, repeats"),
            Column("reranking_predicted", "re-ranking predicted", percent=True, signed=True),
            Column("reranking_real", "re-ranking real", percent=True, signed=True),
            Column("variance_session", "variance: session", percent=True),
            Column("variance_song", "variance: song", percent=True),
        ),
    ),
    "lists": (
        "Reward of lists of three",
        LISTS,
        (
            Column("correlation", "r with the logged reward"),
            Column("shuffled", "lists shuffled"),
            Column("of_songs", "of the songs", signed=True),
            Column("sd", "sd of the prediction"),
        ),
    ),
}
"""By section: title, protocol and figures."""
_AGREEMENT: Final = {
    "skip_rate": ("Skip rate of each agent", True),
    "tau": ("Agents ranked alike (Kendall's tau)", False),
}


def tables_of(records: Sequence[Record]) -> dict[str, list[Table]]:
    """All tables that the records fill, by section of the page."""
    found: dict[str, list[Table]] = {}
    for section, (title, protocol, columns) in TABLES.items():
        rows = rows_of(records, protocol)
        if section == "free":
            rows = _log_row(rows) | rows
        found[section] = [_table(title, columns, rows, across=section == "lists")]
    found["truth"] = [
        _table(f"Exact law: {kind}", _TRUTH, rows) for kind, rows in _by_kind(records).items()
    ]
    found["agreement"] = []
    for metric, (title, percent) in _AGREEMENT.items():
        rows = rows_of(records, AGREEMENT, metric)
        parts = dict.fromkeys(part for row in rows.values() for part in row)
        columns = tuple(Column(part, part, percent, signed=not percent) for part in parts)
        found["agreement"].append(_table(title, columns, rows))
    return {key: kept for key, made in found.items() if (kept := [t for t in made if t.rows])}


def _by_kind(records: Sequence[Record]) -> dict[str, Rows]:
    """Records beside the exact law, for each kind of songs by metric."""
    kinds: dict[str, Rows] = {}
    for column in _TRUTH:
        for name, by_kind in rows_of(records, TRUTH, column.metric).items():
            for kind, record in by_kind.items():
                kinds.setdefault(kind, {}).setdefault(name, {})[column.metric] = record
    return kinds


def _log_row(rows: Rows) -> Rows:
    """The log's figures, which are the references of those of free runs."""
    first: Mapping[str, Record] = next(iter(rows.values()), {})
    shape = [column.metric for column in SHAPE if column.metric in first]
    row = {m: Record(LOG_NAME, FREE, m, first[m].reference) for m in shape}
    return {LOG_NAME: row} if row else {}


def _table(title: str, columns: Sequence[Column], rows: Rows, *, across: bool = False) -> Table:
    """A figure a line, a listener a column, since intervals need room; or the other way round."""
    used = [c for c in columns if any(c.metric in row for row in rows.values())]
    named = [name for name, row in rows.items() if any(c.metric in row for c in used)]
    names = sorted(named, key=lambda name: name in REFERENCES and name != LOG_NAME)
    cells = [tuple(_cell(column, rows[name]) for name in names) for column in used]
    head, labels = tuple(names), [column.label for column in used]
    if across:
        head, labels = tuple(labels), names
        cells = list(zip(*cells, strict=True))
    return Table(title, head, tuple(zip(labels, cells, strict=True)))


def _cell(column: Column, row: Mapping[str, Record]) -> Cell:
    """The figure, and the answer by its band or, for a figure of the log, that of its distance."""
    record = row.get(column.metric)
    if record is None:
        return Cell()

    def written(value: float | None) -> str:
        if value is None or math.isnan(value):
            return "-"
        sign = "+" if column.signed else ""
        return f"{100 * value:{sign}.1f}" if column.percent else f"{value:{sign}.3f}"

    unit = " %" if column.percent and record.value is not None else ""
    checked = row.get(f"{column.metric}_off", record)
    band = BANDS.get((checked.protocol, checked.metric))
    verdict = answer(checked, band) if band and checked.value is not None else ""
    interval = text.bracketed(record.low, record.high, written)
    return Cell(written(record.value) + unit, interval, verdict)


def verdicts(records: Sequence[Record]) -> list[tuple[str, dict[str, str]]]:
    """For each question the answer for each listener; none where it was not measured."""
    found = []
    for question, (protocol, bands) in CHECKS.items():
        answers = {}
        for name, row in rows_of(records, protocol).items():
            given = [
                answer(row[metric], band)
                for metric, band in bands.items()
                if metric in row and row[metric].value is not None
            ]
            if given and name not in REFERENCES:
                answers[name] = max(given, key=ANSWERS.index)
        if answers:
            found.append((question, answers))
    return found


def listeners_of(records: Sequence[Record]) -> list[str]:
    """The listeners under test, in order."""
    return list(rows_of(records, FREE))


def printed(records: Sequence[Record], about: str) -> str:
    """All tables as text, under a line that says what they are about."""
    tables = [str(table) for made in tables_of(records).values() for table in made]
    return "\n\n".join([f"{about}; [ ] 95 % intervals.", *tables])
