"""JSON read as a table, record by record: an array of objects, or an object a line.

Only what a table can hold is kept: the plain values of each object; lists and objects inside are
left out. Memory holds one block of records whatever the file is: a record that does not end, or
values nested without end, are damage and not read on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final

import ijson
import numpy as np
import pyarrow as pa

from musicbox_env.ingest.tables import (
    BYTE_ORDER_MARK,
    DamagedFileError,
    PeekedStream,
    Rows,
    damage_reported,
    text_codes,
)

RECORDS_A_BLOCK = 16_384
BYTES_A_BLOCK = 32 << 20
"""A block of long records ends before it holds so many of them."""
RECORDS_LOOKED_AT: Final = 200
"""How many records give the columns."""
READ_BYTES: Final = 1 << 14
MAX_RECORD_BYTES = 4 << 20
MAX_DEPTH: Final = 64
TYPICAL_RECORD_BYTES: Final = 600
"""What a record takes where none could be read; those of a streaming history take about this."""

Record = dict[str, str | None]
_FLAGS: Final = {True: "true", False: "false"}


def looks_like_json(head: bytes) -> bool:
    """Tell by its first bytes whether a stream is JSON."""
    return head.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"[", b"{")


class JsonTable:
    """Records of a JSON stream; a value is its text, an absent one or ``null`` is null.

    Its columns are those of the first records.

    Attributes:
        damage: Why not even the first records can be read to their end, if so.
    """

    def __init__(self, name: str, stream: PeekedStream) -> None:
        """Read the first records."""
        self.name = name
        self.stream = stream
        self._source = _RecordSource(stream)
        self._records = self._source.records()
        self._first, damage = self._block(self._records, RECORDS_LOOKED_AT)
        self.damage = None if damage is None else str(damage)
        names = chain.from_iterable(record for record in self._first if record is not None)
        self.columns = tuple(dict.fromkeys(names))

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns; a row's line is the number of its record.

        Raises:
            DamagedFileError: The JSON breaks off, after all records before that place were given.
        """
        line = 1
        records = chain(self._first, self._rest())
        while True:
            block, damage = self._block(records, RECORDS_A_BLOCK)
            if block:
                yield _rows(block, line, wanted, as_codes)
            if damage is not None:
                raise damage
            if not block:
                return
            line += len(block)
            del block  # so that memory never holds two

    def _block(
        self, records: Iterator[Record | None], count: int
    ) -> tuple[list[Record | None], DamagedFileError | None]:
        """The next records, ``count`` at most, fewer if they are long; and the damage behind."""
        block: list[Record | None] = []
        before = self._source.bytes_read
        try:
            with damage_reported(self.name):
                for record in islice(records, count):
                    block.append(record)
                    if self._source.bytes_read - before > BYTES_A_BLOCK:
                        break
        except DamagedFileError as error:
            return block, error
        return block, None

    def _rest(self) -> Iterator[Record | None]:
        if self.damage is not None:
            raise DamagedFileError(self.damage)
        yield from self._records

    def records_lost(self) -> int:
        """About how many records lie behind the damage, estimated from the bytes that are left."""
        given, taken = self._source.records_given, self._source.bytes_of_records
        each = taken / given if given else TYPICAL_RECORD_BYTES
        return max(1, round((self._source.bytes_left() + 1) / max(each, 1)))


class _RecordSource:
    """Cuts a JSON stream into records, counting the bytes.

    Attributes:
        records_given: Records so far.
        bytes_read: Bytes so far.
        bytes_of_records: Bytes up to the read that held the last record.
    """

    def __init__(self, stream: PeekedStream) -> None:
        self.records_given = 0
        self.bytes_of_records = 0
        self.bytes_read = 0
        self._stream = stream
        if stream.head.startswith(BYTE_ORDER_MARK):
            stream.read(len(BYTE_ORDER_MARK))

    def read(self, size: int = -1, /) -> bytes:
        """Hand bytes to the parser, unless it has taken too many without a record coming out."""
        if self.bytes_read - self.bytes_of_records > MAX_RECORD_BYTES:
            raise ijson.JSONError(f"no record ends within {MAX_RECORD_BYTES:,} bytes")
        data = self._stream.read(size)
        self.bytes_read += len(data)
        return data

    def bytes_left(self) -> int:
        """Bytes behind the last record; reads the stream to its end."""
        try:
            while data := self._stream.read(READ_BYTES):
                self.bytes_read += len(data)
        except (DamagedFileError, OSError, EOFError, ValueError):
            pass
        return self.bytes_read - self.bytes_of_records

    def records(self) -> Iterator[Record | None]:
        """Each object, at the top or in a list there; None for anything else in such a place.

        Built from single events: ijson's own objects name each value by its whole path, which
        takes quadratic memory where values are nested deep.
        """
        depth, inside = 0, 0
        record: Record = {}
        name = ""
        events = ijson.basic_parse(self, multiple_values=True, buf_size=READ_BYTES)
        for event, value in events:
            if event == "map_key":
                name = value
            elif event in ("start_map", "start_array"):
                depth += 1
                if depth > MAX_DEPTH:
                    raise ijson.JSONError(f"values are nested more than {MAX_DEPTH} deep")
                if not inside and event == "start_map":
                    record, inside = {}, depth
                elif not inside and depth > 1:
                    inside = depth
                    record = {"": None}
            elif event in ("end_map", "end_array"):
                if depth == inside:
                    inside = 0
                    yield self._given(None if "" in record else record)
                depth -= 1
            elif depth == inside and inside:
                record[name or " "] = _text(value)
            elif not inside:
                yield self._given(None)

    def _given(self, record: Record | None) -> Record | None:
        self.records_given += 1
        self.bytes_of_records = self.bytes_read
        return record


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return _FLAGS[value]
    return None if value is None else str(value)


def _rows(
    block: list[Record | None], line: int, wanted: Sequence[str], as_codes: Collection[str]
) -> Rows:
    lines = np.arange(line, line + len(block))
    good = np.array([record is not None for record in block])
    records = [record for record in block if record is not None]
    columns: dict[str, pa.Array] = {}
    for name in wanted:
        column = pa.array([record.get(name) for record in records], pa.string())
        columns[name] = text_codes(column) if name in as_codes else column
    return Rows(columns, lines[good], lines[~good])
