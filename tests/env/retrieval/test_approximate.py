"""Approximate retrieval overlooks little, bars what it must, and is the same alone and saved."""

import os

import gymnasium as gym
import numpy as np
import pytest
from musicbox_experiments.benchmark.worlds import grown

import musicbox_env
from musicbox_env.retrieval import search
from musicbox_env.retrieval.exact import top_k, top_k_list
from musicbox_env.retrieval.search import Search
from musicbox_env.retrieval.spaces import embedding_space

pytest.importorskip("faiss")

from musicbox_env.retrieval.approximate import ApproximateIndex, ListsInSpace


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


@pytest.fixture(scope="module")
def moved(items):
    """The same songs with another last axis, as an agent learns it: half of it their vectors'."""
    rng = np.random.default_rng(2)
    alike = items[:, :-1] @ rng.standard_normal(items.shape[1] - 1)
    axis = 0.2 * (alike / alike.std() + rng.standard_normal(len(items)))
    return np.column_stack([items[:, :-1], np.clip(axis, -1, 1)]).astype(np.float32)


@pytest.mark.parametrize("k", [3, 50])
def test_lists_are_searched_in_another_space(index, moved, queries, k):
    lists = ListsInSpace(index, moved)
    queries = np.column_stack([queries[:, :-1], np.full(len(queries), 0.3, np.float32)])
    found, scores = lists.top_k(queries, k)
    exact, exact_scores = top_k(queries, moved, k)
    assert (found[:, :, None] == exact[:, None, :]).any(axis=2).mean() >= 0.95
    same = (found == exact).all(axis=1)
    np.testing.assert_array_equal(scores[same], exact_scores[same])
    for i in range(0, len(queries), 41):
        np.testing.assert_array_equal(lists.top_k(queries[i : i + 1], k)[0][0], found[i])
    best = found[:, :3]
    rest, _ = lists.top_k(queries, 3, best)
    assert not (rest[:, :, None] == best[:, None, :]).any()


def test_lists_follow_items_that_move_as_if_made_anew(index, items, moved, queries):
    now = items.copy()
    lists = ListsInSpace(index, now)
    before, _ = lists.top_k(queries, 5)
    for part in np.array_split(np.random.default_rng(3).permutation(len(items)), 3):
        now[part] = moved[part]
        lists.moved(part)
    after, _ = lists.top_k(queries, 5)
    np.testing.assert_array_equal(after, ListsInSpace(index, moved).top_k(queries, 5)[0])
    assert (after != before).any()


def test_lists_too_short_for_what_is_asked_are_no_limit(moved):
    few = moved[:60]
    lists = ListsInSpace(ApproximateIndex.build(few), few)
    for k in (0, 1, 55, 70):
        np.testing.assert_array_equal(lists.top_k(few[:4], k)[0], top_k(few[:4], few, k)[0])


def test_one_search_for_an_agents_own_axis(synthetic, monkeypatch):
    """From the same size on as the environment's, and without touching the dataset's space."""
    own, exact = Search(synthetic, "hybrid+rate", "approximate"), Search(synthetic, "hybrid+rate")
    shared, axis = exact.space, np.linspace(-1, 1, len(exact.space), dtype=np.float32)
    queries = exact.space[:40] + 0.1
    kept = np.array(shared)
    for part in np.array_split(np.arange(len(axis)), 2):
        for mover in (own, exact):
            mover.move(part, axis[part])
        # 28 lists are fewer than are looked into.
        np.testing.assert_array_equal(own.top_k(queries, 9)[0], exact.top_k(queries, 9)[0])
    np.testing.assert_array_equal(own.space[:, -1], axis)
    np.testing.assert_array_equal(Search(synthetic, "hybrid+rate").space, kept)
    np.testing.assert_array_equal(shared, kept)
    assert exact.kind == "exact"
    monkeypatch.setattr(search, "APPROXIMATE_FROM", 100)
    assert Search(synthetic, "hybrid+rate").kind == "approximate"
    with pytest.raises(ValueError, match="did you mean 'exact'"):
        Search(synthetic, "hybrid+rate", "exactly")


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
    index, items, queries, tmp_path, monkeypatch
):
    monkeypatch.setenv("MUSICBOX_CACHE", str(tmp_path / "cache"))
    source, folder = tmp_path / "space.npy", tmp_path / "cache" / "indexes"
    np.save(source, items)
    opened = ApproximateIndex.open(items, [source], progress=False)
    np.testing.assert_array_equal(opened.top_k(queries, 3)[0], index.top_k(queries, 3)[0])
    (made,) = folder.iterdir()
    ApproximateIndex.open(items, [source], progress=False)
    assert list(folder.iterdir()) == [made]
    np.save(source, items)
    old = made.stat().st_mtime - 31 * 24 * 3600
    os.utime(made, (old, old))
    ApproximateIndex.open(items, [source], progress=False)
    (anew,) = folder.iterdir()
    assert anew != made


def test_lists_have_no_song_twice(index, items, queries):
    points = np.repeat(queries[:50, None], 3, axis=1)
    find = lambda asked, k, barred: index.top_k(asked, k, barred)  # noqa: E731
    chosen = top_k_list(points, items, find=find)
    assert (np.sort(chosen, axis=1)[:, 1:] != np.sort(chosen, axis=1)[:, :-1]).all()


@pytest.mark.parametrize("action", ["proto", "proto_list"])
def test_the_environment_says_how_it_retrieves(synthetic_folder, synthetic, monkeypatch, action):
    options = {
        "data": str(synthetic_folder),
        "listener": "replay",
        "candidates": "catalog",
        "action": action,
        "observation": "ids",
    }
    exact = gym.make(musicbox_env.ENV_ID, **options).unwrapped
    assert exact.assets.search.kind == "exact"
    monkeypatch.setattr(search, "APPROXIMATE_FROM", 100)
    approximate = gym.make(musicbox_env.ENV_ID, **options).unwrapped
    assert approximate.assets.search.kind == "approximate"
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
