"""Nearly the best songs out of millions, in a fraction of the time: an inverted file of FAISS.

Tracks are filed under about ``2 sqrt(n)`` centres (`LISTS`), and a query looks only into the
`PROBES` lists whose centres it likes best. What is found there is scored and ordered as
`retrieval.top_k` does, so that the answers differ from the exact ones in what was overlooked and
in nothing else. Songs heard are taken out after the search, which looks for so many more; where
too few are left, the exact search answers.

How much is overlooked depends on where queries lie: near songs, as those of a policy do, next to
nothing; in directions where no song lies, one answer in six. `musicbox benchmark` measures both.

FAISS is optional: ``pip install musicbox-env[approximate]``.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from musicbox_env.retrieval import Floats, Rows, checked_query, ranked, top_k

APPROXIMATE_FROM: Final = 1_000_000
"""Catalogue size from which ``retrieval="auto"`` is approximate: an exact search takes 4 ms."""
LISTS: Final = 2.0
"""Lists, in square roots of the number of tracks: as many centres to scan as tracks in a list."""
PROBES: Final = 24
SAMPLE_A_LIST: Final = 64
"""Tracks that the centres are fitted to, for each of them."""
ROWS_A_BLOCK: Final = 1 << 18


def installed() -> bool:
    """Whether FAISS can be imported."""
    return find_spec("faiss") is not None


class ApproximateIndex:
    """Finds items of high dot product; see the module."""

    def __init__(self, items: Floats, index: Any) -> None:
        """Put items ``(n, d)`` and FAISS's index of them together; see `open` and `build`."""
        self.items = items
        self._index = index
        # Alone or in a batch a query must look into the same lists: BLAS rounds batches otherwise.
        _faiss().cvar.distance_compute_blas_threshold = 1 << 30

    @classmethod
    def open(
        cls, items: Floats, file: Path, *, newer_than: Path, progress: bool = True
    ) -> ApproximateIndex:
        """Open an index file, mapped; one that is missing or stale is built first.

        Args:
            items: Embedding of the catalogue ``(n, d)``.
            file: Where the index lies, or is to lie.
            newer_than: The file that the items come from.
            progress: Show a bar while building.

        Raises:
            ModuleNotFoundError: FAISS is not installed.
        """
        faiss = _faiss()
        if not file.exists() or file.stat().st_mtime_ns < newer_than.stat().st_mtime_ns:
            built = cls.build(items, progress=progress)
            try:
                built.save(file)
            except (OSError, RuntimeError):  # a folder that may only be read
                return built
        return cls(items, faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC))

    @classmethod
    def build(cls, items: Floats, *, progress: bool = False) -> ApproximateIndex:
        """File all items; the same items give the same index."""
        faiss = _faiss()
        lists = max(1, round(LISTS * len(items) ** 0.5))
        quantizer = faiss.IndexFlatIP(items.shape[1])
        index = faiss.IndexIVFFlat(quantizer, items.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        size = min(len(items), lists * SAMPLE_A_LIST)
        sample = np.random.default_rng(0).choice(len(items), size, replace=False)
        index.train(np.ascontiguousarray(items[np.sort(sample)]))
        with tqdm(total=len(items), desc="index", unit="track", disable=not progress) as bar:
            for start in range(0, len(items), ROWS_A_BLOCK):
                block = np.ascontiguousarray(items[start : start + ROWS_A_BLOCK])
                index.add(block)
                bar.update(len(block))
        return cls(items, index)

    def save(self, file: Path) -> None:
        """Write the index whole or not at all."""
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        try:
            _faiss().write_index(self._index, str(temporary))
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def top_k(
        self, queries: npt.ArrayLike, k: int, barred: npt.NDArray[np.integer] | None = None
    ) -> tuple[Rows, Floats]:
        """Find k items of high dot product with each query; as `retrieval.top_k`, nearly."""
        points, barred = checked_query(queries, self.items, barred)
        wanted = min(k + (0 if barred is None else barred.shape[1]), len(self.items))
        if not len(points) or not wanted:
            return top_k(points, self.items, k, barred)
        parameters = _faiss().SearchParametersIVF(nprobe=PROBES)
        _, found = self._index.search(points, wanted, params=parameters)
        if barred is not None:
            found[(found[:, :, None] == barred[:, None, :]).any(axis=2)] = -1
        if wanted < k:
            found = np.pad(found, ((0, 0), (0, k - wanted)), constant_values=-1)
        rows, scores = ranked(points, self.items, found, k)
        few = np.flatnonzero((rows < 0).any(axis=1))
        if len(few):
            of_few = None if barred is None else barred[few]
            rows[few], scores[few] = top_k(points[few], self.items, k, of_few)
        return rows, scores


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'retrieval="approximate" needs FAISS: pip install musicbox-env[approximate]; or take '
            'retrieval="exact".',
            name="faiss",
        ) from None
