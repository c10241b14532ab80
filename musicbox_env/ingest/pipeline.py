"""Raw listening logs made into a dataset folder: streaming, resumable, all or nothing.

Three steps. Each log becomes a finished *part* in ``OUT.partial/parts``, and so do all histories
together: rows are read as plays (`mssd`, `histories`), gathered into sessions (`assembly`), rejects
listed. Logs are worked on side by side, and a finished part is not made again. Then the parts, side
by side too, go through the filters (`chooser`) into the dataset's columns, in the order of the
sources (`columns`). Then embeddings are fitted, and the folder moves to its name.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc_csv

from musicbox_env.data.folders import remove
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import staged_folder, staging_of, write_about
from musicbox_env.errors import InputError, shown
from musicbox_env.ingest import time_split
from musicbox_env.ingest.chooser import MIN_SESSION_PLAYS
from musicbox_env.ingest.columns.slices import SLICES, Account, Rules
from musicbox_env.ingest.columns.writer import Columns
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.histories.listens import BAD_TIME, ROUNDED
from musicbox_env.ingest.histories.pipeline import make_history_part
from musicbox_env.ingest.parts import Part, make_parts
from musicbox_env.ingest.plays import REJECTS_SCHEMA
from musicbox_env.ingest.registry import SourceKinds, usable_sources
from musicbox_env.ingest.song_ids import further_ids
from musicbox_env.ingest.sources.embedding_files import add_embeddings, space_name
from musicbox_env.ingest.sources.files import find_files, named_files
from musicbox_env.ingest.tables import PassedOver
from musicbox_env.ingest.track_features import TrackFeatures, read_track_features
from musicbox_env.progress import tqdm
from musicbox_env.schema import MAX_SESSION_LENGTH
from musicbox_env.workers import Processes, Spread

POPULARITY: Final = "us_popularity_estimate"
MAX_NAMES_KEPT: Final = 100
WAYS_OUT: Final = (
    (
        BAD_TIME,
        "How times are written can be said in --map: time_format=day-first, month-first, or a "
        "pattern such as %d/%m/%Y %H:%M:%S.",
    ),
    (
        ROUNDED,
        "The digits are lost: take the file as it was before a spreadsheet saved it, or import "
        "the column there as text.",
    ),
)
"""What rows are rejected for, and what the user can do about it."""


@dataclass(frozen=True)
class IngestConfig:
    """What to read, and what to keep of it.

    Attributes:
        sources: Listening logs in the MSSD schema, a Spotify streaming history, or tables of
            plays: CSV, JSON, gzip, tar, zip, Parquet, a folder or a glob of those. What they are
            is recognized from the content.
        out: Dataset folder to write.
        tracks: Track feature files, in the same formats. They may cover few of the tracks.
        incomplete: What becomes of sessions with missing plays: kept or dropped as a whole.
        max_rejects: Largest share of rows that may be rejected, of logs and of track files each;
            above it nothing is written.
        max_rows: Read only the first rows of the logs.
        session_length: Keep only sessions of exactly this many plays.
        min_popularity: Keep only plays of tracks with at least this us_popularity_estimate; tracks
            of unknown popularity fall out.
        split: Division into train, validation and test sessions: by hash or time, shares and seed.
        history: How streaming histories and tables of plays become sessions.
        embeddings: Fit embeddings of the tracks.
        embedding_files: Parquet files of embeddings of the tracks, each of which becomes a space
            under the file's name.
        workers: Files worked on at once; by default as many as there are cores.
        overwrite: Replace the dataset folder if it exists.
        progress: Show progress bars.
    """

    sources: tuple[str, ...]
    out: Path
    tracks: tuple[str, ...] = ()
    incomplete: Literal["keep", "drop"] = "keep"
    max_rejects: float = 0.01
    max_rows: int | None = None
    session_length: int | None = None
    min_popularity: float | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    embeddings: bool = True
    embedding_files: tuple[str, ...] = ()
    workers: int | None = None
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("Name at least one listening log.")
        if self.incomplete not in ("keep", "drop"):
            raise ValueError(f"incomplete is {self.incomplete!r}; 'keep' or 'drop' expected.")
        if not 0 <= self.max_rejects <= 1:
            raise ValueError(f"max_rejects is {self.max_rejects}; a share from 0 to 1 expected.")
        for name in ("max_rows", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; at least 1 expected.")
        length = self.session_length
        if length is not None and not MIN_SESSION_PLAYS <= length <= MAX_SESSION_LENGTH:
            raise ValueError(
                f"session_length is {length}; {MIN_SESSION_PLAYS} to {MAX_SESSION_LENGTH} expected."
            )
        if self.min_popularity is not None and not self.tracks:
            raise ValueError(
                "min_popularity needs track features, which hold the popularity: name them "
                "with --tracks."
            )


def ingest(
    config: IngestConfig, spread: Callable[[], AbstractContextManager[Spread]] | None = None
) -> Path:
    """Make a dataset folder from raw logs.

    A run that was stopped goes on from the source files that it had finished. ``spread`` opens what
    does the work, while the lock of the folder is held; processes of this machine if left out.

    Returns:
        The dataset folder.

    Raises:
        FileNotFoundError: A source does not exist.
        FileExistsError: The dataset folder exists and may not be overwritten.
        ValueError: A source is no log, damaged, or has too many rows that cannot be.
        OSError: Reading or writing failed, a full disk included.
    """
    out = Path(config.out)
    staging = staging_of(out)
    sources = find_files(config.sources, exclude=(out, staging))
    track_files = find_files(config.tracks, exclude=(out, staging)).files
    given = {space_name(f): f for f in find_files(config.embedding_files).files}
    with (
        staged_folder(out, overwrite=config.overwrite) as folder,
        full_disk_explained(folder),
        Processes(config.workers) if spread is None else spread() as opened,
    ):
        _clear(folder, but="parts")
        features = _track_features(config, track_files, folder)
        found = usable_sources(config.sources, sources.files, config.history)
        parts = _parts(config, found, folder / "parts", opened)
        if features is not None:
            features.use_song_ids(further_ids(parts))
        read = {file.resolve() for file in track_files}
        for file in [file for file in found.foreign if file.resolve() in read]:
            del found.foreign[file]
        passed_over = _passed_over(found, parts, sources.passed_over)
        _DatasetWriter(config, parts, features, folder, opened).write(passed_over)
        if config.embeddings:
            from musicbox_env.retrieval.embeddings import fit_embeddings

            fit_embeddings(folder, progress=config.progress)
        add_embeddings(given, folder)
        remove(folder / SLICES)
        # Half removed they must not be taken for finished parts by the next run.
        os.replace(folder / "parts", folder / "parts.removed")
        remove(folder / "parts.removed")
    return out


def _parts(config: IngestConfig, found: SourceKinds, folder: Path, spread: Spread) -> list[Part]:
    """Parts of all histories and logs: one of the histories together, one of each log."""
    parts = []
    left = config.max_rows
    if found.histories and found.logs:
        time_split.require_dates(config.split)
    if found.histories:
        with tqdm(
            total=sum(file.stat().st_size for file in found.histories),
            unit="B",
            unit_scale=True,
            desc="reading histories",
            disable=not config.progress,
        ) as bar:
            parts.append(
                make_history_part(
                    found.histories,
                    folder,
                    config.history,
                    config.split,
                    max_rows=left,
                    on_bytes=bar.update,
                )
            )
        left = None if left is None else left - parts[0].about["rows"]
    if found.logs and left != 0:
        parts += make_parts(found.logs, folder, spread, max_rows=left, progress=config.progress)
    return parts


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Say what a full disk means for the job and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = folder if error.filename is None else error.filename
        raise OSError(
            error.errno,
            f"No room left to write in {where} ({error.strerror or error}). The files done so "
            "far are kept there: make room and run the same command again",
        ) from error


def _clear(folder: Path, *, but: str) -> None:
    """Remove what a stopped run left, except its finished parts."""
    for entry in folder.iterdir():
        if entry.name != but or not entry.is_dir():
            remove(entry)


def _track_features(config: IngestConfig, files: list[Path], folder: Path) -> TrackFeatures | None:
    if not config.tracks:
        return None
    features = read_track_features(files, named=named_files(config.tracks), scratch=folder)
    if config.min_popularity is not None:
        if POPULARITY not in features.frame:
            raise ValueError(
                f"min_popularity needs the column {POPULARITY} in the track features, which have "
                f"{', '.join(features.frame.columns)}."
            )
        features.frame = features.frame[features.frame[POPULARITY] >= config.min_popularity]
    return features


def _passed_over(
    found: SourceKinds, parts: list[Part], no_files: list[PassedOver]
) -> list[PassedOver]:
    """What was not read; without folders, which may name somebody, beside histories."""
    within = [PassedOver(name, why) for part in parts for name, why in part.about["passed_over"]]
    if not found.histories:
        return [*within, *found.refusals(), *no_files]
    foreign = [
        PassedOver(shown(file.name), refusals[0].why) for file, refusals in found.foreign.items()
    ]
    return [*within, *foreign, *(PassedOver(Path(of.name).name, of.why) for of in no_files)]


class _DatasetWriter:
    """Makes the parts into the dataset's columns, through the filters."""

    def __init__(
        self,
        config: IngestConfig,
        parts: list[Part],
        features: TrackFeatures | None,
        folder: Path,
        spread: Spread,
    ) -> None:
        self._spread = spread
        self._config, self._parts, self._features = config, parts, features
        self._folder = folder
        self._rejects_file = folder / "rejects.csv"
        self._rows = sum(part.about["rows"] for part in parts)
        self._lost = sum(part.about["lost"] for part in parts)
        self._rejected = _summed(parts, "rejected")
        popular = None
        if config.min_popularity is not None and features is not None:
            popular = frozenset(features.frame["track_id"])
        self._rules = Rules(
            config.incomplete, config.session_length, popular, further_ids(parts), config.split
        )
        self._counts: Counter[str] = Counter()

    def write(self, passed_over: list[PassedOver]) -> None:
        """Write all but the embeddings.

        Raises:
            ValueError: Too many rows are rejected, or no session is left.
        """
        features = self._features
        self._begin_rejects()
        self._refuse_excess("logs", self._rejected, self._rows, self._lost)
        if features is not None:
            self._refuse_excess("track files", features.rejected, features.num_rows)
        names = [part.names for part in self._parts if part.names is not None]
        opinions = [part.opinions for part in self._parts if part.opinions is not None]
        columns = Columns(self._folder, self._parts, self._spread, self._config.progress)
        self._take_in(columns.count(self._rules))
        columns.write(
            None if features is None else features.frame,
            # The first part's where several name a track.
            pd.concat(names).drop_duplicates("track_id") if names else None,
            pa.concat_tables(opinions) if opinions else None,
        )
        write_about(self._folder, self._config.split, self._about(passed_over))

    def _take_in(self, accounts: Sequence[Account]) -> None:
        """Sum up what was left out, list it, and stop where that is too much."""
        with self._rejects_file.open("ab") as file:
            for account in accounts:
                self._counts.update(account.chosen)
                self._rejected.update(account.rejected)
                for table in account.rejects:
                    _append_rejects(file, table)
        self._refuse_excess("logs", self._rejected, self._rows, self._lost)
        if self._config.split.by_time:
            time_split.require_every_split(self._counts)
        if not self._counts["sessions_kept"]:
            raise InputError(self._nothing_left())

    def _begin_rejects(self) -> None:
        with self._rejects_file.open("wb") as target:
            target.write((",".join(f'"{name}"' for name in REJECTS_SCHEMA.names) + "\n").encode())
            for table in self._features.reject_tables if self._features is not None else ():
                _append_rejects(target, table)
            for part in self._parts:
                with part.rejects_file.open("rb") as source:
                    shutil.copyfileobj(source, target)

    def _refuse_excess(self, what: str, rejected: Counter[str], rows: int, lost: int = 0) -> None:
        """Stop where more rows are bad than the user allows: the file is then not what it seems."""
        count, most = rejected.total() + lost, self._config.max_rejects
        if count <= most * (rows + lost):
            return
        share = count / (rows + lost)
        about = "about " if lost else ""
        allowing = f", or allow them with --max-rejects {np.ceil(share * 1000) / 1000:.3f}"
        reasons = "\n".join(_lines(rejected, self._examples()))
        if lost:
            reasons += f"\n       about {lost:,} more behind the damage"
        reasons += "".join(f"\n{way}" for why, way in WAYS_OUT if any(why in r for r in rejected))
        raise InputError(
            f"{about}{count:,} of {about}{rows + lost:,} rows of the {what} ({share:.2%}) cannot "
            f"be used, more than the {most:.2%} that max_rejects allows:\n{reasons}\n"
            f"Each is listed in {self._rejects_file}. "
            f"Mend the source{allowing if share < 0.5 else ''}."
        )

    def _examples(self) -> dict[str, str]:
        return {r: e for part in self._parts for r, e in part.about["examples"].items()}

    def _nothing_left(self) -> str:
        counts = Counter({n.replace("_", " "): c for n, c in self._counts.items() if c})
        notes: list[str] = []
        for part in self._parts:
            fates = part.history.get("rows", {})
            counts.update({n: c for n, c in fates.items() if c and n not in ("read", "rejected")})
            notes += part.history.get("notes", [])
        empty = "" if self._rows else ": the sources hold headers at most"
        said = f"No session is left of {self._rows:,} rows read{empty}."
        return "\n".join([said, *_lines(self._rejected + counts, self._examples()), *notes])

    def _about(self, passed_over: list[PassedOver]) -> dict[str, Any]:
        """What ``dataset.json`` says of where the dataset comes from and what was left out."""
        config, counts = self._config, self._counts
        read = [part for part in self._parts if part.about["tables"]]

        def dropped(rule: str) -> dict[str, int]:
            return {
                "sessions_dropped": counts[f"{rule}_sessions"],
                "plays_dropped": counts[f"{rule}_plays"],
            }

        about: dict[str, Any] = {
            "sources": [source for part in read for source in part.about["sources"]],
            "rows_read": self._rows,
            "rejected": {
                "rows": self._rejected.total(),
                "reasons": dict(self._rejected.most_common()),
            },
            "max_rejects": config.max_rejects,
            "duplicate_sessions": counts["duplicate_sessions"],
            "incomplete_sessions": {
                "found": counts["incomplete_sessions"],
                "rule": config.incomplete,
            },
            "filters": {
                "max_rows": config.max_rows,
                "session_length": {"exactly": config.session_length, **dropped("other_length")},
                "min_popularity": {
                    "least": config.min_popularity,
                    "plays_dropped": counts["unpopular_plays"],
                },
                "fewer_than_two_plays": dropped("short"),
            },
            "notes": dict(_summed(self._parts, "notes").most_common()),
            "passed_over": {
                "files": len(passed_over),
                "names": [table.name for table in passed_over[:MAX_NAMES_KEPT]],
                "why": [table.why for table in passed_over[:MAX_NAMES_KEPT]],
            },
        }
        if config.split.by_time:
            about["split"] = time_split.account(config.split, counts)
        for part in self._parts:
            if part.history:
                about["history"] = part.history
        if self._features is not None:
            about["track_features"] = self._features.about()
        return about


def _summed(parts: list[Part], what: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.about[what])
    return total


def _append_rejects(file: IO[bytes], table: pa.Table) -> None:
    if len(table):
        pc_csv.write_csv(table, file, pc_csv.WriteOptions(include_header=False))


def _lines(counts: Counter[str], examples: Mapping[str, str] | None = None) -> list[str]:
    """Counts by reason, with an example each where there is one."""
    told = {reason: f", as {example}" for reason, example in (examples or {}).items()}
    return [f"{n:>12,}  {reason}{told.get(reason, '')}" for reason, n in counts.most_common()]
