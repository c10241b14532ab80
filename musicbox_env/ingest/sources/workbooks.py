"""Excel workbooks: each sheet a table, read row by row."""

from __future__ import annotations

import datetime
import importlib.util
import re
import warnings
import zipfile
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa

from musicbox_env.errors import InputError, reason, shown
from musicbox_env.ingest.sources.bounds import MOST_AT_ONCE, Budget
from musicbox_env.ingest.sources.native import bounded_memory
from musicbox_env.ingest.sources.unpack import decoding
from musicbox_env.ingest.sources.xml_parts import MEND, TimedFile, check_parts
from musicbox_env.ingest.spelling.headers import MAX_PREAMBLE, find_header
from musicbox_env.ingest.tables import (
    SAMPLE_ROWS,
    PassedOver,
    Rows,
    Table,
    refuse_repeated,
    text_codes,
)

SPREADSHEET: Final = re.compile(rb"\[Content_Types\]\.xml|xl/workbook\.xml|xl/worksheets/")
"""What the beginning of a workbook shows, a damaged one too."""
ROWS_A_BLOCK: Final = 16_384
Line = tuple[int, list[str | None]]
"""Number and texts of a row."""


def is_workbook(archive: zipfile.ZipFile) -> bool:
    """Whether a zip is a workbook of Excel."""
    names = archive.namelist()
    return "[Content_Types].xml" in names and any(name.startswith("xl/") for name in names)


def workbook_tables(
    archive: zipfile.ZipFile, name: str, budget: Budget
) -> Iterator[Table | PassedOver]:
    """Each sheet of a workbook that holds anything.

    Raises:
        InputError: The workbook is damaged.
    """
    members = archive.infolist()
    budget.check_members(len(members), name)
    budget.check_stated(sum(info.file_size for info in members), archive.start_dir, name)
    if importlib.util.find_spec("openpyxl") is None:
        yield PassedOver(name, f"is an Excel workbook: `pip install openpyxl`, or {MEND}")
        return
    import openpyxl

    check_parts(archive, name, budget)
    file = TimedFile(cast(Any, archive.fp), name, budget)
    try:
        with _within_memory(name, budget), warnings.catch_warnings(), decoding(name):
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(
                cast(Any, file), read_only=True, data_only=True, keep_links=False
            )
    except InputError as error:
        budget.check_time(name)  # openpyxl hides that it was refused
        why = reason(error.__cause__ or error)
        raise InputError(
            f"{name}: is an Excel workbook that cannot be read ({why}); {MEND}."
        ) from error
    for sheet in book.worksheets:
        budget.check_time(name)
        table = SheetTable(f"{name}:{shown(sheet.title)}", sheet, budget)
        yield table if table.columns else PassedOver(table.name, "is an empty sheet")


@contextmanager
def _within_memory(name: str, budget: Budget) -> Iterator[None]:
    """Refuse a workbook whose parts take more memory than those of any log.

    Raises:
        InputError: They do.
    """
    try:
        with bounded_memory(MOST_AT_ONCE):
            yield
    except MemoryError:
        raise InputError(budget.too_much(name, f"more than {MOST_AT_ONCE:,} bytes")) from None


class SheetTable:
    """A sheet; its columns are named by the first row that is not empty, titles aside."""

    def __init__(self, name: str, sheet: Any, budget: Budget) -> None:
        """Read the names of the columns."""
        self.name, self._sheet, self._budget = name, sheet, budget
        # What a sheet states of its size may be anything.
        sheet.reset_dimensions()
        self._reading: Generator[Line, None, None] | None = None
        lines = self._some(self._lines(), MAX_PREAMBLE)
        self.close()
        rows = [tuple((text or "").strip() for text in texts) for _, texts in lines]
        width = max(map(len, rows), default=0)
        place = find_header([row + ("",) * (width - len(row)) for row in rows], width)
        self._header_line, self.columns = (lines[place][0], rows[place]) if lines else (0, ())

    @property
    def where(self) -> str:
        """Below the header, as anywhere."""
        return ""

    def sample(self) -> dict[str, list[str]]:
        """The first values of each column, empty where there is none."""
        rows = [texts for _, texts in self._some(self._rows_below(), SAMPLE_ROWS)]
        self.close()
        return {
            name: [texts[place] or "" if place < len(texts) else "" for texts in rows]
            for place, name in enumerate(self.columns)
        }

    def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.close()

    def _some(self, lines: Iterator[Line], most: int) -> list[Line]:
        with _within_memory(self.name, self._budget):
            return list(islice(lines, most))

    def _lines(self) -> Iterator[Line]:
        self.close()
        self._reading = self._filled_lines()
        return self._reading

    def _rows_below(self) -> Iterator[Line]:
        """Rows below the header."""
        return (row for row in self._lines() if row[0] > self._header_line)

    def _filled_lines(self) -> Generator[Line, None, None]:
        """Numbers and texts of the rows that are not empty."""
        rows = self._sheet.iter_rows(values_only=True)
        for line in count(1):
            place = f"behind row {line - 1:,}"
            with decoding(self.name, place.__str__), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = next(rows, None)
            if values is None:
                return
            self._budget.check_time(self.name)
            texts = self._texts(values, line)
            if any(texts):
                yield line, texts

    def _texts(self, values: Iterable[Any], line: int) -> list[str | None]:
        most = self._budget.bounds.characters
        for value in values:
            if isinstance(value, str) and len(value) > most:
                raise InputError(
                    f"{self.name}: a cell of row {line:,} holds {len(value):,} characters, more "
                    f"than the {most:,} of any sheet; {MEND}."
                )
        return [_text(value) for value in values]

    def rows(self, wanted: Sequence[str], *, as_codes: Collection[str] = ()) -> Iterator[Rows]:
        """Stream the wanted columns; a row's line is its number in the sheet."""
        refuse_repeated(self, wanted)
        places = [self.columns.index(name) for name in wanted]
        lines = self._rows_below()
        while block := self._some(lines, ROWS_A_BLOCK):
            columns: dict[str, pa.Array] = {}
            for name, place in zip(wanted, places, strict=True):
                values = [texts[place] if place < len(texts) else None for _, texts in block]
                column = pa.array(values, pa.string())
                columns[name] = text_codes(column) if name in as_codes else column
            lines_read = np.array([line for line, _ in block], np.int64)
            yield Rows(columns, lines_read, unit="row")


def _text(value: Any) -> str | None:
    """The value of a cell as a CSV would hold it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value).encode(errors="backslashreplace").decode()
