"""The report of a comparison: numbers, pictures, and one page that explains itself.

`write_report` turns a `Study` into a folder::

    OUT/
      report.html     self-contained: pictures inlined, no external resource
      summary.json    per evaluator, agent and metric: value, interval, seeds, sessions; differences
      results.csv     a row an agent, seed, evaluator and metric
      *.png           the pictures
"""

import base64
import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from musicbox_env.data.writing import write_json, write_text
from musicbox_env.schema import is_skip
from musicbox_experiments import drawing
from musicbox_experiments.compare import plots, tables
from musicbox_experiments.compare.known_gains import describe
from musicbox_experiments.compare.sentences import cautions, headline
from musicbox_experiments.compare.study import EXACT_EVALUATOR, Study
from musicbox_experiments.compare.summary import HOLDS, Summary, champion, ranked, summarize
from musicbox_experiments.evaluate.metrics import METRICS, Rollout, exposure
from musicbox_experiments.evaluate.pooling import by_source
from musicbox_experiments.text import percent
from musicbox_experiments.train.variants import AT


def write_report(out: Path, study: Study, *, seed: int = 0, resamples: int = 2000) -> Summary:
    """Write ``report.html``, ``summary.json``, ``results.csv`` and the pictures; gives the summary.

    What else lies in the folder stays. ``seed`` is that of the bootstrap.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = summarize(study, seed=seed, resamples=resamples)
    summary |= {"headline": headline(summary), "cautions": cautions(summary)}
    write_json(out / "summary.json", summary)
    _write_results(out / "results.csv", summary)
    drawn = pictures(study, summary)
    for picture in drawn:
        (out / f"{picture.name}.png").write_bytes(picture.image)
    write_text(out / "report.html", _render(summary, drawn))
    return summary


def _write_results(path: Path, summary: Summary) -> None:
    """A row an agent, seed, evaluator and metric."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["agent", "seed", "evaluator", "metric", "value"])
        for evaluator, at in summary["evaluators"].items():
            for agent, of in at["agents"].items():
                for name, metric in of["metrics"].items():
                    for s, value in metric["by_seed"].items():
                        writer.writerow([agent, s, evaluator, name, "" if value is None else value])
        for agent, row in summary["reranking"].items():
            for s, value in row["by_seed"].items():
                writer.writerow([agent, s, "log", "reranking", "" if value is None else value])


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        name: File name without ending.
        evaluator: Evaluator it belongs to, empty for none.
        title: Heading.
        caption: What it shows and how to read it.
        figure: As matplotlib draws it.
    """

    name: str
    evaluator: str
    title: str
    caption: str
    figure: Figure

    @cached_property
    def image(self) -> bytes:
        """PNG, also written as a file."""
        return drawing.png(self.figure)

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return data_uri(self.image)


def data_uri(image: bytes) -> str:
    """A PNG as it stands within a page."""
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


_TEXTS: Final = {
    "skip_rate": (
        "Skip rate by agent",
        "Further left is better. Bars are 95 % intervals over sessions and training seeds; small "
        "dots are single seeds. Hollow marks with dashed lines are references. Agents are "
        "evaluated on the same sessions, so differences are surer than overlapping bars suggest: "
        "see the table.",
    ),
    "skip_rate_and_variety": (
        "Skips against variety",
        "Down and to the right is better: few skips with many songs. An agent at the lower left "
        "earns its low skip rate by playing the same few songs to everybody.",
    ),
    "exposure": (
        "How concentrated is the selection?",
        "Of all plays of an agent, the share that its most played songs have (first seed). A curve "
        "that climbs early is a selection of few songs; the dot at its end counts the distinct "
        "songs. The dashed line would be every song of the catalog equally often.",
    ),
    "skip_rate_by_position": (
        "Skip rate along the session",
        "From the first to the last song recommended, all seeds together. Later places rest on the "
        "longer sessions alone, so a line may move because its sessions change.",
    ),
    "learning_curves": (
        "Learning",
        "Validation skip rate during training: mean over the seeds, band from the lowest to the "
        "highest seed. The checkpoint with the lowest one was evaluated.",
    ),
}
"""Heading and caption of each kind of picture."""


def pictures(study: Study, summary: Summary) -> list[Picture]:
    """All pictures: skip rates for each evaluator, the others for the main evaluator."""
    main, references = study.evaluators[0], (study.reference, *study.bounds)
    found = []

    def add(name: str, evaluator: str, figure: Figure, suffix: str = "") -> None:
        found.append(Picture(name + suffix, evaluator, *_TEXTS[name], figure))

    for evaluator in study.evaluators:
        points = _points(summary, evaluator, "skip_rate")
        suffix = "" if evaluator == main else f"-{_slug(evaluator)}"
        add("skip_rate", evaluator, plots.forest(points, references=references), suffix)
    order, rollouts = study.agents, study.at(main)
    skips = _points(summary, main, "skip_rate")
    songs = _points(summary, main, "effective_catalog_size")
    songs = {agent: size for agent, size in songs.items() if agent in skips}
    variety = plots.scatter(songs, skips, hollow=references, order=order)
    add("skip_rate_and_variety", main, variety)
    exposures = {
        agent: exposure(by_source(next(iter(by_seed.values())))[0], study.world.num_tracks)
        for agent, by_seed in rollouts.items()
    }
    add("exposure", main, plots.exposure_curves(exposures, order=order))
    rates = {agent: _rates_by_position(by_seed.values()) for agent, by_seed in rollouts.items()}
    add("skip_rate_by_position", main, plots.by_position(rates, order=order))
    # Labels that only act otherwise have no training of their own.
    curves = {agent: of for agent, of in study.curves.items() if AT not in agent}
    if curves:
        shown = (*order, *(agent for agent in curves if agent not in order))
        add("learning_curves", "", plots.learning_curves(curves, order=shown))
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _points(summary: Summary, evaluator: str, metric: str) -> dict[str, plots.Point]:
    found = {}
    for agent, of in summary["evaluators"][evaluator]["agents"].items():
        estimate = of["metrics"][metric]
        if estimate["value"] is not None:
            seeds = tuple(v for v in estimate["by_seed"].values() if v is not None)
            found[agent] = plots.Point(estimate["value"], estimate["low"], estimate["high"], seeds)
    return found


def _rates_by_position(rollouts: Iterable[Rollout]) -> npt.NDArray[np.float64]:
    """Skip rate of the first, second, ... song of a session, up to the last ever heard."""
    levels = np.concatenate([r.levels.reshape(len(r.levels), -1) for r in rollouts])
    heard = (levels >= 0).sum(axis=0)
    last = int(np.flatnonzero(heard).max(initial=0)) + 1
    skips = is_skip(levels).sum(axis=0)
    return np.where(heard > 0, skips / np.maximum(heard, 1), np.nan)[:last]


def _template_environment() -> jinja2.Environment:
    """Templates of this package, with the filters that their pieces share."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("musicbox_experiments", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(percent=percent, pretty=_pretty, typeset=_typeset, slug=_slug)
    environment.filters.update(describe_gains=describe, tip=_tip)
    return environment


_TERMS: Final = {
    "Points": "Difference in skip rate to the reference, in percentage points; below 0 is fewer "
    "skips.",
    "Gap closed": "Share of the way from the reference to the upper bound, in skip rate, that an "
    "agent makes. Left out where the bound has no sure gain itself.",
    "Probability of improvement": "Share of pairs of a training of the one and a training of the "
    "other in which the one has a lower skip rate. It says nothing of how much lower.",
    "Gain": "Difference in skip rate to the reference at one evaluator, in percentage points.",
    "Remaining": "Share of the gain at the listener trained with that another evaluator finds too. "
    "Left out where there is no sure gain.",
    "Verdict": f"Holds: the gain is sure at the other evaluator, and at least {HOLDS:.0%} of it "
    "remains. Less than half remains: it is sure, but smaller. Sure only where trained: it is not.",
    "Seeds": "Trainings of the agent, each with its own random numbers.",
}
"""Terms of the tables beside the metrics, and what they mean."""
_HEADINGS: Final = (
    *(("skip rate at", "Skip rate"), ("points", "Points"), ("gap to", "Gap closed")),
    *(("probability", "Probability of improvement"), ("gain at", "Gain")),
)
"""How headings begin that are no term themselves, and what they are."""


def _tip(heading: str) -> str:
    """What a heading of a table means; empty where it is the name of something."""
    texts = {metric.label: metric.text for metric in METRICS.values()} | _TERMS
    by_name = {term.lower(): text for term, text in texts.items()}
    if heading.lower() in by_name:
        return by_name[heading.lower()]
    begun = (texts[term] for start, term in _HEADINGS if heading.startswith(f"{start} "))
    return next(begun, "")


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def render_page(template: str, **content: Any) -> str:
    """A report from its template, which extends ``page.html``."""
    return _template_environment().get_template(template).render(**content)


def _render(summary: Summary, pictures: Sequence[Picture]) -> str:
    main = next(iter(summary["evaluators"]))
    return render_page(
        "report.html",
        title=summary["title"],
        facts=_facts(summary),
        command=summary["command"],
        details={
            "Configuration": summary["config"],
            "Dataset": summary["dataset"],
            "Versions and bootstrap": {name: summary[name] for name in ("versions", "bootstrap")},
        },
        s=summary,
        metrics=METRICS,
        terms=_TERMS,
        tables=tables,
        main=main,
        exact=EXACT_EVALUATOR,
        champion=champion(summary, main),
        order={evaluator: ranked(summary, evaluator) for evaluator in summary["evaluators"]},
        pictures=pictures,
    )


def _typeset(text: str) -> str:
    """Write a true minus sign before numbers, and leave the hyphens of names."""
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text)


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Figures for the head of the page."""
    evaluator = next(iter(summary["evaluators"]))
    at, dataset = summary["evaluators"][evaluator], summary["dataset"]
    facts = [("sessions evaluated", f"{at['sessions']:,}"), ("agents", str(len(at["agents"])))]
    if seeds := [len(at["agents"][a]["seeds"]) for a in summary["learned"] if a in at["agents"]]:
        low, high = min(seeds), max(seeds)
        facts.append(("training seeds", str(low) if low == high else f"{low} to {high}"))
    facts.append(("evaluators", str(len(summary["evaluators"]))))
    for key, label in (
        ("tracks", "tracks in the catalog"),
        ("sessions", "sessions in the data"),
        ("plays", "plays in the data"),
    ):
        if isinstance(dataset.get(key), int):
            facts.append((label, f"{dataset[key]:,}"))
    return facts
