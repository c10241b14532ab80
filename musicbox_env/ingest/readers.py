"""Tables of text in any wrapping: recognized from the content, streamed, never extracted.

A source file may be a CSV, JSON, a gzip of one, a tar of many (gzipped or not), a zip of many, or
Parquet; its name is not looked at. Members of an archive are read as a stream and never written
to a path that the archive names. Whatever else turns up is handed back as `PassedOver`, so that
the caller decides whether it is an error (a file named by the user) or not (one of a folder).
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from musicbox_env.ingest.json_tables import JsonTable, looks_like_json
from musicbox_env.ingest.spelling.dialect import Source, Utf8, encoding_of
from musicbox_env.ingest.tables import (
    CsvTable,
    DamagedFileError,
    ParquetTable,
    PassedOver,
    PeekedStream,
    Table,
    damage_reported,
)

OnBytes = Callable[[int], object]
TAR_BUFFER_BYTES: Final = 1 << 20
MAX_EXPANSION: Final = 200
"""Times its size that an archive may unpack to: text packs to a twentieth, a bomb to a 1,000th."""
HARMLESS_BYTES: Final = 64 << 20
"""What unpacks to no more than this is no bomb, however small it was packed."""


def source_files(sources: Iterable[str | Path], *, exclude: Collection[Path] = ()) -> list[Path]:
    """Expand files, folders and globs into files, each once, in a fixed order.

    Args:
        sources: What the user named.
        exclude: Folders that are never looked into: the dataset that is being written.

    Raises:
        FileNotFoundError: Nothing is there under one of the names.
    """
    barred = [folder.resolve() for folder in exclude]
    found: dict[Path, Path] = {}
    for source in sources:
        for file in _expand(str(source)):
            place = file.resolve()
            if not any(place.is_relative_to(folder) for folder in barred):
                found.setdefault(place, file)
    return list(found.values())


def named_files(sources: Iterable[str | Path]) -> set[Path]:
    """The sources that are files themselves, in place of a folder or glob that holds them."""
    return {Path(source) for source in sources if Path(source).is_file()}


def describe_source(file: Path) -> dict[str, Any]:
    """Name, size and sha256 of a source file, as in ``dataset.json``."""
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return {"file": str(file), "bytes": file.stat().st_size, "sha256": sha256}


def _expand(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if path.exists():
        return [path]
    matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
    if not matches:
        raise FileNotFoundError(
            f"{source}: no such file or folder, and no file matches it as a pattern."
        )
    return [file for match in matches for file in _expand(str(match))]


def ignore_bytes(count: int) -> None:
    """Receive a number of bytes where no progress is shown."""


def open_tables(
    path: Path, *, on_bytes: OnBytes = ignore_bytes, scratch: Path | None = None
) -> Generator[Table | PassedOver, None, None]:
    """Give the tables of one source file, one after the other.

    Args:
        path: The file.
        on_bytes: Receives how many bytes of the file were just read.
        scratch: Folder for unnamed temporary files: Parquet inside an archive must be seekable.

    Raises:
        DamagedFileError: The file is cut short or broken.
    """
    with CountedFile(path, on_bytes) as file:
        yield from _tables_in(PeekedStream(file), str(path), scratch, member=False)


class CountedFile(io.FileIO):
    """An unbuffered file that reports the bytes read from it."""

    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        """Open a file for reading."""
        super().__init__(path)
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes and report their number."""
        data = super().read(-1 if size is None else size)
        self._on_bytes(len(data))
        return data

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        """Read bytes into a buffer and report their number."""
        count = super().readinto(buffer)
        self._on_bytes(count or 0)
        return count or 0


def _tables_in(
    stream: PeekedStream, name: str, scratch: Path | None, *, member: bool
) -> Iterator[Table | PassedOver]:
    """Recognize a stream by its first bytes, and give its tables."""
    head = stream.head
    with damage_reported(name):
        if not head:
            yield PassedOver(name, "is empty")
        elif head.startswith(b"PK\x05\x06"):
            yield PassedOver(name, "is an empty archive")
        elif head.startswith(b"\x1f\x8b"):
            inner = gzip.GzipFile(fileobj=cast(IO[bytes], stream))
            yield from _tables_in(PeekedStream(inner), name, scratch, member=member)
        elif head.startswith(b"PAR1"):
            with _seekable(stream, scratch) as file:
                yield ParquetTable(name, file)
        elif head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar":
            if member:
                yield PassedOver(name, "is an archive within an archive")
            elif head.startswith(b"PK"):
                with _seekable(stream, scratch) as file:
                    yield from _zip_tables(file, name, scratch)
            else:
                yield from _tar_tables(stream, name, scratch)
        elif (encoding := encoding_of(head)) is None:
            yield PassedOver(
                name, "is neither UTF-8 text (CSV or JSON) nor Parquet, gzip, tar, zip"
            )
        elif not encoding.startswith("utf-8"):
            text = PeekedStream(Utf8(stream, encoding))
            yield from _tables_in(text, name, scratch, member=member)
        elif looks_like_json(head):
            yield JsonTable(name, stream)
        else:
            yield CsvTable(name, stream)


def _tar_tables(
    stream: PeekedStream, name: str, scratch: Path | None
) -> Iterator[Table | PassedOver]:
    with tarfile.open(
        fileobj=cast(IO[bytes], stream), mode="r|", bufsize=TAR_BUFFER_BYTES
    ) as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isfile() else None
            if content is not None:
                inner = PeekedStream(cast(Source, content))
                yield from _tables_in(inner, f"{name}:{info.name}", scratch, member=True)
    # The end of the tar is not that of the gzip around it, whose checksum comes last.
    while stream.read(TAR_BUFFER_BYTES):
        pass


def _zip_tables(file: IO[bytes], name: str, scratch: Path | None) -> Iterator[Table | PassedOver]:
    with zipfile.ZipFile(file) as archive:
        _refuse_bomb(archive, name)
        for info in archive.infolist():
            inside = f"{name}:{info.filename}"
            if info.flag_bits & 0x1:
                raise DamagedFileError(
                    f"{inside}: is encrypted; give the archive without password."
                )
            if not info.is_dir():
                with archive.open(info) as content:
                    inner = PeekedStream(cast(Source, content))
                    yield from _tables_in(inner, inside, scratch, member=True)


def _refuse_bomb(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse a zip that unpacks to vastly more than it is; no more than it states is ever read.

    Evaluated over all members together: those of a bomb may share the same packed bytes.
    """
    unpacked = sum(info.file_size for info in archive.infolist())
    packed = archive.start_dir
    if unpacked > max(HARMLESS_BYTES, MAX_EXPANSION * packed):
        raise DamagedFileError(
            f"{name}: a zip of {packed:,} bytes that unpacks to {unpacked:,} is no archive of "
            f"logs (at most {MAX_EXPANSION} times as much is read). If it is one all the same, "
            "unpack it and name the folder."
        )


@contextmanager
def _seekable(stream: PeekedStream, scratch: Path | None) -> Iterator[IO[bytes]]:
    """The file under a stream if there is one, else a copy without a name."""
    if isinstance(stream.stream, CountedFile):
        stream.stream.seek(0)
        yield cast(IO[bytes], stream.stream)
        return
    with tempfile.TemporaryFile(dir=scratch) as copy:
        shutil.copyfileobj(cast(IO[bytes], stream), copy, TAR_BUFFER_BYTES)
        copy.seek(0)
        yield copy
