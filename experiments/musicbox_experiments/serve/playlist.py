"""Ordered playlists: a trained agent recommends slate after slate to a simulated listener.

The roll-out is the most likely one: each song counts as heard as far as the listener model finds
likeliest given all before it, and the agent sees that. So a playlist is the same every time, and a
song stands where it stands because of those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.listeners import History, LearnedListener, skip_probability
from musicbox_env.schema import UNKNOWN
from musicbox_experiments.serve.recommender import LiveSession, Recommender

ONLY: Final = np.zeros(1, np.intp)
"""The one row of the batches here."""
LONGEST: Final = 1_000
"""Most songs of a playlist."""


@dataclass(frozen=True)
class Place:
    """A place of a playlist.

    Attributes:
        track: Row of the song in the catalog.
        skip: Chance that it is skipped, after the songs before it.
    """

    track: int
    skip: float


class ListenerModel:
    """Chances of a learned listener in a session that is in no log."""

    def __init__(self, listener: LearnedListener, heard: LiveSession, room: int) -> None:
        """Let it hear a session; what ended plays, and pauses, are unknown.

        Args:
            listener: The user simulator.
            heard: The session.
            room: Most songs of it, those still to come included.
        """
        self.listener, self.history = listener, History.empty(1, room)
        self.state = listener.begin(self.history)
        self.state.context[:] = heard.context[:-1]  # the position is no input of it
        for track, level in zip(heard.tracks, heard.levels, strict=True):
            self.hear(int(track), int(level))

    def chances(self, track: int) -> npt.NDArray[np.float64]:
        """Probabilities of the listen levels, were this the next song ``(5,)``."""
        song, unknown = np.array([[track]]), np.array([[UNKNOWN]])
        found = self.listener.level_probabilities(self.state, self.history, ONLY, song, unknown)
        chances: npt.NDArray[np.float64] = found[0, 0]
        return chances

    def hear(self, track: int, level: int) -> None:
        """Hear a song as far as given."""
        song, heard = np.array([track]), np.array([level], np.int8)
        self.listener.update_state(self.state, self.history, ONLY, song, heard)
        self.history.record(ONLY, song, heard)


def playlist(
    recommender: Recommender,
    heard: LiveSession,
    number: int,
    listener: LearnedListener,
    *,
    among: Sequence[int] | None = None,
) -> list[Place]:
    """Roll out an ordered playlist; the module says how.

    Args:
        recommender: Who chooses; restricted where ``among`` is given.
        heard: What the session heard before it, and what shall not come.
        number: Songs of the playlist.
        listener: The user simulator, which says how likely each is skipped.
        among: Songs to order, as rows of the catalog, none twice; None is to choose from the
            catalog.

    Returns:
        A place a song, in order; fewer where songs run out before a slate is full.

    Raises:
        ValueError: ``number`` or ``among`` cannot be, or there is not one slate.
    """
    if not 1 <= number <= LONGEST:
        raise ValueError(f"A playlist of {number} songs was asked for; expected 1 to {LONGEST:,}.")
    if among is not None and len(set(among)) < len(among):
        raise ValueError("A song to be ordered is named twice; name each once.")
    left = None if among is None else np.array(among, np.int64)
    model = ListenerModel(listener, heard, len(heard.tracks) + number)
    places: list[Place] = []
    state: Any = None
    while len(places) < number and (not places or recommender.has_slate(heard)):
        choice = recommender.choose([heard], state=state, among=left)
        slate, state = choice.slates[0][choice.slates[0] >= 0], choice.state
        if not len(slate):
            break
        for track in slate[: number - len(places)].tolist():
            chances = model.chances(track)
            level = int(chances.argmax())
            places.append(Place(track, float(skip_probability(chances))))
            model.hear(track, level)
            heard = heard.then(track, level)
        if left is not None:
            left = left[~np.isin(left, slate)]
    return places
