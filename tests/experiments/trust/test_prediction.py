"""Second halves: continuations selected as the log's sessions, and the challenge's baseline."""

import itertools

import numpy as np
import pytest
from musicbox_experiments.trust import metrics, prediction
from musicbox_experiments.trust.queries import run_free
from scipy.special import expit

from musicbox_env.listeners import Listener, NoState
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.schema import NUM_LEVELS, is_skip


class Moody(Listener[NoState]):
    """Skips more after a skip than after a keep."""

    after_keep = np.array([0.1, 0.1, 0.1, 0.2, 0.5])
    after_skip = np.array([0.5, 0.2, 0.1, 0.1, 0.1])

    def level_probabilities(self, state, history, rows, tracks, plays):
        last = history.levels[rows, history.count[rows] - 1]
        chances = np.where(is_skip(last)[:, None], self.after_skip, self.after_keep)
        return np.repeat(chances[:, None], tracks.shape[1], axis=1)


def test_constant_sessions_are_drawn_anew_and_others_left_alone(log, constant):
    listener, rng = constant([0.45, 0.45, 0, 0, 0.1]), np.random.default_rng(1)
    drawn, _ = run_free(listener, log, samples=5, rng=rng)
    alike = metrics.is_constant(drawn)
    assert alike.any()
    filtered = prediction.redraw_constant(listener, log, drawn, rng=rng)
    assert not metrics.is_constant(filtered).any()
    np.testing.assert_array_equal(filtered[~alike], drawn[~alike])


def test_continuations_that_last_as_long_follow_the_hazard(log, constant):
    """Levels drawn independently: given how long a session lasted, each by its own hazard."""
    chances = np.array([0.3, 0.2, 0.1, 0.1, 0.3])
    leaving = LeavingModel(10, (-2.0,) * 10, last=(-2.0, -1.0, 0.0, 0.5, 1.0))
    part = log.part(np.arange(30))
    drawn, _ = run_free(constant(chances), part, samples=800, rng=np.random.default_rng(0))
    got = prediction.select_lasting(part, drawn, leaving, rng=np.random.default_rng(1))
    hazard = expit(-2.0 + np.array(leaving.last))
    full = np.flatnonzero(part.lengths == 20)
    stayed = chances * (1 - hazard) / (chances @ (1 - hazard))
    left = chances * hazard / (chances @ hazard)
    last = np.concatenate([got[:, row, n - 1] for row, n in enumerate(part.lengths) if n < 20])
    for levels, expected in (
        (got[:, full, 10:19].ravel(), stayed),
        (got[:, full, 19].ravel(), chances),
        (last, left),
    ):
        np.testing.assert_allclose(np.bincount(levels) / len(levels), expected, atol=0.015)


@pytest.mark.parametrize("all_count_alike", [False, True])
def test_predicted_skips_are_those_of_all_continuations_that_last_as_long(log, all_count_alike):
    """Against every continuation, written out with its chance and its listener's of staying."""
    leaving = LeavingModel(
        10, (-2.0,) * 10, last=(-2, -1, 0, 0.5, 1), before=(1, 0, 0, 0, -1), skip_rate=1.5
    )
    short = np.flatnonzero(log.lengths <= 12)[:12]
    part = log.part(short)
    seen = None if all_count_alike else leaving
    got = prediction.predict_second_halves(
        Moody(), part, seen, draws=10_000, rng=np.random.default_rng(0)
    )
    assert np.array_equal(np.isfinite(got), part.second_half)
    off = []
    for row, (shown, length) in enumerate(zip(part.shown, part.lengths, strict=True)):
        ways = np.array(list(itertools.product(range(NUM_LEVELS), repeat=length - shown)))
        whole = np.concatenate([np.tile(part.levels[row, :shown], (len(ways), 1)), ways], axis=1)
        chance = np.ones(len(ways))
        for place in range(shown, length):
            skipped = is_skip(whole[:, place - 1])
            after = np.where(skipped[:, None], Moody.after_skip, Moody.after_keep)
            chance *= after[np.arange(len(ways)), whole[:, place]]
            hazard = leaving.chances(whole, np.full(len(ways), place + 1))
            if not all_count_alike and place + 1 < part.width:
                chance *= hazard if place + 1 == length else 1 - hazard
        expected = chance @ is_skip(whole[:, shown:]) / chance.sum()
        off.append(got[row, shown:length] - expected)
    assert np.abs(np.concatenate(off)).max() < 0.02
    assert np.sqrt(np.mean(np.concatenate(off) ** 2)) < 0.008


def test_repeating_the_last_action_is_its_own_baseline(context):
    log, name = context.log, prediction.LAST_ACTION
    prediction.measure_challenge(context, name, prediction.last_action(log))
    metric = "mean_average_accuracy"
    gain = context.findings.get(name, prediction.CHALLENGE, f"{metric}_over_last_action")
    assert gain.value == gain.low == gain.high == 0
    expected = []
    for row, first in enumerate(log.shown):
        skips = is_skip(log.levels[row, : log.lengths[row]])
        right = skips[first:] == skips[first - 1]
        expected.append(np.mean([right[: i + 1].mean() * right[i] for i in range(len(right))]))
    found = context.findings.get(name, prediction.CHALLENGE, metric)
    assert found.value == pytest.approx(np.mean(expected))
