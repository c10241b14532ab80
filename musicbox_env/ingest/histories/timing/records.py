"""Plays of listeners as columns: what every step between a table and its sessions works on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import UNKNOWN

LISTEN: Final = np.dtype(
    [
        ("user", np.int32),
        ("time", np.int64),
        ("time_is_start", np.bool_),
        ("began", np.int64),
        ("pause", np.int32),
        ("resolution", np.int32),
        ("table", np.int32),
        ("order", np.int64),
        ("track", np.int32),
        ("song", np.int32),
        ("ms", np.int32),
        ("inferred", np.bool_),
        ("bound", np.int32),
        ("share_told", np.bool_),
        ("share", np.float32),
        ("length", np.int32),
        ("skipped", np.int8),
        ("completed", np.int8),
        ("flags_trusted", np.bool_),
        ("reason_start", np.int8),
        ("reason_end", np.int8),
        ("shuffle", np.int8),
        ("context_type", np.int8),
        ("source", np.int8),
        ("opinion", np.int8),
        ("device", np.int32),
    ]
)
"""A play: times in milliseconds since 1970 UTC, ``began`` a start told beside an end, ``ms`` heard,
``inferred`` where nothing says how far, and ``bound`` the most that can have been heard there,
``share`` of the length heard where that is told, ``pause`` within the play, ``length`` stated; -1
is unknown. A row with an ``opinion``, of `schema.OPINIONS`, is no play. ``resolution`` is how
exact the times are, ``table`` the number of its table, ``song`` what recordings of one title have
in common."""

COLUMNS: Final = LISTEN.names or ()
NOTHING_KNOWN: Final[Mapping[str, npt.NDArray]] = {
    name: np.array(
        0 if name in ("time", "pause", "share") or LISTEN[name] == np.bool_ else UNKNOWN,
        LISTEN[name],
    )
    for name in COLUMNS
}


class Listens:
    """Plays with the columns of `LISTEN`.

    A column of one value is kept as that value: of most services most columns are unknown, and
    then take neither room nor time. Columns are replaced, never written into.
    """

    def __init__(self, rows: int, columns: Mapping[str, npt.ArrayLike] | None = None) -> None:
        """So many plays of which these columns are known, each ``(rows,)`` or one value for all."""
        self._rows = rows
        self._columns = dict(NOTHING_KNOWN)
        for name, values in (columns or {}).items():
            self[name] = values

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> npt.NDArray:
        """A column ``(plays,)``, not to be written into."""
        column = self._columns[name]
        return column if column.ndim else repeated(column, self._rows)

    def __setitem__(self, name: str, values: npt.ArrayLike) -> None:
        column = np.asarray(values, LISTEN[name])
        assert column.shape in ((), (self._rows,)), f"{column.shape} values for {self._rows} plays"
        same = (
            column.ndim and self._rows and column[0] == column[-1] and (column == column[0]).all()
        )
        self._columns[name] = np.array(column[0]) if same else column

    @classmethod
    def of_kept(cls, rows: int, columns: Mapping[str, npt.NDArray]) -> Listens:
        """So many plays, of which all columns are given as `kept` gives them."""
        listens = cls(rows)
        listens._columns = dict(columns)
        return listens

    def dense(self, name: str) -> npt.NDArray:
        """A column ``(plays,)`` for compiled loops, which take arrays of one layout."""
        column = self._columns[name]
        return column if column.ndim else np.full(self._rows, column)

    def kept(self, name: str) -> npt.NDArray:
        """A column as it is kept: ``()`` where all plays have one value, else ``(plays,)``."""
        return self._columns[name]

    def take(self, rows: npt.NDArray[np.integer] | slice) -> Listens:
        """The plays of these rows, in their order."""
        if isinstance(rows, slice):
            taken = Listens(len(range(*rows.indices(len(self)))))
            chosen = {n: of[rows] for n, of in self._columns.items() if of.ndim}
        else:
            taken = Listens(len(rows))
            chosen = {n: of.take(rows) for n, of in self._columns.items() if of.ndim}
        taken._columns = self._columns | chosen
        return taken

    def compress(self, mask: npt.NDArray[np.bool_]) -> Listens:
        """The plays that a mask ``(plays,)`` chooses."""
        return self.take(np.flatnonzero(mask))

    def copy(self) -> Listens:
        """The same plays, whose columns may be replaced."""
        same = Listens(self._rows)
        same._columns = dict(self._columns)
        return same


def repeated(value: npt.NDArray, rows: int) -> npt.NDArray:
    """One value ``()`` for so many plays ``(rows,)``, in no more memory; not to be written into."""
    column = np.ndarray((rows,), value.dtype, value, strides=(0,))
    column.flags.writeable = False
    return column
