"""The learned listener beside gradient boosting on held-out folds of the training sessions.

A test split of a few hundred sessions leaves open which of two good models is better, and repeated
looks at it would spend it. Here each fold of the training sessions is predicted by networks and
trees that were fitted on the others; their track rates and embedding know nothing of it. Validation
sessions stop the networks; nothing is calibrated.
"""

from typing import Final

import numpy as np

from musicbox_env.data.dataset import Dataset
from musicbox_env.progress import tqdm
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.listeners.fit_leaving import leaving_seen
from musicbox_experiments.listeners.fit_listener import (
    FOLDS_TO_HOLD_OUT,
    EnsembleConfig,
    drawn_sessions,
    fit_networks,
    fold_of,
    folds,
    groups_of_folds,
    listeners_of,
)
from musicbox_experiments.listeners.sessions import TrainingSplit, session_arrays
from musicbox_experiments.text import say
from musicbox_experiments.trust.boosting import BOOSTING, BoostingBaseline, TrackRates
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.prediction import (
    CHALLENGE,
    LAST_ACTION,
    Answers,
    answers_of,
    answers_of_boosting,
    last_action,
    measure_answers,
)
from musicbox_experiments.trust.queries import Ints, Log

LEARNED: Final = "learned"
SESSIONS: Final = "sessions"
"""Key of the sessions ``(n,)`` among the answers about them."""
_CONTINUATIONS: Final = 1


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
    say(f"Step 1 of 2: gradient boosting, {FOLDS_TO_HOLD_OUT} folds.", to_errors=True)
    trees = answers_of_trees(config, split, chosen)
    each = f"{FOLDS_TO_HOLD_OUT} folds of {config.members} networks each"
    say(f"Step 2 of 2: {each}.", to_errors=True)
    networks = answers_of_networks(config, split, chosen, samples=samples, draws=draws)
    log = Log.of(dataset, trees[SESSIONS])
    assert np.array_equal(log.sessions, networks[SESSIONS])
    resampling = Resampling(len(log.sessions), rng=rng, resamples=resamples)
    context = Context(log, resampling, {}, samples, draws, config.seed)
    measure_answers(context, LEARNED, networks, trees)
    measure_answers(context, BOOSTING, trees)
    measure_answers(context, LAST_ACTION, {CHALLENGE: last_action(log)})
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
    groups = groups_of_folds(config, split, chosen)
    fitted = [fit for fit, _ in fit_networks(config, split, evaluated, groups)]
    for listener, some in listeners_of(groups, fitted, split):
        others = chosen[fold_of(split, chosen) != fold_of(split, some[:1])]
        answers = answers_of(
            listener,
            Log.of(dataset, some),
            leaving_seen(dataset, others),
            samples=samples,
            draws=draws,
            rngs=[rng] * 4,
        )
        parts.append({SESSIONS: some, **answers})
    return _joined(parts)


def answers_of_trees(config: EnsembleConfig, split: TrainingSplit, chosen: Ints) -> Answers:
    """Answers of gradient-boosted trees about each session, fitted without its fold."""
    dataset = split.dataset
    parts: list[Answers] = []
    bar = tqdm(folds(split, chosen), BOOSTING, FOLDS_TO_HOLD_OUT, disable=not config.progress)
    for fold, others, held_out in bar:
        rates = TrackRates(dataset, others, rng=np.random.default_rng([config.seed, fold]))
        some = np.concatenate([part for _, part in split.in_parts(held_out)])
        logs = Log.of(dataset, some), Log.of(dataset, others)
        answers = answers_of_boosting(BoostingBaseline(*logs, rates, config.seed))
        parts.append({SESSIONS: some, **answers})
    if not parts:
        raise ValueError(
            f"{dataset.folder} has {len(chosen)} training sessions, too few to hold some out; "
            f"expected sessions in at least two of {FOLDS_TO_HOLD_OUT} folds."
        )
    return _joined(parts)


def _joined(parts: list[Answers]) -> Answers:
    """Answers of several parts, one part after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
