"""LinUCB: a linear model of listening, learned online, optimistic where it knows little.

Li, Chu, Langford & Schapire, "A contextual-bandit approach to personalized news article
recommendation", WWW 2010 (arXiv:1003.0146), with parameters shared by all arms: of most tracks of
a large catalog there is not one play to fit parameters of their own to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import numpy.typing as npt

import musicbox_env
from musicbox_agents.base import AgentSettings, Callback
from musicbox_agents.baselines.heuristics import (
    MAX_SCORES,
    Batch,
    SlateAgent,
    Slates,
    SlateSettings,
    in_chunks,
)
from musicbox_env.data.dataset import RATE_SUFFIX, Dataset
from musicbox_env.data.summaries import mean_vectors
from musicbox_env.retrieval.search import Search
from musicbox_env.schema import is_skip

Array = npt.NDArray[np.float64]

NUM_STATE_FEATURES = 3


@dataclass(frozen=True)
class LinUCBSettings(SlateSettings):
    """Settings of `LinUCBAgent`.

    Attributes:
        embedding: Space of the tracks; None is the dataset's best, with the rate.
        alpha: Width of the confidence bound, in standard deviations of the estimate.
        ridge: Prior precision of every parameter.
        num_envs: Sessions that it learns from side by side.
    """

    embedding: str | None = None
    alpha: float = 0.5
    ridge: float = 1.0
    num_envs: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0 or self.ridge <= 0 or self.num_envs < 1:
            raise ValueError(
                f"alpha is {self.alpha}, ridge {self.ridge} and num_envs {self.num_envs}; alpha "
                "must not be negative, ridge must be above 0 and num_envs 1 or more."
            )


class LinUCBAgent(SlateAgent):
    """Ridge regression of "the song is kept" on track and session, with an upper bound.

    With v a track's vector, r its rate, p the mean vector of the songs heard and g the state
    features of the session, the features of track and session are::

        x = (v, r, 1, p * v, p . v, g)

    and the estimate is x . theta with theta = A^-1 b, A = ridge I + sum x x', b = sum x kept.
    While learning a track scores ``x . theta + alpha sqrt(x' A^-1 x)``, afterwards x . theta.

    Since x is linear in z = (v, r, 1), that is x = M z with a matrix M of the session, a session's
    scores are ``z . M' theta`` and ``z' (M' A^-1 M) z``: no feature matrix is ever built.
    """

    name = "linucb"
    Settings = LinUCBSettings
    learns = True

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """See `Agent`."""
        super().__init__(dataset, seed=seed, settings=settings)
        size = 2 * self._dim + 3 + NUM_STATE_FEATURES
        self._precision: Array = self._options.ridge * np.eye(size)
        self._kept: Array = np.zeros(size)

    @property
    def _options(self) -> LinUCBSettings:
        assert isinstance(self.settings, LinUCBSettings)
        return self.settings

    @property
    def _spec(self) -> str:
        return self._options.embedding or self.dataset.default_embedding

    @cached_property
    def _search(self) -> Search:
        return Search(self.dataset, self._spec)

    @cached_property
    def _tracks(self) -> Array:
        """Vector, rate and 1 (z above) of every track ``(num_tracks, d + 2)``: vector, rate, 1."""
        space = self._search.space
        if not self._spec.endswith(RATE_SUFFIX):
            space = np.pad(space, ((0, 0), (0, 1)))
        return np.pad(space, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float64)

    @property
    def _dim(self) -> int:
        return self._tracks.shape[1] - 2

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        sessions = session_matrices(batch, self._tracks)
        theta = np.linalg.solve(self._precision, self._kept)
        points = np.einsum("nxz,x->nz", sessions, theta)
        if deterministic or self._options.alpha == 0:
            # The last axis is the same for all songs, and the rate's place is empty without one.
            space = self._search.space
            points = points[:, : space.shape[1]]
            return self._best_by_points(batch, points, space, self._search.top_k)
        covariance = np.linalg.inv(self._precision)
        spread = np.einsum("nxz,xy,nyw->nzw", sessions, covariance, sessions, optimize=True)
        chunk = MAX_SCORES // self.num_tracks
        return in_chunks({**batch, "points": points, "spread": spread}, chunk, self._optimistic)

    def _optimistic(self, batch: Batch) -> Slates:
        variance = np.stack(
            [((self._tracks @ spread) * self._tracks).sum(axis=1) for spread in batch["spread"]]
        )
        bound = self._options.alpha * np.sqrt(np.maximum(variance, 0))
        return self._best_by_scores(batch, batch["points"] @ self._tracks.T + bound)

    def learn(
        self,
        env_options: Mapping[str, Any],
        total_steps: int,
        *,
        callback: Callback | None = None,
        callback_every: int = 1_000,
        checkpoint: Path | None = None,
    ) -> Self:
        """Recommend optimistically and take every answer into the regression."""
        env = gym.make_vec(
            musicbox_env.ENV_ID,
            num_envs=self._options.num_envs,
            vectorization_mode="vector_entry_point",
            **{**env_options, **self.env_options},
        )
        observation, _ = env.reset(seed=self.seed)
        steps = reported = 0
        kept: list[float] = []
        while steps < total_steps:
            slates, _ = self.predict(observation)
            following, _, _, _, info = env.step(slates)
            # In the step after an end nothing is heard, and so nothing is learned.
            kept += self._take_in(observation, info["slate"], info["levels"])
            observation = following
            steps += env.num_envs
            due = steps - reported >= callback_every or steps >= total_steps
            if callback is not None and due:
                callback(steps, {"train/kept": float(np.mean(kept)) if kept else 0.0})
                reported, kept = steps, []
        env.close()
        return self

    def _take_in(self, batch: Batch, slates: npt.NDArray, levels: npt.NDArray) -> list[float]:
        """Update the regression with the songs heard ``(n, k)``; gives 1 for each song kept."""
        session, place = np.nonzero(levels >= 0)
        tracks = self._tracks[slates[session, place]]
        features = np.einsum("sxz,sz->sx", session_matrices(batch, self._tracks)[session], tracks)
        kept = ~is_skip(levels[session, place])
        self._precision = self._precision + features.T @ features
        self._kept = self._kept + kept @ features
        return kept.astype(float).tolist()

    def arrays(self) -> dict[str, npt.NDArray]:
        """See `Agent.arrays`."""
        return {"precision": self._precision, "kept": self._kept}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """See `Agent.restore`."""
        self._precision, self._kept = arrays["precision"], arrays["kept"]


def session_matrices(batch: Batch, tracks: Array) -> Array:
    """M of each session, ``(n, 2 d + 3 + NUM_STATE_FEATURES, d + 2)``: features are x = M z."""
    heard = batch["tracks"] >= 0
    dim = tracks.shape[1] - 2
    played = mean_vectors(tracks[:, :dim], batch["tracks"], heard)
    matrices = np.zeros((len(heard), 2 * dim + 3 + NUM_STATE_FEATURES, dim + 2))
    matrices[:, : dim + 2] = np.eye(dim + 2)
    axis = np.arange(dim)
    matrices[:, dim + 2 + axis, axis] = played
    matrices[:, 2 * dim + 2, :dim] = played
    matrices[:, 2 * dim + 3 :, -1] = _state_features(batch, heard)
    return matrices


def _state_features(batch: Batch, heard: npt.NDArray[np.bool_]) -> Array:
    """Whether the last song was skipped, the share skipped, and the position, ``(n, 3)``."""
    skipped = is_skip(batch["levels"])
    share = skipped.sum(axis=1) / np.maximum(heard.sum(axis=1), 1)
    return np.stack([skipped[:, -1], share, batch["context"][:, -1]], axis=1)
