"""Correlation of predicted and logged rewards of lists: listeners and LIRD's simulators.

LIRD's simulators predict the reward of a whole list at once. Here the expected reward of lists that
the log holds, given the true past, is correlated with the logged one; then that of the same lists
dealt to other sessions. What is left of the correlation is the session effect, which no recommender
can change.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from musicbox_env.listeners import Listener, SimilarityListener
from musicbox_env.listeners.similarity import Groups, SimilarityConfig, kept_songs, list_reward
from musicbox_env.retrieval.spaces import unit_rows
from musicbox_env.rewards import RewardConfig
from musicbox_experiments.evaluate.resampling import Measured
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.context import Context, ListenerUnderTest
from musicbox_experiments.trust.metrics import Predictions
from musicbox_experiments.trust.queries import Array, Ints, Log, draw

LISTS: Final = "list reward"
LIST_SIZE: Final = 3
LIST_SAMPLES: Final = 4
GAMMA: Final = RewardConfig().gamma_position

SIMULATORS: Final[Mapping[str, SimilarityConfig]] = {
    "LIRD normal": SimilarityConfig(mode="normal"),
    "LIRD grouped_average": SimilarityConfig(mode="grouped_average"),
    "LIRD grouped_cosine": SimilarityConfig(mode="grouped_cosine"),
    "nearest_k": SimilarityConfig(),
    "nearest_k, k = 1": SimilarityConfig(k=1),
    "nearest_k, k = 10": SimilarityConfig(k=10),
    "nearest_k, not graded": SimilarityConfig(graded=False),
    "nearest_k, not decayed": SimilarityConfig(decay=1.0),
    "nearest_k, alpha = 0.2": SimilarityConfig(alpha=0.2),
}
"""LIRD's three ways, and ``nearest_k`` with one ingredient at a time taken away."""
FIRST_MUSICBOX: Final = "first MusicBox"


@dataclass(frozen=True)
class Lists:
    """Lists of the log, end to end over the second halves.

    Attributes:
        log: The session of each list, of which the shown plays come before it ``(m,)``.
        rows: Which session it is ``(m,)``.
        tracks: Its songs ``(m, LIST_SIZE)``.
        dealt: The same lists dealt to other sessions ``(m, LIST_SIZE)``.
        reward: Logged reward ``(m,)``.
    """

    log: Log
    rows: Ints
    tracks: Ints
    dealt: Ints
    reward: Array

    @classmethod
    def of(cls, context: Context) -> Self:
        """Every full list of the second halves."""
        log = context.log
        starts = log.shown[:, None] + np.arange(0, log.width, LIST_SIZE)
        rows, which = np.nonzero(starts + LIST_SIZE <= log.lengths[:, None])
        shown = starts[rows, which]
        places = shown[:, None] + np.arange(LIST_SIZE)
        tracks = log.tracks[rows[:, None], places].astype(np.int64)
        kept = ~context.skipped[rows[:, None], places]
        dealt = tracks[context.rng(5).permutation(len(tracks))]
        part = replace(log.part(rows), shown=shown)
        return cls(part, rows, tracks, dealt, list_reward(kept, GAMMA))


def measure_listener(context: Context, tested: ListenerUnderTest) -> None:
    """A listener that hears the songs of a list one after the other."""
    lists = Lists.of(context)
    rewards = [
        expected_list_reward(
            tested.listener, lists.log, tracks, samples=LIST_SAMPLES, rng=context.rng(6)
        )
        for tracks in (lists.tracks, lists.dealt)
    ]
    _correlate(context, tested.name, lists, *rewards)


def measure_simulators(context: Context) -> None:
    """LIRD's simulators, which answer a list at once, from the training log."""
    lists = Lists.of(context)
    both = lists.tracks, lists.dealt
    history = lists.log.history(np.arange(len(lists.rows)), lists.log.shown)
    vectors = context.dataset.embedding(context.dataset.best_embedding)
    for name, config in SIMULATORS.items():
        simulator = SimilarityListener(context.dataset, config, list_size=LIST_SIZE)
        rewards = [simulator.predict_lists(history, tracks).reward(GAMMA) for tracks in both]
        _correlate(context, name, lists, *rewards)
        if config.mode == "grouped_cosine":
            groups = simulator.memory.groups()
            states = kept_songs(vectors, history.tracks, history.levels)
            rewards = [first_musicbox_reward(groups, states, vectors[tracks]) for tracks in both]
            _correlate(context, FIRST_MUSICBOX, lists, *rewards)


def expected_list_reward(
    listener: Listener[Any], log: Log, lists: Ints, *, samples: int, rng: np.random.Generator
) -> Array:
    """Expected reward of lists of songs heard in order, by a listener ``(m,)``.

    ``E sum_k gamma^k P(song k kept | songs before it)``, the expectation over how the earlier songs
    of the list ``(m, k)`` are heard by ``samples`` draws, spread evenly over each song's levels.
    """
    m, size = lists.shape
    places = log.shown[:, None] + np.arange(size)
    tracks = log.tracks.copy()
    np.put_along_axis(tracks, places, lists.astype(tracks.dtype), axis=1)
    continued = replace(log, tracks=tracks, lengths=log.shown + size)
    part = rng.permuted(np.tile(np.arange(samples)[:, None, None], (1, m, size)), axis=0)
    uniforms = np.zeros((samples, m, log.width))
    np.put_along_axis(uniforms, places[None], (part + rng.random(part.shape)) / samples, axis=2)
    _, skips = draw(listener, continued, uniforms)
    kept = 1 - np.take_along_axis(skips, places[None], axis=2)
    return np.asarray((kept @ GAMMA ** np.arange(size)).mean(axis=0))


def first_musicbox_reward(
    groups: Groups, states: npt.NDArray, lists: npt.NDArray, alpha: float = 0.2
) -> Array:
    """The first MusicBox's simulated reward, its default "grouped cosine", ``(q,)``.

    ::

        w_x = alpha cos(s, mean(s_i)) + (1 - alpha) cos(a, mean(a_i))
        reward = sum_x w_x / sum_y w_y * (sum_k 0.9**k U_x[k])

    Group sizes do not enter, and negative similarities are not cut off, so that the weights are no
    probabilities. With the embeddings of the first MusicBox, whose cosines are all alike, the
    reward is nearly that of equal weights, whatever the session and the songs; with centered ones
    the weights can cancel, and the reward leaves its range.

    Args:
        groups: Of the memory.
        states: Unit states ``(q, s)``.
        lists: Vectors of the songs of lists ``(q, list_size, d)``.
        alpha: Weight of the state against the list.
    """
    there = groups.sizes > 0
    means, songs = groups.states[there], groups.lists[there].reshape(there.sum(), -1)
    of_state = states @ unit_rows(means).T
    of_list = unit_rows(lists.reshape(len(lists), -1)) @ unit_rows(songs).T
    weights = alpha * of_state + (1 - alpha) * of_list
    reward: Array = weights @ list_reward(groups.outcomes[there]) / weights.sum(axis=1)
    return reward


def _correlate(
    context: Context, name: str, lists: Lists, predicted: Array, of_dealt: Array
) -> None:
    """Correlation with the logged reward, of the logged lists and of those dealt; the spread."""
    logged, shuffled = (
        context.measure(
            metrics.correlation(
                Predictions(rewards, lists.reward, lists.rows, context.num_sessions)
            )
        )
        for rewards in (predicted, of_dealt)
    )
    context.add(name, LISTS, "correlation", logged, shuffled.value)
    context.add(name, LISTS, "shuffled", shuffled)
    context.add(name, LISTS, "of_songs", logged.minus(shuffled), 0.0)
    spread = Measured(float(predicted.std()), np.empty(0))
    context.add(name, LISTS, "sd", spread, float(lists.reward.std()))
