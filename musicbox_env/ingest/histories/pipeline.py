"""Listening histories made into a part like that of any log: read, cut into sessions, evaluated.

Two passes. The first reads all files as streams; its plays go to unnamed temporary files, in
buckets by user, since a listener's plays may be spread over all files. The second takes a bucket
at a time: duplicates fall out, track lengths are estimated, plays become sessions with levels.
Memory holds the tracks' names and one bucket.

What is private ends here. User names become hashes under a salt that is drawn from the content
of the very files and kept nowhere: the same files give the same dataset, and without them no
guess of a name can be tried. Times become the order within a session, and hours of the day; a
session's id is made of hashes of its listener, of its run of plays and of its window of the run,
and sessions are stored in the order of their ids, so that nothing tells when, or in which order,
they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.data.writing import write_json
from musicbox_env.ingest.assembly import SessionAssembler
from musicbox_env.ingest.histories.formats import HistoryFormat, history_format
from musicbox_env.ingest.histories.levels import (
    MEANING,
    Evidence,
    LengthEstimate,
    LevelConfig,
    listen_levels,
)
from musicbox_env.ingest.histories.listens import LISTEN, ListenReader, Tracks, full_title
from musicbox_env.ingest.histories.mapping import (
    AUTO,
    PlayMapping,
    looks_like_plays,
    propose_mapping,
    read_mapping,
)
from musicbox_env.ingest.histories.sessionize import (
    FATES,
    FOUND,
    NO_SESSION,
    OVERLAPS,
    Clock,
    SessionConfig,
    cut_sessions,
    find_runs,
    overlaps_if_flipped,
    session_name,
    without_duplicates,
)
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.mssd import PLAY_SCHEMA, Rejects
from musicbox_env.ingest.parts import PART_VERSION, OnBytes, Part, PartWriter, log_refusal
from musicbox_env.ingest.readers import PassedOver, describe_source, open_tables
from musicbox_env.ingest.tables import DamagedFileError, Table, found_columns
from musicbox_env.schema import PLAY_COLUMNS, UNKNOWN

NUM_BUCKETS = 16
DAMAGED: Final = "damaged JSON: about so many records behind this place are lost"
DUPLICATES: Final = "duplicate plays"
PLAYS: Final = "plays of music"
FLIPPED: Final = "overlaps if times were the other end"
SUSPICIOUS_OVERLAP: Final = 0.05
SECONDS_BELOW: Final = 10_000
"""Where all times heard, or all lengths, are below this many milliseconds, they may be seconds."""
HISTORY_KEYS: Final = (b'"ms_played"', b'"msPlayed"')
"""What even the ruins of a streaming history show."""


@dataclass(frozen=True)
class HistoryConfig:
    """How listening histories are read: Spotify's archives, and tables of plays.

    Attributes:
        map: Columns of a table of plays, as user=COLUMN,time=COLUMN,track=COLUMN,
            played_ms=COLUMN and so on, or a TOML file of the same keys; auto takes the mapping
            that is proposed. Spotify's own files need none.
        timezone: Where the listener lives, such as Europe/Berlin: hours of the day are told from
            the times, which are in UTC. Left out, hours are unknown. The zone is not stored.
        archives_apart: Each archive or table that names no user has a listener of its own; by
            default they are all one listener's.
        session: What a session is.
        level: Which share of a track's length makes which listen level.
    """

    map: str | None = None
    timezone: str | None = None
    archives_apart: bool = False
    session: SessionConfig = field(default_factory=SessionConfig)
    level: LevelConfig = field(default_factory=LevelConfig)

    def __post_init__(self) -> None:
        self.mapping()
        if self.timezone is not None:
            try:
                zoneinfo.ZoneInfo(self.timezone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
                raise ValueError(
                    f"No timezone {self.timezone!r}; a name such as Europe/Berlin or UTC expected."
                ) from error

    def mapping(self) -> PlayMapping | None:
        """The mapping that the user gave, if it is not the proposed one."""
        return None if self.map in (None, AUTO) else read_mapping(str(self.map))

    def format_of(self, columns: Sequence[str]) -> HistoryFormat | None:
        """How to read a table with these columns, None if it is no history."""
        found = history_format(columns, self.mapping())
        if found is None and self.map == AUTO and (proposed := propose_mapping(columns)):
            return history_format(columns, proposed)
        return found


@dataclass(frozen=True)
class Sorted:
    """Source files by what they hold.

    Attributes:
        logs: Logs in the MSSD schema.
        histories: Listening histories.
        foreign: All else, with what they hold instead.
        unmapped: Columns of tables of plays among the foreign files.
    """

    logs: list[Path] = field(default_factory=list)
    histories: list[Path] = field(default_factory=list)
    foreign: dict[Path, str] = field(default_factory=dict)
    unmapped: dict[Path, tuple[str, ...]] = field(default_factory=dict)


def sort_sources(files: Sequence[Path], config: HistoryConfig) -> Sorted:
    """Tell logs from histories, reading only the beginnings of their tables."""
    found = Sorted()
    for file in files:
        why = "holds no table"
        with closing(open_tables(file, on_bytes=_nobody)) as tables:
            try:
                for table in tables:
                    if isinstance(table, PassedOver):
                        why = table.why
                    elif _format(table, config) is not None:
                        found.histories.append(file)
                        break
                    elif log_refusal(table) is None:
                        found.logs.append(file)
                        break
                    else:
                        why = f"is no listening log or history: columns {found_columns(table)}"
                        if looks_like_plays(table.columns):
                            found.unmapped[file] = table.columns
                else:
                    found.foreign[file] = why
            except DamagedFileError as error:
                found.foreign[file] = str(error)
    return found


def _nobody(count: int) -> None:
    """Nobody is told of the bytes."""


def _format(table: Table, config: HistoryConfig) -> HistoryFormat | None:
    """How to read a table; what is left of a damaged history counts as one."""
    found = config.format_of(table.columns)
    if found is None and isinstance(table, JsonTable) and table.damage is not None:
        for key in HISTORY_KEYS:
            if key in table.stream.head:
                return history_format(("ts", "ms_played", "spotify_track_uri"), None)
    return found


def make_history_part(
    files: Sequence[Path],
    folder: Path,
    config: HistoryConfig,
    *,
    foreign: Sequence[str] = (),
    max_rows: int | None = None,
    on_bytes: OnBytes = _nobody,
) -> Part:
    """Make one part of all histories, or take the one that stands.

    Args:
        files: Files with histories.
        folder: Where parts go.
        config: How they are read.
        foreign: Names of files beside them that are none.
        max_rows: Read no more rows than that, over all files.
        on_bytes: Told how many bytes were read.

    Raises:
        DamagedFileError: A file other than JSON, or an archive, is broken.
        OSError: Reading or writing failed.
    """
    folder.mkdir(exist_ok=True)
    sources = [{**describe_source(file), "file": file.name} for file in files]
    settings = {
        "sources": sources,
        "config": asdict(config),
        "mapping": None if (mapping := config.mapping()) is None else mapping.option(),
        "foreign": list(foreign),
        "max_rows": max_rows,
        "v": PART_VERSION,
    }
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]
    finished, unfinished = folder / key, folder / f"{key}.tmp"
    if not finished.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        with ExitStack() as stack:
            maker = _HistoryMaker(files, unfinished, config, stack)
            maker.read(sources, max_rows, on_bytes)
            about = maker.write()
        about["passed_over"] = [*about["passed_over"], *([name, "is foreign"] for name in foreign)]
        write_json(unfinished / "part.json", {"sources": sources, **about})
        os.replace(unfinished, finished)
    return Part.open(finished)


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


class _HistoryMaker:
    """Histories on their way into a part."""

    def __init__(
        self, files: Sequence[Path], folder: Path, config: HistoryConfig, stack: ExitStack
    ) -> None:
        self._files, self._folder, self._config = files, folder, config
        self._salt = content_salt(files)
        self._reader = ListenReader(self._salt)
        self._owners: set[int] = set()
        self._writer = stack.enter_context(PartWriter(folder))
        self._buckets = [stack.enter_context(_unnamed_file(folder)) for _ in range(NUM_BUCKETS)]
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._evidence = np.zeros(len(Evidence), np.int64)
        self._formats: dict[str, dict[str, str]] = {}
        self._passed_over: list[tuple[str, str]] = []
        self._tables = self._rows = 0
        self._longest: dict[str, int] = dict.fromkeys(("played", "duration"), UNKNOWN)

    def read(
        self, sources: Sequence[dict[str, Any]], max_rows: int | None, on_bytes: OnBytes
    ) -> None:
        """Read all tables of all files into the buckets."""
        for file, source in zip(self._files, sources, strict=True):
            before = self._rows
            for table in open_tables(file, on_bytes=on_bytes, scratch=self._folder):
                if self._rows == max_rows:
                    break
                # The folder that a file lies in is nobody's business.
                name = file.name + table.name.removeprefix(str(file))
                if isinstance(table, PassedOver):
                    self._passed_over.append((name, table.why))
                elif (fmt := _format(table, self._config)) is None:
                    self._passed_over.append((name, "is no listening history"))
                else:
                    owner = _owner(file, table) if self._config.archives_apart else ""
                    self._read_table(table, name, fmt, owner, max_rows)
            source["rows"] = self._rows - before

    def _read_table(
        self, table: Table, name: str, fmt: HistoryFormat, owner: str, max_rows: int | None
    ) -> None:
        self._tables += 1
        self._formats.setdefault(fmt.name, fmt.mapping.described())
        rejects = Rejects()
        self._owners.add(self._reader.user_code(owner))
        line = 0
        try:
            for rows in table.rows(fmt.columns):
                if max_rows is not None:
                    rows = rows.first(max_rows - self._rows)
                self._rows += rows.num_read
                line += rows.num_read
                self._keep(self._reader.read(rows, fmt, rejects, owner))
                self._writer.reject(rejects.take(name))
                if self._rows == max_rows:
                    break
        except DamagedFileError:
            if not isinstance(table, JsonTable):
                raise
            lost = table.records_lost()
            self._rows += lost
            rejects.add(np.array([line + 1]), DAMAGED)
            rejects.counts[DAMAGED] = lost
            self._passed_over.append((name, f"is damaged behind record {line:,}"))
        self._writer.reject(rejects.take(name))
        self._rejected += rejects.counts

    def _keep(self, listens: npt.NDArray) -> None:
        bucket = listens["user"] % NUM_BUCKETS
        for number in np.unique(bucket).tolist():
            self._buckets[number].write(listens[bucket == number].tobytes())

    def write(self) -> dict[str, Any]:
        """Cut the plays into sessions; say what was found."""
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
            if (batch := SessionAssembler(self._folder).add(plays)) is not None:
                self._writer.write(batch, "listening history")
        _write_names(self._folder / "names.parquet", tracks, mentioned)
        return {
            "tables": self._tables,
            "rows": self._rows,
            "sessions": self._writer.sessions,
            "rejected": dict(self._rejected),
            "notes": {
                f"{column} stored as unknown": count
                for column, count in self._reader.unknown.items()
                if count
            },
            "passed_over": self._passed_over,
            "history": self._account(listeners),
        }

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
                for name in ("shuffle", "context_type", "reason_start", "reason_end")
            },
        }
        return _play_table(columns, len(order)), order

    def _hours(self, start: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Hours of the day where the listener lives; unknown if nobody said where."""
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
                "read": self._rows,
                "rejected": self._rejected.total(),
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
        notes = [f"{name} {what}" for name, what in self._passed_over if "damaged" in what]
        counts = self._counts
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
    """Which track each one is: those told by name alone are the one with that name and an id."""
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


def _play_table(columns: dict[str, Any], count: int) -> pa.Table:
    arrays = []
    for name, kind in zip(PLAY_SCHEMA.names, PLAY_SCHEMA.types, strict=True):
        values = columns.get(name)
        if values is None:
            values = np.full(count, UNKNOWN, PLAY_COLUMNS[name].dtype)
        if isinstance(values, np.ndarray):
            values = pa.array(values.astype(kind.to_pandas_dtype()), kind)
        arrays.append(values)
    return pa.Table.from_arrays(arrays, schema=PLAY_SCHEMA)


def _write_names(file: Path, tracks: Tracks, mentioned: npt.NDArray[np.bool_]) -> None:
    """Titles and artists of the tracks that sessions hold."""
    ids = list(tracks.codes)
    rows = [code for code in np.flatnonzero(mentioned).tolist() if tracks.titles[code]]
    if not rows:
        return
    table = {
        "track_id": pa.array([ids[code] for code in rows], pa.string()),
        "title": pa.array([tracks.titles[code] for code in rows], pa.string()),
        "artist": pa.array([tracks.artists[code] for code in rows], pa.string()),
    }
    pq.write_table(pa.table(table), file)
