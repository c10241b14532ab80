"""Figures with their uncertainty: whole sessions are resampled, since plays of one are alike.

All figures of a report are drawn with the same `Resampling`, so that differences between two of
them are paired.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE: Final = 0.95
ENDS: Final = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
"""Quantiles at which its intervals end."""
CHUNK_CELLS: Final = 4_000_000
"""Numbers held at once while resampling, 32 MB."""
_CHUNK_DRAWS: Final = 2_000_000


def session_weights(n: int, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """Draw n sessions with replacement, many times: how often each is drawn, ``(chunk, n)``.

    A sum over the sessions drawn is then a product in place of gathers.
    """
    chunk = max(1, _CHUNK_DRAWS // n)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        draws = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(draws.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


@dataclass(frozen=True)
class Measured:
    """A figure and how sure it is.

    Attributes:
        value: On all sessions; NaN where there was nothing to measure.
        draws: On each resample of the sessions ``(resamples,)``; empty where the figure has no
            uncertainty.
    """

    value: float
    draws: Array

    @property
    def low(self) -> float | None:
        """Lower end of the percentile interval."""
        return self._quantile(ENDS[0])

    @property
    def high(self) -> float | None:
        """Upper end."""
        return self._quantile(ENDS[1])

    def _quantile(self, q: float) -> float | None:
        finite = self.draws[np.isfinite(self.draws)]
        return float(np.quantile(finite, q)) if len(finite) else None

    def minus(self, other: Self) -> Self:
        """The difference, resample by resample; both must come from one `Resampling`."""
        return type(self)(self.value - other.value, self.draws - other.draws)

    def less(self, constant: float) -> Self:
        """The figure less a number that has no uncertainty."""
        return type(self)(self.value - constant, self.draws - constant)

    def centred(self) -> Self:
        """Draws shifted so that their mean is the value.

        For figures that noise alone makes larger (`calibration_error`): a resample is noisier than
        the sessions themselves, so the plain percentile interval lies above the value.
        """
        finite = self.draws[np.isfinite(self.draws)]
        shift = finite.mean() - self.value if len(finite) else 0.0
        return type(self)(self.value, self.draws - shift)


class Statistic(Protocol):
    """A figure that can be taken with each session counted any number of times."""

    def of(self, weights: Array) -> Array:
        """The figure for each row of session weights ``(r, n)`` -> ``(r,)``."""
        ...


@dataclass(frozen=True)
class Sums:
    """A figure made from sums over sessions, such as a mean or a correlation.

    Attributes:
        parts: What each session adds ``(n, c)``.
        formula: From the c totals ``(r, c)`` to the figure ``(r,)``.
    """

    parts: Array
    formula: Callable[[Array], Array]

    def of(self, weights: Array) -> Array:
        """See `Statistic`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.formula(weights @ self.parts)


class Resampling:
    """The same sessions drawn anew, many times, for every figure of a report."""

    def __init__(self, num_sessions: int, *, rng: np.random.Generator, resamples: int) -> None:
        """Draw ``num_sessions`` sessions with replacement, ``resamples`` times."""
        self._weights = np.concatenate(list(session_weights(num_sessions, resamples, rng)))
        self._all = np.ones((1, num_sessions))

    def measure(self, statistic: Statistic) -> Measured:
        """The figure on all sessions and on each resample."""
        return Measured(float(statistic.of(self._all)[0]), statistic.of(self._weights))


def by_session(values: npt.NDArray, session: Ints, num_sessions: int) -> Array:
    """Sum of the plays' values ``(p,)`` for each session ``(num_sessions,)``."""
    total = np.bincount(session, weights=values, minlength=num_sessions)
    return total.astype(np.float64, copy=False)


def quotient(total: Array) -> Array:
    """The first total over the second ``(r, 2)``."""
    return np.asarray(total[:, 0] / total[:, 1])


def ratio(numerator: npt.NDArray, denominator: npt.NDArray) -> Sums:
    """Sum of the numerators over sum of the denominators, both ``(n,)``."""
    return Sums(np.stack([numerator, denominator], axis=1).astype(np.float64), quotient)
