"""Scrobbles of Last.fm: the two CSV that exporters write, and the public data set of 1,000 users.

Last.fm takes a song as scrobbled when half of it, or four minutes, were heard: what was left
earlier is missing. The time is that of the start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.services.converting import ISO_TIME, nearly_all_match, plain_lines
from musicbox_env.ingest.sources.csv_tables import CsvTable
from musicbox_env.ingest.spelling.precision import MINUTE
from musicbox_env.ingest.tables import Table

HEADLESS: Final = ("artist", "album", "track", "date")
DATE: Final = r"(?:\d{1,2} [A-Z][a-z]{2} \d{4},? \d\d:\d\d)?"
"""Empty for the song that is playing while the file is written."""
THOUSAND: Final = ("user", "time", "artist_mbid", "artist", "track_mbid", "track")


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is none of these."""
    if {"uts", "artist", "track"} <= {*table.columns}:
        return _scrobbles("Last.fm scrobbles (uts)", "uts")
    if not isinstance(table, CsvTable):
        return None
    if (listens := _headless(table)) is not None:
        name = "Last.fm scrobbles (times to the minute)"
        return replace(_scrobbles(name, "date"), table=listens, resolution_ms=MINUTE)
    if (listens := plain_lines(table, THOUSAND)) is not None:
        first = listens.sample()
        if nearly_all_match(first["user"], r"user_\d+") and nearly_all_match(
            first["time"], ISO_TIME
        ):
            fmt = _scrobbles("Last.fm-1K", "time", user="user")
            return replace(fmt, table=listens)
    return None


def _headless(table: CsvTable) -> CsvTable | None:
    """The CSV of artist, album, track and date, which has no header; None if it is not that."""
    dialect = table.dialect
    if dialect.delimiter != "," or len(dialect.header) != len(HEADLESS):
        return None
    named = tuple(name.lower() for name in dialect.header) == HEADLESS
    lines = table.read_as(replace(dialect, header=HEADLESS, named=named))
    dates = lines.sample()["date"]
    return lines if any(dates) and nearly_all_match(dates, DATE) else None


def _scrobbles(name: str, time: str, user: str | None = None) -> HistoryFormat:
    mapping = PlayMapping(time=time, time_is="start", user=user, title="track", artist="artist")
    return HistoryFormat(name=name, mapping=mapping, scrobbles=True)
