"""JSON read as a table, record by record, wherever `json_shape` finds the records.

Only what a table can hold is kept: plain values, those of objects inside under dotted names
(``track_metadata.track_name``), of lists inside the first element (``artists.0.name``).

Memory holds one block of records whatever the file is: a record that does not end, or
values nested without end, are damage and not read on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Final

import ijson
import numpy as np
import pyarrow as pa

from musicbox_env.ingest.spelling.dialect import BYTE_ORDER_MARK, StrictUtf8
from musicbox_env.ingest.spelling.json_shape import (
    MAX_DEPTH,
    SCHEMA,
    Shape,
    ShortNumbers,
    WithoutNan,
    find_shape,
    fits,
)
from musicbox_env.ingest.spelling.json_values import (
    TOO_DEEP,
    Events,
    Record,
    first_value,
    plain_values,
    read_object,
    text_of,
)
from musicbox_env.ingest.tables import (
    DamagedFileError,
    PassedOver,
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
MAX_COLUMN_BYTES = 64 << 20
"""JSON that lists column after column is held whole, up to this size."""
TYPICAL_RECORD_BYTES: Final = 600
"""What a record takes where none could be read; those of a streaming history take about this."""

_TWICE: Final = "it names a column twice, and the values of one would be lost"


def looks_like_json(head: bytes) -> bool:
    """Tell by its first bytes whether a stream is JSON."""
    return head.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"[", b"{")


class JsonTable:
    """Records of a JSON stream; a value is its text, an absent one or ``null`` is null.

    Its columns are those of the first records.

    Attributes:
        damage: Why not even the first records can be read to their end, if so.
        shape: Where its records are.
    """

    def __init__(self, name: str, stream: PeekedStream) -> None:
        """Read the first records."""
        self.name = name
        self.stream = stream
        self.shape = find_shape(stream.head.removeprefix(BYTE_ORDER_MARK))
        self._source = _RecordSource(stream, self.shape)
        self._records = self._source.records()
        self._first, self.damage = self._block(self._records, RECORDS_LOOKED_AT)
        names = chain.from_iterable(record for record in self._first if record is not None)
        self.columns = tuple(dict.fromkeys(names))

    @property
    def where(self) -> str:
        """Where records were looked for, if not at the top."""
        return self.shape.where

    @property
    def unread(self) -> list[PassedOver]:
        """Lists of objects beside the records, as far as the stream was read."""
        return [
            PassedOver(
                f"{self.name}, {name}",
                f"holds {count:,} objects beside the records that were read {self.where}: save it "
                "as a file of its own to use it",
            )
            for name, count in self._source.unread.items()
        ]

    def sample(self) -> dict[str, list[str]]:
        """The first values of each column, empty where there is none."""
        records = [record for record in self._first if record is not None]
        return {name: [record.get(name) or "" for record in records] for name in self.columns}

    def close(self) -> None:
        """Stop reading."""

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
                for number in [of for of in self._source.twice if of < line + len(block)]:
                    if not self._source.twice.pop(number).isdisjoint(wanted):
                        block[number - line] = None  # which of the values is meant is not clear
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
            with damage_reported(
                self.name, lambda: f"behind record {self._source.records_given:,}"
            ):
                for record in islice(records, count):
                    block.append(record)
                    if self._source.bytes_read - before > BYTES_A_BLOCK:
                        break
        except DamagedFileError as error:
            return block, error
        return block, None

    def _rest(self) -> Iterator[Record | None]:
        if self.damage is not None:
            raise self.damage
        yield from self._records

    def records_lost(self) -> int:
        """About how many records lie behind the damage, estimated from the bytes that are left."""
        source = self._source
        each: float = TYPICAL_RECORD_BYTES
        if source.records_before:
            each = max(source.bytes_before / source.records_before, 1)
        known = source.bytes_read - source.bytes_before
        left = source.bytes_left()
        if not left:
            return 1
        since = source.records_given - source.records_before
        return max(1, round((known + left) / each) - since)


class _RecordSource:
    """Cuts a JSON stream into records, counting the bytes.

    Attributes:
        records_given: Records so far.
        bytes_read: Bytes so far.
        bytes_of_records: Bytes up to the read that held the last record.
        bytes_before: Bytes up to the last read, all of which is parsed.
        records_before: Records up to there.
        unread: Objects in lists that are no records, by the name of the list or what is around it.
        twice: Names that a record, by its number, has more than once.
    """

    def __init__(self, stream: PeekedStream, shape: Shape) -> None:
        self.records_given = 0
        self.bytes_of_records = 0
        self.bytes_read = 0
        self.bytes_before = self.records_before = 0
        self.unread: Counter[str] = Counter()
        self.twice: dict[int, set[str]] = {}
        self._at_records = False
        self._shape = shape
        mark = BYTE_ORDER_MARK if stream.head.startswith(BYTE_ORDER_MARK) else b""
        stream.read(len(mark))
        self._raw, self._utf8 = stream, StrictUtf8(stream, len(mark))
        self._stream = ShortNumbers(WithoutNan(self._utf8))

    def read(self, size: int = -1, /) -> bytes:
        """Hand bytes to the parser, unless it has taken too many without a record coming out."""
        if self.bytes_read - self.bytes_of_records > MAX_RECORD_BYTES:
            raise ijson.JSONError(f"no record ends within {MAX_RECORD_BYTES:,} bytes")
        self.bytes_before, self.records_before = self.bytes_read, self.records_given
        data = self._stream.read(size)
        self.bytes_read += len(data)
        return data

    def bytes_left(self) -> int:
        """Bytes that were not read, which are read now."""
        left = self._utf8.bytes_refused
        try:
            while data := self._raw.read(READ_BYTES):
                left += len(data)
        except (OSError, EOFError, ValueError):
            pass
        return left

    def records(self) -> Iterator[Record | None]:
        """Each record; None for anything else in such a place.

        Built from single events: ijson's own objects name each value by its whole path, which
        takes quadratic memory where values are nested deep.
        """
        events = ijson.basic_parse(self, multiple_values=True, buf_size=READ_BYTES)
        match self._shape.kind:
            case "list" | "index":
                return self._inside(events)
            case "split":
                return self._split(events)
            case "columns":
                return self._by_column(events)
        return self._at_the_top(events)

    def _at_the_top(self, events: Events) -> Iterator[Record | None]:
        """Objects at the top or in lists there."""
        in_list = False
        for event, _ in events:
            if event == "start_map":
                yield self._given(self._object(events, 1 + in_list))
            elif event == "start_array":
                if in_list:
                    first_value(events, 2, set())
                    yield self._given(None)
                in_list = True
            elif event == "end_array":
                in_list = False
            else:
                yield self._given(None)

    def _inside(self, events: Events) -> Iterator[Record | None]:
        """Objects in a list or object within each object at the top or in a list there."""
        for event, _ in events:
            if event == "start_map":
                self._at_records = False
                yield from self._descend(events, self._shape.path, {}, "")
                if self._shape.kind == "list" and not self._at_records:
                    yield self._given(None)
            elif event not in ("start_array", "end_array"):
                yield self._given(None)

    def _descend(
        self, events: Events, path: tuple[str, ...], above: Record, prefix: str
    ) -> Iterator[Record | None]:
        """What lies at a path within an object; its records have the plain values above them."""
        by_label = self._shape.kind == "index"
        name = ""
        for event, value in events:
            self.bytes_of_records = self.bytes_read
            if event == "map_key":
                name = value
            elif event == "end_map":
                return
            elif event == "start_map" and by_label and not path:
                yield self._given({**above, **self._object(events, 1)})
            elif event == "start_map" and not by_label and self._ends(path, name):
                # Converters of XML write a list of one as its only element.
                self._at_records = True
                yield self._given({**above, **self._object(events, 1)})
            elif event == "start_map" and path and fits(path[0], name):
                yield from self._descend(events, path[1:], above, f"{prefix}{name}.")
            elif event == "start_array" and not by_label and self._ends(path, name):
                self._at_records = True
                yield from self._items(events, above)
            elif event in ("start_map", "start_array"):
                if (count := self._skip(events, event)) and name != SCHEMA:
                    self.unread[f"{prefix}{name}"] += count
            elif by_label and not path:
                yield self._given(None)
            else:
                above[prefix + name] = text_of(value)

    @staticmethod
    def _ends(path: tuple[str, ...], name: str) -> bool:
        return len(path) == 1 and fits(path[0], name)

    def _items(self, events: Events, above: Record) -> Iterator[Record | None]:
        """Objects up to the end of a list."""
        for event, _ in events:
            if event == "end_array":
                return
            if event == "start_map":
                yield self._given({**above, **self._object(events, 1)})
            else:
                if event == "start_array":
                    self._skip(events, event)
                yield self._given(None)

    def _split(self, events: Events) -> Iterator[Record | None]:
        """Lists of values, whose names are a list before them."""
        names: list[str] = []
        name = ""
        for event, value in events:
            if event == "map_key":
                name = value
            elif event == "start_array" and name == self._shape.names:
                names = [text or "" for text in plain_values(events)]
                if len({*names}) < len(names):
                    raise ijson.JSONError(_TWICE)
            elif event == "start_array" and (name,) == self._shape.path:
                for inner, _ in events:
                    if inner == "end_array":
                        break
                    row = plain_values(events) if inner == "start_array" else []
                    fits = len(row) == len(names)
                    yield self._given(dict(zip(names, row, strict=True)) if fits else None)
            elif event == "start_array" and (count := self._skip(events, event)):
                self.unread[name] += count

    def _by_column(self, events: Events) -> Iterator[Record | None]:
        """Rows of a document that lists column after column, which is held whole."""
        columns: dict[str, list[str | None]] = {}
        labels: list[str] | None = None
        name = ""
        next(events)
        for event, value in events:
            if event == "map_key":
                name = value
            elif event in ("start_map", "start_array"):
                if name in columns:
                    raise ijson.JSONError(_TWICE)
                values: list[str | None] = []
                columns[name] = values
                own: list[str] = []
                for inner, item in events:
                    if inner in ("end_map", "end_array"):
                        break
                    self.bytes_of_records = self.bytes_read
                    if self.bytes_read > MAX_COLUMN_BYTES:
                        raise ijson.JSONError(
                            f"it lists column after column in more than {MAX_COLUMN_BYTES:,} "
                            "bytes; write records, as DataFrame.to_json(orient='records') does"
                        )
                    if inner in ("start_map", "start_array"):
                        self._skip(events, inner)
                        values.append(None)
                    elif inner == "map_key":
                        own.append(item)
                    else:
                        values.append(text_of(item))
                if event == "start_map" and (labels := own if labels is None else labels) != own:
                    raise ijson.JSONError("its columns name other rows, or in another order")
        if len({len(values) for values in columns.values()}) > 1:
            raise ijson.JSONError("its columns are of different lengths")
        for row in zip(*columns.values(), strict=True):
            yield self._given(dict(zip(columns, row, strict=True)))

    def _skip(self, events: Events, event: str) -> int:
        """Pass over a list or object that begins; how many objects lists in it hold."""
        around, objects = [event], 0
        while around:
            event, _ = next(events)
            if event.startswith("start"):
                objects += (around[-1], event) == ("start_array", "start_map")
                around.append(event)
            elif event.startswith("end"):
                around.pop()
            self.bytes_of_records = self.bytes_read
            if len(around) > MAX_DEPTH:
                raise ijson.JSONError(TOO_DEEP)
        return objects

    def _object(self, events: Events, depth: int) -> Record:
        """The rest of a record."""
        names: set[str] = set()
        record = read_object(events, depth, names)
        if names:
            self.twice[self.records_given + 1] = names
        return record

    def _given(self, record: Record | None) -> Record | None:
        self.records_given += 1
        self.bytes_of_records = self.bytes_read
        return record


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
    return Rows(columns, lines[good], lines[~good], unit="record")
