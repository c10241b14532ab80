"""Folders that MusicBox makes, told by what lies in them: no other is emptied or replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from musicbox_env.errors import remove_tree
from musicbox_env.schema import STORED_PLAY_COLUMNS

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
        inside: Patterns of the names of files in some of its folders, which hold no folders; of
            files in other folders the endings are looked at.
    """

    name: str
    marks: tuple[str, ...]
    entries: tuple[str, ...]
    inside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def require_own(self, folder: Path, *, finished: bool = True) -> None:
        """Refuse to empty or replace a folder in which something else lies.

        Args:
            folder: It need not exist.
            finished: Whether it has one of the marks, unless it is empty.

        Raises:
            FileExistsError: It is not of this kind, or holds a file that MusicBox did not write.
        """
        if not folder.is_dir():
            return
        for foreign in self._foreign(folder):
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

    def _foreign(self, folder: Path) -> Iterator[Path]:
        for entry in sorted(folder.iterdir()):
            if not _is_any(entry.name, (*self.entries, *_ALWAYS)):
                yield entry
        for place, folders, files in os.walk(folder):
            links = (name for name in folders if os.path.islink(os.path.join(place, name)))
            for path in (Path(place, name) for name in sorted((*files, *links))):
                if not self._is_own(path.relative_to(folder).parts, path.suffix):
                    yield path

    def _is_own(self, parts: tuple[str, ...], suffix: str) -> bool:
        top, name = parts[0], parts[-1]
        if len(parts) > 1 and top in self.inside:
            return len(parts) == 2 and _is_any(name, (*self.inside[top], *_ALWAYS))
        return suffix in _ENDINGS or name.startswith(_EVENTS)


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


DATASET: Final = Kind(
    "dataset folder",
    ("dataset.json",),
    (
        *("dataset.json", "catalog.parquet", "rejects.csv", "plays", "sessions", "embeddings"),
        *("spaces", "truth", "source", "listeners", "leaving.json"),
        *("parts", "parts.removed", "slices"),
    ),
    {
        "plays": tuple(f"{column}.npy" for column in STORED_PLAY_COLUMNS),
        "sessions": ("offsets.npy", "split.npy", "ids.parquet"),
        "embeddings": ("*.npy", "*.json"),
        "spaces": ("*.npy",),
        "truth": ("*.npy", "law.json"),
        "source": ("source.json", "sessions.npy", "tracks.npy"),
        "listeners": ("*.npz",),
    },
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
