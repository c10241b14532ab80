"""Tasks on a Ray cluster: all that knows Ray.

Each task takes one core and `MEMORY` of a node. One whose node is lost runs again on another. It
works in the driver's own folders where the node shares them, else below a folder of the node
(`shipping`). What a node lacks is then put into Ray's object store once, and got once by each node.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from musicbox_env.errors import UserError
from musicbox_experiments.cluster import shipping
from musicbox_experiments.cluster.on_node import Done, Driver, Missing, perform
from musicbox_experiments.cluster.shipping import Parcel
from musicbox_experiments.cluster.tasks import Progress, Task, Where
from musicbox_experiments.text import say

MEMORY: Final = 1 << 30
"""Bytes of memory that a task takes; a training takes about 0.6 GiB."""
RETRIES: Final = 3
"""Times that a task runs again whose node or process was lost."""
PATIENCE: Final = 10.0
"""Seconds in which a cluster must answer."""
TOKEN: Final = "set RAY_AUTH_TOKEN to what `ray get-auth-token` prints on it"


@contextmanager
def ray_workers(where: Where, progress: Progress) -> Iterator[RayWorkers]:
    """Workers of a cluster while the block runs; see `tasks.open_workers`.

    Raises:
        UserError: Ray is missing, or there is no cluster that can be used.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(
            '--cluster needs Ray, which is not installed: pip install "musicbox-env[cluster]".'
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _connect(where)
    workers = RayWorkers(where, progress)
    try:
        _require_room(where)
        yield workers
    finally:
        workers.cancel()
        if ours:
            ray.shutdown()


def _connect(where: Where) -> None:
    """Join the cluster, or start one here.

    Raises:
        UserError: There is none at the address, or it runs another version of Ray or Python.
    """
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if where.cluster == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
        options |= {"num_cpus": where.processes, "include_dashboard": False}
    on_main = threading.current_thread() is threading.main_thread()
    terminated, reached = signal.getsignal(signal.SIGTERM), False
    try:
        if where.cluster is not None and ":" in where.cluster:
            # Ray itself tries for minutes.
            host, port = where.cluster.removeprefix("ray://").split(":")
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
            reached = True
        ray.init(where.cluster, **options)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        # A head that asks for another token is seen by Ray as one that cannot be reached.
        listens = f"Something listens there; if it is a Ray head, {TOKEN}. Else start one"
        raise UserError(
            f"No Ray cluster answers at --cluster {where.cluster} ({said}). "
            f"{listens if reached else 'Start one'} with `ray start --head`, name its address, or "
            "leave --cluster out."
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise UserError(f"The cluster at {where.cluster} asks for its token: {TOKEN}.") from error
    except RuntimeError as error:
        if "ersion" not in str(error):
            raise
        said = " ".join(str(error).split())
        raise UserError(f"The cluster at {where.cluster} has other software: {said}") from error
    finally:
        if on_main:  # Ray's own handler would end the command without a word
            signal.signal(signal.SIGTERM, terminated)


def _require_room(where: Where) -> None:
    """Refuse a cluster of which no node can ever run a task; one that is to grow has no core yet.

    Raises:
        UserError: With the memory that there is.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max((n.get("memory", 0) for n in nodes if n.get("CPU", 0) >= 1), default=MEMORY)
    if largest < MEMORY:
        raise UserError(
            f"A task takes {MEMORY / 2**30:.1f} GiB of memory, and the largest node of "
            f"{where.cluster} gives its tasks {largest / 2**30:.1f}. Add a larger node, or start "
            "it with `ray start --memory BYTES`."
        )


class RayWorkers:
    """Tasks on the nodes of the cluster that this process is connected to."""

    def __init__(self, where: Where, progress: Progress) -> None:
        """Send nothing yet."""
        import ray

        self._ray, self._progress = ray, progress
        self.size = where.workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        self._most = where.workers
        self._driver = Driver.here(where.run)
        self._waiting: deque[Task] = deque()
        self._running: dict[Any, Task] = {}
        self._reads: dict[Path, str] = {}
        self._sent: dict[Path, Parcel] = {}
        self._counter = ray.remote(num_cpus=0, max_restarts=-1)(_Counter).remote()
        self._remote = ray.remote(
            num_cpus=1, memory=MEMORY, max_retries=RETRIES, scheduling_strategy="SPREAD"
        )(_perform)

    def submit(self, task: Task) -> None:
        """See `tasks.Workers`."""
        self._waiting.append(task)

    def finished(self) -> Iterator[tuple[Task, Any]]:
        """See `tasks.Workers`."""
        while self._waiting or self._running:
            while self._waiting and len(self._running) < (self._most or math.inf):
                self._start(self._waiting.popleft())
            ready, _ = self._ray.wait(list(self._running), timeout=0.5)
            self._show_progress()
            for ref in ready:
                task = self._running.pop(ref)
                found = self._found(task, ref)
                if isinstance(found, Missing):
                    self._send(found.paths)
                    self._waiting.appendleft(task)
                    continue
                for path in found.got:
                    say(f"Sent {path} to the node {found.node}.", to_errors=True)
                if found.files is not None:
                    shipping.put_back(found.files, task.makes)
                yield task, found.result

    def cancel(self) -> None:
        """End all tasks that are not done."""
        for ref in self._running:
            self._ray.cancel(ref, force=True)

    def _start(self, task: Task) -> None:
        for path in task.reads:
            if path not in self._reads:
                self._reads[path] = shipping.fingerprint(path)
        reads = {path: self._reads[path] for path in task.reads}
        sent = {path: self._sent[path] for path in task.reads if path in self._sent}
        ref = self._remote.options(name=task.name).remote(
            pickle.dumps(task), self._driver, reads, sent, self._counter
        )
        self._running[ref] = task

    def _send(self, paths: tuple[Path, ...]) -> None:
        for path in paths:
            if path not in self._sent:
                self._sent[path] = shipping.packed(path, self._reads[path], self._ray.put)

    def _found(self, task: Task, ref: Any) -> Missing | Done:
        errors = self._ray.exceptions
        try:
            found: Missing | Done = self._ray.get(ref)
        except errors.RayTaskError as error:
            raise task.failed(error.cause) from error
        except errors.OutOfMemoryError as error:
            raise UserError(
                f"{task.name} failed: its node ran out of memory {RETRIES + 1} times. Take fewer "
                "--workers or larger nodes; the same command goes on from what is done."
            ) from error
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
            raise UserError(
                f"{task.name} failed: its node or process was lost {RETRIES + 1} times. The same "
                "command goes on from what is done."
            ) from error
        return found

    def _show_progress(self) -> None:
        with suppress(self._ray.exceptions.RayError):  # its node is lost, and it begins elsewhere
            self._progress(self._ray.get(self._counter.take.remote(), timeout=5))


class _Counter:
    """Gathers the progress of all tasks."""

    def __init__(self) -> None:
        self._done = 0

    def add(self, done: int) -> None:
        self._done += done

    def take(self) -> int:
        """What was done since the last call."""
        done, self._done = self._done, 0
        return done


def _perform(
    pickled: bytes,
    driver: Driver,
    reads: Mapping[Path, str],
    sent: Mapping[Path, Parcel],
    counter: Any,
) -> Missing | Done:
    """Do a task on a node; it is pickled here since arrays that Ray unpacks cannot be written."""
    import ray

    node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"

    def progress(done: int) -> None:
        counter.add.remote(done)

    task = pickle.loads(pickled)
    return perform(task, driver, reads, sent, node=node, get=ray.get, progress=progress)
