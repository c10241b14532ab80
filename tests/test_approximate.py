"""Approximate retrieval overlooks little, bars what it must, and is the same alone and saved."""

import gymnasium as gym
import numpy as np
import pytest

import musicbox_env
from experiments.benchmark_worlds import grown
from musicbox_env import simulator
from musicbox_env.embeddings import embedding_space
from musicbox_env.retrieval import top_k, top_k_list

pytest.importorskip("faiss")

from musicbox_env.approximate import ApproximateIndex


@pytest.fixture(scope="module")
def items(synthetic):
    return grown(synthetic.embedding("hybrid"), 20_000, np.random.default_rng(0))


@pytest.fixture(scope="module")
def index(items):
    return ApproximateIndex.build(items)


@pytest.fixture(scope="module")
def queries(items):
    """Means of eight songs, as policies ask."""
    return items[np.random.default_rng(1).integers(0, len(items), (300, 8))].mean(axis=1)


def test_finds_nearly_all_of_the_best(index, items, queries):
    found, scores = index.top_k(queries, 3)
    exact, exact_scores = top_k(queries, items, 3)
    hits = (found[:, :, None] == exact[:, None, :]).any(axis=2)
    assert hits.mean() >= 0.95
    same = (found == exact).all(axis=1)
    np.testing.assert_array_equal(scores[same], exact_scores[same])
    assert (np.diff(scores, axis=1) <= 0).all()


def test_barred_songs_are_never_found(index, items, queries):
    best, _ = index.top_k(queries, 20)
    found, _ = index.top_k(queries, 3, best)
    assert not (found[:, :, None] == best[:, None, :]).any()
    exact, _ = top_k(queries, items, 3, best)
    assert (found[:, :, None] == exact[:, None, :]).any(axis=2).mean() >= 0.9


def test_a_query_is_answered_alone_as_in_a_batch(index, queries):
    rows, scores = index.top_k(queries, 3)
    for i in range(0, len(queries), 17):
        alone, alone_scores = index.top_k(queries[i : i + 1], 3)
        np.testing.assert_array_equal(alone[0], rows[i])
        np.testing.assert_array_equal(alone_scores[0], scores[i])


def test_few_items_are_searched_exactly():
    items = np.eye(6, dtype=np.float32)
    queries = np.arange(12, dtype=np.float32).reshape(2, 6)
    index = ApproximateIndex.build(items)
    barred = np.array([[5, 4, -1], [0, 1, 2]])
    for k in (1, 3, 6, 8):
        np.testing.assert_array_equal(
            index.top_k(queries, k, barred)[0], top_k(queries, items, k, barred)[0]
        )


def test_saved_and_mapped_it_answers_alike_and_is_made_anew_when_stale(
    index, items, queries, tmp_path
):
    source, file = tmp_path / "space.npy", tmp_path / "spaces" / "space.faiss"
    np.save(source, items)
    opened = ApproximateIndex.open(items, file, newer_than=source, progress=False)
    np.testing.assert_array_equal(opened.top_k(queries, 3)[0], index.top_k(queries, 3)[0])
    made = file.stat().st_mtime_ns
    ApproximateIndex.open(items, file, newer_than=source, progress=False)
    assert file.stat().st_mtime_ns == made
    np.save(source, items)
    ApproximateIndex.open(items, file, newer_than=source, progress=False)
    assert file.stat().st_mtime_ns > made
    assert [f.name for f in file.parent.iterdir()] == ["space.faiss"]


def test_lists_have_no_song_twice(index, items, queries):
    points = np.repeat(queries[:50, None], 3, axis=1)
    find = lambda asked, k, barred: index.top_k(asked, k, barred)  # noqa: E731
    chosen = top_k_list(points, items, find=find)
    assert (np.sort(chosen, axis=1)[:, 1:] != np.sort(chosen, axis=1)[:, :-1]).all()


@pytest.mark.parametrize("action", ["proto", "proto_list"])
def test_the_environment_says_how_it_retrieves(synthetic_folder, synthetic, monkeypatch, action):
    options = {"data": str(synthetic_folder), "action": action, "observation": "ids"}
    exact = gym.make(musicbox_env.ENV_ID, **options).unwrapped
    assert exact.world.retrieval == "exact"
    monkeypatch.setattr(simulator, "APPROXIMATE_FROM", 100)
    approximate = gym.make(musicbox_env.ENV_ID, **options).unwrapped
    assert approximate.world.retrieval == "approximate"
    # In 28 lists of some seven songs, 24 of which are looked into, next to nothing is overlooked.
    point = embedding_space(synthetic, "hybrid+rate")[7]
    action = np.tile(point, exact.action_space.shape[0] // len(point))
    for seed in range(5):
        exact.reset(seed=seed)
        approximate.reset(seed=seed)
        a, b = exact.step(action)[4], approximate.step(action)[4]
        np.testing.assert_array_equal(a["slate"], b["slate"])


def test_unknown_retrieval_is_refused(synthetic_folder):
    with pytest.raises(ValueError, match="did you mean 'approximate'"):
        gym.make(musicbox_env.ENV_ID, data=str(synthetic_folder), retrieval="aproximate")
