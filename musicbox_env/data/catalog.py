"""The tracks of a dataset: ids, features, popularity and rates, all counted on training plays."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicbox_env.data.checks import UNREADABLE, CheckedFile, FileError, are_strings
from musicbox_env.data.made_up import with_made_up_names
from musicbox_env.names import id_key, name_key
from musicbox_env.schema import OPINION_COUNTS, OPINIONS, TRACK_FEATURES, require_known, suggest

if TYPE_CHECKING:  # slow to import, and an environment needs none of it
    import pandas as pd

COUNTS = tuple(f"{what}_{fold}" for fold in ("a", "b") for what in ("plays", "skips"))
TRACK_ID = "track_id"
MEND = "Make the dataset again, or ask its sender for it again."
OTHER_IDS = "other_ids"
"""Column of the catalog: further ids of a song, all with its title and artist."""
RATE_PRIOR_PLAYS = 50.0
"""Weight of the catalog's mean in a track's shrunken skip rate, in plays.

The prior of a beta-binomial: with a true sd of track rates of s around a mean of m it is worth
m (1 - m) / s**2 - 1 plays, which is 50 at the .07 around .51 that real plays show.
"""


class Catalog:
    """All tracks that may be recommended, most played in training first.

    A track's row number is its index everywhere: in plays, embeddings, slates and observations.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open the catalog of a dataset folder.

        Args:
            folder: Dataset folder, holding ``catalog.parquet``.

        Raises:
            FileError: The file is no table, or its columns are others. Values are checked by
                `check`.
        """
        self._folder = Path(folder)
        self._file = self._folder / "catalog.parquet"
        checked = CheckedFile(self._file, MEND)
        checked.require_regular()
        try:
            about = pq.read_metadata(self._file)
            self._schema = about.schema.to_arrow_schema()
        except UNREADABLE as error:
            raise checked.refused(f"no table ({error})", "a Parquet file of tracks") from None
        self._num_tracks = int(about.num_rows)
        size = self._file.stat().st_size
        checked.require(
            0 < self._num_tracks <= size,  # an id of its own takes a byte
            f"{self._num_tracks:,} tracks in {size:,} bytes",
            "at least one track, and more bytes than tracks",
        )
        self._require_columns(self._schema)

    def _require_columns(self, schema: pa.Schema) -> None:
        """Refuse columns that are missing, there twice, or of another type."""
        names = schema.names
        counted = (*COUNTS, *(OPINION_COUNTS if {*OPINION_COUNTS} & {*names} else ()))
        for name, right, kind in _COLUMNS:
            number = names.count(name)
            needed = name == TRACK_ID or name in counted
            wrong = number > 1 or (number and not right(schema.field(name)))
            CheckedFile(self._file, MEND).require(
                not wrong and (number or not needed), f"no column {name} of {kind}", "one"
            )

    @property
    def file(self) -> Path:
        """All that `check` reads."""
        return self._file

    def check(self) -> pa.Table:
        """Check all values of the columns that are read.

        Returns:
            These columns.

        Raises:
            FileError: Text is damaged, an id is missing or there twice, or a count cannot be.
        """
        checked = CheckedFile(self._file, MEND)
        try:
            known = [name for name, *_ in _COLUMNS if name in self._schema.names]
            table = pq.read_table(self._file, columns=known)
            table.validate(full=True)
            self._require_columns(table.schema)
            distinct = pc.call_function("count_distinct", [table[TRACK_ID]]).as_py()
            counted = [name for name in (*COUNTS, *OPINION_COUNTS) if name in known]
            counts = {name: table[name].to_numpy() for name in counted}
        except FileError:
            raise
        except UNREADABLE as error:
            raise checked.refused(f"no table ({error})", "a Parquet file of tracks") from None
        checked.require(
            table[TRACK_ID].null_count == 0 and distinct == len(self),
            f"{distinct:,} different track ids",
            f"{len(self):,}, one for each track",
        )
        for name, values in counts.items():
            checked.require_within(values, (0, np.iinfo(np.int64).max // 4), name)
        for fold in ("a", "b"):
            more = counts[f"skips_{fold}"] > counts[f"plays_{fold}"]
            checked.require(not more.any(), f"more skips than plays in fold {fold}", "less")
        return table

    def __reduce__(self) -> tuple[Callable[[Path], Catalog], tuple[Path]]:
        """Pickle by path."""
        return Catalog, (self._folder,)

    def __len__(self) -> int:
        return self._num_tracks

    def _column(self, name: str) -> npt.NDArray:
        with pq.ParquetFile(self._file) as table:  # a third of the time of `read_table`
            return table.read(columns=[name])[name].to_numpy()

    @cached_property
    def track_ids(self) -> npt.NDArray[np.object_]:
        """Track ids as logged, ``(num_tracks,)``."""
        return np.asarray(self._column(TRACK_ID), dtype=object)

    @cached_property
    def titles(self) -> npt.NDArray[np.object_]:
        """What people call each track, ``(num_tracks,)``: "Artist - Title", or else its id.

        Synthetic tracks have made-up names.
        """
        titles = with_made_up_names(self.track_ids.tolist())
        if self.has_titles:
            names = pq.read_table(self._file, columns=["artist", "title"]).to_pandas()
            known = (names["title"].fillna("") != "").to_numpy()
            full = names["title"].where(
                names["artist"].fillna("") == "", names["artist"] + " - " + names["title"]
            )
            titles[known] = full.to_numpy(dtype=object)[known]
        return titles

    def frame(self, what: str) -> pd.DataFrame | None:
        """Ids of all tracks beside their ``"features"`` or ``"names"``; None without such names."""
        if what == "names" and not self.has_titles:
            return None
        columns = ("title", "artist") if what == "names" else self.feature_names
        return pq.read_table(self._file, columns=[TRACK_ID, *columns]).to_pandas()

    @property
    def has_titles(self) -> bool:
        """Whether the dataset knows titles of tracks."""
        return {"title", "artist"} <= set(self._schema.names)

    @cached_property
    def shows_titles(self) -> bool:
        """Whether `titles` says more than the ids: names of the dataset, or made-up ones."""
        return self.has_titles or bool((self.titles != self.track_ids).any())

    def find(self, songs: list[str]) -> npt.NDArray[np.int64]:
        """Row numbers of songs named by any of their ids, or by "Artist - Title".

        However it is spelled: see `musicbox_env.names`.

        Raises:
            KeyError: There is no such song, or more than one of that name.
        """
        # Bytes of a command line that are no UTF-8 are no characters either, and name nothing.
        texts = [song.encode(errors="backslashreplace").decode() for song in songs]
        return self.index_of([self._track_id(text) for text in texts])

    def _track_id(self, song: str) -> str:
        """The track id of a song; what is named if nothing is called so and no title is known."""
        for name in (song, id_key(song)):
            if self._index.get_indexer([name])[0] >= 0:  # type: ignore[arg-type]
                return name
            if name in self.other_ids:
                return self.other_ids[name]
        return self._id_of(song) if self.shows_titles else song

    @cached_property
    def other_ids(self) -> dict[str, str]:
        """Track id of each further id."""
        if OTHER_IDS not in self._schema.names:
            return {}
        others = zip(self.track_ids, self._column(OTHER_IDS), strict=True)
        return {other: track for track, of in others if of is not None for other in of}

    def _id_of(self, title: str) -> str:
        """Id of the one track that is called so."""
        names, wanted = self._name_keys, name_key(title)
        ids = self.track_ids[names == wanted]
        if len(ids) > 1:
            raise KeyError(
                f"{len(ids)} tracks are called {title!r}; name one by its id: {', '.join(ids)}."
            )
        if not len(ids):
            near = get_close_matches(wanted, names, n=3, cutoff=0.5)
            nearest = [repr(self.titles[names == name][0]) for name in near]
            hint = f" Did you mean {' or '.join(nearest)}?" if near else ""
            raise KeyError(f"No song {title!r} in the catalog of {len(self):,} tracks.{hint}")
        return str(ids[0])

    @cached_property
    def _name_keys(self) -> npt.NDArray[np.object_]:
        return np.array([name_key(name) for name in self.titles], dtype=object)

    @cached_property
    def _index(self) -> pd.Index:
        import pandas as pd

        return pd.Index(self.track_ids)

    def index_of(self, track_ids: list[str]) -> npt.NDArray[np.int64]:
        """Row numbers of the given track ids.

        Raises:
            KeyError: A track is not in the catalog; the message shows some that are.
        """
        rows = self._index.get_indexer(track_ids)  # type: ignore[arg-type]
        for track_id, row in zip(track_ids, rows, strict=True):
            if row < 0:
                raise KeyError(
                    f"No track {track_id!r} in the catalog of {len(self):,} tracks, the most "
                    f"played of which are {', '.join(map(repr, self.track_ids[:5]))}."
                )
        return rows

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Feature columns that this catalog has, in published order."""
        return tuple(name for name in TRACK_FEATURES if name in self._schema.names)

    def features(self, names: tuple[str, ...] | None = None) -> npt.NDArray[np.float32]:
        """Feature matrix ``(num_tracks, len(names))``, NaN where unknown; all columns if None."""
        names = self.feature_names if names is None else names
        present = set(self.feature_names)
        missing = np.full(len(self), np.nan, dtype=np.float32)
        columns = [
            self._column(name).astype(np.float32) if name in present else missing for name in names
        ]
        return np.stack(columns, axis=1) if columns else np.empty((len(self), 0), np.float32)

    def plays(self, split: str = "train") -> npt.NDArray[np.int64]:
        """Training plays of each track, ``(num_tracks,)``: of train, ``train_a`` or ``train_b``."""
        return self._count("plays", split)

    def skips(self, split: str = "train") -> npt.NDArray[np.int64]:
        """Training skips (``skip_2``) of each track, ``(num_tracks,)``."""
        return self._count("skips", split)

    def _count(self, what: str, split: str) -> npt.NDArray[np.int64]:
        folds = {"train": ("a", "b"), "train_a": ("a",), "train_b": ("b",)}
        if split not in folds:
            raise ValueError(
                f"Popularity and rates exist for training plays alone, not for {split!r}; "
                f"{suggest(split, folds)}"
            )
        return np.sum([self._column(f"{what}_{fold}") for fold in folds[split]], axis=0)

    def opinions(self, opinion: str, split: str = "train") -> npt.NDArray[np.int64]:
        """How often one of `schema.OPINIONS` was given in training sessions ``(num_tracks,)``.

        Zeros where the dataset knows of none.
        """
        require_known("opinion", opinion, OPINIONS)
        if f"{opinion}s_a" not in self._schema.names:
            return np.zeros(len(self), np.int64)
        return self._count(f"{opinion}s", split)

    def skip_rate(self, split: str = "train") -> npt.NDArray[np.float64]:
        """Skip rate of each track shrunken towards the catalog's mean, ``(num_tracks,)``.

        ``(skips + k m) / (plays + k)`` with m the mean over all plays and k `RATE_PRIOR_PLAYS`:
        the posterior mean of a binomial rate under a beta prior.
        """
        plays, skips = self.plays(split), self.skips(split)
        mean = skips.sum() / max(plays.sum(), 1)
        return (skips + RATE_PRIOR_PLAYS * mean) / (plays + RATE_PRIOR_PLAYS)


def _are_numbers(field: pa.Field) -> bool:
    of = field.type
    return any((pa.types.is_integer(of), pa.types.is_floating(of), pa.types.is_null(of)))


def _are_names(field: pa.Field) -> bool:
    return are_strings(field) or pa.types.is_null(field.type)


def _are_lists(field: pa.Field) -> bool:
    of = field.type
    lists = pa.types.is_list(of) or pa.types.is_large_list(of)
    return are_strings(of.value_field) if lists else pa.types.is_null(of)


_COLUMNS = (
    (TRACK_ID, are_strings, "strings"),
    *((name, lambda field: pa.types.is_int64(field.type), "int64") for name in COUNTS),
    *((name, lambda field: pa.types.is_int64(field.type), "int64") for name in OPINION_COUNTS),
    *((name, _are_names, "strings") for name in ("title", "artist")),
    (OTHER_IDS, _are_lists, "lists of strings"),
    *((name, _are_numbers, "numbers") for name in TRACK_FEATURES),
)
"""Columns that are read, what their type must be, and how that is called."""
