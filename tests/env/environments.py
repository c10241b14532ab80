"""Environments made for tests, and their observations compared."""

import gymnasium as gym
import numpy as np

import musicbox_env

LISTENERS = ("replay", "similarity", "learned", "ground_truth")


REPLAY = {"listener": "replay", "candidates": "catalog"}
"""What the tests' environments are unless they say otherwise: the fastest, all songs allowed."""


def make(folder, **options):
    return gym.make(musicbox_env.ENV_ID, data=str(folder), **{**REPLAY, **options})


def make_many(folder, num_envs, **options):
    return gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs,
        vectorization_mode="vector_entry_point",
        data=str(folder),
        **{**REPLAY, **options},
    )


def same(a, b):
    """Observations or infos are equal; an observation may be one array."""
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
        return
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
