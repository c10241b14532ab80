"""Train agents, evaluate them on sessions they never saw, and write a report.

Without --data or --sessions it compares on the bundled synthetic sessions. A run that was
interrupted goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LISTENERS
from musicbox_env.rewards import RewardConfig
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.compare.evaluation import evaluate_all, evaluate_one, evaluations_for
from musicbox_experiments.compare.presets import (
    PRESETS,
    options_of,
    preset_in,
    require_preset,
    require_sessions,
)
from musicbox_experiments.compare.report import Study, text_first, text_table, write_report
from musicbox_experiments.compare.summary import BOUNDS, EXACT_EVALUATOR
from musicbox_experiments.data.enough import cautions
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.data.sources import Source, without_home
from musicbox_experiments.evaluate.metrics import (
    CatalogStats,
    PerSession,
    Rollout,
    first_musicbox_figures,
)
from musicbox_experiments.train.claims import as_stored, claim
from musicbox_experiments.train.jobs import TrainingJob, curve, jobs_for, train_all
from musicbox_experiments.train.simulators import AUTO, Listeners, choose_listeners, require_choice
from musicbox_experiments.train.variants import about, parse_settings, require_label

DEFAULT_AGENTS = (
    "random",
    "popularity",
    "logged",
    "content",
    "best-rate",
    "played-rate",
    "ddpg",
    "sb3-ddpg",
    "skyline",
)
FAVOURITES = 5


@dataclass(frozen=True)
class CompareConfig:
    """Options of `musicbox compare`."""

    source: Source = field(default_factory=Source)
    preset: str | None = None
    """Options that belong together: paper (the whole field over ten seeds), high-taste (the same
    where taste counts three times as much), real (your own sessions, named by --sessions or
    --data), transfer (what remains at listeners that did not teach) or first (every setting of the
    first MusicBox). Each can be overridden; `--preset NAME --help`
    shows what it sets."""
    agents: tuple[str, ...] = DEFAULT_AGENTS
    """Agents to compare, and variants of them such as sb3-ddpg+tuned. `logged` is what was playing,
    `skyline` an upper bound: it knows the evaluator's own probabilities (of all songs at the exact
    law, of a shortlist at `replay`)."""
    seeds: int = 3
    """Trainings of each agent that learns. Three show whether something works; ten are needed to
    claim a difference."""
    train_steps: int = 4_000
    """Slates that each agent recommends while it learns (environment steps)."""
    train_horizon: int | None = None
    """Songs of a session while learning; by default as many as the log had left."""
    listener: str = AUTO
    """Listener to learn with, by name or path; auto is `ground_truth` where the data has one, else
    `learned`. A learned one is fitted on fold A; another on fold B evaluates, and a second fit on
    fold A picks the checkpoints, on validation sessions. Where agents learn with `ground_truth`, or
    with a listener that you name, the same one picks. A mode of the similarity listener can be
    named too: similarity-grouped_cosine."""
    evaluator: tuple[str, ...] = ()
    """Listeners that evaluate, by name or path; by default the exact law where there is one,
    learned ones if agents learn with one, and `replay`."""
    test_sessions: int = 3_000
    """Most test sessions to evaluate on; drawn once, the same for all agents."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What to learn; evaluated is always the skip rate."""
    agent_settings: tuple[str, ...] = ()
    """Settings of agents as AGENT.NAME=VALUE, for example ddpg.gamma=0.5; with
    ddpg+mine.gamma=0.5 and `--agents logged ddpg ddpg+mine` both stand side by side."""
    out: Path = Path("runs/compare")
    """Where everything is written."""
    workers: int = 0
    """Trainings at once; 0 is one for each core."""
    seed: int = 0
    """Of the evaluation: which sessions, and the evaluator's random numbers."""
    overwrite: bool = False
    """Start anew if --out holds another run."""

    def __post_init__(self) -> None:
        given = parse_settings(self.agent_settings)
        for label in self.agents:
            require_label(label, given)
        if self.preset is not None:
            require_preset(self.preset)
        for name in (self.listener, *self.evaluator):
            require_choice(name)
        for option in ("seeds", "train_steps", "test_sessions"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}; it must be 1 or more.")
        if "logged" not in self.agents:
            raise ValueError(
                "--agents must name `logged`: what was playing is what every other agent is "
                "compared with."
            )


def defaults(arguments: Sequence[str]) -> CompareConfig:
    """Options to start from: those of the preset that a command line names."""
    preset = preset_in(arguments)
    return CompareConfig() if preset is None else CompareConfig(**options_of(preset))


def run(config: CompareConfig) -> None:
    """Train, evaluator, report."""
    require_sessions(config.preset, config.source)
    claim(config.out, config, incidental=("overwrite", "workers"), overwrite=config.overwrite)
    data = config.source.resolve(config.out)
    listeners = choose_listeners(config.listener, config.evaluator, data, config.out)
    options = {"data": data, "reward": asdict(config.reward)}
    jobs = jobs_for(
        config.agents,
        config.seeds,
        settings=parse_settings(config.agent_settings),
        options={**options, "split": "train", "horizon": config.train_horizon},
        steps=config.train_steps,
        out=config.out,
        listeners=listeners,
    )
    sessions = draw_sessions(open_dataset(data), "test", config.test_sessions, config.seed)
    evaluations = evaluations_for(
        listeners.evaluators, {**options, "split": "test"}, sessions, config.out, config.seed
    )
    workers = config.workers or os.cpu_count() or 1
    train_all(jobs, workers=workers, then=partial(evaluate_one, by=evaluations))
    rollouts, reranking = evaluate_all(jobs, evaluations)
    study = _study(config, open_dataset(data), listeners, jobs, rollouts, reranking)
    summary = write_report(config.out, study)
    print(text_table(summary))
    print("", *summary["headline"], *summary["notes"], sep="\n")
    if config.preset == "first":
        print(f"\n{text_first(summary)}")
    print(f"\nReport: {config.out / 'report.html'}")


def _study(
    config: CompareConfig,
    dataset: Dataset,
    listeners: Listeners,
    jobs: Sequence[TrainingJob],
    rollouts: Sequence[Rollout],
    reranking: Mapping[str, Mapping[int, PerSession]],
) -> Study:
    world = CatalogStats.of(dataset)
    curves: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for job in jobs:
        if points := curve(job):
            curves.setdefault(job.agent, {})[job.seed] = points
    replayed = [r for r in rollouts if r.evaluator == "replay"]
    return Study(
        rollouts=rollouts,
        world=world,
        config=as_stored(config),
        dataset=dataset.about,
        title=_title(config),
        command=without_home("musicbox compare " + " ".join(sys.argv[2:])),
        trained_with=listeners.training_name,
        reranking=reranking,
        curves=curves,
        bounds=BOUNDS,
        descriptions=_descriptions(config.agents, rollouts),
        first_figures=_first_figures(replayed, world, dataset),
        favourites=_favourites(dataset, rollouts),
        notes=_notes(config, dataset, listeners),
    )


def _title(config: CompareConfig) -> str:
    named = "" if config.preset is None else f" (preset {config.preset})"
    return f"MusicBox: agents compared{named}"


def _descriptions(agents: Sequence[str], rollouts: Sequence[Rollout]) -> dict[str, str]:
    """A line for each agent and evaluator: what its variant is, or the first of its docstring."""
    lines = {label: about(label) for label in agents}
    for evaluator in {r.evaluator for r in rollouts}:
        if (kind := evaluator.partition("-")[0]) in LISTENERS:
            lines[evaluator] = (LISTENERS[kind].__doc__ or "").strip().partition("\n")[0]
    return lines


def _first_figures(
    rollouts: Sequence[Rollout], world: CatalogStats, dataset: Dataset
) -> dict[str, dict[str, float]]:
    """The two figures of the first MusicBox for each agent, by its own definition."""
    by_agent: dict[str, list[dict[str, float]]] = {}
    for rollout in rollouts:
        figures = first_musicbox_figures(rollout, world, dataset.sessions)
        by_agent.setdefault(rollout.agent, []).append(figures)
    return {
        agent: {name: float(np.mean([f[name] for f in found])) for name in found[0]}
        for agent, found in by_agent.items()
    }


def _notes(config: CompareConfig, dataset: Dataset, listeners: Listeners) -> list[str]:
    """What a reader of this very run must know."""
    notes = [*cautions(dataset), _picking(listeners)]
    if config.preset is not None:
        notes.append(
            f"Made with the preset {config.preset}: {PRESETS[config.preset].about}. What was set "
            "otherwise shows in the configuration below."
        )
    if dataset.about.get("synthetic"):
        notes.append(
            "The sessions are synthetic: they look like the published figures of real ones, but "
            "what a better choice of songs is worth in them is the generator's assumption."
        )
    return notes


def _picking(listeners: Listeners) -> str:
    """Who decided which checkpoint of each training is evaluated here."""
    if listeners.picking == listeners.training:
        own = "the listener that it was trained with"
        if listeners.training_name == EXACT_EVALUATOR:
            own += ", which is the exact law and has no errors to learn"
    else:
        own = (
            f"{listeners.picking_name}, which neither trained nor evaluates it (its networks are "
            "its own, its track rates are counted from the same plays as those of the training's)"
        )
    return (
        "Of each training, the checkpoint with the fewest skips on validation sessions is "
        f"evaluated; there the answers came from {own}."
    )


def _favourites(
    dataset: Dataset, rollouts: Sequence[Rollout]
) -> dict[str, list[tuple[str, float]]]:
    """What each agent recommends most, and its share of all it recommends; titles needed."""
    if not dataset.catalog.has_titles:
        return {}
    heard: dict[str, list[np.ndarray]] = {}
    for rollout in rollouts:
        heard.setdefault(rollout.agent, []).append(rollout.slates[rollout.heard])
    favourites = {}
    for agent, parts in heard.items():
        songs, counts = np.unique(np.concatenate(parts), return_counts=True)
        most = np.argsort(-counts, kind="stable")[:FAVOURITES]
        shares = counts / counts.sum()
        favourites[agent] = [(dataset.catalog.titles[songs[i]], float(shares[i])) for i in most]
    return favourites
