"""The plain data of a comparison, from which `summary` and `report` make figures and pages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from musicbox_experiments.compare.plots import Curve
from musicbox_experiments.evaluate.metrics import CatalogStats, PerSession, Rollout

EXACT_EVALUATOR = "ground_truth"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was compared.

    Attributes:
        rollouts: One for each evaluator, agent and seed. All rollouts of an evaluator are over the
            same sessions in the same order: comparisons are paired.
        world: The catalog, as far as metrics need it.
        config: The configuration of the comparison.
        dataset: ``Dataset.about``.
        title: Headline of the page.
        command: Command line that reproduces the comparison.
        trained_with: Name of the evaluator that is the very listener the agents were trained with,
            if it is among the evaluators: the report then shows what remains at the others.
        reference: Agent that every other one is compared with; present at every evaluator.
        against: Agent that a table of its own sets against every other; None is ``ddpg``, or the
            best of those that learned.
        bounds: Agents that are upper bounds and no competitors.
        reranking: For each agent and seed the result of `metrics.reranking`.
        curves: For each trained agent and seed its points (steps, validation skip rate). An agent
            named here counts as one that learned.
        first_figures: For each agent the result of `metrics.first_musicbox_figures`.
        descriptions: A line for each agent and each evaluator, by name.
        favourites: Songs that each agent recommends most, with their shares of its
            recommendations; none where songs have no titles.
        notes: Further remarks for the reader.
        sources: Names of the test folds and directions that are pooled, in the order of the
            numbers in `Rollout.source`; none where there is one.
        fitted_on: The option ``--fit-on`` where learned listeners evaluate; else empty.
        gains_known: What gains at such evaluators were worth where the truth is known; see
            `known_gains.gains_known`.
        order: What the order of songs is worth where they wear out; see `order.worth_of_order`.
    """

    rollouts: Sequence[Rollout]
    world: CatalogStats
    config: Mapping[str, Any]
    dataset: Mapping[str, Any]
    title: str = "MusicBox: agents compared"
    command: str = ""
    trained_with: str | None = None
    reference: str = "logged"
    against: str | None = None
    bounds: Sequence[str] = ("skyline",)
    reranking: Mapping[str, Mapping[int, PerSession]] = field(default_factory=dict)
    curves: Mapping[str, Mapping[int, Curve]] = field(default_factory=dict)
    first_figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    favourites: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sources: Sequence[str] = ()
    fitted_on: str = ""
    gains_known: Mapping[str, Any] | None = None
    order: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rollouts:
            raise ValueError("A report needs rollouts, and there are none.")
        for evaluator in self.evaluators:
            self._check_evaluator(evaluator)

    def _check_evaluator(self, evaluator: str) -> None:
        rollouts = [r for r in self.rollouts if r.evaluator == evaluator]
        (key, most), *_ = Counter((r.agent, r.seed) for r in rollouts).most_common(1)
        if most > 1:
            raise ValueError(
                f"Evaluator {evaluator!r} has {most} rollouts of agent {key[0]!r} with seed "
                f"{key[1]}; give each once."
            )
        agents = sorted({r.agent for r in rollouts})
        if self.reference not in agents:
            raise ValueError(
                f"Evaluator {evaluator!r} has no rollout of the reference {self.reference!r}; it "
                f"has {agents}. Add it or name another reference."
            )
        first = rollouts[0]
        for other in rollouts[1:]:
            if not np.array_equal(first.sessions, other.sessions):
                raise ValueError(
                    f"At evaluator {evaluator!r}, {first.agent!r} and {other.agent!r} were "
                    "evaluated on different sessions; comparisons are paired, so roll all agents "
                    "out on the same sessions in the same order."
                )

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Evaluators as they come, the first is the main one.

        The listener trained with comes last, since an agent may have learned its errors; not so
        the exact law of synthetic data, which has none.
        """
        names = dict.fromkeys(r.evaluator for r in self.rollouts)
        learned_on = self.trained_with if self.trained_with != EXACT_EVALUATOR else None
        return tuple(sorted(names, key=lambda name: name == learned_on))

    @property
    def agents(self) -> tuple[str, ...]:
        """Agents as they come."""
        return tuple(dict.fromkeys(r.agent for r in self.rollouts))

    def at(self, evaluator: str) -> dict[str, dict[int, Rollout]]:
        """Rollouts of an evaluator by agent and seed, seeds ascending."""
        found: dict[str, dict[int, Rollout]] = {}
        for rollout in sorted(self.rollouts, key=lambda r: r.seed):
            if rollout.evaluator == evaluator:
                found.setdefault(rollout.agent, {})[rollout.seed] = rollout
        return {agent: found[agent] for agent in self.agents if agent in found}
