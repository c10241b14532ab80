"""Tracks of a synthetic catalog: features, popularity, quality, and vectors of the taste space.

Features come from a Gaussian copula: correlated standard normal latents, one for each feature,
each sent through the published distribution of its feature. Vectors are partly a linear function
of these latents, so that a content embedding sees part of them, and partly of a hidden genre,
which shows only in what is played together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize
from scipy.special import ndtr, ndtri

from musicbox_env.retrieval.spaces import unit_rows
from musicbox_env.schema import TRACK_FEATURES
from musicbox_env.synthetic import published
from musicbox_env.synthetic.law import ListeningLaw

Array = npt.NDArray[np.float64]

DISCRETE_FEATURES = ("release_year", "key", "mode", "time_signature")
POPULARITY = "us_popularity_estimate"
EXTREME_Z = 4.2
"""Where the smallest and largest of the 50,000 tracks of the mini set lie, in sd."""


@dataclass(frozen=True)
class TrackConfig:
    """How tracks are made.

    Attributes:
        dim: Dimension of the taste space.
        genres: Hidden genres.
        genre_concentration: Dirichlet concentration of the genres' sizes.
        content_share: Share of a vector's squared length that its features decide.
        genre_share: The share that its hidden genre decides; the rest is the track's own.
        popularity_rank_correlation: Correlation of the popularity column's latent with the
            normal score of the rank by plays: the column is close to the order of plays, not it.
        quality_content_share: Share of the quality's variance that is linear in the features.
        quality_popularity_share: Share of it that goes with popularity.
    """

    dim: int = 32
    genres: int = 20
    genre_concentration: float = 3.0
    content_share: float = 0.3
    genre_share: float = 0.55
    popularity_rank_correlation: float = 0.95
    quality_content_share: float = 0.2
    quality_popularity_share: float = 0.03

    def __post_init__(self) -> None:
        if min(self.dim, self.genres) < 1:
            raise ValueError(f"dim {self.dim} and genres {self.genres} must be 1 or more.")
        for first, second in (
            ("content_share", "genre_share"),
            ("quality_content_share", "quality_popularity_share"),
        ):
            shares = getattr(self, first), getattr(self, second)
            if min(shares) < 0 or sum(shares) > 1:
                raise ValueError(
                    f"{first} and {second} are {shares}; they must not be negative, nor sum to "
                    "more than 1."
                )


@dataclass(frozen=True)
class SyntheticTracks:
    """Tracks, the most played of the population first.

    Attributes:
        track_ids: Ids ``(m,)``, in an order that tells nothing.
        features: ``track_id`` and the columns of `schema.TRACK_FEATURES`, ``m`` rows.
        popularity: Share of plays ``(m,)``; sums to 1.
        quality: ``(m,)`` float32.
        vectors: Unit rows ``(m, dim)`` float32.
    """

    track_ids: npt.NDArray[np.object_]
    features: pd.DataFrame
    popularity: Array
    quality: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]


def draw_tracks(
    num_tracks: int, law: ListeningLaw, config: TrackConfig, rng: np.random.Generator
) -> SyntheticTracks:
    """Draw a catalog.

    Args:
        num_tracks: Number of tracks m; popularity is that of the m most played tracks of the
            published play-count curve.
        law: Names the spread of quality.
        config: How tracks are made.
        rng: Source of randomness.
    """
    plays = published.play_counts(num_tracks)
    popularity = plays / plays.sum()
    rank_score = ndtri(1.0 - (np.arange(num_tracks) + 0.5) / num_tracks)
    latents = _draw_latents(rank_score, config, rng)
    ids = np.array([f"t_{i:08d}" for i in rng.permutation(num_tracks)], dtype=object)
    columns = {
        name: quantile(name, _even_ranks(latents[:, i])).astype(np.float32)
        for i, name in enumerate(TRACK_FEATURES)
    }
    return SyntheticTracks(
        track_ids=ids,
        features=pd.DataFrame({"track_id": ids, **columns}),
        popularity=popularity,
        quality=_draw_quality(latents, popularity, law, config, rng),
        vectors=_draw_vectors(latents, config, rng),
    )


def _draw_latents(rank_score: Array, config: TrackConfig, rng: np.random.Generator) -> Array:
    """Correlated standard normal latents ``(m, features)``, popularity's tied to the rank."""
    popularity = TRACK_FEATURES.index(POPULARITY)
    order = [popularity, *(i for i in range(len(TRACK_FEATURES)) if i != popularity)]
    # With popularity first, the Cholesky factor draws the other latents given that one.
    factor = np.linalg.cholesky(latent_correlations()[np.ix_(order, order)])
    noise = rng.standard_normal((len(rank_score), len(order)))
    rho = config.popularity_rank_correlation
    noise[:, 0] = rho * rank_score + np.sqrt(1.0 - rho**2) * noise[:, 0]
    latents = np.empty_like(noise)
    latents[:, order] = noise @ factor.T
    return latents


@cache
def latent_correlations() -> Array:
    """Correlations of the latents that give the features the published ones, ``(f, f)``.

    To first order in Hermite polynomials a feature ``g(z)`` of a latent z keeps the share
    ``c = corr(g(z), z)`` of a correlation, so that ``corr(g_i, g_j) = c_i c_j rho_ij``; solved for
    rho, and moved to the nearest correlation matrix that is positive definite.
    """
    grid = (np.arange(20_000) + 0.5) / 20_000
    z = ndtri(grid)
    kept = np.array([np.corrcoef(quantile(name, grid), z)[0, 1] for name in TRACK_FEATURES])
    target = published.feature_correlations().loc[list(TRACK_FEATURES), list(TRACK_FEATURES)]
    rho = np.clip(target.to_numpy(float) / np.outer(kept, kept), -0.97, 0.97)
    np.fill_diagonal(rho, 1.0)
    return nearest_correlation(rho)


def nearest_correlation(matrix: Array, *, floor: float = 1e-4, rounds: int = 100) -> Array:
    """Nearest correlation matrix in Frobenius norm (Higham 2002, IMA J. Numer. Anal. 22).

    Alternating projections, with Dykstra's correction, onto matrices with eigenvalues above
    ``floor`` and onto those with a diagonal of ones.
    """
    answer, correction = matrix.copy(), np.zeros_like(matrix)
    for _ in range(rounds):
        shifted = answer - correction
        values, basis = np.linalg.eigh(shifted)
        projected = (basis * np.maximum(values, floor)) @ basis.T
        correction = projected - shifted
        answer = projected.copy()
        np.fill_diagonal(answer, 1.0)
    scale = np.sqrt(np.diag(projected))
    return projected / np.outer(scale, scale)


def quantile(feature: str, probability: Array) -> Array:
    """Published quantile function of a feature, of the shape of ``probability``."""
    values, shares = published.feature_histogram(feature)
    if feature in DISCRETE_FEATURES:
        place = np.searchsorted(np.cumsum(shares), probability)
        return values[np.minimum(place, len(values) - 1)]
    summary = published.feature_summary()[feature]
    quartiles = [summary["q25"], summary["q50"], summary["q75"]]
    if len(values) == 0:
        return _between_quartiles(ndtri(probability), feature, _tail_powers(feature))
    half = np.diff(values).min() / 2.0
    at_most = np.cumsum(shares)
    # Each bar is spread evenly over the values that round to it; the quartiles sharpen the bars
    # that hold much, such as the 61 % of tracks whose instrumentalness rounds to 0.
    edges = np.concatenate([values - half, values + half, quartiles])
    below = np.concatenate([at_most - shares, at_most, [0.25, 0.5, 0.75]])
    order = np.lexsort((edges, below))
    edges = np.clip(np.maximum.accumulate(edges[order]), summary["min"], summary["max"])
    return np.interp(probability, below[order], edges)


def _between_quartiles(z: Array, feature: str, powers: tuple[float, float]) -> Array:
    """Quantiles of a feature of which no histogram is published, at normal scores ``z``.

    Straight between the quartiles on the normal scale; each tail runs to its published end as a
    power of the distance from the quartile.
    """
    summary = published.feature_summary()[feature]
    scores = ndtri([0.25, 0.5, 0.75])
    middle = np.interp(z, scores, [summary["q25"], summary["q50"], summary["q75"]])
    reach = EXTREME_Z - scores[2]
    low = np.clip((scores[0] - z) / reach, 0.0, 1.0) ** powers[0]
    high = np.clip((z - scores[2]) / reach, 0.0, 1.0) ** powers[1]
    return (
        middle + low * (summary["min"] - summary["q25"]) + high * (summary["max"] - summary["q75"])
    )


@cache
def _tail_powers(feature: str) -> tuple[float, float]:
    """Powers of the two tails that give the published mean and sd as nearly as can be."""
    summary = published.feature_summary()[feature]
    z = ndtri((np.arange(2_000) + 0.5) / 2_000)

    def off(log_powers: Array) -> float:
        low, high = np.exp(log_powers)
        values = _between_quartiles(z, feature, (low, high))
        of_mean = (values.mean() - summary["mean"]) / summary["std"]
        of_sd = values.std() / summary["std"] - 1.0
        return float(of_mean**2 + of_sd**2)

    best = optimize.minimize(off, [0.0, 0.0], method="Nelder-Mead", bounds=[(-2.0, 2.0)] * 2)
    low, high = np.exp(best.x)
    return float(low), float(high)


def _draw_quality(
    latents: Array,
    popularity: Array,
    law: ListeningLaw,
    config: TrackConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Truncated normal quality ``(m,)``, partly seen in the features and in the popularity.

    It is 0 for the average play, whichever tracks happen to be the hits, and about standard normal
    times the law's sd over plays in a catalog of any size.
    """
    content, popular = config.quality_content_share, config.quality_popularity_share
    # Normal score of the place among all plays, of which the hits have many.
    place = 1.0 - (np.cumsum(popularity) - popularity / 2.0)
    score = (
        np.sqrt(content) * _standardised(latents @ rng.standard_normal(latents.shape[1]))
        + np.sqrt(popular) * ndtri(np.clip(place, 1e-6, 1.0 - 1e-6))
        + np.sqrt(1.0 - content - popular) * rng.standard_normal(len(latents))
    )
    limit = law.quality_limit
    truncated = ndtri(ndtr(-limit) + ndtr(score) * (ndtr(limit) - ndtr(-limit)))
    centred = np.clip(truncated - popularity @ truncated, -limit, limit)
    return (law.quality_sd * centred).astype(np.float32)


def _draw_vectors(
    latents: Array, config: TrackConfig, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Unit vectors ``(m, dim)``: features, hidden genre, and the track's own part."""
    num_tracks, num_features = latents.shape
    content, genres = config.content_share, config.genre_share
    directions = rng.standard_normal((num_features, config.dim), dtype=np.float32)
    vectors = content**0.5 * unit_rows(latents.astype(np.float32) @ directions)
    sizes = rng.dirichlet(np.full(config.genres, config.genre_concentration))
    genre = rng.choice(config.genres, size=num_tracks, p=sizes)
    centers = unit_rows(rng.standard_normal((config.genres, config.dim), dtype=np.float32))
    vectors += genres**0.5 * centers[genre]
    own = unit_rows(rng.standard_normal((num_tracks, config.dim), dtype=np.float32))
    vectors += max(1.0 - content - genres, 0.0) ** 0.5 * own
    return unit_rows(vectors).astype(np.float32)


def _even_ranks(values: Array) -> Array:
    """Ranks, evenly spread over (0, 1): a small catalog has the published marginals too."""
    ranks = np.empty(len(values))
    ranks[values.argsort()] = (np.arange(len(values)) + 0.5) / len(values)
    return ranks


def _standardised(values: Array) -> Array:
    return (values - values.mean()) / max(float(values.std()), 1e-12)
