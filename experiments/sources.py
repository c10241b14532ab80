"""Which dataset a command works on: a folder, raw logs, or the bundled synthetic one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicbox_env.dataset import Dataset
from musicbox_env.simulator import open_dataset


@dataclass(frozen=True)
class Source:
    """The sessions to work on; without any of these the bundled synthetic ones."""

    data: Path | None = None
    """Dataset folder, made by `musicbox ingest` or `musicbox synthesize`."""
    sessions: tuple[str, ...] = ()
    """Raw session logs (files, folders, globs), turned into a dataset under --out first."""
    tracks: tuple[str, ...] = ()
    """Track feature files that belong to --sessions."""

    def __post_init__(self) -> None:
        if self.data is not None and self.sessions:
            raise ValueError("Pass --data or --sessions, not both.")
        if self.tracks and not self.sessions:
            raise ValueError("--tracks belongs to --sessions; a dataset folder has its own tracks.")

    def resolve(self, out: Path) -> str | None:
        """The ``data`` keyword of the environment, raw logs ingested into ``out/dataset``.

        A dataset that an earlier call made there from the same options is used again.
        """
        if self.sessions:
            return str(self._ingest(out / "dataset"))
        if self.data is None:
            return None
        Dataset(self.data)
        return str(self.data.resolve())

    def _ingest(self, folder: Path) -> Path:
        if not folder.exists():
            from experiments import ingest

            ingest.run(ingest.IngestConfig(sources=self.sessions, tracks=self.tracks, out=folder))
        return folder


def knows_truth(data: str | None) -> bool:
    """Whether the dataset was made by the generator, so that the exact law can judge."""
    return (open_dataset(data).folder / "truth" / "law.json").is_file()


def choose_listeners(
    listener: str, judges: Sequence[str], data: str | None
) -> tuple[str, tuple[str, ...]]:
    """Fill in the defaults: the exact law where the data has one, else replayed labels."""
    available = ("ground_truth", "replay") if knows_truth(data) else ("replay",)
    return (available[0] if listener == "auto" else listener), tuple(judges) or available
