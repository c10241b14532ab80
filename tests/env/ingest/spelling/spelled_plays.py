"""Plays written in tables as people and programs spell them, and what is stored of them."""

import numpy as np
import pandas as pd
import pytest

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.histories.sessionize import SessionConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest

MAP = "user=user,time=time,track=track,title=title,artist=artist,played_s=played,duration_s=length"


SESSIONS, PLAYS = 6, 12


LONG_GAPS = SessionConfig(max_gap=600)


def plays_of(days: int = 27) -> pd.DataFrame:
    """Sessions of a listener on days up to this one of two months; a third of the plays is cut."""
    rows = []
    for session in range(SESSIONS):
        start = pd.Timestamp(
            f"2022-0{1 + session % 2}-{1 + session * (days - 1) // SESSIONS:02d}T18"
        )
        for place in range(PLAYS):
            song = (7 * session + 3 * place) % 40
            length = 150 + 3 * song
            heard = length if place % 3 else length // 5
            rows.append(("u1", start, f"id{song}", f"Song {song}", "Ola, Bo", heard, length))
            start += pd.Timedelta(seconds=heard)
    return pd.DataFrame(
        rows, columns=["user", "time", "track", "title", "artist", "played", "length"]
    )


def with_time(plays, text):
    return plays.assign(time=plays["time"].dt.strftime(text))


PLAIN = with_time(plays_of(), "%Y-%m-%dT%H:%M:%SZ")


def ingested(tmp_path, sources, out="out", **options):
    """A dataset, the account of its rows checked."""
    options = {"map": MAP, **options}
    config = IngestConfig(
        sources=tuple(map(str, sources)),
        out=tmp_path / out,
        embeddings=False,
        progress=False,
        history=HistoryConfig(**options),
    )
    dataset = Dataset(ingest(config))
    rows = dict(dataset.about["history"]["rows"])
    assert rows.pop("read") == sum(rows.values()) == dataset.about["rows_read"]
    return dataset


def stored(dataset):
    """Tracks and levels of each session, in an order of their own."""
    log, ids = dataset.sessions, np.array(dataset.catalog.track_ids)
    bounds = zip(log.offsets[:-1], log.offsets[1:], strict=True)
    return sorted(
        (ids[log.column("track")[a:b]].tolist(), log.column("level")[a:b].tolist())
        for a, b in bounds
    )


def check(tmp_path, content, expected, **options):
    """The file of this content holds the expected plays."""
    file = tmp_path / "plays"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset = ingested(tmp_path, [file], **options)
    assert stored(dataset) == expected
    return dataset


def refusal(tmp_path, content, **options):
    file = tmp_path / "plays"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"plays|rows") as raised:
        ingested(tmp_path, [file], **options)
    assert not (tmp_path / "out").exists()
    return str(raised.value)


CSV = PLAIN.to_csv(index=False)
