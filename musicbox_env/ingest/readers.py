"""Tables of text in any wrapping: recognized from the content, streamed, never extracted.

A source file may be a CSV, JSON, a workbook, one of these packed by gzip, bzip2 or Zstandard, a
tar of many (packed or not), a zip of many, or Parquet; its name is not looked at. Members of an
archive are read as a stream and never written to a path that the archive names. Whatever else turns
up is handed back as `PassedOver`, so that the caller decides whether it is an error (a file named
by the user) or not (one of a folder).
"""

from __future__ import annotations

import zipfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from musicbox_env.errors import shown
from musicbox_env.ingest.json_tables import JsonTable, looks_like_json
from musicbox_env.ingest.sources import unpack
from musicbox_env.ingest.sources.bounds import BOUNDS, Bounds, Budget
from musicbox_env.ingest.sources.csv_tables import CsvTable
from musicbox_env.ingest.sources.files import CountedFile, OnBytes, ignore_bytes
from musicbox_env.ingest.sources.parquet import ParquetTable
from musicbox_env.ingest.sources.workbooks import SPREADSHEET, is_workbook, workbook_tables
from musicbox_env.ingest.spelling.dialect import Utf8, encoding_of
from musicbox_env.ingest.tables import (
    HEAD_BYTES,
    DamagedFileError,
    PassedOver,
    PeekedStream,
    Table,
)

HEADER_IS_CUT: Final = (
    f"begins with a line of more than {HEAD_BYTES:,} bytes, which names the columns of no table of "
    "plays: leave out the columns that are none of plays, and see that lines end"
)
BROKEN_WORKBOOK: Final = (
    "is a damaged workbook: fetch it again, or where it still opens save the sheet as CSV"
)
Tables = Generator[Table | PassedOver, None, None]


@contextmanager
def open_tables(
    path: Path,
    *,
    on_bytes: OnBytes = ignore_bytes,
    scratch: Path | None = None,
    bounds: Bounds = BOUNDS,
) -> Iterator[Tables]:
    """Give the tables of one source file, one after the other; at the end none is read any more.

    Args:
        path: The file.
        on_bytes: Receives how many bytes of the file were just read.
        scratch: Folder for unnamed temporary files: Parquet inside an archive must be seekable.
        bounds: How far it is unwrapped and read.

    Raises:
        InputError: The file is cut short, broken or beyond the bounds, while its tables are read.
    """
    name = shown(path)
    with CountedFile(path, on_bytes) as file:
        opener = _Opener(scratch, Budget(name, file.num_bytes, bounds))
        with closing(opener.tables(PeekedStream(file), name)) as tables:
            yield tables


@dataclass(frozen=True)
class _Opener:
    """Recognizes streams by their first bytes, and gives their tables."""

    scratch: Path | None
    budget: Budget

    def tables(
        self, stream: PeekedStream, name: str, layer: int = 1, *, member: bool = False
    ) -> Tables:
        """The tables of a stream inside ``layer - 1`` wrappings, which may be an archive's."""
        head = stream.head
        if why := _why_no_table(head):
            yield PassedOver(name, why)
        elif unpack.is_packed(head):
            if layer > self.budget.bounds.wrappings:
                yield PassedOver(name, f"is wrapped more than {layer - 1} times over: unpack it")
            else:
                inner = unpack.unpacked(stream, name, self.budget, layer)
                yield from self.tables(inner, name, layer + 1, member=member)
        elif head.startswith(unpack.PARQUET):
            with unpack.seekable(stream, self.scratch) as file:
                yield from _opened(ParquetTable(name, file, self.budget))
        elif head.startswith(unpack.ZIP):
            with unpack.seekable(stream, self.scratch) as file:
                yield from self._zip(file, name, layer, member=member)
        elif unpack.is_tar(head):
            if member:
                yield PassedOver(name, "is an archive within an archive: unpack the outer one")
            else:
                yield from self._members(
                    unpack.tar_members(stream, name, self.budget, layer), layer
                )
        elif (encoding := encoding_of(head)) is not None and not encoding.startswith("utf-8"):
            yield from self.tables(PeekedStream(Utf8(stream, encoding)), name, layer, member=member)
        elif looks_like_json(head):
            table = JsonTable(name, stream)
            yield from _opened(table)
            yield from table.unread
        else:
            lines = CsvTable(name, stream, self.budget)
            if lines.header_is_cut:
                yield PassedOver(name, HEADER_IS_CUT)
            else:
                yield from _opened(lines)

    def _zip(self, file: IO[bytes], name: str, layer: int, *, member: bool) -> Tables:
        try:
            archive = unpack.open_zip(file, name)
        except DamagedFileError:
            # What is cut off loses its list of members, which comes last.
            file.seek(0)
            if SPREADSHEET.search(file.read(HEAD_BYTES)):
                yield PassedOver(name, BROKEN_WORKBOOK)
                return
            raise
        with archive:
            if is_workbook(archive):
                yield from self._workbook(archive, name)
            elif member:
                yield PassedOver(name, "is an archive within an archive: unpack the outer one")
            else:
                yield from self._members(
                    unpack.zip_members(archive, name, self.budget, layer), layer
                )

    def _members(self, members: Iterable[tuple[str, PeekedStream | str]], layer: int) -> Tables:
        for inside, content in members:
            if isinstance(content, str):
                yield PassedOver(inside, content)
            else:
                yield from self.tables(content, inside, layer + 1, member=True)

    def _workbook(self, archive: zipfile.ZipFile, name: str) -> Tables:
        for table in workbook_tables(archive, name, self.budget):
            if isinstance(table, PassedOver):
                yield table
            else:
                yield from _opened(table)


def _opened(table: Table) -> Tables:
    with closing(table):
        yield table


def _why_no_table(head: bytes) -> str | None:
    """Why a stream with these first bytes holds no table; None if it may."""
    if not head:
        return "is empty"
    if head.startswith(unpack.EMPTY_ZIP):
        return "is an empty archive"
    if why := unpack.named_only(head):
        return why
    wrapped = head.startswith((unpack.PARQUET, unpack.ZIP)) or unpack.is_tar(head)
    wrapped |= unpack.is_packed(head)
    if encoding_of(head) is None and not wrapped:
        return "is neither text (CSV or JSON) nor Parquet, gzip, bzip2, tar, zip or a workbook"
    return None
