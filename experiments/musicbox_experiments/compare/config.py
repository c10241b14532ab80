"""Options of `musicbox compare`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from musicbox_agents.base import require_ranges

from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import require_known
from musicbox_experiments.cluster.tasks import require_address
from musicbox_experiments.compare.presets import PRESETS
from musicbox_experiments.data.sources import Source
from musicbox_experiments.train.simulators import AUTO, require_choice
from musicbox_experiments.train.variants import (
    MOST_SEEDS,
    parse_settings,
    require_label,
    require_used,
)

DEFAULT_AGENTS = (
    *("random", "popularity", "logged", "content", "best-rate", "played-rate"),
    *("ddpg", "sb3-ddpg", "skyline"),
)


@dataclass(frozen=True)
class CompareConfig:
    """Options of `musicbox compare`."""

    source: Source = field(default_factory=Source)
    preset: str | None = None
    """A named experiment, that is options which belong together: paper, high-taste, real (your own
    sessions, named by --sessions or --data), transfer, first, ablation, frontier, order or
    order-late (songs wear out, and their order matters). Each option can be overridden; `--preset
    NAME --help` shows what a preset sets."""
    agents: tuple[str, ...] = DEFAULT_AGENTS
    """Agents to compare, and labels of variants: sb3-ddpg+tuned is a documented one, ddpg+mine has
    the --agent-settings that you give it, and ddpg@rerank=30 acts otherwise with the trainings of
    ddpg. `logged` is the logged policy, `skyline` an upper bound: the oracle, greedy on the
    evaluator's own probabilities (of all songs at the exact law, of a shortlist at `replay`).
    `planner` is the oracle that looks ahead, where songs wear out."""
    seeds: int = 3
    """Trainings of each agent that learns. Three show whether something works; ten are needed to
    claim a difference."""
    train_steps: int = 4_000
    """Slates that each agent recommends while it learns (environment steps)."""
    horizon: int | None = None
    """Songs of a session, while learning, picking checkpoints and evaluating; by default as many as
    the log had left."""
    train_horizon: int | None = None
    """Songs of a session while learning, where these are others."""
    listener: str = AUTO
    """Listener to learn with, by name or path; auto is `ground_truth` where the data has one, else
    `learned`. A learned one is fitted on the part of training that the agents see, and a second fit
    picks the checkpoints, on validation sessions. Where agents learn with `ground_truth`, or with a
    listener that you name, the same one picks. A mode of the similarity listener can be named too:
    similarity-grouped_cosine."""
    listener_sessions: int = 50_000
    """Most training sessions that the networks of learned listeners are fitted on; what they know
    of songs is counted on all that they may see."""
    evaluator: tuple[str, ...] = ()
    """Listeners that evaluate, by name or path; by default the exact law where there is one,
    learned ones if agents learn with one, and `replay`. `learned` and `pessimistic` are fitted on
    the part of training that the agents do not see."""
    fit_on: Literal["folds", "all", "shared"] = "folds"
    """What agents see of training. folds: where a learned listener evaluates, one half, and the
    evaluator the other: they share no play. all: everything, to be used afterwards; then real
    labels and `replay` evaluate alone. shared: everything although a learned listener evaluates,
    to measure how much too good its figures then are."""
    both_directions: bool = False
    """Where training is divided, train and evaluate a second time with the halves exchanged, and
    pool the figures."""
    test_folds: int = 1
    """Compare on so many disjoint test splits of the logs that --sessions names, and pool the
    figures; with 5 each session is a test session once."""
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
    ddpg+mine.gamma=0.5 and `--agents logged ddpg ddpg+mine` both stand side by side. They are
    added to those of --preset, and go before them."""
    out: Path = Path("runs/compare")
    """Where everything is written. More agents, settings or seeds on the folder of an earlier run
    add to its trainings."""
    workers: int = 0
    """Trainings at once; 0 is one for each core."""
    cluster: str | None = None
    """Run trainings on Ray: auto, local, or the address of a cluster, HOST:PORT or
    ray://HOST:PORT; by default in processes of this machine."""
    evaluation_seed: int = 0
    """Which sessions are evaluated, and the evaluator's random numbers. How many trainings there
    are, with seeds 0, 1, ..., is --seeds."""
    overwrite: bool = False
    """Start anew if --out holds another run."""

    def __post_init__(self) -> None:
        if self.preset is not None:
            require_known("preset", self.preset, PRESETS)
        of_preset = PRESETS[self.preset].options.get("agent_settings", ()) if self.preset else ()
        own = tuple(setting for setting in self.agent_settings if setting not in of_preset)
        # Later ones win.
        object.__setattr__(self, "agent_settings", (*of_preset, *own))
        given = parse_settings(self.agent_settings)
        for label in self.agents:
            require_label(label, given)
        for name in (self.listener, *self.evaluator):
            require_choice(name)
        sizes = ("seeds", "train_steps", "evaluation_sessions", "test_folds", "listener_sessions")
        at_least = {**dict.fromkeys(sizes, 1), "workers": 0, "evaluation_seed": 0}
        ranges = {name: (least, np.inf) for name, least in at_least.items()}
        require_ranges(self, {**ranges, "seeds": (1, MOST_SEEDS)})
        require_address(self.cluster)
        require_used(parse_settings(own), self.agents, "--agents")
        if self.test_folds > 1 and not self.source.sessions:
            raise ValueError(
                f"--test-folds {self.test_folds} divides raw logs anew; name them by --sessions. A "
                "dataset folder and the synthetic sessions keep the split they were made with."
            )
        if twice := [label for label in dict.fromkeys(self.agents) if self.agents.count(label) > 1]:
            raise ValueError(f"--agents names {', '.join(twice)} twice; name each once.")
        if "logged" not in self.agents:
            raise ValueError(
                "--agents must name `logged`: every other agent is compared with the logged policy."
            )
        if self.against is not None:
            require_known("agent of this comparison", self.against, self.agents)
