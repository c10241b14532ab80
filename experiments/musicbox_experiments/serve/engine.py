"""Agents of a run that answer many listeners at once.

What one listener is answered depends neither on the others of the batch nor on their number; it is
what `musicbox recommend` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent, load_agent
from musicbox_agents.baselines.bounds import PrivilegedAgent

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.dataset import FINGERPRINT, Dataset
from musicbox_env.errors import UserError, is_message
from musicbox_env.ingest.histories.levels import TYPICAL_LENGTH_MS
from musicbox_env.listeners import LearnedListener
from musicbox_env.schema import suggest
from musicbox_env.simulator.assets import EnvAssets, open_dataset
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Simulator
from musicbox_experiments.serve.playlist import Heard, Place, playlist
from musicbox_experiments.serve.reasons import points_of, scores_of
from musicbox_experiments.serve.recommend import find_training, playlist_listener
from musicbox_experiments.serve.songs import Songs
from musicbox_experiments.text import say
from musicbox_experiments.train.jobs import read_training, run_folders

PREFERRED: Final = ("ddpg", "played-rate", "best-rate")
"""Who answers where no agent is named: the first of these that the run has."""
AT_ONCE: Final = 64
"""Listeners that an agent answers in one batch."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """What an agent is asked about: a listening session that goes on now.

    Attributes:
        tracks: Songs heard, oldest first ``(t,)``, rows of the catalog.
        levels: How far each was heard ``(t,)``.
        context: Where and when ``(CONTEXT_SIZE,)``; see `recommend.context_of`.
        barred: Songs not to be recommended, besides those heard ``(b,)``.
    """

    tracks: Rows
    levels: npt.NDArray[np.int8]
    context: npt.NDArray[np.float32]
    barred: Rows

    @property
    def known(self) -> int:
        """Songs heard or barred, all of which take room in a simulator."""
        return len(self.tracks) + len(self.barred)

    def without(self, songs: Sequence[int]) -> Asked:
        """The same with further songs barred."""
        return replace(self, barred=np.concatenate([self.barred, np.array(songs, np.int64)]))


Scored = tuple[int, float | None]
"""Row of a song, and what its agent orders songs by, where that is a number."""


class Choice(NamedTuple):
    """What an agent chose for n listeners, and from what.

    Attributes:
        slates: Rows of the catalog ``(n, k)``, -1 for none.
        scores: See `reasons.scores_of` ``(n, k)``.
        points: Its proto-actions ``(n, m, d)``; see `reasons.points_of`.
        observation: What it saw.
    """

    slates: Rows
    scores: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]
    observation: Any


class ServedAgent:
    """A trained agent, and simulators that show it listeners.

    Attributes:
        label: Its name in the run.
        seed: Of its training.
        agent: Who chooses.
        assets: What its simulators share.
    """

    def __init__(self, label: str, seed: int, agent: Agent, trainer: str) -> None:
        """Open what the agent observes.

        Args:
            label: Its name in the run.
            seed: Of its training.
            agent: Who chooses.
            trainer: Name or file of the listener that it learned with.

        Raises:
            ValueError: It reads the listener itself, so that there is nothing to recommend from.
        """
        if isinstance(agent, PrivilegedAgent):
            raise ValueError(f"{label} reads a simulated listener, and none is there to be read.")
        self.label, self.seed, self.agent, self._trainer = label, seed, agent, trainer
        options = {"data": str(agent.dataset.folder), "listener": "replay", "candidates": "catalog"}
        self.assets = EnvAssets(SessionConfig.from_keywords({**options, **agent.env_options}))
        self._simulators: dict[int, Simulator] = {}

    def songs(self, asked: Sequence[Asked], numbers: Sequence[int]) -> list[list[Scored]]:
        """The next songs for each listener, best first.

        A slate has as many songs as the agent was made for. More are found slate by slate, those
        found barred.

        Args:
            asked: The listeners ``(n,)``.
            numbers: How many songs each gets ``(n,)``; fewer where the catalog has no more.
        """
        found: list[list[Scored]] = [[] for _ in asked]
        waiting = list(range(len(asked)))
        while waiting:
            slates = self.slates([asked[i].without([row for row, _ in found[i]]) for i in waiting])
            for i, slate in zip(waiting, slates, strict=True):
                found[i] += slate
            added = zip(waiting, slates, strict=True)
            waiting = [i for i, slate in added if slate and len(found[i]) < numbers[i]]
        return [songs[:number] for songs, number in zip(found, numbers, strict=True)]

    @cached_property
    def listener(self) -> LearnedListener:
        """Who hears its playlists.

        Raises:
            UserError: The dataset has no listener that was learned on it.
        """
        try:
            return playlist_listener(self._trainer, self.agent.dataset)
        except (ValueError, OSError) as error:
            raise UserError(
                "No listener was learned on this dataset, and playlists need one; whoever serves "
                "it makes one with `musicbox fit-listener`."
            ) from error

    def playlist(self, asked: Asked, number: int) -> list[Place]:
        """Songs to be heard one after another; see `playlist`.

        Raises:
            ValueError: Too few songs are left, or no listener was learned.
        """
        heard = Heard(asked.tracks, asked.levels.astype(np.int64), asked.context)
        return playlist(self.agent, heard, number, self.listener, barred=asked.barred.tolist())

    def slates(self, asked: Sequence[Asked]) -> list[list[Scored]]:
        """One slate for each listener; empty where too few songs are left."""
        answers: list[list[Scored]] = [[] for _ in asked]
        rooms = {i: self._room(one) for i, one in enumerate(asked) if self.has_slate(one)}
        for room in sorted({*rooms.values()}):
            alike = [i for i in rooms if rooms[i] == room]
            for start in range(0, len(alike), AT_ONCE):
                part = alike[start : start + AT_ONCE]
                choice = self.choose([asked[i] for i in part], room)
                for i, slate, scores in zip(part, choice.slates, choice.scores, strict=True):
                    pairs = zip(slate.tolist(), scores.tolist(), strict=True)
                    answers[i] = [(row, number(score)) for row, score in pairs if row >= 0]
        return answers

    def choose(self, asked: Sequence[Asked], room: int | None = None) -> Choice:
        """Choose for at most `AT_ONCE` listeners, in a simulator with room for so many songs."""
        room = max(map(self._room, asked)) if room is None else room
        if room not in self._simulators:
            self._simulators[room] = Simulator(self.assets, AT_ONCE, capacity=room)
        simulator, rows = self._simulators[room], np.arange(len(asked))
        for row, one in enumerate(asked):
            simulator.show(row, one.tracks, one.levels, one.context, barred=one.barred)
        observation, begun = simulator.observe(rows), np.ones(len(rows), np.bool_)
        actions, _ = self.agent.predict(observation, None, begun, deterministic=True)
        slates, _, _ = simulator.choose(rows, actions)
        seen = self.agent, self.assets, observation, actions
        return Choice(slates, scores_of(*seen, slates), points_of(*seen), observation)

    def _room(self, asked: Asked) -> int:
        """Songs that a simulator has room for: one of few numbers, so that few are made."""
        room = self.assets.capacity
        while room < asked.known:
            room *= 2
        return room

    def has_slate(self, asked: Asked) -> bool:
        """Whether enough songs are left for a slate."""
        known = len(np.unique(np.concatenate([asked.tracks, asked.barred])))
        return self.assets.has_slate(known)


class Engine:
    """All that answers requests: the agents of one run, and the songs of its catalog.

    Attributes:
        run: Name of the run, without its path.
        dataset: What the agents were made on.
        songs: Songs by name.
        agents: The agents by their labels, the default first.
        default: Label of the one that answers where none is named.
        left_out: Labels of other agents of the run, which cannot be served.
    """

    def __init__(
        self, run: str, dataset: Dataset, agents: Sequence[ServedAgent], left_out: Sequence[str]
    ) -> None:
        """Put agents and catalog together; see `open`."""
        self.run, self.dataset, self.left_out = run, dataset, list(left_out)
        self.songs = Songs(Catalog(dataset.folder))  # whose names are freed, they are many
        labels = [served.label for served in agents]
        self.default = next((name for name in PREFERRED if name in labels), labels[0])
        first = sorted(agents, key=lambda served: served.label != self.default)
        self.agents = {served.label: served for served in first}

    @classmethod
    def open(cls, run: Path, labels: Sequence[str] = (), seed: int | None = None) -> Engine:
        """Load agents of a run.

        Args:
            run: Its folder.
            labels: Which agents; empty is all that can be served.
            seed: Which of their trainings; None is the one that validation liked best.

        Raises:
            FileNotFoundError: The folder holds no trained agent, or not this one.
            ValueError: None of the agents can be served.
        """
        folders = {label: find_training(run, label, seed) for label in labels or _labels(run)}
        dataset: Dataset | None = None
        served, left_out = [], []
        for label, folder in folders.items():
            try:
                training = read_training(folder)
                own = open_dataset(training["options"]["data"])
                dataset = dataset or own
                if own.identity != dataset.identity:
                    raise ValueError(f"{label} was made on another dataset than the others.")
                agent = load_agent(folder / "best", dataset)
                trainer = training["options"]["listener"]
                served.append(ServedAgent(label, training["seed"], agent, trainer))
            except (ValueError, LookupError, OSError) as error:
                if labels or not is_message(error):
                    raise
                left_out.append(label)
                say(f"Not served: {label}. {error}", to_errors=True)
        if dataset is None or not served:
            raise ValueError(f"{run} holds no agent that can be served; it holds {list(folders)}.")
        return cls(run.resolve().name, dataset, served, left_out)

    @property
    def fingerprint(self) -> str:
        """Of the dataset."""
        return str(self.dataset.identity[FINGERPRINT])

    @cached_property
    def durations(self) -> npt.NDArray[np.float32]:
        """Length of each song in milliseconds ``(num_tracks,)``, typical where it is unknown."""
        seconds = self.dataset.catalog.features(("duration",))[:, 0]
        return np.where(seconds > 0, 1_000 * seconds, TYPICAL_LENGTH_MS).astype(np.float32)

    def agent(self, label: str | None) -> ServedAgent:
        """An agent by its label; None is the default.

        Raises:
            KeyError: There is none of that name; the message names those there are.
        """
        name = self.default if label is None else label
        if name not in self.agents:
            raise KeyError(f"No agent {name[:80]!r} is served; {suggest(name[:80], self.agents)}")
        return self.agents[name]


def _labels(run: Path) -> list[str]:
    folders = [folder for inner in run_folders(run) for folder in inner.glob("agents/*")]
    return sorted({folder.name for folder in folders if any(folder.glob("seed-*/training.json"))})


def number(value: float) -> float | None:
    """A number, or None where it is NaN: JSON has none."""
    return None if np.isnan(value) else float(value)
