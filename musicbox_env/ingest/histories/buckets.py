"""Plays of many listeners on disk, those of a listener in one file; read a piece at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.listens import LISTEN
from musicbox_env.ingest.histories.timing.clock import by_user_and, changes

FEWEST: Final = 16
MOST: Final = 512
BYTES_A_BUCKET: Final = 1 << 25
"""Of sources: some three million plays of Parquet."""
PLAYS_A_PIECE: Final = 1 << 16
"""So many records, and what is computed of them, stay in the processor's cache."""


def buckets_for(num_bytes: int) -> int:
    """How many buckets sources of so many bytes take."""
    return min(MOST, max(FEWEST, num_bytes // BYTES_A_BUCKET))


class Buckets(ExitStack):
    """Files of records of `listens.LISTEN`, by user.

    They have no names, so that a killed run leaves no exact times behind.
    """

    def __init__(self, folder: Path, number: int) -> None:
        """Begin so many, which are made in a folder when they are needed."""
        super().__init__()
        self._folder, self._number = folder, number
        self._files: dict[int, IO[bytes]] = {}

    def __len__(self) -> int:
        return self._number

    def add(self, listens: npt.NDArray) -> None:
        """Write records ``(plays,)`` behind those of their users."""
        bucket = (listens["user"] % self._number).astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(self._number + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            rows = order[bounds[number] : bounds[number + 1]]
            self.write(number, listens if len(rows) == len(listens) else listens.take(rows))

    def write(self, number: int, listens: npt.NDArray) -> None:
        """Write records into one bucket."""
        if number not in self._files:
            file = self.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115
            self._files[number] = cast(IO[bytes], file)
        self._files[number].write(np.ascontiguousarray(listens).view(np.uint8).data)

    def read(self, numbers: list[int]) -> npt.NDArray:
        """All records of some buckets ``(plays,)``."""
        files = [self._files[number] for number in numbers if number in self._files]
        sizes = [file.seek(0, 2) for file in files]
        listens = np.empty(sum(sizes) // LISTEN.itemsize, LISTEN)
        filled = memoryview(listens.view(np.uint8).data)
        for file, size in zip(files, sizes, strict=True):
            file.seek(0)
            file.readinto(filled[:size])  # type: ignore[attr-defined]
            filled = filled[size:]
        return listens


def pieces(listens: npt.NDArray) -> Iterator[npt.NDArray]:
    """Records by user and time, all of some users at a time, in the order of the users."""
    order = by_user_and(listens["user"], listens["time"])
    begins = np.append(np.flatnonzero(changes(listens["user"][order])), len(listens))
    first = 0
    while first < len(listens):
        last = begins[np.searchsorted(begins, min(first + PLAYS_A_PIECE, len(listens)))]
        yield listens.take(order[first:last])
        first = last
