"""The ground-truth listener: the law that made a synthetic dataset, asked directly.

It gives exact skip probabilities for any track in any session, hence the best that any policy
could do, and the regret of every other. It is the evaluator of the default comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from musicbox_env import kernels
from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.base import History, RankingSpace, Rows
from musicbox_env.schema import UNHEARD
from musicbox_env.synthetic.law import ListenerState
from musicbox_env.synthetic.truth import GroundTruth


@dataclass
class GroundTruthState:
    """Attributes hold one row for each session; see `law.ListenerState` for the first three.

    Attributes:
        previous: 1 where the last song was skipped ``(n,)``.
        running: Running mean of the skips ``(n,)``.
        heard: Songs heard ``(n,)``.
        session_logit: Propensity and context ``(n,)``.
        taste: Unit taste vector ``(n, d)``.
    """

    previous: npt.NDArray[np.float64]
    running: npt.NDArray[np.float64]
    heard: npt.NDArray[np.int64]
    session_logit: npt.NDArray[np.float64]
    taste: npt.NDArray[np.float32]

    def at(self, rows: Rows) -> ListenerState:
        """What the law asks of some of the sessions."""
        return ListenerState(self.previous[rows], self.running[rows], self.heard[rows])

    def put(self, rows: Rows, now: ListenerState) -> None:
        """Overwrite what the law remembers of some of the sessions, in place."""
        self.previous[rows] = now.previous
        self.running[rows] = now.running
        self.heard[rows] = now.heard


class GroundTruthListener:
    """Answers with the generator's own law; context and shuffle stay those of the last shown play.

    The generator redraws sessions that are skipped or kept throughout, as the release has none;
    the law knows nothing of that, so simulated sessions can be either.
    """

    answers_from_log = False

    def __init__(self, dataset: Dataset) -> None:
        """Open the truth of a synthetic dataset.

        Raises:
            FileNotFoundError: The dataset was not made by the generator.
        """
        self.dataset = dataset
        self.truth = GroundTruth.open(dataset.folder)

    def __reduce__(self) -> tuple[Callable[..., GroundTruthListener], tuple[Dataset]]:
        """Pickle by the dataset's path."""
        return type(self), (self.dataset,)

    def begin(self, history: History) -> GroundTruthState:
        """State after the shown history; see `Listener.begin`."""
        log, law = self.dataset.sessions, self.truth.law
        last = log.offsets[history.session] + history.count - 1
        heard = law.after(history.levels[:, : history.count.max()])
        session_logit = law.session_logit(
            self.truth.session_propensity[history.session],
            log.column("context_type")[last],
            log.column("shuffle")[last],
        )
        taste = self.truth.session_taste[history.session]
        return GroundTruthState(heard.previous, heard.running, heard.heard, session_logit, taste)

    def level_probabilities(
        self,
        state: GroundTruthState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        plays: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.float64]:
        """Exact probabilities of the levels; see the protocol. ``plays`` do not matter."""
        law = self.truth.law
        track_logit = self._track_logit(state, rows, tracks, history.holds(rows, tracks))
        logit = law.skip_logit(state.at(rows), state.session_logit[rows], track_logit)
        return law.level_probabilities(logit)

    def _track_logit(
        self,
        state: GroundTruthState,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        is_repeat: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float64]:
        """What the songs add to the skip logit ``(m, c)``, whatever was heard before them."""
        truth = self.truth
        vectors = truth.track_vectors.take(tracks, axis=0, mode="clip")
        taste = state.taste[rows]
        if len(tracks) == 1 and len(taste) > 1:
            affinity = taste @ vectors[0].T
        else:
            affinity = np.einsum("md,mcd->mc", taste, vectors)
        quality = truth.track_quality.take(tracks, mode="clip")
        return truth.law.track_logit(quality, affinity, is_repeat)

    def ranking_space(self, state: GroundTruthState, rows: Rows) -> RankingSpace:
        """The law's own order: ``quality + taste * affinity`` alone tells new songs apart.

        See `law`: what else the skip logit adds up is the same for every song that is new to the
        session, and the probability of a skip grows with the logit.
        """
        personal = self.truth.law.taste * state.taste[rows]
        queries = np.column_stack([personal, np.ones(len(rows))]).astype(np.float32)
        return RankingSpace(queries, self._song_vectors, exact=True)

    @cached_property
    def _song_vectors(self) -> npt.NDArray[np.float32]:
        """Track vector and quality of each song ``(num_tracks, d + 1)``."""
        return np.column_stack([self.truth.track_vectors, self.truth.track_quality])

    def hear(
        self,
        state: GroundTruthState,
        history: History,
        rows: Rows,
        slates: npt.NDArray[np.int64],
        plays: npt.NDArray[np.int64],
        uniforms: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int8]:
        """Hear whole slates; see `base.hear_one_by_one`. Only the history's part goes in order."""
        law = self.truth.law
        repeats = kernels.heard_before(rows, history.tracks, slates)
        track_logit = self._track_logit(state, rows, slates, repeats)
        session_logit, so_far = state.session_logit[rows], state.at(rows)
        levels = np.full(slates.shape, UNHEARD, np.int8)
        for place in range(slates.shape[1]):
            logit = law.skip_logit(so_far, session_logit, track_logit[:, place])
            drawn = law.draw_levels(logit, uniforms[:, place])
            levels[:, place] = np.where(slates[:, place] >= 0, drawn, UNHEARD)
            so_far = law.update(so_far, levels[:, place])
        state.put(rows, so_far)
        history.record_slates(rows, slates, levels)
        return levels

    def advance(
        self,
        state: GroundTruthState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.int8],
    ) -> None:
        """Update persistence and position; see the protocol."""
        state.put(rows, self.truth.law.update(state.at(rows), levels))
