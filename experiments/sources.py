"""Which dataset a command works on: a folder, raw logs, or the bundled synthetic one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musicbox_env.dataset import Dataset
from musicbox_env.histories import HistoryConfig
from musicbox_env.readers import source_files


def without_home(text: str) -> str:
    """A text with ``~`` for the home folder, whose path tends to hold its owner's name."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


@dataclass(frozen=True)
class Source:
    """The sessions to work on; without any of these the bundled synthetic ones."""

    data: Path | None = None
    """Dataset folder, made by `musicbox ingest` or `musicbox synthesize`."""
    sessions: tuple[str, ...] = ()
    """Raw session logs, a Spotify streaming history as downloaded, or tables of plays (files,
    folders, globs), turned into a dataset under --out first."""
    tracks: tuple[str, ...] = ()
    """Track feature files that belong to --sessions."""
    map: str | None = None
    """Columns of a table of plays named in --sessions; see `musicbox ingest --help`."""

    def __post_init__(self) -> None:
        if self.data is not None and self.sessions:
            raise ValueError("Pass --data or --sessions, not both.")
        if self.tracks and not self.sessions:
            raise ValueError("--tracks belongs to --sessions; a dataset folder has its own tracks.")
        if self.map is not None and not self.sessions:
            raise ValueError("--map belongs to --sessions; a dataset folder is read as it is.")

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
        if folder.exists():
            self._require_made_from_these(folder)
        else:
            from experiments import ingest

            ingest.run(
                ingest.IngestConfig(
                    sources=self.sessions,
                    tracks=self.tracks,
                    out=folder,
                    history=HistoryConfig(map=self.map),
                )
            )
        return folder

    def _require_made_from_these(self, folder: Path) -> None:
        """Refuse a dataset of other files; told by name and size, since logs may be large."""
        named = {(file.name, file.stat().st_size) for file in source_files(self.sessions)}
        made_from = Dataset(folder).about["sources"]
        other = [s["file"] for s in made_from if (Path(s["file"]).name, s["bytes"]) not in named]
        if other:
            raise FileExistsError(
                f"{folder} was made from other files than --sessions names ({', '.join(other)}). "
                "Name another folder with --out."
            )
