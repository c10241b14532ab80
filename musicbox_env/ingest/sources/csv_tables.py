"""CSV as a stream of rows that keep their line numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from musicbox_env.errors import InputError
from musicbox_env.ingest.sources.bounds import LINE_END, RETURN, Budget, in_cache
from musicbox_env.ingest.sources.native import Utf8Stream, blocks_of_lines
from musicbox_env.ingest.spelling.dialect import (
    Dialect,
    StandardQuotes,
    cut,
    detect_dialect,
    lines_of,
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
Lines = npt.NDArray[np.int64]


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
        self._joins_lines = False
        self._reading: Generator[Rows, None, None] | None = None
        self.name, self.stream = name, stream
        self.dialect = dialect or detect_dialect(stream.head)
        self.columns = self.dialect.header
        self._behind = 0
        ends = len(_LINE_END.findall(stream.head))
        begun = self.dialect.preamble + self.dialect.header_lines
        self.header_is_cut = len(stream.head) == HEAD_BYTES and ends < begun

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
        lines = lines_of(self.stream.head)[dialect.lines_above :][: SAMPLE_ROWS + 1]
        if len(self.stream.head) == HEAD_BYTES:
            lines = lines[:-1]
        escape = dialect.backslash_quotes or dialect.backslash_delimiters
        rows = [cut(line, dialect.delimiter, dialect.quote, escape=escape) for line in lines]
        fitting = [row for row in rows if row is not None and len(row) == len(self.columns)]
        return {name: [row[i] for row in fitting] for i, name in enumerate(self.columns)}

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns.

        Blank lines, malformed ones and the line ends in fields are counted, so that the lines of
        rows come out right.
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
        dialect = self.dialect
        # By place: columns that nobody wants may share a name, and Arrow needs distinct ones.
        places = {name: str(self.columns.index(name)) for name in wanted}
        # Bytes while parsing, so that bad UTF-8 spoils no whole file.
        types = {at: BYTE_CODES if n in as_codes else pa.binary() for n, at in places.items()}
        next_line = dialect.lines_above + 1
        stream = Utf8Stream(StandardQuotes(self.stream, dialect))
        blocks = blocks_of_lines(stream, BLOCK_BYTES, dialect.lines_above, self._check)
        with (
            damage_reported(self.name, lambda: f"behind line {next_line - 1:,}"),
            closing(blocks),
        ):
            for block in blocks:
                batch, first, malformed = self._records(block, types, next_line)
                next_line = self._behind + 1
                filled = ~_rows_where(batch, _is_empty)
                if not filled.all():
                    batch, first = batch.filter(pa.array(filled)), first[filled]
                self._refuse_other_order(batch, wanted, first)
                columns = {name: _as_text(batch[at]) for name, at in places.items()}
                yield Rows(columns, first, malformed)

    def _records(
        self, block: pa.Buffer, types: dict[str, pa.DataType], next_line: int
    ) -> tuple[pa.RecordBatch, Lines, Lines]:
        """The columns of these types, the first line of each row, and lines that are of none."""
        spoilt: dict[int, int] = {}
        excess: InputError | None = None
        behind = next_line - 1

        def note(row: pc_csv.InvalidRow) -> str:
            nonlocal excess, behind
            # A quote that is never closed makes one record of many lines.
            spoilt[row.number - 1] = lines = len(_LINE_END.findall(row.text.encode())) + 1
            behind += lines - 1
            try:
                self._take_malformed(lines, behind + row.number)
            except InputError as error:
                # What is raised here never reaches anybody.
                excess = error
                return "error"
            return "skip"

        try:
            batch = self._parsed(block, types, note)
        except pa.ArrowInvalid:
            if excess is not None:
                raise excess from None
            raise
        lines = np.ones(len(batch) + len(spoilt), np.int64)
        lines[list(spoilt)] = list(spoilt.values())
        good = np.ones(len(lines), np.bool_)
        good[list(spoilt)] = False
        if self._joins_lines and lines.sum() < _count_lines(block):
            ends, hides = self._joined_lines(block)
            lines[good] += ends
            good[good] = ~hides
            batch = batch.filter(pa.array(~hides))
            self._take_malformed(int(lines[~good].sum()) - sum(spoilt.values()), behind)
        self._behind = next_line - 1 + int(lines.sum())
        first = next_line + np.cumsum(lines) - lines
        return batch, first[good], next_line + np.flatnonzero(np.repeat(~good, lines))

    def _take_malformed(self, lines: int, read: int) -> None:
        self._malformed += lines
        self._budget.check_malformed(self._malformed, read, len(self.columns), self.name)

    def _joined_lines(self, block: pa.Buffer) -> tuple[Lines, npt.NDArray[np.bool_]]:
        """Line ends within the fields of each row, and whether they are those of rows, ``(rows,)``.

        A field may hold several lines, of which hardly one has delimiters just as the rows of the
        table have; between two stray quotes all have.
        """
        last, delimiter = len(self.columns) - 1, self.dialect.delimiter.encode()
        types = {str(place): pa.binary() for place in range(last + 1)}
        batch = self._parsed(block, types, lambda row: "skip")
        ends, hides = np.zeros(len(batch), np.int64), np.zeros(len(batch), np.bool_)
        for place, column in enumerate(batch.columns):
            for row in _rows_of_several_lines(column):
                texts = _LINE_END.split(column[row].as_py())
                ends[row] += len(texts) - 1
                as_rows = [last - place, *[last] * (len(texts) - 2), place]
                alike = np.array([text.count(delimiter) for text in texts]) == as_rows
                hides[row] |= last > 0 and alike.mean() > 0.5
        return ends, hides

    def _refuse_other_order(
        self, batch: pa.RecordBatch, wanted: Sequence[str], first: Lines
    ) -> None:
        """Refuse a second header that names other columns where the wanted ones are."""
        cases = (str, str.lower, str.upper, str.title, str.capitalize)
        spelled = {pad + of(n) for n in self.columns for of in cases for pad in ("", " ", "\ufeff")}
        names = pc.SetLookupOptions(pa.array([n.encode() for n in spelled], pa.binary()))

        def are_names(values: pa.Array) -> npt.NDArray[np.bool_]:
            found = pc.call_function("is_in", [values], names)
            return np.asarray(found.to_numpy(zero_copy_only=False))

        for row in np.flatnonzero(_rows_where(batch, are_names)):
            found = [of[row].as_py().decode().strip(" \ufeff").lower() for of in batch.columns]
            if found != [name.lower() for name in wanted]:
                raise InputError(
                    f"{self.name}: line {first[row]:,} names the columns in another order than the "
                    "header does, as where files were joined. Give each by itself."
                )

    def _parsed(
        self,
        block: pa.Buffer,
        types: dict[str, pa.DataType],
        note: Callable[[pc_csv.InvalidRow], str],
    ) -> pa.RecordBatch:
        """The columns at some places of the lines that can be parsed; others go to ``note``."""
        dialect = self.dialect
        # Only one thread counts rows as it goes.
        reading = pc_csv.ReadOptions(
            use_threads=False,
            block_size=block.size + 1,
            column_names=[str(place) for place in range(len(self.columns))],
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
        table = pc_csv.read_csv(pa.BufferReader(block), reading, parsing, converting)
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
        dialect = self.dialect
        quoted = dialect.quote is not None and dialect.quote.encode() in text
        self._joins_lines = self._joins_lines or quoted or dialect.backslash_delimiters
        self._budget.check_time(self.name)
        self._budget.check_blank_lines(text, len(self.columns), self.name)


def _as_text(column: pa.Array) -> pa.Array:
    return text_codes(column) if _is_coded(column) else as_strings(column)


def _rows_of_several_lines(column: pa.BinaryArray) -> Lines:
    _, offsets, texts = column.buffers()
    values = np.frombuffer(texts or b"", np.uint8)
    places = np.flatnonzero((values == LINE_END) | (values == RETURN))
    begins = np.frombuffer(offsets, np.int32)[column.offset :][: len(column) + 1]
    return np.unique(np.searchsorted(begins, places, side="right")) - 1


def _count_lines(text: pa.Buffer) -> int:
    values = np.frombuffer(text, np.uint8)
    counts = [
        (np.count_nonzero(of == LINE_END), np.count_nonzero(of == RETURN))
        for of in in_cache(values)
    ]
    ends, returns = np.sum(counts, axis=0)
    if returns:
        ends += returns - np.count_nonzero((values[:-1] == RETURN) & (values[1:] == LINE_END))
    return int(ends) + (values[-1] not in (LINE_END, RETURN))


def _is_empty(values: pa.Array) -> npt.NDArray[np.bool_]:
    lengths = pc.call_function("binary_length", [values]).to_numpy(zero_copy_only=False)
    empty: npt.NDArray[np.bool_] = lengths == 0
    return empty


def _rows_where(
    batch: pa.RecordBatch, test: Callable[[pa.Array], npt.NDArray[np.bool_]]
) -> npt.NDArray[np.bool_]:
    """Rows whose fields all pass a test ``(rows,)``, such as the empty ones of a blank line."""
    passed = np.ones(len(batch), np.bool_)
    # Codes first: few distinct values are tested, and hardly ever is there need to go on.
    for column in sorted(batch.columns, key=_is_coded, reverse=True):
        if not passed.any():
            break
        coded = _is_coded(column)
        of = test(column.dictionary if coded else column)
        passed &= of[column.indices.to_numpy()] if coded else of
    return passed


def _is_coded(column: pa.Array) -> bool:
    return bool(pa.types.is_dictionary(column.type))
