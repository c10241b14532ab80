"""What every reader of rows makes: plays, and rejected rows with their lines and reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.ingest.tables import Rows, text_of
from musicbox_env.schema import SOURCES, STORED_PLAY_COLUMNS, UNKNOWN

PLAY_SCHEMA: Final = pa.schema(
    [
        ("session_id", pa.string()),
        ("track_id", pa.string()),
        ("line", pa.int64()),
        ("session_length", pa.int8()),
        *(
            (n, pa.from_numpy_dtype(c.dtype))
            for n, c in STORED_PLAY_COLUMNS.items()
            if n != "track"
        ),
    ]
)
"""A play: ids as text, its line in the file, its session's length, stored columns."""
REJECTS_SCHEMA: Final = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())]
)

UNPARSABLE: Final = -(1 << 30)
"""A value for which the row is rejected."""
LONGEST_SHOWN: Final = 60
STRANGE: Final = UNPARSABLE + 1
"""A value that can be read but not stored: stored as unknown, and counted."""
EMPTY_VALUES: Final = frozenset(
    {"", "nan", "none", "null", "na", "n/a", "<na>", "nat", "#n/a", "\\n", "-"}
)
"""What stands, in small letters, for nothing in a column of numbers or flags; names may be so."""
TRUE: Final = frozenset(
    {"true", "t", "yes", "y", "1", "1.0", "on", "ja", "oui", "si", "sí", "sim", "wahr", "vrai"}
    | {"verdadero", "verdadeiro", "vero"}
)
FALSE: Final = frozenset(
    {"false", "f", "no", "n", "0", "0.0", "off", "nein", "non", "não", "falsch", "faux", "falso"}
)
ORGANIC, RECOMMENDED = SOURCES


@dataclass
class Rejects:
    """Rejected rows, held until they are written.

    Attributes:
        counts: Rejected rows by reason, those already written with them.
        examples: Of reasons for a value the first one and its line, for a message; never stored.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    _pending: list[tuple[npt.NDArray[np.int64], str]] = field(default_factory=list)

    def add(self, lines: npt.NDArray[np.int64], reason: str, example: str | None = None) -> None:
        """Note that the rows at these lines are rejected; ``example`` is `shown` of the first."""
        if len(lines):
            self.counts[reason] += len(lines)
            self._pending.append((np.asarray(lines, np.int64), reason))
            if example is not None:
                self.examples.setdefault(reason, example)

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


class RowCheck:
    """Which of some rows are kept; each row is rejected for the first reason found.

    Attributes:
        kept: Rows that are kept so far ``(rows,)``.
    """

    def __init__(
        self,
        rows: Rows,
        rejects: Rejects,
        kept: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Begin with some rows, all of them or those in ``kept``."""
        self.kept = np.ones(len(rows), bool) if kept is None else kept.copy()
        self._rows, self._rejects = rows, rejects

    def reject(self, mask: npt.NDArray[np.bool_], reason: str, values: Any = None) -> None:
        """Reject rows that are still kept, for one of these values ``(rows,)`` if given."""
        if mask.any():
            rows = np.flatnonzero(mask & self.kept)
            example = None
            if values is not None and len(rows):
                first = int(rows[0])
                example = shown(values[first], self._rows.place(first))
            self._rejects.add(self._rows.lines[rows], reason, example)
            self.kept &= ~mask


def shown(value: object, place: str) -> str:
    """A value of a file and its place for a message, what cannot be printed escaped."""
    text = text_of(value) if isinstance(value, pa.Scalar) else str(value)
    return f"{text[:LONGEST_SHOWN]!r} {place}"


def play_table(
    columns: Mapping[str, pa.Array | npt.NDArray], kept: npt.NDArray[np.bool_]
) -> pa.Table:
    """The kept rows as a table of `PLAY_SCHEMA`; the others may not fit its types.

    Args:
        columns: Its columns ``(rows,)``; what is left out is unknown.
        kept: Mask of the rows ``(rows,)``.
    """
    all_kept = bool(kept.all())
    arrays = []
    for name, kind in zip(PLAY_SCHEMA.names, PLAY_SCHEMA.types, strict=True):
        column = columns.get(name)
        if column is None:
            column = np.full(len(kept), UNKNOWN, np.int8)
        if isinstance(column, np.ndarray):
            column = column if all_kept else column[kept]
            arrays.append(pa.array(column.astype(kind.to_pandas_dtype()), kind))
        else:
            arrays.append(column if all_kept else column.filter(pa.array(kept)))
    return pa.Table.from_arrays(arrays, schema=PLAY_SCHEMA)


def parse_codes(
    column: pa.DictionaryArray, parse: Callable[[str], int]
) -> tuple[npt.NDArray[np.int32], Counter[str]]:
    """Parse a column of few distinct values, each distinct value once.

    Returns:
        Numbers ``(rows,)``, `UNKNOWN` where a field is empty or `STRANGE`; and the rows of each
        strange value.
    """
    texts = [str(text).strip() for text in column.dictionary.to_pylist()]
    parsed = [UNKNOWN if text.lower() in EMPTY_VALUES else parse(text) for text in texts]
    lookup = np.array([*parsed, UNKNOWN], np.int32)
    codes = column.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    strange: Counter[str] = Counter()
    if STRANGE in parsed:
        counts = np.bincount(codes, minlength=len(lookup))
        for code in np.flatnonzero(lookup == STRANGE).tolist():
            strange[texts[code]] += int(counts[code])
        lookup[lookup == STRANGE] = UNKNOWN
    return lookup[codes], +strange


def parse_flag(text: str) -> int:
    """1 or 0, or `UNPARSABLE`."""
    word = text.lower()
    return 1 if word in TRUE else 0 if word in FALSE else UNPARSABLE


def source_parser(column: str) -> Callable[[str], int]:
    """A parser of where a play came from, to places in `SOURCES`; flags mean what the name says."""
    organic = "organic" in column.lower()
    recommended = "recommend" in column.lower()

    def parse(text: str) -> int:
        word = text.lower()
        if word in SOURCES:
            return SOURCES.index(word)
        flag = parse_flag(word)
        if flag == UNPARSABLE or organic == recommended:
            return UNPARSABLE
        return SOURCES.index(ORGANIC if bool(flag) == organic else RECOMMENDED)

    return parse


def parse_name(vocabulary: Sequence[str]) -> Callable[[str], int]:
    """A parser of names to their places in a vocabulary; others are `STRANGE`."""
    codes = {name: code for code, name in enumerate(vocabulary)}
    return lambda text: codes.get(text, STRANGE)
