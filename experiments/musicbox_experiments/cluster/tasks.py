"""Tasks, and where they run: in this process, in processes of this machine, or on a Ray cluster.

A task is a function of a module with its arguments. What it makes lies in a folder, which is
finished or can be gone on with, so that a task may be stopped and run again anywhere. The first
error stops all tasks.
"""

import errno
import multiprocessing
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from musicbox_env.errors import DISK_FULL, UserError, is_message
from musicbox_env.workers import worker_pool

Progress = Callable[[int], object]
"""Called with the units of work that were done since the last call."""
SECONDS_BETWEEN_LOOKS: Final = 0.2
AHEAD: Final = 2
"""Tasks that are known for each process of this machine, the one that it does included."""
ADDRESS: Final = re.compile(r"auto|local|(ray://)?[^\s:/]+:(?P<port>[0-9]{1,5})")
PORTS: Final = range(1, 1 << 16)
OPTION: Final = "--cluster"


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        name: What it is, for messages: "Training ddpg with seed 0".
        work: A function of a module; called with the arguments and a `Progress`.
        arguments: What it gets. Paths are absolute.
        reads: Files and folders that it reads, which are sent to nodes that lack them.
        makes: The folder that it makes, whole; None if it makes none.
        adds_to: A folder to which it adds files, and others may too.
    """

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    reads: tuple[Path, ...] = ()
    makes: Path | None = None
    adds_to: Path | None = None

    def perform(self, progress: Progress) -> Any:
        """Do the work for another process; see `explained`."""
        with self.explained():
            return self.work(*self.arguments, progress)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise errors as another process can tell them.

        Raises:
            UserError: In place of any error whose message is meant for users: where an error was
                raised does not come along to another process.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # A message of its own, with no file beside it, says all.
            own = is_message(error)
            if (
                isinstance(error, OSError)
                and error.errno in DISK_FULL
                and (error.filename or not own)
            ):
                where = error.filename or self.makes or self.adds_to
                room = f"{os.strerror(error.errno or errno.ENOSPC)} ({where})"
                raise UserError(f"{room}. Make room and run the same command again.") from error
            if own:
                raise UserError(str(error)) from error
            # Not every error can be taken apart and put together again elsewhere.
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def failed(self, error: BaseException) -> Exception:
        """What to raise where the task ended with an error."""
        kind = UserError if isinstance(error, UserError) else RuntimeError
        return kind(f"{self.name} failed: {error}")


@dataclass(frozen=True)
class Where:
    """Where tasks run.

    Attributes:
        workers: Tasks at once; 0 is one for each core.
        cluster: None for processes of this machine. ``"local"`` for a Ray cluster that is started
            here, ``"auto"`` for the one that this machine is a node of; else its address.
        run: Folder of the run, whose lock (`musicbox_env.locks.held`) this process holds; nodes
            that see the lock share the folder.
    """

    workers: int = 0
    cluster: str | None = None
    run: Path | None = None

    def __post_init__(self) -> None:
        require_address(self.cluster)

    @property
    def processes(self) -> int:
        """Processes of this machine at once."""
        return self.workers or os.cpu_count() or 1


def require_address(cluster: str | None) -> None:
    """Refuse what is no address of a cluster.

    Raises:
        ValueError: With what is expected.
    """
    found = None if cluster is None else ADDRESS.fullmatch(cluster)
    if cluster is not None and not (found and int(found["port"] or 1) in PORTS):
        raise ValueError(
            f"{OPTION} is {cluster!r}; expected auto, local, HOST:PORT or ray://HOST:PORT."
        )


def without_option(arguments: Sequence[str]) -> list[str]:
    """A command line without the option that says where it ran: it gives the same anywhere.

    >>> without_option(["--cluster", "auto", "--seeds", "3", "--cluster=local"])
    ['--seeds', '3']
    """
    found = [index for index, argument in enumerate(arguments) if argument == OPTION]
    dropped = {*found, *(index + 1 for index in found)}
    return [
        argument
        for index, argument in enumerate(arguments)
        if index not in dropped and not argument.startswith(f"{OPTION}=")
    ]


class Workers(Protocol):
    """What runs tasks while it is open.

    Attributes:
        size: Tasks at once.
    """

    size: int

    def submit(self, task: Task) -> None:
        """Let a task be run; also while `finished` goes on."""

    def finished(self) -> Iterator[tuple[Task, Any]]:
        """Each task with its result as it ends, until none is left.

        Raises:
            UserError: A task failed, by something that a user can mend.
            RuntimeError: A task failed otherwise.
        """


@contextmanager
def connected(where: Where) -> Iterator[None]:
    """The cluster, if one is named, for all workers of the block: found before work begins.

    Raises:
        UserError: The cluster cannot be used.
    """
    if where.cluster is None:
        yield
        return
    from musicbox_experiments.cluster import connection

    with connection.connected(where):
        yield


@contextmanager
def open_workers(where: Where, progress: Progress, *, most: int) -> Iterator[Workers]:
    """Workers while the block runs; where it raises, all tasks end.

    Args:
        where: Where they run.
        progress: Gets the progress of all tasks.
        most: How many tasks there will be at once.

    Raises:
        OSError: A process was killed.
        UserError: The cluster cannot be used.
    """
    if where.cluster is not None:
        from musicbox_experiments.cluster.on_ray import ray_workers

        with ray_workers(where, progress) as workers:
            yield workers
        return
    if min(where.processes, most) < 2:
        yield _ThisProcess(progress)
        return
    # A plain pipe: a queue of `multiprocessing.Manager` is a process that outlives a kill.
    reports = multiprocessing.get_context("spawn").SimpleQueue()
    size = min(where.processes, most)
    with worker_pool(size, _report_to, reports) as pool:
        yield _Processes(pool, size, reports, progress)


def run_all(
    tasks: Iterable[Task], where: Where, progress: Progress = lambda done: None, *, most: int
) -> Iterator[tuple[Task, Any]]:
    """Each of the tasks with its result, as they end; see `open_workers`.

    For processes of this machine tasks are made shortly before they run. A cluster is told of all
    at once: it may grow by what waits.
    """
    with open_workers(where, progress, most=most) as workers:
        left = iter(tasks)
        for task in islice(left, AHEAD * workers.size if where.cluster is None else None):
            workers.submit(task)
        for done in workers.finished():
            for task in islice(left, 1):
                workers.submit(task)
            yield done


class _ThisProcess:
    """One task after the other."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._waiting = progress, deque[Task]()
        self.size = 1

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def finished(self) -> Iterator[tuple[Task, Any]]:
        while self._waiting:
            task = self._waiting.popleft()
            yield task, task.work(*task.arguments, self._progress)


class _Processes:
    """Tasks in processes of this machine."""

    def __init__(
        self, pool: ProcessPoolExecutor, size: int, reports: Any, progress: Progress
    ) -> None:
        self._pool, self._reports, self._progress = pool, reports, progress
        self.size = size
        self._running: dict[Future[Any], Task] = {}

    def submit(self, task: Task) -> None:
        self._running[self._pool.submit(_perform, task)] = task

    def finished(self) -> Iterator[tuple[Task, Any]]:
        while self._running:
            ended = [future for future in self._running if future.done()]
            while not self._reports.empty():
                self._progress(self._reports.get())
            for future in ended:
                task, error = self._running.pop(future), future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                if error is not None:
                    raise task.failed(error) from error
                yield task, future.result()
            if not ended:
                time.sleep(SECONDS_BETWEEN_LOOKS)


_reported: list[Progress] = []
"""Of a process that works for another: where it reports its progress."""


def _report_to(reports: Any) -> None:
    _reported.append(reports.put)


def _perform(task: Task) -> Any:
    return task.perform(_reported[-1])
