"""Wrappings taken off source files as streams: gzip, tar, zip; nothing is written to a path.

Whatever a decoder raises on a broken file is one error that names the file and the member.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
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


class Bzip2(io.RawIOBase):
    """What bzip2 streams hold, one behind the other as pbzip2 writes them; zeros may pad them.

    `bz2.BZ2File` takes a stream whose beginning is damaged for the end of the file.
    """

    def __init__(self, packed: Source) -> None:
        """Unpack what this gives."""
        super().__init__()
        self._packed, self._stream = packed, bz2.BZ2Decompressor()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Read into a buffer; how many bytes, 0 at the end.

        Raises:
            OSError: What follows is no stream, or a damaged one.
            EOFError: The last stream is cut short.
        """
        given = b""
        while not given:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data.lstrip(b"\0")
                while not packed and (more := self._packed.read(BUFFER_BYTES)):
                    packed = more.lstrip(b"\0")
                if not packed:
                    return 0
                self._stream = bz2.BZ2Decompressor()
            elif self._stream.needs_input and not (packed := self._packed.read(BUFFER_BYTES)):
                raise EOFError("the last stream has no end")
            given = self._stream.decompress(packed, len(buffer))
        buffer[: len(given)] = given
        return len(given)


GZIP: Final = b"\x1f\x8b"
PACKED: Final[dict[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    re.escape(GZIP): lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)": lambda stream: cast(IO[bytes], Bzip2(stream)),
    # A frame to be skipped may come first, as pzstd writes them.
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18": lambda stream: pa.CompressedInputStream(
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


TAR_KINDS: Final = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
}
"""Members of a tar without content of their own."""


class WholeMember(tarfile.TarInfo):
    """A member of a tar; `tarfile` takes a header that is damaged for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> WholeMember:
        """Read a header.

        Raises:
            tarfile.HeaderError: There is none: the archive ends, or is padded with zeros.
            tarfile.ReadError: It is damaged.
        """
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(str(error)) from error
            raise


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
) -> Iterator[tuple[str, PeekedStream | str]]:
    """Names and content of the files in a tar, and in those joined to it, one after the other.

    In place of the content of what is no file, why it is not read.
    """
    with ExitStack() as stack:
        with decoding(name):
            archive = stack.enter_context(
                tarfile.open(
                    fileobj=cast(IO[bytes], stream),
                    mode="r|",
                    bufsize=BUFFER_BYTES,
                    errors="backslashreplace",
                    tarinfo=WholeMember,
                    ignore_zeros=True,
                )
            )
        for count in itertools.count(1):
            behind = archive.offset
            with decoding(name, lambda: f"behind byte {archive.offset:,}"):
                info = archive.next()
                if info is None and count > 1 and archive.offset == behind:
                    raise EOFError("the end of the archive is missing")
            if info is None:
                break
            budget.check_members(count, name)
            inside = f"{name}:{shown(info.name)}"
            if info.isdir():
                continue
            if not info.isfile():
                kind = TAR_KINDS.get(info.type, "of a kind of members that is not read")
                yield inside, f"is {kind}, not a file; pack what it stands for, or name its folder"
                continue
            with decoding(inside):
                content = archive.extractfile(info)
            yield inside, PeekedStream(Unpacked(cast(Source, content), inside, budget, layer))


def zip_members(
    archive: zipfile.ZipFile, name: str, budget: Budget, layer: int
) -> Iterator[tuple[str, PeekedStream | str]]:
    """Names and content of the files in a zip; in place of the content, why it is not read."""
    members = archive.infolist()
    budget.check_members(len(members), name)
    budget.check_stated(sum(info.file_size for info in members), archive.start_dir, name)
    for info in members:
        inside = f"{name}:{shown(info.filename)}"
        if info.is_dir() and not info.file_size:
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
        InputError: The list is larger than that of any archive of logs, or something stands before
            or behind what it lists.
    """
    size, behind = _list_of_members(file)
    if size > LIST_OF_MEMBERS_BYTES:
        raise InputError(
            f"{name}: the list of its members takes {size:,} bytes, which is no archive of logs "
            f"(at most {LIST_OF_MEMBERS_BYTES:,} are read). If it is one all the same, unpack it "
            "and name the folder."
        )
    file.seek(0)
    with decoding(name):
        archive = zipfile.ZipFile(file)
        before = min((i.header_offset for i in archive.infolist()), default=archive.start_dir)
        if min(before, behind) < 0:
            missing = -min(before, behind)
            raise zipfile.BadZipFile(f"bytes that are missing of what the zip lists: {missing:,}")
    for count, place in ((before, "before"), (behind, "behind")):
        if count:
            raise InputError(
                f"{name}: {count:,} bytes stand {place} the members that the zip lists, as where "
                "files were joined. Give each by itself, or unpack it and name the folder."
            )
    return archive


def _list_of_members(file: IO[bytes]) -> tuple[int, int]:
    """Bytes of the list of members as the last record of a zip states them, and bytes behind it.

    Both are 0 if there is no such record; padding of zeros does not count.
    """
    end = file.seek(0, 2)
    file.seek(max(0, end - (1 << 16) - 22))
    tail = file.read(1 << 17)
    place = tail.rfind(EMPTY_ZIP)
    if place < 0 or len(tail) < place + 22:
        return 0, 0
    size, comment = struct.unpack_from("<I4xH", tail, place + 12)
    behind = len(tail[place + 22 + comment :].rstrip(b"\0"))
    if size < 0xFFFFFFFF:
        return size, behind
    # In a zip of 64-bit sizes a locator before that record names the place of a larger one.
    if tail[place - 20 : place - 16] != ZIP64_LOCATOR:
        return 0, behind
    file.seek(min(struct.unpack_from("<Q", tail, place - 12)[0], end))
    record = file.read(48)
    return struct.unpack_from("<Q", record, 40)[0] if len(record) == 48 else 0, behind


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
