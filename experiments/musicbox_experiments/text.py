"""Figures and tables as text: the one formatter of the commands and their reports.

What the commands print goes through `say`, since titles, names of columns and of files are text of
others: a terminal obeys control characters.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from musicbox_env.errors import shown


def say(*texts: object, to_errors: bool = False) -> None:
    r"""Print texts, a line or more each, with whatever a terminal would obey in them escaped.

    Without texts nothing is printed.

    >>> say("one", "Red \x1b[31mLight")
    one
    Red \x1b[31mLight
    """
    if not texts:
        return
    lines = [shown(line) for text in texts for line in str(text).split("\n")]
    print("\n".join(lines), file=sys.stderr if to_errors else sys.stdout, flush=to_errors)


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent.

    >>> percent(0.3234), percent(None)
    ('32.3 %', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def signed_points(value: float | None) -> str:
    """A difference of shares in percentage points.

    >>> signed_points(-0.123), signed_points(0.04)
    ('-12.3', '+4.0')
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:+.1f}"


def bracketed(low: float | None, high: float | None, text: Callable[[float], str]) -> str:
    """Interval in brackets; nothing where there is none."""
    return "" if low is None or high is None else f"[{text(low)}, {text(high)}]"


def show(value: float | None, unit: str) -> str:
    """A value in the unit of a metric: percent, points, count, signed count, index or number.

    >>> show(0.5, "percent"), show(1234.6, "count"), show(9.5, "count"), show(4.321, "number")
    ('50.0 %', '1,235', '9.5', '4.32')
    """
    if value is None or math.isnan(value):
        return "-"
    if unit == "percent":
        return percent(value, 1 if abs(value) >= 0.01 or value == 0 else 2)
    if unit == "points":
        return signed_points(value)
    if unit == "count":
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    formats = {"signed count": "+,.0f", "index": ".3f"}
    return format(value, formats.get(unit, ".2f"))


def interval(estimate: Mapping[str, Any], unit: str) -> str:
    """The interval of an estimate in brackets, without the sign of its unit."""
    low, high = estimate["low"], estimate["high"]
    return bracketed(low, high, lambda value: show(value, unit).removesuffix(" %"))


def with_interval(estimate: Mapping[str, Any], unit: str) -> str:
    """An estimate and its interval.

    >>> with_interval({"value": 12.3, "low": -4.0, "high": 28.6}, "signed count")
    '+12 [-4, +29]'
    """
    return f"{show(estimate['value'], unit)} {interval(estimate, unit)}".rstrip()


def relative(change: Mapping[str, Any]) -> str:
    """A relative change in percent, and its interval; empty where it is unknown.

    >>> relative({"value": -0.37, "low": -0.487, "high": -0.248})
    '-37.0 % [-48.7, -24.8]'
    """
    if change["value"] is None:
        return ""
    return f"{show(change['value'], 'points')} % {interval(change, 'points')}".rstrip()


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows as aligned text, the first ``left`` columns to the left and the others to the right.

    >>> print(columns([("agent", "songs"), ("best-rate", "10")]))
    agent      songs
    best-rate     10
    """
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def table(rows: Sequence[Mapping[str, str]], *, left: int = 1) -> str:
    """Rows by the names of their columns, as aligned text below these names.

    >>> print(table([{"agent": "best-rate", "songs": "10"}]))
    agent      songs
    best-rate     10
    """
    return columns([list(rows[0]), *(list(row.values()) for row in rows)], left=left)


@dataclass(frozen=True)
class Cell:
    """A figure as text, its interval in brackets, and whether that is good: yes, no, or between."""

    text: str = ""
    interval: str = ""
    verdict: str = ""

    @classmethod
    def of(cls, estimate: Mapping[str, Any] | None, unit: str, verdict: str = "") -> Self:
        """An estimate in its unit; nothing where there is none."""
        if estimate is None:
            return cls()
        return cls(show(estimate["value"], unit), interval(estimate, unit), verdict)

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table of a terminal or a page.

    Attributes:
        title: What it shows.
        head: Names across.
        rows: For each label down its cells, as many as there are names across.
        tags: What a name or label is, in a word, where it is something special.
        strong: Name of the column that is what a reader looks for.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    tags: Mapping[str, str] = field(default_factory=dict)
    strong: str = ""

    @classmethod
    def by_name(
        cls,
        title: str,
        rows: Mapping[str, Mapping[str, Cell]],
        tags: Mapping[str, str] | None = None,
        *,
        strong: str = "",
    ) -> Self:
        """Cells by label and by the names of the columns."""
        head = list(next(iter(rows.values()), {}))
        cells = [(label, list(row.values())) for label, row in rows.items()]
        return cls(title, head, cells, tags or {}, strong)

    def __str__(self) -> str:
        named = {name: f"{name} ({tag})" for name, tag in self.tags.items()}
        head = ["", *(named.get(name, name) for name in self.head)]
        rows = [[named.get(label, label), *map(str, cells)] for label, cells in self.rows]
        first, *others = columns([head, *rows]).splitlines()
        return "\n".join([self.title, first, "-" * max(map(len, [first, *others])), *others])
