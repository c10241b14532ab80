"""Environments made for tests, and their observations compared."""

import gymnasium as gym
import numpy as np

import musicbox_env

LISTENERS = ("replay", "similarity", "learned", "ground_truth")


def make(folder, **options):
    return gym.make(musicbox_env.ENV_ID, data=str(folder), **options)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
