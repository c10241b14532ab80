"""The protocols of the trust report: ask a listener, measure, give records.

A record is one figure: of which listener, by which protocol, with its interval, and the bar beside
it (the log, a baseline or the gradient-boosting model; see each protocol). Figures of a part of
the plays name the part in brackets: ``auc[position=5]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import holds, repeats
from musicbox_env.listeners import Listener
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.schema import CONTEXT_TYPES, UNKNOWN, is_skip
from musicbox_experiments.evaluate.resampling import Measured, Resampling, Statistic, ratio
from musicbox_experiments.listeners.fit_leaving import leaving_seen
from musicbox_experiments.trust import protocols
from musicbox_experiments.trust.asking import (
    Array,
    Log,
    ask,
    lasting,
    predict,
    predict_next,
    predict_next_from_levels,
    predict_second_half,
    redraw_constant,
    roll_greedily,
    run_free,
    song_effects,
)
from musicbox_experiments.trust.boosting import Bars
from musicbox_experiments.trust.protocols import Predictions

NEXT: Final = "next play"
NEXT_LEVELS: Final = "next play, levels only"
CHALLENGE: Final = "challenge"
FREE: Final = "free running"
FREE_FILTERED: Final = "free running, constant sessions redrawn"
FREE_LASTING: Final = "free running, lasting as long"
PRICE: Final = "price of a song"

LOG_NAME: Final = "the log"
LAST_ACTION: Final = "last action"
PLAYS_EDGES: Final = (0, 1, 3, 10, 30, 100)
RERANKED_SONGS: Final = 3
MOOD_SONGS: Final = 10
GREEDY: Final = "_greedy"


@dataclass(frozen=True)
class Record:
    """One figure of the report.

    Attributes:
        listener: Whose it is.
        protocol: How it was taken.
        metric: What it is.
        value: The figure; None where there was nothing to measure.
        low: Lower end of its 95 % interval, None where it has none.
        high: Upper end.
        bar: What it is held against, None where there is nothing.
    """

    listener: str
    protocol: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    bar: float | None = None

    @classmethod
    def of(
        cls,
        listener: str,
        protocol: str,
        metric: str,
        measured: Measured,
        bar: float | None = None,
    ) -> Record:
        """A measured figure."""
        value = measured.value if np.isfinite(measured.value) else None
        low, high = (measured.low, measured.high) if value is not None else (None, None)
        return cls(listener, protocol, metric, value, low, high, _finite(bar))


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


@dataclass(frozen=True)
class Subject:
    """A listener under examination.

    Attributes:
        name: How the report calls it.
        listener: As it is asked; the replay listener as `trust_asking.ImputingReplay`.
        spec: What opens it again in an environment: a registered name or a path.
        sees_session: Whether its answers use labels of the whole session, later ones too: it can
            then be held against the log only as an imputer.
        split: Training sessions that it was fitted on; its bar is fitted on the same.
    """

    name: str
    listener: Listener[Any]
    spec: str
    sees_session: bool = False
    split: str = "train"


CurvePoint = tuple[float, Measured, int]


@dataclass
class Findings:
    """What was found, on its way to the report.

    Attributes:
        records: All figures.
        calibration: For each listener (and the bar) its calibration curve on next plays.
        truth: For each listener and kind of songs its curve against exact probabilities.
        by_place: For each listener, and the log, the skip rate at each place of free-running second
            halves that last as long as the log's, ``(width,)``.
        notes: What was left out, and why.
    """

    records: list[Record] = field(default_factory=list)
    calibration: dict[str, list[CurvePoint]] = field(default_factory=dict)
    truth: dict[str, dict[str, list[CurvePoint]]] = field(default_factory=dict)
    by_place: dict[str, list[Measured]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def value(self, listener: str, protocol: str, metric: str) -> Record | None:
        """The record of that name, if there is one."""
        wanted = (listener, protocol, metric)
        found = (r for r in self.records if (r.listener, r.protocol, r.metric) == wanted)
        return next(found, None)


@dataclass(frozen=True)
class Bench:
    """What all listeners are examined on: the same sessions, resamples and bars.

    Attributes:
        log: Test sessions.
        resampling: Their resamples.
        bars: Gradient boosting for each training split that a listener was fitted on.
        samples: Free runs of each session.
        draws: Continuations of each session from which its second half is predicted.
        seed: Of all random numbers, the same for every listener.
    """

    log: Log
    resampling: Resampling
    bars: Mapping[str, Bars]
    samples: int
    draws: int
    seed: int

    @property
    def dataset(self) -> Dataset:
        """Where the sessions are from."""
        return self.log.dataset

    @property
    def num_sessions(self) -> int:
        """Test sessions."""
        return len(self.log.sessions)

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of one purpose, the same for every listener."""
        return np.random.default_rng([self.seed, purpose])

    @cached_property
    def skipped(self) -> npt.NDArray[np.bool_]:
        """Real labels ``(n, width)``."""
        return is_skip(self.log.levels)

    @cached_property
    def leaving(self) -> LeavingModel | None:
        """When listeners of the training sessions leave; None where nobody is seen to."""
        return leaving_seen(self.dataset)

    def predictions(self, rectangle: Array) -> Predictions:
        """The plays that were predicted, of a rectangle ``(n, width)`` with NaN elsewhere."""
        asked = np.isfinite(rectangle)
        session = np.nonzero(asked)[0]
        return Predictions(rectangle[asked], self.skipped[asked], session, self.num_sessions)


# Next play given the true past.

SCORES: Final[Mapping[str, Callable[[Predictions], Statistic]]] = {
    "auc": protocols.AUC,
    "log_loss": protocols.log_loss,
    "brier": protocols.brier,
    "accuracy": protocols.accuracy,
    "bias": protocols.bias,
}


def next_play(bench: Bench, subject: Subject, findings: Findings) -> None:
    """Predict every play but the first from the true past; the bar is gradient boosting on it."""
    full, bars = predict_next(subject.listener, bench.log), bench.bars[subject.split]
    scored(bench, subject.name, NEXT, full, bars.next_play, findings)
    _by_part(bench, subject.name, full, bars.next_play, findings)
    findings.calibration[subject.name] = protocols.calibration_curve(
        bench.predictions(full), bench.resampling
    )
    if not subject.sees_session:
        levels = predict_next_from_levels(subject.listener, bench.log)
        scored(bench, subject.name, NEXT_LEVELS, levels, bars.next_play_from_levels, findings)


def next_play_bars(bench: Bench, findings: Findings) -> None:
    """The bars themselves, as if they were listeners; by part only the one of all of train."""
    for bars in bench.bars.values():
        scored(bench, bars.name, NEXT, bars.next_play, None, findings)
        scored(bench, bars.name, NEXT_LEVELS, bars.next_play_from_levels, None, findings)
    whole = bench.bars["train"]
    _by_part(bench, whole.name, whole.next_play, None, findings)
    findings.calibration[whole.name] = protocols.calibration_curve(
        bench.predictions(whole.next_play), bench.resampling
    )


def scored(
    bench: Bench, name: str, protocol: str, answers: Array, bar: Array | None, findings: Findings
) -> None:
    """All scores, each beside the bar's, and what the listener is better or worse by."""
    made = bench.predictions(answers)
    beside = None if bar is None else bench.predictions(bar)
    measure = bench.resampling.measure
    for metric, score in SCORES.items():
        ours = measure(score(made))
        theirs = None if beside is None else measure(score(beside))
        findings.records.append(
            Record.of(name, protocol, metric, ours, theirs.value if theirs else None)
        )
        if theirs is not None and metric != "bias":
            behind = Record.of(name, protocol, f"{metric}_over_bar", ours.minus(theirs), 0.0)
            findings.records.append(behind)
    noise = protocols.calibration_noise(made, bench.rng(1))
    error = measure(protocols.calibration_error(made)).centred()
    findings.records += [
        Record.of(name, protocol, "calibration_error", error, noise),
        Record.of(name, protocol, "calibration_excess", error.less(noise), 0.0),
    ]


def _by_part(
    bench: Bench, name: str, answers: Array, bar: Array | None, findings: Findings
) -> None:
    """AUC, log-loss and bias by position, context and how often the track was heard."""
    asked = np.isfinite(answers)
    made = bench.predictions(answers)
    beside = None if bar is None else bench.predictions(bar)
    for part, chosen in parts_of(bench.log):
        here = chosen[asked]
        if here.sum() < 2 * protocols.CALIBRATION_BINS:
            continue
        for metric in ("auc", "log_loss", "bias"):
            ours = bench.resampling.measure(SCORES[metric](made.where(here)))
            theirs = None
            if beside is not None:
                theirs = bench.resampling.measure(SCORES[metric](beside.where(here))).value
            findings.records.append(Record.of(name, NEXT, f"{metric}[{part}]", ours, theirs))


def parts_of(log: Log) -> Iterable[tuple[str, npt.NDArray[np.bool_]]]:
    """Parts of the plays by name, each a mask ``(n, width)``.

    The context is that of the play before: that of the play itself is known only once it starts.
    """
    for place in range(log.width):
        yield f"position={place + 1}", log.heard & (np.arange(log.width) == place)
    context = log.dataset.sessions.padded("context_type", log.sessions, log.width)
    before = np.roll(context, 1, axis=1)
    for code, name in enumerate(CONTEXT_TYPES):
        yield f"context={name}", log.heard & (before == code)
    plays = log.dataset.catalog.plays("train")[np.maximum(log.tracks, 0)]
    group = np.searchsorted(PLAYS_EDGES, plays, side="right") - 1
    for code, low in enumerate(PLAYS_EDGES):
        yield f"plays={plays_label(low)}", log.heard & (group == code)


def plays_label(low: int) -> str:
    """Name of the group of tracks with that many training plays or more.

    >>> plays_label(0), plays_label(1), plays_label(100)
    ('0', '1-2', '100+')
    """
    place = PLAYS_EDGES.index(low)
    if place + 1 == len(PLAYS_EDGES):
        return f"{low}+"
    last = PLAYS_EDGES[place + 1] - 1
    return str(low) if last == low else f"{low}-{last}"


# Second halves, from first halves.


def second_halves(bench: Bench, subject: Subject, findings: Findings) -> None:
    """The challenge's protocol and free running."""
    listener, log = subject.listener, bench.log
    if not subject.sees_session:
        answers = second_half_answers(
            listener, log, bench.leaving, draws=bench.draws, rng=bench.rng(11)
        )
        challenge(bench, subject.name, answers, findings)
    runs = free_runs(
        listener,
        log,
        bench.leaving,
        samples=bench.samples,
        rngs=(bench.rng(2), bench.rng(3), bench.rng(10)),
    )
    for protocol, levels in runs.items():
        by_place = left_to_itself(bench, subject.name, protocol, levels, findings)
    findings.by_place |= {subject.name: by_place[0], LOG_NAME: by_place[1]}


def second_half_answers(
    listener: Listener[Any],
    log: Log,
    leaving: LeavingModel | None,
    *,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Skip probabilities of second halves ``(n, width)``, by what their metrics' names end on.

    Given how long the session lasts (see `predict`); and each play taken to go the likeliest way.
    """
    return {
        "": predict(listener, log, leaving, draws=draws, rng=rng),
        GREEDY: roll_greedily(listener, log).probability,
    }


def challenge_bars(bench: Bench, findings: Findings) -> None:
    """The baseline of the challenge, and gradient boosting on first half and distance."""
    for bars in bench.bars.values():
        challenge(bench, bars.name, {"": bars.second_half}, findings)
    last_action(bench, findings)


def last_action(bench: Bench, findings: Findings) -> None:
    """The baseline of the challenge."""
    challenge(bench, LAST_ACTION, {"": _last_action(bench)}, findings)


def _last_action(bench: Bench) -> Array:
    rows = np.arange(bench.num_sessions)
    last = bench.skipped[rows, bench.log.shown - 1]
    return np.repeat(last[:, None], bench.log.width, axis=1).astype(np.float64)


def challenge(bench: Bench, name: str, answers: Mapping[str, Array], findings: Findings) -> None:
    """Accuracies of answers ``(n, width)``; the bar is to repeat the last action."""
    baseline = _accuracies(bench, _last_action(bench))
    for suffix, rectangle in answers.items():
        for metric, measured in _accuracies(bench, rectangle).items():
            last = baseline[metric]
            findings.records += [
                Record.of(name, CHALLENGE, metric + suffix, measured, last.value),
                Record.of(name, CHALLENGE, f"{metric}_over_bar{suffix}", measured.minus(last), 0.0),
            ]


def _accuracies(bench: Bench, answers: Array) -> dict[str, Measured]:
    counted = bench.log.second_half
    correct = (answers >= 0.5) == bench.skipped
    everyone = np.ones(bench.num_sessions)
    figures = {
        "mean_average_accuracy": protocols.average_accuracy(correct, counted),
        "first_accuracy": protocols.first_correct(correct, counted),
    }
    return {
        metric: bench.resampling.measure(ratio(values, everyone))
        for metric, values in figures.items()
    }


def free_runs(
    listener: Listener[Any],
    log: Log,
    leaving: LeavingModel | None,
    *,
    samples: int,
    rngs: tuple[np.random.Generator, np.random.Generator, np.random.Generator],
) -> dict[str, npt.NDArray[np.int8]]:
    """Second halves left to the listener, over their own tracks, by protocol.

    Args:
        listener: Asked.
        log: The sessions.
        leaving: When listeners leave; None where nobody is seen to, and continuations that last as
            long are left out.
        samples: Continuations of each session.
        rngs: Sources of randomness: to draw, to draw constant sessions anew, and to draw again by
            how long they last.

    Returns:
        Levels of whole sessions ``(samples, n, width)``.
    """
    drawn = run_free(listener, log, samples=samples, rng=rngs[0])
    filtered = redraw_constant(listener, log, drawn, rng=rngs[1])
    runs = {FREE: drawn.levels, FREE_FILTERED: filtered.levels}
    if leaving is not None:
        runs[FREE_LASTING] = lasting(log, filtered, leaving, rng=rngs[2]).levels
    return runs


def left_to_itself(
    bench: Bench, name: str, protocol: str, levels: npt.NDArray[np.int8], findings: Findings
) -> tuple[list[Measured], list[Measured]]:
    """How drawn second halves ``(samples, n, width)`` run, beside the log's.

    Returns:
        The listener's and the log's skip rate at each place, NaN where none is reached.
    """
    log = bench.log
    real = protocols.session_shape(log.levels[None], log.shown)
    for metric, statistic in protocols.session_shape(levels, log.shown).items():
        ours = bench.resampling.measure(statistic)
        logged = bench.resampling.measure(real[metric])
        findings.records += [
            Record.of(name, protocol, metric, ours, logged.value),
            Record.of(name, protocol, f"{metric}_off", ours.minus(logged), 0.0),
        ]
    return _by_place(bench, name, protocol, levels, findings)


def _by_place(
    bench: Bench, name: str, protocol: str, levels: npt.NDArray[np.int8], findings: Findings
) -> tuple[list[Measured], list[Measured]]:
    """Skip rate at each place; its mean distance from the log's over the places.

    Returns:
        The listener's and the log's rate at each place, NaN where none is reached.
    """
    log = bench.log
    reached = [p for p in range(log.width) if (log.second_half[:, p]).sum() > 0]

    def rates(of: npt.NDArray[np.int8]) -> list[Measured]:
        statistics = [protocols.skip_by_place(of, log.shown, place) for place in reached]
        return [bench.resampling.measure(statistic) for statistic in statistics]

    ours, logged = rates(levels), rates(log.levels[None])
    gaps = [o.minus(r) for o, r in zip(ours, logged, strict=True)]
    for place, gap in zip(reached, gaps, strict=True):
        metric = f"skip_rate_off[position={place + 1}]"
        findings.records.append(Record.of(name, protocol, metric, gap, 0.0))
    # Weighted by plays: the first places are reached in the shortest sessions alone.
    plays = log.second_half.sum(axis=0)[reached]
    distance = Measured(
        float(np.average([abs(g.value) for g in gaps], weights=plays)),
        np.average([np.abs(g.draws) for g in gaps], axis=0, weights=plays),
    )
    # What two equal simulators would differ by: the noise of the log at each place. The mean
    # distance of a normal variable from its centre is sqrt(2 / pi) of its standard deviation.
    spread = np.average([np.std(r.draws) for r in logged], weights=plays)
    noise = float(spread * np.sqrt(2 / np.pi))
    findings.records.append(
        Record.of(name, protocol, "skip_by_position_distance", distance.centred(), noise)
    )
    nothing = Measured(float("nan"), np.empty(0))
    curves = [dict(zip(reached, figures, strict=True)) for figures in (ours, logged)]
    of_listener, of_log = ([at.get(p, nothing) for p in range(log.width)] for at in curves)
    return of_listener, of_log


# Is the song priced rightly?


def price(bench: Bench, subject: Subject, findings: Findings) -> None:
    """Whether the listener knows what the choice of a song is worth."""
    _variance(bench, subject, findings)
    if subject.sees_session:
        return
    _slopes(bench, subject, findings)
    _from_the_half(bench, subject, findings)


def _slopes(bench: Bench, subject: Subject, findings: Findings) -> None:
    effects = song_effects(subject.listener, bench.log)
    error = bench.skipped[effects.rows, effects.places] - effects.probability
    for metric, chosen in (
        ("slope", np.ones(len(error), np.bool_)),
        ("slope_first_hearings", ~effects.repeat),
        ("slope_repeats", effects.repeat),
    ):
        statistic = protocols.price_slope(
            effects.effect, error, chosen, effects.rows, bench.num_sessions
        )
        measured = bench.resampling.measure(statistic)
        findings.records.append(Record.of(subject.name, PRICE, metric, measured, 1.0))


def _from_the_half(bench: Bench, subject: Subject, findings: Findings) -> None:
    """Songs of second halves, each as if it were the next after the first half.

    Slopes within sessions, and three of the plays left chosen by the listener's own probabilities:
    the gain that it promises, and the real one.
    """
    half = predict_second_half(subject.listener, bench.log)
    made = bench.predictions(half)
    shown, before = (again[np.isfinite(half)] for again in repeats_of(bench.log))
    for metric, chosen in (
        ("slope_within_session", None),
        ("slope_within_session_first_hearings", ~before),
        ("slope_within_session_repeats", shown),
    ):
        measured = bench.resampling.measure(protocols.within_session_slope(made, chosen))
        findings.records.append(Record.of(subject.name, PRICE, metric, measured, 1.0))
    bars = _reranked(bench, bench.bars[subject.split].model.predict_second_half(bench.log))
    ours = _reranked(bench, half)
    for metric, figure in ours.items():
        bar = bars[metric].value
        findings.records.append(Record.of(subject.name, PRICE, metric, figure, bar))
    excess = ours["reranking_promised"].minus(ours["reranking_real"])
    findings.records.append(Record.of(subject.name, PRICE, "reranking_unkept", excess, 0.0))


def repeats_of(log: Log) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Plays whose song is in the shown half, and plays whose song came before, ``(n, width)``."""
    shown = np.where(log.second_half, UNKNOWN, log.tracks)
    return holds(shown, log.tracks) & log.second_half, repeats(log.tracks)


def _reranked(bench: Bench, answers: Array) -> dict[str, Measured]:
    chosen = protocols.rerank(
        answers, bench.skipped, bench.log.second_half, size=RERANKED_SONGS, rng=bench.rng(4)
    )
    return {
        "reranking_real": bench.resampling.measure(chosen.real),
        "reranking_promised": bench.resampling.measure(chosen.promised),
    }


def _variance(bench: Bench, subject: Subject, findings: Findings) -> None:
    """Mood against song, over songs drawn as the log draws them, from other sessions."""
    log = bench.log
    pool = log.tracks[log.second_half].astype(np.int64)
    songs = bench.rng(7).choice(pool, size=(bench.num_sessions, MOOD_SONGS))
    nowhere = np.full(songs.shape, UNKNOWN)
    chances = ask(subject.listener, log, np.arange(bench.num_sessions), log.shown, songs, nowhere)
    for part, statistic in protocols.variance_shares(chances).items():
        measured = bench.resampling.measure(statistic)
        findings.records.append(Record.of(subject.name, PRICE, f"variance_{part}", measured))
