"""From proto-actions to songs: exact top-k by dot product, the one copy.

Environment, agents, embedding checks and oracles all choose through these functions, so that a
recommendation means the same everywhere. Three properties matter to them:

- Exact, and ties go to the lower row of the catalog (the track more played in training).
- The answer to a query does not depend on the batch it comes in: one environment and a thousand
  of them choose the same songs. BLAS rounds a product differently alone and in a batch, so the
  finalists are scored again in double precision, and whatever lies within BLAS's rounding of the
  last of them joins the final (`_settle`).
- Memory is bounded by `TILE_SCORES`, whatever the size of the catalog.

Many queries share the reads of the items: BLAS scores a tile, and a compiled pass over its scores
keeps the best. A query alone or with few others (`ALONE`) is answered in one compiled pass over the
items, scores and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from musicbox_env.retrieval.kernels import best_items, best_of_scores, largest_norms, score_exactly

TILE_QUERIES = 256
TILE_SCORES = 1 << 21
"""Scores held at once, 8 MB: large enough to amortise BLAS's packing of the items."""
ALONE = 6
"""Up to so many queries, BLAS gains less by sharing reads than one compiled pass by saving them."""
LARGEST = 1e15
"""Largest coordinate of a query: sums of products of two of them stay within float32."""
_UNIT = np.finfo(np.float32).eps
_LEAST = float(np.finfo(np.float32).smallest_subnormal)

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Find = Callable[[Floats, int, npt.NDArray[np.integer] | None], tuple[Rows, Floats]]
"""A search for the best k items of queries, some items barred; see `top_k`."""


def top_k(
    queries: npt.ArrayLike,
    items: npt.NDArray,
    k: int,
    barred: npt.NDArray[np.integer] | None = None,
) -> tuple[Rows, Floats]:
    """Find the k items of highest dot product with each query.

    Args:
        queries: Vectors of the embedding space ``(q, d)``, finite.
        items: Embedding of the catalog ``(n, d)``; may be memory-mapped.
        k: How many to find.
        barred: Items that a query may not have ``(q, b)``, -1 for none.

    Returns:
        Item rows ``(q, k)``, best first, ties to the lower row, and their scores ``(q, k)``;
        -1 and -inf where fewer than ``k`` items are allowed.

    Raises:
        ValueError: Shapes that do not fit each other, a query or an item that is not finite, a
            barred row outside the items.
    """
    vectors, barred = checked_query(queries, items, barred)
    if k < 0:
        raise ValueError(f"k is {k}; the number of items to find must not be negative.")
    if k == 0 or not len(items):
        return _nothing(len(vectors), k)
    # One more than asked for shows whether the last place is decided beyond BLAS's rounding.
    finalists, rough = _shortlist(vectors, items, k + 1, barred)
    rows, scores = ranked(vectors, items, finalists, k)
    margin = _rounding(vectors, items, finalists)
    close = (finalists[:, k] >= 0) & (rough[:, k] >= rough[:, k - 1] - margin)
    for query in np.flatnonzero(close):
        least = float(rough[query, k - 1] - 2 * margin[query])
        excluded = None if barred is None else barred[query]
        rows[[query]], scores[[query]] = _settle(vectors[query], items, k, excluded, least)
    return rows, scores


def checked_query(
    queries: npt.ArrayLike, items: npt.NDArray, barred: npt.NDArray[np.integer] | None
) -> tuple[Floats, Rows | None]:
    """Queries ``(q, d)`` and barred rows ``(q, b)`` of `top_k`, refused where they do not fit."""
    vectors = _checked_queries(queries, items.shape[1], ndim=2)
    if barred is None:
        return vectors, None
    return vectors, _checked_rows("barred", barred, len(vectors), len(items))


def ranked(vectors: Floats, items: npt.NDArray, rows: Rows, k: int) -> tuple[Rows, Floats]:
    """The best k of each query's own rows ``(q, m)``, -1 for none, as `top_k` orders them."""
    exact = score_exactly(vectors, np.asarray(items), rows)
    best = np.lexsort((rows, -exact), axis=-1)[:, :k]
    at = np.arange(len(vectors))[:, None], best
    return rows[at], exact[at]


def top_k_list(
    queries: npt.ArrayLike,
    items: npt.NDArray,
    barred: npt.NDArray[np.integer] | None = None,
    *,
    find: Find | None = None,
) -> Rows:
    """Fill each place of a list with the best item for its own query, no item twice.

    Places choose in order, as in LIRD's Algorithm 2 (arXiv:1801.00209): what the first place took
    is removed before the second chooses.

    Args:
        queries: One vector for each place of each list ``(q, k, d)``.
        items: Embedding of the catalog ``(n, d)``.
        barred: Items that a list may not have ``(q, b)``, -1 for none.
        find: Who searches ``(queries, k, barred)`` in place of `top_k`.

    Returns:
        Item rows ``(q, k)``, -1 where no allowed item is left.

    Raises:
        ValueError: As `top_k`.
    """
    vectors = _checked_queries(queries, items.shape[1], ndim=3)
    num_lists, places, dim = vectors.shape
    if barred is not None:
        barred = np.repeat(_checked_rows("barred", barred, num_lists, len(items)), places, axis=0)
    # Earlier places take at most k - 1 items, so that the best k of each place always suffice.
    flat = vectors.reshape(-1, dim)
    found, _ = find(flat, places, barred) if find else top_k(flat, items, places, barred)
    found = found.reshape(num_lists, places, places)
    chosen = np.full((num_lists, places), -1, dtype=np.int64)
    for place in range(places):
        best = found[:, place]
        taken = (best[:, :, None] == chosen[:, None, :place]).any(axis=2) | (best < 0)
        first = (~taken).argmax(axis=1)[:, None]
        free = ~np.take_along_axis(taken, first, axis=1)
        chosen[:, place] = np.where(free, np.take_along_axis(best, first, axis=1), -1)[:, 0]
    return chosen


def top_k_among(
    queries: npt.ArrayLike,
    items: npt.NDArray,
    candidates: npt.NDArray[np.integer],
    k: int,
    order: npt.NDArray,
) -> Rows:
    """Find the k best of each query's own candidates.

    Candidates are places in a list, not items: where an item stands there twice, both may be
    chosen. Their scores are then equal, and choosing the earlier place would read the order of
    the list, which in a logged session tells the future; hence ``order``.

    Args:
        queries: Vectors of the embedding space ``(q, d)``, finite.
        items: Embedding of the catalog ``(n, d)``.
        candidates: Item rows ``(q, c)``, -1 for none.
        k: How many to find.
        order: Keys ``(q, c)``, say random numbers: of equal scores the lowest key comes first.

    Returns:
        Places in ``candidates`` ``(q, k)``, best first, -1 where a query has fewer than ``k``.

    Raises:
        ValueError: Shapes that do not fit each other, a query or an item that is not finite, a
            candidate outside the items.
    """
    vectors = _checked_queries(queries, items.shape[1], ndim=2)
    candidates = _checked_rows("candidates", candidates, len(vectors), len(items))
    if order.shape != candidates.shape:
        raise ValueError(
            f"order has shape {order.shape}; expected that of candidates, {candidates.shape}."
        )
    scores = score_exactly(vectors, np.asarray(items), candidates)
    absent = candidates < 0
    if not (np.isfinite(scores) | absent).all():
        raise _no_order(items)
    places = np.lexsort((order, -scores, absent), axis=-1)[:, :k]
    places[np.take_along_axis(absent, places, axis=1)] = -1
    found = np.full((len(vectors), k), -1, dtype=np.int64)
    found[:, : places.shape[1]] = places
    return found


def weight_above(
    queries: npt.ArrayLike,
    items: npt.NDArray,
    targets: npt.NDArray[np.integer],
    weights: npt.NDArray,
    barred: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[np.float64]:
    """Sum the weights of the items that score above each query's target; ties count half.

    With weights of one this is the target's rank, 0 the best, in the middle of its ties.

    Args:
        queries: Vectors of the embedding space ``(q, d)``, finite.
        items: Embedding of the catalog ``(n, d)``.
        targets: The item in question ``(q,)``; it does not count itself.
        weights: One or more weights of each item ``(n, w)``.
        barred: Items that do not count ``(q, b)``, -1 for none.

    Returns:
        Sums ``(q, w)``.

    Raises:
        ValueError: As `top_k`.
    """
    vectors = _checked_queries(queries, items.shape[1], ndim=2)
    own = _checked_rows("targets", np.asarray(targets)[:, None], len(vectors), len(items))
    out = own
    if barred is not None:
        out = np.hstack([own, _checked_rows("barred", barred, len(vectors), len(items))])
    target_scores = score_exactly(vectors, np.asarray(items), own)
    margin = _rounding(vectors, items, own)[:, None]
    weights = np.asarray(weights, dtype=np.float32)
    sums = np.zeros((len(vectors), weights.shape[1]))
    for part, start, scores in _score_tiles(vectors, items):
        if not np.isfinite(scores).all():
            raise _no_order(items)
        query, place = np.nonzero((out[part] >= start) & (out[part] < start + scores.shape[1]))
        scores[query, out[part][query, place] - start] = -np.inf
        of_tile = weights[start : start + scores.shape[1]]
        above = scores > (target_scores + margin)[part]
        reached = scores >= (target_scores - margin)[part]
        # `above` are within `reached`: half of both counts ties by half.
        sums[part] += np.add(above, reached, dtype=np.float32) @ of_tile / 2
    return sums


def _score_tiles(vectors: Floats, items: npt.NDArray) -> Iterator[tuple[slice, int, Floats]]:
    """BLAS's scores of every query for every item, a tile at a time.

    Yields:
        The tile's queries, its first item, and its scores, in a buffer that the next tile reuses.
    """
    height = min(len(vectors), TILE_QUERIES)
    step = min(len(items), TILE_SCORES // max(1, height))
    buffer = np.empty(step * height, dtype=np.float32)
    for first in range(0, len(vectors), TILE_QUERIES):
        part = slice(first, first + TILE_QUERIES)
        for start in range(0, len(items), step):
            tile = np.asarray(items[start : start + step], dtype=np.float32)
            shape = (len(vectors[part]), len(tile))
            scores = buffer[: shape[0] * shape[1]].reshape(shape)
            yield part, start, np.matmul(vectors[part], tile.T, out=scores)


def _shortlist(
    vectors: Floats, items: npt.NDArray, k: int, barred: Rows | None
) -> tuple[Rows, Floats]:
    """The k best of each query by rough scores, rows and scores ``(q, k)``."""
    rows, scores = _nothing(len(vectors), k)
    if barred is None:
        barred = np.empty((len(vectors), 0), np.int64)
    if len(vectors) <= ALONE and items.dtype == np.float32:
        sound = best_items(vectors, np.asarray(items), barred, rows, scores)
    else:
        sound = True
        for part, start, tile in _score_tiles(vectors, items):
            sound &= best_of_scores(tile, start, barred[part], rows[part], scores[part])
    if not sound:
        raise _no_order(items)
    return rows, scores


def _settle(
    vector: Floats, items: npt.NDArray, k: int, barred: Rows | None, least: float
) -> tuple[Rows, Floats]:
    """The k best ``(1, k)`` of one query among all items that BLAS scores ``least`` or higher."""
    near = []
    for start in range(0, len(items), TILE_SCORES):
        rough = np.asarray(items[start : start + TILE_SCORES], dtype=np.float32) @ vector
        near.append(start + np.flatnonzero(rough >= least))
    rows = np.concatenate(near)
    if barred is not None:
        rows = rows[~np.isin(rows, barred)]
    return ranked(vector[None], items, rows[None], k)


def _rounding(vectors: Floats, items: npt.NDArray, finalists: Rows) -> Floats:
    """How far apart two scores of a query may be by BLAS and still be equal or swapped, ``(q,)``.

    A dot product of length d summed in any order errs by at most ``d u |q| |x|`` with u the unit
    roundoff (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), and where
    products are nearly 0 by `_LEAST` for each of them. The finalists stand for the norms of all
    items, which are alike in an embedding.
    """
    largest = largest_norms(np.asarray(items), finalists)
    squares = np.square(vectors, dtype=np.float64).sum(axis=1)
    margin = vectors.shape[1] * (_UNIT * np.sqrt(squares * largest) + _LEAST)
    return margin.astype(np.float32)


def _no_order(items: npt.NDArray) -> ValueError:
    """What is wrong with items whose scores are not finite although the queries are."""
    bad = np.flatnonzero(~np.isfinite(items).all(axis=1))
    what = (
        f"{len(bad):,} of {len(items):,} items hold NaN or infinity (the first is row {bad[0]:,})"
        if len(bad)
        else "Scores overflow float32: items hold very large numbers"
    )
    return ValueError(f"{what}; they have no order. Check the embedding.")


def _nothing(num_queries: int, k: int) -> tuple[Rows, Floats]:
    """The answer where no item is allowed."""
    rows = np.full((num_queries, k), -1, dtype=np.int64)
    return rows, np.full((num_queries, k), -np.inf, dtype=np.float32)


def _checked_queries(queries: npt.ArrayLike, dim: int, *, ndim: int) -> Floats:
    """Queries as float32, refused where they cannot be scored."""
    vectors = np.asarray(queries, dtype=np.float32)
    if vectors.ndim != ndim or vectors.shape[-1] != dim:
        expected = "queries, places" if ndim == 3 else "queries"
        raise ValueError(
            f"queries have shape {vectors.shape}; expected ({expected}, {dim}), since the items "
            f"have {dim} dimensions."
        )
    if not np.isfinite(vectors).all():
        bad = np.flatnonzero(~np.isfinite(vectors.reshape(len(vectors), -1)).all(axis=1))
        raise ValueError(
            f"{len(bad)} of {len(vectors)} queries hold NaN or infinity (the first is number "
            f"{bad[0]}); no item can be nearest to them. Check the policy's output."
        )
    if vectors.size and np.abs(vectors).max() > LARGEST:
        raise ValueError(
            f"Queries hold coordinates up to {np.abs(vectors).max():.1e}; beyond {LARGEST:.0e} "
            "scores overflow float32. Only the direction counts; check the policy's output."
        )
    return vectors


def _checked_rows(
    what: str, given: npt.NDArray[np.integer], num_queries: int, num_items: int
) -> Rows:
    """Item rows ``(q, b)`` as int64, refused where they name no item."""
    rows: Rows = np.asarray(given, dtype=np.int64)
    if rows.ndim != 2 or len(rows) != num_queries:
        raise ValueError(
            f"{what} has shape {rows.shape}; expected ({num_queries}, any), a row for each query."
        )
    if rows.size and (rows.max() >= num_items or rows.min() < -1):
        raise ValueError(
            f"{what} holds rows from {rows.min()} to {rows.max()}; expected 0 to {num_items - 1}, "
            "or -1 for none."
        )
    return rows
