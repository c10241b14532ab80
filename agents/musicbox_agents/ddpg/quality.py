"""How good songs are, as far as plays tell: one number for each track, and how sure it is.

A track's skip rate says less than it seems to. Who skipped the song before skips this one too, and
some sessions skip nearly everything: a quarter of the variance of a play is its session's. So a
play counts here by its *residual*, how much better or worse it went than its session predicted::

    residual_j = reward of play j - its prediction
    quality_i  = (sum of residuals_i + prior * expected_i) / (number of residuals_i + prior)

the posterior mean of a normal with a normal prior around ``expected_i`` whose variance is that of
one residual over ``prior``. How much songs differ, and so the prior, is estimated from the log
(`estimated_prior`). What is expected of a track is a ridge regression on its vector and on how
often it is played (`expectations`): most tracks of a large catalog have hardly any residuals. Plays
of the log are predicted by the plays before them (`quality_in_log`), plays that the agent caused by
its critic.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from musicbox_agents.log import FOLDS
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import NEUTRAL, running_skips
from musicbox_env.retrieval.spaces import RATE_SCALE
from musicbox_env.rewards import RewardConfig, song_rewards
from musicbox_env.schema import is_skip

Floats = npt.NDArray[np.float32]
Tracks = npt.NDArray[np.integer]

MEMORY: Final = 0.75
"""What the running mean of skips keeps at each play; about four plays are remembered."""
BINS: Final = 10
"""Steps of the running mean and of the session's skip rate in a situation."""
SITUATIONS: Final = 3 * BINS * BINS
PRIOR: Final = 50.0
"""Residuals that a prior is worth where the log cannot tell: songs differ by .1 in skip rate."""
PRIORS: Final = (1.0, 1_000.0)
RIDGE: Final = 100.0
"""Penalty on the slopes of what is expected, in residuals."""
SESSIONS_A_BLOCK: Final = 1 << 16
_LEAST: Final = 1e-9


@dataclass
class TrackQuality:
    """Posterior of each track's quality, in the units of its residuals.

    Attributes:
        sum: Of the residuals of each track ``(num_tracks,)``.
        count: Of them ``(num_tracks,)``.
        expected: Mean of the prior ``(num_tracks,)``.
        prior: Residuals that the prior is worth.
        scale: Quality at which the axis reaches 1.
    """

    sum: Floats
    count: Floats
    expected: Floats
    prior: float
    scale: float = 1.0

    @classmethod
    def none(cls, num_tracks: int, prior: float) -> Self:
        """Begin without residuals and expectations: all songs are equally good."""
        sums, counts, expected = np.zeros((3, num_tracks), np.float32)
        return cls(sums, counts, expected, prior)

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray]) -> Self:
        """Restore what `arrays` gave."""
        found = {field.name: arrays[f"quality.{field.name}"] for field in fields(cls)}
        parts: dict[str, Any] = {n: a.copy() if a.ndim else a.item() for n, a in found.items()}
        return cls(**parts)

    def require_tracks(self, num_tracks: int) -> None:
        """Refuse what was not learned of this many tracks, as a damaged file can hold.

        Raises:
            ValueError: With the name of what is of another shape or out of range.
        """
        for name in ("sum", "count", "expected"):
            shape = np.shape(getattr(self, name))
            if shape != (num_tracks,):
                raise ValueError(f"quality.{name} has shape {shape}; expected ({num_tracks},).")
        if np.ndim(self.prior) or np.ndim(self.scale) or self.prior < 0 or self.scale <= 0:
            raise ValueError("quality.prior and quality.scale must be numbers above 0.")
        if np.min(self.count) < 0:
            raise ValueError("quality.count holds negative counts.")

    def arrays(self) -> dict[str, npt.NDArray]:
        """Everything that was learned, to be saved."""
        return {
            f"quality.{field.name}": np.array(getattr(self, field.name)) for field in fields(self)
        }

    def add(self, tracks: Tracks, residuals: npt.NDArray[np.floating]) -> None:
        """Add one residual of each of the tracks ``(n,)``, which may hold some twice."""
        np.add.at(self.sum, tracks, residuals)
        np.add.at(self.count, tracks, 1)

    def mean(self, tracks: Tracks) -> Floats:
        """Quality of tracks ``(n,)``; as expected of those without residuals."""
        known = self.sum[tracks] + self.prior * self.expected[tracks]
        return np.asarray(known / np.maximum(self.count[tracks] + self.prior, _LEAST), np.float32)

    def axis(self, tracks: Tracks) -> Floats:
        """Coordinates of tracks along the quality axis of an embedding space, in [-1, 1]."""
        return np.clip(self.mean(tracks) / np.float32(self.scale), -1, 1)


def quality_in_log(
    dataset: Dataset, vectors: Floats, reward: RewardConfig, prior: float | None, unit: float
) -> dict[str, TrackQuality]:
    """Quality by the plays of each training fold and, under ``"train"``, of both.

    What is predicted of a play is the mean reward of plays in the same situation: after a skip, a
    kept song or nothing, with about the same running mean of skips and the same skip rate so far.
    All three have the scale of both folds.

    Args:
        dataset: Whose training sessions are read, whole.
        vectors: Unit vectors of the tracks ``(num_tracks, d)``; see `expectations`.
        reward: What a play earns.
        prior: See `TrackQuality`; None is to estimate it from both folds.
        unit: Factor on the residuals: what the reward of a single song counts.
    """
    total, number = np.zeros(SITUATIONS), np.zeros(SITUATIONS)
    for fold in FOLDS:
        for plays in _plays(dataset, fold, reward):
            total += np.bincount(plays.situation, plays.reward, SITUATIONS)
            number += np.bincount(plays.situation, minlength=SITUATIONS)
    predicted = total / np.maximum(number, 1)
    first = PRIOR if prior is None else prior
    read = {name: TrackQuality.none(len(dataset.catalog), first) for name in (*FOLDS, "train")}
    squares = 0.0
    for fold in FOLDS:
        for plays in _plays(dataset, fold, reward):
            residuals = unit * (plays.reward - predicted[plays.situation])
            squares += float(residuals @ residuals)
            for name in (fold, "train"):
                read[name].add(plays.tracks, residuals)
    variance = squares / max(number.sum(), 1)
    train = read["train"]
    if prior is None:
        train.expected[:] = expectations(train, vectors)
        prior = estimated_prior(train, variance)
    for quality in read.values():
        quality.prior = prior
        quality.expected[:] = expectations(quality, vectors)
    played = np.flatnonzero(train.count)
    spread = float(train.mean(played).std()) if len(played) else 0.0
    for quality in read.values():
        quality.scale = max(RATE_SCALE * spread, _LEAST)
    return read


def estimated_prior(quality: TrackQuality, variance: float) -> float:
    """How many residuals the prior is worth: their ``variance`` over that of songs' quality.

    The latter is how much tracks' mean residuals differ from what is expected of them beyond
    chance, by the method of moments (DerSimonian & Laird, 1986), over tracks of two residuals or
    more: one tells only the sum of both variances. Within `PRIORS`, whose upper end is for songs
    that do not differ.
    """
    tracks = np.flatnonzero(quality.count > 1)
    count = quality.count[tracks].astype(np.float64)
    if not len(tracks) or count.sum() ** 2 <= np.square(count).sum():
        return PRIOR
    beyond = quality.sum[tracks] / count - quality.expected[tracks]
    beyond -= np.average(beyond, weights=count)
    explained = (count @ np.square(beyond)) - (len(tracks) - 1) * variance
    of_songs = explained / (count.sum() - np.square(count).sum() / count.sum())
    return float(np.clip(variance / max(of_songs, _LEAST), *PRIORS))


def expectations(quality: TrackQuality, vectors: Floats) -> Floats:
    """Quality that tracks are expected to have by their vectors and number of residuals ``(n,)``.

    Ridge regression (Hoerl & Kennard, 1970) of the tracks' mean residuals, each weighted by its
    precision under the prior, ``n / (1 + n / prior)``; the constant is not penalised.
    """
    played = np.flatnonzero(quality.count)
    if not len(played) or not quality.prior:
        return np.zeros(len(vectors), np.float32)
    count = quality.count[played].astype(np.float64)
    rows = np.column_stack([vectors[played], np.log1p(count), np.ones(len(played))])
    weight = count / (1 + count / quality.prior)
    penalty = np.diag(np.append(np.full(rows.shape[1] - 1, RIDGE), 0.0))
    slopes = np.linalg.solve(
        (rows.T * weight) @ rows + penalty, (rows.T * weight) @ (quality.sum[played] / count)
    ).astype(np.float32)
    expected = vectors @ slopes[:-2] + np.log1p(quality.count) * slopes[-2] + slopes[-1]
    return np.asarray(expected, np.float32)


class _Plays(NamedTuple):
    """Plays of some sessions, each array ``(n,)``."""

    tracks: Tracks
    situation: npt.NDArray[np.int64]
    reward: npt.NDArray[np.float64]


def _plays(dataset: Dataset, fold: str, reward: RewardConfig) -> Iterator[_Plays]:
    """All plays of a fold, block by block."""
    log = dataset.sessions
    sessions = log.sessions_in(fold)
    for start in range(0, len(sessions), SESSIONS_A_BLOCK):
        block = sessions[start : start + SESSIONS_A_BLOCK]
        width = dataset.longest_session
        levels, tracks = (log.padded(name, block, width) for name in ("level", "track"))
        played = levels >= 0
        yield _Plays(
            tracks[played], _situations(levels)[played], song_rewards(reward, levels)[played]
        )


def _situations(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Number of the situation that each play of sessions ``(n, width)`` finds itself in."""
    skipped = is_skip(levels).astype(np.int64)
    previous = _before(skipped, 2)  # neither kept nor skipped
    running = _before(running_skips(levels, MEMORY), NEUTRAL)
    rate = (np.cumsum(skipped, axis=1) - skipped + 2) / (np.arange(levels.shape[1]) + 4)
    steps = [np.minimum(share * BINS, BINS - 1).astype(np.int64) for share in (running, rate)]
    return (previous * BINS + steps[0]) * BINS + steps[1]


def _before(values: npt.NDArray, first: float) -> npt.NDArray:
    """Values ``(n, w)`` after each play as those before it, ``first`` before any."""
    return np.insert(values[:, :-1], 0, first, axis=1)
