"""Pools of worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any


class _Pool(ProcessPoolExecutor):
    """Starts workers that an interrupt from the keyboard, which all processes get, passes by."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with _interrupts_blocked():  # a worker inherits this, also while it starts
            return super().submit(fn, *args, **kwargs)


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., object] | None = None, *initargs: Any
) -> Iterator[ProcessPoolExecutor]:
    """Processes that work while the block runs.

    Where the block raises, tasks that have not begun are cancelled and workers end at once; so they
    do where this process is killed.

    Args:
        workers: Most processes.
        initializer: Called in each process before its first task.
        initargs: Its arguments, as `multiprocessing.Process` takes them: queues included.

    Raises:
        OSError: A worker was killed.
    """
    # A forked worker could inherit a lock that a thread of Arrow or torch holds.
    context = multiprocessing.get_context("spawn")
    ended, own_end = context.Pipe(duplex=False)
    pool = _Pool(workers, context, _begin_worker, (ended, initializer, initargs))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OSError(
            "A worker process was killed, perhaps for lack of memory. Run the same command again "
            "with fewer --workers; it goes on from what is done."
        ) from error
    except BaseException:
        own_end.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        own_end.close()
        ended.close()


def _begin_worker(
    parent: Connection, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with(parent: Connection) -> None:
    """End this process when the other end of a pipe, which the parent alone holds, is closed."""
    wait([parent])
    os._exit(1)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
