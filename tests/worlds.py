"""Small datasets with planted structure: what an embedding or a recommender ought to find."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, write_dataset
from musicbox_env.listeners import History, Listener, NoState
from musicbox_env.schema import Level, is_skip

PLAYS = 10


def planted_world(
    folder: Path,
    *,
    sessions: int = 600,
    tracks: int = 60,
    genres: int = 2,
    cold: int = 6,
    blank: int = 2,
    features: bool = True,
    seed: int = 0,
) -> Dataset:
    """Write sessions that each stay within one genre, nine plays of ten, and open them.

    Track ids tell the genre, ``genre0-007``; see `genre_of`. A session keeps its genre's songs
    and skips the others. Energy and valence give the genre away, tempo is noise, every fifth
    track has a gap.

    Args:
        folder: Where to write.
        sessions: Number of sessions of ten plays.
        tracks: Tracks that sessions play, some more than others.
        genres: Number of genres.
        cold: Further tracks that nobody played, ``genre1-cold-3``, known by features.
        blank: Further tracks that nobody played and of which nothing is known, ``blank-1``.
        features: Whether there are features at all; without, nobody knows of ``cold`` tracks.
        seed: Of everything drawn.
    """
    rng = np.random.default_rng(seed)
    genre = np.arange(tracks) % genres
    ids = [f"genre{g}-{i:03d}" for i, g in enumerate(genre)]
    popularity = rng.gamma(1.0, size=tracks) + 0.1
    own = rng.integers(genres, size=sessions)
    stays = rng.random((sessions, PLAYS)) < 0.9
    heard_genre = np.where(stays, own[:, None], rng.integers(genres, size=(sessions, PLAYS)))
    heard = np.empty((sessions, PLAYS), dtype=np.int64)
    for g in range(genres):
        weight = popularity * (genre == g)
        here = heard_genre == g
        heard[here] = rng.choice(tracks, size=here.sum(), p=weight / weight.sum())
    block = PlayBlock(
        session_ids=np.array([f"session{i}" for i in range(sessions)], dtype=object),
        lengths=np.full(sessions, PLAYS),
        vocabulary=np.array(ids, dtype=object),
        columns={
            "track": heard.ravel(),
            "level": np.where(heard_genre == own[:, None], Level.FULL, Level.BRIEF).ravel(),
            "position": np.tile(np.arange(1, PLAYS + 1), sessions),
        },
    )
    table = _features(ids, genre, genres, cold, blank, rng) if features else None
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset(folder, [block], features=table, split=SplitConfig(), about={})
    return Dataset(folder)


def _features(ids, genre, genres, cold, blank, rng):
    cold_genre = np.arange(cold) % genres
    of_cold = [f"genre{g}-cold-{i}" for i, g in enumerate(cold_genre)]
    of_blank = [f"blank-{i}" for i in range(blank)]
    every = np.concatenate([genre, cold_genre])
    angle = 2 * np.pi * every / genres
    values = {
        "energy": np.cos(angle) + 0.1 * rng.standard_normal(len(every)),
        "valence": np.sin(angle) + 0.1 * rng.standard_normal(len(every)),
        "tempo": 120 + 5 * rng.standard_normal(len(every)),
    }
    values["tempo"][::5] = np.nan
    padded = {name: np.append(v, np.full(blank, np.nan)) for name, v in values.items()}
    return pd.DataFrame({"track_id": [*ids, *of_cold, *of_blank], **padded})


def genre_of(dataset: Dataset) -> np.ndarray:
    """Planted genre of each row of the catalog, -1 for blank tracks."""
    ids = dataset.catalog.track_ids
    return np.array([int(i[5]) if i.startswith("genre") else -1 for i in ids])


def is_cold(dataset: Dataset) -> np.ndarray:
    """Which rows are tracks that nobody played but whose features are known."""
    return np.array(["cold" in i for i in dataset.catalog.track_ids])


class Picky(Listener[NoState]):
    """Keeps good songs to the end, whoever listens, and skips all others at once."""

    def __init__(self, good: npt.NDArray[np.bool_]) -> None:
        self.good = good

    def level_probabilities(
        self, state: NoState, history: History, rows: Any, tracks: Any, plays: Any
    ) -> npt.NDArray[np.float64]:
        return np.eye(5)[np.where(self.good[tracks], Level.FULL, Level.BRIEF)]


class Loyal(Picky):
    """Keeps the songs of the genre of the first song that it kept, and skips all others."""

    def __init__(self, genre: npt.NDArray[np.integer]) -> None:
        self.genre = genre

    def level_probabilities(
        self, state: NoState, history: History, rows: Any, tracks: Any, plays: Any
    ) -> npt.NDArray[np.float64]:
        levels = history.levels[rows]
        first = ((levels >= 0) & ~is_skip(levels)).argmax(axis=1)
        own = self.genre[history.tracks[rows, first]]
        kept = self.genre[tracks] == own[:, None]
        return np.eye(5)[np.where(kept, Level.FULL, Level.BRIEF)]


def next_plays(
    listener: Any, sessions: npt.NDArray[np.int64], *, shown: bool = True
) -> npt.NDArray[np.float64]:
    """Level probabilities of every play given all plays before it ``(n, width, 5)``, else NaN.

    Args:
        listener: Of a dataset.
        sessions: Sessions of the log ``(n,)``.
        shown: Whether the earlier plays are shown with all that the log holds of them. If not, the
            first is, and of the others the listener is given the level. Then the first play is NaN.
    """
    dataset, width = listener.dataset, listener.dataset.longest_session
    tracks, levels = (dataset.sessions.padded(n, sessions, width) for n in ("track", "level"))
    found = np.full((*tracks.shape, 5), np.nan)
    history = History.logged(dataset, sessions, np.ones_like(sessions), width)
    state = listener.begin(history)
    for place in range(0 if shown else 1, width):
        rows = np.flatnonzero(tracks[:, place] >= 0)
        songs = tracks[rows, place].astype(np.int64)
        if shown:
            history = History.logged(dataset, sessions, np.full(len(sessions), place), width)
            state = listener.begin(history)
        asked = songs[:, None], np.full((len(rows), 1), -1)
        found[rows, place] = listener.level_probabilities(state, history, rows, *asked)[:, 0]
        if not shown:
            listener.update_state(state, history, rows, songs, levels[rows, place])
            history.record(rows, songs, levels[rows, place])
    return found
