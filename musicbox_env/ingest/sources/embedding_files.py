"""Embeddings that come with the listens: read, checked, and made a space of the dataset.

A table of a row a track, with its id and a list of numbers. Vectors of tracks that the catalog does
not hold are passed over. A file is refused where a vector that would be used has another length
than the others, holds what is no finite number or nothing but zeros, or is there twice: no row of
it can then be trusted to be of its track.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.data.dataset import EMBEDDINGS, Dataset
from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.files import describe_source
from musicbox_env.ingest.sources.parquet import ParquetTable
from musicbox_env.ingest.tables import Rows, as_floats, found_columns
from musicbox_env.names import id_key

TRACK_NAMES: Final = ("item_id", "track_id", "song_id", "id")
VECTOR_NAMES: Final = ("embed", "embedding", "vector", "normalized_embed")
"""Lengths are taken from the vectors as they are, so `embed` goes before its unit vectors."""
LARGEST_DIM: Final = 4_096


def space_name(file: Path) -> str:
    """What the space of a file is called: its name, in small letters and digits.

    Raises:
        InputError: A fitted embedding is called so.
    """
    name = re.sub(r"[^a-z0-9]+", "-", file.name.partition(".")[0].lower()).strip("-") or "given"
    if name in EMBEDDINGS:
        raise InputError(
            f"{shown(file)}: {name!r} is the name of an embedding that MusicBox fits; give the "
            "file another name, which becomes that of its space."
        )
    return name


def add_embeddings(files: Mapping[str, Path], folder: Path) -> None:
    """Make a space of each file of embeddings, by name, in a dataset's unfinished folder.

    Raises:
        InputError: A file holds no embeddings, or some that cannot be.
    """
    if files:
        from musicbox_env.retrieval.embeddings import add_embedding

        dataset = Dataset.unfinished(folder)
        for name, file in files.items():
            add_embedding(folder, name, *read_embedding(file, dataset, folder))


def read_embedding(
    file: Path, dataset: Dataset, scratch: Path
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Vectors of a dataset's tracks.

    Args:
        file: A Parquet file of embeddings.
        dataset: With the catalog.
        scratch: Folder for unnamed temporary files.

    Returns:
        ``(num_tracks, d)``, zeros where the file has no vector of the track; and what
        ``embeddings/<name>.json`` shall say of the file.

    Raises:
        InputError: It holds no embeddings, or some that cannot be.
    """
    rows_of = {track: row for row, track in enumerate(dataset.catalog.track_ids.tolist())}
    with open_tables(file, scratch=scratch) as tables:
        for table in tables:
            if isinstance(table, ParquetTable) and (names := embedding_columns(table)) is not None:
                vectors, read = _read(table, names, rows_of)
                source = {**describe_source(file), "file": shown(file.name)}
                return vectors, {"source": source, "column": names[1], "vectors_read": read}
            found = found_columns(table) if isinstance(table, ParquetTable) else "no Parquet table"
    raise InputError(
        f"{shown(file)}: holds no embeddings; a Parquet table with a track's id "
        f"({', '.join(TRACK_NAMES)}) and a list of numbers ({', '.join(VECTOR_NAMES)}) expected, "
        f"{found} found."
    )


def embedding_columns(table: ParquetTable) -> tuple[str, str] | None:
    """Columns of the id and of the vector, if it has both."""

    def is_vector(name: str) -> bool:
        kind = table.types[name]
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return (lists or pa.types.is_fixed_size_list(kind)) and (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        )

    tracks = [n for n in TRACK_NAMES if n in table.types and not pa.types.is_nested(table.types[n])]
    vectors = [n for n in VECTOR_NAMES if n in table.types and is_vector(n)]
    return (tracks[0], vectors[0]) if tracks and vectors else None


def _read(
    table: ParquetTable, names: tuple[str, str], rows_of: dict[str, int]
) -> tuple[npt.NDArray[np.float32], int]:
    vectors, read = np.zeros((len(rows_of), 0), np.float32), 0
    filled = np.zeros(len(rows_of), np.bool_)
    for rows in table.nested_rows(names):
        read += len(rows)
        keys = [id_key(str(key)) for key in rows.columns[names[0]].to_pylist()]
        row = np.array([rows_of.get(key, -1) for key in keys], np.int64)
        used = row >= 0
        if not used.any():
            continue
        values = _matrix(rows, names[1], used, table.name, vectors.shape[1])
        if not vectors.shape[1]:
            vectors = np.zeros((len(rows_of), values.shape[1]), np.float32)
        row, lines = row[used], rows.lines[used]
        _, first = np.unique(row, return_index=True)
        again = filled[row] | ~np.isin(np.arange(len(row)), first)
        _refuse(again, lines, table.name, "has a vector already in an earlier row", "one a track")
        vectors[row] = values
        filled[row] = True
    if not filled.any():
        raise InputError(
            f"{table.name}: none of its {read:,} vectors is of a track of the catalog; their ids "
            f"in column {names[0]} must be those of the plays."
        )
    return vectors, read


def _matrix(
    rows: Rows, name: str, used: npt.NDArray[np.bool_], table: str, dim: int
) -> npt.NDArray[np.float32]:
    """The used vectors of some rows ``(used, d)``."""
    lists, lines = rows.columns[name].filter(pa.array(used)), rows.lines[used]
    sizes = pc.call_function("list_value_length", [lists]).fill_null(0)
    sizes = sizes.to_numpy(zero_copy_only=False)
    dim = dim or int(sizes[0])
    _refuse(sizes != dim, lines, table, f"has {{}} numbers in {name}", f"{dim} as before", sizes)
    if not 2 <= dim <= LARGEST_DIM:
        raise InputError(
            f"{table}: vectors in {name} have {dim} numbers; 2 to {LARGEST_DIM:,} expected."
        )
    values = as_floats(lists.flatten())
    matrix = values.reshape(-1, dim)
    usable = np.isfinite(matrix) & (np.abs(matrix) < 1e30)
    _refuse(
        np.any(~usable, axis=1),
        lines,
        table,
        f"has what is no finite number in {name}",
        "numbers alone",
    )
    _refuse(
        np.all(matrix == 0, axis=1), lines, table, f"has nothing but zeros in {name}", "a direction"
    )
    return matrix.astype(np.float32)


def _refuse(
    bad: npt.NDArray[np.bool_],
    lines: npt.NDArray[np.int64],
    table: str,
    what: str,
    expected: str,
    values: npt.NDArray | None = None,
) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        said = what if values is None else what.format(values[row])
        raise InputError(f"{table}: row {lines[row]:,} {said}; {expected} expected.")
