"""What the examples of other libraries share: how a trained policy is measured, beside random.

    from interop import report
    report("sb3 DDPG", train, default_steps=6_000)

``train(seed, steps)`` gives a function from observations ``(n, ...)`` to actions ``(n, d)``.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

import musicbox_env

SESSIONS = 500
RANDOM_DRAWS = 5
SKIPPED_BELOW = 2
"""Listen levels of songs that were skipped: 0 and 1."""

Policy = Callable[[Any], np.ndarray]


def skip_rate(
    policy: Policy | None, observation: str, seed: int = 0, data: str | None = None
) -> float:
    """Share of the recommended songs that `SESSIONS` test sessions skip.

    Sessions that are offered their own plays hear all of them in any order, so that only the first
    slate of each counts there.

    Args:
        policy: From a batch of observations to proto-actions; None draws them evenly.
        observation: The option of that name.
        seed: Of listeners, and of actions that are drawn.
        data: Dataset folder; None is the bundled one.
    """
    assets = gym.make(musicbox_env.ENV_ID, split="test", data=data).unwrapped.assets
    sessions, own_plays = assets.pool[:SESSIONS], assets.config.candidates == "session"
    envs = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=len(sessions),
        split="test",
        observation=observation,
        autoreset_mode="Disabled",
        data=data,
    )
    shown, _ = envs.reset(seed=seed, options={"session": sessions})
    envs.action_space.seed(seed)
    over, skipped, heard = np.zeros(len(sessions), bool), 0, 0
    while not over.all():
        actions = envs.action_space.sample() if policy is None else policy(shown)
        shown, _, terminated, truncated, info = envs.step(np.asarray(actions, np.float32))
        over = terminated | truncated | own_plays
        levels = info["slate_levels"]
        heard += (levels >= 0).sum()
        skipped += ((levels >= 0) & (levels < SKIPPED_BELOW)).sum()
    envs.close()
    return float(skipped / heard)


@cache
def random_rate(data: str | None = None) -> float:
    """The same of actions drawn evenly, the mean of `RANDOM_DRAWS`."""
    return float(np.mean([skip_rate(None, "flat", seed, data) for seed in range(RANDOM_DRAWS)]))


def report(
    name: str,
    train: Callable[[int, int], Policy],
    *,
    observation: str = "flat",
    default_steps: int = 6_000,
    data: str | None = None,
    arguments: list[str] | None = None,
) -> None:
    """Train for the seeds of the command line; print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=name)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=default_steps)
    given = parser.parse_args(arguments)
    for seed in given.seeds:
        began = time.process_time()
        policy = train(seed, given.steps)
        seconds = time.process_time() - began
        row = {
            "name": name,
            "seed": seed,
            "steps": given.steps,
            "skip_rate": skip_rate(policy, observation, data=data),
            "random": random_rate(data),
            "seconds": round(seconds, 1),
        }
        print(json.dumps(row), flush=True)
