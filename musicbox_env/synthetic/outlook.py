"""What candidates will be worth after songs that are not heard yet: exact, from the law.

For whoever composes a slate song by song or looks ahead: the oracle, the planner, and Bayes.
Wear (`satiation`) depends on which songs are heard and not on how far, so that the skip logits of
all candidates after any songs follow from their cosines; what was skipped adds the same to each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import compiled
from musicbox_env.schema import UNKNOWN
from musicbox_env.synthetic.law import ListenerState, ListeningLaw
from musicbox_env.synthetic.satiation import Satiation, alike

Array = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Outlook:
    """Candidates of n sessions, and how they wear each other out; a row a session.

    Attributes:
        law: The listening law.
        satiation: How songs wear out.
        state: What was heard.
        candidates: Tracks ``(n, c)``, 0 where there is none.
        logits: What session and song add to the skip logit, wear aside ``(n, c)``; infinite where
            there is no candidate.
        wear: Of each candidate as the next song ``(n, c)``.
        unfelt: The last ``lag`` songs heard, which are not felt yet, in order ``(n, lag)``, -1 for
            none.
        vectors: Unit vectors of all tracks ``(num_tracks, d)``.
    """

    law: ListeningLaw
    satiation: Satiation
    state: ListenerState
    candidates: npt.NDArray[np.int64]
    logits: Array
    wear: Array
    unfelt: npt.NDArray[np.int64]
    vectors: Vectors

    @classmethod
    def of(
        cls,
        law: ListeningLaw,
        satiation: Satiation,
        state: ListenerState,
        *,
        heard: Ints,
        candidates: Ints,
        logits: Array,
        vectors: Vectors,
    ) -> Outlook:
        """Make one.

        Args:
            law: The listening law.
            satiation: How songs wear out.
            state: What was heard, n sessions.
            heard: Songs heard, in order ``(n, h)``, -1 for none.
            candidates: Tracks ``(n, c)``, -1 for none.
            logits: What session and song add to the skip logit, wear aside ``(n, c)``.
            vectors: Unit vectors of all tracks ``(num_tracks, d)``.
        """
        known = np.maximum(candidates, 0).astype(np.int64)
        wear = satiation.wear(heard, known, vectors)
        logits = np.where(candidates >= 0, logits, np.inf)
        unfelt = _last(heard, satiation.lag)
        return cls(law, satiation, state, known, logits, wear, unfelt, vectors)

    def greedy(self, size: int) -> npt.NDArray[np.int64]:
        """Slates ``(n, size)`` song by song: each the least likely to be skipped after the others.

        How far the songs before it are heard moves all candidates alike, so that this order is
        right whatever happens. Where candidates run out it is track 0.
        """
        slates = np.zeros((len(self.logits), size), np.int64)
        parts = self.candidates, self.logits, self.wear, self.unfelt, self.vectors
        wears = self.satiation
        _greedy(*parts, wears.strength, wears.threshold, wears.decay, slates)
        return slates

    def influence(self, session: int) -> Vectors:
        """How much songs wear out each candidate of one session ``(lag + c, c)``.

        Rows are the songs of `unfelt`, then the candidates.
        """
        own = self.candidates[session]
        songs = np.concatenate([self.unfelt[session], own])
        vectors = self.vectors.take(songs, axis=0, mode="clip")
        felt = np.maximum(vectors @ self.vectors[own].T - np.float32(self.satiation.threshold), 0)
        felt[(songs[:, None] == own) | (songs[:, None] < 0)] = 0
        return felt


def _last(songs: Ints, number: int) -> npt.NDArray[np.int64]:
    """The last songs of each row, in order ``(n, number)``; -1 in front where there are fewer."""
    nothing = np.full((len(songs), number), UNKNOWN, np.int64)
    order = np.argsort(songs >= 0, axis=1, kind="stable")
    padded = np.concatenate([nothing, np.take_along_axis(songs, order, axis=1)], axis=1)
    return padded[:, padded.shape[1] - number :]


@compiled
def _greedy(
    candidates: Ints,
    logits: Array,
    wear: Array,
    unfelt: Ints,
    vectors: Vectors,
    strength: float,
    threshold: float,
    decay: float,
    slates: Ints,
) -> None:
    """See `Outlook.greedy`; ``slates`` is changed."""
    lag = unfelt.shape[1]
    for i in range(len(slates)):
        free, worn = logits[i].copy(), wear[i].copy()
        for place in range(slates.shape[1]):
            best = lightest(free, worn, strength)
            if free[best] == np.inf:
                break
            slates[i, place] = candidates[i, best]
            free[best] = np.inf
            felt = unfelt[i, place] if place < lag else slates[i, place - lag]
            for j in range(len(worn)):
                more = alike(vectors, felt, candidates[i, j], threshold) if felt >= 0 else 0.0
                worn[j] = decay * worn[j] + more


@compiled
def lightest(free: Array, wear: Array, strength: float) -> int:
    """The candidate of lowest skip logit ``free + strength * wear``; of equal ones the first."""
    best, lowest = 0, np.inf
    for j in range(len(free)):
        logit = free[j] + strength * wear[j]
        if logit < lowest:
            best, lowest = j, logit
    return best
