"""Sessions to learn from: parallel environments on an agent's own dataset, one thread of torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from musicbox_env import ENV_ID
from musicbox_env.data.dataset import Dataset
from musicbox_env.vector_env import MusicSessionVectorEnv


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: for small networks more are slower, far slower where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def open_env(
    dataset: Dataset, options: Mapping[str, Any], num_envs: int, *, autoreset_mode: str = "NextStep"
) -> Iterator[MusicSessionVectorEnv]:
    """Open parallel sessions on the dataset that an agent was made for.

    Raises:
        ValueError: ``options`` name another dataset.
    """
    env = gym.make_vec(
        ENV_ID,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=autoreset_mode,
        **options,
    )
    assert isinstance(env, MusicSessionVectorEnv)
    try:
        if env.assets.dataset.folder.resolve() != dataset.folder.resolve():
            raise ValueError(
                f"The agent was made for {dataset.folder} and shall learn on "
                f"{env.assets.dataset.folder}; its track numbers mean other songs there. "
                "Make the agent with the dataset that env_options['data'] names."
            )
        yield env
    finally:
        env.close()


def session_seeds(rng: np.random.Generator, number: int) -> list[int]:
    """Seeds of parallel sessions, unlike any other agent's: ``seed + i`` would share most."""
    return rng.integers(2**31, size=number).tolist()
