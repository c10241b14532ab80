"""The bar of the trust report: gradient boosting on the same past, fitted on training sessions.

A listener that predicts worse than this has not used what the log holds. It is no simulator: it
predicts one play at a time, from features of the past laid out in a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from musicbox_env.data.catalog import RATE_PRIOR_PLAYS
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats, running_skips
from musicbox_env.schema import Level, is_skip
from musicbox_experiments.trust.asking import FIRST_ASKED, Array, Ints, Log

BAR_NAME: Final = "gradient boosting"
BAR_NAMES: Final = {
    "train": BAR_NAME,
    "train_a": f"{BAR_NAME}, fold A",
    "train_b": f"{BAR_NAME}, fold B",
}
RATE_FOLDS: Final = 5
_RATES_PURPOSE: Final = 0
MOST_TRAINING_PLAYS: Final = 150_000
HELD_OUT: Final = 0.15
_LEVELS_SEEN: Final = 10
_DECAYS: Final = (0.5, 0.75, 0.9)
_BEHAVIOUR: Final = (
    "reason_end",
    "reason_start",
    "pause",
    "context_switch",
    "seek_forward",
    "seek_back",
)
_BEHAVIOUR_SEEN: Final = 3


class TrackRates:
    """Shrunken skip rate and plays of each track, of training sessions, out of fold.

    A training play must not see its own label in its track's rate: the rate of a session of fold f
    is counted on the other folds. (Leaving out the play alone would tell its label by subtraction.)
    Sessions that are not in training see all of it.
    """

    def __init__(self, dataset: Dataset, train: Ints, *, rng: np.random.Generator) -> None:
        """Count the plays of training sessions, in `RATE_FOLDS` random folds of them."""
        log, num_tracks = dataset.sessions, len(dataset.catalog)
        self._fold = np.full(log.num_sessions, RATE_FOLDS, np.int64)
        self._fold[train] = rng.integers(0, RATE_FOLDS, len(train))
        rows = log.plays_of(train)
        fold = np.repeat(self._fold[train], log.lengths(train))
        cell = fold * num_tracks + log.column("track")[rows]
        skipped = is_skip(log.column("level")[rows])
        shape = (RATE_FOLDS, num_tracks)
        size = RATE_FOLDS * num_tracks
        plays = np.bincount(cell, minlength=size).reshape(shape)
        skips = np.bincount(cell[skipped], minlength=size).reshape(shape)
        nothing_left_out = np.zeros((1, num_tracks), plays.dtype)
        self._plays = plays.sum(axis=0) - np.concatenate([plays, nothing_left_out])
        self._skips = skips.sum(axis=0) - np.concatenate([skips, nothing_left_out])
        self._mean = skips.sum() / max(plays.sum(), 1)

    def of(self, sessions: Ints, tracks: npt.NDArray[np.integer]) -> tuple[Array, Array]:
        """Rate and log(1 + plays), as sessions ``(m,)`` may know them of tracks ``(m, c)``."""
        fold = self._fold[sessions][:, None]
        plays, skips = self._plays[fold, tracks], self._skips[fold, tracks]
        rate = (skips + RATE_PRIOR_PLAYS * self._mean) / (plays + RATE_PRIOR_PLAYS)
        return rate, np.log1p(plays)


@dataclass(frozen=True)
class Question:
    """Plays to predict: in which session, after how many plays heard, which play.

    Attributes:
        rows: Session of each question ``(m,)``.
        shown: Plays of it that were heard ``(m,)``, at least 1.
        places: Place of the play in question ``(m,)``, at or after ``shown``.
    """

    rows: Ints
    shown: Ints
    places: Ints

    @classmethod
    def next_plays(cls, log: Log) -> Question:
        """Every play but the first, given all before it."""
        rows, places = np.nonzero(log.heard & (np.arange(log.width) >= FIRST_ASKED))
        return cls(rows, places, places)

    @classmethod
    def second_halves(cls, log: Log) -> Question:
        """Every play of the second half, given the first half."""
        rows, places = np.nonzero(log.second_half)
        return cls(rows, log.shown[rows], places)

    def fill(self, log: Log, answers: Array) -> Array:
        """Answers ``(m,)`` as a rectangle ``(n, width)``, NaN elsewhere."""
        filled = np.full(log.tracks.shape, np.nan)
        filled[self.rows, self.places] = answers
        return filled


def features(
    log: Log, question: Question, rates: TrackRates, *, behaviour: bool, predict: bool
) -> npt.NDArray[np.float32]:
    """What may be known of each play in question before it starts ``(m, f)``, NaN if unknown.

    Args:
        log: The sessions.
        question: The plays.
        rates: Of the tracks.
        behaviour: Whether the past's behaviour columns may be used, and the context of the last
            play heard; else levels alone, and the context of the first play, as in a simulation.
        predict: Whether the distance from the plays heard to the play in question counts.
    """
    last = question.shown - 1
    columns = [
        *_levels(log, question.rows, last),
        *_running(log, question.rows, last),
        *_track(log, question, rates),
        question.shown.astype(np.float64),
        *_context(log, question.rows, last if behaviour else np.zeros_like(last)),
    ]
    if behaviour:
        columns += _behaviour(log, question.rows, last)
    if predict:
        columns.append((question.places - question.shown).astype(np.float64))
    return np.stack(columns, axis=1).astype(np.float32)


def _back(values: npt.NDArray, rows: Ints, last: Ints, ago: int) -> Array:
    """A column ``(n, width)`` some plays before the last one heard, NaN before the session."""
    found = values[rows, np.maximum(last - ago, 0)].astype(np.float64)
    return np.where((last >= ago) & (found >= 0), found, np.nan)


def _levels(log: Log, rows: Ints, last: Ints) -> list[Array]:
    return [_back(log.levels, rows, last, ago) for ago in range(_LEVELS_SEEN)]


def _running(log: Log, rows: Ints, last: Ints) -> list[Array]:
    """Means of the skips and levels heard, decayed and plain, and how long the run has been."""
    skipped = is_skip(log.levels).astype(np.float64)
    graded = np.maximum(log.levels, 0) / float(Level.FULL)
    found = [_means_so_far(values) for values in (skipped, graded, log.levels == Level.FULL)]
    found += [running_skips(log.levels, keep) for keep in _DECAYS]
    run = np.ones_like(skipped)
    for place in range(1, log.width):
        same = skipped[:, place] == skipped[:, place - 1]
        run[:, place] = np.where(same, run[:, place - 1] + 1, 1)
    found.append(run)
    return [values[rows, last] for values in found]


def _means_so_far(values: npt.NDArray) -> Array:
    """Mean of the values ``(n, width)`` up to each place."""
    means: Array = np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)
    return means


def _track(log: Log, question: Question, rates: TrackRates) -> list[Array]:
    """The song: its rate and plays, whether and how it was heard before; the songs heard."""
    rows, shown = question.rows, question.shown
    track = log.tracks[rows, question.places]
    sessions = log.sessions[rows]
    rate, plays = rates.of(sessions, track[:, None])
    past = np.arange(log.width) < shown[:, None]
    past_rate, past_plays = rates.of(sessions, np.maximum(log.tracks[rows], 0))
    unexpected = np.where(past, is_skip(log.levels[rows]) - past_rate, 0).sum(1) / shown
    same = past & (log.tracks[rows] == track[:, None])
    times = same.sum(axis=1)
    latest = np.where(same, np.arange(log.width), -1).max(axis=1)
    level = np.where(times > 0, log.levels[rows, np.maximum(latest, 0)], np.nan)
    ago = np.where(times > 0, shown - latest, np.nan)
    skips = np.where(times > 0, (same & is_skip(log.levels[rows])).sum(axis=1), np.nan)
    mean_plays = np.where(past, past_plays, 0).sum(axis=1) / shown
    return [
        rate[:, 0],
        plays[:, 0],
        unexpected,
        mean_plays,
        times.astype(np.float64),
        level,
        ago,
        skips,
        _means_so_far(repeats(log.tracks))[rows, shown - 1],
    ]


def _context(log: Log, rows: Ints, place: Ints) -> list[Array]:
    at = log.dataset.sessions.offsets[log.sessions[rows]] + place
    names = ("hour", "premium", "context_type", "shuffle")
    values = [log.dataset.sessions.column(name)[at].astype(np.float64) for name in names]
    return [np.where(v >= 0, v, np.nan) for v in values]


def _behaviour(log: Log, rows: Ints, last: Ints) -> list[Array]:
    found = []
    for name in _BEHAVIOUR:
        column = log.dataset.sessions.padded(name, log.sessions, log.width)
        found += [_back(column, rows, last, ago) for ago in range(_BEHAVIOUR_SEEN)]
        if name.startswith("reason"):
            found.append(_means_so_far(column == 0)[rows, last])
    return found


class Boosting:
    """Gradient-boosted trees that predict plays of sessions which they never saw."""

    def __init__(
        self,
        training: Log,
        rates: TrackRates,
        *,
        behaviour: bool,
        predict: bool = False,
        seed: int = 0,
    ) -> None:
        """Fit.

        Args:
            training: Sessions to learn from.
            rates: Track rates, out of fold for those sessions.
            behaviour: See `features`.
            predict: Learn second halves from first halves, in place of each next play.
            seed: Of the part that early stopping holds out, and of the choice of plays where there
                are more than `MOST_TRAINING_PLAYS`.
        """
        self._rates, self._behaviour, self._foresee = rates, behaviour, predict
        rng = np.random.default_rng(seed)
        question = self.question(training)
        if len(question.rows) > MOST_TRAINING_PLAYS:
            some = np.sort(rng.choice(len(question.rows), MOST_TRAINING_PLAYS, replace=False))
            question = Question(question.rows[some], question.shown[some], question.places[some])
        table = self._features(training, question)
        skipped = is_skip(training.levels[question.rows, question.places])
        # Whole sessions are held out to stop on: plays of one session tell of each other.
        held_out = (rng.random(len(training.sessions)) < HELD_OUT)[question.rows]
        # A column that is unknown throughout, as hours may be, has no values to cut into bins.
        self._columns = np.flatnonzero(~np.isnan(table[~held_out]).all(axis=0))
        table = table[:, self._columns]
        self._model = HistGradientBoostingClassifier(
            learning_rate=0.06,
            max_iter=400,
            max_leaf_nodes=15,
            min_samples_leaf=40,
            l2_regularization=5.0,
            early_stopping=True,
            n_iter_no_change=15,
            random_state=seed,
        )
        # On a busy machine several threads of trees wait for each other: ten times as slow as one.
        with threadpool_limits(1):
            self._model.fit(
                table[~held_out],
                skipped[~held_out],
                X_val=table[held_out],
                y_val=skipped[held_out],
            )

    def question(self, log: Log) -> Question:
        """The plays that it is asked about."""
        return Question.second_halves(log) if self._foresee else Question.next_plays(log)

    def _features(self, log: Log, question: Question) -> npt.NDArray[np.float32]:
        return features(
            log, question, self._rates, behaviour=self._behaviour, predict=self._foresee
        )

    def predict(self, log: Log) -> Array:
        """Skip probability of the plays in question ``(n, width)``, NaN elsewhere."""
        return self._answer(log, self.question(log))

    def predict_second_half(self, log: Log) -> Array:
        """Skip probability of each play of the second half, were it the next after the first.

        For a model of next plays, as `trust_asking.predict_second_half` for a listener.
        """
        return self._answer(log, Question.second_halves(log))

    def _answer(self, log: Log, question: Question) -> Array:
        table = self._features(log, question)
        with threadpool_limits(1):
            return question.fill(log, self._model.predict_proba(table[:, self._columns])[:, 1])


@dataclass(frozen=True)
class Bars:
    """What gradient boosting makes of the same test sessions, fitted on one training split.

    Attributes:
        log: Test sessions.
        training: Training sessions of the split.
        split: Its name; tracks' rates are counted on all of it.
        seed: Of the fits.
    """

    log: Log
    training: Log
    split: str
    seed: int

    @property
    def name(self) -> str:
        """How the report calls it."""
        return BAR_NAMES[self.split]

    @cached_property
    def rates(self) -> TrackRates:
        """Of the tracks, out of fold for training sessions."""
        dataset, rng = self.log.dataset, np.random.default_rng([self.seed, _RATES_PURPOSE])
        return TrackRates(dataset, dataset.sessions.sessions_in(self.split), rng=rng)

    @cached_property
    def model(self) -> Boosting:
        """Of the next play, behaviour included."""
        return Boosting(self.training, self.rates, behaviour=True, seed=self.seed)

    @cached_property
    def next_play(self) -> Array:
        """Its predictions ``(n, width)``."""
        return self.model.predict(self.log)

    @cached_property
    def next_play_from_levels(self) -> Array:
        """Predictions from levels, tracks and the first context alone."""
        model = Boosting(self.training, self.rates, behaviour=False, seed=self.seed)
        return model.predict(self.log)

    @cached_property
    def second_half(self) -> Array:
        """Predictions of second halves from first halves."""
        model = Boosting(self.training, self.rates, behaviour=True, predict=True, seed=self.seed)
        return model.predict(self.log)
