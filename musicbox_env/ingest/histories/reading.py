"""All tables of histories read into records by user, and what must be known of each table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.histories.buckets import Buckets, buckets_for
from musicbox_env.ingest.histories.columns import MappedColumns
from musicbox_env.ingest.histories.formats import HistoryConfig, HistoryFormat
from musicbox_env.ingest.histories.listens import ListenReader
from musicbox_env.ingest.histories.proposal import explain_dates
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.parts import PartWriter
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.registry import (
    history_format,
    refusal_of,
    scrobbles_refused,
    track_labels,
)
from musicbox_env.ingest.sources.files import OnBytes
from musicbox_env.ingest.spelling.dialect import NotUtf8Error
from musicbox_env.ingest.spelling.precision import SECOND, precision_note
from musicbox_env.ingest.spelling.times import date_evidence, decide_order, without_zone
from musicbox_env.ingest.spelling.values import stripped
from musicbox_env.ingest.tables import DamagedFileError, PassedOver, Table
from musicbox_env.threads import Behind

LOST: Final = ": the records from here on are lost"


class HistoryTables(ExitStack):
    """The tables of all histories of one ingest.

    Attributes:
        plays: All plays.
        opinions: The same of likes and dislikes.
        num_opinions: How many of these there are.
        reader: Has codes of users and tracks, and what was left out.
        read_as: Which column says what, by the name of the format.
        num_tables: Tables of plays and opinions.
        undecided: Numbers of tables that do not say which end of a play a time is.
        relative: Numbers of tables whose times count from a moment that is not known.
    """

    def __init__(
        self,
        files: Sequence[Path],
        folder: Path,
        config: HistoryConfig,
        writer: PartWriter,
        salt: bytes,
    ) -> None:
        """Begin with nothing read.

        Args:
            files: Files with histories.
            folder: For unnamed temporary files.
            config: How they are read.
            writer: Counts rows; receives those that are rejected, and what is passed over.
            salt: Key of the users' hashes.
        """
        super().__init__()
        self._files, self._folder, self._config = files, folder, config
        self._writer = writer
        number = buckets_for(sum(file.stat().st_size for file in files))
        self.plays = self.enter_context(Buckets(folder, number))
        self.opinions = self.enter_context(Buckets(folder, number))
        self._behind = self.enter_context(Behind())
        self.num_opinions = self.num_tables = 0
        self.reader = ListenReader(salt, writer.rejects, writer.notes)
        self.read_as: dict[str, dict[str, str]] = {}
        self.undecided: set[int] = set()
        self.relative: set[int] = set()
        self._owners: set[int] = set()
        self._labelled: list[tuple[Path, str]] = []
        self._exact: list[tuple[str, int]] = []
        self._damaged: list[str] = []
        self._told: list[str] = []

    def read(self, on_bytes: OnBytes) -> list[int]:
        """Read all tables of all files; how many rows each file has."""
        found = []
        for file in self._files:
            before = self._writer.rows
            with open_tables(file, on_bytes=on_bytes, scratch=self._folder) as tables:
                for table in tables:
                    if self._writer.full:
                        break
                    self._read_if_history(table, file)
            found.append(self._writer.rows - before)
        self._behind.wait()
        for file, name in self._labelled:
            self._read_labels(file, name)
        return found

    def listeners(self) -> npt.NDArray[np.int32]:
        """Who each user really is, by code: see `ListenReader.listeners`."""
        return self.reader.listeners(self._owners)

    def notes(self) -> list[str]:
        """What a user should know of how the tables were read."""
        coarse = [
            precision_note(name, grid.step)
            for (name, stated), grid in zip(self._exact, self.reader.grids, strict=True)
            if grid.step > max(stated, SECOND)
        ]
        return [*self._damaged, *self._told, *coarse]

    def _read_labels(self, file: Path, name: str) -> None:
        """Read what tells of tracks, when all of these are known."""
        with open_tables(file, scratch=self._folder) as tables:
            for table in tables:
                if isinstance(table, PassedOver) or (labels := track_labels(table)) is None:
                    continue
                unread = sum(
                    self.reader.tracks.label(labels, rows)
                    for rows in table.rows((labels.track, labels.column))
                )
                but = f", but for {unread:,} rows that hold no numbers" if unread else ""
                self._told.append(f"{labels.name.capitalize()}s of tracks are from {name}{but}.")

    def _read_if_history(self, table: Table | PassedOver, file: Path) -> None:
        # The folder that a file lies in may name its owner.
        name = shown(file.name) + table.name.removeprefix(shown(file))
        if isinstance(table, PassedOver):
            self._pass_over(name, table.why)
        elif track_labels(table) is not None:
            self._labelled.append((file, name))
        elif (fmt := history_format(table, self._config)) is None:
            refusal = refusal_of(table, self._config)
            self._pass_over(name, "is a log beside histories" if refusal is None else refusal.why)
        elif (why := scrobbles_refused(fmt, self._config)) is not None:
            self._pass_over(name, why)
        else:
            owner = _owner(file, table) if self._config.archives_apart else ""
            fmt = self._settled(file, table, name, fmt)
            self._read_table(table, name, fmt, owner)

    def _pass_over(self, name: str, why: str) -> None:
        self._writer.passed_over.append(PassedOver(name, why))

    def _read_table(self, table: Table, name: str, fmt: HistoryFormat, owner: str) -> None:
        writer, before = self._writer, self._writer.rows
        if (described := fmt.described()) not in self.read_as.values():
            title = f"{fmt.name}, {name}" if fmt.name in self.read_as else fmt.name
            self.read_as[title] = described
        self.undecided |= set() if fmt.end_told else {self.num_tables}
        self.relative |= {self.num_tables} if fmt.relative_times else set()
        self.num_tables += 1
        self._owners.add(self.reader.user_code(owner))
        self.reader.begin_table()
        self._exact.append((name, fmt.resolution_ms))
        columns = MappedColumns(fmt)
        try:
            with closing(fmt.table or table) as readable:
                for rows in writer.read(readable, name, fmt.columns):
                    self._behind.do(self._keep, self.reader.read(rows, columns, owner))
        except DamagedFileError as error:
            if not isinstance(table, JsonTable):
                raise
            foreign = isinstance(error.__cause__, NotUtf8Error)
            line = writer.rows - before
            # The record at the damage is one row; how many lie behind can only be estimated.
            writer.rows += 1
            lost = table.records_lost() - 1
            writer.lost += lost
            what = f"{error.why}{LOST}" if foreign else f"damaged JSON{LOST}"
            writer.rejects.add(np.array([line + 1]), what)
            self._pass_over(name, "is damaged")
            behind = (
                f"about {lost:,} more are lost with it"
                if lost
                else "nothing behind it is read, and how many that were is unknown"
            )
            why = f" ({error.why})" if foreign else ""
            self._damaged.append(f"{name} is damaged behind record {line:,}{why}; {behind}")
        writer.write_rejects(name)
        self._told += columns.notes(name)

    def _settled(self, file: Path, table: Table, name: str, fmt: HistoryFormat) -> HistoryFormat:
        """The format with all that must be known of how the times of a table are written."""
        mapped = self._config.mapping()
        if mapped is not None and fmt.flags_trusted:
            missing = [c for c in mapped.columns if c not in fmt.mapping.columns]
            self._told += [f"{name} has no column {c}: it is unknown there." for c in missing]
        fmt = self._ordered(file, table, name, fmt)
        unzoned = fmt.flags_trusted and self._config.timezone and not fmt.mapping.time_zone
        # Only a known order tells that 29/03/2024 10:15 is a time at all.
        if unzoned and without_zone(_sampled_times(table, fmt), fmt.spelling.format):
            self._told.append(
                f"{name}: times that name no zone were taken as UTC; if they are local, say "
                f'--map "{fmt.mapping.option()},time_zone=local".'
            )
        return fmt

    def _ordered(self, file: Path, table: Table, name: str, fmt: HistoryFormat) -> HistoryFormat:
        """The format with the order in which dates of a table are written."""
        if fmt.spelling.format:
            return fmt
        column = fmt.mapping.date or fmt.mapping.time
        texts = table.sample().get(column, [])
        evidence = date_evidence(np.array(texts, object))
        if decide_order(evidence) is None:
            with open_tables(file, scratch=self._folder) as tables:
                for other in tables:
                    if not isinstance(other, PassedOver) and other.name == table.name:
                        for rows in other.rows((column,)):
                            evidence += date_evidence(stripped(rows.columns[column]))
        order = decide_order(evidence)
        if order is None:
            raise InputError(explain_dates(name, column, texts, fmt.mapping))
        return replace(fmt, spelling=replace(fmt.spelling, format=order))

    def _keep(self, listens: Listens) -> None:
        opinion = listens["opinion"] >= 0
        if opinion.any():
            self.num_opinions += int(opinion.sum())
            self.opinions.add(listens.compress(opinion))
            listens = listens.compress(~opinion)
        self.plays.add(listens)


def _sampled_times(table: Table, fmt: HistoryFormat) -> list[str]:
    """The first times of a table, with their dates where these stand in a column of their own."""
    sample, mapping = table.sample(), fmt.mapping
    times = sample.get(mapping.time, [])
    if mapping.date is None:
        return times
    return [f"{day} {time}" for day, time in zip(sample.get(mapping.date, []), times, strict=False)]


def _owner(file: Path, table: Table) -> str:
    """Whose plays a table without users holds: the archive's, also where it was unpacked."""
    unpacked = isinstance(table, JsonTable) and table.name == shown(file)
    return str((file.parent if unpacked else file).resolve())
