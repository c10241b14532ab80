"""The report of a comparison: numbers, pictures, and one page that a stranger understands.

`write_report` turns a `Study` into the folder that people open::

    OUT/
      report.html     self-contained: pictures inlined, no external resource
      summary.json    per evaluator, agent and metric: value, interval, seeds, sessions; differences
      results.csv     a row an agent, seed, evaluator and metric
      *.png           the pictures
"""

from __future__ import annotations

import base64
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
import numpy as np
import numpy.typing as npt

from musicbox_env.data.writing import write_json
from musicbox_env.schema import is_skip
from musicbox_experiments.compare import plots
from musicbox_experiments.compare.summary import (
    CONFIDENCE,
    EXACT_EVALUATOR,
    Study,
    Summary,
    ranked,
    summarize,
)
from musicbox_experiments.evaluate.metrics import METRICS, Metric, Rollout, exposure
from musicbox_experiments.text import bracketed, columns, percent, signed_count, signed_points

ADVISED_SEEDS: Final = 10


# What the figures say, in sentences.


def _skip(summary: Summary, agent: str, evaluator: str | None = None) -> Summary:
    evaluator = evaluator or next(iter(summary["evaluators"]))
    return dict(summary["evaluators"][evaluator]["agents"][agent]["metrics"]["skip_rate"])


def _headline(summary: Summary) -> list[str]:
    """The result at the main evaluator in a few sentences."""
    evaluator = next(iter(summary["evaluators"]))
    reference, agents = summary["reference"], summary["evaluators"][evaluator]["agents"]
    others = [
        a for a in ranked(summary, evaluator) if a not in summary["bounds"] and a != reference
    ]
    if not others:
        return [f"{reference} was skipped {_with_interval(_skip(summary, reference))}."]
    best, gain = others[0], agents[others[0]]["differences"]["skip_rate"]
    sure = sum((agents[a]["differences"]["skip_rate"]["high"] or 0) < 0 for a in others)
    found = [
        f"{best} was skipped least: {_with_interval(_skip(summary, best))} of its songs, against "
        f"{percent(_skip(summary, reference)['value'])} for {reference} "
        f"(difference {_points_with_interval(gain)} points).",
        f"{sure} of {len(others)} agents {'is' if sure == 1 else 'are'} skipped less than "
        f"{reference} by more than the uncertainty of the comparison.",
    ]
    training = summary["evaluators"][evaluator]["training"]
    if training:
        learned, rule = training["learned"], training["rule"]
        found.append(
            f"The best agent that learned from the simulator is {learned} with "
            f"{percent(_skip(summary, learned)['value'])}; the best without such training is "
            f"{rule} with {percent(_skip(summary, rule)['value'])} "
            f"(difference {_points_with_interval(training)} points)."
        )
    return [*found, *_blind(summary, evaluator)]


def _blind(summary: Summary, evaluator: str) -> list[str]:
    """That an evaluator does not even tell random songs from what was playing, if so."""
    agents, reference = summary["evaluators"][evaluator]["agents"], summary["reference"]
    if "random" not in agents or reference == "random":
        return []
    difference = agents["random"]["differences"]["skip_rate"]
    if difference["low"] is None or difference["low"] > 0:
        return []
    return [
        f"At the evaluator {evaluator} random songs are not surely skipped more than {reference} "
        f"({_points_with_interval(difference)} points): it hardly knows what a song is worth to "
        "this listener, so its order of the agents proves little."
    ]


def _cautions(summary: Summary) -> list[str]:
    """What the numbers cannot show, as far as the numbers themselves tell."""
    evaluator = next(iter(summary["evaluators"]))
    agents = summary["evaluators"][evaluator]["agents"]
    found = []
    imputed = [a["metrics"]["imputed"]["value"] or 0.0 for a in agents.values()]
    if max(imputed) > 0:
        found = [
            "The answers come from a simulated listener, not from people. A simulator can be wrong "
            "in ways that an agent learns to use; a gain counts for more the more different "
            "evaluators agree on it.",
            f"Between {percent(min(imputed))} and {percent(max(imputed))} of an agent's answers "
            f"at the evaluator {evaluator} were imputed: the log does not tell how this listener "
            "would have heard that song at that moment.",
        ]
    once = [a for a in summary["learned"] if len(agents.get(a, {}).get("seeds", [])) == 1]
    if once:
        found.append(
            f"Trained with one seed only: {', '.join(once)}. The interval then speaks of the "
            "sessions alone, and another training could end elsewhere."
        )
    few = {
        a: len(agents[a]["seeds"])
        for a in summary["learned"]
        if a in agents and 1 < len(agents[a]["seeds"]) < ADVISED_SEEDS
    }
    if few:
        found.append(
            f"Fewer than {ADVISED_SEEDS} training seeds: "
            + ", ".join(f"{a} ({n})" for a, n in few.items())
            + ". Intervals are widened for that, but the spread between so few seeds is itself "
            "known only roughly."
        )
    for each in list(summary["evaluators"])[1:]:
        found += _blind(summary, each)
    competitors = [a for a in agents if a not in summary["bounds"] and a != summary["reference"]]
    if len(competitors) > 2:
        found.append(
            f"{len(competitors)} agents are compared at {percent(CONFIDENCE, 0)} each, so a "
            "difference that only just clears its interval can be chance; and the best of many is "
            "chosen on the sessions that evaluate it, which flatters it a little."
        )
    return found


# Numbers as text.


def show(value: float | None, unit: str) -> str:
    """A value of a `Metric` in its unit.

    >>> show(0.5, "percent"), show(1234.6, "count"), show(9.5, "count"), show(4.321, "number")
    ('50.0 %', '1,235', '9.5', '4.32')
    """
    if value is None or math.isnan(value):
        return "-"
    if unit == "percent":
        return percent(value, 1 if abs(value) >= 0.01 or value == 0 else 2)
    if unit == "count":
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.3f}" if unit == "index" else f"{value:.2f}"


def _bare(unit: str) -> Callable[[float], str]:
    return lambda value: show(value, unit).removesuffix(" %")


def _with_interval(estimate: Summary) -> str:
    interval = bracketed(estimate["low"], estimate["high"], _bare("percent"))
    return f"{percent(estimate['value'])} {interval}".rstrip()


def _points_with_interval(estimate: Summary) -> str:
    interval = bracketed(estimate["low"], estimate["high"], signed_points)
    return f"{signed_points(estimate['value'])} {interval}".rstrip()


_TEXT_COLUMNS: Final = ("effective_catalog_size", "coverage", "diversity", "novelty", "imputed")


def text_table(summary: Summary) -> str:
    """The main figures for a terminal, a table an evaluator, fewest skips first."""
    blocks = []
    for evaluator, at in summary["evaluators"].items():
        header = [
            "agent",
            "skip rate",
            f"points vs {summary['reference']}",
            *([f"gap to {at['gap_to']} closed"] if at["gap_to"] else []),
            "return",
            *(METRICS[name].label.lower() for name in _TEXT_COLUMNS),
            "seeds",
        ]
        rows = [header, *(_text_row(summary, at, agent) for agent in ranked(summary, evaluator))]
        lines = columns(rows).splitlines()
        trained = ", the listener trained with" if evaluator == summary["trained_with"] else ""
        head = f"Evaluator: {evaluator}{trained}; {at['sessions']:,} sessions"
        blocks.append("\n".join([head, lines[0], "-" * max(map(len, lines)), *lines[1:]]))
    main = next(iter(summary["evaluators"]))
    if champion := _champion(summary, main):
        blocks.append(_text_against(summary, main, champion))
    if any(summary["transfer"].values()):
        blocks.append(_text_transfer(summary))
    if summary["reranking"]:
        blocks.append(_text_reranking(summary))
    legend = f"[ ] {percent(CONFIDENCE, 0)} intervals over sessions and seeds."
    if summary["bounds"]:
        legend += "  * upper bound, no competitor."
    if "skyline" in summary["bounds"]:
        legend += (
            f"  skyline: of all songs at {EXACT_EVALUATOR}, of a shortlist at other evaluators."
        )
    return "\n\n".join([*blocks, legend])


def _text_row(summary: Summary, at: Summary, agent: str) -> list[str]:
    of = at["agents"][agent]
    difference = of["differences"].get("skip_rate")
    return [
        agent + (" *" if agent in summary["bounds"] else ""),
        _with_interval(of["metrics"]["skip_rate"]),
        _points_with_interval(difference) if difference else "",
        *([_with_interval(of["gap_closed"]) if of["gap_closed"] else ""] if at["gap_to"] else []),
        show(of["metrics"]["return"]["value"], "number"),
        *(_shown(of["metrics"][name], METRICS[name]) for name in _TEXT_COLUMNS),
        str(len(of["seeds"])),
    ]


def _shown(estimate: Summary, metric: Metric) -> str:
    """A value, with its interval if it is a count."""
    value = show(estimate["value"], metric.unit)
    if metric.unit != "count":
        return value
    return f"{value} {bracketed(estimate['low'], estimate['high'], _bare(metric.unit))}".rstrip()


CHAMPION: Final = "ddpg"


def _champion(summary: Summary, evaluator: str) -> str | None:
    """The agent that is set against all others: `ddpg`, else the best of those that learned."""
    against = summary["evaluators"][evaluator]["against"]
    if CHAMPION in against:
        return CHAMPION
    return next((agent for agent in ranked(summary, evaluator) if agent in against), None)


def _text_against(summary: Summary, evaluator: str, champion: str) -> str:
    rows = [(f"{champion} minus", "skips, points", "effective catalog size")]
    against = summary["evaluators"][evaluator]["against"][champion]
    for agent in ranked(summary, evaluator):
        if agent in against:
            of = against[agent]
            rows.append(
                (
                    agent + (" *" if agent in summary["bounds"] else ""),
                    _points_with_interval(of["skip_rate"]),
                    signed_count(of["effective_catalog_size"]),
                )
            )
    return f"{champion} against the others, evaluator {evaluator}\n" + columns(rows)


def _text_transfer(summary: Summary) -> str:
    rows = [("agent", "evaluator", "gain there", f"gain at {summary['trained_with']}", "remaining")]
    for evaluator, of in summary["transfer"].items():
        for agent in ranked(summary, evaluator):
            if agent in of and agent != summary["reference"]:
                row = of[agent]
                gains = (row["gain_evaluator"], row["gain_trained_with"])
                rows.append(
                    (
                        agent,
                        evaluator,
                        *(_points_with_interval(gain) if gain else "" for gain in gains),
                        _with_interval(row["remaining"]) if row["remaining"] else "",
                    )
                )
    head = (
        f"What remains of the gain over {summary['reference']} at other evaluators (skips, points)"
    )
    return f"{head}\n{columns(rows)}"


def _text_reranking(summary: Summary) -> str:
    rows = sorted(summary["reranking"].items(), key=lambda item: item[1]["value"] or 0.0)
    width = max(len(agent) for agent, _ in rows)
    return "\n".join(
        [
            "Re-ranking logged plays, real labels: skips against a random choice, in percent",
            *(f"{agent.ljust(width)}  {_points_with_interval(row)}" for agent, row in rows),
        ]
    )


def text_first(summary: Summary) -> str:
    """The two figures of the first MusicBox by its own definition, for a terminal."""
    rows = [("agent", "skips of songs in the session", "of all data", "diversity", "of sessions")]
    for agent, of in summary["first_musicbox"].items():
        rows.append(
            (
                agent,
                f"{percent(of['skip_rate'])} of {percent(of['share_in_session'])}",
                percent(of["skip_rate_all_data"]),
                f"{show(of['diversity_percent'], 'number')} %",
                f"{show(of['diversity_percent_sessions'], 'number')} %",
            )
        )
    return "The first MusicBox's two figures, by its own definition: they prove little\n" + columns(
        rows
    )


# Files.


def write_report(out: Path, study: Study, *, seed: int = 0, resamples: int = 2000) -> Summary:
    """Write ``report.html``, ``summary.json``, ``results.csv`` and the pictures.

    Args:
        out: Folder, made if it is missing; what else lies in it stays.
        study: What was compared.
        seed: Seed of the bootstrap.
        resamples: Number of resamples.

    Returns:
        The summary, as in ``summary.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = summarize(study, seed=seed, resamples=resamples)
    summary |= {"headline": _headline(summary), "cautions": _cautions(summary)}
    write_json(out / "summary.json", summary)
    _write_results(out / "results.csv", summary)
    pictures = _pictures(study, summary)
    for picture in pictures:
        (out / f"{picture.name}.png").write_bytes(picture.light)
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
        light: PNG for light pages, also written as a file.
        dark: PNG for dark pages.
    """

    name: str
    evaluator: str
    title: str
    caption: str
    light: bytes
    dark: bytes

    @property
    def light_uri(self) -> str:
        """The light picture as a data URI."""
        return _data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark picture as a data URI."""
        return _data_uri(self.dark)


def _data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def _picture(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[plots.Theme], plots.Figure],
    evaluator: str = "",
) -> Picture:
    light, dark = (plots.png(draw(theme)) for theme in (plots.LIGHT, plots.DARK))
    return Picture(name, evaluator, title, caption, light, dark)


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
    if study.curves:
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


def _special(study: Study) -> tuple[str, ...]:
    return (study.reference, *study.bounds)


def _forest(study: Study, summary: Summary, evaluator: str, suffix: str) -> Picture:
    points = _points(summary, evaluator, "skip_rate")
    return _picture(
        f"skip_rate{suffix}",
        "Skip rate by agent",
        "Further left is better. Bars are 95 % intervals over sessions and training seeds; small "
        "dots are single seeds. Hollow marks with dashed lines are references: "
        f"{', '.join(n for n in _special(study) if n in points)}. Agents are evaluated on the same "
        "sessions, so differences are surer than overlapping bars suggest: the table gives them.",
        lambda theme: plots.forest(
            points, label="skip rate", references=_special(study), theme=theme
        ),
        evaluator,
    )


def _scatter(study: Study, summary: Summary, evaluator: str) -> Picture:
    skips = _points(summary, evaluator, "skip_rate")
    songs = {
        a: p for a, p in _points(summary, evaluator, "effective_catalog_size").items() if a in skips
    }
    return _picture(
        "skip_rate_and_variety",
        "Fewer skips, at what price in variety?",
        "Down and to the right is better: few skips with many songs. An agent at the lower left "
        "earns its low skip rate by playing the same few songs to everybody.",
        lambda theme: plots.scatter(
            songs,
            {a: skips[a] for a in songs},
            x_label="effective catalog size",
            y_label="skip rate",
            hollow=_special(study),
            order=study.agents,
            theme=theme,
        ),
        evaluator,
    )


def _exposure(study: Study, evaluator: str) -> Picture:
    counts = {
        agent: exposure(next(iter(by_seed.values())), study.world.num_tracks)
        for agent, by_seed in study.at(evaluator).items()
    }
    return _picture(
        "exposure",
        "How concentrated is the selection?",
        "Of all plays of an agent, the share that its most played songs have (first seed). A curve "
        "that climbs early is a selection of few songs; the dot at its end counts the distinct "
        "songs. The dashed line would be every song of the catalog equally often.",
        lambda theme: plots.exposure_curves(counts, order=study.agents, theme=theme),
        evaluator,
    )


def _position(study: Study, evaluator: str) -> Picture:
    rates = {
        agent: _rates_by_position(by_seed.values())
        for agent, by_seed in study.at(evaluator).items()
    }
    return _picture(
        "skip_rate_by_position",
        "Skip rate along the session",
        "From the first to the last song recommended, all seeds together. Later places rest on the "
        "longer sessions alone, so a line may move because its sessions change.",
        lambda theme: plots.by_position(rates, order=study.agents, theme=theme),
        evaluator,
    )


def _rates_by_position(rollouts: Iterable[Rollout]) -> npt.NDArray[np.float64]:
    """Skip rate of the first, second, ... song of a session, up to the last ever heard."""
    levels = np.concatenate([r.levels.reshape(len(r.levels), -1) for r in rollouts])
    heard = (levels >= 0).sum(axis=0)
    last = int(np.flatnonzero(heard).max(initial=0)) + 1
    skips = is_skip(levels).sum(axis=0)
    return np.where(heard > 0, skips / np.maximum(heard, 1), np.nan)[:last]


def _curves(study: Study) -> Picture:
    return _picture(
        "learning_curves",
        "Learning",
        f"{study.curve_label[:1].upper()}{study.curve_label[1:]} during training: mean over the "
        "seeds, band from the lowest to the highest seed. The checkpoint that validation liked "
        "best is the one that was evaluated.",
        lambda theme: plots.learning_curves(
            study.curves,
            label=study.curve_label,
            percent=study.curve_percent,
            order=(*study.agents, *(a for a in study.curves if a not in study.agents)),
            theme=theme,
        ),
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
        "show": show,
        "points": lambda value: _typeset(signed_points(value)),
        "interval": lambda e, unit: bracketed(e["low"], e["high"], _bare(unit)),
        "points_interval": lambda e: _typeset(bracketed(e["low"], e["high"], signed_points)),
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "typeset": _typeset,
        "slug": _slug,
        "signed_count": lambda e: _typeset(signed_count(e)),
    }
    return environment


def _render(summary: Summary, pictures: Sequence[Picture]) -> str:
    return (
        template_environment()
        .get_template("report.html")
        .render(
            s=summary,
            metrics=METRICS,
            main=next(iter(summary["evaluators"])),
            champion=_champion(summary, next(iter(summary["evaluators"]))),
            order={evaluator: ranked(summary, evaluator) for evaluator in summary["evaluators"]},
            pictures=pictures,
            facts=_facts(summary),
        )
    )


def _typeset(text: str) -> str:
    """Write a true minus sign before numbers, and leave the hyphens of names."""
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text)


def _facts(summary: Summary) -> list[tuple[str, str]]:
    """Figures for the head of the page."""
    evaluator = next(iter(summary["evaluators"]))
    at, dataset = summary["evaluators"][evaluator], summary["dataset"]
    facts = [("sessions evaluated", f"{at['sessions']:,}"), ("agents", str(len(at["agents"])))]
    if summary["learned"]:
        seeds = [len(at["agents"][a]["seeds"]) for a in summary["learned"] if a in at["agents"]]
        if seeds:
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
