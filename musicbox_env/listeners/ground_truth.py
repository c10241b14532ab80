"""The ground-truth listener: the law that made a synthetic dataset.

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
from musicbox_env.listeners.base import (
    Doubles,
    History,
    Ints,
    Levels,
    Listener,
    RankingSpace,
    Rows,
    Slates,
    put_rows,
)
from musicbox_env.schema import UNHEARD
from musicbox_env.synthetic.law import ListenerState
from musicbox_env.synthetic.outlook import Outlook
from musicbox_env.synthetic.truth import GroundTruth


@dataclass(frozen=True)
class GroundTruthState(ListenerState):
    """What the law reads of n sessions; the arrays of `law.ListenerState` change in place.

    Attributes:
        session_logit: Propensity and context ``(n,)``.
        taste: Unit taste vector ``(n, d)``.
    """

    session_logit: Doubles
    taste: npt.NDArray[np.float32]


class GroundTruthListener(Listener[GroundTruthState]):
    """Answers with the generator's own law; context and shuffle stay those of the last shown play.

    The generator redraws sessions that are skipped or kept throughout, as the release has none.
    The law does not, so simulated sessions can be either.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Open the truth of a synthetic dataset.

        Raises:
            FileNotFoundError: The dataset was not made by the generator.
        """
        self.dataset = dataset
        self.truth = GroundTruth.open(dataset)

    def __reduce__(self) -> tuple[Callable[..., GroundTruthListener], tuple[Dataset]]:
        """Pickle by the dataset's path."""
        return type(self), (self.dataset,)

    def begin(self, history: History) -> GroundTruthState:
        """Taste, propensity and context of the logged sessions; see `Listener.begin`."""
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
        self, state: GroundTruthState, history: History, rows: Rows, tracks: Ints, plays: Ints
    ) -> Doubles:
        """Exact probabilities of the levels; see the base class. ``plays`` do not matter."""
        law = self.truth.law
        track_logit = self._track_logit(state, rows, tracks, history.holds(rows, tracks))
        if (satiation := self.truth.satiation) is not None:
            wear = satiation.wear(history.tracks[rows], tracks, self._vectors)
            track_logit = track_logit + satiation.logit(wear, state.heard[rows][:, None])
        logit = law.skip_logit(state.at(rows), state.session_logit[rows], track_logit)
        return law.level_probabilities(logit)

    def _track_logit(
        self, state: GroundTruthState, rows: Rows, tracks: Ints, is_repeat: npt.NDArray[np.bool_]
    ) -> Doubles:
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
        session, and the probability of a skip grows with the logit. Where songs wear out, this is
        the order of songs that nothing heard is like.
        """
        personal = self.truth.law.taste * state.taste[rows]
        queries = np.column_stack([personal, np.ones(len(rows))]).astype(np.float32)
        return RankingSpace(queries, self._song_vectors, exact=self.truth.satiation is None)

    def outlook(
        self, state: GroundTruthState, history: History, rows: Rows, tracks: Ints
    ) -> Outlook | None:
        """See the base class; None where nothing wears out, so that no order beats another."""
        satiation = self.truth.satiation
        if satiation is None:
            return None
        known = np.maximum(tracks, 0)
        songs = self._track_logit(state, rows, known, history.holds(rows, known))
        return Outlook.of(
            self.truth.law,
            satiation,
            state.at(rows),
            heard=history.tracks[rows],
            candidates=tracks,
            logits=songs + state.session_logit[rows][:, None],
            vectors=self._vectors,
        )

    @cached_property
    def _vectors(self) -> npt.NDArray[np.float32]:
        """Track vectors ``(num_tracks, d)``, as kernels take them."""
        return np.asarray(self.truth.track_vectors)

    @cached_property
    def _song_vectors(self) -> npt.NDArray[np.float32]:
        """Track vector and quality of each song ``(num_tracks, d + 1)``."""
        return np.column_stack([self.truth.track_vectors, self.truth.track_quality])

    def simulate_response(
        self,
        state: GroundTruthState,
        history: History,
        rows: Rows,
        slates: Slates,
        plays: Slates,
        uniforms: Doubles,
    ) -> Levels:
        """Play whole slates; see the base class. Only the history's part is computed in order."""
        law = self.truth.law
        repeats = kernels.heard_before(rows, history.tracks, slates)
        track_logit = self._track_logit(state, rows, slates, repeats)
        session_logit, so_far = state.session_logit[rows], state.at(rows)
        levels = np.full(slates.shape, UNHEARD, np.int8)
        satiation = self.truth.satiation
        if satiation is not None:
            wear = satiation.wear_in_order(history.tracks[rows], slates, self._vectors)
            places = np.arange(slates.shape[1])
            track_logit = track_logit + satiation.logit(wear, so_far.heard[:, None] + places)
        for place in range(slates.shape[1]):
            logit = law.skip_logit(so_far, session_logit, track_logit[:, place])
            drawn = law.draw_levels(logit, uniforms[:, place])
            levels[:, place] = np.where(slates[:, place] >= 0, drawn, UNHEARD)
            so_far = law.update(so_far, levels[:, place])
        put_rows(state, rows, so_far)
        history.record_slates(rows, slates, levels)
        return levels

    def update_state(
        self, state: GroundTruthState, history: History, rows: Rows, tracks: Ints, levels: Levels
    ) -> None:
        """Update persistence and position; see the base class."""
        put_rows(state, rows, self.truth.law.update(state.at(rows), levels))
