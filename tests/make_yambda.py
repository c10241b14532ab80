"""Files in the exact schema of the Yambda data set, drawn with its published shares.

A listener's plays follow each other in runs; a time is the end (or the start) of its play, rounded
down to five seconds. The truth stays beside them: the run and the true share of each play.

    python tests/make_yambda.py OUT --listeners 9238 --plays 46467212

writes ``listens.parquet`` alone, a block of listeners at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPAN = 26_000_000
STEP = 5
RECOMMENDED = 0.483
HIGHEST_ID = 9_390_000
FLAT = pa.schema(
    [
        ("uid", pa.uint32()),
        ("timestamp", pa.uint32()),
        ("item_id", pa.uint32()),
        ("is_organic", pa.uint8()),
        ("played_ratio_pct", pa.uint16()),
        ("track_length_seconds", pa.uint32()),
    ]
)
OPINION = pa.schema(list(FLAT)[:4])
OPINIONS = ("likes", "dislikes", "unlikes", "undislikes")
BLOCK_PLAYS = 2_000_000
RUN = 15
"""Mean plays of a run."""


@dataclass(frozen=True)
class Plays:
    """Plays in the order of the file, and the truth about them.

    Attributes:
        table: Of the schema `FLAT`.
        run: Number of each play's run.
        place: Place of each play in its listener's true order.
        start: True start in seconds.
        end: True end.
    """

    table: pa.Table
    run: np.ndarray
    place: np.ndarray
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class YambdaConfig:
    """How much is drawn.

    Attributes:
        listeners: How many.
        plays: Of all together.
        tracks: Size of the catalog.
        time_is: What a time is of its play.
        ties_shuffled: Plays of one time are in no order in the file.
        seed: Of everything.
    """

    listeners: int = 20
    plays: int = 10_000
    tracks: int = 2_000
    time_is: str = "end"
    ties_shuffled: bool = True
    seed: int = 0


def blocks(config: YambdaConfig) -> Iterator[Plays]:
    """Plays of some listeners at a time, by listener and time."""
    rng = np.random.default_rng(config.seed)
    ids = np.sort(rng.choice(HIGHEST_ID, config.tracks, replace=False)).astype(np.uint32)
    rng.shuffle(ids)
    lengths = np.clip(rng.lognormal(5.25, 0.3, config.tracks), 60, 900).astype(np.uint32)
    share = rng.gamma(2.0, size=config.listeners)
    counts = np.maximum(rng.multinomial(config.plays, share / share.sum()), 1)
    runs = first = 0
    while first < config.listeners:
        ahead = np.cumsum(counts[first:])
        some = counts[first : first + max(1, int(np.searchsorted(ahead, BLOCK_PLAYS)))]
        block = _block(config, rng, ids, lengths, first, some, runs)
        yield block
        first, runs = first + len(some), int(block.run.max()) + 1


def _block(
    config: YambdaConfig,
    rng: np.random.Generator,
    ids: np.ndarray,
    lengths: np.ndarray,
    first: int,
    counts: np.ndarray,
    runs: int,
) -> Plays:
    total = int(counts.sum())
    user = np.repeat(np.arange(len(counts)), counts)
    begins = np.cumsum(counts) - counts
    new_run = rng.random(total) < 1 / RUN
    new_run[begins] = True
    track = np.minimum(rng.pareto(1.1, total) * config.tracks / 30, config.tracks - 1).astype(int)
    share = _shares(rng, total)
    heard = share * lengths[track]
    gap = np.where(rng.random(total) < 0.15, rng.exponential(6.0, total), 0.0)
    long = new_run * rng.exponential(1.0, total)
    used = np.add.reduceat(heard + gap + 600 * new_run, begins)
    spare = np.maximum(SPAN - 60 - used, 1) / np.maximum(np.add.reduceat(long, begins), 1e-9)
    gap += new_run * 600 + long * np.repeat(spare, counts)
    end = np.cumsum(heard + gap)
    end -= np.repeat(end[begins] - (heard + gap)[begins], counts)
    start = end - heard
    time = ((end if config.time_is == "end" else start) // STEP * STEP).astype(np.int64)
    place = np.arange(total)
    if config.ties_shuffled:
        place = np.lexsort((rng.random(total), time, user))
    table = pa.table(
        {
            "uid": ((user + first + 1) * 100)[place].astype(np.uint32),
            "timestamp": np.minimum(time, SPAN)[place].astype(np.uint32),
            "item_id": ids[track][place],
            "is_organic": (rng.random(total) >= RECOMMENDED).astype(np.uint8),
            "played_ratio_pct": np.round(100 * share)[place].astype(np.uint16),
            "track_length_seconds": lengths[track][place],
        },
        schema=FLAT,
    )
    return Plays(table, (runs + np.cumsum(new_run) - 1)[place], place, start[place], end[place])


def _shares(rng: np.random.Generator, total: int) -> np.ndarray:
    """Shares of the length heard: 7.4 % are 0, 36.6 % below 50, none is above 159."""
    kind = rng.random(total)
    part = rng.random(total)
    edges = (0.074, 0.204, 0.366, 0.45, 0.955)
    values = (
        np.zeros(total),
        0.005 + 0.01 * part,
        0.015 + 0.479 * part,
        0.495 + 0.5 * part,
        np.ones(total),
    )
    return np.select([kind < edge for edge in edges], values, 1 + 0.59 * part)


def plays(config: YambdaConfig) -> Plays:
    """All plays at once; for small numbers."""
    (block,) = blocks(config)
    return block


def write_flat(file: Path, config: YambdaConfig) -> Path:
    """Write ``listens.parquet``."""
    with pq.ParquetWriter(file, FLAT) as writer:
        for block in blocks(config):
            writer.write_table(block.table, row_group_size=1 << 20)
    return file


def write_sequential(file: Path, table: pa.Table) -> Path:
    """Write a row a listener, the other columns as lists."""
    listed = table.group_by("uid", use_threads=False).aggregate(
        [(name, "list") for name in FLAT.names[1:]]
    )
    names = [name.removesuffix("_list") for name in listed.column_names]
    pq.write_table(listed.rename_columns(names).select(FLAT.names), file)
    return file


def opinions(table: pa.Table, share: float, seed: int) -> pa.Table:
    """Listeners' opinions of some of the songs they heard, given when they heard them."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(rng.random(len(table)) < share)
    return table.take(rows).select(OPINION.names)


def write_multi_event(file: Path, table: pa.Table, events: dict[str, pa.Table]) -> Path:
    """Write all events together, by listener and time; ``events`` under their kind."""
    kinds = pa.dictionary(pa.int32(), pa.string())
    parts = []
    for kind, of in {"listen": table, **events}.items():
        for field in list(FLAT)[4:]:
            if field.name not in of.column_names:
                of = of.append_column(field, pa.nulls(len(of), field.type))
        parts.append(of.append_column("event_type", pa.array([kind] * len(of)).cast(kinds)))
    whole = pa.concat_tables(parts, promote_options="permissive")
    whole = whole.sort_by([("uid", "ascending"), ("timestamp", "ascending")])
    pq.write_table(whole, file)
    return file


def write_embeddings(file: Path, items: np.ndarray, dim: int = 8, seed: int = 0) -> Path:
    """Write a vector for each item."""
    vectors = np.random.default_rng(seed).standard_normal((len(items), dim))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pq.write_table(
        pa.table(
            {
                "item_id": pa.array(items, pa.uint32()),
                "embed": pa.array(vectors.tolist(), pa.list_(pa.float64())),
                "normalized_embed": pa.array(unit.tolist(), pa.list_(pa.float64())),
            }
        ),
        file,
    )
    return file


def published_shares(table: pa.Table) -> dict[str, float]:
    """The shares that the data set's page gives, of a table of listens."""
    uid, time, ratio = (table[n].to_numpy() for n in ("uid", "timestamp", "played_ratio_pct"))
    same = uid[1:] == uid[:-1]
    return {
        "ties": float((time[1:] == time[:-1])[same].mean()),
        "zero": float((ratio == 0).mean()),
        "below_50": float((ratio < 50).mean()),
        "most": float(ratio.max()),
        "recommended": float((table["is_organic"].to_numpy() == 0).mean()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--listeners", type=int, default=9_238)
    parser.add_argument("--plays", type=int, default=46_467_212)
    parser.add_argument("--tracks", type=int, default=934_057)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    made = YambdaConfig(given.listeners, given.plays, given.tracks, seed=given.seed)
    print(write_flat(given.out / "listens.parquet", made))
