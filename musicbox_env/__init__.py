"""MusicBox: a Gymnasium environment for music recommendation, made from listening sessions.

Importing this package registers ``MusicSession-v0``.
"""

from importlib.metadata import PackageNotFoundError, version

import gymnasium as gym

try:
    __version__ = version("musicbox-env")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0"

ENV_ID = "MusicSession-v0"

if ENV_ID not in gym.registry:
    gym.register(
        id=ENV_ID,
        entry_point="musicbox_env.env:MusicSessionEnv",
        vector_entry_point="musicbox_env.vector_env:MusicSessionVectorEnv",
        # After a first reset that is refused, Gymnasium's checker fails at every step.
        disable_env_checker=True,
    )
