"""30Music: ``relations/sessions.idomaar``, a line a session, its plays in JSON.

Beside it, ``entities/tracks.idomaar`` gives the tracks' names, as "Artist/_/Title" of an address.
Each play has the second of its session at which it began, the seconds and the share of the track
that were heard, and what the listener did. The sessions that the set gives are cut anew, as those
of any history, by when their plays were.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_plus

import numpy as np
import pyarrow as pa

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.services.converting import texts
from musicbox_env.ingest.sources.csv_tables import CsvTable
from musicbox_env.ingest.spelling.dialect import Dialect
from musicbox_env.ingest.tables import ConvertedTable, Rows, Table

SESSIONS: Final = b"event.session\t"
TRACKS: Final = b"track\t"
LINE: Final = Dialect("\x1f", None, False, False, 0, ("line",), named=False)
"""Lines as they are: their JSON holds tabs, commas and quotes of its own."""
NAME: Final = ("track", "artist", "title", "time")
PLAY: Final = ("time", "user", "track", "share", "skipped", "length")


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is no list of sessions or tracks of 30Music."""
    if not isinstance(table, CsvTable):
        return None
    if table.stream.head.startswith(TRACKS) and b"\t{" in table.stream.head[:200]:
        return HistoryFormat(
            name="30Music tracks",
            mapping=PlayMapping(time="time", track="track", title="title", artist="artist"),
            table=ConvertedTable(
                table.read_as(LINE), ["line"], partial(_read, names=NAME, parse=_track)
            ),
            only_names=True,
        )
    if not table.stream.head.startswith(SESSIONS):
        return None
    return HistoryFormat(
        name="30Music sessions",
        mapping=PlayMapping(
            time="time",
            time_is="start",
            user="user",
            track="track",
            played_share="share",
            duration_s="length",
            skipped="skipped",
        ),
        table=ConvertedTable(
            table.read_as(LINE), ["line"], partial(_read, names=PLAY, parse=_session)
        ),
        flags_trusted=True,
    )


def _read(
    rows: Rows, names: tuple[str, ...], parse: Callable[[str], list[tuple[str | None, ...]]]
) -> Rows:
    """Rows of these columns, which each line gives some of; one that cannot be is malformed."""
    plays: list[tuple[Any, ...]] = []
    lines: list[int] = []
    malformed: list[int] = []
    for line, text in zip(rows.lines.tolist(), texts(rows, "line"), strict=True):
        try:
            found = parse(text)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            malformed.append(line)
            continue
        plays += found
        lines += [line] * len(found)
    columns = zip(*plays, strict=True) if plays else [[] for _ in names]
    named = zip(names, columns, strict=True)
    return replace(
        rows,
        columns={name: pa.array([*values], pa.string()) for name, values in named},
        lines=np.array(lines, np.int64),
        malformed=np.sort(np.concatenate([rows.malformed, np.array(malformed, np.int64)])),
    )


def _track(text: str) -> list[tuple[str | None, ...]]:
    """A track, the values of `NAME`: it has no time."""
    _, number, _, rest = text.split("\t", 3)
    about, _ = json.JSONDecoder().raw_decode(rest)
    artist, _, title = unquote_plus(about["name"]).partition("/_/")
    return [(number, artist, title, None)]


def _session(text: str) -> list[tuple[str | None, ...]]:
    """Plays of a session, the values of `PLAY` as text."""
    _, _, time, rest = text.split("\t", 3)
    decoder = json.JSONDecoder()
    _, end = decoder.raw_decode(rest)
    relations, _ = decoder.raw_decode(rest[end:].lstrip())
    user = relations["subjects"][0]["id"]
    plays = []
    for play in relations["objects"]:
        if play["type"] != "track":
            continue
        seconds, share = play.get("playtime"), play.get("playratio")
        known = bool(seconds and share and seconds > 0 and share > 0)
        values = (
            int(time) + int(play.get("playstart") or 0),
            user,
            play["id"],
            min(share, 1) if share is not None and share >= 0 else None,
            None if "action" not in play else str(play["action"] == "skip").lower(),
            round(seconds / share) if known else None,
        )
        plays.append(tuple(None if value is None else str(value) for value in values))
    return plays
