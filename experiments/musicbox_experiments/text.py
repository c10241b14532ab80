"""Figures and tables as text: the one formatter of the commands and their reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


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


def signed_count(estimate: Mapping[str, Any]) -> str:
    """A difference of counts with its interval.

    >>> signed_count({"value": 12.3, "low": -4.0, "high": 28.6})
    '+12 [-4, +29]'
    """
    if estimate["value"] is None or math.isnan(estimate["value"]):
        return "-"
    interval = bracketed(estimate["low"], estimate["high"], lambda value: f"{value:+,.0f}")
    return f"{estimate['value']:+,.0f} {interval}".rstrip()


def bracketed(low: float | None, high: float | None, text: Callable[[float], str]) -> str:
    """Interval in brackets; nothing where there is none."""
    return "" if low is None or high is None else f"[{text(low)}, {text(high)}]"


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows as aligned text, the first ``left`` columns to the left and the others to the right.

    >>> print(columns([("agent", "songs"), ("best-rate", "10")]))
    agent      songs
    best-rate     10
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
