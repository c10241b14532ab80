"""Behaviour cloning: recommend what logged listeners kept.

For whoever has logs and no faith in any simulator: no listener model answers anything here. An
agent reads the slates that were played in the second halves of the training sessions, with the
levels that were logged, and learns from these; its checkpoint is then chosen by real labels as well
(`musicbox_experiments.train.jobs` re-ranks the plays of validation sessions). Networks, state, log
and search are those of `ddpg`.

With s a session's state, k the direction of a song that was kept in it (its embedding, scaled to
norm 1) and mu(s) the actor's proto-action::

    L(mu) = mean over songs kept  1 - mu(s) . k

which is maximum likelihood of a von Mises-Fisher distribution around mu(s), up to scale.

Songs that were skipped are not cloned, here nor by the agents that build on this one, though the
papers clone whatever was done: the log's own choices are known not to be worth repeating
(``clone`` changes it).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Adam

from musicbox_agents.base import (
    WIDEST,
    Agent,
    AgentSettings,
    Observation,
    Options,
    require_ranges,
)
from musicbox_agents.ddpg.networks import Actor, arrays_of, descend, set_arrays, unit
from musicbox_agents.ddpg.replay import ReplayBuffer
from musicbox_agents.ddpg.settings import STARTS, DDPGSettings
from musicbox_agents.ddpg.space import Batch, SongSpace
from musicbox_agents.log import read_log
from musicbox_agents.progress import Progress
from musicbox_agents.sessions import one_thread
from musicbox_env.schema import require_known
from musicbox_env.simulator.config import MOST_SONGS

CLONES: Final = ("kept", "played")


@dataclass(frozen=True)
class BCSettings(AgentSettings):
    """Settings of `BCAgent`, and of every agent that builds on it.

    Attributes:
        embedding: Space of songs and proto-actions; None is the dataset's best, with the rate.
        history_length: Songs of the state.
        hidden: Width of the networks.
        start: ``"random"``, or ``"heuristic"`` (mean of the songs played plus the rate axis).
        clone: ``"kept"``, or ``"played"`` for everything that was played: cloning in the strict
            sense, which learns nothing of what listeners thought of it.
        actor_rate: Learning rate of the actor (Adam).
        batch_size: Logged slates of an update.
        log_sessions: Most sessions to read; about 1,600 bytes each.
    """

    embedding: str | None = None
    history_length: int = 20
    hidden: int = 32
    start: str = "random"
    clone: str = "kept"
    actor_rate: float = 1e-3
    batch_size: int = 128
    log_sessions: int = 100_000

    def __post_init__(self) -> None:
        require_known("start", self.start, STARTS)
        require_known("clone", self.clone, CLONES)
        sizes = dict.fromkeys(("batch_size", "log_sessions"), (1, np.inf))
        networks = {"history_length": (1, MOST_SONGS), "hidden": (1, WIDEST)}
        require_ranges(self, {**sizes, **networks, "actor_rate": (1e-12, 1)})


class BCAgent(Agent):
    """Behaviour cloning: points towards the songs that logged listeners kept.

    Attributes:
        space: Songs as vectors.
        actor: mu.
        log: Transitions of the logged sessions, None before learning.
        networks: Names of the attributes that are networks to keep.
        updates: Updates so far.
    """

    name: ClassVar[str] = "bc"
    Settings: ClassVar[type[AgentSettings]] = BCSettings
    learns: ClassVar[bool] = True
    offline: ClassVar[bool] = True
    networks: ClassVar[tuple[str, ...]] = ("actor",)
    settings: BCSettings

    def set_up(self) -> None:
        """Make networks and optimiser."""
        self.space = SongSpace(self.dataset, self.settings.embedding)
        self.rng = np.random.default_rng(self.seed)
        self.log: ReplayBuffer | None = None
        self.updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.make_networks()
        self.actor_optimizer = Adam(self.actor.parameters(), self.settings.actor_rate, fused=True)

    def make_networks(self) -> None:
        """Make `networks`, with random weights."""
        hidden, rate = self.settings.hidden, self.space.has_rate
        self.actor = Actor(self.space.dim, hidden=hidden, rate=rate)
        if self.settings.start == "heuristic":
            self.actor.start_at_heuristic()

    @property
    def env_options(self) -> dict[str, Any]:
        """Proto-actions, and ids as observations."""
        return {
            "observation": "ids",
            "action": "proto",
            "embedding": self.space.embedding,
            "history_length": self.settings.history_length,
        }

    def act(self, batch: Observation, *, deterministic: bool) -> npt.NDArray:
        """Actions ``(n, ...)``; these agents never explore."""
        with torch.no_grad():
            return self.choose(batch, self.actor(self.space.state(batch)).numpy())

    def choose(self, batch: Observation, proto_actions: npt.NDArray) -> npt.NDArray:
        """Actions ``(n, ...)`` from mu(s) ``(n, d)``; out of the catalog quality counts less."""
        return proto_actions * self.space.weights(batch, DDPGSettings.quality_weight)

    def train(
        self, options: Options, total_steps: int, progress: Progress, checkpoint: Path | None
    ) -> None:
        """Learn from the logged sessions of the training split; no slate is recommended.

        Of ``options`` the data, the split and the reward count; the listener is never used. A step
        is an update from a batch of logged slates. (At its defaults `ddpg` makes one update for
        four slates, after 1,000 on the log.)
        """
        config, axes = self.settings, self.space.counted_axes()
        with one_thread():
            self.log = read_log(
                self.dataset, options, self.rng, sessions=config.log_sessions, axes=axes
            )
            for step in range(1, total_steps + 1):
                rows = self.log.sample(self.rng, config.batch_size)
                self.updates += 1
                losses = self.update(self.space.batch(rows, future=self.gamma > 0))
                for name, value in losses.items():
                    progress.gather(name, value)
                progress.call(step, last=step == total_steps)

    @property
    def gamma(self) -> float:
        """Discount from slate to slate; cloning looks at no later slate."""
        return 0.0

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of everything that the agent learns, from a batch of logged slates."""
        return {"actor_loss": descend(self.actor_optimizer, self.cloning_loss(batch))}

    def cloning_loss(self, batch: Batch, weight: Tensor | None = None) -> Tensor:
        """Mean of ``1 - mu(s) . k`` over the songs to clone, times their weights ``(B, K)``."""
        cloned = batch.kept if self.settings.clone == "kept" else batch.heard
        wanted = cloned.to(batch.songs.dtype)
        distance = 1 - (self.actor(batch.state)[:, None] * unit(batch.songs)).sum(dim=2)
        weighted = wanted if weight is None else wanted * weight
        return (weighted * distance).sum() / wanted.sum().clamp(min=1)

    def arrays(self) -> dict[str, npt.NDArray]:
        """Weights of all networks."""
        return arrays_of(self, self.networks)

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """See `Agent.restore`."""
        set_arrays(self, self.networks, arrays)
