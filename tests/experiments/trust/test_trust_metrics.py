"""Metrics of user simulators against brute force and known answers."""

import numpy as np
import pytest
from musicbox_experiments.evaluate.resampling import Measured, Resampling, ratio
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.metrics import AUC, Predictions

from musicbox_env.schema import is_skip


def some_predictions(seed=0, sessions=30, plays=8, ties=True):
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), plays)
    probability = rng.random(len(session))
    if ties:
        probability = np.round(probability, 1)
    outcome = rng.random(len(session)) < 0.3 + 0.4 * probability
    return Predictions(probability, outcome, session, sessions)


def brute_auc(probability, skipped):
    pairs = [
        1.0 if p > q else 0.5 if p == q else 0.0
        for p in probability[skipped]
        for q in probability[~skipped]
    ]
    return np.mean(pairs)


def repeated(predictions, times):
    """The plays with each session there as often as ``times`` says."""
    rows = np.repeat(np.arange(len(predictions.session)), times[predictions.session])
    return Predictions(
        predictions.probability[rows],
        predictions.outcome[rows],
        predictions.session[rows],
        predictions.num_sessions,
    )


STATISTICS = {
    "auc": AUC,
    "log_loss": metrics.log_loss,
    "brier": metrics.brier,
    "accuracy": metrics.accuracy,
    "bias": metrics.bias,
    "within_session_slope": metrics.within_session_slope,
}


def test_auc_equals_all_pairs():
    made = some_predictions()
    assert AUC(made).of(np.ones((1, 30)))[0] == pytest.approx(
        brute_auc(made.probability, made.outcome)
    )


@pytest.mark.parametrize("name", sorted(set(STATISTICS) - {"within_session_slope"}))
def test_a_weight_is_a_number_of_copies(name):
    made = some_predictions(1)
    times = np.random.default_rng(2).integers(0, 4, 30)
    weighted = STATISTICS[name](made).of(times[None].astype(float))[0]
    copies = STATISTICS[name](repeated(made, times)).of(np.ones((1, 30)))[0]
    assert weighted == pytest.approx(copies)


def test_scores_by_hand():
    made = Predictions(np.array([0.9, 0.2]), np.array([True, True]), np.array([0, 1]), 2)
    one = np.ones((1, 2))
    assert metrics.log_loss(made).of(one)[0] == pytest.approx(-(np.log(0.9) + np.log(0.2)) / 2)
    assert metrics.brier(made).of(one)[0] == pytest.approx((0.01 + 0.64) / 2)
    assert metrics.accuracy(made).of(one)[0] == 0.5
    assert metrics.bias(made).of(one)[0] == pytest.approx(-0.45)


def test_a_constant_listener_knows_nothing():
    made = some_predictions()
    blank = Predictions(np.full(len(made.session), 0.4), made.outcome, made.session, 30)
    resampling = Resampling(30, rng=np.random.default_rng(0), resamples=50)
    measured = resampling.measure(AUC(blank))
    assert measured.value == measured.low == measured.high == 0.5
    assert np.isnan(resampling.measure(metrics.within_session_slope(blank)).value)


def test_permuted_labels_leave_nothing():
    rng = np.random.default_rng(3)
    made = some_predictions(sessions=400, ties=False)
    permuted = Predictions(made.probability, rng.permutation(made.outcome), made.session, 400)
    measured = Resampling(400, rng=rng, resamples=200).measure(AUC(permuted))
    assert measured.low < 0.5 < measured.high


def test_one_kind_of_play_has_no_auc():
    made = Predictions(np.array([0.1, 0.2]), np.array([True, True]), np.array([0, 1]), 2)
    assert np.isnan(AUC(made).of(np.ones((1, 2)))[0])
    assert Measured(float("nan"), np.array([np.nan])).low is None


def test_intervals_cover_the_truth_where_plays_of_a_session_are_alike():
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        rates = np.clip(0.5 + 0.3 * rng.standard_normal(80), 0, 1)
        truth = 0.5
        skips = rng.binomial(15, rates)
        resampling = Resampling(80, rng=rng, resamples=200)
        measured = resampling.measure(ratio(skips, np.full(80, 15)))
        covered += measured.low <= truth <= measured.high
    assert 0.89 <= covered / 200 <= 0.99


def test_calibration_error_by_hand():
    """Two groups, off by .2 one way and by .1 the other: they do not cancel."""
    probability = np.repeat([0.3, 0.6], 100)
    skipped = np.concatenate([np.arange(100) < 50, np.arange(100) < 50])
    made = Predictions(probability, skipped, np.arange(200), 200)
    assert metrics.calibration_error(made).of(np.ones((1, 200)))[0] == pytest.approx(0.15)
    assert metrics.bias(made).of(np.ones((1, 200)))[0] == pytest.approx(-0.05)


def test_a_perfect_listener_shows_the_noise_and_no_more():
    rng = np.random.default_rng(5)
    errors, noises = [], []
    for _ in range(40):
        probability = rng.beta(1, 1, 2000)
        made = Predictions(
            probability, rng.random(2000) < probability, np.repeat(np.arange(200), 10), 200
        )
        errors.append(metrics.calibration_error(made).of(np.ones((1, 200)))[0])
        noises.append(metrics.calibration_noise(made, rng, times=20))
    assert np.mean(errors) == pytest.approx(np.mean(noises), rel=0.08)


def test_calibration_bins_hold_equal_numbers_and_keep_ties_together():
    probability = np.random.default_rng(6).random(1000)
    assert np.bincount(metrics.probability_bins(probability)).tolist() == [100] * 10
    tied = np.repeat([0.1, 0.5], 50)
    assert len(np.unique(metrics.probability_bins(tied)[:50])) == 1


def test_calibration_curve_lies_on_the_real_rates():
    made = some_predictions(sessions=50)
    resampling = Resampling(50, rng=np.random.default_rng(7), resamples=20)
    curve = metrics.calibration_curve(made, resampling)
    bins = metrics.probability_bins(made.probability)
    assert len(curve) == len(np.unique(bins))
    for b, (predicted, real) in zip(np.unique(bins), curve, strict=True):
        assert predicted == pytest.approx(made.probability[bins == b].mean())
        assert real.value == pytest.approx(made.outcome[bins == b].mean())


def test_average_accuracy_by_the_formula_of_the_challenge():
    correct = np.array([[True, False, True, False], [False, True, True, True]])
    counted = np.array([[True, True, True, False], [False, True, True, True]])
    found = metrics.average_accuracy(correct, counted)
    np.testing.assert_allclose(found, [(1 + 2 / 3) / 3, 1.0])
    rng = np.random.default_rng(8)
    correct, counted = rng.random((50, 20)) < 0.6, np.arange(20) >= rng.integers(5, 11, (50, 1))
    for row, value in enumerate(metrics.average_accuracy(correct, counted)):
        right = [c for c, n in zip(correct[row], counted[row], strict=True) if n]
        total = sum(np.mean(right[: i + 1]) * right[i] for i in range(len(right)))
        assert value == pytest.approx(total / len(right))


def test_first_prediction_is_the_first_that_counts():
    correct = np.array([[True, False, True], [False, True, False]])
    counted = np.array([[False, True, True], [False, True, True]])
    assert metrics.first_correct(correct, counted).tolist() == [False, True]


def some_sessions(seed=0, samples=2, n=40):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 21, n)
    levels = rng.integers(0, 5, (samples, n, 20)).astype(np.int8)
    levels[..., 0] = 0
    levels = np.where(np.arange(20) < lengths[:, None], levels, -1).astype(np.int8)
    return levels, lengths // 2


def test_session_shape_play_by_play():
    levels, shown = some_sessions()
    after = {True: [], False: []}
    pairs = {lag: [] for lag in metrics.LAGS}
    runs, rates = {True: [], False: []}, []
    for sample in levels:
        for row, first in zip(sample, shown, strict=True):
            heard = [bool(s) for s in is_skip(row[row >= 0])]
            late = heard[first:]
            rates.append(np.mean(late))
            for i in range(first, len(heard)):
                after[heard[i - 1]].append(heard[i])
            for lag in metrics.LAGS:
                pairs[lag] += list(zip(late[:-lag], late[lag:], strict=True))
            run = 1
            for before, now in zip(late, [*late[1:], None], strict=True):
                if now == before:
                    run += 1
                else:
                    runs[before].append(run)
                    run = 1
    expected = {
        "skip_after_keep": np.mean(after[False]),
        "skip_after_skip": np.mean(after[True]),
        **{
            f"autocorrelation_{lag}": np.corrcoef(np.array(p, float).T)[0, 1]
            for lag, p in pairs.items()
        },
        "skip_run": np.mean(runs[True]),
        "keep_run": np.mean(runs[False]),
        "spread": np.std(rates),
    }
    shape = metrics.session_shape(levels, shown)
    for metric, value in expected.items():
        assert shape[metric].of(np.ones((1, 40)))[0] == pytest.approx(value), metric


def test_skip_by_place_counts_only_songs_after_the_shown_ones():
    levels, shown = some_sessions(1)
    for place in (5, 8, 15):
        reached = (levels[..., place] >= 0) & (shown <= place)
        expected = is_skip(levels[..., place])[reached].mean()
        found = metrics.skip_by_place(levels, shown, place).of(np.ones((1, 40)))[0]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("real", [0.5, 1.0, 1.4])
def test_slopes_find_how_much_of_a_songs_effect_is_real(real):
    """A session effect that the listener misestimates must not count as a song's effect."""
    rng = np.random.default_rng(9)
    n, plays = 4000, 10
    session = np.repeat(np.arange(n), plays)
    effect = 0.15 * (rng.random(n * plays) - 0.5)
    session_effect = np.repeat(0.3 + 0.4 * rng.random(n), plays)
    skipped = rng.random(n * plays) < session_effect + 0.05 + real * effect
    probability = session_effect + effect
    everything = np.ones(n * plays, np.bool_)
    made = Predictions(probability, skipped, session, n)
    slope = metrics.item_effect_slope(made, effect, everything)
    resampling = Resampling(n, rng=rng, resamples=100)
    measured = resampling.measure(slope)
    assert measured.low <= real <= measured.high
    assert measured.high - measured.low < 0.5
    plain = resampling.measure(metrics.within_session_slope(made))
    assert plain.low <= real <= plain.high


def test_reranking_takes_the_songs_least_likely_to_be_skipped():
    probability = np.array([[0.9, 0.1, 0.2, 0.8, 0.3], [0.5, 0.6, 0.7, np.nan, np.nan]])
    skipped = np.array([[True, False, True, True, True], [True, False, True, False, False]])
    candidates = np.array([[True] * 5, [True, True, True, False, False]])
    real, predicted = metrics.rerank(
        probability, skipped, candidates, size=2, rng=np.random.default_rng(0)
    )
    # Session 1 takes places 2 and 3: 1 skip where 1.6 are expected; session 2 places 1 and 2: 1
    # where 4/3 are.
    one = np.ones((1, 2))
    assert real.of(one)[0] == pytest.approx(2 / (1.6 + 4 / 3) - 1)
    expected = (0.1 + 0.2 + 0.5 + 0.6) / (2.3 * 2 / 5 + 1.8 * 2 / 3) - 1
    assert predicted.of(one)[0] == pytest.approx(expected)


def test_reranking_by_equal_probabilities_is_a_random_choice():
    """The log's order is no neutral one: here all its early plays are kept."""
    skipped = np.tile(np.arange(10) >= 5, (3000, 1))
    candidates = np.ones(skipped.shape, np.bool_)
    real, predicted = metrics.rerank(
        np.full(skipped.shape, 0.5), skipped, candidates, size=3, rng=np.random.default_rng(1)
    )
    assert real.of(np.ones((1, 3000)))[0] == pytest.approx(0.0, abs=0.03)
    assert predicted.of(np.ones((1, 3000)))[0] == pytest.approx(0.0)


def test_variance_is_divided_between_session_song_and_chance():
    rng = np.random.default_rng(10)
    session_effect, song = 0.2 * (rng.random((5000, 1)) - 0.5), 0.1 * (rng.random((5000, 4)) - 0.5)
    shares = metrics.variance_shares(0.5 + session_effect + song)
    one = np.ones((1, 5000))
    assert shares["session"].of(one)[0] == pytest.approx(0.2**2 / 12 / 0.25, rel=0.05)
    assert shares["song"].of(one)[0] == pytest.approx(0.1**2 / 12 / 0.25, rel=0.05)


def test_correlation_equals_numpys():
    rng = np.random.default_rng(11)
    x, session = rng.random(60), np.repeat(np.arange(12), 5)
    y = x + rng.random(60)
    found = metrics.correlation(Predictions(x, y, session, 12)).of(np.ones((1, 12)))[0]
    assert found == pytest.approx(np.corrcoef(x, y)[0, 1])
    alike = Predictions(np.full(60, 0.3), y, session, 12)
    flat = metrics.correlation(alike).of(np.ones((1, 12)))[0]
    assert np.isnan(flat)


def test_paired_differences_are_surer_than_their_parts():
    made = some_predictions(sessions=200, plays=10, ties=False)
    worse = Predictions(
        np.clip(made.probability + 0.02, 0, 1), made.outcome, made.session, made.num_sessions
    )
    resampling = Resampling(200, rng=np.random.default_rng(13), resamples=100)
    one, other = (resampling.measure(metrics.brier(p)) for p in (made, worse))
    gap = other.minus(one)
    assert gap.value == pytest.approx(other.value - one.value)
    assert gap.high - gap.low < 0.3 * (one.high - one.low)


def test_centred_draws_keep_their_width():
    measured = Measured(0.1, np.array([0.2, 0.3, 0.4]))
    centred = measured.centred()
    assert centred.draws.mean() == pytest.approx(0.1)
    assert np.ptp(centred.draws) == pytest.approx(np.ptp(measured.draws))
