"""Deezer: the workbook that listeners get, and the public set DSG17.

The workbook's sheet ``10_listeningHistory`` has names, seconds heard and a date; its addresses and
device models are not read. In DSG17 ``is_listened`` says whether more than 30 seconds were
heard, ``listen_type`` 1 that a recommender chose the song; age and gender are not read.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.services.converting import numbers, present, with_columns
from musicbox_env.ingest.tables import ConvertedTable, Rows, Table
from musicbox_env.schema import SOURCES

WORKBOOK: Final = {"Song Title", "Artist", "Listening Time", "Date"}
DSG17: Final = ("ts_listen", "media_id", "media_duration", "listen_type", "user_id", "is_listened")


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is none of Deezer's."""
    if {*WORKBOOK} <= {*table.columns}:
        platform = present(table, ["Platform Name"])
        mapping = PlayMapping(
            time="Date",
            time_is="start",
            title="Song Title",
            artist="Artist",
            played_s="Listening Time",
            platform=platform[0] if platform else None,
        )
        return HistoryFormat(name="Deezer listening history", mapping=mapping)
    if {*DSG17} <= {*table.columns}:
        mapping = PlayMapping(
            time="ts_listen",
            time_is="start",
            user="user_id",
            track="media_id",
            duration_s="media_duration",
            skipped="skipped",
            source="source",
        )
        plays = ConvertedTable(table, DSG17, _with_flags)
        made = {"skipped": "is_listened", "source": "listen_type"}
        return HistoryFormat(
            name="Deezer DSG17", mapping=mapping, table=plays, made=made, flags_trusted=True
        )
    return None


def _with_flags(rows: Rows) -> Rows:
    organic, recommended = SOURCES
    heard, kind = numbers(rows, "is_listened"), numbers(rows, "listen_type")
    skipped = [{0: "true", 1: "false"}.get(flag, "") for flag in heard.tolist()]
    chosen = [{0: organic, 1: recommended}.get(flag, "") for flag in kind.tolist()]
    return with_columns(
        rows,
        skipped=np.array(skipped, dtype=object),
        source=np.array(chosen, dtype=object),
    )
