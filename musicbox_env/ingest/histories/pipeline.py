"""Listening histories made into a part like that of any log: read, cut into sessions, evaluated.

Three passes. The first reads all files as streams; its plays go to unnamed temporary files, in
buckets by user, since a listener's plays may be spread over all files. The second takes a bucket
at a time: duplicates and copies fall out, times are settled, track lengths estimated. The third
makes sessions with levels. Memory holds the tracks' names and one bucket.

What is private ends here. User names become hashes under a salt that is drawn from the content
of the very files and kept nowhere: the same files give the same dataset, and without them no
guess of a name can be tried. Times become the order within a session, and hours of the day; a
session's id is made of hashes of its listener, of its run of plays and of its window of the run,
and sessions are stored in the order of their ids, so that nothing shows when, or in which order,
they were.
"""

from __future__ import annotations

import tempfile
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from musicbox_env.data.splits import SplitConfig
from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.assembly import SessionAssembler
from musicbox_env.ingest.histories.account import (
    COPIES,
    DUPLICATES,
    FLIPPED,
    NO_TIME,
    PIECES,
    PLAYS,
    UNCLEAR,
    history_notes,
    level_account,
)
from musicbox_env.ingest.histories.clock import (
    Clock,
    may_be_pieces,
    with_pieces_joined,
    with_true_starts,
    without_copies,
    without_duplicates,
)
from musicbox_env.ingest.histories.columns import MappedColumns
from musicbox_env.ingest.histories.formats import HistoryConfig, HistoryFormat
from musicbox_env.ingest.histories.inferred import GapLengths, bound_by_next, with_inferred_times
from musicbox_env.ingest.histories.levels import Evidence, LengthEstimate, listen_levels
from musicbox_env.ingest.histories.listens import LISTEN, ListenReader
from musicbox_env.ingest.histories.players import OVERLAPS, overlaps_if_flipped
from musicbox_env.ingest.histories.proposal import explain_dates
from musicbox_env.ingest.histories.sessionize import (
    FATES,
    FOUND,
    NO_SESSION,
    cut_sessions,
    find_runs,
    session_ids,
)
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.parts import SPLIT_CODES, Part, PartWriter
from musicbox_env.ingest.plays import play_table
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.registry import history_format, refusal_of, scrobbles_refused
from musicbox_env.ingest.sources.files import OnBytes, content_salt, describe_source, ignore_bytes
from musicbox_env.ingest.spelling.precision import MINUTE, SECOND, precision_note
from musicbox_env.ingest.spelling.times import date_evidence, decide_order, without_zone
from musicbox_env.ingest.spelling.values import stripped
from musicbox_env.ingest.tables import DamagedFileError, PassedOver, Table
from musicbox_env.ingest.time_split import Spans, require_one_clock
from musicbox_env.schema import UNKNOWN

NUM_BUCKETS = 16
DAMAGED: Final = "damaged JSON: the records from here on are lost"


def make_history_part(
    files: Sequence[Path],
    folder: Path,
    config: HistoryConfig,
    split: SplitConfig | None = None,
    *,
    max_rows: int | None = None,
    on_bytes: OnBytes = ignore_bytes,
) -> Part:
    """Make one part of all histories, or take the one that is finished.

    Args:
        files: Files with histories.
        folder: Where parts go.
        config: How they are read.
        split: How sessions are divided; by time, their codes are in the part.
        max_rows: Read no more rows than that, over all files.
        on_bytes: Receives how many bytes were read.

    Raises:
        DamagedFileError: A file other than JSON, or an archive, is broken.
        InputError: Sessions cannot be divided by time.
        OSError: Reading or writing failed.
    """
    sources = [{**describe_source(file), "file": shown(file.name)} for file in files]
    mapping = config.mapping()
    split = split if split is not None and split.by_time else None
    settings = {
        "sources": sources,
        "config": asdict(config),
        "split": None if split is None else asdict(split),
        "mapping": None if mapping is None else mapping.option(),
        "max_rows": max_rows,
    }

    def write(unfinished: Path) -> dict[str, Any]:
        with (
            PartWriter(unfinished, max_rows) as writer,
            _HistoryMaker(files, unfinished, config, writer) as maker,
        ):
            rows = maker.read(on_bytes)
            history = maker.write()
            if split is not None:
                maker.write_split_codes(split)
        found = [{**source, "rows": n} for source, n in zip(sources, rows, strict=True)]
        return {"sources": found, **writer.about(), "history": history}

    return Part.make(folder, settings, write)


class _HistoryMaker(ExitStack):
    """Histories on their way into a part."""

    def __init__(
        self, files: Sequence[Path], folder: Path, config: HistoryConfig, writer: PartWriter
    ) -> None:
        super().__init__()
        self._files, self._folder, self._config = files, folder, config
        self._writer = writer
        self._salt = content_salt(files)
        self._reader = ListenReader(self._salt, self._writer.rejects, self._writer.notes)
        self._owners: set[int] = set()
        self._buckets = [self.enter_context(_unnamed_file(folder)) for _ in range(NUM_BUCKETS)]
        self._counts: Counter[str] = Counter()
        self._evidence = np.zeros(len(Evidence), np.int64)
        self._formats: dict[str, dict[str, str]] = {}
        self._tables: list[tuple[str, int]] = []
        self._damaged: list[str] = []
        self._told: list[str] = []
        self._spans = Spans()
        self._relative: set[bool] = set()
        self._longest: dict[str, int] = dict.fromkeys(("played", "duration"), UNKNOWN)

    def read(self, on_bytes: OnBytes) -> list[int]:
        """Read all tables of all files into the buckets; how many rows each file has."""
        found = []
        for file in self._files:
            before = self._writer.rows
            with open_tables(file, on_bytes=on_bytes, scratch=self._folder) as tables:
                for table in tables:
                    if self._writer.full:
                        break
                    self._read_if_history(table, file)
            found.append(self._writer.rows - before)
        return found

    def _read_if_history(self, table: Table | PassedOver, file: Path) -> None:
        # The folder that a file lies in may name its owner.
        name = shown(file.name) + table.name.removeprefix(shown(file))
        if isinstance(table, PassedOver):
            self._pass_over(name, table.why)
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
        self._formats.setdefault(fmt.name, fmt.mapping.described())
        self._relative.add(fmt.relative_times)
        self._owners.add(self._reader.user_code(owner))
        self._reader.begin_table()
        self._tables.append((name, fmt.resolution_ms))
        columns = MappedColumns(fmt)
        try:
            with closing(fmt.table or table) as readable:
                for rows in writer.read(readable, name, fmt.columns):
                    self._keep(self._reader.read(rows, columns, owner))
        except DamagedFileError:
            if not isinstance(table, JsonTable):
                raise
            line = writer.rows - before
            # The record at the damage is one row; how many lie behind can only be estimated.
            writer.rows += 1
            lost = table.records_lost() - 1
            writer.lost += lost
            writer.rejects.add(np.array([line + 1]), DAMAGED)
            self._pass_over(name, "is damaged")
            behind = (
                f"about {lost:,} more are lost with it"
                if lost
                else "it ends there, and how many followed is unknown"
            )
            self._damaged.append(f"{name} is damaged behind record {line:,}; {behind}")
        writer.write_rejects(name)
        self._told += columns.notes(name)

    def _settled(self, file: Path, table: Table, name: str, fmt: HistoryFormat) -> HistoryFormat:
        """The format with all that must be known of how the times of a table are written."""
        mapped = self._config.mapping()
        if mapped is not None and fmt.flags_trusted:
            missing = [c for c in mapped.columns if c not in fmt.mapping.columns]
            self._told += [f"{name} has no column {c}: it is unknown there." for c in missing]
        if fmt.flags_trusted and self._config.timezone and not fmt.mapping.time_zone:
            times = table.sample().get(fmt.mapping.time, [])
            if without_zone(times):
                self._told.append(
                    f"{name}: times that name no zone were taken as UTC; if they are local, add "
                    "time_zone=local to --map."
                )
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

    def _keep(self, listens: npt.NDArray) -> None:
        bucket = listens["user"] % NUM_BUCKETS
        for number in np.unique(bucket).tolist():
            self._buckets[number].write(listens[bucket == number].tobytes())

    def write(self) -> dict[str, Any]:
        """Cut the plays into sessions; what became of the rows."""
        tracks = self._reader.tracks
        users = _users_by_code(self._reader.users.codes, self._owners)
        same = tracks.recordings(), tracks.songs()
        lengths, gaps = LengthEstimate(len(tracks.codes)), GapLengths(len(tracks.codes))
        plays_of: list[IO[bytes]] = []
        for listens in self._listens(users, same):
            plays_of.append(self.enter_context(_unnamed_file(self._folder)))
            plays_of[-1].write(listens.tobytes())
            lengths.add(listens[~may_be_pieces(listens)])
            gaps.add(listens)
            for what, column in (("played", "ms"), ("duration", "length")):
                self._longest[what] = max(self._longest[what], int(listens[column].max()))
        estimate = gaps.improve(lengths.finish())
        hashes = np.array(list(self._reader.users.codes), dtype=object)
        mentioned = np.zeros(len(tracks.codes), np.bool_)
        listeners = 0
        for bucket in plays_of:
            plays, kept = self._sessions(_read_all(bucket), estimate, hashes)
            mentioned[kept["song"]] = True
            listeners += len(np.unique(kept["user"]))
            assembler = SessionAssembler(self._folder, self._writer.rejects)
            self._writer.write(assembler.add(plays), "listening history")
        merged = tracks.write_names(self._folder / "names.parquet", mentioned)
        return self._account(listeners, merged)

    def write_split_codes(self, split: SplitConfig) -> None:
        """Write the split code of each session that was written, none of its times."""
        require_one_clock(split, self._relative)
        np.save(self._folder / SPLIT_CODES, self._spans.codes(split, self._config.timezone))

    def _listens(
        self,
        users: npt.NDArray[np.int32],
        same: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]],
    ) -> Iterator[npt.NDArray]:
        """All plays, each once, at its true time; those of a listener together.

        Args:
            users: Who each user is.
            same: Recording and song of each track.
        """
        recordings, songs = same
        steps = np.array([grid.step for grid in self._reader.grids], np.int32)
        buckets = [[bucket] for bucket in self._buckets]
        if (users != np.arange(len(users))).any():
            # Only where there are two users, who turned out to be one.
            buckets = [self._buckets]
        for together in buckets:
            listens = np.concatenate([_read_all(bucket) for bucket in together])
            listens["user"] = users[listens["user"]]
            listens["song"] = songs[listens["track"]]
            listens["track"] = recordings[listens["track"]]
            listens["resolution"] = np.maximum(listens["resolution"], steps[listens["table"]])
            coarse = listens["resolution"] > MINUTE
            if coarse.any():
                listens = listens[~coarse]
            listens, again = without_duplicates(listens)
            listens = with_true_starts(listens)
            listens, copies = without_copies(listens)
            for what, count in (
                (NO_TIME, int(coarse.sum())),
                (DUPLICATES, again),
                (COPIES, copies),
                (PLAYS, len(listens)),
            ):
                self._counts[what] += count
            if len(listens):
                yield bound_by_next(listens)

    def _sessions(
        self,
        listens: npt.NDArray,
        estimate: tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]],
        hashes: npt.NDArray[np.object_],
    ) -> tuple[pa.Table, npt.NDArray]:
        """Plays of whole sessions with levels, in the order of ids, and their records."""
        length, length_from = (values[listens["track"]] for values in estimate)
        known = np.where(listens["length"] > 0, listens["length"], length)
        sure = (listens["length"] > 0) | (length_from != Evidence.TYPICAL_LENGTH)
        rows, listens, pieces, unclear = with_pieces_joined(listens, known, sure)
        length, length_from, known = length[rows], length_from[rows], known[rows]
        listens = with_inferred_times(listens, known, sure[rows])
        self._counts[PIECES] += pieces
        self._counts[UNCLEAR] += unclear
        clock = Clock.of(listens, known)
        config = self._config.session
        order, run = find_runs(listens, clock, config, self._counts)
        session, position, size = cut_sessions(run, config, self._counts)
        kept = session != NO_SESSION
        order, run, session = order[kept], run[kept], session[kept]
        position, size = position[kept], size[kept]
        self._counts[FLIPPED] += overlaps_if_flipped(listens, known)
        levels, evidence = listen_levels(
            listens[order], length[order], length_from[order], self._config.level
        )
        self._evidence += np.bincount(evidence, minlength=len(Evidence))
        names = np.array(list(self._reader.tracks.codes), dtype=object)
        ids = session_ids(session, run, listens["user"][order], hashes, self._salt)
        by_id = np.lexsort((position, ids[session] if len(ids) else session))
        order, session, run = order[by_id], session[by_id], run[by_id]
        self._spans.add(session, run, *clock.take(order).bounds())
        columns: dict[str, Any] = {
            "session_id": pa.array(ids[session], pa.string()),
            "track_id": pa.array(names[listens["song"][order]], pa.string()),
            "line": listens["order"][order],
            "session_length": size[by_id],
            "level": levels[by_id],
            "position": position[by_id],
            "hour": self._hours(clock.start[order]),
            **{
                name: listens[name][order]
                for name in ("shuffle", "context_type", "source", "reason_start", "reason_end")
            },
        }
        return play_table(columns, np.ones(len(order), np.bool_)), listens[order]

    def _hours(self, start: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Hours of the day where the listener lives; unknown without a timezone."""
        if self._config.timezone is None:
            return np.full(len(start), UNKNOWN, np.int8)
        utc = pd.DatetimeIndex(start.astype("datetime64[ms]"), tz="UTC")
        local = utc.tz_convert(zoneinfo.ZoneInfo(self._config.timezone))
        return local.hour.to_numpy().astype(np.int8)

    def _account(self, listeners: int, merged: int) -> dict[str, Any]:
        """What became of the rows, for ``dataset.json`` and for people."""
        counts = self._counts
        return {
            "listeners": listeners,
            "merged_ids": merged,
            "read_as": self._formats,
            "rows": {
                "read": self._writer.rows,
                "rejected": self._writer.rejects.counts.total(),
                **{f"left out: {what}": n for what, n in self._reader.left_out.items()},
                **{name: counts[name] for name in (DUPLICATES, COPIES, PIECES, *FATES)},
                **({NO_TIME: counts[NO_TIME]} if counts[NO_TIME] else {}),
            },
            "overlaps": {name: counts[name] for name in OVERLAPS},
            "sessions": {
                **asdict(self._config.session),
                "found": {name: counts[name] for name in FOUND},
            },
            "levels": {"shares": asdict(self._config.level), **level_account(self._evidence)},
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        """What a user should know of how the histories were read."""
        coarse = [
            precision_note(name, grid.step)
            for (name, stated), grid in zip(self._tables, self._reader.grids, strict=True)
            if grid.step > max(stated, SECOND)
        ]
        hours_known = self._config.timezone is not None
        counted = history_notes(self._counts, self._longest, hours_known=hours_known)
        return [*self._damaged, *self._told, *coarse, *counted]


def _owner(file: Path, table: Table) -> str:
    """Whose plays a table without users holds: the archive's, also where it was unpacked."""
    unpacked = isinstance(table, JsonTable) and table.name == shown(file)
    return str((file.parent if unpacked else file).resolve())


def _unnamed_file(folder: Path) -> IO[bytes]:
    """A file without a name, so that a killed run leaves no exact times behind."""
    return cast(IO[bytes], tempfile.TemporaryFile(dir=folder))


def _read_all(bucket: IO[bytes]) -> npt.NDArray:
    bucket.seek(0)
    return np.frombuffer(bytearray(bucket.read()), LISTEN)


def _users_by_code(codes: dict[str, int], owners: set[int]) -> npt.NDArray[np.int32]:
    """Who each user really is: the one archive's owner without a name is the one with a name.

    Spotify's older archives name the user in every play, the newer ones nowhere.
    """
    same = np.arange(len(codes), dtype=np.int32)
    named = [code for code in codes.values() if code not in owners]
    if len(named) == 1 and len(owners) == 1:
        same[list(owners)] = named[0]
    return same
