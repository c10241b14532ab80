"""Retrieval is exact, deterministic, and the same alone and in a batch."""

import tracemalloc

import numpy as np
import pytest

from musicbox_env.retrieval import exact as retrieval
from musicbox_env.retrieval import kernels
from musicbox_env.retrieval.exact import top_k, top_k_among, top_k_list, weight_above


def brute_force(queries, items, k, barred=None):
    """Sort everything by (score descending, row ascending) in double precision."""
    scores = (queries[:, None].astype(np.float64) * items[None].astype(np.float64)).sum(axis=2)
    scores = scores.astype(np.float32)
    rows = np.full((len(queries), k), -1)
    for query, line in enumerate(scores):
        allowed = np.arange(len(items))
        if barred is not None:
            allowed = np.setdiff1d(allowed, barred[query])
        best = allowed[np.lexsort((allowed, -line[allowed]))][:k]
        rows[query, : len(best)] = best
    return rows


def unit_rows(rng, num_rows, dim):
    rows = rng.standard_normal((num_rows, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(retrieval, "TILE_QUERIES", 5)
    monkeypatch.setattr(retrieval, "TILE_SCORES", 5 * 7)


@pytest.mark.parametrize(
    ("num_queries", "num_items", "dim", "k"),
    [(1, 1, 1, 1), (3, 50, 4, 3), (17, 400, 33, 3), (40, 1000, 33, 12), (6, 900, 8, 120)],
)
def test_equals_brute_force(num_queries, num_items, dim, k):
    rng = np.random.default_rng(0)
    queries, items = rng.standard_normal((num_queries, dim)), unit_rows(rng, num_items, dim)
    queries = queries.astype(np.float32)
    barred = rng.integers(-1, num_items, (num_queries, 9))

    rows, scores = top_k(queries, items, k)
    rows_barred, _ = top_k(queries, items, k, barred)

    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(rows, brute_force(queries, items, k))
    np.testing.assert_array_equal(rows_barred, brute_force(queries, items, k, barred))
    expected = np.einsum("qd,qkd->qk", queries, items[np.maximum(rows, 0)])
    np.testing.assert_allclose(scores[rows >= 0], expected[rows >= 0], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("k", [1, 3, 8, 40])
def test_tiles_do_not_show(k):
    rng = np.random.default_rng(1)
    # Whole numbers: scores tie all the time, within and across tiles.
    items = rng.integers(-2, 3, (61, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (23, 3)).astype(np.float32)
    barred = rng.integers(-1, 61, (23, 4))
    rows, _ = top_k(queries, items, k, barred)
    np.testing.assert_array_equal(rows, brute_force(queries, items, k, barred))


@pytest.mark.parametrize("num_queries", [1, 2, 20])
@pytest.mark.parametrize("dim", [8, 33])
def test_copies_of_one_vector_tie_to_the_lower_row(num_queries, dim):
    # BLAS gives equal columns unequal scores at the edges of its kernels, hence all these sizes.
    rng = np.random.default_rng(2)
    for num_items in (*range(3, 130), 999, 5000):
        items = np.repeat(unit_rows(rng, 1, dim), num_items, axis=0)
        rows, scores = top_k(rng.standard_normal((num_queries, dim)), items, 3)
        np.testing.assert_array_equal(rows, np.tile([0, 1, 2], (num_queries, 1)))
        assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("num_items", [60, 700, 5000])
def test_a_query_is_answered_alone_as_in_a_batch(num_items):
    rng = np.random.default_rng(3)
    items = unit_rows(rng, num_items, 33)
    items[num_items // 2 :: 3] = items[1]
    queries = rng.standard_normal((300, 33)).astype(np.float32)
    queries[::10] = items[1]
    rows, scores = top_k(queries, items, 3)
    for query in range(0, 300, 7):
        alone_rows, alone_scores = top_k(queries[query : query + 1], items, 3)
        np.testing.assert_array_equal(alone_rows[0], rows[query])
        np.testing.assert_array_equal(alone_scores[0], scores[query])


def test_fewer_allowed_than_asked_for():
    items = np.eye(4, dtype=np.float32)
    query = np.array([[4.0, 3.0, 2.0, 1.0]])
    rows, scores = top_k(query, items, 3, barred=np.array([[0, 2, -1, -1]]))
    assert rows.tolist() == [[1, 3, -1]]
    assert scores.tolist() == [[3.0, 1.0, -np.inf]]
    rows, scores = top_k(query, items, 2, barred=np.array([[0, 1, 2, 3]]))
    assert rows.tolist() == [[-1, -1]]
    assert top_k(query, items, 6)[0].tolist() == [[0, 1, 2, 3, -1, -1]]
    assert top_k(query, items, 0)[0].shape == (1, 0)
    assert top_k(np.empty((0, 4)), items, 2)[0].shape == (0, 2)


def test_memory_is_bounded_by_tiles(tmp_path):
    shape = (200_000, 8)
    file = np.lib.format.open_memmap(tmp_path / "i.npy", mode="w+", dtype=np.float32, shape=shape)
    rng = np.random.default_rng(4)
    file[...] = rng.standard_normal(shape)
    items = np.load(tmp_path / "i.npy", mmap_mode="r")
    queries = rng.standard_normal((300, 8)).astype(np.float32)
    tracemalloc.start()
    top_k(queries, items, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 4 * retrieval.TILE_SCORES  # all scores would take 240 MB


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_what_has_no_order(bad):
    items = np.eye(3, dtype=np.float32)
    queries = np.ones((4, 3))
    queries[2, 1] = bad
    with pytest.raises(ValueError, match=r"1 of 4 queries hold NaN.*number 2.*policy"):
        top_k(queries, items, 2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        top_k_list(queries[None], items)
    with pytest.raises(ValueError, match="NaN or infinity"):
        top_k_among(queries, items, np.zeros((4, 2), int), 1, np.zeros((4, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("num_queries", [1, 40])
def test_refuses_items_that_are_not_finite_by_their_row(bad, num_queries):
    items = np.ones((900, 3), np.float32)
    items[700, 1] = bad
    queries, rows = np.ones((num_queries, 3)), np.full((num_queries, 2), 700)
    said = r"1 of 900 items hold NaN or infinity \(the first is row 700\)"
    for barred in (None, rows):
        with pytest.raises(ValueError, match=said):
            top_k(queries, items, 2, barred)
    with pytest.raises(ValueError, match=said):
        top_k_list(queries[:, None], items)
    with pytest.raises(ValueError, match=said):
        top_k_among(queries, items, rows, 1, np.zeros(rows.shape))
    with pytest.raises(ValueError, match=said):
        weight_above(queries, items, rows[:, 0] - 1, np.ones((900, 1)))


def test_refuses_products_that_overflow():
    with pytest.raises(ValueError, match="overflow float32"):
        top_k(np.full((1, 2), 1e15), np.full((3, 2), 1e30, np.float32), 1)


def test_refuses_shapes_that_do_not_fit():
    items = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"shape \(2, 4\); expected \(queries, 3\)"):
        top_k(np.ones((2, 4)), items, 1)
    with pytest.raises(ValueError, match=r"expected \(queries, places, 3\)"):
        top_k_list(np.ones((2, 3)), items)
    with pytest.raises(ValueError, match=r"barred has shape \(1, 2\); expected \(2, any\)"):
        top_k(np.ones((2, 3)), items, 1, np.zeros((1, 2), int))
    with pytest.raises(ValueError, match=r"from 0 to 3; expected 0 to 2"):
        top_k(np.ones((1, 3)), items, 1, np.array([[0, 3]]))
    with pytest.raises(ValueError, match="k is -1"):
        top_k(np.ones((1, 3)), items, -1)


def test_list_gives_each_place_its_best_and_no_item_twice():
    rng = np.random.default_rng(5)
    items, queries = unit_rows(rng, 40, 6), rng.standard_normal((50, 4, 6)).astype(np.float32)
    queries[::2] = queries[::2, :1]  # all four places want the same
    barred = rng.integers(-1, 40, (50, 5))
    chosen = top_k_list(queries, items, barred)
    for query in range(50):
        gone = list(barred[query])
        for place in range(4):
            best = brute_force(queries[query, place][None], items, 1, np.array([gone]))[0, 0]
            assert chosen[query, place] == best
            gone.append(best)


def test_list_leaves_places_empty_when_nothing_is_left():
    items = np.eye(2, dtype=np.float32)
    queries = np.ones((1, 3, 2))
    assert top_k_list(queries, items).tolist() == [[0, 1, -1]]
    assert top_k_list(queries, items, np.array([[0]])).tolist() == [[1, -1, -1]]
    assert top_k_list(queries, items, np.array([[0, 1]])).tolist() == [[-1, -1, -1]]


def test_among_own_candidates():
    items = np.eye(4, dtype=np.float32)
    query = np.array([[0.1, 0.9, 0.5, 0.7]])
    candidates = np.array([[0, 2, -1, 3, -1]])
    order = np.zeros((1, 5))
    assert top_k_among(query, items, candidates, 2, order).tolist() == [[3, 1]]
    assert top_k_among(query, items, candidates, 5, order).tolist() == [[3, 1, 0, -1, -1]]
    assert top_k_among(query, items, candidates[:, :2], 3, order[:, :2]).tolist() == [[1, 0, -1]]
    with pytest.raises(ValueError, match=r"order has shape \(1, 2\)"):
        top_k_among(query, items, candidates, 2, order[:, :2])


@pytest.mark.parametrize("kind", ["float", "uint64"])
def test_among_equal_scores_the_key_decides_not_the_place(kind):
    rng = np.random.default_rng(6)
    items = unit_rows(rng, 30, 33)
    candidates = np.full((4000, 20), 7)
    queries = rng.standard_normal((4000, 33))
    order = rng.random((4000, 20))
    if kind == "uint64":
        order = rng.integers(0, np.iinfo(np.uint64).max, (4000, 20), dtype=np.uint64, endpoint=True)
    places = top_k_among(queries, items, candidates, 1, order)[:, 0]
    np.testing.assert_array_equal(places, order.argmin(axis=1))
    # Each place wins 200 of 4,000 times, give or take 14: the list's order tells nothing.
    assert np.abs(np.bincount(places, minlength=20) - 200).max() < 5 * 14


@pytest.mark.usefixtures("small_tiles")
def test_weight_above_counts_ties_half():
    rng = np.random.default_rng(7)
    items = rng.integers(-2, 3, (40, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (12, 3)).astype(np.float32)
    targets, barred = rng.integers(0, 40, 12), rng.integers(-1, 40, (12, 6))
    weights = np.stack([np.ones(40), rng.integers(0, 9, 40)], axis=1)
    found = weight_above(queries, items, targets, weights, barred)
    for query in range(12):
        allowed = np.setdiff1d(np.arange(40), [*barred[query], targets[query]])
        scores = items @ queries[query]
        above = scores[allowed] > scores[targets[query]]
        tied = scores[allowed] == scores[targets[query]]
        np.testing.assert_allclose(found[query], (above + tied / 2) @ weights[allowed])


def test_weight_above_is_the_rank_that_top_k_gives():
    rng = np.random.default_rng(8)
    items, queries = unit_rows(rng, 300, 9), rng.standard_normal((10, 9)).astype(np.float32)
    rows, _ = top_k(queries, items, 300)
    for place in (0, 1, 150, 299):
        ranks = weight_above(queries, items, rows[:, place], np.ones((300, 1)))
        np.testing.assert_array_equal(ranks[:, 0], place)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_are_exact_and_the_same_wherever_an_item_stands(kind):
    rng = np.random.default_rng(0)
    items = rng.standard_normal((40, 33)).astype(kind)
    points = rng.standard_normal((7, 33)).astype(np.float32)
    rows = rng.integers(-1, 40, (7, 11))
    found = kernels.score_exactly(points, items, rows)
    exact = np.einsum("qd,qmd->qm", points, items[rows], dtype=np.float64)
    np.testing.assert_allclose(found, np.where(rows >= 0, exact, -np.inf), rtol=1e-6, atol=1e-6)
    for place in range(11):
        alone = kernels.score_exactly(points[2:3], items[rows[2:3, place]], np.zeros((1, 1), int))
        assert rows[2, place] < 0 or alone[0, 0] == found[2, place]
    norms = np.square(items[rows].astype(np.float64)).sum(axis=2).max(axis=1)
    np.testing.assert_allclose(kernels.largest_norms(items, rows), norms, rtol=1e-6)


def test_queries_whose_scores_would_overflow_are_refused():
    items = np.ones((4, 3), np.float32)
    assert (top_k(np.full((1, 3), 1e15), items, 4)[0] == np.arange(4)).all()
    with pytest.raises(ValueError, match="overflow float32"):
        top_k(np.full((1, 3), 3e38), items, 4)
