"""TD3+BC: behaviour cloning that climbs a critic fitted to the log.

Fujimoto & Gu, arXiv:2106.06860, equation 3; TD3: arXiv:1802.09477. With a the embedding of a song
that was played in state s, r its reward, and k the direction of a song that was kept::

    L(Q)  = mean  (r + gamma * (1 - terminated) * min_i Q'_i(s', mu'(s') + noise) - Q(s, a)) ** 2
    L(mu) = mean  -alpha * Q(s, mu(s)) / mean |Q|  +  (1 - mu(s) . k)

Their second term is ``(mu(s) - a) ** 2``, which on the unit sphere is twice ``1 - mu(s) . a``.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from musicbox_agents.base import require_ranges
from musicbox_agents.ddpg.agent import DDPGAgent
from musicbox_agents.ddpg.networks import descend, follow
from musicbox_agents.ddpg.space import Batch, perturbed
from musicbox_agents.offline.critics import CriticAgent, CriticSettings


@dataclass(frozen=True)
class TD3BCSettings(CriticSettings):
    """Settings of `TD3BCAgent`.

    Attributes:
        alpha: Weight of the critic against cloning; 0 is cloning alone.
        actor_delay: Critic updates for each update of actor and targets.
        target_noise: Noise on the target action, as a share of its norm; needs ``gamma`` above 0.
    """

    alpha: float = 2.5
    actor_delay: int = 2
    target_noise: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges = {"alpha": (0, np.inf), "actor_delay": (1, np.inf), "target_noise": (0, np.inf)}
        require_ranges(self, ranges)


class TD3BCAgent(CriticAgent):
    """TD3+BC: climbs a critic fitted to the log, held near the songs that were kept."""

    name = "td3-bc"
    Settings = TD3BCSettings
    networks = (*CriticAgent.networks, "target_actor")
    settings: TD3BCSettings

    def make_networks(self) -> None:
        """See `BCAgent`."""
        super().make_networks()
        self.target_actor = deepcopy(self.actor).requires_grad_(False)

    def update(self, batch: Batch) -> dict[str, float]:
        """Critics; and every ``actor_delay`` times, actor and targets."""
        losses = {"critic_loss": descend(self.critic_optimizer, self.critic_loss(batch))}
        if self.updates % self.settings.actor_delay == 0:
            losses["actor_loss"] = descend(self.actor_optimizer, self.actor_loss(batch))
            follow(self.target_actor, self.actor, self.settings.tau)
            follow(self.target_critics, self.critics, self.settings.tau)
        return losses

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """``r + gamma * (1 - terminated) * min_i Q'_i(s', mu'(s') + noise)`` ``(B, K)``."""
        if self.gamma == 0:
            return batch.rewards
        proto_actions = self.target_actor(batch.next_state)
        if self.settings.target_noise:
            noisy = perturbed(proto_actions.numpy(), self.settings.target_noise, self.rng)
            proto_actions = torch.from_numpy(noisy)
        value = self.least_target(batch.next_state, proto_actions[:, None])
        return batch.rewards + self.gamma * ~batch.terminated[:, None] * value

    def critic_loss(self, batch: Batch) -> Tensor:
        """`DDPGAgent.critic_loss`, summed over the critics."""
        target = self.target(batch)
        first, second = (
            DDPGAgent.critic_loss(critic, batch, target, within_slates=True)[0]
            for critic in self.twins
        )
        return first + second

    def actor_loss(self, batch: Batch) -> Tensor:
        """``alpha`` times `DDPGAgent.actor_loss`, and the pull towards kept songs."""
        loss = self.cloning_loss(batch)
        if self.settings.alpha:
            climb = DDPGAgent.actor_loss(self.actor, self.twins[0], batch.state)
            loss = loss + self.settings.alpha * climb
        return loss
