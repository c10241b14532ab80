"""The learned listener beside gradient boosting on held-out folds of the training sessions.

A test split of a few hundred sessions leaves open which of two good models is better, and repeated
looks at it would spend it. Here each fold of the training sessions is predicted by networks and
trees that were fitted on the others; their track rates and embedding know nothing of it. Validation
sessions stop the networks; nothing is calibrated.
"""

from typing import Any, Final

import numpy as np
from tqdm import tqdm

from musicbox_env.data.dataset import Dataset
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
from musicbox_experiments.trust import prediction
from musicbox_experiments.trust.boosting import BOOSTING, BoostingBaseline, TrackRates
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.prediction import (
    CHALLENGE,
    FREE,
    LAST_ACTION,
    NEXT,
    NEXT_LEVELS,
    measure_scores,
)
from musicbox_experiments.trust.queries import (
    Ints,
    Log,
    Targets,
    predict,
    predict_next_from_levels,
)

LEARNED: Final = "learned"
CONSTANT: Final = "constant"
SESSIONS: Final = "sessions"
_CONTINUATIONS: Final = 1
Answers = dict[str, Any]
"""By protocol: skip probabilities of plays ``(n, width)``, NaN where it queries none; for free
runs their levels ``(n, samples, width)``, and the share of constant ones ``(n,)``. Which sessions
these are stands under `SESSIONS`, ``(n,)``."""


def cross_validate(
    config: EnsembleConfig, dataset: Dataset, *, samples: int, draws: int, resamples: int
) -> Context:
    """Fit, predict and measure; all figures are in the findings of what is returned.

    ``config.max_sessions`` is the most training sessions in all.

    Raises:
        ValueError: There are too few sessions to hold some out.
    """
    rng = np.random.default_rng(config.seed)
    split = TrainingSplit.of(dataset, "train", progress=config.progress)
    chosen = drawn_sessions(dataset, "train", config.max_sessions, rng)
    trees = answers_of_boosting(config, split, chosen)
    networks = answers_of_networks(config, split, chosen, samples=samples, draws=draws)
    log = Log.of(dataset, trees[SESSIONS])
    assert np.array_equal(log.sessions, networks[SESSIONS])
    resampling = Resampling(len(log.sessions), rng=rng, resamples=resamples)
    context = Context(log, resampling, {}, samples, draws, config.seed)
    for protocol in (NEXT, NEXT_LEVELS):
        measure_scores(context, LEARNED, protocol, networks[protocol], trees[protocol])
        measure_scores(context, BOOSTING, protocol, trees[protocol], None)
    for name, answers in (
        (LEARNED, networks[CHALLENGE]),
        (BOOSTING, trees[CHALLENGE]),
        (LAST_ACTION, prediction.last_action(log)),
    ):
        prediction.measure_challenge(context, name, answers)
    levels = networks[FREE].swapaxes(0, 1)
    prediction.measure_free_runs(context, LEARNED, levels, networks[CONSTANT])
    return context


def answers_of_networks(
    config: EnsembleConfig, split: TrainingSplit, chosen: Ints, *, samples: int, draws: int
) -> Answers:
    """Answers of networks about each session, fitted without its fold."""
    dataset = split.dataset
    parts: list[Answers] = []
    validation = dataset.sessions.sessions_in("validation")
    evaluated = session_arrays(dataset, validation, split.table)
    rng = np.random.default_rng([config.seed, _CONTINUATIONS])
    for listener, some in listeners_out_of_fold(config, split, chosen, evaluated):
        log = Log.of(dataset, some)
        others = chosen[fold_of(split, chosen) != fold_of(split, some[:1])]
        leaving = leaving_seen(dataset, others)
        levels, constant = prediction.free_runs(
            listener, log, leaving, samples=samples, rngs=(rng, rng, rng)
        )
        parts.append(
            {
                SESSIONS: some,
                CHALLENGE: prediction.predict_second_halves(
                    listener, log, leaving, draws=draws, rng=rng
                ),
                NEXT: predict(listener, log, Targets.next_plays(log)),
                NEXT_LEVELS: predict_next_from_levels(listener, log),
                FREE: levels.swapaxes(0, 1),
                CONSTANT: constant,
            }
        )
    return _joined(parts)


def answers_of_boosting(config: EnsembleConfig, split: TrainingSplit, chosen: Ints) -> Answers:
    """Answers of gradient-boosted trees about each session, fitted without its fold."""
    dataset = split.dataset
    parts: list[Answers] = []
    bar = tqdm(folds(split, chosen), BOOSTING, FOLDS_TO_HOLD_OUT, disable=not config.progress)
    for fold, others, held_out in bar:
        rates = TrackRates(dataset, others, rng=np.random.default_rng([config.seed, fold]))
        some = np.concatenate([part for _, part in split.in_parts(held_out)])
        baseline = BoostingBaseline(
            Log.of(dataset, some), Log.of(dataset, others), rates, config.seed
        )
        parts.append(
            {
                SESSIONS: some,
                NEXT: baseline.next_play,
                NEXT_LEVELS: baseline.next_play_from_levels,
                CHALLENGE: baseline.second_half,
            }
        )
    if not parts:
        raise ValueError(
            f"{dataset.folder} has {len(chosen)} training sessions, too few to hold some out; "
            f"expected sessions in at least two of {FOLDS_TO_HOLD_OUT} folds."
        )
    return _joined(parts)


def _joined(parts: list[Answers]) -> Answers:
    """Answers of several parts, one part after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
