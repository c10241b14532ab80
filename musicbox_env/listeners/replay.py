"""The replay listener: what the logged listener did, and where nobody knows, how they would.

A recommended track that the logged session still holds gets its logged level. Any other gets the
level of one of the session's own plays, drawn by weight. So every answer is a level that this
very listener gave, in this very session; but the level of an imputed answer carries almost no
signal about the song: on real plays, imputing hidden ones from their own session gives an AUC of
.743 with this rule where the session's mean gives .740. An agent can learn from it when to expect
skips, hardly what to play instead. ``candidates="session"`` imputes nothing and is the protocol
for claims about real logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicbox_env.dataset import Dataset
from musicbox_env.listeners.base import History, Rows, Which, sample_levels, sessions_together
from musicbox_env.schema import NUM_LEVELS, Level, is_skip

FIRST, AFTER_KEPT, AFTER_SKIPPED = 0, 1, 2


@dataclass
class ReplayState:
    """Attributes hold one row for each session.

    Attributes:
        vectors: Embeddings of the logged session's plays ``(n, width, d)``.
        levels: Their logged levels ``(n, width)``, -1 after its end.
        gives: What each play gives as a donor, once after a song that was kept and once after one
            that was skipped: its persistence factor at its own level, 0 at the others
            ``(n, width, 2, NUM_LEVELS)``.
        skipped: Whether the song just heard was skipped ``(n,)``.
    """

    vectors: npt.NDArray[np.float32]
    levels: npt.NDArray[np.int8]
    gives: npt.NDArray[np.float32]
    skipped: npt.NDArray[np.bool_]


class ReplayListener:
    """Logged levels where the session holds the track, imputed ones elsewhere.

    A donor is any play of the logged session. Its weight is ``exp(cosine / temperature)``, with
    the cosine between its track and the recommended one, times ``persistence`` if the play before
    it was skipped or kept as the song just heard was. The first factor prefers similar songs; the
    second keeps skips in runs as real ones are (without it P(skip | kept / skipped) falls from
    .28/.74 to .38/.64).
    """

    answers_from_log = True

    def __init__(
        self, dataset: Dataset, *, temperature: float = 0.5, persistence: float = 10.0
    ) -> None:
        """Open the listener of a dataset.

        Args:
            dataset: Its sessions are replayed; similarity is that of its first embedding.
            temperature: Of the softmax over cosines; below 0.5 imputing gets worse, not better.
            persistence: Weight ratio of donors that follow a play like the one just heard.

        Raises:
            ValueError: A setting is not above 0.
        """
        if temperature <= 0 or persistence <= 0:
            raise ValueError(
                f"temperature is {temperature} and persistence {persistence}; both must be above 0."
            )
        self.dataset = dataset
        self.temperature = temperature
        self.persistence = persistence
        self._vectors = dataset.embedding(dataset.embedding_names[0])
        self._gives = _donor_table(persistence)

    def __reduce__(self) -> tuple[Callable[..., ReplayListener], tuple[Dataset]]:
        """Pickle by the dataset's path."""
        return type(self), (self.dataset,)

    def begin(self, history: History) -> ReplayState:
        """State after the shown history; see `Listener.begin`."""
        log = self.dataset.sessions
        width = self.dataset.longest_session
        levels = log.padded("level", history.session, width)
        last = history.levels[np.arange(len(levels)), history.count - 1]
        vectors = _take(self._vectors, log.padded("track", history.session, width))
        return ReplayState(vectors, levels, _take(self._gives, _donors(levels)), is_skip(last))

    def level_probabilities(
        self,
        state: ReplayState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        plays: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.float64]:
        """Certainty for logged plays, donor shares for the rest; see the protocol."""
        gives = state.gives[rows, :, state.skipped[rows].astype(np.intp)]
        shares = self._weights(state, rows, tracks) @ gives
        answers = shares.astype(np.float64) / shares.sum(axis=2, keepdims=True, dtype=np.float64)
        row, candidate = np.nonzero(plays >= 0)
        logged = state.levels[rows[row], plays[row, candidate]]
        answers[row, candidate] = np.eye(NUM_LEVELS)[logged]
        return answers

    def hear(
        self,
        state: ReplayState,
        history: History,
        rows: Which,
        slates: npt.NDArray[np.integer],
        plays: npt.NDArray[np.integer],
        uniforms: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int8]:
        """Hear whole slates; see `base.hear_one_by_one`.

        A song's answers after a kept song and after a skipped one are worked out for the whole
        slate at once; which of the two holds is all that waits for the song before.
        """
        m, k = slates.shape
        gives = state.gives[rows].reshape(m, -1, 2 * NUM_LEVELS)
        shares = (self._weights(state, rows, slates) @ gives).reshape(-1, NUM_LEVELS)
        logged = state.levels[np.arange(len(state.levels))[rows][:, None], plays]
        skipped = state.skipped[rows]
        answer_of_first = np.arange(m) * (2 * k)
        levels = sessions_together(m, k, Level.UNHEARD, np.int8)
        for place in range(k):
            answer = answer_of_first + (2 * place + skipped)
            drawn = sample_levels(shares.take(answer, axis=0), uniforms[:, place])
            level = np.where(plays[:, place] >= 0, logged[:, place], drawn)
            heard = slates[:, place] >= 0
            levels[:, place] = np.where(heard, level, Level.UNHEARD)
            skipped = np.where(heard, is_skip(level), skipped)
        state.skipped[rows] = skipped
        history.record_slates(rows, slates, levels)
        return levels

    def _weights(
        self, state: ReplayState, rows: Which, tracks: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float32]:
        """``exp(cosine / temperature)`` of each candidate and donor, ``(m, c, width)``."""
        cosines = _take(self._vectors, tracks) @ state.vectors[rows].swapaxes(1, 2)
        cosines /= self.temperature
        return np.exp(cosines, out=cosines)

    def advance(
        self,
        state: ReplayState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.int8],
    ) -> None:
        """Remember whether the song was skipped; see the protocol."""
        state.skipped[rows] = is_skip(levels)


def _take(table: npt.NDArray, rows: npt.NDArray[np.integer]) -> npt.NDArray:
    """``table[rows]``, a row of -1 taken for row 0, in the order of ``rows`` in memory."""
    return table.take(np.ascontiguousarray(rows), axis=0, mode="clip")


def _donors(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Which row of `_donor_table` each play of sessions ``(n, width)`` is."""
    before = np.full(levels.shape, FIRST, np.int8)
    before[:, 1:] = np.where(is_skip(levels[:, :-1]), AFTER_SKIPPED, AFTER_KEPT)
    return before * np.int8(NUM_LEVELS + 1) + levels + np.int8(1)


def _donor_table(persistence: float) -> npt.NDArray[np.float32]:
    """`ReplayState.gives` of every kind of play, ``(3 * (NUM_LEVELS + 1), 2, NUM_LEVELS)``.

    Rows go through what came before it (nothing, a kept play, a skipped one), and for each of
    these through its own level from -1, no play, which gives nothing.
    """
    factor = np.ones((3, 2), np.float32)
    factor[AFTER_KEPT, 0] = factor[AFTER_SKIPPED, 1] = persistence
    own_level = np.eye(NUM_LEVELS + 1, NUM_LEVELS, k=-1, dtype=np.float32)
    table = factor[:, None, :, None] * own_level[None, :, None, :]
    return table.reshape(-1, 2, NUM_LEVELS)
