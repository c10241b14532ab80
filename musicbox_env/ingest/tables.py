"""One table of a source file as a stream of rows that keep their line numbers."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

import ijson
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.errors import InputError, is_nameless, reason
from musicbox_env.ingest.spelling.dialect import NotUtf8Error, Source
from musicbox_env.ingest.spelling.headers import VALUE

HEAD_BYTES: Final = 1 << 16
"""How much of a stream is looked at to recognize its format; a header line must fit in."""
MAX_COLUMNS_NAMED: Final = 25
SAMPLE_ROWS: Final = 200


DAMAGED: Final = " The file is cut short or damaged; fetch it again."


class DamagedFileError(InputError):
    """A source file cannot be read to its end.

    Attributes:
        why: What the decoder said.
    """

    why = ""

    @classmethod
    def of(cls, name: str, error: Exception, where: str = "") -> DamagedFileError:
        """What a decoder's error means for a file or member; ``where`` it was, if known."""
        place = f" {where}" if where else ""
        mend = "" if isinstance(error, NotUtf8Error) else DAMAGED
        damaged = cls(f"{name}: cannot be read to its end ({reason(error)}){place}.{mend}")
        damaged.why = reason(error)
        return damaged


@dataclass(frozen=True)
class PassedOver:
    """A file, or member of an archive, that holds no table, or none of those looked for.

    Attributes:
        name: Which one.
        why: What it is instead, to follow the name in a message.
    """

    name: str
    why: str


NO_LINES: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class Rows:
    """Some rows of one table, as text.

    Attributes:
        columns: Equally long arrays: ``dictionary<string>`` for columns that are read as
            codes; others are strings from CSV and of their stored type from Parquet. An empty
            field is an empty string in CSV and null in Parquet.
        lines: Line of each row in its file, the header being line 1, ``(rows,)``; where files
            have no lines, the row or record counted from 1.
        malformed: Lines that could not be cut into as many fields as the header has, ascending;
            a quote that is never closed takes several.
        left_out: Lines of rows that are no plays to be read, by what they are.
        unit: What ``lines`` counts: lines, rows or records.
    """

    columns: dict[str, pa.Array]
    lines: npt.NDArray[np.int64]
    malformed: npt.NDArray[np.int64] = field(default_factory=NO_LINES.copy)
    left_out: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    unit: Literal["line", "row", "record"] = "line"

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def num_read(self) -> int:
        """Rows seen, those that are malformed or left out with them."""
        left_out = sum(len(lines) for lines in self.left_out.values())
        return len(self) + len(self.malformed) + left_out

    def first(self, count: int) -> Rows:
        """The first ``count`` rows in the order of the file, all of `num_read` counted."""
        if count >= self.num_read:
            return self
        kinds = [self.lines, self.malformed, *self.left_out.values()]
        kind = np.repeat(np.arange(len(kinds)), [len(lines) for lines in kinds])
        first = np.argsort(np.concatenate(kinds), kind="stable")[:count]
        keep, malformed, *others = np.bincount(kind[first], minlength=len(kinds)).tolist()
        return replace(
            self,
            columns={name: column.slice(0, keep) for name, column in self.columns.items()},
            lines=self.lines[:keep],
            malformed=self.malformed[:malformed],
            left_out={w: of[:n] for (w, of), n in zip(self.left_out.items(), others, strict=True)},
        )

    def without(self, rows: npt.NDArray[np.bool_], what: str) -> Rows:
        """The others, with these left out as ``what`` they are; masks are ``(rows,)``."""
        if not rows.any():
            return self
        before = self.left_out.get(what, NO_LINES)
        lines = np.sort(np.concatenate([before, self.lines[rows]]))
        kept = pa.array(~rows)
        return replace(
            self,
            columns={name: column.filter(kept) for name, column in self.columns.items()},
            lines=self.lines[~rows],
            left_out={**self.left_out, what: lines},
        )

    def place(self, row: int) -> str:
        """Where one of the rows stands in its file, as ``on line 7``."""
        return f"{'on' if self.unit == 'line' else 'in'} {self.unit} {self.lines[row]:,}"


class Table(Protocol):
    """One table of a source file; it must be read before the next.

    Attributes:
        name: Its file, and member if the file is an archive.
        columns: Names of its columns.
    """

    name: str
    columns: tuple[str, ...]

    @property
    def where(self) -> str:
        """Where its rows were looked for, if that may surprise."""
        ...

    def sample(self) -> dict[str, list[str]]:
        """The first values of each column as text, empty where there is none."""
        ...

    def close(self) -> None:
        """Stop reading; no thread reads any more."""
        ...

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns; those in ``as_codes`` hold few distinct values."""
        ...


class ConvertedTable:
    """A table whose rows are changed before they are read, as a service's reader wants them.

    What a conversion leaves out stands in `Rows.left_out`, where the account finds it.
    """

    def __init__(
        self, table: Table, columns: Sequence[str], convert: Callable[[Rows], Rows]
    ) -> None:
        """Read these columns of a table, and make of each block of rows another.

        Args:
            table: The table.
            columns: What ``convert`` needs of it.
            convert: Gives rows with other columns, in the order of their lines. One row may become
                many, which then count as so many rows read.
        """
        self._table, self._columns, self._convert = table, columns, convert
        self.name, self.columns = table.name, table.columns

    @property
    def where(self) -> str:
        """As the table says."""
        return self._table.where

    def sample(self) -> dict[str, list[str]]:
        """The first values of the table before it is converted."""
        return self._table.sample()

    def close(self) -> None:
        """Stop reading; no thread reads any more."""
        self._table.close()

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the converted rows; which columns they have is for ``convert`` to say."""
        for rows in self._table.rows(self._columns):
            yield self._convert(rows)


class PeekedStream:
    """A stream whose beginning can be looked at before it is read.

    Attributes:
        head: Its first `HEAD_BYTES` bytes, fewer if it is shorter.
    """

    closed = False

    def __init__(self, stream: Source) -> None:
        """Read the beginning of a stream."""
        self.stream = stream
        parts: list[bytes] = []
        size = 0
        while size < HEAD_BYTES and (part := stream.read(HEAD_BYTES - size)):
            parts.append(part)
            size += len(part)
        self.head = b"".join(parts)
        self._left = self.head

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes, all if it is negative; empty at the end."""
        if size is None or size < 0:
            data, self._left = self._left + self.stream.read(), b""
        elif self._left:
            data, self._left = self._left[:size], self._left[size:]
        else:
            data = self.stream.read(size)
        return data

    def close(self) -> None:
        """Leave the stream to whoever opened it."""

    def readable(self) -> bool:
        """Say that it can be read."""
        return True


@contextmanager
def damage_reported(name: str, where: Callable[[], str] = str) -> Iterator[None]:
    """Turn what the many decoders raise on a broken file into one error that names the file.

    Args:
        name: The file or member.
        where: Gives the place in it.
    """
    try:
        yield
    except (
        ArithmeticError,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        tarfile.TarError,
        zipfile.BadZipFile,
        NotImplementedError,
        RecursionError,
        UnicodeError,
        pa.ArrowException,
        ijson.JSONError,
    ) as error:
        raise DamagedFileError.of(name, error, where()) from error
    except OSError as error:
        # Arrow and gzip raise it too, without the name of a file.
        if not is_nameless(error):
            raise
        raise DamagedFileError.of(name, error, where()) from error


def refuse_repeated(table: Table, wanted: Sequence[str]) -> None:
    """Refuse a table in which several columns have the name of a wanted one."""
    twice = [name for name, count in Counter(table.columns).items() if count > 1]
    if unclear := [name for name in twice if name in wanted]:
        raise InputError(
            f"{table.name}: the header names {', '.join(unclear)} more than once; "
            "which of them is meant is not clear."
        )


def found_columns(table: Table) -> str:
    """The columns of a table for a message, as far as it is readable.

    Of a table without a header they would be somebody's data, which no message shows.
    """
    if any(VALUE.search(name) for name in table.columns):
        return "what seem to be values in place of names"
    names = ", ".join(table.columns[:MAX_COLUMNS_NAMED])[: MAX_COLUMNS_NAMED * 40]
    more = len(table.columns) - MAX_COLUMNS_NAMED
    return (names or "none") + (f" and {more} more" if more > 0 else "")


def as_strings(column: pa.Array) -> pa.StringArray:
    """A column of any simple type as strings; what is not UTF-8 is read as Windows-1252."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_duration(column.type):
        return pa.array([text_of(v) if v.is_valid else None for v in column], pa.string())
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if v is None else _decoded(v) for v in column.to_pylist()])


def text_of(value: pa.Scalar) -> str:
    """A value of any type as text: the number that is stored, of times beyond those of Python."""
    try:
        return str(value.as_py())
    except (OverflowError, ValueError):
        return str(value.value)


def as_floats(column: pa.Array) -> npt.NDArray[np.float64]:
    """A column of numbers as float64 ``(rows,)``, NaN where there is none.

    Whole numbers beyond 2^53 are rounded, which Arrow refuses unless told.
    """
    floats: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return floats


def _decoded(value: bytes) -> str:
    """Text of a cell: each is UTF-8 or not, whatever the others of its file are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("cp1252", errors="backslashreplace")


def text_codes(column: pa.Array) -> pa.DictionaryArray:
    """A column of any simple type as codes of its distinct values, which are strings."""
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        codes.indices.cast(pa.int32()), as_strings(codes.dictionary)
    )
