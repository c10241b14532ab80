"""Datasets and observations small enough to see what is right."""

import numpy as np

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, write_dataset
from musicbox_env.schema import Level
from musicbox_env.simulator.observations import CONTEXT_SIZE

KEPT, SKIPPED = Level.FULL, Level.BRIEF
HISTORY = 20


def write_sessions(folder, sessions, embeddings=None):
    """A dataset whose sessions, all of training, are lists of (track name, level)."""
    names = sorted({track for session in sessions for track, _ in session})
    block = PlayBlock(
        session_ids=np.array([f"s{i}" for i in range(len(sessions))], dtype=object),
        lengths=np.array([len(s) for s in sessions]),
        vocabulary=np.array(names, dtype=object),
        columns={
            "track": np.array([names.index(t) for s in sessions for t, _ in s]),
            "level": np.array([level for s in sessions for _, level in s]),
        },
    )
    folder.mkdir()
    all_training = SplitConfig(train=1.0, validation=0.0, test=0.0)
    write_dataset(folder, [block], features=None, split=all_training, about={})
    (folder / "embeddings").mkdir()
    for name, vectors in (embeddings or {}).items():
        np.save(folder / "embeddings" / f"{name}.npy", np.asarray(vectors, np.float32))
    return Dataset(folder)


def observe(*sessions, candidates=None):
    """Observation "ids" of sessions given as lists of (track, level); the newest is last."""
    tracks = np.full((len(sessions), HISTORY), -1, np.int32)
    levels = np.full((len(sessions), HISTORY), -1, np.int8)
    for i, plays in enumerate(sessions):
        if plays:
            tracks[i, -len(plays) :], levels[i, -len(plays) :] = zip(*plays, strict=True)
    observation = {
        "tracks": tracks,
        "levels": levels,
        "context": np.zeros((len(sessions), CONTEXT_SIZE), np.float32),
    }
    if candidates is None:
        observation["barred"] = tracks.copy()
    else:
        observation["candidates"] = np.array(candidates, np.int32)
    return observation


SESSIONS = [
    [("a", KEPT), ("b", KEPT), ("c", SKIPPED)],
    [("a", KEPT), ("b", SKIPPED), ("a", KEPT)],
    [("b", KEPT), ("d", KEPT), ("e", KEPT)],
    [("c", KEPT), ("e", KEPT)],
    [("a", SKIPPED), ("f", KEPT), ("e", KEPT), ("c", KEPT)],
]
