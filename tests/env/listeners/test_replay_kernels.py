"""Compiled listeners against the same said plainly."""

from dataclasses import fields

import numpy as np
import pytest

from musicbox_env.listeners import (
    GroundTruthListener,
    History,
    LearnedListener,
    Listener,
    ReplayListener,
    put_rows,
)
from musicbox_env.listeners.replay_kernels import likeness_to_donors, replay_probabilities
from musicbox_env.schema import is_skip


@pytest.mark.parametrize("everyone", [True, False])
def test_sessions_begun_in_place_are_those_begun_anew(synthetic, everyone):
    listener, sessions = ReplayListener(synthetic), np.arange(300)
    history = History.logged(synthetic, sessions, synthetic.sessions.num_shown(sessions), 40)
    rows = sessions if everyone else np.arange(5, 300, 7)
    fast, plain = listener.begin(history), listener.begin(history)
    others = History.logged(synthetic, rows + 300, synthetic.sessions.num_shown(rows + 300), 40)
    put_rows(history, rows, others)
    listener.begin_rows(fast, history, rows)
    Listener.begin_rows(listener, plain, history, rows)
    for field in fields(plain):
        name = field.name
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name))
    width = fast.levels.shape[1]
    logged = synthetic.sessions.padded("level", history.session, width)
    np.testing.assert_array_equal(fast.levels, logged)
    tracks = synthetic.sessions.padded("track", history.session, width)
    embedding = synthetic.embedding(synthetic.embedding_names[0])
    expected = np.where(tracks[..., None] >= 0, embedding[tracks], 0)
    np.testing.assert_array_equal(fast.vectors, expected)
    last = history.levels[sessions, history.count - 1]
    np.testing.assert_array_equal(fast.skipped, is_skip(last))


@pytest.mark.parametrize("listener", [ReplayListener, GroundTruthListener, LearnedListener])
@pytest.mark.parametrize("everyone", [True, False])
def test_slates_heard_at_once_are_heard_as_one_by_one(synthetic, listener, everyone):
    listener = listener(synthetic)
    sessions = np.arange(400)
    shown = synthetic.sessions.num_shown(sessions)
    rows = np.arange(400) if everyone else np.arange(3, 400, 3)
    rng = np.random.default_rng(0)
    results = []
    slates = rng.integers(-1, 200, (2, len(rows), 4))
    slates[:, ::2, 3] = slates[:, ::2, 1]  # the same song twice
    plays = np.where(rng.random(slates.shape) < 0.2, 4, -1)
    uniforms = rng.random(slates.shape)
    for kind in (type(listener), Listener):
        history = History.logged(synthetic, sessions, shown, 40)
        state = listener.begin(history)
        results.append(
            [
                kind.simulate_response(listener, state, history, rows, *slate)
                for slate in zip(slates, plays, uniforms, strict=True)
            ]
        )
        results[-1] += [history.tracks, history.levels, history.count]
    for fast, plain in zip(*results, strict=True):
        np.testing.assert_array_equal(fast, plain)


@pytest.mark.parametrize("candidates", [1, 2, 3, 4, 7])
def test_donors_are_as_like_as_their_cosines_say(candidates):
    """Candidates are compared three at a time, which must not show; sessions differ in length."""
    rng = np.random.default_rng(candidates)
    embedding = rng.standard_normal((50, 9)).astype(np.float32)
    donors = rng.integers(0, 50, (30, 6))
    levels = np.where(np.arange(6) < rng.integers(1, 7, (30, 1)), 2, -1).astype(np.int8)
    rows, tracks = rng.permutation(30)[:20], rng.integers(0, 50, (20, candidates))
    found = likeness_to_donors(rows, tracks, embedding, embedding[donors], levels, 0.5)
    exact = np.einsum("mcd,mwd->mcw", embedding[tracks], embedding[donors[rows]], dtype=np.float64)
    expected = np.where(levels[rows][:, None] >= 0, exact / 0.5, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_play_whose_level_is_hidden_is_no_donor_and_those_after_it_are():
    weights = np.array([[[1.0, 2.0, 4.0, 8.0, 16.0]]], np.float32)
    levels = np.array([[0, 4, -1, 3, -1]], np.int8)
    chances, nowhere = np.empty((1, 1, 5)), np.full((1, 1), -1)
    replay_probabilities(weights, levels, np.array([True]), 10.0, nowhere, chances)
    expected = np.array([1.0, 0.0, 0.0, 8.0, 20.0])
    np.testing.assert_allclose(chances[0, 0], expected / 29)
