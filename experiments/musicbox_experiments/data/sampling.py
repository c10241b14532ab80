"""Which sessions of a split are worked on."""

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset


def picking_sessions(dataset: Dataset, most: int) -> npt.NDArray[np.int64]:
    """Up to ``most`` validation sessions that pick the checkpoint of a training, ascending."""
    return dataset.sessions.playable("validation")[:most]


def draw_sessions(
    dataset: Dataset, split: str, most: int, seed: int, *, but: npt.ArrayLike = ()
) -> npt.NDArray[np.int64]:
    """Up to ``most`` playable sessions of a split, ascending, without those in ``but``."""
    sessions = np.setdiff1d(dataset.sessions.playable(split), np.asarray(but, np.int64))
    if not len(sessions):
        raise ValueError(f"{dataset.folder} has no session in its {split} split to evaluate on.")
    if len(sessions) > most:
        sessions = np.sort(np.random.default_rng(seed).choice(sessions, most, replace=False))
    return sessions
