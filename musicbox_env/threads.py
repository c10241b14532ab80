"""Work that a thread does beside its caller; none outlives a block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items, none of them None; the next is made while the caller has one."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


class Behind(ExitStack):
    """Does one call after the other on a thread, in order; a context manager.

    At most one call waits or runs, so that memory holds what one needs. What a call raises, the
    next one raises, or the end of the block.
    """

    def __init__(self) -> None:
        """Begin a thread with the first call."""
        super().__init__()
        self._pool = self.enter_context(ThreadPoolExecutor(1))
        self._last: Future[object] | None = None
        self.push(self._end)

    def do(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call this when the call before has ended."""
        self.wait()
        self._last = self._pool.submit(work, *args, **kwargs)

    def wait(self) -> None:
        """Wait for the last call to end."""
        if (last := self._last) is not None:
            self._last = None
            last.result()

    def _end(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
