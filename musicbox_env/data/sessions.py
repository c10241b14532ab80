"""The logged sessions of a dataset folder: memory-mapped columns, session offsets, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from musicbox_env.kernels import LogArrays, fill_rows
from musicbox_env.schema import (
    EXTRA_PLAY_COLUMNS,
    MAX_SESSION_LENGTH,
    PLAY_COLUMNS,
    UNKNOWN,
    is_skip,
    num_shown,
    split_codes,
)

if TYPE_CHECKING:  # slow to import, and an environment needs neither
    import pandas as pd
    from scipy.sparse import csr_array


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
        """
        self._folder = Path(folder)
        self.offsets: npt.NDArray[np.int64] = self._open("sessions/offsets.npy")
        self.split: npt.NDArray[np.uint8] = self._open("sessions/split.npy")

    def __reduce__(self) -> tuple[Callable[[Path], SessionLog], tuple[Path]]:
        """Pickle by path: a pickled memory map would store the whole array."""
        return SessionLog, (self._folder,)

    def _open(self, name: str) -> npt.NDArray:
        # A plain view of the mapped file: indexing np.memmap itself goes through Python.
        return np.asarray(np.load(self._folder / name, mmap_mode="r", allow_pickle=False))

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray]:
        extra = [n for n in EXTRA_PLAY_COLUMNS if (self._folder / f"plays/{n}.npy").is_file()]
        return {name: self._open(f"plays/{name}.npy") for name in (*PLAY_COLUMNS, *extra)}

    def column(self, name: str) -> npt.NDArray:
        """Memory-mapped column of plays, ``(num_plays,)``.

        Args:
            name: One of `PLAY_COLUMNS`, or of `EXTRA_PLAY_COLUMNS` if the log gave it.
        """
        return self._columns[name]

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
        table = pq.read_table(self._folder / "sessions/ids.parquet")
        return np.asarray(table["session_id"].to_pylist(), dtype=object)

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
    keys: Sequence[str], *, seed: int, shares: tuple[float, float, float], test_fold: int = 0
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
    secret = int(seed).to_bytes(8, "little", signed=True)
    uniform = np.fromiter(
        (
            int.from_bytes(
                hashlib.blake2b(i.encode(), key=secret, digest_size=7).digest(), "little"
            )
            for i in keys
        ),
        dtype=np.int64,
        count=len(keys),
    ) / float(1 << 56)
    train, validation, test = shares
    uniform = (uniform + test_fold * test) % 1.0
    edges = np.array([train / 2, train, train + validation])
    return np.searchsorted(edges, uniform, side="right").astype(np.uint8)
