"""sb3-contrib's TQC, untouched and with its defaults."""

import gymnasium as gym
import torch
from interop import report
from sb3_contrib import TQC

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)


def train(seed, steps):
    """A policy on the dictionary of the default observation."""
    model = TQC("MultiInputPolicy", gym.make("MusicSession-v0"), seed=seed).learn(steps)
    return lambda observation: model.predict(observation, deterministic=True)[0]


if __name__ == "__main__":
    report("sb3-contrib TQC", train, observation="embedding")
