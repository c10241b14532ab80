"""One part of the training sessions as a dataset of its own: the one place that divides them.

An evaluator is independent of an agent where no play that made the one is known to the other. So
the training sessions are halved, by the folds that the split drew, and each half becomes a dataset
folder, in which nothing of the other half can be read:

==============  ====================================================================================
sessions        those of the fold, halved again into folds A and B by a hash of their ids; half of
                the validation sessions, the same way; and those to be evaluated, as its test split
catalog         all tracks of the whole dataset, the most played *of the part* first, and with the
                part's counts; so the order of its tracks says nothing of other plays either
embeddings      fitted anew on the part, with the settings of the whole dataset's; an embedding that
                MusicBox did not fit is taken as it is
==============  ====================================================================================

A third part, `ORGANIC`, is what would be known had nobody recommended anything: all training and
validation sessions, of which only the plays are left that listeners chose themselves; the sessions
to be evaluated are whole. `AS_MANY` is its control: the same sessions, of each as many plays, drawn
from all of them.

Agents and listeners of a part are made from its folder as from any other. Of the other part they
know which songs there are. A part lies in ``DATA/parts/`` (in the user's cache, where DATA may only
be read), is made on first use, and is made anew where DATA changed. ``source/`` says which sessions
and tracks of the whole its own are, and is read by nothing that is fitted.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.cache import cache_folder, kept_in_cache, named
from musicbox_env.data.checks import CheckedFile, FileError
from musicbox_env.data.dataset import EMBEDDINGS, PARTS_FOLDER, SOURCE, UNFINISHED, WHOLE, Dataset
from musicbox_env.data.sessions import MEND, assign_splits
from musicbox_env.data.splits import SplitConfig, runs_of
from musicbox_env.data.verdicts import once, state_of
from musicbox_env.data.writing import (
    PlayBlock,
    require_folder,
    save_array,
    write_dataset,
    write_json,
)
from musicbox_env.errors import remove_tree
from musicbox_env.ingest.chooser import MIN_SESSION_PLAYS
from musicbox_env.retrieval.embeddings import fit_embeddings
from musicbox_env.schema import SOURCES, SPLITS, require_known

PARTS: Final = ("train_a", "train_b")
ORGANIC: Final = SOURCES[0]
AS_MANY: Final = "as-many"
OTHER: Final = {"train_a": "train_b", "train_b": "train_a"}
"""The part that evaluates what was made of a part."""
EVALUATED: Final = ("test", "validation")
"""Splits that can be evaluated; of validation sessions it is a half, and the parts share the rest.
"""
VERSION: Final = 2
SOURCE_COLUMN: Final = "source"
SESSIONS_A_BLOCK: Final = 1 << 16
MOST_DIM: Final = 4_096
ABOUT, SESSIONS, TRACKS = "source.json", "sessions.npy", "tracks.npy"
"""Files of a part's ``source/``: what it was made of, and its rows of the whole."""
_TRAIN_A, _TRAIN_B, _VALIDATION, _TEST = range(len(SPLITS))
_ABSENT: Final = 255
_RIGHT: Final = "part "
_OWN_HALF, _EVALUATED_HALF = 0, 1
"""Keys of the hashes: a half of each kind of session, and the validation sessions evaluated."""

Ints = npt.NDArray[np.int64]


def open_part(dataset: Dataset, part: str, evaluated: str = "test") -> Dataset:
    """One part of a dataset's training sessions, made on first use.

    Several processes may ask at once: each makes its own, and that of the first to finish is used.

    Args:
        dataset: The whole, or one of its parts.
        part: `WHOLE` for the dataset itself, one of `PARTS`, `ORGANIC` or `AS_MANY`.
        evaluated: Which of `EVALUATED` the part's test split shall hold.

    Raises:
        ValueError: An unknown part, or one that holds no session to learn from.
        FileExistsError: A file lies where the part is to be made.
    """
    require_known("part of the training sessions", part, (WHOLE, *PARTS, ORGANIC, AS_MANY))
    require_known("split to evaluate on", evaluated, EVALUATED)
    whole = dataset.whole
    if part == WHOLE:
        return whole
    if (dataset.part, evaluated_in(dataset)) == (part, evaluated):
        return dataset
    digest = _digest(whole)
    folder = _folder(whole, part, evaluated, digest)
    for place in (folder.parent, folder):
        require_folder(place)
    source = _source(whole, digest, folder)
    if _source_in(folder) != source or not _is_right(whole, part, evaluated, digest, folder):
        with named() if cache_folder() in folder.parents else nullcontext():
            _make(whole, part, evaluated, source, folder)
    return Dataset(folder)


def evaluated_in(dataset: Dataset) -> str:
    """The split of the whole that a part's test split is of."""
    return str(dataset.about.get("part", {}).get("evaluated", EVALUATED[0]))


def rows_in(dataset: Dataset, other: Dataset, what: str) -> Ints:
    """Row in ``other`` of each of a dataset's ``"sessions"`` or ``"tracks"``, -1 for none.

    Both are the same whole or parts of it.
    """
    mine, theirs = (one.rows_of_whole(what) for one in (dataset, other))
    place = np.full(1 + max(mine.max(initial=-1), theirs.max(initial=-1)), -1, np.int64)
    place[theirs] = np.arange(len(theirs))
    return place[mine]


def _digest(whole: Dataset) -> str:
    """Short hash of what a part is made from."""
    digest = blake2b(repr((VERSION, whole.identity)).encode(), digest_size=8)
    settings, taken = _embeddings(whole)
    for file in (whole.folder / "dataset.json", whole.sessions.ids, *settings):
        digest.update(file.read_bytes())
    for name in taken:
        digest.update(name.encode() + np.ascontiguousarray(whole.embedding(name)).data)
    return digest.hexdigest()


def _embeddings(whole: Dataset) -> tuple[list[Path], list[str]]:
    """Files of settings by which parts fit embeddings, and names of those that they take over."""
    files = {name: whole.folder / "embeddings" / f"{name}.json" for name in whole.embedding_names}
    fitted = {name: f for name, f in files.items() if name in EMBEDDINGS and f.is_file()}
    return list(fitted.values()), [name for name in files if name not in fitted]


def _folder(whole: Dataset, part: str, evaluated: str, digest: str) -> Path:
    name = part if evaluated == EVALUATED[0] else f"{part}-{evaluated}"
    own = whole.folder / PARTS_FOLDER
    if own.is_dir() or os.access(whole.folder, os.W_OK):
        return own / name
    return kept_in_cache(PARTS_FOLDER, digest, name)


def _source(whole: Dataset, digest: str, folder: Path) -> dict[str, Any]:
    """What a part says of its source."""
    inside = folder.parent.parent == whole.folder
    return {"folder": "../.." if inside else str(whole.folder.resolve()), "digest": digest}


def _source_in(folder: Path) -> dict[str, Any] | None:
    try:
        return CheckedFile(folder / SOURCE / ABOUT, "It is made again.").json()
    except FileError:  # not there, or not what this version writes: the part is made again
        return None


def _make(whole: Dataset, part: str, evaluated: str, source: dict[str, Any], folder: Path) -> None:
    own = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{UNFINISHED}")
    own.mkdir(parents=True)
    try:
        _write(whole, part, evaluated, own)
        write_json(own / SOURCE / ABOUT, source)
        if folder.exists():
            old = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.replaced{UNFINISHED}")
            os.replace(folder, old)
            remove_tree(old)
        os.rename(own, folder)
    except OSError:
        if _source_in(folder) != source:  # else another process was faster
            raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
    _once_right(Dataset(folder), source["digest"], lambda: None)


def _is_right(whole: Dataset, part: str, evaluated: str, digest: str, folder: Path) -> bool:
    """Whether a part holds what `_write` would write, its fitted embeddings aside.

    Its digest is no proof: whoever sends a dataset with parts can compute it.
    """
    try:
        found = Dataset(folder)
        _once_right(found, digest, lambda: _require_right(whole, part, evaluated, found))
    except (FileError, FileNotFoundError):  # the part is made again
        return False
    return True


def _once_right(found: Dataset, digest: str, check: Callable[[], None]) -> None:
    """Check a part unless all of its files were found right; see `verdicts.once`."""
    source = [found.folder / SOURCE / name for name in (ABOUT, SESSIONS, TRACKS)]
    vectors = [found.folder / "embeddings" / f"{name}.npy" for name in found.embedding_names]
    once(f"{_RIGHT}{digest} {found.state.digest}", state_of([*source, *vectors]), check)


def _require_right(whole: Dataset, part: str, evaluated: str, found: Dataset) -> None:
    """Refuse a part that is not what is written now.

    Raises:
        FileError: It is not.
    """
    file, taken = CheckedFile(found.folder / SOURCE / ABOUT, MEND), _embeddings(whole)[1]
    with tempfile.TemporaryDirectory() as place:
        made = Dataset.unfinished(_write_sessions(whole, part, evaluated, Path(place)))
        tracks = np.load(made.folder / SOURCE / TRACKS)
        same = (
            made.identity == found.identity
            and all(
                (made.folder / SOURCE / name).read_bytes()
                == (found.folder / SOURCE / name).read_bytes()
                for name in (SESSIONS, TRACKS)
            )
            and found.embedding_names == whole.embedding_names
            and all(
                np.array_equal(found.embedding(name), whole.embedding(name)[tracks])
                for name in taken
            )
        )
    file.require(same, "another part than its digest says", f"{part!r} of {whole.folder}")


def _write(whole: Dataset, part: str, evaluated: str, folder: Path) -> None:
    """Write sessions, catalog and embeddings of a part."""
    _write_sessions(whole, part, evaluated, folder)
    _fit(whole, folder, np.load(folder / SOURCE / TRACKS))


def _write_sessions(whole: Dataset, part: str, evaluated: str, folder: Path) -> Path:
    """Write sessions and catalog of a part, and which rows of the whole they are."""
    codes = part_splits(whole, part, evaluated)
    if not np.isin(codes, (_TRAIN_A, _TRAIN_B)).any():
        raise ValueError(f"{whole.folder} has no session in {part!r} to learn from.")
    kept = np.flatnonzero(codes != _ABSENT)
    named = ("synthetic", "split")
    made: dict[str, Any] = {name: whole.about[name] for name in named if name in whole.about}
    chosen = None if part in PARTS else _chosen_plays(whole, codes, drawn=part == AS_MANY)
    write_dataset(
        folder,
        _blocks(whole, kept, codes[kept], chosen),
        features=whole.catalog.frame("features"),
        split=SplitConfig(),
        about={**made, "part": {"name": part, "evaluated": evaluated}},
        names=whole.catalog.frame("names"),
    )
    (folder / SOURCE).mkdir()
    save_array(folder / SOURCE / SESSIONS, kept)
    tracks = whole.catalog.index_of(list(Dataset.unfinished(folder).catalog.track_ids))
    save_array(folder / SOURCE / TRACKS, np.asarray(tracks, np.int64))
    return folder


def part_splits(whole: Dataset, part: str, evaluated: str) -> npt.NDArray[np.uint8]:
    """Split code that each session of the whole has in a part; 255 where it is not of the part."""
    if part in (ORGANIC, AS_MANY):
        return _organic_splits(whole)
    keys = pa.array(whole.sessions.session_ids, pa.string())
    if "history" in whole.about:
        keys = runs_of(keys)
    own, split = _halves(keys, _OWN_HALF), whole.sessions.split
    codes = np.full(len(keys), _ABSENT, np.uint8)
    learned = split == SPLITS.index(part)
    codes[learned] = own[learned]
    validation, compared = split == _VALIDATION, split == _TEST
    if evaluated != EVALUATED[0]:
        compared = validation & (_halves(keys, _EVALUATED_HALF) == 0)
        validation &= ~compared
    codes[validation & (own == PARTS.index(part))] = _VALIDATION
    codes[compared] = _TEST
    return codes


def _organic_splits(whole: Dataset) -> npt.NDArray[np.uint8]:
    """The split of each session, unless too few of its plays are its listener's own choice."""
    log = whole.sessions
    if SOURCE_COLUMN not in log.column_names:
        raise ValueError(f"{whole.folder} does not say which plays were recommended.")
    codes = log.split.copy()
    own = _chosen_plays(whole, codes, drawn=False)
    left = np.add.reduceat(own.astype(np.int64), log.offsets[:-1])
    codes[left < MIN_SESSION_PLAYS] = _ABSENT
    return codes


def _chosen_plays(
    whole: Dataset, codes: npt.NDArray[np.uint8], *, drawn: bool
) -> npt.NDArray[np.bool_]:
    """Plays that listeners chose themselves, and all plays of sessions to be evaluated.

    Where ``drawn``, as many plays of each session, whoever chose them.
    """
    log = whole.sessions
    session = np.repeat(np.arange(len(codes)), np.diff(log.offsets))
    own = log.column(SOURCE_COLUMN) == SOURCES.index(ORGANIC)
    if drawn:
        order = np.lexsort((np.random.default_rng(0).random(len(own)), session))
        own = own[order]
    return own | (codes == _TEST)[session]


def _halves(keys: pa.StringArray, seed: int) -> npt.NDArray[np.uint8]:
    """A half, 0 or 1, for each key, by its hash."""
    return assign_splits(keys, seed=seed, shares=(1.0, 0.0, 0.0))


def _blocks(
    whole: Dataset,
    kept: Ints,
    codes: npt.NDArray[np.uint8],
    chosen: npt.NDArray[np.bool_] | None,
) -> Iterator[PlayBlock]:
    """Sessions with their codes; of their plays those ``chosen`` of all plays, all if None."""
    log, ids = whole.sessions, whole.catalog.track_ids
    for start in range(0, len(kept), SESSIONS_A_BLOCK):
        some = slice(start, start + SESSIONS_A_BLOCK)
        plays, lengths = log.plays_of(kept[some]), log.lengths(kept[some])
        if chosen is not None:
            session = np.repeat(np.arange(len(lengths)), lengths)[chosen[plays]]
            plays, lengths = plays[chosen[plays]], np.bincount(session, minlength=len(lengths))
        columns: dict[str, Any] = {name: log.column(name)[plays] for name in log.column_names}
        tracks, columns["track"] = np.unique(columns["track"], return_inverse=True)
        yield PlayBlock(
            log.session_ids[kept[some]],
            lengths,
            ids[tracks],
            columns,
            split=codes[some],
        )


def _fit(whole: Dataset, folder: Path, tracks: Ints) -> None:
    """Fit the embeddings that the whole has; those that MusicBox did not fit are taken over."""
    (folder / "embeddings").mkdir()
    settings: dict[tuple[int, int], list[str]] = {}
    files, taken = _embeddings(whole)
    for file in files:
        checked = CheckedFile(file, MEND)
        about = checked.json()
        dim, seed = (checked.field(about, name, int) for name in ("dim", "seed"))
        checked.require(0 < dim <= MOST_DIM, f"dim is {dim}", f"1 to {MOST_DIM:,}")
        checked.require(seed >= 0, f"seed is {seed}", "0 or more")
        settings.setdefault((dim, seed), []).append(file.stem)
    for name in taken:
        save_array(folder / "embeddings" / f"{name}.npy", whole.embedding(name)[tracks])
    for (dim, seed), names in settings.items():
        fit_embeddings(folder, names=names, dim=dim, seed=seed)
