"""The tracks of all histories: one code a recording, one catalog track a song.

A song is not its id: services give one recording several, and files without ids spell it in
several ways. Recordings keep apart where lengths are estimated; sessions and the catalog hold
songs, each under the first of its ids, and `OTHER_IDS` keeps the rest for look-ups.
"""

from __future__ import annotations

import re
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
_NUMBER: Final = re.compile(r"0|[1-9]\d{0,7}", re.ASCII)
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
class Tracks:
    """Tracks of all histories, by id.

    Ids that are whole numbers stay numbers: of millions of them no text is made but a column of
    Arrow.

    Attributes:
        titles: Title of each by code, where it is known.
        artists: Artist of each, likewise.
        by_name: Those that no id is known of, whose title and artist stand for it.
    """

    titles: dict[int, str] = field(default_factory=dict)
    artists: dict[int, str] = field(default_factory=dict)
    by_name: set[int] = field(default_factory=set)
    _spelled: dict[tuple[str, str], str] = field(default_factory=dict)
    _labels: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    _of_text: dict[str, int] = field(default_factory=dict)
    _of_number: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def ids(self) -> pa.StringArray:
        """Ids by code ``(tracks,)``."""
        numbers = np.flatnonzero(self._of_number >= 0)
        codes = self._of_number[numbers]
        if not self._of_text:
            return pa.array(numbers[np.argsort(codes)]).cast(pa.string())
        ids = np.empty(len(self), object)
        ids[codes] = numbers.astype(str)
        ids[[*self._of_text.values()]] = [*self._of_text]
        return pa.array(ids, pa.string())

    def of_numbers(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Codes of tracks whose ids are numbers and whose names are unknown ``(rows,)``."""
        if not len(ids) or ids.min() < 0 or ids.max() >= LARGEST_NUMBER:
            numbers, different = pd.factorize(ids)
            return np.array([*map(self._code, map(str, different.tolist()))], np.int32)[numbers]
        self._make_room(int(ids.max()))
        found = self._of_number.take(ids)
        rows = np.flatnonzero(found < 0)
        if len(rows):
            new = pd.unique(ids[rows])
            self._of_number[new] = self._count + np.arange(len(new))
            self._count += len(new)
            found[rows] = self._of_number[ids[rows]]
        return found

    def _make_room(self, number: int) -> None:
        if number >= len(self._of_number):
            wider = np.full(max(number + 1, 2 * len(self._of_number)), UNKNOWN, np.int32)
            wider[: len(self._of_number)] = self._of_number
            self._of_number = wider

    def _code(self, name: str) -> int:
        """The code of an id, a new one if it is new; the same however a number is told."""
        number = int(name) if _NUMBER.fullmatch(name) else LARGEST_NUMBER
        if number >= LARGEST_NUMBER:
            code = self._of_text.setdefault(name, self._count)
        else:
            self._make_room(number)
            code = int(self._of_number[number])
            if code < 0:
                code = self._of_number[number] = self._count
        self._count = max(self._count, code + 1)
        return code

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

    def of(self, track_id: str, title: str, artist: str) -> int:
        """Code of a track; `UNKNOWN` where neither id nor names are given, or `PLACEHOLDER`."""
        if not track_id and not (title and artist):
            return UNKNOWN
        if is_placeholder(title, artist):
            return PLACEHOLDER
        if track_id:
            code = self._code(id_key(track_id))
        else:
            first = self._spelled.setdefault(song_key(title, artist), full_title(title, artist))
            code = self._code(first)
            self.by_name.add(code)
        for known, name in ((self.titles, title), (self.artists, artist)):
            if name:
                known.setdefault(code, name)
        return code

    def recordings(self) -> npt.NDArray[np.int32]:
        """Recording of each track ``(tracks,)``: one known by name alone is the first with an id.

        Any other track is its own.
        """
        same, song = np.arange(len(self), dtype=np.int32), self.songs()
        nameless = list(self.by_name)
        same[nameless] = song[nameless]
        return same

    def songs(self) -> npt.NDArray[np.int32]:
        """Song of each track ``(tracks,)``: the first track with an id of its title and artist.

        Without one it is the first of that name; a track of no known title or artist is its own
        song.
        """
        same = np.arange(len(self), dtype=np.int32)
        first: dict[tuple[str, str], int] = {}
        named = self.titles.keys() & self.artists.keys()
        for code in (*sorted(named - self.by_name), *sorted(named & self.by_name)):
            key = song_key(self.titles[code], self.artists[code])
            same[code] = first.setdefault(key, code)
        return same

    def write_names(self, file: Path, mentioned: npt.NDArray[np.bool_]) -> int:
        """Write titles, artists, labels and further ids of the songs that sessions hold.

        Args:
            file: Parquet file; it is not written where none is known.
            mentioned: Tracks that sessions hold ``(tracks,)``.

        Returns:
            How many ids were merged into others.
        """
        ids, song = self.ids(), self.songs()
        others: dict[int, list[str]] = {}
        for code in np.flatnonzero(song != np.arange(len(song))).tolist():
            if code not in self.by_name and mentioned[song[code]]:
                others.setdefault(int(song[code]), []).append(ids[code].as_py())
        labels = {name: self._labelled(name) for name in self._labels}
        named = np.zeros(len(self), np.bool_)
        for of in (self.titles, *labels.values()):
            named[[*of]] = True
        rows = np.flatnonzero(mentioned & named)
        if len(rows):
            columns: dict[str, pa.Array] = {"track_id": ids.take(pa.array(rows))}
            if self.titles:
                for name, of in (("title", self.titles), ("artist", self.artists)):
                    columns[name] = pa.array([of.get(row, "") for row in rows.tolist()])
            for name, of in labels.items():
                if name not in columns:
                    columns[name] = pa.array([of.get(row) for row in rows.tolist()], pa.string())
            if others:
                further = [others.get(row) for row in rows.tolist()]
                columns[OTHER_IDS] = pa.array(further, pa.list_(pa.string()))
            pq.write_table(pa.table(columns), file)
        return sum(map(len, others.values()))


def full_title(title: str, artist: str) -> str:
    """How a song is called.

    >>> full_title("Title", "Artist")
    'Artist - Title'
    """
    return f"{artist} - {title}" if artist else title
