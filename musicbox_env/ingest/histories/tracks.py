"""The tracks of all histories: one code a recording, one catalog track a song.

A song is not its id: services give one recording several, and files without ids spell it in
several ways. Recordings keep apart where lengths are estimated; sessions and the catalog hold
songs, each under the first of its ids, and `OTHER_IDS` keeps the rest for look-ups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.data.catalog import OTHER_IDS
from musicbox_env.names import id_key, is_placeholder, song_key
from musicbox_env.schema import UNKNOWN

PLACEHOLDER: Final = -2
"""In place of a code: the names say that the song is unknown."""


@dataclass
class Names:
    """Codes of names, in order of appearance.

    Attributes:
        codes: Code of each name.
    """

    codes: dict[str, int] = field(default_factory=dict)

    def code(self, name: str) -> int:
        """The code of a name, a new one if it is new."""
        return self.codes.setdefault(name, len(self.codes))


@dataclass
class Tracks(Names):
    """Tracks of all histories, by id.

    Attributes:
        titles: Title of each, empty where unknown.
        artists: Artist of each, empty where unknown.
        by_name: Those that no id is known of, whose title and artist stand for it.
    """

    titles: list[str] = field(default_factory=list)
    artists: list[str] = field(default_factory=list)
    by_name: set[int] = field(default_factory=set)
    _spelled: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, track_id: str, title: str, artist: str) -> int:
        """Code of a track; `UNKNOWN` where neither id nor names are given, or `PLACEHOLDER`."""
        if not track_id and not (title and artist):
            return UNKNOWN
        if is_placeholder(title, artist):
            return PLACEHOLDER
        if track_id:
            code = self.code(id_key(track_id))
        else:
            first = self._spelled.setdefault(song_key(title, artist), full_title(title, artist))
            code = self.code(first)
            self.by_name.add(code)
        if code == len(self.titles):
            self.titles.append("")
            self.artists.append("")
        self.titles[code] = self.titles[code] or title
        self.artists[code] = self.artists[code] or artist
        return code

    def recordings(self) -> npt.NDArray[np.int32]:
        """Recording of each track ``(tracks,)``: one known by name alone is the first with an id.

        Any other track is its own.
        """
        same, song = np.arange(len(self.codes), dtype=np.int32), self.songs()
        nameless = list(self.by_name)
        same[nameless] = song[nameless]
        return same

    def songs(self) -> npt.NDArray[np.int32]:
        """Song of each track ``(tracks,)``: the first track with an id of its title and artist.

        Without one it is the first of that name; a track of no known title or artist is its own
        song.
        """
        same = np.arange(len(self.codes), dtype=np.int32)
        first: dict[tuple[str, str], int] = {}
        with_id = [code for code in range(len(same)) if code not in self.by_name]
        for code in (*with_id, *sorted(self.by_name)):
            title, artist = self.titles[code], self.artists[code]
            if title and artist:
                same[code] = first.setdefault(song_key(title, artist), code)
        return same

    def write_names(self, file: Path, mentioned: npt.NDArray[np.bool_]) -> int:
        """Write titles, artists and further ids of the songs that sessions hold.

        Args:
            file: Parquet file; it is not written where no title is known.
            mentioned: Tracks that sessions hold ``(tracks,)``.

        Returns:
            How many ids were merged into others.
        """
        ids, song = list(self.codes), self.songs()
        others: dict[int, list[str]] = {}
        for code in np.flatnonzero(song != np.arange(len(song))).tolist():
            if code not in self.by_name and mentioned[song[code]]:
                others.setdefault(int(song[code]), []).append(ids[code])
        rows = [code for code in np.flatnonzero(mentioned).tolist() if self.titles[code]]
        if rows:
            named = {"track_id": ids, "title": self.titles, "artist": self.artists}
            columns = {n: pa.array([of[r] for r in rows], pa.string()) for n, of in named.items()}
            if others:
                further = [others.get(row) for row in rows]
                columns[OTHER_IDS] = pa.array(further, pa.list_(pa.string()))
            pq.write_table(pa.table(columns), file)
        return sum(map(len, others.values()))


def full_title(title: str, artist: str) -> str:
    """How a song is called.

    >>> full_title("Title", "Artist")
    'Artist - Title'
    """
    return f"{artist} - {title}" if artist else title
