"""The base class of all listeners (user simulators), and the history that they answer from.

A listener is fitted once and never changes. The state of simulated sessions lies with the caller:
a dataclass of arrays with one row for each session. So one listener simulates a thousand sessions,
and two callers never disturb each other. A listener draws no random numbers: it gives probabilities
of the five listen levels, and `sample_levels` turns a uniform number into a level.

The smallest listener gives these probabilities and nothing else, since all other methods of
`Listener` have defaults::

    class LikesHits(Listener[NoState]):
        def __init__(self, dataset):
            self.hit = dataset.catalog.plays() > 100

        def level_probabilities(self, state, history, rows, tracks, plays):
            return np.eye(5)[np.where(self.hit[for_each(rows, tracks)], Level.FULL, Level.BRIEF)]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from musicbox_env import kernels
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import holds
from musicbox_env.schema import SKIP_THRESHOLD, UNHEARD, UNKNOWN
from musicbox_env.synthetic.outlook import Outlook

Ints = npt.NDArray[np.integer]
Rows = Ints
Slates = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int8]
Doubles = npt.NDArray[np.float64]
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

    @property
    def arrays(self) -> tuple[npt.NDArray[np.int32], Levels, npt.NDArray[np.int64]]:
        """Tracks, levels and count, as kernels read and change them."""
        return self.tracks, self.levels, self.count

    def at(self, rows: Rows) -> History:
        """A copy of some of the sessions, in the order of ``rows`` ``(m,)``."""
        return History(*(getattr(self, field.name).take(rows, axis=0) for field in fields(self)))

    def begin(self, row: int, tracks: Ints, levels: Ints) -> None:
        """Let one session be one that is in no log: songs heard ``(t,)``, and how far, in place."""
        count = len(tracks)
        self.session[row], self.shown[row], self.count[row] = UNKNOWN, count, count
        self.tracks[row, :count], self.tracks[row, count:] = tracks, UNKNOWN
        self.levels[row, :count], self.levels[row, count:] = levels, UNHEARD

    def record(self, rows: Rows, tracks: Ints, levels: Levels) -> None:
        """Add one song to each of the sessions ``rows``, in place."""
        self.tracks[rows, self.count[rows]] = tracks
        self.levels[rows, self.count[rows]] = levels
        self.count[rows] += 1

    def record_slates(self, rows: Rows, slates: Slates, levels: Levels) -> None:
        """Add the songs heard, those of level 0 and more, of a slate each ``(m, k)``, in place."""
        kernels.record_slates(rows, slates, levels, *self.arrays)

    def holds(self, rows: Rows, tracks: Ints) -> npt.NDArray[np.bool_]:
        """Whether the sessions ``rows`` ``(m,)`` heard the tracks ``(m, c)`` already ``(m, c)``."""
        return holds(self.tracks[rows], tracks)


@dataclass(frozen=True)
class RankingSpace:
    """Vectors whose dot products order all tracks for each session, those likely kept first.

    Attributes:
        sessions: A query for each session ``(m, e)`` float32.
        tracks: A vector for each track of the catalog ``(num_tracks, e)`` float32.
        exact: Whether the products order songs that the session neither heard nor holds exactly as
            their skip probabilities do. If not, the best by product are only likely to be good.
    """

    sessions: npt.NDArray[np.float32]
    tracks: npt.NDArray[np.float32]
    exact: bool


@dataclass
class NoState:
    """State of a listener that answers from the history alone."""


class Listener(ABC, Generic[State]):
    """User simulator: responds to a recommended track with a listen level, given the history.

    A subclass implements `level_probabilities`. If it keeps more of a session than the history, it
    also implements `begin` and `update_state`. `begin_rows` and `simulate_response` may be replaced
    by faster versions with the same results; `ranking_space` may be given where products order the
    answers.

    Attributes:
        answers_from_log: Whether a track that the logged session still holds gets its logged
            level, so that the answer is a fact and not an estimate.
    """

    answers_from_log = False

    def begin(self, history: History) -> State:
        """State of n sessions of which only the shown plays were heard."""
        return cast(State, NoState())

    def begin_rows(self, state: State, history: History, rows: Rows) -> None:
        """Reset the sessions ``rows`` ``(m,)``, of which only shown plays were heard, in place."""
        put_rows(state, rows, self.begin(history.at(rows)))

    @abstractmethod
    def level_probabilities(
        self, state: State, history: History, rows: Rows, tracks: Ints, plays: Ints
    ) -> Doubles:
        """Probabilities of the listen levels, were each of the tracks the next song.

        Args:
            state: State of the whole batch; not changed.
            history: What the whole batch has heard; not changed.
            rows: Sessions of the batch to answer for ``(m,)``.
            tracks: Candidates of each ``(m, c)``, or the same for all ``(1, c)``, which is cheaper
                over a whole catalog.
            plays: For each candidate the play of the logged session that it would be, counted
                from the session's start, or -1 where the session does not hold it ``(m, c)``.

        Returns:
            ``(m, c, 5)``, summing to 1 over the last axis.
        """

    def simulate_response(
        self,
        state: State,
        history: History,
        rows: Rows,
        slates: Slates,
        plays: Slates,
        uniforms: Doubles,
    ) -> Levels:
        """Play a slate to each session, song by song; state and history change in place.

        Args:
            state: State of the whole batch.
            history: What the whole batch has heard.
            rows: Sessions that listen ``(m,)``.
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
            asked = who, track[:, None], plays[active, place, None]
            chances = self.level_probabilities(state, history, *asked)[:, 0]
            level = sample_levels(chances, uniforms[active, place])
            self.update_state(state, history, who, track, level)
            history.record(who, track, level)
            levels[active, place] = level
        return levels

    def update_state(
        self, state: State, history: History, rows: Rows, tracks: Ints, levels: Levels
    ) -> None:
        """Add to the state that the sessions ``rows`` heard a track at a level ``(m,)``, in place.

        ``history`` does not hold the song yet; the caller records it next.
        """

    def ranking_space(self, state: State, rows: Rows) -> RankingSpace | None:
        """Vectors that order all tracks for the given sessions, if there are any.

        With them the oracle finds the best songs of a catalog without a probability for each.
        """
        return None

    def outlook(self, state: State, history: History, rows: Rows, tracks: Ints) -> Outlook | None:
        """What candidates will be worth after songs not heard yet, where that is known exactly.

        Args:
            state: State of the whole batch; not changed.
            history: What the whole batch has heard; not changed.
            rows: Sessions of the batch ``(m,)``.
            tracks: Candidates of each ``(m, c)``, -1 for none.

        Returns:
            None where the listener cannot say, or where no order of songs beats another.
        """
        return None


def sample_levels(probabilities: Doubles, uniforms: Doubles) -> Levels:
    """Invert the distribution over levels: probabilities ``(m, 5)``, uniforms ``(m,)`` in [0, 1).

    >>> sample_levels(np.array([[0.5, 0.1, 0.0, 0.0, 0.4]]), np.array([0.55]))
    array([1], dtype=int8)
    """
    return kernels.sample_levels(probabilities, uniforms)


def skip_probability(probabilities: Doubles) -> Doubles:
    """Probability that the song is skipped (``skip_2``), from those of the levels."""
    return probabilities[..., :SKIP_THRESHOLD].sum(axis=-1)


def for_each(rows: Rows, tracks: Ints) -> Ints:
    """Candidates of each session ``(m, c)``, where they may be the same for all ``(1, c)``."""
    each = tracks if len(tracks) == len(rows) else np.repeat(tracks, len(rows), axis=0)
    return np.ascontiguousarray(each)


def put_rows(state: Any, rows: Rows, part: Any) -> None:
    """Overwrite rows of a state, in place, by a part whose fields the state has too."""
    for field in fields(part):
        getattr(state, field.name)[rows] = getattr(part, field.name)
