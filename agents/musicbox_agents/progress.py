"""What is worth plotting of a training, passed to the callback every so many steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from musicbox_agents.base import Callback


class Progress:
    """Gathers numbers and gives their means since the last call to the callback.

    Attributes:
        due: Steps from which on the callback is called.
    """

    def __init__(self, callback: Callback | None, every: int) -> None:
        """Begin a training.

        Args:
            callback: See `Agent.learn`.
            every: Steps between calls.
        """
        self._callback, self._every, self.due = callback, every, every
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, values: Mapping[str, float]) -> None:
        """Gather one number for each name."""
        for name, value in values.items():
            self._values[name].append(value)

    def call(self, steps: int, *, last: bool) -> bool:
        """Call the callback if it is due or the training ends; gives whether it was."""
        if steps < self.due and not last:
            return False
        self.due = steps + self._every
        if self._callback is not None:
            self._callback(steps, self.metrics())
        self.clear()
        return True

    def metrics(self) -> dict[str, float]:
        """Means since the last call."""
        return {name: float(np.mean(values)) for name, values in self._values.items()}

    def clear(self) -> None:
        """Forget what was gathered."""
        self._values.clear()
