"""Speed and memory of ingesting raw logs: CSV to dataset beside pyarrow's own CSV to Parquet."""

import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from musicbox_env.ingest.pipeline import IngestConfig
from musicbox_env.ingest.pipeline import ingest as ingest_logs
from musicbox_env.synthetic.generator import write_raw
from musicbox_env.synthetic.world import SyntheticConfig
from musicbox_experiments.benchmark.measure import MEBIBYTE, Context, Row, in_new_process

HUGE_MEBIBYTES = 1024
"""A file so large is read once, not in several runs."""
WHOLE_DATA_SET = 426e9
"""Bytes of the Music Streaming Sessions Dataset, uncompressed."""


def ingest(context: Context) -> Iterator[Row]:
    """One file of each size by one process, then four files by two processes."""
    sizes = (60_000, 200_000, 3_000_000) if context.full else (3_000, 60_000)
    with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
        for sessions in sizes:
            file = _raw_file(Path(scratch) / f"raw-{sessions}", sessions)
            yield from _one_file(file, sessions, is_largest=sessions == sizes[-1])
            shutil.rmtree(file.parent)
        files = [_raw_file(Path(scratch) / f"seed-{n}", sizes[1], n) for n in range(1, 5)]
        yield _four_files(files, Path(scratch) / "out")


def _raw_file(folder: Path, sessions: int, seed: int = 0) -> Path:
    """Synthetic raw logs, uncompressed."""
    write_raw(SyntheticConfig(sessions=sessions, tracks=5_000, seed=seed), folder)
    file = folder / "sessions.csv"
    with gzip.open(folder / "sessions.csv.gz") as source, file.open("wb") as target:
        shutil.copyfileobj(source, target)
    return file


def _one_file(file: Path, sessions: int, *, is_largest: bool) -> Iterator[Row]:
    size = file.stat().st_size / MEBIBYTE
    out, speeds, peaks = file.with_name("out"), [], []

    def ours() -> float:
        usage = in_new_process(to_dataset, [file], out, 1)
        speeds.append(size / usage["seconds"])
        peaks.append(usage["peak"])
        return speeds[-1]

    yield Row(
        f"ingest of {sessions:,} sessions ({size:,.0f} MiB)",
        "MiB/s",
        ours if size < HUGE_MEBIBYTES else ours(),
        {"pyarrow": lambda: size / in_new_process(to_parquet, file, out)["seconds"]},
        0.5 if is_largest else None,
        "one process each; pyarrow turns CSV into Parquet and checks nothing",
    )
    peak = f"ingest of {sessions:,} sessions: peak memory"
    yield Row(peak, "MiB", max(peaks), {"limit": 1536.0}, 1.0)
    if is_largest:
        name = f"the whole data set, {WHOLE_DATA_SET / 1e9:,.0f} GB, at that speed"
        hours = WHOLE_DATA_SET / MEBIBYTE / median(speeds) / 3600
        yield Row(name, "hours", hours, note="of one core; files are ingested side by side")


def _four_files(files: Sequence[Path], out: Path) -> Row:
    """The same four files by one process and by two, by the clock on the wall.

    What a second process gains depends on what else runs on the machine. So two processes that
    only count are timed in the same run: their gain is what there is to be had.
    """

    def gain() -> float:
        one, two = (in_new_process(to_dataset, files, out, n)["clock"] for n in (1, 2))
        return one / two

    counting = {"only counting": lambda: 2 * counting_seconds(1) / counting_seconds(2)}
    return Row("four files by two processes over by one", "times", gain, counting)


def to_dataset(files: Sequence[Path], out: Path, workers: int) -> None:
    """Ingest files, and remove the dataset."""
    sources = tuple(map(str, files))
    ingest_logs(IngestConfig(sources, out, embeddings=False, workers=workers, progress=False))
    shutil.rmtree(out)


def to_parquet(file: Path, out: Path) -> None:
    """Copy a CSV file to Parquet with pyarrow, one thread, and remove the copy."""
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    with (
        pyarrow.csv.open_csv(file) as reader,
        pyarrow.parquet.ParquetWriter(out, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
    out.unlink()


def counting_seconds(processes: int) -> float:
    """Time that as many processes take to count to fifty million each, by the clock."""
    command = [sys.executable, "-S", "-c", "for _ in range(50_000_000): pass"]
    began = perf_counter()
    for process in [subprocess.Popen(command) for _ in range(processes)]:
        process.wait()
    return perf_counter() - began
