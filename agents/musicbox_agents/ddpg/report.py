"""What is worth plotting of a DDPG training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from musicbox_agents.base import Callback
from musicbox_agents.ddpg.replay import Transitions
from musicbox_agents.progress import Progress
from musicbox_env.schema import is_skip


class Report(Progress):
    """Gathers losses, and what was played.

    Attributes:
        updates: Updates so far, those before the first slate left out.
    """

    def __init__(self, callback: Callback | None, every: int) -> None:
        """See `Progress`."""
        super().__init__(callback, every)
        self.updates = 0
        self.clear()

    def learned(self, losses: Mapping[str, float]) -> None:
        """Gather the losses of an update."""
        self.updates += 1
        self.add(losses)

    def played(
        self,
        proto_actions: npt.NDArray[np.float32],
        happened: Transitions,
        reward: npt.NDArray[np.float64],
    ) -> None:
        """Gather a step: proto-actions ``(n, d)``, and what came of them, with rewards ``(n,)``."""
        self._proto_actions.append(proto_actions)
        self._happened.append(happened)
        self._rewards.append(reward)

    def metrics(self) -> dict[str, float]:
        """Means since the last call, and how alike proto-actions and how varied the songs were."""
        happened = Transitions.joined(self._happened)
        return {
            **super().metrics(),
            "updates": float(self.updates),
            "reward": float(np.concatenate(self._rewards).mean()),
            "skip_rate": float(is_skip(happened.slate_levels)[happened.heard].mean()),
            "action_cosine": mean_cosine(np.concatenate(self._proto_actions)),
            "distinct_songs": float(len(np.unique(happened.slate[happened.heard]))),
        }

    def clear(self) -> None:
        """Forget what was gathered."""
        super().clear()
        self._proto_actions: list[npt.NDArray[np.float32]] = []
        self._happened: list[Transitions] = []
        self._rewards: list[npt.NDArray[np.float64]] = []


def mean_cosine(vectors: npt.NDArray[np.float32]) -> float:
    """Mean cosine of all pairs of vectors ``(n, d)``: 1 where all sessions get the same."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    n = len(units)
    return float((np.square(units.sum(axis=0)).sum() - n) / max(n * (n - 1), 1))
