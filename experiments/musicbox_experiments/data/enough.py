"""Whether a dataset is large enough for a claim, in plain words."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.sessions import MEND
from musicbox_env.data.splits import runs_of
from musicbox_env.errors import reading
from musicbox_env.ingest.histories.account import INFERRED
from musicbox_env.retrieval.held_out import NORMAL_95
from musicbox_env.schema import SPLITS, is_skip

FEW_PLAYS = 5
"""A track played less often than this in training has no rate or place of its own to speak of."""
WORTH_SEEING = 0.02
"""A difference in skip rate that one would want to see: two points."""
WIDER = 1.1
"""Intervals that should be wider by this factor are said to be too narrow."""


def cautions(dataset: Dataset) -> list[str]:
    """What this dataset is too small for; nothing where it is large enough."""
    return [*inferred_levels(dataset), *_interval(dataset), *_counts(dataset)]


def inferred_levels(dataset: Dataset) -> list[str]:
    """What rests on levels that nothing told; nothing where all are told."""
    share = dataset.about.get("history", {}).get("levels", {}).get(INFERRED, 0)
    if not share:
        return []
    return [
        f"{100 * share:.1f} % of the listen levels are inferred, not told: such plays count as "
        "heard until the listener's next play began, or to the end. A song that was left with "
        "nothing after it counts as heard, and what a service never scrobbled (often all that was "
        "left before its half) is missing. Skip rates are those of this reading, not of listeners."
    ]


def _interval(dataset: Dataset) -> Iterator[str]:
    sessions = dataset.sessions
    if empty := [name for name in SPLITS if not len(sessions.sessions_in(name))]:
        yield (
            f"Of {sessions.num_sessions:,} sessions none fell to {', '.join(empty)}: nothing can "
            "be learned, picked or evaluated there."
        )
    runs = _runs_of_test_sessions(dataset)
    half = skip_rate_interval(dataset, runs)
    if half is None:
        of_one = " of one run of plays" if len(runs) > 1 else ""
        yield (
            f"With {len(runs):,} test sessions{of_one} nothing can be measured: no claim is "
            "possible."
        )
        return
    if half > WORTH_SEEING:
        yield (
            f"Too little for fine claims: on {len(runs):,} test sessions a skip rate is known to "
            f"± {100 * half:.1f} points (95 %)."
        )
    alone = skip_rate_interval(dataset, np.arange(len(runs)))
    if alone and half > WIDER * alone:
        yield (
            f"The {len(runs):,} test sessions are windows of {runs.max() + 1:,} runs of plays, and "
            "alike within a run. Reports take them for independent: their intervals should be "
            f"{half / alone:.1f} times as wide."
        )


def _counts(dataset: Dataset) -> Iterator[str]:
    plays = dataset.catalog.plays()
    thin = float((plays < FEW_PLAYS).mean())
    if thin >= 0.5:
        yield (
            f"{100 * thin:.0f} % of the {len(plays):,} tracks have fewer than {FEW_PLAYS} plays in "
            "training. What is said of one of them rests on next to nothing."
        )
    name = dataset.best_embedding if dataset.embedding_names else ""
    with reading(dataset.folder / "embeddings" / f"{name}.json", MEND):
        about = dataset.about_embedding(name)
        found = about.get("held_out", {}).get("mean_percentile_of_plays")
        poor = found is not None and found["high"] >= 0.5
    if poor:
        yield (
            f"The embedding ({name}) does not surely find songs left out of unseen sessions better "
            "than chance. Agents that choose by likeness may have nothing to go by."
        )
    if dataset.about.get("history", {}).get("listeners") == 1:
        yield (
            "All sessions are one listener's: what is found here need not hold for another. Files "
            "of several listeners are told apart by a user column, or by --archives-apart."
        )


def _runs_of_test_sessions(dataset: Dataset) -> npt.NDArray[np.int64]:
    """Number of the run that each test session is of; in logs each session is a run."""
    sessions = dataset.sessions.sessions_in("test")
    if "history" not in dataset.about:
        return np.arange(len(sessions))
    ids = pa.array(dataset.sessions.session_ids[sessions], pa.string())
    return runs_of(ids).dictionary_encode().indices.to_numpy().astype(np.int64)


def skip_rate_interval(dataset: Dataset, groups: npt.NDArray[np.int64]) -> float | None:
    """Half the 95 % interval of the logged skip rate on test sessions; None for fewer than two.

    Normal, of a ratio of means over groups of sessions, which are taken to be independent.
    ``groups`` holds the group of each test session, numbered from 0.
    """
    if not len(groups) or groups.max() < 1:
        return None
    level = dataset.sessions.padded("level", dataset.sessions.sessions_in("test"))
    skips = np.bincount(groups, weights=is_skip(level).sum(axis=1))
    plays = np.bincount(groups, weights=(level >= 0).sum(axis=1))
    rate = skips.sum() / max(plays.sum(), 1)
    deviation = (skips - rate * plays) / max(plays.mean(), 1)
    return float(NORMAL_95 * deviation.std(ddof=1) / np.sqrt(len(skips)))
