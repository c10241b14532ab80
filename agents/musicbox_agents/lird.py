"""LIRD: DDPG that recommends lists, as the papers print it; `musicbox_agents.ddpg` is our own.

LIRD: Zhao et al., arXiv:1801.00209, algorithms 2 and 3. DDPG: Lillicrap et al., arXiv:1509.02971.
The state s is the last N songs that were kept, in the order heard. The actor gives a proto-action
for each of K places; each takes its best song that neither the list nor the session had before
(algorithm 2; the environment's action ``proto_list``). Later places count less (algorithm 3)::

    w_1, ..., w_K = mu(s)                        song of place k = argmax over i of w_k . e_i
    r = sum over k of gamma_position ** k * [song k was kept]

The critic learns the value of actions, with slow copies Q' and mu' in the target, and the actor
climbs it, one update of each a list (DDPG, equations 4 to 6)::

    y = r + gamma * (1 - terminated) * Q'(s', mu'(s'))          L = mean (y - Q(s, a)) ** 2
    grad J = mean  grad_a Q(s, a) at a = mu(s)  *  grad mu(s)
    theta' <- tau * theta + (1 - tau) * theta'

Where the papers differ or leave a choice:
1. The critic's action is the K proto-actions, noise included, as in DDPG. LIRD stores the list and
   takes the gradient at the proto-actions, where a critic of lists has learned nothing.
2. Batches are drawn uniformly, as in DDPG; LIRD's text mentions priorities, its algorithm not.
3. Actions are in [-1, 1] by tanh and last layers start near 0, as in DDPG; no batch normalization.
4. The first state holds the songs kept in the half of the session that is shown at reset. Songs
   are found by their embedding alone: the space has no axis for how often they are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from musicbox_agents.base import (
    WIDEST,
    Agent,
    AgentSettings,
    Observation,
    Options,
    require_ranges,
)
from musicbox_agents.progress import Progress
from musicbox_agents.sessions import one_thread, open_env
from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval.spaces import embedding_space
from musicbox_env.schema import is_skip

State = tuple[Tensor, Tensor]  # kept songs, the oldest first (B, N, d), and how many (B,)
_RANGES = {"int": (1.0, np.inf), "float": (0.0, 1.0)}


@dataclass(frozen=True)
class LIRDSettings(AgentSettings):
    """Settings of the agent; every integer is 1 or more, every other number from 0 to 1."""

    embedding: str | None = None  # space of songs and actions; None: the best, without the rate
    slate_size: int = 3  # K, songs of a list
    history_length: int = 10  # N, kept songs of a state
    hidden: int = 64  # width of the networks
    gamma: float = 0.99  # discount from list to list
    tau: float = 1e-3  # share of the networks in their targets at each update
    actor_rate: float = 1e-4  # learning rate of the actor (Adam)
    critic_rate: float = 1e-3  # learning rate of the critic (Adam)
    batch_size: int = 64  # transitions of an update
    buffer_size: int = 100_000  # transitions remembered; the oldest are dropped
    noise_theta: float = 0.5  # pull of the exploration noise towards 0
    noise_sigma: float = 0.2  # standard deviation of its increments; 0 is no noise

    def __post_init__(self) -> None:
        ranges = {f.name: _RANGES[str(f.type)] for f in fields(self)[1:]}
        require_ranges(self, {**ranges, "hidden": (1, WIDEST)})


class Batch(NamedTuple):
    """Transitions (s, s', a, r) ``(B, ...)``, and whether the session was terminated ``(B,)``."""

    state: State
    next_state: State
    action: Tensor
    reward: Tensor
    terminated: Tensor


class Network(nn.Module):
    """A GRU over the songs of a state, and a hidden layer over what it read and the action."""

    def __init__(self, dim: int, hidden: int, action_dim: int, outputs: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        self.layer = nn.Linear(hidden + action_dim, hidden)
        self.head = nn.Linear(hidden, outputs)
        for weights in self.head.parameters():
            nn.init.uniform_(weights, -3e-3, 3e-3)  # DDPG, section 7

    def forward(self, songs: Tensor, number: Tensor, *action: Tensor) -> Tensor:
        """Outputs ``(B, outputs)``; what lies behind the last song is never read."""
        after_each, _ = self.gru(songs)
        after_last = after_each[torch.arange(len(songs)), (number - 1).clamp(min=0)]
        read = after_last * (number > 0)[:, None]  # 0 where no song was kept
        return self.head(torch.relu(self.layer(torch.cat([read, *action], dim=1))))


def mu(networks: nn.ModuleDict, state: State) -> Tensor:
    """The actor's proto-actions, one behind the other ``(B, K * d)``."""
    return torch.tanh(networks["actor"](*state))


def q(networks: nn.ModuleDict, state: State, action: Tensor) -> Tensor:
    """The critic's value of proto-actions in a state ``(B,)``."""
    return networks["critic"](*state, action)[:, 0]


class LIRDAgent(Agent):
    """Recommends, for each place of the list, the song nearest to the actor's proto-action."""

    name: ClassVar[str] = "lird"
    Settings: ClassVar[type[AgentSettings]] = LIRDSettings
    learns: ClassVar[bool] = True
    settings: LIRDSettings

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """Make an untrained agent."""
        super().__init__(dataset, seed=seed, settings=settings)
        config = self.settings
        self.embedding = config.embedding or dataset.embedding_names[0]
        self.space = embedding_space(dataset, self.embedding)
        self.rng = np.random.default_rng(seed)
        self.memory: deque[tuple[npt.NDArray, ...]] = deque(maxlen=config.buffer_size)
        dim, self.action_dim = self.space.shape[1], config.slate_size * self.space.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor = Network(dim, config.hidden, 0, self.action_dim)
            critic = Network(dim, config.hidden, self.action_dim, 1)
        self.networks = nn.ModuleDict({"actor": actor, "critic": critic})
        self.targets = deepcopy(self.networks).requires_grad_(False)
        self.weights = nn.ModuleDict({"networks": self.networks, "targets": self.targets})
        self.actor_adam = torch.optim.Adam(actor.parameters(), config.actor_rate)
        self.critic_adam = torch.optim.Adam(critic.parameters(), config.critic_rate)

    @property
    def env_options(self) -> dict[str, Any]:
        """A proto-action for each place; the kept songs are those of the newest 2 N plays."""
        config = self.settings
        sizes = {"slate_size": config.slate_size, "history_length": 2 * config.history_length}
        return {"action": "proto_list", "observation": "ids", "embedding": self.embedding, **sizes}

    @torch.no_grad()
    def act(self, batch: Observation, *, deterministic: bool) -> npt.NDArray[np.float32]:
        """mu(s) ``(n, K * d)``. Noise belongs to learning alone."""
        return mu(self.networks, self.read(self.kept(batch))).numpy()

    def noise(self) -> Iterator[npt.NDArray[np.float32]]:
        """Ornstein-Uhlenbeck: ``x <- x - theta * x + sigma * N(0, 1)`` from 0 on ``(K * d,)``."""
        x: npt.NDArray[np.float32] = np.zeros(self.action_dim, np.float32)
        while True:
            gauss = self.rng.standard_normal(len(x), dtype=np.float32)
            x = x - self.settings.noise_theta * x + self.settings.noise_sigma * gauss
            yield x

    def kept(self, observation: Observation) -> npt.NDArray[np.int32]:
        """Rows of the last songs kept ``(n, N)``, the oldest first, -1 behind the newest."""
        tracks, number = np.atleast_2d(observation["tracks"]), self.settings.history_length
        kept = (tracks >= 0) & ~is_skip(np.atleast_2d(observation["levels"]))
        kept &= kept[:, ::-1].cumsum(axis=1)[:, ::-1] <= number
        order = np.argsort(~kept, axis=1, kind="stable")[:, :number]  # stable: in the order heard
        return np.take_along_axis(np.where(kept, tracks, -1), order, axis=1)

    def read(self, songs: npt.NDArray[np.int32]) -> State:
        """The states of `kept` as the networks take them."""
        vectors = self.space.take(songs, axis=0, mode="clip")
        return torch.from_numpy(vectors), torch.from_numpy((songs >= 0).sum(axis=1))

    def sample(self) -> Batch:
        """A batch of what is remembered."""
        rows = self.rng.integers(len(self.memory), size=self.settings.batch_size)
        columns = zip(*(self.memory[row] for row in rows), strict=True)
        s, next_s, *rest = map(np.concatenate, columns)
        return Batch(self.read(s), self.read(next_s), *map(torch.from_numpy, rest))

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """``y = r + gamma * (1 - terminated) * Q'(s', mu'(s'))`` ``(B,)``."""
        value = q(self.targets, batch.next_state, mu(self.targets, batch.next_state))
        return batch.reward.float() + self.settings.gamma * ~batch.terminated * value

    def critic_loss(self, batch: Batch) -> Tensor:
        """``L = mean (y - Q(s, a)) ** 2``."""
        return (self.target(batch) - q(self.networks, batch.state, batch.action)).square().mean()

    def actor_loss(self, batch: Batch) -> Tensor:
        """``-mean Q(s, mu(s))``: to descend it is to climb Q."""
        return -q(self.networks, batch.state, mu(self.networks, batch.state)).mean()

    def update(self, batch: Batch) -> dict[str, float]:
        """Move the critic, the actor and the targets; gives the losses of the first two."""
        losses, critic, actor = {}, self.critic_loss, self.actor_loss
        for adam, loss_of in ((self.critic_adam, critic), (self.actor_adam, actor)):
            adam.zero_grad()  # the actor's loss leaves a gradient in the critic
            loss = loss_of(batch)
            loss.backward()
            adam.step()
            losses[loss_of.__name__] = loss.item()
        for slow, fast in zip(self.targets.parameters(), self.networks.parameters(), strict=True):
            slow.lerp_(fast.detach(), self.settings.tau)
        return losses

    def train(
        self, options: Options, total_steps: int, progress: Progress, checkpoint: Path | None
    ) -> None:
        """Play one session after the other, with an update after each list."""
        noise = self.noise()
        with one_thread(), open_env(self.dataset, options, num_envs=1) as env:
            before, _ = env.reset(seed=int(self.rng.integers(2**31)))
            for step in range(1, total_steps + 1):
                action = np.clip(self.predict(before)[0] + next(noise), -1, 1)
                after, reward, ended, truncated, _ = env.step(action)
                self.memory.append((self.kept(before), self.kept(after), action, reward, ended))
                before = after
                if ended[0] or truncated[0]:
                    # NEXT_STEP autoreset: the step after an end plays nothing and is not stored.
                    before, noise = env.step(action)[0], self.noise()
                progress.gather("reward", reward)
                for name, value in self.update(self.sample()).items():
                    progress.gather(name, value)
                progress.call(step, last=step == total_steps)

    def arrays(self) -> dict[str, npt.NDArray]:
        """See `Agent.arrays`."""
        return {name: weights.numpy() for name, weights in self.weights.state_dict().items()}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """See `Agent.restore`."""
        self.weights.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()})
