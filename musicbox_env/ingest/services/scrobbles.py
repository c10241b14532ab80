"""Scrobbles of several services and public sets, whose columns can be read as they are.

Maloja's JSON, Pano Scrobbler's JSON lines, CSV of Libre.fm and Tidal; LFM-1b, Music4All-Onion,
Deezer's PISA set. None says how far a song was heard, but for Maloja, which may.
"""

from __future__ import annotations

from typing import Final

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.services.converting import ISO_TIME, nearly_all_match, plain_lines, present
from musicbox_env.ingest.spelling.times import TimeSpelling
from musicbox_env.ingest.tables import Table

LFM_1B: Final = ("user", "artist", "album", "track", "time")
TIDAL_TIMES: Final = "%d/%m/%Y %H:%M"


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is none of these."""
    for read in (_maloja, _pano, _libre_fm, _tidal, _pisa, _onion, _lfm_1b):
        if (found := read(table)) is not None:
            return found
    return None


def _has(table: Table, *names: str) -> bool:
    return {*names} <= {*table.columns}


def _maloja(table: Table) -> HistoryFormat | None:
    """Only the first of several artists is read; ``duration`` is the time heard, where known."""
    if not isinstance(table, JsonTable) or not _has(
        table, "time", "track.title", "track.artists.0"
    ):
        return None
    mapping = PlayMapping(
        time="time",
        time_is="start",
        title="track.title",
        artist="track.artists.0",
        duration_s="track.length",
        played_s="duration",
    )
    all_told = all(table.sample().get("duration", [""]))
    return HistoryFormat(name="Maloja scrobbles", mapping=mapping, scrobbles=not all_told)


def _pano(table: Table) -> HistoryFormat | None:
    if not isinstance(table, JsonTable) or not _has(table, "timeMs", "track", "artist"):
        return None
    mapping = PlayMapping(
        time="timeMs", time_is="start", title="track", artist="artist", duration_ms="durationMs"
    )
    return HistoryFormat(name="Pano Scrobbler", mapping=mapping, scrobbles=True)


def _libre_fm(table: Table) -> HistoryFormat | None:
    if {*table.columns} != {"Time", "Artist", "Track", "Album"}:
        return None
    mapping = PlayMapping(time="Time", time_is="start", title="Track", artist="Artist")
    return HistoryFormat(name="Libre.fm scrobbles", mapping=mapping, scrobbles=True)


def _tidal(table: Table) -> HistoryFormat | None:
    if not _has(table, "artist_name", "track_title", "entry_date"):
        return None
    zone = present(table, ["time_zone"])
    mapping = PlayMapping(
        time="entry_date",
        time_is="start",
        time_format=TIDAL_TIMES,
        time_zone=zone[0] if zone else "",
        title="track_title",
        artist="artist_name",
    )
    spelling = TimeSpelling(TIDAL_TIMES)
    return HistoryFormat(name="Tidal history", mapping=mapping, spelling=spelling, scrobbles=True)


def _pisa(table: Table) -> HistoryFormat | None:
    """The sessions that the set gives are cut anew, as those of any history."""
    if not _has(table, "user_id", "session_id", "ts", "product_track_id"):
        return None
    return _ids(
        "Deezer PISA",
        PlayMapping(time="ts", time_is="start", user="user_id", track="product_track_id"),
    )


def _onion(table: Table) -> HistoryFormat | None:
    if {*table.columns} != {"user_id", "track_id", "timestamp"}:
        return None
    if not nearly_all_match(table.sample()["timestamp"], ISO_TIME):
        return None
    mapping = PlayMapping(time="timestamp", time_is="start", user="user_id", track="track_id")
    return _ids("Music4All-Onion", mapping)


def _lfm_1b(table: Table) -> HistoryFormat | None:
    """Five whole numbers, of which the last is a time from 2001 to 2033."""
    lines = plain_lines(table, LFM_1B)
    if lines is None:
        return None
    first = lines.sample()
    whole = all(nearly_all_match(first[name], r"\d{1,9}") for name in LFM_1B[:-1])
    if not whole or not nearly_all_match(first["time"], r"1\d{9}"):
        return None
    mapping = PlayMapping(time="time", time_is="start", user="user", track="track")
    return _ids("LFM-1b", mapping, table=lines)


def _ids(name: str, mapping: PlayMapping, table: Table | None = None) -> HistoryFormat:
    return HistoryFormat(name=name, mapping=mapping, table=table, scrobbles=True)
