"""Tables of a simulator validation report, for a terminal and for the page, and its verdicts."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from musicbox_experiments.text import Cell, Table, bracketed
from musicbox_experiments.trust.agreement import AGREEMENT
from musicbox_experiments.trust.boosting import BOOSTING_NAMES
from musicbox_experiments.trust.exact_law import OWN_FAVORITES, RANDOM_SONGS, TRUTH, WEAR_OUT
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
    RECOMMENDED,
)
from musicbox_experiments.trust.records import Record, Rows, rows_of

REFERENCES: Final = (LAST_ACTION, *BOOSTING_NAMES.values(), LOG_NAME)
"""Rows that are no listeners."""
_TAGS: Final = dict.fromkeys(REFERENCES, "reference")
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
    "Does it know that songs wear out those like them?": (WEAR_OUT, {"share_told": SLOPE_BAND}),
}
"""For each question to a listener the protocol, and the bands in which its metrics must lie."""
BANDS: Final = {
    (protocol, metric): band
    for protocol, bands in CHECKS.values()
    for metric, band in bands.items()
} | {(LISTS, "of_songs"): AT_LEAST_0}
ANSWERS: Final = ("yes", "probably", "doubtful", "no")
"""Answers from good to bad; a question has the worst of its figures' answers."""


def is_known(record: Record) -> bool:
    """Whether a figure could be measured."""
    return record.value is not None and not math.isnan(record.value)


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


_SCORES: Final = (
    *("auc", "auc_over_boosting", "log_loss", "brier", "accuracy", "bias"),
    *("calibration_error", "calibration_excess"),
)
_SHAPE: Final = (
    *("skip_rate", "skip_after_keep", "skip_after_skip"),
    *(f"autocorrelation_{lag}" for lag in LAGS),
    *("skip_run", "keep_run", "spread", "constant"),
)
_TRUTH: Final = ("predicted", "true", "bias", "mean_distance", "correlation", "slope")
_CHALLENGE: Final = (
    "mean_average_accuracy",
    "mean_average_accuracy_over_last_action",
    "first_accuracy",
)
_ITEM: Final = (
    *("slope", "slope_first_hearings", "slope_repeats", "reranking_predicted", "reranking_real"),
    *("variance_session", "variance_song"),
)
TABLES: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "next": ("Next play, given all that was logged before it", NEXT, _SCORES),
    "recommended": (
        "Recommended plays, by listeners fitted on organic plays, on as many of all, and on all",
        RECOMMENDED,
        (
            *("auc", "auc_over_as_many", "auc_over_all"),
            *("log_loss", "log_loss_over_as_many", "log_loss_over_all"),
            *_SCORES[3:],
        ),
    ),
    "next-levels": ("Next play, given only what a simulation knows", NEXT_LEVELS, _SCORES),
    "challenge": ("Second halves without feedback", CHALLENGE, _CHALLENGE),
    "free": ("Free runs", FREE, (*_SHAPE, "skip_by_position_distance")),
    "item": ("Effect of the choice of song", ITEM_EFFECT, _ITEM),
    "wear": (
        "Changes of skip chances when the songs before are heard in another order",
        WEAR_OUT,
        ("share_told", "predicted_change", "true_change"),
    ),
    "lists": ("Reward of lists of three", LISTS, ("correlation", "shuffled", "of_songs", "sd")),
}
"""By section: title, protocol and metrics."""
_AGREEMENT: Final = {
    "skip_rate": "Skip rate of each agent",
    "tau": "Agents ranked alike (Kendall's tau)",
}
_PERCENT: Final = (
    *("accuracy", "bias", "skip_rate", "skip_after_keep", "skip_after_skip", "constant"),
    *("skip_by_position_distance", "reranking_predicted", "reranking_real", "variance_session"),
    *("variance_song", "predicted", "true", "mean_distance", "predicted_change", "true_change"),
)
_SIGNED: Final = (
    *(
        "auc_over_boosting",
        "auc_over_as_many",
        "log_loss_over_as_many",
        "auc_over_all",
        "log_loss_over_all",
        "bias",
        "calibration_excess",
        "mean_average_accuracy_over_last_action",
    ),
    *("reranking_predicted", "reranking_real", "of_songs", "tau"),
)
_LABELS: Final = {
    "auc": "AUC",
    "auc_over_boosting": "AUC over boosting",
    "auc_over_as_many": "AUC over that fitted on as many",
    "log_loss_over_as_many": "log loss over that fitted on as many",
    "auc_over_all": "AUC over that fitted on all",
    "log_loss_over_all": "log loss over that fitted on all",
    "bias": "bias (predicted - real)",
    "calibration_excess": "of it beyond noise",
    "mean_average_accuracy_over_last_action": "over the last action",
    "constant": "constant before selection",
    "of_songs": "of the songs",
    "sd": "sd of the prediction",
    "share_told": "share of them told",
}
"""What metrics are called where their names do not say it."""


def _label(metric: str) -> str:
    return _LABELS.get(metric, metric.replace("_", " "))


def tables_of(records: Sequence[Record]) -> dict[str, list[Table]]:
    """All tables that the records fill, by section of the page."""
    found: dict[str, list[Table]] = {}
    for section, (title, protocol, metrics) in TABLES.items():
        rows = rows_of(records, protocol)
        if section == "free":
            rows = {LOG_NAME: _of_log(rows)} | rows
        named = {metric: _label(metric) for metric in metrics}
        found[section] = [_table(title, named, rows, across=section == "lists")]
    rows = rows_of(records, TRUTH)
    found["truth"] = [
        _table(f"Exact law: {kind}", {f"{m}[{kind}]": _label(m) for m in _TRUTH}, rows)
        for kind in _parts(rows, "bias")
    ]
    rows = rows_of(records, AGREEMENT)
    found["agreement"] = [
        _table(title, {f"{metric}[{part}]": part for part in _parts(rows, metric)}, rows)
        for metric, title in _AGREEMENT.items()
    ]
    return {key: kept for key, made in found.items() if (kept := [t for t in made if t.rows])}


def _parts(rows: Rows, metric: str) -> list[str]:
    """Parts of the data that a metric was measured on, in order."""
    named = dict.fromkeys(m for row in rows.values() for m in row if m.startswith(f"{metric}["))
    return [name[len(metric) + 1 : -1] for name in named]


def _of_log(rows: Rows) -> dict[str, Record]:
    """The log's figures, which are the references of those of free runs."""
    first: Mapping[str, Record] = next(iter(rows.values()), {})
    return {m: Record(LOG_NAME, FREE, m, first[m].reference) for m in _SHAPE if m in first}


def _table(title: str, labels: Mapping[str, str], rows: Rows, *, across: bool = False) -> Table:
    """A metric a line, a listener a column, since intervals need room; or the other way round."""
    used = [metric for metric in labels if any(metric in row for row in rows.values())]
    named = [name for name, row in rows.items() if any(metric in row for metric in used)]
    names = sorted(named, key=lambda name: name in REFERENCES and name != LOG_NAME)
    cells = [tuple(_cell(metric, rows[name]) for name in names) for metric in used]
    head, down = tuple(names), [labels[metric] for metric in used]
    if across:
        head, down = tuple(down), names
        cells = list(zip(*cells, strict=True))
    return Table(title, head, list(zip(down, cells, strict=True)), _TAGS)


def _cell(metric: str, row: Mapping[str, Record]) -> Cell:
    """The figure, and the answer by its band or, for a figure of the log, that of its distance."""
    record = row.get(metric)
    if record is None:
        return Cell()
    name = metric.partition("[")[0]
    percent, sign = name in _PERCENT, "+" if name in _SIGNED else ""

    def written(value: float | None) -> str:
        if value is None or math.isnan(value):
            return "-"
        return f"{100 * value:{sign}.1f}" if percent else f"{value:{sign}.3f}"

    unit = " %" if percent and record.value is not None else ""
    checked = row.get(f"{metric}_off", record)
    band = BANDS.get((checked.protocol, checked.metric))
    verdict = answer(checked, band) if band and is_known(checked) else ""
    interval = bracketed(record.low, record.high, written)
    return Cell(written(record.value) + unit, interval, verdict)


def verdicts(records: Sequence[Record]) -> list[tuple[str, dict[str, str]]]:
    """For each question the answer for each listener; none where it was not measured.

    Where some figures of a question are unknown, the others can show that its answer is bad, and
    not that it is good.
    """
    found = []
    for question, (protocol, bands) in CHECKS.items():
        answers = {}
        for name, row in rows_of(records, protocol).items():
            given = [
                answer(row[metric], band)
                for metric, band in bands.items()
                if metric in row and is_known(row[metric])
            ]
            worst = max(given, key=ANSWERS.index, default="yes")
            complete = len(given) == len(bands)
            if name not in REFERENCES and (complete or worst in ANSWERS[2:]):
                answers[name] = worst
        if answers:
            found.append((question, answers))
    return found


def verdict_table(records: Sequence[Record]) -> Table:
    """The answers as a table, a column a listener."""
    listeners = listeners_of(records)
    rows = [
        (question, [Cell(row.get(n, "not measured"), verdict=row.get(n, "")) for n in listeners])
        for question, row in verdicts(records)
    ]
    return Table("Verdicts", listeners, rows)


def listeners_of(records: Sequence[Record]) -> list[str]:
    """The listeners under test, in order."""
    return list(rows_of(records, FREE))


def printed(records: Sequence[Record], about: str) -> str:
    """All tables as text, under a line that says what they are about."""
    tables = [str(table) for made in tables_of(records).values() for table in made]
    return "\n\n".join([f"{about}; [ ] 95 % intervals.", *tables])
