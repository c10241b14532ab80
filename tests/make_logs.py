"""Hand-made listening logs in the published columns, and the plain way to evaluate them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from musicbox_env.data.dataset import Dataset
from musicbox_env.schema import (
    CONTEXT_TYPES,
    LOG_COLUMNS,
    REASONS_END,
    REASONS_START,
    TRACK_FEATURES,
    labels_from_levels,
)


def make_log(
    num_sessions: int = 30,
    *,
    seed: int = 0,
    lengths: Sequence[int] | None = None,
    prefix: str = "s",
    num_tracks: int = 200,
) -> pd.DataFrame:
    """A valid log as text, session after session, a string in every field."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(10, 21, num_sessions) if lengths is None else np.asarray(lengths)
    session = np.repeat(np.arange(len(sizes)), sizes)
    n = len(session)
    labels = labels_from_levels(rng.integers(0, 5, n))
    pause = rng.integers(0, 2, n)
    frame = {
        "session_id": [f"{prefix}{i:05d}" for i in session],
        "session_position": np.concatenate([np.arange(1, size + 1) for size in sizes]),
        "session_length": np.repeat(sizes, sizes),
        "track_id_clean": [f"t_{i:04d}" for i in rng.integers(0, num_tracks, n)],
        **labels,
        "context_switch": rng.integers(0, 2, n),
        "no_pause_before_play": 1 - pause,
        "short_pause_before_play": pause,
        "long_pause_before_play": pause * rng.integers(0, 2, n),
        "hist_user_behavior_n_seekfwd": rng.integers(0, 4, n),
        "hist_user_behavior_n_seekback": rng.integers(0, 4, n),
        "hist_user_behavior_is_shuffle": rng.random(n) < 0.3,
        "hour_of_day": rng.integers(0, 24, n),
        "date": rng.choice(["2018-07-15", "2032-01-01"], n),
        "premium": rng.random(n) < 0.8,
        "context_type": rng.choice(CONTEXT_TYPES, n),
        "hist_user_behavior_reason_start": rng.choice(REASONS_START, n),
        "hist_user_behavior_reason_end": rng.choice(REASONS_END, n),
    }
    return pd.DataFrame(frame)[list(LOG_COLUMNS)].astype(str)


def make_features(track_ids: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """Track features in the published columns."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {name: rng.random(len(track_ids)).round(4) for name in TRACK_FEATURES},
    )
    frame["us_popularity_estimate"] = (90 + 10 * rng.random(len(track_ids))).round(3)
    frame["mode"] = rng.choice(["major", "minor"], len(track_ids))
    frame.insert(0, "track_id", track_ids)
    return frame


def write_csv(frame: pd.DataFrame, path: Path) -> Path:
    """Write a log as it is published."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def plays_of(frame: pd.DataFrame) -> dict[str, list[tuple[int, str]]]:
    """Position and track of each session's plays, the obvious way: a dictionary, row by row."""
    sessions: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in frame.to_dict("records"):
        sessions[row["session_id"]].append((int(row["session_position"]), row["track_id_clean"]))
    return {session: sorted(plays) for session, plays in sessions.items()}


def passed_over(dataset: Dataset) -> dict[str, str]:
    """Why each file or table was not read, by its name."""
    of = dataset.about["passed_over"]
    return dict(zip(of["names"], of["why"], strict=True))
