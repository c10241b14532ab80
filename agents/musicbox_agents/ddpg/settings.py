"""Settings of the DDPG agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from musicbox_agents.base import WIDEST, AgentSettings, require_ranges
from musicbox_env.schema import require_known
from musicbox_env.simulator.config import MOST_SONGS

STARTS: Final = ("heuristic", "random")
REACHES: Final = ("nothing", "slate", "song")
QUALITIES: Final = ("learned", "logged", "counted")

_POSITIVE: Final = 1e-12
_OVERWHELMING: Final = 1e3
"""Weight beside which nothing else is left; of much larger ones products overflow float32."""
_RANGES: Final[dict[str, tuple[float, float]]] = {
    **dict.fromkeys(("history_length", "slate_size"), (1, MOST_SONGS)),
    "hidden": (1, WIDEST),
    **dict.fromkeys(("batch_size", "buffer_size", "num_envs", "log_sessions"), (1, np.inf)),
    **dict.fromkeys(("warmup_updates", "learning_starts", "rerank"), (0, np.inf)),
    **dict.fromkeys(("noise", "quality_weight"), (0, _OVERWHELMING)),
    "updates_per_step": (_POSITIVE, np.inf),
    **dict.fromkeys(("tau", "actor_rate", "critic_rate"), (_POSITIVE, 1)),
    **dict.fromkeys(("gamma", "offline_fraction"), (0, 1)),
}


@dataclass(frozen=True)
class DDPGSettings(AgentSettings):
    """Settings of the agent; numbers in brackets are the modifications listed in `ddpg.agent`.

    Attributes:
        embedding: Space of songs and proto-actions; None is the dataset's best, with the rate [3].
        history_length: Songs of the state; 20 is a session of the Spotify data set whole.
        slate_size: Songs of a slate.
        hidden: Width of the networks.
        start: How the actor begins: ``"heuristic"`` (mean of the songs played plus the quality
            axis) or ``"random"`` [5].
        gamma: Discount from slate to slate [7].
        tau: Share of the networks in their targets at each update.
        actor_rate: Learning rate of the actor (Adam).
        critic_rate: Learning rate of the critic (AdamW) [13].
        batch_size: Transitions of an update.
        buffer_size: Transitions remembered; the oldest are overwritten.
        num_envs: Sessions played in parallel while learning [10].
        updates_per_step: Updates for each slate recommended [10].
        learning_starts: Slates before the first update.
        noise: Exploration, as a share of the proto-action's norm; 0.3 turns it by about 17
            degrees [8].
        offline_fraction: Share of logged transitions in a batch; 0 is not to read the log [6].
        log_sessions: Logged sessions to read [6].
        warmup_updates: Updates of the critic on logged transitions before the first slate [6].
        rerank: Nearest songs among which the critic chooses; 0 is the nearest as they come [9].
        quality: Last axis of the space: ``"counted"``, a song's keep rate in training, as the
            dataset has it; ``"logged"``, how much better its plays went than their sessions
            predicted; ``"learned"``, the same, and what is seen while learning is added [3].
        quality_weight: What the quality axis counts when songs are chosen out of the catalog; 1 is
            what the critic says [12].
        within_slates: Whether the critic learns what songs add, in the log, from differences
            within slates alone [14].
        average_critic: Whether songs are chosen by the running average of the critic [15].
        reach: How far it sees what songs heard do to those like them [16]: ``"nothing"``; those
            heard when the ``"slate"`` begins; or up to the ``"song"``, those before it in the slate
            included, which is then composed song by song.
    """

    embedding: str | None = None
    history_length: int = 20
    slate_size: int = 3
    hidden: int = 32
    start: str = "heuristic"
    gamma: float = 0.0
    tau: float = 0.005
    actor_rate: float = 3e-4
    critic_rate: float = 1e-3
    batch_size: int = 64
    buffer_size: int = 100_000
    num_envs: int = 64
    updates_per_step: float = 0.25
    learning_starts: int = 512
    noise: float = 0.3
    offline_fraction: float = 0.5
    log_sessions: int = 5_000
    warmup_updates: int = 1_000
    rerank: int = 50
    quality: str = "learned"
    quality_weight: float = 0.35
    within_slates: bool = True
    average_critic: bool = True
    reach: str = "nothing"

    def __post_init__(self) -> None:
        require_known("start", self.start, STARTS)
        require_known("reach", self.reach, REACHES)
        require_known("quality", self.quality, QUALITIES)
        require_ranges(self, _RANGES)

    def acting_with(self, changed: Mapping[str, Any]) -> Self:
        """See `AgentSettings`; networks trained with ``reach="nothing"`` read no order of songs."""
        settings = super().acting_with(changed)
        if (settings.reach == "nothing") != (self.reach == "nothing"):
            raise ValueError(
                f"ddpg trained with reach={self.reach} cannot act with reach={settings.reach}: "
                "its networks are of another size. Train one under --agent-settings "
                f"ddpg+NAME.reach={settings.reach}."
            )
        return settings
