"""The similarity listener: responds as logged listeners did to the most similar lists.

It is the memory-based simulator of LIRD (Zhao et al., arXiv:1801.00209, section 3.2). A memory
holds pairs of a state and a list of songs, with the levels at which that list was heard; the
response to a new pair comes from similar ones. Numbers beside the code are those of the paper's
equations.

There are four ways to do this. The first three are the paper's and the first MusicBox's, kept as
documented references; they predict badly. ``nearest_k`` is the one to use.

================  ============================================================  ===============
mode              answer                                                        state
================  ============================================================  ===============
normal            levels of the one nearest pair (1, 2)                         songs kept
grouped_average   lists with equal rewards are one group, weighed by its        songs kept
                  summed similarity (3)
grouped_cosine    the same with the cosine to the group's mean pair (1)         songs kept
nearest_k         levels of the k nearest pairs, each counted once              graded levels
================  ============================================================  ===============

Probabilities are never negative, since similarities are cut off at 0, and always sum to one.

LIRD evaluates a list at once; here songs are heard one by one. So the next song is taken as the
first of its list: its state is all that was heard before it, songs of the same slate included, and
its pair is compared with the state and first song of those in memory. `predict_lists` evaluates a
whole list, as the paper does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.base import Doubles, History, Ints, Listener, NoState, Rows, for_each
from musicbox_env.retrieval.exact import top_k
from musicbox_env.retrieval.spaces import unit_rows
from musicbox_env.schema import NUM_LEVELS, UNKNOWN, Level, is_skip, require_known

MODES: Final = ("nearest_k", "normal", "grouped_average", "grouped_cosine")
LIST_DISCOUNT: Final = 0.9
"""Gamma of the list reward, equation 4."""
HISTORY_SONGS: Final = 10
LEVEL_DECAY: Final = 0.8
"""Weight of a play in a graded state, relative to the one after it."""
LONGEST_LIST: Final = 12
"""Songs of a list: there are ``2**list_size`` possible rewards, and room for all of them."""
USUAL_LEVEL: Final = 0.5
"""Graded levels are counted from here, so that skipped and kept plays point apart."""
SIMILARITIES_AT_ONCE: Final = 1 << 22
"""16 MB of them."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SimilarityConfig:
    """Settings of a similarity listener.

    Attributes:
        mode: One of `MODES`.
        alpha: Weight of the state against the list, equation 1; by default 0.8 for ``nearest_k``
            and the first MusicBox's 0.2 for the others.
        k: Pairs that ``nearest_k`` averages.
        shortlist: Pairs of nearest state among which ``nearest_k`` finds them.
        graded: Whether its state tells the levels apart, or only skipped from kept.
        decay: Weight of a play in its state, relative to the one after it.
        memory: Pairs in memory; of more in the log, so many are drawn.
        list_size: Songs of a list.
        split: Sessions in memory: train, train_a or train_b.
        seed: Of the draw.
    """

    mode: str = "nearest_k"
    alpha: float | None = None
    k: int = 50
    shortlist: int = 200
    graded: bool = True
    decay: float = LEVEL_DECAY
    memory: int = 20_000
    list_size: int = 3
    split: str = "train"
    seed: int = 0

    def __post_init__(self) -> None:
        require_known("mode of the similarity listener", self.mode, MODES)
        require_known(
            "memory of the similarity listener", self.split, ("train", "train_a", "train_b")
        )
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}; it must be in [0, 1].")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it must be in (0, 1].")
        for name in ("k", "memory", "list_size", "shortlist"):
            value, most = getattr(self, name), LONGEST_LIST if name == "list_size" else None
            if not isinstance(value, int) or value < 1 or (most and value > most):
                end = f", and at most {most}" if most else ""
                raise ValueError(f"{name} is {value!r}; it must be 1 or more{end}.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative.")
        if self.shortlist < self.k:
            raise ValueError(
                f"shortlist is {self.shortlist} and k {self.k}; the k nearest pairs are looked "
                "for in the shortlist, which must not be shorter."
            )

    @property
    def state_weight(self) -> float:
        """Alpha with its default filled in."""
        if self.alpha is not None:
            return self.alpha
        return 0.8 if self.mode == "nearest_k" else 0.2


@dataclass(frozen=True)
class Memory:
    """m pairs of state and list, from the log.

    Attributes:
        states: Unit state vectors ``(m, s)``, 0 where there is none.
        lists: Unit vectors of the songs ``(m, list_size, d)``.
        levels: How far each song was heard ``(m, list_size)``.
    """

    states: Floats
    lists: Floats
    levels: npt.NDArray[np.int8]

    def groups(self) -> Groups:
        """Pairs with equal rewards put together."""
        list_size = self.levels.shape[1]
        outcomes = possible_outcomes(list_size)
        group = (~is_skip(self.levels)).astype(np.int64) @ (1 << np.arange(list_size))
        sizes = np.bincount(group, minlength=len(outcomes))
        states = np.zeros((len(outcomes), self.states.shape[1]))
        lists = np.zeros((len(outcomes), *self.lists.shape[1:]))
        shares = np.zeros((len(outcomes), list_size, NUM_LEVELS))
        for x in np.flatnonzero(sizes):
            members = group == x
            states[x] = self.states[members].mean(axis=0)
            lists[x] = self.lists[members].mean(axis=0)
            shares[x] = (self.levels[members][:, :, None] == np.arange(NUM_LEVELS)).mean(axis=0)
        return Groups(outcomes, sizes, states, lists, shares)


@dataclass(frozen=True)
class Groups:
    """Pairs of equal rewards, a group for each of the ``2**list_size`` possible rewards.

    Attributes:
        outcomes: Which songs are kept ``(x, list_size)``.
        sizes: Pairs of each group ``(x,)``, N_x.
        states: Mean of their unit states ``(x, s)``.
        lists: Mean of their songs ``(x, list_size, d)``.
        shares: How often each level occurs at each place ``(x, list_size, 5)``.
    """

    outcomes: npt.NDArray[np.bool_]
    sizes: npt.NDArray[np.int64]
    states: Doubles
    lists: Doubles
    shares: Doubles

    def probabilities(
        self, states: npt.NDArray, lists: npt.NDArray, alpha: float, *, cosine: bool
    ) -> Doubles:
        """Equation 3: how likely each group's reward is, ``(q, x)``.

        ::

            P(p -> U_x) ~ N_x (alpha s . mean(s_i) + (1 - alpha) a . mean(a_i))

        with unit vectors s, a, s_i, a_i; that is the summed similarity of its members. A negative
        one counts as 0; where none is positive, groups are as likely as they are large.

        Args:
            states: Unit states ``(q, s)``.
            lists: The first songs of lists ``(q, places, d)``, each a unit vector.
            alpha: Weight of the state.
            cosine: Whether the means are scaled to norm 1 first, which makes the bracket the
                cosines of equation 1.
        """
        places = lists.shape[1]
        actions, mean_states, mean_lists = _actions(lists), self.states, self.lists[:, :places]
        if cosine:
            mean_states = unit_rows(mean_states)
            mean_lists = unit_rows(mean_lists.reshape(len(mean_lists), -1))
        else:
            mean_lists = _actions(mean_lists)
        similarity = alpha * np.einsum("qs,xs->qx", states, mean_states)
        similarity += (1 - alpha) * np.einsum("qa,xa->qx", actions, mean_lists)
        weight = self.sizes * np.maximum(similarity, 0.0)
        total = weight.sum(axis=1, keepdims=True)
        frequency = self.sizes / self.sizes.sum()
        return np.where(total > 0, weight / np.where(total > 0, total, 1.0), frequency)


class ListPrediction(NamedTuple):
    """How lists of songs are received.

    Attributes:
        outcomes: Possible rewards: which songs are kept ``(x, list_size)``.
        probabilities: How likely each of them is ``(n, x)``.
    """

    outcomes: npt.NDArray[np.bool_]
    probabilities: Doubles

    def reward(self, gamma: float = LIST_DISCOUNT) -> Doubles:
        """Expected list reward ``(n,)``, equation 4: sum of ``gamma**k * kept_k`` over places."""
        return self.probabilities @ list_reward(self.outcomes, gamma)


class SimilarityListener(Listener[NoState]):
    """Responds from a memory of logged lists; see the module for what each mode does.

    Attributes:
        dataset: Where the memory comes from.
        config: Its settings.
        memory: The pairs.
    """

    def __init__(self, dataset: Dataset, config: SimilarityConfig | None = None, **settings: Any):
        """Draw a memory from the log of a dataset.

        Args:
            dataset: Songs are compared by its first embedding.
            config: All settings at once.
            settings: Settings by name; they replace those of ``config``.

        Raises:
            ValueError: A setting is out of range, or no session is long enough for a list.
        """
        self.dataset = dataset
        self.config = replace(config or SimilarityConfig(), **settings)
        self._vectors = dataset.embedding(dataset.best_embedding)
        self.memory = self._draw_memory(np.random.default_rng(self.config.seed))
        self._groups = self.memory.groups()

    def __reduce__(self) -> tuple[Callable[..., SimilarityListener], tuple[Any, ...]]:
        """Pickle by the dataset's path."""
        return type(self), (self.dataset, self.config)

    def _draw_memory(self, rng: np.random.Generator) -> Memory:
        """Draw pairs among all of the split: a list begins after any but the last plays."""
        config, log = self.config, self.dataset.sessions
        sessions = log.sessions_in(config.split)
        starts = np.maximum(log.lengths(sessions) - config.list_size, 0)
        ends = np.cumsum(starts)
        total = int(ends[-1]) if len(ends) else 0
        if not total:
            raise ValueError(
                f"No session of {config.split!r} has more than {config.list_size} plays, so there "
                "is no list for the memory. Use a smaller list_size, or more sessions."
            )
        size = min(config.memory, total)
        drawn = np.sort(rng.choice(total, size, replace=False, shuffle=False))
        at = np.searchsorted(ends, drawn, side="right")
        begin = 1 + drawn - (ends[at] - starts[at])
        places = (log.offsets[sessions[at]] + begin)[:, None] + np.arange(config.list_size)
        states = [
            self._states(
                History.logged(self.dataset, sessions[at[part]], begin[part], begin[part].max())
            )
            for part in np.array_split(np.arange(size), 1 + size // 4096)
        ]
        lists = self._vectors[log.column("track")[places]]
        return Memory(np.concatenate(states), lists, np.asarray(log.column("level")[places]))

    def _states(self, history: History) -> Floats:
        """Unit state vectors of sessions ``(n, s)``, from what they heard."""
        tracks, levels, count = history.arrays
        if self.config.mode == "nearest_k":
            return level_states(levels, count, graded=self.config.graded, decay=self.config.decay)
        return kept_songs(self._vectors, tracks, levels)

    def level_probabilities(
        self, state: NoState, history: History, rows: Rows, tracks: Ints, plays: Ints
    ) -> Doubles:
        """Levels of similar pairs at the first place of their lists; see the base class."""
        lists = self._vectors[for_each(rows, tracks)][:, :, None]
        first = self.memory.levels[:, 0, None] == np.arange(NUM_LEVELS)
        return self._answers(history.at(rows), lists, self._groups.shares[:, 0], first)

    def predict_lists(self, history: History, slates: npt.NDArray[np.integer]) -> ListPrediction:
        """How whole lists are received after a history.

        Args:
            history: n sessions.
            slates: A list for each ``(n, list_size)``.

        Raises:
            ValueError: The lists have another length than those in memory.
        """
        size = self.config.list_size
        if slates.ndim != 2 or slates.shape[1] != size:
            raise ValueError(
                f"slates have shape {slates.shape}; expected (sessions, {size}), as the memory "
                f"holds lists of {size} songs. Build the listener with another list_size."
            )
        outcomes, kept = self._groups.outcomes, ~is_skip(self.memory.levels)
        of_pairs = (kept[:, None] == outcomes).all(axis=2)
        lists = self._vectors[slates][:, None]
        chances = self._answers(history, lists, np.eye(len(outcomes)), of_pairs)
        return ListPrediction(outcomes, chances[:, 0])

    def _answers(
        self, history: History, lists: Floats, of_groups: Doubles, of_pairs: npt.NDArray[np.bool_]
    ) -> Doubles:
        """Mean of what similar pairs answered ``(m, c, a)``, in the way of the mode.

        Args:
            history: m sessions.
            lists: The first songs of c lists for each ``(m, c, places, d)``.
            of_groups: What each group of pairs answered ``(x, a)``.
            of_pairs: What each pair answered ``(pairs, a)``.
        """
        states, (m, c, places, _) = self._states(history), lists.shape
        if not self.config.mode.startswith("grouped"):
            return of_pairs[self._nearest(states, lists)].mean(axis=2)
        chances = self._groups.probabilities(
            np.repeat(states, c, axis=0),
            lists.reshape(m * c, places, -1),
            self.config.state_weight,
            cosine=self.config.mode == "grouped_cosine",
        )
        return (chances @ of_groups).reshape(m, c, -1)

    def _nearest(self, states: Floats, lists: Floats) -> npt.NDArray[np.int64]:
        """The nearest pairs of lists ``(m, c, places, d)`` by equation 1 ``(m, c, k)``."""
        memory, alpha, (m, c, places, _) = self.memory, self.config.state_weight, lists.shape
        if self.config.mode == "normal":  # equation 2: the one of greatest similarity
            queries = _joined(np.repeat(states, c, axis=0), lists.reshape(m * c, places, -1), alpha)
            nearest, _ = top_k(queries, _joined(memory.states, memory.lists[:, :places], alpha), 1)
            return nearest.reshape(m, c, 1)
        size = min(self.config.shortlist, len(memory.states))
        shortlist, _ = top_k(states, memory.states, size)
        found = np.empty((m, c, min(self.config.k, size)), np.int64)
        step = max(1, SIMILARITIES_AT_ONCE // (size * c))
        for first in range(0, m, step):
            part = slice(first, first + step)
            found[part] = self._nearest_among(states[part], lists[part], shortlist[part])
        return found

    def _nearest_among(
        self, states: Floats, lists: Floats, shortlist: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The k nearest pairs of each session's shortlist ``(m, size)``."""
        alpha, places = self.config.state_weight, lists.shape[2]
        of_state = np.einsum("ms,mzs->mz", states, self.memory.states[shortlist])
        songs = self.memory.lists[shortlist, :places].reshape(*shortlist.shape, -1)
        actions = lists.reshape(*lists.shape[:2], -1)
        of_list = np.matmul(actions, songs.swapaxes(1, 2)) / np.float32(places)
        similarity = alpha * of_state[:, None] + (1 - alpha) * of_list
        k = min(self.config.k, shortlist.shape[1])
        best = np.argpartition(-similarity, k - 1, axis=2)[:, :, :k]
        return np.take_along_axis(shortlist[:, None], best, axis=2)


def level_states(
    levels: npt.NDArray[np.integer],
    count: npt.NDArray[np.integer],
    *,
    graded: bool = True,
    decay: float = LEVEL_DECAY,
) -> Floats:
    """State of decayed levels: unit vectors ``(n, HISTORY_SONGS)``, the newest first.

    Place j holds ``decay**j * (level / 4 - 1/2)`` of the j-th newest play, 0 where there is none.

    Args:
        levels: Levels heard, in order ``(n, w)``.
        count: How many of them ``(n,)``.
        graded: If not, every level kept counts as full and every one skipped as brief.
        decay: Weight of a play relative to the one after it.
    """
    place = count[:, None] - 1 - np.arange(HISTORY_SONGS)
    newest = np.take_along_axis(levels, np.maximum(place, 0), axis=1)
    if not graded:
        newest = np.where(is_skip(newest), 0, Level.FULL)
    centred = np.where(place >= 0, newest / Level.FULL - USUAL_LEVEL, 0.0)
    return unit_rows(centred * decay ** np.arange(HISTORY_SONGS)).astype(np.float32)


def kept_songs(
    vectors: Floats, tracks: npt.NDArray[np.integer], levels: npt.NDArray[np.integer]
) -> Floats:
    """LIRD's state: the last songs that were kept, as unit vectors ``(n, HISTORY_SONGS * d)``.

    Args:
        vectors: Embedding of the catalog ``(num_tracks, d)``.
        tracks: Tracks heard, in order ``(n, w)``.
        levels: Their levels ``(n, w)``, -1 where none was heard.
    """
    kept = (levels >= 0) & ~is_skip(levels)
    newest_first = np.argsort(~kept[:, ::-1], axis=1, kind="stable")[:, :HISTORY_SONGS]
    songs = np.take_along_axis(np.where(kept, tracks, UNKNOWN)[:, ::-1], newest_first, axis=1)
    state = np.zeros((len(tracks), HISTORY_SONGS, vectors.shape[1]), np.float32)
    state[:, : songs.shape[1]] = np.where((songs >= 0)[..., None], vectors[songs], 0)
    return unit_rows(state.reshape(len(tracks), -1))


def possible_outcomes(list_size: int) -> npt.NDArray[np.bool_]:
    """All ways in which a list's songs can be kept or skipped ``(2**list_size, list_size)``."""
    return (np.arange(1 << list_size)[:, None] >> np.arange(list_size) & 1).astype(bool)


def list_reward(kept: npt.NDArray[np.bool_], gamma: float = LIST_DISCOUNT) -> npt.NDArray:
    """Equation 4: ``sum_k gamma**k kept_k`` over the places of lists ``(..., list_size)``."""
    return kept @ gamma ** np.arange(kept.shape[-1])


def _actions(lists: npt.NDArray) -> npt.NDArray:
    """Lists ``(q, places, d)`` as vectors ``(q, places * d)``, of norm 1 where their songs are."""
    return lists.reshape(len(lists), -1) / np.sqrt(lists.shape[1])


def _joined(states: Floats, lists: Floats, alpha: float) -> Floats:
    """Pairs as vectors whose dot product is equation 1."""
    parts = [np.sqrt(alpha) * states, np.sqrt(1 - alpha) * _actions(lists)]
    return np.concatenate(parts, axis=1, dtype=np.float32)
