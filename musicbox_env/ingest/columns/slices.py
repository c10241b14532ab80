"""The sessions of one part: counted first, then written to their place in the columns.

Both walk through the part alike. In between, all parts together tell where each begins (`writer`)
and which row of the catalog each track has (`tracks`).
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.data.column_files import IDS_SCHEMA, column_begin
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, PlayTally, write_json
from musicbox_env.errors import writing
from musicbox_env.ingest.chooser import SessionChooser
from musicbox_env.ingest.columns.tracks import ROWS, TrackFiles, write_tracks
from musicbox_env.ingest.parts import Part
from musicbox_env.ingest.song_ids import SongIds
from musicbox_env.ingest.time_split import with_folds
from musicbox_env.schema import STORED_PLAY_COLUMNS, UNKNOWN
from musicbox_env.threads import Behind, ahead

SLICES: Final = "slices"
"""Folder of what is known of the parts between both walks."""
MARK: Final = "mark"
"""File within, by which a process tells whether it sees this folder and no other of its name."""
IDS_FILE, VOCABULARIES = "ids.arrows", "vocabularies"

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Rules:
    """What decides which sessions are kept.

    Attributes:
        incomplete: What becomes of sessions with missing plays.
        session_length: The only number of plays that is kept, if any is set.
        popular: Ids of the only tracks that are kept, if any are set.
        further_ids: See `song_ids.further_ids`.
        split: Division of the sessions.
    """

    incomplete: Literal["keep", "drop"]
    session_length: int | None
    popular: frozenset[str] | None
    further_ids: Mapping[str, str]
    split: SplitConfig

    def save(self, file: Path) -> None:
        """Write them to a file."""
        popular = None if self.popular is None else sorted(self.popular)
        write_json(file, {**asdict(self), "popular": popular})

    @classmethod
    def read(cls, file: Path) -> Rules:
        """The rules that `save` wrote."""
        content = json.loads(file.read_text(encoding="utf-8"))
        popular, split = content.pop("popular"), content.pop("split")
        among = None if popular is None else frozenset(popular)
        return cls(**content, popular=among, split=SplitConfig(**split))


@dataclass(frozen=True)
class Slice:
    """A part, and what all parts together tell of its sessions.

    Attributes:
        part: Its folder.
        rules: File of the `Rules`.
        folder: Where its ids and vocabularies are kept.
        tracks: Where its tracks are kept.
        again: Numbers of its sessions that came before, ascending.
        codes: Codes of its sessions, where they are split by time.
    """

    part: Path
    rules: Path
    folder: Path
    tracks: TrackFiles
    again: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint8] | None

    def blocks(self) -> Iterator[tuple[SessionChooser, str, int, PlayBlock]]:
        """Blocks of kept sessions: who chose them, their table, the sessions looked at."""
        rules = Rules.read(self.rules)
        part, song_ids = Part.opened(self.part), SongIds(rules.further_ids)
        chooser = SessionChooser(rules.incomplete, rules.session_length, rules.popular)
        before = 0
        for table, batch in ahead(part.blocks()):
            number = len(batch["session_id"].dictionary)
            again = np.zeros(number, np.bool_)
            first, last = np.searchsorted(self.again, [before, before + number])
            again[self.again[first:last] - before] = True
            codes = None if self.codes is None else self.codes[before : before + number]
            block = chooser.choose(song_ids.of(batch), again, codes)
            block.split_keys = part.split_keys(block.session_ids)
            yield chooser, table, number, block
            before += number


@dataclass(frozen=True)
class Account:
    """What a part adds to a dataset.

    Attributes:
        lengths: Plays of each kept session ``(n,)``.
        codes: Split of each ``(n,)``.
        given: Columns that it gives; see `PlayTally`.
        chosen: Sessions and plays by the rule that left them out; see `SessionChooser`.
        rejects: Rows of ``rejects.csv``.
        rejected: How many, by reason.
    """

    lengths: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.uint8]
    given: frozenset[str]
    chosen: Counter[str]
    rejects: list[pa.Table]
    rejected: Counter[str]


def count(of: Slice, split: SplitConfig, progress: Progress) -> Account:
    """Choose the sessions of a part; their ids and vocabularies go to its folder."""
    of.folder.mkdir(parents=True, exist_ok=True)
    tally, rejects = PlayTally(split), list[pa.Table]()
    rows: npt.NDArray[np.int32] | None = None
    chosen, rejected = Counter[str](), Counter[str]()
    with (
        writing(of.folder),
        pa.ipc.new_stream(str(of.folder / IDS_FILE), IDS_SCHEMA) as ids,
        (of.folder / VOCABULARIES).open("wb") as vocabularies,
    ):
        for chooser, table, number, block in of.blocks():
            if len(taken := chooser.rejects.take(table)):
                rejects.append(taken)
            chosen, rejected = chooser.counts, chooser.rejects.counts
            progress(number)
            if not len(block.session_ids):
                continue
            assert block.split_keys is not None
            block.split = with_folds(block.split, block.split_keys, split.seed)
            before, rows = rows, tally.add(block)
            if before is not None and before is not rows:
                vocabularies.write(before.data)
            batch = pa.record_batch([pa.array(block.session_ids, pa.string())], schema=IDS_SCHEMA)
            ids.write_batch(batch)
        if rows is not None:
            vocabularies.write(rows.data)
    write_tracks(of.tracks, tally)
    none = np.empty(0, np.uint8)
    return Account(
        np.concatenate([none, *tally.lengths]).astype(np.uint8),
        np.concatenate([none, *tally.codes]),
        frozenset(tally.given),
        chosen,
        rejects,
        rejected,
    )


def write(
    of: Slice, columns: tuple[str, ...], to: Path, mark: str, start: int, progress: Progress
) -> dict[str, bytes]:
    """Write the plays of a part to their place in the columns of a dataset folder.

    Args:
        of: The part, whose folder has the row in the catalog of each of its tracks.
        columns: The columns that there are.
        to: The dataset folder.
        mark: What the file `MARK` says there.
        start: Plays before those of the part.
        progress: Gets the sessions that were looked at.

    Returns:
        Nothing; where this machine does not see the folder, what belongs there, by column.
    """
    seen = has_mark(to, mark)
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {
            name: stack.enter_context(opened_at(to, name, start)) if seen else io.BytesIO()
            for name in columns
        }
        tracks = np.append(np.fromfile(of.folder / ROWS, np.int32), np.int32(UNKNOWN))
        vocabularies = stack.enter_context((of.folder / VOCABULARIES).open("rb"))
        behind = stack.enter_context(Behind())
        vocabulary, rows = None, tracks
        for _, _, number, block in of.blocks():
            progress(number)
            if not len(block.session_ids):
                continue
            if block.vocabulary is not vocabulary:
                vocabulary = block.vocabulary
                rows = tracks[np.fromfile(vocabularies, np.int32, len(vocabulary))]
            columns_of = {name: block.stored(name, rows) for name in files}
            behind.do(_write_columns, files, columns_of, to)
        behind.wait()
        for name, file in files.items():
            with writing(to / "plays" / f"{name}.npy"):
                file.flush()
        sent = {name: file for name, file in files.items() if isinstance(file, io.BytesIO)}
        return {name: file.getvalue() for name, file in sent.items()}


def _write_columns(
    files: Mapping[str, IO[bytes]], columns: Mapping[str, npt.NDArray], to: Path
) -> None:
    """Write columns behind what their files hold; ``to`` is the dataset folder."""
    for name, column in columns.items():
        with writing(to / "plays" / f"{name}.npy"):
            files[name].write(np.ascontiguousarray(column).data)


def has_mark(folder: Path, mark: str) -> bool:
    """Whether this machine sees a dataset folder in the making."""
    try:
        return (folder / SLICES / MARK).read_text() == mark
    except OSError:
        return False


def opened_at(folder: Path, column: str, start: int) -> IO[bytes]:
    """A column's file, to be written from a play on."""
    file = (folder / "plays" / f"{column}.npy").open("r+b")
    file.seek(column_begin(file) + start * np.dtype(STORED_PLAY_COLUMNS[column].dtype).itemsize)
    return file
