"""Source files made into parts: finished pieces of a dataset, each written whole or not at all.

A part is a folder named after its source file, the file's content and whatever else it depends
on, so that one that stands can be used again by the next run.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc_csv
from tqdm import tqdm

from musicbox_env.ingest.assembly import BLOCK_SCHEMA, SessionAssembler
from musicbox_env.ingest.histories.sessionize import run_of
from musicbox_env.ingest.mssd import REJECTS_SCHEMA, LogEvaluator
from musicbox_env.ingest.readers import PassedOver, describe_source, open_tables
from musicbox_env.ingest.tables import Table, found_columns
from musicbox_env.schema import REQUIRED_LOG_COLUMNS

PART_VERSION: Final = 2
"""Belongs to every part's key: raise it when parts come out differently."""
BYTES_PER_WORKER: Final = 48 << 20
"""Read in the half second that a process takes to start; of less, it would find nothing left."""
POLL_SECONDS: Final = 0.2

OnBytes = Callable[[int], object]


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        folder: Where it lies.
        about: Its file, sha256, bytes; tables, rows and sessions found; what was rejected, stored
            as unknown and passed over.
    """

    folder: Path
    about: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Part:
        """Open a finished part."""
        return cls(folder, json.loads((folder / "part.json").read_text()))

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Its source files, as ``dataset.json`` lists them."""
        if not self.about["tables"]:
            return []
        if "sources" in self.about:
            return list(self.about["sources"])
        return [{k: self.about[k] for k in ("file", "bytes", "sha256", "rows", "sessions")}]

    @property
    def names(self) -> pd.DataFrame | None:
        """Titles and artists of its tracks, where it has any."""
        file = self.folder / "names.parquet"
        return pd.read_parquet(file) if file.is_file() else None

    def split_keys(self, session_ids: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """What the splits of sessions are drawn from: in a history the runs that they are of."""
        if "history" not in self.about:
            return session_ids
        return np.array([run_of(name) for name in session_ids], dtype=object)

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


def make_parts(
    files: Sequence[Path],
    folder: Path,
    *,
    named: set[Path],
    max_rows: int | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> list[Part]:
    """Make a part of each log, or take the one that stands.

    Args:
        files: The logs.
        folder: Where the parts go.
        named: Files that the user named one by one, which must hold a log.
        max_rows: Read no more rows than that, over all files in their order.
        workers: Files worked on at once, one of them by this process; None for as many as there
            are cores, where it pays.
        progress: Show a bar.

    Returns:
        The parts, in the order of the files.

    Raises:
        ValueError: A file is damaged, lacks columns, or was named and holds no log; or none does.
    """
    folder.mkdir(exist_ok=True)
    total = sum(file.stat().st_size for file in files)
    if workers is None:
        workers = min(os.cpu_count() or 1, 1 + total // BYTES_PER_WORKER)
    workers = max(1, min(workers, len(files)))
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="reading logs", disable=not progress
    ) as bar:
        if max_rows is not None or workers == 1:
            parts = _one_by_one(files, folder, max_rows, bar.update)
        else:
            parts = _side_by_side(files, folder, workers, bar)
    for file, part in zip(files, parts, strict=False):
        if file in named and not part.about["tables"]:
            raise ValueError(_first_refusal(part))
    if not any(part.about["tables"] for part in parts):
        found = "; ".join(_first_refusal(part) for part in parts[:3]) or "nothing there"
        raise ValueError(f"No listening log among the {len(files)} files found: {found}")
    return parts


def _first_refusal(part: Part) -> str:
    for name, why in part.about["passed_over"]:
        return f"{name}: {why}."
    return f"{part.about['file']}: holds no table."


def _one_by_one(
    files: Sequence[Path], folder: Path, max_rows: int | None, on_bytes: OnBytes
) -> list[Part]:
    parts: list[Part] = []
    left = max_rows
    for file in files:
        if left == 0:
            break
        parts.append(Part.open(make_part(file, folder, left, on_bytes)))
        if left is not None:
            left -= parts[-1].about["rows"]
    return parts


def _side_by_side(files: Sequence[Path], folder: Path, workers: int, bar: tqdm) -> list[Part]:
    """Make parts in this process, which reads while others start, and in ``workers - 1`` others."""
    # A forked worker could inherit a lock that one of Arrow's threads holds.
    context = multiprocessing.get_context("spawn")
    turns = _Turns(len(files), context)
    pool = ProcessPoolExecutor(workers - 1, context, _share_turns, (turns,))

    def look() -> None:
        bar.update(turns.bytes_read.value - bar.n)
        for future in others:
            if future.done():
                future.result()

    try:
        others = [pool.submit(_take_turns_in_worker, files, folder) for _ in range(workers - 1)]
        made = _take_turns(turns, files, folder, look)
        while wait(others, POLL_SECONDS, FIRST_EXCEPTION).not_done:
            look()
        for future in others:
            made |= future.result()
        look()
        return [Part.open(made[place]) for place in range(len(files))]
    except BrokenProcessPool as error:
        raise OSError(
            "A worker process was killed, perhaps for lack of memory. Run the same command again "
            "with fewer --workers; it goes on from the files already done."
        ) from error
    finally:
        turns.stop()
        pool.shutdown()


class _Turns:
    """Whose turn it is, among processes that share this object.

    Attributes:
        bytes_read: By all of them together.
    """

    def __init__(self, number: int, context: SpawnContext) -> None:
        self.bytes_read = context.Value("q", 0)
        self._number = number
        self._next = context.Value("q", 0)

    def take(self) -> int | None:
        """The place of the next file, which nobody else gets, or None when all are taken."""
        with self._next.get_lock():
            place = int(self._next.value)
            self._next.value = min(place + 1, self._number)
        return place if place < self._number else None

    def stop(self) -> None:
        """Give no more files."""
        with self._next.get_lock():
            self._next.value = self._number

    def read(self, count: int) -> None:
        """Note that so many bytes were read."""
        with self.bytes_read.get_lock():
            self.bytes_read.value += count


_turns: _Turns | None = None
"""In a worker process: what it shares with the others."""


def _share_turns(turns: _Turns) -> None:
    global _turns
    _turns = turns


def _take_turns_in_worker(files: Sequence[Path], folder: Path) -> dict[int, Path]:
    assert _turns is not None
    return _take_turns(_turns, files, folder, lambda: None)


def _take_turns(
    turns: _Turns, files: Sequence[Path], folder: Path, look: Callable[[], None]
) -> dict[int, Path]:
    """Make parts of files, one at a time, until none is left; ``look`` is called often.

    Returns:
        The parts made, by their file's place.
    """

    def on_bytes(count: int) -> None:
        turns.read(count)
        look()

    made: dict[int, Path] = {}
    while (place := turns.take()) is not None:
        made[place] = make_part(files[place], folder, None, on_bytes)
    return made


def make_part(file: Path, folder: Path, max_rows: int | None, on_bytes: OnBytes) -> Path:
    """Read one log into a part, unless that part stands already.

    Args:
        file: The log.
        folder: Where parts go.
        max_rows: Read no more rows than that.
        on_bytes: Told how many bytes were read; over the whole file they sum to its size.

    Returns:
        The part's folder.
    """
    source = describe_source(file)
    settings = {**source, "file": str(file.resolve()), "max_rows": max_rows, "v": PART_VERSION}
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:24]
    finished = folder / key
    if finished.is_dir():
        on_bytes(source["bytes"])
        return finished
    unfinished = folder / f"{key}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    remaining: int = source["bytes"]

    def count(read: int) -> None:
        """Pass bytes on, never more than the file has: Parquet and zip may read some twice."""
        nonlocal remaining
        read = min(read, remaining)
        remaining -= read
        on_bytes(read)

    about = _read_log(file, unfinished, max_rows, count)
    on_bytes(remaining)
    # Not by `dataset.write_json`: a worker that imported it would start three times as slowly.
    (unfinished / "part.json").write_text(json.dumps({**source, **about}, indent=2) + "\n")
    os.replace(unfinished, finished)
    return finished


def _read_log(file: Path, folder: Path, max_rows: int | None, on_bytes: OnBytes) -> dict[str, Any]:
    """Evaluator and gather the plays of all tables of a file; say what was found."""
    passed_over: list[tuple[str, str]] = []
    totals: Counter[str] = Counter(tables=0, rows=0, sessions=0)
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    with PartWriter(folder) as writer:
        for table in open_tables(file, on_bytes=on_bytes, scratch=folder):
            refusal = table if isinstance(table, PassedOver) else log_refusal(table)
            if refusal is not None:
                passed_over.append((refusal.name, refusal.why))
                continue
            assert not isinstance(table, PassedOver)
            left = None if max_rows is None else max_rows - totals["rows"]
            if left == 0:
                break
            reading = _TableReading(table, folder)
            for batch in reading.sessions(left):
                writer.write(batch, table.name)
                writer.reject(reading.new_rejects())
            writer.reject(reading.new_rejects())
            totals.update(tables=1, rows=reading.rows_read)
            rejected.update(reading.rejected)
            notes.update(reading.notes)
        totals["sessions"] = writer.sessions
    return {
        **totals,
        "rejected": dict(rejected),
        "notes": dict(notes),
        "passed_over": passed_over,
    }


class PartWriter(ExitStack):
    """The two streams of a part in the making: whole sessions, and rejected rows.

    Attributes:
        sessions: Sessions written so far.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a part in an empty folder."""
        super().__init__()
        self.sessions = 0
        self._plays = self.enter_context(
            pa.ipc.new_stream(
                str(folder / "plays.arrows"),
                BLOCK_SCHEMA,
                options=pa.ipc.IpcWriteOptions(compression="lz4"),
            )
        )
        self._rejects = self.enter_context(
            pc_csv.CSVWriter(
                str(folder / "rejects.csv"),
                REJECTS_SCHEMA,
                write_options=pc_csv.WriteOptions(include_header=False),
            )
        )

    def write(self, batch: pa.RecordBatch, table: str) -> None:
        """Write whole sessions, a batch of `assembly.BLOCK_SCHEMA`, from the table of that name."""
        self._plays.write_batch(batch, custom_metadata={"table": table})
        self.sessions += len(batch["session_id"].dictionary)

    def reject(self, rows: pa.Table) -> None:
        """Write rejected rows, a table of `plays.REJECTS_SCHEMA`."""
        self._rejects.write_table(rows)


def log_refusal(table: Table) -> PassedOver | None:
    """Why a table is no log at all; one that merely lacks columns is an error, told later.

    Tables of aggregates share a few columns with logs; a log names its sessions, or has at least
    half of the required columns.
    """
    present = [name for name in REQUIRED_LOG_COLUMNS if name in table.columns]
    if "session_id" in present or 2 * len(present) >= len(REQUIRED_LOG_COLUMNS):
        return None
    return PassedOver(
        table.name,
        f"is no listening log: columns {', '.join(REQUIRED_LOG_COLUMNS)} expected, "
        f"{found_columns(table)} found; and no streaming history or table of plays",
    )


class _TableReading:
    """One table on its way into sessions.

    Attributes:
        rows_read: Rows seen so far.
    """

    def __init__(self, table: Table, scratch: Path) -> None:
        self.rows_read = 0
        self._table = table
        self._evaluator = LogEvaluator(table)
        self._assembler = SessionAssembler(scratch)

    def sessions(self, max_rows: int | None) -> Iterator[pa.RecordBatch]:
        """Read the table; give whole sessions as they come, and at the end those cut short."""
        for rows in self._table.rows(self._evaluator.wanted, as_codes=self._evaluator.as_codes):
            if max_rows is not None:
                rows = rows.first(max_rows - self.rows_read)
            self.rows_read += rows.num_read
            if (batch := self._assembler.add(self._evaluator.evaluator(rows))) is not None:
                yield batch
            if self.rows_read == max_rows:
                break
        yield from self._assembler.finish()

    def new_rejects(self) -> pa.Table:
        """Rows rejected since the last call."""
        name = self._table.name
        return pa.concat_tables(
            [self._evaluator.rejects.take(name), self._assembler.rejects.take(name)]
        )

    @property
    def rejected(self) -> Counter[str]:
        """Rejected rows by reason."""
        return self._evaluator.rejects.counts + self._assembler.rejects.counts

    @property
    def notes(self) -> Counter[str]:
        """Values stored as unknown."""
        return self._evaluator.notes
