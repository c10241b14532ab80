"""One table of a source file as a stream of rows that keep their line numbers; CSV."""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import ijson
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from musicbox_env.errors import InputError, is_nameless, reason
from musicbox_env.ingest.sources.bounds import Budget
from musicbox_env.ingest.sources.native import Utf8Stream, blocks_of_lines
from musicbox_env.ingest.spelling.dialect import (
    VALUE,
    Dialect,
    Source,
    StandardQuotes,
    cut,
    detect_dialect,
)

BLOCK_BYTES = 8 << 20
"""Text parsed at a time: some 50,000 rows of a published log."""
HEAD_BYTES: Final = 1 << 16
"""How much of a stream is looked at to recognize its format; a header line must fit in."""
MAX_COLUMNS_NAMED: Final = 25
SAMPLE_ROWS: Final = 200
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
BYTE_CODES: Final = pa.dictionary(pa.int32(), pa.binary())


class DamagedFileError(InputError):
    """A source file cannot be read to its end."""

    @classmethod
    def of(cls, name: str, error: Exception, where: str = "") -> DamagedFileError:
        """What a decoder's error means for a file or member; ``where`` it was, if known."""
        place = f" {where}" if where else ""
        return cls(
            f"{name}: cannot be read to its end ({reason(error)}){place}. The file is cut short or "
            "damaged; fetch it again."
        )


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
        lines: Line of each row in its file, the header being line 1, ``(rows,)``; from Parquet,
            which has no lines, the row counted from 1.
        malformed: Lines that could not be cut into as many fields as the header has, ascending;
            a quote that is never closed takes several.
        left_out: Lines of rows that are no plays to be read, by what they are.
    """

    columns: dict[str, pa.Array]
    lines: npt.NDArray[np.int64]
    malformed: npt.NDArray[np.int64] = field(default_factory=NO_LINES.copy)
    left_out: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

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
        return Rows(
            {name: column.slice(0, keep) for name, column in self.columns.items()},
            self.lines[:keep],
            self.malformed[:malformed],
            {w: of[:n] for (w, of), n in zip(self.left_out.items(), others, strict=True)},
        )

    def without(self, rows: npt.NDArray[np.bool_], what: str) -> Rows:
        """The others, with these left out as ``what`` they are; masks are ``(rows,)``."""
        if not rows.any():
            return self
        before = self.left_out.get(what, NO_LINES)
        lines = np.sort(np.concatenate([before, self.lines[rows]]))
        kept = pa.array(~rows)
        return Rows(
            {name: column.filter(kept) for name, column in self.columns.items()},
            self.lines[~rows],
            self.malformed,
            {**self.left_out, what: lines},
        )


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


class CsvTable:
    """A CSV read as a stream; its columns are those of the header line, without outer blanks.

    Attributes:
        dialect: How it is written.
        stream: Its bytes, of which the first can be looked at.
        header_is_cut: Whether the header line is longer than what is looked at.
    """

    def __init__(
        self, name: str, stream: PeekedStream, budget: Budget, dialect: Dialect | None = None
    ) -> None:
        """Detect the dialect, unless it is known, and read the header line."""
        self._budget = budget
        self._unended = self._malformed = 0
        self._reading: Generator[Rows, None, None] | None = None
        self.name, self.stream = name, stream
        self.dialect = dialect or detect_dialect(stream.head)
        self.columns = self.dialect.header
        self._behind = 0
        ends = len(_LINE_END.findall(stream.head))
        self.header_is_cut = len(stream.head) == HEAD_BYTES and ends <= self.dialect.preamble

    def read_as(self, dialect: Dialect) -> CsvTable:
        """The same text in another dialect, such as one whose columns no line names."""
        return CsvTable(self.name, self.stream, self._budget, dialect)

    @property
    def where(self) -> str:
        """Below the header, as anywhere."""
        return ""

    def sample(self) -> dict[str, list[str]]:
        """The first values of each column, those of lines that fit the header."""
        dialect = self.dialect
        text = self.stream.head.decode(errors="replace")
        lines = text.splitlines()[dialect.lines_above :][: SAMPLE_ROWS + 1]
        if len(self.stream.head) == HEAD_BYTES:
            lines = lines[:-1]
        escape = dialect.backslash_quotes or dialect.backslash_delimiters
        rows = [cut(line, dialect.delimiter, dialect.quote, escape=escape) for line in lines]
        fitting = [row for row in rows if row is not None and len(row) == len(self.columns)]
        return {name: [row[i] for row in fitting] for i, name in enumerate(self.columns)}

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns.

        A row is taken to be a line: rows are counted past blank lines and malformed rows, so that
        their lines come out right.
        """
        self.close()
        self._reading = self._rows(wanted, as_codes)
        return self._reading

    def close(self) -> None:
        """Stop reading; no thread reads any more."""
        if self._reading is not None:
            self._reading.close()

    def _rows(
        self, wanted: Sequence[str], as_codes: Collection[str]
    ) -> Generator[Rows, None, None]:
        refuse_repeated(self, wanted)
        # Bytes while parsing, so that bad UTF-8 spoils no whole file.
        types = {name: BYTE_CODES if name in as_codes else pa.binary() for name in wanted}
        dialect = self.dialect
        next_line = dialect.lines_above + 1
        stream = Utf8Stream(StandardQuotes(self.stream, dialect))
        blocks = blocks_of_lines(stream, BLOCK_BYTES, dialect.lines_above, self._check)
        with (
            damage_reported(self.name, lambda: f"behind line {next_line - 1:,}"),
            closing(blocks),
        ):
            for block in blocks:
                malformed: list[int] = []
                batch = self._parsed(block, types, next_line, malformed)
                lines = _lines_of(len(batch), next_line, malformed)
                next_line += len(batch) + len(malformed)
                self._behind = next_line - 1
                filled = ~_blank_lines(batch)
                if not filled.all():
                    batch, lines = batch.filter(pa.array(filled)), lines[filled]
                columns = {name: _as_text(batch[name]) for name in wanted}
                yield Rows(columns, lines, np.array(malformed, np.int64))

    def _parsed(
        self, block: pa.Buffer, types: dict[str, pa.DataType], next_line: int, malformed: list[int]
    ) -> pa.RecordBatch:
        """The columns of these types; lines that cannot be parsed are added to ``malformed``."""
        extra_lines = 0
        excess: InputError | None = None

        def note(row: pc_csv.InvalidRow) -> str:
            nonlocal extra_lines, excess
            first, more = next_line - 1 + row.number + extra_lines, row.text.count("\n")
            try:
                self._malformed += more + 1
                self._budget.check_malformed(self._malformed, first, len(self.columns), self.name)
            except InputError as error:
                # What is raised here never reaches anybody.
                excess = error
                return "error"
            malformed.extend(range(first, first + more + 1))
            # Arrow counts a row that runs over several lines as one.
            extra_lines += more
            return "skip"

        dialect = self.dialect
        # Columns that nobody wants may share a name; Arrow needs distinct ones. Only one thread
        # counts rows as it goes.
        names = [n if n in types else f"{n}#{i}" for i, n in enumerate(self.columns)]
        reading = pc_csv.ReadOptions(
            use_threads=False, block_size=block.size + 1, column_names=names
        )
        parsing = pc_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote or False,
            escape_char="\\" if dialect.backslash_delimiters else False,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        )
        converting = pc_csv.ConvertOptions(
            include_columns=list(types), column_types=types, strings_can_be_null=False
        )
        try:
            table = pc_csv.read_csv(pa.BufferReader(block), reading, parsing, converting)
        except pa.ArrowInvalid:
            if excess is not None:
                raise excess from None
            raise
        batches = table.combine_chunks().to_batches()
        empty = [pa.array([], kind) for kind in types.values()]
        return batches[0] if batches else pa.RecordBatch.from_arrays(empty, list(types))

    def _check(self, text: bytes) -> None:
        last = max(text.rfind(b"\n"), text.rfind(b"\r"))
        self._unended = self._unended + len(text) if last < 0 else len(text) - last
        if self._unended > BLOCK_BYTES:
            raise InputError(
                f"{self.name}: holds a line of more than {BLOCK_BYTES:,} bytes somewhere behind "
                f"line {self._behind:,}, which no table of plays does. Remove it, or break it "
                "where rows end; a quote that is never closed may have joined them."
            )
        self._budget.check_time(self.name)
        self._budget.check_blank_lines(text, len(self.columns), self.name)


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
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if v is None else _decoded(v) for v in column.to_pylist()])


def _decoded(value: bytes) -> str:
    """Text of a cell: each is UTF-8 or not, whatever the others of its file are."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("cp1252", errors="backslashreplace")


def _as_text(column: pa.Array) -> pa.Array:
    return text_codes(column) if pa.types.is_dictionary(column.type) else as_strings(column)


def text_codes(column: pa.Array) -> pa.DictionaryArray:
    """A column of any simple type as codes of its distinct values, which are strings."""
    codes = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        codes.indices.cast(pa.int32()), as_strings(codes.dictionary)
    )


def _lines_of(count: int, next_line: int, malformed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Lines of the next ``count`` good rows, given malformed lines that may stand among them."""
    good = np.arange(count)
    good_before = np.array(malformed, np.int64) - next_line - np.arange(len(malformed))
    return next_line + good + np.searchsorted(good_before, good, side="right")


def _blank_lines(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Rows of empty fields alone ``(rows,)``, as the parser gives blank lines."""
    blank = np.ones(len(batch), np.bool_)
    for column in batch.columns:
        if not blank.any():
            break
        coded = pa.types.is_dictionary(column.type)
        values = column.dictionary if coded else column
        empty = pc.call_function("binary_length", [values]).to_numpy(zero_copy_only=False) == 0
        blank &= empty[column.indices.to_numpy()] if coded else empty
    return blank
