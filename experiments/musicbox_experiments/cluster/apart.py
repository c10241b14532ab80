"""A library kept apart: calls of it that a signal ends, and what its threads print."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TextIO


def call_apart(
    seconds: float | None, work: Callable[..., object], *given: Any, **options: Any
) -> None:
    """Call in another thread, and leave it there where it takes too long or a signal comes.

    For a library that in the main thread holds signals back, and sets handlers of its own.

    Raises:
        TimeoutError: It took longer.
    """
    done: Future[object] = Future()

    def call() -> None:
        try:
            done.set_result(work(*given, **options))
        except BaseException as error:
            done.set_exception(error)
        threading.Event().wait()  # processes that it started end with the thread that started them

    threading.Thread(target=call, daemon=True).start()
    done.result(seconds)


class OutputOfThisThread:
    """A stream for the thread that makes it; what other threads print goes to standard error.

    For `contextlib.redirect_stdout`, and a library that prints amid tables.
    """

    def __init__(self, stream: TextIO) -> None:
        """Take the stream."""
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write a text where it belongs."""
        own = threading.get_ident() == self._thread
        return (self._stream if own else sys.stderr).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
