"""Requests as agents see them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.levels import LevelConfig
from musicbox_env.schema import CONTEXT_TYPES, UNKNOWN, Level
from musicbox_experiments.serve.engine import Engine
from musicbox_experiments.serve.recommend import LEVEL_NAMES, context_of, parse_heard
from musicbox_experiments.serve.recommender import LiveSession, Rows
from musicbox_experiments.serve.service.schemas import (
    LONGEST_NAME,
    MOST_HEARD,
    Context,
    Heard,
    Session,
    Unknown,
)
from musicbox_experiments.serve.songs import AmbiguousSongError

LEVELS: Final = LevelConfig()
"""How far a song was heard, as the readers of histories see it."""


def live_session(engine: Engine, session: Session) -> tuple[LiveSession, list[Unknown]]:
    """A request as agents see it, without the songs that the catalog does not know.

    Raises:
        ValueError: The text of what was heard cannot be read.
    """
    heard = _parsed(session.heard) if isinstance(session.heard, str) else session.heard
    tracks, levels, unknown = heard_songs(engine, heard)
    barred, others = find_all(engine, session.exclude)
    context = _context(session.context)
    return LiveSession(tracks, levels, context, barred[barred >= 0]), unknown + others


def heard_songs(
    engine: Engine, heard: Sequence[Heard]
) -> tuple[Rows, npt.NDArray[np.int8], list[Unknown]]:
    """Rows and listen levels of the songs heard that are known ``(t,)``, and the others."""
    rows, unknown = find_all(engine, [one.song for one in heard])
    levels = [level_of(engine, one, row) for one, row in zip(heard, rows, strict=True) if row >= 0]
    return rows[rows >= 0], np.array(levels, np.int8), unknown


def find_all(engine: Engine, names: Sequence[str]) -> tuple[Rows, list[Unknown]]:
    """Rows of songs ``(n,)``, -1 where there is none, and why."""
    rows, unknown = np.full(len(names), UNKNOWN, np.int64), []
    for place, name in enumerate(names):
        reason = "not in the catalog; GET /v1/tracks finds songs by parts of their names"
        try:
            found = engine.songs.find(name)
        except AmbiguousSongError as error:
            found, reason = None, str(error)
        if found is None:
            unknown.append(Unknown(song=name, reason=reason))
        else:
            rows[place] = found
    return rows, unknown


def level_of(engine: Engine, heard: Heard, row: int) -> int:
    """Listen level of a song heard."""
    if heard.level is not None:
        return LEVEL_NAMES[str(heard.level)]
    if heard.skipped is not None:
        return int(Level.BRIEF if heard.skipped else Level.FULL)
    share = heard.share
    if heard.milliseconds is not None:
        share = heard.milliseconds / float(engine.durations[row])
    assert share is not None
    return int(np.searchsorted(LEVELS.edges, share, side="right"))


def _parsed(text: str) -> list[Heard]:
    if not text.strip():
        return []
    songs, levels = parse_heard(text)
    if len(songs) > MOST_HEARD:
        raise ValueError(f"heard names {len(songs)} songs; at most {MOST_HEARD} can be given.")
    for song in songs:
        if len(song) > LONGEST_NAME:
            raise ValueError(
                f"heard names a song of {len(song)} characters; {LONGEST_NAME} are most."
            )
    return [Heard(song=song, level=level) for song, level in zip(songs, levels, strict=True)]


def _context(context: Context) -> npt.NDArray[np.float32]:
    codes = [context.hour, context.premium, context.shuffle]
    kind = UNKNOWN if context.type is None else CONTEXT_TYPES.index(context.type)
    hour, premium, shuffle = (UNKNOWN if code is None else int(code) for code in codes)
    return context_of(hour, premium, shuffle, kind)
