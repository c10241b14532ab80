"""The catalog in two dimensions, for eyes."""

from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from musicbox_env.data.dataset import Dataset

MOST_MAPPED: Final = 300_000
"""Songs on the map, the most played; a page draws no more smoothly."""
SAMPLE: Final = 20_000
"""Songs that the axes and clusters are fitted to."""
CLUSTERS: Final = 8
GRID: Final = 65_535
SHADES: Final = 255

Floats = npt.NDArray[np.float32]


class CatalogMap:
    """Songs on the two main axes of their embedding (principal components).

    Attributes:
        embedding: Which embedding is mapped, the best of the dataset.
        vectors: Where its songs lie ``(num_tracks, d)``, mapped from its file.
        scale: What a length of 1 on each axis of the map is in the embedding ``(2,)``.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Fit axes, clusters and scale to the dataset's best embedding."""
        self.embedding = dataset.best_embedding
        self.vectors = dataset.embedding(self.embedding)
        mapped = np.asarray(self.vectors[:MOST_MAPPED])
        rng = np.random.default_rng(0)
        sample = mapped[np.sort(rng.permutation(len(mapped))[:SAMPLE])].astype(np.float64)
        self._centre = sample.mean(axis=0)
        _, main = np.linalg.eigh(np.cov(sample.T))
        axes = main[:, :-3:-1]
        self._axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
        self._low, self.scale = np.zeros(2), np.ones(2)
        flat = self.places(mapped)
        self._low, high = flat.min(axis=0), flat.max(axis=0)
        self.scale = np.maximum(high - self._low, 1e-9)
        fitted = KMeans(min(CLUSTERS, len(sample)), n_init=1, random_state=0).fit(sample)
        nearest = (mapped @ fitted.cluster_centers_.T.astype(np.float32)).argmax(axis=1)
        self.packed = _packed(dataset, self.places(mapped), nearest)

    def __len__(self) -> int:
        return min(len(self.vectors), MOST_MAPPED)

    def places(self, vectors: npt.NDArray) -> Floats:
        """Where vectors ``(n, d)`` lie on the map ``(n, 2)``, its songs from 0 to 1."""
        flat = (vectors - self._centre) @ self._axes
        return ((flat - self._low) / self.scale).astype(np.float32)


def _packed(dataset: Dataset, places: Floats, clusters: npt.NDArray[np.integer]) -> bytes:
    """All that a page draws, column after column, in the order of bytes of x86 and ARM.

    The number of songs (uint32), their places from left to right and from bottom to top (uint16
    each), keep rate from 0 to 1, popularity by rank, the most played last, and cluster (uint8).
    """
    number, catalog = len(places), dataset.catalog
    keep_rate = 1 - catalog.skip_rate()[:number]
    rank = 1 - np.log1p(np.arange(number)) / np.log1p(number)
    shades = [np.clip(part * SHADES, 0, SHADES).astype("u1") for part in (keep_rate, rank)]
    columns = [(places * GRID).round().astype("<u2")[:, axis] for axis in (0, 1)]
    parts = [np.array([number], "<u4"), *columns, *shades, clusters.astype("u1")]
    return b"".join(part.tobytes() for part in parts)
