"""The context of a play as an observation holds it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import CONTEXT_TYPES

CONTEXT_SIZE: Final = 5 + len(CONTEXT_TYPES)


def context_features(
    hour: npt.NDArray[np.integer],
    premium: npt.NDArray[np.integer],
    shuffle: npt.NDArray[np.integer],
    context_type: npt.NDArray[np.integer],
) -> npt.NDArray[np.float32]:
    """Context of plays, ``(m, CONTEXT_SIZE)``; unknown values (-1) give 0.

    Hour on the circle (cosine, sine), premium and shuffle as -1 or 1, one-hot context type, and a
    last place for the position, which changes with every song and is filled in when observed.
    """
    return _FEATURES[hour, premium, shuffle, context_type]


def _features_of_codes() -> npt.NDArray[np.float32]:
    """`context_features` of all codes, unknown (-1) last ``(25, 3, 3, types + 1, size)``."""
    types = len(CONTEXT_TYPES)
    features = np.zeros((25, 3, 3, types + 1, CONTEXT_SIZE), np.float32)
    angles = 2 * np.pi * np.arange(24) / 24
    features[:24, ..., 0] = np.cos(angles)[:, None, None, None]
    features[:24, ..., 1] = np.sin(angles)[:, None, None, None]
    features[:, :2, ..., 2] = np.array([-1, 1])[:, None, None]
    features[:, :, :2, :, 3] = np.array([-1, 1])[:, None]
    features[..., :types, 4 : 4 + types] = np.eye(types)
    return features


_FEATURES: Final = _features_of_codes()
