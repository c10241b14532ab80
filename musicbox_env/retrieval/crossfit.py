"""Embeddings fitted without some training sessions, for what is learned from these sessions.

Songs of one session lie together in part because they share this very session. On the sessions that
it was fitted on, an embedding looks better than it is: on logs of few sessions a song and the mean
of those heard before are nearer there by half than in a new session. A model that learns from
training sessions how much nearness matters needs each session in an embedding fitted without it.

So training sessions are divided into parts, and the embedding is fitted anew without each of them
(cross-fitting; Chernozhukov et al., Econom. J. 21, 2018). Bases of such fits are arbitrary: each is
turned onto the whole embedding by orthogonal Procrustes (Schoenemann, Psychometrika 31, 1966),
weighted by plays.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.checks import CheckedFile, FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.verdicts import once, state_of
from musicbox_env.locks import made_once
from musicbox_env.progress import tqdm
from musicbox_env.retrieval.blas import one_blas_thread
from musicbox_env.retrieval.embeddings import (
    CannotFitError,
    Floats,
    embedding_without,
    fitted_on_sessions,
)
from musicbox_env.retrieval.spaces import is_newer, write_rows

PARTS: Final = 10
"""Parts of the training sessions."""
FITS: Final = ((20_000, 10), (50_000, 5))
"""Up to so many training sessions, so many fits; beyond, `FEWEST_FITS`. Each leaves out parts that
together are as large as those of the others: of many sessions, half fit as well as all."""
FEWEST_FITS: Final = 2


def parts_of(dataset: Dataset) -> npt.NDArray[np.int8]:
    """The part of each session ``(num_sessions,)``, 0 to `PARTS` - 1; -1 outside training."""
    train = dataset.sessions.sessions_in("train")
    parts = np.full(dataset.sessions.num_sessions, -1, np.int8)
    parts[np.random.default_rng(0).permutation(train)] = np.arange(len(train)) % PARTS
    return parts


def crossfitted(dataset: Dataset, name: str, *, progress: bool = False) -> tuple[Floats, ...]:
    """An embedding fitted without each part of the training sessions.

    Each fit is made on first use, and anew where the embedding is newer.

    Args:
        dataset: With the embedding.
        name: Of the embedding, without the rate.
        progress: Show a bar of the fits.

    Returns:
        The fits, each ``(num_tracks, d)`` and memory-mapped where the dataset's folder can be
        written: a session of part p belongs in fit ``p % fits``. Where no sessions were fitted it
        is one, the embedding itself.
    """
    if not fitted_on_sessions(name):
        return (dataset.embedding(name),)
    sessions = len(dataset.sessions.sessions_in("train"))
    number = next((fits for most, fits in FITS if sessions <= most), FEWEST_FITS)
    bar = tqdm(range(number), desc=f"{name} without a part", unit="fit", disable=not progress)
    return tuple(_fit_without(dataset, name, fit, number) for fit in bar)


def _fit_without(dataset: Dataset, name: str, fit: int, fits: int) -> Floats:
    """Read one of the fits, or make and write it."""
    source = dataset.folder / "embeddings" / f"{name}.npy"
    file = dataset.folder / "spaces" / f"{name}-without-{fit}-of-{fits}.npy"
    shape = dataset.embedding(name).shape
    made: list[Floats] = []

    def is_current() -> bool:
        with suppress(FileError):
            return is_newer(file, [source]) and len(_checked(file, shape)) > 0
        return False

    def write(temporary: Path) -> None:
        made.append(_without(dataset, name, fit, fits))
        write_rows(temporary, shape, made)

    if made_once(file, is_current, write):
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    return made[0] if made else _without(dataset, name, fit, fits)


def _checked(file: Path, shape: tuple[int, ...]) -> Floats:
    """One of the fits, refused where it is of another shape or holds what no unit vector does."""
    checked = CheckedFile(file, "It is made again.")
    written: Floats = checked.array(np.float32, shape)
    once("fit", state_of([file]), lambda: checked.require_within(written, (-1.01, 1.01)))
    return written


def _without(dataset: Dataset, name: str, fit: int, fits: int) -> Floats:
    """The embedding without some parts, in the basis of the whole; 0 if nothing else is left."""
    whole = dataset.embedding(name)
    parts = parts_of(dataset)
    try:
        some = embedding_without(
            dataset, name, np.flatnonzero((parts >= 0) & (parts % fits == fit))
        )
    except CannotFitError:
        return np.zeros_like(whole)
    plays = dataset.catalog.plays()[:, None].astype(np.float32)
    with one_blas_thread():
        u, _, v = np.linalg.svd((plays * some).T @ whole)
        turned: Floats = some @ (u @ v)
    return turned
