"""Whether a dataset is large enough for a claim, in plain words."""

from __future__ import annotations

import json

import numpy as np

from musicbox_env.dataset import Dataset
from musicbox_env.schema import is_skip

FEW_PLAYS = 5
"""A track played less often than this in training has no rate or place of its own to speak of."""
WORTH_SEEING = 0.02
"""A difference in skip rate that one would want to see: two points."""
NORMAL_95 = 1.959964


def cautions(dataset: Dataset) -> list[str]:
    """What this dataset is too small for; nothing where it is large enough."""
    return [*_interval(dataset), *_thin_tracks(dataset), *_embedding(dataset), *_listeners(dataset)]


def _interval(dataset: Dataset) -> list[str]:
    half = skip_rate_interval(dataset)
    count = len(dataset.sessions.sessions_in("test"))
    if half is None:
        return [f"With {count:,} test sessions nothing can be measured: no claim is possible."]
    if half <= WORTH_SEEING:
        return []
    return [
        f"Too little for fine claims: on {count:,} test sessions a skip rate is known to "
        f"± {100 * half:.1f} points (95 %). Agents that differ by less cannot be told apart here."
    ]


def skip_rate_interval(dataset: Dataset) -> float | None:
    """Half the 95 % interval of the logged skip rate on test sessions; None for fewer than two.

    Normal, of a ratio of means over sessions, which are taken to be independent.
    """
    sessions = dataset.sessions.sessions_in("test")
    if len(sessions) < 2:
        return None
    level = dataset.sessions.padded("level", sessions)
    skips, plays = is_skip(level).sum(axis=1), (level >= 0).sum(axis=1)
    rate = skips.sum() / max(plays.sum(), 1)
    deviation = (skips - rate * plays) / max(plays.mean(), 1)
    return float(NORMAL_95 * deviation.std(ddof=1) / np.sqrt(len(sessions)))


def _thin_tracks(dataset: Dataset) -> list[str]:
    plays = dataset.catalog.plays()
    thin = float((plays < FEW_PLAYS).mean())
    if thin < 0.5:
        return []
    return [
        f"{100 * thin:.0f} % of the {len(plays):,} tracks have fewer than {FEW_PLAYS} plays in "
        "training. What is said of one of them rests on next to nothing."
    ]


def _embedding(dataset: Dataset) -> list[str]:
    name = next(iter(dataset.embedding_names), None)
    file = dataset.folder / "embeddings" / f"{name}.json"
    if not file.is_file():
        return []
    found = json.loads(file.read_text()).get("held_out", {}).get("mean_percentile_of_plays")
    if found is None or found["high"] < 0.5:
        return []
    return [
        f"The embedding ({name}) finds songs left out of unseen sessions no better than chance. "
        "Agents that choose by likeness have nothing to go by."
    ]


def _listeners(dataset: Dataset) -> list[str]:
    if dataset.about.get("history", {}).get("listeners") != 1:
        return []
    return ["All sessions are one listener's: what is found here holds for nobody else."]
