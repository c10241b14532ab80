"""Ingest of Yambda beside pyarrow reading and writing the same columns: time, memory, projection.

    PYTHONPATH=tests python tests/measure_yambda.py FOLDER --plays 46467212 --listeners 9238

writes ``FOLDER/listens.parquet`` unless it is there, and prints wall time of both by their
defaults, and processor time, that of pyarrow in one thread. Each runs in a process of its own.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
from make_yambda import YambdaConfig, write_flat
from musicbox_experiments.benchmark.measure import in_new_process

from musicbox_env.ingest.pipeline import IngestConfig, ingest

WHOLE_PLAYS = 4.65e9
"""Listens of the largest of Yambda's files."""


def to_dataset(file: Path, out: Path) -> None:
    """Ingest, and remove the dataset."""
    ingest(IngestConfig((str(file),), out, embeddings=False, progress=False))
    shutil.rmtree(out)


def to_parquet(file: Path, out: Path) -> None:
    """Copy with pyarrow, a batch at a time, and remove the copy."""
    source = pq.ParquetFile(file)
    with pq.ParquetWriter(out, source.schema_arrow) as writer:
        for batch in source.iter_batches():
            writer.write_batch(batch)
    out.unlink()


def to_parquet_in_one_thread(file: Path, out: Path) -> None:
    """The same without threads and reading ahead."""
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    source = pq.ParquetFile(file, pre_buffer=False)
    with pq.ParquetWriter(out, source.schema_arrow) as writer:
        for batch in source.iter_batches():
            writer.write_batch(batch)
    out.unlink()


def main() -> None:
    """Measure, and say what the whole data set would take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--plays", type=int, default=1_000_000)
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "listens.parquet"
    if not file.is_file():
        write_flat(file, YambdaConfig(given.listeners, given.plays, given.tracks))
    for _ in range(given.repeats):
        ours = in_new_process(to_dataset, file, given.folder / "out")
        theirs = in_new_process(to_parquet, file, given.folder / "copy.parquet")
        alone = in_new_process(to_parquet_in_one_thread, file, given.folder / "copy.parquet")
        speed = pq.read_metadata(file).num_rows / ours["clock"]
        print(
            f"wall: ingest {ours['clock']:.1f} s, pyarrow {theirs['clock']:.1f} s, ratio "
            f"{theirs['clock'] / ours['clock']:.2f}; processor: {ours['seconds']:.1f} s and "
            f"{alone['seconds']:.1f} s in one thread, ratio "
            f"{alone['seconds'] / ours['seconds']:.2f}; {ours['peak']:,.0f} MiB; "
            f"{WHOLE_PLAYS:,.0f} plays at that wall time: {WHOLE_PLAYS / speed / 3600:.1f} hours"
        )


if __name__ == "__main__":
    main()
