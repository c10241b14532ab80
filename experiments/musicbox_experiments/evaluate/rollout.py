"""Roll-outs: every agent recommends into the same sessions, with the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent

import musicbox_env
from musicbox_env.vector_env import MusicSessionVectorEnv

FloatArray = npt.NDArray[np.float64]
BATCH = 512
_SEED_STRIDE = 1_000_003
"""Prime; spreads the seeds of neighbouring evaluation seeds over the sessions."""


@dataclass(frozen=True)
class Rollout:
    """What one agent recommended to the evaluated sessions, and how it was heard.

    Attributes:
        agent: Name of the agent.
        seed: Seed of its training (0 for an agent that does not learn).
        evaluator: Name of the listener that answered.
        sessions: Session indices ``(n,)`` int64.
        slates: Track rows ``(n, steps, k)`` int32 in the order played, -1 where not heard.
        levels: Listen levels ``(n, steps, k)`` int8, -1 where not heard.
        logged: Where the level is a label from the log and not imputed, ``(n, steps, k)`` bool.
        returns: Undiscounted sum of rewards of each session ``(n,)`` float64.
    """

    agent: str
    seed: int
    evaluator: str
    sessions: npt.NDArray[np.int64]
    slates: npt.NDArray[np.int32]
    levels: npt.NDArray[np.int8]
    logged: npt.NDArray[np.bool_]
    returns: FloatArray

    def __post_init__(self) -> None:
        require_shape("sessions", self.sessions, ndim=1)
        require_shape("slates", self.slates, ndim=3)
        require_shape("returns", self.returns, shape=self.sessions.shape)
        require_shape("levels", self.levels, shape=self.slates.shape)
        require_shape("logged", self.logged, shape=self.slates.shape)
        if len(self.slates) != len(self.sessions):
            raise ValueError(
                f"slates has {len(self.slates)} rows for {len(self.sessions)} sessions; "
                "give one row for each session."
            )
        if not np.array_equal(self.slates >= 0, self.levels >= 0):
            raise ValueError(
                "slates and levels disagree about which songs were heard; "
                "write -1 into both where a song was not heard."
            )

    @property
    def heard(self) -> npt.NDArray[np.bool_]:
        """Which places of the slates were heard, ``(n, steps, k)``."""
        return self.levels >= 0

    def save(self, path: Path) -> None:
        """Write the rollout as an ``.npz`` file that needs no pickle."""
        with path.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Rollout:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                **{name: file[name] if file[name].ndim else file[name].item() for name in file}
            )


def require_shape(
    name: str, array: npt.NDArray, *, ndim: int | None = None, shape: tuple[int, ...] | None = None
) -> None:
    """Refuse an array of other dimensions or another shape."""
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimensions.")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}.")


def session_seeds(seed: int, sessions: npt.NDArray[np.integer]) -> list[int]:
    """Seed of each session's random numbers: of the session alone, so agents are paired."""
    return [(seed * _SEED_STRIDE + int(session)) % 2**31 for session in sessions]


@contextmanager
def open_sessions(
    agent: Agent, options: Mapping[str, Any], sessions: npt.NDArray[np.int64], seed: int
) -> Iterator[tuple[MusicSessionVectorEnv, dict[str, npt.NDArray]]]:
    """A vector environment in which every given session has just begun, and what it shows."""
    env = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=len(sessions),
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        **{**options, **agent.env_options},
    )
    assert isinstance(env, MusicSessionVectorEnv)
    try:
        observation, _ = env.reset(
            seed=session_seeds(seed, sessions), options={"session": sessions}
        )
        agent.attach(env.simulator)
        yield env, observation
    finally:
        env.close()


def roll_out(
    agent: Agent,
    options: Mapping[str, Any],
    sessions: npt.NDArray[np.int64],
    *,
    listener: str,
    label: str | None = None,
    evaluator: str | None = None,
    seed: int = 0,
    training_seed: int = 0,
    max_steps: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Rollout:
    """Let an agent recommend until each of the sessions is over.

    Args:
        agent: Acts deterministically.
        options: Keywords of the environment (data, split, ...), without the agent's own.
        sessions: Which logged sessions ``(n,)``.
        listener: Name or path of the listener that answers.
        label: What the result calls the agent; its own name if left out.
        evaluator: What the result calls the listener; its own name if left out.
        seed: Of the evaluator's random numbers: the same for every agent that is compared.
        training_seed: The agent's own, noted in the result.
        max_steps: Stop after this many slates.
        progress: Told how many sessions are done after each batch.
    """
    options = {**options, "listener": listener}
    parts = []
    for start in range(0, len(sessions), BATCH):
        batch = sessions[start : start + BATCH]
        parts.append(_roll_out_batch(agent, options, batch, seed, max_steps))
        if progress is not None:
            progress(len(batch))
    slates, levels, logged, returns = (_stack(column) for column in zip(*parts, strict=True))
    return Rollout(
        agent=label or agent.name,
        seed=training_seed,
        evaluator=evaluator or listener,
        sessions=sessions,
        slates=slates.astype(np.int32),
        levels=levels,
        logged=logged.astype(np.bool_),
        returns=returns,
    )


def _roll_out_batch(
    agent: Agent,
    options: Mapping[str, Any],
    sessions: npt.NDArray[np.int64],
    seed: int,
    max_steps: int | None,
) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray, npt.NDArray]:
    """Slates, levels, logged marks ``(n, steps, k)`` and returns ``(n,)`` of one batch."""
    slates: list[npt.NDArray] = []
    levels: list[npt.NDArray] = []
    logged: list[npt.NDArray] = []
    returns = np.zeros(len(sessions))
    state: Any = None
    start = np.ones(len(sessions), np.bool_)
    with open_sessions(agent, options, sessions, seed) as (env, observation):
        while max_steps is None or len(slates) < max_steps:
            action, state = agent.predict(observation, state, start, deterministic=True)
            observation, reward, terminated, truncated, info = env.step(action)
            start = np.zeros(len(sessions), np.bool_)
            slates.append(info["slate"])
            levels.append(info["levels"])
            logged.append(info["logged"])
            returns += reward
            if (terminated | truncated).all():
                break
    return np.stack(slates, 1), np.stack(levels, 1), np.stack(logged, 1), returns


def _stack(parts: tuple[npt.NDArray, ...]) -> npt.NDArray:
    """Join batches along the sessions; shorter ones get steps in which nothing was heard."""
    if parts[0].ndim == 1:
        return np.concatenate(parts)
    steps = max(part.shape[1] for part in parts)
    fill = 0 if parts[0].dtype == np.bool_ else -1
    padded = [
        np.pad(p, ((0, 0), (0, steps - p.shape[1]), (0, 0)), constant_values=fill) for p in parts
    ]
    return np.concatenate(padded)
