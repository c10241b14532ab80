"""Rows of a log evaluated one by one: each becomes a play, or is rejected for a reason.

Nothing here loops over rows. All columns but the two ids hold few distinct values, so they are
read as codes; each distinct value is parsed once and the rest is looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.ingest.tables import Rows, Table, as_strings, found_columns
from musicbox_env.schema import (
    LOG_COLUMNS,
    MAX_SESSION_LENGTH,
    OPTIONAL_LOG_COLUMNS,
    PAUSE_LONG,
    PAUSE_NONE,
    PAUSE_SHORT,
    PLAY_COLUMNS,
    REQUIRED_LOG_COLUMNS,
    UNKNOWN,
    levels_from_labels,
)

TRACK_ID_NAMES: Final = ("track_id_clean", "track_id")
"""Names under which logs hold the track, the published one first."""
LABELS: Final = ("skip_1", "skip_2", "skip_3", "not_skipped")
PAUSES: Final = {
    "no_pause_before_play": PAUSE_NONE,
    "short_pause_before_play": PAUSE_SHORT,
    "long_pause_before_play": PAUSE_LONG,
}
STORED_AS: Final = {
    "context_switch": "context_switch",
    "hist_user_behavior_n_seekfwd": "seek_forward",
    "hist_user_behavior_n_seekback": "seek_back",
    "hist_user_behavior_is_shuffle": "shuffle",
    "hour_of_day": "hour",
    "date": "date",
    "premium": "premium",
    "context_type": "context_type",
    "hist_user_behavior_reason_start": "reason_start",
    "hist_user_behavior_reason_end": "reason_end",
}
"""Optional columns of a log and the stored column that each becomes; pauses are folded."""

UNPARSABLE: Final = -(1 << 30)
STRANGE: Final = UNPARSABLE + 1
"""A value that can be read but not stored: stored as unknown, and counted."""
EMPTY_VALUES: Final = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
MAX_STRANGE_VALUES_NAMED: Final = 20

PLAY_SCHEMA: Final = pa.schema(
    [
        ("session_id", pa.string()),
        ("track_id", pa.string()),
        ("line", pa.int64()),
        ("session_length", pa.int8()),
        *((n, pa.from_numpy_dtype(c.dtype)) for n, c in PLAY_COLUMNS.items() if n != "track"),
    ]
)
"""An evaluated play: ids as text, its line in the file, its session's length, stored columns."""

REJECTS_SCHEMA: Final = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())]
)


@dataclass
class Rejects:
    """Rejected rows of one table, held until they are written.

    Attributes:
        counts: Rejected rows by reason, those already written with them.
    """

    counts: Counter[str] = field(default_factory=Counter)
    _pending: list[tuple[npt.NDArray[np.int64], str]] = field(default_factory=list)

    def add(self, lines: npt.NDArray[np.int64], reason: str) -> None:
        """Note that rows are rejected."""
        if len(lines):
            self.counts[reason] += len(lines)
            self._pending.append((np.asarray(lines, np.int64), reason))

    def take(self, file: str) -> pa.Table:
        """Rows of ``rejects.csv`` since the last call, by line: file, line, reason."""
        lines = np.concatenate([*(part for part, _ in self._pending), np.empty(0, np.int64)])
        reasons = np.repeat(
            np.array([reason for _, reason in self._pending], dtype=object),
            [len(part) for part, _ in self._pending],
        )
        self._pending = []
        order = np.argsort(lines, kind="stable")
        files = pa.array([file] * len(lines), pa.string())
        return pa.table(
            [files, lines[order].astype(np.int64), pa.array(reasons[order], pa.string())],
            schema=REJECTS_SCHEMA,
        )


class LogEvaluator:
    """Evaluators the rows of one log.

    Attributes:
        rejects: Rows that cannot be plays.
        notes: Values stored as unknown: how many, by what they are.
    """

    def __init__(self, table: Table) -> None:
        """Find the columns of a log.

        Raises:
            ValueError: Required columns are missing; the message says what was found.
        """
        track = next((n for n in TRACK_ID_NAMES if n in table.columns), TRACK_ID_NAMES[0])
        required = [track if n == TRACK_ID_NAMES[0] else n for n in REQUIRED_LOG_COLUMNS]
        missing = [name for name in required if name not in table.columns]
        if missing:
            raise ValueError(
                f"{table.name}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
                f"found {found_columns(table)}. A log needs "
                f"{', '.join(REQUIRED_LOG_COLUMNS)}; each other column may be absent."
            )
        self._track = track
        optional = [name for name in OPTIONAL_LOG_COLUMNS if name in table.columns]
        self.wanted: tuple[str, ...] = (*required, *optional)
        self.as_codes = frozenset(self.wanted) - {"session_id", track}
        self.rejects = Rejects()
        self.notes: Counter[str] = Counter()

    def evaluator(self, rows: Rows) -> pa.Table:
        """Turn rows into plays; those that cannot be are added to `rejects`.

        Returns:
            A table of `PLAY_SCHEMA`, in the order of the rows.
        """
        for row in rows.malformed:
            self.rejects.add(row.line + np.arange(row.rows), "wrong number of fields")
        verdict = _Verdict(len(rows))
        session_id = as_strings(rows.columns["session_id"])
        track_id = as_strings(rows.columns[self._track])
        verdict.reject(_is_blank(session_id), "session_id is empty")
        verdict.reject(_is_blank(track_id), f"{self._track} is empty")
        values = self._parse(rows, verdict)
        length, position = values["session_length"], values["session_position"]
        verdict.reject(
            (length < 1) | (length > MAX_SESSION_LENGTH),
            f"session_length is not 1 to {MAX_SESSION_LENGTH}",
        )
        verdict.reject(
            (position < 1) | (position > length), "session_position is outside the session"
        )
        levels, consistent = levels_from_labels(*(values[name] == 1 for name in LABELS))
        verdict.reject(~consistent, "skip labels contradict each other")
        stored = {
            "level": levels,
            "position": position,
            "pause": self._pauses(values, len(rows)),
            **{STORED_AS[n]: values[n] for n in STORED_AS if n in values},
        }
        columns = {"session_id": session_id, "track_id": track_id, "line": rows.lines}
        columns["session_length"] = length
        for name in PLAY_SCHEMA.names[4:]:
            columns[name] = stored.get(name, np.full(len(rows), UNKNOWN))
        for lines, reason in verdict.rejected(rows.lines):
            self.rejects.add(lines, reason)
        return _table(columns, verdict)

    def _parse(self, rows: Rows, verdict: _Verdict) -> dict[str, npt.NDArray[np.int32]]:
        """Numbers for all coded columns, ``(rows,)`` each, `UNKNOWN` where a field is empty."""
        values: dict[str, npt.NDArray[np.int32]] = {}
        for name in LOG_COLUMNS:
            if name not in self.as_codes:
                continue
            kind = _KINDS[name]
            numbers = self._numbers(name, rows.columns[name], kind)
            bad = numbers == UNPARSABLE
            if name in REQUIRED_LOG_COLUMNS:
                # Any negative number is out of range anyway; -1 is how an empty field was read.
                verdict.reject(numbers == UNKNOWN, f"{name} is empty")
            verdict.reject(bad, f"{name} is not {kind.article}")
            values[name] = np.where(numbers == STRANGE, UNKNOWN, numbers)
        return values

    def _numbers(self, name: str, column: pa.DictionaryArray, kind: _Kind) -> npt.NDArray[np.int32]:
        texts = [str(text).strip() for text in column.dictionary.to_pylist()]
        parsed = [UNKNOWN if t.lower() in EMPTY_VALUES else kind.parse(t) for t in texts]
        lookup = np.array([*parsed, UNKNOWN], np.int32)
        codes = column.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        if STRANGE in parsed:
            counts = np.bincount(codes, minlength=len(texts) + 1)
            for code, value in enumerate(parsed):
                if value == STRANGE and counts[code]:
                    self._note(f"{name} {texts[code]!r} stored as unknown", int(counts[code]))
        return lookup[codes]

    def _note(self, what: str, count: int) -> None:
        if what not in self.notes and len(self.notes) >= MAX_STRANGE_VALUES_NAMED:
            what = "further values stored as unknown"
        self.notes[what] += count

    def _pauses(
        self, values: dict[str, npt.NDArray[np.int32]], num_rows: int
    ) -> npt.NDArray[np.int32]:
        """Fold the three pause columns into bits; unknown where none of them says anything."""
        bits = np.zeros(num_rows, np.int32)
        told = np.zeros(num_rows, bool)
        for name, bit in PAUSES.items():
            if name in values:
                told |= values[name] != UNKNOWN
                bits |= np.where(values[name] == 1, bit, 0)
        return np.where(told, bits, UNKNOWN)


class _Verdict:
    """Which rows are rejected so far, each for the first reason found."""

    def __init__(self, num_rows: int) -> None:
        self._reasons: list[str] = [""]
        self._code = np.zeros(num_rows, np.uint8)

    def reject(self, mask: npt.NDArray[np.bool_], reason: str) -> None:
        if mask.any():
            self._code[mask & (self._code == 0)] = len(self._reasons)
            self._reasons.append(reason)

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        return self._code == 0

    def rejected(self, lines: npt.NDArray[np.int64]) -> list[tuple[npt.NDArray[np.int64], str]]:
        return [
            (lines[self._code == code], reason)
            for code, reason in enumerate(self._reasons)
            if code > 0
        ]


@dataclass(frozen=True)
class _Kind:
    """How the distinct values of a column are read, and what they should have been."""

    parse: Callable[[str], int]
    article: str


def _parse_whole(text: str) -> int:
    """A whole number, also when written as a float; too large ones are cut to 32 bits."""
    try:
        value = float(text)
        number = int(value)
    except (ValueError, OverflowError):
        return UNPARSABLE
    if number != value:
        return UNPARSABLE
    return number if abs(number) < -STRANGE else STRANGE


def _parse_count(text: str) -> int:
    """A number of seeks, cut to what the stored type holds."""
    number = _parse_whole(text)
    if number == UNPARSABLE:
        return UNPARSABLE
    return STRANGE if number < 0 else min(number, int(np.iinfo(np.int16).max))


def _parse_hour(text: str) -> int:
    number = _parse_whole(text)
    return number if number == UNPARSABLE or 0 <= number < 24 else STRANGE


def _parse_position(text: str) -> int:
    """A position or length: what an eight-bit number cannot hold is out of range all the same."""
    number = _parse_whole(text)
    return number if number == UNPARSABLE or 0 <= number < 100 else 0


def parse_flag(text: str) -> int:
    """1 or 0, or `UNPARSABLE`."""
    match text.lower():
        case "true" | "1" | "1.0":
            return 1
        case "false" | "0" | "0.0":
            return 0
    return UNPARSABLE


def _parse_date(text: str) -> int:
    """Days since 1970-01-01 of an ISO date or time stamp.

    Dates are dirty in the published logs and no model reads them, so one that cannot be read
    costs the date, not the play.
    """
    try:
        return (date.fromisoformat(text[:10]) - date(1970, 1, 1)).days
    except ValueError:
        return STRANGE


def _parse_name(vocabulary: Sequence[str]) -> Callable[[str], int]:
    codes = {name: code for code, name in enumerate(vocabulary)}
    return lambda text: codes.get(text, STRANGE)


_FLAG = _Kind(parse_flag, "true or false")
_KINDS: Final = {
    "session_position": _Kind(_parse_position, "a whole number"),
    "session_length": _Kind(_parse_position, "a whole number"),
    **dict.fromkeys(LABELS, _FLAG),
    **dict.fromkeys(PAUSES, _FLAG),
    "context_switch": _FLAG,
    "hist_user_behavior_is_shuffle": _FLAG,
    "premium": _FLAG,
    "hist_user_behavior_n_seekfwd": _Kind(_parse_count, "a whole number"),
    "hist_user_behavior_n_seekback": _Kind(_parse_count, "a whole number"),
    "hour_of_day": _Kind(_parse_hour, "a whole number"),
    "date": _Kind(_parse_date, "a date"),
    **{
        name: _Kind(_parse_name(PLAY_COLUMNS[STORED_AS[name]].vocabulary), "a known value")
        for name in (
            "context_type",
            "hist_user_behavior_reason_start",
            "hist_user_behavior_reason_end",
        )
    },
}


def _is_blank(ids: pa.StringArray) -> npt.NDArray[np.bool_]:
    trimmed = pc.call_function("utf8_trim_whitespace", [ids])
    blank = pc.call_function("equal", [trimmed, ""])
    return pc.fill_null(blank, True).to_numpy(zero_copy_only=False)


def _table(columns: dict[str, pa.Array | npt.NDArray], verdict: _Verdict) -> pa.Table:
    """The kept rows in the stored types; rejected ones may not fit them."""
    kept = verdict.kept
    all_kept = bool(kept.all())
    arrays = []
    for name, kind in zip(PLAY_SCHEMA.names, PLAY_SCHEMA.types, strict=True):
        column = columns[name]
        if isinstance(column, np.ndarray):
            column = column if all_kept else column[kept]
            arrays.append(pa.array(column.astype(kind.to_pandas_dtype()), kind))
        else:
            arrays.append(column if all_kept else column.filter(pa.array(kept)))
    return pa.Table.from_arrays(arrays, schema=PLAY_SCHEMA)
