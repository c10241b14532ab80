"""Tasks on a Ray cluster: all that knows Ray, with `connection`.

Each task takes one core and `MEMORY` of a node. One whose node is lost runs again on another. It
works in the driver's own folders where the node shares them, else below a folder of the node
(`shipping`). What a node lacks is then put into Ray's object store once, and got once by each node.
"""

from __future__ import annotations

import math
import pickle
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from musicbox_env.errors import UserError
from musicbox_experiments.cluster import shipping
from musicbox_experiments.cluster.connection import MEMORY, RETRIES, connected
from musicbox_experiments.cluster.on_node import Counter, Done, Driver, Missing, perform
from musicbox_experiments.cluster.shipping import Parcel
from musicbox_experiments.cluster.tasks import Progress, Task, Where
from musicbox_experiments.text import say


@contextmanager
def ray_workers(where: Where, progress: Progress) -> Iterator[RayWorkers]:
    """Workers of a cluster while the block runs; see `tasks.open_workers`.

    Raises:
        UserError: As `connected`.
    """
    with connected(where):
        workers = RayWorkers(where, progress)
        try:
            yield workers
        finally:
            workers.cancel()


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
        self._counter = ray.remote(num_cpus=0, max_restarts=-1)(Counter).remote()
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
    task = pickle.loads(pickled)
    return perform(task, driver, reads, sent, node=node, get=ray.get, progress=counter.add.remote)
