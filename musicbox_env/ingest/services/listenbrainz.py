"""ListenBrainz: a listener's export and the dumps of everybody's listens.

An export is a zip with ``listens/YYYY/M.jsonl``, a dump a tar with ``listens/YYYY/M.listens``; each
line is a listen: when it began, names, and often the track's length. How far it was heard is
not told.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.services.converting import numbers, present, with_columns
from musicbox_env.ingest.tables import ConvertedTable, Rows, Table

TITLE: Final = "track_metadata.track_name"
ARTIST: Final = "track_metadata.artist_name"
LENGTH_MS: Final = "track_metadata.additional_info.duration_ms"
LENGTH_S: Final = "track_metadata.additional_info.duration"
TIMES: Final = ("listened_at", "timestamp")
USERS: Final = ("user_id", "user_name")


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if ListenBrainz did not write it."""
    time = present(table, TIMES)
    if not isinstance(table, JsonTable) or not time or not {TITLE, ARTIST} <= {*table.columns}:
        return None
    user = present(table, USERS)[:1]
    columns = [time[0], TITLE, ARTIST, LENGTH_MS, LENGTH_S, *user]
    return HistoryFormat(
        name="ListenBrainz listens",
        mapping=PlayMapping(
            time=time[0],
            time_is="start",
            user=user[0] if user else None,
            title=TITLE,
            artist=ARTIST,
            duration_ms="length",
        ),
        table=ConvertedTable(table, columns, _with_lengths),
        made={"length": f"{LENGTH_MS} or {LENGTH_S.rpartition('.')[2]}"},
        scrobbles=True,
    )


def _with_lengths(rows: Rows) -> Rows:
    """Milliseconds, from whichever of both fields has them."""
    exact, whole = numbers(rows, LENGTH_MS), numbers(rows, LENGTH_S)
    length = np.where(exact > 0, exact, 1000 * whole)
    return with_columns(rows, length=np.where(length > 0, length, np.nan))
