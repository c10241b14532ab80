"""How a text file is written: its encoding, what stands before the header, and its CSV dialect.

One detection for every text input. It looks at the first bytes alone; that quotes are escaped by
a backslash may show only later, so `StandardQuotes` looks for it in the whole stream.
"""

from __future__ import annotations

import codecs
import csv
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from musicbox_env.ingest.spelling.headers import MAX_PREAMBLE, VALUE, find_header

BYTE_ORDER_MARK: Final = codecs.BOM_UTF8
DELIMITERS: Final = ",;\t|"
LINES_LOOKED_AT: Final = 150
MAX_HEADER_LINES: Final = 100
"""Lines that the names of a header may take, which spreadsheets break within cells."""
_SEP: Final = re.compile(r'^\s*"?sep=([,;|\t]|\\t)"?\s*$', re.IGNORECASE)
_COMMENT: Final = re.compile(r"^\s*(#|//|--|%)\s*")
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


OR_WINDOWS_1252: Final = "musicbox-windows-1252"
"""Name of how bytes that are no UTF-8 are decoded."""


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 as Windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return bad.decode("cp1252", errors="backslashreplace"), error.end


codecs.register_error(OR_WINDOWS_1252, _as_windows_1252)


def encoding_of(head: bytes) -> str | None:
    r"""The encoding of text by its first bytes; None for what is no text.

    >>> encoding_of("name".encode("utf-16")), encoding_of(b"name"), encoding_of(b"PAR1\0")
    ('utf-16', 'utf-8', None)
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" not in head:
        return "utf-8"
    even, odd = head[0:1000:2], head[1:1000:2]
    for zeros, letters, name in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        # UTF-16 without a mark: nearly every letter of a header fits in one byte.
        if len(head) > 3 and zeros.count(0) > 0.9 * len(zeros) and not letters.count(0):
            return name
    return None


def decoded(data: bytes) -> str:
    """The text of a whole file, without its byte order mark.

    Raises:
        UnicodeDecodeError: It is no text.
    """
    return data.decode(encoding_of(data) or "utf-8")


class Source(Protocol):
    """Anything that bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes; empty at the end."""
        ...


class Rewritten(ABC):
    """A stream that is changed on its way; it gives no more bytes at a time than are asked for."""

    closed = False

    def __init__(self, stream: Source) -> None:
        """Read from this stream."""
        self._stream = stream
        self._ready = b""
        self._ended = False

    @abstractmethod
    def _changed(self, data: bytes, last: bool) -> bytes:
        """What becomes of the next bytes; some may be kept until there are more."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes, all if it is negative; empty at the end."""
        # Nothing asked for is no end.
        while size and not self._ended and (size < 0 or not self._ready):
            data = self._stream.read(size)
            self._ended = not data
            self._ready += self._changed(data, self._ended)
        if size < 0 or len(self._ready) <= size:
            given, self._ready = self._ready, b""
        else:
            given, self._ready = self._ready[:size], self._ready[size:]
        return given

    def close(self) -> None:
        """Leave the stream to whoever opened it."""
        self._ended = True

    def readable(self) -> bool:
        """Say that it can be read."""
        return True


class Utf8(Rewritten):
    """Text in another encoding, as UTF-8; what cannot be decoded gets a replacement mark."""

    def __init__(self, stream: Source, encoding: str) -> None:
        """Read a stream in this encoding."""
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")

    def _changed(self, data: bytes, last: bool) -> bytes:
        return self._decoder.decode(data, last).encode()


class NotUtf8Error(UnicodeError):
    """Text is in no encoding that is known; the message names the byte and its place."""


class StrictUtf8(Rewritten):
    """UTF-8 up to the first byte that is none, at which reading fails.

    Attributes:
        bytes_refused: How many bytes were read from that one on.
    """

    def __init__(self, stream: Source, place: int = 0) -> None:
        """Read what should be UTF-8 from this place of a file on."""
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._place, self.bytes_refused = place, 0
        self._failure: NotUtf8Error | None = None

    def _changed(self, data: bytes, last: bool) -> bytes:
        if self._failure is not None:
            self.bytes_refused += len(data)
            raise self._failure
        begun = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(data)
        except UnicodeDecodeError as error:
            place = self._place - begun + error.start
            self._failure = NotUtf8Error(
                f"byte 0x{error.object[error.start]:02X} at place {place:,} is no UTF-8; if the "
                "text is Windows-1252, save it as UTF-8"
            )
            good = max(error.start - begun, 0)
            self.bytes_refused = len(data) - good
            data = data[:good]
        self._place += len(data)
        return data


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written.

    Attributes:
        delimiter: Between fields.
        quote: Around fields; None where quotes are letters like any other.
        backslash_quotes: Whether a quote within a quoted field follows a backslash.
        backslash_delimiters: Whether a delimiter within a field does.
        preamble: Lines before the header.
        header: Fields of the header, without outer blanks.
        named: Whether a line holds the header; else it is known what the fields are.
        header_lines: Lines of the header: names within quotes may hold line ends.
    """

    delimiter: str
    quote: str | None
    backslash_quotes: bool
    backslash_delimiters: bool
    preamble: int
    header: tuple[str, ...]
    named: bool = True
    header_lines: int = 1

    @property
    def lines_above(self) -> int:
        """Lines before the first row."""
        return self.preamble + self.named * self.header_lines


class StandardQuotes(Rewritten):
    r"""A CSV whose quotes may be escaped by a backslash, with quotes doubled in place of that.

    The first escaped quote may come after millions of lines: until then nothing is changed.
    """

    def __init__(self, stream: Source, dialect: Dialect) -> None:
        """Read a CSV of this dialect."""
        super().__init__(stream)
        self._dialect = dialect
        self._escaped = dialect.backslash_quotes
        self._kept = b""

    def _changed(self, data: bytes, last: bool) -> bytes:
        if self._kept:
            data, self._kept = self._kept + data, b""
        if not last and data.endswith(b"\\"):
            # What it escapes comes with the next bytes.
            escapes = len(data) - len(data.rstrip(b"\\"))
            if escapes % 2:
                data, self._kept = data[:-1], data[-1:]
        dialect = self._dialect
        if dialect.quote is None or b"\\" not in data:
            return data
        if dialect.backslash_delimiters:
            return data.replace(b"\\N", b"")
        quote = dialect.quote.encode()
        if not self._escaped and b"\\" + quote in data:
            lines = [s.decode(errors="replace") for s in data.splitlines()[1:-1] if b"\\" in s]
            self._escaped = backslash_quotes(lines, dialect.delimiter, dialect.quote)
        if not self._escaped:
            return data
        both = {b"\\\\": b"\\", b"\\" + quote: quote + quote}
        return re.sub(rb"\\\\|\\" + quote, lambda found: both[found[0]], data)


def lines_of(text: bytes) -> list[str]:
    """Lines as rows of a CSV are counted; `str.splitlines` ends them at marks within titles too."""
    return [line.decode(errors=OR_WINDOWS_1252) for line in text.splitlines()]


def detect_dialect(head: bytes) -> Dialect:
    """Tell how a CSV is written by its first bytes, UTF-8."""
    lines = lines_of(head.removeprefix(BYTE_ORDER_MARK))
    if len(lines) > 2 and not head.endswith((b"\n", b"\r")):
        lines.pop()
    lines = lines[:LINES_LOOKED_AT]
    told = next((m[1] for line in lines[:MAX_PREAMBLE] if (m := _SEP.match(line))), None)
    delimiters = DELIMITERS if told is None else told.replace("\\t", "\t")
    readings = [_reading(lines, delimiter) for delimiter in delimiters]
    joined, place, number = _joined(lines)
    if number > 1:
        of_joined = (_reading(joined, delimiter) for delimiter in delimiters)
        readings += [
            (likely, replace(dialect, header_lines=number))
            for likely, dialect in of_joined
            if dialect.preamble == place and dialect.quote
        ]
    return max(readings, key=lambda reading: reading[0])[1]


def _joined(lines: Sequence[str]) -> tuple[list[str], int, int]:
    """Lines of which those of the first open quote are one, its place, and how many it is of.

    The line ends within become blanks: of names they say nothing.
    """
    quotes = [line.count('"') for line in lines]
    begin = next((p for p, number in enumerate(quotes[:MAX_PREAMBLE]) if number % 2), len(lines))
    behind = next(
        (
            p + 1
            for p in range(begin + 1, min(begin + MAX_HEADER_LINES, len(lines)))
            if sum(quotes[begin : p + 1]) % 2 == 0
        ),
        begin,
    )
    whole = [" ".join(lines[begin:behind])] if behind > begin else []
    return [*lines[:begin], *whole, *lines[behind:]], begin, behind - begin


def _reading(lines: Sequence[str], delimiter: str) -> tuple[tuple[bool, float, int], Dialect]:
    """How likely lines are cut by a delimiter, as a key to sort by, and the dialect if so."""
    quote, rows = _quoting(lines, delimiter)
    escaped = quote is not None and backslash_quotes(lines, delimiter, quote)
    by_escape = not escaped and _backslash_delimiters(lines, delimiter, quote)
    if escaped or by_escape:
        rows = [cut(line, delimiter, quote, escape=True) for line in lines]
    place, fields = _find_header(lines, rows)
    sizes = [len(row or ()) for line, row in zip(lines, rows, strict=True) if line.strip()]
    same = sum(size == len(fields) for size in sizes) / max(len(sizes), 1)
    named = len(fields) > 1 and not any(map(VALUE.search, fields))
    likely = (named, round(same, 1) if len(fields) > 1 else 0.0, len(fields))
    return likely, Dialect(delimiter, quote, escaped, by_escape, place, fields)


def cut(line: str, delimiter: str, quote: str | None, *, escape: bool = False) -> list[str] | None:
    """Fields of one line; None where its quotes do not fit."""
    if quote is None:
        return next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE), [])
    try:
        found = csv.reader(
            [line],
            delimiter=delimiter,
            quotechar=quote,
            escapechar="\\" if escape else None,
            strict=True,
        )
        return next(found, [])
    except csv.Error:
        return None


def _quoting(lines: Sequence[str], delimiter: str) -> tuple[str | None, list[list[str] | None]]:
    """Which quote stands around fields, and the lines cut by it."""
    plain = [cut(line, delimiter, None) or [] for line in lines]
    usual = Counter(map(len, filter(None, plain))).most_common(1)
    even = [row for row in plain if usual and len(row) == usual[0][0]]
    columns = list(zip(*even, strict=True))
    for column in columns:
        filled = [field for field in column[1:] if field]
        if len(filled) > 1 and all(len(f) > 1 and f[0] == f[-1] == "'" for f in filled):
            return "'", [cut(line, delimiter, "'") for line in lines]
    quoted = [cut(line, delimiter, '"') for line in lines]
    spoilt = [line for line, row in zip(lines, quoted, strict=True) if row is None]
    wrapped = sum(len(f) > 1 and f[0] == f[-1] == '"' for row in plain for f in row)
    # Lines that quotes spoil, and that are whole without, among hardly any quoted fields. Between
    # commas somebody would have quoted the titles that hold one.
    fits = delimiter != "," and all(
        len(cut(line, delimiter, None) or ()) == usual[0][0] for line in spoilt if usual
    )
    if spoilt and fits and wrapped <= len(spoilt) and not any('\\"' in line for line in spoilt):
        return None, list(plain)
    return '"', quoted


def backslash_quotes(lines: Sequence[str], delimiter: str, quote: str) -> bool:
    """Whether more lines can be read if a backslash escapes the quote behind it."""
    some = [line for line in lines if "\\" + quote in line]
    return _read(some, delimiter, quote, True) > _read(some, delimiter, quote, False)


def _read(lines: Sequence[str], delimiter: str, quote: str, escape: bool) -> int:
    return sum(cut(line, delimiter, quote, escape=escape) is not None for line in lines)


def _backslash_delimiters(lines: Sequence[str], delimiter: str, quote: str | None) -> bool:
    """Whether more lines have equally many fields if a backslash escapes the delimiter behind."""
    if quote is None or not any("\\" + delimiter in line for line in lines):
        return False
    plain, escaped = (
        Counter(len(cut(line, delimiter, quote, escape=escape) or ()) for line in lines)
        for escape in (False, True)
    )
    return escaped.most_common(1)[0][1] > plain.most_common(1)[0][1]


def _find_header(
    lines: Sequence[str], rows: Sequence[list[str] | None]
) -> tuple[int, tuple[str, ...]]:
    """Lines before the header, and its fields.

    Before it may stand blank lines, ``sep=``, comments, and titles.
    """
    fields = [tuple(field.strip() for field in row or ()) for row in rows]
    sizes = [len(row) for line, row in zip(lines, fields, strict=True) if row and line.strip()]
    usual = Counter(sizes).most_common(1)[0][0] if sizes else 0
    begin = next(
        (
            place
            for place, line in enumerate(lines[:MAX_PREAMBLE])
            if line.strip() and not _SEP.match(line) and not _COMMENT.match(line)
        ),
        0,
    )
    if begin and usual > 1 and any(map(VALUE.search, fields[begin])):
        # No names here: they may be a comment themselves, the last one.
        above = next((p for p in reversed(range(begin)) if lines[p].strip()), 0)
        names = fields[above]
        if len(names) == usual and _COMMENT.match(lines[above]):
            return above, (_COMMENT.sub("", names[0]), *names[1:])
    place = find_header(fields, usual, begin)
    return place, fields[place] if lines else ()
