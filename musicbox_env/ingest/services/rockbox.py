"""``.scrobbler.log`` of Rockbox and other portable players.

Lines that begin with # come first, then a line a play: artist, album, title, number, length, L
or S, time, and in version 1.1 a MusicBrainz id. S is a skip: less than half was heard, how much
less is not known. Times are those of the player's clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.services.converting import plain_lines, texts, with_columns
from musicbox_env.ingest.sources.csv_tables import CsvTable
from musicbox_env.ingest.tables import ConvertedTable, Rows, Table

MARK: Final = b"#AUDIOSCROBBLER/"
FIELDS: Final = ("artist", "album", "title", "number", "length", "rating", "time", "mbid")
SKIPPED: Final = {"S": "true", "L": "false"}


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is no log of a player."""
    if not isinstance(table, CsvTable) or not table.stream.head.startswith(MARK):
        return None
    lines = plain_lines(table, FIELDS, comment=b"#")
    if lines is None and (lines := plain_lines(table, FIELDS[:-1], comment=b"#")) is None:
        return None
    columns = ("artist", "title", "length", "rating", "time")
    return HistoryFormat(
        name="scrobbler log of a player",
        mapping=PlayMapping(
            time="time",
            time_is="start",
            title="title",
            artist="artist",
            duration_s="length",
            skipped="skipped",
        ),
        table=ConvertedTable(lines, columns, _with_flags),
        made={"skipped": "rating"},
        flags_trusted=True,
    )


def _with_flags(rows: Rows) -> Rows:
    flags = [SKIPPED.get(text, "") for text in texts(rows, "rating")]
    return with_columns(rows, skipped=np.array(flags, dtype=object))
