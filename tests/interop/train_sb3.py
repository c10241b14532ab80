"""Stable-Baselines3's DDPG and SAC, untouched and with their defaults."""

import argparse

import gymnasium as gym
import torch
from interop import report
from stable_baselines3 import DDPG, SAC

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)
ALGORITHMS = {"DDPG": DDPG, "SAC": SAC}


def train(algorithm, seed, steps):
    """A policy on the dictionary of the default observation."""
    env = gym.make("MusicSession-v0")
    model = algorithm("MultiInputPolicy", env, seed=seed).learn(steps)
    return lambda observation: model.predict(observation, deterministic=True)[0]


if __name__ == "__main__":
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--algorithm", choices=ALGORITHMS, default="DDPG")
    given, rest = chosen.parse_known_args()
    report(
        f"Stable-Baselines3 {given.algorithm}",
        lambda seed, steps: train(ALGORITHMS[given.algorithm], seed, steps),
        observation="embedding",
        arguments=rest,
    )
