"""Roll-outs: every agent recommends into the same sessions, with the same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent

import musicbox_env
from musicbox_env.data.dataset import Dataset
from musicbox_env.schema import MAX_SESSION_LENGTH, is_skip
from musicbox_env.vector_env import MusicSessionVectorEnv
from musicbox_experiments.evaluate.metrics import PerSession, Rollout, reranking

BATCH = 512
_SEED_STRIDE = 1_000_003
"""Prime; spreads the seeds of neighbouring evaluation seeds over the sessions."""


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


def rerank(
    agent: Agent,
    options: Mapping[str, Any],
    sessions: npt.NDArray[np.int64],
    *,
    seed: int = 0,
    training_seed: int = 0,
) -> PerSession:
    """Let an agent choose its first slate among the plays that each session still holds.

    Every label is then a logged one: the protocol for claims about real logs.

    Returns:
        For each session the skips of the slate, beside those that a random choice of as many of
        the same plays would have on average.
    """
    options = {**options, "candidates": "session"}
    rollout = roll_out(
        agent,
        options,
        sessions,
        listener="replay",
        seed=seed,
        training_seed=training_seed,
        max_steps=1,
    )
    dataset: Dataset = _dataset_of(options)
    levels = dataset.sessions.padded("level", sessions, MAX_SESSION_LENGTH)
    shown = dataset.sessions.num_shown(sessions)
    second_half = np.arange(levels.shape[1]) >= shown[:, None]
    return reranking(rollout, np.where(second_half, levels, -1).astype(np.int8))


def _dataset_of(options: Mapping[str, Any]) -> Dataset:
    from musicbox_env.simulator.assets import open_dataset

    return open_dataset(options.get("data"))


def skip_rate(rollout: Rollout) -> float:
    """Share of the songs heard that were skipped."""
    heard = rollout.levels >= 0
    return float(is_skip(rollout.levels).sum() / max(heard.sum(), 1))
