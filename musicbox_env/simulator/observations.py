"""What an observation looks like: its space, and its parts as one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from musicbox_env.listeners.learned.features import CONTEXT_INPUTS
from musicbox_env.schema import Level

if TYPE_CHECKING:
    from musicbox_env.simulator.assets import EnvAssets

CONTEXT_SIZE: Final = len(CONTEXT_INPUTS) + 1
"""Context features of an observation: those of the last shown play, and the position."""
FLAT_PARTS: Final = ("history", "levels", "mask", "context")
"""Parts of the vector of ``observation="flat"``, in order: those of ``"embedding"``."""

Parts = Mapping[str, npt.NDArray]


def observation_space(assets: EnvAssets) -> spaces.Dict | spaces.Box:
    """Space of one session's observation."""
    config = assets.config
    if config.observation == "ids":
        return _ids_space(assets)
    space = _embedding_space(config.history_length, assets.dim)
    return _joined(space) if config.observation == "flat" else space


def observation_bytes(space: spaces.Space[Any]) -> int:
    """Bytes of one observation of such a space."""
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return sum(np.dtype(part.dtype).itemsize * int(np.prod(part.shape or ())) for part in parts)


def _embedding_space(length: int, dim: int) -> spaces.Dict:
    return spaces.Dict(
        {
            "history": spaces.Box(-1, 1, (length * dim,), np.float32),
            "levels": spaces.Box(0, 1, (length,), np.float32),
            "mask": spaces.Box(0, 1, (length,), np.float32),
            "context": spaces.Box(-1, 1, (CONTEXT_SIZE,), np.float32),
        }
    )


def _joined(space: spaces.Dict) -> spaces.Box:
    boxes: list[Any] = [space[name] for name in FLAT_PARTS]
    low, high = (np.concatenate([getattr(box, end) for box in boxes]) for end in ("low", "high"))
    return spaces.Box(low, high, dtype=np.float32)


def _ids_space(assets: EnvAssets) -> spaces.Dict:
    length, last = assets.config.history_length, assets.num_tracks - 1
    parts: dict[str, spaces.Space] = {
        "tracks": spaces.Box(-1, last, (length,), np.int32),
        "levels": spaces.Box(-1, int(Level.FULL), (length,), np.int8),
        "context": spaces.Box(-1, 1, (CONTEXT_SIZE,), np.float32),
    }
    if assets.config.candidates == "session":
        longest = assets.dataset.longest_session
        parts["candidates"] = spaces.Box(-1, last, (longest,), np.int32)
    else:
        parts["barred"] = spaces.Box(-1, last, (assets.capacity,), np.int32)
    return spaces.Dict(parts)


def flattened(parts: Parts) -> npt.NDArray[np.float32]:
    """The parts of `FLAT_PARTS` side by side, whatever stands before their last axis."""
    return np.concatenate([parts[name] for name in FLAT_PARTS], axis=-1)


def part_of(observation: Any, index: Any) -> Any:
    """What an index takes of each array of an observation, be it a dictionary or one array."""
    if isinstance(observation, Mapping):
        return {name: part[index] for name, part in observation.items()}
    return observation[index]
