"""Implicit Q-learning: clone logged songs the harder, the better they turned out.

Kostrikov, Nair & Levine, arXiv:2110.06169, equations 5 to 7. The critic is never evaluated at a
song that the session does not hold. With a the embedding of a song that was played in state s, r
its reward, and k the direction of a song that was kept::

    L(V)  = mean  |tau - [u < 0]| * u ** 2,   u = min_i Q'_i(s, a) - V(s)
    L(Q)  = mean  (r + gamma * (1 - terminated) * V(s') - Q(s, a)) ** 2
    L(mu) = mean over songs kept  exp(beta * u) * (1 - mu(s) . k)

V is the tau-expectile of the values of logged songs, and songs better than it are cloned harder.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from musicbox_agents.base import require_ranges
from musicbox_agents.ddpg.networks import descend, follow
from musicbox_agents.ddpg.space import Batch
from musicbox_agents.ddpg.state import State, num_statistics
from musicbox_agents.offline.critics import CriticAgent, CriticSettings
from musicbox_env.data.summaries import GROUPS

MAX_WEIGHT: Final = 100.0
"""Bound on the weights of cloning, as in the authors' code."""


@dataclass(frozen=True)
class IQLSettings(CriticSettings):
    """Settings of `IQLAgent`.

    Attributes:
        expectile: tau of the paper, between 0 and 1; 0.5 is the mean, near 1 the best.
        beta: How much harder better songs are cloned; 0 is cloning alone.
    """

    expectile: float = 0.7
    beta: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, {"expectile": (1e-6, 1 - 1e-6), "beta": (0, np.inf)})


class IQLAgent(CriticAgent):
    """Implicit Q-learning: clones logged songs the harder, the better they turned out."""

    name = "iql"
    Settings = IQLSettings
    networks = (*CriticAgent.networks, "value")
    settings: IQLSettings

    def set_up(self) -> None:
        """See `BCAgent`."""
        super().set_up()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            rate, hidden = self.space.has_rate, self.settings.hidden
            self.value = Value(self.space.dim, hidden=hidden, rate=rate)
        self.value_optimizer = Adam(self.value.parameters(), self.settings.critic_rate, fused=True)

    def update(self, batch: Batch) -> dict[str, float]:
        """V, actor, Q and the targets of Q, in the order of the authors' code."""
        advantage = self.advantage(batch)
        loss = expectile_loss(advantage[batch.heard], self.settings.expectile)
        value_loss = descend(self.value_optimizer, loss)
        advantage = advantage.detach()
        actor_loss = descend(self.actor_optimizer, self.actor_loss(batch, advantage))
        critic_loss = descend(self.critic_optimizer, self.critic_loss(batch))
        follow(self.target_critics, self.critics, self.settings.tau)
        return {
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "value_loss": value_loss,
            "advantage_spread": float(advantage[batch.heard].std()),
        }

    def advantage(self, batch: Batch) -> Tensor:
        """``min_i Q'_i(s, a) - V(s)`` of logged songs ``(B, K)``; a gradient for V alone."""
        return self.least_target(batch.state, batch.songs) - self.value(batch.state)

    def actor_loss(self, batch: Batch, advantage: Tensor) -> Tensor:
        """Cloning, weighted by ``exp(beta * advantage)``."""
        weight = torch.exp(self.settings.beta * advantage).clamp(max=MAX_WEIGHT)
        return self.cloning_loss(batch, weight)

    def critic_loss(self, batch: Batch) -> Tensor:
        """Mean squared error to ``r + gamma * V(s')``, summed over the critics."""
        target = batch.rewards
        if self.gamma:
            with torch.no_grad():
                later = self.gamma * ~batch.terminated[:, None]
                target = target + later * self.value(batch.next_state)
        values = [critic(batch.state, batch.songs) for critic in self.critics]
        errors = torch.stack([(q - target).square() for q in values]).sum(dim=0)
        return errors[batch.heard].mean()


class Value(nn.Module):
    """V(s): what a session is worth, whatever is played."""

    def __init__(self, dim: int, *, hidden: int, rate: bool) -> None:
        """Make it with random weights; arguments as of `networks.Critic`."""
        super().__init__()
        first = nn.Linear(num_statistics(rate=rate) + len(GROUPS) * dim, hidden)
        self.head = nn.Sequential(first, nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, state: State) -> Tensor:
        """V ``(B, 1)``."""
        return self.head(torch.cat([state.statistics, state.means.flatten(1)], dim=1))


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """``mean |tau - [u < 0]| * u ** 2``: its minimum over a constant is the tau-expectile.

    Source: arXiv:2110.06169, section 4.1.
    """
    weight = torch.where(difference < 0, 1 - expectile, expectile)
    return (weight * difference**2).mean()
