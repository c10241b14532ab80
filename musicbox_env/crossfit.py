"""What a training session may know of songs: embeddings that were fitted without it.

Songs of one session lie together in part because they share this very session. On the sessions that
it was fitted on, an embedding looks more telling than it is: on logs of few sessions a song and the
mean of those heard before are nearer there by half than they are in a new session. Whatever learns
from training sessions how much it matters that songs are near must see each session as a new one
would be seen.

So training sessions are divided into parts, and the embedding is fitted anew without each of them
(cross-fitting; Chernozhukov et al., Econom. J. 21, 2018). Bases of such fits are arbitrary: each is
turned onto the whole embedding by orthogonal Procrustes (Schoenemann, Psychometrika 31, 1966),
weighted by plays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from musicbox_env.dataset import Dataset
from musicbox_env.embeddings import (
    CannotFitError,
    Floats,
    embedding_without,
    fitted_on_sessions,
    write_rows,
)

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


def crossfitted(dataset: Dataset, name: str, *, progress: bool = False) -> Floats:
    """An embedding fitted without each part of the training sessions.

    Made on first use, and anew where the embedding is newer.

    Args:
        dataset: With the embedding.
        name: Of the embedding, without the rate.
        progress: Show a bar of the fits.

    Returns:
        ``(fits, num_tracks, d)``, memory-mapped where the dataset's folder can be written: a
        session of part p belongs in fit ``p % fits``. Where no sessions were fitted it is one, the
        embedding itself.
    """
    whole = dataset.embedding(name)
    if not fitted_on_sessions(name):
        return whole[None]
    source = dataset.folder / "embeddings" / f"{name}.npy"
    file = dataset.folder / "spaces" / f"{name}-crossfit.npy"
    fits = _num_fits(dataset)
    if not file.exists() or file.stat().st_mtime_ns < source.stat().st_mtime_ns:
        try:
            write_rows(file, (fits, *whole.shape), _each_fit(dataset, name, fits, progress))
        except OSError:  # a folder that may only be read
            return np.stack(list(_each_fit(dataset, name, fits, progress)))
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _each_fit(dataset: Dataset, name: str, fits: int, progress: bool) -> Iterator[Floats]:
    bar = tqdm(range(fits), desc=f"{name} without a part", unit="fit", disable=not progress)
    return (_without(dataset, name, fit, fits) for fit in bar)


def _num_fits(dataset: Dataset) -> int:
    sessions = len(dataset.sessions.sessions_in("train"))
    return next((fits for most, fits in FITS if sessions <= most), FEWEST_FITS)


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
    u, _, v = np.linalg.svd((plays * some).T @ whole)
    turned: Floats = some @ (u @ v)
    return turned
