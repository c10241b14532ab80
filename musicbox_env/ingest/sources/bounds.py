"""How far a source file is unwrapped and read: no small file may keep a machine busy for long."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.errors import InputError

SHORT_LINES: Final = 4
"""Only where lines are shorter than this many bytes is it worth counting blank ones."""
LINE_END, RETURN = b"\n\r"
BLOCK: Final = 1 << 16
"""Bytes that `in_cache` looks at in one go."""
DECODED: Final = 0
"""What is decoded, beside the layers of wrappings that are counted from 1."""
MOST_AT_ONCE: Final = 2 << 30
"""Bytes that some rows may take while they are decoded."""


@dataclass(frozen=True)
class Bounds:
    """What one source file may take.

    Attributes:
        expansion: Times its size that it may unpack to: text packs to a twentieth, a bomb to a
            1,000th.
        harmless_bytes: What unpacks to no more than this is no bomb, however small it was packed.
        wrappings: Wrappings around each other, such as a gzip in a zip.
        members: Files in an archive.
        seconds: Processor time for any file; `seconds_per_mb` more for each million bytes.
        seconds_per_mb: A hundred times what a log takes.
        blank_fields: Blank lines, each counted as many times as the table has columns.
        malformed: Rows that fit no table, where they are more than half of all.
        depth: Elements of XML within each other.
        cells: Of a row of a sheet, as in Excel.
        characters: Of a cell, as in Excel.
    """

    expansion: int = 200
    harmless_bytes: int = 64 << 20
    wrappings: int = 4
    members: int = 10_000
    seconds: float = 60.0
    seconds_per_mb: float = 10.0
    blank_fields: int = 20_000_000
    malformed: int = 100_000
    depth: int = 100
    cells: int = 16_384
    characters: int = 32_767


BOUNDS: Final = Bounds()


def in_cache(values: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Bytes piece by piece, each small enough to stay in the processor's cache."""
    return (values[at : at + BLOCK] for at in range(0, len(values), BLOCK))


class Budget:
    """What is left of the bounds of one source file.

    Attributes:
        bounds: The bounds.
    """

    def __init__(self, name: str, num_bytes: int, bounds: Bounds = BOUNDS) -> None:
        """Begin a file of so many bytes, under its name for messages."""
        self.bounds = bounds
        self._name, self._num_bytes = name, num_bytes
        self._most = max(bounds.harmless_bytes, bounds.expansion * num_bytes)
        self._unpacked: Counter[int] = Counter()
        self._seconds = bounds.seconds + bounds.seconds_per_mb * num_bytes / 1e6
        self._began = time.process_time()
        self._blank_fields = 0

    def unpack(self, count: int, layer: int, name: str) -> None:
        """Take bytes that a decoder gave at a layer of wrappings.

        Raises:
            InputError: The file unpacks to vastly more than it is.
        """
        self._unpacked[layer] += count
        if self._unpacked[layer] > self._most:
            raise InputError(self.too_much(name, f"more than {self._most:,} bytes"))
        self.check_time(name)

    def check_stated(self, unpacked: int, packed: int, name: str) -> None:
        """Refuse an archive by what it says of itself: no more than it states is ever read.

        Evaluated over all members together: those of a bomb may share the same packed bytes.
        """
        if unpacked > max(self.bounds.harmless_bytes, self.bounds.expansion * packed):
            raise InputError(self.too_much(name, f"{unpacked:,} bytes"))

    def too_much(self, name: str, unpacked: str) -> str:
        """What is said of a bomb."""
        return (
            f"{name}: unpacks to {unpacked}, which is no archive of logs at the "
            f"{self._num_bytes:,} bytes of the file (at most {self.bounds.expansion} times as "
            "much is read). If it is one all the same, unpack it and name the folder, or write CSV."
        )

    def check_members(self, count: int, name: str) -> None:
        """Refuse an archive of too many files."""
        if count > self.bounds.members:
            raise InputError(
                f"{name}: holds more than {self.bounds.members:,} files, which no archive of "
                "logs does. If it is one all the same, unpack it and name the folder."
            )

    def check_time(self, name: str) -> None:
        """Refuse a file that has taken too long for its size."""
        if time.process_time() - self._began > self._seconds:
            raise InputError(
                f"{name}: has taken more than {self._seconds:,.0f} s of processor time, which no "
                f"log of {self._num_bytes:,} bytes does. If it is one all the same, unpack it, "
                "write it as CSV, and cut it into smaller files."
            )

    def check_blank_lines(self, text: bytes, columns: int, name: str) -> None:
        """Refuse a table of blank lines: each is parsed like a row, and takes no room if packed."""
        values = np.frombuffer(text, np.uint8)
        ends = sum(np.count_nonzero((b == LINE_END) | (b == RETURN)) for b in in_cache(values))
        if ends * SHORT_LINES < len(text):
            return
        is_end = (values == LINE_END) | (values == RETURN)
        of_two = (values[:-1] == RETURN) & (values[1:] == LINE_END)
        blank = int((is_end[:-1] & is_end[1:]).sum()) - int(of_two.sum())
        self._blank_fields += max(blank, 0) * max(columns, 1)
        if self._blank_fields > self.bounds.blank_fields:
            most = self.bounds.blank_fields // max(columns, 1)
            raise InputError(
                f"{name}: holds more than {most:,} blank lines, which no table of {columns:,} "
                "columns does. Remove them, as by `grep .`."
            )

    def check_malformed(self, malformed: int, rows: int, columns: int, name: str) -> None:
        """Refuse a table whose rows are not rows of it."""
        if malformed > self.bounds.malformed and 2 * malformed > rows:
            raise InputError(
                f"{name}: {malformed:,} of the first {rows:,} lines have not the "
                f"{columns} fields of the first line, so that this is no table of them. Give a "
                "CSV whose lines all have the fields that its first line names."
            )
