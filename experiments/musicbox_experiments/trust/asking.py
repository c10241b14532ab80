"""Asking listeners about logged sessions: given the true past, and left to themselves.

Every function takes the sessions in any number, asks in chunks of rows, and returns rectangles with
a row a session and a column a place of the session, NaN (or -1) where nothing was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

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
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.listeners.replay import ReplayState
from musicbox_env.schema import SKIP_THRESHOLD, UNHEARD, UNKNOWN, Level, is_skip
from musicbox_experiments.listeners.calibration import songs_instead
from musicbox_experiments.trust.protocols import is_constant

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int8]

FIRST_ASKED: Final = 1
"""Place of the first play that is predicted: before it a listener has heard nothing to go by."""
REDRAWS: Final = 50
_CHUNK_ROWS: Final = 4096
_SESSIONS_AT_ONCE: Final = 500


class ImputingReplay(ReplayListener):
    """The replay listener, made to impute the play that it is asked about.

    Asked about a play that its session holds, it would give the logged label back. Here that play
    is hidden: it is imputed, and its own label is not among the donors. The labels of the session's
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
        asked = rows[row]
        heard = History(**{f.name: getattr(history, f.name)[asked] for f in fields(history)})
        blinded, every = self.begin(heard), np.arange(len(row))
        blinded.levels[every, plays[row, candidate]] = UNHEARD
        answers[row, candidate] = super().level_probabilities(
            blinded,
            heard,
            every,
            tracks[row, candidate][:, None],
            np.full((len(row), 1), UNKNOWN),
        )[:, 0]
        return answers


def without_answers(listener: Listener[Any]) -> Listener[Any]:
    """The listener as it must be to be examined: one that does not look the answer up.

    Raises:
        ValueError: It answers from the log, and nobody knows how to make it impute.
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
    """The sessions to ask about, as rectangles.

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
    def of(cls, dataset: Dataset, sessions: Ints) -> Log:
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

    def part(self, rows: npt.NDArray) -> Log:
        """Some of the sessions, which may be named more than once."""
        return Log(
            self.dataset,
            self.sessions[rows],
            self.lengths[rows],
            self.shown[rows],
            self.tracks[rows],
            self.levels[rows],
        )

    def history(self, rows: npt.NDArray, shown: Ints) -> History:
        """The first plays of some of the sessions, as logged, with room for as many songs."""
        return History.logged(self.dataset, self.sessions[rows], shown, self.width)


def _chunks(rows: npt.NDArray, size: int = _CHUNK_ROWS) -> Iterator[npt.NDArray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def ask(
    listener: Listener[Any], log: Log, rows: Ints, shown: Ints, tracks: Ints, plays: Ints
) -> Array:
    """Skip probability of songs, were each the next after the first plays of a session.

    Args:
        listener: Asked.
        log: The sessions.
        rows: Which of them ``(m,)``.
        shown: How many of their plays were heard, as logged, ``(m,)``, at least 1.
        tracks: Songs asked about ``(m, c)``.
        plays: Which plays of the session they are, -1 where none ``(m, c)``.
    """
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


def predict_next(listener: Listener[Any], log: Log) -> Array:
    """Skip probability of every play but the first, given all that the log holds before it.

    Everything logged of the past may be used, behaviour such as what ended a play included.

    Returns:
        ``(n, width)``, NaN at the first place and after the end.
    """
    asked = log.heard & (np.arange(log.width) >= FIRST_ASKED)
    rows, places = np.nonzero(asked)
    answers = np.full(log.tracks.shape, np.nan)
    tracks = log.tracks[asked].astype(np.int64)
    answers[asked] = ask(listener, log, rows, places, tracks[:, None], places[:, None])[:, 0]
    return answers


def predict_next_from_levels(listener: Listener[Any], log: Log) -> Array:
    """The same given only what a simulation knows: one play shown, of all others the level.

    The listener begins with the first play and is told the true level of each that follows, as the
    simulator tells it its own.
    """
    return _roll(listener, log, np.full(len(log.sessions), FIRST_ASKED), true_levels).probability


def predict_second_half(listener: Listener[Any], log: Log) -> Array:
    """Skip probability of each play of the second half, were it the next after the first half.

    Returns:
        ``(n, width)``, NaN elsewhere. Plays of one session differ only by their song.
    """
    tracks = np.maximum(log.tracks, 0).astype(np.int64)
    places = np.where(log.second_half, np.arange(log.width), UNKNOWN)
    answers = ask(listener, log, np.arange(len(tracks)), log.shown, tracks, places)
    return np.where(log.second_half, answers, np.nan)


@dataclass(frozen=True)
class SongEffects:
    """Every play of the second halves beside the songs that could have come in its place.

    Attributes:
        rows: Session of each play ``(p,)``.
        places: Its place ``(p,)``.
        probability: Skip probability given the true past ``(p,)``.
        effect: The same less the mean over the `songs_instead` ``(p,)``.
        repeat: Whether the session had heard the song before ``(p,)``.
    """

    rows: Ints
    places: Ints
    probability: Array
    effect: Array
    repeat: npt.NDArray[np.bool_]


def song_effects(listener: Listener[Any], log: Log) -> SongEffects:
    """Ask, before each play of the second halves, about it and new songs that followed."""
    rows, places = np.nonzero(log.second_half)
    candidates, compared = songs_instead(log.tracks, rows, places)
    tracks = log.tracks[rows[:, None], candidates].astype(np.int64)
    chances = ask(listener, log, rows, places, tracks, candidates)
    mean = np.where(compared, chances, 0).sum(axis=1) / compared.sum(axis=1)
    before = np.arange(log.width) < places[:, None]
    repeat = ((log.tracks[rows] == tracks[:, :1]) & before).any(axis=1)
    return SongEffects(rows, places, chances[:, 0], chances[:, 0] - mean, repeat)


@dataclass(frozen=True)
class Rolled:
    """Sessions continued by a listener over their own tracks.

    Attributes:
        levels: Whole sessions ``(n, width)``: shown plays as logged, then the listener's, -1 after
            the end.
        probability: Skip probability of each play after the shown ones, given the levels before
            it, ``(n, width)``; NaN elsewhere.
    """

    levels: Levels
    probability: Array


Choose = Callable[[Array, Log, Ints, int], Levels]
"""Level of each session's next play, from its level probabilities ``(m, 5)``, the log, which of its
sessions they are ``(m,)`` and the place of the play."""


def _roll(listener: Listener[Any], log: Log, shown: Ints, choose: Choose) -> Rolled:
    """Go through the rest of the sessions with the levels that ``choose`` gives."""
    levels = np.where(np.arange(log.width) < shown[:, None], log.levels, np.int8(Level.UNHEARD))
    probability = np.full(levels.shape, np.nan)
    for chunk in _chunks(np.arange(len(levels))):
        history = log.history(chunk, shown[chunk])
        state = listener.begin(history)
        for place in range(int(shown[chunk].min()), log.width):
            going = (shown[chunk] <= place) & (log.lengths[chunk] > place)
            rows = np.flatnonzero(going)
            if not len(rows):
                continue
            who = chunk[rows]
            tracks = log.tracks[who, place].astype(np.int64)
            plays = np.full((len(rows), 1), place)
            chances = listener.level_probabilities(state, history, rows, tracks[:, None], plays)
            level = choose(chances[:, 0], log, who, place)
            listener.update_state(state, history, rows, tracks, level)
            history.record(rows, tracks, level)
            levels[who, place] = level
            probability[who, place] = skip_probability(chances[:, 0])
    return Rolled(levels, probability)


def true_levels(chances: Array, log: Log, rows: Ints, place: int) -> Levels:
    """What the log says: teacher forcing."""
    return log.levels[rows, place]


def likeliest_levels(chances: Array, log: Log, rows: Ints, place: int) -> Levels:
    """Skipped or kept, whichever is likelier, and of the levels of that side the likeliest."""
    skipped = skip_probability(chances) >= 0.5
    brief = chances[:, :SKIP_THRESHOLD].argmax(axis=1)
    long = chances[:, SKIP_THRESHOLD:].argmax(axis=1) + SKIP_THRESHOLD
    return np.where(skipped, brief, long).astype(np.int8)


def roll_greedily(listener: Listener[Any], log: Log) -> Rolled:
    """Second halves without feedback, each play taken to go the likeliest way."""
    return _roll(listener, log, log.shown, likeliest_levels)


def run_free(
    listener: Listener[Any], log: Log, *, samples: int, rng: np.random.Generator
) -> Rolled:
    """Second halves drawn from the listener, ``samples`` times each.

    At each place the random numbers of a session's samples are spread evenly, one in each of
    ``samples`` equal parts of [0, 1), in random order (Latin hypercube; McKay, Beckman & Conover,
    Technometrics 21, 1979): each sample is as likely as before, and their mean less noisy.

    Returns:
        Arrays ``(samples, n, width)``.
    """
    n = len(log.sessions)
    shape = (samples, n, log.width)
    part = np.broadcast_to(np.arange(samples)[:, None, None], shape)
    uniforms = (rng.random(shape) + rng.permuted(part, axis=0)) / samples
    repeated = log.part(np.tile(np.arange(n), samples))
    rolled = _draw(listener, repeated, uniforms.reshape(-1, log.width))
    return Rolled(rolled.levels.reshape(shape), rolled.probability.reshape(shape))


def _draw(listener: Listener[Any], log: Log, uniforms: Array) -> Rolled:
    """Second halves drawn from the listener by random numbers ``(n, width)``."""

    def draw(chances: Array, log: Log, rows: Ints, place: int) -> Levels:
        return sample_levels(chances, uniforms[rows, place])

    return _roll(listener, log, log.shown, draw)


def redraw_constant(
    listener: Listener[Any], log: Log, rolled: Rolled, *, rng: np.random.Generator
) -> Rolled:
    """Draw sessions that were skipped or kept throughout anew, until they are neither.

    The published log holds none of them, without saying why, so a simulator that is compared with
    it must not have any either. After `REDRAWS` attempts what is left stays.

    Args:
        listener: Made ``rolled`` by `run_free`.
        log: The sessions.
        rolled: Samples ``(samples, n, width)``; not changed.
        rng: Source of randomness.
    """
    levels, probability = rolled.levels.copy(), rolled.probability.copy()
    for _ in range(REDRAWS):
        sample, row = np.nonzero(is_constant(levels))
        if not len(row):
            break
        again = _draw(listener, log.part(row), rng.random((len(row), log.width)))
        levels[sample, row], probability[sample, row] = again.levels, again.probability
    return Rolled(levels, probability)


def going_on(log: Log, levels: Levels, leaving: LeavingModel) -> Array:
    """How likely listeners who heard this were to stay as long as they did, song by song.

    Args:
        log: The sessions.
        levels: Whole sessions, shown plays first ``(samples, n, width)``.
        leaving: The hazard h.

    Returns:
        ``(samples, n, width)``, at place t of what they did after t songs: ``1 - h`` where the
        session went on, ``h`` where it ended before the cut, 1 in shown halves and after the end.
        The product is the chance to last exactly as long.
    """
    samples, n, width = levels.shape
    chances = np.ones((samples, n, width))
    for count in range(2, width):
        rows = np.flatnonzero((log.shown < count) & (count <= log.lengths))
        heard = levels[:, rows].reshape(-1, width)
        hazard = leaving.chances(heard, np.full(len(heard), count)).reshape(samples, -1)
        chances[:, rows, count] = np.where(log.lengths[rows] == count, hazard, 1 - hazard)
    return chances


def lasting(log: Log, rolled: Rolled, leaving: LeavingModel, *, rng: np.random.Generator) -> Rolled:
    """Continuations that last as long as the log's: each drawn again by how likely that is.

    The log shows late positions only of listeners who had not left, and they leave by what they
    heard (`musicbox_env.listeners.leaving`), so a continuation that is to be compared must have
    stayed too.
    Of a session's samples as many are drawn anew, by systematic resampling, weighted by the product
    of `going_on`.

    Args:
        log: The sessions.
        rolled: Samples ``(samples, n, width)``; not changed.
        leaving: When listeners leave.
        rng: Source of randomness.
    """
    samples, n, _ = rolled.levels.shape
    weight = going_on(log, rolled.levels, leaving).prod(axis=2)
    reached = np.cumsum(weight, axis=0) / weight.sum(axis=0)
    points = (np.arange(samples)[:, None] + rng.random(n)) / samples
    drawn = np.minimum((reached < points[:, None]).sum(axis=1), samples - 1)
    everyone = np.arange(n)
    return Rolled(rolled.levels[drawn, everyone], rolled.probability[drawn, everyone])


def predict(
    listener: Listener[Any],
    log: Log,
    leaving: LeavingModel | None,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Array:
    """Skip probability of each play of the second halves, given the first and how long it lasts.

    Whoever is given the songs of a second half, as in the challenge, knows how many there are, and
    who stays for many songs hears them otherwise than who leaves soon. No listener sees that
    length. Of its own continuations those count that were likely to last as long.

    Args:
        listener: Asked.
        log: The sessions.
        leaving: When listeners leave; None where nobody is seen to, and all continuations count
            alike.
        draws: Continuations of each session.
        rng: Source of randomness.

    Returns:
        ``(n, width)``, NaN elsewhere.
    """
    answers = np.full(log.tracks.shape, np.nan)
    for rows in _chunks(np.arange(len(answers)), _SESSIONS_AT_ONCE):
        part = log.part(rows)
        rolled = run_free(listener, part, samples=draws, rng=rng)
        stayed = np.ones(rolled.levels.shape)
        if leaving is not None:
            stayed = going_on(part, rolled.levels, leaving)
        answers[rows] = np.where(part.second_half, weighted_skips(rolled, stayed), np.nan)
    return answers


def weighted_skips(rolled: Rolled, stayed: Array) -> Array:
    """Mean skip ``y_t`` of each play over continuations with weights ``w = prod_t stayed_t``.

    Estimated with the probabilities p that were drawn from, which are less noisy than skips::

        E[w y_t] = E[w p_t] + E[(w - c u_t) (y_t - p_t)],   u_t = prod_{s <= t} stayed_s

    for any c, since u is decided before play t is heard; ``c = E[w] / E[u_t]`` leaves the second
    term small (a control variate).

    Args:
        rolled: Continuations ``(samples, n, width)``.
        stayed: What `going_on` gives of them ``(samples, n, width)``.

    Returns:
        ``(n, width)``, in [0, 1].
    """
    expected = np.nan_to_num(rolled.probability)
    weight = stayed.prod(axis=2)[..., None]
    before = np.cumprod(stayed, axis=2)
    before *= weight.mean(axis=0) / before.mean(axis=0)
    surprise = (weight - before) * (is_skip(rolled.levels) - expected)
    mean: Array = (weight * expected + surprise).sum(axis=0) / weight.sum(axis=0)
    return np.clip(mean, 0.0, 1.0)


def expected_list_reward(
    listener: Listener[Any],
    log: Log,
    rows: Ints,
    shown: Ints,
    slates: Ints,
    *,
    gamma: float,
    samples: int,
    rng: np.random.Generator,
) -> Array:
    """What a listener promises for lists of songs heard in order: the expected list reward.

    ``E sum_k gamma^k P(song k kept | songs before it)``, the expectation over how the earlier songs
    of the list are heard by ``samples`` draws, spread evenly over each song's levels.

    Args:
        listener: Asked.
        log: The sessions.
        rows: Session of each list ``(m,)``.
        shown: Plays heard before it, as logged, ``(m,)``.
        slates: Songs ``(m, k)``; to the replay listener they are in no log.
        gamma: Discount from place to place.
        samples: Draws of each list.
        rng: Source of randomness.
    """
    m, size = slates.shape
    capacity = log.width + size
    reward = np.zeros(m * samples)
    lists = np.tile(np.arange(m), samples)
    strata = np.tile(np.arange(samples)[:, None, None], (1, m, size))
    uniforms = rng.permuted(strata, axis=0).reshape(m * samples, size)
    uniforms = (uniforms + rng.random(uniforms.shape)) / samples
    for chunk in _chunks(np.arange(len(lists))):
        which = lists[chunk]
        sessions = log.sessions[rows[which]]
        history = History.logged(log.dataset, sessions, shown[which], capacity)
        state = listener.begin(history)
        everyone = np.arange(len(chunk))
        nowhere = np.full((len(chunk), 1), UNKNOWN)
        for k in range(size):
            tracks = slates[which, k]
            chances = listener.level_probabilities(
                state, history, everyone, tracks[:, None], nowhere
            )[:, 0]
            reward[chunk] += gamma**k * (1 - skip_probability(chances))
            level = sample_levels(chances, uniforms[chunk, k])
            listener.update_state(state, history, everyone, tracks, level)
            history.record(everyone, tracks, level)
    return reward.reshape(samples, m).mean(axis=0)
