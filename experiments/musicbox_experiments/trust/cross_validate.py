"""Hold the learned listener against gradient boosting on training sessions, by cross-validation.

A test split of a few hundred sessions leaves open which of two good models is better, and looking
at it again and again to find out would spend it. Here each fold of the training sessions is asked
about of networks and trees that were fitted on the others, and that know of its tracks and of their
embedding what the others tell. Validation sessions stop the networks; nothing is calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm
from tyro.conf import Positional

from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.listeners.fit_leaving import leaving_seen
from musicbox_experiments.listeners.fit_listener import (
    FOLDS_TO_HOLD_OUT,
    EnsembleConfig,
    drawn_sessions,
    fold_of,
    folds,
    listeners_out_of_fold,
)
from musicbox_experiments.listeners.sessions import TrainingSplit, session_arrays
from musicbox_experiments.trust import measures
from musicbox_experiments.trust.asking import Log, predict_next, predict_next_from_levels
from musicbox_experiments.trust.boosting import BAR_NAME, Boosting, TrackRates
from musicbox_experiments.trust.measures import (
    CHALLENGE,
    FREE,
    FREE_FILTERED,
    FREE_LASTING,
    GREEDY,
    NEXT,
    NEXT_LEVELS,
    Bench,
    Findings,
)
from musicbox_experiments.trust.report import write_records
from musicbox_experiments.trust.tables import About, text_table

Ints = npt.NDArray[np.int64]
LEARNED: Final = "learned"
_CONTINUATIONS: Final = 1
Answers = dict[str, npt.NDArray]
"""By protocol: skip probabilities of plays ``(n, width)``, NaN where it does not ask; where the
listener is left to itself, the levels of its second halves ``(n, samples, width)``."""


@dataclass(frozen=True)
class CrossValidateConfig(EnsembleConfig):
    """Options of `musicbox cross-validate`."""

    data: Positional[Path | None] = None
    """Dataset folder; by default the bundled synthetic one."""
    out: Path = Path("runs/cross_validation")
    """Where cross_validation.json is written: every figure, with interval and bar."""
    max_sessions: int = field(default=5_000, kw_only=True)
    """Of more training sessions, as many are drawn."""
    samples: int = 10
    """Free runs of each session."""
    draws: int = 100
    """Continuations of each session from which its second half is predicted."""
    resamples: int = 500
    """Times that the sessions are drawn anew for the intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "draws", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")


def run(config: CrossValidateConfig) -> Findings:
    """Fit, ask, print the table, write the records."""
    dataset = open_dataset(config.data)
    rng = np.random.default_rng(config.seed)
    split = TrainingSplit.of(dataset, "train", progress=config.progress)
    chosen = drawn_sessions(dataset, "train", config.max_sessions, rng)
    parts = list(answers_of_boosting(config, split, chosen))
    if not parts:
        raise ValueError(
            f"{dataset.folder} has {len(chosen)} training sessions, too few to hold some out; "
            f"expected sessions in at least two of {FOLDS_TO_HOLD_OUT} folds."
        )
    of_boosting, trees = _joined(parts)
    of_learned, networks = _joined(list(answers_of_networks(config, split, chosen)))
    assert np.array_equal(of_boosting, of_learned)
    log = Log.of(dataset, of_learned)
    resampling = Resampling(len(log.sessions), rng=rng, resamples=config.resamples)
    bench = Bench(
        log=log,
        resampling=resampling,
        bars={},
        samples=config.samples,
        draws=config.draws,
        seed=config.seed,
    )
    findings = measured(bench, networks, trees)
    config.out.mkdir(parents=True, exist_ok=True)
    write_records(config.out / "cross_validation.json", findings.records)
    about = About(dataset.about, len(log.sessions), int(log.heard.sum()), split="training")
    print(text_table(findings.records, about))
    print(f"\nEvery figure: {config.out / 'cross_validation.json'}")
    return findings


def answers_of_networks(
    config: CrossValidateConfig, split: TrainingSplit, chosen: Ints
) -> Iterator[tuple[Ints, Answers]]:
    """Held-out sessions, and what networks that were fitted without their fold say of them."""
    dataset = split.dataset
    validation = dataset.sessions.sessions_in("validation")
    evaluated = session_arrays(dataset, validation, split.table)
    rng = np.random.default_rng([config.seed, _CONTINUATIONS])
    for listener, some in listeners_out_of_fold(config, split, chosen, evaluated):
        log = Log.of(dataset, some)
        others = chosen[fold_of(split, chosen) != fold_of(split, some[:1])]
        leaving = leaving_seen(dataset, others)
        runs = measures.free_runs(
            listener, log, leaving, samples=config.samples, rngs=(rng, rng, rng)
        )
        answers = measures.second_half_answers(listener, log, leaving, draws=config.draws, rng=rng)
        yield (
            some,
            {
                NEXT: predict_next(listener, log),
                NEXT_LEVELS: predict_next_from_levels(listener, log),
                **{f"{CHALLENGE}{way}": of for way, of in answers.items()},
                **{protocol: levels.swapaxes(0, 1) for protocol, levels in runs.items()},
            },
        )


def answers_of_boosting(
    config: EnsembleConfig, split: TrainingSplit, chosen: Ints
) -> Iterator[tuple[Ints, Answers]]:
    """The same of gradient-boosted trees; sessions come in the same order."""
    dataset = split.dataset
    bar = tqdm(
        folds(split, chosen), "gradient boosting", FOLDS_TO_HOLD_OUT, disable=not config.progress
    )
    for fold, others, held_out in bar:
        rates = TrackRates(dataset, others, rng=np.random.default_rng([config.seed, fold]))
        training = Log.of(dataset, others)
        models = {
            NEXT: Boosting(training, rates, behaviour=True, seed=config.seed),
            NEXT_LEVELS: Boosting(training, rates, behaviour=False, seed=config.seed),
            CHALLENGE: Boosting(training, rates, behaviour=True, predict=True, seed=config.seed),
        }
        for _, some in split.in_parts(held_out):
            log = Log.of(dataset, some)
            yield some, {protocol: model.predict(log) for protocol, model in models.items()}


def _joined(parts: list[tuple[Ints, Answers]]) -> tuple[Ints, Answers]:
    """Sessions and answers of several parts, one part after the other."""
    sessions, answers = zip(*parts, strict=True)
    together = {name: np.concatenate([of[name] for of in answers]) for name in answers[0]}
    return np.concatenate(sessions), together


def measured(bench: Bench, networks: Answers, trees: Answers) -> Findings:
    """Scores of next plays and second halves beside the trees', and how second halves run."""
    findings = Findings()
    for protocol in (NEXT, NEXT_LEVELS):
        measures.scored(bench, LEARNED, protocol, networks[protocol], trees[protocol], findings)
        measures.scored(bench, BAR_NAME, protocol, trees[protocol], None, findings)
    for name, answers, ways in ((LEARNED, networks, ("", GREEDY)), (BAR_NAME, trees, ("",))):
        second_halves = {way: answers[f"{CHALLENGE}{way}"] for way in ways}
        measures.challenge(bench, name, second_halves, findings)
    measures.last_action(bench, findings)
    for protocol in (FREE, FREE_FILTERED, FREE_LASTING):
        if protocol in networks:
            levels = networks[protocol].swapaxes(0, 1)
            measures.left_to_itself(bench, LEARNED, protocol, levels, findings)
    return findings
