"""Songs chosen for sessions, by vectors or by scores: what all agents that name tracks share."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from musicbox_env.retrieval.exact import Find, top_k, top_k_among

Batch = Mapping[str, npt.NDArray]
Floats = npt.NDArray[np.floating]
Slates = npt.NDArray[np.int64]


def nearest(
    batch: Batch, queries: Floats, items: Floats, k: int, find: Find | None = None
) -> Slates:
    """The k tracks of highest dot product that may be recommended ``(n, k)``, -1 for none.

    Args:
        batch: Observation of n sessions: ``candidates`` to choose among, or the tracks ``barred``.
        queries: A vector for each session ``(n, d)``.
        items: Vectors of all tracks ``(num_tracks, d)``.
        k: How many.
        find: Searches the items, as `Search.top_k`; None is `top_k`.
    """
    if "candidates" not in batch:
        barred = batch["barred"]
        found, _ = find(queries, k, barred) if find else top_k(queries, items, k, barred)
        return found
    candidates = batch["candidates"].astype(np.int64)
    # They come sorted by track, so that their places tell nothing of the log's order.
    order = np.broadcast_to(np.arange(candidates.shape[1]), candidates.shape)
    places = top_k_among(queries, items, candidates, k, order)
    return np.where(places >= 0, np.take_along_axis(candidates, places, axis=1), -1)


def best_candidates(candidates: npt.NDArray, scores: Floats, k: int) -> Slates:
    """The k candidates ``(n, c)`` of highest score ``(n, c)``, as tracks ``(n, k)``, 0 for none."""
    return best_with_scores(candidates, scores, k)[0]


def best_with_scores(
    candidates: npt.NDArray, scores: Floats, k: int
) -> tuple[Slates, npt.NDArray[np.floating]]:
    """As `best_candidates`, and their scores ``(n, k)``, -inf for none."""
    scores = np.where(candidates >= 0, scores, -np.inf)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    tracks = np.maximum(np.take_along_axis(candidates, places, axis=1), 0).astype(np.int64)
    return tracks, np.take_along_axis(scores, places, axis=1)
