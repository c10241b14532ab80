"""Files of a dataset that grow as blocks come: columns of plays, ids of sessions."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.data.sessions import IDS
from musicbox_env.errors import writing
from musicbox_env.schema import STORED_PLAY_COLUMNS

COPY_ROWS = 4_000_000
IDS_ROW_GROUP = 100_000
IDS_SCHEMA = pa.schema([("session_id", pa.string())])


class ColumnFile:
    """A 1-D .npy file that grows; its header tells the true length once it is closed.

    Plain writes in place of a memory map, since a full disk kills a process that writes to a map.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        """Begin a file."""
        self._path = path
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._file = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        """NumPy pads headers so that any length of a 1-D array takes the same room."""
        description = np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": description, "fortran_order": False, "shape": (self._length,)},
        )

    def write(self, values: npt.ArrayLike) -> None:
        """Append values ``(n,)``."""
        array = np.ascontiguousarray(values, dtype=self._dtype)
        with writing(self._path):
            self._file.write(array.data)
        self._length += len(array)

    def __enter__(self) -> ColumnFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with writing(self._path), self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()


def empty_column(folder: Path, name: str, length: int) -> None:
    """Make a column of plays, of zeros that take no room until they are written over."""
    dtype = np.dtype(STORED_PLAY_COLUMNS[name].dtype)
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    with (folder / "plays" / f"{name}.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**described, "shape": (length,)})
        file.truncate(file.tell() + length * dtype.itemsize)


def column_begin(file: IO[bytes]) -> int:
    """Where the values of an open column begin."""
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


class IdWriter:
    """Writes session ids, in groups of `IDS_ROW_GROUP` or more; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Begin the file of a dataset folder."""
        self._file = pq.ParquetWriter(folder / IDS, IDS_SCHEMA)
        self._waiting: list[pa.Array] = []

    def write(self, ids: pa.Array) -> None:
        """Append ids of whole blocks."""
        self._waiting.append(ids)
        if sum(map(len, self._waiting)) >= IDS_ROW_GROUP:
            self._write()

    def _write(self) -> None:
        ids = pa.concat_arrays([*self._waiting, pa.array([], pa.string())])
        self._file.write_table(pa.table([ids], schema=IDS_SCHEMA))
        self._waiting = []

    def __enter__(self) -> IdWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._file.close()


def renumber(path: Path, new_row: npt.NDArray[np.int32]) -> None:
    """Replace provisional track rows by those of the finished catalog, a slice at a time."""
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        for start in range(0, shape[0], COPY_ROWS):
            place = file.tell()
            size = min(COPY_ROWS, shape[0] - start) * dtype.itemsize
            rows = np.frombuffer(file.read(size), dtype)
            file.seek(place)
            file.write(new_row[rows].data)
