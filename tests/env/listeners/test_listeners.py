"""One contract for every listener, and for each its own law done another way."""

import copy
import itertools
import pickle
import shutil
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from altered import copy_to_alter
from scipy.special import expit

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import (
    LISTENERS,
    GroundTruthListener,
    History,
    ReplayListener,
    SimilarityListener,
    make_listener,
    put_rows,
    sample_levels,
    skip_probability,
)
from musicbox_env.listeners.similarity import MODES
from musicbox_env.schema import NUM_LEVELS

NO_PLAY = -1


KINDS = {
    **LISTENERS,
    **{f"similarity, {mode}": partial(SimilarityListener, mode=mode) for mode in MODES},
}
"""Every listener in every mode."""


@pytest.fixture(params=sorted(KINDS))
def listener(request, synthetic):
    return KINDS[request.param](synthetic)


def begin(listener, sessions, capacity=30):
    dataset = listener.dataset
    sessions = np.asarray(sessions)
    shown = dataset.sessions.lengths(sessions) // 2
    history = History.logged(dataset, sessions, shown, capacity)
    return history, listener.begin(history)


def hear(listener, state, history, rows, tracks, levels):
    listener.update_state(state, history, rows, tracks, levels)
    history.record(rows, tracks, levels)


def walk(listener, sessions, steps=5, seed=0):
    """Some songs heard at random levels; gives history and state in the middle of things."""
    history, state = begin(listener, sessions)
    rng = np.random.default_rng(seed)
    rows = np.arange(len(history.count))
    for _ in range(steps):
        tracks = rng.integers(0, len(listener.dataset.catalog), len(rows))
        hear(listener, state, history, rows, tracks, rng.integers(0, 5, len(rows)).astype(np.int8))
    return history, state


def test_probabilities_are_probabilities(listener):
    history, state = walk(listener, np.arange(50))
    tracks = np.random.default_rng(1).integers(0, 200, (50, 7))
    plays = np.where(tracks % 3 == 0, 2, NO_PLAY)
    chances = listener.level_probabilities(state, history, np.arange(50), tracks, plays)
    assert chances.shape == (50, 7, NUM_LEVELS)
    assert (chances >= 0).all()
    np.testing.assert_allclose(chances.sum(axis=-1), 1.0)


def test_batched_equals_one_at_a_time(listener):
    sessions = np.arange(20)
    rng = np.random.default_rng(3)
    tracks = rng.integers(0, 200, (20, 4))
    heard, levels = rng.integers(0, 200, (6, 20)), rng.integers(0, 5, (6, 20)).astype(np.int8)
    plays = np.full((20, 4), NO_PLAY)
    rows = np.arange(20)
    history, state = begin(listener, sessions)
    for t, level in zip(heard, levels, strict=True):
        hear(listener, state, history, rows, t, level)
    batched = listener.level_probabilities(state, history, rows, tracks, plays)
    for i in sessions:
        only = np.zeros(1, np.int64)
        history, state = begin(listener, [i])
        for t, level in zip(heard, levels, strict=True):
            hear(listener, state, history, only, t[i : i + 1], level[i : i + 1])
        alone = listener.level_probabilities(
            state, history, only, tracks[i : i + 1], plays[i : i + 1]
        )
        np.testing.assert_allclose(alone[0], batched[i], rtol=1e-6)


def test_all_may_be_asked_the_same(listener):
    """Candidates ``(1, c)``: what each session says of them asked by itself."""
    history, state = walk(listener, np.arange(12))
    rows, tracks = np.array([1, 4, 5, 11]), np.arange(40, 70)[None]
    plays = np.full((4, 30), NO_PLAY)
    together = listener.level_probabilities(state, history, rows, tracks, plays)
    each = listener.level_probabilities(state, history, rows, np.repeat(tracks, 4, axis=0), plays)
    np.testing.assert_allclose(together, each, rtol=1e-6)


def test_same_draws_same_answers(listener):
    """Whole slates at the same numbers, by two of a kind: nothing else is drawn from."""
    other = pickle.loads(pickle.dumps(listener))
    rng = np.random.default_rng(8)
    slates, uniforms = rng.integers(0, 200, (25, 4)), rng.random((25, 4))
    heard = []
    for one in (listener, other, listener):
        history, state = begin(one, np.arange(25))
        plays = np.full(slates.shape, NO_PLAY)
        asked = np.arange(25), slates.copy(), plays, uniforms
        heard.append(one.simulate_response(state, history, *asked))
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_array_equal(heard[0], heard[2])
    assert len(np.unique(heard[0])) > 2


def test_asking_changes_nothing(listener):
    history, state = walk(listener, np.arange(10))
    before = copy.deepcopy((history, state))
    tracks = np.arange(10)[:, None]
    ask = lambda: listener.level_probabilities(  # noqa: E731
        state, history, np.arange(10), tracks, np.full((10, 1), NO_PLAY)
    )
    np.testing.assert_array_equal(ask(), ask())
    for old, new in zip(before, (history, state), strict=True):
        for field in fields(old):
            np.testing.assert_array_equal(getattr(old, field.name), getattr(new, field.name))


def test_hearing_touches_only_the_sessions_that_heard(listener):
    history, state = walk(listener, np.arange(10))
    before = copy.deepcopy(state)
    rows = np.array([2, 7])
    hear(listener, state, history, rows, np.array([5, 6]), np.array([0, 4], np.int8))
    others = np.setdiff1d(np.arange(10), rows)
    for field in fields(state):
        old, new = getattr(before, field.name), getattr(state, field.name)
        np.testing.assert_array_equal(old[others], new[others])


def test_a_row_that_begins_anew_is_as_if_alone(listener):
    history, state = walk(listener, np.arange(6))
    fresh_history, fresh_state = begin(listener, [40, 41])
    rows = np.array([1, 4])
    put_rows(history, rows, fresh_history)
    put_rows(state, rows, fresh_state)
    tracks, plays = np.array([[3, 9], [3, 9]]), np.full((2, 2), NO_PLAY)
    np.testing.assert_array_equal(
        listener.level_probabilities(state, history, rows, tracks, plays),
        listener.level_probabilities(fresh_state, fresh_history, np.arange(2), tracks, plays),
    )


def test_what_is_known_only_after_the_play_has_no_say(synthetic_folder, synthetic, tmp_path):
    """Every column of the second half changes; only a replayed label may follow it.

    Listeners are fitted on the log as it is, and asked about the changed one.
    The replay listener answers with the levels of the whole session: that is what replaying
    means, and why only the other listeners are held to this.
    """
    changed = tmp_path / "changed"
    copy_to_alter(synthetic_folder, changed)
    offsets = np.load(changed / "sessions" / "offsets.npy")
    for file in (changed / "plays").glob("*.npy"):
        column = np.lib.format.open_memmap(file, mode="r+")
        for start, end in itertools.pairwise(offsets):
            column[start + (end - start) // 2 : end] = 1
        column.flush()
    rows, tracks = np.arange(60), np.tile(np.arange(8), (60, 1))
    plays = np.full(tracks.shape, NO_PLAY)
    for name in sorted(set(KINDS) - {"replay"}):
        listener, answers = KINDS[name](synthetic), []
        for dataset in (synthetic, Dataset(changed)):
            listener.dataset = dataset
            history, state = begin(listener, np.arange(60))
            answers.append(listener.level_probabilities(state, history, rows, tracks, plays))
        np.testing.assert_array_equal(*answers)


def test_sampling_inverts_the_distribution():
    chances = np.array([0.4, 0.1, 0.15, 0.05, 0.3])
    uniforms = (np.arange(10_000) + 0.5) / 10_000
    levels = sample_levels(np.tile(chances, (10_000, 1)), uniforms)
    np.testing.assert_allclose(np.bincount(levels) / 10_000, chances, atol=1e-4)
    assert (np.diff(levels) >= 0).all()
    assert skip_probability(chances) == pytest.approx(0.5)
    certain = np.eye(5)
    np.testing.assert_array_equal(sample_levels(certain, np.full(5, 0.999999)), np.arange(5))
    np.testing.assert_array_equal(sample_levels(certain, np.zeros(5)), np.arange(5))


def test_replay_gives_logged_levels_with_certainty(synthetic):
    listener = ReplayListener(synthetic)
    history, state = begin(listener, np.arange(40))
    for i in range(40):
        plays = synthetic.sessions.frame(i)
        places = np.arange(len(plays) // 2, len(plays))[None]
        tracks = plays["track"].to_numpy()[places[0]][None]
        chances = listener.level_probabilities(state, history, np.array([i]), tracks, places)
        np.testing.assert_array_equal(chances[0].argmax(axis=1), plays["level"].iloc[places[0]])
        np.testing.assert_array_equal(chances[0].max(axis=1), 1.0)


def test_imputed_levels_equal_the_rule_play_by_play(synthetic):
    listener = ReplayListener(synthetic, temperature=0.7, persistence=8.0)
    vectors = synthetic.embedding("hybrid")
    history, state = walk(listener, np.arange(30), steps=1, seed=4)
    tracks = np.random.default_rng(5).integers(0, 200, (30, 2))
    got = listener.level_probabilities(
        state, history, np.arange(30), tracks, np.full((30, 2), NO_PLAY)
    )
    for i in range(30):
        plays = synthetic.sessions.frame(i)
        last_skipped = history.levels[i, history.count[i] - 1] < 2
        for c in range(2):
            expected = np.zeros(5)
            for j, (donor, level) in enumerate(zip(plays["track"], plays["level"], strict=True)):
                weight = np.exp(float(vectors[donor] @ vectors[tracks[i, c]]) / 0.7)
                if j > 0 and (plays["level"][j - 1] < 2) == last_skipped:
                    weight *= 8.0
                expected[level] += weight
            np.testing.assert_allclose(got[i, c], expected / expected.sum(), rtol=1e-5)


def test_ground_truth_equals_the_law_written_out(synthetic):
    listener = GroundTruthListener(synthetic)
    truth, law = listener.truth, listener.truth.law
    history, state = walk(listener, np.arange(25), steps=4, seed=6)
    tracks = np.random.default_rng(7).integers(0, 200, (25, 3))
    tracks[:, 0] = history.tracks[np.arange(25), history.count - 2]
    got = skip_probability(
        listener.level_probabilities(
            state, history, np.arange(25), tracks, np.full((25, 3), NO_PLAY)
        )
    )
    for i in range(25):
        shown = history.shown[i]
        last = synthetic.sessions.frame(i).iloc[shown - 1]
        previous, running = 0.5, 0.5
        for level in history.levels[i, : history.count[i]]:
            previous = float(level < 2)
            running = law.running_weight * running + (1 - law.running_weight) * previous
        for c in range(3):
            track = tracks[i, c]
            affinity = float(truth.session_taste[i] @ truth.track_vectors[track])
            logit = (
                law.position[min(history.count[i], len(law.position) - 1)]
                + law.previous_skip * (previous - 0.5)
                + law.running_skip * (running - 0.5)
                + truth.session_propensity[i]
                + (law.context_type[int(last["context_type"])] if last["context_type"] >= 0 else 0)
                + (law.shuffle[int(last["shuffle"])] if last["shuffle"] >= 0 else 0)
                - truth.track_quality[track]
                - law.taste * (affinity - law.affinity_center)
                + law.repeat * (track in history.tracks[i, : history.count[i]])
            )
            assert got[i, c] == pytest.approx(float(expit(logit)), rel=1e-5)


def order_of_new_songs(listener, synthetic, session):
    """Skip probabilities of songs new to a session, in the order of its ranking space."""
    history, state = begin(listener, [session])
    log = synthetic.sessions
    own = log.column("track")[log.offsets[session] : log.offsets[session + 1]]
    new = np.setdiff1d(np.arange(len(synthetic.catalog)), own)
    space = listener.ranking_space(state, np.array([0]))
    assert space.sessions.shape == (1, space.tracks.shape[1])
    products = space.tracks[new].astype(np.float64) @ space.sessions[0].astype(np.float64)
    nowhere = np.full((1, len(new)), NO_PLAY)
    chances = listener.level_probabilities(state, history, np.array([0]), new[None], nowhere)
    return skip_probability(chances)[0][np.argsort(-products)], space


def test_products_order_the_songs_of_the_ground_truth(synthetic):
    listener = GroundTruthListener(synthetic)
    for session in range(40):
        skips, space = order_of_new_songs(listener, synthetic, session)
        assert space.exact
        assert (np.diff(skips) > -1e-6).all()


@pytest.mark.parametrize("persistence", [1.0, 10.0])
def test_products_order_imputed_answers_to_first_order(synthetic, persistence):
    """At a high temperature the first order is all there is."""
    listener = ReplayListener(synthetic, temperature=100.0, persistence=persistence)
    for session in range(40):
        skips, space = order_of_new_songs(listener, synthetic, session)
        assert not space.exact
        assert np.ptp(skips) > 1e-4
        assert (np.diff(skips) > -0.02 * np.ptp(skips)).all()


def test_ground_truth_needs_the_truth(synthetic_folder, tmp_path):
    without = tmp_path / "logs"
    shutil.copytree(synthetic_folder, without)
    shutil.rmtree(without / "truth")
    with pytest.raises(FileNotFoundError, match="musicbox synthesize"):
        make_listener("ground_truth", Dataset(without))


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"persistence": -1}])
def test_replay_refuses_bad_settings(synthetic, settings):
    with pytest.raises(ValueError, match="above 0"):
        ReplayListener(synthetic, **settings)
