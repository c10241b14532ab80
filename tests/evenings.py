"""Plain evenings of listening, one play after the other, to be told wrongly in known ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest

FIRST_MS = int(pd.Timestamp("2022-01-03T18:00:00").value // 10**6)


def evenings(sessions=40, plays=15, *, tracks=60, seed=0) -> pd.DataFrame:
    """A row a play: start_ms, end_ms, ms, length, track, title, artist, reasons, session.

    Half the plays are full and end by themselves, the others are skipped within 40 seconds.
    """
    rng = np.random.default_rng(seed)
    count = sessions * plays
    length = rng.integers(150_000, 260_000, tracks)
    # No song twice in a row: what looks like a second piece of a play is made on purpose.
    track = np.cumsum(rng.integers(1, tracks, count)) % tracks
    full = rng.random(count) < 0.5
    ms = np.where(full, length[track], rng.integers(3_001, 40_000, count) // 2 * 2 + 1)
    session = np.repeat(np.arange(sessions), plays)
    gap = rng.integers(0, 900, count)
    within = (pd.Series(ms + gap).groupby(session).cumsum()).to_numpy()
    end = FIRST_MS + session * 86_400_000 + within
    frame = pd.DataFrame({"start_ms": end - ms, "end_ms": end, "ms": ms, "length": length[track]})
    frame["track"], frame["session"], frame["full"] = track, session, full
    frame["id"] = [f"T{t:021d}" for t in track]
    frame["title"] = [f"Song {t:02d}" for t in track]
    frame["artist"] = [f"Artist {t % 7}" for t in track]
    frame["reason_end"] = np.where(full, "trackdone", "fwdbtn")
    frame["reason_start"] = frame["reason_end"].shift(fill_value="clickrow")
    return frame


def spotify_records(frame: pd.DataFrame, **columns) -> list[dict]:
    """Records of the extended history; further columns replace or join those."""
    stamp = pd.to_datetime(frame["end_ms"] // 1000, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    records = pd.DataFrame(
        {
            "ts": stamp,
            "ms_played": frame["ms"],
            "master_metadata_track_name": frame["title"],
            "master_metadata_album_artist_name": frame["artist"],
            "spotify_track_uri": "spotify:track:" + frame["id"],
            "reason_start": frame["reason_start"],
            "reason_end": frame["reason_end"],
        }
    )
    return records.assign(**columns).to_dict("records")


def account_rows(frame: pd.DataFrame) -> list[dict]:
    """Records of the account data, in the order of the frame."""
    stamp = pd.to_datetime(frame["end_ms"] // 60_000, unit="m").dt.strftime("%Y-%m-%d %H:%M")
    rows = {"endTime": stamp, "artistName": frame["artist"], "trackName": frame["title"]}
    return pd.DataFrame({**rows, "msPlayed": frame["ms"]}).to_dict("records")


def table(frame: pd.DataFrame, time: str, unit_ms: int, spelled: str) -> pd.DataFrame:
    """A table of plays with ``start_ms`` or ``end_ms`` as the time, cut to a unit."""
    stamps = pd.to_datetime(frame[time] // unit_ms * unit_ms, unit="ms").dt.strftime(spelled)
    name = {"start_ms": "started_at", "end_ms": "ended_at"}[time]
    columns = {"user_id": "u", name: stamps, "track_id": frame["id"], "ms_played": frame["ms"]}
    return pd.DataFrame({**columns, "duration_ms": frame["length"]})


def shuffled_within(frame: pd.DataFrame, time: str, unit_ms: int, seed=1) -> pd.DataFrame:
    """The same rows, in no order within a unit of time."""
    mixed = frame.sample(frac=1, random_state=seed)
    return mixed.iloc[np.argsort(mixed[time].to_numpy() // unit_ms, kind="stable")]


def ingested(tmp_path: Path, source, **options) -> tuple[Dataset, dict[str, int], str]:
    """The dataset of records or a table, what became of its rows, and the notes as one text.

    Every row is accounted for.
    """
    if isinstance(source, pd.DataFrame):
        file = tmp_path / "plays.csv"
        source.to_csv(file, index=False)
        options.setdefault("map", "auto")
    else:
        file = tmp_path / "plays.json"
        file.write_text(json.dumps(source))
    config = IngestConfig(
        (str(file),),
        tmp_path / "out",
        embeddings=False,
        progress=False,
        overwrite=True,
        history=HistoryConfig(**options),
    )
    dataset = Dataset(ingest(config))
    rows = dict(dataset.about["history"]["rows"])
    assert rows.pop("read") == sum(rows.values())
    return dataset, rows, "\n".join(dataset.about["history"]["notes"])


def sizes(dataset: Dataset) -> tuple[int, int]:
    """Sessions and plays."""
    return dataset.sessions.num_sessions, dataset.sessions.num_plays


def songs(dataset: Dataset, *, ordered=False) -> list[tuple[str, ...]]:
    """Track ids of each session, in order or sorted; the sessions sorted."""
    log = dataset.sessions
    ids = dataset.catalog.track_ids[log.column("track")]
    of = [ids[a:b] for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
    return sorted(tuple(each) if ordered else tuple(sorted(each)) for each in of)


def true_songs(frame: pd.DataFrame, column="id", *, ordered=False) -> list[tuple[str, ...]]:
    """The same of the truth."""
    of = [list(each) for _, each in frame.groupby("session")[column]]
    return sorted(tuple(each) if ordered else tuple(sorted(each)) for each in of)
