"""The inner loops of retrieval: scores of items, and the best of them.

Conventions are those of `musicbox_env.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import Floats, Indices, Ints, compiled, dot, holds, in_registers, unlocked
from musicbox_env.schema import UNKNOWN

BLOCK_ITEMS = 256
"""Items scored before any of them is looked at: few enough to stay in the processor's cache."""
LARGEST = np.finfo(np.float32).max
"""The largest score that is finite."""


@unlocked
def best_items(queries: Floats, items: Floats, barred: Ints, rows: Ints, scores: Floats) -> bool:
    """Find the items of highest dot product with each query in one pass over them.

    Args:
        queries: ``(q, d)``.
        items: ``(n, d)``.
        barred: Items that a query may not have ``(q, b)``, -1 for none.
        rows: The best items, best first, ties to the lower row ``(q, k)``; changed.
        scores: Their scores ``(q, k)``; changed, -inf before.

    Returns:
        Whether all scores are finite.
    """
    sound = True
    block = np.empty(BLOCK_ITEMS, np.float32)
    for i in range(len(queries)):
        for start in range(0, len(items), BLOCK_ITEMS):
            here = block[: len(items) - start]
            _score(queries[i], items[start : start + BLOCK_ITEMS], here)
            sound &= _enter_block(start, here, barred[i], rows[i], scores[i])
    return sound


@compiled
def best_of_scores(tile: Floats, first: int, barred: Ints, rows: Ints, scores: Floats) -> bool:
    """Merge the scores of some items into the best so far of each query.

    Args:
        tile: Scores of items ``first``, ``first + 1`` and so on ``(q, t)``.
        first: See ``tile``.
        barred: Items that a query may not have ``(q, b)``, -1 for none.
        rows: The best items of lower rows, best first ``(q, k)``; changed.
        scores: Their scores ``(q, k)``; changed.

    Returns:
        Whether all scores are finite.
    """
    sound = True
    for i in range(len(tile)):
        for start in range(0, tile.shape[1], BLOCK_ITEMS):
            here = tile[i, start : start + BLOCK_ITEMS]
            sound &= _enter_block(first + start, here, barred[i], rows[i], scores[i])
    return sound


@unlocked
def best_in_lists(
    queries: Floats,
    items: Floats,
    starts: Ints,
    filed: Indices,
    lists: Indices,
    barred: Ints,
    rows: Ints,
) -> None:
    """Find the items of highest dot product with each query among those of some lists.

    Args:
        queries: ``(q, d)``.
        items: ``(n, d)``.
        starts: Where each list begins in ``filed``, and the last ends ``(lists + 1,)``.
        filed: Items of all lists ``(n,)``.
        lists: Lists that each query looks into ``(q, p)``.
        barred: Items that a query may not have ``(q, b)``, -1 for none.
        rows: The best items, -1 before ``(q, k)``; changed.
    """
    last = rows.shape[1] - 1
    best = np.empty(rows.shape[1], np.float32)
    for i in range(len(queries)):
        best[:] = -np.inf
        for number in lists[i]:
            for item in filed[starts[number] : starts[number + 1]]:
                score = dot(queries[i], items[item])
                if score > best[last] and not holds(barred[i], item):
                    _enter(item, score, rows[i], best)


@unlocked
def finalists_by_codes(
    queries: Floats,
    codes: npt.NDArray[np.int8],
    number: int,
    barred: Ints,
    slack: Floats,
    k: int,
    rows: Ints,
) -> npt.NDArray[np.bool_]:
    """Find the items whose rounded scores come near the k-th best of each query.

    Args:
        queries: In steps of the axes ``(q, d)``.
        codes: Rounded items, by blocks ``(blocks, d, BLOCK_ITEMS)``.
        number: Of items; what follows the last is none.
        barred: Items that a query may not have ``(q, b)``, -1 for none.
        slack: How near ``(q,)``.
        k: See above; at most the number of items.
        rows: The items, ascending, -1 before ``(q, m)``; changed.

    Returns:
        Whether all of them fit ``(q,)``.
    """
    fits, found = np.ones(len(queries), np.bool_), np.zeros(len(queries), np.int64)
    best_rows = np.empty((len(queries), k), np.int64)
    best = np.full((len(queries), k), -np.inf, np.float32)
    scores, block_scores = np.empty(rows.shape, np.float32), np.empty(BLOCK_ITEMS, np.float32)
    for block in range(len(codes)):
        first = block * BLOCK_ITEMS
        here = block_scores[: number - first]
        for i in range(len(queries)):
            if not fits[i]:
                continue
            _score_codes(queries[i], codes[block], block_scores)
            if _all_within(here, np.nextafter(best[i, k - 1] - slack[i], np.float32(-np.inf))):
                continue
            for place in range(len(here)):
                least = best[i, k - 1] - slack[i]
                if here[place] < least or holds(barred[i], first + place):
                    continue
                if found[i] == rows.shape[1]:  # some may be out by now
                    found[i] = _keep(least, rows[i], scores[i])
                if found[i] == rows.shape[1]:
                    fits[i] = False
                    break
                rows[i, found[i]], scores[i, found[i]] = first + place, here[place]
                found[i] += 1
                if here[place] > best[i, k - 1]:
                    _enter(first + place, here[place], best_rows[i], best[i])
    for i in range(len(queries)):
        least, among = best[i, k - 1] - slack[i], slice(0, found[i])
        rows[i, _keep(least, rows[i, among], scores[i, among]) :] = UNKNOWN
    return fits


@compiled
def _keep(least: float, rows: Ints, scores: Floats) -> int:
    """Move items of a score of ``least`` or more to the front; gives their number."""
    kept = 0
    for place in range(len(rows)):
        if scores[place] >= least:
            rows[kept], scores[kept] = rows[place], scores[place]
            kept += 1
    return kept


@in_registers
def _score_codes(query: Floats, codes: npt.NDArray[np.int8], scores: Floats) -> None:
    """Dot products of a query and a block of rounded items ``(d, BLOCK_ITEMS)``."""
    fours = len(query) - len(query) % 4
    scores[:] = 0
    for j in range(0, fours, 4):
        for item in range(BLOCK_ITEMS):
            scores[item] += (
                query[j] * codes[j, item]
                + query[j + 1] * codes[j + 1, item]
                + query[j + 2] * codes[j + 2, item]
                + query[j + 3] * codes[j + 3, item]
            )
    for j in range(fours, len(query)):
        for item in range(BLOCK_ITEMS):
            scores[item] += query[j] * codes[j, item]


@in_registers
def summarize_lists(
    items: Floats, starts: Ints, filed: Indices, lists: Indices, mean: Floats, variance: Floats
) -> None:
    """Mean and variance of the items of some lists along each axis, in place.

    Args:
        items: ``(n, d)``.
        starts: Where each list begins in ``filed``, and the last ends ``(lists + 1,)``.
        filed: Items of all lists ``(n,)``.
        lists: Numbers of the lists that are looked at ``(m,)``.
        mean: Of the items of all lists ``(lists, d)``, 0 of none; changed.
        variance: Likewise ``(lists, d)``; changed.
    """
    for number in lists:
        mean[number], variance[number] = 0, 0
        within = filed[starts[number] : starts[number + 1]]
        for item in within:
            for j in range(items.shape[1]):
                mean[number, j] += items[item, j] / len(within)
        for item in within:
            for j in range(items.shape[1]):
                variance[number, j] += (items[item, j] - mean[number, j]) ** 2 / len(within)


@in_registers
def promise_of_lists(queries: Floats, mean: Floats, variance: Floats, deviations: float) -> Floats:
    """What the best item of each list may score ``(q, lists)``.

    Args:
        queries: ``(q, d)``.
        mean: Of the lists' items ``(lists, d)``.
        variance: Of them ``(lists, d)``.
        deviations: Standard deviations of the scores that are added to their mean.
    """
    promise = np.empty((len(queries), len(mean)), np.float32)
    for i in range(len(queries)):
        for number in range(len(mean)):
            score: Any = np.float32(0)
            spread: Any = np.float32(0)
            for j in range(queries.shape[1]):
                score += queries[i, j] * mean[number, j]
                spread += queries[i, j] ** 2 * variance[number, j]
            promise[i, number] = score + deviations * np.sqrt(spread)
    return promise


@in_registers
def _score(query: Floats, items: Floats, scores: Floats) -> None:
    """Dot products of a query and items, four at a time: each number of the query is read once."""
    fours = len(items) - len(items) % 4
    for item in range(0, fours, 4):
        first: Any = np.float32(0)
        second: Any = np.float32(0)
        third: Any = np.float32(0)
        fourth: Any = np.float32(0)
        for j in range(len(query)):
            first += query[j] * items[item, j]
            second += query[j] * items[item + 1, j]
            third += query[j] * items[item + 2, j]
            fourth += query[j] * items[item + 3, j]
        scores[item], scores[item + 1] = first, second
        scores[item + 2], scores[item + 3] = third, fourth
    for item in range(fours, len(items)):
        scores[item] = dot(query, items[item])


@in_registers
def score_exactly(queries: Floats, items: npt.NDArray, rows: Indices) -> Floats:
    """Dot products of queries and their own items ``(q, m)``, -inf where the row is -1.

    They are summed in double precision, and the same wherever an item stands.

    Args:
        queries: ``(q, d)``.
        items: ``(n, d)``.
        rows: ``(q, m)``.
    """
    scores = np.full(rows.shape, -np.inf, np.float32)
    for i in range(len(queries)):
        for m in range(rows.shape[1]):
            if rows[i, m] >= 0:
                total = 0.0
                for j in range(queries.shape[1]):
                    total += np.float64(queries[i, j]) * np.float64(items[rows[i, m], j])
                scores[i, m] = total
    return scores


@in_registers
def largest_norms(items: npt.NDArray, rows: Indices) -> npt.NDArray[np.float64]:
    """The largest squared norm of the items ``(n, d)`` in each row of ``rows`` ``(q, m)``."""
    largest = np.zeros(len(rows))
    for i in range(len(rows)):
        for m in range(rows.shape[1]):
            square = 0.0
            for j in range(items.shape[1]):
                square += np.float64(items[rows[i, m], j]) ** 2
            largest[i] = max(largest[i], square)
    return largest


@compiled
def _all_within(scores: Floats, limit: float) -> bool:
    """Whether all scores are finite and none is above the limit; to the end, as `kernels.holds`."""
    within = True
    for place in range(len(scores)):  # a tenth of the time of a loop over the scores themselves
        within &= (scores[place] >= -LARGEST) & (scores[place] <= limit)
    return within


@compiled
def _enter_block(first: int, here: Floats, barred: Ints, rows: Ints, scores: Floats) -> bool:
    """Merge the scores of a block of items into the best so far; whether all are finite."""
    sound, last = True, len(scores) - 1
    if _all_within(here, scores[last]):
        return True
    for place in range(len(here)):
        score = here[place]
        sound &= (score >= -LARGEST) & (score <= LARGEST)
        if score > scores[last] and not holds(barred, first + place):
            _enter(first + place, score, rows, scores)
    return sound


@compiled
def _enter(item: int, score: float, rows: Ints, scores: Floats) -> None:
    """Put an item in its place among the best; the last one falls out."""
    place = len(rows) - 1
    while place > 0 and score > scores[place - 1]:
        scores[place], rows[place] = scores[place - 1], rows[place - 1]
        place -= 1
    scores[place], rows[place] = score, item
