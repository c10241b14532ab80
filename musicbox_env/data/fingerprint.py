"""What tells one dataset from another: digests of its content, whatever its folder is called.

A fingerprint covers the catalog (ids, counts, features, titles), the plays, and the sessions with
their splits. It does not cover what is derived from these: embeddings, spaces, fitted listeners.
The catalog has one of its own, of the track ids in their order: under another one, a track's row
means another song.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from musicbox_env.schema import EXTRA_PLAY_COLUMNS, PLAY_COLUMNS

FINGERPRINT: Final = "fingerprint"
CATALOG_FINGERPRINT: Final = "catalog_fingerprint"
COUNTS: Final = ("tracks", "sessions", "plays")
ROWS_A_BLOCK: Final = 1 << 20


def fingerprints(folder: Path) -> dict[str, str]:
    """Both fingerprints of a dataset folder, computed from its files."""
    table = pq.read_table(folder / "catalog.parquet")
    catalog, whole = hashlib.sha256(), hashlib.sha256()
    for name in sorted(table.column_names):
        values = _as_bytes(table[name].to_numpy())
        whole.update(name.encode() + values)
        if name == "track_id":
            catalog.update(values)
    extra = [n for n in EXTRA_PLAY_COLUMNS if (folder / f"plays/{n}.npy").is_file()]
    plays = [f"plays/{name}" for name in (*PLAY_COLUMNS, *extra)]
    for name in (*plays, "sessions/offsets", "sessions/split"):
        whole.update(name.encode())
        for block in _blocks(folder / f"{name}.npy"):
            whole.update(block.data)
    return {FINGERPRINT: whole.hexdigest()[:32], CATALOG_FINGERPRINT: catalog.hexdigest()[:32]}


def _as_bytes(values: npt.NDArray) -> bytes:
    if values.dtype == object:
        return "\0".join("" if value is None else str(value) for value in values).encode()
    return values.tobytes()


def _blocks(file: Path) -> Iterator[npt.NDArray]:
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    for start in range(0, len(array), ROWS_A_BLOCK):
        yield np.ascontiguousarray(array[start : start + ROWS_A_BLOCK])


def in_words(identity: Mapping[str, Any]) -> str:
    """A dataset for messages: its counts and the beginning of its fingerprint.

    >>> in_words({"tracks": 1200, "sessions": 5, "plays": 90, "fingerprint": "0123456789abcdef"})
    '1,200 tracks, 5 sessions, 90 plays (fingerprint 01234567)'
    """
    counts = ", ".join(f"{identity[name]:,} {name}" for name in COUNTS if name in identity)
    return f"{counts} (fingerprint {str(identity.get(FINGERPRINT, 'unknown'))[:8]})"
