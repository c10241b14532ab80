"""Logs whose folds are known, and which can be changed in one fold alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.sessions import assign_splits
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, write_dataset
from musicbox_env.retrieval.embeddings import fit_embeddings
from musicbox_env.schema import SPLITS

SESSIONS, TRACKS, PLAYS = 300, 40, 12
IDS = [f"session-{i}" for i in range(SESSIONS)]
TRACK_IDS = [f"track-{i:02d}" for i in range(TRACKS)]
Change = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def split_of_each() -> np.ndarray:
    """Names of the splits that the sessions have ``(SESSIONS,)``."""
    split = SplitConfig()
    return np.array(SPLITS)[assign_splits(IDS, seed=split.seed, shares=split.shares)]


def logged_plays() -> pd.DataFrame:
    """Columns session, track and level, in the order heard; some songs are kept more."""
    rng = np.random.default_rng(3)
    likes = rng.random(TRACKS)
    popularity = rng.gamma(1.0, size=TRACKS) + 0.1
    session = np.repeat(np.arange(SESSIONS), PLAYS)
    track = rng.choice(TRACKS, size=len(session), p=popularity / popularity.sum())
    kept = rng.random(len(session)) < 0.2 + 0.6 * likes[track]
    return pd.DataFrame({"session": session, "track": track, "level": np.where(kept, 4, 0)})


def relabelled(plays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every label turned round."""
    return plays.assign(level=4 - plays["level"])


def renamed(plays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every play of another song."""
    return plays.assign(track=rng.integers(0, TRACKS, len(plays)))


def fewer(plays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Some plays dropped, and a third of the sessions with all of theirs."""
    return plays[(plays["session"] % 3 > 0) & (rng.random(len(plays)) < 0.7)]


def more(plays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Some plays added to each session."""
    again = plays.groupby("session").head(5)
    return pd.concat([plays, again]).sort_values("session", kind="stable")


CHANGES: dict[str, Change] = {c.__name__: c for c in (relabelled, renamed, fewer, more)}


def divided_world(
    folder: Path,
    change: Change | None = None,
    split: str = "train_b",
    source: np.ndarray | None = None,
) -> Dataset:
    """Write the log, plays of one split changed, fit embeddings and open it.

    ``source`` says who chose each play of the log that is not changed.

    The catalog is that of a table of features, whoever plays what.
    """
    plays = logged_plays()
    if change is not None:
        there = split_of_each()[plays["session"]] == split
        changed = change(plays[there], np.random.default_rng(5))
        plays = pd.concat([plays[~there], changed]).sort_values("session", kind="stable")
    sessions, lengths = np.unique(plays["session"], return_counts=True)
    block = PlayBlock(
        np.array([IDS[s] for s in sessions], dtype=object),
        lengths,
        np.array(TRACK_IDS, dtype=object),
        {name: plays[name].to_numpy() for name in ("track", "level")},
    )
    if source is not None:
        block.columns["source"] = source
    rng = np.random.default_rng(4)
    features = pd.DataFrame({"track_id": TRACK_IDS, "energy": rng.random(TRACKS), "tempo": 120.0})
    folder.mkdir(parents=True)
    write_dataset(folder, [block], features=features, split=SplitConfig(), about={})
    fit_embeddings(folder, dim=4)
    return Dataset(folder)
