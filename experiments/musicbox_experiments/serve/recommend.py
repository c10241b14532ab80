"""Print the next songs for a listening history, or a playlist, chosen by a trained agent of a run.

    musicbox recommend runs/compare --heard "t_1a2b:full,t_3c4d:skipped,t_5e6f:kept"

    musicbox recommend runs/mine --heard "Artist - Title:full,Artist - Another, Longer:skipped"

    musicbox recommend runs/compare --heard "t_1a2b:full" --songs 20

    musicbox recommend runs/compare --heard "t_1a2b:full" --order t_3c4d t_5e6f t_7a8b

Each song is SONG:LEVEL, oldest first; a song is any of its track ids, a Spotify link or URI, or
"Artist - Title" where the dataset knows titles, in any spelling of capitals and dashes; a
level is a number from 0 (brief) to 4 (full), its
name, or `skipped` or `kept`. Playlists (`--songs`, `--order`) are rolled out as `playlist` says,
and each of their songs has the chance that a learned listener skips it there: the one that the
agent learned with, else the dataset's own.
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
from musicbox_env.listeners import LearnedListener, make_listener
from musicbox_env.listeners.learned.features import context_inputs
from musicbox_env.schema import CONTEXT_TYPES, UNKNOWN, Level, require_known, suggest
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.simulator.observations import CONTEXT_SIZE
from musicbox_experiments.serve.playlist import LONGEST, Place, playlist
from musicbox_experiments.serve.recommender import LiveSession, Recommender
from musicbox_experiments.text import say
from musicbox_experiments.train.jobs import read_training, run_folders
from musicbox_experiments.train.monitor import VALIDATION, read_curve

LEVEL_NAMES = {
    **{level.name.lower(): int(level) for level in Level if level >= 0},
    **{str(int(level)): int(level) for level in Level if level >= 0},
    "skipped": int(Level.BRIEF),
    "kept": int(Level.FULL),
}
_WORDS = [name for name in LEVEL_NAMES if not name.isdigit()]
EXPECTED = f"expected SONG:LEVEL, where LEVEL is {', '.join(_WORDS)} or a number from 0 to 4"


@dataclass(frozen=True)
class RecommendConfig:
    """Options of `musicbox recommend`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run made by `musicbox compare` or `musicbox train`."""
    heard: str
    """Songs heard so far, oldest first, as SONG:LEVEL separated by commas. A song is a track id, or
    Artist - Title; a level is skipped, kept, brief, short, most, cut, full, or 0 to 4."""
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
    songs: int | None = None
    """Songs of an ordered playlist, with the chance that each is skipped; the next slate alone if
    left out."""
    order: tuple[str, ...] | None = None
    """Songs to be put in order, in place of songs from the catalog: as of --heard, without levels.
    """

    def __post_init__(self) -> None:
        parse_heard(self.heard)
        require_ranges(self, {"hour": (-1, 23), "premium": (-1, 1), "shuffle": (-1, 1)})
        if self.context is not None:
            require_known("context", self.context, CONTEXT_TYPES)
        if self.songs is not None:
            require_ranges(self, {"songs": (1, LONGEST)})
        if self.order == ():
            raise ValueError("--order names no song; name those to be put in order.")


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
            raise ValueError(f"{begun!r} is no song heard; {EXPECTED}.")
        require_known("level", level, LEVEL_NAMES)
        songs.append(song)
        levels.append(LEVEL_NAMES[level])
        begun = ""
    if begun:
        raise ValueError(f"{begun!r} is no song heard; {EXPECTED}.")
    if not songs:
        raise ValueError(f"{text!r} names no song heard; {EXPECTED}; commas between songs.")
    return songs, levels


def run(config: RecommendConfig) -> None:
    """Print one song a line: its title where the dataset knows it, and its id.

    The next slate, best first; a playlist in order, each with its chance to be skipped.
    """
    agent, dataset, listener = _opened(config)
    if config.songs is None and config.order is None:
        for row in recommend_next(agent, dataset, config.heard, _context(config)):
            say(_named(dataset, row))
        return
    places = _playlist(config, agent, dataset, listener)
    say("Songs in order, each with the chance that a learned listener (user simulator) skips it:")
    for number, place in enumerate(places, start=1):
        say(f"{number:3d}  {place.skip:4.0%} skip  {_named(dataset, place.track)}")
    if config.songs is not None and len(places) < config.songs:
        end = "no further slate is left" if config.order is None else "--order names no more"
        say(f"These are {len(places):,} of {config.songs:,} songs: {end}.")


def recommend(config: RecommendConfig) -> list[str]:
    """Track ids that the agent recommends next, best first."""
    agent, dataset, _ = _opened(config)
    rows = recommend_next(agent, dataset, config.heard, _context(config))
    return [str(dataset.catalog.track_ids[row]) for row in rows]


def _named(dataset: Dataset, row: int) -> str:
    track_id, title = dataset.catalog.track_ids[row], dataset.catalog.titles[row]
    return str(track_id) if title == track_id else f"{title}  ({track_id})"


def _opened(config: RecommendConfig) -> tuple[Agent, Dataset, str]:
    """The agent of a run, the dataset that it was trained on, and the listener that trained it."""
    folder = find_training(config.run, config.agent, config.seed)
    options = read_training(folder)["options"]
    dataset = open_dataset(options["data"])
    return load_agent(folder / "best", dataset), dataset, options["listener"]


def _playlist(config: RecommendConfig, agent: Agent, dataset: Dataset, trainer: str) -> list[Place]:
    """The playlist that was asked for, of as many songs as are to be ordered by default."""
    listener = playlist_listener(trainer, dataset)
    session = heard_session(dataset, config.heard, _context(config))
    among = None if config.order is None else _rows_to_order(dataset, config.order)
    recommender = Recommender(agent, restricted=among is not None)
    number = config.songs or len(among or ())
    return playlist(recommender, session, number, listener, among=among)


def _rows_to_order(dataset: Dataset, names: tuple[str, ...]) -> list[int]:
    """Rows of the songs to be ordered.

    Raises:
        ValueError: Two names are of one song; the message has both.
    """
    named: dict[int, str] = {}
    for row, name in zip(dataset.catalog.find(list(names)).tolist(), names, strict=True):
        if named.setdefault(row, name) != name:
            both = f"{named[row]!r} and {name!r}"
            raise ValueError(f"{both} of --order are the same song; name each once.")
    twice = [name for name in named.values() if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} of --order is named twice; name each song once.")
    return [*named]


def playlist_listener(trainer: str, dataset: Dataset) -> LearnedListener:
    """Who hears playlists: the listener that trained the agent if it was learned, else another."""
    learned = make_listener(trainer, dataset)
    return learned if isinstance(learned, LearnedListener) else LearnedListener(dataset)


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
    (slate,) = Recommender(agent).choose([heard_session(dataset, heard, context)]).slates
    return [int(row) for row in slate if row >= 0]


def heard_session(
    dataset: Dataset, heard: str, context: npt.NDArray[np.float32] | None = None
) -> LiveSession:
    """A session that heard what a text says; see `recommend_next`.

    Raises:
        KeyError: A song is not in the catalog.
        ValueError: The text cannot be read.
    """
    songs, levels = parse_heard(heard)
    shown = context_of() if context is None else context
    return LiveSession(dataset.catalog.find(songs), np.array(levels), shown)


def _context(config: RecommendConfig) -> npt.NDArray[np.float32]:
    context_type = -1 if config.context is None else CONTEXT_TYPES.index(config.context)
    return context_of(config.hour, config.premium, config.shuffle, context_type)


def context_of(
    hour: int = UNKNOWN, premium: int = UNKNOWN, shuffle: int = UNKNOWN, kind: int = UNKNOWN
) -> npt.NDArray[np.float32]:
    """Context features of an observation ``(CONTEXT_SIZE,)``; ``kind`` is of `CONTEXT_TYPES`."""
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
