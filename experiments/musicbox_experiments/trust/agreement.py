"""Do listeners, as evaluators, rank the same agents alike, and what of a gain is lost between them.

The agents are those of a run of `musicbox compare`, or baselines that need no training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from musicbox_agents import Agent, load_agent, make_agent

from musicbox_env.data.dataset import Dataset
from musicbox_experiments.compare.evaluation import RERANKED
from musicbox_experiments.evaluate.metrics import PerSession, Rollout, skip_rate
from musicbox_experiments.evaluate.resampling import Measured, ratio
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.train.variants import class_of
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.context import Context, ListenerUnderTest

AGREEMENT: Final = "agreement"
BASELINES: Final = ("random", "popularity", "content", "best-rate", "played-rate")
"""Agents that need no training: rolled out where no run is given."""
REFERENCE: Final = "logged"


@dataclass(frozen=True)
class Evaluated:
    """Skips of each agent at each evaluator, on the same sessions.

    Attributes:
        skips: For each evaluator and agent the skips, the seeds of an agent together.
        num_sessions: Sessions evaluated.
        trained_with: Evaluator that the agents were trained with, if they were.
    """

    skips: Mapping[str, Mapping[str, PerSession]]
    num_sessions: int
    trained_with: str | None = None


def evaluate_baselines(
    context: Context, listeners: Sequence[ListenerUnderTest], *, sessions: int
) -> Evaluated:
    """Roll out the agents that need no training with every listener."""
    chosen = context.log.sessions[:sessions]
    options = {"data": str(context.dataset.folder), "split": "test"}
    agents = [make_agent(name, context.dataset, seed=context.seed) for name in BASELINES]
    skips = {
        tested.name: {
            agent.name: skip_rate(
                roll_out(agent, options, chosen, listener=tested.spec, seed=context.seed)
            )
            for agent in agents
        }
        for tested in listeners
    }
    return Evaluated(skips, len(chosen))


def evaluated_in_run(run: Path) -> Evaluated:
    """The rollouts of a run of `musicbox compare`.

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
    sessions = rollouts[0].sessions
    if any(not np.array_equal(r.sessions, sessions) for r in rollouts):
        raise ValueError(f"The rollouts of {run} are over different sessions; start it anew.")
    skips: dict[str, dict[str, PerSession]] = {}
    for rollout in rollouts:
        agents, found = skips.setdefault(rollout.evaluator, {}), skip_rate(rollout)
        if rollout.agent in agents:
            before = agents[rollout.agent]
            found = PerSession(
                before.numerator + found.numerator, before.denominator + found.denominator
            )
        agents[rollout.agent] = found
    return Evaluated(skips, len(sessions), _listener_of(run))


def _listener_of(run: Path) -> str | None:
    """Name of the listener that a run's agents were trained with: of a fitted one, its file's."""
    for file in sorted((run / "agents").glob("*/seed-*/training.json")):
        return Path(json.loads(file.read_text())["options"]["listener"]).stem
    return None


def trained_agents(run: Path, dataset: Dataset) -> dict[str, Agent]:
    """The agents of a run that learned by their labels, first seed, best checkpoint."""
    folders = {folder.parent.name: folder for folder in (run / "agents").glob("*/seed-0")}
    return {
        label: load_agent(folders[label] / "best", dataset)
        for label in sorted(folders)
        if class_of(label).learns
    }


def measure_agreement(context: Context, evaluated: Evaluated) -> None:
    """Skip rate of each agent at each evaluator, and Kendall's tau between their rankings.

    With agents trained on one of the evaluators, ``gain_lost[agent]`` is how much of the gain over
    the logged order, in skip rate, is gone at another one.
    """
    rates: dict[str, dict[str, Measured]] = {}
    for evaluator, agents in evaluated.skips.items():
        rates[evaluator] = {
            agent: context.add(
                evaluator,
                AGREEMENT,
                f"skip_rate[{agent}]",
                ratio(skips.numerator, skips.denominator),
            )
            for agent, skips in agents.items()
        }
    home = rates.get(evaluated.trained_with or "", {})
    for evaluator, figures in rates.items():
        for other, theirs in rates.items():
            both = [agent for agent in figures if agent in theirs]
            if other != evaluator and len(both) > 1:
                tau = metrics.ranking_agreement(
                    [figures[a] for a in both], [theirs[a] for a in both]
                )
                context.add(evaluator, AGREEMENT, f"tau[{other}]", tau, 1.0)
        if evaluator == evaluated.trained_with or REFERENCE not in figures.keys() & home.keys():
            continue
        for agent in figures:
            if agent in home and agent != REFERENCE:
                at_home = home[agent].minus(home[REFERENCE])
                lost = figures[agent].minus(figures[REFERENCE]).minus(at_home)
                context.add(evaluator, AGREEMENT, f"gain_lost[{agent}]", lost, 0.0)
