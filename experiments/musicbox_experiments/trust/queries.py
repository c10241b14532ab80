"""Queries to listeners about logged sessions: given the true past, and in free runs.

Every function takes any number of sessions, queries in chunks of rows, and returns rectangles with
a row a session and a column a place of the session, NaN (or -1) where nothing was queried.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import (
    History,
    Listener,
    ReplayListener,
    sample_levels,
    skip_probability,
)
from musicbox_env.listeners.base import Rows
from musicbox_env.listeners.replay import ReplayState
from musicbox_env.schema import UNHEARD, UNKNOWN, Level, is_skip
from musicbox_experiments.trust.metrics import Predictions

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int8]

FIRST_PREDICTED: Final = 1
"""Place of the first play that is predicted: before it a listener has no history."""
_CHUNK_ROWS: Final = 4096


class ImputingReplay(ReplayListener):
    """The replay listener, made to impute the play in question.

    The replay listener returns the logged label of a play that its session holds. Here that play is
    hidden: it is imputed, and its own label is not among the donors. The labels of the session's
    other plays, later ones too, remain donors, since that is how the listener works; so its figures
    say how well it imputes, and not how well it predicts.
    """

    answers_from_log = False

    def level_probabilities(
        self,
        state: ReplayState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        plays: npt.NDArray[np.integer],
    ) -> Array:
        """Donor shares for every candidate, each without the label of its own play."""
        answers = super().level_probabilities(
            state, history, rows, tracks, np.full(plays.shape, UNKNOWN)
        )
        row, candidate = np.nonzero(plays >= 0)
        heard = History(**{f.name: getattr(history, f.name)[rows[row]] for f in fields(history)})
        blinded, every = self.begin(heard), np.arange(len(row))
        blinded.levels[every, plays[row, candidate]] = UNHEARD
        answers[row, candidate] = super().level_probabilities(
            blinded, heard, every, tracks[row, candidate][:, None], np.full((len(row), 1), UNKNOWN)
        )[:, 0]
        return answers


def without_answers(listener: Listener[Any]) -> Listener[Any]:
    """The listener in a form that does not return the logged label of the play in question.

    Raises:
        ValueError: It answers from the log, and there is no way to make it impute.
    """
    if isinstance(listener, ReplayListener):
        return ImputingReplay(
            listener.dataset, temperature=listener.temperature, persistence=listener.persistence
        )
    if listener.answers_from_log:
        raise ValueError(
            f"{type(listener).__name__} answers from the log, so predicting the log would only "
            "repeat it; give `without_answers` a way to hide the play in question."
        )
    return listener


@dataclass(frozen=True)
class Log:
    """Logged sessions as rectangles.

    Attributes:
        dataset: Where they are from.
        sessions: Session indices ``(n,)``.
        lengths: Their plays ``(n,)``.
        shown: Plays of the first half ``(n,)``.
        tracks: ``(n, width)``, -1 after the end.
        levels: ``(n, width)``, -1 after the end.
    """

    dataset: Dataset
    sessions: Ints
    lengths: Ints
    shown: Ints
    tracks: npt.NDArray[np.int32]
    levels: Levels

    @classmethod
    def of(cls, dataset: Dataset, sessions: Ints) -> Self:
        """Read sessions; the first half is that of the environment (`schema.num_shown`)."""
        width, log = dataset.longest_session, dataset.sessions
        return cls(
            dataset,
            sessions,
            log.lengths(sessions),
            log.num_shown(sessions),
            log.padded("track", sessions, width),
            log.padded("level", sessions, width),
        )

    @property
    def width(self) -> int:
        """Places of the longest session of the dataset."""
        return self.tracks.shape[1]

    @property
    def heard(self) -> npt.NDArray[np.bool_]:
        """Places that hold a play ``(n, width)``."""
        return self.levels >= 0

    @property
    def second_half(self) -> npt.NDArray[np.bool_]:
        """Places after the shown ones ``(n, width)``."""
        return self.heard & (np.arange(self.width) >= self.shown[:, None])

    def part(self, rows: npt.NDArray) -> Self:
        """Some of the sessions, each as often as ``rows`` names it."""
        names = ("sessions", "lengths", "shown", "tracks", "levels")
        return type(self)(self.dataset, *(getattr(self, name)[rows] for name in names))

    def predicted(self, answers: Array) -> Predictions:
        """The plays that were predicted, of a rectangle ``(n, width)`` with NaN elsewhere."""
        queried = np.isfinite(answers)
        return Predictions(
            answers[queried],
            is_skip(self.levels[queried]),
            np.nonzero(queried)[0],
            len(self.sessions),
        )

    def history(self, rows: npt.NDArray, shown: Ints) -> History:
        """The first plays of some of the sessions, as logged, with room for as many songs."""
        return History.logged(self.dataset, self.sessions[rows], shown, self.width)


@dataclass(frozen=True)
class Targets:
    """Plays to predict: in which session, after how many plays heard, which play.

    Attributes:
        rows: Session of each play ``(m,)``.
        shown: Plays of it that were heard ``(m,)``, at least 1.
        places: Place of the play to predict ``(m,)``, at or after ``shown``.
    """

    rows: Ints
    shown: Ints
    places: Ints

    @classmethod
    def next_plays(cls, log: Log) -> Self:
        """Every play but the first, given all that the log holds before it."""
        rows, places = np.nonzero(log.heard & (np.arange(log.width) >= FIRST_PREDICTED))
        return cls(rows, places, places)

    @classmethod
    def second_halves(cls, log: Log) -> Self:
        """Every play of the second half, were it the next after the first half."""
        rows, places = np.nonzero(log.second_half)
        return cls(rows, log.shown[rows], places)

    def fill(self, log: Log, answers: Array) -> Array:
        """Answers ``(m,)`` as a rectangle ``(n, width)``, NaN elsewhere."""
        filled = np.full(log.tracks.shape, np.nan)
        filled[self.rows, self.places] = answers
        return filled


def _chunks(rows: npt.NDArray, size: int = _CHUNK_ROWS) -> Iterator[npt.NDArray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def query(
    listener: Listener[Any],
    log: Log,
    rows: Ints,
    shown: Ints,
    tracks: Ints,
    plays: Ints | None = None,
) -> Array:
    """Skip probability of songs, were each the next after the first plays of a session ``(m, c)``.

    Args:
        listener: Queried.
        log: The sessions.
        rows: Which of them ``(m,)``.
        shown: How many of their plays were heard, as logged, ``(m,)``, at least 1.
        tracks: Songs in question ``(m, c)``.
        plays: Which plays of the session they are ``(m, c)``; None if they are of no session.
    """
    plays = np.full(tracks.shape, UNKNOWN) if plays is None else plays
    answers = np.empty(tracks.shape)
    for chunk in _chunks(np.arange(len(rows))):
        history = log.history(rows[chunk], shown[chunk])
        state = listener.begin(history)
        answers[chunk] = skip_probability(
            listener.level_probabilities(
                state, history, np.arange(len(chunk)), tracks[chunk], plays[chunk]
            )
        )
    return answers


def query_after(
    listener: Listener[Any], log: Log, heard: npt.NDArray[np.integer], tracks: Ints
) -> Array:
    """Skip probability of songs after first halves in which other songs were heard ``(n, c)``.

    The first `FIRST_PREDICTED` plays are those of the log; the listener hears the others as it
    hears recommended songs, of which no behaviour is known, and as far as the log says.

    Args:
        listener: Queried.
        log: The sessions.
        heard: Songs heard in place of the logged ones ``(n, width)``; only the first halves count.
        tracks: Songs in question ``(n, c)``, of no session.
    """
    answers = np.empty(tracks.shape)
    for chunk in _chunks(np.arange(len(tracks))):
        history = log.history(chunk, np.full(len(chunk), FIRST_PREDICTED))
        state, shown = listener.begin(history), log.shown[chunk]
        for place in range(FIRST_PREDICTED, int(shown.max())):
            rows = np.flatnonzero(shown > place)
            songs, levels = heard[chunk[rows], place], log.levels[chunk[rows], place]
            listener.update_state(state, history, rows, songs.astype(np.int64), levels)
            history.record(rows, songs, levels)
        unknown = np.full(tracks[chunk].shape, UNKNOWN)
        answers[chunk] = skip_probability(
            listener.level_probabilities(
                state, history, np.arange(len(chunk)), tracks[chunk], unknown
            )
        )
    return answers


def predict(listener: Listener[Any], log: Log, targets: Targets) -> Array:
    """Skip probability of plays given the true past ``(n, width)``, NaN elsewhere.

    Everything logged of the past may be used, behavior such as what ended a play included.
    """
    tracks = log.tracks[targets.rows, targets.places][:, None].astype(np.int64)
    places = targets.places[:, None]
    answers = query(listener, log, targets.rows, targets.shown, tracks, places)
    return targets.fill(log, answers[:, 0])


def predict_next_from_levels(listener: Listener[Any], log: Log) -> Array:
    """The same of all next plays, given one play shown, and of all others the level."""

    def logged(chances: Array, rows: Ints, place: int) -> Levels:
        return log.levels[rows, place]

    return _roll(listener, log, np.full(len(log.sessions), FIRST_PREDICTED), logged)[1]


Rolled = tuple[Levels, Array]
"""Sessions continued by a listener over their own tracks, ``(n, width)`` or
``(samples, n, width)``: levels, shown plays as logged, then the listener's, -1 after the end; and
the skip probability of each play after the shown ones, given the levels before it, else NaN."""
Choose = Callable[[Array, Ints, int], Levels]
"""Level of each session's next play, from its level probabilities ``(m, 5)``, which sessions they
are ``(m,)`` and the place of the play."""


def _roll(listener: Listener[Any], log: Log, shown: Ints, choose: Choose) -> Rolled:
    """Go through the rest of the sessions with the levels that ``choose`` gives."""
    levels = np.where(np.arange(log.width) < shown[:, None], log.levels, np.int8(Level.UNHEARD))
    probability = np.full(levels.shape, np.nan)
    for chunk in _chunks(np.arange(len(levels))):
        history = log.history(chunk, shown[chunk])
        state = listener.begin(history)
        for place in range(int(shown[chunk].min()), log.width):
            rows = np.flatnonzero((shown[chunk] <= place) & (log.lengths[chunk] > place))
            if not len(rows):
                continue
            sessions = chunk[rows]
            tracks = log.tracks[sessions, place].astype(np.int64)
            plays = np.full((len(rows), 1), place)
            chances = listener.level_probabilities(state, history, rows, tracks[:, None], plays)
            level = choose(chances[:, 0], sessions, place)
            listener.update_state(state, history, rows, tracks, level)
            history.record(rows, tracks, level)
            levels[sessions, place] = level
            probability[sessions, place] = skip_probability(chances[:, 0])
    return levels, probability


def draw(listener: Listener[Any], log: Log, uniforms: Array) -> Rolled:
    """Second halves drawn from the listener by random numbers ``(..., n, width)``, of that shape.

    With a leading axis of samples, each session is continued once for each.
    """
    shape = uniforms.shape
    flat = uniforms.reshape(-1, log.width)
    repeated = log.part(np.arange(len(flat)) % len(log.sessions))

    def choose(chances: Array, rows: Ints, place: int) -> Levels:
        return sample_levels(chances, flat[rows, place])

    levels, probability = _roll(listener, repeated, repeated.shown, choose)
    return levels.reshape(shape), probability.reshape(shape)


def run_free(
    listener: Listener[Any], log: Log, *, samples: int, rng: np.random.Generator
) -> Rolled:
    """Second halves drawn from the listener, ``samples`` times each: ``(samples, n, width)``.

    At each place the random numbers of a session's samples are spread evenly, one in each of
    ``samples`` equal parts of [0, 1), in random order (Latin hypercube; McKay, Beckman & Conover,
    Technometrics 21, 1979): each sample has the listener's own distribution, and their mean is
    less noisy.
    """
    shape = (samples, len(log.sessions), log.width)
    part = np.broadcast_to(np.arange(samples)[:, None, None], shape)
    return draw(listener, log, (rng.random(shape) + rng.permuted(part, axis=0)) / samples)
