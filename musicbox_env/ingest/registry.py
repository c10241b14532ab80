"""What a source file is, by its content: the one registry of readers.

A table is a log in the schema of the Music Streaming Sessions Dataset (`mssd`), a listening history
that one of `SERVICES` recognizes, or a table of plays whose columns the user maps. A new service is
a module beside `services.spotify`, entered in `SERVICES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.histories.formats import HistoryConfig, HistoryFormat
from musicbox_env.ingest.histories.mapping import AUTO, PlayMapping
from musicbox_env.ingest.histories.proposal import (
    explain_half_told,
    explain_proposal,
    looks_like_plays,
    propose_mapping,
)
from musicbox_env.ingest.histories.tracks import TrackLabels
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.mssd import log_refusal
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.services import (
    apple,
    deezer,
    lastfm,
    listenbrainz,
    rockbox,
    scrobbles,
    spotify,
    thirty_music,
    yambda,
    youtube,
)
from musicbox_env.ingest.sources.embedding_files import embedding_columns
from musicbox_env.ingest.sources.files import named_files
from musicbox_env.ingest.sources.parquet import ParquetTable
from musicbox_env.ingest.spelling.times import ELAPSED
from musicbox_env.ingest.tables import PassedOver, Table, found_columns
from musicbox_env.ingest.track_features import holds_track_features

SERVICES: Final[tuple[Callable[[Table], HistoryFormat | None], ...]] = tuple(
    service.recognize
    for service in (
        spotify,
        yambda,
        apple,
        deezer,
        youtube,
        listenbrainz,
        rockbox,
        thirty_music,
        lastfm,
        scrobbles,
    )
)
"""Each gives its format for a table that the service wrote, else None."""


LABELS: Final[tuple[Callable[[Table], TrackLabels | None], ...]] = (yambda.recognize_labels,)
"""Each says what a table tells of tracks beside plays, else None."""


@dataclass(frozen=True)
class SourceKinds:
    """Source files by what they hold.

    Attributes:
        logs: Logs in the MSSD schema.
        histories: Listening histories, then what tells of their tracks.
        foreign: All else, with the tables that were looked at.
        unmapped: Columns, and their first values, of tables of plays among the foreign files.
        untold: Histories that do not say how far plays were heard, where that may not be inferred.
        misfits: Tables of the foreign files that the mapping seems to mean and does not fit.
        damage: Why those of the foreign files that are damaged cannot be read.
    """

    logs: list[Path] = field(default_factory=list)
    histories: list[Path] = field(default_factory=list)
    foreign: dict[Path, list[PassedOver]] = field(default_factory=dict)
    unmapped: dict[Path, dict[str, list[str]]] = field(default_factory=dict)
    untold: list[PassedOver] = field(default_factory=list)
    misfits: list[PassedOver] = field(default_factory=list)
    damage: dict[Path, InputError] = field(default_factory=dict)

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
        # JSON leaves out what is null: its first records do not show every column.
        mapped = mapping if isinstance(table, JsonTable) else mapping.within(columns)
        return _table_of_plays(mapped, config)
    for recognize in SERVICES:
        if (found := recognize(table)) is not None:
            return found
    if config.map == AUTO and (proposed := propose_mapping(columns, table.sample())) is not None:
        return _table_of_plays(proposed, config)
    if isinstance(table, JsonTable) and table.damage is not None:
        return spotify.recognize_ruins(table.stream.head)
    return None


def track_labels(table: Table) -> TrackLabels | None:
    """What a table tells of the tracks that other tables hold plays of; None if nothing."""
    return next((found for told in LABELS if (found := told(table)) is not None), None)


def _table_of_plays(mapping: PlayMapping, config: HistoryConfig) -> HistoryFormat:
    return HistoryFormat(
        name="table of plays",
        mapping=mapping,
        flags_trusted=True,
        scrobbles=not mapping.evidence,
        relative_times=mapping.time_format == ELAPSED,
        spelling=config.spelling(mapping),
    )


def scrobbles_refused(fmt: HistoryFormat, config: HistoryConfig) -> str | None:
    """Why a history whose levels would be inferred is not read; None if it may be."""
    if not fmt.scrobbles or config.inferred_levels:
        return None
    return (
        f"is read as {fmt.name}, which tells that songs were played and not how far. With "
        "--inferred-levels each counts as heard until the listener's next play began, or to its "
        "end; such levels are marked as inferred"
    )


def refusal_of(table: Table, config: HistoryConfig) -> PassedOver | None:
    """Why a table that is no history is no log either; None if it is one."""
    if isinstance(table, ParquetTable) and embedding_columns(table) is not None:
        return PassedOver(table.name, "holds embeddings of tracks: name it with --embeddings")
    if isinstance(table, JsonTable) and table.damage is not None and not table.columns:
        return PassedOver(
            table.name, f"is JSON of which no record can be read ({table.damage.why})"
        )
    refusal, mapping = log_refusal(table), config.mapping()
    if refusal is not None and mapping is None and (lacking := spotify.lacking(table.columns)):
        return PassedOver(table.name, lacking)
    if refusal is not None and holds_track_features(table):
        return PassedOver(table.name, "holds features of tracks: name it with --tracks to use them")
    if refusal is None:
        return None
    if mapping is None:
        told = explain_half_told(table.columns, table.sample())
        found = f"{found_columns(table)} found{f' {table.where}' if table.where else ''}"
        return PassedOver(table.name, f"{told}; {found}") if told else refusal
    missing = ", ".join(name for name in mapping.columns if name not in table.columns)
    where = f"; records were looked for {table.where}" if table.where else ""
    return PassedOver(
        table.name,
        f"has no column {missing}, which --map names; found {found_columns(table)}{where}",
    )


def sort_sources(files: Sequence[Path], config: HistoryConfig) -> SourceKinds:
    """Sort files into logs and histories, reading only the beginnings of their tables."""
    found = SourceKinds()
    labels: list[Path] = []
    for file in files:
        refusals: list[PassedOver] = []
        try:
            with open_tables(file) as tables:
                for table in tables:
                    if isinstance(table, PassedOver):
                        refusals.append(table)
                    elif (fmt := history_format(table, config)) is not None:
                        found.histories.append(file)
                        if (why := scrobbles_refused(fmt, config)) is not None:
                            found.untold.append(PassedOver(table.name, why))
                        break
                    elif track_labels(table) is not None:
                        labels.append(file)
                        break
                    elif (refusal := refusal_of(table, config)) is None:
                        found.logs.append(file)
                        break
                    else:
                        refusals.append(refusal)
                        mapping = config.mapping()
                        if mapping is not None and mapping.nearly_fits(table.columns):
                            found.misfits.append(refusal)
                        elif mapping is None and looks_like_plays(table.columns):
                            found.unmapped[file] = table.sample()
                else:
                    holds_nothing = [PassedOver(shown(file), "holds no table")]
                    found.foreign[file] = refusals or holds_nothing
        except InputError as error:
            found.foreign[file] = [PassedOver(shown(file), "is damaged")]
            found.damage[file] = error
    if found.histories:
        found.histories.extend(labels)
    else:
        told = "tells whose songs there are, and no plays are beside it"
        found.foreign.update({file: [PassedOver(shown(file), told)] for file in labels})
    return found


def usable_sources(
    sources: Sequence[str], files: Sequence[Path], config: HistoryConfig
) -> SourceKinds:
    """Logs and histories among the files; foreign ones beside them are passed over.

    Args:
        sources: What the user named.
        files: The files that were found there.
        config: How histories are read.

    Raises:
        InputError: A file that was named, or all of a folder, is neither.
    """
    found = sort_sources(files, config)
    named = named_files(sources)
    if found.untold:
        raise InputError("\n".join(f"{of.name}: {of.why}." for of in found.untold))
    if found.misfits:
        others = bool(found.histories or found.logs)
        why = "To read the others without it would lose plays: mend" if others else "Mend"
        raise InputError(
            "\n".join(f"{refusal.name}: {refusal.why}." for refusal in found.misfits)
            + f"\n{why} --map, or leave it out."
        )
    if not found.histories and not found.logs and found.unmapped:
        raise InputError(
            "\n".join(explain_proposal(shown(file), of) for file, of in found.unmapped.items())
        )
    for file, refusals in found.foreign.items():
        if file in found.damage and (file in named or not found.histories):
            raise found.damage[file]
        if file in named:
            raise InputError(f"{refusals[0].name}: {refusals[0].why}.")
    if not found.histories and not found.logs:
        first = [f"{r[0].name}: {r[0].why}." for r in list(found.foreign.values())[:3]]
        empty = f"{', '.join(sources)} holds none. Name the download, or the folder that it is in."
        raise InputError(
            f"No listening log among the {len(files)} files found: {'; '.join(first) or empty}"
        )
    return found
