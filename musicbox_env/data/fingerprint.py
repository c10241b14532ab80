"""What tells one dataset from another: digests of its content, whatever its folder is called.

A fingerprint covers the catalog (ids, counts, features, titles), the plays, and the sessions with
their splits. It does not cover what is derived from these: embeddings, spaces, fitted listeners.
The catalog has one of its own, of the track ids in their order: under another one, a track's row
means another song.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.data.catalog import TRACK_ID
from musicbox_env.data.sessions import SessionLog

FINGERPRINT: Final = "fingerprint"
CATALOG_FINGERPRINT: Final = "catalog_fingerprint"
COUNTS: Final = ("tracks", "sessions", "plays")
ROWS_A_BLOCK: Final = 1 << 20
THREADS: Final = 4
DIGITS: Final = 32


def fingerprints(catalog: pa.Table, sessions: SessionLog) -> dict[str, str]:
    """Both fingerprints of a dataset.

    Each array is hashed by itself with its name, type and length, on several threads.

    Args:
        catalog: What `Catalog.check` gives.
        sessions: The log; every value of it is read.
    """
    plays = {f"plays/{name}": sessions.column(name) for name in sessions.stored}
    arrays = {**plays, "sessions/offsets": sessions.offsets, "sessions/split": sessions.split}
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(_of_array, arrays.values())
        columns = {f"catalog/{name}": _of_column(catalog[name]) for name in catalog.column_names}
    columns.update(zip(arrays, digests, strict=True))
    whole = hashlib.sha256()
    for name in sorted(columns):
        whole.update(f"{name} {columns[name]}\n".encode())
    own = columns[f"catalog/{TRACK_ID}"]
    return {FINGERPRINT: whole.hexdigest()[:DIGITS], CATALOG_FINGERPRINT: own[:DIGITS]}


def _of_array(array: npt.NDArray) -> str:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    for block in _blocks(array):
        digest.update(block.data)
    return digest.hexdigest()


def _of_column(column: pa.ChunkedArray) -> str:
    """Digest of a column of numbers, strings, or lists of strings."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = pc.call_function("list_value_length", [column]).fill_null(-1).to_numpy()
        values = pc.call_function("list_flatten", [column])
        return _of_parts(_of_array(lengths.astype(np.int64)), _of_column(values))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.fill_null("")
        lengths = pc.call_function("binary_length", [texts]).to_numpy().astype(np.int64)
        text = "".join(texts.to_numpy()).encode()
        return _of_parts(_of_array(lengths), _of_array(np.frombuffer(text, np.uint8)))
    if pa.types.is_null(column.type):
        return _of_parts("nothing", str(len(column)))
    return _of_array(column.to_numpy())


def _of_parts(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _blocks(array: npt.NDArray) -> Iterator[npt.NDArray]:
    mapped = array.base
    for start in range(0, len(array), ROWS_A_BLOCK):
        if isinstance(mapped, np.memmap):  # what is read of a map stays in the process's memory
            place = mapped.offset + start * array.itemsize
            yield np.fromfile(str(mapped.filename), array.dtype, ROWS_A_BLOCK, offset=place)
        else:
            yield np.ascontiguousarray(array[start : start + ROWS_A_BLOCK])


def in_words(identity: Mapping[str, Any]) -> str:
    """A dataset for messages: its counts and the beginning of its fingerprint.

    >>> in_words({"tracks": 1200, "sessions": 5, "plays": 90, "fingerprint": "0123456789abcdef"})
    '1,200 tracks, 5 sessions, 90 plays (fingerprint 01234567)'
    """
    known = [name for name in COUNTS if isinstance(identity.get(name), int)]
    counts = ", ".join(f"{identity[name]:,} {name}" for name in known)
    return f"{counts} (fingerprint {str(identity.get(FINGERPRINT, 'unknown'))[:8]})"
