"""Bad files of services that have no reader of their own to test: refused, or each row counted."""

import bz2
import io
import json
from dataclasses import dataclass
from functools import cache

import make_scrobbles
import numpy as np
import pandas as pd
import pytest
from make_histories import USERNAME
from make_scrobbles import scrobbled_history, with_ids
from read_histories import run

from musicbox_env.errors import InputError

BAD_ROWS = (3, 40, 41)


@dataclass(frozen=True)
class Service:
    """How a file of a service is taken apart and put together.

    Attributes:
        kind: ``json``, ``lines``, ``csv``, ``tsv`` or ``parquet``.
        time: Column that says when.
        song: Column that says what.
        within: Key of the list of records in a JSON object.
        header: Whether a table of text has one.
        packed: Whether it is compressed by bzip2.
    """

    kind: str
    time: str | int
    song: str | int
    within: str = ""
    header: bool = True
    packed: bool = False

    def frame(self, content):
        """Rows of a file, everything as it stands there."""
        if self.kind == "parquet":
            return pd.read_parquet(io.BytesIO(content)).astype(object)
        text = bz2.decompress(content).decode() if self.packed else content
        if self.kind == "json":
            rows = json.loads(text)
            return pd.DataFrame(rows[self.within] if self.within else rows, dtype=object)
        if self.kind == "lines":
            return pd.DataFrame([json.loads(line) for line in text.splitlines()], dtype=object)
        options = {"header": 0 if self.header else None, "keep_default_na": False, "dtype": str}
        return pd.read_csv(io.StringIO(text), sep="," if self.kind == "csv" else "\t", **options)

    def content(self, frame, encoding="utf-8"):
        """A file of these rows."""
        if self.kind == "parquet":
            buffer = io.BytesIO()
            mixed = frame.map(type).nunique() > 1
            frame.astype({c: str for c in frame.columns[mixed]}).to_parquet(buffer)
            return buffer.getvalue()
        if self.kind in ("json", "lines"):
            rows = frame.to_dict("records")
            lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            whole = json.dumps({self.within: rows} if self.within else rows, ensure_ascii=False)
            data = (whole if self.kind == "json" else lines).encode(encoding, "replace")
        else:
            sep = "," if self.kind == "csv" else "\t"
            text = frame.to_csv(sep=sep, index=False, header=self.header)
            data = text.encode(encoding, "replace")
        return bz2.compress(data) if self.packed else data


SERVICES = {
    "maloja": Service("json", "time", "track", within="scrobbles"),
    "pano": Service("lines", "timeMs", "track"),
    "libre_fm": Service("csv", "Time", "Track"),
    "tidal": Service("csv", "entry_date", "track_title"),
    "youtube": Service("json", "time", "title"),
    "lfm_1b": Service("tsv", 4, 3, header=False),
    "onion": Service("tsv", "timestamp", "track_id", packed=True),
    "pisa": Service("parquet", "ts", "product_track_id"),
    "dsg17": Service("csv", "ts_listen", "media_id"),
}


@pytest.fixture(scope="module")
def files():
    """A good file of each service."""
    heard = scrobbled_history(sessions=16)
    found = {}
    for name in SERVICES:
        if name == "dsg17":
            known = with_ids(heard, None).plays.assign(user=0)
            found[name] = make_scrobbles.dsg17_table(known).to_csv(index=False)
        else:
            service = getattr(make_scrobbles, name)
            found[name] = service(with_ids(heard, service))
    return found


def ingested(tmp_path, content, **options):
    """The account of a file; `run` asserts that it adds up."""
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "listens").write_bytes(data)
    return run(tmp_path, tmp_path / "listens", inferred_levels=True, **options).about["history"]


@pytest.fixture(scope="module")
def rows_of(files, tmp_path_factory):
    """The account of a good file of a service as it is put together here, by its name."""

    def ingested_once(name):
        service = SERVICES[name]
        content = service.content(service.frame(files[name]))
        return ingested(tmp_path_factory.mktemp(name), content)["rows"]

    return cache(ingested_once)


def turned_away(rows):
    """Rows that were rejected or left out."""
    return rows["rejected"] + sum(n for what, n in rows.items() if what.startswith("left out"))


def bad_value(frame, service, column, value):
    frame = frame.copy()
    frame[column] = frame[column].astype(object)
    for row in BAD_ROWS:
        frame.at[row, column] = value
    return service.content(frame)


BAD = ["nothing", "NaN", "text", "of 1970", "no song"]
ONE_OF_A_KIND = ("maloja", "pano", "tidal", "lfm_1b", "pisa")
"""Services of which each has a file of another kind."""


def services(*fast):
    """All services, those that are not named as slow ones."""
    slow = pytest.mark.slow
    return [name if name in fast else pytest.param(name, marks=slow) for name in SERVICES]


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("name", services(*ONE_OF_A_KIND))
def test_bad_rows_are_counted_one_by_one(tmp_path, files, rows_of, name, what):
    service = SERVICES[name]
    frame = service.frame(files[name])
    value = {"nothing": None, "NaN": np.nan, "text": "soon", "of 1970": 100}.get(what)
    column = service.song if what == "no song" else service.time
    before = turned_away(rows_of(name))
    rows = ingested(tmp_path, bad_value(frame, service, column, value), max_rejects=0.1)["rows"]
    assert rows["read"] == len(frame)
    assert turned_away(rows) == before + len(BAD_ROWS)


def without(frame, column):
    return frame.drop(columns=[column])


RUINS = {
    "empty": lambda content, service, frame: b"",
    "of zeros": lambda content, service, frame: b"\0" * 5_000,
    "no rows": lambda content, service, frame: service.content(frame.iloc[:0]),
    "no time": lambda content, service, frame: service.content(without(frame, service.time)),
    "no song": lambda content, service, frame: service.content(without(frame, service.song)),
    "times of words": lambda content, service, frame: service.content(
        frame.assign(**{str(service.time): "soon"}).set_axis(frame.columns, axis=1)
        if service.header
        else frame.replace({service.time: r".*"}, "soon", regex=True)
    ),
}


@pytest.mark.parametrize("ruin", RUINS)
@pytest.mark.parametrize("name", services(*ONE_OF_A_KIND))
def test_files_that_hold_nothing_are_refused_by_name(tmp_path, files, name, ruin):
    service = SERVICES[name]
    frame = service.frame(files[name])
    content = RUINS[ruin](files[name], service, frame)
    with pytest.raises(InputError, match=r"listens|rows") as refusal:
        ingested(tmp_path, content)
    assert USERNAME not in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", services(*ONE_OF_A_KIND, "onion"))
def test_a_file_that_is_cut_is_refused_or_read_to_the_cut(tmp_path, files, name):
    service = SERVICES[name]
    content = service.content(service.frame(files[name]))
    cut = content[: len(content) * 3 // 5]
    if service.kind == "parquet" or service.packed:
        with pytest.raises(InputError, match="listens"):
            ingested(tmp_path, cut)
        return
    history = ingested(tmp_path, cut, max_rejects=0.1)
    assert 0.4 < history["rows"]["read"] / len(service.frame(files[name])) < 0.8
    assert service.kind != "json" or "is damaged" in "".join(history["notes"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", [n for n, of in SERVICES.items() if of.kind != "parquet"])
def test_other_encodings_are_read_or_refused(tmp_path, files, rows_of, name, encoding):
    service = SERVICES[name]
    frame = service.frame(files[name])
    content = service.content(frame, encoding)
    if service.kind in ("json", "lines") and encoding == "cp1252":
        place = next(place for place, byte in enumerate(content) if byte > 127)
        named = (
            f"byte 0x{content[place]:02X} at place {place:,} is no UTF-8; if the text is Windows"
        )
        with pytest.raises(InputError, match=named):
            ingested(tmp_path, content)
        return
    assert ingested(tmp_path, content)["rows"] == rows_of(name)
