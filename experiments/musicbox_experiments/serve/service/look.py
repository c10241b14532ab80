"""What agents would play now and why, in one's own session or in that of a simulated listener."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import RATE_SUFFIX
from musicbox_env.errors import shown
from musicbox_env.rng import new_key
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Simulator
from musicbox_experiments.serve.catalog_map import CatalogMap
from musicbox_experiments.serve.engine import Engine, ServedAgent, number
from musicbox_experiments.serve.reasons import near_to
from musicbox_experiments.serve.recommend import context_of
from musicbox_experiments.serve.recommender import Choice, LiveSession, Rows
from musicbox_experiments.serve.service.asking import find_all, heard_songs
from musicbox_experiments.serve.service.schemas import (
    AgentView,
    HeardSong,
    Look,
    LookRequest,
    SeenSong,
    Unknown,
)

SKIP_RATES: Final = "skip rates of the log"
"""Who says how likely the listener at the page skips a song, whom nobody simulates."""
_ONLY: Final = np.zeros(1, np.intp)

Doubles = npt.NDArray[np.float64]


class _Seen(NamedTuple):
    """A session to look at.

    Attributes:
        session: As agents see it.
        chances: Of a skip, of each song heard ``(t,)``, NaN where nobody says.
        remaining: Songs that a simulated listener still hears.
        simulator: The simulated listener; None for one's own session.
        unknown: Songs named that are not in the catalog.
    """

    session: LiveSession
    chances: Doubles
    remaining: int | None
    simulator: Simulator | None
    unknown: list[Unknown]


class Looker:
    """Shows sessions, and what agents would play in them.

    Attributes:
        map: Where songs lie for eyes.
        assets: Of simulated sessions: the listeners of the test sessions.
    """

    def __init__(self, engine: Engine, listener: str | None = None) -> None:
        """Open the listeners.

        Args:
            engine: Who answers.
            listener: Name or file of the simulated listener; None is the exact law where the data
                has one, else `replay`.
        """
        self.engine, self.map = engine, CatalogMap(engine.dataset)
        self._skip_rate = engine.dataset.catalog.skip_rate()
        tested = len(engine.dataset.sessions.playable("test")) > 0
        options = {
            "data": str(engine.dataset.folder),
            "split": "test" if tested else "train",
            "listener": listener,
            "candidates": "catalog",
            "action": "slate",
            "slate_size": 1,
            "repeats": True,
            "embedding": engine.dataset.default_embedding,
        }
        self.assets = EnvAssets(SessionConfig.from_keywords(options))

    @property
    def evaluator(self) -> str:
        """Who says how likely songs are skipped in simulated sessions."""
        name = str(self.assets.config.listener)
        return shown(name.rpartition("/")[2])

    def keep_rate(self, row: int) -> float:
        """Shrunken keep rate of a song in training."""
        return 1 - float(self._skip_rate[row])

    def look(self, request: LookRequest) -> Look:
        """Show a session, and what the agents named would play in it.

        Raises:
            KeyError: No such agent.
            ValueError: No such listener.
        """
        names = dict.fromkeys(request.agents or self.engine.agents)  # each of them once
        agents = [self.engine.agent(name) for name in names]
        seen = self._own(request) if request.listener is None else self._simulated(request)
        return Look(
            run=self.engine.run,
            dataset=self.engine.fingerprint,
            heard=self._heard(seen),
            remaining=seen.remaining,
            over=seen.remaining == 0,
            agents=[self._view(one, seen) for one in agents],
            unknown=seen.unknown,
        )

    def _own(self, request: LookRequest) -> _Seen:
        tracks, levels, unknown = heard_songs(self.engine, request.heard)
        session = LiveSession(tracks, levels, context_of())
        return _Seen(session, np.full(len(tracks), np.nan), None, None, unknown)

    def _simulated(self, request: LookRequest) -> _Seen:
        pool, listener = self.assets.pool, request.listener
        assert listener is not None
        if listener >= len(pool):
            raise ValueError(
                f"There is no listener {listener}; there are {len(pool):,}, from 0 on."
            )
        played, unknown = find_all(self.engine, request.played)
        simulator = Simulator(self.assets, 1)
        key = new_key(np.random.default_rng((request.seed, listener)))
        simulator.begin(_ONLY, pool[[listener]], np.array([key], np.uint64))
        chances = [np.nan] * int(simulator.history.count[0])
        for row in played[played >= 0]:
            if simulator.remaining[0] > 0:
                chances.append(_heard_next(simulator, row))
        history, heard = simulator.history, slice(0, int(simulator.history.count[0]))
        session = LiveSession(
            history.tracks[0, heard].astype(np.int64),
            history.levels[0, heard].copy(),
            simulator.context[0].copy(),
        )
        remaining = int(simulator.remaining[0])
        return _Seen(session, np.array(chances), remaining, simulator, unknown)

    def _heard(self, seen: _Seen) -> list[HeardSong]:
        places = self.map.places(self.map.vectors[seen.session.tracks])
        songs = zip(seen.session.tracks, seen.session.levels, seen.chances, places, strict=True)
        return [
            HeardSong(
                **self.about(int(row)),
                row=int(row),
                at=_pair(place),
                level=int(level),
                skip_chance=number(chance),
            )
            for row, level, chance, place in songs
        ]

    def about(self, row: int) -> dict[str, Any]:
        """Id, title and artist of a song, the fields of `schemas.Song`."""
        artist, title = self.engine.songs.artist_and_title(row)
        return {"id": self.engine.songs.id(row), "title": title, "artist": artist}

    def _view(self, served: ServedAgent, seen: _Seen) -> AgentView:
        if seen.remaining == 0 or not served.has_slate(seen.session):
            return AgentView(agent=served.label, songs=[], points=[], near=[])
        choice = served.choose([seen.session])
        points = served.points(choice)[0]
        near = (
            near_to(served.agent, served.assets, choice.observation, points[0])
            if len(points)
            else np.empty(0, np.int64)
        )
        return AgentView(
            agent=served.label,
            songs=self._songs(served, choice, seen),
            points=self._points(served, points),
            near=near[near < len(self.map)].tolist(),
        )

    def _songs(self, served: ServedAgent, choice: Choice, seen: _Seen) -> list[SeenSong]:
        rows = choice.slates[0][choice.slates[0] >= 0]
        chances = self._skip_rate[rows]
        if seen.simulator is not None:
            chances = _heard_in_order(seen.simulator, rows)
        places = self.map.places(self.map.vectors[rows])
        nearest = [self._nearest(row, seen.session.tracks) for row in rows]
        parts = zip(rows, served.scores(choice)[0], chances, places, nearest, strict=False)
        return [
            SeenSong(
                **self.about(int(row)),
                row=int(row),
                at=_pair(place),
                score=number(score),
                skip_chance=float(chance),
                keep_rate=self.keep_rate(row),
                nearest=name,
                likeness=likeness,
            )
            for row, score, chance, place, (name, likeness) in parts
        ]

    def _nearest(self, row: int, heard: Rows) -> tuple[str | None, float | None]:
        """Which song heard is most like a song, and the cosine of the two."""
        if not len(heard):
            return None, None
        cosines = self.map.vectors[heard] @ self.map.vectors[row]
        best = int(cosines.argmax())
        return self.engine.songs.name(int(heard[best])), float(cosines[best])

    def _points(self, served: ServedAgent, points: npt.NDArray) -> list[tuple[float, float]]:
        """Proto-actions on the map; none of an agent that acts in another space."""
        if served.assets.config.embedding.removesuffix(RATE_SUFFIX) != self.map.embedding:
            return []
        directions = points[:, : self.map.vectors.shape[1]].astype(np.float64)
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        unit = directions / np.maximum(length, np.finfo(float).tiny)
        return [_pair(place) for place in self.map.places(unit)]


def _heard_next(simulator: Simulator, row: int) -> float:
    """Chance of a skip of a song, which the listener hears then unless its session is over."""
    song = np.array([[row]])
    chance = float(simulator.skip_probabilities(_ONLY, song)[0, 0])
    simulator.step(_ONLY, song)
    return chance


def _heard_in_order(simulator: Simulator, rows: Rows) -> Doubles:
    """Chances of a skip, each after the songs before it ``(k,)``; nothing was heard in the end."""
    before = {name: array.copy() for name, array in simulator.arrays().items()}
    chances = np.array([_heard_next(simulator, row) for row in rows])
    simulator.restore(before)
    return chances


def _pair(place: Sequence[float] | npt.NDArray) -> tuple[float, float]:
    return float(place[0]), float(place[1])
