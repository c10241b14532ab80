"""Checks of files that are done once: the verdict is kept in the cache, outside of any folder.

A verdict holds for files by inode, size and the times of their last change of content and of state.
Whoever sends a folder decides none but the size: a file that is received or replaced is another
inode or has another time of change (``ctime``, which no program can set).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Final

from musicbox_env.cache import cache_folder
from musicbox_env.data.checks import FileError

CHECKED: Final = "checked"
VERSION: Final = 2
"""Of the checks: another one makes all verdicts void."""
SMALL: Final = 1 << 20
"""Bytes up to which files are checked in each process: that is as fast as to look up a verdict."""
MOST_KEPT: Final = 1_000

_of_this_process: set[str] = set()


def state_of(what: str, files: Iterable[Path | str]) -> str:
    """Name of a state of files on this machine, which changes when any of them does.

    Raises:
        OSError: One is missing.
    """
    return _digest(what, [os.stat(file) for file in files])


def _digest(what: str, states: list[os.stat_result]) -> str:
    described = [(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]
    return blake2b(repr((VERSION, what, described)).encode(), digest_size=16).hexdigest()


def once(what: str, files: Iterable[Path], check: Callable[[], None]) -> None:
    """Check files unless they were found right in the state that they are in.

    Args:
        what: Name of the check, and of all that it depends on beside the files.
        files: What it reads.
        check: Raises where something is wrong.

    Raises:
        FileError: A file is missing.
    """
    try:
        states = [os.stat(file) for file in files]
    except OSError as error:
        raise FileError(
            f"{error.filename}: {error.strerror}; expected a file that can be read. Make the "
            "folder again, or ask its sender for all of it."
        ) from None
    verdict = _digest(what, states)
    if verdict in _of_this_process:
        return
    small = sum(state.st_size for state in states) <= SMALL
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
