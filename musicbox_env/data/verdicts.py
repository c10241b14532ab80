"""Checks of files that are done once: the verdict is kept in the cache, outside of any folder.

A verdict holds for files by inode, size and the times of their last change of content and of state.
Whoever sends a folder decides none but the size: a file that is received or replaced is another
inode or has another time of change (``ctime``, which no program can set).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from musicbox_env.cache import cache_folder
from musicbox_env.data.checks import FileError

CHECKED: Final = "checked"
VERSION: Final = 4
"""Of the checks: another one makes all verdicts void."""
SMALL: Final = 1 << 17
"""Bytes up to which files are checked in each process: that is as fast as to look up a verdict."""
MOST_KEPT: Final = 1_000

_of_this_process: set[str] = set()


@dataclass(frozen=True)
class State:
    """A state of files on this machine, which changes when any of them does.

    Attributes:
        digest: Its name.
        size: Bytes of all files.
    """

    digest: str
    size: int


def state_of(files: Iterable[Path], folders: Iterable[Path] = ()) -> State:
    """The state that files are in, and all files of folders.

    Raises:
        FileError: One is missing.
    """
    try:
        names = list(map(str, files))
        for folder in folders:
            names += sorted(entry.path for entry in os.scandir(folder))
        found = [os.stat(name) for name in names]
    except OSError as error:
        raise FileError(
            f"{error.filename}: {error.strerror}; expected a file that can be read. Make the "
            "folder again, or ask its sender for all of it."
        ) from None
    described = [
        (os.path.basename(name), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for name, s in zip(names, found, strict=True)
    ]
    return State(_digest(described), sum(s.st_size for s in found))


def _digest(content: object) -> str:
    return blake2b(repr((VERSION, content)).encode(), digest_size=16).hexdigest()


def once(what: str, state: State, check: Callable[[], None]) -> None:
    """Check files unless they were found right in the state that they are in.

    Args:
        what: Name of the check, and of all that it depends on beside the files.
        state: Of what it reads, looked at before it reads.
        check: Raises where something is wrong.
    """
    verdict = _digest((what, state.digest))
    if verdict in _of_this_process:
        return
    small = state.size <= SMALL
    kept = cache_folder() / CHECKED / verdict
    if small or not kept.exists():
        check()
        if not small:
            _keep(kept)
    _of_this_process.add(verdict)


def _keep(verdict: Path) -> None:
    """Write a verdict, an empty file, and remove the oldest of very many."""
    try:
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.touch()
        kept = sorted(verdict.parent.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        for old in kept[:-MOST_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:  # a cache that may only be read: the check is done again
        return
