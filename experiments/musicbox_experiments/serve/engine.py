"""Agents of a run that answer many listeners at once.

What one listener is answered depends on neither the others of the batch nor their number, but for
what rounding decides; it is what `musicbox recommend` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent, load_agent

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.dataset import FINGERPRINT, Dataset
from musicbox_env.errors import UserError, is_message, shown
from musicbox_env.ingest.histories.levels import TYPICAL_LENGTH_MS
from musicbox_env.listeners import LearnedListener
from musicbox_env.schema import suggest
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.serve.playlist import Place, playlist
from musicbox_experiments.serve.reasons import points_of, scores_of
from musicbox_experiments.serve.recommend import find_training, playlist_listener
from musicbox_experiments.serve.recommender import AT_ONCE, Choice, LiveSession, Recommender
from musicbox_experiments.serve.songs import Songs
from musicbox_experiments.text import say
from musicbox_experiments.train.jobs import read_training, run_folders

PREFERRED: Final = ("ddpg", "played-rate", "best-rate")
"""Who answers where no agent is named: the first of these that the run has."""

Scored = tuple[int, float | None]
"""Row of a song, and what its agent orders songs by, where that is a number."""


@dataclass(eq=False)
class Asked:
    """A session for which songs are found slate by slate, those found barred.

    Attributes:
        session: The session.
        number: How many songs it shall get.
        found: Those found so far, best first.
        over: Whether these are enough, or all there are.
    """

    session: LiveSession
    number: int
    found: list[Scored] = field(default_factory=list)
    over: bool = False

    @property
    def songs(self) -> list[Scored]:
        """Those found, no more than were asked for."""
        return self.found[: self.number]


class ServedAgent(Recommender):
    """A trained agent that answers batches of requests.

    Attributes:
        label: Its name in the run.
        seed: Of its training.
    """

    def __init__(self, label: str, seed: int, agent: Agent, trainer: str) -> None:
        """Open what the agent observes.

        Args:
            label: Its name in the run.
            seed: Of its training.
            agent: Who chooses.
            trainer: Name or file of the listener that it learned with.

        Raises:
            ValueError: It reads the listener itself; see `Recommender`.
        """
        super().__init__(agent)
        self.label, self.seed, self._trainer = shown(label), seed, trainer

    def songs(self, sessions: Sequence[LiveSession], numbers: Sequence[int]) -> list[list[Scored]]:
        """The next songs for each session, best first.

        Args:
            sessions: The sessions ``(n,)``.
            numbers: How many songs each gets ``(n,)``; fewer where the catalog has no more.
        """
        asked = [Asked(*each) for each in zip(sessions, numbers, strict=True)]
        while waiting := [one for one in asked if not one.over]:
            self.add_slates(waiting)
        return [one.songs for one in asked]

    def add_slates(self, asked: Sequence[Asked]) -> None:
        """Find one more slate for each; a slate has as many songs as the agent was made for."""
        barring = [one.session.without(row for row, _ in one.found) for one in asked]
        for one, slate in zip(asked, self.slates(barring), strict=True):
            one.found += slate
            one.over = not slate or len(one.found) >= one.number

    def slates(self, sessions: Sequence[LiveSession]) -> list[list[Scored]]:
        """One slate for each session; empty where too few songs are left."""
        answers: list[list[Scored]] = [[] for _ in sessions]
        rooms = {i: self.room(one) for i, one in enumerate(sessions) if self.has_slate(one)}
        for room in sorted({*rooms.values()}):
            alike = [i for i in rooms if rooms[i] == room]
            for start in range(0, len(alike), AT_ONCE):
                part = alike[start : start + AT_ONCE]
                choice = self.choose([sessions[i] for i in part])
                for i, slate, scores in zip(part, choice.slates, self.scores(choice), strict=True):
                    pairs = zip(slate.tolist(), scores.tolist(), strict=True)
                    answers[i] = [(row, number(score)) for row, score in pairs if row >= 0]
        return answers

    def scores(self, choice: Choice) -> npt.NDArray[np.float32]:
        """What orders the songs of slates ``(n, k)``; see `reasons.scores_of`."""
        return scores_of(self.agent, self.assets, choice)

    def points(self, choice: Choice) -> npt.NDArray[np.float32]:
        """Proto-actions ``(n, m, d)``; see `reasons.points_of`."""
        return points_of(self.agent, self.assets, choice)

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

    def playlist(self, heard: LiveSession, number: int) -> list[Place]:
        """Songs to be heard one after another; see `playlist`.

        Raises:
            ValueError: Too few songs are left, or no listener was learned.
        """
        return playlist(self, heard, number, self.listener)


class Engine:
    """All that answers requests: the agents of one run, and the songs of its catalog.

    Attributes:
        run: Name of the run, without its path; as labels are, fit for JSON and a terminal.
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
        self.run, self.dataset, self.left_out = shown(run), dataset, [*map(shown, left_out)]
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
    """A number, or None where it is NaN or infinite: JSON has none of them."""
    return float(value) if np.isfinite(value) else None
