"""Listeners: the user simulators, behind one small protocol (`base.Listener`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from musicbox_env.dataset import Dataset
from musicbox_env.listeners.base import History, Listener, put_rows, sample_levels, skip_probability
from musicbox_env.listeners.ground_truth import GroundTruthListener
from musicbox_env.listeners.replay import ReplayListener
from musicbox_env.schema import require_known

LISTENERS: dict[str, Callable[[Dataset], Any]] = {
    "replay": ReplayListener,
    "ground_truth": GroundTruthListener,
}
"""Every listener that can be asked for by name; a new one joins here."""


def make_listener(name: str, dataset: Dataset) -> Listener[Any]:
    """Build a listener for a dataset.

    Raises:
        ValueError: No listener has that name.
    """
    require_known("listener", name, LISTENERS)
    return LISTENERS[name](dataset)


__all__ = [
    "LISTENERS",
    "GroundTruthListener",
    "History",
    "Listener",
    "ReplayListener",
    "make_listener",
    "put_rows",
    "sample_levels",
    "skip_probability",
]
