"""Speed of the environment: its steps, its listeners, its start, and other sizes of data."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

import musicbox_env
from musicbox_env.simulator.imputed import imputed_answers_expected
from musicbox_env.synthetic.generator import bundled_dataset
from musicbox_experiments.benchmark.measure import (
    Context,
    Row,
    in_new_process,
    process_memory,
    speed,
)

SESSIONS_AT_ONCE = 1_024
SB3_SESSIONS = 64
FLAT = 0.67
"""A cost counts as flat if a hundred times the size makes it at most half as large again."""
REPLAY: dict[str, Any] = {"listener": "replay", "candidates": "catalog"}
LISTENER_TARGETS = {"replay": 0.15, "ground_truth": 0.10, "learned": 0.05}
IMPORT = "import time; began = time.process_time(); import musicbox_env; "
IMPORT += "print(time.process_time() - began)"


def listeners(context: Context) -> Iterator[Row]:
    """Steps a second of the vector environment with each listener."""
    for listener, target in LISTENER_TARGETS.items():
        yield Row(
            f"vector environment of {SESSIONS_AT_ONCE:,}, {listener}",
            "steps/s",
            partial(vector_speed, str(bundled_dataset()), listener),
            {"CartPoleVectorEnv": cartpole_speed},
            target,
            "slate actions, ids observations; each step of ours is three songs",
        )


def environment(context: Context) -> Iterator[Row]:
    """A single environment, start-up, and what steps and starts cost at other sizes."""
    sardine = partial(context.peer, "sardine", "sardine/SlateTopK-Bored-v0")
    ours = partial(single_speed, str(bundled_dataset()))
    yield Row("single environment, replay", "steps/s", ours, {"sardine-rec": sardine}, 2.0)
    yield Row(
        f"SB3's VecEnv over {SB3_SESSIONS} sessions, as_vec_env",
        "steps/s",
        vec_env_speed,
        {"make_vec_env": partial(vec_env_speed, native=False)},
        3.0,
        "default environment and dictionary observations, proto-actions",
    )
    yield Row("import musicbox_env", "s", import_seconds, {"limit": 1.0}, 1.0)
    tracks = (1_000, 100_000, 3_700_000) if context.full else (1_000, 30_000, 1_000_000)
    logs = {n: context.dataset(n, 5_000) for n in (1_000, 10_000, 100_000)}
    catalogs = {n: context.dataset(10_000, n) for n in tracks}
    yield from _growth("sessions in the log", logs)
    yield from _growth("tracks, no retrieval", catalogs)
    for number, data in catalogs.items():
        in_new_process(make_environments, data, 1)  # the space with the rate is written once
        name = f"gym.make with {number:,} tracks, and a step"
        yield Row(name, "s", partial(make_seconds, data), {"limit": 1.0}, 1.0)
    name = f"1,000 environments over one, {tracks[-1]:,} tracks"
    one, many = (in_new_process(make_environments, data, n)["own"] for n in (1, 1_000))
    note = "of their own: the catalog's vectors are mapped and shared"
    yield Row(name, "MiB", many, {"one environment": one}, note=note)


def _growth(what: str, datasets: Mapping[int, str]) -> Iterator[Row]:
    """Steps on datasets by size, beside those on the smallest."""
    smallest, *_, largest = datasets
    for size, data in datasets.items():
        yield Row(
            f"vector environment, {size:,} {what}",
            "steps/s",
            partial(vector_speed, data, "replay"),
            {f"{smallest:,}": partial(vector_speed, datasets[smallest], "replay")},
            FLAT if size == largest else None,
            "random plays: every look-up misses the processor's cache" if size == largest else "",
        )


def vector_speed(data: str, listener: str) -> float:
    """Steps a second of a vector environment, as many as it has sessions each time."""
    with imputed_answers_expected():
        env = gym.make_vec(
            musicbox_env.ENV_ID,
            num_envs=SESSIONS_AT_ONCE,
            vectorization_mode="vector_entry_point",
            action="slate",
            observation="ids",
            **{**REPLAY, "data": data, "listener": listener},
        )
    return _speed_of_steps(env, SESSIONS_AT_ONCE)


def cartpole_speed() -> float:
    """The same of Gymnasium's own vectorised CartPole."""
    return _speed_of_steps(CartPoleVectorEnv(SESSIONS_AT_ONCE), SESSIONS_AT_ONCE)


def single_speed(data: str) -> float:
    """Steps a second of one environment, resets included."""
    with imputed_answers_expected():
        env = gym.make(musicbox_env.ENV_ID, data=data, action="slate", observation="ids", **REPLAY)
    return _speed_of_steps(env, 1)


def vec_env_speed(*, native: bool = True) -> float:
    """Steps a second of SB3's vector environments: over the native one, or over single ones."""
    from musicbox_agents.sb3 import as_vec_env
    from stable_baselines3.common.env_util import make_vec_env

    envs: Any
    if native:
        made = gym.make_vec(musicbox_env.ENV_ID, num_envs=SB3_SESSIONS, autoreset_mode="SameStep")
        envs = as_vec_env(made)
    else:
        envs = make_vec_env(musicbox_env.ENV_ID, SB3_SESSIONS)
    envs.reset()
    envs.action_space.seed(0)
    actions = [
        np.stack([envs.action_space.sample() for _ in range(SB3_SESSIONS)]) for _ in range(10)
    ]
    at = count()
    for _ in range(10):
        envs.step(actions[next(at) % len(actions)])
    return speed(lambda: envs.step(actions[next(at) % len(actions)]), SB3_SESSIONS)


def _speed_of_steps(env: gym.Env | gym.vector.VectorEnv, sessions: int) -> float:
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(20)]
    at = count()

    def step() -> None:
        *_, terminated, truncated, _ = env.step(actions[next(at) % len(actions)])
        if isinstance(env, gym.Env) and (terminated or truncated):
            env.reset()

    for _ in range(10):
        step()
    return speed(step, sessions)


def import_seconds() -> float:
    """Processor time of importing the environment's package in a new process."""
    command = [sys.executable, "-c", IMPORT]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def make_environments(data: str, number: int) -> dict[str, float]:
    """Make environments over one dataset; their ``own`` memory in MiB after a step."""
    with imputed_answers_expected():
        envs = [gym.make(musicbox_env.ENV_ID, data=data, **REPLAY) for _ in range(number)]
    for env in envs[:3]:
        env.reset(seed=0)
        env.step(env.action_space.sample())
    return {"own": process_memory("RssAnon")}


def make_seconds(data: str) -> float:
    """Processor time of making an environment and its first step in a new process."""
    return in_new_process(make_environments, data, 1)["seconds"]
