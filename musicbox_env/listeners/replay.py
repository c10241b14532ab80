"""The replay listener: the logged response, and an imputed one where the log has none.

A recommended track that the logged session still holds gets its logged level. Any other gets the
level of one of the session's own plays, drawn by weight. So every level was given by this listener
in this session; but an imputed level says almost nothing about the song: on real plays, imputing
hidden ones from their own session gives an AUC of .743 with this rule where the session's mean
gives .740. An agent can learn from it when to expect skips, hardly what to play instead.
``candidates="session"`` imputes nothing and is the protocol for claims about real logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import replay_kernels as kernels
from musicbox_env.listeners.base import (
    Doubles,
    History,
    Ints,
    Levels,
    Listener,
    RankingSpace,
    Rows,
    Slates,
    for_each,
)
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD, is_skip

LOWEST_TEMPERATURE: Final = 0.02
"""Below it the weight of a donor, up to exp(1 / temperature), overflows single precision."""
LARGEST: Final = 1e6


@dataclass
class ReplayState:
    """Attributes hold one row for each session.

    Attributes:
        vectors: Embeddings of the logged session's plays ``(n, width, d)``.
        levels: Their logged levels ``(n, width)``, -1 after its end.
        skipped: Whether the song just heard was skipped ``(n,)``.
    """

    vectors: npt.NDArray[np.float32]
    levels: npt.NDArray[np.int8]
    skipped: npt.NDArray[np.bool_]

    @property
    def arrays(self) -> kernels.State:
        """As kernels read and change them."""
        return self.vectors, self.levels, self.skipped


class ReplayListener(Listener[ReplayState]):
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
            ValueError: A setting is out of range.
        """
        if not LOWEST_TEMPERATURE <= temperature <= LARGEST or not 0 < persistence <= LARGEST:
            raise ValueError(
                f"temperature is {temperature} and persistence {persistence}; both must be above 0 "
                f"and at most {LARGEST:,.0f}, and temperature at least {LOWEST_TEMPERATURE}."
            )
        self.dataset = dataset
        self.temperature = temperature
        self.persistence = persistence
        self._vectors = dataset.embedding(dataset.best_embedding)

    def __reduce__(self) -> tuple[Callable[..., ReplayListener], tuple[Dataset]]:
        """Pickle by the dataset's path, with the settings."""
        made = partial(type(self), temperature=self.temperature, persistence=self.persistence)
        return made, (self.dataset,)

    def begin(self, history: History) -> ReplayState:
        """Read the logged sessions and the last shown response; see `Listener.begin`."""
        n, width = len(history.session), self.dataset.longest_session
        state = ReplayState(
            np.empty((n, width, self._vectors.shape[1]), np.float32),
            np.empty((n, width), np.int8),
            np.empty(n, np.bool_),
        )
        self.begin_rows(state, history, np.arange(n))
        return state

    def begin_rows(self, state: ReplayState, history: History, rows: Rows) -> None:
        """Do the same in place; see `Listener.begin_rows`."""
        log, heard = self.dataset.sessions.replayed, (history.levels, history.count)
        kernels.begin_replay(rows, history.session, log, self._vectors, heard, state.arrays)

    def level_probabilities(
        self, state: ReplayState, history: History, rows: Rows, tracks: Ints, plays: Ints
    ) -> Doubles:
        """Certainty for logged plays, donor shares for the rest; see the base class."""
        weights = self._weights(state, rows, for_each(rows, tracks))
        chances = np.empty((*weights.shape[:2], NUM_LEVELS))
        kernels.replay_probabilities(
            weights, state.levels[rows], state.skipped[rows], self.persistence, plays, chances
        )
        return chances

    def ranking_space(self, state: ReplayState, rows: Rows) -> RankingSpace:
        """Mean vector of the donors that were kept, less that of those that were skipped.

        The log odds of an imputed skip are ``log sum_skipped w - log sum_kept w`` with the donors'
        weights w. To first order in the cosines they fall in proportion to the product of the
        track's vector with this difference, where persistence alone weighs the donors.
        """
        levels = state.levels[rows]
        skipped, kept = is_skip(levels), levels >= SKIP_THRESHOLD
        weights = np.ones(levels.shape, np.float32)
        alike = skipped[:, :-1] == state.skipped[rows, None]
        weights[:, 1:] = np.where(alike, self.persistence, 1.0)
        shares = _shares(weights * kept) - _shares(weights * skipped)
        # Vectors after the session's end are undefined.
        vectors = np.where((levels >= 0)[:, :, None], state.vectors[rows], 0)
        queries = np.matmul(shares[:, None], vectors)[:, 0]
        return RankingSpace(queries, self._vectors, exact=False)

    def simulate_response(
        self,
        state: ReplayState,
        history: History,
        rows: Rows,
        slates: Slates,
        plays: Slates,
        uniforms: Doubles,
    ) -> Levels:
        """Play whole slates in one kernel; see `Listener.simulate_response`."""
        slate = slates, plays, uniforms, self._weights(state, rows, slates)
        return kernels.replay_slates(rows, *slate, self.persistence, state.arrays, history.arrays)

    def _weights(self, state: ReplayState, rows: Rows, tracks: Ints) -> npt.NDArray[np.float32]:
        """``exp(cosine / temperature)`` of each candidate and donor ``(m, c, width)``."""
        alike = kernels.likeness_to_donors(
            rows, tracks, self._vectors, state.vectors, state.levels, self.temperature
        )
        return np.exp(alike, out=alike)

    def update_state(
        self, state: ReplayState, history: History, rows: Rows, tracks: Ints, levels: Levels
    ) -> None:
        """Store whether the song was skipped; see the base class."""
        state.skipped[rows] = is_skip(levels)


def _shares(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights of each session's donors ``(m, width)`` over their sum; 0 where all are."""
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
