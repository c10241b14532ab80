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
from musicbox_agents import Agent

from musicbox_env.listeners import History, LearnedListener, skip_probability
from musicbox_env.schema import UNKNOWN
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Simulator

ONLY: Final = np.zeros(1, np.intp)
"""The one row of the batches here."""
LONGEST: Final = 1_000
"""Most songs of a playlist."""


@dataclass(frozen=True)
class Heard:
    """A session that is in no log.

    Attributes:
        tracks: Songs heard, in order, as rows of the catalog ``(t,)``.
        levels: How far each was heard ``(t,)``.
        context: Context features ``(CONTEXT_SIZE,)``; see `Simulator.show`.
    """

    tracks: npt.NDArray[np.int64]
    levels: npt.NDArray[np.integer]
    context: npt.NDArray[np.float32]

    def then(self, track: int, level: int) -> "Heard":
        """The session after one more song."""
        return Heard(np.append(self.tracks, track), np.append(self.levels, level), self.context)


@dataclass(frozen=True)
class Place:
    """A place of a playlist.

    Attributes:
        track: Row of the song in the catalog.
        skip: Chance that it is skipped, after the songs before it.
    """

    track: int
    skip: float


class Recommender:
    """An agent that recommends into a session that is in no log."""

    def __init__(self, agent: Agent, room: int, *, restricted: bool = False) -> None:
        """Make room.

        Args:
            agent: Who chooses.
            room: Most songs of the session, those recommended included.
            restricted: Whether it chooses among given songs, and not from the catalog.
        """
        options = {"data": str(agent.dataset.folder), "listener": "replay"}
        options["candidates"] = "session" if restricted else "catalog"
        assets = EnvAssets(SessionConfig.from_keywords({**options, **agent.env_options}))
        self.agent = agent
        self.simulator = Simulator(assets, num_envs=1, capacity=max(assets.capacity, room))
        agent.attach(self.simulator)
        self._state: Any = None
        self._begun = np.ones(1, np.bool_)

    def goes_on(self, heard: Heard, barred: npt.NDArray[np.int64]) -> bool:
        """Whether a slate is left, of songs neither heard nor barred."""
        known = len(np.unique(np.concatenate([heard.tracks, barred])))
        return self.simulator.assets.has_slate(known)

    def slate(
        self,
        heard: Heard,
        among: npt.NDArray[np.int64] | None = None,
        barred: npt.NDArray[np.int64] | None = None,
    ) -> list[int]:
        """The songs to come next, best first: rows of the catalog, fewer where none are left.

        Args:
            heard: The session so far.
            among: Songs to choose from, where the choice is restricted ``(c,)``.
            barred: Songs not to choose, besides those heard ``(b,)``.
        """
        self.simulator.show(
            0, heard.tracks, heard.levels, heard.context, among=among, barred=barred
        )
        observation = self.simulator.observe(ONLY)
        action, self._state = self.agent.predict(
            observation, self._state, self._begun, deterministic=True
        )
        self._begun = np.zeros(1, np.bool_)
        slates, _, _ = self.simulator.choose(ONLY, action)
        return [int(track) for track in slates[0] if track >= 0]


class ListenerModel:
    """Chances of a learned listener in a session that is in no log."""

    def __init__(self, listener: LearnedListener, heard: Heard, room: int) -> None:
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
    agent: Agent,
    heard: Heard,
    number: int,
    listener: LearnedListener,
    *,
    among: Sequence[int] | None = None,
    barred: Sequence[int] = (),
) -> list[Place]:
    """Roll out an ordered playlist; the module says how.

    Args:
        agent: Who chooses.
        heard: What the session heard before it.
        number: Songs of the playlist.
        listener: The user simulator, which says how likely each is skipped.
        among: Songs to order, as rows of the catalog, none twice; None is to choose from the
            catalog.
        barred: Songs that it shall not hold, besides those heard.

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
    out = np.array(barred, np.int64)
    room = max(len(heard.tracks) + number + len(out), 0 if left is None else len(left))
    recommender = Recommender(agent, room, restricted=left is not None)
    model = ListenerModel(listener, heard, room)
    places: list[Place] = []
    going_on = True
    while going_on and (slate := recommender.slate(heard, left, out)):
        for track in slate[: number - len(places)]:
            chances = model.chances(track)
            level = int(chances.argmax())
            places.append(Place(track, float(skip_probability(chances))))
            model.hear(track, level)
            heard = heard.then(track, level)
        if left is not None:
            left = left[~np.isin(left, slate)]
        going_on = len(places) < number and recommender.goes_on(heard, out)
    return places
