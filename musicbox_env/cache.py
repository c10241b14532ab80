"""Folders for what is made once and used again: datasets, and the machine code of kernels."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from warnings import warn

from musicbox_env.errors import DISK_FULL

CACHE_VARIABLE = "MUSICBOX_CACHE"
UNUSABLE = frozenset(
    {
        *DISK_FULL,
        *(errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG),
    }
)
"""Errors of a folder in which nothing can be made, or of a path that can be none."""
KERNELS = "kernels-"
DAYS_KEPT = 1
"""Age in days from which machine code of other sources is removed when a folder is made."""


def cache_folder() -> Path:
    """Where made data are kept: ``MUSICBOX_CACHE``, or a folder in the platform's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(os.path.expanduser(named))  # no shell did it in a Dockerfile or a unit
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "musicbox"


def writable_cache() -> Path:
    """`cache_folder` or, where the platform's can only be read, a temporary folder.

    The temporary one is named in ``MUSICBOX_CACHE``, so that worker processes share it, and ends
    with the process that made it. A folder that the user named stays the one, writable or not.
    """
    folder = cache_folder()
    if os.environ.get(CACHE_VARIABLE) or _can_be_written(folder):
        return folder
    temporary = tempfile.mkdtemp(prefix="musicbox-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    os.environ[CACHE_VARIABLE] = temporary
    warn(
        f"{folder} cannot be written, so that what MusicBox keeps there (datasets, machine code) "
        f"lies in {temporary} and is made again each time, which takes a minute; set "
        f"{CACHE_VARIABLE} to a folder that can be written.",
        stacklevel=3,
    )
    return Path(temporary)


def kept_in_cache(*names: str) -> Path:
    """Where what is made once lies: in `cache_folder` if it is there, else in `writable_cache`."""
    made = cache_folder().joinpath(*names)
    there = os.path.exists(made)  # also of a name that can be none, where a Path raises
    return made if there else writable_cache().joinpath(*names)


def _can_be_written(folder: Path) -> bool:
    """Whether a folder can be written; it is made if missing."""
    if not folder.is_absolute():  # of a user without a home
        return False
    try:  # permissions alone do not tell: not of read-only file systems, not to root
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@contextmanager
def named() -> Iterator[None]:
    """Say how to move the cache where the block, which writes to it, finds no room or right to.

    Raises:
        OSError: As in the block, with the variable.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNUSABLE or CACHE_VARIABLE in str(error):
            raise
        why = f"{error.strerror} (in the cache, which {CACHE_VARIABLE} puts elsewhere)"
        raise OSError(error.errno, why, error.filename or str(cache_folder())) from error


@cache
def kernel_folder(given: str) -> Path:
    """Where machine code is kept: a folder of its own for each state of the package's sources.

    Machine code contains that of the kernels it calls and constants of any file, and numba goes by
    the kernel's own file alone: code of other sources would read and write out of bounds.

    Args:
        given: Folder that the user chose, ``NUMBA_CACHE_DIR``; may be empty.

    Returns:
        A folder in the one given; else, with a warning if one was given, in the package or, where
        that may only be read, in `writable_cache`. Where nothing can be written it is a temporary
        one, with a warning.
    """
    package = Path(__file__).parent
    name = KERNELS + _state_of(package)
    if given:
        folder = Path(os.path.expanduser(given)) / name
        if _can_be_written(folder.absolute()):
            return folder
        warn(
            f"{given}, which NUMBA_CACHE_DIR names, cannot be written, so that MusicBox keeps "
            "machine code elsewhere; set it to a folder that can be.",
            stacklevel=2,
        )
    for find_place in (lambda: package / "__pycache__", writable_cache):
        place = find_place()
        folder = place / name
        try:
            if not folder.exists():
                folder.mkdir(parents=True)
                _remove_old(place)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
        except OSError:
            continue
    warn(
        f"Neither {package} nor {cache_folder()} can be written, so kernels are compiled again in "
        "every process, which takes up to a minute; set NUMBA_CACHE_DIR to a folder that can be.",
        stacklevel=2,
    )
    temporary = tempfile.mkdtemp(prefix=KERNELS)
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return Path(temporary)


def _state_of(package: Path) -> str:
    """Short hash of the names, sizes and times of the package's sources; none of them is read."""
    sources = []
    for folder, _, names in os.walk(package):
        for name in names:
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                where = os.path.relpath(folder, package)
                sources.append((where, name, status.st_size, status.st_mtime_ns))
    return blake2b(repr(sorted(sources)).encode(), digest_size=8).hexdigest()


def _remove_old(place: Path) -> None:
    """Remove folders of machine code in which nothing was written for `DAYS_KEPT` days."""
    for folder in place.glob(f"{KERNELS}*"):
        if time.time() - folder.stat().st_mtime > DAYS_KEPT * 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)
