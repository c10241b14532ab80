"""Logs ingested for tests, and what was stored and rejected of them."""

import hashlib

import pandas as pd

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.pipeline import IngestConfig, ingest


def run(tmp_path, *sources, out="out", **options):
    """Ingest without embeddings, and open what came out."""
    config = IngestConfig(
        sources=tuple(map(str, sources)),
        out=tmp_path / out,
        **{"embeddings": False, "progress": False, "workers": 1, **options},
    )
    return Dataset(ingest(config))


def stored_plays(dataset):
    """Position and track of each session's plays, as stored."""
    sessions, ids = dataset.sessions, dataset.catalog.track_ids
    track, position = sessions.column("track"), sessions.column("position")
    return {
        session: [
            (int(position[row]), ids[track[row]])
            for row in range(sessions.offsets[i], sessions.offsets[i + 1])
        ]
        for i, session in enumerate(sessions.session_ids)
    }


def rejects_of(folder):
    return pd.read_csv(folder / "rejects.csv")


def contents(folder):
    """Every file of a dataset by its bytes."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
