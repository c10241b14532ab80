"""Trainings of the DDPG agent that go on after they were killed.

A checkpoint is a folder ``steps-000000000400/``: what `Agent.save` writes, and ``training.npz``
with what acting does not need: optimizers, memory, random numbers, open sessions. It gets its name
when it is complete, and then replaces those before it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import Optimizer

from musicbox_agents.base import Observation
from musicbox_agents.ddpg.replay import ReplayBuffer
from musicbox_agents.progress import Progress
from musicbox_env.data.checks import CheckedFile
from musicbox_env.errors import reading, remove_tree, writing
from musicbox_env.rng import packed, unpacked
from musicbox_env.vector_env import MusicSessionVectorEnv, named, part

if TYPE_CHECKING:
    from musicbox_agents.ddpg.agent import DDPGAgent

Arrays = Mapping[str, npt.NDArray]

TRAINING: Final = "training.npz"
FORMAT: Final = 3
"""Number of what a checkpoint holds; one of another number cannot be gone on from."""
_PREFIX: Final = "steps-"


@dataclass
class Loop:
    """Where a training stands between two steps of its environment.

    Attributes:
        observation: Of all parallel sessions.
        just_reset: Sessions whose next step ignores the action ``(num_envs,)``.
        steps: Slates recommended.
        update_budget: Updates to make; the fraction is carried to the next step.
    """

    observation: Observation
    just_reset: npt.NDArray[np.bool_]
    steps: int = 0
    update_budget: float = 0.0


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from, None where there is none."""
    return max(folder.glob(f"{_PREFIX}*"), default=None, key=lambda found: found.name)


def steps_of(checkpoint: Path) -> int:
    """Environment steps that lie behind a checkpoint."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def keep(
    folder: Path, agent: DDPGAgent, env: MusicSessionVectorEnv, progress: Progress, loop: Loop
) -> None:
    """Write all that a training is into ``folder``, and remove older checkpoints."""
    arrays = {
        "format": np.array(FORMAT),
        "just_reset": loop.just_reset,
        "steps": np.array(loop.steps),
        "update_budget": np.array(loop.update_budget),
        "updates": np.array(agent.updates),
        "due": np.array(progress.due),
        "critic_updates": np.array(agent.critic_updates),
        "rng": packed(agent.rng),
        **named("env", env.arrays()),
        **named("memory", agent.memory.arrays()),
        **named("log", {} if agent.log is None else agent.log.arrays()),
        **named("actor_optimizer", _moments(agent.actor_optimizer)),
        **named("critic_optimizer", _moments(agent.critic_optimizer)),
    }
    complete = folder / f"{_PREFIX}{loop.steps:012d}"
    staging = folder / f"unfinished-{complete.name}"
    shutil.rmtree(staging, ignore_errors=True)
    agent.save(staging)
    with writing(staging / TRAINING), (staging / TRAINING).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    shutil.rmtree(complete, ignore_errors=True)
    os.replace(staging, complete)
    for other in folder.glob(f"{_PREFIX}*"):
        if other.name < complete.name:
            remove_tree(other)


def restore(
    checkpoint: Path, agent: DDPGAgent, env: MusicSessionVectorEnv, progress: Progress
) -> Loop:
    """Give an agent, its sessions and its progress the state that `keep` wrote.

    Raises:
        ValueError: Another version of MusicBox wrote the checkpoint, or it is damaged.
    """
    mend = "Delete the folder to train anew."
    file = checkpoint / TRAINING
    checked = CheckedFile(file, mend)
    arrays = checked.arrays()
    written = int(arrays.get("format", 1))
    if written != FORMAT:
        raise ValueError(
            f"{checkpoint} was written by another version of MusicBox (format {written}; this one "
            f"reads {FORMAT}). Go on with that version, or delete the folder to train anew."
        )
    for name, array in arrays.items():
        if not name.endswith(".slate_axis"):  # NaN there is no fault; see `Transitions`
            checked.require_numbers(array, name)
    agent.load_weights(checkpoint)
    with reading(file, mend):
        return _restored(arrays, agent, env, progress)


def _restored(
    arrays: Arrays, agent: DDPGAgent, env: MusicSessionVectorEnv, progress: Progress
) -> Loop:
    _set_moments(agent.actor_optimizer, part("actor_optimizer", arrays))
    _set_moments(agent.critic_optimizer, part("critic_optimizer", arrays))
    agent.updates = int(arrays["updates"])
    agent.critic_updates = int(arrays["critic_updates"])
    agent.rng = unpacked(arrays["rng"])
    progress.due = int(arrays["due"])
    observation = env.restore(part("env", arrays))
    memories = [ReplayBuffer.restored(agent.memory.capacity, part("memory", arrays))]
    if "log.added" in arrays:
        memories.append(ReplayBuffer.restored(int(arrays["log.added"]), part("log", arrays)))
    places, num_tracks = env.config.slate_size, len(agent.dataset.catalog)
    for memory in memories:
        if len(memory):
            memory.stored.require_possible(observation, places, num_tracks)
    agent.memory, agent.log = memories[0], memories[1] if len(memories) > 1 else agent.log
    just_reset = arrays["just_reset"]
    if just_reset.shape != (env.num_envs,) or just_reset.dtype != np.bool_:
        raise ValueError(f"just_reset is {just_reset.dtype} of shape {just_reset.shape}.")
    return Loop(observation, just_reset, int(arrays["steps"]), float(arrays["update_budget"]))


def _moments(optimizer: Optimizer) -> dict[str, npt.NDArray]:
    """What an optimizer gathered of each weight's gradients."""
    return {
        f"{weight}.{name}": tensor.numpy()
        for weight, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def _set_moments(optimizer: Optimizer, arrays: Arrays) -> None:
    state: dict[int, dict[str, Any]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, array in arrays.items():
        weight, name = key.split(".")
        shape = () if name == "step" else weights[int(weight)].shape
        if array.shape != tuple(shape) or array.dtype != np.float32:
            raise ValueError(
                f"An optimizer's {key} is {array.dtype} of shape {array.shape}; expected float32 "
                f"of shape {tuple(shape)}."
            )
        state.setdefault(int(weight), {})[name] = torch.from_numpy(array)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
