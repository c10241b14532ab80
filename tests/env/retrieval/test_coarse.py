"""By way of rounded items the search finds what it finds without, to the last bit."""

from functools import partial

import numpy as np
import pytest

from musicbox_env.retrieval import coarse, search
from musicbox_env.retrieval.coarse import CoarseItems, can_round
from musicbox_env.retrieval.exact import LARGEST, top_k
from musicbox_env.retrieval.search import Search


def rows_of(kind, number=3_000, dim=17):
    """Catalogs that are easy to round, and such that are not."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((number, dim))
    one = rng.standard_normal(dim)
    return {
        "spread": spread,
        "one axis far larger": spread * np.r_[1e3, np.ones(dim - 1)],
        "an axis of zeros": spread * np.r_[0, np.ones(dim - 1)],
        "some alike": np.where(np.arange(number)[:, None] % 30, spread, 2 * one + 1e-4 * spread),
        "all alike": one + 1e-6 * spread,
        "whole numbers": rng.integers(-2, 3, (number, 3)),
        "tiny": 1e-30 * spread,
        "large": 1e14 * spread,
    }[kind].astype(np.float32)


KINDS = ["spread", "one axis far larger", "an axis of zeros", "some alike", "all alike"]
KINDS += ["whole numbers", "tiny", "large"]


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 3, 50, 700])
def test_equals_the_search_without_rounding(kind, k):
    items = rows_of(kind)
    rng = np.random.default_rng(1)
    queries = np.concatenate([rng.standard_normal((5, items.shape[1])), items[:4], 0 * items[:1]])
    barred = np.concatenate(
        [rng.integers(-1, len(items), (10, 20)), top_k(queries, items, 9)[0]], 1
    )
    rounded = CoarseItems(items)
    for excluded in (None, barred):
        assert_same(rounded.top_k(queries, k, excluded), top_k(queries, items, k, excluded))


@pytest.mark.parametrize("power", [-70, -83, -100, 40])
def test_a_power_of_two_changes_no_row(power):
    """Products differ by the power alone, so that rows and ties are the same."""
    items = rows_of("spread", 2_000)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    items[1_000:] = items[:1_000]
    queries = np.random.default_rng(5).standard_normal((12, items.shape[1])).astype(np.float32)
    rows, _ = top_k(queries, items, 7)
    scaled = queries * np.float32(2.0**power)
    for find in (CoarseItems(items).top_k, partial(top_k, items=items)):
        np.testing.assert_array_equal(find(scaled, k=7)[0], rows)


def test_an_axis_of_the_least_numbers_there_are():
    rng = np.random.default_rng(6)
    items = rows_of("spread", 500)
    items[:, 2] = np.float32(1.4e-45) * rng.integers(0, 200, len(items)).astype(np.float32)
    queries = rng.standard_normal((5, items.shape[1]))
    assert_same(CoarseItems(items).top_k(queries, 3), top_k(queries, items, 3))


@pytest.mark.parametrize("number", [1, 255, 256, 257])
def test_blocks_and_ends_do_not_show(number):
    items = rows_of("spread", number)
    queries = np.random.default_rng(2).standard_normal((3, items.shape[1]))
    everything = np.tile(np.arange(number), (3, 1))
    for k in (0, 1, number, number + 2):
        assert_same(CoarseItems(items).top_k(queries, k), top_k(queries, items, k))
        all_barred = CoarseItems(items).top_k(queries, k, everything)
        assert_same(all_barred, top_k(queries, items, k, everything))


def test_most_finalists_are_few_and_none_is_left_to_the_search_without_rounding(monkeypatch):
    items = rows_of("spread", 20_000)
    queries = np.random.default_rng(3).standard_normal((10, items.shape[1]))
    expected = top_k(queries, items, 50)
    monkeypatch.setattr(coarse, "top_k", None)
    assert_same(CoarseItems(items).top_k(queries, 50), expected)


def test_what_cannot_be_searched_is_refused_alike():
    rounded = CoarseItems(rows_of("spread"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        rounded.top_k(np.full((1, 17), np.nan), 3)
    with pytest.raises(ValueError, match="barred holds rows from"):
        rounded.top_k(np.ones((1, 17)), 3, np.array([[3_000]]))
    for wrong in (np.nan, np.inf, 2 * LARGEST):
        assert not can_round(np.array([[1.0, wrong]], np.float32))


def test_songs_that_move_are_found_where_they_are(synthetic, monkeypatch):
    """Axes within the steps of before, beyond them, and such that cannot be searched."""
    monkeypatch.setattr(search, "COARSE_FROM", 100)
    own = Search(synthetic, "hybrid+rate")
    queries = np.array(own.space[:30]) + 0.1
    rng = np.random.default_rng(4)
    for scale in (1.0, 0.1, 50.0, 0.0):
        for part in np.array_split(rng.permutation(len(own.space)), 3):
            own.move(part, scale * rng.standard_normal(len(part)).astype(np.float32))
            assert_same(own.top_k(queries, 9), top_k(queries, own.space, 9))
    own.move(np.array([3]), np.array([2 * LARGEST], np.float32))
    assert_same(own.top_k(queries, 9), top_k(queries, own.space, 9))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"1 of 2 new coordinates .*in row 3\)"):
            own.move(np.array([2, 3]), np.array([0, bad], np.float32))
    own.move(np.array([3]), np.array([0.5], np.float32))
    assert_same(own.top_k(queries, 9), top_k(queries, own.space, 9))
    untouched = Search(synthetic, "hybrid+rate")
    assert_same(untouched.top_k(queries, 9), top_k(queries, untouched.space, 9))
