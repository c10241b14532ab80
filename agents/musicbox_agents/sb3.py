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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from stable_baselines3.sac.policies import MultiInputPolicy as SACMultiInputPolicy
from stable_baselines3.td3.policies import MultiInputPolicy as TD3MultiInputPolicy

import musicbox_env
from musicbox_agents.base import (
    WIDEST,
    Agent,
    AgentSettings,
    Observation,
    Options,
    require_ranges,
)
from musicbox_agents.progress import Progress
from musicbox_agents.sessions import one_thread
from musicbox_env.schema import brief
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import MOST_SONGS, SessionConfig
from musicbox_env.vector_env import MusicSessionVectorEnv

MOST_LAYERS = 16

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
        sizes = ("buffer_size", "batch_size", "train_freq")
        require_ranges(
            self,
            {
                "history_length": (1, MOST_SONGS),
                **dict.fromkeys(sizes, (1, np.inf)),
                **dict.fromkeys(("action_noise", "learning_starts"), (0, np.inf)),
                "learning_rate": (1e-12, 1),
                **dict.fromkeys(("tau", "gamma"), (0, 1)),
                "gradient_steps": (-1, np.inf),
            },
        )
        widths = self.net_arch or ()
        if len(widths) > MOST_LAYERS or any(not 1 <= width <= WIDEST for width in widths):
            raise ValueError(
                f"SB3 setting net_arch is {brief(widths)}; expected at most {MOST_LAYERS} widths "
                f"from 1 to {WIDEST:,}."
            )


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
        options = {"data": self.dataset.folder, "listener": "replay", **self.env_options}
        assets = EnvAssets(SessionConfig.from_keywords(options))
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


def as_vec_env(envs: VectorEnv) -> VecEnv:
    """SB3's face of the native vector environment, many times faster than its own over single ones.

    It does what `DummyVecEnv` over `Monitor` environments does with the same seeds::

        envs = gym.make_vec("MusicSession-v0", num_envs=64, autoreset_mode="SameStep")
        model = SAC("MultiInputPolicy", as_vec_env(envs), train_freq=1, gradient_steps=64)

    Raises:
        ValueError: The environment is another, or has another autoreset mode.
    """
    if not isinstance(envs.unwrapped, MusicSessionVectorEnv):
        raise ValueError(
            f"as_vec_env came with a {type(envs.unwrapped).__name__}; expected the native vector "
            'environment: gym.make_vec("MusicSession-v0", num_envs=..., autoreset_mode="SameStep", '
            'vectorization_mode="vector_entry_point").'
        )
    if envs.metadata["autoreset_mode"] != AutoresetMode.SAME_STEP:
        raise ValueError(
            f"The autoreset mode is {envs.metadata['autoreset_mode'].value}, and SB3 begins the "
            'next session within a step; make the environment with autoreset_mode="SameStep".'
        )
    return _SessionVecEnv(envs)


class _SessionVecEnv(VecEnv):
    """See `as_vec_env`."""

    def __init__(self, envs: VectorEnv) -> None:
        self._envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._began = time.time()
        self._actions: npt.NDArray = np.zeros(0)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def reset(self) -> Any:
        """Begin all sessions, with the seeds and options that were set before."""
        options = self._options[0] or None
        if any(other != self._options[0] for other in self._options):
            raise ValueError("Options of reset are of all sessions; pass one dictionary.")
        seeds: Any = self._seeds
        observation, info = self._envs.reset(seed=seeds, options=options)
        self.reset_infos = _of_each(info)
        self._returns[:], self._lengths[:] = 0, 0
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: npt.NDArray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, npt.NDArray, npt.NDArray, list[dict[str, Any]]]:
        """Play a slate in every session; those that end begin anew."""
        observation, reward, terminated, truncated, info = self._envs.step(self._actions)
        self._returns += reward
        self._lengths += 1
        ended = terminated | truncated
        infos = _of_each(info)
        for row, cut in enumerate((truncated & ~terminated).tolist()):
            infos[row]["TimeLimit.truncated"] = cut
        if ended.any():
            self._end(np.flatnonzero(ended), infos, info)
        return observation, reward.astype(np.float32), ended, infos

    def _end(
        self, rows: npt.NDArray[np.intp], infos: list[dict[str, Any]], info: Mapping[str, Any]
    ) -> None:
        """Tell of sessions that ended, by the convention of SB3's `Monitor`; in place."""
        last, seconds = _of_each(info["final_info"]), round(time.time() - self._began, 6)
        for row in rows.tolist():
            self.reset_infos[row] = infos[row]
            earned, slates = round(float(self._returns[row]), 6), int(self._lengths[row])
            infos[row] = {
                **last[row],
                "TimeLimit.truncated": infos[row].pop("TimeLimit.truncated"),
                "terminal_observation": info["final_obs"][row],
                "episode": {"r": earned, "l": slates, "t": seconds},
            }
        self._returns[rows], self._lengths[rows] = 0, 0

    def close(self) -> None:
        """Close the environment."""
        self._envs.close()

    def get_images(self) -> Sequence[npt.NDArray | None]:
        """The picture of the first session, with ``render_mode="rgb_array"``."""
        return self._envs.render() or ()  # type: ignore[return-value]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, for each session."""
        return [getattr(self._envs.unwrapped, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: sessions have no attributes of their own."""
        raise AttributeError(f"{attr_name}: sessions share one environment; make another one.")

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Refused: sessions have no methods of their own."""
        raise AttributeError(f"{method_name}: sessions share one environment and have no methods.")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether sessions tell of their ends as SB3's `Monitor` does; of no other wrapper."""
        is_monitor = issubclass(wrapper_class, Monitor)
        return [is_monitor] * len(list(self._get_indices(indices)))


def _of_each(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The info of each session, out of that of all; masks and what only ends have left out."""
    columns = {
        name: values.tolist() if values.ndim == 1 else list(values)
        for name, values in info.items()
        if not name.startswith(("_", "final_"))
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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
