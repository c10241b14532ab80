"""Parquet as a stream of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import IO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.errors import InputError
from musicbox_env.ingest.sources.bounds import Budget
from musicbox_env.ingest.tables import (
    SAMPLE_ROWS,
    Rows,
    as_strings,
    damage_reported,
    refuse_repeated,
    text_codes,
)

PARQUET_ROWS: Final = 65_536


class ParquetTable:
    """A Parquet file read a few row groups' pages at a time.

    Fields of structs are columns under dotted names.
    """

    def __init__(self, name: str, file: IO[bytes], budget: Budget) -> None:
        """Read the schema."""
        self.name, self._budget = name, budget
        with damage_reported(name):
            # Nothing is read ahead: no thread outlives a call.
            self._parquet = pq.ParquetFile(file, pre_buffer=False)
            leaves = list(_leaves(self._parquet.schema_arrow))
        self._types = dict(leaves)
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
            for name, kind in self._types.items()
            if not pa.types.is_nested(kind) and self.columns.count(name) == 1
        ]
        with damage_reported(self.name):
            found: dict[str, list[str]] = {name: [] for name in self.columns}
            for batch in self._parquet.iter_batches(SAMPLE_ROWS, columns=plain):
                flat = _flattened(batch)
                texts = {name: as_strings(_checked(flat[name])).to_pylist() for name in plain}
                return {**found, **{n: [text or "" for text in t] for n, t in texts.items()}}
        return found

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns.

        Raises:
            InputError: One of them holds lists.
        """
        for name in wanted:
            if pa.types.is_nested(self._types[name]):
                raise InputError(
                    f"{self.name}: column {name} holds {self._types[name]}; a single value in each "
                    "row expected."
                )
        return self.nested_rows(wanted, as_codes=as_codes)

    def nested_rows(
        self, wanted: Sequence[str], *, as_codes: Collection[str] = ()
    ) -> Iterator[Rows]:
        """The same with lists as they are."""
        refuse_repeated(self, wanted)
        line = 1
        with damage_reported(self.name, lambda: f"behind row {line - 1:,}"):
            for batch in self._parquet.iter_batches(PARQUET_ROWS, columns=list(wanted)):
                self._budget.check_time(self.name)
                flat = _flattened(batch)
                columns = {n: _checked(flat[n]) for n in wanted}
                columns.update({n: text_codes(columns[n]) for n in wanted if n in as_codes})
                yield Rows(columns, np.arange(line, line + len(batch)))
                line += len(batch)


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


def _checked(column: pa.Array) -> pa.Array:
    """A column of a Parquet file, which may call text what is not UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return as_strings(column.cast(pa.large_binary()))
    return column
