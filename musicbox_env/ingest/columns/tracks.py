"""Tracks of all parts made one catalog: each range of their hashes by itself.

A part writes its tracks into a file for each range. What was written for a range is merged, and
then each part is told the rows of its tracks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.data.writing import PlayTally
from musicbox_env.errors import writing
from musicbox_env.ingest.assembly import hash_ids

PLAYS_A_RANGE = 1 << 25
"""Of so many plays one range of tracks is merged at once."""
ROWS: Final = "rows"
"""File in the folder of a part: the row in the catalog of each of its tracks, int32."""
COUNTS: Final = ("plays_a", "skips_a", "plays_b", "skips_b")
SCHEMA: Final = pa.schema(
    [("track_id", pa.string()), ("place", pa.int32()), *((name, pa.int64()) for name in COUNTS)]
)
"""A track, its place among those of the part, its training plays and skips."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrackFiles:
    """Where the tracks of parts lie: a folder for each range, with a file for each part.

    Attributes:
        folder: That of all ranges.
        ranges: How many there are.
        part: Number of the part.
    """

    folder: Path
    ranges: int
    part: int = 0

    def of(self, number: int) -> Path:
        """The folder of a range."""
        return self.folder / f"range-{number}"

    def merged(self, number: int) -> Path:
        """What `merge` makes of a range."""
        return self.folder / f"merged-{number}.arrow"


def write_tracks(files: TrackFiles, tally: PlayTally) -> None:
    """Write the tracks of a part, each range into its file."""
    ids = pa.array(tally.index, pa.string())
    range_of = np.zeros(len(ids), np.uint64)
    if files.ranges > 1:
        range_of = (hash_ids(ids) >> np.uint64(32)) * np.uint64(files.ranges) >> np.uint64(32)
    order = np.argsort(range_of, kind="stable").astype(np.int32)
    ends = np.searchsorted(range_of[order], np.arange(1, files.ranges + 1))
    counts = tally.counts[:, :, : len(ids)].reshape(len(COUNTS), -1)
    for number, places in enumerate(np.split(order, ends[:-1])):
        file = files.of(number) / str(files.part)
        file.parent.mkdir(exist_ok=True)
        columns = [ids.take(pa.array(places)), pa.array(places), *counts[:, places]]
        with writing(file), pa.ipc.new_file(str(file), SCHEMA) as writer:
            writer.write(pa.record_batch([pa.array(column) for column in columns], schema=SCHEMA))


def merge(
    files: TrackFiles, parts: int, number: int, progress: Callable[[int], object]
) -> tuple[pa.StringArray, Ints]:
    """Merge a range of the tracks of all parts; writes the row within it of each track of each.

    Returns:
        The tracks of the range ``(n,)``, and their `COUNTS` ``(4, n)``.
    """
    read = [_read(files.of(number) / str(part)) for part in range(parts)]
    coded = [
        pa.DictionaryArray.from_arrays(
            np.arange(len(table), dtype=np.int32),
            pa.concat_arrays([pa.array([], pa.string()), *table["track_id"].chunks]),
        )
        for table in read
    ]
    unified = pa.chunked_array(coded).unify_dictionaries()
    tracks: pa.StringArray = unified.chunk(0).dictionary
    counts = np.zeros((len(COUNTS), len(tracks)), np.int64)
    with pa.ipc.new_file(str(files.merged(number)), pa.schema([(ROWS, pa.int32())])) as writer:
        for table, chunk in zip(read, unified.chunks, strict=True):
            rows = chunk.indices.to_numpy()
            counts[:, rows] += [table[name].to_numpy() for name in COUNTS]
            writer.write(pa.record_batch([pa.array(rows)], [ROWS]))
    progress(sum(map(len, read)))
    return tracks, counts


def write_rows(
    files: TrackFiles, folders: Sequence[Path], starts: Ints, new_row: npt.NDArray[np.int32]
) -> None:
    """Tell each part the rows of its tracks in the catalog.

    Args:
        files: What was merged.
        folders: Those of the parts.
        starts: First of all tracks in each range ``(ranges,)``.
        new_row: Row in the catalog of each of all tracks.
    """
    merged = [
        pa.ipc.open_file(pa.memory_map(str(files.merged(number)))) for number in range(files.ranges)
    ]
    for part, folder in enumerate(folders):
        places, rows = [], []
        for number, (reader, start) in enumerate(zip(merged, starts, strict=True)):
            places.append(_read(files.of(number) / str(part))["place"].to_numpy())
            rows.append(new_row[start + reader.get_batch(part).column(0).to_numpy()])
        of_places = np.empty(sum(map(len, places)), np.int32)
        of_places[np.concatenate(places)] = np.concatenate(rows)
        with writing(folder / ROWS):
            (folder / ROWS).write_bytes(of_places.data)


def _read(file: Path) -> pa.Table:
    with pa.ipc.open_file(str(file)) as reader:
        return reader.read_all()
