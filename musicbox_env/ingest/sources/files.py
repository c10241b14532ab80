"""Which files the sources are: regular ones alone, each once, in a fixed order."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.tables import PassedOver

OnBytes = Callable[[int], object]
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True)
class FoundFiles:
    """What the sources name.

    Attributes:
        files: Regular files, each once.
        passed_over: What else lies in their folders.
    """

    files: list[Path] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)


def find_files(sources: Iterable[str | Path], *, exclude: Collection[Path] = ()) -> FoundFiles:
    """Expand files, folders and globs into files, each once, in a fixed order.

    Args:
        sources: What the user named.
        exclude: Folders that are never looked into: the dataset that is being written.

    Raises:
        FileNotFoundError: Nothing is there under one of the names.
        InputError: One of the names is neither of a file nor of a folder.
        OSError: A folder may not be looked into.
    """
    barred = [folder.resolve() for folder in exclude]
    found: dict[Path, Path] = {}
    passed_over: dict[Path, PassedOver] = {}
    for source in sources:
        for file in _expand(str(source)):
            if why := _unreadable(file):  # a link in a circle leads nowhere, so this comes first
                passed_over.setdefault(file, PassedOver(shown(file), why))
            elif not any(file.resolve().is_relative_to(folder) for folder in barred):
                found.setdefault(file.resolve(), file)
    return FoundFiles(list(found.values()), list(passed_over.values()))


def named_files(sources: Iterable[str | Path]) -> set[Path]:
    """The sources that are files themselves, in place of a folder or glob that holds them."""
    return {Path(source) for source in sources if Path(source).is_file()}


def describe_source(file: Path) -> dict[str, Any]:
    """Name, size and sha256 of a source file, as in ``dataset.json``."""
    with CountedFile(file) as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return {"file": shown(file), "bytes": file.stat().st_size, "sha256": sha256}


def content_salt(files: Sequence[Path]) -> bytes:
    """A key that only the files themselves give, not their published sha256 sums."""
    new = partial(hashlib.blake2b, digest_size=32, person=b"musicbox salt")
    salt = new()
    for file in files:
        with CountedFile(file) as content:
            salt.update(hashlib.file_digest(content, new).digest())
    return salt.digest()


def _expand(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return sorted(_within(path))
    if os.path.lexists(path):
        if why := _unreadable(path):
            raise InputError(f"{shown(path)}: {why}.")
        return [path]
    matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
    if not matches:
        raise FileNotFoundError(
            f"{shown(source)}: no such file or folder, and no file matches it as a pattern."
        )
    return [file for match in matches for file in (_within(match) if match.is_dir() else [match])]


def _within(folder: Path) -> Iterator[Path]:
    """All that lies in a folder other than folders; links to folders are not followed."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        yield from (Path(place, name) for name in files)
        yield from (p for name in folders if (p := Path(place, name)).is_symlink())


def _unreadable(path: Path) -> str | None:
    """Why a path is no regular file, to follow its name; None if it is one."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"is a link to nothing that can be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "is a link to a folder, which is read only where it is named itself"
    kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "something else")
    return f"is {kind}, not a file; write what it gives into a file and name that"


def ignore_bytes(count: int) -> None:
    """Receive a number of bytes where no progress is shown."""


class CountedFile(io.FileIO):
    """An unbuffered regular file that reports the bytes read from it.

    Attributes:
        num_bytes: Its size when it was opened; what is appended later is not read.
    """

    def __init__(self, path: Path, on_bytes: OnBytes = ignore_bytes) -> None:
        """Open a file for reading.

        Raises:
            InputError: It is no regular file.
        """
        # A pipe would wait for whoever writes to it.
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
        self._on_bytes = on_bytes
        about = os.fstat(self.fileno())
        if not stat.S_ISREG(about.st_mode):
            self.close()
            raise InputError(f"{shown(path)}: {_unreadable(path) or 'is no regular file'}.")
        self.num_bytes = about.st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes and report their number."""
        left = max(self.num_bytes - self.tell(), 0)
        data = super().read(left if size is None or size < 0 else min(size, left))
        self._on_bytes(len(data))
        return data

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        """Read bytes into a buffer and report their number."""
        count = super().readinto(buffer)
        self._on_bytes(count or 0)
        return count or 0
