"""How well the reward of a list of songs is predicted: listeners, LIRD's simulators, ingredients.

LIRD's simulators answer a whole list at once. Here each is asked, after the true past, about lists
that the log holds, and its expected reward is set against the logged one; then about the same lists
dealt to other sessions. What is left when the lists are shuffled is the mood of the session, which
no recommender can change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.listeners import SimilarityListener
from musicbox_env.listeners.similarity import (
    Groups,
    Memory,
    SimilarityConfig,
    kept_songs,
    list_reward,
)
from musicbox_env.retrieval.spaces import unit_rows
from musicbox_env.rewards import RewardConfig
from musicbox_experiments.evaluate.resampling import Measured
from musicbox_experiments.trust import protocols
from musicbox_experiments.trust.asking import Array, Ints, Log, expected_list_reward
from musicbox_experiments.trust.measures import Bench, Findings, Record, Subject

LISTS: Final = "list reward"
LIST_SIZE: Final = 3
LIST_SAMPLES: Final = 4

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
        log: The sessions.
        rows: Session of each list ``(m,)``.
        shown: Plays heard before it ``(m,)``.
        tracks: Its songs ``(m, LIST_SIZE)``.
        dealt: The same lists dealt to other sessions ``(m, LIST_SIZE)``.
        reward: Logged reward ``(m,)``.
    """

    log: Log
    rows: Ints
    shown: Ints
    tracks: Ints
    dealt: Ints
    reward: Array

    @classmethod
    def of(cls, bench: Bench) -> Lists:
        """Every full list of the second halves of a bench's sessions."""
        log = bench.log
        rows, shown = _full_lists(log)
        places = shown[:, None] + np.arange(LIST_SIZE)
        tracks = log.tracks[rows[:, None], places].astype(np.int64)
        kept = ~bench.skipped[rows[:, None], places]
        dealt = tracks[bench.rng(5).permutation(len(tracks))]
        reward = list_reward(kept, RewardConfig().gamma_position)
        return cls(log, rows, shown, tracks, dealt, reward)


def _full_lists(log: Log) -> tuple[Ints, Ints]:
    """Session and plays heard before it of every full list of the second halves, end to end."""
    offset = np.arange(0, log.width, LIST_SIZE)
    starts = log.shown[:, None] + offset
    whole = starts + LIST_SIZE <= log.lengths[:, None]
    rows, which = np.nonzero(whole)
    return rows, starts[rows, which]


Predict = Callable[[Ints], Array]
"""Expected rewards of lists ``(m, LIST_SIZE)``, one after each history -> ``(m,)``."""


def of_listener(bench: Bench, subject: Subject, findings: Findings) -> None:
    """A listener that hears the songs of a list one after the other."""
    lists = Lists.of(bench)

    def predict(tracks: Ints) -> Array:
        return expected_list_reward(
            subject.listener,
            bench.log,
            lists.rows,
            lists.shown,
            tracks,
            gamma=RewardConfig().gamma_position,
            samples=LIST_SAMPLES,
            rng=bench.rng(6),
        )

    _correlate(bench, subject.name, lists, predict, findings)


def of_simulators(bench: Bench, findings: Findings) -> None:
    """LIRD's simulators, which answer a list at once, from the training log."""
    lists = Lists.of(bench)
    for name, config in SIMULATORS.items():
        simulator = SimilarityListener(bench.dataset, config, list_size=LIST_SIZE)
        _correlate(bench, name, lists, _by_simulator(simulator, lists), findings)
        if config.mode == "grouped_cosine":
            first = _by_first_musicbox(simulator.memory, bench, lists)
            _correlate(bench, FIRST_MUSICBOX, lists, first, findings)


def _by_simulator(simulator: SimilarityListener, lists: Lists) -> Predict:
    history = lists.log.history(lists.rows, lists.shown)
    gamma = RewardConfig().gamma_position
    return lambda tracks: simulator.predict_lists(history, tracks).reward(gamma)


def _by_first_musicbox(memory: Memory, bench: Bench, lists: Lists) -> Predict:
    """What the first MusicBox made of the same memory; its state is LIRD's."""
    vectors = bench.dataset.embedding(bench.dataset.best_embedding)
    history, groups = lists.log.history(lists.rows, lists.shown), memory.groups()
    states = kept_songs(vectors, history.tracks, history.levels)
    return lambda tracks: first_musicbox_reward(groups, states, vectors[tracks])


def first_musicbox_reward(
    groups: Groups, states: npt.NDArray, lists: npt.NDArray, alpha: float = 0.2
) -> Array:
    """The first MusicBox's simulated reward, its default "grouped cosine", ``(q,)``.

    ::

        w_x = alpha cos(s, mean(s_i)) + (1 - alpha) cos(a, mean(a_i))
        reward = sum_x w_x / sum_y w_y * (sum_k 0.9**k U_x[k])

    Group sizes do not enter, and negative similarities are not cut off, so that its weights are
    no probabilities. With embeddings as the first MusicBox had, whose cosines are all alike, the
    reward is nearly that of equal weights, whatever the session and the songs; with centred ones
    the weights can cancel, and it leaves the range of rewards.

    Args:
        groups: Of the memory.
        states: Unit states ``(q, s)``.
        lists: Unit vectors of the songs ``(q, list_size, d)``.
        alpha: Weight of the state.
    """
    there = groups.sizes > 0
    means, songs = groups.states[there], groups.lists[there].reshape(there.sum(), -1)
    of_state = states @ unit_rows(means).T
    of_list = unit_rows(lists.reshape(len(lists), -1)) @ unit_rows(songs).T
    weights = alpha * of_state + (1 - alpha) * of_list
    reward: Array = weights @ list_reward(groups.outcomes[there]) / weights.sum(axis=1)
    return reward


def _correlate(bench: Bench, name: str, lists: Lists, predict: Predict, findings: Findings) -> None:
    """Correlation with the logged reward, of the logged lists and of those dealt; the spread."""

    def record(metric: str, measured: Measured, bar: float | None = None) -> None:
        findings.records.append(Record.of(name, LISTS, metric, measured, bar))

    predicted = predict(lists.tracks)
    found = {}
    for metric, values in (("correlation", predicted), ("shuffled", predict(lists.dealt))):
        statistic = protocols.correlation(values, lists.reward, lists.rows, bench.num_sessions)
        found[metric] = bench.resampling.measure(statistic)
    record("correlation", found["correlation"], found["shuffled"].value)
    record("shuffled", found["shuffled"])
    record("of_songs", found["correlation"].minus(found["shuffled"]), 0.0)
    nothing = np.empty(0)
    record("sd", Measured(float(predicted.std()), nothing), float(lists.reward.std()))
