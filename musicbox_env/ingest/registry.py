"""What a source file is, by its content: the one registry of readers.

A table is a log in the schema of the Music Streaming Sessions Dataset (`mssd`), a listening history
that one of `SERVICES` recognizes, or a table of plays whose columns the user maps. A new service is
a module beside `histories.spotify`, entered in `SERVICES`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from musicbox_env.ingest.histories import spotify
from musicbox_env.ingest.histories.formats import HistoryConfig, HistoryFormat
from musicbox_env.ingest.histories.mapping import AUTO, looks_like_plays, propose_mapping
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.mssd import log_refusal
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.tables import DamagedFileError, PassedOver, Table

SERVICES: Final[tuple[Callable[[Collection[str]], HistoryFormat | None], ...]] = (
    spotify.recognize,
)
"""Each gives its format for the columns of a table that the service wrote, else None."""


@dataclass(frozen=True)
class SourceKinds:
    """Source files by what they hold.

    Attributes:
        logs: Logs in the MSSD schema.
        histories: Listening histories.
        foreign: All else, with the tables that were looked at.
        unmapped: Columns of tables of plays among the foreign files.
        damage: Why those of the foreign files that are damaged cannot be read.
    """

    logs: list[Path] = field(default_factory=list)
    histories: list[Path] = field(default_factory=list)
    foreign: dict[Path, list[PassedOver]] = field(default_factory=dict)
    unmapped: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    damage: dict[Path, DamagedFileError] = field(default_factory=dict)

    def refusals(self) -> list[PassedOver]:
        """All tables of foreign files."""
        return [refusal for refusals in self.foreign.values() for refusal in refusals]


def history_format(table: Table, config: HistoryConfig) -> HistoryFormat | None:
    """How to read a table as a history; None if it is none.

    What the user says goes before what is recognized, and that before a proposed mapping. What is
    left of a damaged history counts as one.
    """
    columns, mapping = table.columns, config.mapping()
    if mapping is not None and mapping.fits(columns):
        return HistoryFormat(name="table of plays", mapping=mapping, flags_trusted=True)
    for recognize in SERVICES:
        if (found := recognize(columns)) is not None:
            return found
    if config.map == AUTO and (proposed := propose_mapping(columns)) is not None:
        return HistoryFormat(name="table of plays", mapping=proposed, flags_trusted=True)
    if isinstance(table, JsonTable) and table.damage is not None:
        return spotify.recognize_ruins(table.stream.head)
    return None


def sort_sources(files: Sequence[Path], config: HistoryConfig) -> SourceKinds:
    """Sort files into logs and histories, reading only the beginnings of their tables."""
    found = SourceKinds()
    for file in files:
        refusals: list[PassedOver] = []
        with closing(open_tables(file)) as tables:
            try:
                for table in tables:
                    if isinstance(table, PassedOver):
                        refusals.append(table)
                    elif history_format(table, config) is not None:
                        found.histories.append(file)
                        break
                    elif (refusal := log_refusal(table)) is None:
                        found.logs.append(file)
                        break
                    else:
                        refusals.append(refusal)
                        if looks_like_plays(table.columns):
                            found.unmapped[file] = table.columns
                else:
                    holds_nothing = [PassedOver(str(file), "holds no table")]
                    found.foreign[file] = refusals or holds_nothing
            except DamagedFileError as error:
                found.foreign[file] = [PassedOver(str(file), "is damaged")]
                found.damage[file] = error
    return found
