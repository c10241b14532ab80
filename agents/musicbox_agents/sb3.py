"""Stable-Baselines3's own algorithms on the same environment: what anyone gets out of the box.

The classes are SB3's, on ``MultiInputPolicy`` with the flat embedding observation and
proto-actions; only these settings differ from its defaults:

- exploration noise is given, since SB3's DDPG and TD3 have none by default;
- the replay buffer holds 50,000 steps instead of 1,000,000, whose observations would need 3 GB.

SB3's own checkpoints hold pickled objects, and unpickling a file that somebody sent runs whatever
it says. Here a checkpoint is the policy's parameters as plain arrays; the rest is rebuilt from the
settings.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac.policies import MultiInputPolicy as SACMultiInputPolicy
from stable_baselines3.td3.policies import MultiInputPolicy as TD3MultiInputPolicy

import musicbox_env
from musicbox_agents.base import Agent, AgentSettings, Observation, Options, require_ranges
from musicbox_agents.progress import Progress
from musicbox_agents.sessions import one_thread
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import SessionConfig

_NEVER = 1 << 62
"""Sessions between SB3's own log lines, which would also empty what `_Relay` reports."""
_CONSTANT = ("train/n_updates", "train/learning_rate")
_PASSED_ON = (
    *("learning_rate", "learning_starts", "batch_size", "tau", "gamma"),
    *("train_freq", "gradient_steps"),
)


@dataclass(frozen=True)
class SB3Settings(AgentSettings):
    """Settings of SB3's off-policy algorithms, by its own names where it has one.

    Attributes:
        embedding: Space of observations and actions; None is the dataset's best, with the rate.
        history_length: Songs in an observation.
        learning_rate: Of all networks.
        buffer_size: Steps that the replay buffer holds.
        learning_starts: Steps with uniformly random actions before learning starts.
        batch_size: Steps of a gradient update.
        tau: Share of the network in each update of its target.
        gamma: Discount of a step.
        train_freq: Environment steps between updates.
        gradient_steps: Gradient updates each time.
        action_noise: Sd of the Gaussian noise on actions; 0 is none.
        net_arch: Widths of the hidden layers; None is the algorithm's default.
    """

    embedding: str | None = None
    history_length: int = 10
    learning_rate: float = 1e-3
    buffer_size: int = 50_000
    learning_starts: int = 100
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    action_noise: float = 0.1
    net_arch: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        sizes = ("history_length", "buffer_size", "batch_size", "train_freq")
        require_ranges(self, {**dict.fromkeys(sizes, (1, np.inf)), "action_noise": (0, np.inf)})


@dataclass(frozen=True)
class SACSettings(SB3Settings):
    """As `SB3Settings`, with SAC's own defaults: it explores by its stochastic policy.

    Attributes:
        learning_rate: Of all networks.
        action_noise: As in `SB3Settings`, on top of the policy's own.
    """

    learning_rate: float = 3e-4
    action_noise: float = 0.0


class SB3Agent(Agent):
    """One of SB3's off-policy algorithms.

    Attributes:
        policy: SB3's policy: the networks, and their targets.
    """

    Settings = SB3Settings
    settings: SB3Settings
    learns = True
    algorithm: ClassVar[type[OffPolicyAlgorithm]]
    policy_class: ClassVar[type[BasePolicy]]
    policy_options: ClassVar[dict[str, Any]] = {}

    def set_up(self) -> None:
        """Make the policy."""
        self.policy = self._untrained_policy()

    @property
    def env_options(self) -> dict[str, Any]:
        """Proto-actions and flat vectors of embeddings."""
        return {
            "action": "proto",
            "observation": "embedding",
            "history_length": self.settings.history_length,
            "embedding": self.settings.embedding or self.dataset.default_embedding,
        }

    def _policy_options(self) -> dict[str, Any]:
        widths = self.settings.net_arch
        arch = {} if widths is None else {"net_arch": list(widths)}
        return {**self.policy_options, **arch}

    def _untrained_policy(self) -> BasePolicy:
        config = SessionConfig.from_keywords({"data": self.dataset.folder, **self.env_options})
        assets = EnvAssets(config)
        with as_if_alone():
            torch.manual_seed(self.seed)
            return self.policy_class(
                assets.observation_space(),
                assets.action_space(),
                lambda _: self.settings.learning_rate,
                **self._policy_options(),
            )

    def act(self, batch: Observation, *, deterministic: bool) -> npt.NDArray:
        """SB3's own ``policy.predict``; exploration noise belongs to learning alone."""
        with one_thread():
            return self.policy.predict(dict(batch), deterministic=deterministic)[0]

    def train(
        self, options: Options, total_steps: int, progress: Progress, checkpoint: Path | None
    ) -> None:
        """SB3's own ``learn``; replay buffer and optimisers start anew, the policy does not."""
        with as_if_alone():
            env = Monitor(gym.make(musicbox_env.ENV_ID, **options))
            try:
                model = self.model(env, total_steps)
                model.policy.load_state_dict(self.policy.state_dict())
                self.policy = model.policy
                relay = _Relay(progress, total_steps)
                # The default logger leaves an empty folder among the temporary files.
                model.set_logger(Logger(folder=None, output_formats=[]))
                model.learn(total_steps, callback=relay, log_interval=_NEVER)
            finally:
                env.close()

    def model(self, env: gym.Env, total_steps: int) -> OffPolicyAlgorithm:
        """SB3's algorithm with these settings, untrained."""
        settings, size = self.settings, env.action_space.shape or ()
        noise = NormalActionNoise(np.zeros(size), np.full(size, settings.action_noise))
        return self.algorithm(
            self.policy_class,
            env,
            **{name: getattr(settings, name) for name in _PASSED_ON},
            buffer_size=min(settings.buffer_size, total_steps),
            action_noise=noise if settings.action_noise else None,
            policy_kwargs=self._policy_options(),
            seed=self.seed,
            device="cpu",
        )

    def arrays(self) -> dict[str, npt.NDArray]:
        """See `Agent.arrays`."""
        return {name: value.numpy() for name, value in self.policy.state_dict().items()}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """See `Agent.restore`."""
        self.policy.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()})


class SB3DDPGAgent(SB3Agent):
    """Stable-Baselines3's DDPG."""

    name = "sb3-ddpg"
    algorithm = stable_baselines3.DDPG
    policy_class = TD3MultiInputPolicy
    policy_options: ClassVar[dict[str, Any]] = {"n_critics": 1}


class SB3TD3Agent(SB3Agent):
    """Stable-Baselines3's TD3."""

    name = "sb3-td3"
    algorithm = stable_baselines3.TD3
    policy_class = TD3MultiInputPolicy


class SB3SACAgent(SB3Agent):
    """Stable-Baselines3's SAC."""

    name = "sb3-sac"
    Settings = SACSettings
    algorithm = stable_baselines3.SAC
    policy_class = SACMultiInputPolicy


class _Relay(BaseCallback):
    """Reports progress from SB3's loop."""

    def __init__(self, progress: Progress, total_steps: int) -> None:
        super().__init__()
        self._progress, self._total = progress, total_steps

    def _on_step(self) -> bool:
        steps, last = self.num_timesteps, self.num_timesteps == self._total
        if steps >= self._progress.due or last:
            self._gather()
            self._progress.call(steps, last=last)
        return True

    def _gather(self) -> None:
        """The losses of the last update, and the mean return of the last hundred sessions."""
        for name, value in self.logger.name_to_value.items():
            if name.startswith("train/") and name not in _CONSTANT:
                self._progress.gather(name, value)
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if returns:
            self._progress.gather("rollout/return", returns)


@contextmanager
def as_if_alone() -> Iterator[None]:
    """One thread, and afterwards the process's global random numbers as they were before.

    SB3 seeds Python, numpy and torch for the whole process, and its noise draws from them.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with one_thread(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
