from collections.abc import Sequence

import numpy as np
import pytest
from musicbox_experiments.evaluate.metrics import PerSession
from musicbox_experiments.evaluate.statistics import (
    Gain,
    gain_share,
    interquartile_mean,
    paired_bootstrap,
    paired_change,
    resampled_means,
    seed_difference,
    seed_estimate,
)
from scipy import stats

SONGS = 6


def two_level(
    rng: np.random.Generator,
    propensity: np.ndarray,
    *,
    seeds: int,
    seed_sd: float,
    mean: float = 0.5,
) -> list[PerSession]:
    """Binomial skips: each session has a propensity of its own, each training seed an effect."""
    return [
        PerSession(
            rng.binomial(SONGS, np.clip(mean + propensity + effect, 0.01, 0.99)).astype(float),
            np.full(len(propensity), float(SONGS)),
        )
        for effect in rng.normal(0, seed_sd, seeds)
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10, 11])
def test_interquartile_mean_is_scipys_trimmed_mean(size: int) -> None:
    values = np.random.default_rng(size).normal(size=(3, size))
    expected = stats.trim_mean(values, 0.25, axis=1)
    assert interquartile_mean(values) == pytest.approx(expected)


def test_interquartile_mean_ignores_wild_seeds() -> None:
    assert interquartile_mean([-1e9, 1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1e9]) == pytest.approx(2.0)


def test_resampling_sessions_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    heard = rng.integers(1, 11, size=400).astype(float)
    part = PerSession(rng.binomial(heard.astype(int), 0.4).astype(float), heard)
    ours = paired_bootstrap({"a": [part]}, rng=rng, resamples=4000).estimate("a")
    theirs = stats.bootstrap(
        (part.numerator, part.denominator),
        lambda n, d, axis: n.sum(axis=axis) / d.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(part.mean)
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_resamples_draw_as_many_sessions_as_there_are_in_any_chunk() -> None:
    n = 70_001  # more than a chunk of resamples can hold
    one = PerSession(np.ones(n), np.full(n, 1.0))
    first = PerSession(np.eye(1, n)[0] * n, np.ones(n))
    drawn = resampled_means([one, first], rng=np.random.default_rng(0), resamples=70)
    assert drawn.shape == (70, 2)
    assert (drawn[:, 0] == 1).all()
    # How often one session is drawn is Poisson(1) to good approximation.
    assert drawn[:, 1].mean() == pytest.approx(1.0, abs=0.4)
    assert drawn[:, 1].var() == pytest.approx(1.0, abs=0.6)


def test_sessions_are_paired_across_agents() -> None:
    """Two agents whose skips differ by a constant in each session differ without uncertainty."""
    skips = np.random.default_rng(0).integers(1, 5, size=500).astype(float)
    heard = np.full(500, 6.0)
    bootstrap = paired_bootstrap(
        {"a": [PerSession(skips, heard)], "b": [PerSession(skips + 1, heard)]},
        rng=np.random.default_rng(1),
        resamples=300,
    )
    difference = bootstrap.difference("b", "a", lower_is_better=True)
    assert difference.estimate.value == pytest.approx(1 / 6)
    assert difference.estimate.low == pytest.approx(1 / 6)
    assert difference.estimate.high == pytest.approx(1 / 6)
    assert difference.improvement is None, "one pair of seeds says nothing of other seeds"
    assert bootstrap.estimate("a").high - bootstrap.estimate("a").low > 0.01


def coverage_of(
    repetitions: int, *, seeds: int, seed_sd: float, sessions: int = 250
) -> tuple[float, float]:
    """Share of intervals that hold the truth: of a value, and of a difference."""
    values, differences = 0, 0
    for repetition in range(repetitions):
        rng = np.random.default_rng((repetition, seeds, round(1000 * seed_sd)))
        propensity = rng.normal(0, 0.15, sessions)
        bootstrap = paired_bootstrap(
            {
                "trained": two_level(rng, propensity, seeds=seeds, seed_sd=seed_sd),
                "fixed": two_level(rng, propensity, seeds=1, seed_sd=0.0),
            },
            rng=rng,
            resamples=300,
        )
        value = bootstrap.estimate("trained")
        difference = bootstrap.difference("trained", "fixed", lower_is_better=True).estimate
        values += value.low <= 0.5 <= value.high
        differences += difference.low <= 0.0 <= difference.high
    return values / repetitions, differences / repetitions


@pytest.mark.parametrize(
    ("seeds", "seed_sd"),
    [
        (1, 0.0),
        (3, 0.0),
        pytest.param(3, 0.02, marks=pytest.mark.slow),
        (3, 0.06),
        pytest.param(5, 0.03, marks=pytest.mark.slow),
        (10, 0.06),
    ],
)
def test_intervals_cover_the_truth(seeds: int, seed_sd: float) -> None:
    """95 % intervals, be it sessions or seeds that make most of the spread."""
    for share in coverage_of(200, seeds=seeds, seed_sd=seed_sd):
        assert 0.90 <= share <= 0.995


def test_agents_may_have_different_numbers_of_seeds() -> None:
    rng = np.random.default_rng(0)
    propensity = rng.normal(0, 0.15, 300)
    parts = {f"{n} seeds": two_level(rng, propensity, seeds=n, seed_sd=0.02) for n in (1, 2, 7)}
    bootstrap = paired_bootstrap(parts, rng=rng, resamples=200)
    for n in (1, 2, 7):
        estimate = bootstrap.estimate(f"{n} seeds")
        assert estimate.seeds == n
        assert estimate.sessions == 300
        assert estimate.low < estimate.value < estimate.high


def test_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    ours, theirs = [0.30, 0.40, 0.50, 0.45], [0.45, 0.42, 0.60]

    def seeds_of(rates: Sequence[float]) -> list[PerSession]:
        return [PerSession(np.full(50, r), np.ones(50)) for r in rates]

    bootstrap = paired_bootstrap(
        {"a": seeds_of(ours), "b": seeds_of(theirs)}, rng=np.random.default_rng(0), resamples=500
    )
    expected = stats.mannwhitneyu(theirs, ours).statistic / 12
    found = bootstrap.difference("a", "b", lower_is_better=True)
    assert found.improvement == pytest.approx(expected)
    assert found.improvement_low < expected < found.improvement_high
    higher = bootstrap.difference("a", "b", lower_is_better=False)
    assert higher.improvement == pytest.approx(1 - expected)


def test_the_same_generator_gives_the_same_interval() -> None:
    def estimate(seed: int) -> object:
        rng = np.random.default_rng(3)
        parts = two_level(rng, rng.normal(0, 0.15, 200), seeds=3, seed_sd=0.02)
        bootstrap = paired_bootstrap({"a": parts}, rng=np.random.default_rng(seed), resamples=200)
        return bootstrap.estimate("a")

    assert estimate(1) == estimate(1)
    assert estimate(1) != estimate(2)


def test_a_change_between_evaluators_pairs_seeds_and_sessions() -> None:
    """Seeds far apart from each other, all changed by the same: the change is certain."""
    rng = np.random.default_rng(0)
    before = [
        PerSession(rng.integers(0, 3, 300) + 2.0 * seed, np.full(300, 10.0)) for seed in range(3)
    ]
    after = [PerSession(p.numerator + 1, p.denominator) for p in before]
    change = paired_change(before, after, rng=rng, resamples=200)
    assert (change.value, change.low, change.high) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("size", [2, 3, 5, 10])
def test_intervals_over_seeds_are_scipys_for_trimmed_means(size: int) -> None:
    values = np.random.default_rng(size).normal(100, 7, size=size)
    estimate = seed_estimate(list(values), sessions=10)
    if size <= 3:
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    else:
        cut = (size // 4) / size
        low, high = stats.mstats.trimmed_mean_ci(values, limits=(cut, cut), alpha=0.05)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_intervals_over_seeds_need_two_and_stay_within_limits() -> None:
    alone = seed_estimate([0.4], sessions=10)
    assert (alone.value, alone.low, alone.high) == (0.4, None, None)
    wide = seed_estimate([0.01, 0.3], sessions=10, limits=(0.0, 1.0))
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_nothing_counted_gives_no_interval() -> None:
    empty = PerSession(np.zeros(5), np.zeros(5))
    bootstrap = paired_bootstrap(
        {"a": [empty], "b": [empty, empty]}, rng=np.random.default_rng(0), resamples=50
    )
    for agent in ("a", "b"):
        estimate = bootstrap.estimate(agent)
        assert np.isnan(estimate.value)
        assert estimate.low is None
    assert np.isnan(bootstrap.difference("a", "b", lower_is_better=True).estimate.value)


def constant(rate: float) -> PerSession:
    return PerSession(np.full(50, rate), np.ones(50))


def test_a_share_of_a_gain_is_that_of_the_means() -> None:
    found = gain_share(
        Gain([constant(0.3), constant(0.4)], constant(0.5)),
        Gain([constant(0.2)], constant(0.6)),
        rng=np.random.default_rng(0),
    )
    assert found.value == pytest.approx((0.5 - 0.35) / (0.6 - 0.2))
    assert found.low < found.value < found.high
    assert (found.seeds, found.sessions) == (2, 50)


def test_trainings_of_both_gains_are_drawn_together() -> None:
    """Where each training keeps exactly half of its own gain, half is sure."""
    gains = [0.1, 0.2, 0.3, 0.4]
    found = gain_share(
        Gain([constant(0.5 - g / 2) for g in gains], constant(0.5)),
        Gain([constant(0.6 - g) for g in gains], constant(0.6)),
        rng=np.random.default_rng(0),
    )
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_share_of_no_gain_has_no_value_and_of_a_doubtful_one_no_interval() -> None:
    rng = np.random.default_rng(0)
    none = gain_share(
        Gain([constant(0.4)], constant(0.5)), Gain([constant(0.7)], constant(0.6)), rng=rng
    )
    assert np.isnan(none.value)
    noisy = PerSession(rng.integers(0, 2, 50).astype(float), np.ones(50))
    other = PerSession(rng.integers(0, 2, 50).astype(float), np.ones(50))
    worse, better = sorted((noisy, other), key=lambda p: -p.mean)
    assert worse.mean > better.mean
    doubtful = gain_share(Gain([constant(0.4)], constant(0.5)), Gain([better], worse), rng=rng)
    assert np.isfinite(doubtful.value)
    assert doubtful.low is doubtful.high is None


@pytest.mark.parametrize(("seeds", "seed_sd"), [(3, 0.03), (10, 0.0), (10, 0.03)])
def test_intervals_of_a_share_cover_the_truth(seeds: int, seed_sd: float) -> None:
    """An agent half way from the reference to the bound, in noisy sessions and seeds."""
    hits, repetitions = 0, 200
    for repetition in range(repetitions):
        rng = np.random.default_rng((repetition, seeds, round(1000 * seed_sd)))
        propensity = rng.normal(0, 0.1, 400)
        agent, [bound], [reference] = (
            two_level(rng, propensity, seeds=n, seed_sd=sd, mean=mean)
            for n, sd, mean in ((seeds, seed_sd, 0.4), (1, 0.0, 0.3), (1, 0.0, 0.5))
        )
        share = gain_share(Gain(agent, reference), Gain([bound], reference), rng=rng, resamples=300)
        hits += share.low <= 0.5 <= share.high
    assert 0.90 <= hits / repetitions <= 0.995


def test_a_difference_over_few_seeds_is_welchs() -> None:
    ours, theirs = [100.0, 130.0, 110.0], [60.0, 65.0]
    found = seed_difference(ours, theirs, sessions=9)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    alone = seed_difference(ours, [50.0], sessions=9)
    one = seed_estimate(ours, sessions=9)
    assert (alone.low, alone.high) == pytest.approx((one.low - 50, one.high - 50))
    assert seed_difference([3.0], [1.0], sessions=9).low is None
    same = seed_difference([3.0, 3.0], [1.0, 1.0], sessions=9)
    assert (same.low, same.value, same.high) == (2.0, 2.0, 2.0)


def test_intervals_of_a_difference_over_ten_seeds_cover_the_truth() -> None:
    hits = 0
    for repetition in range(1000):
        rng = np.random.default_rng(repetition)
        found = seed_difference(
            rng.normal(150, 40, 10).tolist(), rng.normal(100, 10, 10).tolist(), sessions=1
        )
        hits += found.low <= 50 <= found.high
    assert 0.92 <= hits / 1000 <= 0.98
