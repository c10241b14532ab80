"""Songs nearest to vectors of a space: the one search of environment and agents.

`Search` decides between the exact search (`exact`, in large catalogs by way of `coarse`) and the
approximate one (`approximate`), by the size of the catalog. An agent whose space differs from the
dataset's, as one that learns how good songs are, moves the songs of its own `Search` (`move`); the
index stays the dataset's, and what is found is scored in the agent's space.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from gymnasium import logger

from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval.approximate import (
    APPROXIMATE_FROM,
    ApproximateIndex,
    ListsInSpace,
    installed,
)
from musicbox_env.retrieval.coarse import COARSE_FROM, CoarseItems, can_round
from musicbox_env.retrieval.exact import Floats, Rows, top_k
from musicbox_env.retrieval.spaces import embedding_space, space_sources
from musicbox_env.schema import require_known

RETRIEVALS: Final = ("auto", "exact", "approximate")


class Search:
    """Searches a space of a dataset's songs, exactly or by the dataset's index.

    Attributes:
        dataset: Whose songs.
        spec: The dataset's space; see `embeddings.embedding_space`.
        space: Where songs lie ``(num_tracks, dim)``: the dataset's own, mapped and shared, until
            songs are moved.
    """

    def __init__(self, dataset: Dataset, spec: str, retrieval: str = "auto") -> None:
        """Open a space; an index is opened, or built, when first needed.

        Args:
            dataset: Dataset with fitted embeddings.
            spec: Which of its spaces.
            retrieval: ``"exact"``; ``"approximate"``; or ``"auto"``, approximate from
                `APPROXIMATE_FROM` tracks on if FAISS is installed.

        Raises:
            ValueError: No such space, or an unknown ``retrieval``.
        """
        require_known("retrieval", retrieval, RETRIEVALS)
        self.dataset, self.spec, self._asked = dataset, spec, retrieval
        self.space = _shared_space(dataset, spec)
        self._is_own = False

    @cached_property
    def kind(self) -> str:
        """``"exact"`` or ``"approximate"``, which auto chose too."""
        number = len(self.space)
        if self._asked != "auto":
            return self._asked
        if number >= APPROXIMATE_FROM and not installed():
            logger.warn(
                f"Exact retrieval among {number:,} tracks takes milliseconds a query; "
                "pip install musicbox-env[approximate] makes it many times faster."
            )
            return "exact"
        return "approximate" if number >= APPROXIMATE_FROM else "exact"

    def top_k(
        self, queries: npt.ArrayLike, k: int, barred: npt.NDArray[np.integer] | None = None
    ) -> tuple[Rows, Floats]:
        """Find the k songs of highest dot product with each query.

        Arguments, result and errors are those of `retrieval.top_k`; approximate answers differ
        from it in songs that were overlooked and in nothing else.
        """
        if self.kind == "exact":
            coarse = self._coarse if self._is_own else _shared_coarse(self.dataset, self.spec)
            if coarse is None:
                return top_k(queries, self.space, k, barred)
            return coarse.top_k(queries, k, barred)
        finder = self._lists if self._is_own else _shared_index(self.dataset, self.spec)
        return finder.top_k(queries, k, barred)

    def move(self, tracks: npt.NDArray[np.integer], axis: npt.NDArray[np.floating]) -> None:
        """Put songs elsewhere along the last axis, in a space that is this search's own from now.

        Args:
            tracks: Which songs ``(m,)``, none twice.
            axis: Their new coordinates ``(m,)``.

        Raises:
            ValueError: A coordinate is not finite.
        """
        if not np.isfinite(axis).all():
            bad = np.asarray(tracks)[~np.isfinite(axis)]
            raise ValueError(
                f"{len(bad):,} of {len(axis):,} new coordinates are NaN or infinity (the first is "
                f"of the song in row {bad[0]:,}); nothing can be found there."
            )
        if not self._is_own:
            self.space, self._is_own = np.array(self.space), True
        self.space[tracks, -1] = axis
        if "_lists" in vars(self):
            self._lists.moved(tracks)
        coarse = vars(self).pop("_coarse", None)
        if coarse and can_round(axis):
            coarse.moved(tracks)
            self._coarse = coarse

    @cached_property
    def _coarse(self) -> CoarseItems | None:
        return _coarse_of(self.space)

    @cached_property
    def _lists(self) -> ListsInSpace:
        return ListsInSpace(_shared_index(self.dataset, self.spec), self.space)


@lru_cache(maxsize=8)
def _shared_space(dataset: Dataset, spec: str) -> Floats:
    return embedding_space(dataset, spec)


@lru_cache(maxsize=2)
def _shared_index(dataset: Dataset, spec: str) -> ApproximateIndex:
    return ApproximateIndex.open(_shared_space(dataset, spec), space_sources(dataset, spec))


def _coarse_of(space: Floats) -> CoarseItems | None:
    """Rounded items, where the catalog is large and they have numbers to be rounded."""
    return CoarseItems(space) if len(space) >= COARSE_FROM and can_round(space) else None


@lru_cache(maxsize=2)
def _shared_coarse(dataset: Dataset, spec: str) -> CoarseItems | None:
    return _coarse_of(_shared_space(dataset, spec))
