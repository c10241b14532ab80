"""Folders for what is made once and used again: datasets, and the machine code of kernels."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from functools import cache
from hashlib import blake2b
from pathlib import Path
from warnings import warn

CACHE_VARIABLE = "MUSICBOX_CACHE"
KERNELS = "kernels-"
DAYS_KEPT = 1
"""Age in days from which machine code of other sources is removed when a folder is made."""


def cache_folder() -> Path:
    """Where made data are kept: ``MUSICBOX_CACHE``, or a folder in the platform's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "musicbox"


@cache
def kernel_folder(given: str) -> Path:
    """Where machine code is kept: a folder of its own for each state of the package's sources.

    Machine code contains that of the kernels it calls and constants of any file, and numba goes by
    the kernel's own file alone: code of other sources would read and write out of bounds.

    Args:
        given: Folder that the user chose, ``NUMBA_CACHE_DIR``; may be empty.

    Returns:
        A folder in the one given; else in the package or, where that may only be read, in
        `cache_folder`. Where nothing can be written it is a temporary one, with a warning.
    """
    package = Path(__file__).parent
    name = KERNELS + _state_of(package)
    if given:
        return Path(given) / name
    for place in (package / "__pycache__", cache_folder()):
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
