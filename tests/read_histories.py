"""Histories ingested for tests, and what is stored of them against what was played."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.schema import is_skip


def run(tmp_path, *sources, out="out", max_rejects=0.01, max_rows=None, **options) -> Dataset:
    config = IngestConfig(
        sources=tuple(map(str, sources)),
        out=tmp_path / out,
        embeddings=False,
        progress=False,
        max_rejects=max_rejects,
        max_rows=max_rows,
        history=HistoryConfig(**options),
    )
    dataset = Dataset(ingest(config))
    rows = dict(dataset.about["history"]["rows"])
    assert rows.pop("read") == sum(rows.values()), "a row is lost, or counted twice"
    return dataset


def stored(dataset, columns=("level",)) -> dict:
    """Tracks of each session, and its columns."""
    log, ids = dataset.sessions, dataset.catalog.track_ids
    bounds = [slice(a, b) for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
    return {
        tuple(ids[log.column("track")[rows]]): [log.column(name)[rows].tolist() for name in columns]
        for rows in bounds
    }


def truth(history, track="uri") -> dict:
    plays = history.in_sessions.sort_values(["session", "position"])
    return {tuple(of[track]): of["level"].tolist() for _, of in plays.groupby("session")}


def agreement(dataset, history, track="uri") -> tuple[float, float, float]:
    """Share of sessions recovered play by play; in these, of levels and of skips."""
    found, true = stored(dataset), truth(history, track)
    both = [session for session in true if session in found]
    ours = np.concatenate([found[session][0] for session in both])
    theirs = np.concatenate([true[session] for session in both])
    same_skip = is_skip(ours) == is_skip(theirs)
    return len(both) / len(true), float((ours == theirs).mean()), float(same_skip.mean())


def session_of(tracks=12, *, start="2022-01-01T10:00:00", seconds=200, prefix="t", **changes):
    """Plays of equal length, one right after the other."""
    end = pd.Timestamp(start)
    records = []
    for i in range(tracks):
        end += pd.Timedelta(seconds=seconds)
        record = {
            "ts": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ms_played": 1000 * seconds,
            "spotify_track_uri": f"spotify:track:{prefix}{i}",
            "reason_end": "trackdone",
        }
        records.append({**record, **changes})
    return records


def ingest_records(tmp_path, records, name="a.json", **options):
    (tmp_path / name).write_text(json.dumps(records))
    return run(tmp_path, tmp_path / name, **options)


def by_length(dataset, name):
    """A column of each session, sessions ordered by their length."""
    log = dataset.sessions
    bounds = zip(log.offsets[:-1], log.offsets[1:], strict=True)
    return sorted((log.column(name)[a:b].tolist() for a, b in bounds), key=len)


def contents_of(folder: Path) -> str:
    """Everything in a folder, names and Parquet cells included, as text."""
    texts = []
    for file in sorted(folder.rglob("*")):
        texts.append(str(file.relative_to(folder)))
        if file.suffix == ".parquet":
            texts.append(pd.read_parquet(file).to_csv())
        elif file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    return "\n".join(texts)
