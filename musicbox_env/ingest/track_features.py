"""Track feature files read into one table: gaps allowed, impossible rows rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.errors import InputError, shown
from musicbox_env.ingest.mssd import TRACK_ID_NAMES
from musicbox_env.ingest.plays import EMPTY_VALUES, Rejects, RowCheck
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.files import describe_source
from musicbox_env.ingest.tables import PassedOver, Rows, Table, as_strings, found_columns
from musicbox_env.names import id_key
from musicbox_env.schema import TRACK_FEATURES

ENOUGH_FEATURES: Final = 3
"""Columns of features that tell a table of tracks from any table with, say, a duration."""
MODES: Final = {"major": "1", "minor": "0"}


@dataclass
class TrackFeatures:
    """What the track feature files say.

    Attributes:
        frame: A row a track: ``track_id`` and those of `schema.TRACK_FEATURES` that some file
            has, float32, NaN where unknown.
        num_rows: Rows read.
        repeated: Rows left out since they say again what an earlier one says of the track.
        conflicting: Rows left out since an earlier one says something else; the first is kept.
        rejected: Rejected rows by reason.
        reject_tables: The same rows one by one: file, line, reason.
        passed_over: Files without track features, in folders and archives.
        sources: The files, with size and sha256.
    """

    frame: pd.DataFrame
    num_rows: int = 0
    repeated: int = 0
    conflicting: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    reject_tables: list[pa.Table] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)

    def use_song_ids(self, songs: Mapping[str, str]) -> None:
        """Name each track by the id that the catalog has of its song, the first row kept.

        Args:
            songs: Catalog id of each further id.
        """
        if songs:
            self.frame["track_id"] = self.frame["track_id"].map(lambda key: songs.get(key, key))
            self.frame = self.frame.drop_duplicates("track_id").reset_index(drop=True)

    def about(self) -> dict[str, Any]:
        """What ``dataset.json`` says of them."""
        return {
            "sources": self.sources,
            "rows_read": self.num_rows,
            "tracks": len(self.frame),
            "repeated_rows": self.repeated,
            "conflicting_rows": self.conflicting,
            "rejected": {"rows": self.rejected.total(), "reasons": dict(self.rejected)},
            "passed_over": [asdict(refusal) for refusal in self.passed_over],
        }


def read_track_features(
    files: list[Path],
    *,
    named: set[Path],
    scratch: Path | None = None,
) -> TrackFeatures:
    """Read track feature files in the published 30 columns, of which any but the id may lack.

    Args:
        files: The files; where several rows are of one track the first is kept.
        named: Those that the user named one by one, which must hold track features.
        scratch: Folder for unnamed temporary files.

    Raises:
        ValueError: A file that was named holds no track features.
    """
    found = TrackFeatures(pd.DataFrame({"track_id": pd.Series(dtype=object)}))
    frames = [found.frame]
    for file in files:
        found.sources.append(describe_source(file))
        with open_tables(file, scratch=scratch) as tables:
            for table in tables:
                if isinstance(table, PassedOver):
                    refusal = table
                elif (columns := _columns(table)) is not None:
                    frames.extend(_read(table, columns, found))
                    continue
                else:
                    refusal = _refusal(table)
                if file in named and table.name == shown(file):
                    raise InputError(f"{refusal.name}: {refusal.why}.")
                found.passed_over.append(refusal)
    frame = pd.concat(frames, ignore_index=True)
    features = [name for name in TRACK_FEATURES if name in frame]
    found.frame = _first_of_each(frame[["track_id", *features]], found)
    return found


def _refusal(table: Table) -> PassedOver:
    return PassedOver(
        table.name,
        f"holds no track features: track_id and some of {', '.join(TRACK_FEATURES[:3])}, ... "
        f"expected, columns {found_columns(table)} found",
    )


def holds_track_features(table: Table) -> bool:
    """Whether `read_track_features` would read a table, which has most of their columns."""
    named = [name for name in TRACK_FEATURES if name in table.columns]
    return _columns(table) is not None and len(named) >= ENOUGH_FEATURES


def _columns(table: Table) -> list[str] | None:
    """The track's column and those of features; None if the table holds no track features."""
    track = [name for name in reversed(TRACK_ID_NAMES) if name in table.columns]
    features = [name for name in TRACK_FEATURES if name in table.columns]
    return [track[0], *features] if track and features else None


def _read(table: Table, columns: list[str], found: TrackFeatures) -> Iterator[pd.DataFrame]:
    rejects = Rejects(found.rejected)
    for rows in table.rows(columns):
        found.num_rows += rows.num_read
        rejects.add(rows.malformed, "track row: wrong number of fields")
        yield _frame(rows, columns, rejects)
    found.reject_tables.append(rejects.take(table.name))


def _frame(rows: Rows, names: list[str], rejects: Rejects) -> pd.DataFrame:
    ids = as_strings(rows.columns[names[0]]).to_numpy(zero_copy_only=False)
    ids = np.array(["" if i is None else id_key(i) for i in ids], dtype=object)
    check = RowCheck(rows, rejects)
    check.reject(ids == "", "track row: track id is empty")
    columns: dict[str, npt.NDArray] = {"track_id": ids}
    for name in names[1:]:
        values, bad = _numbers(rows.columns[name], name)
        check.reject(bad, f"track row: {name} is not a finite number")
        columns[name] = values
    return pd.DataFrame(columns).loc[check.kept]


def _numbers(column: pa.Array, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Float32 values, NaN where the field is empty, and a mask of fields that are no number."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        text = as_strings(column)
        lower = pc.call_function("utf8_lower", [pc.call_function("utf8_trim_whitespace", [text])])
        empty = pc.call_function("is_in", [lower], pc.SetLookupOptions(pa.array(EMPTY_VALUES)))
        text = pc.call_function("if_else", [empty, pa.scalar(None, pa.string()), lower])
        if name == "mode":
            text = pa.array([MODES.get(v, v) for v in text.to_pylist()], pa.string())
        try:
            numbers = text.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = pa.array(
                pd.to_numeric(pd.Series(text.to_pylist(), dtype=object), errors="coerce"),
                from_pandas=True,
            )
        missing = text.is_null()
    else:
        numbers = column.cast(pa.float64(), safe=False)
        missing = column.is_null(nan_is_null=True)
    with np.errstate(over="ignore"):
        values = numbers.to_numpy(zero_copy_only=False).astype(np.float32)
    bad = ~np.isfinite(values) & ~missing.to_numpy(zero_copy_only=False)
    return values, bad


def _first_of_each(frame: pd.DataFrame, found: TrackFeatures) -> pd.DataFrame:
    """Keep the first row of each track, and count what the others say."""
    again = frame.duplicated("track_id").to_numpy()
    if again.any():
        same = frame.duplicated().to_numpy()
        found.repeated = int((again & same).sum())
        found.conflicting = int((again & ~same).sum())
    return frame.loc[~again].reset_index(drop=True)
