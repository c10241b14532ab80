"""The baseline of next-play prediction: gradient boosting on the same past, fitted on training.

A listener that predicts worse has not used what the log holds. Boosting is no simulator: it
predicts one play at a time, from a table of features of the past.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from musicbox_env.data.catalog import RATE_PRIOR_PLAYS
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats, running_skips
from musicbox_env.schema import Level, is_skip
from musicbox_experiments.trust.queries import Array, Ints, Log, Targets

BOOSTING: Final = "gradient boosting"
BOOSTING_NAMES: Final = {
    "train": BOOSTING,
    "train_a": f"{BOOSTING}, fold A",
    "train_b": f"{BOOSTING}, fold B",
}
RATE_FOLDS: Final = 5
_RATES_PURPOSE: Final = 0
MOST_TRAINING_PLAYS: Final = 150_000
HELD_OUT: Final = 0.15
_LEVELS_SEEN: Final = 10
_DECAYS: Final = (0.5, 0.75, 0.9)
_BEHAVIOR: Final = (
    "reason_end",
    "reason_start",
    "pause",
    "context_switch",
    "seek_forward",
    "seek_back",
)
_BEHAVIOR_SEEN: Final = 3


class TrackRates:
    """Shrunken skip rate and plays of each track, of training sessions, out of fold.

    The rate of a track for a training session of fold f is counted on the other folds, so that no
    play's own label enters its features. (Leaving out the play alone would reveal its label by
    subtraction.) For sessions outside training it is counted on all folds.
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


def features(
    log: Log, targets: Targets, rates: TrackRates, *, behavior: bool, distance: bool
) -> npt.NDArray[np.float32]:
    """What may be known of each play before it starts ``(m, f)``, NaN if unknown.

    Args:
        log: The sessions.
        targets: The plays.
        rates: Of the tracks.
        behavior: Whether the past's behavior columns may be used, and the context of the last
            play heard; else levels alone, and the context of the first play, as in a simulation.
        distance: Whether the distance from the plays heard to the play to predict is a feature.
    """
    last = targets.shown - 1
    columns = [
        *_levels(log, targets.rows, last),
        *_track(log, targets, rates),
        targets.shown.astype(np.float64),
        *_context(log, targets.rows, last if behavior else np.zeros_like(last)),
    ]
    if behavior:
        columns += _behavior(log, targets.rows, last)
    if distance:
        columns.append((targets.places - targets.shown).astype(np.float64))
    return np.stack(columns, axis=1).astype(np.float32)


def _back(values: npt.NDArray, rows: Ints, last: Ints, ago: int) -> Array:
    """A column ``(n, width)`` some plays before the last one heard, NaN before the session."""
    found = values[rows, np.maximum(last - ago, 0)].astype(np.float64)
    return np.where((last >= ago) & (found >= 0), found, np.nan)


def _means_so_far(values: npt.NDArray) -> Array:
    """Mean of the values ``(n, width)`` up to each place."""
    means: Array = np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)
    return means


def _levels(log: Log, rows: Ints, last: Ints) -> list[Array]:
    """The last levels, means of skips and levels, plain and decayed, and the length of the run."""
    skipped = is_skip(log.levels).astype(np.float64)
    graded = np.maximum(log.levels, 0) / float(Level.FULL)
    found = [_means_so_far(values) for values in (skipped, graded, log.levels == Level.FULL)]
    found += [running_skips(log.levels, keep) for keep in _DECAYS]
    run = np.ones_like(skipped)
    for place in range(1, log.width):
        same = skipped[:, place] == skipped[:, place - 1]
        run[:, place] = np.where(same, run[:, place - 1] + 1, 1)
    seen = [_back(log.levels, rows, last, ago) for ago in range(_LEVELS_SEEN)]
    return seen + [values[rows, last] for values in (*found, run)]


def _track(log: Log, targets: Targets, rates: TrackRates) -> list[Array]:
    """The song: its rate and plays, whether and how it was heard before; the songs heard."""
    rows, shown = targets.rows, targets.shown
    track, sessions = log.tracks[rows, targets.places], log.sessions[rows]
    rate, plays = rates.of(sessions, track[:, None])
    past = np.arange(log.width) < shown[:, None]
    past_rate, past_plays = rates.of(sessions, np.maximum(log.tracks[rows], 0))
    skipped = is_skip(log.levels[rows])
    same = past & (log.tracks[rows] == track[:, None])
    times = same.sum(axis=1).astype(np.float64)
    latest = np.where(same, np.arange(log.width), -1).max(axis=1)
    before = (log.levels[rows, np.maximum(latest, 0)], shown - latest, (same & skipped).sum(axis=1))
    return [
        rate[:, 0],
        plays[:, 0],
        np.where(past, skipped - past_rate, 0).sum(axis=1) / shown,
        np.where(past, past_plays, 0).sum(axis=1) / shown,
        times,
        *(np.where(times > 0, value, np.nan) for value in before),
        _means_so_far(repeats(log.tracks))[rows, shown - 1],
    ]


def _context(log: Log, rows: Ints, place: Ints) -> list[Array]:
    at = log.dataset.sessions.offsets[log.sessions[rows]] + place
    names = ("hour", "premium", "context_type", "shuffle")
    values = [log.dataset.sessions.column(name)[at].astype(np.float64) for name in names]
    return [np.where(v >= 0, v, np.nan) for v in values]


def _behavior(log: Log, rows: Ints, last: Ints) -> list[Array]:
    found = []
    for name in _BEHAVIOR:
        column = log.dataset.sessions.padded(name, log.sessions, log.width)
        found += [_back(column, rows, last, ago) for ago in range(_BEHAVIOR_SEEN)]
        if name.startswith("reason"):
            found.append(_means_so_far(column == 0)[rows, last])
    return found


class Boosting:
    """Gradient-boosted trees, fitted on plays of some sessions to predict those of others."""

    def __init__(
        self,
        training: Log,
        rates: TrackRates,
        *,
        behavior: bool,
        second_halves: bool = False,
        seed: int = 0,
    ) -> None:
        """Fit; with ``second_halves`` from first halves, in place of each next play."""
        self._rates, self._behavior, self._second_halves = rates, behavior, second_halves
        rng = np.random.default_rng(seed)
        targets = self._targets(training)
        if len(targets.rows) > MOST_TRAINING_PLAYS:
            some = np.sort(rng.choice(len(targets.rows), MOST_TRAINING_PLAYS, replace=False))
            targets = Targets(targets.rows[some], targets.shown[some], targets.places[some])
        table = self._features(training, targets)
        skipped = is_skip(training.levels[targets.rows, targets.places])
        # Whole sessions are held out to stop on, since plays of one session are alike.
        held_out = (rng.random(len(training.sessions)) < HELD_OUT)[targets.rows]
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
                table[~held_out], skipped[~held_out], X_val=table[held_out], y_val=skipped[held_out]
            )

    def _targets(self, log: Log) -> Targets:
        return Targets.second_halves(log) if self._second_halves else Targets.next_plays(log)

    def _features(self, log: Log, targets: Targets) -> npt.NDArray[np.float32]:
        return features(
            log, targets, self._rates, behavior=self._behavior, distance=self._second_halves
        )

    def predict(self, log: Log, targets: Targets | None = None) -> Array:
        """Skip probability of plays ``(n, width)``, NaN elsewhere; of all its kind by default."""
        targets = targets or self._targets(log)
        table = self._features(log, targets)
        with threadpool_limits(1):
            chances = self._model.predict_proba(table[:, self._columns])
        return targets.fill(log, chances[:, 1])


@dataclass(frozen=True)
class BoostingBaseline:
    """Predictions of gradient boosting for the sessions that listeners are queried about.

    Attributes:
        log: Those sessions.
        training: Sessions to fit on.
        rates: Of the tracks, out of fold for training sessions.
        seed: Of the fits.
        name: Its name in the report.
    """

    log: Log
    training: Log
    rates: TrackRates
    seed: int
    name: str = BOOSTING

    @classmethod
    def of_split(cls, log: Log, training: Log, split: str, seed: int) -> Self:
        """Fitted on some sessions of a training split; track rates are counted on all of it."""
        sessions = log.dataset.sessions.sessions_in(split)
        rng = np.random.default_rng([seed, _RATES_PURPOSE])
        rates = TrackRates(log.dataset, sessions, rng=rng)
        return cls(log, training, rates, seed, BOOSTING_NAMES[split])

    @cached_property
    def model(self) -> Boosting:
        """Of the next play, behavior included."""
        return Boosting(self.training, self.rates, behavior=True, seed=self.seed)

    @cached_property
    def next_play(self) -> Array:
        """Its predictions ``(n, width)``."""
        return self.model.predict(self.log)

    @cached_property
    def next_play_from_levels(self) -> Array:
        """Predictions from levels, tracks and the first context alone ``(n, width)``."""
        model = Boosting(self.training, self.rates, behavior=False, seed=self.seed)
        return model.predict(self.log)

    @cached_property
    def second_half(self) -> Array:
        """Second halves by a model that was fitted to predict them from first halves."""
        model = Boosting(
            self.training, self.rates, behavior=True, second_halves=True, seed=self.seed
        )
        return model.predict(self.log)

    @cached_property
    def second_half_as_next(self) -> Array:
        """Plays of second halves, were each the next after the first half ``(n, width)``."""
        return self.model.predict(self.log, Targets.second_halves(self.log))
