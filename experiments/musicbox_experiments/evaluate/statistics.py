"""How sure a comparison is: interquartile means and bootstrap intervals over seeds and sessions.

The recipe is that of Agarwal et al., "Deep reinforcement learning at the edge of the statistical
precipice" (NeurIPS 2021, arXiv:2108.13264), fitted to recommendation:

* The value of an agent is the interquartile mean over its training seeds.
* Sessions are drawn anew, the same ones for all agents (paired), and seeds are drawn anew within
  each agent (stratified): percentile intervals of the resampled values.
* With few seeds a percentile interval is too narrow: three seeds cover about 80 % where 95 % is
  claimed. So the deviations between seeds are widened by ``sqrt(S / (S - 1))``, and all of them by
  ``t_nu / z``, as Hesterberg (arXiv:1411.5279, "expanded percentile interval") does for one sample.
  The degrees of freedom nu are those of Welch and Satterthwaite (Biometrika 34, 1947), so that the
  widening fades where sessions, of which there are many, make most of the spread.

* Where agents were trained in two directions (`pooling`), directions are drawn anew too, two of two
  within each test fold, and widened as seeds are: two directions are few, and the interval says so.

With one seed the interval speaks of sessions alone: it is right for an agent that does not learn,
and too narrow for one that does.

Figures of a whole set of songs (coverage, effective catalog size, Gini) cannot be resampled by
session without bias: a resample holds only 63 % of the distinct sessions, hence fewer songs. Their
intervals come from the seeds alone (`seed_estimate`), and with one seed there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from musicbox_experiments.evaluate.metrics import PerSession
from musicbox_experiments.evaluate.resampling import ENDS, Array, Sums, session_weights

TRIM = 0.25


@dataclass(frozen=True)
class Estimate:
    """A value and how sure it is.

    Attributes:
        value: Interquartile mean over the seeds; NaN where nothing was counted.
        low: Lower end of the interval, None where there is none.
        high: Upper end.
        seeds: Number of training seeds it rests on.
        sessions: Number of sessions it rests on.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    sessions: int


@dataclass(frozen=True)
class Difference:
    """One agent against another on the same sessions.

    Attributes:
        estimate: Agent minus reference.
        improvement: Probability of improvement: the share of pairs of a seed of the agent and a
            seed of the reference in which the agent is better, ties counted half (Agarwal et al.,
            section 4.3). None where both have one seed, of which nothing but 0 or 1 can come.
        improvement_low: Lower end of its interval.
        improvement_high: Upper end.
    """

    estimate: Estimate
    improvement: float | None = None
    improvement_low: float | None = None
    improvement_high: float | None = None


def interquartile_mean(values: npt.ArrayLike) -> Array:
    """Mean over the last axis without the lowest and highest quarter of the values.

    As `scipy.stats.trim_mean` and Agarwal et al.: ``floor(n / 4)`` values are cut at each end, so
    up to three values are simply averaged.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = int(TRIM * ordered.shape[-1])
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def resampled_means(
    parts: Sequence[PerSession], *, rng: np.random.Generator, resamples: int
) -> Array:
    """Means of c parts over sessions drawn with replacement, the same for all ``(resamples, c)``.

    NaN where the sessions drawn hold nothing to count.
    """
    columns = [p.numerator for p in parts] + [p.denominator for p in parts]
    c = len(parts)
    means = Sums(np.stack(columns, axis=1), lambda total: total[:, :c] / total[:, c:])
    return np.concatenate([means.of(w) for w in session_weights(len(columns[0]), resamples, rng)])


@dataclass(frozen=True)
class Resampled:
    """One agent's resampled values of one metric, the two sources of spread kept apart.

    Attributes:
        by_seed: Value of each seed on all sessions, ``(seeds,)``.
        centre: Value of all seeds on the sessions of each resample, ``(resamples,)``.
        spread: Deviation from ``centre`` that drawing the seeds anew brings, ``(resamples,)``.
        draws: Values of the seeds drawn in each resample, ``(resamples, seeds)``.
        by_source: Value of all seeds at each source, ``(sources,)``; None where there is one.
    """

    by_seed: Array
    centre: Array
    spread: Array
    draws: Array
    by_source: Array | None = None

    @classmethod
    def draw(
        cls,
        by_seed: Array,
        means: Array,
        rng: np.random.Generator,
        by_source: Array | None = None,
    ) -> Self:
        """Draw seeds anew from the means of each on resampled sessions ``(resamples, seeds)``."""
        draws = np.take_along_axis(means, rng.integers(0, len(by_seed), means.shape), axis=1)
        centre = interquartile_mean(means)
        return cls(by_seed, centre, interquartile_mean(draws) - centre, draws, by_source)

    @property
    def value(self) -> float:
        """Interquartile mean over the seeds on all sessions."""
        return float(interquartile_mean(self.by_seed))

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)


def _estimate(
    value: float,
    centre: Array,
    spreads: Sequence[tuple[Array, int]],
    *,
    sessions: int,
    by_source: Array | None = None,
) -> Estimate:
    """A value with its percentile interval: a part from sessions and parts from seeds.

    Args:
        value: On all sessions and seeds.
        centre: On the sessions of each resample ``(resamples,)``.
        spreads: For each agent involved the deviations ``(resamples,)`` that its seeds bring, and
            the number of its seeds; widened for few seeds (see the head of this module).
        sessions: Number of sessions.
        by_source: The value at each source ``(sources,)``, if there are several.
    """
    fewest = min(seeds for _, seeds in spreads)
    if not np.isfinite(value):
        return Estimate(float("nan"), None, None, fewest, sessions)
    parts = [s * (np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0) for s, seeds in spreads]
    freedoms = [seeds - 1 for _, seeds in spreads]
    if by_source is not None and len(by_source) > 1:
        parts.append(_of_directions(by_source, len(centre)))
        freedoms.append(len(by_source) // 2)
    uncertain = sum(
        np.nanvar(part) ** 2 / freedom
        for part, freedom in zip(parts, freedoms, strict=True)
        if freedom
    )
    total = np.nanvar(centre) + sum(np.nanvar(part) for part in parts)
    freedom = total**2 / uncertain if uncertain > 0 else np.inf
    reach = stdtrit(freedom, ENDS[1]) / ndtri(ENDS[1])
    resampled = np.sum([centre, *parts], axis=0)
    low, high = np.nanquantile(value + reach * (resampled - value), ENDS)
    return Estimate(value, float(low), float(high), fewest, sessions)


def _of_directions(by_source: Array, resamples: int) -> Array:
    """Deviations that drawing the two directions of each test fold anew brings ``(resamples,)``.

    Widened by sqrt(2) as two seeds would be. Sources stand fold by fold, two directions each.
    """
    folds = by_source[: len(by_source) // 2 * 2].reshape(-1, 2)
    drawn = np.random.default_rng(0).integers(0, 2, (resamples, len(folds), 2))
    values = np.take_along_axis(np.broadcast_to(folds, drawn.shape), drawn, axis=2)
    deviations = np.nan_to_num(values.mean(axis=2) - folds.mean(axis=1))
    return np.asarray(np.sqrt(2) * deviations.mean(axis=1))


@dataclass(frozen=True)
class PairedBootstrap:
    """Resampled values of one metric for several agents, on the same resampled sessions.

    Attributes:
        agents: For each agent its resampled values.
        sessions: Number of sessions.
    """

    agents: Mapping[str, Resampled]
    sessions: int

    def estimate(self, agent: str) -> Estimate:
        """Value of an agent with its interval."""
        of = self.agents[agent]
        spreads = [(of.spread, of.seeds)]
        return _estimate(
            of.value, of.centre, spreads, sessions=self.sessions, by_source=of.by_source
        )

    def difference(self, agent: str, reference: str, *, lower_is_better: bool) -> Difference:
        """An agent minus a reference, and the probability that it is better."""
        ours, theirs = self.agents[agent], self.agents[reference]
        estimate = _estimate(
            ours.value - theirs.value,
            ours.centre - theirs.centre,
            [(ours.spread, ours.seeds), (theirs.spread, theirs.seeds)],
            sessions=self.sessions,
            by_source=self.difference_by_source(agent, reference),
        )
        if ours.seeds == theirs.seeds == 1:
            return Difference(estimate)
        sign = -1.0 if lower_is_better else 1.0
        better = _share_better(sign * ours.by_seed[None], sign * theirs.by_seed[None])
        ends = np.quantile(_share_better(sign * ours.draws, sign * theirs.draws), ENDS)
        return Difference(estimate, *map(float, (*better, *ends)))

    def difference_by_source(self, agent: str, reference: str) -> Array | None:
        """An agent minus a reference at each source ``(sources,)``, if there are several."""
        ours, theirs = self.agents[agent].by_source, self.agents[reference].by_source
        return None if ours is None or theirs is None else ours - theirs


def _share_better(ours: Array, theirs: Array) -> Array:
    """Share of pairs in which ours is higher, ties half; ``(r, s)`` and ``(r, u)`` -> ``(r,)``."""
    gap = ours[:, :, None] - theirs[:, None, :]
    return np.asarray(((gap > 0) + 0.5 * (gap == 0)).mean(axis=(1, 2)))


def paired_bootstrap(
    parts: Mapping[str, Sequence[PerSession]], *, rng: np.random.Generator, resamples: int = 2000
) -> PairedBootstrap:
    """Resample sessions, paired across agents, and seeds, within each agent.

    ``parts`` holds one entry a seed for each agent; agents may have different numbers of seeds.
    """
    flat = [p for seeds in parts.values() for p in seeds]
    means = resampled_means(flat, rng=rng, resamples=resamples)
    agents, first = {}, 0
    for agent, seeds in parts.items():
        of_agent = means[:, first : first + len(seeds)]
        sources = [p.by_source for p in seeds if p.by_source is not None]
        agents[agent] = Resampled.draw(
            np.array([p.mean for p in seeds]),
            of_agent,
            rng,
            interquartile_mean(np.stack(sources, axis=1)) if sources else None,
        )
        first += len(seeds)
    return PairedBootstrap(agents, len(flat[0].numerator))


def paired_change(
    before: Sequence[PerSession],
    after: Sequence[PerSession],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Estimate:
    """After minus before, an entry a seed, same sessions, as for one agent at two evaluators."""
    seeds = len(before)
    means = resampled_means([*before, *after], rng=rng, resamples=resamples)
    observed = np.array([b.mean - a.mean for a, b in zip(before, after, strict=True)])
    change = Resampled.draw(observed, means[:, seeds:] - means[:, :seeds], rng)
    return _estimate(
        change.value, change.centre, [(change.spread, seeds)], sessions=len(before[0].numerator)
    )


@dataclass(frozen=True)
class Gain:
    """An agent beside a reference, in a metric where lower is better.

    Attributes:
        agent: One entry a seed.
        reference: What it is compared with.
    """

    agent: Sequence[PerSession]
    reference: PerSession


def gain_share(
    part: Gain, whole: Gain, *, rng: np.random.Generator, resamples: int = 2000
) -> Estimate:
    """One gain as a share of another, ``(r - a) / (r' - a')`` of interquartile means over seeds.

    As the share of the gap to a bound that an agent closes, or of a gain that remains at another
    evaluator. ``whole`` has as many seeds as ``part`` (the same trainings), or one. Sessions are
    drawn anew for all four together, and seeds for both agents alike, so the interval is that of a
    ratio and not of two intervals.

    Returns:
        The share; NaN where the whole is no gain, and no interval where resamples leave that open.
    """
    seeds, of, sessions = len(part.agent), len(whole.agent), len(part.reference.numerator)
    parts = [*part.agent, *whole.agent, part.reference, whole.reference]
    means = resampled_means(parts, rng=rng, resamples=resamples)
    above, below, references = np.split(means, [seeds, seeds + of], axis=1)
    drawn = rng.integers(0, seeds, (resamples, seeds))
    above_drawn = np.take_along_axis(above, drawn, axis=1)
    below_drawn = np.take_along_axis(below, drawn, axis=1) if of == seeds else below
    whole_gains = [references[:, 1] - interquartile_mean(b) for b in (below, below_drawn)]
    observed = [p.mean for p in parts]
    value_whole = observed[-1] - float(interquartile_mean(observed[seeds : seeds + of]))
    if not value_whole > 0:
        return Estimate(float("nan"), None, None, seeds, sessions)
    value = (observed[-2] - float(interquartile_mean(observed[:seeds]))) / value_whole
    if min(gains.min() for gains in whole_gains) <= 0:
        return Estimate(value, None, None, seeds, sessions)
    centre, anew = (
        (references[:, 0] - interquartile_mean(a)) / gains
        for a, gains in zip((above, above_drawn), whole_gains, strict=True)
    )
    spreads = [(anew - centre, seeds)]
    return _estimate(value, centre, spreads, sessions=sessions)


def gain_excess(
    stated: Gain,
    true: Gain,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Estimate:
    """A gain less another one of the same trainings on the same sessions, resampled together."""
    seeds, sessions = len(stated.agent), len(stated.reference.numerator)
    parts = [*stated.agent, *true.agent, stated.reference, true.reference]

    def excess(values: Array) -> Array:
        """From columns as of ``parts``: ``(r - a) - (r' - a')`` of each seed."""
        agent, truly, references = np.split(values, [seeds, 2 * seeds], axis=1)
        return (references[:, :1] - agent) - (references[:, 1:] - truly)

    sources = [part.by_source for part in parts if part.by_source is not None]
    by_source = interquartile_mean(excess(np.stack(sources, axis=1))) if sources else None
    observed = excess(np.array([[part.mean for part in parts]]))[0]
    means = excess(resampled_means(parts, rng=rng, resamples=resamples))
    drawn = Resampled.draw(observed, means, rng, by_source)
    spreads = [(drawn.spread, seeds)]
    return _estimate(
        drawn.value, drawn.centre, spreads, sessions=sessions, by_source=drawn.by_source
    )


def seed_difference(ours: Sequence[float], theirs: Sequence[float], *, sessions: int) -> Estimate:
    """Difference of two figures that have one value a seed, over seeds alone.

    As `seed_estimate`, with the errors of both added and the degrees of freedom of Welch and
    Satterthwaite: Yuen's interval (Biometrika 61, 1974). An agent with one seed counts as exact,
    which is right if it does not learn; where both have one there is no interval.
    """
    value = float(interquartile_mean(ours) - interquartile_mean(theirs))
    seeds = min(len(ours), len(theirs))
    errors = [_seed_error(values) for values in (ours, theirs) if len(values) > 1]
    total = sum(error**2 for error, _ in errors)
    if not errors or not np.isfinite(value):
        return Estimate(value, None, None, seeds, sessions)
    if total == 0:
        return Estimate(value, value, value, seeds, sessions)
    freedom = total**2 / sum(error**4 / freedom for error, freedom in errors)
    reach = float(stdtrit(freedom, ENDS[1]) * np.sqrt(total))
    return Estimate(value, value - reach, value + reach, seeds, sessions)


def _seed_error(values: Sequence[float]) -> tuple[float, int]:
    """Standard error of an interquartile mean over two seeds or more, and degrees of freedom."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    seeds, cut = len(ordered), int(TRIM * len(ordered))
    left = seeds - 2 * cut
    winsorised = np.clip(ordered, ordered[cut], ordered[seeds - 1 - cut])
    return float(winsorised.std(ddof=1) / (left / seeds * np.sqrt(seeds))), left - 1


def seed_estimate(
    values: Sequence[float], *, sessions: int, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Interquartile mean of a figure that has one value a seed, with an interval over seeds alone.

    The interval is that of Tukey and McLaughlin for trimmed means (Sankhya A 25, 1963): with g
    values cut at each end, h = S - 2 g left and s_w the standard deviation of the winsorised
    values, ``mean +- t_(h-1) s_w / ((h / S) sqrt(S))``; for S <= 3 the ordinary t interval.
    It is cut at ``limits``.
    """
    found = seed_difference(values, [0.0], sessions=sessions)
    low, high = (None if e is None else float(np.clip(e, *limits)) for e in (found.low, found.high))
    return Estimate(found.value, low, high, len(values), sessions)
