"""Spotify's archives of all years, and the CSV exports of them that circulate.

Spotify hands out two archives. The *extended streaming history*
(``Streaming_History_Audio_*.json``, before 2023 ``endsong_*.json``) has every play with its
milliseconds and what began and ended it; ``ts`` is when it stopped, in UTC, or when that was
noted, and ``offline_timestamp`` when it began. CSV exports of it circulate, often with shorter
names. The *account data* (``StreamingHistory_music_*.json``, before
2023 ``StreamingHistory*.json``) covers a year and says only who sang what, until which minute,
and for how many milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.histories.proposal import usual_columns
from musicbox_env.ingest.spelling.precision import MINUTE, SECOND
from musicbox_env.ingest.tables import Table

PLAYED_KEYS: Final = (b'"ms_played"', b'"msPlayed"')
"""What even the ruins of a history show."""
_TITLES: Final = ("master_metadata_track_name", "track_name", "trackName")
_ARTISTS: Final = ("master_metadata_album_artist_name", "artist_name", "artistName")
_TRACKS: Final = ("spotify_track_uri", "track_uri")
_PODCASTS: Final = ("spotify_episode_uri", "episode_name", "episodeName", "podcastName")
_AUDIOBOOKS: Final = (
    *("audiobook_uri", "audiobook_title", "audiobook_chapter_uri"),
    *("audiobookName", "chapterName"),
)
_SAME_NAME: Final = ("duration_ms", "skipped", "shuffle", "reason_start", "reason_end", "platform")
"""Columns that are called as in a mapping."""


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if Spotify did not write it."""
    return _by_columns(table.columns)


def _by_columns(columns: Collection[str]) -> HistoryFormat | None:
    present = set(columns)
    # Spotify writes `username` or nothing; with another name for users it is somebody's table.
    if usual_columns(list(columns)).get("user", "username") != "username":
        return None
    if {"ts", "ms_played"} <= present:
        time, played, resolution = "ts", "ms_played", SECOND
        name = "Spotify extended streaming history"
    elif {"endTime", "msPlayed"} <= present:
        time, played, resolution = "endTime", "msPlayed", MINUTE
        name = "Spotify account data (times to the minute, no reasons)"
    else:
        return None

    def first(names: Collection[str]) -> str | None:
        return next((name for name in names if name in present), None)

    podcast = tuple(n for n in _PODCASTS if n in present)
    audiobook = tuple(n for n in _AUDIOBOOKS if n in present)
    track, title, artist = first(_TRACKS), first(_TITLES), first(_ARTISTS)
    if not (track or (title and artist)):
        if not podcast + audiobook:
            return None
        # A file of podcasts alone; a mapping needs some name for the tracks that are not there.
        track = (podcast + audiobook)[0]
    return HistoryFormat(
        name=name,
        mapping=PlayMapping(
            time=time,
            time_is="end",
            user=first(["username"]),
            track=track,
            title=title,
            artist=artist,
            played_ms=played,
            began=first(["offline_timestamp"]),
            **{name: name for name in _SAME_NAME if name in present},
        ),
        podcast=podcast,
        audiobook=audiobook,
        private=first(["incognito_mode"]),
        resolution_ms=resolution,
    )


def lacking(columns: Collection[str]) -> str | None:
    """Which columns an extended history that cannot be read is without; None if it is none."""
    absent = [name for name in ("ts", "ms_played") if name not in columns]
    if not absent or not {"spotify_track_uri", "master_metadata_track_name"} <= set(columns):
        return None
    return (
        "looks like Spotify's extended streaming history, but is without the column "
        f"{' and '.join(absent)}. Take the file as Spotify sent it"
    )


def recognize_ruins(head: bytes) -> HistoryFormat | None:
    """The format of a damaged file whose first record cannot be read, by its first bytes."""
    if any(key in head for key in PLAYED_KEYS):
        return _by_columns(("ts", "ms_played", "spotify_track_uri"))
    return None
