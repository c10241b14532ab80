"""What the learned listener's head knows of levels heard."""

import numpy as np

from musicbox_env.listeners.learned.features import HeardSums, add_songs, state_inputs


def summaries(levels, table):
    """Inputs of the head from the levels of one session, heard one after the other."""
    heard, row = HeardSums.none(1, table), np.zeros(1, np.int64)
    for level in levels:
        add_songs(row, row, np.array([level]), table.vectors, heard.arrays)
    count, nothing = np.array([len(levels)]), np.zeros((1, 0), np.float32)
    padded = np.array([[*levels, -1]], np.int8)
    return state_inputs(row, count, padded, heard.arrays, nothing)[0]
