"""What recommenders that need no training share.

Where a rule is a point in embedding space it acts by proto-action, so that the environment
retrieves, masks and breaks ties for it as for any other agent (`ProtoActionAgent`). Where it ranks
tracks in another way it acts by explicit slates (`SlateAgent`).

All counts, rates and co-occurrences are those of training plays. They hold the training sessions'
own second halves, so these agents are to be evaluated on validation or test sessions.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_agents.base import Agent, AgentSettings, require_ranges
from musicbox_agents.slates import Batch, Floats, Slates, best_candidates, nearest
from musicbox_env.data.dataset import RATE_SUFFIX
from musicbox_env.retrieval.exact import Find
from musicbox_env.schema import MAX_SESSION_LENGTH, is_skip
from musicbox_env.simulator.config import MOST_SONGS

MAX_SCORES: Final = 1 << 21
"""Scores of tracks held at once, 8 MB in single precision: memory stays bounded for any batch."""


@dataclass(frozen=True)
class ProtoActionSettings(AgentSettings):
    """Settings of agents that act by proto-action.

    Attributes:
        embedding: Space of the action; None is the best that the dataset has for the rule.
    """

    embedding: str | None = None


class ProtoActionAgent(Agent):
    """Acts by proto-action: a vector of embedding space, of which only the direction matters."""

    Settings = ProtoActionSettings
    settings: ProtoActionSettings

    @property
    def embedding(self) -> str:
        """Name of the embedding in which the agent acts."""
        return self.settings.embedding or self._default_embedding()

    def _default_embedding(self) -> str:
        return self.dataset.default_embedding

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Unit vectors of the tracks, without a rate column, ``(num_tracks, d)``."""
        return self.dataset.embedding(self.embedding.removesuffix(RATE_SUFFIX))

    @property
    def env_options(self) -> dict[str, Any]:
        """Proto-actions, the whole session as track ids."""
        return {
            "action": "proto",
            "observation": "ids",
            "history_length": MAX_SESSION_LENGTH,
            "embedding": self.embedding,
        }

    def act(self, batch: Batch, *, deterministic: bool) -> npt.NDArray[np.float32]:
        """See `Agent.act`."""
        proto_actions = self._proto_actions(batch)
        norms = np.linalg.norm(proto_actions, axis=1, keepdims=True)
        least = np.finfo(np.float32).tiny
        return (proto_actions / np.maximum(norms, least)).astype(np.float32)

    @abstractmethod
    def _proto_actions(self, batch: Batch) -> Floats:
        """Proto-actions ``(n, dim)`` of any length."""


@dataclass(frozen=True)
class SlateSettings(AgentSettings):
    """Settings of agents that act by explicit slates.

    Attributes:
        slate_size: Songs of a slate.
    """

    slate_size: int = 3

    def __post_init__(self) -> None:
        require_ranges(self, {"slate_size": (1, MOST_SONGS)})


class SlateAgent(Agent):
    """Acts by naming tracks: none that ``observation["barred"]`` holds, none twice.

    With ``candidates="session"`` it chooses among ``observation["candidates"]``; a track that
    stands there twice is two plays and may be named twice. Where fewer plays are left than places,
    the last places hold track 0, which the environment does not play.
    """

    Settings = SlateSettings
    settings: SlateSettings

    @property
    def slate_size(self) -> int:
        """Songs of a slate."""
        return self.settings.slate_size

    @property
    def num_tracks(self) -> int:
        """Size of the catalog."""
        return len(self.dataset.catalog)

    @property
    def env_options(self) -> dict[str, Any]:
        """Slates of tracks, the whole session as track ids."""
        return {
            "action": "slate",
            "observation": "ids",
            "history_length": MAX_SESSION_LENGTH,
            "slate_size": self.slate_size,
        }

    def _nearest(
        self, batch: Batch, queries: Floats, items: Floats, find: Find | None = None
    ) -> Slates:
        """Tracks of highest dot product of items ``(num_tracks, e)`` and queries ``(n, e)``.

        ``find`` searches the items in place of `top_k`.
        """
        return np.maximum(nearest(batch, queries, items, self.slate_size, find), 0)

    def _best_by_scores(self, batch: Batch, scores: Floats) -> Slates:
        """Tracks of highest score ``(n, num_tracks)``, ties to the more popular."""
        if "candidates" in batch:
            candidates = batch["candidates"]
            of_candidates = np.take_along_axis(scores, np.maximum(candidates, 0), axis=1)
            return best_candidates(candidates, of_candidates, self.slate_size)
        scores = np.array(scores, dtype=np.float64)
        barred = np.nonzero(batch["barred"] >= 0)
        scores[barred[0], batch["barred"][barred]] = -np.inf
        slates = np.zeros((len(scores), self.slate_size), np.int64)
        for place in range(self.slate_size):
            slates[:, place] = scores.argmax(axis=1)
            scores[np.arange(len(scores)), slates[:, place]] = -np.inf
        return slates


def in_chunks(batch: Batch, size: int, act: Callable[[Batch], npt.NDArray]) -> npt.NDArray:
    """Apply ``act`` to some rows of a batch at a time, and join what it gives.

    Args:
        batch: Arrays of n rows each.
        size: Numbers that a row needs; at most `MAX_SCORES` are held, or one row's.
        act: Gives an array of as many rows.
    """
    n, rows = len(next(iter(batch.values()))), max(1, MAX_SCORES // size)
    parts = [
        act({name: part[start : start + rows] for name, part in batch.items()})
        for start in range(0, max(n, 1), rows)
    ]
    return np.concatenate(parts)


def kept_or_all(batch: Batch) -> npt.NDArray[np.bool_]:
    """Songs that were kept ``(n, H)``; all heard in sessions that kept none."""
    heard = batch["tracks"] >= 0
    kept = heard & ~is_skip(batch["levels"])
    return np.where(kept.any(axis=1, keepdims=True), kept, heard)
