"""Songs as points of an embedding space, and what the networks read of sessions in it."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicbox_agents.base import Observation
from musicbox_agents.ddpg.networks import Critic, CriticState
from musicbox_agents.ddpg.quality import TrackQuality, quality_in_log
from musicbox_agents.ddpg.replay import Transitions
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.ddpg.state import State, embedded, read_sessions
from musicbox_agents.log import FOLDS
from musicbox_agents.slates import Slates, best_with_scores, nearest
from musicbox_env.data.dataset import RATE_SUFFIX, Dataset
from musicbox_env.retrieval.search import Search
from musicbox_env.retrieval.spaces import rate_column
from musicbox_env.rewards import RewardConfig, discounts
from musicbox_env.schema import UNKNOWN, is_skip

Axes = dict[str, npt.NDArray[np.float32]]
Parts = TypeVar("Parts", bound=tuple)


class Batch(NamedTuple):
    """Transitions as the networks read them; see `replay.Transitions`.

    Attributes:
        state: Before the slate.
        songs: Embeddings of the songs of the slate ``(B, K, d)``.
        rewards: Of each of them ``(B, K)``.
        heard: Which of them were heard ``(B, K)``.
        terminated: Whether the session ended with the slate ``(B,)``.
        next_state: After the slate; the state before it where nothing needs it.
        logged: Whether the slate comes from the log ``(B, 1)``.
        kept: Which songs were heard and not skipped ``(B, K)``.
        barred: Songs heard when the slate is over ``(B, H)``; ``(B, 0)`` where nothing needs them.
    """

    state: State
    songs: Tensor
    rewards: Tensor
    heard: Tensor
    terminated: Tensor
    next_state: State
    logged: Tensor
    kept: Tensor
    barred: Tensor


class Decision(NamedTuple):
    """What was chosen for n sessions, and by what.

    Attributes:
        slates: Songs, best first ``(n, slate_size)``.
        proto_actions: mu(s), with noise where it was asked for ``(n, d)``.
        values: What orders the songs: Q of each, after those before it where slates are composed
            song by song ``(n, slate_size)``.
    """

    slates: Slates
    proto_actions: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]


class SongSpace:
    """A dataset's songs in an embedding space; an agent may move its songs along the last axis.

    Attributes:
        embedding: Name of the space.
        has_rate: Whether its last axis is how good a song is.
        search: Finds songs in it.
        quality: How good songs are, where the last axis is the agent's own; else None.
        ordered: Whether the order of the songs that sessions heard counts.
    """

    def __init__(
        self, dataset: Dataset, embedding: str | None = None, *, ordered: bool = False
    ) -> None:
        """Open a space; None is the dataset's best, with the rate."""
        self.ordered = ordered
        self.embedding = embedding or dataset.default_embedding
        self.has_rate = self.embedding.endswith(RATE_SUFFIX)
        self.search = Search(dataset, self.embedding)
        self.quality: TrackQuality | None = None

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Where songs lie ``(num_tracks, d)``."""
        return self.search.space

    @property
    def dim(self) -> int:
        """Dimensions of the space."""
        return self.vectors.shape[1]

    def nearest(
        self, observation: Observation, queries: npt.NDArray[np.float32], k: int
    ) -> npt.NDArray[np.int64]:
        """The k songs of highest dot product that may be recommended ``(n, k)``, -1 for none."""
        return nearest(observation, queries, self.vectors, k, self.search.top_k)

    def weights(self, observation: Observation, quality_weight: float) -> npt.NDArray[np.float32]:
        """What each dimension counts when songs are chosen ``(d,)``.

        Out of the catalog the rate axis counts less than the critic says; among the few plays of a
        logged session there is nothing to spread.
        """
        weight = np.ones(self.dim, np.float32)
        if self.has_rate and "candidates" not in observation:
            weight[-1] = quality_weight
        return weight

    def embed(self, tracks: npt.NDArray[np.integer]) -> Tensor:
        """Embeddings of tracks ``(..., d)``, 0 for -1."""
        return embedded(self.vectors, tracks)

    def state(self, observation: Observation) -> State:
        """What the networks read of a batch of sessions."""
        return read_sessions(
            self.vectors,
            observation["tracks"],
            observation["levels"].astype(np.int8, copy=False),
            observation["context"].astype(np.float32, copy=False),
            rate=self.has_rate,
            ordered=self.ordered,
        )

    def scored(
        self, near: npt.NDArray[np.int64], queries: npt.NDArray[np.float32]
    ) -> tuple[Slates, npt.NDArray[np.float32]]:
        """Tracks ``near`` ``(n, k)``, 0 for -1, and their dot products with queries ``(n, d)``."""
        slates = np.maximum(near, 0)
        return slates, (self.embed(slates).numpy() * queries[:, None]).sum(axis=2)

    def best(
        self,
        encoded: CriticState,
        near: npt.NDArray[np.int64],
        weight: npt.NDArray[np.float32],
        critic: Critic,
        k: int,
        *,
        song_by_song: bool = False,
    ) -> tuple[Slates, npt.NDArray[np.float32]]:
        """The k tracks of highest Q among ``near`` ``(n, m)``, embeddings times `weights`; their Q.

        ``song_by_song``: each has the highest Q after those before it.
        """
        songs = self.embed(near) * torch.from_numpy(weight)
        q = critic.score(encoded, songs).numpy()
        if not song_by_song:
            return best_with_scores(near, q, k)
        left, slates = near.copy(), np.zeros((len(near), k), np.int64)
        values = np.zeros(slates.shape, np.float32)
        for place in range(k):
            best = np.where(left >= 0, q, -np.inf).argmax(axis=1)[:, None]
            slates[:, place] = np.maximum(np.take_along_axis(left, best, axis=1)[:, 0], 0)
            values[:, place] = np.take_along_axis(q, best, axis=1)[:, 0]
            np.put_along_axis(left, best, UNKNOWN, axis=1)
            encoded = critic.after(encoded, self.embed(slates[:, place : place + 1]))
            q = critic.score(encoded, songs).numpy()
        return slates, values

    def batch(self, rows: Transitions, *, future: bool) -> Batch:
        """What the networks read of transitions; next states only with ``future``."""
        songs = self.embed(rows.slate)
        if self.has_rate:
            given = ~np.isnan(rows.slate_axis)
            songs.numpy()[given, -1] = rows.slate_axis[given]
        state = next_state = self.state(rows.before())
        barred = rows.tracks[:, :0]
        if future:
            after = rows.after()
            next_state, barred = self.state(after), after["tracks"]
        return Batch(
            state=state,
            songs=songs,
            rewards=torch.from_numpy(rows.song_reward),
            heard=torch.from_numpy(rows.heard),
            terminated=torch.from_numpy(rows.terminated),
            next_state=next_state,
            logged=torch.from_numpy(rows.logged)[:, None],
            kept=torch.from_numpy(rows.heard & ~is_skip(rows.slate_levels)),
            barred=torch.from_numpy(barred),
        )

    def counted_axes(self) -> Axes:
        """The rate axis as each fold of the training sessions alone has it."""
        return {fold: rate_column(self.search.dataset.catalog, fold) for fold in FOLDS}

    def read_quality(self, settings: DDPGSettings, reward: RewardConfig) -> Axes:
        """Read from the log how good songs are, and make it the last axis.

        With ``quality="counted"``, or where the space has no rate, the space stays as it is: its
        last axis is then the dataset's own, the keep rate counted on all training plays.

        Returns:
            The axis ``(num_tracks,)`` as each fold alone has it; see `log.read_log`.
        """
        if settings.quality == "counted" or not self.has_rate:
            return self.counted_axes()
        unit = discounts(reward.gamma_position, settings.slate_size).sum()
        found = quality_in_log(self.search.dataset, self.vectors[:, :-1], reward, None, unit)
        self.set_quality(found["train"])
        return {fold: found[fold].axis(np.arange(len(self.vectors))) for fold in FOLDS}

    def set_quality(self, quality: TrackQuality) -> None:
        """Make it the last axis."""
        self.quality = quality
        everything = np.arange(len(self.vectors))
        self.search.move(everything, quality.axis(everything))

    def arrays(self) -> dict[str, npt.NDArray]:
        """What makes the space the agent's own; `restore` takes it back."""
        return {} if self.quality is None else self.quality.arrays()

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """Be as `arrays` found it.

        Raises:
            ValueError: They are of another number of tracks.
        """
        if "quality.sum" in arrays:
            quality = TrackQuality.of(arrays)
            quality.require_tracks(len(self.vectors))
            self.set_quality(quality)

    def add_residuals(
        self, tracks: npt.NDArray[np.integer], residuals: npt.NDArray[np.float32]
    ) -> None:
        """Add residuals ``(n,)`` to the quality of tracks ``(n,)``, and move these."""
        assert self.quality is not None
        self.quality.add(tracks, residuals)
        moved = np.unique(tracks)
        self.search.move(moved, self.quality.axis(moved))


def perturbed(
    proto_actions: npt.NDArray[np.float32], share: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Add Gaussian noise of ``share`` times the norm, on average, and project back to norm 1."""
    norm = np.linalg.norm(proto_actions, axis=-1, keepdims=True)
    gauss = rng.standard_normal(proto_actions.shape, dtype=np.float32)
    noisy = proto_actions + share * norm * gauss / np.float32(np.sqrt(proto_actions.shape[-1]))
    return noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)


def divided(parts: Parts, size: int) -> list[Parts]:
    """Split nested tuples of tensors into rows of ``size`` each."""
    split = (
        part.split(size) if isinstance(part, Tensor) else divided(part, size) for part in parts
    )
    return [type(parts)(*pieces) for pieces in zip(*split, strict=True)]
