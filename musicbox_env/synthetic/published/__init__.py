"""Published aggregates of the Music Streaming Sessions Dataset; ``README.md`` beside names sources.

The generator of synthetic data draws from them and `musicbox_env.synthetic.calibration` compares
with them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


@cache
def _table(name: str) -> pd.DataFrame:
    with files(__name__).joinpath(name).open() as file:
        return pd.read_csv(file)


@cache
def figures() -> dict[str, Any]:
    """Figures about plays by name; see the README for what each was counted on."""
    content: dict[str, Any] = json.loads(files(__name__).joinpath("figures.json").read_text())
    return content


@cache
def session_lengths() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Lengths ``(11,)`` and the share of sessions that have them ``(11,)``."""
    table = _table("session_lengths.csv")
    sessions = table["sessions"].to_numpy(dtype=np.float64)
    return table["session_length"].to_numpy(dtype=np.int64), sessions / sessions.sum()


def play_counts(num_tracks: int) -> npt.NDArray[np.float64]:
    """Plays of the most played tracks of the full set, ``(num_tracks,)``, descending.

    Beyond the 3.6 million tracks of the set a track is as the last of them, which has one play.
    """
    table = np.log(_table("play_counts.csv")[["rank", "plays"]].to_numpy(float))
    return np.exp(np.interp(np.log(np.arange(1, num_tracks + 1)), table[:, 0], table[:, 1]))


@cache
def feature_histogram(feature: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rounded values of a feature, ascending, and the share of tracks at each; maybe empty."""
    table = _table("feature_histograms.csv")
    of_feature = table[table["feature"] == feature]
    counts = of_feature["count"].to_numpy(dtype=np.float64)
    return of_feature["value"].to_numpy(dtype=np.float64), counts / max(counts.sum(), 1.0)


@cache
def feature_summary() -> dict[str, dict[str, float]]:
    """Mean, std, min, q25, q50, q75 and max of each feature."""
    table = _table("feature_summary.csv").set_index("feature").drop(columns="population")
    return {
        str(feature): {str(name): float(value) for name, value in row.items()}
        for feature, row in table.iterrows()
    }


@cache
def feature_correlations() -> pd.DataFrame:
    """Play-weighted Pearson correlations, features by features, in published order."""
    return _table("feature_correlations.csv").set_index("feature")
