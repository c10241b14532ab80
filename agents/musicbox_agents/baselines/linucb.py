"""LinUCB: a linear model of listening, learned online, optimistic where it knows little.

Li, Chu, Langford & Schapire, "A contextual-bandit approach to personalized news article
recommendation", WWW 2010 (arXiv:1003.0146), with parameters shared by all arms: of most tracks of
a large catalog there is not one play to fit parameters of their own to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicbox_agents.base import Options, require_ranges
from musicbox_agents.baselines.base import SlateAgent, SlateSettings, in_chunks
from musicbox_agents.progress import Progress
from musicbox_agents.sessions import open_env
from musicbox_agents.slates import Batch, Slates
from musicbox_env.data.dataset import RATE_SUFFIX
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
        ranges = {"alpha": (0, np.inf), "ridge": (1e-12, np.inf), "num_envs": (1, np.inf)}
        require_ranges(self, ranges)


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
    settings: LinUCBSettings
    learns = True

    def set_up(self) -> None:
        """Begin with the prior."""
        size = 2 * self._dim + 3 + NUM_STATE_FEATURES
        self._precision: Array = self.settings.ridge * np.eye(size)
        self._kept: Array = np.zeros(size)

    @property
    def _spec(self) -> str:
        return self.settings.embedding or self.dataset.default_embedding

    @cached_property
    def _search(self) -> Search:
        return Search(self.dataset, self._spec)

    @cached_property
    def tracks(self) -> Array:
        """Vector, rate and 1 (z above) of every track ``(num_tracks, d + 2)``."""
        space = self._search.space
        if not self._spec.endswith(RATE_SUFFIX):
            space = np.pad(space, ((0, 0), (0, 1)))
        return np.pad(space, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float64)

    @property
    def _dim(self) -> int:
        return self.tracks.shape[1] - 2

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        sessions = session_matrices(batch, self.tracks)
        theta = np.linalg.solve(self._precision, self._kept)
        queries = np.einsum("nxz,x->nz", sessions, theta)
        if deterministic or self.settings.alpha == 0:
            # The last axis is the same for all songs, and the rate's place is empty without one.
            space = self._search.space
            queries = queries[:, : space.shape[1]]
            return self._nearest(batch, queries, space, self._search.top_k)
        covariance = np.linalg.inv(self._precision)
        spread = np.einsum("nxz,xy,nyw->nzw", sessions, covariance, sessions, optimize=True)
        return in_chunks(
            {**batch, "queries": queries, "spread": spread}, self.num_tracks, self._optimistic
        )

    def _optimistic(self, batch: Batch) -> Slates:
        variance = np.stack(
            [((self.tracks @ spread) * self.tracks).sum(axis=1) for spread in batch["spread"]]
        )
        bound = self.settings.alpha * np.sqrt(np.maximum(variance, 0))
        return self._best_by_scores(batch, batch["queries"] @ self.tracks.T + bound)

    def train(
        self, options: Options, total_steps: int, progress: Progress, checkpoint: Path | None
    ) -> None:
        """Recommend optimistically and add every answer to the regression."""
        with open_env(self.dataset, options, self.settings.num_envs) as env:
            observation, _ = env.reset(seed=self.seed)
            steps = 0
            while steps < total_steps:
                slates, _ = self.predict(observation)
                following, _, _, _, info = env.step(slates)
                # In the step after an end nothing is heard, and so nothing is learned.
                kept = self._update(observation, info["slate"], info["slate_levels"])
                progress.gather("train/kept", kept)
                observation = following
                steps += env.num_envs
                progress.call(steps, last=steps >= total_steps)

    def _update(
        self, batch: Batch, slates: npt.NDArray, levels: npt.NDArray
    ) -> npt.NDArray[np.bool_]:
        """Update the regression with the songs heard ``(n, k)``; gives which were kept."""
        session, place = np.nonzero(levels >= 0)
        tracks = self.tracks[slates[session, place]]
        features = np.einsum("sxz,sz->sx", session_matrices(batch, self.tracks)[session], tracks)
        kept = ~is_skip(levels[session, place])
        self._precision = self._precision + features.T @ features
        self._kept = self._kept + kept @ features
        return kept

    def arrays(self) -> dict[str, npt.NDArray]:
        """See `Agent.arrays`."""
        return {"precision": self._precision, "kept": self._kept}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """See `Agent.restore`."""
        for name, own in self.arrays().items():
            if (found := arrays[name]).shape != own.shape or found.dtype != own.dtype:
                raise ValueError(
                    f"{name} is {found.dtype} {found.shape}; {own.dtype} {own.shape} expected."
                )
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
