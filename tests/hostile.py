"""Files as nobody should write them, and what must hold of whatever `ingest` makes of them."""

import gzip
import io
import json
import random
import shutil
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from make_histories import account_records, extended_records, make_history
from make_logs import make_log

from musicbox_env.data.dataset import Dataset
from musicbox_env.errors import InputError
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.schema import MAX_SESSION_LENGTH, NUM_LEVELS, PLAY_COLUMNS

LOG = make_log(8)
NO_FILE_NAMED = ("No session is left", "No listening log among")


@cache
def _history():
    return make_history(60, tracks=100, seed=3)


def as_csv():
    return LOG.to_csv(index=False).encode()


def as_parquet():
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(LOG, preserve_index=False), buffer, row_group_size=40)
    return buffer.getvalue()


def as_workbook():
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(list(LOG.columns))
    for row in LOG.itertuples(index=False):
        sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def as_json_lines():
    return LOG.to_json(orient="records", lines=True).encode()


def as_history():
    return json.dumps(extended_records(_history()), ensure_ascii=False).encode()


def as_account_data():
    return json.dumps(account_records(_history())).encode()


def plain(content):
    return content


def zipped(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/first.txt", content)
        archive.writestr("second", b"title,number\nx,1\n")
    return buffer.getvalue()


def tarred(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, part in (("first", content), ("second", b"title,number\nx,1\n")):
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))
    return buffer.getvalue()


CONTENTS = {
    make.__name__: cache(make)
    for make in (as_csv, as_parquet, as_workbook, as_json_lines, as_history, as_account_data)
}
WRAPPINGS = {wrap.__name__: wrap for wrap in (plain, gzip.compress, zipped, tarred)}
PIECES = [
    b"",
    b"\0",
    b"\n",
    b'"',
    b"\xff\xfe",
    b"{",
    b"]" * 70,
    b"[" * 70,
    b"9" * 25,
    b"9" * 5000,
    b"1e99999999999999999999",
    b"NaN",
    b"\\ud800",
    b",,,,",
    b"\r",
    b"PK\x03\x04",
    b"PAR1",
    b"\x1f\x8b\x08",
    b"-1",
    b" " * 300,
]
"""What is put in the place of some bytes."""


@st.composite
def spoils(draw):
    """A function that spoils bytes: cut, flipped, swapped, repeated, overwritten."""
    kinds = st.sampled_from(["cut", "flip", "replace", "repeat", "drop"])
    what = draw(st.lists(kinds, min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    pieces = draw(
        st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), min_size=4, max_size=4)
    )

    def spoil(content):
        rng = random.Random(seed)
        data = bytearray(content)
        for kind, piece in zip(what, pieces, strict=False):
            if not data:
                break
            # Often near an end, where formats keep what they say of themselves.
            places = (rng.randrange(len(data)), rng.randrange(min(len(data), 300)))
            place = rng.choice([*places, len(data) - 1 - places[1]])
            size = rng.choice([1, 4, 30, 400])
            if kind == "cut":
                del data[place:]
            elif kind == "flip":
                data[place] ^= 1 << rng.randrange(8)
            elif kind == "replace":
                data[place : place + rng.choice([0, size])] = piece
            elif kind == "repeat":
                data[place:place] = data[place : place + size] * rng.choice([1, 2, 50])
            else:
                del data[place : place + size]
        return bytes(data)

    return spoil


@st.composite
def spoilt_files(draw):
    """Bytes of a format in a wrapping, spoilt inside it or outside."""
    content = CONTENTS[draw(st.sampled_from(sorted(CONTENTS)))]()
    wrap = WRAPPINGS[draw(st.sampled_from(sorted(WRAPPINGS)))]
    spoil = draw(spoils())
    return spoil(wrap(content)) if draw(st.booleans()) else wrap(spoil(content))


def require_accounted(content):
    """Ingest a file of these bytes: each row is accounted for, or the file is refused by name."""
    folder = Path(tempfile.mkdtemp())
    try:
        file = folder / "hostile.bin"
        file.write_bytes(content)
        config = IngestConfig(
            (str(file),), folder / "out", max_rejects=1.0, embeddings=False, progress=False
        )
        try:
            out = ingest(config)
        except InputError as error:
            if "hostile.bin" in str(error) or str(error).startswith(NO_FILE_NAMED):
                return "refused"
            raise
        require_whole(Dataset(out))
        return "read"
    finally:
        shutil.rmtree(folder)


def require_whole(dataset):
    """Every row read is a play, left out or rejected; what is stored is in range."""
    about, sessions = dataset.about, dataset.sessions
    lost = about["rejected"]["rows"] + about["filters"]["fewer_than_two_plays"]["plays_dropped"]
    if "history" in about:
        rows = dict(about["history"]["rows"])
        read = rows.pop("read")
        assert sum(rows.values()) == read
    else:
        assert sessions.num_plays + lost == about["rows_read"]
    with (dataset.folder / "rejects.csv").open() as listed:
        assert sum(1 for _ in listed) > 0
    assert np.diff(sessions.offsets).min() >= 2
    assert np.diff(sessions.offsets).max() <= MAX_SESSION_LENGTH
    for name, column in PLAY_COLUMNS.items():
        values = np.asarray(sessions.column(name))
        highest = len(dataset.catalog) if name == "track" else len(column.vocabulary or ()) or None
        if name == "level":
            highest = NUM_LEVELS
        if highest is not None:
            assert values.max() < highest, name
        if name != "date":
            assert values.min() >= -1, name
