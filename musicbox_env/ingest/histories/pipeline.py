"""Listening histories made into a part like that of any log: read, cut into sessions, evaluated.

Two passes. The first reads all files as streams; its plays go to unnamed temporary files, in
buckets by user, since a listener's plays may be spread over all files. The second takes a bucket
at a time: duplicates fall out, track lengths are estimated, plays become sessions with levels.
Memory holds the tracks' names and one bucket.

What is private ends here. User names become hashes under a salt that is drawn from the content
of the very files and kept nowhere: the same files give the same dataset, and without them no
guess of a name can be tried. Times become the order within a session, and hours of the day; a
session's id is made of hashes of its listener, of its run of plays and of its window of the run,
and sessions are stored in the order of their ids, so that nothing shows when, or in which order,
they were.
"""

from __future__ import annotations

import hashlib
import tempfile
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.ingest.assembly import SessionAssembler
from musicbox_env.ingest.histories.columns import MappedColumns
from musicbox_env.ingest.histories.formats import HistoryConfig, HistoryFormat
from musicbox_env.ingest.histories.levels import MEANING, Evidence, LengthEstimate, listen_levels
from musicbox_env.ingest.histories.listens import LISTEN, ListenReader, Tracks, full_title
from musicbox_env.ingest.histories.proposal import explain_dates
from musicbox_env.ingest.histories.sessionize import (
    FATES,
    FOUND,
    NO_SESSION,
    OVERLAPS,
    Clock,
    cut_sessions,
    find_runs,
    overlaps_if_flipped,
    session_name,
    without_duplicates,
)
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.parts import Part, PartWriter
from musicbox_env.ingest.plays import play_table
from musicbox_env.ingest.readers import OnBytes, describe_source, ignore_bytes, open_tables
from musicbox_env.ingest.registry import history_format, refusal_of
from musicbox_env.ingest.spelling.times import date_evidence, decide_order, without_zone
from musicbox_env.ingest.spelling.values import stripped
from musicbox_env.ingest.tables import DamagedFileError, PassedOver, Table
from musicbox_env.schema import UNKNOWN

NUM_BUCKETS = 16
DAMAGED: Final = "damaged JSON: the records from here on are lost"
DUPLICATES: Final = "duplicate plays"
PLAYS: Final = "plays of music"
FLIPPED: Final = "overlaps if times were the other end"
SUSPICIOUS_OVERLAP: Final = 0.05
SECONDS_BELOW: Final = 10_000
"""Where all times heard, or all lengths, are below this many milliseconds, they may be seconds."""


def make_history_part(
    files: Sequence[Path],
    folder: Path,
    config: HistoryConfig,
    *,
    max_rows: int | None = None,
    on_bytes: OnBytes = ignore_bytes,
) -> Part:
    """Make one part of all histories, or take the one that is finished.

    Args:
        files: Files with histories.
        folder: Where parts go.
        config: How they are read.
        max_rows: Read no more rows than that, over all files.
        on_bytes: Receives how many bytes were read.

    Raises:
        DamagedFileError: A file other than JSON, or an archive, is broken.
        OSError: Reading or writing failed.
    """
    sources = [{**describe_source(file), "file": file.name} for file in files]
    mapping = config.mapping()
    settings = {
        "sources": sources,
        "config": asdict(config),
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
        found = [{**source, "rows": n} for source, n in zip(sources, rows, strict=True)]
        return {"sources": found, **writer.about(), "history": history}

    return Part.make(folder, settings, write)


def content_salt(files: Sequence[Path]) -> bytes:
    """A key that only the files themselves give, not their published sha256 sums."""
    salt = hashlib.blake2b(digest_size=32, person=b"musicbox salt")
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(
                content, lambda: hashlib.blake2b(digest_size=32, person=b"musicbox salt")
            )
        salt.update(digest.digest())
    return salt.digest()


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
        self._damaged: list[str] = []
        self._told: list[str] = []
        self._longest: dict[str, int] = dict.fromkeys(("played", "duration"), UNKNOWN)

    def read(self, on_bytes: OnBytes) -> list[int]:
        """Read all tables of all files into the buckets; how many rows each file has."""
        found = []
        for file in self._files:
            before = self._writer.rows
            for table in open_tables(file, on_bytes=on_bytes, scratch=self._folder):
                if self._writer.full:
                    break
                # The folder that a file lies in may name its owner.
                name = file.name + table.name.removeprefix(str(file))
                if isinstance(table, PassedOver):
                    self._writer.passed_over.append(PassedOver(name, table.why))
                elif (fmt := history_format(table, self._config)) is None:
                    refusal = refusal_of(table, self._config)
                    why = "is a log beside histories" if refusal is None else refusal.why
                    self._writer.passed_over.append(PassedOver(name, why))
                else:
                    owner = _owner(file, table) if self._config.archives_apart else ""
                    fmt = self._settled(file, table, name, fmt)
                    self._read_table(table, name, fmt, owner)
            found.append(self._writer.rows - before)
        return found

    def _read_table(self, table: Table, name: str, fmt: HistoryFormat, owner: str) -> None:
        writer, before = self._writer, self._writer.rows
        self._formats.setdefault(fmt.name, fmt.mapping.described())
        self._owners.add(self._reader.user_code(owner))
        columns = MappedColumns(fmt)
        try:
            for rows in writer.read(table, name, fmt.columns):
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
            writer.passed_over.append(PassedOver(name, "is damaged"))
            self._damaged.append(
                f"{name} is damaged behind record {line:,}; about {lost:,} more are lost with it"
            )
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
            for other in open_tables(file, scratch=self._folder):
                if not isinstance(other, PassedOver) and other.name == table.name:
                    for rows in other.rows((column,)):
                        evidence += date_evidence(stripped(rows.columns[column]))
        order = decide_order(evidence)
        if order is None:
            raise ValueError(explain_dates(name, column, texts, fmt.mapping))
        return replace(fmt, spelling=replace(fmt.spelling, format=order))

    def _keep(self, listens: npt.NDArray) -> None:
        bucket = listens["user"] % NUM_BUCKETS
        for number in np.unique(bucket).tolist():
            self._buckets[number].write(listens[bucket == number].tobytes())

    def write(self) -> dict[str, Any]:
        """Cut the plays into sessions; what became of the rows."""
        tracks = self._reader.tracks
        users = _users_by_code(self._reader.users.codes, self._owners)
        same_track = _tracks_by_code(tracks)
        lengths = LengthEstimate(len(tracks.codes))
        for listens in self._listens(users, same_track, self._counts):
            lengths.add(listens)
            for what, column in (("played", "ms"), ("duration", "length")):
                self._longest[what] = max(self._longest[what], int(listens[column].max()))
        estimate = lengths.finish()
        hashes = np.array(list(self._reader.users.codes), dtype=object)
        mentioned = np.zeros(len(tracks.codes), np.bool_)
        listeners = 0
        for listens in self._listens(users, same_track, Counter()):
            plays, rows = self._sessions(listens, estimate, hashes)
            mentioned[listens["track"][rows]] = True
            listeners += len(np.unique(listens["user"][rows]))
            assembler = SessionAssembler(self._folder, self._writer.rejects)
            self._writer.write(assembler.add(plays), "listening history")
        _write_names(self._folder / "names.parquet", tracks, mentioned)
        return self._account(listeners)

    def _listens(
        self,
        users: npt.NDArray[np.int32],
        same_track: npt.NDArray[np.int32],
        counts: Counter[str],
    ) -> Iterator[npt.NDArray]:
        """All plays without duplicates, those of a listener together."""
        buckets = [[bucket] for bucket in self._buckets]
        if (users != np.arange(len(users))).any():
            # Only where there are two users, who turned out to be one.
            buckets = [self._buckets]
        for together in buckets:
            listens = np.concatenate([_read_all(bucket) for bucket in together])
            listens["user"] = users[listens["user"]]
            listens["track"] = same_track[listens["track"]]
            listens, again = without_duplicates(listens)
            counts[DUPLICATES] += again
            counts[PLAYS] += len(listens)
            if len(listens):
                yield listens

    def _sessions(
        self,
        listens: npt.NDArray,
        estimate: tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]],
        hashes: npt.NDArray[np.object_],
    ) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Plays of whole sessions with levels, in the order of ids, and the rows they are from."""
        length, length_from = (values[listens["track"]] for values in estimate)
        known = np.where(listens["length"] > 0, listens["length"], length)
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
        ids = _session_ids(session, run, listens["user"][order], hashes, self._salt)
        by_id = np.lexsort((position, ids[session] if len(ids) else session))
        order, session = order[by_id], session[by_id]
        columns: dict[str, Any] = {
            "session_id": pa.array(ids[session], pa.string()),
            "track_id": pa.array(names[listens["track"][order]], pa.string()),
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
        return play_table(columns, np.ones(len(order), np.bool_)), order

    def _hours(self, start: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Hours of the day where the listener lives; unknown without a timezone."""
        if self._config.timezone is None:
            return np.full(len(start), UNKNOWN, np.int8)
        utc = pd.DatetimeIndex(start.astype("datetime64[ms]"), tz="UTC")
        local = utc.tz_convert(zoneinfo.ZoneInfo(self._config.timezone))
        return local.hour.to_numpy().astype(np.int8)

    def _account(self, listeners: int) -> dict[str, Any]:
        """What became of the rows, for ``dataset.json`` and for people."""
        counts = self._counts
        total = max(int(self._evidence.sum()), 1)
        return {
            "listeners": listeners,
            "read_as": self._formats,
            "rows": {
                "read": self._writer.rows,
                "rejected": self._writer.rejects.counts.total(),
                **{f"left out: {what}": n for what, n in self._reader.left_out.items()},
                **{name: counts[name] for name in (DUPLICATES, *FATES)},
            },
            "overlaps": {name: counts[name] for name in OVERLAPS},
            "sessions": {
                **asdict(self._config.session),
                "found": {name: counts[name] for name in FOUND},
            },
            "levels": {
                "shares": asdict(self._config.level),
                "evidence": {
                    MEANING[e]: {"plays": count, "share": round(count / total, 4)}
                    for e in Evidence
                    if (count := int(self._evidence[e]))
                },
            },
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        """What a user should know of how the histories were read."""
        counts, notes = self._counts, [*self._damaged, *self._told]
        if counts[OVERLAPS[1]] > SUSPICIOUS_OVERLAP * counts[PLAYS] > 3 * counts[FLIPPED]:
            notes.append(
                "Many plays overlap the way the times are read, and few would if a time were the "
                "other end of its play: try time_is=start or time_is=end in the mapping."
            )
        notes += [
            f"No play's {what}_ms is above {self._longest[what]:,}: if its column holds seconds, "
            f"map it as {what}_s."
            for what in self._longest
            if UNKNOWN < self._longest[what] < SECONDS_BELOW
        ]
        if self._config.timezone is None and self._counts[PLAYS]:
            notes.append(
                "Hours of the day are unknown: times are in UTC, and no --timezone was named."
            )
        return notes


def _owner(file: Path, table: Table) -> str:
    """Whose plays a table without users holds: the archive's, also where it was unpacked."""
    unpacked = isinstance(table, JsonTable) and table.name == str(file)
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


def _tracks_by_code(tracks: Tracks) -> npt.NDArray[np.int32]:
    """Which track each one is: those known by name alone are the one with that name and an id."""
    same = np.arange(len(tracks.codes), dtype=np.int32)
    with_id = {
        full_title(tracks.titles[code], tracks.artists[code]).casefold(): code
        for code in range(len(tracks.codes) - 1, -1, -1)
        if code not in tracks.by_name and tracks.titles[code]
    }
    for code in tracks.by_name:
        name = full_title(tracks.titles[code], tracks.artists[code]).casefold()
        same[code] = with_id.get(name, code)
    return same


def _session_ids(
    session: npt.NDArray[np.int64],
    run: npt.NDArray[np.int64],
    user: npt.NDArray[np.int32],
    hashes: npt.NDArray[np.object_],
    salt: bytes,
) -> npt.NDArray[np.object_]:
    """An id for each session, of hashes of its listener and of numbers; no time in it."""

    def digest(text: str, size: int) -> str:
        return hashlib.blake2b(text.encode(), key=salt, digest_size=size).hexdigest()

    first = np.flatnonzero(np.diff(session, prepend=-1))
    ids = []
    for number, row in enumerate(first.tolist()):
        listener = hashes[user[row]]
        of_run = digest(f"{listener}/run/{run[row]}", 8)
        ids.append(session_name(listener, of_run, digest(f"{listener}/session/{number}", 4)))
    return np.array(ids, dtype=object)


def _write_names(file: Path, tracks: Tracks, mentioned: npt.NDArray[np.bool_]) -> None:
    """Titles and artists of the tracks that sessions hold."""
    ids = list(tracks.codes)
    rows = [code for code in np.flatnonzero(mentioned).tolist() if tracks.titles[code]]
    if rows:
        named = {"track_id": ids, "title": tracks.titles, "artist": tracks.artists}
        columns = {name: pa.array([of[r] for r in rows], pa.string()) for name, of in named.items()}
        pq.write_table(pa.table(columns), file)
