"""Trainings that go on after they were killed: all that a training is, in a folder of arrays.

A checkpoint is a folder ``steps-000000000400/``: what `Agent.save` writes, and ``training.npz``
with the rest, which acting does not need: optimisers, memory, random numbers, open sessions. It
gets its name when it is complete, and then takes the place of those before it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_agents.base import Agent

Arrays = Mapping[str, npt.NDArray]

TRAINING: Final = "training.npz"
FORMAT: Final = 2
"""Number of what a checkpoint holds; one of another number cannot be gone on from."""
_PREFIX: Final = "steps-"


def keep(folder: Path, steps: int, agent: Agent, arrays: Arrays) -> None:
    """Write a checkpoint, and remove older ones.

    Args:
        folder: Where the checkpoints of this training are.
        steps: Environment steps so far.
        agent: What was learned.
        arrays: The rest, by name.
    """
    complete = folder / f"{_PREFIX}{steps:012d}"
    staging = folder / f"unfinished-{complete.name}"
    shutil.rmtree(staging, ignore_errors=True)
    agent.save(staging)
    with (staging / TRAINING).open("wb") as file:
        np.savez(file, allow_pickle=False, format=np.array(FORMAT), **arrays)
    shutil.rmtree(complete, ignore_errors=True)
    os.replace(staging, complete)
    for other in folder.glob(f"{_PREFIX}*"):
        if other.name < complete.name:
            shutil.rmtree(other)


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from, None where there is none."""
    return max(folder.glob(f"{_PREFIX}*"), default=None, key=lambda found: found.name)


def steps_of(checkpoint: Path) -> int:
    """Environment steps that lie behind a checkpoint."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def read(checkpoint: Path) -> dict[str, npt.NDArray]:
    """The arrays that `keep` was given.

    Raises:
        ValueError: Another version of MusicBox wrote the checkpoint.
    """
    with np.load(checkpoint / TRAINING, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    written = int(arrays.pop("format", 1))
    if written != FORMAT:
        raise ValueError(
            f"{checkpoint} was written by another version of MusicBox (format {written}; this one "
            f"reads {FORMAT}). Go on with that version, or delete the folder to train anew."
        )
    return arrays


def named(name: str, arrays: Arrays) -> dict[str, npt.NDArray]:
    """The same arrays under ``name.``; `part` takes it away again."""
    return {f"{name}.{key}": array for key, array in arrays.items()}


def part(name: str, arrays: Arrays) -> dict[str, npt.NDArray]:
    """The arrays under ``name.``, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
