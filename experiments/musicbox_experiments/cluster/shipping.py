"""Files of tasks on machines that do not share the driver's file system.

There a task works below a folder of its own, the root, under which every path lies as it does on
the driver: ``ROOT/home/me/runs/compare``. What it reads is linked there from the node's cache, and
what it made goes back to the driver. So paths relative to each other stay what they were.
"""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

from musicbox_env.cache import writable_cache
from musicbox_env.errors import writing
from musicbox_env.locks import held

CHUNK: Final = 64 << 20
"""Bytes of a file that are sent at once."""
ENDS: Final = 4 << 20
"""Bytes at the begin and at the end of a file that its fingerprint is of."""
APART: Final = ("parts", "spaces")
"""Folders of a dataset that are made on first use: its parts, sent where a task reads one, and
spaces of songs, which every machine makes for itself."""


@dataclass(frozen=True)
class Parcel:
    """A file or folder on its way.

    Attributes:
        fingerprint: See `fingerprint`.
        files: For each file, by its path within, how to get its pieces; of a file alone, by "".
    """

    fingerprint: str
    files: Mapping[str, Sequence[Any]]


def fingerprint(path: Path) -> str:
    """Short hash of the names and sizes of a path's files, and of the ends of what they hold.

    Empty where the path does not exist. A dataset folder states in a small file what is in its
    large ones, and is compared with that when it is opened.
    """
    digest = hashlib.sha256()
    for name, file in _files_of(path):
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with file.open("rb") as content:
            digest.update(content.read(ENDS))
            content.seek(max(size - ENDS, 0))
            digest.update(content.read(ENDS))
    return digest.hexdigest()[:32] if path.exists() else ""


def packed(path: Path, of: str, put: Callable[[bytes], Any]) -> Parcel:
    """A path's files in pieces, each of which ``put`` turns into what `received` can get it by.

    Args:
        path: A file or folder.
        of: Its fingerprint.
        put: Keeps a piece.
    """
    files = {name: [put(piece) for piece in _pieces(file)] for name, file in _files_of(path)}
    return Parcel(of, files)


def received(parcel: Parcel, get: Callable[[Any], bytes]) -> bool:
    """Put a parcel into this machine's cache, unless it is there; whether it was got now."""
    place = cached(parcel.fingerprint)
    place.parent.mkdir(parents=True, exist_ok=True)
    with held(place, wait=True):
        if place.exists():
            return False
        staging = place.with_name(f"{place.name}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        for name, pieces in parcel.files.items():
            file = staging / "content" / name if name else staging / "content"
            file.parent.mkdir(parents=True, exist_ok=True)
            with writing(file), file.open("wb") as content:
                content.writelines(get(piece) for piece in pieces)
        os.replace(staging, place)
    return True


def cached(of: str) -> Path:
    """The folder of this machine's cache that holds what has a fingerprint."""
    return writable_cache() / "cluster" / "data" / of


@contextmanager
def own_root(task: Any, reads: Mapping[Path, str]) -> Iterator[Path]:
    """A folder for a task on this machine, removed where the block succeeds.

    Otherwise the same task on the same data later goes on from what is in it.

    Args:
        task: All that the task is.
        reads: Fingerprint of each path that it reads, which is linked below the folder.
    """
    key = hashlib.sha256(pickle.dumps((task, reads))).hexdigest()[:24]
    root = writable_cache() / "cluster" / "tasks" / key
    for path, of in reads.items():
        if any(path != other and path.is_relative_to(other) for other in reads):
            continue  # it comes with the folder that it is in
        place = below(root, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        target = path if fingerprint(path) == of else cached(of) / "content"
        if place.is_symlink():
            place.unlink()
        place.symlink_to(target)
    root.mkdir(parents=True, exist_ok=True)
    yield root
    shutil.rmtree(root)


def below(root: Path, path: Path) -> Path:
    """Where a path of the driver lies below a root."""
    return root / path.relative_to(path.anchor)


def moved(value: Any, paths: Sequence[Path], root: Path) -> Any:
    """A value with every path in it that is one of the given, or within one, put below a root.

    Looks into tuples, lists, dictionaries and dataclasses, for strings and `Path` objects.
    """
    if isinstance(value, str | Path):
        inside = os.path.isabs(value) and any(Path(value).is_relative_to(path) for path in paths)
        return type(value)(below(root, Path(value))) if inside else value
    if isinstance(value, tuple | list):
        return type(value)(moved(item, paths, root) for item in value)
    if isinstance(value, Mapping):
        return {moved(k, paths, root): moved(v, paths, root) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        held_in = {f.name: moved(getattr(value, f.name), paths, root) for f in fields(value)}
        return replace(value, **held_in)
    return value


def made_files(root: Path, folders: Sequence[Path]) -> dict[str, bytes]:
    """What a task wrote below a root into folders of the driver, by the driver's paths.

    In the order in which it was written: a file that says that a folder is finished comes last.
    """
    files = [file for folder in folders for _, file in _files_of(below(root, folder))]
    files.sort(key=lambda file: (file.stat().st_mtime_ns, file.name))
    return {str("/" / file.relative_to(root)): file.read_bytes() for file in files}


def put_back(files: Mapping[str, bytes], makes: Path | None) -> None:
    """Write what came from a node to the driver's own paths; ``makes`` is replaced as a whole."""
    if makes is not None:
        shutil.rmtree(makes, ignore_errors=True)
    for path, content in files.items():
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.tmp")
        with writing(temporary):
            temporary.write_bytes(content)
        os.replace(temporary, file)


def lock_text(lock: Path) -> str | None:
    """What the file of a lock says; None where this machine has no such file."""
    try:
        return lock.read_text()
    except OSError:
        return None


def _files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """The files of a path with their names within it, in order; links and hidden ones are none."""
    if path.is_file():
        yield "", path
        return
    for folder, inner, names in os.walk(path):
        if Path(folder) == path:
            inner[:] = [name for name in inner if name not in APART]
        inner.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and not file.is_symlink():
                yield str(file.relative_to(path)), file


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(CHUNK):
            yield piece
