"""Raw listening logs made into a dataset folder: streaming, resumable, all or nothing.

Three steps. Each source file becomes a finished *part* in ``OUT.partial/parts``: its rows evaluated
(`plays`), gathered into sessions (`assembly`), rejects listed; files are worked on side by side,
and a part that stands is not made again. Then all parts stream, in the order of the sources,
through the filters into the dataset's columns. Then embeddings are fitted, and the folder moves
to its name.
"""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc_csv
from tqdm import tqdm

from musicbox_env.data.dataset import UNFINISHED
from musicbox_env.data.writing import PlayBlock, SplitConfig, staged_folder, write_dataset
from musicbox_env.ingest.assembly import IdSet, hash_ids
from musicbox_env.ingest.histories.mapping import explain_proposal
from musicbox_env.ingest.histories.pipeline import HistoryConfig, make_history_part, sort_sources
from musicbox_env.ingest.mssd import REJECTS_SCHEMA, Rejects
from musicbox_env.ingest.parts import Part, make_parts
from musicbox_env.ingest.readers import named_files, source_files
from musicbox_env.ingest.track_features import TrackFeatures, read_track_features
from musicbox_env.schema import MAX_SESSION_LENGTH, PLAY_COLUMNS

MIN_SESSION_PLAYS: Final = 2
"""A session needs a play to show and one to recommend for."""
POPULARITY: Final = "us_popularity_estimate"
MAX_NAMES_KEPT: Final = 20
DUPLICATE_SESSION: Final = "duplicate session (each of its plays)"


@dataclass(frozen=True)
class IngestConfig:
    """What to read, and what to keep of it.

    Attributes:
        sources: Listening logs in the MSSD schema, a Spotify streaming history, or tables of
            plays: CSV, JSON, gzip, tar, zip, Parquet, a folder or a glob of those. What they are
            is told from the content.
        out: Dataset folder to write.
        tracks: Track feature files, in the same formats. They may cover few of the tracks.
        incomplete: What becomes of sessions with missing plays: kept or dropped as a whole.
        max_rejects: Largest share of rows that may be rejected, of logs and of track files each;
            above it nothing is written.
        max_rows: Read only the first rows of the logs.
        session_length: Keep only sessions of exactly this many plays.
        min_popularity: Keep only plays of tracks with at least this us_popularity_estimate; tracks
            of unknown popularity fall out.
        split: Shares and seed of the division into train, validation and test sessions.
        history: How streaming histories and tables of plays become sessions.
        embeddings: Fit embeddings of the tracks.
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
                "min_popularity needs track features, where the popularity stands: name them "
                "with --tracks."
            )


def ingest(config: IngestConfig) -> Path:
    """Make a dataset folder from raw logs.

    A run that was stopped goes on from the source files that it had finished.

    Returns:
        The dataset folder.

    Raises:
        FileNotFoundError: A source does not exist.
        FileExistsError: The dataset folder exists and may not be overwritten.
        ValueError: A source is no log, damaged, or has too many rows that cannot be.
        OSError: Reading or writing failed, a full disk included.
    """
    out = Path(config.out)
    staging = out.with_name(out.name + UNFINISHED)
    files = source_files(config.sources, exclude=(out, staging))
    track_files = source_files(config.tracks, exclude=(out, staging))
    with staged_folder(out, overwrite=config.overwrite) as folder, full_disk_explained(folder):
        _clear(folder, but="parts")
        features = _track_features(config, track_files, folder)
        parts = _parts(config, files, folder / "parts")
        _write(config, parts, features, folder)
        if config.embeddings:
            from musicbox_env.retrieval.embeddings import fit_embeddings

            fit_embeddings(folder, progress=config.progress)
        shutil.rmtree(folder / "parts")
    return out


def _parts(config: IngestConfig, files: list[Path], folder: Path) -> list[Part]:
    """Parts of all logs and histories; foreign files beside them are passed over."""
    named = named_files(config.sources)
    found = sort_sources(files, config.history)
    if not found.histories and not found.logs and found.unmapped:
        file, columns = next(iter(found.unmapped.items()))
        mapping = config.history.mapping()
        if mapping is not None:
            missing = ", ".join(name for name in mapping.columns if name not in columns)
            raise ValueError(
                f"{file}: no column {missing}, which --map names; found {', '.join(columns)}."
            )
        raise ValueError(explain_proposal(str(file), columns))
    if not found.histories:
        return make_parts(
            files,
            folder,
            named=named,
            max_rows=config.max_rows,
            workers=config.workers,
            progress=config.progress,
        )
    for file, why in found.foreign.items():
        if file in named:
            raise ValueError(f"{file}: {why}.")
    with tqdm(
        total=sum(file.stat().st_size for file in found.histories),
        unit="B",
        unit_scale=True,
        desc="reading histories",
        disable=not config.progress,
    ) as bar:
        history = make_history_part(
            found.histories,
            folder,
            config.history,
            foreign=[file.name for file in found.foreign],
            max_rows=config.max_rows,
            on_bytes=bar.update,
        )
    left = None if config.max_rows is None else config.max_rows - history.about["rows"]
    if not found.logs or left == 0:
        return [history]
    logs = make_parts(
        found.logs,
        folder,
        named=named,
        max_rows=left,
        workers=config.workers,
        progress=config.progress,
    )
    return [history, *logs]


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Say what a full disk means for the job and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"No room left to write in {folder} ({error.strerror or error}). The files done so "
            "far are kept there: make room and run the same command again",
        ) from error


def _clear(folder: Path, *, but: str) -> None:
    """Remove what a stopped run left, except its finished parts."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != but:
            shutil.rmtree(entry)
        elif not entry.is_dir():
            entry.unlink()


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


def _write(
    config: IngestConfig, parts: list[Part], features: TrackFeatures | None, folder: Path
) -> None:
    """Stream the parts through the filters into the dataset's columns."""
    rejects_file = folder / "rejects.csv"
    _write_rejects(rejects_file, parts, features)
    rows = sum(part.about["rows"] for part in parts)
    rejected = _summed(parts, "rejected")
    _refuse_excess("logs", rejected, rows, config, rejects_file)
    if features is not None:
        num_rows = features.num_rows
        _refuse_excess("track files", features.rejected, num_rows, config, rejects_file)

    chooser = SessionChooser(config, features)
    about: dict[str, Any] = {}

    def blocks() -> Iterator[PlayBlock]:
        sessions = sum(part.about["sessions"] for part in parts)
        with (
            rejects_file.open("ab") as file,
            tqdm(total=sessions, desc="writing sessions", disable=not config.progress) as bar,
        ):
            for part in parts:
                for table, batch in part.blocks():
                    block = chooser.choose(batch)
                    block.split_keys = part.split_keys(block.session_ids)
                    yield block
                    _append_rejects(file, chooser.rejects.take(table))
                    bar.update(len(batch["session_id"].dictionary))
        all_rejected = rejected + chooser.rejects.counts
        _refuse_excess("logs", all_rejected, rows, config, rejects_file)
        if not chooser.counts["sessions_kept"]:
            left_out = sum((_fates(part) for part in parts), chooser.counts)
            notes = [note for part in parts for note in _history_notes(part)]
            raise ValueError("\n".join([_nothing_left(rows, all_rejected, left_out), *notes]))
        about.update(_about(config, parts, features, all_rejected, chooser.counts))

    write_dataset(
        folder,
        blocks(),
        features=None if features is None else features.frame,
        split=config.split,
        about=about,
        names=_names(parts),
    )


def _names(parts: list[Part]) -> pd.DataFrame | None:
    """Titles and artists of tracks, the first part's where several name them."""
    found = [part.names for part in parts]
    known = [names for names in found if names is not None]
    return pd.concat(known).drop_duplicates("track_id") if known else None


class SessionChooser:
    """Decides which whole sessions, and which of their plays, enter the dataset.

    Attributes:
        rejects: Plays of sessions that came before.
        counts: What each rule left out.
    """

    def __init__(self, config: IngestConfig, features: TrackFeatures | None) -> None:
        """Set the rules.

        Args:
            config: The filters.
            features: Tracks that are popular enough, if there is such a filter.
        """
        self.rejects = Rejects()
        self.counts: Counter[str] = Counter()
        self._config = config
        self._seen = IdSet()
        self._popular: set[str] | None = None
        if config.min_popularity is not None and features is not None:
            self._popular = set(features.frame["track_id"])

    def choose(self, batch: pa.RecordBatch) -> PlayBlock:
        """Filter a batch of `assembly.BLOCK_SCHEMA`.

        Sessions are evaluated by all their logged plays first; only then do plays fall out. The
        other order would keep sessions for how many of their songs are popular.
        """
        ids = batch["session_id"].dictionary
        session = batch["session_id"].indices.to_numpy()
        lengths = np.bincount(session, minlength=len(ids))
        starts = np.cumsum(lengths) - lengths
        kept = self._unseen(ids, session, batch["line"].to_numpy())
        whole = lengths == batch["session_length"].to_numpy()[starts]
        self.counts["incomplete_sessions"] += int((kept & ~whole).sum())
        if self._config.incomplete == "drop":
            kept &= whole
        if self._config.session_length is not None:
            fits = lengths == self._config.session_length
            self.counts["other_length_sessions"] += int((kept & ~fits).sum())
            self.counts["other_length_plays"] += int(lengths[kept & ~fits].sum())
            kept &= fits
        keep_play = self._popular_plays(batch["track_id"], kept[session])
        left = np.bincount(session[keep_play], minlength=len(ids))
        short = kept & (left < MIN_SESSION_PLAYS)
        self.counts["short_sessions"] += int(short.sum())
        self.counts["short_plays"] += int(left[short].sum())
        kept &= ~short
        self.counts["sessions_kept"] += int(kept.sum())
        return _block(batch, kept, keep_play & kept[session], left[kept])

    def _unseen(
        self, ids: pa.StringArray, session: npt.NDArray[np.int32], lines: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        hashes = hash_ids(ids)
        seen = self._seen.contains(hashes)
        self._seen.add(hashes[~seen])
        self.counts["duplicate_sessions"] += int(seen.sum())
        self.rejects.add(lines[seen[session]], DUPLICATE_SESSION)
        return ~seen

    def _popular_plays(
        self, tracks: pa.DictionaryArray, keep_play: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        if self._popular is None:
            return keep_play
        popular = np.array([t in self._popular for t in tracks.dictionary.to_pylist()], bool)
        of_play = popular[tracks.indices.to_numpy()]
        self.counts["unpopular_plays"] += int((keep_play & ~of_play).sum())
        return keep_play & of_play


def _block(
    batch: pa.RecordBatch,
    kept: npt.NDArray[np.bool_],
    keep_play: npt.NDArray[np.bool_],
    lengths: npt.NDArray[np.int64],
) -> PlayBlock:
    """The chosen plays, with only the tracks that they mention."""
    columns = {n: batch[n].to_numpy()[keep_play] for n in PLAY_COLUMNS if n != "track"}
    tracks = batch["track_id"]
    used = tracks.indices.to_numpy()[keep_play]
    mentioned = np.zeros(len(tracks.dictionary), bool)
    mentioned[used] = True
    columns["track"] = (np.cumsum(mentioned) - 1)[used]
    return PlayBlock(
        session_ids=_strings(batch["session_id"].dictionary)[kept],
        lengths=lengths,
        vocabulary=_strings(tracks.dictionary)[mentioned],
        columns=columns,
    )


def _strings(ids: pa.StringArray) -> npt.NDArray[np.object_]:
    return ids.to_numpy(zero_copy_only=False).astype(object)


def _summed(parts: list[Part], what: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.about[what])
    return total


def _write_rejects(file: Path, parts: list[Part], features: TrackFeatures | None) -> None:
    with file.open("wb") as target:
        target.write((",".join(f'"{name}"' for name in REJECTS_SCHEMA.names) + "\n").encode())
        for table in features.reject_tables if features is not None else ():
            _append_rejects(target, table)
        for part in parts:
            with part.rejects_file.open("rb") as source:
                shutil.copyfileobj(source, target)


def _append_rejects(file: Any, table: pa.Table) -> None:
    if len(table):
        pc_csv.write_csv(table, file, pc_csv.WriteOptions(include_header=False))


def _refuse_excess(
    what: str, rejected: Counter[str], rows: int, config: IngestConfig, rejects_file: Path
) -> None:
    """Stop where more rows are bad than the user allows: the file is then not what it seems."""
    count = rejected.total()
    if count <= config.max_rejects * rows:
        return
    share = count / rows
    allowing = f", or allow them with --max-rejects {np.ceil(share * 1000) / 1000:.3f}"
    raise ValueError(
        f"{count:,} of {rows:,} rows of the {what} ({share:.2%}) cannot be used, more than the "
        f"{config.max_rejects:.2%} that max_rejects allows:\n{_listed(rejected)}\nEach is listed "
        f"in {rejects_file}. Mend the source{allowing if share < 0.5 else ''}."
    )


def _listed(counts: Counter[str]) -> str:
    return "\n".join(_lines(counts))


def _lines(counts: Counter[str]) -> list[str]:
    return [f"{count:>12,}  {reason}" for reason, count in counts.most_common()]


def _fates(part: Part) -> Counter[str]:
    """What became of the rows of a listening history."""
    rows = part.about.get("history", {}).get("rows", {})
    return Counter({what: n for what, n in rows.items() if what not in ("read", "rejected")})


def _history_notes(part: Part) -> list[str]:
    return list(part.about.get("history", {}).get("notes", []))


def _nothing_left(rows: int, rejected: Counter[str], counts: Counter[str]) -> str:
    told = Counter({name.replace("_", " "): n for name, n in counts.items() if n})
    return "\n".join([f"No session is left of {rows:,} rows read.", *_lines(rejected + told)])


def _about(
    config: IngestConfig,
    parts: list[Part],
    features: TrackFeatures | None,
    rejected: Counter[str],
    counts: Counter[str],
) -> dict[str, Any]:
    """What ``dataset.json`` says of where the dataset comes from and what was left out."""
    rows = sum(part.about["rows"] for part in parts)
    passed_over = [name for part in parts for name, _ in part.about["passed_over"]]
    about: dict[str, Any] = {
        "sources": [source for part in parts for source in part.sources],
        "rows_read": rows,
        "rejected": {"rows": rejected.total(), "reasons": dict(rejected.most_common())},
        "max_rejects": config.max_rejects,
        "duplicate_sessions": counts["duplicate_sessions"],
        "incomplete_sessions": {
            "found": counts["incomplete_sessions"],
            "rule": config.incomplete,
        },
        "filters": {
            "max_rows": config.max_rows,
            "session_length": {
                "exactly": config.session_length,
                "sessions_dropped": counts["other_length_sessions"],
                "plays_dropped": counts["other_length_plays"],
            },
            "min_popularity": {
                "least": config.min_popularity,
                "plays_dropped": counts["unpopular_plays"],
            },
            "fewer_than_two_plays": {
                "sessions_dropped": counts["short_sessions"],
                "plays_dropped": counts["short_plays"],
            },
        },
        "notes": dict(_summed(parts, "notes").most_common()),
        "passed_over": {"files": len(passed_over), "names": passed_over[:MAX_NAMES_KEPT]},
    }
    for part in parts:
        if "history" in part.about:
            about["history"] = part.about["history"]
    if features is not None:
        about["track_features"] = features.about()
    return about
