"""Rows of a listening history read into records: one a play, names turned into codes.

Here names end: of users only a salted hash is kept, of devices only whether two are the same,
and addresses and countries are not even read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.plays import (
    EMPTY_VALUES,
    UNPARSABLE,
    Rejects,
    RowCheck,
    parse_codes,
    parse_flag,
    parse_name,
)
from musicbox_env.ingest.tables import Rows, as_strings, text_codes
from musicbox_env.schema import CONTEXT_TYPES, REASONS_END, REASONS_START, UNKNOWN

LISTEN: Final = np.dtype(
    [
        ("user", np.int32),
        ("time", np.int64),
        ("time_is_start", np.bool_),
        ("resolution", np.int32),
        ("order", np.int64),
        ("track", np.int32),
        ("ms", np.int32),
        ("length", np.int32),
        ("skipped", np.int8),
        ("completed", np.int8),
        ("flags_trusted", np.bool_),
        ("reason_start", np.int8),
        ("reason_end", np.int8),
        ("shuffle", np.int8),
        ("context_type", np.int8),
        ("device", np.int32),
    ]
)
"""A play: times in milliseconds since 1970 UTC, ``ms`` heard, ``length`` stated; -1 is unknown."""

EARLIEST_MS: Final = int(pd.Timestamp("2000-01-01").value // 10**6)
LATEST_MS: Final = int(pd.Timestamp("2100-01-01").value // 10**6)
LONGEST_MS: Final = 24 * 3600 * 1000
NANOSECOND_DIGITS: Final = ((1e17, 1e-6), (1e14, 1e-3), (1e11, 1.0), (0.0, 1e3))
"""Unix times from this number on, and what makes milliseconds of them: they name no unit, but in
any one unit the years 2000 to 2100 take numbers that they do not take in another."""

PRIVATE: Final = "private session"
PODCAST: Final = "podcast"
AUDIOBOOK: Final = "audiobook"
OTHER_MEDIA: Final = "no track named (local file, video or other media)"
NOT_PLAYABLE: Final = "track error before anything was heard"
TRACK_PREFIX: Final = "spotify:track:"
TRACK_ERROR: Final = REASONS_END.index("trackerror")
PLAYED_AT_ALL_MS: Final = 1_000


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

    def of(self, track_id: str, title: str, artist: str) -> int:
        """Code of a track, -1 where neither id nor names are given."""
        if not track_id and not (title and artist):
            return UNKNOWN
        code = self.code(track_id or full_title(title, artist))
        if code == len(self.titles):
            self.titles.append("")
            self.artists.append("")
        if not track_id:
            self.by_name.add(code)
        self.titles[code] = self.titles[code] or title
        self.artists[code] = self.artists[code] or artist
        return code


def full_title(title: str, artist: str) -> str:
    """How a song is called.

    >>> full_title("Title", "Artist")
    'Artist - Title'
    """
    return f"{artist} - {title}" if artist else title


class ListenReader:
    """Reads tables of one ingest into records of `LISTEN`.

    Attributes:
        users: Salted hashes of the users.
        tracks: The tracks.
        left_out: Rows that are no listening to music, by what they are.
    """

    def __init__(self, salt: bytes, rejects: Rejects, notes: Counter[str]) -> None:
        """Begin.

        Args:
            salt: Key of the users' hashes.
            rejects: Receives rows that cannot be plays.
            notes: Receives values stored as unknown: how many, by what they are.
        """
        self.users = Names()
        self.tracks = Tracks()
        self.left_out: Counter[str] = Counter()
        self._rejects, self._notes = rejects, notes
        self._devices = Names()
        self._salt = salt
        self._order = 0

    def user_code(self, name: str) -> int:
        """Code of a user; the name goes no further than this."""
        return self.users.code(blake2b(name.encode(), key=self._salt, digest_size=8).hexdigest())

    def read(self, rows: Rows, fmt: HistoryFormat, owner: str) -> npt.NDArray:
        """Turn rows into records.

        Args:
            rows: Rows of a table, all columns of the format.
            fmt: How the table is read.
            owner: Whose plays they are where the table names no user.

        Returns:
            ``(plays,)`` of `LISTEN`, in the order of the rows.
        """
        self._rejects.add(rows.malformed, "no record, or wrong number of fields")
        records = np.zeros(len(rows), LISTEN)
        users = _texts(rows, fmt.mapping.user)
        records["track"] = self._tracks(rows, fmt)
        for name, parse in {**_CODED, "device": self._devices.code}.items():
            records[name] = self._coded(rows, fmt, name, parse)
        music = self._music(records["track"], rows, fmt)
        keep = self._possible(records, users, rows, fmt, music)
        user, names = pd.factorize(users)
        codes = [self.user_code(str(name) or owner) for name in names]
        records["user"] = np.array(codes, np.int32)[user]
        records["resolution"] = fmt.resolution_ms
        records["time_is_start"] = fmt.mapping.time_is == "start"
        records["flags_trusted"] = fmt.flags_trusted
        unplayable = keep & (records["reason_end"] == TRACK_ERROR)
        unplayable &= (records["ms"] >= 0) & (records["ms"] < PLAYED_AT_ALL_MS)
        self._leave_out(unplayable, NOT_PLAYABLE)
        records["order"] = self._order + np.arange(len(rows))
        self._order += len(rows)
        return records[keep & ~unplayable]

    def _tracks(self, rows: Rows, fmt: HistoryFormat) -> npt.NDArray[np.int32]:
        """Codes of tracks; each distinct combination of id and names is looked up once."""
        keys = ("track", "title", "artist")
        frame = pd.DataFrame({key: _texts(rows, getattr(fmt.mapping, key)) for key in keys})
        group = frame.groupby(list(keys), sort=False).ngroup().to_numpy()
        codes = [
            self.tracks.of(track.removeprefix(TRACK_PREFIX), title, artist)
            for track, title, artist in frame.drop_duplicates().itertuples(index=False)
        ]
        return np.array(codes, np.int32)[group]

    def _coded(
        self, rows: Rows, fmt: HistoryFormat, key: str, parse: Callable[[str], int]
    ) -> npt.NDArray[np.int32]:
        """Codes of a column of few distinct values, -1 where empty or unknown."""
        column = getattr(fmt.mapping, _KEYS.get(key, key))
        if column is None:
            return np.full(len(rows), UNKNOWN, np.int32)
        values, strange = parse_codes(text_codes(rows.columns[column]), parse)
        unparsable = values == UNPARSABLE
        self._note(key, strange.total() + int(unparsable.sum()))
        return np.where(unparsable, UNKNOWN, values)

    def _note(self, what: str, count: int) -> None:
        if count:
            self._notes[f"{what} stored as unknown"] += count

    def _music(
        self, tracks: npt.NDArray[np.int32], rows: Rows, fmt: HistoryFormat
    ) -> npt.NDArray[np.bool_]:
        """Rows that are music heard in public; the others are counted, each once."""
        private = [parse_flag(text) == 1 for text in _texts(rows, fmt.private)]
        no_track = (tracks == UNKNOWN) & (not fmt.flags_trusted)
        keep = np.ones(len(rows), np.bool_)
        for mask, what in (
            (np.array(private, np.bool_), PRIVATE),
            (_filled(rows, fmt.podcast), PODCAST),
            (_filled(rows, fmt.audiobook), AUDIOBOOK),
            (no_track, OTHER_MEDIA),
        ):
            self._leave_out(keep & mask, what)
            keep &= ~mask
        return keep

    def _leave_out(self, mask: npt.NDArray[np.bool_], what: str) -> None:
        if count := int(mask.sum()):
            self.left_out[what] += count

    def _possible(
        self,
        records: npt.NDArray,
        users: npt.NDArray[np.object_],
        rows: Rows,
        fmt: HistoryFormat,
        music: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """Fill in times and lengths; reject rows of music that cannot be plays."""
        records["time"], in_range = parse_times(rows.columns[fmt.mapping.time])
        heard, heard_bad = _milliseconds(rows, fmt, "played")
        length, length_bad = _milliseconds(rows, fmt, "duration")
        self._note("track length", int(length_bad.sum()))
        records["ms"] = heard
        records["length"] = np.where(length > 0, length, UNKNOWN)
        check = RowCheck(rows.lines, self._rejects, music)
        if fmt.flags_trusted:
            check.reject(records["track"] == UNKNOWN, "track is empty")
            if fmt.mapping.user is not None:
                check.reject(users == "", "user is empty")
        check.reject(~in_range, "time is neither ISO 8601 nor Unix time, or not from 2000 to 2100")
        check.reject(heard_bad, "time heard is no number from 0 to a day")
        nothing = (heard < 0) & (records["completed"] < 0) & (records["skipped"] < 0)
        check.reject(nothing, "nothing says how far it was heard")
        return check.kept


def _filled(rows: Rows, columns: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Rows in which any of the columns holds something."""
    return np.any([np.zeros(len(rows), bool), *(_texts(rows, c) != "" for c in columns)], axis=0)


def _milliseconds(
    rows: Rows, fmt: HistoryFormat, what: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Milliseconds, -1 where empty, and a mask of values that cannot be."""
    in_ms, in_seconds = (getattr(fmt.mapping, f"{what}_{unit}") for unit in ("ms", "s"))
    texts = pd.Series(_texts(rows, in_ms or in_seconds), dtype=object)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
    numbers = numbers * (1 if in_ms else 1000)
    empty = texts.str.lower().isin(EMPTY_VALUES).to_numpy()
    bad = ~empty & ~((numbers >= 0) & (numbers <= LONGEST_MS))
    return np.where(empty | bad, UNKNOWN, np.nan_to_num(numbers)).astype(np.int64), bad


def parse_times(column: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Milliseconds since 1970 UTC, and a mask of those that could be read and can be.

    Dates such as 3/4/2021 are not read: they are written both ways round.
    """
    if pa.types.is_timestamp(column.type):
        utc = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
        values = utc.cast(pa.int64()).fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
    else:
        values = _times_of_text(_stripped(column))
    return values, (values >= EARLIEST_MS) & (values < LATEST_MS)


def _times_of_text(texts: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    series = pd.Series(texts, dtype=object)
    numbers = pd.to_numeric(series, errors="coerce").to_numpy(np.float64)
    values = np.full(len(texts), UNKNOWN, np.int64)
    below = np.inf
    for least, scale in NANOSECOND_DIGITS:
        chosen = (numbers >= least) & (numbers < below)
        values[chosen] = np.clip(numbers[chosen] * scale, 0, LATEST_MS).astype(np.int64)
        below = least
    words = np.isnan(numbers)
    if words.any():
        spelled = series[words].str.removesuffix(" UTC")
        dates = pd.to_datetime(spelled, format="ISO8601", utc=True, errors="coerce")
        stamps = dates.dt.as_unit("ms")
        values[words] = np.where(stamps.isna(), UNKNOWN, stamps.astype(np.int64))
    return values


def _texts(rows: Rows, column: str | None) -> npt.NDArray[np.object_]:
    """A column as stripped text, empty where it is null or a word for nothing."""
    if column is None:
        return np.full(len(rows), "", dtype=object)
    return _stripped(rows.columns[column])


def _stripped(column: pa.Array) -> npt.NDArray[np.object_]:
    text = pc.call_function("utf8_trim_whitespace", [as_strings(column)]).fill_null("")
    values = text.to_numpy(zero_copy_only=False).astype(object)
    for word in ("null", "nan", "None"):
        values[values == word] = ""
    return values


_CODED: Final[dict[str, Callable[[str], int]]] = {
    "skipped": parse_flag,
    "completed": parse_flag,
    "shuffle": parse_flag,
    "reason_start": parse_name(REASONS_START),
    "reason_end": parse_name(REASONS_END),
    "context_type": parse_name(CONTEXT_TYPES),
}
_KEYS: Final = {"context_type": "context", "device": "platform"}
"""Keys of a mapping, where they differ from the names of `LISTEN`."""
