"""Directions and test folds as one: sessions are the units, directions a spread of their own."""

import numpy as np
import pytest
from musicbox_experiments.evaluate.knowledge import knowledge
from musicbox_experiments.evaluate.metrics import PerSession, skip_rate
from musicbox_experiments.evaluate.pooling import by_source, grouped, joined
from musicbox_experiments.evaluate.rollout import Rollout
from musicbox_experiments.evaluate.statistics import Gain, gain_excess, paired_bootstrap

SESSIONS = 400


def rollout(levels, agent="logged", seed=0, known=None):
    """One slate of each session, all heard; ``levels`` are ``(n, k)``."""
    levels = np.asarray(levels, np.int8)[:, None]
    slates = np.zeros(levels.shape, np.int32)
    n = len(levels)
    return Rollout(
        agent,
        seed,
        "nobody",
        np.arange(n),
        slates,
        levels,
        np.zeros(levels.shape, bool),
        np.zeros(n),
        known=None if known is None else np.asarray(known, np.int64)[:, None],
        held=np.zeros(levels.shape, bool),
    )


def part(skipped):
    return PerSession(np.asarray(skipped, float), np.ones(len(skipped)))


def test_sessions_of_both_directions_are_added_up():
    one, two = rollout([[0, 4], [4, 4]]), rollout([[0, 0], [0, 4]])
    both = joined([one, two], [0, 1])
    assert both.slates.shape == (4, 1, 2)
    assert both.source.tolist() == [0, 0, 1, 1]
    found = grouped(skip_rate(both), both.sessions, both.source)
    assert found.numerator.tolist() == [3, 1]
    assert found.denominator.tolist() == [4, 4]
    assert found.by_source.tolist() == [0.25, 0.75]
    assert found.mean == 0.5
    apart = by_source(both)
    np.testing.assert_array_equal(apart[1].levels, two.levels)
    assert grouped(skip_rate(one), one.sessions, None).by_source is None


def test_rollouts_of_other_lengths_are_padded():
    short, long = rollout([[0, 4]]), rollout([[0, 4]])
    steps = np.concatenate([long.levels, long.levels], axis=1)
    long = Rollout(
        "logged",
        0,
        "nobody",
        np.arange(1),
        np.zeros(steps.shape, np.int32),
        steps,
        np.zeros(steps.shape, bool),
        np.zeros(1),
    )
    both = joined([short, long], [0, 1])
    assert both.levels.shape == (2, 2, 2)
    assert both.heard.sum() == 6
    assert both.known is None


def test_test_folds_of_one_direction_have_no_directions():
    folds = [PerSession(np.ones(2), np.ones(2)) for _ in range(2)]
    whole = PerSession(
        *(np.concatenate([getattr(f, n) for f in folds]) for n in ("numerator", "denominator"))
    )
    assert grouped(whole, np.arange(4), np.array([0, 0, 2, 2])).by_source is None
    assert grouped(whole, np.arange(4), np.array([0, 0, 1, 3])).by_source is not None


def test_a_session_evaluated_twice_is_one_unit():
    """Twice the same answers are no more evidence than once."""
    rng = np.random.default_rng(0)
    levels = np.where(rng.random((SESSIONS, 3)) < 0.5, 0, 4)
    once = rollout(levels)
    twice = joined([once, once], [0, 1])
    found = [
        paired_bootstrap(
            {"a": [grouped(skip_rate(r), r.sessions, r.source)]}, rng=np.random.default_rng(1)
        ).estimate("a")
        for r in (once, twice)
    ]
    assert found[0].sessions == found[1].sessions == SESSIONS
    assert (found[0].low, found[0].high) == pytest.approx((found[1].low, found[1].high))


def interval_of(by_source, seeds=10):
    """Interval of a difference that is so large in each direction, and surely so."""
    rng = np.random.default_rng(2)
    skipped = (rng.random(SESSIONS) < 0.5).astype(float)
    sources = np.asarray(by_source, float)
    theirs = [PerSession(skipped, np.ones(SESSIONS), np.full(len(sources), 0.5))]
    ours = [PerSession(skipped + sources.mean(), np.ones(SESSIONS), 0.5 + sources)] * seeds
    found = paired_bootstrap({"a": ours, "b": theirs}, rng=rng)
    return found.difference("a", "b", lower_is_better=True).estimate


def test_directions_that_disagree_widen_the_interval():
    alike, apart = interval_of([-0.05, -0.05]), interval_of([-0.09, -0.01])
    assert alike.value == pytest.approx(apart.value)
    assert alike.high - alike.low < 1e-6
    assert apart.low < -0.09
    assert apart.high > -0.01


def test_ten_directions_say_more_than_two():
    two, ten = interval_of([-0.09, -0.01]), interval_of([-0.09, -0.01] * 5)
    assert ten.high - ten.low < (two.high - two.low) / 3


def test_skips_are_told_apart_by_what_the_evaluator_heard():
    levels, known = [[0, 4, 0], [0, 4, 4]], [[30, 25, 0], [7, 0, 20]]
    found = knowledge({"logged": {0: rollout(levels, known=known)}}, "logged", resamples=50)[
        "logged"
    ]
    assert found["heard_20"]["share"]["value"] == pytest.approx(3 / 6)
    assert found["heard_20"]["skip_rate"]["value"] == pytest.approx(1 / 3)
    assert found["heard_5"]["share"]["value"] == pytest.approx(4 / 6)
    assert found["heard_5"]["skip_rate"]["value"] == pytest.approx(2 / 4)
    assert found["never_heard"]["skip_rate"]["value"] == pytest.approx(1 / 2)
    assert found["held"]["share"]["value"] == 0.0
    assert knowledge({"logged": {0: rollout(levels)}}, "logged", resamples=50) == {}


def test_an_excess_of_a_gain_is_of_paired_sessions():
    """Stated and true gains vary by session alike; their difference is known exactly."""
    rng = np.random.default_rng(3)
    skipped = rng.random(SESSIONS)
    agents = [part(skipped - 0.1), part(skipped - 0.12)]
    stated = Gain([part(a.numerator - 0.03) for a in agents], part(skipped))
    found = gain_excess(stated, Gain(agents, part(skipped)), rng=rng)
    assert found.value == pytest.approx(0.03)
    assert (found.low, found.high) == pytest.approx((0.03, 0.03))
