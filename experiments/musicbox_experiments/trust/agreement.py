"""Do listeners, as evaluators, rank the same agents alike.

The agents are those of a run of `musicbox compare`, or baselines that need no training.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Final

import numpy as np
from musicbox_agents import Agent, load_agent, make_agent

from musicbox_env.data.dataset import Dataset
from musicbox_experiments.compare.evaluation import RERANKED
from musicbox_experiments.evaluate.metrics import PerSession, Rollout, skip_rate
from musicbox_experiments.evaluate.resampling import ratio
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.train.variants import class_of
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.context import Context, ListenerUnderTest

AGREEMENT: Final = "agreement"
BASELINES: Final = ("random", "popularity", "content", "best-rate", "played-rate")
"""Agents that need no training: rolled out where no run is given."""


Skips = Mapping[str, Mapping[str, PerSession]]
"""For each evaluator and agent the skips of the same sessions, the seeds of an agent together."""


def evaluate_baselines(
    context: Context, listeners: Sequence[ListenerUnderTest], *, sessions: int
) -> Skips:
    """Roll out the agents that need no training with every listener."""
    chosen = context.log.sessions[:sessions]
    options = {"data": str(context.dataset.folder), "split": "test"}
    agents = [make_agent(name, context.dataset, seed=context.seed) for name in BASELINES]
    return {
        tested.name: {
            agent.name: skip_rate(
                roll_out(agent, options, chosen, listener=tested.spec, seed=context.seed)
            )
            for agent in agents
        }
        for tested in listeners
    }


def evaluated_in_run(run: Path) -> Skips:
    """Skips in the rollouts of a run of `musicbox compare`.

    Raises:
        FileNotFoundError: The folder holds no finished run.
        ValueError: Its rollouts are over different sessions.
    """
    files = sorted((run / "rollouts").glob("*.npz"))
    rollouts = [Rollout.load(file) for file in files if not file.name.startswith(RERANKED)]
    if not rollouts:
        raise FileNotFoundError(
            f"{run} holds no rollouts; pass a folder made by `musicbox compare`."
        )
    if any(not np.array_equal(r.sessions, rollouts[0].sessions) for r in rollouts):
        raise ValueError(f"The rollouts of {run} are over different sessions; start it anew.")
    skips: dict[str, dict[str, PerSession]] = {}
    for rollout in rollouts:
        agents, found = skips.setdefault(rollout.evaluator, {}), skip_rate(rollout)
        if before := agents.get(rollout.agent):
            found = PerSession(
                before.numerator + found.numerator, before.denominator + found.denominator
            )
        agents[rollout.agent] = found
    return skips


def trained_agents(run: Path, dataset: Dataset) -> dict[str, Agent]:
    """The agents of a run that learned by their labels, first seed, best checkpoint."""
    folders = {folder.parent.name: folder for folder in (run / "agents").glob("*/seed-0")}
    return {
        label: load_agent(folders[label] / "best", dataset)
        for label in sorted(folders)
        if class_of(label).learns
    }


def measure_agreement(context: Context, skips: Skips) -> None:
    """Skip rate of each agent at each evaluator, and Kendall's tau between their rankings."""
    rates = {
        evaluator: {
            agent: context.add(
                evaluator, AGREEMENT, f"skip_rate[{agent}]", ratio(of.numerator, of.denominator)
            )
            for agent, of in agents.items()
        }
        for evaluator, agents in skips.items()
    }
    for evaluator, other in permutations(rates, 2):
        ours, theirs = rates[evaluator], rates[other]
        both = [agent for agent in ours if agent in theirs]
        if len(both) > 1:
            tau = metrics.ranking_agreement([ours[a] for a in both], [theirs[a] for a in both])
            context.add(evaluator, AGREEMENT, f"tau[{other}]", tau, 1.0)
