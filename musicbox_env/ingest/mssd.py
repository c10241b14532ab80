"""Logs in the schema of the Music Streaming Sessions Dataset: each row a play, or rejected.

Nothing here loops over rows. All columns but the two ids hold few distinct values, so they are
read as codes; each distinct value is parsed once and the rest is looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.errors import InputError
from musicbox_env.ingest.plays import (
    STRANGE,
    UNPARSABLE,
    Rejects,
    RowCheck,
    parse_codes,
    parse_flag,
    parse_name,
    play_table,
)
from musicbox_env.ingest.tables import PassedOver, Rows, Table, as_strings, found_columns
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
MAX_STRANGE_VALUES_NAMED: Final = 20


def log_refusal(table: Table) -> PassedOver | None:
    """Why a table is no log; a log that merely lacks columns is an error, raised by `LogReader`.

    Tables of aggregates share a few columns with logs; a log names its sessions, or has at least
    half of the required columns.
    """
    present = [name for name in REQUIRED_LOG_COLUMNS if name in table.columns]
    if "session_id" in present or 2 * len(present) >= len(REQUIRED_LOG_COLUMNS):
        return None
    where = f" {table.where}" if table.where else ""
    return PassedOver(
        table.name,
        f"is no listening log: columns {', '.join(REQUIRED_LOG_COLUMNS)} expected, "
        f"{found_columns(table)} found{where}; and no streaming history or table of plays. If it "
        "is a table of plays, say with --map which columns say what, as in --map "
        "time=COLUMN,track=COLUMN,played_ms=COLUMN; --map auto goes by their names",
    )


class LogReader:
    """Reads the rows of one log.

    Attributes:
        wanted: Columns to read.
        as_codes: Those of them that are read as codes.
    """

    def __init__(self, table: Table, rejects: Rejects, notes: Counter[str]) -> None:
        """Find the columns of a log.

        Args:
            table: The log.
            rejects: Receives rows that cannot be plays.
            notes: Receives values stored as unknown: how many, by what they are.

        Raises:
            InputError: Required columns are missing; the message says what was found.
        """
        track = next((n for n in TRACK_ID_NAMES if n in table.columns), TRACK_ID_NAMES[0])
        required = [track if n == TRACK_ID_NAMES[0] else n for n in REQUIRED_LOG_COLUMNS]
        missing = [name for name in required if name not in table.columns]
        if missing:
            raise InputError(
                f"{table.name}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
                f"found {found_columns(table)}. A log needs "
                f"{', '.join(REQUIRED_LOG_COLUMNS)}; each other column may be absent."
            )
        optional = [name for name in OPTIONAL_LOG_COLUMNS if name in table.columns]
        self.wanted: tuple[str, ...] = (*required, *optional)
        self.as_codes = frozenset(self.wanted) - {"session_id", track}
        self._track, self._rejects, self._notes = track, rejects, notes

    def read(self, rows: Rows) -> pa.Table:
        """Turn rows into plays: a table of `plays.PLAY_SCHEMA`, in the order of the rows."""
        self._rejects.add(rows.malformed, "wrong number of fields")
        check = RowCheck(rows, self._rejects)
        session_id = as_strings(rows.columns["session_id"])
        track_id = as_strings(rows.columns[self._track])
        check.reject(_is_blank(session_id), "session_id is empty")
        check.reject(_is_blank(track_id), f"{self._track} is empty")
        values = self._parse(rows, check)
        length, position = values["session_length"], values["session_position"]
        check.reject(
            (length < 1) | (length > MAX_SESSION_LENGTH),
            f"session_length is not 1 to {MAX_SESSION_LENGTH}",
        )
        check.reject(
            (position < 1) | (position > length), "session_position is outside the session"
        )
        levels, consistent = levels_from_labels(*(values[name] == 1 for name in LABELS))
        check.reject(~consistent, "skip labels contradict each other")
        columns = {
            "session_id": session_id,
            "track_id": track_id,
            "line": rows.lines,
            "session_length": length,
            "level": levels,
            "position": position,
            "pause": _pauses(values, len(rows)),
            **{STORED_AS[n]: values[n] for n in STORED_AS if n in values},
        }
        return play_table(columns, check.kept)

    def _parse(self, rows: Rows, check: RowCheck) -> dict[str, npt.NDArray[np.int32]]:
        """Numbers for all coded columns, ``(rows,)`` each, `UNKNOWN` where a field is empty."""
        values: dict[str, npt.NDArray[np.int32]] = {}
        for name in LOG_COLUMNS:
            if name not in self.as_codes:
                continue
            parse, expected = _PARSERS[name]
            values[name], strange = parse_codes(rows.columns[name], parse)
            for text, count in strange.items():
                self._note(f"{name} {text!r} stored as unknown", count)
            if name in REQUIRED_LOG_COLUMNS:
                # Any negative number is out of range anyway; -1 is how an empty field was read.
                check.reject(values[name] == UNKNOWN, f"{name} is empty")
            bad = values[name] == UNPARSABLE
            check.reject(bad, f"{name} is not {expected}", rows.columns[name])
        return values

    def _note(self, what: str, count: int) -> None:
        if what not in self._notes and len(self._notes) >= MAX_STRANGE_VALUES_NAMED:
            what = "further values stored as unknown"
        self._notes[what] += count


def _pauses(values: dict[str, npt.NDArray[np.int32]], num_rows: int) -> npt.NDArray[np.int32]:
    """Fold the three pause columns into bits; unknown where all three are."""
    bits = np.zeros(num_rows, np.int32)
    known = np.zeros(num_rows, bool)
    for name, bit in PAUSES.items():
        if name in values:
            known |= values[name] != UNKNOWN
            bits |= np.where(values[name] == 1, bit, 0)
    return np.where(known, bits, UNKNOWN)


def _is_blank(ids: pa.StringArray) -> npt.NDArray[np.bool_]:
    trimmed = pc.call_function("utf8_trim_whitespace", [ids])
    blank = pc.call_function("equal", [trimmed, ""])
    return pc.fill_null(blank, True).to_numpy(zero_copy_only=False)


def _parse_whole(text: str) -> int:
    """A whole number, also when written as a float; what needs over 30 bits is `STRANGE`."""
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


def _parse_date(text: str) -> int:
    """Days since 1970-01-01 of an ISO date or time stamp.

    Dates are dirty in the published logs and no model reads them, so one that cannot be read
    costs the date, not the play.
    """
    try:
        return (date.fromisoformat(text[:10]) - date(1970, 1, 1)).days
    except ValueError:
        return STRANGE


_FLAG: Final = parse_flag, "true or false"
_PARSERS: Final[dict[str, tuple[Callable[[str], int], str]]] = {
    "session_position": (_parse_position, "a whole number"),
    "session_length": (_parse_position, "a whole number"),
    **dict.fromkeys((*LABELS, *PAUSES), _FLAG),
    **dict.fromkeys(("context_switch", "hist_user_behavior_is_shuffle", "premium"), _FLAG),
    "hist_user_behavior_n_seekfwd": (_parse_count, "a whole number"),
    "hist_user_behavior_n_seekback": (_parse_count, "a whole number"),
    "hour_of_day": (_parse_hour, "a whole number"),
    "date": (_parse_date, "a date"),
    **{
        name: (parse_name(PLAY_COLUMNS[STORED_AS[name]].vocabulary), "a known value")
        for name in (
            "context_type",
            "hist_user_behavior_reason_start",
            "hist_user_behavior_reason_end",
        )
    },
}
"""How the distinct values of a column are read, and what they should have been."""
