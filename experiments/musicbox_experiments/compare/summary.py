"""The figures of a comparison: every metric of every agent at every evaluator, with its interval.

`summarize` turns a `Study` into one mapping that is JSON as it is: the content of ``summary.json``,
and all that the pages and tables are made from.
"""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any, Final

import numpy as np

from musicbox_experiments.compare.study import EXACT_EVALUATOR, Study
from musicbox_experiments.evaluate.knowledge import knowledge
from musicbox_experiments.evaluate.metrics import (
    METRICS,
    CatalogStats,
    Metric,
    PerSession,
    Rollout,
    of_the_set,
    per_session,
)
from musicbox_experiments.evaluate.pooling import by_source, grouped
from musicbox_experiments.evaluate.resampling import CONFIDENCE
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
from musicbox_experiments.train.variants import agent_of

FORMAT_VERSION: Final = 1
HOLDS: Final = 0.5
"""Share of a gain from which on it is said to hold at another evaluator."""
CHAMPION: Final = "ddpg"
"""The agent that is set against all others, unless another one is chosen."""
_PACKAGES = ("musicbox-env", "numpy", "scipy", "pandas", "gymnasium", "torch", "stable-baselines3")
Summary = dict[str, Any]
Parts = Mapping[str, Mapping[int, Mapping[str, PerSession]]]
"""Metrics in parts by agent, seed and metric, at one evaluator."""


def summarize(study: Study, *, seed: int = 0, resamples: int = 2000) -> Summary:
    """All figures of a report, ready for JSON."""
    return _Summarizer(study, seed, resamples).summary()


class _Summarizer:
    """A study, its metrics in parts, and the random numbers of the bootstrap."""

    def __init__(self, study: Study, seed: int, resamples: int) -> None:
        self.study, self.seed, self.resamples = study, seed, resamples
        self.rng = np.random.default_rng(seed)
        self.parts: dict[str, Parts] = {
            evaluator: {
                agent: {s: parts_of(r, study.world) for s, r in by_seed.items()}
                for agent, by_seed in study.at(evaluator).items()
            }
            for evaluator in study.evaluators
        }

    def summary(self) -> Summary:
        study = self.study
        evaluators = {evaluator: self._at(evaluator) for evaluator in study.evaluators}
        summary: Summary = {
            "format_version": FORMAT_VERSION,
            "title": study.title,
            "command": study.command,
            "reference": study.reference,
            "against": study.against or CHAMPION,
            "bounds": [b for b in study.bounds if b in study.agents],
            "learned": [a for a in study.agents if a in study.curves],
            "trained_with": study.trained_with,
            "bootstrap": {
                "confidence": CONFIDENCE,
                "resamples": self.resamples,
                "seed": self.seed,
            },
            "evaluators": evaluators,
            "sources": list(study.sources),
            "knowledge": self._knowledge(),
            "fitted_on": study.fitted_on,
            "gains_known": study.gains_known,
            "order": study.order,
            "transfer": self._transfer(evaluators),
            "reranking": self._reranking(),
            "first_musicbox": study.first_figures,
            "descriptions": study.descriptions,
            "favourites": {agent: list(songs) for agent, songs in study.favourites.items()},
            "notes": list(study.notes),
            "config": study.config,
            "dataset": study.dataset,
            "versions": _versions(),
        }
        return dict(_jsonable(summary))

    def _bootstrap(self, parts: Mapping[str, Sequence[PerSession]]) -> PairedBootstrap:
        return paired_bootstrap(parts, rng=self.rng, resamples=self.resamples)

    def _share(self, part: Gain, whole: Gain) -> dict[str, Any]:
        """One gain as a share of another; the same resampled sessions for all agents."""
        rng = np.random.default_rng(0)
        return asdict(gain_share(part, whole, rng=rng, resamples=self.resamples))

    def _at(self, evaluator: str) -> Summary:
        """Estimates and differences of all agents at one evaluator."""
        study, parts, rollouts = self.study, self.parts[evaluator], self.study.at(evaluator)
        bootstraps = {
            name: self._bootstrap(
                {agent: [p[name] for p in by_seed.values()] for agent, by_seed in parts.items()}
            )
            for name, metric in METRICS.items()
            if metric.per_session
        }
        agents: Summary = {
            agent: {
                "seeds": list(by_seed),
                "metrics": self._metrics(by_seed, parts[agent], bootstraps),
                "differences": _differences(bootstraps, agent, study.reference),
                "by_source": self._by_source(bootstraps["skip_rate"], agent),
                "gap_closed": None,
            }
            for agent, by_seed in rollouts.items()
        }
        bound = self._bound_at(evaluator)
        sure = bound and _is_gain(agents[bound]["differences"].get("skip_rate"))
        closed = self._gaps_closed(parts, bound) if bound and sure else {}
        for agent, share in closed.items():
            agents[agent]["gap_closed"] = share
        first = next(iter(rollouts[study.reference].values()))
        return {
            "sessions": len(np.unique(first.sessions)),
            "songs": int(first.heard.sum()),
            "agents": agents,
            "gap_to": bound if closed else None,
            "training": self._training(bootstraps["skip_rate"]),
            "against": self._against(bootstraps["skip_rate"], agents, parts),
        }

    def _metrics(
        self,
        rollouts: Mapping[int, Rollout],
        parts: Mapping[int, Mapping[str, PerSession]],
        bootstraps: Mapping[str, PairedBootstrap],
    ) -> Summary:
        """Estimate and values by seed of every metric of one agent."""
        of_sets = {s: set_of(r, self.study.world) for s, r in rollouts.items()}
        agent = next(iter(rollouts.values())).agent
        sessions = bootstraps["skip_rate"].sessions
        found = {}
        for name, metric in METRICS.items():
            if metric.per_session:
                values = {s: p[name].mean for s, p in parts.items()}
                estimate = bootstraps[name].estimate(agent)
            else:
                values = {s: of_set[name] for s, of_set in of_sets.items()}
                estimate = seed_estimate(
                    list(values.values()), sessions=sessions, limits=metric.limits
                )
            found[name] = {**asdict(estimate), "by_seed": values}
        return found

    def _knowledge(self) -> Summary:
        """What each learned evaluator knows of the songs that agents recommend."""
        study, found = self.study, {}
        for evaluator in study.evaluators:
            known = knowledge(study.at(evaluator), study.reference, resamples=self.resamples)
            if known:
                found[evaluator] = known
        return found

    def _by_source(self, bootstrap: PairedBootstrap, agent: str) -> Summary:
        """Skip rate and difference to the reference of each direction and test fold."""
        values = bootstrap.agents[agent].by_source
        differences = bootstrap.difference_by_source(agent, self.study.reference)
        if values is None or differences is None:
            return {}
        return {
            source: {"skip_rate": value, "difference": difference}
            for source, value, difference in zip(
                self.study.sources, values, differences, strict=True
            )
        }

    def _bound_at(self, evaluator: str) -> str | None:
        """The bound that a gap is measured to.

        At the exact law, what can be known of a listener by the songs shown; else the oracle.
        """
        candidates = ("bayes", "skyline") if evaluator == EXACT_EVALUATOR else ("skyline",)
        there = [n for n in candidates if n in self.study.bounds and n in self.parts[evaluator]]
        return there[0] if there else None

    def _gaps_closed(self, parts: Parts, bound: str) -> dict[str, dict[str, Any]]:
        """Share of the way from the reference to the bound, in skip rate, that each agent makes."""
        skips = {agent: _of("skip_rate", seeds) for agent, seeds in parts.items()}
        reference = skips[self.study.reference][0]
        whole = Gain(skips[bound][:1], reference)
        return {
            agent: self._share(Gain(of, reference), whole)
            for agent, of in skips.items()
            if agent not in (self.study.reference, *self.study.bounds)
        }

    def _against(self, bootstrap: PairedBootstrap, agents: Summary, parts: Parts) -> Summary:
        """Every agent that learned, or was chosen, minus every other: skips and catalog size."""
        chosen = (*self.study.curves, self.study.against)
        return {
            ours: {
                theirs: self._one_against(ours, theirs, bootstrap, agents, parts)
                for theirs in agents
                if theirs != ours
            }
            for ours in agents
            if ours in chosen
        }

    def _one_against(
        self, ours: str, theirs: str, bootstrap: PairedBootstrap, agents: Summary, parts: Parts
    ) -> Summary:
        """One agent minus another.

        Variants of one agent are paired by session and training seed, others by session alone.
        """
        skips = bootstrap.difference(ours, theirs, lower_is_better=True)
        sizes = [_by_seed(agents[name], "effective_catalog_size") for name in (ours, theirs)]
        sessions = bootstrap.sessions
        if agent_of(ours) == agent_of(theirs) and agents[ours]["seeds"] == agents[theirs]["seeds"]:
            change = paired_change(
                _of("skip_rate", parts[theirs]),
                _of("skip_rate", parts[ours]),
                rng=np.random.default_rng(0),
                resamples=self.resamples,
            )
            skips = replace(skips, estimate=change)
            by_seed = [a - b for a, b in zip(*sizes, strict=True)]
            size = seed_estimate(by_seed, sessions=sessions)
        else:
            size = seed_difference(*sizes, sessions=sessions)
        return {
            "skip_rate": _flat(skips, METRICS["skip_rate"]),
            "effective_catalog_size": asdict(size),
        }

    def _training(self, bootstrap: PairedBootstrap) -> Summary | None:
        """Best agent that learned from the simulator minus the best that did not, in skip rate."""
        apart = {self.study.reference, *self.study.bounds}
        known = {a: r.value for a, r in bootstrap.agents.items() if not math.isnan(r.value)}
        values = {a: value for a, value in known.items() if a not in apart}
        learned = [a for a in values if a in self.study.curves]
        rules = [a for a in values if a not in self.study.curves]
        if not learned or not rules:
            return None
        best, rule = min(learned, key=values.__getitem__), min(rules, key=values.__getitem__)
        difference = bootstrap.difference(best, rule, lower_is_better=True)
        return {"learned": best, "rule": rule, **_flat(difference, METRICS["skip_rate"])}

    def _transfer(self, evaluators: Summary) -> Summary:
        """What becomes of each agent's skip rate and gain when another listener evaluates it."""
        home = self.study.trained_with
        if home is None or home not in self.parts:
            return {}
        return {
            evaluator: {
                agent: self._transferred(agent, home, evaluator, evaluators)
                for agent in self.parts[evaluator]
                if agent in self.parts[home] and agent not in self.study.bounds
            }
            for evaluator in self.study.evaluators
            if evaluator != home
        }

    def _transferred(self, agent: str, home: str, evaluator: str, evaluators: Summary) -> Summary:
        """One agent at the listener that it was trained with, and at another evaluator."""
        sides = [self.parts[name] for name in (home, evaluator)]
        seeds = [s for s in sides[1][agent] if s in sides[0][agent]]
        before, after = ([side[agent][s]["skip_rate"] for s in seeds] for side in sides)
        references = [_of("skip_rate", side[self.study.reference])[0] for side in sides]
        agents = [evaluators[name]["agents"][agent] for name in (home, evaluator)]
        gains = [of["differences"].get("skip_rate") for of in agents]
        change = remaining = None
        if len(before[0].numerator) == len(after[0].numerator):
            change = asdict(paired_change(before, after, rng=self.rng, resamples=self.resamples))
        if change and _is_gain(gains[0]):
            remaining = self._share(Gain(after, references[1]), Gain(before, references[0]))
        return {
            "trained_with": agents[0]["metrics"]["skip_rate"]["value"],
            "evaluator": agents[1]["metrics"]["skip_rate"]["value"],
            "change": change,
            "gain_trained_with": gains[0],
            "gain_evaluator": gains[1],
            "remaining": remaining,
            "verdict": _verdict(gains[0], gains[1], remaining),
        }

    def _reranking(self) -> Summary:
        """Relative change of skips against a random choice of the same plays; below 0 is fewer."""
        if not self.study.reranking:
            return {}
        bootstrap = self._bootstrap(
            {agent: list(by_seed.values()) for agent, by_seed in self.study.reranking.items()}
        )
        return {
            agent: {
                **asdict(_shifted(bootstrap.estimate(agent), -1.0)),
                "by_seed": {s: p.mean - 1 for s, p in by_seed.items()},
            }
            for agent, by_seed in self.study.reranking.items()
        }


def parts_of(rollout: Rollout, world: CatalogStats) -> dict[str, PerSession]:
    """Metrics that are means, in parts with one row for each session."""
    return {
        name: grouped(part, rollout.sessions, rollout.source)
        for name, part in per_session(rollout, world).items()
    }


def set_of(rollout: Rollout, world: CatalogStats) -> dict[str, float]:
    """Metrics of the whole set of songs; of pooled roll-outs the mean over their sources."""
    found = [of_the_set(part, world) for part in by_source(rollout)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _of(metric: str, by_seed: Mapping[int, Mapping[str, PerSession]]) -> list[PerSession]:
    return [parts[metric] for parts in by_seed.values()]


def _by_seed(of: Summary, metric: str) -> list[float]:
    return list(of["metrics"][metric]["by_seed"].values())


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
    found = asdict(difference)
    estimate = found.pop("estimate")
    return estimate if metric.better == "neither" else {**estimate, **found}


def _is_gain(difference: Summary | None) -> bool:
    """Whether a difference in skips to the reference surely is below 0."""
    return difference is not None and difference["high"] is not None and difference["high"] < 0


def _verdict(home: Summary | None, away: Summary | None, remaining: Summary | None) -> str:
    """Whether fewer skips than the reference at the listener trained with hold elsewhere.

    A gain is one whose whole interval lies below 0. It holds where there is a gain elsewhere too,
    of at least the share `HOLDS` of it; a smaller one is there in part.
    """
    if home is None or away is None:
        return "reference"
    if home["high"] is None or away["high"] is None:
        return "unknown"
    if home["high"] >= 0:
        return "no gain"
    if away["high"] >= 0:
        return "exploitation"
    share = remaining["value"] if remaining else away["value"] / home["value"]
    return "holds" if share >= HOLDS else "in part"


def _shifted(estimate: Estimate, by: float) -> Estimate:
    low, high = (None if end is None else end + by for end in (estimate.low, estimate.high))
    return replace(estimate, value=estimate.value + by, low=low, high=high)


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
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)


def ranked(summary: Summary, evaluator: str) -> list[str]:
    """Agents of an evaluator, fewest skips first, unknown last."""
    agents = summary["evaluators"][evaluator]["agents"]
    skips = {agent: of["metrics"]["skip_rate"]["value"] for agent, of in agents.items()}
    return sorted(agents, key=lambda agent: math.inf if skips[agent] is None else skips[agent])


def fewest_skips_first(estimates: Mapping[str, Summary]) -> list[tuple[str, Summary]]:
    """Estimates of agents in order, unknown ones last."""

    def place(of: tuple[str, Summary]) -> float:
        value = of[1]["value"]
        return math.inf if value is None else float(value)

    return sorted(estimates.items(), key=place)


def champion(summary: Summary, evaluator: str) -> str | None:
    """The agent that is set against all others: the chosen one, else the best that learned."""
    against = summary["evaluators"][evaluator]["against"]
    if summary["against"] in against:
        return str(summary["against"])
    return next((agent for agent in ranked(summary, evaluator) if agent in against), None)
