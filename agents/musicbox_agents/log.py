"""Logged sessions as transitions: the environment, playing what was played."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions
from musicbox_agents.sessions import open_env, session_seeds
from musicbox_env.data.dataset import Dataset
from musicbox_env.simulator.imputed import imputed_answers_expected

FOLDS = ("train_a", "train_b")
OTHER_FOLD = {"train_a": "train_b", "train_b": "train_a"}
SESSIONS_AT_ONCE = 512
REPLAY = {
    "action": "slate",
    "listener": "replay",
    "repeats": True,
    "candidates": "catalog",
    "horizon": None,
}
"""Keywords of an environment that plays the log: every answer is a logged level."""


def read_log(
    dataset: Dataset,
    env_options: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    sessions: int,
    axes: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> ReplayBuffer:
    """Read the second halves of logged training sessions, slate by slate.

    These are facts, whatever listener an agent learns with: the replay listener answers every song
    that the log still holds with its logged level.

    Args:
        dataset: Whose sessions.
        env_options: Keywords of `gymnasium.make`, those of the agent included; the split says which
            fold is read, by default both.
        rng: Chooses the sessions.
        sessions: Most sessions to read; half of them of each fold.
        axes: For each fold the last axis of the embedding space ``(num_tracks,)`` as its sessions
            alone have it. That axis counts the very labels that are learned from here, so a session
            sees the axis of the other fold. None is to see the space as it is.

    Raises:
        ValueError: There is no session to learn from.
    """
    options = {**env_options, **REPLAY}
    parts: list[Transitions] = []
    for chosen, fold in _chosen(dataset, env_options.get("split", "train"), rng, sessions):
        with (
            imputed_answers_expected(),
            open_env(dataset, options, len(chosen), autoreset_mode="Disabled") as env,
        ):
            everyone, over = np.arange(len(chosen)), np.zeros(len(chosen), np.bool_)
            observation, _ = env.reset(
                seed=session_seeds(rng, len(chosen)), options={"session": chosen}
            )
            while not over.all():
                slate = env.simulator.remaining_log(everyone)[:, : env.config.slate_size]
                following, reward, terminated, _, info = env.step(
                    np.maximum(slate, 0).astype(np.int64)
                )
                rows = Transitions.of_step(
                    observation, following, reward, terminated, info, env.config.reward, logged=True
                )
                if axes is not None:
                    rows.slate_axis[:] = axes[OTHER_FOLD[fold]][rows.slate]
                parts.append(rows[~over])
                observation, over = following, terminated
    if not parts:
        raise ValueError(
            f"{dataset.folder} has no training session of two plays to learn from; ddpg learns "
            "without the log with offline_fraction=0."
        )
    everything = Transitions.joined(parts)
    log = ReplayBuffer(len(everything))
    log.add(everything)
    return log


def _chosen(
    dataset: Dataset, split: str, rng: np.random.Generator, most: int
) -> Iterator[tuple[npt.NDArray[np.int64], str]]:
    """Training sessions to read, in batches of one fold; never those of another split."""
    folds = (split,) if split in FOLDS else FOLDS
    for fold in folds:
        sessions = dataset.sessions.playable(fold)
        number = min(most // len(folds), len(sessions))
        chosen = rng.choice(sessions, size=number, replace=False)
        for start in range(0, number, SESSIONS_AT_ONCE):
            yield chosen[start : start + SESSIONS_AT_ONCE], fold
