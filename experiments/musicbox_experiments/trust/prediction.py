"""Next plays from the true past, second halves from first halves, and free runs.

A log shows late plays only of listeners who had not left, and they leave by what they heard
(`musicbox_env.listeners.leaving`). The published log also holds no session that was skipped or kept
throughout. A listener is queried without knowledge of either. So its continuations are selected as
the log's sessions were: constant ones are drawn again, and of the rest those count that were likely
to last as long.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from musicbox_env.listeners import Listener
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.schema import is_skip
from musicbox_experiments.evaluate.resampling import Measured, Statistic, ratio
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.boosting import BoostingBaseline
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.metrics import Predictions
from musicbox_experiments.trust.queries import (
    Array,
    Levels,
    Log,
    Targets,
    draw,
    predict,
    predict_next_from_levels,
    run_free,
)

NEXT: Final = "next play"
NEXT_LEVELS: Final = "next play, levels only"
"""Given only what a simulation knows."""
RECOMMENDED: Final = "recommended plays"
"""Next plays that were recommended, given all that was logged before them."""
CHALLENGE: Final = "challenge"
FREE: Final = "free running"
LAST_ACTION: Final = "last action"
LOG_NAME: Final = "the log"
CONSTANT: Final = "constant"
REDRAWS: Final = 50
_SESSIONS_AT_ONCE: Final = 500

SCORES: Final[Mapping[str, Callable[[Predictions], Statistic]]] = {
    "auc": metrics.AUC,
    "log_loss": metrics.log_loss,
    "brier": metrics.brier,
    "accuracy": metrics.accuracy,
    "bias": metrics.bias,
}


Answers = dict[str, Any]
"""By protocol: skip probabilities of plays ``(n, width)``, NaN where it queries none. Of free runs
their levels ``(n, samples, width)``, and under `CONSTANT` the share of constant ones ``(n,)``."""


def answers_of(
    listener: Listener[Any],
    log: Log,
    leaving: LeavingModel | None,
    *,
    samples: int,
    draws: int,
    rngs: Sequence[np.random.Generator],
    sees_session: bool = False,
) -> Answers:
    """A listener's answers by all protocols.

    The first three ``rngs`` are those of `free_runs`, the fourth draws second halves. A listener
    that sees the whole session is queried only by protocols that this leaves meaningful.
    """
    levels, constant = free_runs(listener, log, leaving, samples=samples, rngs=rngs[:3])
    found = {
        NEXT: predict(listener, log, Targets.next_plays(log)),
        FREE: levels.swapaxes(0, 1),
        CONSTANT: constant,
    }
    if not sees_session:
        found[NEXT_LEVELS] = predict_next_from_levels(listener, log)
        found[CHALLENGE] = predict_second_halves(listener, log, leaving, draws=draws, rng=rngs[3])
    return found


def answers_of_boosting(baseline: BoostingBaseline) -> Answers:
    """Gradient boosting's answers; it cannot run freely."""
    return {
        NEXT: baseline.next_play,
        NEXT_LEVELS: baseline.next_play_from_levels,
        CHALLENGE: baseline.second_half,
    }


def measure_answers(
    context: Context, name: str, answers: Answers, boosting: Answers | None = None
) -> None:
    """All figures of a listener's answers, beside those of boosting where they are given."""
    for protocol in (NEXT, NEXT_LEVELS):
        if protocol in answers:
            theirs = boosting[protocol] if boosting else None
            measure_scores(context, name, protocol, answers[protocol], theirs)
    if CHALLENGE in answers:
        measure_challenge(context, name, answers[CHALLENGE])
    if FREE in answers:
        measure_free_runs(context, name, answers[FREE].swapaxes(0, 1), answers[CONSTANT])


def measure_scores(
    context: Context,
    name: str,
    protocol: str,
    answers: Array,
    others: Array | None,
    over: str = "boosting",
) -> None:
    """All scores of predictions ``(n, width)``, beside those of another where they are given.

    Those of `NEXT` leave a calibration curve too. ``over`` is what the other is called in the names
    of differences.
    """
    made = context.log.predicted(answers)
    for metric, score in SCORES.items():
        if others is None:
            context.add(name, protocol, metric, score(made))
            continue
        theirs = context.measure(score(context.log.predicted(others)))
        ours = context.add(name, protocol, metric, score(made), theirs.value)
        if metric != "bias":
            context.add(name, protocol, f"{metric}_over_{over}", ours.minus(theirs), 0.0)
    noise = metrics.calibration_noise(made, context.rng(1))
    error = context.measure(metrics.calibration_error(made)).centred()
    context.add(name, protocol, "calibration_error", error, noise)
    context.add(name, protocol, "calibration_excess", error.less(noise), 0.0)
    if protocol == NEXT:
        curve = metrics.calibration_curve(made, context.resampling)
        context.findings.calibration[name] = curve


def chance_to_stay(log: Log, levels: Levels, leaving: LeavingModel) -> Array:
    """Chance, song by song, of a listener who heard these levels to stay as long as the log's did.

    Returns:
        Of that shape, at place t after t songs: ``1 - h`` where the session went on, ``h`` where it
        ended before the cut, 1 in shown halves and after the end. The product is the chance to
        last exactly as long.
    """
    samples, n, width = levels.shape
    chances = np.ones((samples, n, width))
    for count in range(2, width):
        rows = np.flatnonzero((log.shown < count) & (count <= log.lengths))
        heard = levels[:, rows].reshape(-1, width)
        hazard = leaving.chances(heard, np.full(len(heard), count)).reshape(samples, -1)
        chances[:, rows, count] = np.where(log.lengths[rows] == count, hazard, 1 - hazard)
    return chances


# The challenge.


def predict_second_halves(
    listener: Listener[Any],
    log: Log,
    leaving: LeavingModel | None,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Array:
    """Skip probability of plays of second halves ``(n, width)``, given first half and length.

    The songs of a second half, which the challenge gives, tell how long the session lasts, and
    listeners who stay long skip otherwise than those who leave soon. No listener sees that length.
    So ``draws`` continuations of its own are weighted by their chance to last as long. Where nobody
    is seen to leave, all count alike.
    """
    answers = np.full(log.tracks.shape, np.nan)
    for start in range(0, len(answers), _SESSIONS_AT_ONCE):
        rows = np.arange(start, min(start + _SESSIONS_AT_ONCE, len(answers)))
        part = log.part(rows)
        levels, probability = run_free(listener, part, samples=draws, rng=rng)
        stayed = np.ones(levels.shape)
        if leaving is not None:
            stayed = chance_to_stay(part, levels, leaving)
        skips = weighted_skips(levels, probability, stayed)
        answers[rows] = np.where(part.second_half, skips, np.nan)
    return answers


def weighted_skips(levels: Levels, probability: Array, stayed: Array) -> Array:
    """Mean skip ``y_t`` ``(n, width)`` over continuations of weights ``w = prod_t stayed_t``.

    Estimated with the probabilities p that were drawn from, which are less noisy than skips::

        E[w y_t] = E[w p_t] + E[(w - c u_t) (y_t - p_t)],   u_t = prod_{s <= t} stayed_s

    for any c, since u is decided before play t is heard; ``c = E[w] / E[u_t]`` leaves the second
    term small (a control variate).

    Args:
        levels: Levels drawn ``(samples, n, width)``.
        probability: p, the skip probabilities that they were drawn from, NaN where no song is,
            likewise.
        stayed: From `chance_to_stay`, likewise.

    Returns:
        ``(n, width)``, in [0, 1].
    """
    expected = np.nan_to_num(probability)
    weight = stayed.prod(axis=2)[..., None]
    before = np.cumprod(stayed, axis=2)
    before *= weight.mean(axis=0) / before.mean(axis=0)
    surprise = (weight - before) * (is_skip(levels) - expected)
    mean: Array = (weight * expected + surprise).sum(axis=0) / weight.sum(axis=0)
    return np.clip(mean, 0.0, 1.0)


def last_action(log: Log) -> Array:
    """The challenge's baseline: the last play of the first half, repeated ``(n, width)``."""
    last = is_skip(log.levels[np.arange(len(log.sessions)), log.shown - 1])
    return np.repeat(last[:, None], log.width, axis=1).astype(np.float64)


def measure_challenge(context: Context, name: str, answers: Array) -> None:
    """Accuracies of predicted second halves ``(n, width)``, beside repeating the last action."""
    counted, everyone = context.log.second_half, np.ones(context.num_sessions)
    for metric, accuracy in (
        ("mean_average_accuracy", metrics.average_accuracy),
        ("first_accuracy", metrics.first_correct),
    ):
        ours, last = (
            context.measure(ratio(accuracy((of >= 0.5) == context.skipped, counted), everyone))
            for of in (answers, last_action(context.log))
        )
        context.add(name, CHALLENGE, metric, ours, last.value)
        context.add(name, CHALLENGE, f"{metric}_over_last_action", ours.minus(last), 0.0)


# Free runs.


def free_runs(
    listener: Listener[Any],
    log: Log,
    leaving: LeavingModel | None,
    *,
    samples: int,
    rngs: Sequence[np.random.Generator],
) -> tuple[Levels, Array]:
    """Draw second halves from the listener, over their own tracks, and select them as the log's.

    ``rngs`` draw them, draw constant sessions again, and select by how long they last.

    Returns:
        Levels of whole sessions ``(samples, n, width)``; and the share of each session's
        continuations that were skipped or kept throughout before the selection ``(n,)``.
    """
    levels, _ = run_free(listener, log, samples=samples, rng=rngs[0])
    constant = metrics.is_constant(levels).mean(axis=0)
    levels = redraw_constant(listener, log, levels, rng=rngs[1])
    if leaving is not None:
        levels = select_lasting(log, levels, leaving, rng=rngs[2])
    return levels, constant


def redraw_constant(
    listener: Listener[Any], log: Log, drawn: Levels, *, rng: np.random.Generator
) -> Levels:
    """Draw samples ``(samples, n, width)`` that were skipped or kept throughout again.

    After `REDRAWS` attempts what is left stays.
    """
    levels = drawn.copy()
    for _ in range(REDRAWS):
        sample, row = np.nonzero(metrics.is_constant(levels))
        if not len(row):
            break
        again, _ = draw(listener, log.part(row), rng.random((len(row), log.width)))
        levels[sample, row] = again
    return levels


def select_lasting(
    log: Log, levels: Levels, leaving: LeavingModel, *, rng: np.random.Generator
) -> Levels:
    """Resample each session's samples ``(samples, n, width)`` by their `chance_to_stay`.

    Systematic resampling: as many samples, each as often as its share of the chances.
    """
    samples, n, _ = levels.shape
    weight = chance_to_stay(log, levels, leaving).prod(axis=2)
    reached = np.cumsum(weight, axis=0) / weight.sum(axis=0)
    points = (np.arange(samples)[:, None] + rng.random(n)) / samples
    drawn = np.minimum((reached < points[:, None]).sum(axis=1), samples - 1)
    return levels[drawn, np.arange(n)]


def measure_free_runs(context: Context, name: str, levels: Levels, constant: Array) -> None:
    """How `free_runs` go, beside the log: persistence, correlation, runs, spread, places."""
    log, everyone = context.log, np.ones(context.num_sessions)
    ours, real = (metrics.session_shape(of, log.shown) for of in (levels, log.levels[None]))
    ours["constant"] = ratio(constant, everyone)
    real["constant"] = ratio(metrics.is_constant(log.levels), everyone)
    for metric, statistic in ours.items():
        logged = context.measure(real[metric])
        measured = context.add(name, FREE, metric, statistic, logged.value)
        context.add(name, FREE, f"{metric}_off", measured.minus(logged), 0.0)
    _measure_places(context, name, levels)


def _measure_places(context: Context, name: str, levels: Levels) -> None:
    """Skip rate at each place, and its mean distance from the log's over the places."""
    log = context.log
    reached = np.flatnonzero(log.second_half.any(axis=0)).tolist()
    ours, logged = (
        [context.measure(metrics.skip_by_place(of, log.shown, place)) for place in reached]
        for of in (levels, log.levels[None])
    )
    gaps = [o.minus(r) for o, r in zip(ours, logged, strict=True)]
    for place, gap in zip(reached, gaps, strict=True):
        context.add(name, FREE, f"skip_rate_off[position={place + 1}]", gap, 0.0)
    # Weighted by plays: the first places are reached in the shortest sessions alone.
    plays = log.second_half.sum(axis=0)[reached]
    distance = Measured(
        float(np.average([abs(g.value) for g in gaps], weights=plays)),
        np.average([np.abs(g.draws) for g in gaps], axis=0, weights=plays),
    )
    # What two equal simulators would differ by: the noise of the log at each place. The mean
    # distance of a normal variable from its center is sqrt(2 / pi) of its standard deviation.
    spread = np.average([np.std(r.draws) for r in logged], weights=plays)
    noise = float(spread * np.sqrt(2 / np.pi))
    context.add(name, FREE, "skip_by_position_distance", distance.centred(), noise)
    nothing = Measured(float("nan"), np.empty(0))
    for whose, found in ((name, ours), (LOG_NAME, logged)):
        at = dict(zip(reached, found, strict=True))
        context.findings.by_place[whose] = [at.get(p, nothing) for p in range(log.width)]
