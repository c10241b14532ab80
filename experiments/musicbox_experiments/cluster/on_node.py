"""What a node does with a task that was sent to it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import musicbox_env
from musicbox_env.errors import UserError
from musicbox_env.locks import lock_file
from musicbox_experiments.cluster import shipping
from musicbox_experiments.cluster.shipping import Parcel
from musicbox_experiments.cluster.tasks import Progress, Task

PACKAGES: Final = ("numpy", "torch", "numba")
"""Packages whose versions must agree, that results do."""


@dataclass(frozen=True)
class Driver:
    """What nodes know of the process that sends tasks: its versions, folder and lock."""

    versions: Mapping[str, str]
    folder: Path
    lock: Path | None
    lock_says: str | None

    @classmethod
    def here(cls, run: Path | None) -> Driver:
        """This process, which may hold the lock of a run."""
        lock = None if run is None else lock_file(run)
        says = None if lock is None else shipping.lock_text(lock)
        return cls(_versions(), Path.cwd(), lock, says)

    @property
    def shares(self) -> bool:
        """Whether this machine sees the driver's run."""
        if self.lock is None or self.lock_says is None:
            return False
        return shipping.lock_text(self.lock) == self.lock_says


@dataclass(frozen=True)
class Missing:
    """The node lacks these, and its task did not begin."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Done:
    """A result, what was got for it, and the files to put back on the driver."""

    result: Any
    node: str
    got: tuple[Path, ...] = ()
    files: Mapping[str, bytes] | None = None


class Counter:
    """Gathers the progress of all tasks."""

    def __init__(self) -> None:
        """Nothing is done yet."""
        self._done = 0

    def add(self, done: int) -> None:
        """Count what a task did."""
        self._done += done

    def take(self) -> int:
        """What was done since the last call."""
        done, self._done = self._done, 0
        return done


def perform(
    task: Task,
    driver: Driver,
    reads: Mapping[Path, str],
    sent: Mapping[Path, Parcel],
    *,
    node: str,
    get: Callable[[Any], bytes],
    progress: Progress,
) -> Missing | Done:
    """Do a task, in the driver's own folders where they are here, else below a root.

    Args:
        task: What to do.
        driver: Who sent it.
        reads: Fingerprint of each path that it reads.
        sent: Those of them that the driver has sent to some node.
        node: Name of this node.
        get: Gets a piece of what was sent.
        progress: Gets the progress.

    Raises:
        UserError: The task failed by what a user can mend, or versions differ.
    """
    _require_versions(driver.versions, node)
    there = {path for path, of in reads.items() if shipping.fingerprint(path) == of}
    writes = [folder for folder in (task.makes, task.adds_to) if folder is not None]
    if len(there) == len(reads) and (driver.shares or not writes):
        with chdir(driver.folder) if driver.folder.is_dir() else nullcontext():
            return Done(task.perform(progress), node)
    with task.explained():
        lacking = {path: of for path, of in reads.items() if path not in there}
        here = [path for path, of in lacking.items() if shipping.cached(of).exists()]
        if missing := tuple(path for path in lacking if path not in {*here, *sent}):
            return Missing(missing)
        got = [path for path in lacking if path in sent and shipping.received(sent[path], get)]
        with shipping.own_root(task, reads) as root:
            own = shipping.moved(task, [*reads, *writes], root)
            result = own.work(*own.arguments, progress)
            return Done(result, node, tuple(got), shipping.made_files(root, writes))


def _versions() -> dict[str, str]:
    others = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"musicbox-env": musicbox_env.__version__, **others}


def _require_versions(expected: Mapping[str, str], node: str) -> None:
    """Refuse to work under other versions than the driver's, whose results would be others.

    Raises:
        UserError: With what differs.
    """
    for name, version in _versions().items():
        if version != expected[name]:
            raise UserError(
                f"The node {node} has {name} {version}, and this machine {expected[name]}. Install "
                "the same versions on all nodes."
            )
