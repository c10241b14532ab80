"""Parquet as a stream of rows."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicbox_env.errors import InputError
from musicbox_env.ingest.sources.bounds import DECODED, MOST_AT_ONCE, Budget
from musicbox_env.ingest.sources.native import bounded_memory
from musicbox_env.ingest.tables import (
    SAMPLE_ROWS,
    Rows,
    as_strings,
    damage_reported,
    refuse_repeated,
    text_codes,
)
from musicbox_env.threads import ahead

PARQUET_ROWS: Final = 65_536
BUFFER_BYTES: Final = 1 << 20
SEAM: Final = b"PAR1PAR1"
"""The end of one file and the beginning of another."""
_TEXTS: Final = (
    *(pa.types.is_string, pa.types.is_large_string),
    *(pa.types.is_binary, pa.types.is_large_binary),
)


class ParquetTable:
    """A Parquet file read a few row groups' pages at a time.

    Fields of structs are columns under dotted names.

    Attributes:
        types: Type of each column.
    """

    def __init__(self, name: str, file: IO[bytes], budget: Budget) -> None:
        """Read the schema."""
        self.name, self._budget = name, budget
        with damage_reported(name):
            # Nothing is read ahead: no thread outlives a call.
            self._parquet = pq.ParquetFile(file, pre_buffer=False)
            _refuse_joined(file, name, self._parquet.metadata)
            leaves = list(_leaves(self._parquet.schema_arrow))
        self.types = dict(leaves)
        self.columns = tuple(name for name, _ in leaves)

    def close(self) -> None:
        """Stop reading."""
        self._parquet.close()

    @property
    def where(self) -> str:
        """In the rows, as anywhere."""
        return ""

    def sample(self) -> dict[str, list[str]]:
        """The first values of each column; none of those that hold lists."""
        plain = [
            name
            for name, kind in self.types.items()
            if not pa.types.is_nested(kind) and self.columns.count(name) == 1
        ]
        with damage_reported(self.name):
            found: dict[str, list[str]] = {name: [] for name in self.columns}
            for columns in self._blocks(SAMPLE_ROWS, plain):
                texts = {name: as_strings(columns[name]).to_pylist() for name in plain}
                return {**found, **{n: [text or "" for text in t] for n, t in texts.items()}}
        return found

    def _blocks(
        self, rows: int, wanted: Sequence[str], as_codes: Collection[str] = ()
    ) -> Iterator[dict[str, pa.Array]]:
        """The wanted columns, some rows at a time.

        Runs of one value, and dictionaries, take no room in a file, however often they are named.
        """
        # A thread that cannot be started for want of memory would end the process.
        batches = self._parquet.iter_batches(rows, columns=list(wanted), use_threads=False)
        while True:
            try:
                with bounded_memory(MOST_AT_ONCE):
                    batch = next(batches, None)
                    if batch is None:
                        return
                    flat = _flattened(batch)
                    columns = {n: _decoded(flat[n], as_codes=n in as_codes) for n in wanted}
            except MemoryError:
                most = f"more than {MOST_AT_ONCE:,} bytes in {rows:,} rows"
                raise InputError(self._budget.too_much(self.name, most)) from None
            size = sum(map(_size, columns.values()))
            self._budget.unpack(size, DECODED, self.name)
            yield columns

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns.

        Raises:
            InputError: One of them holds lists.
        """
        for name in wanted:
            if pa.types.is_nested(self.types[name]):
                raise InputError(
                    f"{self.name}: column {name} holds {self.types[name]}; a single value in each "
                    "row expected."
                )
        return self.nested_rows(wanted, as_codes=as_codes)

    def nested_rows(
        self, wanted: Sequence[str], *, as_codes: Collection[str] = ()
    ) -> Iterator[Rows]:
        """The same with lists as they are, fewer rows at a time where they are long."""
        refuse_repeated(self, wanted)
        line = 1
        with damage_reported(self.name, lambda: f"behind row {line - 1:,}"):
            for columns in ahead(self._blocks(self._rows_a_batch(), wanted, as_codes)):
                count = len(next(iter(columns.values())))
                yield Rows(columns, np.arange(line, line + count), unit="row")
                line += count

    def _rows_a_batch(self) -> int:
        about = self._parquet.metadata
        groups = (about.row_group(number) for number in range(about.num_row_groups))
        values = sum(
            max((group.column(n).num_values for n in range(group.num_columns)), default=0)
            for group in groups
        )
        return max(1, PARQUET_ROWS * about.num_rows // max(values, about.num_rows, 1))


def _refuse_joined(file: IO[bytes], name: str, about: pq.FileMetaData) -> None:
    """Refuse what stands behind another Parquet file: places count from the first one's beginning.

    Raises:
        InputError: It does, so that the rows of the first would be read in its place, or neither's.
    """
    end = file.seek(0, 2) - 8
    (size,) = struct.unpack("<I", (file.seek(end), file.read(4))[1])
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    place = max((_begin(of) + of.total_compressed_size for of in chunks), default=0)
    before = b""
    while place < end - size:
        file.seek(place)
        data = file.read(min(BUFFER_BYTES, end - size - place))
        if not data or SEAM in before + data:
            break
        place, before = place + len(data), data[-len(SEAM) :]
    if place < end - size:
        raise InputError(
            f"{name}: holds several Parquet files, as where files were joined, of which readers "
            "see one. Give each by itself."
        )


def _begin(chunk: pq.ColumnChunkMetaData) -> int:
    """Where a column of a row group begins in its file."""
    first = chunk.dictionary_page_offset
    return int(chunk.data_page_offset if first is None else min(first, chunk.data_page_offset))


def _leaves(
    schema: pa.Schema | pa.StructType, above: str = ""
) -> Iterator[tuple[str, pa.DataType]]:
    """Names and types of columns, fields of structs under dotted names."""
    for field_ in schema:
        if pa.types.is_struct(field_.type):
            yield from _leaves(field_.type, f"{above}{field_.name}.")
        else:
            yield above + field_.name, field_.type


def _flattened(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Fields of structs as columns of their own."""
    while any(pa.types.is_struct(kind) for kind in batch.schema.types):
        (batch,) = pa.Table.from_batches([batch]).flatten().combine_chunks().to_batches()
    return batch


def _decoded(column: pa.Array, *, as_codes: bool) -> pa.Array:
    """A column as codes of its values, or as the values.

    Raises:
        MemoryError: It takes too much.
    """
    column = _checked(column)
    if as_codes:
        column = text_codes(column)
    if _size(column) > MOST_AT_ONCE:
        raise MemoryError
    if pa.types.is_dictionary(column.type) and not as_codes:
        return column.dictionary_decode()
    return column


def _size(column: pa.Array) -> int:
    """Bytes of a column, its codes replaced by what they stand for."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    values = column.dictionary
    if not any(is_text(values.type) for is_text in _TEXTS):
        return len(column) * int(values.nbytes) // max(len(values), 1)
    lengths = pc.call_function("binary_length", [values])
    each = np.append(lengths.fill_null(0).to_numpy().astype(np.int64), 0)
    codes = column.indices.cast(pa.int64()).fill_null(len(values)).to_numpy()
    return int(each[codes].sum())


def _checked(column: pa.Array) -> pa.Array:
    """A column of a Parquet file, which may call text what is not UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return as_strings(column.cast(pa.large_binary()))
    return column
