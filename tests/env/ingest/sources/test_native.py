"""Native parsers crash on nothing, and none of their threads outlives its use."""

import gzip
import io
import random
import subprocess
import sys
import time

import pytest
from make_logs import make_log

from musicbox_env.errors import InputError
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.native import Utf8Stream

LOG = make_log(60)


def read_a(path):
    with open_tables(path) as found:
        for table in found:
            list(table.rows(("a",)))


ENDS = """
import sys, time
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.files import CountedFile


def slow(self, size=-1):
    time.sleep(0.5)
    return b"1,2\\n" * (1 << 14)


CountedFile.read = slow
with open_tables(sys.argv[1]) as found:
    table = next(found)
    rows = table.rows(table.columns[:1])
    next(rows)
    if sys.argv[2] == "raise":
        raise ValueError("a clean message")
    sys.exit(2)
"""


@pytest.mark.parametrize("how", ["exit", "raise"])
def test_a_process_may_end_while_a_csv_is_read(tmp_path, how):
    """Where Arrow's thread was left inside Python, every such process was aborted."""
    path = tmp_path / "x.csv"
    path.touch()
    ended = subprocess.run([sys.executable, "-c", ENDS, path, how], capture_output=True)
    assert ended.returncode == {"exit": 2, "raise": 1}[how], ended.stderr.decode()
    assert b"Fatal Python error" not in ended.stderr


@pytest.mark.parametrize("spoilt", [False, True])
def test_no_thread_reads_once_the_tables_are_closed(tmp_path, monkeypatch, spoilt):
    content = LOG.to_csv(index=False).encode() * 20
    path = tmp_path / "x.csv"
    path.write_bytes(gzip.compress(content)[: -5000 if spoilt else None])
    began = time.monotonic()
    try:
        with open_tables(path) as found:
            for _ in next(found).rows(("session_id",)):
                if not spoilt:
                    break
    except InputError:
        assert spoilt
    reads = []
    monkeypatch.setattr(
        "musicbox_env.ingest.sources.files.CountedFile.read", lambda *_: reads.append(1)
    )
    time.sleep(0.05)
    assert not reads
    assert time.monotonic() - began < 10, "the wait for Arrow's thread ran out"


@pytest.mark.parametrize("number", ["9" * 700, "-" + "9" * 20_000, "1" * 300_000])
@pytest.mark.parametrize("before", [0, 16_000, 16_384 - 300])
def test_a_number_of_many_digits_is_damage(tmp_path, number, before):
    """Of 4,301 digits and more, the parser raised what it had not set, or crashed."""
    path = tmp_path / "x.json"
    path.write_text(f'[{{"a": "{"x" * before}", "b": 1}}, {{"a": {number}}}]')
    with pytest.raises(InputError, match=r"x\.json: .*more than 600 digits.* behind record [01]\."):
        read_a(path)


def test_numbers_and_titles_of_some_digits_are_read(tmp_path):
    path = tmp_path / "x.json"
    digits = "0123456789" * 40
    path.write_text(f'[{{"a": {"7" * 500}, "b": "{digits}", "c": 1e-300}}]')
    with open_tables(path) as found:
        (rows,) = next(found).rows(("a", "b", "c"))
    assert rows.columns["a"].to_pylist() == ["7" * 500]
    assert rows.columns["b"].to_pylist() == [digits]


@pytest.mark.parametrize("value", ["1e99999999999999999999999", "[" * 5000, '{"a":' * 70, '"\xff"'])
def test_what_json_breaks_by_is_named(tmp_path, value):
    path = tmp_path / "x.json"
    path.write_bytes(b'[{"a": 1}, {"a": ' + value.encode("latin-1") + b"}]")
    with pytest.raises(InputError, match=r"x\.json: .* behind record 1\."):
        read_a(path)


def test_a_malformed_row_may_be_no_utf8(tmp_path, capfd):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\nBeyonc\xe9,1\nMot\xf6rhead,1,2\nBj\xc3\xb6rk,2\n")
    with open_tables(path) as found:
        (rows,) = next(found).rows(("a",))
    assert rows.columns["a"].to_pylist() == ["Beyonc\xe9", "Bj\xf6rk"]
    assert rows.malformed.tolist() == [3]
    assert capfd.readouterr().err == ""


def test_bytes_are_read_the_same_however_they_are_cut():
    rng = random.Random(0)
    pieces = [b"a", "\xe9".encode(), "\U0001f600".encode(), b"\xe9", b"\xff", b"\xf0\x9f", b"b\n"]
    for _ in range(500):
        raw = b"".join(rng.choices(pieces, k=rng.randrange(30)))
        stream, size = io.BytesIO(raw), rng.randrange(1, 7)
        found = []
        utf8 = Utf8Stream(stream)
        while data := utf8.read(size):
            assert len(data) <= size
            found.append(data)
        expected = raw.decode(errors="musicbox-windows-1252")
        assert b"".join(found).decode() == expected
        assert "\ufffd" not in expected
