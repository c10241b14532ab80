"""CSV as a stream of rows that keep their line numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from musicbox_env.errors import InputError
from musicbox_env.ingest.sources.bounds import Budget
from musicbox_env.ingest.sources.native import Utf8Stream, blocks_of_lines
from musicbox_env.ingest.spelling.dialect import (
    OR_WINDOWS_1252,
    Dialect,
    StandardQuotes,
    cut,
    detect_dialect,
)
from musicbox_env.ingest.tables import (
    HEAD_BYTES,
    SAMPLE_ROWS,
    PeekedStream,
    Rows,
    as_strings,
    damage_reported,
    refuse_repeated,
    text_codes,
)

BLOCK_BYTES = 8 << 20
"""Text parsed at a time: some 50,000 rows of a published log."""
BYTE_CODES: Final = pa.dictionary(pa.int32(), pa.binary())
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


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
        text = self.stream.head.decode(errors=OR_WINDOWS_1252)
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


def _as_text(column: pa.Array) -> pa.Array:
    return text_codes(column) if pa.types.is_dictionary(column.type) else as_strings(column)


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
