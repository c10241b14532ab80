"""Locks on what only one process may write at a time: a dataset in the making, a run, a cache.

A lock is a hidden file beside what it guards, ``.NAME.lock``, held through the kernel: it is free
again when its process ends, however it ends. While it is held, the file says by whom; then it is
removed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from musicbox_env.cache import writable_cache
from musicbox_env.errors import UserError, nameable

if TYPE_CHECKING:  # imported where a lock is taken: most environments take none
    from filelock import BaseFileLock

PATIENCE: Final = 1.0
"""Seconds of waiting after which a process says what it waits for."""


class InUseError(OSError):
    """Another process holds the lock."""


@contextmanager
def held(path: Path | str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file or folder, which need not exist, while the block runs.

    Args:
        path: What is guarded. Its lock lies beside it or, where nothing can be written there, in
            `cache.writable_cache`.
        wait: Wait until the lock is free, with a line on stderr that says who holds it.

    Raises:
        InUseError: Another process holds the lock and ``wait`` is False; the message names it.
        UserError: As `errors.nameable`.
    """
    path = nameable(path)
    lock = _acquired(path, wait)
    file = Path(lock.lock_file)
    try:
        with suppress(OSError):  # who waits is then not told by whom the lock is held
            file.write_text(json.dumps(_this_process()))
        yield
    finally:
        # Before it is free: who opened this very file meanwhile finds it gone and opens a new one.
        with suppress(OSError):
            file.unlink()
        lock.release()


def made_once(file: Path, is_current: Callable[[], bool], write: Callable[[Path], object]) -> bool:
    """Make a file of a cache unless it is there; where several processes want it, one makes it.

    Args:
        file: The file, in a folder that is made if missing.
        is_current: Whether the file is there and as it should be.
        write: Writes it under the name that it is given; the file appears whole or not at all.

    Returns:
        Whether the file is there: not so where its folder can only be read, or is full.
    """
    if is_current():
        return True
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with held(file, wait=True):
            if not is_current():
                try:
                    write(temporary)
                    os.replace(temporary, file)
                finally:
                    with suppress(OSError):
                        temporary.unlink()
        return True
    except (OSError, UserError):
        return False


def lock_file(path: Path | str) -> Path:
    """Where the lock of a file or folder lies if its folder can be written."""
    path = Path(path).resolve()
    return path.with_name(f".{path.name}.lock")


def _acquired(path: Path, wait: bool) -> BaseFileLock:
    """The lock of a path, held."""
    name = blake2b(os.fsencode(path), digest_size=16).hexdigest()
    beside = lock_file(path)
    try:
        return _acquired_file(path, beside, wait)
    except InUseError:
        raise
    except OSError:  # a folder that may only be read, or a file system without locks
        return _acquired_file(path, writable_cache() / "locks" / f"{name}.lock", wait)


def _acquired_file(path: Path, file: Path, wait: bool) -> BaseFileLock:
    from filelock import FileLock, Timeout

    file.parent.mkdir(parents=True, exist_ok=True)
    # The library's other kind of lock outlives a process that is killed.
    lock = FileLock(file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout:
        file.touch()  # the library also waits where no file can be made, as in /proc
        if not wait:
            raise InUseError(
                f"{path} is in use by {_holder(file)}. Wait until that has ended, or name another "
                "folder."
            ) from None
        print(f"Waiting for {path}, which is in use by {_holder(file)}.", file=sys.stderr)
        lock.acquire()
    return lock


def _this_process() -> dict[str, str | int]:
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    command = " ".join([name, *sys.argv[1:]])
    home = os.path.expanduser("~")
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": command.replace(home, "~") if len(home) > 1 else command,
    }


def _holder(file: Path) -> str:
    """Who holds a lock, in words."""
    try:
        of = json.loads(file.read_text())
        return f"`{of['command']}`, process {of['pid']} on {of['host']}, since {of['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just begun, or just ended
        return "another process"
