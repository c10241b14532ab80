"""What peers do, measured in an environment of their own: run by another Python, by path.

Only the standard library, numpy and the peer are imported. Usage: ``PYTHON peers.py NAME
ARGUMENTS``; one JSON object is printed.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

SECONDS = 0.4


def speed(action: Callable[[], object]) -> float:
    """Calls a second of processor time."""
    action()
    calls, began = 0, time.process_time()
    while time.process_time() - began < SECONDS:
        action()
        calls += 1
    return calls / (time.process_time() - began)


def sardine(env_id: str) -> dict[str, Any]:
    """Steps a second of a sardine-rec environment, resets included."""
    import gymnasium as gym

    import_module("sardine")  # registers its environments

    env = gym.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(100)]
    at = iter(range(10**9))

    def step() -> None:
        *_, terminated, truncated, _ = env.step(actions[next(at) % 100])
        if terminated or truncated:
            env.reset()

    return {"speed": speed(step)}


def sbx(batch: int, width: int, observation: int, action: int) -> dict[str, Any]:
    """Gradient updates a second of SBX's DDPG on a task of these sizes; compiling is left out."""
    import gymnasium as gym
    import numpy as np

    library = import_module("sbx")

    class Task(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (observation,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (action,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return self.observation_space.sample(), {}

        def step(self, _: Any) -> Any:
            return self.observation_space.sample(), 0.0, False, False, {}

    model = library.DDPG(
        "MlpPolicy",
        Task(),
        batch_size=batch,
        learning_starts=10**9,
        policy_kwargs={"net_arch": [width, width]},
    )
    model.learn(4 * batch)
    return {"speed": 20 * speed(lambda: model.train(gradient_steps=20, batch_size=batch))}


PEERS: dict[str, Callable[..., dict[str, Any]]] = {"sardine": sardine, "sbx": sbx}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    given = [int(a) if a.isdigit() else a for a in arguments]
    print(json.dumps(PEERS[name](*given)))
