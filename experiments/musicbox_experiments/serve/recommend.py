"""Print the next songs for a listening history, chosen by a trained agent of a run.

    musicbox recommend runs/compare --heard "t_1a2b:full,t_3c4d:skipped,t_5e6f:kept"

    musicbox recommend runs/mine --heard "Artist - Title:full,Artist - Another, Longer:skipped"

Each song is SONG:LEVEL, oldest first; a song is any of its track ids, a Spotify link or URI, or
"Artist - Title" where the dataset knows titles, in any spelling of capitals, accents and dashes; a
level is a number from 0 (brief) to 4 (full), its
name, or `skipped` or `kept`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro
from musicbox_agents import Agent, load_agent
from musicbox_agents.base import require_ranges

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.learned.features import context_inputs
from musicbox_env.schema import CONTEXT_TYPES, Level, require_known, suggest
from musicbox_env.simulator.assets import EnvAssets, open_dataset
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Simulator
from musicbox_env.simulator.observations import CONTEXT_SIZE
from musicbox_experiments.text import say
from musicbox_experiments.train.jobs import read_training, run_folders
from musicbox_experiments.train.monitor import VALIDATION, read_curve

LEVEL_NAMES = {
    **{level.name.lower(): int(level) for level in Level if level >= 0},
    **{str(int(level)): int(level) for level in Level if level >= 0},
    "skipped": int(Level.BRIEF),
    "kept": int(Level.FULL),
}


@dataclass(frozen=True)
class RecommendConfig:
    """Options of `musicbox recommend`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run made by `musicbox compare` or `musicbox train`."""
    heard: str
    """Songs heard so far, oldest first, as SONG:LEVEL separated by commas. A song is a track id, or
    Artist - Title."""
    agent: str = "ddpg"
    """Which agent of the run."""
    seed: int | None = None
    """Which of its trainings; the one that validation liked best if left out."""
    hour: int = -1
    """Hour of the day, 0 to 23; -1 is unknown."""
    premium: int = -1
    """1 where the listener pays, 0 where not; -1 is unknown."""
    shuffle: int = -1
    """1 with shuffle, 0 without; -1 is unknown."""
    context: str | None = None
    """Where the songs are played from, for example editorial_playlist."""

    def __post_init__(self) -> None:
        parse_heard(self.heard)
        require_ranges(self, {"hour": (-1, 23), "premium": (-1, 1), "shuffle": (-1, 1)})
        if self.context is not None:
            require_known("context", self.context, CONTEXT_TYPES)


def parse_heard(text: str) -> tuple[list[str], list[int]]:
    """Songs and levels of a listening history.

    A comma within a title does not end a song, since a song ends with its level; no level begins
    with a blank, as what follows a colon in a title does.

    >>> parse_heard("t_a:4, Simon & Garfunkel - Cecilia, Live: Part 1:skipped")
    (['t_a', 'Simon & Garfunkel - Cecilia, Live: Part 1'], [4, 0])
    """
    songs, levels = [], []
    begun = ""
    for part in filter(None, (p.strip() for p in text.split(","))):
        begun = f"{begun}, {part}" if begun else part
        song, colon, level = begun.rpartition(":")
        if not colon or level != level.lstrip():
            continue
        if not song:
            raise ValueError(f"{begun!r} is no song heard; expected SONG:LEVEL.")
        require_known("level", level, LEVEL_NAMES)
        songs.append(song)
        levels.append(LEVEL_NAMES[level])
        begun = ""
    if begun:
        raise ValueError(f"{begun!r} is no song heard; expected SONG:LEVEL.")
    if not songs:
        raise ValueError("--heard names no song; expected SONG:LEVEL, separated by commas.")
    return songs, levels


def run(config: RecommendConfig) -> None:
    """Print one song a line, best first: its title where the dataset knows it, and its id."""
    agent, dataset = _opened(config)
    catalog = dataset.catalog
    for row in recommend_next(agent, dataset, config.heard, _context(config)):
        track_id, title = catalog.track_ids[row], catalog.titles[row]
        say(track_id if title == track_id else f"{title}  ({track_id})")


def recommend(config: RecommendConfig) -> list[str]:
    """Track ids that the agent recommends next, best first."""
    agent, dataset = _opened(config)
    rows = recommend_next(agent, dataset, config.heard, _context(config))
    return [str(dataset.catalog.track_ids[row]) for row in rows]


def _opened(config: RecommendConfig) -> tuple[Agent, Dataset]:
    """The agent of a run, and the dataset that it was trained on."""
    folder = find_training(config.run, config.agent, config.seed)
    dataset = open_dataset(read_training(folder)["options"]["data"])
    return load_agent(folder / "best", dataset), dataset


def recommend_next(
    agent: Agent, dataset: Dataset, heard: str, context: npt.NDArray[np.float32] | None = None
) -> list[int]:
    """Rows of the songs that an agent recommends next, best first.

    Args:
        agent: Who chooses.
        dataset: What it was made on.
        heard: As `parse_heard` reads it.
        context: Where and when, ``(CONTEXT_SIZE,)``; None is unknown.
    """
    tracks, levels = parse_heard(heard)
    options = {"data": str(dataset.folder), "listener": "replay", "candidates": "catalog"}
    assets = EnvAssets(SessionConfig.from_keywords({**options, **agent.env_options}))
    room = max(assets.capacity, len(tracks))  # every song heard is barred, however many they are
    simulator = Simulator(assets, num_envs=1, capacity=room)
    shown = _unknown_context() if context is None else context
    simulator.show(0, dataset.catalog.find(tracks), np.array(levels), shown)
    only = np.zeros(1, np.intp)
    agent.attach(simulator)
    action, _ = agent.predict(
        simulator.observe(only), None, np.ones(1, np.bool_), deterministic=True
    )
    slates, _, _ = simulator.choose(only, action)
    return [int(row) for row in slates[0] if row >= 0]


def _context(config: RecommendConfig) -> npt.NDArray[np.float32]:
    context_type = -1 if config.context is None else CONTEXT_TYPES.index(config.context)
    return _context_of(config.hour, config.premium, config.shuffle, context_type)


def _unknown_context() -> npt.NDArray[np.float32]:
    return _context_of(-1, -1, -1, -1)


def _context_of(hour: int, premium: int, shuffle: int, kind: int) -> npt.NDArray[np.float32]:
    codes = np.array([hour, premium, shuffle, kind])
    context = np.zeros(CONTEXT_SIZE, np.float32)
    context[:-1] = context_inputs(np.zeros(1, np.int64), tuple(codes[:, None]))[0]
    return context


def find_training(run_folder: Path, agent: str, seed: int | None) -> Path:
    """Folder of one finished training of a run; without a seed the one validation liked best.

    Of a run that trained on parts of training, trainings of all parts are its own.

    Raises:
        FileNotFoundError: The run has no such training; the message says what it has.
    """
    try:
        inner = run_folders(run_folder)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{run_folder} holds no trained agent; make one with `musicbox compare --out "
            f"{run_folder}` or `musicbox train`."
        ) from None
    trainings = [f for run in inner for f in sorted(run.glob("agents/*/seed-*/training.json"))]
    names = sorted({file.parent.parent.name for file in trainings})
    if agent not in names:
        raise FileNotFoundError(f"No agent {agent!r} in {run_folder}; {suggest(agent, names)}")
    folders: dict[int, list[Path]] = {}
    for file in trainings:
        if file.parent.parent.name == agent:
            folders.setdefault(read_training(file.parent)["seed"], []).append(file.parent)
    if seed is not None and seed not in folders:
        raise FileNotFoundError(
            f"No training of {agent} with seed {seed} in {run_folder}; there are {sorted(folders)}."
        )
    there = [folder for number, of in folders.items() if seed in (None, number) for folder in of]
    return min(there, key=_best_validation)


def _best_validation(folder: Path) -> float:
    rates = [row[VALIDATION] for row in read_curve(folder)]
    return min((rate for rate in rates if not math.isnan(rate)), default=0.0)
