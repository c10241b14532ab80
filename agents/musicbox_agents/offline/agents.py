"""Agents that learn from logs alone: behaviour cloning, TD3+BC and implicit Q-learning.

For whoever has logs and no faith in any simulator: nothing here ever asks a listener model. Each
agent reads the slates that were played in the second halves of the training sessions, with the
levels that were logged, and learns from these; `musicbox_experiments.train.jobs` then chooses the
checkpoint
by real labels as well (re-ranking the plays of validation sessions).

Shared with `ddpg`, and the same copy: the networks, the state, the proto-action of norm 1, the
critic on the embeddings of the songs that were played, the reading of the log. Below, s is a
session's state, a the embedding of a song that was played in it, r that song's reward, mu(s) the
actor's point, and k the direction of a song that was kept: its embedding, scaled to norm 1.

``bc``, behaviour cloning, turns the actor towards what listeners kept::

    L(mu) = mean over songs kept  1 - mu(s) . k

which is maximum likelihood of a von Mises-Fisher distribution around mu(s), up to scale.

``td3-bc`` (Fujimoto & Gu, arXiv:2106.06860, equation 3; TD3: arXiv:1802.09477) adds a critic::

    L(Q)  = mean  (r + gamma * min_i Q'_i(s', mu'(s') + noise) - Q(s, a))**2
    L(mu) = mean  -alpha * Q(s, mu(s)) / mean |Q|  +  (1 - mu(s) . k)

Their second term is ``(mu(s) - a)**2``, which on the unit sphere is twice ``1 - mu(s) . a``.

``iql`` (Kostrikov, Nair & Levine, arXiv:2110.06169, equations 5 to 7) never asks the critic about
a song that the session does not hold::

    L(V)  = mean  |tau - [u < 0]| * u**2,   u = min_i Q'_i(s, a) - V(s)
    L(Q)  = mean  (r + gamma * V(s') - Q(s, a))**2
    L(mu) = mean over songs kept  exp(beta * u) * (1 - mu(s) . k)

V is the tau-expectile of the values of logged songs, and songs better than it are cloned harder.

Songs that were skipped are cloned by none of them, though the papers clone whatever was done: the
log's own choices are known not to be worth repeating, and their answers are at hand (``clone``
changes it). As in `ddpg` [7] gamma is 0 by default, and then Q is the expected reward of a song.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from musicbox_agents.base import Agent, AgentSettings, Callback, Observation
from musicbox_agents.ddpg.agent import Batch, DDPGAgent, DDPGSettings
from musicbox_agents.ddpg.descent import Adam
from musicbox_agents.ddpg.networks import State, hidden_layer, make_encoder, unit
from musicbox_agents.ddpg.replay import Transitions
from musicbox_agents.threads import one_thread
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import GROUPS
from musicbox_env.schema import is_skip, require_known
from musicbox_env.simulator.context import CONTEXT_SIZE

CLONES = ("kept", "played")
STARTS = ("random", "heuristic")
VALUE_WEIGHTS = "value.npz"
MAX_WEIGHT = 100.0
"""Bound on IQL's weights, as in its authors' code."""


@dataclass(frozen=True)
class BCSettings(AgentSettings):
    """Options of `BCAgent`, and of every agent here; those not explained are `DDPGSettings`' own.

    Attributes:
        embedding: Space of actions and observations; None is the dataset's best, with the rate.
        history_length: Songs of the state.
        encoder: How sessions are read, ``"pooled"`` or ``"recurrent"``.
        hidden: Width of the networks.
        layer_norm: Whether hidden layers are normalised.
        start: ``"random"``, or ``"heuristic"`` (mean of the songs played plus the rate axis).
        clone: ``"kept"``, or ``"played"`` for everything that was played: cloning in the strict
            sense, which learns nothing of what listeners thought of it.
        actor_rate: Learning rate of the actor (Adam).
        batch_size: Logged slates of an update.
        log_sessions: Most sessions to read; about 1,600 bytes each.
    """

    embedding: str | None = None
    history_length: int = 20
    encoder: str = "pooled"
    hidden: int = 32
    layer_norm: bool = False
    start: str = "random"
    clone: str = "kept"
    actor_rate: float = 1e-3
    batch_size: int = 128
    log_sessions: int = 100_000

    own: ClassVar[tuple[str, ...]] = ("clone",)
    """Settings that `DDPGSettings` does not know."""

    def __post_init__(self) -> None:
        require_known("start", self.start, STARTS)
        require_known("clone", self.clone, CLONES)
        self.as_ddpg()

    def as_ddpg(self) -> DDPGSettings:
        """Settings of the DDPG agent whose networks and log these agents use; it checks ranges."""
        shared = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.own}
        plain = {
            "rerank": 0,
            "critic_decay": 0.0,
            "quality": "counted",
            "mean_critic": False,
        }
        return DDPGSettings(**{**plain, **shared}, critic_sees="songs")


@dataclass(frozen=True)
class CriticSettings(BCSettings):
    """Options of the agents that learn a critic too.

    Attributes:
        gamma: Discount from slate to slate.
        tau: Share of the way that targets move at each update.
        critic_rate: Learning rate of the critic, and of IQL's V (Adam).
        critics: 1, or 2 whose smaller value counts.
        deep: Whether the critic has hidden layers over session and song together.
        rerank: Nearest songs among which the critic chooses; 0 is not to. The critic then evaluates
            songs that the log never played in such a session.
    """

    gamma: float = 0.0
    tau: float = 0.005
    critic_rate: float = 1e-3
    critics: int = 2
    deep: bool = False
    rerank: int = 0


@dataclass(frozen=True)
class TD3BCSettings(CriticSettings):
    """Options of `TD3BCAgent`.

    Attributes:
        alpha: Weight of the critic against cloning; 0 is cloning alone.
        actor_delay: Critic updates for each update of actor and targets.
        target_noise: Noise on the target action, as a share of its norm; needs ``gamma`` above 0.
        neighbours: Nearest songs at which the actor climbs; 0 is at the point itself.
        temperature: Of the softmax over them.
    """

    alpha: float = 2.5
    actor_delay: int = 2
    target_noise: float = 0.2
    neighbours: int = 0
    temperature: float = 0.05

    own: ClassVar[tuple[str, ...]] = ("clone", "alpha")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise ValueError(f"alpha is {self.alpha}; it must not be negative.")


@dataclass(frozen=True)
class IQLSettings(CriticSettings):
    """Options of `IQLAgent`.

    Attributes:
        expectile: tau of the paper, between 0 and 1; 0.5 is the mean, near 1 the best.
        beta: How much harder better slates are cloned; 0 is cloning alone.
    """

    expectile: float = 0.7
    beta: float = 3.0

    own: ClassVar[tuple[str, ...]] = ("clone", "expectile", "beta")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1 or self.beta < 0:
            raise ValueError(
                f"expectile is {self.expectile} and beta {self.beta}; expectile must lie between "
                "0 and 1, and beta must not be negative."
            )


class BCAgent(Agent):
    """Behaviour cloning: points towards the songs that logged listeners kept."""

    name: ClassVar[str] = "bc"
    Settings: ClassVar[type[AgentSettings]] = BCSettings
    learns: ClassVar[bool] = True
    offline: ClassVar[bool] = True
    settings: BCSettings

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """See `Agent`; networks, state, log and acting are those of a DDPG agent."""
        super().__init__(dataset, seed=seed, settings=settings)
        self.ddpg = DDPGAgent(dataset, seed=seed, settings=self.settings.as_ddpg())
        self._updates = 0

    @property
    def env_options(self) -> dict[str, Any]:
        """As of `DDPGAgent`."""
        return self.ddpg.env_options

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray, Any]:
        """Choose actions; see `Agent.predict`. These agents never explore."""
        return self.ddpg.predict(observation, state, episode_start, deterministic=True)

    def learn(
        self,
        env_options: Mapping[str, Any],
        total_steps: int,
        *,
        callback: Callback | None = None,
        callback_every: int = 1_000,
        checkpoint: Path | None = None,
    ) -> Self:
        """Learn from the logged sessions of the training split.

        Of ``env_options`` the data, the split and the reward count; the listener is never asked.

        Args:
            env_options: Keywords of `gymnasium.make`.
            total_steps: Updates, a batch of logged slates each; no slate is recommended. (At its
                defaults `ddpg` makes one update for four slates, after 1,000 on the log.)
            callback: Called every ``callback_every`` updates and at the end.
            callback_every: In updates.
            checkpoint: Passed over.
        """
        with one_thread():
            self.ddpg.log = self.ddpg._read_log(env_options, self.ddpg._read_quality(env_options))
            gathered: dict[str, list[float]] = defaultdict(list)
            for step in range(1, total_steps + 1):
                for name, value in self.update(self.ddpg._draw_log()).items():
                    gathered[name].append(value)
                if callback is not None and (step % callback_every == 0 or step == total_steps):
                    callback(step, {name: float(np.mean(of)) for name, of in gathered.items()})
                    gathered.clear()
        return self

    def update(self, rows: Transitions) -> dict[str, float]:
        """One update of everything that the agent learns, from a batch of logged slates."""
        self._updates += 1
        return self._update_actor(self.cloning_loss(rows, self.ddpg._tensors(rows)))

    def _update_actor(self, loss: Tensor) -> dict[str, float]:
        self.ddpg._actor_adam.descend(loss)
        return {"actor_loss": float(loss.detach())}

    def cloning_loss(self, rows: Transitions, batch: Batch, weight: Tensor | None = None) -> Tensor:
        """Mean of ``1 - mu(s) . k`` over the songs to clone, times their weights ``(B, M)``."""
        wanted = torch.from_numpy(self.cloned(rows)).to(batch.actions.dtype)
        points = self.ddpg.actor(batch.state)
        distance = 1 - (points * unit(batch.actions)).sum(dim=2)
        weighted = wanted if weight is None else wanted * weight
        return (weighted * distance).sum() / wanted.sum().clamp(min=1)

    def cloned(self, rows: Transitions) -> npt.NDArray[np.bool_]:
        """Which songs of logged slates are to be recommended again ``(B, M)``."""
        heard = rows.slate >= 0
        return heard & ~is_skip(rows.slate_levels) if self.settings.clone == "kept" else heard

    def _save_weights(self, folder: Path) -> None:
        self.ddpg._save_weights(folder)

    def _load_weights(self, folder: Path) -> None:
        self.ddpg._load_weights(folder)


class TD3BCAgent(BCAgent):
    """TD3+BC: climbs a critic fitted to the log, held near the songs that were kept."""

    name = "td3-bc"
    Settings = TD3BCSettings
    settings: TD3BCSettings

    def update(self, rows: Transitions) -> dict[str, float]:
        """Critic; and every ``actor_delay`` times, actor and targets."""
        self._updates += 1
        ddpg, batch = self.ddpg, self.ddpg._tensors(rows)
        losses = ddpg._update_critic(batch)
        if self._updates % self.settings.actor_delay == 0:
            losses |= self._update_actor(self.actor_loss(rows, batch))
            ddpg._move_targets()
        return losses

    def actor_loss(self, rows: Transitions, batch: Batch) -> Tensor:
        """``-alpha * Q / mean |Q|``, the loss of DDPG, and the pull towards kept songs."""
        loss = self.cloning_loss(rows, batch)
        if self.settings.alpha:
            loss = loss + self.settings.alpha * self.ddpg.actor_loss(batch)
        return loss


class IQLAgent(BCAgent):
    """Implicit Q-learning: clones logged slates the harder, the better they turned out."""

    name = "iql"
    Settings = IQLSettings
    settings: IQLSettings

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """See `BCAgent`."""
        super().__init__(dataset, seed=seed, settings=settings)
        config = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.value = Value(self.ddpg.dim, config, rate=self.ddpg.has_rate)
        self._value_adam = Adam(self.value, config.critic_rate)

    def update(self, rows: Transitions) -> dict[str, float]:
        """V, actor, Q and the targets of Q, in the order of the authors' code."""
        self._updates += 1
        ddpg, batch = self.ddpg, self.ddpg._tensors(rows)
        advantage = self.advantage(batch)
        value_loss = expectile_loss(advantage[batch.counted], self.settings.expectile)
        self._value_adam.descend(value_loss)
        advantage = advantage.detach()
        losses = self._update_actor(self.actor_loss(rows, batch, advantage))
        critic_loss = self.critic_loss(batch)
        ddpg._critic_adam.descend(critic_loss)
        ddpg._critics_follower.move(self.settings.tau)
        return losses | {
            "critic_loss": float(critic_loss.detach()),
            "value_loss": float(value_loss.detach()),
            "advantage_spread": float(advantage[batch.counted].std()),
        }

    def advantage(self, batch: Batch) -> Tensor:
        """``min_i Q'_i(s, a) - V(s)`` of logged songs ``(B, M)``; a gradient for V alone."""
        with torch.no_grad():
            q = torch.stack([q(batch.state, batch.actions) for q in self.ddpg.target_critics])
        return q.amin(dim=0) - self.value(batch.state)

    def actor_loss(self, rows: Transitions, batch: Batch, advantage: Tensor) -> Tensor:
        """Cloning, weighted by ``exp(beta * advantage)``."""
        weight = torch.exp(self.settings.beta * advantage).clamp(max=MAX_WEIGHT)
        return self.cloning_loss(rows, batch, weight)

    def critic_loss(self, batch: Batch) -> Tensor:
        """Mean squared error to ``r + gamma * V(s')``, summed over the critics."""
        target = batch.rewards
        if self.settings.gamma:
            with torch.no_grad():
                target = target + batch.discount[:, None] * self.value(batch.next_state)
        values = [critic(batch.state, batch.actions) for critic in self.ddpg.critics]
        errors = torch.stack([(q - target).square() for q in values]).sum(dim=0)
        return errors[batch.counted].mean()

    def _save_weights(self, folder: Path) -> None:
        super()._save_weights(folder)
        arrays = {name: value.numpy() for name, value in self.value.state_dict().items()}
        with (folder / VALUE_WEIGHTS).open("wb") as file:
            np.savez(file, **arrays)

    def _load_weights(self, folder: Path) -> None:
        super()._load_weights(folder)
        with np.load(folder / VALUE_WEIGHTS, allow_pickle=False) as arrays:
            self.value.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})


class Value(nn.Module):
    """V(s): what a session is worth, whatever is played."""

    def __init__(self, dim: int, config: BCSettings, *, rate: bool) -> None:
        """Make it with random weights; arguments as of `networks.Critic`."""
        super().__init__()
        hidden = config.hidden
        self.encoder = make_encoder(config.encoder, dim, CONTEXT_SIZE, hidden=hidden, rate=rate)
        inputs = self.encoder.size + len(GROUPS) * dim
        self.head = nn.Sequential(
            hidden_layer(inputs, hidden, config.layer_norm), nn.Linear(hidden, 1)
        )

    def forward(self, state: State) -> Tensor:
        """V ``(B, 1)``."""
        inputs = torch.cat([self.encoder(state), state.means.flatten(1)], dim=1)
        return self.head(inputs)


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """``mean |tau - [u < 0]| * u**2``: its minimum over a constant is the tau-expectile.

    Source: arXiv:2110.06169, section 4.1.
    """
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference**2).mean()
