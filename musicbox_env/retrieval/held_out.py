"""How good an embedding is: the rank of songs left out of validation sessions among all tracks."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.sessions import SessionLog
from musicbox_env.retrieval.exact import weight_above

CHECKED_SESSIONS = 2_000
NORMAL_95: Final = 1.959964

Floats = npt.NDArray[np.float32]


def held_out_check(
    vectors: Floats, dataset: Dataset, *, seed: int = 0, split: str = "validation"
) -> dict[str, Any]:
    """Leave one song out of each session and look for it among all tracks.

    Tracks are ranked by dot product with the mean of the session's other songs, which do not
    take part. One song a session: the answers are independent, and so are the intervals (95 %:
    Wilson's for rates, normal for means).

    - ``hit_rate_1_percent``, ``hit_rate_100``: share of songs found among the best 1 % of the
      catalog, or the best 100.
    - ``mean_percentile``: share of tracks that rank above the song; 0 is best, chance 0.5.
    - ``mean_percentile_of_plays``: the same, tracks weighted by training plays: the chance that a
      song out of the log at large ranks above the session's own. Popularity gets 0.5 here, and
      what an embedding gains is taste alone. Choose embeddings by it: songs are left out
      as often as they are played, so that the other three reward popularity above all.

    Args:
        vectors: Embedding ``(num_tracks, dim)``.
        dataset: Where the sessions come from.
        seed: Of the choice of sessions and songs.
        split: Which sessions; at most `CHECKED_SESSIONS` of them.

    Returns:
        The measures, each ``{"value", "low", "high"}``, and under ``"popularity"`` those of
        ranking by training plays. ``{"sessions": 0}`` where no session has two different songs.
    """
    rng = np.random.default_rng(seed)
    targets, others = left_out(dataset.sessions, split, rng)
    if not len(targets):
        return {"sessions": 0}
    plays = dataset.catalog.plays()
    heard = others >= 0
    mean = np.einsum("sp,spd->sd", heard / heard.sum(axis=1, keepdims=True), vectors[others])
    # Ranks instead of plays: they are exact in float32.
    popularity = np.unique(plays, return_inverse=True)[1].astype(np.float32)[:, None]
    one = np.ones((len(targets), 1))
    return {
        "sessions": len(targets),
        "split": split,
        **_standing(mean, vectors, targets, others, plays),
        "popularity": _standing(one, popularity, targets, others, plays),
    }


def left_out(
    log: SessionLog, split: str, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A song of each session ``(s,)`` and the session's other songs ``(s, places)``, -1 pads."""
    sessions = log.sessions_in(split)
    chosen = rng.permutation(sessions)[:CHECKED_SESSIONS]
    tracks = np.sort(log.padded("track", chosen).astype(np.int64), axis=1)
    tracks[:, 1:][tracks[:, 1:] == tracks[:, :-1]] = -1
    numbers = np.where(tracks >= 0, rng.random(tracks.shape), -1)
    place = numbers.argmax(axis=1)[:, None]
    targets = np.take_along_axis(tracks, place, axis=1)[:, 0]
    np.put_along_axis(tracks, place, -1, axis=1)
    usable = (tracks >= 0).any(axis=1)
    return targets[usable], tracks[usable]


def _standing(
    queries: npt.NDArray,
    items: npt.NDArray,
    targets: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    plays: npt.NDArray[np.int64],
) -> dict[str, dict[str, float]]:
    """How high the targets rank; see `held_out_check`."""
    weights = np.stack([np.ones(len(plays)), plays], axis=1)
    above = weight_above(queries, items, targets, weights, barred=others)
    left = np.where(others[:, :, None] >= 0, weights[others], 0).sum(axis=1)
    compared = weights.sum(axis=0) - left - weights[targets]
    rank = above[:, 0]
    share = above / np.maximum(compared, 1)
    return {
        "hit_rate_1_percent": _rate(rank < len(plays) / 100),
        "hit_rate_100": _rate(rank < 100),
        "mean_percentile": _mean(share[:, 0]),
        "mean_percentile_of_plays": _mean(share[:, 1]),
    }


def _rate(hits: npt.NDArray[np.bool_]) -> dict[str, float]:
    """A share with its 95 % interval after Wilson (1927), which holds near 0 and 1 too."""
    share, n, z = float(hits.mean()), len(hits), NORMAL_95
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return {"value": share, "low": middle - half, "high": middle + half}


def _mean(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """A mean with its 95 % interval, normal."""
    mean = float(values.mean())
    half = NORMAL_95 * float(values.std()) / len(values) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}
