"""Train one agent over seeds, for `musicbox evaluate` and `musicbox recommend`."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from musicbox_agents.base import require_ranges

from musicbox_env.data.dataset import WHOLE
from musicbox_env.ingest.training_parts import PARTS, open_part
from musicbox_env.locks import held
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.cluster.tasks import Where, require_address
from musicbox_experiments.data.sources import Source
from musicbox_experiments.text import say
from musicbox_experiments.train.folder import require_data
from musicbox_experiments.train.jobs import (
    TrainingJob,
    curve,
    jobs_for,
    seconds,
    train_all,
    untrained,
)
from musicbox_experiments.train.simulators import (
    AUTO,
    Direction,
    choose_listeners,
    fit_missing,
    require_choice,
    require_possible,
)
from musicbox_experiments.train.variants import (
    MOST_SEEDS,
    class_of,
    parse_settings,
    require_label,
    require_used,
)


@dataclass(frozen=True)
class TrainConfig:
    """Options of `musicbox train`."""

    source: Source = field(default_factory=Source)
    agent: str = "ddpg"
    """Which agent, or variant of one."""
    seeds: int = 1
    """How many trainings, with seeds 0, 1, ..."""
    train_steps: int = 4_000
    """Slates that each recommends while it learns (environment steps). Agents that play sessions in
    parallel finish the round that they are in: ddpg, with 64 sessions, makes about 376 slates of
    320, since sessions that have just ended sit out a round."""
    listener: str = AUTO
    """Listener to learn with, by name or path; auto is `ground_truth` where the data has one, else
    one that is learned on the same sessions; then a second fit on them picks the checkpoint, on
    validation sessions."""
    split: str = WHOLE
    """Part of the training sessions that the agent and its listeners see: train is all of them,
    train_a and train_b are halves that share no play, so that a listener of the other half can
    evaluate."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What to learn."""
    agent_settings: tuple[str, ...] = ()
    """Settings of the agent as AGENT.NAME=VALUE, for example ddpg.gamma=0.5."""
    out: Path = Path("runs/train")
    """Where everything is written; finished trainings there are kept."""
    workers: int = 0
    """Trainings at once; 0 is one for each core."""
    cluster: str | None = None
    """Run trainings on Ray; see `musicbox compare --help`."""

    def __post_init__(self) -> None:
        given = parse_settings(self.agent_settings)
        require_label(self.agent, given)
        require_used(given, [self.agent], "--agent")
        require_choice(self.listener)
        require_known("part of the training sessions", self.split, (WHOLE, *PARTS))
        sizes = {"seeds": (1, MOST_SEEDS), "train_steps": (1, math.inf)}
        require_ranges(self, {**sizes, "workers": (0, math.inf)})
        require_address(self.cluster)


def run(config: TrainConfig) -> None:
    """Train what is not trained yet, and say how well it went."""
    for job in train(config):
        points = curve(job)
        best = f"best validation skip rate {min(v for _, v in points):.3f}, " if points else ""
        say(f"{job.agent} seed {job.seed}: {best}{seconds(job):.0f} s, {job.folder}")


def train(config: TrainConfig) -> list[TrainingJob]:
    """Train what is not trained yet; gives the trainings, all finished."""
    with held(config.out):
        return _train(config)


def _train(config: TrainConfig) -> list[TrainingJob]:
    jobs = planned(config)
    say(*untrained(jobs), to_errors=True)
    train_all(jobs, where_of(config))
    return jobs


def where_of(config: TrainConfig) -> Where:
    """Where its trainings run."""
    return Where(config.workers, config.cluster, config.out)


def planned(config: TrainConfig) -> list[TrainingJob]:
    """The trainings, a seed each; their data and listeners are made."""
    data = config.source.resolve(config.out)
    dataset = open_part(open_dataset(data), config.split)
    if dataset.part != WHOLE:
        data = str(dataset.folder.resolve())
    require_possible((config.listener,), dataset, (config.agent,))
    require_data(config.out, dataset)
    direction = Direction(config.split, config.split)
    agent = class_of(config.agent)
    asks = agent.learns and not agent.offline  # else no listener would be queried
    listener = config.listener if asks else "replay"
    fit_missing(listener, [(dataset, config.out, direction)], where_of(config))
    listeners = choose_listeners(listener, (), dataset, config.out, direction)
    return jobs_for(
        [config.agent],
        config.seeds,
        settings=parse_settings(config.agent_settings),
        options={
            "data": data,
            "split": WHOLE,
            "candidates": "catalog",
            "reward": asdict(config.reward),
        },
        steps=config.train_steps,
        out=config.out,
        listeners=listeners,
        dataset=dataset.identity,
    )
