"""Measure what each option of the DDPG agent is worth, over paired trainings.

Each option is taken away from the agent's defaults (or added, if they lack it), and added to the
algorithm as DDPG and LIRD published it. Both sides of a comparison are trained with the same seeds
and evaluated on the same sessions.

An ablation is there to choose settings by, so it is evaluated on validation sessions, and on others
than those that pick the checkpoints. --split test is for a table that decides nothing any more.

Trainings and rollouts are kept one by one: a call that was stopped goes on where it was, and calls
with other --only, --base or --seeds on the same --out add to what is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from musicbox_agents.ddpg.agent import DDPGSettings
from tqdm import tqdm

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import require_listener
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.compare.ablation import AGENT, BASES, Base, Pair, effects, pairs, sides_of
from musicbox_experiments.compare.ablation_report import write_ablation
from musicbox_experiments.compare.evaluation import Evaluation, evaluated
from musicbox_experiments.data.sampling import draw_sessions, picking_sessions
from musicbox_experiments.data.sources import Source, without_home
from musicbox_experiments.evaluate.metrics import CatalogStats, Rollout
from musicbox_experiments.train.claims import claim
from musicbox_experiments.train.departures import departures
from musicbox_experiments.train.jobs import (
    VALIDATION_SESSIONS,
    TrainingJob,
    jobs_for,
    seconds,
    train_all,
    trained,
)
from musicbox_experiments.train.simulators import AUTO, choose_listeners
from musicbox_experiments.train.variants import parse_settings


@dataclass(frozen=True)
class AblateConfig:
    """Options of `musicbox ablate`."""

    source: Source = field(default_factory=Source)
    only: tuple[str, ...] = ()
    """Options to measure, by name or by number on the page of the agent; none named means all."""
    base: tuple[Base, ...] = tuple(BASES)
    """Around what: the agent's defaults, the published algorithm, or both."""
    seeds: int = 10
    """Trainings of each agent, with seeds 0, 1, ..."""
    train_steps: int = 4_000
    """Slates that each recommends while it learns (environment steps)."""
    listener: str = AUTO
    """Listener to learn with, by name or path; auto is `ground_truth` where the data has one, else
    one that is learned on fold A; then a second fit on fold A picks the checkpoints."""
    evaluator: str = AUTO
    """Listener that evaluates; auto is `ground_truth` where the data has one, else one that is
    learned on fold B."""
    split: Literal["validation", "test"] = "validation"
    """Sessions to evaluate on. Settings chosen after a look at test sessions are chosen for "
    "them."""
    evaluation_sessions: int = 3_000
    """Most sessions to evaluate on."""
    agent_settings: tuple[str, ...] = ()
    """Settings to have in place of the agent's defaults, as ddpg.NAME=VALUE: what is then measured
    is what the options are worth around these."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What to learn; evaluated are skip rate and effective catalog size."""
    out: Path = Path("runs/ablate")
    """Where everything is written."""
    workers: int = 0
    """Trainings at once; 0 is one for each core."""
    seed: int = 0
    """Of the evaluation: which sessions, and the evaluator's random numbers."""
    overwrite: bool = False
    """Start anew if --out holds another run."""

    def __post_init__(self) -> None:
        names = [option.name for option in departures()]
        numbers = [str(option.number) for option in departures()]
        for name in self.only:
            if name not in numbers:
                require_known("option", name, names)
        for listener in (self.listener, self.evaluator):
            if listener != AUTO:
                require_listener(listener)
        for option in ("seeds", "train_steps", "evaluation_sessions"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}; it must be 1 or more.")
        for label in parse_settings(self.agent_settings):
            require_known("agent to ablate", label, [AGENT])
        DDPGSettings.from_mapping(self.settings)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What stands in place of the agent's defaults."""
        return parse_settings(self.agent_settings).get(AGENT, {})


def run(config: AblateConfig) -> None:
    """Train, evaluator, and write the table."""
    amounts = ("only", "base", "seeds", "workers", "overwrite")
    claim(config.out, config, incidental=amounts, overwrite=config.overwrite)
    data = config.source.resolve(config.out)
    dataset = open_dataset(data)
    asked = _asked(config, dataset)
    evaluators = () if config.evaluator == AUTO else (config.evaluator,)
    listeners = choose_listeners(config.listener, evaluators, data, config.out)
    # The first evaluator is the main one; that of the training comes last.
    evaluator, listener = next(iter(listeners.evaluators.items()))
    options = {
        "data": data,
        "reward": asdict(config.reward),
        "split": "train",
    }
    picking = _picking(dataset, config.split)
    settings = sides_of(asked)
    jobs = jobs_for(
        list(settings),
        config.seeds,
        settings=settings,
        options=options,
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
        but=picking_sessions(dataset, picking),
    )
    evaluation = Evaluation(
        evaluator,
        listener,
        {**options, "split": config.split},
        sessions,
        config.out / "rollouts",
        config.seed,
    )
    workers = config.workers or os.cpu_count() or 1
    train_all(jobs, workers=workers, then=partial(_evaluate_one, by=evaluation))
    rollouts = _evaluator(jobs, evaluation)
    found = effects(asked, rollouts, CatalogStats.of(dataset), seed=config.seed)
    about = {
        "command": without_home("musicbox ablate " + " ".join(sys.argv[2:])),
        "evaluator": evaluator,
        "trained_with": listeners.training_name,
        "picked_by": listeners.picking_name,
        "split": config.split,
        "sessions": len(sessions),
        "seeds": config.seeds,
        "train_steps": config.train_steps,
        "agent_settings": config.settings,
        "seconds": _seconds(jobs),
        "dataset": dataset.about,
    }
    print(write_ablation(config.out, found, about))
    print(f"\nAs a page: {config.out / 'ablate.md'}; records: {config.out / 'ablate.json'}")


def _asked(config: AblateConfig, dataset: Dataset) -> list[Pair]:
    """The comparisons that the options name."""
    given = config.settings
    default = DDPGSettings.from_mapping(given)
    every = pairs(departures(default, embedding=dataset.best_embedding), given)
    return [
        pair
        for pair in every
        if pair.base in config.base
        and (
            not config.only
            or pair.departure.name in config.only
            or str(pair.departure.number) in config.only
        )
    ]


def _picking(dataset: Dataset, split: str) -> int:
    """How many validation sessions pick checkpoints: at most half, if the rest evaluates."""
    there = len(picking_sessions(dataset, 2 * VALIDATION_SESSIONS))
    return VALIDATION_SESSIONS if split == "test" else min(VALIDATION_SESSIONS, there // 2)


def _evaluate_one(job: TrainingJob, by: Evaluation) -> None:
    evaluated(trained(job), job, by)


def _evaluator(jobs: Sequence[TrainingJob], by: Evaluation) -> dict[str, list[Rollout]]:
    """Rollouts of every agent, its seeds in order."""
    found: dict[str, list[Rollout]] = {}
    for job in tqdm(jobs, unit="training", desc="evaluation"):
        found.setdefault(job.agent, []).append(evaluated(trained(job), job, by))
    return found


def _seconds(jobs: Sequence[TrainingJob]) -> Mapping[str, float]:
    """Mean wall time of a training of each agent."""
    times: dict[str, list[float]] = {}
    for job in jobs:
        times.setdefault(job.agent, []).append(seconds(job))
    return {label: round(sum(of) / len(of), 1) for label, of in times.items()}
