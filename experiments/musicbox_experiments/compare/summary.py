"""The figures of a comparison: every metric of every agent at every evaluator, with its interval.

`Study` is the plain data of a comparison, `summarize` turns it into one mapping that is JSON as it
is: the content of ``summary.json``, and all that the pages and tables of `report` are made from.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, Final

import numpy as np

from musicbox_experiments.compare.plots import Curve
from musicbox_experiments.evaluate.metrics import (
    METRICS,
    CatalogStats,
    Metric,
    PerSession,
    Rollout,
    of_the_set,
    per_session,
)
from musicbox_experiments.evaluate.statistics import (
    Difference,
    Estimate,
    Gain,
    PairedBootstrap,
    gain_share,
    paired_bootstrap,
    paired_change,
    seed_difference,
    seed_estimate,
)

FORMAT_VERSION: Final = 1
CONFIDENCE: Final = 0.95
_PACKAGES: Final = (
    "musicbox-env",
    "numpy",
    "scipy",
    "pandas",
    "gymnasium",
    "torch",
    "stable-baselines3",
)

EXACT_EVALUATOR = "ground_truth"
BOUNDS: Final = ("skyline", "bayes")
"""They know what no recommender can: the evaluator's own probabilities, or the law behind the "
"data."""
Summary = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was compared: the plain data of a report.

    Attributes:
        rollouts: One for each evaluator, agent and seed. All rollouts of an evaluator are over the
        same
            sessions in the same order: comparisons are paired.
        world: The catalog, as far as metrics need it.
        config: The configuration of the comparison.
        dataset: ``Dataset.about``.
        title: Headline of the page.
        command: Command line that reproduces the comparison.
        trained_with: Name of the evaluator that is the very listener the agents were trained with,
        if
            it is among the evaluators: the report then shows what survives at the other evaluators.
        reference: Agent that every other one is compared with; present at every evaluator.
        bounds: Agents that are upper bounds and no competitors.
        reranking: For each agent and seed the result of `metrics.reranking`.
        curves: For each trained agent and seed its points (steps, value). An agent named here
            counts as one that learned.
        curve_label: Name of the value of the curves.
        curve_percent: Whether that value is a share.
        first_figures: For each agent the result of `first_musicbox.first_musicbox_figures`.
        descriptions: A line for each agent and each evaluator, by name.
        favourites: Songs that each agent recommends most, with their shares of its
            recommendations; none where songs have no titles.
        notes: What the reader must know besides.
    """

    rollouts: Sequence[Rollout]
    world: CatalogStats
    config: Mapping[str, Any]
    dataset: Mapping[str, Any]
    title: str = "MusicBox: agents compared"
    command: str = ""
    trained_with: str | None = None
    reference: str = "logged"
    bounds: Sequence[str] = ("skyline",)
    reranking: Mapping[str, Mapping[int, PerSession]] = field(default_factory=dict)
    curves: Mapping[str, Mapping[int, Curve]] = field(default_factory=dict)
    curve_label: str = "validation skip rate"
    curve_percent: bool = True
    first_figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    favourites: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.rollouts:
            raise ValueError("A report needs rollouts, and there are none.")
        for evaluator in self.evaluators:
            self._check_evaluator(evaluator)

    def _check_evaluator(self, evaluator: str) -> None:
        rollouts = [r for r in self.rollouts if r.evaluator == evaluator]
        keys = [(r.agent, r.seed) for r in rollouts]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(
                    f"Evaluator {evaluator!r} has {keys.count(key)} rollouts of agent {key[0]!r} "
                    f"with seed {key[1]}; give each once."
                )
        if self.reference not in {agent for agent, _ in keys}:
            raise ValueError(
                f"Evaluator {evaluator!r} has no rollout of the reference {self.reference!r}; it "
                f"has {sorted({agent for agent, _ in keys})}. Add it or name another reference."
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


def summarize(study: Study, *, seed: int = 0, resamples: int = 2000) -> Summary:
    """All figures of a report, ready for JSON.

    Args:
        study: What was compared.
        seed: Seed of the bootstrap; the same seed gives the same intervals.
        resamples: Number of resamples.
    """
    rng = np.random.default_rng(seed)
    parts = {
        evaluator: {
            agent: {s: per_session(r, study.world) for s, r in by_seed.items()}
            for agent, by_seed in study.at(evaluator).items()
        }
        for evaluator in study.evaluators
    }
    evaluators = {
        evaluator: _evaluator_summary(
            study, evaluator, parts[evaluator], rng=rng, resamples=resamples
        )
        for evaluator in study.evaluators
    }
    summary: Summary = {
        "format_version": FORMAT_VERSION,
        "title": study.title,
        "command": study.command,
        "reference": study.reference,
        "bounds": [b for b in study.bounds if b in study.agents],
        "learned": [a for a in study.agents if a in study.curves],
        "trained_with": study.trained_with,
        "bootstrap": {"confidence": CONFIDENCE, "resamples": resamples, "seed": seed},
        "evaluators": evaluators,
        "transfer": _transfer(study, parts, evaluators, rng=rng, resamples=resamples),
        "reranking": _reranking_summary(study, rng=rng, resamples=resamples),
        "first_musicbox": study.first_figures,
        "descriptions": study.descriptions,
        "favourites": {agent: list(songs) for agent, songs in study.favourites.items()},
        "notes": list(study.notes),
        "config": study.config,
        "dataset": study.dataset,
        "versions": _versions(),
    }
    return dict(_jsonable(summary))


def _evaluator_summary(
    study: Study,
    evaluator: str,
    parts: Mapping[str, Mapping[int, Mapping[str, PerSession]]],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> Summary:
    """Estimates and differences of all agents at one evaluator."""
    rollouts = study.at(evaluator)
    bootstraps = {
        name: paired_bootstrap(
            {agent: [p[name] for p in by_seed.values()] for agent, by_seed in parts.items()},
            rng=rng,
            resamples=resamples,
            confidence=CONFIDENCE,
        )
        for name, metric in METRICS.items()
        if metric.per_session
    }
    of_sets = {
        agent: {s: of_the_set(r, study.world) for s, r in by_seed.items()}
        for agent, by_seed in rollouts.items()
    }
    agents: Summary = {}
    for agent, by_seed in rollouts.items():
        metrics = {}
        for name, metric in METRICS.items():
            if metric.per_session:
                estimate = bootstraps[name].estimate(agent)
                values = {s: p[name].mean for s, p in parts[agent].items()}
            else:
                values = {s: of_set[name] for s, of_set in of_sets[agent].items()}
                estimate = seed_estimate(
                    list(values.values()),
                    sessions=len(next(iter(by_seed.values())).sessions),
                    confidence=CONFIDENCE,
                    limits=metric.limits,
                )
            metrics[name] = {**asdict(estimate), "by_seed": values}
        agents[agent] = {
            "seeds": list(by_seed),
            "metrics": metrics,
            "differences": _differences(bootstraps, agent, study.reference),
            "gap_closed": None,
        }
    gaps = _gaps_closed(study, evaluator, parts, resamples=resamples)
    for agent, closed in gaps.items():
        agents[agent]["gap_closed"] = closed
    first = next(iter(rollouts[study.reference].values()))
    return {
        "sessions": len(first.sessions),
        "songs": int(first.heard.sum()),
        "agents": agents,
        "gap_to": _bound_of(study, evaluator, parts) if gaps else None,
        "training": _training(study, bootstraps["skip_rate"]),
        "against": _against(study, bootstraps["skip_rate"], agents),
    }


def _bound_of(study: Study, evaluator: str, parts: Mapping[str, Any]) -> str | None:
    """The bound that a gap is measured to at an evaluator.

    At the exact law, what can be known of a listener by the songs shown; else the skyline.
    """
    candidates = ("bayes", "skyline") if evaluator == EXACT_EVALUATOR else ("skyline",)
    there = [name for name in candidates if name in study.bounds and name in parts]
    return there[0] if there else None


def _gaps_closed(
    study: Study,
    evaluator: str,
    parts: Mapping[str, Mapping[int, Mapping[str, PerSession]]],
    *,
    resamples: int,
) -> dict[str, dict[str, Any]]:
    """Share of the way from the reference to the bound, in skip rate, that each agent makes."""
    bound = _bound_of(study, evaluator, parts)
    if bound is None:
        return {}
    skips = {agent: [p["skip_rate"] for p in seeds.values()] for agent, seeds in parts.items()}
    reference = skips[study.reference][0]
    whole = Gain(skips[bound][:1], reference)
    return {
        agent: asdict(
            gain_share(
                Gain(of, reference),
                whole,
                # The same resampled sessions for all agents.
                rng=np.random.default_rng(0),
                resamples=resamples,
                confidence=CONFIDENCE,
            )
        )
        for agent, of in skips.items()
        if agent not in (study.reference, *study.bounds)
    }


def _against(study: Study, bootstrap: PairedBootstrap, agents: Summary) -> Summary:
    """Every agent that learned minus every other: skips, paired, and effective catalog size."""
    found: Summary = {}
    for ours in agents:
        if ours not in study.curves:
            continue
        found[ours] = {
            theirs: {
                "skip_rate": _flat(
                    bootstrap.difference(ours, theirs, lower_is_better=True), METRICS["skip_rate"]
                ),
                "effective_catalog_size": asdict(
                    seed_difference(
                        *(
                            _by_seed(agents[name], "effective_catalog_size")
                            for name in (ours, theirs)
                        ),
                        sessions=bootstrap.sessions,
                        confidence=CONFIDENCE,
                    )
                ),
            }
            for theirs in agents
            if theirs != ours
        }
    return found


def _by_seed(of: Summary, metric: str) -> list[float]:
    return list(of["metrics"][metric]["by_seed"].values())


def _training(study: Study, bootstrap: PairedBootstrap) -> Summary | None:
    """Best agent that learned from the simulator against the best that did not, in skip rate."""
    apart = {study.reference, *study.bounds}
    values = {a: r.value for a, r in bootstrap.agents.items() if a not in apart}
    learned = [a for a in values if a in study.curves]
    rules = [a for a in values if a not in study.curves]
    if not learned or not rules:
        return None
    best, rule = min(learned, key=values.__getitem__), min(rules, key=values.__getitem__)
    difference = bootstrap.difference(best, rule, lower_is_better=True)
    return {"learned": best, "rule": rule, **_flat(difference, METRICS["skip_rate"])}


def _differences(
    bootstraps: Mapping[str, PairedBootstrap], agent: str, reference: str
) -> dict[str, Any]:
    """Difference of an agent to the reference in every metric that is a mean."""
    if agent == reference:
        return {}
    return {
        name: _flat(
            bootstrap.difference(agent, reference, lower_is_better=METRICS[name].better == "lower"),
            METRICS[name],
        )
        for name, bootstrap in bootstraps.items()
    }


def _flat(difference: Difference, metric: Metric) -> dict[str, Any]:
    """A difference as one mapping; no probability of improvement where neither way is better."""
    found = asdict(difference.estimate)
    if metric.better != "neither":
        found["improvement"] = difference.improvement
        found["improvement_low"] = difference.improvement_low
        found["improvement_high"] = difference.improvement_high
    return found


def _transfer(
    study: Study,
    parts: Mapping[str, Mapping[str, Mapping[int, Mapping[str, PerSession]]]],
    evaluators: Summary,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> Summary:
    """What becomes of each agent's skip rate and gain when another listener evaluates it."""
    home = study.trained_with
    if home is None or home not in parts:
        return {}
    found: Summary = {}
    for evaluator in study.evaluators:
        if evaluator == home:
            continue
        rows = {}
        for agent, by_seed in parts[evaluator].items():
            seeds = [s for s in by_seed if s in parts[home].get(agent, {})]
            if not seeds or agent in study.bounds:
                continue
            before = [parts[home][agent][s]["skip_rate"] for s in seeds]
            after = [by_seed[s]["skip_rate"] for s in seeds]
            gains = [
                evaluators[name]["agents"][agent]["differences"].get("skip_rate")
                for name in (home, evaluator)
            ]
            rows[agent] = {
                "trained_with": evaluators[home]["agents"][agent]["metrics"]["skip_rate"]["value"],
                "evaluator": evaluators[evaluator]["agents"][agent]["metrics"]["skip_rate"][
                    "value"
                ],
                "change": _paired(before, after, rng=rng, resamples=resamples),
                "gain_trained_with": gains[0],
                "gain_evaluator": gains[1],
                "remaining": _remaining(
                    before,
                    after,
                    *(
                        next(iter(parts[name][study.reference].values()))
                        for name in (home, evaluator)
                    ),
                    resamples=resamples,
                ),
                "verdict": _verdict(*gains),
            }
        found[evaluator] = rows
    return found


def _paired(
    before: Sequence[PerSession],
    after: Sequence[PerSession],
    *,
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, Any] | None:
    """Change between two evaluators; None where they evaluated different numbers of sessions."""
    if len(before[0].numerator) != len(after[0].numerator):
        return None
    return asdict(paired_change(before, after, rng=rng, resamples=resamples, confidence=CONFIDENCE))


def _remaining(
    before: Sequence[PerSession],
    after: Sequence[PerSession],
    reference_before: Mapping[str, PerSession],
    reference_after: Mapping[str, PerSession],
    *,
    resamples: int,
) -> dict[str, Any] | None:
    """Share of the gain over the reference that is left at another evaluator."""
    if len(before[0].numerator) != len(after[0].numerator):
        return None
    share = gain_share(
        Gain(after, reference_after["skip_rate"]),
        Gain(before, reference_before["skip_rate"]),
        rng=np.random.default_rng(0),
        resamples=resamples,
        confidence=CONFIDENCE,
    )
    return asdict(share)


def _verdict(home: Summary | None, away: Summary | None) -> str:
    """Whether fewer skips than the reference at the listener trained with hold elsewhere."""
    if home is None or away is None:
        return "reference"
    if home["high"] is None or away["high"] is None or home["high"] >= 0:
        return "no gain"
    return "holds" if away["high"] < 0 else "exploitation"


def _reranking_summary(study: Study, *, rng: np.random.Generator, resamples: int) -> Summary:
    """Relative change of skips against a random choice of the same plays; below 0 is fewer."""
    if not study.reranking:
        return {}
    bootstrap = paired_bootstrap(
        {agent: list(by_seed.values()) for agent, by_seed in study.reranking.items()},
        rng=rng,
        resamples=resamples,
        confidence=CONFIDENCE,
    )
    return {
        agent: {
            **asdict(_shifted(bootstrap.estimate(agent), -1.0)),
            "by_seed": {s: p.mean - 1 for s, p in by_seed.items()},
        }
        for agent, by_seed in study.reranking.items()
    }


def _shifted(estimate: Estimate, by: float) -> Estimate:
    return Estimate(
        estimate.value + by,
        None if estimate.low is None else estimate.low + by,
        None if estimate.high is None else estimate.high + by,
        estimate.seeds,
        estimate.sessions,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _jsonable(value: Any) -> Any:
    """Plain JSON values: numpy unpacked, NaN and infinity to None, anything else as text."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, np.generic):
        return _jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def ranked(summary: Summary, evaluator: str) -> list[str]:
    """Agents of an evaluator, fewest skips first, unknown last."""
    agents = summary["evaluators"][evaluator]["agents"]

    def key(agent: str) -> float:
        value = agents[agent]["metrics"]["skip_rate"]["value"]
        return math.inf if value is None or math.isnan(value) else value

    return sorted(agents, key=key)
