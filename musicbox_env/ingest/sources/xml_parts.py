"""XML in workbooks, looked through before a parser builds trees of it."""

from __future__ import annotations

import zipfile
from typing import IO, Any, Final
from xml.parsers import expat

from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.sources.bounds import DECODED, Budget
from musicbox_env.ingest.sources.unpack import Unpacked, decoding

READ_BYTES: Final = 1 << 16
NODE_BYTES: Final = 16
"""Memory that an element or attribute takes beside its text, at the least."""
ROW: Final = " row"
"""End of the name of a row's element, behind its namespace."""
MEND: Final = "save the sheet as CSV"


def check_parts(archive: zipfile.ZipFile, name: str, budget: Budget) -> None:
    """Read all members, each as XML as far as it is, and refuse what no workbook holds.

    Raises:
        DamagedFileError: A member cannot be unpacked, or has another checksum.
        InputError: One is beyond the bounds.
    """
    for info in archive.infolist():
        inside = f"{name}:{shown(info.filename)}"
        with decoding(inside):
            content = archive.open(info)
        with content:
            _check_part(Unpacked(content, inside, budget, DECODED), inside, budget)


def _check_part(content: Unpacked, name: str, budget: Budget) -> None:
    parser, nodes = expat.ParserCreate(namespace_separator=" "), _Nodes(name, budget)
    parser.StartElementHandler, parser.EndElementHandler = nodes.begin, nodes.end
    parser.StartDoctypeDeclHandler = nodes.refuse_doctype
    is_xml = True
    while data := content.read(READ_BYTES):
        if is_xml:
            try:
                parser.Parse(data, False)
            except expat.ExpatError:
                is_xml = False  # as a picture; whoever parses it comes no further either
            nodes.count()


class _Nodes:
    """Elements and attributes of one XML file, within bounds."""

    def __init__(self, name: str, budget: Budget) -> None:
        self._name, self._budget = name, budget
        self._children = [0]
        self._uncounted = 0

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._uncounted += 1 + len(attributes)
        self._children[-1] += 1
        self._children.append(0)
        most = self._budget.bounds.depth
        if len(self._children) > most:
            self._refuse(f"holds elements nested more than {most:,} deep")

    def end(self, tag: str) -> None:
        cells, most = self._children.pop(), self._budget.bounds.cells
        if cells > most and tag.endswith(ROW):
            self._refuse(f"holds a row of {cells:,} cells, more than {most:,}")

    def count(self) -> None:
        """Take the elements since the last time from the budget."""
        self._budget.unpack(self._uncounted * NODE_BYTES, DECODED, self._name)
        self._uncounted = 0

    def refuse_doctype(self, *about: Any) -> None:
        self._refuse("declares a document type, as entities need")

    def _refuse(self, came: str) -> None:
        raise InputError(f"{self._name}: {came}, which no workbook of plays does; {MEND}.")


class TimedFile:
    """A seekable file, each reading of which may be refused for the time that all have taken."""

    def __init__(self, file: IO[bytes], name: str, budget: Budget) -> None:
        """Take a file and its name for messages."""
        self._file, self._name, self._budget = file, name, budget
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1, /) -> bytes:
        """Read bytes.

        Raises:
            InputError: The time is over.
        """
        self._budget.check_time(self._name)
        return self._file.read(size)
