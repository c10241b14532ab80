"""The mapped columns of one table, block after block, and what in them could not be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.plays import UNPARSABLE, parse_codes, shown
from musicbox_env.ingest.spelling.times import parse_times
from musicbox_env.ingest.spelling.values import (
    NumberColumn,
    ShareColumn,
    id_texts,
    milliseconds,
    stripped,
)
from musicbox_env.ingest.tables import Rows, text_codes
from musicbox_env.schema import OPINIONS, UNKNOWN

Mask = npt.NDArray[np.bool_]
OTHER_EVENT: Final = 100
UNITS: Final = {"ms": 1.0, "s": 1000.0}
PERCENT: Final = re.compile(r"pct|percent|prozent|porcent|pourcent|procent|%")
"""In the name of a column of shares: 1 is a hundredth there, and not all."""

EXPECTED: Final = {"source": "organic or recommended"}
"""Words that a column must hold, of which its user cannot know; others have usual spellings."""


@dataclass
class _Unread:
    """Values of a column that could not be read."""

    rows: int = 0
    example: str = ""


@dataclass
class MappedColumns:
    """Reads the columns that a format maps, each in one style through the whole table.

    Attributes:
        fmt: How the table is read.
    """

    fmt: HistoryFormat
    _numbers: dict[str, NumberColumn] = field(default_factory=dict)
    _shares: ShareColumn | None = None
    _unread: dict[str, _Unread] = field(default_factory=dict)
    _rows: int = 0

    def begin(self, rows: Rows) -> None:
        """Count the rows that are read next."""
        self._rows += len(rows)

    def name(self, key: str) -> str | None:
        """The column of a key of a mapping."""
        column = getattr(self.fmt.mapping, key)
        return None if column is None else str(column)

    def texts(self, rows: Rows, key: str) -> npt.NDArray[np.object_]:
        """Titles or names of artists ``(rows,)``, empty where there is none."""
        name = self.name(key)
        return nothing(rows) if name is None else stripped(rows.columns[name])

    def numbers(self, rows: Rows, key: str) -> npt.NDArray[np.int64] | None:
        """Ids ``(rows,)`` of a column of whole numbers without a gap; None of any other."""
        name = self.name(key)
        if name is None:
            return None
        column = rows.columns[name]
        if not pa.types.is_integer(column.type) or column.type == pa.uint64() or column.null_count:
            return None
        return column.cast(pa.int64()).to_numpy(zero_copy_only=False)

    def ids(self, rows: Rows, key: str) -> tuple[npt.NDArray[np.object_], Mask]:
        """Ids ``(rows,)``, empty where there is none, and a mask of those that lost digits."""
        name = self.name(key)
        if name is None:
            return nothing(rows), np.zeros(len(rows), np.bool_)
        return id_texts(rows.columns[name])

    def codes(
        self, rows: Rows, key: str, parse: Callable[[str], int]
    ) -> tuple[npt.NDArray[np.int32], int]:
        """Codes of few distinct values ``(rows,)``, -1 where unknown; how many are unreadable."""
        name = self.name(key)
        if name is None:
            return np.full(len(rows), UNKNOWN, np.int32), 0
        column = text_codes(rows.columns[name])
        values, strange = parse_codes(column, parse)
        unparsable = values == UNPARSABLE
        unreadable = unparsable
        if strange:
            unreadable = unparsable | np.isin(stripped(column).astype(str), list(strange))
        self._note(key, unreadable, column, rows)
        unread = strange.total() + int(unparsable.sum())
        return np.where(unparsable, UNKNOWN, values), unread

    def opinions(self, rows: Rows) -> npt.NDArray[np.int8]:
        """Places in `schema.OPINIONS` ``(rows,)``, `UNKNOWN` for plays, else `OTHER_EVENT`."""
        if self.fmt.opinion is not None:
            return np.full(len(rows), OPINIONS.index(self.fmt.opinion), np.int8)
        if self.fmt.event is None:
            return np.full(len(rows), UNKNOWN, np.int8)
        known = {"listen": UNKNOWN, **{name: code for code, name in enumerate(OPINIONS)}}
        column = text_codes(rows.columns[self.fmt.event])
        return parse_codes(column, lambda text: known.get(text, OTHER_EVENT))[0].astype(np.int8)

    def lengths(self, rows: Rows, what: str) -> tuple[npt.NDArray[np.int64], Mask]:
        """Milliseconds heard, or of the track, ``(rows,)``, -1 where unknown; what cannot be."""
        key = next((f"{what}_{u}" for u in UNITS if self.name(f"{what}_{u}") is not None), None)
        if key is None:
            unknown = np.full(len(rows), UNKNOWN, np.int64)
            return unknown, np.zeros(len(rows), np.bool_)
        in_ms = key.endswith("_ms")
        reader = self._numbers.setdefault(
            key, NumberColumn(whole=in_ms, clocks=1000.0 if in_ms else 1.0)
        )
        column = rows.columns[str(self.name(key))]
        values, _, bad = reader.read(column)
        found, bad = milliseconds(values * (1 if in_ms else 1000), bad)
        self._note(key, bad, column, rows)
        return found, bad

    def shares(self, rows: Rows) -> tuple[npt.NDArray[np.float64], Mask]:
        """Shares of the track that were heard ``(rows,)``, NaN where unknown; what is no share."""
        name = self.name("played_share")
        if name is None:
            return np.full(len(rows), np.nan), np.zeros(len(rows), np.bool_)
        if self._shares is None:
            self._shares = ShareColumn(percent=True if PERCENT.search(name.lower()) else None)
        values, bad = self._shares.read(rows.columns[name])
        self._note("played_share", bad, rows.columns[name], rows)
        return values, bad

    def times(self, rows: Rows) -> tuple[npt.NDArray[np.int64], Mask]:
        """Milliseconds since 1970 UTC ``(rows,)``, and a mask of those that can be."""
        mapping = self.fmt.mapping
        dates = None if mapping.date is None else rows.columns[mapping.date]
        zones = rows.columns[mapping.zone_column] if mapping.zone_column else None
        column = rows.columns[mapping.time]
        return parse_times(column, self.fmt.spelling, dates=dates, zones=zones)

    def starts(self, rows: Rows) -> npt.NDArray[np.int64]:
        """When plays began, where that is told beside an end, ``(rows,)``; -1 where it is not."""
        name = self.name("began")
        if name is None:
            return np.full(len(rows), UNKNOWN, np.int64)
        values, possible = parse_times(rows.columns[name], self.fmt.spelling)
        return np.where(possible, values, UNKNOWN)

    def filled(self, rows: Rows, names: Sequence[str]) -> Mask:
        """Rows in which any of these columns holds something, not a word for nothing."""
        found = np.zeros(len(rows), np.bool_)
        for name in names:
            # Parsing leaves nothing but words for nothing unknown.
            found |= parse_codes(text_codes(rows.columns[name]), lambda _: 1)[0] == 1
        return found

    def _note(self, key: str, bad: Mask, column: pa.Array, rows: Rows) -> None:
        if bad.any() and self.fmt.flags_trusted:
            first = int(np.flatnonzero(bad)[0])
            example = shown(column[first], rows.place(first))
            unread = self._unread.setdefault(key, _Unread(example=example))
            unread.rows += int(bad.sum())

    def notes(self, table: str) -> list[str]:
        """What could not be read in the columns of a table, a line a column."""
        return [
            f"{table}: {key}, column {self.name(key)}, could not be read in {unread.rows:,} of "
            f"{self._rows:,} rows, as {unread.example}; it is unknown there"
            f"{_expected(key)}."
            for key, unread in self._unread.items()
        ]


def _expected(key: str) -> str:
    return f" ({EXPECTED[key]} expected)" if key in EXPECTED else ""


def nothing(rows: Rows) -> npt.NDArray[np.object_]:
    """Empty texts ``(rows,)``."""
    return np.full(len(rows), "", dtype=object)
