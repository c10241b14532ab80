"""Train agents, evaluate them on sessions they never saw, and write a report.

Without --data or --sessions it compares on the bundled synthetic sessions. A run that was
interrupted goes on where it stopped when the same command is given again.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from musicbox_agents.base import require_ranges

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LISTENERS
from musicbox_env.locks import held
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.compare.evaluation import Evaluation, evaluate_all, evaluate_one
from musicbox_experiments.compare.presets import (
    PRESETS,
    options_of,
    preset_in,
    require_sessions,
)
from musicbox_experiments.compare.report import write_report
from musicbox_experiments.compare.study import EXACT_EVALUATOR, Study
from musicbox_experiments.compare.tables import text_first, text_table
from musicbox_experiments.data.enough import cautions
from musicbox_experiments.data.sampling import draw_sessions, picking_sessions
from musicbox_experiments.data.sources import Source, without_home
from musicbox_experiments.evaluate.first_musicbox import first_musicbox_figures
from musicbox_experiments.evaluate.metrics import CatalogStats, PerSession, Rollout
from musicbox_experiments.train.folder import as_stored, prepare_folder, require_data
from musicbox_experiments.train.jobs import (
    VALIDATION_SESSIONS,
    TrainingJob,
    curve,
    jobs_for,
    train_all,
)
from musicbox_experiments.train.simulators import AUTO, Listeners, choose_listeners, require_choice
from musicbox_experiments.train.variants import about, parse_settings, require_label

DEFAULT_AGENTS = (
    *("random", "popularity", "logged", "content", "best-rate", "played-rate"),
    *("ddpg", "sb3-ddpg", "skyline"),
)
BOUNDS = ("skyline", "bayes")
"""They know what no recommender can: the evaluator's own probabilities, or the law behind the data.
"""
INCIDENTAL = ("agents", "seeds", "agent_settings", "against", "workers", "overwrite")
"""Options that may change in a run that is there: more agents and seeds add to its trainings."""
FAVOURITES = 5


@dataclass(frozen=True)
class CompareConfig:
    """Options of `musicbox compare`."""

    source: Source = field(default_factory=Source)
    preset: str | None = None
    """A named experiment, that is options which belong together: paper, high-taste, real (your own
    sessions, named by --sessions or --data), transfer, first, ablation or frontier. Each option can
    be overridden; `--preset NAME --help` shows what a preset sets."""
    agents: tuple[str, ...] = DEFAULT_AGENTS
    """Agents to compare, and labels of variants: sb3-ddpg+tuned is a documented one, ddpg+mine has
    the --agent-settings that you give it, and ddpg@rerank=30 acts otherwise with the trainings of
    ddpg. `logged` is the logged policy, `skyline` an upper bound: the oracle, greedy on the
    evaluator's own probabilities (of all songs at the exact law, of a shortlist at `replay`)."""
    seeds: int = 3
    """Trainings of each agent that learns. Three show whether something works; ten are needed to
    claim a difference."""
    train_steps: int = 4_000
    """Slates that each agent recommends while it learns (environment steps). Agents that play
    sessions in parallel finish the round that they are in: ddpg, with 64 sessions, makes about 376
    slates of 320, since sessions that have just ended sit out a round."""
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
    split: Literal["test", "validation"] = "test"
    """Sessions to evaluate on. Choose settings on validation, where the sessions that pick
    checkpoints are left out, and look at test once."""
    evaluation_sessions: int = 3_000
    """Most sessions to evaluate on; drawn once, the same for all agents."""
    against: str | None = None
    """Agent that a table of its own sets against every other: paired differences in skips and in
    effective catalog size. By default ddpg, else the best that learned."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What to learn; evaluated is always the skip rate."""
    agent_settings: tuple[str, ...] = ()
    """Settings of agents as AGENT.NAME=VALUE, for example ddpg.gamma=0.5; with
    ddpg+mine.gamma=0.5 and `--agents logged ddpg ddpg+mine` both stand side by side."""
    out: Path = Path("runs/compare")
    """Where everything is written. More agents, settings or seeds on the folder of an earlier run
    add to its trainings."""
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
            require_known("preset", self.preset, PRESETS)
        for name in (self.listener, *self.evaluator):
            require_choice(name)
        sizes = ("seeds", "train_steps", "evaluation_sessions")
        require_ranges(self, dict.fromkeys(sizes, (1, np.inf)))
        if twice := [label for label in dict.fromkeys(self.agents) if self.agents.count(label) > 1]:
            raise ValueError(f"--agents names {', '.join(twice)} twice; name each once.")
        if "logged" not in self.agents:
            raise ValueError(
                "--agents must name `logged`: every other agent is compared with the logged policy."
            )
        if self.against is not None:
            require_known("agent of this comparison", self.against, self.agents)


def defaults(arguments: Sequence[str]) -> CompareConfig:
    """Options to start from: those of the preset that a command line names."""
    preset = preset_in(arguments)
    return CompareConfig() if preset is None else CompareConfig(**options_of(preset))


def run(config: CompareConfig) -> None:
    """Train, evaluate, report."""
    require_sessions(config.preset, config.source)
    with held(config.out):
        _run(config)


def _run(config: CompareConfig) -> None:
    prepare_folder(config.out, config, incidental=INCIDENTAL, overwrite=config.overwrite)
    data = config.source.resolve(config.out)
    dataset = open_dataset(data)
    require_data(config.out, dataset)
    listeners = choose_listeners(config.listener, config.evaluator, data, config.out)
    options = {"data": data, "reward": asdict(config.reward)}
    picking = _picking_sessions(config, dataset)
    jobs = jobs_for(
        config.agents,
        config.seeds,
        settings=parse_settings(config.agent_settings),
        options={**options, "split": "train", "horizon": config.train_horizon},
        steps=config.train_steps,
        out=config.out,
        listeners=listeners,
        validation_sessions=picking,
    )
    sessions = draw_sessions(
        dataset,
        config.split,
        config.evaluation_sessions,
        config.seed,
        but=picking_sessions(dataset, picking or 0),
    )
    evaluation = Evaluation(
        listeners.evaluators,
        {**options, "split": config.split},
        sessions,
        config.out / "rollouts",
        config.seed,
    )
    workers = config.workers or os.cpu_count() or 1
    train_all(jobs, workers=workers, then=partial(evaluate_one, by=evaluation))
    rollouts, reranking = evaluate_all(jobs, evaluation)
    study = _study(config, dataset, listeners, jobs, rollouts, reranking)
    summary = write_report(config.out, study)
    print(text_table(summary))
    print("", *summary["headline"], *summary["notes"], sep="\n")
    if config.preset == "first" and summary["first_musicbox"]:
        print(f"\n{text_first(summary)}")
    print(f"\nReport: {config.out / 'report.html'}")


def _picking_sessions(config: CompareConfig, dataset: Dataset) -> int | None:
    """How many validation sessions pick checkpoints where others evaluate: at most half."""
    if config.split == "test":
        return None
    there = len(dataset.sessions.playable("validation"))
    return max(min(VALIDATION_SESSIONS, there // 2), 1)


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
    named = "" if config.preset is None else f" (preset {config.preset})"
    return Study(
        rollouts=rollouts,
        world=world,
        config=as_stored(config),
        dataset=dataset.about,
        title=f"MusicBox: agents compared{named}",
        command=without_home("musicbox compare " + " ".join(sys.argv[2:])),
        trained_with=listeners.training_name,
        against=config.against,
        reranking=reranking,
        curves=curves,
        bounds=BOUNDS,
        descriptions=_descriptions(config.agents, listeners),
        first_figures=_first_figures(
            [r for r in rollouts if r.evaluator == "replay"], world, dataset
        ),
        favourites=_favourites(dataset, rollouts),
        notes=_notes(config, dataset, listeners),
    )


def _descriptions(agents: Sequence[str], listeners: Listeners) -> dict[str, str]:
    """A line for each agent and evaluator: what its variant is, or the first of its docstring."""
    lines = {label: about(label) for label in agents}
    for evaluator in listeners.evaluators:
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
    if not len(dataset.sessions.playable("validation")):
        notes[-1] = "No validation session picks checkpoints: the last of each training is used."
    if config.split == "validation":
        notes.append(
            "Evaluated on validation sessions other than those that picked checkpoints: settings "
            "may be chosen by this comparison, and claims need test sessions."
        )
    if config.preset is not None:
        notes.append(
            f"Made with the preset {config.preset}: {PRESETS[config.preset].about}. Options set "
            "otherwise show in the configuration below."
        )
    if dataset.about.get("synthetic"):
        notes.append(
            "The sessions are synthetic: they look like the published figures of real ones, but "
            "what a better choice of songs gains in them is the generator's assumption."
        )
    return notes


def _picking(listeners: Listeners) -> str:
    """Which listener picked the checkpoint of each training."""
    by = f"the listener {listeners.picking_name}"
    if listeners.picking != listeners.training:
        evaluates = listeners.picking in listeners.evaluators.values()
        by += (
            f", which {'does not train' if evaluates else 'neither trains nor evaluates'} agents "
            "(its networks are its own, its track "
            "rates are counted from the same plays as those of the listener trained with)"
        )
    elif listeners.training_name == EXACT_EVALUATOR:
        by += ", the exact law, which has no errors to exploit"
    else:
        by += ", which the agents were trained with"
    return (
        "Of each training, the checkpoint with the fewest skips on validation sessions is "
        f"evaluated. Validation answers came from {by}."
    )


def _favourites(
    dataset: Dataset, rollouts: Sequence[Rollout]
) -> dict[str, list[tuple[str, float]]]:
    """The songs that each agent recommends most, and their shares; none without titles."""
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
