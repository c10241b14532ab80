"""Sessions that are in no log, and agents that recommend into them, many sessions at once.

What one session is given depends on neither the others of a batch nor their number, but for what
rounding decides: torch rounds sums otherwise for one session than for many. The command `musicbox
recommend`, playlists and the service all ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent
from musicbox_agents.baselines.bounds import PrivilegedAgent
from musicbox_agents.ddpg.agent import DDPGAgent
from musicbox_agents.ddpg.space import Decision

from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Simulator

AT_ONCE: Final = 64
"""Sessions that an agent answers in one batch."""

Rows = npt.NDArray[np.int64]


def no_songs() -> Rows:
    """Rows of no songs ``(0,)``."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class LiveSession:
    """A listening session that goes on now.

    Attributes:
        tracks: Songs heard, oldest first, as rows of the catalog ``(t,)``.
        levels: How far each was heard ``(t,)``.
        context: Where and when ``(CONTEXT_SIZE,)``; see `recommend.context_of`.
        barred: Songs not to be recommended, besides those heard ``(b,)``.
    """

    tracks: Rows
    levels: npt.NDArray[np.integer]
    context: npt.NDArray[np.float32]
    barred: Rows = field(default_factory=no_songs)

    def then(self, track: int, level: int) -> LiveSession:
        """The session after one more song."""
        tracks, levels = np.append(self.tracks, track), np.append(self.levels, level)
        return replace(self, tracks=tracks, levels=levels)

    def without(self, songs: Iterable[int]) -> LiveSession:
        """The same with further songs barred."""
        return replace(self, barred=np.concatenate([self.barred, np.array([*songs], np.int64)]))


class Choice(NamedTuple):
    """What an agent chose for n sessions, and from what.

    Attributes:
        slates: Rows of the catalog ``(n, k)``, best first, -1 for none.
        actions: Of the agent.
        observation: What it saw.
        state: What it is to be given with the same sessions next time; see `Agent.predict`.
        decision: What `ddpg` found on the way; None of other agents.
    """

    slates: Rows
    actions: npt.NDArray
    observation: Any
    state: Any
    decision: Decision | None


class Recommender:
    """An agent, and simulators that show it sessions.

    Attributes:
        agent: Who chooses.
        assets: What its simulators share.
    """

    def __init__(self, agent: Agent, *, restricted: bool = False) -> None:
        """Open what the agent observes.

        Args:
            agent: Who chooses.
            restricted: Whether it chooses among given songs, and not from the catalog.

        Raises:
            ValueError: It reads the listener itself, so that there is nothing to recommend from.
        """
        if isinstance(agent, PrivilegedAgent):
            raise ValueError(
                f"{agent.name} cannot recommend: it replays logged sessions or reads a simulated "
                "listener, and a live session has neither."
            )
        options = {"data": str(agent.dataset.folder), "listener": "replay"}
        options["candidates"] = "session" if restricted else "catalog"
        self.agent = agent
        self.assets = EnvAssets(SessionConfig.from_keywords({**options, **agent.env_options}))
        self._simulators: dict[int, Simulator] = {}

    def room(self, heard: LiveSession, among: Sequence[int] | Rows = ()) -> int:
        """Songs that a simulator of it has room for: one of few numbers, so that few are made."""
        room, needed = self.assets.capacity, len(heard.tracks) + len(heard.barred)
        while room < max(needed, len(among)):
            room *= 2
        return room

    def has_slate(self, heard: LiveSession) -> bool:
        """Whether a slate is left, of songs neither heard nor barred."""
        return self.assets.has_slate(len(heard.tracks) + len(heard.barred)) or (
            self.assets.has_slate(len(np.unique(np.concatenate([heard.tracks, heard.barred]))))
        )

    def choose(
        self, sessions: Sequence[LiveSession], *, state: Any = None, among: Rows | None = None
    ) -> Choice:
        """Choose for at most `AT_ONCE` sessions.

        Args:
            sessions: The sessions ``(n,)``.
            state: The agent's, of an earlier choice for the same sessions; None at the start.
            among: Songs to choose from, where the choice is restricted ``(c,)``.

        Raises:
            ValueError: No slate is left for one of them.
        """
        room = max(self.room(heard, () if among is None else among) for heard in sessions)
        if room not in self._simulators:
            self._simulators[room] = Simulator(self.assets, AT_ONCE, capacity=room)
        simulator, rows = self._simulators[room], np.arange(len(sessions))
        for row, heard in enumerate(sessions):
            simulator.show(
                row, heard.tracks, heard.levels, heard.context, among=among, barred=heard.barred
            )
        observation = simulator.observe(rows)
        decision = None
        if isinstance(self.agent, DDPGAgent):
            decision = self.agent.decide(observation, noise=0.0)
            actions: npt.NDArray = decision.slates
        else:
            begun = np.full(len(rows), state is None)
            actions, state = self.agent.predict(observation, state, begun, deterministic=True)
        slates, _, _ = simulator.choose(rows, actions)
        return Choice(slates, actions, observation, state, decision)
