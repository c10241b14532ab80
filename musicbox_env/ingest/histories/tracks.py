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
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.data.catalog import OTHER_IDS
from musicbox_env.ingest.tables import Rows
from musicbox_env.names import id_key, is_placeholder, song_key
from musicbox_env.schema import UNKNOWN

LARGEST_NUMBER: Final = 1 << 25
"""Ids that are numbers below it are looked up in an array of that size at most."""
PLACEHOLDER: Final = -2
"""In place of a code: the names say that the song is unknown."""


@dataclass(frozen=True)
class TrackLabels:
    """A table that says whose songs, or of which albums, the tracks are.

    Attributes:
        track: Column of the track's id.
        column: Column of the label.
        name: What the label is called in the catalog.
    """

    track: str
    column: str
    name: str


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
    _labels: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    _of_number: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))

    def of_numbers(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Codes of tracks whose ids are numbers and whose names are unknown ``(rows,)``."""
        if not len(ids) or ids.min() < 0 or ids.max() >= LARGEST_NUMBER:
            numbers, different = pd.factorize(ids)
            return self._nameless(different)[numbers]
        if (missing := int(ids.max()) + 1 - len(self._of_number)) > 0:
            room = max(missing, len(self._of_number))
            self._of_number = np.pad(self._of_number, (0, room), constant_values=UNKNOWN)
        found = self._of_number[ids]
        new = pd.unique(ids[found < 0])
        if len(new):
            self._of_number[new] = self._nameless(new)
            found = self._of_number[ids]
        return found

    def label(self, told: TrackLabels, rows: Rows) -> int:
        """Note labels of tracks whose ids are numbers; how many rows hold something else."""
        columns = {"code": told.track, "label": told.column}
        frame = pd.DataFrame({key: rows.columns[name].to_pandas() for key, name in columns.items()})
        numbers = frame.apply(pd.to_numeric, errors="coerce").dropna().astype(np.int64)
        known = numbers[(numbers["code"] >= 0) & (numbers["code"] < len(self._of_number))]
        known = known.assign(code=self._of_number[known["code"]])
        self._labels.setdefault(told.name, []).append(known[known["code"] >= 0])
        return len(frame) - len(numbers)

    def _labelled(self, name: str) -> dict[int, str]:
        """Labels of tracks by code, several in one text."""
        whole = pd.concat(self._labels[name]).drop_duplicates().sort_values(["code", "label"])
        joined = whole.astype({"label": str}).groupby("code")["label"].agg("; ".join)
        return dict(zip(joined.index.tolist(), joined.tolist(), strict=True))

    def _nameless(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        codes = np.array([self.code(text) for text in map(str, ids.tolist())], np.int32)
        unnamed = [""] * (len(self.codes) - len(self.titles))
        self.titles += unnamed
        self.artists += unnamed
        return codes

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
        if not any(self.titles):
            return same
        first: dict[tuple[str, str], int] = {}
        with_id = [code for code in range(len(same)) if code not in self.by_name]
        for code in (*with_id, *sorted(self.by_name)):
            title, artist = self.titles[code], self.artists[code]
            if title and artist:
                same[code] = first.setdefault(song_key(title, artist), code)
        return same

    def write_names(self, file: Path, mentioned: npt.NDArray[np.bool_]) -> int:
        """Write titles, artists, labels and further ids of the songs that sessions hold.

        Args:
            file: Parquet file; it is not written where none is known.
            mentioned: Tracks that sessions hold ``(tracks,)``.

        Returns:
            How many ids were merged into others.
        """
        ids, song = list(self.codes), self.songs()
        others: dict[int, list[str]] = {}
        for code in np.flatnonzero(song != np.arange(len(song))).tolist():
            if code not in self.by_name and mentioned[song[code]]:
                others.setdefault(int(song[code]), []).append(ids[code])
        labels = {name: self._labelled(name) for name in self._labels}
        named = np.array([bool(title) for title in self.titles], np.bool_)
        for of in labels.values():
            named[[*of]] = True
        rows = np.flatnonzero(mentioned & named).tolist()
        if rows:
            told = {"track_id": ids}
            if any(self.titles):
                told.update(title=self.titles, artist=self.artists)
            columns = {n: pa.array([of[r] for r in rows], pa.string()) for n, of in told.items()}
            for name, by_code in labels.items():
                if name not in columns:
                    columns[name] = pa.array([by_code.get(row) for row in rows], pa.string())
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
