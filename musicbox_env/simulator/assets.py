"""What all sessions of an environment share: the dataset, the listener, the embedding space."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from musicbox_env.data.checks import FileError
from musicbox_env.data.dataset import Dataset, state_of_dataset
from musicbox_env.data.verdicts import State
from musicbox_env.errors import resolved
from musicbox_env.listeners import make_listener
from musicbox_env.listeners.leaving import make_leaving
from musicbox_env.retrieval.search import Search
from musicbox_env.retrieval.spaces import space_dim
from musicbox_env.simulator import observations
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.synthetic.truth import knows_truth


def open_dataset(data: str | Path | None) -> Dataset:
    """Open a dataset folder, or the bundled synthetic one; opened once a process.

    Args:
        data: Dataset folder; None is the bundled synthetic dataset, made on first use.
    """
    if data is None:
        from musicbox_env.synthetic.generator import bundled_dataset

        data = bundled_dataset()
    folder = resolved(data)
    try:
        state = state_of_dataset(folder)
    except FileError:  # opening it says what is wrong
        return Dataset(folder)
    return _open_dataset(folder, state)


@lru_cache(maxsize=8)
def _open_dataset(folder: Path, state: State) -> Dataset:
    """Opened again when any file changes: what was cut since is not played."""
    return Dataset(folder, state)


class EnvAssets:
    """What all sessions of an environment share and no session changes: data, space, listener.

    Attributes:
        config: The environment's keyword values, listener and candidates chosen.
        dataset: Logged sessions and catalog.
        listener: The user simulator.
        leaving: Model of when listeners leave; None where none does.
        dim: Dimensions of the embedding space.
        capacity: Most songs that a session can have heard.
        pool: Sessions of the split that can be episodes, ``(s,)``.
    """

    def __init__(self, config: SessionConfig) -> None:
        """Open everything that a configuration names.

        Raises:
            ValueError: The split holds no session, or the catalog is too small for the sessions.
        """
        self.dataset = open_dataset(config.data)
        config = config.completed(has_law=knows_truth(self.dataset))
        assert config.listener is not None
        self.config = config
        self.listener = make_listener(config.listener, self.dataset)
        self.leaving = make_leaving(config.leaving, self.dataset)
        self.dim = space_dim(self.dataset, config.embedding)
        log = self.dataset.sessions
        self.pool: npt.NDArray[np.int64] = log.playable(config.split)
        if not len(self.pool):
            raise ValueError(f"{self.dataset.folder} has no session in split {config.split!r}.")
        self.capacity = self.dataset.longest_session + (config.horizon or 0)
        heard = 0 if config.repeats else self.capacity
        needed = heard + config.slate_size
        if config.candidates == "catalog" and self.num_tracks < needed:
            raise ValueError(
                f"The catalog has {self.num_tracks} tracks; sessions of up to {self.capacity} "
                f"songs with slates of {config.slate_size} and repeats={config.repeats} need "
                f"{needed}. Pass repeats=True, a smaller horizon or slate, or more tracks."
            )

    def __reduce__(self) -> tuple[Callable[[SessionConfig], EnvAssets], tuple[SessionConfig]]:
        """Pickle by name, so that a worker process maps the same files."""
        return EnvAssets, (self.config,)

    @property
    def num_tracks(self) -> int:
        """Size of the catalog."""
        return len(self.dataset.catalog)

    def has_slate(self, known: int) -> bool:
        """Whether a slate is left in the catalog of which sessions heard or bar ``known`` tracks.

        True also where sessions may hear tracks again, or are offered tracks of their own.
        """
        config = self.config
        enough = self.num_tracks - known >= config.slate_size
        return enough or config.repeats or config.candidates == "session"

    @property
    def space(self) -> npt.NDArray[np.float32]:
        """Embedding that actions are scored in, ``(num_tracks, dim)``; read where it is needed."""
        return self.search.space

    @cached_property
    def search(self) -> Search:
        """The search for the songs nearest to a proto-action."""
        return Search(self.dataset, self.config.embedding, self.config.retrieval)

    def vectors(self, tracks: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Rows of the space, ``(..., dim)``; anything where a track is -1."""
        return self.space.take(tracks, axis=0, mode="clip")

    @cached_property
    def base_vectors(self) -> npt.NDArray[np.float32]:
        """Unit-norm embedding without the rate, ``(num_tracks, d)``; for diversity."""
        name = self.config.embedding.partition("+")[0]
        return self.dataset.embedding(name)

    @cached_property
    def surprise(self) -> npt.NDArray[np.float64]:
        """-log2 of each track's share of training plays, scaled to [0, 1]; one play is added."""
        plays = self.dataset.catalog.plays() + 1
        bits = -np.log2(plays / plays.sum())
        return bits / bits.max()

    def observation_space(self) -> spaces.Dict | spaces.Box:
        """Space of one session's observation."""
        return observations.observation_space(self)

    def action_space(self) -> spaces.Box | spaces.MultiDiscrete:
        """Space of one session's action."""
        k = self.config.slate_size
        if self.config.action == "slate":
            return spaces.MultiDiscrete(np.full(k, self.num_tracks))
        proto_actions = k if self.config.action == "proto_list" else 1
        return spaces.Box(-1, 1, (proto_actions * self.dim,), np.float32)
