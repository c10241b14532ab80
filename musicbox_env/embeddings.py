"""Where songs lie: embeddings fitted on training sessions and track features.

=========== ====================================================================================
`content`   features, standardised over training plays and rotated to principal components
`colisten`  word2vec's CBOW with sessions as sentences: songs heard in one session lie together
`hybrid`    both side by side; a song seldom played has its co-listening predicted from features
=========== ====================================================================================

Every row is a track of the catalogue and has unit norm. The common mean is removed first: shared
by all rows, it raises every cosine and tells songs apart by nothing. A track of which an embedding
knows nothing lies in that embedding's blank direction, the one that the known tracks point along
least: as near as a unit vector comes to being similar to none.

Whether an embedding is any good is asked of validation sessions (`held_out_check`), which no
embedding is fitted on. The settings below were chosen by it on synthetic sessions.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from musicbox_env.catalog import Catalog
from musicbox_env.dataset import RATE_SUFFIX, Dataset, write_json
from musicbox_env.retrieval import weight_above
from musicbox_env.schema import MAX_SESSION_LENGTH, require_known, suggest
from musicbox_env.sessions import SessionLog

EMBEDDINGS: Final = ("content", "colisten", "hybrid")

LARGEST_DEVIATION = 3.0
"""Standardised features are clipped here, so that no outlier fills a direction of its own."""
PASSES_SQUARED_PLAYS = 4.5e7
"""CBOW makes ``sqrt(PASSES_SQUARED_PLAYS / plays)`` passes over the log: 30 over 50,000 plays,
15 over 200,000, 7 over a million. Fewer leave the vectors near their random start."""
FEWEST_PASSES, MOST_PASSES = 5, 60
NEGATIVE_SAMPLES = 5
PRIOR_PLAYS = 10.0
"""Plays after which `hybrid` trusts a track's own co-listening as much as the prediction."""
RIDGE = 100.0
"""Penalty of the prediction, in plays, of features of unit variance."""
CONTENT_WEIGHT = 1.0
"""Length of `hybrid`'s content half beside a co-listening half of length 1 at most."""

CHECKED_SESSIONS = 2_000
RATE_SCALE = 3.0
SESSIONS_A_BLOCK = 8_192
ROWS_A_BLOCK = 1 << 18
SMALLEST_NORM = 1e-6
NORMAL_95: Final = 1.959964

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fit:
    """A fitted embedding.

    Attributes:
        vectors: ``(num_tracks, dim)``, rows of unit norm.
        known: Tracks of which the embedding knows something ``(num_tracks,)``; the others lie in
            the blank direction.
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
        For each name what ``embeddings/<name>.json`` says, the held-out check included, or
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
    fits = _Fits(dataset, dim, seed, progress)
    reports: dict[str, dict[str, Any]] = {}
    for name in EMBEDDINGS if names is None else names:
        try:
            fit = fits[name]
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
        np.save(out / f"{name}.npy", fit.vectors)
        write_json(out / f"{name}.json", reports[name])
    return reports


def embedding_space(dataset: Dataset, spec: str) -> Floats:
    """The space that actions are scored in.

    Args:
        dataset: Dataset with fitted embeddings.
        spec: Name of an embedding; with ``"+rate"`` behind it one more column holds how much a
            track is liked by all, which unit vectors hide: the logit of its shrunken training
            listen rate, standardised over the tracks played in training, divided by `RATE_SCALE`
            and clipped to [-1, 1].

    Returns:
        ``(num_tracks, dim)`` or ``(num_tracks, dim + 1)``, C-contiguous; memory-mapped, so that
        processes share it. A space with the rate is written to ``spaces/`` when first asked for.

    Raises:
        ValueError: No such space; the message says which there are.
    """
    name, rate = _parse_space(dataset, spec)
    return _with_rate(dataset, name) if rate else dataset.embedding(name)


def space_dim(dataset: Dataset, spec: str) -> int:
    """Dimensions of `embedding_space`, without reading it.

    Raises:
        ValueError: As there.
    """
    name, rate = _parse_space(dataset, spec)
    return dataset.embedding(name).shape[1] + rate


def space_file(dataset: Dataset, spec: str) -> Path:
    """The file that `embedding_space` maps, or would if the folder could be written.

    Raises:
        ValueError: As there.
    """
    name, rate = _parse_space(dataset, spec)
    if rate:
        return dataset.folder / "spaces" / f"{name}{RATE_SUFFIX}.npy"
    return dataset.folder / "embeddings" / f"{name}.npy"


def _parse_space(dataset: Dataset, spec: str) -> tuple[str, bool]:
    """Name of the embedding, and whether the rate is asked for too."""
    name, plus, rest = spec.partition("+")
    if name not in dataset.embedding_names or (plus and plus + rest != RATE_SUFFIX):
        known = [n + s for n in dataset.embedding_names for s in ("", RATE_SUFFIX)]
        if not known:
            raise ValueError(
                f"{dataset.folder} has no embeddings; fit them with "
                "musicbox_env.embeddings.fit_embeddings, or make the dataset again."
            )
        raise ValueError(f"No embedding {spec!r} in {dataset.folder}; {suggest(spec, known)}")
    return name, bool(plus)


def _with_rate(dataset: Dataset, name: str) -> Floats:
    """The space of an embedding and the rate; made anew where its sources are newer than it."""
    file = space_file(dataset, f"{name}{RATE_SUFFIX}")
    sources = dataset.folder / "embeddings" / f"{name}.npy", dataset.folder / "catalog.parquet"
    made = file.stat().st_mtime_ns if file.exists() else -1
    if made < max(source.stat().st_mtime_ns for source in sources):
        try:
            _write_with_rate(dataset, name, file)
        except OSError:  # a folder that may only be read
            return np.hstack([dataset.embedding(name), rate_column(dataset.catalog)[:, None]])
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _write_with_rate(dataset: Dataset, name: str, file: Path) -> None:
    """Write the space whole or not at all; processes that do it at once do not meet."""
    vectors, rate = dataset.embedding(name), rate_column(dataset.catalog)
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    shape = len(vectors), vectors.shape[1] + 1
    try:
        with temporary.open("wb") as out:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for start in range(0, len(vectors), ROWS_A_BLOCK):
                block = slice(start, start + ROWS_A_BLOCK)
                out.write(np.hstack([vectors[block], rate[block, None]]).astype("<f4").data)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def rate_column(catalog: Catalog, split: str = "train") -> Floats:
    """Standardised logit of the shrunken training listen rate, ``(num_tracks,)`` in [-1, 1].

    Args:
        catalog: The tracks.
        split: Plays that are counted: ``"train"``, or one of its folds, for which the scale stays
            that of ``"train"``. Who learns from logged labels of one fold must take the rates of
            the other, since a rate that counts the label itself says too much about it.
    """
    of_train = _listen_logit(catalog, "train")
    played = catalog.plays() > 0
    spread = of_train[played].std() if played.any() else 0.0
    if spread < SMALLEST_NORM:
        return np.zeros(len(catalog), dtype=np.float32)
    standardised = (_listen_logit(catalog, split) - of_train[played].mean()) / spread
    return np.clip(standardised / RATE_SCALE, -1, 1).astype(np.float32)


def _listen_logit(catalog: Catalog, split: str) -> npt.NDArray[np.float64]:
    skip = np.clip(catalog.skip_rate(split), 1e-6, 1 - 1e-6)
    return np.log1p(-skip) - np.log(skip)


class _Fits:
    """Embeddings of one dataset, each fitted when first asked for: `hybrid` needs the others."""

    def __init__(self, dataset: Dataset, dim: int, seed: int, progress: bool) -> None:
        self._dataset, self._dim, self._seed, self._progress = dataset, dim, seed, progress
        self._done: dict[str, Fit] = {}

    def __getitem__(self, name: str) -> Fit:
        if name not in self._done:
            fit = {"content": self._content, "colisten": self._colisten, "hybrid": self._hybrid}
            self._done[name] = fit[name]()
        return self._done[name]

    def _content(self) -> Fit:
        return fit_content(self._dataset.catalog, self._dim)

    def _colisten(self) -> Fit:
        return fit_colisten(self._dataset, self._dim, seed=self._seed, progress=self._progress)

    def _hybrid(self) -> Fit:
        try:
            features = standardised_features(self._dataset.catalog)
        except CannotFitError:
            return self["colisten"]
        return fit_hybrid(features, self["colisten"], self._dataset.catalog.plays(), self._dim)


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


def fit_colisten(dataset: Dataset, dim: int, *, seed: int, progress: bool = False) -> Fit:
    """Embed tracks by CBOW (Mikolov et al. 2013, arXiv:1301.3781) over training sessions.

    The context of a song is all the rest of its session; a song heard twice stands there once,
    or its repeats would predict themselves. One worker and a seed: the same result every time.

    Raises:
        CannotFitError: No training session holds two different songs.
    """
    # Imported here: gensim is slow to import, and fitting alone needs it.
    from gensim.models import Word2Vec

    plays = dataset.catalog.plays()
    wanted = np.ceil((PASSES_SQUARED_PLAYS / max(plays.sum(), 1)) ** 0.5)
    passes = int(np.clip(wanted, FEWEST_PASSES, MOST_PASSES))
    # One pass more than CBOW makes: gensim reads the log once to count words.
    with tqdm(total=passes + 1, desc="colisten", unit="pass", disable=not progress) as bar:
        sentences = _Sentences(dataset.sessions, bar)
        if next(iter(sentences), None) is None:
            raise CannotFitError("no training session holds two different songs")
        model = Word2Vec(
            sentences,
            vector_size=dim,
            sg=0,
            window=MAX_SESSION_LENGTH,
            shrink_windows=False,
            negative=NEGATIVE_SAMPLES,
            min_count=1,
            workers=1,
            seed=seed,
            epochs=passes,
        )
    vectors = np.zeros((len(plays), dim), dtype=np.float32)
    vectors[[int(track) for track in model.wv.index_to_key]] = model.wv.vectors
    for _ in range(2):  # scaling rows to unit norm brings some of the mean back
        vectors = _unit(_centred(vectors, plays))
    settings = {"method": "CBOW", "passes": passes, "negative_samples": NEGATIVE_SAMPLES}
    return _finished(vectors, settings)


class _Sentences:
    """Training sessions as lists of words, read from the memory-mapped log block by block."""

    def __init__(self, log: SessionLog, bar: tqdm) -> None:
        self._log, self._bar = log, bar
        self._sessions = log.sessions_in("train")

    def __iter__(self) -> Iterator[list[str]]:
        for start in range(0, len(self._sessions), SESSIONS_A_BLOCK):
            block = self._sessions[start : start + SESSIONS_A_BLOCK]
            tracks = map(str, self._log.column("track")[self._log.plays_of(block)].tolist())
            for length in self._log.lengths(block).tolist():
                words = list(dict.fromkeys(next(tracks) for _ in range(length)))
                if len(words) > 1:
                    yield words
        self._bar.update()


def fit_hybrid(features: Floats, colisten: Fit, plays: npt.NDArray[np.int64], dim: int) -> Fit:
    """Embed tracks by co-listening and features side by side.

    A track's own co-listening is blended with what ridge regression predicts from its features,
    ``n / (n + PRIOR_PLAYS)`` of it after n plays, so that songs never played have both halves too.
    Of the ways tried on synthetic sessions, this one followed by principal components ranked
    held-out songs best, before blending alone, either half alone, and concatenation with nothing
    predicted.

    Args:
        features: Standardised, gaps at 0 ``(num_tracks, f)``.
        colisten: The fitted co-listening embedding.
        plays: Training plays ``(num_tracks,)``.
        dim: Length of the vectors.
    """
    known = np.where(colisten.known, plays, 0).astype(np.float32)[:, None]
    penalty = RIDGE * np.eye(features.shape[1])
    weighted = known * features
    ridge = np.linalg.solve(features.T @ weighted + penalty, weighted.T @ colisten.vectors)
    # Where there are no features nothing is predicted, and the little that was heard is all.
    prior = np.where(features.any(axis=1, keepdims=True), np.float32(PRIOR_PLAYS), 0)
    trust = known / np.maximum(known + prior, SMALLEST_NORM)
    listened = trust * colisten.vectors + (1 - trust) * (features @ ridge.astype(np.float32))
    both = np.hstack([listened, CONTENT_WEIGHT * _unit(features)])
    settings = {
        "method": "principal components of co-listening beside features",
        "prior_plays": PRIOR_PLAYS,
        "content_weight": CONTENT_WEIGHT,
        "features": features.shape[1],
        "passes": colisten.settings["passes"],
    }
    return _finished(_reduced(both, plays, dim), settings)


def _finished(vectors: Floats, settings: dict[str, Any]) -> Fit:
    """Scale rows to unit norm and lay empty ones in the blank direction."""
    known = np.linalg.norm(vectors, axis=1) > SMALLEST_NORM
    unit = _unit(vectors)
    unit[~known] = _directions(unit[known])[-1]
    return Fit(unit, known, settings)


def _reduced(rows: Floats, plays: npt.NDArray[np.int64], dim: int) -> Floats:
    """Principal components over training plays, ``(n, dim)``, zeros beyond the rank of ``rows``."""
    centred = _centred(rows, plays)
    weights = plays if plays.any() else np.ones(len(plays))
    basis = _directions(centred * np.sqrt(weights).astype(np.float32)[:, None])[:dim]
    reduced = centred @ basis.T.astype(np.float32)
    return np.pad(reduced, ((0, 0), (0, dim - len(basis))))


def _centred(rows: Floats, plays: npt.NDArray[np.int64]) -> Floats:
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


def _unit(rows: Floats) -> Floats:
    """Rows of unit norm; those next to zero become zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > SMALLEST_NORM, rows / np.maximum(norms, SMALLEST_NORM), 0)


def held_out_check(
    vectors: Floats, dataset: Dataset, *, seed: int = 0, split: str = "validation"
) -> dict[str, Any]:
    """Leave one song out of each session and look for it among all tracks.

    Tracks are ranked by dot product with the mean of the session's other songs, which do not
    take part. One song a session: the answers are independent, and so are the intervals (95 %:
    Wilson's for rates, normal for means).

    - ``hit_rate_1_percent``, ``hit_rate_100``: share of songs found among the best 1 % of the
      catalogue, or the best 100.
    - ``mean_percentile``: share of tracks that rank above the song; 0 is best, chance 0.5.
    - ``mean_percentile_of_plays``: the same, tracks weighted by training plays: the chance that a
      song out of the log at large ranks above the session's own. Popularity gets 0.5 here, and
      what an embedding gains is taste alone. The one to choose embeddings by: songs are left out
      as often as they are played, so that the other three reward popularity above all.

    Args:
        vectors: Embedding ``(num_tracks, dim)``.
        dataset: Where the sessions come from.
        seed: Of the choice of sessions and songs.
        split: Which sessions; at most `CHECKED_SESSIONS` of them.

    Returns:
        The measures, each ``{"value", "low", "high"}``, and under ``"popularity"`` those of
        ranking by training plays. ``{"sessions": 0}`` where no session has two different songs.
    """
    rng = np.random.default_rng(seed)
    targets, others = _left_out(dataset.sessions, split, rng)
    if not len(targets):
        return {"sessions": 0}
    plays = dataset.catalog.plays()
    heard = others >= 0
    mean = np.einsum("sp,spd->sd", heard / heard.sum(axis=1, keepdims=True), vectors[others])
    # Ranks instead of plays: they are exact in float32.
    popularity = np.unique(plays, return_inverse=True)[1].astype(np.float32)[:, None]
    one = np.ones((len(targets), 1))
    return {
        "sessions": len(targets),
        "split": split,
        **_standing(mean, vectors, targets, others, plays),
        "popularity": _standing(one, popularity, targets, others, plays),
    }


def _left_out(
    log: SessionLog, split: str, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A song of each session ``(s,)`` and the session's other songs ``(s, places)``, -1 pads."""
    sessions = log.sessions_in(split)
    chosen = rng.permutation(sessions)[:CHECKED_SESSIONS]
    tracks = np.sort(log.padded("track", chosen).astype(np.int64), axis=1)
    tracks[:, 1:][tracks[:, 1:] == tracks[:, :-1]] = -1
    draws = np.where(tracks >= 0, rng.random(tracks.shape), -1)
    place = draws.argmax(axis=1)[:, None]
    targets = np.take_along_axis(tracks, place, axis=1)[:, 0]
    np.put_along_axis(tracks, place, -1, axis=1)
    usable = (tracks >= 0).any(axis=1)
    return targets[usable], tracks[usable]


def _standing(
    queries: npt.NDArray,
    items: npt.NDArray,
    targets: npt.NDArray[np.int64],
    others: npt.NDArray[np.int64],
    plays: npt.NDArray[np.int64],
) -> dict[str, dict[str, float]]:
    """How high the targets rank; see `held_out_check`."""
    weights = np.stack([np.ones(len(plays)), plays], axis=1)
    above = weight_above(queries, items, targets, weights, barred=others)
    left = np.where(others[:, :, None] >= 0, weights[others], 0).sum(axis=1)
    compared = weights.sum(axis=0) - left - weights[targets]
    rank = above[:, 0]
    share = above / np.maximum(compared, 1)
    return {
        "hit_rate_1_percent": _rate(rank < len(plays) / 100),
        "hit_rate_100": _rate(rank < 100),
        "mean_percentile": _mean(share[:, 0]),
        "mean_percentile_of_plays": _mean(share[:, 1]),
    }


def _rate(hits: npt.NDArray[np.bool_]) -> dict[str, float]:
    """A share with its 95 % interval after Wilson (1927), which holds near 0 and 1 too."""
    share, n, z = float(hits.mean()), len(hits), NORMAL_95
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return {"value": share, "low": middle - half, "high": middle + half}


def _mean(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """A mean with its 95 % interval, normal."""
    mean = float(values.mean())
    half = NORMAL_95 * float(values.std()) / len(values) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}
