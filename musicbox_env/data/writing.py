"""How a dataset folder is written: whole or not at all, a block of sessions at a time.

The folder is described in `musicbox_env.data.dataset`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.column_files import ColumnFile, IdWriter, renumber
from musicbox_env.data.dataset import FORMAT_VERSION, IDENTITY, UNFINISHED
from musicbox_env.data.fingerprint import fingerprints
from musicbox_env.data.folders import DATASET, Kind
from musicbox_env.data.opinions import opinion_counts
from musicbox_env.data.sessions import SessionLog, assign_splits
from musicbox_env.data.splits import SplitConfig
from musicbox_env.errors import nameable, writing
from musicbox_env.kernels import compiled
from musicbox_env.locks import held
from musicbox_env.schema import (
    EXTRA_PLAY_COLUMNS,
    OPINION_COUNTS,
    PLAY_COLUMNS,
    STORED_PLAY_COLUMNS,
    TRACK_FEATURES,
    UNKNOWN,
    is_skip,
)

if TYPE_CHECKING:  # slow to import, and an environment needs none of it
    import pandas as pd


@dataclass
class PlayBlock:
    """Some whole sessions on their way into a dataset folder.

    Attributes:
        session_ids: Ids of the sessions ``(n,)``, an array of Arrow or of objects.
        lengths: Plays of each session ``(n,)``; they sum to the number of plays p.
        vocabulary: Ids of tracks, of which the block mentions some; blocks that share the array are
            written faster.
        columns: Columns of `schema.PLAY_COLUMNS`, each ``(p,)``; ``track`` indexes
            ``vocabulary``; a column that is left out is stored as unknown.
        split_keys: What each session's split is drawn from ``(n,)``: sessions of one key share a
            split. Each session's id where left out.
        split: Split codes ``(n,)`` in place of drawn ones.
    """

    session_ids: pa.StringArray | npt.NDArray[np.object_]
    lengths: npt.NDArray[np.int64]
    vocabulary: npt.NDArray[np.object_]
    columns: dict[str, npt.NDArray]
    split_keys: pa.StringArray | None = None
    split: npt.NDArray[np.uint8] | None = None

    def stored(self, name: str, rows: npt.NDArray[np.int32]) -> npt.NDArray:
        """A column as it is stored ``(p,)``; ``rows`` of the catalog take the place of tracks."""
        dtype, values = STORED_PLAY_COLUMNS[name].dtype, self.columns.get(name)
        if values is None:
            return np.full(int(self.lengths.sum()), UNKNOWN, dtype)
        return np.asarray(rows[values] if name == "track" else values).astype(dtype, copy=False)


@contextmanager
def staged_folder(
    out: Path | str, *, overwrite: bool = False, kind: Kind = DATASET
) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes ``out`` only if the block succeeds.

    What is already in the temporary folder stays, so that a resumed job finds its finished parts;
    on an exception it is left there under a name (``OUT.partial``) that nothing opens, unless it
    holds no file. The lock of ``out`` is held. Only what is of the ``kind`` is replaced, or gone on
    with.

    Raises:
        FileExistsError: ``out`` exists already and ``overwrite`` is False, or it, or its temporary
            folder, is a file or holds what MusicBox did not write.
        InUseError: Another process is making ``out``.
    """
    out = Path(out)
    with held(out):
        require_folder(out)
        if out.exists() and not overwrite:
            raise FileExistsError(f"{out} exists already; name another folder or pass --overwrite.")
        with _staged(out, kind) as staging:
            yield staging


def require_folder(path: Path) -> None:
    """Refuse a file where a folder is to be made, or replaced: it is nothing of MusicBox's.

    Raises:
        FileExistsError: There is one.
    """
    if os.path.lexists(path) and not path.is_dir():
        raise FileExistsError(
            f"{path} is a file, and a folder of that name is to be made. Move the file away, or "
            "name another folder."
        )


@contextmanager
def folder_made_once(out: Path) -> Iterator[Path | None]:
    """As `staged_folder`, for a cache: where another process is making ``out``, wait for it.

    Yields:
        The temporary folder; None where ``out`` is there, made by this or another process.
    """
    if out.exists():
        yield None
        return
    with held(out, wait=True):
        if out.exists():
            yield None
            return
        with _staged(out, DATASET) as staging:
            yield staging


def staging_of(out: Path | str) -> Path:
    """The temporary folder beside a folder in the making; beside its target if it is a link."""
    out = nameable(out)
    return out.with_name(out.name + UNFINISHED)


@contextmanager
def _staged(out: Path, kind: Kind) -> Iterator[Path]:
    out, staging, retired = nameable(out), staging_of(out), staging_of(f"{nameable(out)}.replaced")
    for place in (staging, retired):
        require_folder(place)
        kind.require_own(place, finished=False)
    kind.require_own(out)
    staging.mkdir(parents=True, exist_ok=True)
    try:
        with writing(staging):
            yield staging
    except BaseException:
        _remove_empty_folders(staging)
        raise
    shutil.rmtree(retired, ignore_errors=True)
    if out.exists():
        os.replace(out, retired)
    os.replace(staging, out)
    shutil.rmtree(retired, ignore_errors=True)


def _remove_empty_folders(top: Path) -> None:
    """Remove folders that hold no file, ``top`` among them; links stay."""
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):  # it holds something
            os.rmdir(folder)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with writing(temporary):
        temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_dataset(
    folder: Path,
    blocks: Iterable[PlayBlock],
    *,
    features: pd.DataFrame | None,
    split: SplitConfig,
    about: dict[str, Any],
    names: pd.DataFrame | None = None,
    opinions: pa.Table | None = None,
) -> None:
    """Write plays, sessions and catalog into a (staged) folder, in one pass over the blocks.

    Memory holds the track ids, the length and split of each session, and one block; neither the
    plays nor the session ids.

    Args:
        folder: Where to write; see `staged_folder`.
        blocks: Whole sessions, in the order in which they shall be stored.
        features: Optional track features with a column ``track_id`` and any of
            `schema.TRACK_FEATURES`; tracks that no session mentions join the catalog too.
        split: Division of the sessions.
        about: What else ``dataset.json`` shall say (sources, filters, rejects).
        names: Optional ``track_id``, ``title`` and ``artist`` of tracks, each track once.
        opinions: Optional likes and dislikes, of `opinions.OPINION_SCHEMA`; those given in training
            sessions are counted in the catalog.

    Raises:
        ValueError: The blocks hold no session.
    """
    (folder / "dataset.json").unlink(missing_ok=True)
    with _PlayWriter(folder, split) as writer:
        for block in blocks:
            writer.add(block)
    if not writer.tally.lengths:
        raise ValueError("No session is left to write.")
    save_sessions(folder, writer.tally)
    new_row = write_catalog(folder, writer.tally, features, names, opinions)
    renumber(folder / "plays/track.npy", new_row)
    write_about(folder, split, about)


def save_sessions(folder: Path, tally: PlayTally) -> None:
    """Write where each session begins, and its split."""
    lengths = np.concatenate([[0], *tally.lengths])
    save_array(folder / "sessions/offsets.npy", np.cumsum(lengths, dtype=np.int64))
    save_array(folder / "sessions/split.npy", np.concatenate(tally.codes))


def write_catalog(
    folder: Path,
    tally: PlayTally,
    features: pd.DataFrame | None,
    names: pd.DataFrame | None,
    opinions: pa.Table | None,
) -> npt.NDArray[np.int32]:
    """Write the catalog of a folder that has its sessions; see `write_dataset`.

    Returns:
        The row of each track of ``tally.index``, and of those of the features after them.
    """
    catalog, new_row = _build_catalog(tally.index, tally.counts, features)
    if names is not None:
        catalog = catalog.merge(names, how="left", on="track_id", validate="one_to_one")
    if opinions is not None:
        counts = opinion_counts(folder, opinions)
        catalog = catalog.merge(counts, how="left", on="track_id", validate="one_to_one")
        catalog = catalog.fillna(dict.fromkeys(OPINION_COUNTS, 0))
        catalog = catalog.astype(dict.fromkeys(OPINION_COUNTS, "int64"))
    pq.write_table(pa.Table.from_pandas(catalog, preserve_index=False), folder / "catalog.parquet")
    return new_row


def write_about(folder: Path, split: SplitConfig, about: dict[str, Any]) -> None:
    """Write ``dataset.json`` of a folder that has all else."""
    catalog, sessions = Catalog(folder).check(), SessionLog(folder)
    write_json(
        folder / "dataset.json",
        {
            "format_version": FORMAT_VERSION,
            "sessions": sessions.num_sessions,
            "plays": sessions.num_plays,
            "tracks": len(catalog),
            "longest_session": int(np.diff(sessions.offsets).max()),
            "split": split.about(),
            IDENTITY: fingerprints(catalog, sessions),
            **about,
        },
    )


def save_array(path: Path, array: npt.NDArray) -> None:
    """Write an array as .npy; on a full disk the error says so, which ``np.save``'s does not."""
    described = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
    with writing(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**described, "shape": array.shape})
        file.write(np.ascontiguousarray(array).data)


class PlayTally:
    """What the catalog and the sessions' files are made from, gathered over blocks.

    Attributes:
        index: Tracks in order of appearance.
        counts: Training plays and skips, ``(2 folds, 2, tracks or more)``: plays first.
        lengths: Plays of each session, an array a block.
        codes: Split of each session, an array a block.
        given: Columns of `schema.EXTRA_PLAY_COLUMNS` of which some play has a value.
    """

    def __init__(self, split: SplitConfig) -> None:
        """Begin with nothing."""
        self.index: dict[str, int] = {}
        self.counts = np.zeros((2, 2, 1024), np.int64)
        self.lengths: list[npt.NDArray[np.integer]] = []
        self.codes: list[npt.NDArray[np.uint8]] = []
        self.given: set[str] = set()
        self._vocabulary: npt.NDArray[np.object_] | None = None
        self._row: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._split = split

    def add(self, block: PlayBlock) -> npt.NDArray[np.int32]:
        """Count a block; gives the row in `index` of each track of its vocabulary.

        It is -1 where no block mentioned the track yet. The array is the same, and is filled in,
        for blocks that share their vocabulary.
        """
        rows, codes = self._rows(block), self._codes(block)
        skipped = is_skip(np.asarray(block.columns["level"]))
        folds = np.repeat(codes, block.lengths)
        _count_plays(folds, rows.take(block.columns["track"]), skipped, self.counts)
        self.lengths.append(block.lengths)
        self.codes.append(codes)
        for name in EXTRA_PLAY_COLUMNS:
            if np.any(block.columns.get(name, UNKNOWN) != UNKNOWN):
                self.given.add(name)
        return rows

    def rows_of(self, tracks: Iterable[str]) -> list[int]:
        """The row in `index` of each track, new ones at the end."""
        index = self.index
        rows = [index.setdefault(track, len(index)) for track in tracks]
        missing = len(index) - self.counts.shape[2]
        if missing > 0:
            room = max(missing, self.counts.shape[2])
            self.counts = np.pad(self.counts, ((0, 0), (0, 0), (0, room)))
        return rows

    def _rows(self, block: PlayBlock) -> npt.NDArray[np.int32]:
        if block.vocabulary is not self._vocabulary:
            self._vocabulary = block.vocabulary
            self._row = np.full(len(block.vocabulary), UNKNOWN, PLAY_COLUMNS["track"].dtype)
        mentioned = np.zeros(len(self._row), np.bool_)
        mentioned[block.columns["track"]] = True
        new = np.flatnonzero(mentioned & (self._row < 0))
        self._row[new] = self.rows_of(block.vocabulary[new])
        return self._row

    def _codes(self, block: PlayBlock) -> npt.NDArray[np.uint8]:
        if block.split is not None:
            return block.split
        keys = block.session_ids if block.split_keys is None else block.split_keys
        shares, fold = self._split.shares, self._split.test_fold
        return assign_splits(keys, seed=self._split.seed, shares=shares, test_fold=fold)


@compiled
def _count_plays(
    fold: npt.NDArray[np.uint8],
    track: npt.NDArray[np.int32],
    skipped: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.int64],
) -> None:
    """Count plays and skips of both folds ``(2 folds, 2, tracks)``; ``counts`` is changed."""
    for i in range(len(fold)):
        if fold[i] < 2:
            counts[fold[i], 0, track[i]] += 1
            counts[fold[i], 1, track[i]] += skipped[i]


class _PlayWriter(ExitStack):
    """Streams blocks into columns, and counts what the catalog needs."""

    def __init__(self, folder: Path, split: SplitConfig) -> None:
        super().__init__()
        begin_folders(folder)
        self.tally = PlayTally(split)
        self._folder = folder
        # Last of all, when the files are closed.
        self.callback(self._remove_never_given)
        self._columns = {
            name: self.enter_context(ColumnFile(folder / "plays" / f"{name}.npy", column.dtype))
            for name, column in STORED_PLAY_COLUMNS.items()
        }
        self._ids = self.enter_context(IdWriter(folder))

    def add(self, block: PlayBlock) -> None:
        if not len(block.session_ids):
            return
        num_plays = int(block.lengths.sum())
        for name, values in block.columns.items():
            if len(values) != num_plays:
                raise ValueError(
                    f"Column {name!r} of a block has {len(values)} values for {num_plays} plays."
                )
        rows = self.tally.add(block)
        for name, file in self._columns.items():
            file.write(block.stored(name, rows))
        self._ids.write(pa.array(block.session_ids, pa.string()))

    def _remove_never_given(self) -> None:
        for name in EXTRA_PLAY_COLUMNS:
            if name not in self.tally.given:
                (self._folder / "plays" / f"{name}.npy").unlink(missing_ok=True)


def begin_folders(folder: Path) -> None:
    """Make the folders of a dataset."""
    for name in ("plays", "sessions"):
        (folder / name).mkdir(exist_ok=True)


def _build_catalog(
    index: dict[str, int], counts: npt.NDArray[np.int64], features: pd.DataFrame | None
) -> tuple[pd.DataFrame, npt.NDArray[np.int32]]:
    """Order the tracks by their training plays; also gives old row -> new row."""
    import pandas as pd

    extra: list[str] = []
    if features is not None:
        extra = [t for t in features["track_id"] if t not in index]
    track_ids = [*index, *extra]
    frame = pd.DataFrame({"track_id": track_ids}, dtype=object)
    for code, fold in enumerate(("a", "b")):
        for what, name in enumerate(("plays", "skips")):
            frame[f"{name}_{fold}"] = np.pad(counts[code, what, : len(index)], (0, len(extra)))
    if features is not None:
        columns = [c for c in TRACK_FEATURES if c in features.columns]
        known = features.set_index("track_id")[columns].reindex(track_ids)
        frame = pd.concat([frame, known.reset_index(drop=True)], axis=1)
    popularity = frame["plays_a"] + frame["plays_b"]
    keys = pa.table({"plays": popularity.to_numpy(), "track_id": pa.array(track_ids, pa.string())})
    by_plays = pc.SortOptions([("plays", "descending"), ("track_id", "ascending")])
    order = pc.call_function("sort_indices", [keys], by_plays).to_numpy()
    new_row = np.empty(len(order), dtype=np.int32)
    new_row[order] = np.arange(len(order), dtype=np.int32)
    return frame.iloc[order].reset_index(drop=True), new_row
