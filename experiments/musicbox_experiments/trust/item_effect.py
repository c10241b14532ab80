"""Is the effect of the choice of song calibrated: slopes, re-ranking by real labels, variance.

An agent changes nothing but the song. A listener that overstates the effect of that choice promises
gains that real listeners do not give.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.summaries import repeats
from musicbox_env.listeners import Listener
from musicbox_env.schema import is_skip
from musicbox_experiments.evaluate.resampling import Measured
from musicbox_experiments.listeners.calibration import songs_instead
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.context import Context, ListenerUnderTest
from musicbox_experiments.trust.metrics import Predictions
from musicbox_experiments.trust.queries import Array, Log, Targets, predict, query

ITEM_EFFECT: Final = "item effect"
RERANKED_SONGS: Final = 3
VARIANCE_SONGS: Final = 10


def song_effects(
    listener: Listener[Any], log: Log
) -> tuple[Predictions, Array, npt.NDArray[np.bool_]]:
    """Query, before each play of the second halves, it and new songs that followed.

    Returns:
        Predictions of the plays given the true past; their effects ``(p,)``, which are the skip
        probabilities less the mean over the `songs_instead`; and which songs are repeats ``(p,)``.
    """
    rows, places = np.nonzero(log.second_half)
    candidates, compared = songs_instead(log.tracks, rows, places)
    tracks = log.tracks[rows[:, None], candidates].astype(np.int64)
    chances = query(listener, log, rows, places, tracks, candidates)
    mean = np.where(compared, chances, 0).sum(axis=1) / compared.sum(axis=1)
    skipped = is_skip(log.levels[rows, places])
    made = Predictions(chances[:, 0], skipped, rows, len(log.sessions))
    return made, chances[:, 0] - mean, repeats(log.tracks)[rows, places]


def measure_slopes(context: Context, tested: ListenerUnderTest) -> None:
    """Calibration slope of the item effect: of all plays, first hearings and repeats."""
    made, effect, repeat = song_effects(tested.listener, context.log)
    for metric, chosen in (
        ("slope", np.ones_like(repeat)),
        ("slope_first_hearings", ~repeat),
        ("slope_repeats", repeat),
    ):
        slope = metrics.item_effect_slope(made, effect, chosen)
        context.add(tested.name, ITEM_EFFECT, metric, slope, 1.0)


def measure_reranking(context: Context, tested: ListenerUnderTest) -> None:
    """Three plays of each second half chosen by the listener: predicted and real gain."""

    def gains(answers: Array) -> tuple[Measured, Measured]:
        real, predicted = metrics.rerank(
            answers,
            context.skipped,
            context.log.second_half,
            size=RERANKED_SONGS,
            rng=context.rng(4),
        )
        return context.measure(real), context.measure(predicted)

    real, predicted = gains(
        predict(tested.listener, context.log, Targets.second_halves(context.log))
    )
    boosting = gains(context.boosting[tested.split].second_half_as_next)
    context.add(tested.name, ITEM_EFFECT, "reranking_real", real, boosting[0].value)
    context.add(tested.name, ITEM_EFFECT, "reranking_predicted", predicted, boosting[1].value)
    context.add(tested.name, ITEM_EFFECT, "reranking_excess", predicted.minus(real), 0.0)


def measure_variance(context: Context, tested: ListenerUnderTest) -> None:
    """Session effect against song, over songs drawn as the log draws them, of other sessions."""
    log = context.log
    pool = log.tracks[log.second_half].astype(np.int64)
    songs = context.rng(7).choice(pool, size=(context.num_sessions, VARIANCE_SONGS))
    chances = query(tested.listener, log, np.arange(len(songs)), log.shown, songs)
    for part, statistic in metrics.variance_shares(chances).items():
        context.add(tested.name, ITEM_EFFECT, f"variance_{part}", statistic)
