"""Yambda, the data set of Yandex Music: plays and opinions as Parquet, in three layouts.

``flat`` has a row an event and a file a kind of event, ``multi_event`` all kinds in one file, and
``sequential`` a row a listener, with lists for columns. Times count in seconds from a moment that
is not told; whether a play began or ended then is not told either. Files of opinions have the same
columns, so that their name alone says which is which.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.histories.tracks import TrackLabels
from musicbox_env.ingest.sources.parquet import ParquetTable
from musicbox_env.ingest.spelling.times import ELAPSED, TimeSpelling
from musicbox_env.ingest.tables import Rows, Table
from musicbox_env.schema import OPINIONS

EVENT: Final = {"uid", "timestamp", "item_id"}
HEARD: Final = "played_ratio_pct"
OPTIONAL: Final = {"duration_s": "track_length_seconds", "source": "is_organic"}
LABELS: Final = {"artist_id": "artist", "album_id": "album"}
"""Columns of the files that say whose songs there are, and the catalog's names of them."""
KIND: Final = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(OPINIONS, key=len, reverse=True))})s?\b")


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is none of Yambda's events."""
    present = set(table.columns)
    if not present >= EVENT:
        return None
    kind = KIND.search(table.name.rpartition("/")[2].lower())
    opinion = kind[1] if kind and present == EVENT | {"is_organic"} else None
    if HEARD not in present and opinion is None:
        return None
    mapped = {key: name for key, name in OPTIONAL.items() if name in present}
    # A mapping names what says how far a play was heard; an opinion is no play.
    heard = {"played_share": HEARD} if opinion is None else {"completed": "is_organic"}
    return HistoryFormat(
        name="Yambda listens" if opinion is None else f"Yambda {opinion}s",
        mapping=PlayMapping(time="timestamp", user="uid", track="item_id", **heard, **mapped),
        table=ListedTable(table) if _holds_lists(table) else None,
        flags_trusted=True,
        relative_times=True,
        spelling=TimeSpelling(format=ELAPSED),
        end_told=opinion is not None,
        event="event_type" if opinion is None and "event_type" in present else None,
        opinion=opinion,
    )


def recognize_labels(table: Table) -> TrackLabels | None:
    """What a file says of the tracks beside plays; None if it is none of Yambda's."""
    found = [column for column in LABELS if {column, "item_id"} == set(table.columns)]
    return TrackLabels("item_id", found[0], LABELS[found[0]]) if found else None


def _holds_lists(table: Table) -> bool:
    of = table.types if isinstance(table, ParquetTable) else {}
    return any(pa.types.is_nested(of[name]) for name in EVENT if name in of)


class ListedTable:
    """A table of a row a listener, whose lists hold a value an event: it gives a row an event.

    Lists of unequal lengths make no events: as many rows as the longest has are malformed.
    """

    def __init__(self, table: Table) -> None:
        """Read a table with `ParquetTable.nested_rows`."""
        assert isinstance(table, ParquetTable)
        self._table = table
        self.name, self.columns, self.where = table.name, table.columns, table.where

    def sample(self) -> dict[str, list[str]]:
        """Nothing of the lists."""
        return self._table.sample()

    def close(self) -> None:
        """Stop reading."""
        self._table.close()

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns, a row an event."""
        line = 1
        for rows in self._table.nested_rows(wanted, as_codes=as_codes):
            yield (flat := _flat(rows, line))
            line += flat.num_read


def _flat(rows: Rows, first: int) -> Rows:
    """A row an event, each a record counted from ``first``."""
    lists = [name for name, column in rows.columns.items() if pa.types.is_nested(column.type)]
    sizes = np.stack(
        [
            pc.call_function("list_value_length", [rows.columns[name]]).fill_null(0).to_numpy()
            for name in lists
        ]
    )
    size, even = sizes.max(axis=0), (sizes == sizes[0]).all(axis=0)
    lines, good = first + np.arange(size.sum()), np.repeat(even, size)
    kept = {name: column.filter(pa.array(even)) for name, column in rows.columns.items()}
    single = pa.array(np.repeat(np.arange(even.sum()), size[even]))
    return Rows(
        {n: of.flatten() if n in lists else of.take(single) for n, of in kept.items()},
        lines[good],
        lines[~good],
        unit="record",
    )
