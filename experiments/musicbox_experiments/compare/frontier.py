"""Draw skips against variety: a trained agent under other settings of acting, nothing retrained.

Each point is the agent of a finished run with some settings changed, for example how much it
spreads listeners among songs that it cannot tell apart; the run's other agents stand beside it.
A point is on the frontier if no other one is skipped less and plays more different songs.

Choose a setting on validation sessions, and draw the frontier on test sessions once, at the end.
Validation sessions that picked the checkpoints evaluate nothing, unless most of them did: then all
of them evaluate, which flatters the agent as it was trained a little, and the result says so.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import tyro
from tqdm import tqdm

from musicbox_env.data.writing import write_json
from musicbox_env.schema import require_known, split_codes
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.compare import plots
from musicbox_experiments.compare.evaluation import SKYLINE_EVALUATORS, Evaluation, evaluated
from musicbox_experiments.compare.summary import BOUNDS
from musicbox_experiments.data.sampling import draw_sessions, picking_sessions
from musicbox_experiments.data.sources import without_home
from musicbox_experiments.evaluate.metrics import (
    METRICS,
    CatalogStats,
    Rollout,
    effective_catalog_size,
    exposure,
    skip_rate,
)
from musicbox_experiments.evaluate.statistics import paired_bootstrap, paired_change, seed_estimate
from musicbox_experiments.text import columns, percent, signed_points
from musicbox_experiments.train.claims import as_stored
from musicbox_experiments.train.jobs import TrainingJob, finished_jobs, trained
from musicbox_experiments.train.simulators import AUTO, choose_listeners, require_choice
from musicbox_experiments.train.variants import class_of, parse_settings

FORMAT_VERSION: Final = 1
CONFIDENCE: Final = 0.95
AT: Final = "@"
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class FrontierConfig:
    """Options of `musicbox frontier`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run made by `musicbox compare` or `musicbox train`."""
    points: tuple[str, ...]
    """What to change for each point, NAME=VALUE, several joined by commas: rerank=3 rerank=30. The
    agent as it was trained is a point anyway."""
    agent: str = "ddpg"
    """Which of the run's agents, or variants of one."""
    beside: tuple[str, ...] | None = None
    """Other agents of the run to show as points; by default all."""
    evaluator: str = AUTO
    """Listener that evaluates; auto is the main one that the data supports."""
    split: str = "validation"
    """Sessions to evaluate on."""
    evaluation_sessions: int = 3_000
    """Most sessions to evaluate on."""
    seed: int = 0
    """Which sessions, and the evaluator's random numbers."""
    out: Path | None = None
    """Where to write; by default a folder in the run's own."""

    def __post_init__(self) -> None:
        split_codes(self.split)
        require_choice(self.evaluator)
        for point in self.points:
            changes_of(self.agent, point)


def changes_of(agent: str, point: str) -> Changes:
    """Read ``NAME=VALUE,NAME=VALUE``; only settings of acting are taken.

    >>> changes_of("ddpg", "rerank=30")
    {'rerank': 30}
    """
    parsed = parse_settings([f"{agent}.{setting}" for setting in point.split(",")])[agent]
    cls = class_of(agent)
    for name in parsed:
        require_known(f"setting of how a trained {cls.name} acts", name, cls.acting)
    return parsed


def run(config: FrontierConfig) -> None:
    """Evaluator every point, write table, picture and records."""
    jobs = finished_jobs(config.run)
    require_known("agent of this run", config.agent, dict.fromkeys(job.agent for job in jobs))
    own = [job for job in jobs if job.agent == config.agent]
    others = [job for job in jobs if job.agent in _beside(config, jobs)]
    evaluation = _evaluation(config, own[0])
    picked = picking_sessions(open_dataset(own[0].options.get("data")), own[0].validation_sessions)
    twice = int(np.isin(evaluation.sessions, picked).sum())
    rollouts = _evaluator(config, own, others, evaluation)
    records = _records(config, rollouts, open_dataset(own[0].options.get("data")))
    out = evaluation.folder.parent
    write_json(
        out / "frontier.json",
        {
            "format_version": FORMAT_VERSION,
            "command": without_home("musicbox frontier " + " ".join(sys.argv[2:])),
            "config": as_stored(config),
            "evaluator": evaluation.evaluator,
            "split": config.split,
            "sessions": len(evaluation.sessions),
            "sessions_that_picked_checkpoints": twice,
            "points": records,
        },
    )
    (out / "frontier.png").write_bytes(plots.png(_drawn(records)))
    print(_table(config, records))
    print(
        f"\n{len(evaluation.sessions):,} {config.split} sessions, evaluator "
        f"{evaluation.evaluator}. [ ] {percent(CONFIDENCE, 0)} intervals: of skips over sessions "
        f"and seeds, of songs over seeds. * on the frontier: no other point is skipped less and "
        f"plays more different songs (bounds left out). {twice:,} of the sessions picked the "
        f"checkpoints.\nPicture: {out / 'frontier.png'}; records: {out / 'frontier.json'}"
    )


def _beside(config: FrontierConfig, jobs: Sequence[TrainingJob]) -> list[str]:
    labels = [label for label in dict.fromkeys(job.agent for job in jobs) if label != config.agent]
    for label in config.beside or ():
        require_known("agent of this run", label, labels)
    return labels if config.beside is None else list(config.beside)


def _evaluation(config: FrontierConfig, job: TrainingJob) -> Evaluation:
    """Who evaluates on what."""
    data = job.options.get("data")
    dataset = open_dataset(data)
    asked = () if config.evaluator == AUTO else (config.evaluator,)
    evaluator, listener = next(
        iter(choose_listeners(AUTO, asked, data, config.run).evaluators.items())
    )
    picking = picking_sessions(dataset, job.validation_sessions)
    if len(picking_sessions(dataset, 2 * len(picking))) < 2 * len(picking):
        picking = picking[:0]
    sessions = draw_sessions(
        dataset, config.split, config.evaluation_sessions, config.seed, but=picking
    )
    name = f"frontier-{config.agent}-{config.split}-{evaluator}-{config.seed}-{len(sessions)}"
    out = config.out or config.run / name
    return Evaluation(
        evaluator,
        listener,
        {**job.options, "split": config.split, "horizon": None},
        sessions,
        out / "rollouts",
        config.seed,
    )


def _evaluator(
    config: FrontierConfig,
    own: Sequence[TrainingJob],
    others: Sequence[TrainingJob],
    evaluation: Evaluation,
) -> dict[str, list[Rollout]]:
    """Rollouts of every point by label, its seeds in order."""
    affordable = [
        job for job in others if job.agent != "skyline" or evaluation.listener in SKYLINE_EVALUATORS
    ]
    work: list[tuple[TrainingJob, str, Changes]] = [
        (job, job.agent, {}) for job in (*own, *affordable)
    ]
    work += [
        (job, f"{config.agent}{AT}{point}", changes_of(config.agent, point))
        for point in config.points
        for job in own
    ]
    found: dict[str, list[Rollout]] = {}
    for job, label, changes in tqdm(work, unit="rollout", desc="evaluation"):
        agent = trained(job, changes)
        found.setdefault(label, []).append(evaluated(agent, job, evaluation, label))
    return found


def _records(
    config: FrontierConfig, rollouts: Mapping[str, Sequence[Rollout]], dataset: Any
) -> list[dict[str, Any]]:
    """Figures of every point, and how the agent's own differ from it as it was trained."""
    world = CatalogStats.of(dataset)
    rng = np.random.default_rng(config.seed)
    skips = {label: [skip_rate(r) for r in found] for label, found in rollouts.items()}
    songs = {
        label: [effective_catalog_size(exposure(r, world.num_tracks)) for r in found]
        for label, found in rollouts.items()
    }
    bootstrap = paired_bootstrap(skips, rng=rng, confidence=CONFIDENCE)
    family = [config.agent, *(f"{config.agent}{AT}{point}" for point in config.points)]
    estimates = {
        label: {
            "skip_rate": bootstrap.estimate(label),
            "effective_catalog_size": seed_estimate(
                songs[label],
                sessions=bootstrap.sessions,
                confidence=CONFIDENCE,
                limits=METRICS["effective_catalog_size"].limits,
            ),
        }
        for label in rollouts
    }
    at = {
        label: (e["skip_rate"].value, e["effective_catalog_size"].value)
        for label, e in estimates.items()
    }
    rivals = {label: place for label, place in at.items() if label not in BOUNDS}
    records = []
    for label, estimate in estimates.items():
        record: dict[str, Any] = {
            "label": label,
            "changed": changes_of(config.agent, label.partition(AT)[2]) if AT in label else {},
            "in_family": label in family,
            "bound": label in BOUNDS,
            "on_frontier": label in rivals and not _dominated(at[label], rivals.values()),
            **{name: asdict(e) for name, e in estimate.items()},
            "by_seed": {
                "skip_rate": [p.mean for p in skips[label]],
                "effective_catalog_size": songs[label],
            },
        }
        if label in family[1:]:
            record["change"] = _change(
                skips[config.agent], skips[label], songs[config.agent], songs[label], rng
            )
        records.append(record)
    order = {label: place for place, label in enumerate(family)}
    return sorted(records, key=lambda record: order.get(record["label"], len(order)))


def _dominated(place: tuple[float, float], others: Any) -> bool:
    """Whether another point has fewer skips and more songs, one of them strictly."""
    skips, songs = place
    return any(s <= skips and n >= songs and (s, n) != place for s, n in others)


def _change(
    skips_before: Sequence[Any],
    skips_after: Sequence[Any],
    songs_before: Sequence[float],
    songs_after: Sequence[float],
    rng: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    """What the changed settings do, paired by session and seed."""
    change = paired_change(skips_before, skips_after, rng=rng, confidence=CONFIDENCE)
    variety = seed_estimate(
        [after - before for before, after in zip(songs_before, songs_after, strict=True)],
        sessions=change.sessions,
        confidence=CONFIDENCE,
    )
    return {"skip_rate": asdict(change), "effective_catalog_size": asdict(variety)}


def _drawn(records: Sequence[Mapping[str, Any]]) -> plots.Figure:
    def points(metric: str) -> dict[str, plots.Point]:
        return {
            _short(r): plots.Point(r[metric]["value"], r[metric]["low"], r[metric]["high"])
            for r in records
        }

    songs = points("effective_catalog_size")
    path = sorted((_short(r) for r in records if r["in_family"]), key=lambda n: songs[n].value)
    return plots.scatter(
        songs,
        points("skip_rate"),
        x_label="effective catalog size",
        y_label="skip rate",
        hollow=[_short(r) for r in records if r["bound"] or r["label"] == "logged"],
        path=path,
    )


def _short(record: Mapping[str, Any]) -> str:
    """Name in the picture: what was changed, for the agent's own points."""
    return str(record["label"]).partition(AT)[2] or str(record["label"])


def _table(config: FrontierConfig, records: Sequence[Mapping[str, Any]]) -> str:
    rows = [("point", "skip rate", "effective catalog size", f"skips vs {config.agent}", "songs")]
    for record in records:
        change = record.get("change")
        rows.append(
            (
                f"{record['label']}{' *' if record['on_frontier'] else ''}",
                _interval(record["skip_rate"], lambda v: f"{100 * v:.1f}"),
                _interval(record["effective_catalog_size"], lambda v: f"{v:,.0f}"),
                _interval(change["skip_rate"], signed_points) if change else "",
                _interval(change["effective_catalog_size"], lambda v: f"{v:+,.0f}")
                if change
                else "",
            )
        )
    return columns(rows)


def _interval(estimate: Mapping[str, Any], text: Any) -> str:
    if estimate["low"] is None:
        return str(text(estimate["value"]))
    return f"{text(estimate['value'])} [{text(estimate['low'])}, {text(estimate['high'])}]"
