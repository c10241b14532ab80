"""Speed of the search for songs: exact among up to a million, approximate among millions."""

from collections.abc import Iterator
from functools import partial
from itertools import cycle

import numpy as np
import numpy.typing as npt

from musicbox_env.retrieval.approximate import ApproximateIndex, ListsInSpace, installed
from musicbox_env.retrieval.coarse import CoarseItems
from musicbox_env.retrieval.exact import top_k
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.benchmark.measure import (
    MEBIBYTE,
    Context,
    NotMeasured,
    Row,
    processor_seconds,
    speed,
)
from musicbox_experiments.benchmark.worlds import grown, unit_rows

Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

K, DIM = 3, 32
ASKED = 200
"""Queries over which recall is averaged."""


def retrieval(context: Context) -> Iterator[Row]:
    """Exact search beside whichever of FAISS, torch and plain numpy is fastest; approximate."""
    for num_items in (50_000, 1_000_000):
        items = unit_rows(np.random.default_rng(0), num_items, DIM)
        for num_queries in (1, 64, 768):
            queries = np.random.default_rng(1).standard_normal((num_queries, DIM), np.float32)
            yield Row(
                f"exact top {K} of {num_items:,}, queries: {num_queries}",
                "calls/s",
                partial(speed, partial(top_k, queries, items, K)),
                {
                    "torch": partial(speed, partial(torch_top_k, queries, items, K)),
                    "numpy in tiles": partial(speed, partial(numpy_top_k, queries, items, K)),
                    "FAISS": partial(faiss_speed, queries, items, K),
                },
                target=1.0,
            )
        one, rounded = queries[:1], CoarseItems(items)
        yield Row(
            f"exact top {K} of {num_items:,}, 1 query, by way of rounded items",
            "calls/s",
            partial(speed, partial(rounded.top_k, one, K)),
            {"without them": partial(speed, partial(top_k, one, items, K))},
            target=1.0,
        )
    yield from _approximate(context, 3_700_000 if context.full else 1_000_000)


def torch_top_k(queries: Vectors, items: Vectors, k: int) -> Rows:
    """The k nearest items of each query ``(n, k)``, by torch."""
    import torch

    catalog = torch.from_numpy(items).T
    parts = torch.from_numpy(queries).split(64)  # all scores of 768 queries would take 3 GB
    return torch.cat([torch.topk(part @ catalog, k, dim=1).indices for part in parts]).numpy()


def numpy_top_k(queries: Vectors, items: Vectors, k: int) -> Rows:
    """The same by numpy: scores of 16,384 items at a time, the best by ``argpartition``."""
    rows, scores = [], []
    for start in range(0, len(items), 1 << 14):
        tile = queries @ items[start : start + (1 << 14)].T
        best = np.argpartition(tile, -k, axis=1)[:, -k:]
        rows.append(best + start)
        scores.append(np.take_along_axis(tile, best, axis=1))
    order = np.argsort(-np.hstack(scores), axis=1)[:, :k]
    return np.take_along_axis(np.hstack(rows), order, axis=1)


def faiss_speed(queries: Vectors, items: Vectors, k: int) -> float:
    """Searches a second of FAISS's flat index, one thread."""
    if not installed():
        faiss_is_missing()
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    return speed(partial(index.search, queries, k))


def faiss_is_missing() -> float:
    """Stand in for what needs FAISS."""
    raise NotMeasured("FAISS is not installed; pip install musicbox-env[approximate]")


def _approximate(context: Context, number: int) -> Iterator[Row]:
    """What the index takes, what is overlooked, and what is gained."""
    if not installed():
        yield Row(f"approximate top {K} of {number:,}", "calls/s", faiss_is_missing)
        return
    rng = np.random.default_rng(0)
    dataset = open_dataset(None)
    items = grown(dataset.embedding(dataset.best_embedding), number, rng)
    file = context.folder / "benchmark.faiss"
    began = processor_seconds()
    ApproximateIndex.build(items).save(file)
    yield Row(f"index of {number:,}: build and save", "s", processor_seconds() - began)
    yield Row(f"index of {number:,}: file", "MiB", file.stat().st_size / MEBIBYTE)
    began = processor_seconds()
    index = ApproximateIndex.read(items, file)
    yield Row(f"index of {number:,}: open", "s", processor_seconds() - began)

    near = items[_alike(items, rng)].mean(axis=1)
    anywhere = rng.standard_normal((ASKED, items.shape[1]), np.float32)
    own_items, own_points = _with_an_axis_of_its_own(items, near, rng)
    for searched, catalog, queries, k, kind, target in (
        (index, items, near, K, "means of 8 songs alike", 0.95),
        (index, items, anywhere, K, "directions without songs", None),
        (ListsInSpace(index, own_items), own_items, own_points, 50, "an axis of its own", 0.95),
    ):
        (rows, _), (exact, _) = searched.top_k(queries, k), top_k(queries, catalog, k)
        found = float((rows[:, :, None] == exact[:, None, :]).any(axis=2).mean())
        yield Row(
            f"recall of the top {k} of {number:,}, {kind}", "share", found, {"exact": 1.0}, target
        )

    query = partial(next, cycle(near[:, None]))
    barred = rng.integers(0, number, (1, 20))
    yield Row(
        f"one query of {number:,}, 20 songs barred",
        "calls/s",
        lambda: speed(lambda: index.top_k(query(), K, barred)),
        {"exact": lambda: speed(lambda: top_k(query(), items, K, barred))},
        30.0 if context.full else None,
        "the target is that of 3.7 million tracks, --full",
    )
    file.unlink()


def _with_an_axis_of_its_own(
    items: Vectors, queries: Vectors, rng: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """A space whose last axis an agent has learned, and queries that look along it."""
    items, queries = items.copy(), queries.copy()
    alike = items[:, :-1] @ rng.standard_normal(items.shape[1] - 1)
    noise = rng.standard_normal(len(items))
    items[:, -1] = np.clip(0.2 * (alike / alike.std() + noise), -1, 1)
    queries[:, -1] = 0.4
    return items, queries


def _alike(items: Vectors, rng: np.random.Generator) -> Rows:
    """Songs of `ASKED` sessions: each one song and seven near it ``(ASKED, 8)``."""
    few = rng.integers(0, len(items), 20_000)
    near, _ = top_k(items[few[:ASKED]], items[few], 8)
    return few[near]
