"""The trust report as people read it: verdicts, tables, pictures, one page.

::

    OUT/
      trust.html    self-contained: pictures inlined, no external resource
      trust.json    every figure: listener, protocol, metric, value, low, high, bar
      *.png         the pictures
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Final

from musicbox_env.data.writing import write_json
from musicbox_experiments.compare import plots
from musicbox_experiments.compare.report import Picture, template_environment
from musicbox_experiments.evaluate.resampling import Measured
from musicbox_experiments.trust import pictures as trust_pictures
from musicbox_experiments.trust.boosting import BAR_NAME
from musicbox_experiments.trust.evaluators import AGREEMENT, TRUTH, rates_of
from musicbox_experiments.trust.measures import (
    FREE,
    FREE_FILTERED,
    NEXT,
    PRICE,
    CurvePoint,
    Findings,
    Record,
)
from musicbox_experiments.trust.tables import (
    LOG_NAME,
    NEAR,
    SHAPE_COLUMNS,
    SLOPE_BAND,
    TABLES,
    TRUTH_COLUMNS,
    About,
    Column,
    bracketed,
    listeners_of,
    rows_of,
    truth_table,
    verdicts,
)

RECORDS_FILE: Final = "trust.json"


def _point(record: Record) -> plots.Point:
    assert record.value is not None
    return plots.Point(record.value, record.low, record.high)


def _measured_point(measured: Measured) -> plots.Point:
    return plots.Point(measured.value, measured.low, measured.high)


def _curve(points: Sequence[CurvePoint]) -> list[tuple[float, plots.Point]]:
    return [(predicted, _measured_point(real)) for predicted, real, _ in points]


Draw = Callable[[plots.Theme], plots.Figure]


def _picture(name: str, section: str, title: str, caption: str, draw: Draw) -> Picture:
    light, dark = (plots.png(draw(theme)) for theme in (plots.LIGHT, plots.DARK))
    return Picture(name, section, title, caption, light, dark)


def pictures(findings: Findings) -> list[Picture]:
    """All pictures that the findings have figures for; `Picture.evaluator` names their section."""
    order = listeners_of(findings)
    made = [
        _calibration_picture(findings, order),
        _part_picture(findings, order),
        _place_picture(findings, order),
        _shape_picture(findings, order),
        _price_picture(findings, order),
        _mood_picture(findings, order),
    ]
    if findings.truth:
        made.append(_truth_picture(findings, order))
    rates = rates_of(findings.records)
    if len(rates) > 1:
        made.append(_ranking_picture(rates))
    return made


def _calibration_picture(findings: Findings, order: Sequence[str]) -> Picture:
    panels = {name: {name: _curve(points)} for name, points in findings.calibration.items()}
    return _picture(
        "calibration",
        "next",
        "Do its probabilities come true?",
        "Plays in ten groups of equal size by the predicted probability of a skip. On the dashed "
        "line as many were skipped as predicted; below it the listener expects too many skips. "
        "Bars are 95 % intervals.",
        lambda theme: trust_pictures.calibration(
            panels, order=order, x="predicted skip rate", y="real skip rate", theme=theme
        ),
    )


_PARTS: Final = {
    "position": "by position in the session",
    "context": "by where the play before came from",
    "plays": "by training plays of the track",
}


def _part_picture(findings: Findings, order: Sequence[str]) -> Picture:
    found = bracketed([r for r in findings.records if r.protocol == NEXT], "auc")
    names = [*(n for n in order if n in found), *(n for n in found if n not in order)]
    parts: dict[str, dict[str, dict[str, plots.Point]]] = {}
    for kind, title in _PARTS.items():
        parts[title] = {
            name: {
                part.removeprefix(f"{kind}=").replace("_", " "): _point(record)
                for part, record in found[name].items()
                if part.startswith(f"{kind}=") and record.value is not None
            }
            for name in names
        }
    return _picture(
        "auc_by_part",
        "next",
        "Where does it know more, where less?",
        "AUC of the next play: how often a skipped play was given a higher probability than a kept "
        "one. One half is guessing, 1 is perfect. Grey: gradient boosting on the same past.",
        lambda theme: trust_pictures.by_part(parts, order=order, y="AUC", theme=theme),
    )


def _place_picture(findings: Findings, order: Sequence[str]) -> Picture:
    curves = {
        name: [_measured_point(m) for m in places] for name, places in findings.by_place.items()
    }
    ordered = {LOG_NAME: curves[LOG_NAME], **{n: c for n, c in curves.items() if n != LOG_NAME}}
    return _picture(
        "skip_by_position",
        "free",
        "Skips along sessions left to the listener",
        "Shown the first half, each listener goes on by itself over the songs really played, for "
        "as long as the log's did (the last table below). Black: the log, with its 95 % interval "
        "as a band. The first positions are reached only in short sessions, and rest on few of "
        "them.",
        lambda theme: trust_pictures.places(ordered, order=order, theme=theme),
    )


def _shape_picture(findings: Findings, order: Sequence[str]) -> Picture:
    labels = {column.metric: column.label for column in SHAPE_COLUMNS}
    titles = {FREE: "as it is", FREE_FILTERED: "constant sessions drawn anew"}
    panels: dict[str, dict[str, dict[str, plots.Point]]] = {}
    for protocol, title in titles.items():
        panels[title] = {
            labels[metric]: {
                name: _point(record)
                for name in order
                if (record := findings.value(name, protocol, f"{metric}_off")) is not None
                and record.value is not None
            }
            for metric in NEAR
        }
    bands = {title: {labels[m]: near for m, near in NEAR.items()} for title in panels}
    return _picture(
        "free_running",
        "free",
        "Sessions left to the listener against real ones",
        "Each figure less the log's, with its 95 % interval. Shaded: close enough. Lag: "
        "correlation of plays so many places apart. Spread: standard deviation between sessions of "
        "their skip rate. The published log holds no session that was skipped or kept throughout; "
        "on the right such runs are drawn anew.",
        lambda theme: trust_pictures.dots(
            panels, order=order, targets=dict.fromkeys(panels, 0.0), bands=bands, theme=theme
        ),
    )


def _price_picture(findings: Findings, order: Sequence[str]) -> Picture:
    slope, gain = "slope of real on predicted", "skips by re-ranking, against chance"

    def figures(rows: Mapping[str, str]) -> dict[str, dict[str, plots.Point]]:
        return {
            label: {
                name: _point(record)
                for name in order
                if (record := findings.value(name, PRICE, metric)) is not None
                and record.value is not None
            }
            for metric, label in rows.items()
        }

    panels = {
        slope: figures(
            {"slope": "all", "slope_first_hearings": "first hearings", "slope_repeats": "repeats"}
        ),
        gain: figures({"reranking_promised": "promised", "reranking_real": "real labels"}),
    }
    for record in findings.records:
        if (
            record.protocol == PRICE
            and record.metric == "reranking_real"
            and record.bar is not None
        ):
            panels[gain]["real labels"].setdefault(BAR_NAME, plots.Point(record.bar))
    bands = {slope: dict.fromkeys(panels[slope], SLOPE_BAND[1] - 1)}
    return _picture(
        "price",
        "price",
        "Does it know what a song is worth?",
        "Left: by how much the chance of a skip really differs between songs, for each unit that "
        "the listener says; 1 is right, below it the listener makes too much of the choice. Right: "
        "three of the songs left are chosen by the listener, and their skips set against those of "
        "a random choice; first as it expects them itself, then by the real labels.",
        lambda theme: trust_pictures.dots(
            panels,
            order=order,
            targets={slope: 1.0, gain: 0.0},
            bands=bands,
            percent=(gain,),
            theme=theme,
        ),
    )


def _mood_picture(findings: Findings, order: Sequence[str]) -> Picture:
    rows = {}
    for name in order:
        found = [findings.value(name, PRICE, f"variance_{part}") for part in ("mood", "song")]
        mood, song = (max(r.value or 0.0, 0.0) if r else 0.0 for r in found)
        rows[name] = {"mood of the listener": mood, "song": song, "chance": 1 - mood - song}
    return _picture(
        "variance",
        "price",
        "What does an answer depend on?",
        "Songs drawn as the log draws them, each session asked about ten. Mood: what differs "
        "between sessions whatever the song. Song: what differs between songs of one session, and "
        "all that a recommender can work with. Chance: what remains when both are known.",
        lambda theme: trust_pictures.shares(rows, theme=theme),
    )


def _truth_picture(findings: Findings, order: Sequence[str]) -> Picture:
    kinds = list(dict.fromkeys(kind for by_kind in findings.truth.values() for kind in by_kind))
    panels = {
        kind: {
            name: _curve(by_kind[kind])
            for name, by_kind in findings.truth.items()
            if kind in by_kind
        }
        for kind in kinds
    }
    return _picture(
        "against_truth",
        "truth",
        "Songs that the session was never offered",
        "Predicted against exact probability of a skip, songs in groups by the prediction. Above "
        "the dashed line songs are worse than the listener believes. Own favourites are the songs "
        "of the catalog that it believes to be skipped least: what an agent trained on it will "
        "find.",
        lambda theme: trust_pictures.calibration(
            panels, order=order, x="predicted skip rate", y="exact skip probability", theme=theme
        ),
    )


def _ranking_picture(rates: Mapping[str, Mapping[str, Record]]) -> Picture:
    points = {
        evaluator: {agent: _point(r) for agent, r in by_agent.items() if r.value is not None}
        for evaluator, by_agent in rates.items()
    }
    return _picture(
        "agreement",
        "agreement",
        "Do the listeners prefer the same agents?",
        "A line an agent, a column a listener that evaluates. Where lines cross, the listeners "
        "disagree about which agent is better.",
        lambda theme: trust_pictures.rankings(points, theme=theme),
    )


# The page.


def write_trust_report(out: Path, findings: Findings, about: About) -> None:
    """Write ``trust.html``, ``trust.json`` and the pictures into a folder, made if missing."""
    out.mkdir(parents=True, exist_ok=True)
    write_records(out / RECORDS_FILE, findings.records)
    drawn = pictures(findings)
    for picture in drawn:
        (out / f"{picture.name}.png").write_bytes(picture.light)
    (out / "trust.html").write_text(render(findings, about, drawn), encoding="utf-8")


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write every figure as a list of JSON objects."""
    write_json(path, [asdict(record) for record in records])  # type: ignore[arg-type]


def render(findings: Findings, about: About, drawn: Sequence[Picture]) -> str:
    """The page."""
    records = findings.records
    listeners = listeners_of(findings)
    of_agreement = [r for r in records if r.protocol == AGREEMENT]
    return (
        template_environment()
        .get_template("trust.html")
        .render(
            title="MusicBox: how far can the listeners be believed?",
            about=about,
            listeners=listeners,
            headline=headline(findings, about),
            facts=_facts(about, listeners),
            descriptions={name: _description(name) for name in listeners},
            verdicts=verdicts(findings, listeners),
            tables={table.key: (table, rows_of(table, records)) for table in TABLES},
            truth=truth_table(records),
            truth_columns=TRUTH_COLUMNS,
            tau=bracketed(of_agreement, "tau"),
            gain_lost=bracketed(of_agreement, "gain_lost"),
            number=Column("", "", signed=True),
            position_noise=_position_noise(findings, listeners),
            pictures=drawn,
            notes=findings.notes,
            bar=BAR_NAME,
            version=metadata.version("musicbox-env"),
        )
    )


def _position_noise(findings: Findings, listeners: Sequence[str]) -> str:
    """By how much two equal simulators would differ at a position, in percent."""
    for name in listeners:
        record = findings.value(name, FREE, "skip_by_position_distance")
        if record is not None:
            return Column("", "", percent=True).text(record.bar)
    return "-"


def _facts(about: About, listeners: Sequence[str]) -> list[tuple[str, str]]:
    return [
        ("listeners examined", str(len(listeners))),
        ("test sessions", f"{about.sessions:,}"),
        ("plays in them", f"{about.plays:,}"),
        ("tracks in the catalog", f"{about.dataset.get('tracks', 0):,}"),
        ("sessions in the data", f"{about.dataset.get('sessions', 0):,}"),
    ]


_KNOWN: Final = {
    "replay": "Gives the logged level of songs that the session really held, and for any other the "
    "level of one of the session's own plays. Examined here as an imputer: the play in question is "
    "hidden, and its own label is no donor; the labels of the session's other plays, later ones "
    "too, are. So it cannot be compared with listeners that see the past alone.",
    "ground_truth": "The law that made the synthetic sessions: what a perfect listener would show.",
    "similarity": "Looks up what followed similar songs in similar sessions of the training log "
    "(LIRD, arXiv:1801.00209).",
    "learned": "A recurrent model fitted on training sessions.",
    "pessimistic": "The same model, one spread of what it does not know of a song added to the "
    "logit of a skip. Meant to train agents, not to predict: its skip rates are too high.",
}


def _description(name: str) -> str:
    kind, _, fold = (name, "", "") if name in _KNOWN else name.partition("-")
    known = _KNOWN.get(kind, "A fitted listener, opened by its path.")
    return f"{known} This one of fold {fold} alone." if fold in ("A", "B") else known


def headline(findings: Findings, about: About) -> list[str]:
    """What was found, in a few sentences."""
    said = []
    order = [n for n in listeners_of(findings) if n not in about.sees_session]
    aucs = [r for n in order if (r := findings.value(n, NEXT, "auc")) and r.value is not None]
    if aucs:
        best = max(aucs, key=lambda r: r.value or 0.0)
        said.append(
            f"Given the true past, {best.listener} tells skipped from kept plays best: AUC "
            f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}], beside {best.bar:.3f} of "
            "gradient boosting on the same past."
        )
    shares = [
        [r.value for n in order if (r := findings.value(n, PRICE, f"variance_{part}")) and r.value]
        for part in ("song", "mood")
    ]
    if all(shares):
        song, mood = (_percent_range(found) for found in shares)
        said.append(
            f"By the listeners that see the past alone, {song} of what decides a skip is the song, "
            f"and {mood} the mood of the session."
        )
    for name in order:
        record = findings.value(name, TRUTH, "bias[own favourites]")
        if record is not None and record.value is not None and abs(record.value) > 1e-9:
            said.append(
                f"The songs that {name} likes best are skipped {abs(100 * record.value):.0f} "
                f"points {'more' if record.value < 0 else 'less'} often than it says."
            )
    return said or ["Only listeners that see the whole session were examined."]


def _percent_range(shares: Sequence[float]) -> str:
    """Shares from the least to the greatest, as text.

    >>> _percent_range([0.0061, 0.0049])
    '0.5 to 0.6 %'
    """
    low, high = (f"{100 * share:.1f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"
