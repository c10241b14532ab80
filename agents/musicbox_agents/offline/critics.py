"""What offline agents with critics share: two critics, and re-ranking by the first."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Adam

from musicbox_agents.base import Observation, require_ranges
from musicbox_agents.ddpg.networks import Critic
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.ddpg.state import State
from musicbox_agents.offline.bc import BCAgent, BCSettings

SLATE_SIZE = 3
"""Songs of a slate that the critic chooses."""


@dataclass(frozen=True)
class CriticSettings(BCSettings):
    """Settings of the agents that learn critics too.

    Attributes:
        gamma: Discount from slate to slate; at 0, as in `ddpg` [7], Q is a song's expected reward.
        tau: Share of the networks in their targets at each update.
        critic_rate: Learning rate of the critics, and of IQL's V (Adam).
        rerank: Nearest songs among which the critic chooses; 0 is not to. It then values songs
            that the log never played in such a session.
    """

    gamma: float = 0.0
    tau: float = 0.005
    critic_rate: float = 1e-3
    rerank: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, {"gamma": (0, 1), "rerank": (0, np.inf)})
        require_ranges(self, dict.fromkeys(("tau", "critic_rate"), (1e-12, 1)))


class CriticAgent(BCAgent):
    """An actor and two critics, the smaller of which counts in targets (TD3, arXiv:1802.09477).

    Attributes:
        twins, critics: Both; ``target_critics`` are their slow copies.
    """

    networks: ClassVar[tuple[str, ...]] = ("actor", "critics", "target_critics")
    settings: CriticSettings

    def set_up(self) -> None:
        """See `BCAgent`."""
        super().set_up()
        self.critic_optimizer = Adam(
            self.critics.parameters(), self.settings.critic_rate, fused=True
        )

    def make_networks(self) -> None:
        """See `BCAgent`."""
        super().make_networks()
        dim, hidden, rate = self.space.dim, self.settings.hidden, self.space.has_rate
        self.twins = Critic(dim, hidden=hidden, rate=rate), Critic(dim, hidden=hidden, rate=rate)
        self.critics = nn.ModuleList(self.twins)
        self.target_critics = deepcopy(self.critics).requires_grad_(False)

    @property
    def gamma(self) -> float:
        """Discount from slate to slate."""
        return self.settings.gamma

    @property
    def env_options(self) -> dict[str, Any]:
        """As of `BCAgent`; slates where the critic chooses."""
        slates = {"action": "slate", "slate_size": SLATE_SIZE} if self.settings.rerank else {}
        return super().env_options | slates

    def choose(self, batch: Observation, proto_actions: npt.NDArray) -> npt.NDArray:
        """Proto-actions, or the songs among the nearest that the first critic values most."""
        if not self.settings.rerank:
            return super().choose(batch, proto_actions)
        weight = self.space.weights(batch, DDPGSettings.quality_weight)
        most = max(self.settings.rerank, SLATE_SIZE)
        near = self.space.nearest(batch, proto_actions * weight, most)
        first = self.twins[0]
        encoded = first.encode(self.space.state(batch))
        return self.space.best(encoded, near, weight, first, SLATE_SIZE)[0]

    @torch.no_grad()
    def least_target(self, state: State, actions: Tensor) -> Tensor:
        """``min_i Q'_i(s, a)`` of actions ``(B, M, d)``, as ``(B, M)``."""
        return torch.stack([q(state, actions) for q in self.target_critics]).amin(dim=0)
