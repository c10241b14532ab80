"""How a dataset's sessions are divided into training, validation and test."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HASH, TIME = "hash", "time"
UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
LONGEST_GAP_MS: Final = 36_500 * UNITS_MS["d"]
"""A hundred years: no log is longer, and moments beyond it would not be numbers."""
MOST_FOLDS: Final = 1 << 31
"""Disjoint test splits that are told apart, however small the test share is."""
SEEDS_BELOW: Final = 1 << 63
"""The key of the hash has 8 bytes."""
_GAP: Final = re.compile(
    r"(?P<number>\d+(?:\.\d+)?) ?"
    r"(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?|w|weeks?)?"
)


@dataclass(frozen=True)
class SplitConfig:
    """How sessions are divided, by a hash of their id, or of what `PlayBlock.split_keys` says.

    Attributes:
        train: Share of the sessions to learn from; halved again into folds A and B.
        validation: Share for choosing settings and checkpoints.
        test: Share for the figures that are reported.
        seed: Key of the hash that assigns sessions to splits; another seed gives another split,
            or, where they are split by time, other folds A and B.
        test_fold: Which of the disjoint test splits that a seed gives, from 0: over all folds (five
            of a test share of .2) each session is a test session once.
        split: By hash of the session (in histories of its run of plays), or by time: training
            first, then a gap, then validation, and test last. The times are not stored.
        gap: Of a split by time: what begins so soon after training is left out. A number with its
            unit, as 30m, 36h or 7d.
        train_until: Of a split by time, in place of shares: training sessions end before this date
            or time, as 2024-05-01 or 2024-05-01T06:00+02:00. Without an offset it is one of
            --timezone, or of UTC.
        test_from: The same: test sessions begin no earlier than this; validation lies between.
    """

    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2
    seed: int = 42
    test_fold: int = 0
    split: Literal["hash", "time"] = "hash"
    gap: str = "0"
    train_until: str | None = None
    test_from: str | None = None

    def __post_init__(self) -> None:
        shares = self.shares
        if min(shares) < 0 or not np.isclose(sum(shares), 1.0) or self.train <= 0:
            raise ValueError(
                f"Split shares are train {self.train}, validation {self.validation}, test "
                f"{self.test}; they must not be negative, train must be above 0, and their sum 1."
            )
        # Shares such as .2 are a little off as binary numbers.
        folds = int(min(1 / self.test + 1e-9, MOST_FOLDS)) if self.test else 1
        if not 0 <= self.test_fold < folds:
            raise ValueError(
                f"test_fold is {self.test_fold}; with a test share of {self.test} it must be from "
                f"0 to {folds - 1}."
            )
        if not -SEEDS_BELOW <= self.seed < SEEDS_BELOW:
            raise ValueError(
                f"seed is {self.seed}; a whole number from {-SEEDS_BELOW} to {SEEDS_BELOW - 1} "
                "expected."
            )
        if self.split not in (HASH, TIME):
            raise ValueError(f"split is {self.split!r}; 'hash' or 'time' expected.")
        gap = self.gap_ms
        dates = self.train_until, self.test_from
        if self.split == HASH:
            if gap or any(dates):
                raise ValueError("gap, train_until and test_from belong to --split time; name it.")
            return
        if self.test_fold:
            raise ValueError(
                f"test_fold is {self.test_fold}, but a split by time has one test split, the "
                "latest sessions: leave it out, or split by hash."
            )
        if (dates[0] is None) != (dates[1] is None):
            raise ValueError("train_until and test_from go together: name both, or shares alone.")
        if dates[0] is None and not min(shares):
            raise ValueError(
                f"Split shares are train {self.train}, validation {self.validation}, test "
                f"{self.test}; of a split by time each must be above 0."
            )
        self.edges_ms(UTC)

    @property
    def shares(self) -> tuple[float, float, float]:
        """Train, validation and test share."""
        return self.train, self.validation, self.test

    @property
    def by_time(self) -> bool:
        """Whether sessions are divided by time."""
        return self.split == TIME

    @property
    def gap_ms(self) -> int:
        """The gap in milliseconds.

        Raises:
            ValueError: It is not written as a number with its unit, or above `LONGEST_GAP_MS`.
        """
        found = _GAP.fullmatch(self.gap.strip().lower())
        if found is None or (found["unit"] is None and float(found["number"])):
            raise ValueError(
                f"gap is {self.gap!r}; a number with its unit expected, as 30m, 36h or 7d."
            )
        gap = float(found["number"]) * UNITS_MS[(found["unit"] or "s")[0]]
        if gap > LONGEST_GAP_MS:
            most = LONGEST_GAP_MS // UNITS_MS["d"]
            raise ValueError(f"gap is {self.gap[:40]!r}; {most}d at most expected.")
        return round(gap)

    def edges_ms(self, zone: tzinfo) -> tuple[int, int] | None:
        """Milliseconds since 1970 UTC of `train_until` and `test_from`; None without them.

        Args:
            zone: Where clocks stood for dates that name no offset.

        Raises:
            ValueError: One is no date, or they leave no room between them.
        """
        if self.train_until is None or self.test_from is None:
            return None
        until, test = (
            _moment(name, text, zone)
            for name, text in (("train_until", self.train_until), ("test_from", self.test_from))
        )
        if until + self.gap_ms >= test:
            raise ValueError(
                f"train_until is {self.train_until} and test_from {self.test_from}; with a gap of "
                f"{self.gap} nothing is left between them for validation. Test must begin later, "
                "or training end earlier."
            )
        return until, test

    def about(self) -> dict[str, Any]:
        """What ``dataset.json`` says of it; no dates, since they tell when sessions were."""
        shares = dict(zip(("train", "validation", "test"), self.shares, strict=True))
        if not self.by_time:
            return {**shares, "seed": self.seed, "test_fold": self.test_fold}
        divided = {"by": "shares", **shares} if self.train_until is None else {"by": "dates"}
        return {"kind": TIME, **divided, "gap": self.gap, "seed": self.seed}


def zone_named(name: str | None) -> tzinfo:
    """A zone by its name, UTC for None."""
    return UTC if name is None else zoneinfo.ZoneInfo(name)


def _moment(name: str, text: str, zone: tzinfo) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}; a date such as 2024-05-01, or a time such as "
            "2024-05-01T06:00+02:00 expected."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return round(moment.timestamp() * 1000)


def session_names(
    listener: npt.NDArray[np.bytes_], run: npt.NDArray[np.bytes_], window: npt.NDArray[np.bytes_]
) -> npt.NDArray[np.bytes_]:
    """Ids of sessions: each a window of a run of a listener's plays, all three of them hashes."""
    of_run = np.strings.add(np.strings.add(listener, b"-"), run)
    return np.strings.add(np.strings.add(of_run, b"-"), window)


def runs_of(session_ids: pa.StringArray) -> pa.StringArray:
    """The runs that sessions are windows of; `session_names` has named these."""
    listener_and_run = pc.call_function(
        "utf8_rtrim", [session_ids], pc.TrimOptions(characters="0123456789abcdef")
    )
    return pc.call_function("utf8_rtrim", [listener_and_run], pc.TrimOptions(characters="-"))
