"""Plays gathered into whole sessions, in one pass and in bounded memory.

Published logs hold a session's plays together and in order, and then every session leaves as
soon as its last play came. Where plays lie scattered, those of unfinished sessions are held; above
`MAX_HELD_PLAYS` they go to disk, in buckets by hash of the session, and are joined at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from musicbox_env.ingest.plays import PLAY_SCHEMA, Rejects
from musicbox_env.schema import MAX_SESSION_LENGTH

MAX_HELD_PLAYS = 2_000_000
NUM_BUCKETS = 64
DUPLICATE_PLAY: Final = "duplicate play (same session and position)"
OTHER_LENGTH: Final = "session_length differs from that of the session's first row"

CODED: Final = pa.dictionary(pa.int32(), pa.string())
BLOCK_SCHEMA: Final = pa.schema(
    [
        (name, CODED if name in ("session_id", "track_id") else kind)
        for name, kind in zip(PLAY_SCHEMA.names, PLAY_SCHEMA.types, strict=True)
    ]
)
"""Whole sessions, one after the other, by position; both ids coded in order of appearance.

A column of nulls alone is unknown, and may be left out in a part."""


class SessionAssembler:
    """Takes plays in any order and gives them back session by session.

    Attributes:
        held: Plays of sessions that are not whole yet, a table of `plays.PLAY_SCHEMA`.
    """

    def __init__(self, scratch: Path, rejects: Rejects) -> None:
        """Begin a log.

        Args:
            scratch: An empty folder for buckets, if they are needed.
            rejects: Receives plays whose place in their session is taken, or whose session
                contradicts them.
        """
        self._rejects = rejects
        self._scratch = scratch
        self.held = PLAY_SCHEMA.empty_table()
        self._given = IdSet()
        self._spilled = IdSet()
        self._buckets: dict[int, pa.RecordBatchStreamWriter] = {}

    def add(self, plays: pa.Table) -> pa.RecordBatch | None:
        """Take plays; give the sessions that are whole now, as a batch of `BLOCK_SCHEMA`."""
        if self._buckets:
            plays = self._without_spilled(plays)
        sessions = _Sessions(pa.concat_tables([self.held, plays]), self._rejects)
        whole = sessions.whole
        self.held = sessions.plays_of(~whole)
        if len(self.held) > MAX_HELD_PLAYS:
            self._spill(self.held)
            self.held = PLAY_SCHEMA.empty_table()
        return self._give(sessions.plays_of(whole))

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Give what is left: sessions with missing plays, and whole ones joined from disk."""
        yield from self._last(self.held)
        for writer in self._buckets.values():
            writer.close()
        for bucket in sorted(self._buckets):
            file = self._bucket_file(bucket)
            with pa.OSFile(str(file)) as source:
                plays = pa.ipc.open_stream(source).read_all()
            file.unlink()
            yield from self._last(plays)

    def _last(self, plays: pa.Table) -> Iterator[pa.RecordBatch]:
        """Give sessions as they are; plays of one that was given whole before are duplicates."""
        sessions = _Sessions(plays, self._rejects)
        late = ~sessions.whole & self._given.contains(hash_ids(sessions.ids))
        self._rejects.add(sessions.plays_of(late)["line"].to_numpy(), DUPLICATE_PLAY)
        if (batch := self._give(sessions.plays_of(~late))) is not None:
            yield batch

    def _give(self, plays: pa.Table) -> pa.RecordBatch | None:
        if not len(plays):
            return None
        columns = [
            _coded(plays[field.name]) if field.type == CODED else _whole_array(plays[field.name])
            for field in BLOCK_SCHEMA
        ]
        self._given.add(hash_ids(columns[0].dictionary))
        return pa.RecordBatch.from_arrays(columns, schema=BLOCK_SCHEMA)

    def _without_spilled(self, plays: pa.Table) -> pa.Table:
        """Send plays of sessions on disk after them: a session is evaluated all in one place."""
        coded = _coded(plays["session_id"])
        on_disk = self._spilled.contains(hash_ids(coded.dictionary))[coded.indices.to_numpy()]
        if not on_disk.any():
            return plays
        self._spill(plays.filter(pa.array(on_disk)))
        return plays.filter(pa.array(~on_disk))

    def _spill(self, plays: pa.Table) -> None:
        coded = _coded(plays["session_id"])
        hashes = hash_ids(coded.dictionary)
        self._spilled.add(hashes[~self._spilled.contains(hashes)])
        of_play = (hashes % NUM_BUCKETS).astype(np.int64)[coded.indices.to_numpy()]
        for bucket in np.unique(of_play).tolist():
            if bucket not in self._buckets:
                file = str(self._bucket_file(bucket))
                self._buckets[bucket] = pa.ipc.new_stream(file, PLAY_SCHEMA)
            self._buckets[bucket].write_table(plays.filter(pa.array(of_play == bucket)))

    def _bucket_file(self, bucket: int) -> Path:
        return self._scratch / f"bucket-{bucket:02d}.arrows"


class _Sessions:
    """Plays sorted into sessions, by first appearance and position, the impossible rejected.

    Attributes:
        ids: Session ids, in order of appearance.
        whole: Which of them have all their plays, ``(sessions,)``.
    """

    def __init__(self, plays: pa.Table, rejects: Rejects) -> None:
        coded = _coded(plays["session_id"])
        self.ids: pa.StringArray = coded.dictionary
        session = coded.indices.to_numpy().astype(np.int64)
        position = plays["position"].to_numpy()
        key = session * (MAX_SESSION_LENGTH + 1) + position
        if (np.diff(key) < 0).any():
            # Stable, so that of two plays at one place the earlier row stays.
            order = np.argsort(key, kind="stable")
            plays, key, session = plays.take(order), key[order], session[order]
        length, line = plays["session_length"].to_numpy(), plays["line"].to_numpy()
        good = np.ones(len(plays), bool)
        if len(plays):
            stated = _length_of_first_row(session, length, line)
            good = length == stated[session]
            rejects.add(line[~good], OTHER_LENGTH)
            good_rows = np.flatnonzero(good)
            again = good_rows[1:][key[good_rows][1:] == key[good_rows][:-1]]
            rejects.add(line[again], DUPLICATE_PLAY)
            good[again] = False
        else:
            stated = np.empty(0, np.int8)
        self._plays, self._session = plays, session
        if not good.all():
            self._plays, self._session = plays.filter(pa.array(good)), session[good]
        self.whole = np.bincount(self._session, minlength=len(self.ids)) == stated

    def plays_of(self, chosen: np.ndarray) -> pa.Table:
        """All plays of some sessions, given as a mask ``(sessions,)``."""
        num_first = int(np.argmin(chosen)) if not chosen.all() else len(chosen)
        if not chosen[num_first:].any():
            return self._plays.slice(0, int(np.searchsorted(self._session, num_first)))
        num_not = int(np.argmax(chosen))
        if chosen[num_not:].all():
            return self._plays.slice(int(np.searchsorted(self._session, num_not)))
        return self._plays.filter(pa.array(chosen[self._session]))


class IdSet:
    """A growing set of 64-bit hashes: eight bytes each, where a Python set takes a hundred.

    Sorted runs of doubling size, merged like the carries of a binary counter.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._runs: list[npt.NDArray[np.uint64]] = []

    def contains(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Tell which hashes were added before, in the shape of ``hashes``."""
        # What is looked up in order is read in order: of large runs all else waits for memory.
        order = np.argsort(hashes)
        ordered, found = hashes[order], np.zeros(len(hashes), bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, ordered), len(run) - 1)
            found |= run[places] == ordered
        found[order] = found.copy()
        return found

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Add hashes."""
        if len(hashes):
            run = np.sort(hashes)
            while self._runs and len(self._runs[-1]) <= len(run):
                run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
            self._runs.append(run)


def hash_ids(ids: pa.StringArray) -> npt.NDArray[np.uint64]:
    """64-bit hashes of ids: two among 100 million are alike with a chance of 1 in 4,000."""
    values = ids.to_numpy(zero_copy_only=False).astype(object)
    return pd.util.hash_array(values, categorize=False)


def _length_of_first_row(
    session: npt.NDArray[np.int64], length: npt.NDArray[np.int8], line: npt.NDArray[np.int64]
) -> npt.NDArray[np.int8]:
    """The length that each session's first row in the file states, ``(sessions,)``."""
    starts = np.flatnonzero(np.diff(session, prepend=-1))
    stated = length[starts]
    if (np.repeat(stated, np.diff(starts, append=len(session))) != length).any():
        by_line = np.lexsort((line, session))
        stated = length[by_line][starts]
    return stated


def _whole_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _coded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return _whole_array(column).dictionary_encode()
