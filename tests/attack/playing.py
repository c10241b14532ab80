"""What one process plays of a dataset, as JSON: ``python playing.py DATA HOW [MORE...]``."""

import hashlib
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import musicbox_env

PLAYERS, SESSIONS, STEPS = 4, 3, 60
SETTLED = 10_000
"""Vector steps after which memory must be flat; as many as are measured, where these are fewer."""


def vector_env(data, listener="replay"):
    return gym.make_vec(
        musicbox_env.ENV_ID,
        SESSIONS,
        vectorization_mode="vector_entry_point",
        data=data,
        listener=listener,
        candidates="catalog",
    )


def played_in(env, seed):
    """A hash of all that the sessions of an environment show, which is closed."""
    digest = hashlib.blake2b(digest_size=16)
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    for _ in range(STEPS):
        for name in sorted(observation):
            digest.update(np.ascontiguousarray(observation[name]).data)
        observation, reward, *_ = env.step(env.action_space.sample())
        digest.update(reward.data)
    env.close()
    return digest.hexdigest()


def played(data, seed):
    """Hashes of what is shown to two listeners."""
    return [played_in(vector_env(data, of), seed) for of in ("replay", "ground_truth")]


def results(data, how):
    """Hashes of the seeds, played one after another, in threads, or in processes."""
    if how == "alone":
        return [played(data, seed) for seed in range(PLAYERS)]
    if how == "threads":
        with ThreadPoolExecutor(PLAYERS) as pool:
            return list(pool.map(partial(played, data), range(PLAYERS)))
    if how == "fork":
        played(data, 0)  # children inherit what was opened and compiled
    with ProcessPoolExecutor(2, multiprocessing.get_context(how)) as pool:
        return list(pool.map(partial(played, data), range(PLAYERS)))


def after_a_death(data, context):
    """The exception that a step raises when one worker of two was killed."""
    make = partial(gym.make, musicbox_env.ENV_ID, data=data, candidates="catalog")
    env = AsyncVectorEnv([make, make], context=context)
    env.reset(seed=0)
    env.processes[1].kill()
    env.processes[1].join()
    try:
        env.step_async(env.action_space.sample())
        env.step_wait(timeout=60)
    except Exception as error:
        return type(error).__name__
    finally:
        env.close(terminate=True)
    return "nothing"


def played_by_workers(data, context, workers):
    """A hash of what single environments show, each in a process of its own or all in this one."""
    make = [partial(gym.make, musicbox_env.ENV_ID, data=data)] * workers
    env = SyncVectorEnv(make) if context == "none" else AsyncVectorEnv(make, context=context)
    return played_in(env, 0)


def resident():
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(data, steps):
    """Bytes by which memory grows over vector steps, once it has settled."""
    env = vector_env(data)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    before, settled = 0, min(SETTLED, steps)
    for step in range(settled + steps):
        if step == settled:
            before = resident()
        env.step(actions[step % 64])
    return resident() - before


if __name__ == "__main__":
    data, how, *more = sys.argv[1:]
    if how == "growth":
        print(json.dumps(growth(data, int(more[0]))))
    elif how == "workers":
        print(json.dumps(played_by_workers(data, more[0], int(more[1]))))
    elif how == "death":
        print(json.dumps(after_a_death(data, more[0])))
    else:
        print(json.dumps([results(data, each) for each in (how, *more)]))
