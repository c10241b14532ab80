"""Which of a table's first rows names its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MAX_PREAMBLE: Final = 50
"""Rows that may stand before the header."""
VALUE: Final = re.compile(r"^[-+.,:/ \d]*\d[-+.,:/ \d]*$|\d{4}-\d\d-\d\d|\d\d?:\d\d|\S@\S")
"""What a column is hardly called: a number, a time, an address."""
Cells = Sequence[str]


def find_header(rows: Sequence[Cells], width: int, begin: int = 0) -> int:
    """Place of the row that names the columns.

    It is the first one, or stands behind titles: rows of fewer cells than the table has columns,
    rows that leave more cells empty than the names behind them, and rows that hold a value, which
    no name does, and are unlike all rows below the names.

    Args:
        rows: The first rows, without outer blanks; blank ones may have no cells.
        width: Number of columns.
        begin: The first row that may be the header.
    """
    header = begin
    for place in range(begin + 1, min(len(rows), MAX_PREAMBLE) if width > 1 else 0):
        above, row = rows[header], rows[place]
        if _names(row, width) and _is_title(above, row, rows[place + 1 :], width):
            header = place
        elif len(above) == width == _filled(row):
            break
    return header


def _is_title(above: Cells, names: Cells, below: Sequence[Cells], width: int) -> bool:
    """Whether a row is a title, given a later one that can name columns, and those below that."""
    if len(above) < width or _filled(above) < _filled(names):
        return True
    return any(_values(above)) and _values(above) not in map(_values, below)


def _names(row: Cells, width: int) -> bool:
    return len(row) == width and any(row) and not any(_values(row))


def _values(row: Cells) -> list[bool]:
    """Which cells hold what a column is hardly called."""
    return [VALUE.search(cell) is not None for cell in row]


def _filled(row: Cells) -> int:
    return sum(map(bool, row))
