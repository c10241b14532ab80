"""Synthetic listening logs in the published schema, of any size, with the truth behind them.

`world` makes the sessions; here they are written, as a dataset folder or as raw files, and the
bundled dataset is kept in the user's cache.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from musicbox_env.cache import kept_in_cache, named
from musicbox_env.data.catalog import Catalog
from musicbox_env.data.dataset import UNFINISHED
from musicbox_env.data.folders import RAW_LOGS
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import (
    PlayBlock,
    folder_made_once,
    staged_folder,
    write_dataset,
)
from musicbox_env.errors import remove_tree
from musicbox_env.locks import InUseError, held
from musicbox_env.progress import tqdm
from musicbox_env.retrieval.blas import one_blas_thread
from musicbox_env.schema import (
    CONTEXT_TYPES,
    LOG_COLUMNS,
    PAUSE_LONG,
    PAUSE_NONE,
    PAUSE_SHORT,
    REASONS_END,
    REASONS_START,
    TRACK_FEATURES,
    labels_from_levels,
)
from musicbox_env.synthetic.truth import open_truth_arrays, write_truth
from musicbox_env.synthetic.world import (
    BATCH_SESSIONS,
    SessionBatch,
    SyntheticConfig,
    SyntheticWorld,
)

PACKAGE: Final = Path(__file__).parents[1]
DECIDING_FOLDERS: Final = ("synthetic", "data", "retrieval")
"""Folders of the package that decide what a synthetic dataset holds, beside the schema."""
BUNDLE: Final = "synthetic-"
"""Begins the names of datasets in the cache."""
BUNDLED = SyntheticConfig()
"""The dataset that ``data=None`` means."""


def synthesize(
    config: SyntheticConfig,
    out: Path | str,
    *,
    split: SplitConfig | None = None,
    embeddings: bool = True,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write a dataset folder with its truth and its fitted embeddings.

    Args:
        config: What to make.
        out: Folder to write; it appears only when it is whole.
        split: Division of the sessions.
        embeddings: Whether to fit the embeddings.
        overwrite: Replace a folder that exists.
        progress: Show a bar.

    Returns:
        The folder.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
    """
    out = Path(out)
    with staged_folder(out, overwrite=overwrite) as staging:
        _make(config, staging, split or SplitConfig(), embeddings, progress)
    return out


def _make(
    config: SyntheticConfig, staging: Path, split: SplitConfig, embeddings: bool, progress: bool
) -> None:
    with one_blas_thread():
        world = SyntheticWorld(config)
        _empty(staging)
        _write_world(world, staging, split, progress)
        if embeddings:
            # Imported where it is used: whoever opens a dataset can spare it.
            from musicbox_env.retrieval.embeddings import fit_embeddings

            fit_embeddings(staging, seed=config.seed, progress=progress)


def _empty(folder: Path) -> None:
    """Clear what a killed run left: nothing of it can be used again."""
    remove_tree(folder)
    folder.mkdir()


def _write_world(world: SyntheticWorld, folder: Path, split: SplitConfig, progress: bool) -> None:
    """Write plays, catalog and truth."""
    sessions = world.config.sessions
    propensity, taste = open_truth_arrays(folder, sessions, world.track_config.dim)

    def blocks() -> Iterator[PlayBlock]:
        total = -(-sessions // BATCH_SESSIONS)
        for batch in tqdm(world.batches(), total=total, disable=not progress, desc="sessions"):
            rows = slice(batch.first, batch.first + len(batch.lengths))
            propensity[rows] = batch.propensity
            taste[rows] = batch.taste
            yield world.play_block(batch)

    about = {"synthetic": world.config.about}
    write_dataset(folder, blocks(), features=world.tracks.features, split=split, about=about)
    propensity.flush()
    taste.flush()
    row_of_id = pd.Index(world.tracks.track_ids)
    rows = row_of_id.get_indexer(pd.Index(Catalog(folder).track_ids))
    write_truth(
        folder,
        world.law,
        world.choice,
        quality=world.tracks.quality[rows],
        vectors=world.tracks.vectors[rows],
        weight=world.tracks.popularity[rows],
        satiation=world.satiation,
    )


def write_raw(
    config: SyntheticConfig, out: Path | str, *, overwrite: bool = False, progress: bool = False
) -> None:
    """Write the same data as files of the published schema, for `musicbox ingest`.

    Args:
        config: What to make.
        out: Folder for ``sessions.csv.gz`` and ``tracks.csv``.
        overwrite: Replace a folder that exists.
        progress: Show a bar.

    Raises:
        FileExistsError: ``out`` exists and ``overwrite`` is False.
    """
    with staged_folder(out, overwrite=overwrite, kind=RAW_LOGS) as staging, one_blas_thread():
        world = SyntheticWorld(config)
        _empty(staging)
        features = world.tracks.features
        mode = np.where(features["mode"] == 1, "major", "minor")
        features.assign(mode=mode)[["track_id", *TRACK_FEATURES]].to_csv(
            staging / "tracks.csv", index=False
        )
        bar = tqdm(
            world.batches(),
            total=-(-config.sessions // BATCH_SESSIONS),
            disable=not progress,
            desc="sessions",
        )
        for batch in bar:
            _log_frame(world, batch).to_csv(
                staging / "sessions.csv.gz",
                index=False,
                mode="a",
                header=batch.first == 0,
                compression={"method": "gzip", "compresslevel": 3, "mtime": 0},
            )


def _log_frame(world: SyntheticWorld, batch: SessionBatch) -> pd.DataFrame:
    """A batch as rows of a published session file."""
    block = world.play_block(batch)
    of = block.columns
    date = np.datetime64("1970-01-01") + of["date"].astype("timedelta64[D]")
    columns = {
        "session_id": np.repeat(block.session_ids, block.lengths),
        "session_position": of["position"],
        "session_length": np.repeat(block.lengths, block.lengths),
        "track_id_clean": block.vocabulary[of["track"]],
        **labels_from_levels(of["level"]),
        "context_switch": of["context_switch"].astype(np.int8),
        "no_pause_before_play": (of["pause"] & PAUSE_NONE > 0).astype(np.int8),
        "short_pause_before_play": (of["pause"] & PAUSE_SHORT > 0).astype(np.int8),
        "long_pause_before_play": (of["pause"] & PAUSE_LONG > 0).astype(np.int8),
        "hist_user_behavior_n_seekfwd": of["seek_forward"],
        "hist_user_behavior_n_seekback": of["seek_back"],
        "hist_user_behavior_is_shuffle": of["shuffle"].astype(bool),
        "hour_of_day": of["hour"],
        "date": date.astype(str),
        "premium": of["premium"].astype(bool),
        "context_type": np.asarray(CONTEXT_TYPES, dtype=object)[of["context_type"]],
        "hist_user_behavior_reason_start": np.asarray(REASONS_START, dtype=object)[
            of["reason_start"]
        ],
        "hist_user_behavior_reason_end": np.asarray(REASONS_END, dtype=object)[of["reason_end"]],
    }
    return pd.DataFrame(columns)[list(LOG_COLUMNS)]


def bundled_dataset(config: SyntheticConfig | None = None) -> Path:
    """The dataset that ``data=None`` means: made on first use, then kept in the user's cache.

    Its name holds a fingerprint of the code and tables that make it, so that another law makes
    another one. Where several processes call this at once, one makes it and the others wait. What
    killed ones left of this or other worlds is removed first. That it is made, and for how long,
    is said on standard error.

    Args:
        config: Another world to be kept in the same way; None is the bundled one.

    Returns:
        The dataset folder, under ``MUSICBOX_CACHE`` or the platform's cache folder; a temporary
        one, with a warning, where that can only be read.
    """
    config = config or BUNDLED
    folder = _kept(config)
    with named(), folder_made_once(folder) as staging:
        if staging is not None:
            print(
                f"Making {config.sessions:,} synthetic sessions, once: about half a minute. They "
                f"are kept in {folder.parent}.",
                file=sys.stderr,
            )
            _remove_unfinished(staging)
            _make(config, staging, SplitConfig(), embeddings=True, progress=True)
    return folder


def _remove_unfinished(own: Path) -> None:
    """Remove what no living process is making of the datasets beside ``own``."""
    for left in own.parent.glob(f"{BUNDLE}*{UNFINISHED}"):
        if left != own:
            made = left.with_name(left.name.removesuffix(UNFINISHED))
            with suppress(InUseError), held(made):
                shutil.rmtree(left, ignore_errors=True)


def is_bundled(folder: Path | str) -> bool:
    """Whether a folder is the one of `bundled_dataset`."""
    return Path(folder).resolve() == _kept(BUNDLED).resolve()


def _kept(config: SyntheticConfig) -> Path:
    return kept_in_cache(f"{BUNDLE}{fingerprint(config)}")


def fingerprint(config: SyntheticConfig, package: Path = PACKAGE) -> str:
    """Short hash of all that decides what is made: the configuration, code and published tables."""
    digest = blake2b(repr(config).encode(), digest_size=6)
    files = [file for name in DECIDING_FOLDERS for file in (package / name).rglob("*.*")]
    for file in sorted([*files, package / "schema.py"]):
        if file.suffix in (".py", ".csv", ".json"):
            digest.update(file.read_bytes())
    return digest.hexdigest()
