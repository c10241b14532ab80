"""Average the trust reports of several divisions of the same sessions.

A test split of a few hundred sessions is harder or easier than another by as much as good listeners
differ. `musicbox ingest --test-fold` splits the same sessions so that each is a test session once;
what is found on all these test splits together is averaged here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

from tyro.conf import Positional

from musicbox_experiments.evaluate.resampling import CONFIDENCE
from musicbox_experiments.trust.measures import Record
from musicbox_experiments.trust.report import RECORDS_FILE, write_records
from musicbox_experiments.trust.tables import text_blocks

Key = tuple[str, str, str]
WIDTHS: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard errors from the middle of an interval to its end."""


@dataclass(frozen=True)
class PoolTrustConfig:
    """Options of `musicbox pool-trust`."""

    reports: Positional[tuple[Path, ...]]
    """Folders that `musicbox trust` wrote, one for each division."""
    out: Path = Path("runs/trust_pooled")
    """Where trust.json of the averages is written."""

    def __post_init__(self) -> None:
        if len({path.resolve() for path in self.reports}) < max(2, len(self.reports)):
            raise ValueError(
                f"reports are {', '.join(map(str, self.reports)) or 'none'}; expected two "
                "different folders or more that `musicbox trust` wrote."
            )


def read_records(folder: Path) -> dict[Key, Record]:
    """The figures of a trust report by listener, protocol and metric.

    Raises:
        FileNotFoundError: The folder holds none.
        ValueError: It holds something else.
    """
    file = folder / RECORDS_FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no {file}; write it with `musicbox trust --out {folder}`."
        )
    try:
        records = [Record(**figure) for figure in json.loads(file.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is not a list of figures ({error}); it must be a file that `musicbox trust` "
            "wrote."
        ) from None
    return {(r.listener, r.protocol, r.metric): r for r in records}


def pooled(reports: Sequence[dict[Key, Record]]) -> list[Record]:
    """Means of the figures that all reports hold.

    Test splits are disjoint, so the variance of a mean is the sum of theirs over their number
    squared, each read from its interval. Listeners were fitted on sessions that they share in part,
    which makes the intervals a little too narrow (Bengio & Grandvalet, JMLR 5, 2004).
    """
    shared = [key for key in reports[0] if all(key in report for report in reports)]
    return [_mean(key, [report[key] for report in reports]) for key in shared]


def _mean(key: Key, records: Sequence[Record]) -> Record:
    number = len(records)
    values = [r.value for r in records if r.value is not None]
    bars = [r.bar for r in records if r.bar is not None]
    bar = sum(bars) / number if len(bars) == number else None
    if len(values) < number:
        return Record(*key, None, bar=bar)
    value = sum(values) / number
    widths = [r.high - r.low for r in records if r.low is not None and r.high is not None]
    if len(widths) < number:
        return Record(*key, value, bar=bar)
    errors = [width / (2 * WIDTHS) for width in widths]
    off = WIDTHS * math.sqrt(sum(e**2 for e in errors)) / number
    return Record(*key, value, value - off, value + off, bar)


def run(config: PoolTrustConfig) -> list[Record]:
    """Average, print the tables, write the records."""
    reports = [read_records(folder) for folder in config.reports]
    records = pooled(reports)
    if not records:
        raise ValueError(
            "The reports have no figure in common; expected reports on the same listeners, by name."
        )
    config.out.mkdir(parents=True, exist_ok=True)
    write_records(config.out / RECORDS_FILE, records)
    about = f"Means of {len(reports)} test splits; [ ] 95 % intervals."
    print("\n\n".join([about, *text_blocks(records)]))
    print(f"\nEvery figure: {config.out / RECORDS_FILE}")
    return records
