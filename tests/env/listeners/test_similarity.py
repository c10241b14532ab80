"""LIRD's simulator done again by brute force, and the defects of earlier versions kept out."""

import itertools

import numpy as np
import pytest
from handmade import SESSIONS, write_sessions

from musicbox_env.listeners import History, SimilarityListener, make_listener
from musicbox_env.listeners.files import write_fit
from musicbox_env.listeners.similarity import (
    MODES,
    ListPrediction,
    Memory,
    SimilarityConfig,
    kept_songs,
    level_states,
    list_reward,
    possible_outcomes,
)
from musicbox_env.schema import split_codes

ALL = 1_000_000


def unit(vector):
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector


def cosine(a, b):
    return float(unit(a) @ unit(b))


def asked(dataset, n=12, capacity=25):
    sessions = dataset.sessions.sessions_in("test")[:n]
    history = History.logged(dataset, sessions, dataset.sessions.lengths(sessions) // 2, capacity)
    slates = np.random.default_rng(2).integers(0, len(dataset.catalog), (n, 3))
    return history, slates


def similarities(listener, history, slates):
    """Equation 1 with every pair in memory, one at a time ``(n, pairs)``."""
    memory, alpha = listener.memory, listener.config.state_weight
    vectors = listener.dataset.embedding("hybrid")
    found = np.zeros((len(slates), len(memory.levels)))
    for i, slate in enumerate(slates):
        tracks, levels = history.tracks[i, : history.count[i]], history.levels[i]
        if listener.config.mode == "nearest_k":
            state = [(levels[p] / 4 - 0.5) * 0.8**age for age, p in enumerate(_newest(history, i))]
        else:
            kept = [t for t, level in zip(tracks, levels, strict=False) if level >= 2]
            state = np.concatenate([vectors[t] for t in kept[::-1][:10]] or [np.zeros(32)])
        state = np.pad(state, (0, memory.states.shape[1] - len(state)))
        action = np.concatenate([vectors[t] for t in slate])
        for j in range(len(memory.levels)):
            past = memory.lists[j, : len(slate)].ravel()
            similar = alpha * cosine(state, memory.states[j])
            found[i, j] = similar + (1 - alpha) * cosine(action, past)
    return found


def _newest(history, i):
    return range(history.count[i] - 1, max(history.count[i] - 11, -1), -1)


@pytest.mark.parametrize("mode", ["normal", "nearest_k"])
def test_nearest_pairs_by_brute_force(synthetic, mode):
    listener = SimilarityListener(synthetic, mode=mode, memory=300, k=7, shortlist=300)
    history, slates = asked(synthetic)
    exact = similarities(listener, history, slates)
    got = listener.predict_lists(history, slates)
    for i in range(len(slates)):
        nearest = np.argsort(-exact[i])[: 1 if mode == "normal" else 7]
        expected = np.zeros(8)
        for j in nearest:
            outcome = listener.memory.levels[j] >= 2
            expected[int(outcome @ [1, 2, 4])] += 1 / len(nearest)
        np.testing.assert_allclose(got.probabilities[i], expected)


@pytest.mark.parametrize("mode", ["grouped_average", "grouped_cosine"])
def test_groups_by_brute_force(synthetic, mode):
    """Equation 3, member by member; the cosine variant weighs its means by size as well."""
    listener = SimilarityListener(synthetic, mode=mode, memory=200, alpha=0.4)
    history, slates = asked(synthetic)
    exact = similarities(listener, history, slates)
    memory = listener.memory
    group = (memory.levels >= 2) @ np.array([1, 2, 4])
    got = listener.predict_lists(history, slates).probabilities
    vectors = synthetic.embedding("hybrid")
    for i, slate in enumerate(slates):
        weight = np.zeros(8)
        for x in range(8):
            members = np.flatnonzero(group == x)
            if not len(members):
                continue
            if mode == "grouped_average":
                weight[x] = max(exact[i, members].sum(), 0)
                continue
            count = history.count[i]
            state = kept_songs(
                vectors, history.tracks[i : i + 1, :count], history.levels[i : i + 1, :count]
            )[0]
            action = vectors[slate].ravel()
            mean_state = memory.states[members].mean(axis=0)
            mean_list = memory.lists[members].mean(axis=0).ravel()
            similar = 0.4 * cosine(state, mean_state) + 0.6 * cosine(action, mean_list)
            weight[x] = len(members) * max(similar, 0)
        if not weight.any():
            weight = np.bincount(group, minlength=8)
        np.testing.assert_allclose(got[i], weight / weight.sum(), rtol=1e-4, atol=1e-6)


def test_probabilities_stay_probabilities_where_everything_points_away():
    """Opposite pairs have negative similarity; earlier versions made probabilities of it."""
    memory = Memory(
        np.array([[1, 0], [0, 1]], np.float32),
        np.array([[[1, 0]], [[0, 1]]], np.float32),
        np.array([[4], [0]], np.int8),
    )
    away = -np.ones((1, 2)) / np.sqrt(2)
    mixed = np.array([[1.0, -1.0]]) / np.sqrt(2)
    for cosine_of_means in (False, True):
        for point in (away, mixed):
            got = memory.groups().probabilities(point, point[:, None], 0.5, cosine=cosine_of_means)
            assert (got >= 0).all()
            assert (got <= 1).all()
            np.testing.assert_allclose(got.sum(axis=1), 1)
    np.testing.assert_allclose(
        memory.groups().probabilities(mixed, mixed[:, None], 0.5, cosine=False), [[0, 1]]
    )


@pytest.mark.parametrize("as_cosine", [False, True])
def test_a_group_counts_by_its_size(as_cosine):
    memory = Memory(
        np.ones((10, 1), np.float32),
        np.ones((10, 1, 1), np.float32),
        np.array([[4]] * 9 + [[0]], np.int8),
    )
    got = memory.groups().probabilities(np.ones((1, 1)), np.ones((1, 1, 1)), 0.2, cosine=as_cosine)
    np.testing.assert_allclose(got, [[0.1, 0.9]])


def test_groups_are_those_of_the_memory_that_is_there():
    """Recomputed from another memory they differ; the first MusicBox's never did."""
    states, lists = np.eye(2, dtype=np.float32), np.ones((2, 1, 1), np.float32)
    before = Memory(states, lists, np.array([[4], [0]], np.int8)).groups()
    after = Memory(states, lists, np.array([[0], [4]], np.int8)).groups()
    np.testing.assert_array_equal(before.states, after.states[::-1])
    np.testing.assert_array_equal(before.sizes, [1, 1])


def test_each_memory_is_a_unit_vector_of_its_own(synthetic):
    """The norm runs over a pair's dimensions, not over the memory."""
    for mode in MODES:
        memory = SimilarityListener(synthetic, mode=mode, memory=500).memory
        norms = np.linalg.norm(memory.states, axis=1)
        np.testing.assert_allclose(norms[norms > 0], 1, rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(memory.lists, axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize("split", ["train", "train_a", "train_b"])
def test_memory_holds_the_split_and_nothing_else(synthetic, split):
    log, vectors = synthetic.sessions, synthetic.embedding("hybrid")
    memory = SimilarityListener(synthetic, split=split, memory=ALL).memory
    expected = []
    for session in np.flatnonzero(np.isin(log.split, split_codes(split))):
        plays = log.frame(session)
        for start in range(1, len(plays) - 2):
            expected.append((plays["track"][start : start + 3], plays["level"][start : start + 3]))
    assert len(memory.levels) == len(expected)
    np.testing.assert_array_equal(memory.levels, [levels for _, levels in expected])
    np.testing.assert_array_equal(memory.lists, [vectors[tracks] for tracks, _ in expected])


def test_a_large_memory_is_drawn_by_seed(synthetic):
    draw = lambda seed: SimilarityListener(synthetic, memory=100, seed=seed).memory  # noqa: E731
    first, again, other = draw(0), draw(0), draw(1)
    assert len(first.levels) == 100
    np.testing.assert_array_equal(first.lists, again.lists)
    assert not np.array_equal(first.lists, other.lists)


def test_graded_state_written_out():
    levels = np.array([[4, 0, 2, 3, -1, -1]])
    expected = np.zeros(10)
    expected[:4] = [0.25, 0.0, -0.5 * 0.64, 0.5 * 0.512]
    np.testing.assert_allclose(level_states(levels, np.array([4]))[0], unit(expected), rtol=1e-6)
    expected[:4] = [0.5, 0.5 * 0.6, -0.5 * 0.36, 0.5 * 0.216]
    plain = level_states(levels, np.array([4]), graded=False, decay=0.6)[0]
    np.testing.assert_allclose(plain, unit(expected), rtol=1e-6)


def test_kept_songs_are_the_last_ten_that_were_kept():
    vectors = np.eye(16, dtype=np.float32)
    tracks, levels = np.arange(14)[None], np.full((1, 14), 4)
    levels[0, [3, 12]] = 1
    levels[0, 13] = -1
    state = kept_songs(vectors, tracks, levels).reshape(10, 16)
    np.testing.assert_array_equal(state.argmax(axis=1), [11, 10, 9, 8, 7, 6, 5, 4, 2, 1])
    nobody = kept_songs(vectors, tracks, np.zeros((1, 14), int))
    np.testing.assert_array_equal(nobody, 0)


def test_list_reward_is_discounted_by_place():
    outcomes = possible_outcomes(3)
    assert sorted(map(tuple, outcomes)) == sorted(itertools.product([False, True], repeat=3))
    assert list_reward(np.array([[True, False, True]])) == pytest.approx(1 + 0.81)
    chances = np.zeros((1, 8))
    chances[0, [0, 7]] = 0.5
    assert ListPrediction(outcomes, chances).reward() == pytest.approx(0.5 * 2.71)


def test_a_listener_in_a_mood_is_answered_by_its_likes(synthetic):
    """After ten skips most of the nearest pairs are skipped, after ten full plays most are not."""
    listener = SimilarityListener(synthetic, memory=ALL)
    history = History.empty(2, 20)
    for _ in range(10):
        history.record(np.arange(2), np.array([5, 5]), np.array([0, 4], np.int8))
    rows, tracks = np.arange(2), np.array([[9], [9]])
    chances = listener.level_probabilities(
        listener.begin(history), history, rows, tracks, np.full((2, 1), -1)
    )
    skip = chances[:, 0, :2].sum(axis=1)
    assert skip[0] > 0.65 > 0.4 > skip[1]


@pytest.mark.parametrize("mode", MODES)
def test_one_song_is_answered_as_the_first_of_its_list(synthetic, mode):
    """With lists of one song the whole list's answer and the song's are the same."""
    listener = SimilarityListener(synthetic, mode=mode, memory=400, list_size=1)
    history, slates = asked(synthetic)
    lists = listener.predict_lists(history, slates[:, :1])
    kept = lists.probabilities @ lists.outcomes[:, 0]
    rows = np.arange(len(slates))
    chances = listener.level_probabilities(
        listener.begin(history), history, rows, slates[:, :1], np.full((len(rows), 1), -1)
    )
    np.testing.assert_allclose(chances[:, 0, 2:].sum(axis=1), kept, rtol=1e-5, atol=1e-9)


def test_a_file_names_the_fold_that_is_remembered(synthetic, tmp_path):
    file = tmp_path / "b.npz"
    settings = {"mode": "nearest_k", "split": "train_b", "memory": ALL}
    write_fit(file, {"listener": "similarity", "settings": settings}, {})
    listener = make_listener(str(file), synthetic)
    assert isinstance(listener, SimilarityListener)
    expected = SimilarityListener(synthetic, split="train_b", memory=ALL).memory
    np.testing.assert_array_equal(listener.memory.levels, expected.levels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "grouped"}, "did you mean"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"k": 0}, "k is 0"),
        ({"k": 100, "shortlist": 60}, "shortlist is 60"),
        ({"decay": 0.0}, "decay is 0.0"),
        ({"split": "test"}, "Known: 'train', 'train_a', 'train_b'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SimilarityConfig(**settings)


def test_lists_of_another_length_are_refused(synthetic, tmp_path):
    history, slates = asked(synthetic)
    with pytest.raises(ValueError, match="list_size"):
        SimilarityListener(synthetic).predict_lists(history, slates[:, :2])
    with pytest.raises(ValueError, match="at most 12"):
        SimilarityListener(synthetic, list_size=50)
    short = write_sessions(tmp_path / "short", SESSIONS, {"content": np.eye(6)})
    with pytest.raises(ValueError, match="smaller list_size"):
        SimilarityListener(short, list_size=6)
