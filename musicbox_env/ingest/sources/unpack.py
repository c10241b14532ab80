"""Wrappings taken off source files as streams: gzip, tar, zip; nothing is written to a path.

Whatever a decoder raises on a broken file is one error that names the file and the member.
"""

from __future__ import annotations

import bz2
import gzip
import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, cast

import pyarrow as pa

from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.sources.bounds import Budget
from musicbox_env.ingest.sources.files import CountedFile
from musicbox_env.ingest.spelling.dialect import Source
from musicbox_env.ingest.tables import DamagedFileError, PeekedStream, damage_reported

BUFFER_BYTES: Final = 1 << 20
GZIP: Final = b"\x1f\x8b"
PACKED: Final[dict[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    re.escape(GZIP): lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    rb"BZh[1-9]1AY&SY": lambda stream: cast(IO[bytes], bz2.BZ2File(stream)),
    rb"\x28\xb5\x2f\xfd": lambda stream: pa.CompressedInputStream(
        pa.PythonFile(stream, mode="r"), "zstd"
    ),
}
"""Single streams by their first bytes, and what unpacks them."""
ZIP: Final = b"PK\x03\x04"
EMPTY_ZIP: Final = b"PK\x05\x06"
ZIP64_LOCATOR: Final = b"PK\x06\x07"
PARQUET: Final = b"PAR1"
NAMED_ONLY: Final = (
    (rb"\xfd7zXZ\0", "packed by xz", "unpack it, as by `unxz`"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the folder"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it and name the folder"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save the sheet as CSV"),
    (rb"SQLite format 3\0", "an SQLite database", "write its table of plays as CSV"),
    (rb"ARROW1\0\0", "an Arrow file", "write it as Parquet"),
)
"""What is recognized by its first bytes but not read, and what to do about it."""
UNPACKED: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
METHODS: Final = {9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES encryption"}
LIST_OF_MEMBERS_BYTES: Final = 8 << 20
"""What the list of members of a zip may take, which is read as a whole."""


def is_tar(head: bytes) -> bool:
    """Tell by its first bytes whether a stream is a tar."""
    return head[257:262] == b"ustar"


def named_only(head: bytes) -> str | None:
    """What a stream is that is recognized but not read, to follow its name; else None."""
    for magic, kind, mend in NAMED_ONLY:
        if re.match(magic, head):
            return f"is {kind}, which is not read: {mend}"
    return None


class Unpacked:
    """What a decoder gives, within a budget."""

    def __init__(self, stream: Source, name: str, budget: Budget, layer: int) -> None:
        """Take a decoder that unpacks a file or member of that name, inside ``layer`` others."""
        self._stream, self._name, self._budget, self._layer = stream, name, budget, layer
        self._given = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes; empty at the end.

        Raises:
            DamagedFileError: The decoder fails.
            InputError: It gives more than the budget has.
        """
        with decoding(self._name, lambda: f"behind byte {self._given:,}"):
            data = self._stream.read(size)
        self._given += len(data)
        self._budget.unpack(len(data), self._layer, self._name)
        return data


@contextmanager
def decoding(name: str, where: Callable[[], str] = str) -> Iterator[None]:
    """Name the file and place where a decoder of the standard library fails, whatever it raises.

    Nothing of MusicBox runs in such a block, and what these decoders raise on broken files is
    listed nowhere.
    """
    with damage_reported(name, where):
        try:
            yield
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:
            raise DamagedFileError.of(name, error, where()) from error


def is_packed(head: bytes) -> bool:
    """Whether a stream with these first bytes is a packed one: gzip, bzip2, Zstandard."""
    return any(re.match(magic, head) for magic in PACKED)


def unpacked(stream: PeekedStream, name: str, budget: Budget, layer: int) -> PeekedStream:
    """What a packed stream holds."""
    with decoding(name):
        unpack = next(of for magic, of in PACKED.items() if re.match(magic, stream.head))
        inner = unpack(cast(IO[bytes], stream))
    return PeekedStream(Unpacked(cast(Source, inner), name, budget, layer))


def tar_members(
    stream: PeekedStream, name: str, budget: Budget, layer: int
) -> Iterator[tuple[str, PeekedStream]]:
    """Names and content of the files in a tar, one after the other."""
    with ExitStack() as stack:
        with decoding(name):
            archive = stack.enter_context(
                tarfile.open(
                    fileobj=cast(IO[bytes], stream),
                    mode="r|",
                    bufsize=BUFFER_BYTES,
                    errors="backslashreplace",
                )
            )
        count = 0
        while True:
            with decoding(name):
                info = archive.next()
            if info is None:
                break
            count += 1
            budget.check_members(count, name)
            inside = f"{name}:{shown(info.name)}"
            with decoding(inside):
                content = archive.extractfile(info) if info.isfile() else None
            if content is not None:
                yield (
                    inside,
                    PeekedStream(Unpacked(cast(Source, content), inside, budget, layer)),
                )
    # The end of the tar is not that of the gzip around it, whose checksum comes last.
    while stream.read(BUFFER_BYTES):
        pass


def zip_members(
    archive: zipfile.ZipFile, name: str, budget: Budget, layer: int
) -> Iterator[tuple[str, PeekedStream | str]]:
    """Names and content of the files in a zip; in place of the content, why it is not read."""
    members = archive.infolist()
    budget.check_members(len(members), name)
    budget.check_stated(sum(info.file_size for info in members), archive.start_dir, name)
    for info in members:
        inside = f"{name}:{shown(info.filename)}"
        if info.is_dir():
            continue
        if info.flag_bits & 0x1:
            raise InputError(f"{inside}: is encrypted; give the archive without password.")
        if info.compress_type not in UNPACKED:
            method = METHODS.get(info.compress_type, f"method {info.compress_type} of zip")
            yield (
                inside,
                f"is packed by {method}, which is not read (unsupported "
                "compression): pack the archive again with ordinary Deflate, as by `zip`, or "
                "unpack it and name the folder",
            )
            continue
        with decoding(inside):
            content = archive.open(info)
        with content:
            yield inside, PeekedStream(Unpacked(cast(Source, content), inside, budget, layer))


def open_zip(file: IO[bytes], name: str) -> zipfile.ZipFile:
    """A zip, its list of members read.

    Raises:
        DamagedFileError: The list is damaged.
        InputError: The list is larger than that of any archive of logs.
    """
    size = _list_size(file)
    if size > LIST_OF_MEMBERS_BYTES:
        raise InputError(
            f"{name}: the list of its members takes {size:,} bytes, which is no archive of logs "
            f"(at most {LIST_OF_MEMBERS_BYTES:,} are read). If it is one all the same, unpack it "
            "and name the folder."
        )
    file.seek(0)
    with decoding(name):
        return zipfile.ZipFile(file)


def _list_size(file: IO[bytes]) -> int:
    """Bytes of the list of members as the last record of a zip states them; 0 if there is none."""
    end = file.seek(0, 2)
    file.seek(max(0, end - (1 << 16) - 22))
    tail = file.read(1 << 17)
    place = tail.rfind(EMPTY_ZIP)
    if place < 0 or len(tail) < place + 22:
        return 0
    size: int = struct.unpack_from("<I", tail, place + 12)[0]
    if size < 0xFFFFFFFF:
        return size
    # In a zip of 64-bit sizes a locator before that record names the place of a larger one.
    if tail[place - 20 : place - 16] != ZIP64_LOCATOR:
        return 0
    file.seek(min(struct.unpack_from("<Q", tail, place - 12)[0], end))
    record = file.read(48)
    return struct.unpack_from("<Q", record, 40)[0] if len(record) == 48 else 0


@contextmanager
def seekable(stream: PeekedStream, scratch: Path | None) -> Iterator[IO[bytes]]:
    """The file under a stream if there is one, else a copy without a name."""
    if isinstance(stream.stream, CountedFile):
        stream.stream.seek(0)
        yield cast(IO[bytes], stream.stream)
        return
    with tempfile.TemporaryFile(dir=scratch) as copy:
        shutil.copyfileobj(cast(IO[bytes], stream), copy, BUFFER_BYTES)
        copy.seek(0)
        yield copy
