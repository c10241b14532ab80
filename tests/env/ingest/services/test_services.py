"""A service's reader may filter, convert and multiply rows; each row stays in the account."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from read_histories import run, stored

from musicbox_env.ingest import registry
from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.sources.csv_tables import CsvTable
from musicbox_env.ingest.tables import ConvertedTable, Rows

COLUMNS = ("listener", "kind", "began", "songs")
MAPPING = PlayMapping(time="time", user="listener", track="song", played_ms="ms", duration_ms="ms")


def recognize(table):
    """A made-up service: no header, a line a listener, songs of three minutes in a list."""
    if not isinstance(table, CsvTable) or not table.stream.head.startswith(b"hum;"):
        return None
    readable = table.read_as(replace(table.dialect, header=COLUMNS, preamble=0, named=False))
    songs = ConvertedTable(readable, COLUMNS, a_row_a_song)
    return HistoryFormat(name="Hummer", mapping=MAPPING, table=songs, flags_trusted=True)


def a_row_a_song(rows):
    kinds = rows.columns["kind"].to_pylist()
    rows = rows.without(np.array([kind == "ad" for kind in kinds]), "advertisement")
    songs = [text.split() for text in rows.columns["songs"].to_pylist()]
    counts = [len(of) for of in songs]
    row = np.repeat(np.arange(len(rows)), counts)
    place = np.concatenate([np.arange(n) for n in counts])
    began = pd.to_datetime(rows.columns["began"].to_pylist(), utc=True).as_unit("s").astype("int64")
    times = began.to_numpy()[row] + 180 * place
    columns = {
        "time": pa.array(times),
        "listener": rows.columns["listener"].take(pa.array(row)),
        "song": pa.array([song for of in songs for song in of]),
        "ms": pa.array(np.full(len(row), 180_000)),
    }
    return replace(rows, columns=columns, lines=rows.lines[row])


@pytest.fixture
def hummer(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "SERVICES", (*registry.SERVICES, recognize))
    songs = " ".join(f"s{i}" for i in range(12))
    lines = [
        f"hum;{'ad' if n % 3 == 1 else 'song'};2024-01-0{n + 1}T10:00:00Z;{songs}" for n in range(6)
    ]
    lines.insert(3, "hum;song")
    (tmp_path / "hummer.txt").write_text("\n".join(lines))
    return tmp_path / "hummer.txt"


def test_a_reader_filters_converts_and_multiplies_rows(tmp_path, hummer):
    dataset = run(tmp_path, hummer, max_rejects=0.1)
    history = dataset.about["history"]
    assert set(stored(dataset)) == {tuple(f"s{i}" for i in range(12))}
    assert history["rows"]["left out: advertisement"] == 2
    assert history["rows"]["rejected"] == 1
    assert history["rows"]["plays in sessions"] == 48
    assert dataset.about["rows_read"] == 51
    assert [*history["read_as"]] == ["Hummer"]


@pytest.mark.parametrize("most", [12, 13, 14, 20, 40])
def test_a_limit_of_rows_counts_what_is_left_out(tmp_path, hummer, most):
    dataset = run(tmp_path, hummer, max_rows=most, max_rejects=0.1)
    assert dataset.about["rows_read"] == most
    assert dataset.about["history"]["rows"]["plays in sessions"] >= 12


def test_first_rows_in_the_order_of_the_file():
    rows = Rows({"x": pa.array([1, 2, 3, 4])}, np.array([1, 3, 4, 7]), np.array([5]))
    rows = rows.without(np.array([False, True, False, False]), "ad")
    rows = rows.without(np.array([True, False, False]), "video").without(
        np.array([False, True]), "ad"
    )
    assert (rows.num_read, rows.columns["x"].to_pylist(), rows.lines.tolist()) == (5, [3], [4])
    assert {what: lines.tolist() for what, lines in rows.left_out.items()} == {
        "ad": [3, 7],
        "video": [1],
    }
    for count, left in enumerate(
        [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 1), (1, 0, 1, 1), (1, 1, 1, 1), (1, 1, 2, 1)]
    ):
        first = rows.first(count)
        assert first.num_read == count
        assert (len(first), len(first.malformed), *map(len, first.left_out.values())) == left
