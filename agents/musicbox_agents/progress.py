"""What is worth plotting of a training, passed to the callback every so many steps."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Callback = Callable[[int, Mapping[str, float]], None]
"""Called during learning with the environment steps so far and what is worth plotting."""
Summary = Callable[[npt.NDArray], float]


class Progress:
    """Gathers numbers and gives their summaries since the last call to the callback.

    Attributes:
        due: Steps from which on the callback is called.
    """

    def __init__(self, callback: Callback | None, every: int) -> None:
        """Begin a training."""
        self._callback, self._every, self.due = callback, every, every
        self._gathered: dict[str, tuple[list[npt.NDArray], Summary]] = {}

    def gather(self, name: str, values: npt.ArrayLike, summary: Summary = np.mean) -> None:
        """Gather values, a row each, whose summary is plotted; none are passed over."""
        if not np.size(values):
            return
        rows, _ = self._gathered.setdefault(name, ([], summary))
        rows.append(np.atleast_1d(values))

    def call(self, steps: int, *, last: bool) -> bool:
        """Call the callback if it is due or the training ends; gives whether it was."""
        if steps < self.due and not last:
            return False
        self.due = steps + self._every
        if self._callback is not None:
            found = self._gathered.items()
            metrics = {name: float(of(np.concatenate(rows))) for name, (rows, of) in found}
            self._callback(steps, metrics)
        self._gathered.clear()
        return True


def count_distinct(values: npt.NDArray) -> float:
    """Number of different values."""
    return float(len(np.unique(values)))


def mean_cosine(vectors: npt.NDArray[np.float32]) -> float:
    """Mean cosine of all pairs of vectors ``(n, d)``: 1 where all sessions get the same."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    n = len(units)
    return float((np.square(units.sum(axis=0)).sum() - n) / max(n * (n - 1), 1))
