"""The exact search of large catalogs in less time: finalists by coordinates of one byte.

Items are kept a second time, each coordinate rounded to a step of its axis. A query is scored with
all of these, a quarter of the bytes. Whatever comes within the largest error of rounding of the
k-th best is a finalist, and finalists are scored as `exact.top_k` scores them: the answer is its
own, ties included. Where so many items are alike that finalists do not fit, it answers itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.retrieval import kernels
from musicbox_env.retrieval.exact import LARGEST, Floats, Rows, checked_query, ranked, top_k

COARSE_FROM: Final = 20_000
"""Catalog size from which on rounded items are worth their memory."""
MOST_QUERIES: Final = 64
"""Of more queries at once the search without rounding shares the reads of the items better."""
STEPS: Final = 127
"""Steps of an axis on each side of 0."""
FINALISTS: Final = (4, 128)
"""Finalists that there is room for: so many times k, and so many more."""


class CoarseItems:
    """Finds items of highest dot product; see the module.

    Attributes:
        items: Those that are searched ``(n, d)``; not copied.
    """

    def __init__(self, items: Floats) -> None:
        """Round items, all finite and none beyond `exact.LARGEST`; see `can_round`."""
        self.items, size = items, kernels.BLOCK_ITEMS
        self._codes = np.zeros((-(-len(items) // size), items.shape[1], size), np.int8)
        self._steps = np.ones(items.shape[1], np.float32)
        for axis in range(items.shape[1]):
            self._round(axis)

    def moved(self, rows: npt.NDArray[np.integer]) -> None:
        """Take note that items ``(m,)`` have moved along the last axis."""
        axis = self.items[rows, -1]
        if np.abs(axis).max(initial=0) > STEPS * self._steps[-1]:
            self._round(-1)
        else:
            block, place = np.divmod(rows, kernels.BLOCK_ITEMS)
            self._codes[block, -1, place] = np.rint(axis / self._steps[-1])

    def _round(self, axis: int) -> None:
        """Round all items along an axis, in steps of its own."""
        coordinates = np.array(self.items[:, axis])
        self._steps[axis] = max(np.abs(coordinates).max() / STEPS, np.finfo(np.float32).tiny)
        codes = np.zeros(self._codes[:, 0].size, np.int8)
        codes[: len(coordinates)] = np.rint(coordinates / self._steps[axis])
        self._codes[:, axis] = codes.reshape(self._codes[:, 0].shape)

    def top_k(
        self, queries: npt.ArrayLike, k: int, barred: npt.NDArray[np.integer] | None = None
    ) -> tuple[Rows, Floats]:
        """Find the k items of highest dot product with each query; as `exact.top_k`."""
        vectors, barred = checked_query(queries, self.items, barred)
        if not 0 < len(vectors) <= MOST_QUERIES or not 0 < k <= len(self.items):
            return top_k(vectors, self.items, k, barred)
        excluded = np.empty((len(vectors), 0), np.int64) if barred is None else barred
        scaled = vectors * self._steps
        finalists = np.full((len(vectors), FINALISTS[0] * k + FINALISTS[1]), -1, np.int64)
        fits = kernels.finalists_by_codes(
            scaled, self._codes, len(self.items), excluded, _slack(scaled), k, finalists
        )
        rows, scores = ranked(vectors, self.items, finalists, k)
        if not fits.all():
            of_rest = None if barred is None else barred[~fits]
            rows[~fits], scores[~fits] = top_k(vectors[~fits], self.items, k, of_rest)
        return rows, scores


def can_round(items: Floats) -> bool:
    """Whether items are such that the scores of `CoarseItems` are numbers."""
    return bool(np.abs(items).max(initial=0) <= LARGEST)  # false with NaN


def _slack(scaled: Floats) -> Floats:
    """How far the scores of two rounded items may be apart, and their order be the other way round.

    By rounding a coordinate errs by half a step at most. What float32 adds is at most ``d u`` of
    the sum of all products (see `exact._rounding`), each of at most `STEPS` steps; half as much
    again covers the rounding of steps and of the scores that decide. What is nearly 0 errs by the
    least number there is, too.

    Args:
        scaled: Queries times the steps of the axes ``(q, d)``.

    Returns:
        Slack of each query ``(q,)``.
    """
    unit = 1.5 * scaled.shape[1] * np.finfo(np.float32).eps * STEPS
    slack: Floats = np.abs(scaled).sum(axis=1, dtype=np.float64) * 2 * (0.5 + unit)
    least = 2 * scaled.shape[1] * float(np.finfo(np.float32).smallest_subnormal) * STEPS
    return (slack + least).astype(np.float32)
