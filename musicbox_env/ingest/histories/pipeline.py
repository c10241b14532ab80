"""Listening histories made into a part like that of any log: read, cut into sessions, evaluated.

The first pass reads all files as streams; its plays go to unnamed temporary files, in buckets by
user, since a listener's plays may be spread over all files. Then a bucket is taken at a time, and
some listeners of it: duplicates and copies fall out, and times are settled. Where a track's length
is not stated, a pass of its own estimates it. The last makes sessions with levels. Memory holds
the tracks' names and one bucket.

What is private ends here. User names become hashes under a salt that is drawn from the content
of the very files and kept nowhere: the same files give the same dataset, and without them no
guess of a name can be tried. Times become the order within a session, and hours of the day; a
session's id is made of hashes of its listener, of its run of plays and of its window of the run,
and sessions are stored in the order of their ids, so that nothing shows when, or in which order,
they were.
"""

from __future__ import annotations

import zoneinfo
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from musicbox_env.data.splits import SplitConfig
from musicbox_env.errors import shown
from musicbox_env.ingest.histories.account import (
    COPIES,
    DUPLICATES,
    FLIPPED,
    NO_CLOCK,
    NO_TIME,
    OPINIONS_AGAIN,
    OPINIONS_COUNTED,
    OPINIONS_READ,
    PIECES,
    PLAYS,
    STARTS,
    UNCLEAR,
    history_notes,
    level_account,
    rows_account,
)
from musicbox_env.ingest.histories.blocks import (
    HISTORY_SCHEMA,
    STORED_AS_READ,
    CutSessions,
    OpinionFile,
    session_ids,
)
from musicbox_env.ingest.histories.buckets import Buckets, pieces
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.histories.inferred import GapLengths, bound_by_next, with_inferred_times
from musicbox_env.ingest.histories.levels import Evidence, LengthEstimate, listen_levels
from musicbox_env.ingest.histories.reading import HistoryTables
from musicbox_env.ingest.histories.sessionize import (
    cut_sessions,
    find_runs,
    found_names,
    plays_of,
)
from musicbox_env.ingest.histories.timing.clock import Clock, with_true_starts
from musicbox_env.ingest.histories.timing.copies import (
    without_copies,
    without_duplicates,
    without_opinions_again,
)
from musicbox_env.ingest.histories.timing.pieces import (
    PiecesCount,
    may_be_pieces,
    with_pieces_joined,
)
from musicbox_env.ingest.histories.timing.players import (
    OVERLAPS,
    TimesRead,
    overlaps_if_flipped,
    times_are_starts,
)
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.parts import OPINIONS_FILE, SPLIT_CODES, Part, PartWriter
from musicbox_env.ingest.sources.files import OnBytes, content_salt, describe_source, ignore_bytes
from musicbox_env.ingest.spelling.precision import MINUTE
from musicbox_env.ingest.time_split import Spans, require_one_clock
from musicbox_env.schema import UNKNOWN
from musicbox_env.threads import Behind, ahead

Estimate = tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]
"""Length of each track in milliseconds, and the `Evidence` behind it, both ``(tracks,)``."""


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
    with ThreadPoolExecutor(1) as beside:  # hashing leaves other threads alone
        salted = beside.submit(content_salt, files)
        sources = [{**describe_source(file), "file": shown(file.name)} for file in files]
    mapping, salt = config.mapping(), salted.result()
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
            PartWriter(unfinished, max_rows, HISTORY_SCHEMA) as writer,
            _HistoryMaker(files, unfinished, config, writer, salt) as maker,
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
        self,
        files: Sequence[Path],
        folder: Path,
        config: HistoryConfig,
        writer: PartWriter,
        salt: bytes,
    ) -> None:
        super().__init__()
        self._folder, self._config, self._writer, self._salt = folder, config, writer, salt
        self._tables = self.enter_context(HistoryTables(files, folder, config, writer, salt))
        self._times = TimesRead(are_starts=True)
        self._counts: Counter[str] = Counter()
        self._pieces = PiecesCount()
        self._evidence = np.zeros(len(Evidence), np.int64)
        self._told: list[str] = []
        self._spans = Spans()
        self._longest: dict[str, int] = dict.fromkeys(("played", "duration"), UNKNOWN)

    def read(self, on_bytes: OnBytes) -> list[int]:
        """Read all tables of all files; how many rows each file has."""
        found = self._tables.read(on_bytes)
        self._counts[OPINIONS_READ] = self._tables.num_opinions
        return found

    def write(self) -> dict[str, Any]:
        """Cut the plays into sessions; what became of the rows."""
        tracks, tables = self._tables.reader.tracks, self._tables
        users = tables.listeners()
        names = tracks.ids()
        self._same = users, tracks.recordings(), tracks.songs()
        self._named = bool(tracks.titles)
        # Only where there are two users, who turned out to be one, are all read at once.
        every = range(len(tables.plays))
        merged = bool((users != np.arange(len(users))).any())
        groups = [[*every]] if merged else [[number] for number in every]
        if tables.undecided:
            self._times = times_are_starts(self._undecided_plays(groups))
            self._told.append(self._times.note)
        estimate, buckets, numbers = None, tables.plays, groups
        settle = tables.reader.lengths_missing or tables.reader.pauses_untold
        if settle:
            settled = self.enter_context(Buckets(self._folder, len(groups)))
            estimate = self._settle(map(buckets.read, groups), settled, len(names))
            buckets, numbers = settled, [[number] for number in range(len(groups))]
        if tables.reader.pauses_untold:
            self._count_pieces(map(buckets.read, numbers), estimate)
        mentioned = np.zeros(len(names), np.bool_)
        listeners = 0
        # Sessions are written while those of the next bucket are cut.
        with OpinionFile(self._folder / OPINIONS_FILE) as told, Behind() as behind:
            for number, of_group in enumerate(ahead(map(buckets.read, numbers))):
                some = pieces(of_group) if settle else self._listens(of_group)
                cut = [self._cut(listens, estimate) for listens in some]
                if not cut:
                    behind.do(self._opinions, groups[number])
                else:
                    sessions = CutSessions.together(cut)
                    mentioned[sessions.columns["song"]] = True
                    listeners += len(np.unique(sessions.user))
                    behind.do(self._write_sessions, number, sessions, groups[number], names, told)
        merged_ids = tracks.write_names(self._folder / "names.parquet", mentioned)
        return self._account(listeners, merged_ids)

    def _settle(self, read: Iterator[Listens], settled: Buckets, number: int) -> Estimate | None:
        """Lengths of all tracks, where some play states none; plays go to ``settled``."""
        missing = self._tables.reader.lengths_missing
        lengths, gaps = LengthEstimate(number), GapLengths(number)
        for place, group in enumerate(ahead(read)):
            for listens in self._listens(group):
                settled.write(place, listens)
                if missing:
                    lengths.add(listens.compress(~may_be_pieces(listens)))
                    gaps.add(listens)
        return gaps.improve(lengths.finish()) if missing else None

    def _count_pieces(self, read: Iterator[Listens], estimate: Estimate | None) -> None:
        """Count plays that may be pieces, before any of them is joined."""
        for group in ahead(read):
            for listens in pieces(group):
                _, _, known, sure = lengths_of(listens, estimate)
                self._pieces.add(listens, known, sure)

    def write_split_codes(self, split: SplitConfig) -> None:
        """Write the split code of each session that was written, none of its times."""
        relative = {number in self._tables.relative for number in range(self._tables.num_tables)}
        require_one_clock(split, relative)
        np.save(self._folder / SPLIT_CODES, self._spans.codes(split, self._config.timezone))

    def _write_sessions(
        self,
        number: int,
        sessions: CutSessions,
        group: list[int],
        names: pa.StringArray,
        told: OpinionFile,
    ) -> None:
        """Write the sessions of a group of buckets, and the opinions given in them."""
        listeners = np.array(list(self._tables.reader.users.codes), dtype=np.bytes_)
        ids = session_ids(sessions, listeners, self._salt, number)
        if len(ids):
            order = np.argsort(ids, kind="stable")
            self._writer.write(sessions.batch(ids, order, names), "listening history")
            self._spans.add(
                np.arange(len(ids)),
                sessions.run[order],
                sessions.earliest[order],
                sessions.latest[order],
            )
        opinions = self._opinions(group)
        if not len(opinions):
            return
        slack = int(1_000 * self._config.session.max_gap)
        session = sessions.holding(opinions["user"], opinions["time"], slack)
        self._counts[OPINIONS_COUNTED] += int((session >= 0).sum())
        opinions, session = opinions.compress(session >= 0), session[session >= 0]
        told.write(ids[session], names.take(pa.array(opinions["song"])), opinions["opinion"])

    def _opinions(self, group: list[int]) -> Listens:
        """Opinions of a group of buckets, each once: a folder may tell them in several files."""
        users, _, songs = self._same
        opinions = self._tables.opinions.read(group)
        opinions["user"], opinions["song"] = users[opinions["user"]], songs[opinions["track"]]
        opinions, again = without_opinions_again(opinions)
        self._counts[OPINIONS_READ] -= again
        self._counts[OPINIONS_AGAIN] += again
        return opinions

    def _undecided_plays(self, groups: list[list[int]]) -> Iterator[Listens]:
        """Plays, by user and time, of which it is not known which end of them a time is."""
        for group in groups:
            for listens in pieces(self._tables.plays.read(group)):
                some = listens.compress(np.isin(listens["table"], [*self._tables.undecided]))
                some["song"] = some["track"]
                # A play that is listed twice overlaps itself, whatever its time is.
                yield without_duplicates(some)[0]

    def _listens(self, read: Listens) -> Iterator[Listens]:
        """Plays as they were read, each once, at its true time; those of a listener together."""
        users, recordings, songs = self._same
        steps = np.array([grid.step for grid in self._tables.reader.grids], np.int32)
        undecided = [*self._tables.undecided]
        read["user"] = users[read["user"]]
        for listens in pieces(read):
            # Of what has no names each track is a song.
            listens["song"] = songs[listens["track"]] if self._named else listens["track"]
            if self._named:
                listens["track"] = recordings[listens["track"]]
            table, resolution = listens.kept("table"), listens.kept("resolution")
            listens["resolution"] = np.maximum(resolution, steps[table])
            if undecided:
                decided, told = self._times.are_starts, listens.kept("time_is_start")
                listens["time_is_start"] = np.where(np.isin(table, undecided), decided, told)
            coarse = listens["resolution"] > MINUTE
            if coarse.any():
                listens = listens.compress(~coarse)
            listens, again = without_duplicates(listens)
            listens = with_true_starts(listens)
            listens, copies = without_copies(listens)
            starts = int(listens["time_is_start"].sum())
            found = {DUPLICATES: again, COPIES: copies, PLAYS: len(listens), STARTS: starts}
            self._counts.update({NO_TIME: int(coarse.sum()), **found})
            if len(listens):
                for what, column in (("played", "ms"), ("duration", "length")):
                    self._longest[what] = max(self._longest[what], int(listens[column].max()))
                yield bound_by_next(listens)

    def _cut(self, listens: Listens, estimate: Estimate | None) -> CutSessions:
        """Whole sessions of some listeners, with levels; without estimate all lengths are told."""
        length, length_from, known, sure = lengths_of(listens, estimate)
        rows, listens, joined, unclear = with_pieces_joined(
            listens, known, sure, usual=self._pieces.usual
        )
        length, length_from, known = length[rows], length_from[rows], known[rows]
        listens = with_inferred_times(listens, known, sure[rows])
        self._counts[PIECES] += joined
        self._counts[UNCLEAR] += unclear
        clock = Clock.of(listens, known)
        order, run = find_runs(listens, clock, self._config.session, self._counts)
        first, size = cut_sessions(run, self._config.session, self._counts)
        if len(self._tables.undecided) < self._tables.num_tables:
            self._counts[FLIPPED] += overlaps_if_flipped(listens, known)
        rows = order[plays_of(first, size)]
        levels, evidence = listen_levels(listens, length, length_from, self._config.level)
        self._evidence += np.bincount(evidence[rows], minlength=len(Evidence))
        stored = {name: listens.kept(name) for name in STORED_AS_READ}
        columns: dict[str, npt.NDArray] = {
            "song": listens["song"][rows],
            "line": listens["order"][rows],
            "level": levels[rows],
            "hour": self._hours(listens, clock, rows),
            **{name: of[rows] if of.ndim else of for name, of in stored.items()},
        }
        begin, end, earliest, latest = clock.spans(rows, size)
        user, run = listens["user"][order[first]], run[first]
        return CutSessions(size, user, run, begin, end, earliest, latest, columns)

    def _hours(
        self, listens: Listens, clock: Clock, rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int8]:
        """Hours of the day where the listener lives; unknown without a timezone."""
        if self._config.timezone is None:
            return np.array(UNKNOWN, np.int8)
        utc = pd.DatetimeIndex(clock.start[rows].astype("datetime64[ms]"), tz="UTC")
        local = utc.tz_convert(zoneinfo.ZoneInfo(self._config.timezone))
        hours = local.hour.to_numpy().astype(np.int8)
        return np.where(np.isin(listens["table"][rows], [*self._tables.relative]), UNKNOWN, hours)

    def _account(self, listeners: int, merged: int) -> dict[str, Any]:
        """What became of the rows, for ``dataset.json`` and for people."""
        left_out = self._tables.reader.left_out
        return {
            "listeners": listeners,
            "merged_ids": merged,
            "read_as": self._tables.read_as,
            "rows": {
                "read": self._writer.rows,
                "rejected": self._writer.rejects.counts.total(),
                **{f"left out: {what}": n for what, n in left_out.items()},
                **rows_account(self._counts),
            },
            "overlaps": {name: self._counts[name] for name in OVERLAPS},
            "sessions": {
                **asdict(self._config.session),
                "found": {n: self._counts[n] for n in found_names(self._config.session)},
            },
            "levels": {"shares": asdict(self._config.level), **level_account(self._evidence)},
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        """What a user should know of how the histories were read."""
        no_clock = [NO_CLOCK] if self._tables.relative else []
        hours_known = self._config.timezone is not None or bool(no_clock)
        counted = history_notes(self._counts, self._longest, hours_known=hours_known)
        return [*self._tables.notes(), *self._told, *no_clock, *counted]


def lengths_of(
    listens: Listens, estimate: Estimate | None
) -> tuple[
    npt.NDArray[np.int32], npt.NDArray[np.int8], npt.NDArray[np.int32], npt.NDArray[np.bool_]
]:
    """Lengths of the tracks of plays in milliseconds, each ``(plays,)``.

    Args:
        listens: The plays.
        estimate: Of all tracks; None where each play states the length.

    Returns:
        Those of the tracks, the `Evidence` behind them, those that plays state where they do, and
        whether these are more than a guess.
    """
    if estimate is None:
        length = listens.dense("length")
        return length, np.zeros(len(length), np.int8), length, np.ones(len(length), np.bool_)
    length, length_from = (values[listens["track"]] for values in estimate)
    stated = listens["length"] > 0
    known = np.where(stated, listens["length"], length)
    return length, length_from, known, stated | (length_from != Evidence.TYPICAL_LENGTH)
