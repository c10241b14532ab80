"""Values as people and programs write them: numbers, durations, shares and ids.

What is unambiguous by itself is read: 215,3 and 1.234,5 and 3:45 and 225 s. What is not, 1,234, is
decided by the other values of its column; the decision of a table's first rows holds to its end.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.ingest.plays import EMPTY_VALUES
from musicbox_env.ingest.tables import as_floats, as_strings
from musicbox_env.kernels import unlocked
from musicbox_env.names import id_key
from musicbox_env.schema import UNKNOWN

_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
LONGEST_MS: Final = 24 * 3600 * 1000
LOOKED_AT: Final = 1_000
LARGEST_SHARE: Final = 2.0
"""Shares of the length heard above it are percent: nobody hears a track twice in one play."""
MOST_PERCENT: Final = 1_000.0
EXACT_IN_FLOAT: Final = 2**53
_SPACES: Final = r"(?<=\d)[\s\u00a0\u202f'\u2019](?=\d{3}(?:\D|$))"
_CLOCK: Final = re.compile(r"^(?:(\d+):)?(\d+):(\d{2})(?:[.,](\d+))?$")
_GROUPED: Final = re.compile(r"^[1-9]\d{0,2}(?:\.\d{3})+$")
_ROUNDED: Final = r"^\d(?:[.,]\d+)?[eE]\+\d+$"
_UNIT: Final = re.compile(r"^P\w|\d\s*[a-zA-Z]")

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def stripped(column: pa.Array) -> npt.NDArray[np.object_]:
    """A column as text without outer blanks, empty where it is null."""
    text = pc.call_function("utf8_trim_whitespace", [as_strings(column)]).fill_null("")
    values = text.to_numpy(zero_copy_only=False).astype(object)
    values[values == "\\N"] = ""  # null in dumps of MySQL and Hive
    return values


def is_empty(texts: npt.NDArray[np.object_]) -> Mask:
    """Fields that hold no number or flag, ``(rows,)``: nothing, or a word for it."""
    return np.array([text.lower() in EMPTY_VALUES for text in texts], np.bool_)


class NumberColumn:
    """Reads a column of numbers, block after block, in one style."""

    def __init__(self, *, whole: bool = False, clocks: float | None = None) -> None:
        """Begin a column.

        Args:
            whole: Whether fractions hardly occur, as with milliseconds: 1,234 has thousands then.
            clocks: What a second counts, where 3:45 and "225 s" are numbers too.
        """
        self._whole, self._second = whole, clocks
        self._comma: str | None = None
        self._dot: str | None = None

    def read(self, column: pa.Array) -> tuple[Floats, Mask, Mask]:
        """Numbers ``(rows,)``, NaN where there is none; masks of empty fields and of other text."""
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.dictionary_decode(), kind.value_type
        if self._second is not None and (pa.types.is_duration(kind) or pa.types.is_time(kind)):
            if pa.types.is_time(kind):
                column = column.cast(pa.time64("ns")).cast(pa.int64()).cast(pa.duration("ns"))
            per_second = _PER_SECOND[column.type.unit]
            values = as_floats(column.cast(pa.int64())) / per_second * self._second
            return values, np.isnan(values), np.zeros(len(values), np.bool_)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            values = as_floats(column)
            return values, np.isnan(values), np.zeros(len(values), np.bool_)
        return self.read_texts(stripped(column))

    def read_texts(self, texts: npt.NDArray[np.object_]) -> tuple[Floats, Mask, Mask]:
        """The same of texts."""
        values = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(np.float64)
        values = values.copy()
        if self._whole:
            self._regroup(texts, values)
        other = np.flatnonzero(np.isnan(values))
        empty = np.zeros(len(values), np.bool_)
        empty[other] = is_empty(texts[other])
        other = other[~empty[other]]
        if len(other):
            plain = values[~np.isnan(values)]
            values[other] = self._spelled(pd.Series(texts[other], dtype=object), plain)
        return values, empty, np.isnan(values) & ~empty

    def _regroup(self, texts: npt.NDArray[np.object_], values: Floats) -> None:
        """Take 170.980 for 170980 where all numbers with a dot look like that."""
        if self._dot is None and (dotted := [t for t in texts[:LOOKED_AT] if "." in t]):
            fits = all(_GROUPED.match(text) for text in dotted)
            self._dot = "thousands" if fits else "decimal"
        if self._dot == "thousands":
            rows = [row for row, text in enumerate(texts) if _GROUPED.match(text)]
            values[rows] = [float(texts[row].replace(".", "")) for row in rows]

    def _spelled(self, texts: pd.Series, plain: Floats) -> Floats:
        """Numbers of what is no plain number: separators, clocks, units."""
        values = np.full(len(texts), np.nan)
        joined = texts.str.replace(_SPACES, "", regex=True)
        comma, dot = joined.str.rfind(","), joined.str.rfind(".")
        both = (comma >= 0) & (dot >= 0)
        commas, dots = joined.str.count(","), joined.str.count(r"\.")
        behind = joined.str.len() - comma - 1
        alone = (commas == 1) & (dot < 0)
        unclear = alone & (behind == 3) & ~joined.str.startswith("0,")
        decimal = (both & (comma > dot)) | (alone & ~unclear)
        thousands = (both & (comma < dot)) | ((commas > 1) & (dot < 0))
        if unclear.any() and self._comma is None:
            self._comma = self._decide(bool(decimal.any()), bool(thousands.any()), plain)
        decimal |= unclear & (self._comma == "decimal")
        european = joined.str.replace(".", "").str.replace(",", ".")
        american = joined.str.replace(",", "")
        grouped = joined.where(dots < 2, joined.str.replace(".", ""))
        text = european.where(decimal, american.where(commas > 0, grouped))
        # Groups of three, or the separators mean something else.
        regular = joined.str.fullmatch(
            r"[-+]?\d{1,3}(?:([.,])\d{3}(?:\1\d{3})*)?(?:[.,]\d+)?|\d+[.,]\d+|[-+]?\d+"
        )
        values = pd.to_numeric(text.where(regular), errors="coerce").to_numpy(np.float64).copy()
        if self._second is not None:
            self._clocks(texts.to_numpy(object), values)
        return values

    def _decide(self, decimal: bool, thousands: bool, plain: Floats) -> str:
        """What the comma of 1,234 is, by the other values of the column."""
        if self._whole:
            return "thousands"
        if decimal != thousands:
            return "decimal" if decimal else "thousands"
        # Beside 215 and 980 it is 1234; where all have three digits behind it, 1.234.
        return "thousands" if len(plain) and plain.max() < 1000 else "decimal"

    def _clocks(self, texts: npt.NDArray[np.object_], values: Floats) -> None:
        """Read m:ss, h:mm:ss, "225 s", "PT3M45S" into the values that are still missing."""
        assert self._second is not None
        for row in np.flatnonzero(np.isnan(values)):
            if clock := _CLOCK.match(texts[row]):
                hours, minutes, seconds, fraction = clock.groups(default="0")
                if int(seconds) < 60 and (hours == "0" or int(minutes) < 60):
                    whole = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
                    values[row] = (whole + float(f"0.{fraction}")) * self._second
        rows = [row for row in np.flatnonzero(np.isnan(values)) if _UNIT.search(texts[row])]
        if rows:
            spans = pd.to_timedelta(pd.Series(texts[rows], dtype=object), errors="coerce")
            values[rows] = spans.dt.total_seconds().to_numpy() * self._second


class ShareColumn:
    """Reads a column of shares of the track that were heard: 0 to 1, or percent."""

    def __init__(self, *, percent: bool | None = None) -> None:
        """Begin a column; ``percent`` where its unit is known."""
        self._numbers = NumberColumn()
        self._percent = percent

    def read(self, column: pa.Array) -> tuple[Floats, Mask]:
        """Shares ``(rows,)``, NaN where there is none, and a mask of what is no share.

        Percent where any value is larger than a share can be.
        """
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            texts = stripped(column)
            marked = np.array([text.endswith("%") for text in texts], np.bool_)
            texts = np.array([text.rstrip("% \u00a0") for text in texts], object)
            values, _, bad = self._numbers.read_texts(texts)
        else:
            values, _, bad = self._numbers.read(column)
            marked = np.zeros((), np.bool_)
        if self._percent is None and len(known := values[~np.isnan(values) & ~marked]):
            self._percent = bool(known.max() > LARGEST_SHARE)
        percent = marked | bool(self._percent)
        most = np.where(percent, MOST_PERCENT, LARGEST_SHARE)
        bad |= (values < 0) | (values > most)
        return np.where(bad, np.nan, values / np.where(percent, 100, 1)), bad


def id_texts(column: pa.Array) -> tuple[npt.NDArray[np.object_], Mask]:
    """Ids as text, empty where there is none, and a mask of those that have lost digits.

    Whole numbers that were stored as fractions lose the fraction: 7.0 is 7.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        numbers = as_floats(column)
        lost = np.abs(numbers) > EXACT_IN_FLOAT
        whole = ~lost & (np.trunc(numbers) == numbers)
        texts = stripped(column)
        texts[whole] = [str(int(number)) for number in numbers[whole]]
        texts[np.isnan(numbers)] = ""
        return texts, lost
    texts = stripped(column)
    strings = as_strings(column)
    lost = np.zeros(len(texts), np.bool_)
    if _any(strings, r"\.0+\s*$"):
        texts = np.array([id_key(text) for text in texts], object)
    if _any(strings, _ROUNDED):
        rounded = re.compile(_ROUNDED)
        lost = np.array([bool(rounded.match(text)) for text in texts], np.bool_)
    return texts, lost


def _any(strings: pa.StringArray, pattern: str) -> bool:
    options = pc.MatchSubstringOptions(pattern)
    found = pc.call_function("match_substring_regex", [strings], options)
    return bool(pc.call_function("any", [found]).as_py())


def milliseconds(values: Floats, bad: Mask) -> tuple[npt.NDArray[np.int64], Mask]:
    """Whole milliseconds, -1 where unknown, and a mask of what no play or track can last."""
    found, bad = np.empty(len(values), np.int64), bad.copy()
    _tell_milliseconds(values, found, bad)
    return found, bad


@unlocked
def _tell_milliseconds(values: Floats, found: npt.NDArray[np.int64], bad: Mask) -> None:
    """See `milliseconds`; ``found`` and ``bad`` are changed."""
    for i in range(len(values)):
        bad[i] |= values[i] < 0 or values[i] > LONGEST_MS
        found[i] = UNKNOWN if bad[i] or np.isnan(values[i]) else np.int64(values[i])
