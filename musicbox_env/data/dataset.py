"""A dataset folder: what lies in it, and how it is opened. `writing` writes it.

::

    DIR/
      dataset.json          format version, fingerprints, sources, counts, splits, filters, rejects
      plays/<column>.npy    a row a play, session after session (schema.PLAY_COLUMNS)
      sessions/offsets.npy  first play of each session
      sessions/split.npy    split code of each session
      sessions/ids.parquet  session ids as logged
      catalog.parquet       tracks, most played in training first; titles and artists if known
      embeddings/<name>.npy unit rows, one for each track; <name>.json holds how they were made
      spaces/               embeddings with the track's rate beside them, and fitted without some
                            sessions (crossfit), made on first use
      parts/<part>/         one part of the training sessions as a dataset of its own, made on first
                            use (ingest.training_parts); its source/ says which rows of this
                            dataset its sessions and tracks are
      truth/                of synthetic data only: the law that made it
      rejects.csv           rows that were refused, with file, line and reason
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.fingerprint import (
    CATALOG_FINGERPRINT,
    COUNTS,
    DIGITS,
    FINGERPRINT,
    fingerprints,
    in_words,
)
from musicbox_env.data.sessions import MEND, OFFSETS, SessionLog
from musicbox_env.data.splits import TIME
from musicbox_env.data.verdicts import State, once, state_of
from musicbox_env.errors import require_text, resolved
from musicbox_env.schema import suggest

FORMAT_VERSION = 1
IDENTITY = "identity"
"""Entry of ``dataset.json`` that holds the fingerprints."""
EMBEDDINGS = ("content", "colisten", "hybrid")
"""Embeddings that can be fitted, the best last: `hybrid` is made of the other two."""
RATE_SUFFIX = "+rate"
DEFAULT_EMBEDDING = EMBEDDINGS[-1] + RATE_SUFFIX
"""Default space of the environment; agents take `Dataset.default_embedding`."""
WHOLE = "train"
"""The part of a dataset that holds all of its training sessions."""
SOURCE = "source"
"""Folder of a derived dataset that says what it was derived from."""
PARTS_FOLDER = "parts"
"""Folder of a dataset, or of the cache, for the datasets made of parts of its sessions."""
MAKE = "Make one with `musicbox ingest LOGS --out DIR` or `musicbox synthesize --out DIR`."
REMAKE = (
    "It was a part of a dataset that was made again: give the command that trained on it once "
    "more, which makes it anew."
)
UNFINISHED = ".partial"
"""Ends the names of folders that are not, or no longer, what they will be."""


class Dataset:
    """An opened dataset folder. Opening reads a small JSON file and maps the rest.

    Compiled kernels trust what they read. So a folder is checked when it is opened, once for each
    state of its files: types, shapes, and that every value is in its range.

    Attributes:
        folder: Where it lies.
        about: Content of ``dataset.json``.
        sessions: The logged sessions.
        catalog: The tracks.
        state: That its files were in when it was opened.
    """

    def __init__(self, folder: Path | str, state: State | None = None) -> None:
        """Open a finished dataset folder.

        Args:
            folder: Where it lies.
            state: What `state_of_dataset` just returned, if it was asked.

        Raises:
            FileNotFoundError: The folder is no dataset, or what a job that was stopped left of
                one; the message says how to make one.
            ValueError: It was written by a version with another format.
            FileError: A file of it holds what it should not.
        """
        if resolved(folder).name.endswith(UNFINISHED):
            raise FileNotFoundError(
                f"{folder} is not a dataset folder: the job that makes it is at work or was "
                "stopped. Give the same command again; it goes on and names the folder."
            )
        self._open(folder, state)

    @classmethod
    def unfinished(cls, folder: Path | str) -> Dataset:
        """Open the folder that a job is at work on, see `staged_folder`; a finished one too."""
        dataset = cls.__new__(cls)
        dataset._open(folder)
        return dataset

    def _open(self, folder: Path | str, state: State | None = None) -> None:
        self.folder = Path(folder)
        file = self.folder / "dataset.json"
        if not file.is_file():
            how = REMAKE if self.folder.parent.name == PARTS_FOLDER else MAKE
            raise FileNotFoundError(
                f"{self.folder} is not a dataset folder (no dataset.json). {how}"
            )
        require_text(self.folder)
        self._about = CheckedFile(file, MEND)
        self.about: dict[str, Any] = self._about.json()
        if self.about.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{self.folder} has format version {self.about.get('format_version')}, and this "
                f"MusicBox reads version {FORMAT_VERSION}; make the dataset again."
            )
        self._about.require_form(self.about, _ABOUT)
        if self.about.get("split", {}).get("kind") == TIME:
            self._about.require_form(self.about["split"], _TIME_SPLIT, "split")
        self.state = state or state_of_dataset(self.folder)
        self.sessions = SessionLog(self.folder)
        self.catalog = Catalog(self.folder)
        self._require("sessions", self.sessions.num_sessions, OFFSETS)
        self._require("plays", self.sessions.num_plays, OFFSETS)
        self._require("tracks", len(self.catalog), self.catalog.file.name)
        self.sessions.map_columns()
        self._about.require(
            state_of_dataset(self.folder) == self.state,
            "files beside it changed while they were opened",
            "a folder that stays as it is until it is open",
        )
        once("dataset", self.state, self._check)

    def _check(self) -> None:
        """Look at every value that is read from the folder, embeddings aside."""
        catalog = self.catalog.check()
        longest = self.sessions.check(len(self.catalog))
        self._require("longest_session", longest, OFFSETS)
        given = self.about.get(IDENTITY)
        if not given:
            return
        for name, value in fingerprints(catalog, self.sessions).items():
            self._about.require(
                given.get(name) == value,
                f"{name} is {str(given.get(name))[:DIGITS]!r}",
                f"{value!r}, that of the files beside it, some of which are another dataset's",
            )

    def _require(self, name: str, true: int, source: str) -> None:
        """Refuse a number of ``dataset.json`` that is not what another file holds."""
        given = self.about[name]
        self._about.require(given == true, f"{name} is {given!r}", f"{true}, as in {source}")

    def __repr__(self) -> str:
        """Where it lies and what it holds."""
        counts = ", ".join(f"{self.about[name]:,} {name}" for name in COUNTS)
        return f"<Dataset {self.folder}: {counts}>"

    def __reduce__(self) -> tuple[Callable[[Path], Dataset], tuple[Path]]:
        """Pickle by path."""
        return Dataset, (self.folder,)

    @property
    def part(self) -> str:
        """Which of the training sessions lie in it: `WHOLE`, or the part that it was made of."""
        return str(self.about.get("part", {}).get("name", WHOLE))

    @cached_property
    def whole(self) -> Dataset:
        """The dataset that this one is a part of; itself if it is none."""
        if self.part == WHOLE:
            return self
        file = CheckedFile(self.folder / SOURCE / "source.json", MEND)
        return Dataset((self.folder / file.field(file.json(), "folder", str)).resolve())

    def rows_of_whole(self, what: str) -> npt.NDArray[np.int64]:
        """Row in `whole` of each of the ``"sessions"`` or ``"tracks"``."""
        number, of_whole = (
            d.sessions.num_sessions if what == "sessions" else len(d.catalog)
            for d in (self, self.whole)
        )
        if self.part == WHOLE:
            return np.arange(number)
        file = CheckedFile(self.folder / SOURCE / f"{what}.npy", MEND)
        ids = [d.sessions.ids if what == "sessions" else d.catalog.file for d in (self, self.whole)]
        state = state_of([file.file, *ids])
        rows = file.array(np.int64, (number,))

        def check() -> None:
            file.require_within(rows, (0, of_whole - 1))
            own, others = (
                d.sessions.session_ids if what == "sessions" else d.catalog.track_ids
                for d in (self, self.whole)
            )
            wrong = np.flatnonzero(others[rows] != own)
            file.require(
                not len(wrong) and len(np.unique(rows)) == number,
                f"{len(wrong):,} rows of other {what}, or one twice",
                f"the row in {self.whole.folder} of each of the {what}",
            )

        once(f"rows of {what}", state, check)
        return rows

    @property
    def longest_session(self) -> int:
        """Plays of the longest session."""
        return int(self.about["longest_session"])

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells it from other datasets: counts, and the fingerprints of `data.fingerprint`.

        What depends on a dataset carries this. Where ``dataset.json`` states no fingerprints they
        are computed once a process; where it does, opening the folder compared them.
        """
        counts = {name: self.about[name] for name in COUNTS}
        stated = self.about.get(IDENTITY)
        of = stated or fingerprints(self.catalog.check(), self.sessions)
        return {**counts, **{name: of[name] for name in (FINGERPRINT, CATALOG_FINGERPRINT)}}

    def require_same_catalog(self, identity: object, what: str, mend: str) -> None:
        """Refuse what belongs to another catalog, where a track's row means another song.

        Sessions may be others.

        Args:
            identity: `identity` of the dataset that it was made on, as it was stored.
            what: Begins the message: what was made on that dataset.
            mend: Ends it: how to go on.

        Raises:
            ValueError: It was made on another catalog, or does not say on which.
        """
        self._require_same(CATALOG_FINGERPRINT, identity, what, mend)

    def require_same(self, identity: object, what: str, mend: str) -> None:
        """Refuse what belongs to another dataset; as `require_same_catalog`, of all its content."""
        self._require_same(FINGERPRINT, identity, what, mend)

    def _require_same(self, name: str, identity: object, what: str, mend: str) -> None:
        found = identity if isinstance(identity, dict) else {}
        if found.get(name) == self.identity[name]:
            return
        of = f"of {in_words(found)}" if name in found else "that it does not name"
        raise ValueError(
            f"{what} was made on a dataset {of}, and {self.folder} holds "
            f"{in_words(self.identity)}. {mend}"
        )

    @cached_property
    def embedding_names(self) -> tuple[str, ...]:
        """Embeddings that were fitted, best choice first."""
        found = {f.stem for f in (self.folder / "embeddings").glob("*.npy")}
        known = [name for name in reversed(EMBEDDINGS) if name in found]
        return (*known, *sorted(found.difference(known)))

    def about_embedding(self, name: str) -> dict[str, Any]:
        """How an embedding was made; empty where nobody says.

        Raises:
            FileError: The file that says it holds something else.
        """
        file = CheckedFile(self.folder / "embeddings" / f"{name}.json", MEND)
        return file.json() if file.file.is_file() else {}

    @property
    def best_embedding(self) -> str:
        """Name of the best embedding that was fitted.

        Raises:
            ValueError: None was.
        """
        if not self.embedding_names:
            raise ValueError(
                f"{self.folder} has no embeddings; fit them with "
                "musicbox_env.retrieval.embeddings.fit_embeddings, or make the dataset again."
            )
        return self.embedding_names[0]

    @property
    def default_embedding(self) -> str:
        """Space in which agents act by default: the best embedding, with the rate.

        Raises:
            ValueError: No embedding was fitted.
        """
        return self.best_embedding + RATE_SUFFIX

    def embedding(self, name: str) -> npt.NDArray[np.float32]:
        """Memory-mapped embedding, ``(num_tracks, dim)`` with rows of unit norm.

        Raises:
            KeyError: No such embedding was fitted.
            FileError: Its file holds something else.
        """
        if name not in self.embedding_names:
            raise KeyError(
                f"No embedding {name!r} in {self.folder}; {suggest(name, self.embedding_names)}"
            )
        file = CheckedFile(self.folder / "embeddings" / f"{name}.npy", MEND)
        state = state_of([file.file])
        if state not in self._mapped:
            vectors = file.array(np.float32, (len(self.catalog), None))
            once("unit rows", state, lambda: file.require_unit_rows(vectors))
            self._mapped[state] = vectors
        return self._mapped[state]

    @cached_property
    def _mapped(self) -> dict[State, npt.NDArray[np.float32]]:
        """Embeddings by the state of their files, so that none is opened and checked twice."""
        return {}


def state_of_dataset(folder: Path) -> State:
    """The state of all files of a dataset folder that opening it checks.

    Raises:
        FileError: One is missing.
    """
    files = [folder / name for name in ("dataset.json", "catalog.parquet")]
    return state_of(files, [folder / name for name in ("plays", "sessions")])


_COUNTS = {"sessions": int, "plays": int}
_TIME_SPLIT = {"by": str, "gap": str, "seed": int, "left_out?": {"*": _COUNTS}}
_ABOUT: dict[str, Any] = {
    **dict.fromkeys(("sessions", "plays", "tracks", "longest_session"), int),
    "rows_read?": int,
    "rejected?": {"rows": int, "reasons": {"*": int}},
    "sources?": [{"file": str, "sha256": str, "rows": int, "sessions?": int}],
    "track_features?": {
        "sources": [{"file": str, "sha256": str}],
        "passed_over?": [{"name": str}],
    },
    "passed_over?": {"files": int, "names": [str]},
    "history?": {"levels?": {"inferred_share?": float}},
    "split?": {"kind?": str, **dict.fromkeys(("train?", "validation?", "test?"), float)},
    "part?": dict.fromkeys(("name?", "evaluated?"), str),
    **dict.fromkeys((f"{IDENTITY}?", "synthetic?"), dict),
}
"""Form of ``dataset.json``, as far as something reads it; numbers are there, and true."""
