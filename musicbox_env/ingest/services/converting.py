"""What readers of services share: columns as arrays, and ways to look at first values."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from musicbox_env.ingest.sources.csv_tables import CsvTable
from musicbox_env.ingest.spelling.dialect import Dialect
from musicbox_env.ingest.spelling.values import stripped
from musicbox_env.ingest.tables import Rows, Table

ISO_TIME: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?"

FEW: Final = 0.05
"""Share of first values that may be bad in a file that is recognized by them."""


def texts(rows: Rows, name: str) -> npt.NDArray[np.object_]:
    """A column as text without outer blanks ``(rows,)``, empty where there is none."""
    if name not in rows.columns:
        return np.full(len(rows), "", object)
    return stripped(rows.columns[name])


def numbers(rows: Rows, name: str) -> npt.NDArray[np.float64]:
    """A column as numbers ``(rows,)``, NaN where there is none."""
    return pd.to_numeric(pd.Series(texts(rows, name)), errors="coerce").to_numpy(np.float64)


def moments(rows: Rows, name: str) -> npt.NDArray[np.float64]:
    """A column of ISO 8601 times as milliseconds since 1970 UTC ``(rows,)``, NaN where unknown."""
    series = pd.Series(texts(rows, name), dtype=object)
    stamps = pd.to_datetime(series, utc=True, errors="coerce", format="ISO8601")
    unknown = stamps.isna().to_numpy()
    values = stamps.dt.as_unit("ms").astype("int64").to_numpy()
    return np.where(unknown, np.nan, values.astype(np.float64))


def instants(values: npt.NDArray[np.float64]) -> pa.Array:
    """Times in milliseconds since 1970 UTC ``(rows,)``, NaN where unknown, as a column of times."""
    unknown = np.isnan(values)
    whole = np.where(unknown, 0, values).astype(np.int64)
    return pa.array(whole, pa.int64(), mask=unknown).cast(pa.timestamp("ms", tz="UTC"))


def with_columns(rows: Rows, **columns: npt.NDArray[Any] | pa.Array) -> Rows:
    """The rows with further columns ``(rows,)``; among numbers NaN is nothing."""
    made = {
        name: pa.array(values, from_pandas=True) if isinstance(values, np.ndarray) else values
        for name, values in columns.items()
    }
    return replace(rows, columns={**rows.columns, **made})


def present(table: Table, names: Sequence[str]) -> list[str]:
    """Those of these columns that a table has."""
    return [name for name in names if name in table.columns]


def nearly_all_match(values: Collection[str], pattern: str) -> bool:
    """Whether there are values and all of them look so, but for a few bad ones among many."""
    others = sum(not re.fullmatch(pattern, value.strip()) for value in values)
    return bool(values) and others <= FEW * len(values)


def plain_lines(table: Table, header: Sequence[str], *, comment: bytes = b"") -> CsvTable | None:
    """A text of fields between tabs that no quotes enclose and no line names; None if it is none.

    Args:
        table: What it may be.
        header: What its fields are.
        comment: How the lines before its rows begin, if there are any.
    """
    if not isinstance(table, CsvTable):
        return None
    above = 0
    for line in table.stream.head.splitlines():
        if not comment or not line.startswith(comment):
            if line.count(b"\t") != len(header) - 1:
                return None
            break
        above += 1
    return table.read_as(Dialect("\t", None, False, False, above, tuple(header), named=False))
