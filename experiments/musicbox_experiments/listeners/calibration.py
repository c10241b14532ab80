"""Calibration of a learned listener, on sessions that its networks were not fitted on.

`musicbox_env.listeners.learned.listener` says how the calibration enters the skip logit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logit

from musicbox_env.data.summaries import holds
from musicbox_env.listeners.base import History, skip_probability
from musicbox_env.listeners.learned.listener import FittedNetwork, LearnedListener, LearnedState
from musicbox_env.schema import UNKNOWN, is_skip

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SCALE_SD: Final = 0.1
SHIFT_SD: Final = 0.03
"""Prior standard deviations of scale around 1 and of shift around 0. The shift's is narrow: what a
few hundred sessions skip more than others is mostly chance, and would be simulated on and on."""
SHRINKAGE_SD: Final = 0.25
"""Prior standard deviation of the shrinkage of a song's effect around 1."""
ALTERNATIVES: Final = 4
"""Later plays that a play is compared with, as if they came in its place."""


def songs_instead(
    songs: npt.NDArray[np.integer], rows: Ints, places: Ints
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Songs that could have come at a moment: the one that did, and new ones that followed.

    A song of the session that came again later is none of them. Listeners put it off, so its later
    reception does not tell how it would have been received at once.

    Args:
        songs: Tracks of sessions ``(n, width)``, -1 after the end.
        rows: Session of each play ``(p,)``.
        places: Its place ``(p,)``.

    Returns:
        Places of the play and of `ALTERNATIVES` that followed ``(p, c)``, the play's own where
        there are none, and which of them are to be compared ``(p, c)``, itself always.
    """
    later = places[:, None] + np.arange(1 + ALTERNATIVES)
    padded = np.pad(songs, ((0, 0), (0, ALTERNATIVES)), constant_values=UNKNOWN)
    tracks = padded[rows[:, None], later]
    real = tracks != UNKNOWN
    so_far = np.where(np.arange(songs.shape[1]) <= places[:, None], songs[rows], UNKNOWN)
    compared = real & ~holds(so_far, tracks)
    compared[:, 0] = True
    return np.where(real, later, places[:, None]), compared


@dataclass(frozen=True)
class Moment:
    """The plays of second halves at one place, before they are heard.

    Attributes:
        rows: Sessions that have a play there ``(m,)``.
        place: Songs that they have heard.
        tracks: The next song of each ``(m,)``.
        levels: How far it was heard ``(m,)``.
        state: The listener's state of all sessions.
        history: What all sessions heard.
    """

    rows: Ints
    place: int
    tracks: Ints
    levels: npt.NDArray[np.int8]
    state: LearnedState
    history: History


def second_halves(listener: LearnedListener, sessions: Ints) -> Iterator[Moment]:
    """Go through second halves as the environment plays them, with the logged levels."""
    log, capacity = listener.dataset.sessions, listener.dataset.longest_session
    lengths = log.lengths(sessions)
    shown = np.maximum(log.num_shown(sessions), 1)  # a single play has no second half
    whole = History.logged(listener.dataset, sessions, lengths, capacity)
    history = History.logged(listener.dataset, sessions, shown, capacity)
    state = listener.begin(history)
    for place in range(capacity):
        rows = np.flatnonzero((place >= shown) & (place < lengths))
        tracks, levels = whole.tracks[rows, place].astype(np.int64), whole.levels[rows, place]
        yield Moment(rows, place, tracks, levels, state, history)
        listener.update_state(state, history, rows, tracks, levels)
        history.record(rows, tracks, levels)


@dataclass(frozen=True)
class SongLogits:
    """Uncalibrated logits of plays, each beside songs that could have been played instead.

    Attributes:
        usual: Logit of a usual track at that point of the session ``(p,)``.
        logit: Logits of the play and of `ALTERNATIVES` plays that followed ``(p, c)``.
        repeat: Which of them the session heard before ``(p, c)``.
        compared: Which of them are to be compared; see `songs_instead` ``(p, c)``.
        skipped: Whether the play was skipped ``(p,)``.
        session: Which session it is of ``(p,)``.
    """

    usual: Array
    logit: Array
    repeat: Bools
    compared: Bools
    skipped: Bools
    session: Ints

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Plays of several parts, one part after the other."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def song_logits(listener: LearnedListener, sessions: Ints) -> SongLogits:
    """Logits of the plays of second halves, and of the next plays as if they came at once."""
    dataset = listener.dataset
    songs = dataset.sessions.padded("track", sessions, dataset.longest_session)
    parts = []
    for now in second_halves(listener, sessions):
        places, compared = songs_instead(songs, now.rows, np.full(len(now.rows), now.place))
        tracks = songs[now.rows[:, None], places]
        usual, logits, repeat = listener.network_logits(now.state, now.history, now.rows, tracks)
        base, skipped = usual.mean(axis=0)[:, 0], is_skip(now.levels)
        logit, session = logits.mean(axis=0), sessions[now.rows]
        parts.append(SongLogits(base, logit, repeat, compared, skipped, session))
    return SongLogits.joined(parts)


def held_out_gain(one: SongLogits, other: SongLogits) -> tuple[float, float]:
    """By how much the other's log-loss of a play is lower, and the standard error over sessions."""
    losses = [
        np.logaddexp(0, np.where(songs.skipped, -1, 1) * songs.logit[:, 0])
        for songs in (one, other)
    ]
    of_session = np.unique(one.session, return_inverse=True)[1]
    saved, plays = np.bincount(of_session, losses[0] - losses[1]), np.bincount(of_session)
    total = max(plays.sum(), 1)  # sessions of a single play have no second half
    gain = saved.sum() / total
    return float(gain), float(np.sqrt(np.sum((saved - gain * plays) ** 2)) / total)


def effect_shrinkage(songs: SongLogits) -> tuple[float, float]:
    """Factors that shrink the effect of a song, of first hearings and of repeats.

    The likeliest factors b in ``skip logit = a + s mean logit + (z - mean z)`` with z the song's
    ``b (logit - usual)`` and means over the songs that could have been played at that moment. The
    past is the same for all of these, so what is compared are songs: the slope of real on
    predicted effects becomes 1 (`trust.metrics.item_effect_slope`). a and s take up errors in
    session effects. A normal prior holds the factors near 1 where there are few songs.
    """
    above = songs.logit - songs.usual[:, None]
    several = songs.compared.sum(axis=1)

    def mean(values: Array) -> Array:
        total: Array = np.where(songs.compared, values, 0).sum(axis=1) / several
        return total

    of_session = mean(songs.logit)

    def loss(weights: Array) -> float:
        effects = weights[2:][songs.repeat.astype(np.int64)] * above
        scaled = weights[0] + weights[1] * of_session + effects[:, 0] - mean(effects)
        misfit = np.sum(np.logaddexp(0, scaled) - songs.skipped * scaled)
        return float(misfit + np.sum((weights[2:] - 1) ** 2) / (2 * SHRINKAGE_SD**2))

    bounds = [(None, None), (None, None), (0.0, 2.0), (0.0, 2.0)]
    found = minimize(loss, np.array([0.0, 1.0, 1.0, 1.0]), bounds=bounds, method="L-BFGS-B").x
    return float(found[2]), float(found[3])


def scale_and_shift(logits: Array, skipped: Bools) -> tuple[float, float]:
    """Platt's calibration: the likeliest ``scale * logits + shift``, a prior around 1 and 0.

    Args:
        logits: Skip logits of plays ``(p,)``.
        skipped: Which of them were skipped ``(p,)``.
    """

    def loss(parts: Array) -> float:
        scaled = parts[0] * logits + parts[1]
        misfit = np.sum(np.logaddexp(0, scaled) - skipped * scaled)
        prior = ((parts[0] - 1) / SCALE_SD) ** 2 + (parts[1] / SHIFT_SD) ** 2
        return float(misfit + prior / 2)

    found = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return float(found[0]), float(found[1])


def calibrated(listener: LearnedListener, validation: Ints, songs: SongLogits) -> FittedNetwork:
    """Fit the calibration of an ensemble.

    Args:
        listener: With the uncalibrated ensemble, neither pessimistic nor rejecting.
        validation: Sessions that no member was fitted on ``(v,)``.
        songs: Of these and other sessions, by networks that were not fitted on them.
    """
    song = effect_shrinkage(songs)
    fit = replace(listener.fit, calibration=replace(listener.fit.calibration, song=song))
    simulated = scale_and_shift(
        *second_half_logits(LearnedListener(listener.dataset, fit), validation)
    )
    return replace(fit, calibration=replace(fit.calibration, simulated=simulated))


def second_half_logits(listener: LearnedListener, sessions: Ints) -> tuple[Array, Bools]:
    """Skip logits of all plays of `second_halves`, and which of these were skipped."""
    logits, skipped = [], []
    for now in second_halves(listener, sessions):
        tracks, nowhere = now.tracks[:, None], np.full((len(now.rows), 1), UNKNOWN)
        asked = now.state, now.history, now.rows, tracks, nowhere
        logits.append(logit(skip_probability(listener.level_probabilities(*asked)[:, 0])))
        skipped.append(is_skip(now.levels))
    return np.concatenate(logits), np.concatenate(skipped)
