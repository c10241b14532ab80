"""Sessions that were cut out of histories, on their way into a part: ids, order, opinions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.data.opinions import OPINION_SCHEMA
from musicbox_env.data.splits import session_names
from musicbox_env.ingest.assembly import BLOCK_SCHEMA
from musicbox_env.ingest.histories.timing.clock import by_user_and
from musicbox_env.schema import OPINIONS, UNKNOWN

RUN_BYTES: Final = 8
WINDOW_BYTES: Final = 4
STORED_AS_READ: Final = ("shuffle", "context_type", "source", "reason_start", "reason_end")
HISTORY_SCHEMA: Final = pa.schema(
    [
        *map(BLOCK_SCHEMA.field, ("session_id", "track_id", "line", "session_length", "level")),
        *map(BLOCK_SCHEMA.field, ("position", "hour", *STORED_AS_READ)),
    ]
)
"""Of `assembly.BLOCK_SCHEMA` what histories can tell."""
_UNKNOWN: Final = np.array(UNKNOWN)


@dataclass(frozen=True)
class CutSessions:
    """Sessions of some listeners; plays lie session after session, in order.

    Attributes:
        sizes: Plays of each ``(sessions,)``.
        user: Code of each one's listener.
        run: Number of the run that each is a window of.
        begin: When each began, in milliseconds.
        end: When it ended.
        earliest: When it may have begun, times being as exact as they are.
        latest: When it may have ended.
        columns: Of the plays ``(plays,)``: ``song``, ``line`` and columns of `HISTORY_SCHEMA`;
            ``()`` where all plays have one value.
    """

    sizes: npt.NDArray[np.int64]
    user: npt.NDArray[np.int32]
    run: npt.NDArray[np.int64]
    begin: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    earliest: npt.NDArray[np.int64]
    latest: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray]

    @classmethod
    def together(cls, some: Sequence[CutSessions]) -> CutSessions:
        """All of these, the runs of each told apart."""
        runs = [int(of.run.max(initial=-1)) + 1 for of in some]
        first = np.cumsum(runs) - runs
        return cls(
            np.concatenate([of.sizes for of in some]),
            np.concatenate([of.user for of in some]),
            np.concatenate([of.run + before for of, before in zip(some, first, strict=True)]),
            np.concatenate([of.begin for of in some]),
            np.concatenate([of.end for of in some]),
            np.concatenate([of.earliest for of in some]),
            np.concatenate([of.latest for of in some]),
            {name: cls._column(name, some) for name in some[0].columns},
        )

    @staticmethod
    def _column(name: str, some: Sequence[CutSessions]) -> npt.NDArray:
        values = [of.columns[name] for of in some]
        if all(not of.ndim and of == values[0] for of in values):
            return values[0]
        each = zip(values, some, strict=True)
        return np.concatenate([np.broadcast_to(v, int(of.sizes.sum())) for v, of in each])

    def batch(
        self,
        ids: npt.NDArray[np.bytes_],
        order: npt.NDArray[np.int64],
        tracks: pa.StringArray,
    ) -> pa.RecordBatch:
        """A batch of `HISTORY_SCHEMA`.

        Args:
            ids: Ids of the sessions ``(sessions,)``.
            order: The order in which the batch holds them.
            tracks: Ids of all songs by code.
        """
        sizes = self.sizes[order]
        begins = np.cumsum(self.sizes) - self.sizes
        session = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        within = np.arange(len(session)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        plays = np.repeat(begins[order], sizes) + within
        arrays = {
            "session_id": _coded(session, pa.array(ids[order]).cast(pa.string())),
            "track_id": _coded(self.columns["song"][plays], tracks),
            "position": pa.array((within + 1).astype(np.int8)),
            "session_length": pa.array(np.repeat(sizes.astype(np.int8), sizes)),
        }
        for field in HISTORY_SCHEMA:
            if field.name not in arrays:
                given = self.columns.get(field.name, _UNKNOWN)
                if given.ndim:
                    values = given[plays].astype(field.type.to_pandas_dtype(), copy=False)
                    arrays[field.name] = pa.array(values, field.type)
                elif given == UNKNOWN:
                    arrays[field.name] = pa.nulls(len(plays), field.type)
                else:
                    arrays[field.name] = pa.repeat(pa.scalar(given.item(), field.type), len(plays))
        return pa.RecordBatch.from_arrays(
            [arrays[n] for n in HISTORY_SCHEMA.names], schema=HISTORY_SCHEMA
        )

    def holding(
        self, user: npt.NDArray[np.int32], time: npt.NDArray[np.int64], slack: int
    ) -> npt.NDArray[np.int64]:
        """The listener's session that each moment lies in ``(moments,)``, -1 where it is none.

        Args:
            user: Whose moments ``(moments,)``.
            time: In milliseconds.
            slack: How long after its end a session is still there.
        """
        number = len(self.user)
        order = by_user_and(np.concatenate([self.user, user]), np.concatenate([self.begin, time]))
        begun = np.maximum.accumulate(np.where(order < number, np.arange(len(order)), -1))
        asked = order >= number
        session = np.full(len(user), -1)
        session[order[asked] - number] = np.where(begun >= 0, order[begun], -1)[asked]
        inside = session >= 0
        held = session[inside]
        inside[inside] = (self.user[held] == user[inside]) & (
            time[inside] <= self.end[held] + slack
        )
        return np.where(inside, session, -1)


def session_ids(
    sessions: CutSessions, listeners: npt.NDArray[np.bytes_], salt: bytes, bucket: int
) -> npt.NDArray[np.bytes_]:
    """An id for each session, of its listener's hash and of numbers; no time in it.

    Runs and windows are named by a stream of bytes that only the salt gives, so that a name tells
    nothing of its place.

    Args:
        sessions: All of one bucket.
        listeners: Hash of each user by code.
        salt: Key of the stream.
        bucket: Number of the bucket, which has a stream of its own.
    """
    runs = int(sessions.run.max(initial=-1)) + 1
    size = runs * RUN_BYTES + len(sessions.run) * WINDOW_BYTES
    stream = hashlib.shake_128(salt + f"/sessions/{bucket}".encode()).digest(size).hex().encode()
    cut = 2 * runs * RUN_BYTES
    run = np.frombuffer(stream[:cut], f"S{2 * RUN_BYTES}")
    window = np.frombuffer(stream[cut:], f"S{2 * WINDOW_BYTES}")
    return session_names(listeners[sessions.user], run[sessions.run], window)


class OpinionFile(ExitStack):
    """A file of `data.opinions.OPINION_SCHEMA`, made with the first opinion."""

    def __init__(self, file: Path) -> None:
        """Begin it under a name."""
        super().__init__()
        self._file = file
        self._writer: pq.ParquetWriter | None = None

    def write(
        self,
        session_ids: npt.NDArray[np.bytes_],
        tracks: pa.StringArray,
        opinions: npt.NDArray[np.int8],
    ) -> None:
        """Write opinions ``(opinions,)``: session, song and place in `schema.OPINIONS` of each."""
        if not len(session_ids):
            return
        if self._writer is None:
            self._writer = self.enter_context(pq.ParquetWriter(self._file, OPINION_SCHEMA))
        names = np.array(OPINIONS, dtype=object)[opinions]
        ids, kinds = (pa.array(of, pa.string()) for of in (session_ids.astype(str), names))
        self._writer.write_table(pa.Table.from_arrays([ids, tracks, kinds], schema=OPINION_SCHEMA))


def _coded(codes: npt.NDArray[np.int32], names: pa.StringArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), names)
