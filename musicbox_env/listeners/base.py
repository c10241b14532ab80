"""What a listener is: the user simulator behind one small protocol.

A listener is fitted once and then never changes. Whatever it remembers of a session lies in a
state that the caller holds, a dataclass of arrays with one row for each session, so a thousand
sessions are simulated by one listener, and two callers never disturb each other. It has no random
numbers of its own: it gives probabilities of the five listen levels, and `sample_levels` turns a
uniform number into a level.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from musicbox_env import kernels
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import holds
from musicbox_env.schema import SKIP_THRESHOLD, UNHEARD, UNKNOWN

Rows = npt.NDArray[np.integer]
State = TypeVar("State")


@dataclass
class History:
    """What each session of a batch has heard so far; a row a session.

    Attributes:
        session: Index of the logged session ``(n,)``, -1 where none has begun.
        shown: How many of its first plays were shown, not simulated ``(n,)``.
        tracks: Tracks heard, in order ``(n, capacity)``, -1 after the last.
        levels: How far each was heard ``(n, capacity)``, -1 after the last.
        count: Songs heard ``(n,)``.
    """

    session: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]
    tracks: npt.NDArray[np.int32]
    levels: npt.NDArray[np.int8]
    count: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, n: int, capacity: int) -> History:
        """Room for ``n`` sessions of up to ``capacity`` songs."""
        return cls(
            np.full(n, -1, np.int64),
            np.zeros(n, np.int64),
            np.full((n, capacity), UNKNOWN, np.int32),
            np.full((n, capacity), UNHEARD, np.int8),
            np.zeros(n, np.int64),
        )

    @classmethod
    def logged(
        cls,
        dataset: Dataset,
        sessions: npt.NDArray[np.int64],
        shown: npt.NDArray[np.int64],
        capacity: int,
    ) -> History:
        """The first ``shown`` plays of logged sessions ``(n,)``, as the log has them."""
        log = dataset.sessions
        return cls(
            sessions.copy(),
            shown.copy(),
            log.padded("track", sessions, capacity, at_most=shown),
            log.padded("level", sessions, capacity, at_most=shown),
            shown.copy(),
        )

    def at(self, rows: Rows) -> History:
        """A copy of some of the sessions, in the order of ``rows`` ``(m,)``."""
        return History(*(getattr(self, field.name).take(rows, axis=0) for field in fields(self)))

    def record(
        self, rows: Rows, tracks: npt.NDArray[np.integer], levels: npt.NDArray[np.int8]
    ) -> None:
        """Add one song to each of the sessions ``rows``, in place."""
        self.tracks[rows, self.count[rows]] = tracks
        self.levels[rows, self.count[rows]] = levels
        self.count[rows] += 1

    def record_slates(
        self, rows: Rows, slates: npt.NDArray[np.int64], levels: npt.NDArray[np.int8]
    ) -> None:
        """Add the songs heard, those of level 0 and more, of a slate each ``(m, k)``, in place."""
        kernels.record_slates(rows, slates, levels, self.tracks, self.levels, self.count)

    def holds(self, rows: Rows, tracks: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether the sessions ``rows`` ``(m,)`` heard the tracks ``(m, c)`` already ``(m, c)``."""
        return holds(self.tracks[rows], tracks)


@dataclass(frozen=True)
class RankingSpace:
    """Vectors whose dot products order all tracks for each session, those likely kept first.

    Attributes:
        sessions: A query for each session asked ``(m, e)`` float32.
        tracks: A vector for each track of the catalog ``(num_tracks, e)`` float32.
        exact: Whether songs that the session neither heard nor holds stand in the very order of
            their skip probabilities. If not, the best by product are only likely to be good.
    """

    sessions: npt.NDArray[np.float32]
    tracks: npt.NDArray[np.float32]
    exact: bool


class Listener(Protocol[State]):
    """Answers a recommended track with a listen level, given what the session has heard so far.

    Where it knows a faster way, a listener may also have methods `hear`, with the arguments and
    answers of `hear_one_by_one`, and `begin_rows`, with those of `begin_by_copy`, each without
    the first argument. Where products order its answers, it may have a method
    ``ranking_space(state, rows) -> RankingSpace``; the oracle then finds the best songs of a
    catalog without asking for every one of them.

    Attributes:
        answers_from_log: Whether a track that the logged session still holds gets its logged
            level, so that the answer is a fact and not a guess.
    """

    answers_from_log: bool

    def begin(self, history: History) -> State:
        """State of sessions of which nothing but the shown plays was heard.

        Args:
            history: n sessions; only shown plays.
        """
        ...

    def level_probabilities(
        self,
        state: State,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        plays: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.float64]:
        """Probabilities of the listen levels, were each of the tracks the next song.

        Args:
            state: State of the whole batch; not changed.
            history: What the whole batch has heard; not changed.
            rows: Which sessions of the batch are asked ``(m,)``.
            tracks: Candidates for each of them ``(m, c)``; ``(1, c)`` asks all the same, which is
                cheaper over a whole catalog.
            plays: For each candidate the play of the logged session that it would be, counted
                from the session's start, or -1 where the session does not hold it ``(m, c)``.

        Returns:
            ``(m, c, 5)``, summing to 1 over the last axis.
        """
        ...

    def advance(
        self,
        state: State,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.int8],
    ) -> None:
        """Take in that the sessions ``rows`` heard a track at a level ``(m,)``, in place.

        ``history`` does not hold the song yet.
        """
        ...


def sample_levels(
    probabilities: npt.NDArray[np.float64], uniforms: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """Invert the distribution over levels: probabilities ``(m, 5)``, uniforms ``(m,)`` in [0, 1).

    >>> sample_levels(np.array([[0.5, 0.1, 0.0, 0.0, 0.4]]), np.array([0.55]))
    array([1], dtype=int8)
    """
    return kernels.sample_levels(probabilities, uniforms)


def hear_one_by_one(
    listener: Listener[State],
    state: State,
    history: History,
    rows: Rows,
    slates: npt.NDArray[np.int64],
    plays: npt.NDArray[np.int64],
    uniforms: npt.NDArray[np.float64],
) -> npt.NDArray[np.int8]:
    """Let sessions hear a slate each, in order; state and history take in every song, in place.

    Args:
        listener: Who answers.
        state: State of the whole batch.
        history: What the whole batch has heard.
        rows: Which sessions hear ``(m,)``.
        slates: Tracks in the order heard ``(m, k)``, -1 for none.
        plays: Play of the logged session that each is, or -1 ``(m, k)``.
        uniforms: A random number in [0, 1) for each ``(m, k)``.

    Returns:
        Listen levels ``(m, k)``, -1 where nothing was heard.
    """
    levels = np.full(slates.shape, UNHEARD, np.int8)
    for place in range(slates.shape[1]):
        active = np.flatnonzero(slates[:, place] >= 0)
        if not len(active):
            continue
        who, track = rows[active], slates[active, place]
        chances = listener.level_probabilities(
            state, history, who, track[:, None], plays[active, place, None]
        )[:, 0]
        level = sample_levels(chances, uniforms[active, place])
        listener.advance(state, history, who, track, level)
        history.record(who, track, level)
        levels[active, place] = level
    return levels


def begin_by_copy(listener: Listener[State], state: State, history: History, rows: Rows) -> None:
    """Put sessions ``rows`` ``(m,)`` of a state where only shown plays were heard, in place."""
    put_rows(state, rows, listener.begin(history.at(rows)))


def skip_probability(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probability that the song is skipped (``skip_2``), from those of the levels."""
    return probabilities[..., :SKIP_THRESHOLD].sum(axis=-1)


def for_each(rows: Rows, tracks: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Candidates of each session ``(m, c)``, where all may be asked the same ``(1, c)``."""
    return np.ascontiguousarray(np.broadcast_to(tracks, (len(rows), tracks.shape[1])))


def put_rows(state: Any, rows: Rows, part: Any) -> None:
    """Overwrite the given rows of a state, in place, with those of another of the same kind."""
    for field in fields(state):
        getattr(state, field.name)[rows] = getattr(part, field.name)
