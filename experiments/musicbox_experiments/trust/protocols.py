"""How far a listener can be believed: the measurements, on plain arrays.

Nothing here asks a listener or reads a dataset: probabilities, labels and sessions come in, figures
with their uncertainty go out. Plays of one session are alike, so every interval draws whole
sessions anew. All figures of a report are drawn with the same `Resampling`, so that differences
between listeners, and between a listener and the log, are paired.

A prediction is a probability that a play is skipped (``skip_2``), a label whether it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import is_skip
from musicbox_experiments.evaluate.resampling import (
    CHUNK_CELLS,
    Array,
    Ints,
    Measured,
    Resampling,
    Sums,
    by_session,
    ratio,
)

Mask = npt.NDArray[np.bool_]

CALIBRATION_BINS: Final = 10
LAGS: Final = (1, 2, 3, 4, 5)
LEAST_PROBABILITY: Final = 1e-6
"""Predictions are kept this far from 0 and 1 in the log-loss, which is infinite there."""
LEAST_SQUARES: Final = 1e-12


@dataclass(frozen=True)
class Predictions:
    """Predicted plays of some sessions.

    Attributes:
        probability: Predicted probability of a skip ``(p,)``.
        outcome: Whether the play was skipped, or exactly how likely that was, ``(p,)``.
        session: Place of the play's session among the n that are resampled ``(p,)``.
        num_sessions: n.
    """

    probability: Array
    outcome: Mask | Array
    session: Ints
    num_sessions: int

    def where(self, chosen: Mask) -> Predictions:
        """Some of the plays."""
        return Predictions(
            self.probability[chosen],
            self.outcome[chosen],
            self.session[chosen],
            self.num_sessions,
        )

    def mean_of(self, values: npt.NDArray) -> Sums:
        """Mean over the plays of values ``(p,)``."""
        total = by_session(values, self.session, self.num_sessions)
        return ratio(total, by_session(np.ones(len(values)), self.session, self.num_sessions))


def log_loss(predictions: Predictions) -> Sums:
    """Mean of -log of the probability that was given to what happened, in nats."""
    p = np.clip(predictions.probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return predictions.mean_of(-np.log(np.where(predictions.outcome, p, 1 - p)))


def brier(predictions: Predictions) -> Sums:
    """Mean squared distance of probability and outcome (Brier, Monthly Weather Review 78, 1950)."""
    return predictions.mean_of((predictions.probability - predictions.outcome) ** 2)


def accuracy(predictions: Predictions) -> Sums:
    """Share of the plays on the right side of one half."""
    return predictions.mean_of((predictions.probability >= 0.5) == predictions.outcome)


def bias(predictions: Predictions) -> Sums:
    """Mean predicted minus real skip rate."""
    return predictions.mean_of(predictions.probability - predictions.outcome)


class AUC:
    """Probability that a skipped play was given a higher probability than a kept one, ties half.

    The Mann-Whitney form: with the plays sorted by probability, each kept play below a skipped one
    counts 1 and each beside it 1/2. Sorted once, so that a resample costs one pass.
    """

    def __init__(self, predictions: Predictions) -> None:
        """Sort the plays."""
        order = np.argsort(predictions.probability, kind="stable")
        ordered = predictions.probability[order]
        self._session = predictions.session[order]
        self._skipped = predictions.outcome[order].astype(np.float64)
        self._ties = np.flatnonzero(np.diff(ordered, prepend=-np.inf) > 0)

    def of(self, weights: Array) -> Array:
        """See `Statistic`; NaN where only one kind of play is there."""
        if not len(self._session):
            return np.full(len(weights), np.nan)
        rows = max(1, CHUNK_CELLS // len(self._session))
        parts = [self._chunk(weights[i : i + rows]) for i in range(0, len(weights), rows)]
        return np.concatenate(parts)

    def _chunk(self, weights: Array) -> Array:
        of_play = weights[:, self._session]
        skipped = np.add.reduceat(of_play * self._skipped, self._ties, axis=1)
        kept = np.add.reduceat(of_play, self._ties, axis=1) - skipped
        below = np.cumsum(kept, axis=1) - kept
        pairs = skipped.sum(axis=1) * kept.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (skipped * (below + kept / 2)).sum(axis=1) / pairs


def probability_bins(probability: Array, bins: int = CALIBRATION_BINS) -> Ints:
    """Bin of each prediction ``(p,)``: bins of equal numbers of plays, ties in one bin."""
    edges = np.unique(np.quantile(probability, np.arange(1, bins) / bins))
    return np.searchsorted(edges, probability, side="right").astype(np.int64)


def calibration_error(predictions: Predictions) -> Sums:
    """Expected calibration error: mean distance of predicted and real rate over the bins.

    ``sum_b n_b / n |mean p_b - mean y_b|`` over `CALIBRATION_BINS` bins of equal size (Naeini,
    Cooper & Hauskrecht, AAAI 2015). Noise alone makes it positive: read it beside
    `calibration_noise`, and its interval `Measured.centred`.
    """
    bins = probability_bins(predictions.probability)
    width = int(bins.max(initial=0)) + 1
    n = predictions.num_sessions
    cell = predictions.session * width + bins
    gap = np.bincount(
        cell, weights=predictions.probability - predictions.outcome, minlength=n * width
    ).reshape(n, width)
    plays = by_session(np.ones(len(bins)), predictions.session, n)
    parts = np.column_stack([gap, plays])
    return Sums(parts, lambda total: np.abs(total[:, :-1]).sum(axis=1) / total[:, -1])


def calibration_noise(
    predictions: Predictions, rng: np.random.Generator, times: int = 100
) -> float:
    """The calibration error that a perfect listener with these probabilities would show on average.

    Labels are drawn from the probabilities themselves; what is left is noise.
    """
    errors = []
    for _ in range(times):
        drawn = rng.random(len(predictions.probability)) < predictions.probability
        alike = Predictions(
            predictions.probability, drawn, predictions.session, predictions.num_sessions
        )
        statistic = calibration_error(alike)
        errors.append(statistic.of(np.ones((1, predictions.num_sessions)))[0])
    return float(np.mean(errors))


def calibration_curve(
    predictions: Predictions, resampling: Resampling
) -> list[tuple[float, Measured, int]]:
    """For each bin the mean prediction, the real skip rate and the number of plays."""
    bins = probability_bins(predictions.probability)
    curve = []
    for b in np.unique(bins):
        part = predictions.where(bins == b)
        real = resampling.measure(part.mean_of(part.outcome))
        curve.append((float(part.probability.mean()), real, len(part.outcome)))
    return curve


# The challenge's protocol.


def average_accuracy(correct: Mask, counted: Mask) -> Array:
    """Average accuracy of each session ``(n,)``; the challenge's figure is its mean.

    ``AA = sum_i A(i) L(i) / T``: A(i) the share of right predictions among the first i, L(i) 1
    where the i-th is right, T the number predicted (Brost, Mehrotra & Jehan, WWW 2019,
    arXiv:1901.09851, section 5).

    Args:
        correct: Which predictions are right ``(n, places)``, in order.
        counted: Which places were to be predicted ``(n, places)``.
    """
    right = correct & counted
    rank = np.maximum(np.cumsum(counted, axis=1), 1)
    so_far = np.cumsum(right, axis=1) / rank
    return (so_far * right).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def first_correct(correct: Mask, counted: Mask) -> Mask:
    """Whether each session's first prediction is right ``(n,)``."""
    first = counted.argmax(axis=1)[:, None]
    return np.take_along_axis(correct & counted, first, axis=1)[:, 0]


# The shape of sessions.


def session_shape(levels: npt.NDArray[np.int8], shown: Ints) -> dict[str, Sums]:
    """Figures that a faithful simulator must reproduce, over the songs after the shown ones.

    Args:
        levels: Whole sessions, shown plays first ``(samples, n, places)``, -1 after the end. All
            samples of a session count together.
        shown: Number of shown plays of each session ``(n,)``.

    Returns:
        ``skip_rate``; ``skip_after_keep`` and ``skip_after_skip`` (the first one follows the last
        play shown); ``autocorrelation_1`` to ``_5``, of plays both of which come after the shown
        ones; ``skip_run`` and ``keep_run``, the mean length of runs; ``spread``, the standard
        deviation between sessions of their skip rate; ``constant``, the share of whole sessions
        skipped or kept throughout.
    """
    skipped, heard = is_skip(levels), levels >= 0
    late = heard & (np.arange(levels.shape[-1]) >= shown[:, None])
    total = lambda cells: cells.sum(axis=(0, 2), dtype=np.float64)  # noqa: E731
    after = late[..., 1:]
    after_skip, after_keep = after & skipped[..., :-1], after & ~skipped[..., :-1]
    figures = {
        "skip_rate": ratio(total(skipped & late), total(late)),
        "skip_after_keep": ratio(total(skipped[..., 1:] & after_keep), total(after_keep)),
        "skip_after_skip": ratio(total(skipped[..., 1:] & after_skip), total(after_skip)),
    }
    for lag in LAGS:
        figures[f"autocorrelation_{lag}"] = _autocorrelation(skipped, late, lag)
    begins = late.copy()
    begins[..., 1:] &= ~late[..., :-1] | (skipped[..., 1:] != skipped[..., :-1])
    figures["skip_run"] = ratio(total(skipped & late), total(skipped & begins))
    figures["keep_run"] = ratio(total(~skipped & late), total(~skipped & begins))
    figures["spread"] = _spread((skipped & late).sum(-1) / np.maximum(late.sum(-1), 1))
    figures["constant"] = ratio(is_constant(levels).mean(axis=0), np.ones(levels.shape[1]))
    return figures


def is_constant(levels: npt.NDArray[np.int8]) -> Mask:
    """Whether a session was skipped, or kept, throughout ``(..., places)`` -> ``(...)``."""
    skipped, heard = is_skip(levels), levels >= 0
    return np.asarray((skipped | ~heard).all(axis=-1) | (~skipped | ~heard).all(axis=-1))


def _autocorrelation(skipped: Mask, counted: Mask, lag: int) -> Sums:
    """Pearson correlation of plays ``lag`` apart, pooled over all sessions."""
    both = counted[..., lag:] & counted[..., :-lag]
    x, y = skipped[..., :-lag] & both, skipped[..., lag:] & both
    parts = [cells.sum(axis=(0, 2), dtype=np.float64) for cells in (both, x, y, x & y)]
    return Sums(np.stack(parts, axis=1), _binary_correlation)


def _binary_correlation(total: Array) -> Array:
    """Correlation of two 0/1 variables from n, sum x, sum y, sum xy ``(r, 4)``."""
    n, x, y, xy = total.T
    return (n * xy - x * y) / np.sqrt((n * x - x * x) * (n * y - y * y))


def _spread(rates: Array) -> Sums:
    """Standard deviation between sessions of rates ``(samples, n)``."""
    parts = np.stack([np.ones(rates.shape[1]), rates.mean(0), (rates**2).mean(0)], axis=1)

    def deviation(total: Array) -> Array:
        mean = total[:, 1] / total[:, 0]
        return np.sqrt(np.maximum(total[:, 2] / total[:, 0] - mean**2, 0))

    return Sums(parts, deviation)


def skip_by_place(levels: npt.NDArray[np.int8], shown: Ints, place: int) -> Sums:
    """Skip rate at one session position (from 0), over sessions to which it was not shown."""
    counted = (levels[..., place] >= 0) & (shown <= place)
    skipped = is_skip(levels[..., place]) & counted
    return ratio(skipped.sum(axis=0), counted.sum(axis=0))


# Is the song priced rightly?


def within_session_slope(predictions: Predictions, chosen: Mask | None = None) -> Sums:
    """Slope of real on predicted skips within sessions, whatever each session's level.

    ``sum (p - mean p)(y - mean y) / sum (p - mean p)^2``, the means those of the session: only
    differences between plays of one session count. Below 1 the listener believes that the choice
    of song matters more than it does.

    Args:
        predictions: The plays.
        chosen: Those over which to sum ``(p,)``, such as repeats; the means remain those of all.
    """
    centred_p, _ = _centred(predictions.probability, predictions)
    centred_y, counts = _centred(predictions.outcome.astype(np.float64), predictions)
    counted = counts > 1 if chosen is None else (counts > 1) & chosen
    n = predictions.num_sessions
    together = by_session(np.where(counted, centred_p * centred_y, 0), predictions.session, n)
    alone = by_session(np.where(counted, centred_p**2, 0), predictions.session, n)
    parts = np.stack([together, alone], axis=1)
    return Sums(parts, lambda total: total[:, 0] / _more_than_rounding(total[:, 1]))


def _more_than_rounding(squares: Array) -> Array:
    """A sum of squares, NaN where it is 0 but for rounding: nothing varies, so no slope."""
    return np.where(squares > LEAST_SQUARES, squares, np.nan)


def _centred(values: Array, predictions: Predictions) -> tuple[Array, Array]:
    """Values less their session's mean, and the number of plays of that session, both ``(p,)``."""
    session, n = predictions.session, predictions.num_sessions
    counts = by_session(np.ones(len(values)), session, n)
    means = by_session(values, session, n) / np.maximum(counts, 1)
    return values - means[session], counts[session]


def correlation(x: Array, y: Array, session: Ints, num_sessions: int) -> Sums:
    """Pearson correlation over all pairs ``(p,)``."""
    columns = (np.ones(len(x)), x, y, x * x, y * y, x * y)
    parts = np.stack([by_session(c, session, num_sessions) for c in columns], axis=1)

    def pearson(total: Array) -> Array:
        n, x, y, xx, yy, xy = total.T
        varied = [
            _more_than_rounding(square / n - (mean / n) ** 2) for square, mean in ((xx, x), (yy, y))
        ]
        return (xy / n - x * y / n**2) / np.sqrt(varied[0] * varied[1])

    return Sums(parts, pearson)


@dataclass(frozen=True)
class Reranking:
    """What choosing among the real plays left is worth, promised and kept.

    Attributes:
        real: Skips of the plays chosen, relative to a random choice: -.05 is 5 % fewer.
        promised: The same by the listener's own probabilities.
    """

    real: Sums
    promised: Sums


def price_slope(
    effect: Array, error: Array, chosen: Mask, session: Ints, num_sessions: int
) -> Sums:
    """How much of a song's predicted effect is real: 1 where songs are priced rightly.

    The effect x of a song is its predicted skip probability less the mean of the songs that the
    session could have played in its place at that moment; e is real less predicted skip. If the
    real effect is b times the predicted one, e = (b - 1) x + noise, so
    ``b = 1 + sum x (e - mean e) / sum x^2``. The mean error, over all plays, is a matter of the
    listener's mood and not of songs. Since the past is the same for all songs compared, what it
    does to the next play cancels; a plain slope of real on predicted within sessions falls below 1
    even for a perfect listener.

    Args:
        effect: Predicted effect of the song played ``(p,)``.
        error: Real less predicted skip ``(p,)``.
        chosen: The plays of interest ``(p,)``, such as first hearings.
        session: Their sessions ``(p,)``.
        num_sessions: Number of sessions.
    """
    x = np.where(chosen, effect, 0.0)
    columns = (x * x, x * error, x, error, np.ones(len(x)))
    parts = np.stack([by_session(c, session, num_sessions) for c in columns], axis=1)

    def slope(total: Array) -> Array:
        xx, xe, of_x, of_e, n = total.T
        return 1 + (xe - of_e / n * of_x) / _more_than_rounding(xx)

    return Sums(parts, slope)


def rerank(
    probability: Array,
    skipped: Mask,
    candidates: Mask,
    *,
    size: int,
    rng: np.random.Generator,
) -> Reranking:
    """Choose the ``size`` candidates least likely to be skipped, in each session.

    Args:
        probability: Predicted ``(n, places)``.
        skipped: Real labels ``(n, places)``.
        candidates: Plays to choose among ``(n, places)``.
        size: Plays to choose; of fewer candidates, all are taken.
        rng: Breaks ties: the order of the log would tell something.
    """
    key = np.where(candidates, probability, np.inf)
    order = np.lexsort((rng.random(key.shape), key), axis=1)[:, :size]
    chosen = np.zeros(candidates.shape, np.bool_)
    np.put_along_axis(chosen, order, True, axis=1)
    chosen &= candidates
    share = chosen.sum(axis=1) / np.maximum(candidates.sum(axis=1), 1)

    def relative(values: Array) -> Sums:
        expected = np.where(candidates, values, 0).sum(axis=1) * share
        parts = np.stack([np.where(chosen, values, 0).sum(axis=1), expected], axis=1)
        return Sums(parts, lambda total: total[:, 0] / total[:, 1] - 1)

    return Reranking(relative(skipped.astype(np.float64)), relative(probability))


def variance_shares(probability: Array) -> dict[str, Sums]:
    """What an answer depends on: the listener's mood, the song, or chance alone.

    Of the variance of a skip, ``m (1 - m)`` with m the mean probability: the part between sessions
    (mood), the part within a session between songs drawn at random (song), and the rest (chance).
    One-way analysis of variance with random effects, so that the mean of c songs does not pass
    for mood.

    Args:
        probability: Of songs drawn alike for each session ``(n, c)``.
    """
    c = probability.shape[1]
    within = probability.var(axis=1, ddof=1)
    means = probability.mean(axis=1)
    parts = np.stack([np.ones(len(means)), means, means**2, within], axis=1)

    def shares(total: Array) -> tuple[Array, Array]:
        mean, square, song = (total[:, 1:] / total[:, :1]).T
        whole = mean * (1 - mean)
        return (square - mean**2 - song / c) / whole, song / whole

    return {
        "mood": Sums(parts, lambda total: shares(total)[0]),
        "song": Sums(parts, lambda total: shares(total)[1]),
    }


# Agreement.


def kendall_tau(x: Array, y: Array) -> Array:
    """Kendall's tau-b between two rankings of the same things, for each row ``(r, k)`` -> ``(r,)``.

    ``(agreeing - disagreeing pairs) / sqrt(pairs untied in x * pairs untied in y)`` (Kendall,
    Biometrika 33, 1945).
    """
    first, second = np.triu_indices(x.shape[1], k=1)
    of_x = np.sign(x[:, first] - x[:, second])
    of_y = np.sign(y[:, first] - y[:, second])
    untied = np.abs(of_x).sum(axis=1) * np.abs(of_y).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (of_x * of_y).sum(axis=1) / np.sqrt(untied)


def ranking_agreement(one: Sequence[Measured], other: Sequence[Measured]) -> Measured:
    """Kendall's tau between what two listeners make of the same agents."""

    def stacked(figures: Sequence[Measured]) -> tuple[Array, Array]:
        return np.array([[f.value for f in figures]]), np.stack([f.draws for f in figures], axis=1)

    (value, draws), (other_value, other_draws) = stacked(one), stacked(other)
    return Measured(float(kendall_tau(value, other_value)[0]), kendall_tau(draws, other_draws))
