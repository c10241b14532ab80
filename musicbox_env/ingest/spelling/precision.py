"""How exact the times of a table are, told from the times themselves.

A table of plays does not say whether 18:00 is 18:00:00. Where all times lie on whole minutes they
are taken as exact to the minute; where all lie at midnight, or at one other time of day, they are
dates. What is coarser than a minute cannot tell which plays followed each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SECOND: Final = 1_000
MINUTE: Final = 60_000
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
ZONES: Final = HOUR // 4
"""Offsets of time zones are multiples of this."""
FINER: Final = (30_000, 15_000, 10_000, 5_000)
"""Steps below a minute that clocks are rounded to."""
FEWEST: Final = {MINUTE: 3, HOUR: 10, **dict.fromkeys(FINER, 10)}
"""So many different times must be as coarse, for it not to be chance."""
FEWEST_DAYS: Final = 10
_KEPT: Final = 16
"""Different values that are remembered at most."""
_WRITTEN: Final = {
    # One colon alone between digits; an offset from UTC may follow.
    MINUTE: r"^[^:]*\d:\d\d(?:[^:\d].*)?$",
    DAY: r"^\s*\d+[-/. ]\w+[-/. ]\d+\s*$",
}
_CALLED: Final = {
    **{step: f"exact to {step // 1000} seconds" for step in FINER},
    MINUTE: "exact to the minute",
    HOUR: "exact to the hour alone",
    DAY: "without a time of day (dates alone)",
}


@dataclass
class TimeGrid:
    """Collects the times of a table, and says how exact they are."""

    _rows: int = 0
    _steps: tuple[int, ...] = (MINUTE, *FINER)
    _days: set[int] = field(default_factory=set)
    _times: set[int] = field(default_factory=set)
    _within_hour: set[int] = field(default_factory=set)
    _within_day: set[int] = field(default_factory=set)

    def add(self, times: npt.NDArray[np.int64]) -> None:
        """Add times in milliseconds since 1970 UTC, ``(plays,)``."""
        self._rows += len(times)
        self._steps = tuple(step for step in self._steps if not (times % step).any())
        for kept, part in (
            (self._days, lambda: times // DAY),
            (self._times, lambda: times),
            (self._within_hour, lambda: times % HOUR),
            (self._within_day, lambda: times % DAY),
        ):
            if len(kept) < _KEPT:
                kept.update(np.unique(part())[:_KEPT].tolist())

    @property
    def step(self) -> int:
        """How exact the times are, in milliseconds: `SECOND`, `MINUTE`, `HOUR`, `DAY`, `FINER`."""
        midnight = self._within_day == {0} and self._rows > 1
        # Midnight elsewhere is one time of day in UTC, or two with summer time.
        elsewhere = len(self._within_day) <= 2 and len(self._days) >= FEWEST_DAYS
        if midnight or (elsewhere and not any(t % ZONES for t in self._within_day)):
            return DAY
        on_the_hour = len(self._within_hour) == 1 and not any(t % ZONES for t in self._within_hour)
        if on_the_hour and len(self._times) >= FEWEST[HOUR]:
            return HOUR
        found = (step for step in self._steps if len(self._times) >= FEWEST[step])
        return next(found, SECOND)


def written_precision(column: pa.Array, *, whole: bool = True) -> npt.NDArray[np.int32]:
    """How exact times are by the way they are written, ``(rows,)`` milliseconds.

    `MINUTE` for 18:00, `DAY` for a date alone, `SECOND` for the rest and for what is no text.

    Args:
        column: The times.
        whole: Whether they hold the date too.
    """
    steps = np.full(len(column), SECOND, np.int32)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        for step, pattern in _WRITTEN.items():
            if step == DAY and not whole:
                continue
            found = pc.call_function(
                "match_substring_regex", [column], pc.MatchSubstringOptions(pattern)
            )
            steps[found.fill_null(False).to_numpy(zero_copy_only=False)] = step
    return steps


def precision_note(table: str, step: int) -> str:
    """What a user should know of a table whose times are coarse."""
    said = f"The times of {table} are {_CALLED[step]}"
    if step in FINER:
        return (
            f"{said}: plays of one time keep the file's order where they can follow each other so, "
            "and a pause may be as much longer."
        )
    if step == MINUTE:
        return (
            f"{said}: within a minute the order of plays is unknown, the longest are taken to come "
            "first where the file's order cannot be, and a pause may be a minute longer."
        )
    return (
        f"{said}: which plays followed each other cannot be told, so none of them is in a session. "
        "Name a column with the time of day."
    )
