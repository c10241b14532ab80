"""Text handed to native parsers: no thread of theirs ever reads from Python.

Arrow reads streams ahead in threads of its own. A process that ends while one of them is inside
Python is aborted, whatever it had to say.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from musicbox_env.ingest.spelling.dialect import OR_WINDOWS_1252, Rewritten, Source
from musicbox_env.threads import ahead

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Let allocations fail that would take the process so many bytes beyond what it has now.

    A native parser allocates what a file says. For processes that read sources on one thread; on
    systems without such a limit nothing is bounded.

    Raises:
        MemoryError: The block asked for more.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = pages * resource.getpagesize() + most
    lowest = size if soft == resource.RLIM_INFINITY else min(soft, size)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Utf8Stream(Rewritten):
    """A stream as UTF-8: bytes that are none are read as Windows-1252.

    Arrow refuses a whole file for a malformed row that is no UTF-8.
    """

    def __init__(self, stream: Source) -> None:
        """Take a stream of bytes."""
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8")(OR_WINDOWS_1252)
        self._cut = False

    def _changed(self, data: bytes, last: bool) -> bytes:
        if not self._cut and data.isascii():
            return data
        text = self._decoder.decode(data, last)
        self._cut = self._decoder.getstate()[0] != b""
        return text.encode()


def blocks_of_lines(
    stream: Source, size: int, skip: int, look: Callable[[bytes], object]
) -> Generator[pa.Buffer, None, None]:
    """Whole lines of a text, some ``size`` bytes at a time, read ahead by one block.

    The blocks are memory of Arrow's: none of its threads need ever enter Python to let go of one.

    Args:
        stream: What is read.
        size: Bytes of a block, about.
        skip: Lines at the beginning to leave out.
        look: Receives what was read, before it is parsed; may raise.
    """
    yield from ahead(_blocks(stream, size, skip, look))


def _blocks(
    stream: Source, size: int, skip: int, look: Callable[[bytes], object]
) -> Generator[pa.Buffer, None, None]:
    rest = b""
    while data := stream.read(size):
        look(data)
        end = (data.rfind(b"\n") if b"\n" in data else data.rfind(b"\r", 0, -1)) + 1
        if end == 0:
            rest += data
            continue
        begun, rest = rest, data[end:]
        if skip:
            begun, skip = _without_lines(begun + data[:end], skip)
            end = 0
        if begun or end:
            yield _joined(begun, memoryview(data)[:end])
    if skip:
        rest, skip = _without_lines(rest, skip)
    if rest:
        yield _joined(rest, b"")


def _without_lines(text: bytes, count: int) -> tuple[bytes, int]:
    """A text without its first lines, and how many more are to be left out of what follows."""
    place = 0
    while count and (end := _LINE_END.search(text, place)):
        place, count = end.end(), count - 1
    return text[place:] if not count else b"", count


def _joined(first: bytes, second: bytes | memoryview) -> pa.Buffer:
    block = pa.allocate_buffer(len(first) + len(second))
    view = memoryview(block).cast("B")
    view[: len(first)] = first
    view[len(first) :] = second
    return block
