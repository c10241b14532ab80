"""Listeners: the user simulators, all subclasses of `base.Listener`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.base import (
    History,
    Listener,
    NoState,
    RankingSpace,
    for_each,
    put_rows,
    sample_levels,
    skip_probability,
)
from musicbox_env.listeners.files import MEND, read_fit
from musicbox_env.listeners.ground_truth import GroundTruthListener
from musicbox_env.listeners.learned.listener import LearnedListener
from musicbox_env.listeners.replay import ReplayListener
from musicbox_env.listeners.similarity import SimilarityConfig, SimilarityListener
from musicbox_env.schema import brief, suggest


def pessimistic_listener(dataset: Dataset) -> LearnedListener:
    """The learned listener, with one spread of its uncertainty added to every skip logit."""
    return LearnedListener(dataset, pessimism=1.0)


LISTENERS: dict[str, Callable[[Dataset], Any]] = {
    "replay": ReplayListener,
    "similarity": SimilarityListener,
    "learned": LearnedListener,
    "pessimistic": pessimistic_listener,
    "ground_truth": GroundTruthListener,
}
"""Every listener by name; add a new one here."""

FITTED_SUFFIX = ".npz"


def make_listener(name: str, dataset: Dataset) -> Listener[Any]:
    """Build a listener for a dataset.

    Args:
        name: One of `LISTENERS`, or the path of a file that `musicbox fit-listener` wrote.
        dataset: The sessions to simulate.

    Raises:
        ValueError: No listener has that name, or the file is none.
        FileNotFoundError: There is no such file.
    """
    require_listener(name)
    if name in LISTENERS:
        return LISTENERS[name](dataset)
    path = Path(name)
    about, _ = read_fit(path)
    if about["listener"] == "similarity":
        file = CheckedFile(path, MEND)
        given = file.field(about, "settings", dict)
        settings = file.built(SimilarityConfig, given, "settings", defaults=True)
        return SimilarityListener(dataset, settings)
    return LearnedListener(dataset, path)


def require_listener(name: str) -> None:
    """Refuse what is neither a listener's name nor the path of a fitted one.

    Raises:
        ValueError: With a suggestion.
    """
    if name not in LISTENERS and not str(name).endswith(FITTED_SUFFIX):
        raise ValueError(
            f"Unknown listener {brief(name)}; {suggest(name, LISTENERS)} Or the path of a fitted "
            f"one, a {FITTED_SUFFIX} file that `musicbox fit-listener` wrote."
        )


__all__ = [
    "LISTENERS",
    "GroundTruthListener",
    "History",
    "LearnedListener",
    "Listener",
    "NoState",
    "RankingSpace",
    "ReplayListener",
    "SimilarityListener",
    "for_each",
    "make_listener",
    "put_rows",
    "require_listener",
    "sample_levels",
    "skip_probability",
]
