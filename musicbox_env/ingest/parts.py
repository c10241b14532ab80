"""Source files made into parts: finished pieces of a dataset, each written whole or not at all.

A part is a folder named after its source files, their content and whatever else it depends on, so
that one that is finished can be used again by the next run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from musicbox_env.data.splits import runs_of
from musicbox_env.errors import writing
from musicbox_env.ingest.assembly import BLOCK_SCHEMA, SessionAssembler, hash_ids
from musicbox_env.ingest.mssd import LogReader, log_refusal
from musicbox_env.ingest.plays import REJECTS_SCHEMA, Rejects
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.files import OnBytes, describe_source, ignore_bytes
from musicbox_env.ingest.tables import PassedOver, Rows, Table
from musicbox_env.locks import held
from musicbox_env.progress import tqdm
from musicbox_env.workers import Piece, Spread

PART_VERSION: Final = 9
"""Belongs to every part's key: raise it when parts come out differently."""
SPLIT_CODES: Final = "split.npy"
OPINIONS_FILE: Final = "opinions.parquet"
FILES: Final = "files"
"""Entry of ``part.json``: size and checksum of each file, by which what was damaged is told."""
SUMMED_AT_ONCE: Final = 1 << 20
HASHES: Final = "sessions.hashes"


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        folder: Where it lies.
        about: Its source files with sha256 and bytes; tables, rows and sessions found; what was
            rejected, stored as unknown and passed over; of histories what became of their rows.
    """

    folder: Path
    about: dict[str, Any]

    @classmethod
    def make(
        cls, folder: Path, settings: Mapping[str, Any], write: Callable[[Path], Mapping[str, Any]]
    ) -> Part:
        """Open the part of these settings, writing it first unless it is finished.

        Args:
            folder: Where parts lie.
            settings: All that the part depends on.
            write: Writes a part into an empty folder; what it returns becomes `about`.
        """
        key = hashlib.sha256(json.dumps({**settings, "v": PART_VERSION}).encode()).hexdigest()[:24]
        finished, unfinished = folder / key, folder / f"{key}.tmp"
        # A worker whose parent was killed may still be at it.
        with held(finished, wait=True):
            if not _is_whole(finished):
                for left in (finished, unfinished):
                    shutil.rmtree(left, ignore_errors=True)
                unfinished.mkdir(parents=True)
                about = {**write(unfinished), FILES: _sums(unfinished)}
                # Not by `dataset.write_json`: a worker that imported it would start much later.
                (unfinished / "part.json").write_text(json.dumps(about, indent=2) + "\n")
                os.replace(unfinished, finished)
        return cls.opened(finished)

    @classmethod
    def opened(cls, folder: Path) -> Part:
        """The finished part in a folder."""
        return cls(folder, json.loads((folder / "part.json").read_text()))

    @property
    def history(self) -> dict[str, Any]:
        """What became of the rows of listening histories; empty for a log."""
        return dict(self.about.get("history", {}))

    @property
    def names(self) -> pd.DataFrame | None:
        """Titles and artists of its tracks, where it has any."""
        file = self.folder / "names.parquet"
        return pd.read_parquet(file) if file.is_file() else None

    @property
    def opinions(self) -> pa.Table | None:
        """Opinions on its tracks, of `data.opinions.OPINION_SCHEMA`, where it has any."""
        file = self.folder / OPINIONS_FILE
        return pq.read_table(file) if file.is_file() else None

    def split_keys(self, session_ids: pa.StringArray) -> pa.StringArray:
        """What the splits of sessions are drawn from: in a history the runs that they are of."""
        return runs_of(session_ids) if self.history else session_ids

    @property
    def split_codes(self) -> npt.NDArray[np.uint8] | None:
        """Code of each session in the order of `blocks`, of a history that is split by time."""
        file = self.folder / SPLIT_CODES
        return np.load(file) if file.is_file() else None

    @property
    def session_hashes(self) -> Path:
        """The file of its sessions' hashes, in the order of `blocks`; see `assembly.hash_ids`."""
        return self.folder / HASHES

    @property
    def rejects_file(self) -> Path:
        """Its rows of ``rejects.csv``, without header."""
        return self.folder / "rejects.csv"

    def blocks(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Whole sessions, a batch of `assembly.BLOCK_SCHEMA` each, with their table's name."""
        with (
            pa.OSFile(str(self.folder / "plays.arrows")) as file,
            pa.ipc.open_stream(file) as reader,
        ):
            for batch, metadata in reader.iter_batches_with_custom_metadata():
                yield metadata["table"].decode(), batch


def _is_whole(part: Path) -> bool:
    """Whether a part is there, its files as they were written."""
    try:
        return bool(Part.opened(part).about[FILES] == _sums(part))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _sums(part: Path) -> dict[str, list[int]]:
    """Size and checksum of each file of a part but `part.json`."""
    sums = {}
    for file in sorted(part.iterdir()):
        if file.name == "part.json":
            continue
        size = checksum = 0
        with file.open("rb") as content:
            while block := content.read(SUMMED_AT_ONCE):
                size, checksum = size + len(block), zlib.crc32(block, checksum)
        sums[file.name] = [size, checksum]
    return sums


class PartWriter(ExitStack):
    """A part in the making: two streams, of whole sessions and rejected rows, and an account.

    Attributes:
        tables: Tables read so far.
        rows: Rows read so far.
        lost: About how many more lie behind damage.
        sessions: Sessions written so far.
        rejects: Rejected rows.
        notes: Values stored as unknown: how many, by what they are.
        passed_over: Tables and files that were not read.
    """

    def __init__(
        self, folder: Path, max_rows: int | None, schema: pa.Schema = BLOCK_SCHEMA
    ) -> None:
        """Begin a part.

        Args:
            folder: An empty folder.
            max_rows: Read no more rows than that.
            schema: The columns of `assembly.BLOCK_SCHEMA` that the part has.
        """
        super().__init__()
        self._max_rows = max_rows
        self.tables = self.rows = self.lost = self.sessions = 0
        self.rejects = Rejects()
        self.notes: Counter[str] = Counter()
        self.passed_over: list[PassedOver] = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._plays = self.enter_context(
            pa.ipc.new_stream(str(folder / "plays.arrows"), schema, options=options)
        )
        headless = pc_csv.WriteOptions(include_header=False)
        self._rejects = self.enter_context(
            pc_csv.CSVWriter(str(folder / "rejects.csv"), REJECTS_SCHEMA, write_options=headless)
        )
        self._hashes = self.enter_context((folder / HASHES).open("wb"))

    @property
    def full(self) -> bool:
        """Whether the limit of rows is reached."""
        return self.rows == self._max_rows

    def read(
        self, table: Table, name: str, wanted: Sequence[str], as_codes: Collection[str] = ()
    ) -> Iterator[Rows]:
        """Rows of a table, counted, up to the limit; their rejects are written under a name."""
        self.tables += 1
        for rows in table.rows(wanted, as_codes=as_codes):
            if self._max_rows is not None:
                rows = rows.first(self._max_rows - self.rows)
            self.rows += rows.num_read
            yield rows
            self.write_rejects(name)
            if self.full:
                break

    def write(self, batch: pa.RecordBatch | None, table: str) -> None:
        """Write whole sessions from the table of that name, a batch of the part's schema."""
        if batch is not None:
            self._plays.write_batch(batch, custom_metadata={"table": table})
            self.sessions += len(batch["session_id"].dictionary)
            with writing(Path(self._hashes.name)):
                self._hashes.write(hash_ids(batch["session_id"].dictionary).data)

    def write_rejects(self, table: str) -> None:
        """Write the rows of a table that were rejected since the last call."""
        if len(rejected := self.rejects.take(table)):
            self._rejects.write_table(rejected)

    def about(self) -> dict[str, Any]:
        """The account, for `Part.about`."""
        return {
            "tables": self.tables,
            "rows": self.rows,
            "sessions": self.sessions,
            "rejected": dict(self.rejects.counts),
            "examples": self.rejects.examples,
            "lost": self.lost,
            "notes": dict(self.notes),
            "passed_over": [[table.name, table.why] for table in self.passed_over],
        }


def make_parts(
    files: Sequence[Path],
    folder: Path,
    spread: Spread,
    *,
    max_rows: int | None = None,
    progress: bool = False,
) -> list[Part]:
    """Make a part of each log, or take the one that is finished.

    Args:
        files: The logs.
        folder: Where the parts go.
        spread: Does the work; a limit of rows goes through the files in their order, here.
        max_rows: Read no more rows than that, over all files in their order.
        progress: Show a bar.

    Returns:
        The parts, in the order of the files.

    Raises:
        ValueError: A file is damaged or lacks columns.
    """
    sizes = [file.stat().st_size for file in files]
    to = folder.absolute()
    with tqdm(
        total=sum(sizes), unit="B", unit_scale=True, desc="reading logs", disable=not progress
    ) as bar:
        if max_rows is None:
            pieces = [
                Piece(f"Reading {file}", make_part, (file, to, None), size, finds=file, adds_to=to)
                for file, size in zip(files, sizes, strict=True)
            ]
            found = dict(spread(pieces, bar.update))
            made = [found[number] for number in range(len(files))]
            return [replace(part, folder=folder / part.folder.name) for part in made]
        parts: list[Part] = []
        for file in files:
            if max_rows:
                parts.append(make_part(file, folder, max_rows, bar.update))
                max_rows -= parts[-1].about["rows"]
        return parts


def make_part(
    file: Path, folder: Path, max_rows: int | None, on_bytes: OnBytes = ignore_bytes
) -> Part:
    """Read one log into a part, unless that part is finished.

    Args:
        file: The log.
        folder: Where parts go.
        max_rows: Read no more rows than that.
        on_bytes: Receives how many bytes were read; over the whole file they sum to its size.
    """
    source = describe_source(file)
    remaining: int = source["bytes"]

    def count(read: int) -> None:
        """Pass bytes on, never more than the file has: Parquet and zip may read some twice."""
        nonlocal remaining
        read = min(read, remaining)
        remaining -= read
        on_bytes(read)

    def write(unfinished: Path) -> dict[str, Any]:
        with (
            PartWriter(unfinished, max_rows) as writer,
            open_tables(file, on_bytes=count, scratch=unfinished) as tables,
        ):
            for table in tables:
                refusal = table if isinstance(table, PassedOver) else log_refusal(table)
                if refusal is not None:
                    writer.passed_over.append(refusal)
                elif not isinstance(table, PassedOver):
                    if writer.full:
                        break
                    _read_log(table, writer, unfinished)
        about = writer.about()
        found = {name: about[name] for name in ("rows", "sessions")}
        return {"sources": [{**source, **found}], **about}

    settings = {**source, "file": str(file.resolve()), "max_rows": max_rows}
    part = Part.make(folder, settings, write)
    on_bytes(remaining)
    return part


def _read_log(table: Table, writer: PartWriter, scratch: Path) -> None:
    """Read a table; write whole sessions as they come, and at the end those cut short."""
    reader = LogReader(table, writer.rejects, writer.notes)
    assembler = SessionAssembler(scratch, writer.rejects)
    for rows in writer.read(table, table.name, reader.wanted, reader.as_codes):
        writer.write(assembler.add(reader.read(rows)), table.name)
    for batch in assembler.finish():
        writer.write(batch, table.name)
        writer.write_rejects(table.name)
    writer.write_rejects(table.name)
