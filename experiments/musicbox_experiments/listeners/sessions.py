"""What a listener is fitted on: sessions as arrays, with only what a simulation would know.

A training session sees the tracks as they are without it: its own plays do not count in their
rates, and their embedding was fitted without it (`musicbox_env.retrieval.crossfit`). Otherwise the
network would learn to trust a trace of the session itself, which no new session leaves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.learned.features import (
    SUMMARY_INPUTS,
    TRACK_INPUTS,
    WEAR_INPUTS,
    HeardSums,
    TrackTable,
    add_songs,
    behaviour_inputs,
    context_inputs,
    is_repeat,
    log_columns,
    play_inputs,
    state_inputs,
    track_inputs,
)
from musicbox_env.retrieval.crossfit import PARTS, crossfitted, parts_of
from musicbox_env.retrieval.embeddings import NO_SESSIONS
from musicbox_env.schema import is_skip

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SessionArrays:
    """Whole sessions as a network is fitted on them: n sessions, T places.

    Attributes:
        levels: Listen levels ``(n, T)``, -1 after a session's last play.
        tracks: Inputs of each play's track just before it began ``(n, T, TRACK_INPUTS)``, with
            `WEAR_INPUTS` where asked for.
        summary: Statistics of the levels before each play ``(n, T, SUMMARY_INPUTS)``; see
            `features.state_inputs`.
        context: Context of each play ``(n, T, CONTEXT_INPUTS)``.
        behaviour: Behaviour around each play ``(n, T, BEHAVIOUR_INPUTS)``.
    """

    levels: Ints
    tracks: npt.NDArray[np.float32]
    summary: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    behaviour: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def width(self) -> int:
        """Places T."""
        return self.levels.shape[1]

    def at(self, rows: npt.NDArray[np.integer]) -> Self:
        """Some of the sessions."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Sessions of several parts, one part after the other."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def session_arrays(
    dataset: Dataset, sessions: Ints, table: TrackTable, *, wear: bool = False
) -> SessionArrays:
    """Read sessions, each place as the listener would see it when its turn comes."""
    log, width = dataset.sessions, dataset.longest_session
    songs, levels = (log.padded(name, sessions, width) for name in ("track", "level"))
    inputs = len(TRACK_INPUTS) + len(WEAR_INPUTS) * wear
    tracks = np.zeros((len(sessions), width, inputs), np.float32)
    summary = np.zeros((len(sessions), width, len(SUMMARY_INPUTS)), np.float32)
    heard, no_context = HeardSums.none(len(sessions), table), np.zeros((len(sessions), 0), "f")
    for place in range(width):
        rows = np.flatnonzero(levels[:, place] >= 0)
        now, before = songs[rows, place].astype(np.int64), np.full(len(rows), place)
        history = songs, levels
        asked = rows, now[:, None], before, history, table.arrays, heard.arrays, inputs
        tracks[rows, place] = track_inputs(*asked)[:, 0]
        summary[rows, place] = state_inputs(rows, before, levels, heard.arrays, no_context)
        add_songs(rows, now, levels[rows, place], table.vectors, heard.arrays)
    plays = np.minimum(log.offsets[sessions][:, None] + np.arange(width), log.num_plays - 1)
    of_context, of_behaviour = log_columns(dataset)
    context = context_inputs(plays.ravel(), of_context).reshape(*plays.shape, -1)
    behaviour = behaviour_inputs(plays.ravel(), of_behaviour).reshape(*plays.shape, -1)
    real = (levels >= 0)[..., None]
    return SessionArrays(
        levels.astype(np.int64),
        tracks,
        summary,
        *(np.where(real, part, np.float32(0)) for part in (context, behaviour)),
    )


@dataclass(frozen=True)
class TrainingSplit:
    """A training split, and the statistics of each track that its sessions may use.

    Attributes:
        dataset: Where it is.
        split: Its name.
        embedding: The embedding that songs are compared in, or None.
        table: Of all tracks, counted on the whole split.
        part: Part of each session of the dataset; see `crossfit.parts_of`.
        spaces: `crossfit.crossfitted` embedding, or None.
        wear: Whether `features.WEAR_INPUTS` are among the inputs.
    """

    dataset: Dataset
    split: str
    embedding: str | None
    table: TrackTable
    part: npt.NDArray[np.int8]
    spaces: tuple[npt.NDArray[np.float32], ...] | None
    wear: bool = False

    @classmethod
    def of(cls, dataset: Dataset, split: str, *, progress: bool = False) -> Self:
        """Of a dataset, with its best embedding; ``progress`` shows a bar of its cross-fits."""
        embedding = dataset.best_embedding if dataset.embedding_names else None
        table = TrackTable.of(dataset, split, embedding)
        spaces = None if embedding is None else crossfitted(dataset, embedding, progress=progress)
        return cls(dataset, split, embedding, table, parts_of(dataset), spaces)

    def in_parts(self, sessions: Ints) -> Iterator[tuple[int, Ints]]:
        """Each part that holds some of the sessions, and these."""
        for part in range(PARTS):
            some = sessions[self.part[sessions] == part]
            if len(some):
                yield part, some

    def table_of(self, part: int, without: Ints) -> TrackTable:
        """Statistics of each track for the sessions of a part.

        Args:
            part: The embedding was fitted without it.
            without: Sessions whose plays do not count, those of the part among them. With its own
                play in a track's rate a session would read its own label there. Leaving out only
                that play is no better: the rate then moves against the label.
        """
        log, catalog = self.dataset.sessions, self.dataset.catalog
        rows = log.plays_of(without)
        track, level = log.column("track")[rows], log.column("level")[rows]
        plays = catalog.plays(self.split) - np.bincount(track, minlength=len(catalog))
        skips = np.bincount(track[is_skip(level)], minlength=len(catalog))
        vectors = None if self.spaces is None else self.spaces[part % len(self.spaces)]
        return TrackTable.counted(plays, catalog.skips(self.split) - skips, vectors)

    def arrays(self, sessions: Ints, *, without: Ints = NO_SESSIONS) -> SessionArrays:
        """Sessions to fit on, with the statistics of their parts, ``without`` more sessions."""
        return SessionArrays.joined(
            [
                self._arrays(some, self.table_of(part, np.append(some, without)))
                for part, some in self.in_parts(sessions)
            ]
        )

    def others(self, sessions: Ints) -> SessionArrays:
        """Sessions of another split, with the statistics of the whole."""
        return self._arrays(sessions, self.table)

    def _arrays(self, sessions: Ints, table: TrackTable) -> SessionArrays:
        return session_arrays(self.dataset, sessions, table, wear=self.wear)


def usual_track(sessions: SessionArrays) -> npt.NDArray[np.float32]:
    """Mean inputs of the tracks of first hearings, as many as ``sessions.tracks`` has."""
    first_hearings = (sessions.levels >= 0) & ~is_repeat(sessions.tracks)
    mean: npt.NDArray[np.float32] = sessions.tracks[first_hearings].mean(axis=0)
    return mean


class Inputs:
    """Tensors of sessions; what a simulation would not know is hidden from the network."""

    def __init__(self, sessions: SessionArrays, behaviour_until: Ints, context_until: Ints) -> None:
        """Hide what a simulated session does not know.

        Args:
            sessions: n sessions.
            behaviour_until: Plays of each whose behaviour is known ``(n,)``, 0 to T.
            context_until: Plays of each whose context is known ``(n,)``, 1 to T; later ones keep
                the last known context.
        """
        place = np.broadcast_to(np.arange(sessions.width), sessions.levels.shape)
        seen = (place < behaviour_until[:, None])[..., None]
        last_known = np.minimum(place, context_until[:, None] - 1)[..., None]
        context = np.take_along_axis(sessions.context, last_known, axis=1)
        behaviour = np.where(seen, sessions.behaviour, 0)
        of_plays = (part.reshape(place.size, -1) for part in (sessions.tracks, context, behaviour))
        plays = play_inputs(sessions.levels.ravel(), place.ravel(), *of_plays)
        before = np.concatenate([np.zeros_like(context[:, :1]), context[:, :-1]], axis=1)
        self.plays = tensor(plays.reshape(*place.shape, -1))
        self.states = tensor(np.concatenate([sessions.summary, before], axis=-1))
        self.tracks = tensor(sessions.tracks)
        self.levels = torch.from_numpy(sessions.levels)

    @classmethod
    def with_behaviour(cls, sessions: SessionArrays) -> Self:
        """The whole past is known."""
        whole = np.full(len(sessions), sessions.width)
        return cls(sessions, whole, whole)

    @classmethod
    def without_behaviour(cls, sessions: SessionArrays) -> Self:
        """Levels and contexts are known."""
        whole = np.full(len(sessions), sessions.width)
        return cls(sessions, np.zeros_like(whole), whole)

    @classmethod
    def seen_twice(cls, sessions: SessionArrays, rng: np.random.Generator) -> Self:
        """Every session twice: with behaviour, half of them only up to some place, and without.

        Where behaviour ends, the context of half of these sessions stays as it is too, as in the
        simulated half of a session.
        """
        n, width = sessions.levels.shape
        some = rng.integers(1, width + 1, n)
        until = np.where(rng.random(n) < 0.5, some, width)
        context_until = np.where(rng.random(n) < 0.5, until, width)
        return cls(
            SessionArrays.joined([sessions, sessions]),
            np.concatenate([until, np.zeros_like(until)]),
            np.concatenate([context_until, np.full_like(until, width)]),
        )


def tensor(values: npt.NDArray) -> Tensor:
    """In single precision."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
