"""Plays of many listeners on disk, those of a listener in one file; read a piece at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.timing.clock import by_user_and, changes
from musicbox_env.ingest.histories.timing.records import (
    COLUMNS,
    LISTEN,
    NOTHING_KNOWN,
    Listens,
)

FEWEST: Final = 16
MOST: Final = 512
BYTES_A_BUCKET: Final = 1 << 23
"""Of sources: less than a million plays of Parquet."""
PLAYS_A_PIECE: Final = 1 << 16
"""So many plays, and what is computed of them, stay in the processor's cache."""

_BLOCK: Final = np.dtype(
    [
        ("plays", np.int64),
        ("bytes", np.int64),
        ("varies", np.bool_, len(COLUMNS)),
        ("rows_follow", np.bool_),
        ("value", LISTEN),
    ]
)
"""How a block begins, and how many bytes of columns follow; where ``rows_follow`` each other in
their file, the first is told alone."""


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
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (rows[1:] > rows[:-1]).all():
            about["rows_follow"], columns[COLUMNS.index("order")] = True, rows[0]
        about["plays"], about["varies"] = len(listens), [bool(of.ndim) for of in columns]
        about["value"] = tuple(0 if of.ndim else of for of in columns)
        varying = [np.ascontiguousarray(of).view(np.uint8).data for of in columns if of.ndim]
        about["bytes"] = sum(map(len, varying))
        # Written at once: each write gives other threads their turn.
        self._files[number].write(b"".join([about.view(np.uint8).data, *varying]))

    def read(self, numbers: list[int]) -> Listens:
        """All plays of some buckets."""
        heads: list[npt.NDArray] = [np.empty(0, _BLOCK)]
        bodies: list[memoryview] = []
        for file in (self._files[number] for number in numbers if number in self._files):
            file.seek(0)
            data, place = memoryview(file.read()), 0
            while place < len(data):
                heads.append(np.frombuffer(data, _BLOCK, 1, place))
                begin = place + _BLOCK.itemsize
                place = begin + int(heads[-1]["bytes"][0])
                bodies.append(data[begin:place])
        return _together(np.concatenate(heads), bodies)


def _together(heads: npt.NDArray, bodies: list[memoryview]) -> Listens:
    """All plays of some blocks: how each begins, and its columns."""
    plays, places = heads["plays"].tolist(), np.zeros(len(heads), np.int64)
    columns = dict(NOTHING_KNOWN)
    for name, varies in zip(COLUMNS, heads["varies"].T.tolist(), strict=True):
        follow = heads["rows_follow"].tolist() if name == "order" else [False] * len(plays)
        values = heads["value"][name]
        if len(plays) and not any(varies) and not any(follow) and (values == values[0]).all():
            columns[name] = np.array(values[0])
        elif len(plays):
            parts = [
                np.frombuffer(body, LISTEN[name], number, place)
                if varied
                else value + np.arange(number) * follows
                for body, place, number, varied, follows, value in zip(
                    bodies, places.tolist(), plays, varies, follow, values, strict=True
                )
            ]
            columns[name] = np.concatenate(parts).astype(LISTEN[name], copy=False)
            places += heads["plays"] * varies * LISTEN[name].itemsize
    return Listens.of_kept(sum(plays), columns)


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
