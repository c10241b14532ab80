"""Listening histories told by their columns: Spotify's archives of all years, or any mapped table.

Spotify hands out two archives. The *extended streaming history*
(``Streaming_History_Audio_*.json``, before 2023 ``endsong_*.json``) has every play with its
milliseconds and what began and ended it; ``ts`` is when it stopped, in UTC. CSV exports of it
circulate, often with shorter names. The *account data* (``StreamingHistory_music_*.json``, before
2023 ``StreamingHistory*.json``) covers a year and says only who sang what, until which minute,
and for how many milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from musicbox_env.ingest.histories.mapping import PlayMapping, usual_columns

SECOND: Final = 1_000
MINUTE: Final = 60_000


@dataclass(frozen=True, kw_only=True)
class HistoryFormat:
    """How a table says what was played.

    Attributes:
        name: For people.
        mapping: Which columns say what.
        podcast: Columns that are filled where a podcast was played.
        audiobook: Columns that are filled where an audiobook was played.
        private: Column that is true where the listener asked not to be recorded.
        flags_trusted: Whether "not skipped" means heard to the end. Not so at Spotify, where
            ``skipped`` is null, 0 or false over whole years, whatever happened.
        resolution_ms: How exact its times are.
    """

    name: str
    mapping: PlayMapping
    podcast: tuple[str, ...] = ()
    audiobook: tuple[str, ...] = ()
    private: str | None = None
    flags_trusted: bool = False
    resolution_ms: int = SECOND

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that it reads."""
        private = () if self.private is None else (self.private,)
        every = (*self.mapping.columns, *self.podcast, *self.audiobook, *private)
        return tuple(dict.fromkeys(every))


_TITLES: Final = ("master_metadata_track_name", "track_name", "trackName")
_ARTISTS: Final = ("master_metadata_album_artist_name", "artist_name", "artistName")
_PODCASTS: Final = ("spotify_episode_uri", "episode_name", "episodeName", "podcastName")
_AUDIOBOOKS: Final = (
    *("audiobook_uri", "audiobook_title", "audiobook_chapter_uri"),
    *("audiobookName", "chapterName"),
)
_SPOTIFY_TIMES: Final = {
    ("ts", "ms_played"): "Spotify extended streaming history",
    ("endTime", "msPlayed"): "Spotify account data (times to the minute, no reasons)",
}


def spotify_format(columns: Collection[str]) -> HistoryFormat | None:
    """What Spotify or an export of it wrote, told by the columns; None if it is none."""
    found = [pair for pair in _SPOTIFY_TIMES if set(pair) <= set(columns)]
    # Spotify writes `username` or nothing; with another name for users it is somebody's table.
    if not found or usual_columns(list(columns)).get("user", "username") != "username":
        return None
    time, played = found[0]
    podcast = tuple(n for n in _PODCASTS if n in columns)
    audiobook = tuple(n for n in _AUDIOBOOKS if n in columns)
    title = next((n for n in _TITLES if n in columns), None)
    artist = next((n for n in _ARTISTS if n in columns), None)
    track = next((n for n in ("spotify_track_uri", "track_uri") if n in columns), None)
    if not (track or (title and artist)):
        if not podcast + audiobook:
            return None
        # A file of podcasts alone; a mapping needs some name for the tracks that are not there.
        track = (podcast + audiobook)[0]

    def present(column: str) -> str | None:
        return column if column in columns else None

    extended = time == "ts"
    return HistoryFormat(
        name=_SPOTIFY_TIMES[time, played],
        mapping=PlayMapping(
            time=time,
            time_is="end",
            user=present("username"),
            track=track,
            title=title,
            artist=artist,
            played_ms=played,
            duration_ms=present("duration_ms"),
            skipped=present("skipped"),
            shuffle=present("shuffle"),
            reason_start=present("reason_start"),
            reason_end=present("reason_end"),
            platform=present("platform"),
        ),
        podcast=podcast,
        audiobook=audiobook,
        private=present("incognito_mode"),
        resolution_ms=SECOND if extended else MINUTE,
    )


def history_format(columns: Collection[str], mapping: PlayMapping | None) -> HistoryFormat | None:
    """How to read a table with these columns, or None if it is no history.

    Args:
        columns: Columns of the table.
        mapping: What the user said; it goes before what is recognised.
    """
    if mapping is not None and mapping.fits(columns):
        return HistoryFormat(name="table of plays", mapping=mapping, flags_trusted=True)
    return spotify_format(columns)
