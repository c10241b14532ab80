"""Which dataset a command works on: a folder, raw logs, or the bundled synthetic one."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.errors import shown
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.sources.files import describe_source, find_files
from musicbox_env.schema import require_known
from musicbox_env.synthetic.generator import BUNDLED, bundled_dataset, write_raw
from musicbox_env.synthetic.satiation import NONE, satiation_of
from musicbox_env.synthetic.world import TASTE_LEVELS, SyntheticConfig
from musicbox_experiments.data import ingest


def without_home(text: str) -> str:
    """A text with ``~`` for the home folder, whose path tends to hold its owner's name."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


@dataclass(frozen=True)
class Filters:
    """What to keep of raw logs; all of them unless said otherwise."""

    max_rows: int | None = None
    """Read only the first rows of the logs."""
    session_length: int | None = None
    """Keep only sessions of exactly this many plays."""
    min_popularity: float | None = None
    """Keep only plays of tracks with at least this us_popularity_estimate."""


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
    inferred_levels: bool = False
    """Read scrobbles named in --sessions, whose listen levels are inferred; see `musicbox ingest
    --help`."""
    test_fold: int = 0
    """Which of the disjoint test splits of --sessions; see `musicbox ingest --help`."""
    taste: str = "default"
    """Of the synthetic sessions: how much personal taste decides what is skipped, none, default or
    high. Another than the bundled one is made on first use and kept in the cache."""
    satiation: str = NONE
    """Of the synthetic sessions: how songs wear out those like them, none, default, high, late or
    STRENGTH,DECAY,LAG; kept likewise."""
    filters: Filters = field(default_factory=Filters)

    def __post_init__(self) -> None:
        require_known("taste", self.taste, TASTE_LEVELS)
        satiation_of(self.satiation)
        if self.data is not None and self.sessions:
            raise ValueError("Pass --data or --sessions, not both.")
        if self.tracks and not self.sessions:
            raise ValueError("--tracks belongs to --sessions; a dataset folder has its own tracks.")
        if self.test_fold and not self.sessions:
            raise ValueError("--test-fold belongs to --sessions; a dataset folder has its split.")
        if self.map is not None and not self.sessions:
            raise ValueError("--map belongs to --sessions; a dataset folder is read as it is.")
        if self.inferred_levels and not self.sessions:
            raise ValueError("--inferred-levels belongs to --sessions; a dataset has its levels.")
        for knob, usual in (("taste", "default"), ("satiation", NONE)):
            if getattr(self, knob) != usual and not self.synthetic:
                raise ValueError(
                    f"--{knob} belongs to synthetic sessions; leave out --data, --sessions."
                )
        if self.data is not None and self.filters != Filters():
            raise ValueError(
                "--max-rows, --session-length and --min-popularity belong to raw logs; a dataset "
                "folder was filtered when it was made, by `musicbox ingest`."
            )

    @property
    def synthetic(self) -> bool:
        """Whether no sessions are named, so that they are made."""
        return self.data is None and not self.sessions

    def require(self) -> None:
        """Refuse what is no dataset or no file, before anything is written.

        Raises:
            FileNotFoundError: Nothing is there.
            FileError: The dataset holds what it should not.
        """
        if self.data is not None:
            Dataset(self.data)
        for files in (self.sessions, self.tracks):
            find_files(files)

    def resolve(self, out: Path) -> str | None:
        """The ``data`` keyword of the environment, raw logs ingested into ``out/dataset``.

        Filters act on raw logs: synthetic sessions are written as such first, and lose the law
        behind them. What an earlier call made there from the same options is used again.
        """
        if self.sessions:
            return str(self._ingest(out / "dataset", self.sessions, self.tracks))
        if self.data is not None:
            Dataset(self.data)
            return str(self.data.resolve())
        world = SyntheticConfig(taste=self.taste, satiation=self.satiation)
        if self.filters != Filters():
            raw = out / "raw"
            if not raw.exists():
                write_raw(world, raw, progress=True)
            files = (str(raw / "sessions.csv.gz"),), (str(raw / "tracks.csv"),)
            return str(self._ingest(out / "dataset", *files))
        return None if world == BUNDLED else str(bundled_dataset(world))

    def _ingest(self, folder: Path, sessions: tuple[str, ...], tracks: tuple[str, ...]) -> Path:
        if folder.exists():
            _require_made_from(folder, sessions, tracks)
        else:
            ingest.run(
                ingest.IngestConfig(
                    sources=sessions,
                    tracks=tracks,
                    out=folder,
                    split=SplitConfig(test_fold=self.test_fold),
                    **asdict(self.filters),
                    history=HistoryConfig(map=self.map, inferred_levels=self.inferred_levels),
                )
            )
        return folder


def _require_made_from(folder: Path, sessions: tuple[str, ...], tracks: tuple[str, ...]) -> None:
    """Refuse a dataset of other files, more or fewer, by their content."""
    about = Dataset(folder).about
    features = about.get("track_features", {})
    made_from = about.get("sources", [])
    passed_over = about.get("passed_over", {"files": 0, "names": []})
    others = [*passed_over["names"], *(of["name"] for of in features.get("passed_over", []))]
    known = {Path(name).name for name in others}
    sums = {of["sha256"] for of in [*made_from, *features.get("sources", [])]}
    cut = about.get("filters", {}).get("max_rows") is not None  # later files were not read
    unlisted = passed_over["files"] - len(passed_over["names"])
    for option, names, made, spare in (
        ("--sessions", sessions, made_from, math.inf if cut else unlisted),
        ("--tracks", tracks, features.get("sources", []), 0),
    ):
        found = {describe_source(f)["sha256"]: shown(f) for f in find_files(names).files}
        missing = [source["file"] for source in made if source["sha256"] not in found]
        more = [
            file
            for sha256, file in found.items()
            if sha256 not in sums and Path(file).name not in known
        ]
        said = [f"missing: {', '.join(missing)}"] if missing else []
        said += [f"added: {', '.join(more)}"] if len(more) > spare else []
        if said:
            raise FileExistsError(
                f"{folder} was made from other files than {option} names now "
                f"({'; '.join(said)}). Name another folder with --out."
            )
