"""Where songs lie: embeddings fitted on training sessions and track features.

=========== ====================================================================================
`content`   features, standardised over training plays and rotated to principal components
`colisten`  songs heard in one session lie together: the leading eigenvectors of how much more often
            two songs share a session than their plays alone would make them
`hybrid`    the same, and where a song was heard in few sessions, where its features put it
=========== ====================================================================================

Every row is a track of the catalog and has unit norm. The common mean is removed first: shared by
all rows, it raises every cosine and separates no songs. A track without the data that an embedding
is made of lies in that embedding's blank direction, the one that the known tracks point along
least: as near as a unit vector comes to being similar to none.

Co-listening. A session of n different songs shows n (n - 1) ordered pairs and counts 1 for each of
its songs: each pair weighs ``1 / (n - 1)``. With c_ij the weight of the pair i, j over all training
sessions, c_i its sum (the sessions that hold song i, at least one other beside it) and c the sum of
those, the matrix is::

    M_ij = (c_ij - c_i c_j / c) / sqrt((c_i + prior) (c_j + prior)),   i != j

without the prior that of correspondence analysis (Benzecri, 1973). A song heard in few sessions has
large entries by chance alone; the prior damps them. M is never made: it is a product of sparse
matrices, and subspace iteration (Halko, Martinsson & Tropp, arXiv:0909.4061) needs only its
products with a few vectors. Vectors are ``u_k sqrt(max(w_k - w_next, 0))`` over the square root
above, with w_next the first eigenvalue left out: what noise alone gives every direction.

`held_out.held_out_check` measures how good an embedding is, on validation sessions, which no
embedding is fitted on. The settings below were chosen by it on synthetic sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.dataset import EMBEDDINGS, Dataset
from musicbox_env.data.sessions import SessionLog
from musicbox_env.data.writing import save_array, write_json
from musicbox_env.progress import tqdm
from musicbox_env.retrieval.blas import one_blas_thread
from musicbox_env.retrieval.held_out import held_out_check
from musicbox_env.retrieval.spaces import SMALLEST_NORM, unit_rows
from musicbox_env.schema import require_known

if TYPE_CHECKING:  # slow to import
    from scipy.sparse import csr_array

NO_SESSIONS: Final = np.zeros(0, np.int64)

LARGEST_DEVIATION = 3.0
"""Standardised features are clipped here, so that no outlier fills a direction of its own."""
PRIOR_SESSIONS = 20.0
"""Sessions after which a song's own co-listening is trusted as much as its features; see above."""
PASSES = 15
"""Of subspace iteration, each one product with M."""
OVERSAMPLED = 8
"""Directions beside those wanted that are followed, so that the wanted ones settle sooner."""
RIDGE = 100.0
"""Penalty of the prediction from features of unit variance, in sessions."""

SESSIONS_A_BLOCK = 1 << 16

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """A fitted embedding.

    Attributes:
        vectors: ``(num_tracks, dim)``, rows of unit norm.
        known: Tracks with data ``(num_tracks,)``; the others lie in the blank direction.
        settings: What made it, JSON-able.
    """

    vectors: Floats
    known: npt.NDArray[np.bool_]
    settings: dict[str, Any]


class CannotFitError(ValueError):
    """The dataset lacks what an embedding is made of."""


def fit_embeddings(
    folder: Path | str,
    *,
    names: Collection[str] | None = None,
    dim: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, dict[str, Any]]:
    """Fit embeddings of a dataset and write them into its folder.

    Args:
        folder: Dataset folder, finished or staged.
        names: Any of `EMBEDDINGS`; None fits all that the data allow.
        dim: Length of the vectors.
        seed: Of co-listening's random start and of the held-out plays.
        progress: Show a bar of the passes over the log.

    Returns:
        For each name the content of ``embeddings/<name>.json``, the held-out check included, or
        ``{"skipped": reason}``.

    Raises:
        ValueError: An unknown name, a ``dim`` below 2, or a name asked for that cannot be fitted.
    """
    for name in names or ():
        require_known("embedding", name, EMBEDDINGS)
    if dim < 2:
        raise ValueError(f"dim is {dim}; an embedding needs 2 dimensions or more.")
    dataset = Dataset.unfinished(folder)
    out = dataset.folder / "embeddings"
    out.mkdir(exist_ok=True)
    fitters = _fitters(dataset, dim, seed, progress=progress)
    reports: dict[str, dict[str, Any]] = {}
    for name in EMBEDDINGS if names is None else names:
        try:
            with one_blas_thread():
                fit = fitters[name]()
        except CannotFitError as error:
            if names is not None:
                raise
            reports[name] = {"skipped": str(error)}
            continue
        reports[name] = {
            "name": name,
            "dim": dim,
            "seed": seed,
            "fitted_on": "train",
            **fit.settings,
            "tracks": len(fit.known),
            "tracks_in_blank_direction": int((~fit.known).sum()),
            "held_out": held_out_check(fit.vectors, dataset, seed=seed),
        }
        save_array(out / f"{name}.npy", fit.vectors)
        write_json(out / f"{name}.json", reports[name])
    return reports


def add_embedding(
    folder: Path | str, name: str, vectors: Floats, about: dict[str, Any], *, seed: int = 0
) -> dict[str, Any]:
    """Write an embedding that was not fitted here into a dataset's folder.

    As every embedding: the mean over training plays is removed, rows are scaled to unit norm, and
    tracks without a vector lie in the blank direction. Vectors of one direction would be left with
    nothing of their own; then the mean stays.

    Args:
        folder: Dataset folder, finished or staged.
        name: What it is called, other than `EMBEDDINGS`.
        vectors: ``(num_tracks, d)``, finite; zeros where a track has none. They are changed.
        about: What else ``embeddings/<name>.json`` shall say.
        seed: Of the held-out plays.

    Returns:
        The content of ``embeddings/<name>.json``.
    """
    dataset = Dataset.unfinished(folder)
    out = dataset.folder / "embeddings"
    out.mkdir(exist_ok=True)
    given = vectors.any(axis=1)
    vectors[given] = unit_rows(vectors[given])
    centred = _centred(vectors, dataset.catalog.plays())
    with one_blas_thread():
        fit = _finished(centred if centred.any() else vectors, {"method": "given"})
    report = {
        "name": name,
        "dim": vectors.shape[1],
        **fit.settings,
        **about,
        "tracks": len(fit.known),
        "tracks_in_blank_direction": int((~fit.known).sum()),
        "held_out": held_out_check(fit.vectors, dataset, seed=seed),
    }
    save_array(out / f"{name}.npy", fit.vectors)
    write_json(out / f"{name}.json", report)
    return report


def embedding_without(
    dataset: Dataset, name: str, sessions: npt.NDArray[np.integer], *, seed: int = 0
) -> Floats:
    """An embedding fitted without some training sessions ``(num_tracks, d)``.

    Features stay standardised over all training plays.

    Args:
        dataset: With the embedding.
        name: Of the embedding; without its sessions `content` is as it was.
        sessions: Training sessions to leave out.
        seed: Of co-listening's random start.

    Returns:
        Vectors in a basis of their own: only what they make of each other can be compared.
    """
    dim = dataset.embedding(name).shape[1]
    with one_blas_thread():
        return _fitters(dataset, dim, seed, without=sessions)[name]().vectors


def fitted_on_sessions(name: str) -> bool:
    """Whether an embedding is fitted on which songs shared a training session."""
    return name in ("colisten", "hybrid")


def _fitters(
    dataset: Dataset,
    dim: int,
    seed: int,
    *,
    without: npt.NDArray[np.integer] = NO_SESSIONS,
    progress: bool = False,
) -> dict[str, Callable[[], Fit]]:
    """Fits of a dataset's embeddings by name; what they share is computed once."""

    @cache
    def shared() -> SharedSessions:
        return shared_sessions(dataset, dim, seed=seed, without=without, progress=progress)

    def hybrid() -> Fit:
        try:
            features = standardised_features(dataset.catalog)
        except CannotFitError:
            return fit_colisten(shared())
        return fit_hybrid(features, shared())

    return {
        "content": lambda: fit_content(dataset.catalog, dim),
        "colisten": lambda: fit_colisten(shared()),
        "hybrid": hybrid,
    }


def standardised_features(catalog: Catalog) -> Floats:
    """Features of mean 0 and variance 1 over training plays, ``(num_tracks, f)``, gaps at 0.

    Features that do not vary are left out. Where no track with features was played, tracks
    count in place of plays.

    Raises:
        CannotFitError: The dataset has no features.
    """
    values = catalog.features()
    given = np.isfinite(values)
    weights = catalog.plays().astype(np.float64)
    if not (weights @ given).any():
        weights = np.ones(len(catalog))
    total = weights @ given
    filled = np.where(given, values, 0)
    mean = (weights @ filled) / np.maximum(total, 1)
    centred = np.where(given, values - mean.astype(np.float32), 0)
    spread = np.sqrt((weights @ np.square(centred)) / np.maximum(total, 1))
    varies = spread > SMALLEST_NORM * np.maximum(1, np.abs(mean))
    if not varies.any():
        raise CannotFitError("the dataset has no track features that vary")
    scaled = centred[:, varies] / spread[varies].astype(np.float32)
    return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION)


def fit_content(catalog: Catalog, dim: int) -> Fit:
    """Embed tracks by their features: principal components, rows scaled to unit norm.

    Raises:
        CannotFitError: The dataset has no features.
    """
    features = standardised_features(catalog)
    vectors = _reduced(features, catalog.plays(), dim)
    settings = {"method": "principal components", "features": features.shape[1]}
    return _finished(vectors, settings)


class SharedSessions(NamedTuple):
    """Which songs share sessions, as far as a few directions tell; see the module's page.

    Attributes:
        vectors: ``(num_tracks, dim)`` float32, damped: short where few sessions hold the song.
        sessions: Training sessions that hold each track beside others ``(num_tracks,)`` float32.
    """

    vectors: Floats
    sessions: Floats


def shared_sessions(
    dataset: Dataset,
    dim: int,
    *,
    seed: int,
    without: npt.NDArray[np.integer] = NO_SESSIONS,
    progress: bool = False,
) -> SharedSessions:
    """Find the leading directions of which songs share training sessions, but some.

    A song heard twice in a session counts once. The same seed gives the same result.

    Raises:
        CannotFitError: No training session holds two different songs.
    """
    train = np.setdiff1d(dataset.sessions.sessions_in("train"), without)
    pairs = _Pairs(dataset.sessions, train, len(dataset.catalog))
    if not pairs.sessions.any():
        raise CannotFitError("no training session holds two different songs")
    number = min(dim + 1 + OVERSAMPLED, len(dataset.catalog))
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((len(dataset.catalog), number), dtype=np.float32)
    for _ in tqdm(range(PASSES), desc="colisten", unit="pass", disable=not progress):
        basis = np.linalg.qr(pairs.times(basis))[0]
    strengths, turned = np.linalg.eigh(basis.T @ pairs.times(basis))
    strengths, turned = strengths[::-1], turned[:, ::-1]
    # A catalog no larger than the dimensions leaves no eigenvalue out.
    noise = strengths[dim] if number > dim else 0.0
    kept = np.sqrt(np.maximum(strengths[:dim] - noise, 0))
    vectors = (basis @ turned[:, :dim]) * (kept * pairs.damping)
    missing = dim - vectors.shape[1]
    return SharedSessions(np.pad(vectors, ((0, 0), (0, missing))), pairs.sessions)


class _Pairs:
    """The matrix M of the module's page, as far as its products with vectors show it.

    Attributes:
        sessions: ``c_i`` ``(num_tracks,)``.
        damping: ``1 / sqrt(c_i + prior)`` ``(num_tracks, 1)``.
    """

    def __init__(self, log: SessionLog, sessions: npt.NDArray[np.integer], num_tracks: int) -> None:
        """Read the sessions."""
        starts = range(0, len(sessions), SESSIONS_A_BLOCK)
        blocks = [
            log.held_tracks(sessions[start : start + SESSIONS_A_BLOCK], num_tracks)
            for start in starts
        ]
        self._blocks = [(held, _weight_of_pairs(held)) for held in blocks]
        self._alone: Floats = np.zeros(num_tracks, np.float32)
        self.sessions: Floats = np.zeros(num_tracks, np.float32)
        for held, weight in self._blocks:
            self._alone += held.T @ weight
            self.sessions += held.T @ (weight > 0).astype(np.float32)
        self.damping: Floats = (1 / np.sqrt(self.sessions + PRIOR_SESSIONS))[:, None]

    def times(self, vectors: Floats) -> Floats:
        """M times ``(num_tracks, k)``."""
        damped = self.damping * vectors
        together = np.zeros_like(damped)
        for held, weight in self._blocks:
            together += held.T @ (weight[:, None] * (held @ damped))
        together -= self._alone[:, None] * damped  # songs are no pair with themselves
        share = self.sessions @ damped / max(self.sessions.sum(), SMALLEST_NORM)
        together -= self.sessions[:, None] * share
        return np.asarray(self.damping * together, np.float32)


def _weight_of_pairs(held: csr_array) -> Floats:
    """What each pair of a session's songs counts ``(sessions,)``, 0 where there is none."""
    number = np.diff(held.indptr)
    return np.where(number > 1, 1 / np.maximum(number - 1, 1), 0).astype(np.float32)


def fit_colisten(shared: SharedSessions) -> Fit:
    """Embed tracks by the sessions that they share with others, rows scaled to unit norm.

    Args:
        shared: From `shared_sessions`.
    """
    vectors = shared.vectors
    for _ in range(2):  # scaling rows to unit norm brings some of the mean back
        vectors = unit_rows(_centred(vectors, shared.sessions))
    return _finished(vectors, _ways_of(shared))


def fit_hybrid(features: Floats, shared: SharedSessions) -> Fit:
    """Embed tracks by the sessions that they share, seldom heard ones by their features.

    With v_i the damped vector of a track in c_i sessions, ``(c_i + prior) / c_i v_i`` is where its
    sessions alone put it, and f_i B, by ridge regression over all sessions, where its features do.
    Blended as a normal prior would be, ``prior`` sessions strong, that is
    ``v_i + prior / (c_i + prior) f_i B``.

    Args:
        features: Standardised, gaps at 0 ``(num_tracks, f)``.
        shared: From `shared_sessions`.
    """
    sessions = shared.sessions[:, None]
    heard = np.where(sessions > 0, (sessions + PRIOR_SESSIONS) * shared.vectors, 0)
    penalty = RIDGE * np.eye(features.shape[1], dtype=np.float32)
    slopes = np.linalg.solve(features.T @ (sessions * features) + penalty, features.T @ heard)
    predicted = PRIOR_SESSIONS / (sessions + PRIOR_SESSIONS) * (features @ slopes)
    vectors = np.where(sessions > 0, shared.vectors, 0) + predicted
    return _finished(vectors, {**_ways_of(shared), "features": features.shape[1]})


def _ways_of(shared: SharedSessions) -> dict[str, Any]:
    return {
        "method": "eigenvectors of shared sessions",
        "prior_sessions": PRIOR_SESSIONS,
        "directions": int(shared.vectors.any(axis=0).sum()),
    }


def _finished(vectors: Floats, settings: dict[str, Any]) -> Fit:
    """Scale rows to unit norm and lay empty ones in the blank direction."""
    known = np.linalg.norm(vectors, axis=1) > SMALLEST_NORM
    unit = unit_rows(vectors)
    unit[~known] = _directions(unit[known])[-1]
    return Fit(unit, known, settings)


def _reduced(rows: Floats, plays: npt.NDArray[np.int64], dim: int) -> Floats:
    """Principal components over training plays, ``(n, dim)``, zeros beyond the rank of ``rows``."""
    centred = _centred(rows, plays)
    weights = plays if plays.any() else np.ones(len(plays))
    basis = _directions(centred * np.sqrt(weights).astype(np.float32)[:, None])[:dim]
    reduced = centred @ basis.T.astype(np.float32)
    return np.pad(reduced, ((0, 0), (0, dim - len(basis))))


def _centred(rows: Floats, plays: npt.NDArray) -> Floats:
    """Subtract the mean over training plays; rows of nothing but zeros, unknown, stay so."""
    given: npt.NDArray[np.bool_] = np.asarray(rows.any(axis=1))
    weights = np.where(given, plays, 0).astype(np.float64)
    if not weights.any():
        weights = given.astype(np.float64)
    mean = (weights @ rows) / max(weights.sum(), 1)
    return np.where(given[:, None], rows - mean.astype(np.float32), 0)


def _directions(rows: Floats) -> npt.NDArray[np.float64]:
    """Eigenvectors of the rows' second moments, strongest first, as rows ``(d, d)``.

    Their signs are free; the largest component is made positive, so that runs agree.
    """
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    strongest_first = vectors.T[::-1]
    largest = np.argmax(np.abs(strongest_first), axis=1)
    signs = np.sign(np.take_along_axis(strongest_first, largest[:, None], axis=1))
    return strongest_first * signs
