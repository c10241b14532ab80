"""What an agent is: Stable-Baselines3's face, for agents that learn and for those that need not."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import write_json
from musicbox_env.schema import require_known
from musicbox_env.simulator.dynamics import Simulator

Observation = Mapping[str, npt.NDArray]
Callback = Callable[[int, Mapping[str, float]], None]
"""Called during learning with the environment steps so far and what is worth plotting."""


@dataclass(frozen=True)
class AgentSettings:
    """Settings of an agent; each agent has a subclass whose fields are its options."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; an unknown name is refused with a suggestion."""
        for name in values:
            require_known(f"setting of {cls.__name__}", name, [f.name for f in fields(cls)])
        lists_as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**lists_as_tuples)


class Agent(ABC):
    """Recommends slates for observations of `MusicSession-v0`.

    Attributes:
        name: How it is called on the command line and in tables.
        Settings: Its options.
        learns: Whether `learn` changes anything.
        offline: Whether it learns from logged sessions alone, and never asks a listener model.
        resumes: Whether a training that was killed goes on from its last checkpoint.
        acting: Settings that decide how it acts and nothing of what it learned: they may be others
            when it is loaded than when it was trained.
        dataset: Catalog and training statistics that it may use.
        settings: The options in force.
        seed: Of everything random in it; the same seed gives the same agent.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[AgentSettings]] = AgentSettings
    learns: ClassVar[bool] = False
    offline: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    acting: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """Make an untrained agent.

        Args:
            dataset: What it recommends from.
            seed: Of everything random in it.
            settings: Its options; None is their defaults.
        """
        self.dataset = dataset
        self.seed = seed
        self.settings = self.Settings() if settings is None else settings

    @property
    @abstractmethod
    def env_options(self) -> dict[str, Any]:
        """Keywords of `gymnasium.make` that this agent needs: kinds of action and observation."""

    @abstractmethod
    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray, Any]:
        """Choose actions.

        Args:
            observation: Of one session, or of a batch with a leading axis.
            state: What an earlier call returned; None at the start.
            episode_start: Which sessions of the batch have just begun.
            deterministic: Without exploration.

        Returns:
            The action or actions, and the state for the next call.
        """

    def attach(self, simulator: Simulator) -> None:
        """Look behind the curtain: only for bounds and the logged policy, which are no agents."""

    def learn(
        self,
        env_options: Mapping[str, Any],
        total_steps: int,
        *,
        callback: Callback | None = None,
        callback_every: int = 1_000,
        checkpoint: Path | None = None,
    ) -> Self:
        """Learn from recommending.

        Args:
            env_options: Keywords of `gymnasium.make` that say what to learn on (data, split,
                listener, reward); the agent adds its own `env_options`.
            total_steps: Slates to recommend, all parallel sessions together.
            callback: Called about every ``callback_every`` steps and at the end.
            callback_every: In environment steps.
            checkpoint: Folder where all that the training is is kept after each callback. If it
                holds a checkpoint, the training goes on from there, to the same end as if it had
                never stopped. Agents without ``resumes`` pass it over.
        """
        return self

    def save(self, folder: Path) -> None:
        """Write the agent: settings as JSON, weights as arrays, nothing pickled."""
        folder.mkdir(parents=True, exist_ok=True)
        self._save_weights(folder)
        write_json(
            folder / "agent.json",
            {"agent": self.name, "seed": self.seed, "settings": asdict(self.settings)},
        )

    @classmethod
    def load(
        cls, folder: Path, dataset: Dataset, *, changed: Mapping[str, Any] | None = None
    ) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The checkpoint.
            dataset: What to recommend from.
            changed: Settings of `acting` that shall be others than in training.

        Raises:
            ValueError: The checkpoint is another agent's, or a setting is not one of acting, or it
                was trained by a version that lacked settings.
        """
        about = json.loads((folder / "agent.json").read_text())
        if about["agent"] != cls.name:
            raise ValueError(f"{folder} holds a {about['agent']!r} agent, not a {cls.name!r} one.")
        for name in changed or {}:
            require_known(f"setting of how a trained {cls.name} acts", name, cls.acting)
        missing = [f.name for f in fields(cls.Settings) if f.name not in about["settings"]]
        if missing:
            raise ValueError(
                f"{folder} was trained by a MusicBox that knew nothing of {', '.join(missing)}; "
                "train it again."
            )
        settings = cls.Settings.from_mapping({**about["settings"], **(changed or {})})
        agent = cls(dataset, seed=about["seed"], settings=settings)
        agent._load_weights(folder)
        return agent

    def _save_weights(self, folder: Path) -> None:
        """Write what was learned into ``folder``; an agent that learns overrides both."""

    def _load_weights(self, folder: Path) -> None:
        """Read what `_save_weights` wrote."""
