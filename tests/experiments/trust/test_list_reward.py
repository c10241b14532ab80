"""Rewards of lists: what is predicted against what was logged, done another way."""

import itertools

import numpy as np
import pytest
from musicbox_experiments.trust import list_reward
from musicbox_experiments.trust.list_reward import (
    FIRST_MUSICBOX,
    LISTS,
    SIMULATORS,
    Lists,
    first_musicbox_reward,
)

from musicbox_env.listeners import History, SimilarityListener, skip_probability
from musicbox_env.listeners.similarity import Memory, kept_songs
from musicbox_env.schema import NUM_LEVELS, UNKNOWN


@pytest.fixture
def lists(context):
    return Lists.of(context)


def test_lists_and_their_rewards_written_out(synthetic, log, lists):
    found = list(zip(lists.rows, lists.log.shown, lists.tracks, lists.reward, strict=True))
    expected = []
    for row, session in enumerate(log.sessions):
        plays = synthetic.sessions.frame(session)
        for start in range(len(plays) // 2, len(plays) - 2, 3):
            kept = plays["level"][start : start + 3].to_numpy() >= 2
            reward = sum(0.9**k for k in range(3) if kept[k])
            expected.append((row, start, plays["track"][start : start + 3].to_numpy(), reward))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])
        assert one[3] == pytest.approx(other[3])
    dealt, own = (np.sort(tracks, axis=0) for tracks in (lists.dealt, lists.tracks))
    np.testing.assert_array_equal(dealt, own)


def test_every_simulator_is_correlated_with_the_log(synthetic, context, lists):
    list_reward.measure_simulators(context)
    findings = context.findings
    assert {r.listener for r in findings.records} == {*SIMULATORS, FIRST_MUSICBOX}
    history = lists.log.history(np.arange(len(lists.rows)), lists.log.shown)
    for name in ("LIRD grouped_average", "nearest_k, k = 10"):
        simulator = SimilarityListener(synthetic, SIMULATORS[name])
        predicted = simulator.predict_lists(history, lists.tracks).reward()
        record = findings.get(name, LISTS, "correlation")
        assert record.value == pytest.approx(np.corrcoef(predicted, lists.reward)[0, 1])
        assert record.low < record.value < record.high
        shuffled = simulator.predict_lists(history, lists.dealt).reward()
        expected = np.corrcoef(shuffled, lists.reward)[0, 1]
        assert findings.get(name, LISTS, "shuffled").value == pytest.approx(expected)
        assert record.reference == pytest.approx(expected)


def test_the_first_formula_pair_by_pair(synthetic, lists):
    memory = SimilarityListener(synthetic, mode="grouped_cosine", memory=300).memory
    vectors, history = (
        synthetic.embedding("hybrid"),
        lists.log.history(np.arange(len(lists.rows)), lists.log.shown),
    )
    states = kept_songs(vectors, history.tracks, history.levels)[:20]
    songs = vectors[lists.tracks[:20]]
    got = first_musicbox_reward(memory.groups(), states, songs)
    kept = memory.levels >= 2
    cosine = lambda a, b: a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)  # noqa: E731
    for i in range(20):
        weights, rewards = [], []
        for outcome in np.unique(kept, axis=0):
            members = (kept == outcome).all(axis=1)
            state = memory.states[members].mean(axis=0)
            action = memory.lists[members].mean(axis=0).ravel()
            similar = 0.2 * cosine(states[i], state) + 0.8 * cosine(songs[i].ravel(), action)
            weights.append(similar)
            rewards.append(outcome @ 0.9 ** np.arange(3))
        assert got[i] == pytest.approx(np.dot(weights, rewards) / np.sum(weights), rel=1e-3)


def test_the_first_formula_ignores_how_often_a_reward_occurred():
    """Nine kept lists and one skipped, all alike: the reward is the mean of the two kinds."""
    memory = Memory(
        np.ones((10, 1), np.float32),
        np.ones((10, 1, 1), np.float32),
        np.array([[4]] * 9 + [[0]], np.int8),
    )
    got = first_musicbox_reward(memory.groups(), np.ones((1, 1)), np.ones((1, 1, 1)))
    np.testing.assert_allclose(got, [0.5])


def test_the_first_formula_says_the_same_of_everything_where_cosines_are_alike():
    """As in the first MusicBox, whose embeddings shared a bias."""
    rng = np.random.default_rng(0)

    def biased(*shape):
        vectors = rng.normal(size=(*shape, 8)) + 5.0
        return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)

    memory = Memory(biased(200), biased(200, 3), rng.integers(0, 5, (200, 3)).astype(np.int8))
    got = first_musicbox_reward(memory.groups(), biased(50), biased(50, 3))
    assert got.mean() == pytest.approx(2.71 / 2, abs=0.01)
    assert got.std() < 0.01


def test_expected_list_reward_equals_all_ways_the_list_can_go(truth, log):
    rows, shown = np.array([0, 1]), log.shown[:2]
    slates = np.array([[5, 9, 70], [3, 3, 11]])
    found = list_reward.expected_list_reward(
        truth, log.part(rows), slates, samples=20_000, rng=np.random.default_rng(2)
    )
    for row in range(2):
        expected = 0.0
        for path in itertools.product(range(NUM_LEVELS), repeat=2):
            history = History.logged(log.dataset, log.sessions[[row]], shown[[row]], log.width + 3)
            state, only, weight = truth.begin(history), np.array([0]), 1.0
            for k in range(3):
                track = slates[[row], k]
                chances = truth.level_probabilities(
                    state, history, only, track[:, None], np.array([[UNKNOWN]])
                )[:, 0]
                # The last song's reward needs the path up to it, the earlier ones' do not.
                reward = 0.9**k * (1 - skip_probability(chances)[0])
                expected += weight * reward / NUM_LEVELS ** (2 - k)
                if k < 2:
                    weight *= chances[0, path[k]]
                    level = np.array([path[k]], np.int8)
                    truth.update_state(state, history, only, track, level)
                    history.record(only, track, level)
        assert found[row] == pytest.approx(expected, abs=0.01)
