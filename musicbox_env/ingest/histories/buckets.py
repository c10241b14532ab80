"""Plays of many listeners on disk, those of a listener in one file; read a piece at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, cast

import numpy as np

from musicbox_env.ingest.histories.timing.clock import by_user_and, changes
from musicbox_env.ingest.histories.timing.records import COLUMNS, LISTEN, Listens

FEWEST: Final = 16
MOST: Final = 512
BYTES_A_BUCKET: Final = 1 << 23
"""Of sources: less than a million plays of Parquet."""
PLAYS_A_PIECE: Final = 1 << 16
"""So many plays, and what is computed of them, stay in the processor's cache."""

_BLOCK: Final = np.dtype(
    [
        ("plays", np.int64),
        ("varies", np.bool_, len(COLUMNS)),
        ("rows_follow", np.bool_),
        ("value", LISTEN),
    ]
)
"""How a block begins; where ``rows_follow`` each other in their file, the first is told alone."""


def buckets_for(num_bytes: int) -> int:
    """How many buckets sources of so many bytes take."""
    return min(MOST, max(FEWEST, num_bytes // BYTES_A_BUCKET))


class Buckets(ExitStack):
    """Files of plays, by user: blocks of the values that all plays have, then of other columns.

    They have no names, so that a killed run leaves no exact times behind.
    """

    def __init__(self, folder: Path, number: int) -> None:
        """Begin so many, which are made in a folder when they are needed."""
        super().__init__()
        self._folder, self._number = folder, number
        self._files: dict[int, IO[bytes]] = {}

    def __len__(self) -> int:
        return self._number

    def add(self, listens: Listens) -> None:
        """Write plays behind those of their users."""
        bucket = (listens["user"] % self._number).astype(np.uint16)
        begins = np.append(np.flatnonzero(changes(bucket)), len(bucket))
        if len(begins) <= self._number:  # plays of a listener lie together: nothing is moved
            for first, last in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
                part = listens.take(slice(first, last))
                part["user"] = part["user"]  # one value, if it is one listener's
                self.write(int(bucket[first]), part)
            return
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(self._number + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            rows = order[bounds[number] : bounds[number + 1]]
            self.write(number, listens if len(rows) == len(listens) else listens.take(rows))

    def write(self, number: int, listens: Listens) -> None:
        """Write plays into one bucket."""
        if number not in self._files:
            file = self.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115
            self._files[number] = cast(IO[bytes], file)
        columns = [listens.kept(name) for name in COLUMNS]
        about = np.zeros(1, _BLOCK)
        rows = listens["order"]
        if len(rows) and (np.diff(rows) == 1).all():
            about["rows_follow"], columns[COLUMNS.index("order")] = True, rows[0]
        about["plays"], about["varies"] = len(listens), [[bool(of.ndim) for of in columns]]
        for name, of in zip(COLUMNS, columns, strict=True):
            about["value"][name] = 0 if of.ndim else of
        for part in (about, *(of for of in columns if of.ndim)):
            self._files[number].write(np.ascontiguousarray(part).view(np.uint8).data)

    def read(self, numbers: list[int]) -> Listens:
        """All plays of some buckets."""
        blocks: list[Listens] = []
        for file in (self._files[number] for number in numbers if number in self._files):
            file.seek(0)
            data, place = file.read(), 0
            while place < len(data):
                block, place = _block(data, place)
                blocks.append(block)
        return Listens.together(blocks)


def _block(data: bytes, place: int) -> tuple[Listens, int]:
    """The block at a place, and the place behind it."""
    about = np.frombuffer(data, _BLOCK, 1, place)[0]
    place += _BLOCK.itemsize
    plays, columns = int(about["plays"]), {}
    for name, varies in zip(COLUMNS, about["varies"].tolist(), strict=True):
        if varies:
            columns[name] = np.frombuffer(data, LISTEN[name], plays, place)
            place += columns[name].nbytes
        else:
            columns[name] = np.array(about["value"][name])
    if about["rows_follow"]:
        columns["order"] = about["value"]["order"] + np.arange(plays)
    return Listens.of_kept(plays, columns), place


def pieces(listens: Listens) -> Iterator[Listens]:
    """Plays by user and time, all of some users at a time, in the order of the users."""
    order = by_user_and(listens["user"], listens["time"])
    if not (order[1:] > order[:-1]).all():
        listens = listens.take(order)
    begins = np.append(np.flatnonzero(changes(listens["user"])), len(listens))
    first = 0
    while first < len(listens):
        last = begins[np.searchsorted(begins, min(first + PLAYS_A_PIECE, len(listens)))]
        yield listens.take(slice(first, last))
        first = last
