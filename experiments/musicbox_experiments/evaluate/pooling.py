"""Roll-outs of several trainings as one: both directions of a comparison, and all test folds.

Where learned listeners evaluate, agents are trained twice: on part A with an evaluator of part B,
and the other way round. Each session is then evaluated twice, and over five test folds every
session of a log is. A *source* is one of these: a test fold and a direction. Pooled figures are
means over all sources, and one session is one unit of the bootstrap, however often it was
evaluated.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import holds
from musicbox_env.ingest.training_parts import rows_in
from musicbox_experiments.evaluate.metrics import PerSession
from musicbox_experiments.evaluate.rollout import Rollout

Ints = npt.NDArray[np.int64]


def described(rollout: Rollout, dataset: Dataset, known: Ints | None) -> Rollout:
    """A roll-out with what its evaluator knows of its songs, and which the log still held.

    Args:
        rollout: On sessions of the dataset.
        dataset: Whose rows it names.
        known: Plays from which the evaluator knows each track ``(num_tracks,)``, if it does.
    """
    songs = np.maximum(rollout.slates, 0)
    log, sessions = dataset.sessions, rollout.sessions
    tracks = log.padded("track", sessions, dataset.longest_session).astype(np.int64)
    tracks[np.arange(tracks.shape[1]) < log.num_shown(sessions)[:, None]] = -1
    held = holds(tracks, rollout.slates.reshape(len(tracks), -1)).reshape(rollout.slates.shape)
    of_songs = None if known is None else np.where(rollout.heard, known[songs], 0)
    return replace(rollout, known=of_songs, held=held & rollout.heard)


def renumbered(rollout: Rollout, dataset: Dataset, other: Dataset) -> Rollout:
    """A roll-out on a dataset with the rows of another one: the whole that it is a part of."""
    if dataset is other:
        return rollout
    tracks, sessions = (rows_in(dataset, other, what) for what in ("tracks", "sessions"))
    slates = np.where(rollout.slates >= 0, tracks[rollout.slates], -1).astype(np.int32)
    return replace(rollout, slates=slates, sessions=sessions[rollout.sessions])


def joined(rollouts: Sequence[Rollout], sources: Sequence[int]) -> Rollout:
    """Roll-outs of one agent, seed and evaluator from several sources, one after the other."""
    steps = max(rollout.slates.shape[1] for rollout in rollouts)

    def column(name: str, empty: int) -> Any:
        parts = [getattr(rollout, name) for rollout in rollouts]
        if any(part is None for part in parts):
            return None
        room = [(0, 0), (0, steps), (0, 0)]
        padded = [np.pad(part, room, constant_values=empty)[:, :steps] for part in parts]
        return np.concatenate(padded)

    lengths = [len(rollout.sessions) for rollout in rollouts]
    return replace(
        rollouts[0],
        sessions=np.concatenate([rollout.sessions for rollout in rollouts]),
        slates=column("slates", -1),
        levels=column("levels", -1),
        logged=column("logged", 0),
        returns=np.concatenate([rollout.returns for rollout in rollouts]),
        source=np.repeat(np.asarray(sources, np.int64), lengths),
        known=column("known", 0),
        held=column("held", 0),
    )


def by_source(rollout: Rollout) -> list[Rollout]:
    """The roll-outs that were joined, without their common padding of rows."""
    if rollout.source is None:
        return [rollout]
    return [at(rollout, rollout.source == source) for source in np.unique(rollout.source)]


def at(rollout: Rollout, rows: npt.NDArray[np.bool_]) -> Rollout:
    """Some of the rows of a roll-out."""
    arrays: Any = {n: v[rows] for n, v in vars(rollout).items() if isinstance(v, np.ndarray)}
    return replace(rollout, **arrays)


def grouped(part: PerSession, sessions: Ints, source: Ints | None) -> PerSession:
    """A mean in parts with one row for each session: all its evaluations added up.

    Args:
        part: A row an evaluation ``(n,)``.
        sessions: The session of each ``(n,)``.
        source: The source of each ``(n,)``; None where there is one alone, and nothing to group.
    """
    if source is None:
        return part
    sides = part.numerator, part.denominator
    _, session = np.unique(sessions, return_inverse=True)
    total, number = (np.bincount(session, side).astype(np.float64) for side in sides)
    if not (source % 2).any():  # test folds of one direction: their sessions are others
        return PerSession(total, number)
    _, where = np.unique(source, return_inverse=True)
    above, below = (np.bincount(where, side).astype(np.float64) for side in sides)
    with np.errstate(invalid="ignore"):
        return PerSession(total, number, above / below)
