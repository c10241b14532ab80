"""A small DDPG agent, and what it observes and remembers, made up for tests."""

from typing import Any

import numpy as np
from musicbox_agents import make_agent
from musicbox_agents.ddpg.agent import DDPGAgent
from musicbox_agents.ddpg.replay import Transitions
from musicbox_agents.ddpg.space import Batch

from musicbox_env.data.dataset import Dataset
from musicbox_env.simulator.observations import CONTEXT_SIZE

SMALL = {
    "hidden": 8,
    "batch_size": 16,
    "num_envs": 8,
    "learning_starts": 16,
    "log_sessions": 60,
    "warmup_updates": 5,
    "rerank": 0,
}


def small_agent(dataset: Dataset, seed: int = 0, **settings: Any) -> DDPGAgent:
    agent = make_agent("ddpg", dataset, seed=seed, settings={**SMALL, **settings})
    assert isinstance(agent, DDPGAgent)
    return agent


def options(dataset: Dataset, **more: Any) -> dict[str, Any]:
    return {"data": str(dataset.folder), "listener": "ground_truth", **more}


def some_batch(agent: DDPGAgent, n: int = 32) -> Batch:
    """Transitions of random songs; half of them end their session."""
    rng = np.random.default_rng(0)
    tracks = rng.integers(100, size=(n, 20)).astype(np.int32)
    levels = rng.integers(5, size=(n, 20)).astype(np.int8)
    slate = rng.integers(100, 150, size=(n, 3)).astype(np.int32)
    rows = Transitions(
        tracks=tracks,
        levels=levels,
        context=np.zeros((n, CONTEXT_SIZE), np.float32),
        slate=slate,
        slate_levels=rng.integers(5, size=(n, 3)).astype(np.int8),
        slate_axis=np.full((n, 3), np.nan, np.float32),
        song_reward=rng.random((n, 3), dtype=np.float32),
        terminated=np.arange(n) % 2 == 0,
        next_position=np.zeros(n, np.float32),
        logged=np.ones(n, np.bool_),
    )
    return agent.space.batch(rows, future=True)


def trained_critic(agent: DDPGAgent, batch: Batch, updates: int = 50) -> None:
    for _ in range(updates):
        agent.update_critic(batch)


def an_observation(agent: DDPGAgent, n: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    tracks = rng.integers(100, size=(n, 20)).astype(np.int32)
    return {
        "tracks": tracks,
        "levels": rng.integers(5, size=(n, 20)).astype(np.int8),
        "context": np.zeros((n, CONTEXT_SIZE), np.float32),
        "barred": tracks,
    }
