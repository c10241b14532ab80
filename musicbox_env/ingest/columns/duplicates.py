"""Sessions that came before, in another part or in the same: told by their hashes.

Hashes are looked through range by range, so that memory holds a few ranges and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.assembly import IdSet

HASHES_A_RANGE = 1 << 24
THREADS = 4

Hashes = npt.NDArray[np.uint64]


def duplicates(files: Sequence[Path]) -> list[npt.NDArray[np.int64]]:
    """The sessions of each part that came before, by their number in it, ascending.

    Args:
        files: The hashes of the parts' sessions, in the order of the parts.
    """
    number = sum(file.stat().st_size for file in files) // np.dtype(np.uint64).itemsize
    ranges = 1 + number // HASHES_A_RANGE
    with ThreadPoolExecutor(THREADS) as pool:  # sorting leaves other threads alone
        repeated = np.concatenate(list(pool.map(partial(_repeated, files, ranges), range(ranges))))
    seen, found = IdSet(), []
    for file in files if len(repeated) else ():
        hashes = np.fromfile(file, np.uint64)
        some = np.flatnonzero(np.isin(hashes, repeated))
        first = np.zeros(len(some), np.bool_)
        first[np.unique(hashes[some], return_index=True)[1]] = True
        new = first & ~seen.contains(hashes[some])
        seen.add(hashes[some][new])
        found.append(some[~new])
    return found or [np.empty(0, np.int64)] * len(files)


def _repeated(files: Sequence[Path], ranges: int, number: int) -> Hashes:
    """The hashes within a range that more than one session has."""
    within = []
    for file in files:
        hashes = np.fromfile(file, np.uint64)
        of = (hashes >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)
        within.append(hashes[of == number])
    together = np.sort(np.concatenate(within))
    return np.unique(together[1:][together[1:] == together[:-1]])
