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
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt

from musicbox_env.data.writing import write_json
from musicbox_env.schema import is_skip
from musicbox_experiments.compare import plots
from musicbox_experiments.compare.sentences import cautions, headline
from musicbox_experiments.compare.study import EXACT_EVALUATOR, Study
from musicbox_experiments.compare.summary import Summary, champion, ranked, summarize
from musicbox_experiments.evaluate.metrics import METRICS, Rollout, exposure
from musicbox_experiments.text import interval, percent, show, with_interval
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
    pictures = _pictures(study, summary)
    for picture in pictures:
        (out / f"{picture.name}.png").write_bytes(picture.image)
    (out / "report.html").write_text(_render(summary, pictures), encoding="utf-8")
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
        image: PNG, also written as a file.
    """

    name: str
    evaluator: str
    title: str
    caption: str
    image: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.image).decode("ascii")


def _pictures(study: Study, summary: Summary) -> list[Picture]:
    """All pictures: skip rates for each evaluator, the others for the main evaluator."""
    main = study.evaluators[0]
    found = [
        _forest(study, summary, evaluator, "" if evaluator == main else f"-{_slug(evaluator)}")
        for evaluator in study.evaluators
    ]
    found += [
        _scatter(study, summary, main),
        _exposure(study, main),
        _position(study, main),
    ]
    if any(AT not in agent for agent in study.curves):
        found.append(_curves(study))
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


def _references(study: Study) -> tuple[str, ...]:
    return (study.reference, *study.bounds)


def _forest(study: Study, summary: Summary, evaluator: str, suffix: str) -> Picture:
    points, references = _points(summary, evaluator, "skip_rate"), _references(study)
    return Picture(
        f"skip_rate{suffix}",
        evaluator,
        "Skip rate by agent",
        "Further left is better. Bars are 95 % intervals over sessions and training seeds; small "
        "dots are single seeds. Hollow marks with dashed lines are references: "
        f"{', '.join(n for n in references if n in points)}. Agents are evaluated on the same "
        "sessions, so differences are surer than overlapping bars suggest: see the table.",
        plots.png(plots.forest(points, references=references)),
    )


def _scatter(study: Study, summary: Summary, evaluator: str) -> Picture:
    skips = _points(summary, evaluator, "skip_rate")
    songs = _points(summary, evaluator, "effective_catalog_size")
    drawn = [agent for agent in songs if agent in skips]
    figure = plots.scatter(
        {agent: songs[agent] for agent in drawn},
        {agent: skips[agent] for agent in drawn},
        hollow=_references(study),
        order=study.agents,
    )
    return Picture(
        "skip_rate_and_variety",
        evaluator,
        "Skips against variety",
        "Down and to the right is better: few skips with many songs. An agent at the lower left "
        "earns its low skip rate by playing the same few songs to everybody.",
        plots.png(figure),
    )


def _exposure(study: Study, evaluator: str) -> Picture:
    counts = {
        agent: exposure(next(iter(by_seed.values())), study.world.num_tracks)
        for agent, by_seed in study.at(evaluator).items()
    }
    return Picture(
        "exposure",
        evaluator,
        "How concentrated is the selection?",
        "Of all plays of an agent, the share that its most played songs have (first seed). A curve "
        "that climbs early is a selection of few songs; the dot at its end counts the distinct "
        "songs. The dashed line would be every song of the catalog equally often.",
        plots.png(plots.exposure_curves(counts, order=study.agents)),
    )


def _position(study: Study, evaluator: str) -> Picture:
    rates = {
        agent: _rates_by_position(by_seed.values())
        for agent, by_seed in study.at(evaluator).items()
    }
    return Picture(
        "skip_rate_by_position",
        evaluator,
        "Skip rate along the session",
        "From the first to the last song recommended, all seeds together. Later places rest on the "
        "longer sessions alone, so a line may move because its sessions change.",
        plots.png(plots.by_position(rates, order=study.agents)),
    )


def _rates_by_position(rollouts: Iterable[Rollout]) -> npt.NDArray[np.float64]:
    """Skip rate of the first, second, ... song of a session, up to the last ever heard."""
    levels = np.concatenate([r.levels.reshape(len(r.levels), -1) for r in rollouts])
    heard = (levels >= 0).sum(axis=0)
    last = int(np.flatnonzero(heard).max(initial=0)) + 1
    skips = is_skip(levels).sum(axis=0)
    return np.where(heard > 0, skips / np.maximum(heard, 1), np.nan)[:last]


def _curves(study: Study) -> Picture:
    """Learning curves of trainings; labels that only act otherwise have none of their own."""
    curves = {agent: of for agent, of in study.curves.items() if AT not in agent}
    order = (*study.agents, *(a for a in curves if a not in study.agents))
    return Picture(
        "learning_curves",
        "",
        "Learning",
        "Validation skip rate during training: mean over the seeds, band from the lowest to the "
        "highest seed. The checkpoint with the lowest one was evaluated.",
        plots.png(plots.learning_curves(curves, order=order)),
    )


def template_environment() -> jinja2.Environment:
    """Templates of this package, with the filters that their pieces share."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("musicbox_experiments", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "show": lambda value, unit: _typeset(show(value, unit)),
        "interval": lambda e, unit: _typeset(interval(e, unit)),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "typeset": _typeset,
        "slug": _slug,
        "with_interval": lambda e, unit: _typeset(with_interval(e, unit)),
    }
    return environment


def _render(summary: Summary, pictures: Sequence[Picture]) -> str:
    main = next(iter(summary["evaluators"]))
    template = template_environment().get_template("report.html")
    return template.render(
        s=summary,
        metrics=METRICS,
        main=main,
        exact=EXACT_EVALUATOR,
        champion=champion(summary, main),
        order={evaluator: ranked(summary, evaluator) for evaluator in summary["evaluators"]},
        pictures=pictures,
        facts=_facts(summary),
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
