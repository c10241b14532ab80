"""The logged sessions of a dataset folder: memory-mapped columns, session offsets, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicbox_env.data.checks import BLOCK, UNREADABLE, CheckedFile, are_strings
from musicbox_env.kernels import LogArrays, fill_rows
from musicbox_env.schema import (
    MAX_SESSION_LENGTH,
    PLAY_COLUMNS,
    SPLITS,
    STORED_PLAY_COLUMNS,
    UNKNOWN,
    PlayColumn,
    is_skip,
    num_shown,
    split_codes,
)

if TYPE_CHECKING:  # slow to import, and an environment needs neither
    import pandas as pd
    from scipy.sparse import csr_array

MEND = "Make the dataset again, or ask its sender for it again."
OFFSETS, SPLIT, IDS = "sessions/offsets.npy", "sessions/split.npy", "sessions/ids.parquet"


class SessionLog:
    """Plays of a dataset, in session order, read from disk only where they are touched.

    Attributes:
        offsets: First play of each session, ``(num_sessions + 1,)`` int64; the last entry is the
            number of plays.
        split: Stored split code of each session, ``(num_sessions,)`` uint8 (see `schema.SPLITS`).
    """

    def __init__(self, folder: Path | str) -> None:
        """Open the session log of a dataset folder.

        Args:
            folder: Dataset folder, holding ``plays/`` and ``sessions/``.

        Raises:
            FileError: An array has another type or shape. Values are checked by `check`.
        """
        self._folder = Path(folder)
        self.offsets: npt.NDArray[np.int64] = self._file(OFFSETS).array(np.int64, (None,))
        self._file(OFFSETS).require(
            len(self.offsets) > 1, "no session", "0, then the end of each session"
        )
        self.split: npt.NDArray[np.uint8] = self._file(SPLIT).array(np.uint8, (None,))
        number = len(self.offsets) - 1
        self._file(SPLIT).require(
            len(self.split) == number, f"{len(self.split)} sessions", f"{number}, as in {OFFSETS}"
        )

    def __reduce__(self) -> tuple[Callable[[Path], SessionLog], tuple[Path]]:
        """Pickle by path: a pickled memory map would store the whole array."""
        return SessionLog, (self._folder,)

    def _file(self, name: str) -> CheckedFile:
        return CheckedFile(self._folder / name, MEND)

    @property
    def ids(self) -> Path:
        """The file of `session_ids`."""
        return self._folder / IDS

    def check(self, num_tracks: int) -> int:
        """Check all values that kernels read, and that there is an id for each session.

        Args:
            num_tracks: Size of the catalog.

        Returns:
            Plays of the longest session.

        Raises:
            FileError: Offsets do not rise from 0, or a code is not in its vocabulary.
        """
        self._file(SPLIT).require_within(self.split, (0, len(SPLITS) - 1))
        longest = self._longest()
        for name, column in self.stored.items():
            low, high = column.limits
            high = num_tracks - 1 if name == "track" else high
            self._file(f"plays/{name}.npy").require_within(self.column(name), (low, high))
        self._id_table(columns=[])
        return longest

    def _longest(self) -> int:
        """Plays of the longest session, offsets being checked."""
        offsets, file, longest = self.offsets, self._file(OFFSETS), 0
        first = offsets[0]
        file.require(first == 0, f"the first session begins at {first}", "0")
        for start in range(0, len(offsets) - 1, BLOCK):
            here = offsets[start : start + BLOCK + 1]
            file.require(
                bool((here[1:] > here[:-1]).all()), "an offset is not above the one before", "more"
            )
            longest = max(longest, int(np.diff(here).max()))
        return longest

    def _id_table(self, columns: list[str] | None = None) -> pa.Table:
        file = self._file(IDS)
        file.require_regular()
        try:
            table = pq.read_table(file.file, columns=columns)
            rows, schema = pq.read_metadata(file.file).num_rows, pq.read_schema(file.file)
            table.validate(full=True)
        except UNREADABLE as error:
            raise file.refused(f"no table ({error})", "a Parquet file of session ids") from None
        file.require(
            rows == self.num_sessions and schema.names == ["session_id"] and are_strings(schema[0]),
            f"{rows:,} rows of {', '.join(schema.names[:9])}",
            f"{self.num_sessions:,} rows of session_id, strings",
        )
        return table

    @cached_property
    def stored(self) -> dict[str, PlayColumn]:
        """The columns that there have to be, and of the others those that there are."""
        return {
            name: column
            for name, column in STORED_PLAY_COLUMNS.items()
            if name in PLAY_COLUMNS or (self._folder / f"plays/{name}.npy").is_file()
        }

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray]:
        return {
            name: self._file(f"plays/{name}.npy").array(column.dtype, (self.num_plays,))
            for name, column in self.stored.items()
        }

    def map_columns(self) -> None:
        """Map all columns now: the files that are checked are then those that are played."""
        _ = self._columns

    def column(self, name: str) -> npt.NDArray:
        """Memory-mapped column of plays, ``(num_plays,)``.

        Args:
            name: One of `PLAY_COLUMNS`, or of `EXTRA_PLAY_COLUMNS` if the log gave it.
        """
        return self._columns[name]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns that are stored: all of `PLAY_COLUMNS`, and others that the log gave."""
        return tuple(self.stored)

    @cached_property
    def replayed(self) -> LogArrays:
        """Offsets of sessions, tracks and levels of plays, as kernels read them."""
        return self.offsets, self.column("track"), self.column("level")

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return len(self.split)

    @property
    def num_plays(self) -> int:
        """Number of plays."""
        return int(self.offsets[-1])

    @cached_property
    def session_ids(self) -> npt.NDArray[np.object_]:
        """Session ids as logged, ``(num_sessions,)``; read whole, so only where ids are shown."""
        return np.asarray(self._id_table()["session_id"].to_pylist(), dtype=object)

    def sessions_in(self, split: str) -> npt.NDArray[np.int64]:
        """Indices of the sessions of a split, ascending; ``"train"`` is both of its folds."""
        return np.flatnonzero(np.isin(self.split, split_codes(split)))

    def playable(self, split: str) -> npt.NDArray[np.int64]:
        """Sessions of a split that can be episodes, ascending; see `is_playable`."""
        sessions = self.sessions_in(split)
        return sessions[self.is_playable(sessions)]

    def is_playable(self, sessions: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether sessions have plays to show, as those of two plays or more do, ``(n,)``."""
        return self.num_shown(sessions) > 0

    def num_shown(self, sessions: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Plays of each session that begin an episode ``(n,)``; see `schema.num_shown`."""
        shown: npt.NDArray[np.int64] = num_shown(self.lengths(sessions))
        return shown

    def lengths(self, sessions: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Number of logged plays of each session, the shape of ``sessions``."""
        return self.offsets[sessions + 1] - self.offsets[sessions]

    def padded(
        self,
        name: str,
        sessions: npt.NDArray[np.integer],
        width: int = MAX_SESSION_LENGTH,
        *,
        at_most: npt.NDArray[np.integer] | int | None = None,
    ) -> npt.NDArray:
        """One column of many sessions as a rectangle.

        Args:
            name: A column of `PLAY_COLUMNS`.
            sessions: Session indices ``(n,)``.
            width: Number of places; sessions longer than that are cut.
            at_most: How many plays of each to read ``(n,)``; all if None.

        Returns:
            ``(n, width)`` of the column's type, `UNKNOWN` after a session's last play read.
        """
        column = self.column(name)
        count = np.minimum(self.lengths(sessions), width if at_most is None else at_most)
        rows = np.full((len(sessions), width), UNKNOWN, column.dtype)
        fill_rows(column, self.offsets[sessions], np.minimum(count, width), rows)
        return rows

    def plays_of(self, sessions: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Row numbers of all plays of the given sessions, session by session."""
        lengths = self.lengths(sessions)
        ends = np.cumsum(lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
        return np.repeat(self.offsets[sessions], lengths) + within

    def held_tracks(
        self, sessions: npt.NDArray[np.integer], num_tracks: int, *, kept_only: bool = False
    ) -> csr_array:
        """Which session plays (or keeps) which track, ``(len(sessions), num_tracks)``, 0 or 1."""
        from scipy.sparse import csr_array

        plays, lengths = self.plays_of(sessions), self.lengths(sessions)
        row = np.repeat(np.arange(len(sessions), dtype=np.int32), lengths)
        track = self.column("track")[plays]
        if kept_only:
            kept = ~is_skip(self.column("level")[plays])
            row, track = row[kept], track[kept]
        ones = np.ones(len(row), np.float32)
        held = csr_array((ones, (row, track)), shape=(len(sessions), num_tracks))
        held.data[:] = 1  # a track played twice was summed to 2
        return held

    def frame(self, session: int) -> pd.DataFrame:
        """One session as a table, a row a play, for people to look at."""
        import pandas as pd

        rows = slice(int(self.offsets[session]), int(self.offsets[session + 1]))
        return pd.DataFrame({name: self.column(name)[rows] for name in PLAY_COLUMNS})


def assign_splits(
    keys: Sequence[str] | pa.StringArray,
    *,
    seed: int,
    shares: tuple[float, float, float],
    test_fold: int = 0,
) -> npt.NDArray[np.uint8]:
    """Draw each session's split from a hash of its key, so that it never depends on the others.

    Args:
        keys: Ids of the sessions, or whatever sessions that belong together have in common.
        seed: Key of the hash.
        shares: Train, validation and test share; train is halved into its folds A and B.
        test_fold: How often the test split is moved on by its own share.

    Returns:
        Split codes ``(len(keys),)``.
    """
    secret = hashlib.blake2b(key=int(seed).to_bytes(8, "little", signed=True), digest_size=7)
    # Sessions that belong together mostly lie together: each key is hashed once.
    together = pc.call_function("run_end_encode", [pa.array(keys, pa.string())])
    drawn = bytearray()
    for key in together.values.cast(pa.binary()).to_pylist():
        hashed = secret.copy()
        hashed.update(key)
        drawn += hashed.digest() + b"\0"
    uniform = np.frombuffer(drawn, "<i8") / float(1 << 56)
    uniform = np.repeat(uniform, np.diff(together.run_ends, prepend=0))
    train, validation, test = shares
    uniform = (uniform + test_fold * test) % 1.0
    edges = np.array([train / 2, train, train + validation])
    return np.searchsorted(edges, uniform, side="right").astype(np.uint8)
