"""Streams handed to native parsers: nothing of theirs outlives its use.

Arrow reads a CSV ahead in a thread of its own. A process that ends while that thread is inside
Python is aborted, whatever it had to say.
"""

from __future__ import annotations

import codecs
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from musicbox_env.ingest.spelling.dialect import Rewritten, Source

LONGEST_WAIT: Final = 20.0
"""Seconds; a read that takes longer than this hangs."""


def _as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 as Windows-1252."""
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return bad.decode("cp1252", errors="backslashreplace"), error.end


codecs.register_error("musicbox-windows-1252", _as_windows_1252)


class Utf8Stream(Rewritten):
    """A stream as UTF-8: bytes that are none are read as Windows-1252.

    Arrow refuses a whole file for a malformed row that is no UTF-8.
    """

    def __init__(self, stream: Source) -> None:
        """Take a stream of bytes."""
        super().__init__(stream)
        self._decoder = codecs.getincrementaldecoder("utf-8")("musicbox-windows-1252")
        self._cut = False

    def _changed(self, data: bytes, last: bool) -> bytes:
        if not self._cut and data.isascii():
            return data
        text = self._decoder.decode(data, last)
        self._cut = self._decoder.getstate()[0] != b""
        return text.encode()


class _Feed:
    """A stream that ends when it is shut."""

    def __init__(self, stream: Source, look: Callable[[bytes], object]) -> None:
        self._stream, self._look = stream, look
        self._lock = threading.Lock()
        self._shut = False

    def read(self, size: int) -> bytes:
        with self._lock:
            data = b"" if self._shut else self._stream.read(size)
        self._look(data)
        return data

    def shut(self) -> None:
        """End the stream, once the read that runs has ended."""
        with self._lock:
            self._shut = True


class _Tap:
    """A feed as Arrow holds it: as long as this lives, one of its threads may read."""

    closed = False

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed

    def read(self, size: int = -1, /) -> bytes:
        feed = self._feed
        # An error keeps the frames that it came through; none of them may keep this alive.
        del self
        return feed.read(size)

    def close(self) -> None:
        """Leave the stream to whoever opened it."""

    def readable(self) -> bool:
        return True


class _Batches(Iterator[pa.RecordBatch]):
    """Batches of a reader, none once it is let go."""

    def __init__(self) -> None:
        self.reader: pa.RecordBatchReader | None = None

    def __next__(self) -> pa.RecordBatch:
        if self.reader is None:
            raise StopIteration
        return self.reader.read_next_batch()


@contextmanager
def read_ahead(
    stream: Source,
    open_reader: Callable[[pa.NativeFile], pa.RecordBatchReader],
    look: Callable[[bytes], object],
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Batches that a reader makes of a stream; at the end of the block no thread reads any more.

    Args:
        stream: What is read.
        open_reader: Makes the reader. No function written in Python: its frame would hold the
            stream for as long as an error is known.
        look: Receives what was read, before it is parsed; may raise.
    """
    feed = _Feed(Utf8Stream(stream), look)
    tap = _Tap(feed)
    gone = threading.Event()
    weakref.finalize(tap, gone.set)
    batches = _Batches()
    try:
        batches.reader = open_reader(pa.PythonFile(tap, mode="r"))
        yield batches
    finally:
        feed.shut()
        batches.reader = None
        del tap
        gone.wait(LONGEST_WAIT)
