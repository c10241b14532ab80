"""Metrics of a user simulator, on plain arrays.

Probabilities, labels and sessions come in; a `Statistic` goes out, which a `Resampling` of whole
sessions turns into a figure with an interval. A prediction is the probability that a play is
skipped (``skip_2``), a label whether it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from musicbox_env.schema import is_skip
from musicbox_experiments.evaluate.resampling import (
    CHUNK_CELLS,
    Array,
    Ints,
    Measured,
    Resampling,
    Sums,
    by_session,
    quotient,
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
    """Predicted plays of some sessions, or other predictions of theirs.

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

    def sums(self, formula: Callable[[Array], Array], *columns: npt.NDArray) -> Sums:
        """A figure made from the totals ``(r, c)`` of c columns of values ``(p,)``."""
        parts = [by_session(c, self.session, self.num_sessions) for c in columns]
        return Sums(np.stack(parts, axis=1), formula)

    def mean_of(self, values: npt.NDArray) -> Sums:
        """Mean over the plays of values ``(p,)``."""
        return self.sums(quotient, values, np.ones(len(values)))


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
    """Mean calibration error of a perfect listener with these probabilities, which is noise alone.

    Labels are drawn from the probabilities themselves.
    """
    probability, everyone = predictions.probability, np.ones((1, predictions.num_sessions))
    errors = [
        calibration_error(
            replace(predictions, outcome=rng.random(len(probability)) < probability)
        ).of(everyone)[0]
        for _ in range(times)
    ]
    return float(np.mean(errors))


def calibration_curve(
    predictions: Predictions, resampling: Resampling
) -> list[tuple[float, Measured]]:
    """For each bin the mean prediction and the real skip rate."""
    bins = probability_bins(predictions.probability)
    curve = []
    for b in np.unique(bins):
        here = bins == b
        rate = predictions.sums(quotient, predictions.outcome * here, here)
        curve.append((float(predictions.probability[here].mean()), resampling.measure(rate)))
    return curve


# The protocol of the challenge.


def average_accuracy(correct: Mask, counted: Mask) -> Array:
    """Average accuracy of each session ``(n,)``; the challenge's figure is its mean.

    ``AA = sum_i A(i) L(i) / T``: A(i) the share of right predictions among the first i, L(i) 1
    where the i-th place of ``(n, places)`` is right, T the number counted (Brost, Mehrotra & Jehan,
    WWW 2019, arXiv:1901.09851, section 5).
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
    """Figures of how sessions run, over the songs after the shown ones.

    Args:
        levels: Whole sessions, shown plays first ``(samples, n, places)``, -1 after the end. All
            samples of a session count together.
        shown: Number of shown plays of each session ``(n,)``.

    Returns:
        ``skip_rate``; ``skip_after_keep`` and ``skip_after_skip`` (the first one follows the last
        play shown); ``autocorrelation_1`` to ``_5``, of plays both of which come after the shown
        ones; ``skip_run`` and ``keep_run``, the mean length of runs; ``spread``, the standard
        deviation between sessions of their skip rate.
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

    def pearson(total: Array) -> Array:
        n, x, y, xy = total.T
        return np.asarray((n * xy - x * y) / np.sqrt((n * x - x * x) * (n * y - y * y)))

    return Sums(np.stack(parts, axis=1), pearson)


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


# The effect of the choice of song.


def within_session_slope(predictions: Predictions) -> Sums:
    """Slope of real on predicted skips within sessions, whatever each session's level.

    ``sum (p - mean p)(y - mean y) / sum (p - mean p)^2``, the means those of the session: only
    differences between plays of one session count. Below 1 the predicted effect of the choice of
    song is larger than the real one.
    """
    session, n = predictions.session, predictions.num_sessions
    counts = by_session(np.ones(len(session)), session, n)

    def centered(values: npt.NDArray) -> Array:
        means = by_session(values, session, n) / np.maximum(counts, 1)
        return np.where(counts[session] > 1, values - means[session], 0)

    p, y = centered(predictions.probability), centered(predictions.outcome.astype(np.float64))
    return predictions.sums(lambda total: total[:, 0] / _nonzero(total[:, 1]), p * y, p * p)


def share_told(predictions: Predictions) -> Sums:
    """Slope of predicted on exact changes, through 0: 1 tells all of them, 0 nothing.

    NaN where nothing changes.
    """
    p, y = predictions.probability, predictions.outcome
    return predictions.sums(lambda total: total[:, 0] / _nonzero(total[:, 1]), p * y, y * y)


def _nonzero(squares: Array) -> Array:
    """A sum of squares, NaN where it is 0 but for rounding: nothing varies, so no slope."""
    return np.where(squares > LEAST_SQUARES, squares, np.nan)


def correlation(predictions: Predictions) -> Sums:
    """Pearson correlation of prediction and outcome."""
    x, y = predictions.probability, predictions.outcome.astype(np.float64)

    def pearson(total: Array) -> Array:
        n, x, y, xx, yy, xy = total.T
        varied = [_nonzero(square / n - (mean / n) ** 2) for square, mean in ((xx, x), (yy, y))]
        return np.asarray((xy / n - x * y / n**2) / np.sqrt(varied[0] * varied[1]))

    return predictions.sums(pearson, np.ones(len(x)), x, y, x * x, y * y, x * y)


def item_effect_slope(predictions: Predictions, effect: Array, chosen: Mask) -> Sums:
    """Calibration slope of the item effect: 1 where the predicted effect of songs is the real one.

    The effect x of a song is its predicted skip probability less the mean of the songs that the
    session could have played in its place at that moment; e is real less predicted skip. If the
    real effect is b times the predicted one, e = (b - 1) x + noise, so
    ``b = 1 + sum x (e - mean e) / sum x^2``. The mean error, over all plays, belongs to the
    sessions and not to songs. Since the past is the same for all songs compared, what it does to
    the next play cancels; a plain slope of real on predicted within sessions falls below 1 even
    for a perfect listener.

    Args:
        predictions: Of p plays.
        effect: x of each of them ``(p,)``.
        chosen: Which plays count ``(p,)``, such as repeats alone.
    """
    x, error = np.where(chosen, effect, 0.0), predictions.outcome - predictions.probability

    def slope(total: Array) -> Array:
        xx, xe, of_x, of_e, n = total.T
        return 1 + (xe - of_e / n * of_x) / _nonzero(xx)

    return predictions.sums(slope, x * x, x * error, x, error, np.ones(len(x)))


def rerank(
    probability: Array, skipped: Mask, candidates: Mask, *, size: int, rng: np.random.Generator
) -> tuple[Sums, Sums]:
    """Choose the ``size`` candidates ``(n, places)`` least likely to be skipped, in each session.

    ``rng`` breaks ties, since the order of the log is informative.

    Returns:
        Skips of the plays chosen relative to a random choice (-.05 is 5 % fewer), by the real
        labels and by the predicted probabilities.
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

    return relative(skipped.astype(np.float64)), relative(probability)


def variance_shares(probability: Array) -> dict[str, Sums]:
    """Shares of the variance of a skip ``(n, c)``: of sessions, of songs; the rest is chance.

    Of the variance ``m (1 - m)``, with m the mean probability: the part between sessions (the
    session effect), and the part within a session between songs drawn at random. One-way analysis
    of variance with random effects, so that the noise of a mean of c songs does not count as a
    session effect.
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
        "session": Sums(parts, lambda total: shares(total)[0]),
        "song": Sums(parts, lambda total: shares(total)[1]),
    }


# Agreement.


def ranking_agreement(one: Sequence[Measured], other: Sequence[Measured]) -> Measured:
    """Kendall's tau-b between the figures that two evaluators give the same agents."""

    def stacked(figures: Sequence[Measured]) -> Array:
        return np.stack([np.append(f.value, f.draws) for f in figures], axis=1)

    rankings = zip(stacked(one), stacked(other), strict=True)
    tau = np.array([kendalltau(x, y).statistic for x, y in rankings])
    return Measured(float(tau[0]), tau[1:])
