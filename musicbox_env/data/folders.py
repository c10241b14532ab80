"""Folders that MusicBox makes, told by what lies in them: no other is emptied or replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from musicbox_env.errors import remove_tree

_ALWAYS: Final = (".*.lock", "*.tmp", ".DS_Store")
"""Locks, unfinished files, and what a file manager adds by itself."""
_ENDINGS: Final = (
    *("", ".npy", ".npz", ".json", ".parquet", ".csv", ".gz", ".arrow", ".arrows", ".tmp"),
    *(".hashes", ".lock", ".made_of", ".png", ".html", ".journal", ".hdf5"),
)
"""Of the names of files anywhere in such folders; those of TensorBoard begin with `_EVENTS`."""
_EVENTS: Final = "events.out.tfevents."


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        name: What such a folder is called.
        marks: Names of which a finished one has one.
        entries: Patterns of the names of all that may lie in it, deeper folders aside.
    """

    name: str
    marks: tuple[str, ...]
    entries: tuple[str, ...]

    def require_own(self, folder: Path, *, finished: bool = True) -> None:
        """Refuse to empty or replace a folder in which something else lies.

        Args:
            folder: It need not exist.
            finished: Whether it has one of the marks, unless it is empty, and all files in it are
                looked at; of an unfinished one the entries are.

        Raises:
            FileExistsError: It is not of this kind, or holds a file that MusicBox did not write.
        """
        if not folder.is_dir():
            return
        for foreign in self._foreign(folder, deep=finished):
            raise FileExistsError(
                f"{folder} holds {foreign.relative_to(folder)}, which is nothing that MusicBox "
                "wrote there, so that the folder is left alone. Move that away, or name another "
                "folder."
            )
        names = {entry.name for entry in folder.iterdir()}
        if finished and names and not names.intersection(self.marks):
            raise FileExistsError(
                f"{folder} is no {self.name} (no {' or '.join(self.marks)}) and is left alone. "
                "Remove it, or name another folder."
            )

    def _foreign(self, folder: Path, deep: bool) -> Iterator[Path]:
        known = (*self.entries, *_ALWAYS)
        for entry in sorted(folder.iterdir()):
            if not any(fnmatch(entry.name, pattern) for pattern in known):
                yield entry
        for place, _, files in os.walk(folder) if deep else ():
            for file in (Path(place, name) for name in sorted(files)):
                if file.suffix not in _ENDINGS and not file.name.startswith(_EVENTS):
                    yield file


DATASET: Final = Kind(
    "dataset folder",
    ("dataset.json",),
    (
        *("dataset.json", "catalog.parquet", "rejects.csv", "plays", "sessions", "embeddings"),
        *("spaces", "truth", "source", "listeners", "leaving.json"),
        *("parts", "parts.removed", "slices"),
    ),
)
RAW_LOGS: Final = Kind(
    "folder of raw logs", ("sessions.csv.gz",), ("sessions.csv.gz", "tracks.csv")
)


def remove(entry: Path) -> None:
    """Remove a file, a folder, or a link, not what it points to."""
    if entry.is_dir() and not entry.is_symlink():
        remove_tree(entry)
    else:
        entry.unlink()
