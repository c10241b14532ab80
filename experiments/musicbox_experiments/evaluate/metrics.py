"""What one agent did on the evaluated sessions, and the figures that describe it.

Metrics are of two kinds. Means over songs, slates or sessions come as a numerator and a
denominator for each session (`PerSession`), so that a bootstrap can draw sessions anew. Metrics of
the whole set of songs played (coverage, effective catalog size, Gini) have no such parts: they
depend on how many songs were played, so compare them only between agents that played as many.

A song that was recommended after the session's end was never heard and counts nowhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.schema import DIVERSITY_FEATURES, is_skip
from musicbox_experiments.evaluate.rollout import FloatArray, Rollout, Stored, require_array


@dataclass(frozen=True)
class CatalogStats:
    """Features, embedding and popularity of the tracks, as metrics need them.

    Attributes:
        features: The eight `schema.DIVERSITY_FEATURES` ``(num_tracks, 8)``, NaN where unknown.
        embedding: Embedding of the tracks ``(num_tracks, d)``.
        plays: Training plays of each track ``(num_tracks,)``.
    """

    features: npt.NDArray[np.floating]
    embedding: npt.NDArray[np.floating]
    plays: npt.NDArray[np.integer]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Statistics of a dataset's catalog; the embedding is its best."""
        return cls(
            features=dataset.catalog.features(DIVERSITY_FEATURES),
            embedding=dataset.embedding(dataset.best_embedding),
            plays=dataset.catalog.plays("train"),
        )

    @property
    def num_tracks(self) -> int:
        """Size of the catalog."""
        return len(self.plays)


@dataclass(frozen=True)
class PerSession(Stored):
    """A mean in parts: it is the sum of the numerators over the sum of the denominators.

    Attributes:
        numerator: ``(n,)`` float64, a value a session.
        denominator: ``(n,)`` float64.
        by_source: Of pooled roll-outs, the mean at each of their sources ``(sources,)``.
    """

    numerator: FloatArray
    denominator: FloatArray
    by_source: FloatArray | None = None

    def __post_init__(self) -> None:
        if not self.numerator.shape == self.denominator.shape == (len(self.numerator),):
            raise ValueError(
                f"The numerator has shape {self.numerator.shape}, the denominator "
                f"{self.denominator.shape}; expected a value a session in both."
            )
        for name in ("numerator", "denominator"):
            require_array(name, getattr(self, name), "biuf", ndim=1)

    @property
    def mean(self) -> float:
        """The metric over all sessions; NaN where nothing was counted."""
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total else float("nan")


def _over_songs(values: npt.NDArray, counted: npt.NDArray[np.bool_]) -> PerSession:
    """Mean of ``values`` over the places where ``counted``, both ``(n, steps, k)``."""
    return PerSession(
        numerator=np.where(counted, values, 0).sum(axis=(1, 2), dtype=np.float64),
        denominator=counted.sum(axis=(1, 2), dtype=np.float64),
    )


def skip_rate(rollout: Rollout) -> PerSession:
    """Share of the songs heard that were skipped.

    ``#{level in (0, 1)} / #{level >= 0}`` over all songs recommended and heard; a skip is
    ``skip_2``, the ground truth of the Music Streaming Sessions Dataset (Brost, Mehrotra & Jehan,
    WWW 2019, arXiv:1901.09851).
    """
    return _over_songs(is_skip(rollout.levels), rollout.heard)


def session_return(rollout: Rollout) -> PerSession:
    """Sum of rewards of a session, undiscounted over its steps, averaged over the sessions.

    ``sum_t r_t``; with the default reward ``r_t = sum_k 0.9**k [song k not skipped]``, the
    discounted reward of a list in LIRD (Zhao et al., arXiv:1801.00209, section 3).
    """
    return PerSession(rollout.returns.astype(np.float64), np.ones(len(rollout.returns)))


def diversity(slates: npt.NDArray[np.int32], vectors: npt.NDArray[np.floating]) -> PerSession:
    """One minus the mean pairwise cosine within a slate, averaged over the slates.

    ``1 - 2 / (m (m - 1)) sum_{i<j} cos(v_i, v_j)`` over the m songs of the slate whose vectors are
    known, the intra-list diversity of Ziegler et al. (WWW 2005) with cosine as the similarity; a
    slate with fewer than two such songs is left out. Raw features are all positive, so over them
    even unrelated songs have cosines near 0.9: read differences, not the level.

    Args:
        slates: Track rows ``(n, steps, k)``, -1 where nothing was heard.
        vectors: A row a track ``(num_tracks, d)``; a row with a NaN or of norm 0 is unknown.
    """
    total, num_slates = np.zeros(len(slates)), np.zeros(len(slates))
    for step in range(slates.shape[1]):
        units, known = _unit_vectors(slates[:, step], vectors)
        m = known.sum(axis=1)
        pairs = m * (m - 1) / 2
        # |sum of m unit vectors|^2 = m + 2 (sum of the cosines of all pairs).
        cosines = (np.square(units.sum(axis=1)).sum(axis=1) - m) / 2
        counted = pairs > 0
        total[counted] += 1 - cosines[counted] / pairs[counted]
        num_slates += counted
    return PerSession(total, num_slates)


def neighbours(slates: npt.NDArray[np.int32], vectors: npt.NDArray[np.floating]) -> PerSession:
    """Mean cosine of each song and the one heard just before it, slates joined.

    Arguments as of `diversity`; pairs of which one song is unknown are left out.
    """
    units, known = _unit_vectors(slates.reshape(len(slates), -1), vectors)
    cosines = np.einsum("nsd,nsd->ns", units[:, 1:], units[:, :-1])
    pairs = (known[:, 1:] & known[:, :-1]).sum(axis=1, dtype=np.float64)
    return PerSession(cosines.sum(axis=1), pairs)


def _unit_vectors(
    tracks: npt.NDArray[np.int32], vectors: npt.NDArray[np.floating]
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Unit vectors ``(n, k, d)`` of tracks ``(n, k)``, 0 where unknown, and where known."""
    rows = vectors[np.maximum(tracks, 0)].astype(np.float64)
    norms = np.linalg.norm(rows, axis=-1)
    known = (tracks >= 0) & np.isfinite(norms) & (norms > 0)
    safe = np.where(known, norms, 1)[..., None]
    return np.where(known[..., None], rows / safe, 0), known


def features_known(rollout: Rollout, catalog: CatalogStats) -> PerSession:
    """Share of the songs heard whose eight features are all known; diversity rests on these."""
    complete = np.isfinite(catalog.features).all(axis=1)
    return _over_songs(complete[np.maximum(rollout.slates, 0)], rollout.heard)


def novelty(rollout: Rollout, catalog: CatalogStats) -> PerSession:
    """Mean surprisal of the songs heard, in bits.

    ``-log2((plays_i + 1) / (sum_j plays_j + num_tracks))``: the self-information of Zhou et al.
    (PNAS 107, 2010) with add-one smoothing, so that songs never played in training have one too.
    """
    share = (catalog.plays + 1) / (catalog.plays.sum() + catalog.num_tracks)
    return _over_songs(-np.log2(share)[np.maximum(rollout.slates, 0)], rollout.heard)


def popularity(rollout: Rollout, catalog: CatalogStats) -> PerSession:
    """Mean number of training plays of the songs heard.

    ``sum_i plays_i / #heard``: the average recommendation popularity of Yin et al. (VLDB 2012).
    """
    return _over_songs(catalog.plays[np.maximum(rollout.slates, 0)], rollout.heard)


def imputed(rollout: Rollout) -> PerSession:
    """Share of the songs heard whose level was imputed by the listener, not read from the log."""
    return _over_songs(~rollout.logged, rollout.heard)


def exposure(rollout: Rollout, num_tracks: int) -> npt.NDArray[np.int64]:
    """How often each track was heard, ``(num_tracks,)``."""
    return np.bincount(rollout.slates[rollout.heard], minlength=num_tracks)


def coverage(counts: npt.NDArray[np.integer]) -> float:
    """Share of the catalog that was heard at least once.

    ``#{i: x_i > 0} / N``: the aggregate diversity of Adomavicius & Kwon (TKDE 2012) as a share.
    """
    return float(np.count_nonzero(counts) / len(counts))


def effective_catalog_size(counts: npt.NDArray[np.integer]) -> float:
    """Exponential of the entropy of exposure: as varied as that many songs played equally often.

    ``exp(-sum_i p_i ln p_i)`` with ``p_i = x_i / sum_j x_j``: the Hill number of order 1
    (Hill, Ecology 54, 1973), the perplexity of the exposure.
    """
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else float("nan")


def gini(counts: npt.NDArray[np.integer]) -> float:
    """Gini coefficient of exposure over the whole catalog, songs never heard included.

    ``sum_i (2 i - N - 1) x_(i) / (N sum_i x_i)`` with ``x_(1) <= ... <= x_(N)``: 0 where all songs
    are heard equally often, ``(N - 1) / N`` where one song has all (Shani & Gunawardana,
    Recommender Systems Handbook, 2011).
    """
    total = counts.sum()
    if not total:
        return float("nan")
    ordered = np.sort(counts)
    ranks = np.arange(1, len(counts) + 1)
    return float(((2 * ranks - len(counts) - 1) * ordered).sum() / (len(counts) * total))


@dataclass(frozen=True)
class Metric:
    """How a metric is named, read and shown to people.

    Attributes:
        label: Name for tables.
        text: What it means, in one or two plain sentences.
        better: Which way is better for the listener, if any is.
        unit: ``"percent"`` (a share), ``"count"``, ``"number"`` or ``"index"`` (0 to 1, read to
            three decimals).
        parts: Measures a mean, in parts; its interval comes from sessions and seeds.
        of_exposure: Measures a figure of the whole set of songs, from how often each track was
            heard; its interval comes from seeds alone.
        limits: Values that it cannot leave.
    """

    label: str
    text: str
    better: Literal["lower", "higher", "neither"]
    unit: Literal["percent", "count", "number", "index"]
    parts: Callable[[Rollout, CatalogStats], PerSession] | None = None
    of_exposure: Callable[[npt.NDArray[np.integer]], float] | None = None
    limits: tuple[float, float] = (0.0, float("inf"))

    @property
    def per_session(self) -> bool:
        """Whether it is a mean over sessions."""
        return self.parts is not None


METRICS: Final[Mapping[str, Metric]] = {
    "skip_rate": Metric(
        "Skip rate",
        "Share of the songs recommended and heard that the listener skipped (skip_2: played only "
        "briefly).",
        "lower",
        "percent",
        parts=lambda rollout, _: skip_rate(rollout),
        limits=(0.0, 1.0),
    ),
    "return": Metric(
        "Return",
        "Sum of the rewards of a session, averaged over the sessions: the quantity that the agents "
        "are trained for.",
        "higher",
        "number",
        parts=lambda rollout, _: session_return(rollout),
        limits=(-float("inf"), float("inf")),
    ),
    "effective_catalog_size": Metric(
        "Effective catalog size",
        "Exponential of the entropy of exposure: the selection is as varied as that many songs "
        "played equally often. It falls when an agent recommends a few hits to everybody, and it "
        "grows with the number of songs played, so compare it only within one report.",
        "higher",
        "count",
        of_exposure=effective_catalog_size,
        limits=(1.0, float("inf")),
    ),
    "coverage": Metric(
        "Coverage",
        "Share of the catalog that was recommended and heard at least once.",
        "higher",
        "percent",
        of_exposure=coverage,
        limits=(0.0, 1.0),
    ),
    "gini": Metric(
        "Gini",
        "Inequality of exposure over the whole catalog: 0 where every song is heard equally "
        "often, near 1 where a few songs have everything.",
        "lower",
        "index",
        of_exposure=gini,
        limits=(0.0, 1.0),
    ),
    "diversity": Metric(
        "Diversity (features)",
        "One minus the mean pairwise cosine of the songs of a slate over eight audio features "
        f"({', '.join(DIVERSITY_FEATURES)}). The features are all positive, so the level is low "
        "for everybody; read the differences.",
        "neither",
        "percent",
        parts=lambda rollout, catalog: diversity(rollout.slates, catalog.features),
        limits=(0.0, 2.0),
    ),
    "diversity_embedding": Metric(
        "Diversity (embedding)",
        "The same over the songs' embeddings, where unrelated songs have a cosine near 0.",
        "neither",
        "percent",
        parts=lambda rollout, catalog: diversity(rollout.slates, catalog.embedding),
        limits=(0.0, 2.0),
    ),
    "neighbours": Metric(
        "Similarity of neighbours",
        "Mean cosine of the embeddings of each song and the one heard just before it, the last of "
        "the slate before included.",
        "neither",
        "index",
        parts=lambda rollout, catalog: neighbours(rollout.slates, catalog.embedding),
        limits=(-1.0, 1.0),
    ),
    "features_known": Metric(
        "Features known",
        "Share of the songs heard whose audio features are known; the diversity over features "
        "rests on these alone.",
        "neither",
        "percent",
        parts=features_known,
        limits=(0.0, 1.0),
    ),
    "novelty": Metric(
        "Novelty (bits)",
        "Mean of -log2 of the songs' share of the training plays, add-one smoothed: one bit more "
        "is a song half as popular.",
        "neither",
        "number",
        parts=novelty,
    ),
    "popularity": Metric(
        "Popularity (plays)",
        "Mean number of training plays of the songs heard.",
        "neither",
        "count",
        parts=popularity,
    ),
    "imputed": Metric(
        "Imputed",
        "Share of the answers that the simulated listener made up, because the logged session did "
        "not hold the song at that point. 0 % would be real labels only.",
        "neither",
        "percent",
        parts=lambda rollout, _: imputed(rollout),
        limits=(0.0, 1.0),
    ),
}
"""All metrics of `measure`, in the order of the report's tables."""


def per_session(rollout: Rollout, catalog: CatalogStats) -> dict[str, PerSession]:
    """Those metrics that are means, in parts that can be resampled by session."""
    return {name: m.parts(rollout, catalog) for name, m in METRICS.items() if m.parts}


def of_the_set(rollout: Rollout, catalog: CatalogStats) -> dict[str, float]:
    """Those metrics that describe the whole set of songs heard."""
    counts = exposure(rollout, catalog.num_tracks)
    return {name: m.of_exposure(counts) for name, m in METRICS.items() if m.of_exposure}


def measure(rollout: Rollout, catalog: CatalogStats) -> dict[str, float]:
    """All metrics of one rollout, named and ordered as in `METRICS`."""
    values = {name: parts.mean for name, parts in per_session(rollout, catalog).items()}
    values |= of_the_set(rollout, catalog)
    return {name: values[name] for name in METRICS}
