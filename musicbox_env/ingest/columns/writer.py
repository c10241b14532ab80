"""All parts made into the columns and the catalog of a dataset, side by side."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.data.column_files import IdWriter, empty_column
from musicbox_env.data.writing import PlayTally, begin_folders, save_sessions, write_catalog
from musicbox_env.errors import writing
from musicbox_env.ingest.columns import slices, tracks
from musicbox_env.ingest.columns.duplicates import duplicates
from musicbox_env.ingest.columns.slices import IDS_FILE, MARK, SLICES, Account, Rules, Slice
from musicbox_env.ingest.columns.tracks import TrackFiles
from musicbox_env.ingest.parts import Part
from musicbox_env.ingest.time_split import codes_of
from musicbox_env.progress import tqdm
from musicbox_env.schema import EXTRA_PLAY_COLUMNS, STORED_PLAY_COLUMNS
from musicbox_env.threads import Behind
from musicbox_env.workers import Piece, Spread

if TYPE_CHECKING:  # slow to import
    import pandas as pd


class Columns:
    """The columns of a dataset folder in the making: `count` first, then `write`.

    Memory holds the ids of tracks, the length and split of each session, and of each part what one
    process works on; neither plays nor the ids of sessions.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], spread: Spread, progress: bool) -> None:
        """Begin.

        Args:
            folder: The dataset folder.
            parts: In the order in which their sessions are stored.
            spread: Does the work.
            progress: Whether bars are shown.
        """
        self._folder, self._parts, self._spread = folder.absolute(), parts, spread
        self._progress = progress
        self._slices: list[Slice] = []
        self._plays: list[int] = []

    def count(self, rules: Rules) -> list[Account]:
        """Choose the sessions of all parts; gives their accounts, without what is summed up.

        Raises:
            InputError: There is nothing to split sessions by time by.
        """
        begin_folders(self._folder)
        to, file = self._folder / SLICES, self._folder / SLICES / "rules.json"
        to.mkdir()
        rules.save(file)
        plays = sum(part.about["rows"] for part in self._parts)
        self._tracks = TrackFiles(to, 1 + plays // tracks.PLAYS_A_RANGE)
        again = duplicates([part.session_hashes for part in self._parts])
        codes = codes_of(self._parts, rules.split)
        self._slices = [
            Slice(
                part.folder.absolute(),
                file,
                to / str(number),
                replace(self._tracks, part=number),
                again[number],
                codes[number],
            )
            for number, part in enumerate(self._parts)
        ]
        pieces = [
            Piece(
                f"Choosing sessions of part {number + 1}",
                slices.count,
                (of, rules.split),
                self._sessions(number),
                reads=(of.part, of.rules),
                adds_to=to,
            )
            for number, of in enumerate(self._slices)
        ]
        with self._bar("choosing sessions") as bar:
            accounts = dict(self._spread(pieces, bar.update))
        in_order = [accounts[number] for number in range(len(pieces))]
        self._plays = [int(account.lengths.sum(dtype=np.int64)) for account in in_order]
        self._tally = PlayTally(rules.split)
        self._tally.lengths += [account.lengths for account in in_order]
        self._tally.codes += [account.codes for account in in_order]
        self._tally.given = {name for account in in_order for name in account.given}
        return in_order

    def write(
        self, features: pd.DataFrame | None, names: pd.DataFrame | None, opinions: pa.Table | None
    ) -> None:
        """Write sessions, catalog and plays; see `write_dataset`."""
        save_sessions(self._folder, self._tally)
        with Behind() as behind:
            behind.do(self._write_ids)
            starts = self._merge_tracks()
        new_row = write_catalog(self._folder, self._tally, features, names, opinions)
        folders = [of.folder for of in self._slices]
        tracks.write_rows(self._tracks, folders, starts, new_row)
        columns = tuple(
            name
            for name in STORED_PLAY_COLUMNS
            if name not in EXTRA_PLAY_COLUMNS or name in self._tally.given
        )
        for name in columns:
            empty_column(self._folder, name, sum(self._plays))
        self._write_plays(columns)

    def _write_plays(self, columns: tuple[str, ...]) -> None:
        mark = secrets.token_hex()
        (self._folder / SLICES / MARK).write_text(mark)
        starts = np.cumsum([0, *self._plays])
        pieces = [
            Piece(
                f"Writing plays of part {number + 1}",
                slices.write,
                (of, columns, self._folder, mark, int(starts[number])),
                self._sessions(number),
                reads=(of.part, of.rules, of.folder),
            )
            for number, of in enumerate(self._slices)
        ]
        with self._bar("writing plays") as bar:
            for number, sent in self._spread(pieces, bar.update):
                for name, content in sent.items():
                    with (
                        writing(self._folder / "plays" / f"{name}.npy"),
                        slices.opened_at(self._folder, name, int(starts[number])) as file,
                    ):
                        file.write(content)

    def _merge_tracks(self) -> npt.NDArray[np.int64]:
        """Take the tracks of all parts into the tally; gives where each range of them begins."""
        files = self._tracks
        pieces = [
            Piece(
                f"Merging range {number + 1} of tracks",
                tracks.merge,
                (files, len(self._parts), number),
                1,
                reads=(files.of(number),),
                adds_to=files.folder,
            )
            for number in range(files.ranges)
        ]
        merged = dict(self._spread(pieces, lambda done: None))
        found = [merged[number] for number in range(files.ranges)]
        ids = pa.concat_arrays([of_range for of_range, _ in found]).to_pylist()
        self._tally.index = dict(zip(ids, range(len(ids)), strict=True))
        self._tally.counts = np.concatenate([counts for _, counts in found], 1).reshape(2, 2, -1)
        return np.cumsum([0, *(len(of_range) for of_range, _ in found[:-1])])

    def _write_ids(self) -> None:
        with IdWriter(self._folder) as ids:
            for of in self._slices:
                with pa.ipc.open_stream(of.folder / IDS_FILE) as reader:
                    for batch in reader:
                        ids.write(batch.column(0))

    def _sessions(self, number: int) -> int:
        sessions: int = self._parts[number].about["sessions"]
        return sessions

    def _bar(self, what: str) -> tqdm:
        total = sum(part.about["sessions"] for part in self._parts)
        return tqdm(total=total, desc=what, disable=not self._progress)
