"""Nearly the best songs out of millions, in a fraction of the time: an inverted file of FAISS.

Tracks are filed under about ``2 sqrt(n)`` centres (`LISTS`), and a query looks only into the
`PROBES` lists whose centres it likes best. What is found there is scored and ordered as
`retrieval.top_k` does, so that the answers differ from the exact ones in what was overlooked and
in nothing else. Songs heard are taken out after the search, which looks for so many more; where
too few are left, the exact search answers.

Where songs were moved in a space of an agent's own, the lists stay and are searched in that space
(`ListsInSpace`).

How much is overlooked depends on where queries lie: near songs, as those of a policy do, next to
nothing; in directions where no song lies, one answer in six. `musicbox benchmark` measures both.

FAISS is optional: ``pip install musicbox-env[approximate]``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.cache import cache_folder
from musicbox_env.data.verdicts import state_of
from musicbox_env.locks import made_once
from musicbox_env.progress import tqdm
from musicbox_env.retrieval import kernels
from musicbox_env.retrieval.exact import Floats, Rows, checked_query, ranked, top_k

APPROXIMATE_FROM: Final = 1_000_000
"""Catalog size from which ``retrieval="auto"`` is approximate: an exact search takes 4 ms."""
LISTS: Final = 2.0
"""Lists, in square roots of the number of tracks: as many centres to scan as tracks in a list."""
PROBES: Final = 24
PROBES_IN_SPACE: Final = 48
"""Lists that `ListsInSpace` looks into. In spaces that `ddpg` learned they hold .98 of the best 50
songs and .99 of the best 3, and its slates are the exact search's but for one song in a hundred,
among 200 thousand tracks and among 1.2 million; 24 lists hold .94 to .96 of the best 50, 96 .99."""
DEVIATIONS: Final = 3.0
"""Standard deviations by which a list's best song is taken to score above the list's mean. With 0
the same lists hold .88 of the best 50 songs."""
SAMPLE_A_LIST: Final = 64
"""Tracks that the centres are fitted to, for each of them."""
ROWS_A_BLOCK: Final = 1 << 18
INDEXES: Final = "indexes"
DAYS_KEPT: Final = 30


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
        cls, items: Floats, sources: Sequence[Path], *, progress: bool = True
    ) -> ApproximateIndex:
        """Open the index that this machine built of the items, or build it.

        FAISS trusts its files: one with foreign rows ends the process. So none is read from a
        folder that somebody may have sent; indexes lie in the cache, by the state of what they
        were built from.

        Args:
            items: Embedding of the catalog ``(n, d)``.
            sources: Files that the items come from.
            progress: Show a bar while building.

        Raises:
            ModuleNotFoundError: FAISS is not installed.
        """
        size = "x".join(map(str, items.shape))
        file = cache_folder() / INDEXES / f"{state_of(sources).digest}-{size}.faiss"
        built: list[ApproximateIndex] = []

        def write(temporary: Path) -> None:
            built.append(cls.build(items, progress=progress))
            built[0].save(temporary)

        if not made_once(file, file.exists, write):
            return built[0] if built else cls.build(items, progress=progress)
        with suppress(OSError):
            os.utime(file)  # it is in use
        _remove_unused(file.parent)
        return cls.read(items, file)

    @classmethod
    def read(cls, items: Floats, file: Path) -> ApproximateIndex:
        """Map a file that `save` wrote on this machine; never one that was received."""
        return cls(items, _faiss().read_index(str(file), _faiss().IO_FLAG_MMAP_IFC))

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
        """Write the index.

        Raises:
            OSError: The folder may only be read, or is full.
        """
        try:
            _faiss().write_index(self._index, str(file))
        except RuntimeError as error:
            raise OSError(f"{file}: {error}") from None

    def top_k(
        self, queries: npt.ArrayLike, k: int, barred: npt.NDArray[np.integer] | None = None
    ) -> tuple[Rows, Floats]:
        """Find k items of high dot product with each query; as `retrieval.top_k`, nearly."""
        vectors, barred = checked_query(queries, self.items, barred)
        wanted = min(k + (0 if barred is None else barred.shape[1]), len(self.items))
        if not len(vectors) or not wanted:
            return top_k(vectors, self.items, k, barred)
        parameters = _faiss().SearchParametersIVF(nprobe=PROBES)
        _, found = self._index.search(vectors, wanted, params=parameters)
        if barred is not None:
            found[(found[:, :, None] == barred[:, None, :]).any(axis=2)] = -1
        if wanted < k:
            found = np.pad(found, ((0, 0), (0, k - wanted)), constant_values=-1)
        return _completed(vectors, self.items, found, k, barred)

    def lists(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """How items are filed.

        Returns:
            Where each list begins, and the last ends, ``(lists + 1,)``; the items of all lists,
            one after another ``(n,)``.
        """
        faiss, inverted = _faiss(), self._index.invlists
        sizes = [inverted.list_size(number) for number in range(self._index.nlist)]
        rows = np.empty(sum(sizes), np.int32)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        for number, size in enumerate(sizes):
            if size:
                ids = faiss.rev_swig_ptr(inverted.get_ids(number), size)
                rows[starts[number] : starts[number + 1]] = ids
        return starts, rows


class ListsInSpace:
    """An index's lists, searched in another space of the same items, which may move.

    A query looks into the lists whose best item promises most: the mean score of a list's items
    and `DEVIATIONS` standard deviations on top, axes taken as independent. Means and deviations
    follow the items, so that nothing is built anew and nothing is stored twice.
    """

    def __init__(self, index: ApproximateIndex, items: Floats) -> None:
        """Take an index's lists for other ``items`` ``(n, d)``, which are not copied."""
        self.items = items
        self._starts, self._rows = index.lists()
        self._mean = np.zeros((len(self._starts) - 1, items.shape[1]), np.float32)
        self._variance = np.zeros_like(self._mean)
        self._list = np.empty(len(items), np.int32)
        numbers = np.arange(len(self._mean))
        self._list[self._rows] = np.repeat(numbers, np.diff(self._starts))
        self._summarize(numbers)

    def moved(self, rows: npt.NDArray[np.integer]) -> None:
        """Take note that some of the items ``(m,)`` have changed."""
        self._summarize(np.unique(self._list[rows]))

    def _summarize(self, lists: npt.NDArray[np.integer]) -> None:
        kernels.summarize_lists(
            self.items, self._starts, self._rows, lists, self._mean, self._variance
        )

    def top_k(
        self, queries: npt.ArrayLike, k: int, barred: npt.NDArray[np.integer] | None = None
    ) -> tuple[Rows, Floats]:
        """Find k items of high dot product with each query; as `retrieval.top_k`, nearly."""
        vectors, barred = checked_query(queries, self.items, barred)
        if not len(vectors) or k < 1:
            return top_k(vectors, self.items, k, barred)
        promise = kernels.promise_of_lists(vectors, self._mean, self._variance, DEVIATIONS)
        probes = min(PROBES_IN_SPACE, promise.shape[1])
        lists = np.argpartition(-promise, probes - 1, axis=1)[:, :probes]
        found = np.full((len(vectors), k), -1, np.int64)
        excluded = np.empty((len(vectors), 0), np.int64) if barred is None else barred
        kernels.best_in_lists(vectors, self.items, self._starts, self._rows, lists, excluded, found)
        return _completed(vectors, self.items, found, k, barred)


def _remove_unused(folder: Path) -> None:
    """Remove indexes that nothing opened for `DAYS_KEPT` days."""
    for file in folder.glob("*.faiss"):
        with suppress(OSError):  # another process did it
            if time.time() - file.stat().st_mtime > DAYS_KEPT * 24 * 3600:
                file.unlink()


def _completed(
    vectors: Floats, items: Floats, found: Rows, k: int, barred: Rows | None
) -> tuple[Rows, Floats]:
    """What was found, ordered; where that is less than k items, the exact search answers."""
    rows, scores = ranked(vectors, items, found, k)
    few = np.flatnonzero((rows < 0).any(axis=1))
    if len(few):
        of_few = None if barred is None else barred[few]
        rows[few], scores[few] = top_k(vectors[few], items, k, of_few)
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
