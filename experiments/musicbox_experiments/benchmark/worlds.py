"""Random datasets and embeddings of any size, made in seconds, to measure speed on."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import (
    PlayBlock,
    save_array,
    staged_folder,
    write_dataset,
)
from musicbox_env.schema import MAX_SESSION_LENGTH, MIN_SESSION_LENGTH, NUM_LEVELS

JITTER = 0.3
"""Length of the noise that makes a new track of a fitted one: a cosine of about .96 to it."""


def random_dataset(folder: Path, sessions: int, tracks: int, *, dim: int = 32) -> Path:
    """A dataset folder of random plays and a random embedding; one that exists is kept."""
    if folder.exists():
        return folder
    rng = np.random.default_rng(0)
    lengths = rng.integers(MIN_SESSION_LENGTH, MAX_SESSION_LENGTH, sessions, endpoint=True)
    plays = int(lengths.sum())
    heard = rng.integers(0, tracks, plays)
    heard[:tracks] = np.arange(min(tracks, plays))
    block = PlayBlock(
        session_ids=np.array([f"s{i}" for i in range(sessions)], dtype=object),
        lengths=lengths,
        vocabulary=np.array([f"t{i}" for i in range(tracks)], dtype=object),
        columns={"track": heard, "level": rng.integers(0, NUM_LEVELS, plays)},
    )
    with staged_folder(folder) as staging:
        every = pd.DataFrame({"track_id": block.vocabulary})  # tracks without plays join through it
        write_dataset(staging, [block], features=every, split=SplitConfig(), about={})
        (staging / "embeddings").mkdir(exist_ok=True)
        save_array(staging / "embeddings" / "hybrid.npy", unit_rows(rng, tracks, dim))
    return folder


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> npt.NDArray[np.float32]:
    """Directions without structure ``(rows, dim)``."""
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def grown(
    embedding: npt.NDArray[np.float32], rows: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """More tracks like those of a fitted embedding, each one of them with noise ``(rows, d)``."""
    vectors = embedding[rng.integers(0, len(embedding), rows)]
    noise = rng.standard_normal(vectors.shape, dtype=np.float32) / embedding.shape[1] ** 0.5
    vectors = vectors + JITTER * noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
