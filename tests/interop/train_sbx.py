"""SBX's SAC (Stable-Baselines3 in JAX), untouched and with its defaults."""

import gymnasium as gym
from interop import report
from sbx import SAC

import musicbox_env  # noqa: F401 (registers MusicSession-v0)


def train(seed, steps):
    """A policy on flat observations."""
    env = gym.make("MusicSession-v0", observation="flat")
    model = SAC("MlpPolicy", env, seed=seed).learn(steps)
    return lambda observation: model.predict(observation, deterministic=True)[0]


if __name__ == "__main__":
    report("SBX SAC", train)
