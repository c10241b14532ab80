"""Work in several processes, which end with the one that started them, however that ends."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Protocol

SIZE_PER_WORKER: Final = 48 << 20
"""Bytes read in the half second that a process takes to start; of less, it would find none left."""

GUARD: Final = (
    'A script of your own needs `if __name__ == "__main__":` before what it does, since worker '
    "processes import it; or pass workers=1."
)


@dataclass(frozen=True)
class Piece:
    """A piece of work that any process can do.

    Attributes:
        name: What it is, for messages; no other has the same.
        work: A function of a module, called with the arguments and with what gets the progress.
        arguments: What it gets. Paths are absolute.
        size: Its whole progress, in bytes of files.
        finds: A file that has to lie under the same path wherever the piece is done.
        reads: Files and folders that it reads, which may be sent.
        adds_to: A folder to which it adds files.
    """

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    size: int
    finds: Path | None = None
    reads: tuple[Path, ...] = ()
    adds_to: Path | None = None


class Spread(Protocol):
    """Does pieces of work, side by side where that can be."""

    def __call__(
        self, pieces: Sequence[Piece], progress: Callable[[int], object]
    ) -> Iterator[tuple[int, Any]]:
        """The number of each piece and its result, as they end."""


class Processes(ExitStack):
    """A `Spread` over processes of this machine, this one among them; a context manager."""

    def __init__(self, workers: int | None) -> None:
        """Begin with this process; None is as many as there are cores, where it pays."""
        super().__init__()
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __call__(
        self, pieces: Sequence[Piece], progress: Callable[[int], object]
    ) -> Iterator[tuple[int, Any]]:
        """See `Spread`: others work from the first piece on, this process from the last."""
        workers = self._workers
        if workers is None:
            sizes = sum(piece.size for piece in pieces)
            workers = min(os.cpu_count() or 1, 1 + sizes // SIZE_PER_WORKER)
        if self._pool is None and min(workers, len(pieces)) > 1:
            self._pool = self.enter_context(worker_pool(min(workers, len(pieces)) - 1))
        if self._pool is None:
            for number, piece in enumerate(pieces):
                yield number, piece.work(*piece.arguments, progress)
            return
        futures = [self._pool.submit(piece.work, *piece.arguments, _unseen) for piece in pieces]
        others = {future: number for number, future in enumerate(futures)}
        for number, piece in reversed(list(enumerate(pieces))):
            if not futures[number].cancel():
                continue
            del others[futures[number]]
            yield number, piece.work(*piece.arguments, progress)
            for future in [future for future in others if future.done()]:
                progress(pieces[others[future]].size)
                yield others.pop(future), future.result()
        for future in as_completed(others):
            progress(pieces[others[future]].size)
            yield others[future], future.result()


def _unseen(done: int) -> None:
    """The progress of another process."""


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
            f"with fewer --workers; it goes on from what is done. {GUARD}"
        ) from error
    except BaseException:
        own_end.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        own_end.close()
        ended.close()


def require_no_import() -> None:
    """Refuse to be called while a worker process imports the script that started it.

    The script would begin its work anew in each worker.

    Raises:
        RuntimeError: The script has no `if __name__ == "__main__":`.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("__mp_main__", "<module>"):
            raise RuntimeError(f"A worker process imports this script, and began it anew. {GUARD}")
        frame = frame.f_back


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
