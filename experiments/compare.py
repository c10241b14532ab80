"""Train agents, judge them on sessions they never saw, and write a report.

Without --data or --sessions it compares on the bundled synthetic sessions. A run that was
interrupted goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents import AGENTS, agent_class
from experiments.enough import cautions
from experiments.evaluation import draw_sessions
from experiments.judges import AUTO, Listeners, choose_listeners
from experiments.judging import judge_all
from experiments.metrics import PerSession, Rollout, World, first_musicbox_figures
from experiments.report import Study, text_table, write_report
from experiments.sources import Source, without_home
from experiments.training import TrainingJob, curve, jobs_for, parse_settings, train_all
from musicbox_env.dataset import UNFINISHED, Dataset, write_json
from musicbox_env.listeners import LISTENERS, require_listener
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import require_known
from musicbox_env.simulator import open_dataset

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
BOUNDS = ("skyline", "bayes")
"""They know what no recommender can: the judge's own probabilities, or the law behind the data."""
FAVOURITES = 5


@dataclass(frozen=True)
class CompareConfig:
    """Options of `musicbox compare`."""

    source: Source = field(default_factory=Source)
    agents: tuple[str, ...] = DEFAULT_AGENTS
    """Agents to compare. `logged` is what was playing, `skyline` an upper bound: it knows the
    judge's own probabilities."""
    seeds: int = 3
    """Trainings of each agent that learns. Three show whether something works; ten are needed to
    claim a difference."""
    train_steps: int = 4_000
    """Slates that each agent recommends while it learns (environment steps)."""
    listener: str = AUTO
    """Listener to learn with, by name or path; auto is `ground_truth` where the data has one, else
    `learned`. A learned one is fitted on fold A, and another on fold B to judge."""
    judge: tuple[str, ...] = ()
    """Listeners that judge, by name or path; by default the exact law where there is one, learned
    ones if agents learn with one, and `replay`."""
    test_sessions: int = 3_000
    """Most test sessions to judge on; drawn once, the same for all agents."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What to learn; judged is always the skip rate."""
    agent_settings: tuple[str, ...] = ()
    """Settings of agents as AGENT.NAME=VALUE, for example ddpg.gamma=0.5."""
    out: Path = Path("runs/compare")
    """Where everything is written."""
    workers: int = 0
    """Trainings at once; 0 is one for each core."""
    seed: int = 0
    """Of the judging: which sessions, and the judge's random numbers."""
    overwrite: bool = False
    """Start anew if --out holds another run."""

    def __post_init__(self) -> None:
        for name in self.agents:
            require_known("agent", name, AGENTS)
        for name in (*self.judge, *(() if self.listener == AUTO else (self.listener,))):
            require_listener(name)
        for option in ("seeds", "train_steps", "test_sessions"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}; it must be 1 or more.")
        if "logged" not in self.agents:
            raise ValueError(
                "--agents must name `logged`: what was playing is what every other agent is "
                "compared with."
            )
        parse_settings(self.agent_settings)


def run(config: CompareConfig) -> None:
    """Train, judge, report."""
    _claim(config)
    data = config.source.resolve(config.out)
    listeners = choose_listeners(config.listener, config.judge, data, config.out)
    options = {"data": data, "listener": listeners.training, "reward": asdict(config.reward)}
    jobs = jobs_for(
        config.agents,
        config.seeds,
        settings=parse_settings(config.agent_settings),
        options={**options, "split": "train"},
        steps=config.train_steps,
        out=config.out,
    )
    train_all(jobs, workers=config.workers or os.cpu_count() or 1)
    sessions = draw_sessions(open_dataset(data), "test", config.test_sessions, config.seed)
    rollouts, reranking = judge_all(
        jobs, {**options, "split": "test"}, listeners.judges, sessions, config.out, config.seed
    )
    study = _study(config, open_dataset(data), listeners, jobs, rollouts, reranking)
    summary = write_report(config.out, study)
    print(text_table(summary))
    print("", *summary["headline"], *summary["notes"], sep="\n")
    print(f"\nReport: {config.out / 'report.html'}")


def _claim(config: CompareConfig) -> None:
    """Make the output folder this run's own; refuse one that holds a run with other options."""
    file = config.out / "config.json"
    asked = _as_json(config)
    for incidental in ("overwrite", "workers"):
        asked.pop(incidental)
    if config.overwrite and config.out.exists():
        shutil.rmtree(config.out)
    if file.is_file():
        found = json.loads(file.read_text())
        if found != asked and _has_work_in(config.out):
            other = [name for name in asked if found.get(name) != asked[name]]
            raise FileExistsError(
                f"{config.out} holds a run with other options ({', '.join(other)}). Name another "
                "folder with --out, or pass --overwrite to start anew."
            )
        if found == asked:
            print(f"Going on with the run in {config.out} (--overwrite starts anew).")
            return
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)


def _has_work_in(out: Path) -> bool:
    """Whether a run got further than to find that its data cannot be read."""
    before = {"config.json", "dataset" + UNFINISHED}
    return any(entry.name not in before for entry in out.iterdir())


def _as_json(config: CompareConfig) -> dict[str, Any]:
    """The options as they are stored."""
    asked: dict[str, Any] = json.loads(without_home(json.dumps(asdict(config), default=str)))
    return asked


def _study(
    config: CompareConfig,
    dataset: Dataset,
    listeners: Listeners,
    jobs: Sequence[TrainingJob],
    rollouts: Sequence[Rollout],
    reranking: Mapping[str, Mapping[int, PerSession]],
) -> Study:
    world = World.of(dataset)
    curves: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for job in jobs:
        if points := curve(job):
            curves.setdefault(job.agent, {})[job.seed] = points
    replayed = [r for r in rollouts if r.judge == "replay"]
    return Study(
        rollouts=rollouts,
        world=world,
        config=_as_json(config),
        dataset=dataset.about,
        title="MusicBox: agents compared",
        command=without_home("musicbox compare " + " ".join(sys.argv[2:])),
        trained_with=listeners.training_name,
        reranking=reranking,
        curves=curves,
        bounds=BOUNDS,
        descriptions=_descriptions(config.agents, rollouts),
        first_figures=_first_figures(replayed, world, dataset),
        favourites=_favourites(dataset, rollouts),
        notes=_notes(dataset),
    )


def _descriptions(agents: Sequence[str], rollouts: Sequence[Rollout]) -> dict[str, str]:
    """A line for each agent and judge: the first of its class's docstring."""
    classes: dict[str, Any] = {name: agent_class(name) for name in agents}
    for judge in {r.judge for r in rollouts}:
        if (kind := judge.partition("-")[0]) in LISTENERS:
            classes[judge] = LISTENERS[kind]
    return {name: (cls.__doc__ or "").strip().partition("\n")[0] for name, cls in classes.items()}


def _first_figures(
    rollouts: Sequence[Rollout], world: World, dataset: Dataset
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


def _notes(dataset: Dataset) -> list[str]:
    """What a reader of this very run must know."""
    notes = cautions(dataset)
    if dataset.about.get("synthetic"):
        notes.append(
            "The sessions are synthetic: they look like the published figures of real ones, but "
            "what a better choice of songs is worth in them is the generator's assumption."
        )
    return notes


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


if __name__ == "__main__":
    from experiments.cli import run_command

    run_command("compare", sys.argv[1:])
