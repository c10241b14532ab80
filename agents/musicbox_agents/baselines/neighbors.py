"""Agents that recommend what other sessions hold together with the songs heard."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from musicbox_agents.baselines.base import SlateAgent, SlateSettings, in_chunks, kept_or_all
from musicbox_agents.slates import Batch, Slates


@dataclass(frozen=True)
class ItemKNNSettings(SlateSettings):
    """Settings of `ItemKNNAgent`.

    Attributes:
        neighbors: Neighbours kept of each track.
        kept_only: Whether only plays that were kept count, in training sessions and in the
            history; where nothing was kept, the whole history counts.
    """

    neighbors: int = 200
    kept_only: bool = False


class ItemKNNAgent(SlateAgent):
    """Tracks that other sessions hold together with those heard (item to item).

    A track's score is the sum of its similarities to the songs heard; similarity is the cosine of
    the tracks' columns in the binary matrix of training sessions by tracks.
    Source: Deshpande & Karypis, "Item-based top-N recommendation algorithms", TOIS 2004.
    """

    name = "item-knn"
    Settings = ItemKNNSettings
    settings: ItemKNNSettings

    @cached_property
    def similarity(self) -> sparse.csr_array:
        """Cosine of each track with its neighbours ``(num_tracks, num_tracks)``, diagonal 0."""
        log, kept_only = self.dataset.sessions, self.settings.kept_only
        holds = log.held_tracks(log.sessions_in("train"), self.num_tracks, kept_only=kept_only)
        together = sparse.csr_array(holds.T @ holds)
        norms = np.sqrt(np.maximum(together.diagonal(), 1))
        scale = sparse.diags_array((1 / norms).astype(np.float32))
        cosines = sparse.csr_array(scale @ together @ scale)
        cosines.setdiag(0)
        return strongest(cosines, self.settings.neighbors)

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        return in_chunks(batch, self.num_tracks, self._slates)

    def _slates(self, batch: Batch) -> Slates:
        heard = history_matrix(batch, self.num_tracks, kept_only=self.settings.kept_only)
        return self._best_by_scores(batch, (heard @ self.similarity).toarray())


@dataclass(frozen=True)
class SessionKNNSettings(SlateSettings):
    """Settings of `SessionKNNAgent`.

    Attributes:
        neighbors: Training sessions that count.
        kept_only: As in `ItemKNNSettings`.
    """

    neighbors: int = 200
    kept_only: bool = True


class SessionKNNAgent(SlateAgent):
    """Tracks of the training sessions most alike to this one.

    Likeness is the dot product of the history, in which the n-th of N songs weighs n / N, and the
    binary row of a training session, divided by the square root of its number of tracks. A track's
    score is the summed likeness of the nearest sessions that hold it.
    Source: VS-KNN of Ludewig & Jannach, "Evaluation of session-based recommendation algorithms",
    UMUAI 2018, without its second decay and idf weights.
    """

    name = "session-knn"
    Settings = SessionKNNSettings
    settings: SessionKNNSettings

    @cached_property
    def _sessions(self) -> tuple[sparse.csr_array, sparse.csc_array]:
        """Training sessions by tracks, binary; and tracks by sessions, of unit norm a session."""
        log, kept_only = self.dataset.sessions, self.settings.kept_only
        holds = log.held_tracks(log.sessions_in("train"), self.num_tracks, kept_only=kept_only)
        sizes = np.maximum(np.diff(holds.indptr), 1)
        unit = sparse.diags_array((1 / np.sqrt(sizes)).astype(np.float32)) @ holds
        return holds, sparse.csr_array(unit).T

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        width = max(self.num_tracks, self._sessions[0].shape[0])
        return in_chunks(batch, width, self._slates)

    def _slates(self, batch: Batch) -> Slates:
        holds, by_track = self._sessions
        heard = history_matrix(
            batch, self.num_tracks, kept_only=self.settings.kept_only, recent_first=True
        )
        likeness = strongest(sparse.csr_array(heard @ by_track), self.settings.neighbors)
        return self._best_by_scores(batch, (likeness @ holds).toarray())


def history_matrix(
    batch: Batch, num_tracks: int, *, kept_only: bool, recent_first: bool = False
) -> sparse.csr_array:
    """What each session heard, ``(n, num_tracks)``.

    With ``kept_only`` skipped songs count nothing, unless all were skipped. With ``recent_first``
    the n-th of N songs weighs n / N instead of 1.
    """
    heard = batch["tracks"] >= 0
    counted = kept_or_all(batch) if kept_only else heard
    weights = np.ones(heard.shape, np.float32)
    if recent_first:
        number = np.cumsum(heard, axis=1)
        weights = (number / np.maximum(number[:, -1:], 1)).astype(np.float32)
    row, place = np.nonzero(counted)
    entries = (weights[row, place], (row, batch["tracks"][row, place]))
    return sparse.csr_array(entries, shape=(len(heard), num_tracks))


def strongest(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """Each row's k largest entries, ties to the lower column; the rest becomes 0."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    within = np.arange(len(row)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    best = order[within < k]
    return sparse.csr_array(
        (matrix.data[best], (row[best], matrix.indices[best])), shape=matrix.shape
    )
