"""No small file keeps the machine busy, and what is no file is not read."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_logs import make_log, passed_over, write_csv

from musicbox_env.data.dataset import Dataset
from musicbox_env.errors import InputError
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.bounds import Bounds
from musicbox_env.ingest.sources.files import find_files
from musicbox_env.ingest.sources.native import bounded_memory
from musicbox_env.ingest.tables import PassedOver

CSV = make_log(20).to_csv(index=False).encode()


def read_all(path, **options):
    """Rows of every table of a file, and what was passed over."""
    rows, refused = 0, []
    with open_tables(path, **options) as found:
        for table in found:
            if isinstance(table, PassedOver):
                refused.append(table.why)
            else:
                wanted = table.columns[:2]
                rows += sum(block.num_read for block in table.rows(wanted))
    return rows, refused


def write(tmp_path, content):
    path = tmp_path / "hostile"
    path.write_bytes(content)
    return path


def run(tmp_path, *sources):
    config = IngestConfig(
        tuple(map(str, sources)), tmp_path / "out", embeddings=False, progress=False
    )
    return Dataset(ingest(config))


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def wrapped(times, content=b"a,b\n" + b"1,2\n" * 30):
    for _ in range(times):
        content = gzip.compress(content, 1)
    return content


def test_wrappings_are_taken_off_to_a_depth(tmp_path):
    rows, refused = read_all(write(tmp_path, wrapped(4)))
    assert rows > 20
    assert not refused
    for times in (5, 2000):
        rows, refused = read_all(write(tmp_path, wrapped(times)))
        assert rows == 0
        assert refused == ["is wrapped more than 4 times over: unpack it"]


@pytest.mark.parametrize("wrap", [gzip.compress, lambda c: tar_of([("x", c)])], ids=["gz", "tar"])
def test_a_bomb_is_refused_where_it_goes_off(tmp_path, wrap):
    row = b"0" * 500 + b"," + b"0" * 500 + b"\n"
    path = write(tmp_path, wrap(b"a,b\n" + row * 8_000))
    with pytest.raises(
        InputError, match=r"hostile.*unpacks to more than 4,9[\d,]+ bytes.*unpack it"
    ):
        read_all(path, bounds=Bounds(harmless_bytes=4 << 20))
    assert read_all(path) == (8_000, [])


def test_what_unpacks_to_much_is_read_if_it_is_large(tmp_path):
    path = write(tmp_path, gzip.compress(CSV * 50))
    assert read_all(path, bounds=Bounds(harmless_bytes=1))[0] > 1000
    with pytest.raises(InputError, match=r"at most 2 times as much is read"):
        read_all(path, bounds=Bounds(harmless_bytes=1, expansion=2))


def test_a_sparse_member_is_a_bomb_without_packed_bytes(tmp_path):
    """A tar may say that a terabyte of nothing follows a few bytes."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(CSV * 10)
        file.truncate(1 << 40)
    subprocess.run(
        ["tar", "--sparse", "-cf", "hostile", "sparse"], cwd=tmp_path, check=True, timeout=60
    )
    with pytest.raises(InputError, match="a line of more than 8,388,608 bytes"):
        read_all(tmp_path / "hostile")
    with pytest.raises(InputError, match="unpacks to more than"):
        read_all(tmp_path / "hostile", bounds=Bounds(harmless_bytes=1 << 20, expansion=1))


@pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])
def test_members_are_counted(tmp_path, pack):
    path = write(tmp_path, pack([(f"{i}.txt", b"") for i in range(101)]))
    with pytest.raises(InputError, match=r"holds more than 100 files.*name the folder"):
        read_all(path, bounds=Bounds(members=100))
    assert Bounds().members == 10_000


def test_the_list_of_members_is_measured_before_it_is_read(tmp_path):
    path = write(tmp_path, zip_of([("x" * 60_000 + str(i), b"") for i in range(150)]))
    with pytest.raises(InputError, match="list of its members takes"):
        read_all(path)


BLANK = {
    "csv": CSV + b"\n" * 1_200_000,
    "csv of dos": CSV + b"\r\n" * 1_200_000,
    "wide": b",".join(b"c%d" % i for i in range(9000)) + b"\n" * 100_000,
    "blanks": CSV + b" \n" * 300_000,
}


@pytest.mark.parametrize("kind", BLANK)
def test_blank_lines_cost_no_more_than_they_weigh(tmp_path, kind):
    path = write(tmp_path, gzip.compress(BLANK[kind]))
    began = time.process_time()
    with pytest.raises(InputError, match=r"hostile: .*(blank lines|is no table of them)"):
        read_all(path)
    assert time.process_time() - began < 10


def test_blank_lines_among_rows_are_no_fault(tmp_path):
    lines = CSV.replace(b"\n", b"\n" * 50)
    assert read_all(write(tmp_path, lines))[0] == read_all(write(tmp_path, CSV))[0]


@pytest.mark.parametrize("of", ["csv", "gzip"])
def test_time_is_bounded(tmp_path, of):
    path = write(tmp_path, CSV if of == "csv" else gzip.compress(CSV))
    with pytest.raises(InputError, match=r"hostile: has taken more than 0 s.*smaller files"):
        read_all(path, bounds=Bounds(seconds=0, seconds_per_mb=0))


@pytest.mark.parametrize("number", [9, 1, 97, 98])
def test_a_way_of_packing_that_is_not_read_is_named_and_the_rest_is_read(tmp_path, number):
    content = bytearray(zip_of([("a.csv", CSV), ("b.csv", CSV)]))
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", content, content.index(magic) + offset, number)
    rows, refused = read_all(write(tmp_path, bytes(content)))
    assert rows > 20
    assert len(refused) == 1
    called = {9: "Deflate64", 98: "PPMd"}.get(number, f"method {number} of zip")
    assert f"is packed by {called}, which is not read (unsupported compression)" in refused[0]


def test_what_a_member_breaks_by_is_named_with_it(tmp_path):
    content = bytearray(zip_of([("good.csv", CSV), ("bad.csv", CSV)]))
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 16, 12345)
    with pytest.raises(InputError, match=r"hostile:bad\.csv: .*Bad CRC-32.* behind byte [\d,]+\."):
        read_all(write(tmp_path, bytes(content)))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_every_decoder_names_the_file(tmp_path, method):
    content = bytearray(zip_of([("a.csv", CSV)], method))
    content[60:80] = b"\xff" * 20
    with pytest.raises(InputError, match=r"hostile:a\.csv: cannot be read to its end"):
        read_all(write(tmp_path, bytes(content)))


@pytest.mark.parametrize("of", ["csv", "json", "parquet"])
def test_damage_says_where(tmp_path, of):
    frame = make_log(1500)
    if of == "json":
        content, place = frame.to_json(orient="records").encode()[:-5000], "record"
    elif of == "csv":
        content, place = gzip.compress(frame.to_csv(index=False).encode())[:-3000], "byte"
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, row_group_size=1000)
        content = bytearray(buffer.getvalue())
        second = len(content) // 2
        content[second : second + 9000] = b"\xff" * 9000
        place = "row"
    with pytest.raises(InputError, match=rf"hostile: cannot be read.* behind {place} [\d,]+\."):
        read_all(write(tmp_path, bytes(content)))


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_what_is_no_file_is_refused_by_name(tmp_path, fifo):
    for path, kind in ((fifo, "a pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(InputError, match=rf"{path}: is {kind}, not a file; write"):
            run(tmp_path, path)
        with pytest.raises(InputError, match=rf"{path}: is {kind}"), open_tables(path):
            pass
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="zero: is a device"):
        run(tmp_path, tmp_path / "zero")


def test_a_folder_is_read_past_what_is_no_file(tmp_path):
    logs = tmp_path / "logs"
    write_csv(make_log(10), logs / "log.csv")
    os.mkfifo(logs / "pipe")
    (logs / "again").symlink_to(logs)
    (logs / "zero").symlink_to("/dev/zero")
    (logs / "nowhere").symlink_to(logs / "gone")
    whys = passed_over(run(tmp_path, logs))
    assert {Path(name).name: why.split()[2] for name, why in whys.items()} == {
        "pipe": "pipe,",
        "again": "link",
        "zero": "device,",
        "nowhere": "link",
    }


def test_a_growing_file_is_read_to_where_it_ended_when_it_was_opened(tmp_path):
    path = write(tmp_path, CSV)
    with open_tables(path) as found, path.open("ab") as more:
        more.write(CSV.partition(b"\n")[2])
        more.flush()
        rows = sum(len(block) for block in next(found).rows(("session_id",)))
    assert rows == CSV.count(b"\n") - 1


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_names_that_are_not_utf8_spoil_nothing(tmp_path):
    folder = os.fsencode(tmp_path / "logs")
    os.mkdir(folder)
    for name, content in ((b"a\xff.csv", CSV + b"x,y\n"), (b"b\xfe\n\x1b[31m.txt", b"")):
        with open(folder + b"/" + name, "wb") as file:
            file.write(content)
    dataset = run(tmp_path, tmp_path / "logs")
    (source,) = dataset.about["sources"]
    assert source["file"].endswith(r"/a\xff.csv")
    (name,) = passed_over(dataset)
    assert name.endswith(r"/b\xfe\n\x1b[31m.txt")
    assert r"a\xff.csv" in (dataset.folder / "rejects.csv").read_text()


def test_names_of_members_are_escaped(tmp_path):
    path = write(tmp_path, tar_of([("a\udcff\x1b[31m.csv", CSV), ("b\u202e.txt", b"")], "w"))
    with open_tables(path) as found:
        names = [table.name for table in found]
    assert names == [rf"{path}:a\xff\x1b[31m.csv", rf"{path}:b\u202e.txt"]


@pytest.mark.parametrize("target", ["gone", "link.csv"])
def test_a_pattern_that_finds_a_link_to_nothing_names_it(tmp_path, target):
    make_log(20).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "link.csv").symlink_to(tmp_path / target)
    found = find_files([tmp_path / "*.csv"])
    assert [file.name for file in found.files] == ["a.csv"]
    assert [Path(passed.name).name for passed in found.passed_over] == ["link.csv"]


# Tables whose messages once misled


@pytest.mark.parametrize("before", [b"", b"session_id\n"])
def test_a_header_longer_than_what_is_looked_at_is_named(tmp_path, before):
    names = ",".join(f"column_{number}" for number in range(100_000)).encode()
    path = write(tmp_path, before + names + b"\n" + b"1," * 99_999 + b"1\n")
    rows, refused = read_all(path)
    if before == b"session_id\n":  # the header is the first line, which is whole
        assert rows == 2
        return
    assert refused == [refused[0]]
    assert refused[0].startswith("begins with a line of more than 65,536 bytes")


@pytest.mark.parametrize("end", [b"", b"\n" + b"1,2\n" * 9])
def test_a_line_without_end_says_behind_which_and_what_may_have_made_it(tmp_path, end):
    path = write(tmp_path, b"a,b\n" + b"1,2\n" * 9 + b'1,"' + b"x" * 18_000_000 + end)
    with pytest.raises(InputError, match=r"hostile: holds a line .* behind line .* quote"):
        read_all(path)


def parquet_of(rows, text, *, dictionaries):
    """A small file whose one text is named in all its rows."""
    codes = pa.array(np.zeros(rows, np.int32))
    columns = {"a": pa.DictionaryArray.from_arrays(codes, pa.array([text])), "b": codes}
    file, most = io.BytesIO(), 1 << 22
    pq.write_table(
        pa.table(columns), file, dictionary_pagesize_limit=most, store_schema=dictionaries
    )
    return file.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="only there memory can be bounded")
@pytest.mark.parametrize("dictionaries", [True, False], ids=["as codes", "as text"])
def test_what_parquet_decodes_at_once_is_bounded(tmp_path, dictionaries):
    """65,536 rows of 600 kB are 39 GB, in some thousand bytes."""
    path = write(tmp_path, parquet_of(70_000, "x" * 600_000, dictionaries=dictionaries))
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match=r"hostile: unpacks to more than 2,147.* in 65,536 rows"):
        read_all(path)


@pytest.mark.parametrize("dictionaries", [True, False], ids=["as codes", "as text"])
def test_what_parquet_decodes_in_all_is_bounded(tmp_path, dictionaries):
    path = write(tmp_path, parquet_of(400_000, "text", dictionaries=dictionaries))
    assert read_all(path) == (400_000, [])
    with pytest.raises(InputError, match="hostile: unpacks to more than"):
        read_all(path, bounds=Bounds(harmless_bytes=1 << 20))


def test_a_bound_of_memory_is_lifted_again(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), bounded_memory(1 << 28):
        np.ones(1 << 30, np.int8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    np.ones(1 << 29, np.int8)
