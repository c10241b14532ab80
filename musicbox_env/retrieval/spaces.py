"""The spaces that actions are scored in: fitted embeddings, read from a dataset's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.checks import CheckedFile, FileError
from musicbox_env.data.dataset import RATE_SUFFIX, Dataset
from musicbox_env.data.verdicts import once, state_of
from musicbox_env.locks import made_once
from musicbox_env.schema import suggest

RATE_SCALE = 3.0
ROWS_A_BLOCK = 1 << 18
SMALLEST_NORM = 1e-6

Floats = npt.NDArray[np.float32]


def embedding_space(dataset: Dataset, spec: str) -> Floats:
    """The space that actions are scored in.

    Args:
        dataset: Dataset with fitted embeddings.
        spec: Name of an embedding; with ``"+rate"`` behind it one more column holds how much a
            track is liked by all, which unit vectors hide: the logit of its shrunken training
            listen rate, standardised over the tracks played in training, divided by `RATE_SCALE`
            and clipped to [-1, 1].

    Returns:
        ``(num_tracks, dim)`` or ``(num_tracks, dim + 1)``, C-contiguous; memory-mapped, so that
        processes share it. A space with the rate is written to ``spaces/`` when first asked for.

    Raises:
        ValueError: No such space; the message names those there are.
    """
    name, rate = _parse_space(dataset, spec)
    return _with_rate(dataset, name) if rate else dataset.embedding(name)


def space_dim(dataset: Dataset, spec: str) -> int:
    """Dimensions of `embedding_space`, without reading it.

    Raises:
        ValueError: As there.
    """
    name, rate = _parse_space(dataset, spec)
    return dataset.embedding(name).shape[1] + rate


def space_file(dataset: Dataset, spec: str) -> Path:
    """The file that `embedding_space` maps, or would if the folder could be written.

    Raises:
        ValueError: As there.
    """
    name, rate = _parse_space(dataset, spec)
    if rate:
        return dataset.folder / "spaces" / f"{name}{RATE_SUFFIX}.npy"
    return dataset.folder / "embeddings" / f"{name}.npy"


def space_sources(dataset: Dataset, spec: str) -> list[Path]:
    """The files that `embedding_space` is made of.

    Raises:
        ValueError: As there.
    """
    name, rate = _parse_space(dataset, spec)
    embedding = dataset.folder / "embeddings" / f"{name}.npy"
    return [embedding, dataset.catalog.file] if rate else [embedding]


def _parse_space(dataset: Dataset, spec: str) -> tuple[str, bool]:
    """Name of the embedding, and whether the rate is part of the space."""
    name, plus, rest = spec.partition("+")
    if name not in dataset.embedding_names or (plus and plus + rest != RATE_SUFFIX):
        best = dataset.default_embedding
        known = [n + s for n in dataset.embedding_names for s in ("", RATE_SUFFIX)]
        raise ValueError(
            f"No embedding {spec!r} in {dataset.folder}; {suggest(spec, known)} "
            f"Its best is {best!r}."
        )
    return name, bool(plus)


def _with_rate(dataset: Dataset, name: str) -> Floats:
    """The space of an embedding and the rate; made anew where its file holds anything else."""
    spec = f"{name}{RATE_SUFFIX}"
    file, shape = space_file(dataset, spec), (len(dataset.catalog), space_dim(dataset, spec))

    def is_current() -> bool:
        with suppress(FileError):
            return len(_verified(dataset, name, shape)) > 0
        return False

    def write(temporary: Path) -> None:
        write_rows(temporary, shape, _with_rate_in_blocks(dataset, name))

    if not made_once(file, is_current, write):
        return np.hstack([dataset.embedding(name), rate_column(dataset.catalog)[:, None]])
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _verified(dataset: Dataset, name: str, shape: tuple[int, int]) -> Floats:
    """The file of a space, refused where it is not what its sources give, whoever made it."""
    spec = f"{name}{RATE_SUFFIX}"
    file = CheckedFile(space_file(dataset, spec), "It is made again.")
    state = state_of([file.file, *space_sources(dataset, spec)])
    found: Floats = file.array(np.float32, shape)

    def compare() -> None:
        start = 0
        for block in _with_rate_in_blocks(dataset, name):
            alike = np.array_equal(found[start : start + len(block)], block)
            file.require(alike, "rows differ", "the embedding and the rate")
            start += len(block)

    once("space", state, compare)
    return found


def is_newer(file: Path, sources: Iterable[Path]) -> bool:
    """Whether a file is there, and was written after the files that it is made from."""
    newest = max(source.stat().st_mtime_ns for source in sources)
    return file.exists() and file.stat().st_mtime_ns >= newest


def _with_rate_in_blocks(dataset: Dataset, name: str) -> Iterator[Floats]:
    vectors, rate = dataset.embedding(name), rate_column(dataset.catalog)
    for start in range(0, len(vectors), ROWS_A_BLOCK):
        block = slice(start, start + ROWS_A_BLOCK)
        yield np.hstack([vectors[block], rate[block, None]])


def write_rows(file: Path, shape: tuple[int, ...], blocks: Iterable[Floats]) -> None:
    """Write an array of single precision, a block of its rows at a time."""
    with file.open("wb") as out:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for block in blocks:
            out.write(np.ascontiguousarray(block, "<f4").data)


def rate_column(catalog: Catalog, split: str = "train") -> Floats:
    """Standardised logit of the shrunken training listen rate, ``(num_tracks,)`` in [-1, 1].

    Args:
        catalog: The tracks.
        split: Plays that are counted: ``"train"``, or one of its folds, for which the scale stays
            that of ``"train"``. Who learns from logged labels of one fold must take the rates of
            the other, since a rate that counts the label itself leaks it.
    """
    of_train = _listen_logit(catalog, "train")
    played = catalog.plays() > 0
    spread = of_train[played].std() if played.any() else 0.0
    if spread < SMALLEST_NORM:
        return np.zeros(len(catalog), dtype=np.float32)
    standardised = (_listen_logit(catalog, split) - of_train[played].mean()) / spread
    return np.clip(standardised / RATE_SCALE, -1, 1).astype(np.float32)


def _listen_logit(catalog: Catalog, split: str) -> npt.NDArray[np.float64]:
    skip = np.clip(catalog.skip_rate(split), 1e-6, 1 - 1e-6)
    return np.log1p(-skip) - np.log(skip)


def unit_rows(rows: npt.NDArray) -> npt.NDArray:
    """Rows ``(n, d)`` scaled to norm 1; those next to zero become zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > SMALLEST_NORM, rows / np.maximum(norms, SMALLEST_NORM), 0)
