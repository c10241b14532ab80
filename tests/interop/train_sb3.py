"""Stable-Baselines3's DDPG and SAC, untouched and with their defaults.

With ``--data FOLDER`` they learn from logs that `musicbox ingest` read: by the defaults a session
is then offered its own plays, whose levels are logged.
"""

import argparse

import gymnasium as gym
import torch
from interop import report
from stable_baselines3 import DDPG, SAC

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)
ALGORITHMS = {"DDPG": DDPG, "SAC": SAC}


def train(algorithm, data, seed, steps):
    """A policy on the dictionary of the default observation."""
    env = gym.make("MusicSession-v0", data=data)
    model = algorithm("MultiInputPolicy", env, seed=seed).learn(steps)
    return lambda observation: model.predict(observation, deterministic=True)[0]


if __name__ == "__main__":
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--algorithm", choices=ALGORITHMS, default="DDPG")
    chosen.add_argument("--data", help="dataset folder; the bundled dataset if left out")
    given, rest = chosen.parse_known_args()
    report(
        f"Stable-Baselines3 {given.algorithm}",
        lambda seed, steps: train(ALGORITHMS[given.algorithm], given.data, seed, steps),
        observation="embedding",
        data=given.data,
        arguments=rest,
    )
