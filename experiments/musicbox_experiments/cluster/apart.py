"""Calls that a signal ends, whatever the library that is called does about signals."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


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
