"""Formats are told from the content; rows keep their lines; damage is named."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_logs import make_log

from musicbox_env.errors import InputError
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources import csv_tables
from musicbox_env.ingest.sources.files import find_files
from musicbox_env.ingest.tables import DamagedFileError, PassedOver, as_strings

WANTED = ("session_id", "session_position", "premium")


def as_tar(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def as_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def as_zstd(content):
    return pa.compress(content, "zstd", asbytes=True)


def as_parquet(frame):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), buffer)
    return buffer.getvalue()


def read_all(path, wanted=WANTED, as_codes=("session_position", "premium")):
    """All tables of a file: frames by name, and what was passed over."""
    frames, refused = {}, []
    with open_tables(path) as tables_of_file:
        for table in tables_of_file:
            if isinstance(table, PassedOver):
                refused.append(table)
                continue
            parts = [
                pd.DataFrame({n: as_strings(c).to_pylist() for n, c in rows.columns.items()})
                for rows in table.rows(wanted, as_codes=as_codes)
            ]
            frames[table.name] = pd.concat(parts, ignore_index=True)
    return frames, refused


LOG = make_log(20)
CSV = LOG.to_csv(index=False).encode()


@pytest.mark.parametrize(
    ("content", "members"),
    [
        (CSV, [""]),
        (b"\xef\xbb\xbf" + CSV, [""]),
        (CSV.replace(b"\n", b"\r\n"), [""]),
        (CSV.rstrip(b"\n"), [""]),
        (gzip.compress(CSV), [""]),
        (gzip.compress(CSV[:5000]) + gzip.compress(CSV[5000:]), [""]),
        (gzip.compress(CSV) + b"\0" * 512, [""]),
        (as_tar({"a.csv": CSV, "../b.csv": CSV}), [":a.csv", ":../b.csv"]),
        (as_tar({"a.csv": CSV}, mode="w"), [":a.csv"]),
        (as_tar({"a.csv.gz": gzip.compress(CSV)}), [":a.csv.gz"]),
        (as_zip({"d/a.csv": CSV, "/b": gzip.compress(CSV)}), [":d/a.csv", ":/b"]),
        (bz2.compress(CSV[:5000]) + b"\0" * 512 + bz2.compress(CSV[5000:]) + b"\0", [""]),
        (bz2.compress(b"") + bz2.compress(CSV), [""]),
        (as_zstd(CSV[:5000]) + as_zstd(CSV[5000:]), [""]),
        (b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + as_zstd(CSV), [""]),
        (as_tar({"a": CSV}, "w") + as_tar({"b": CSV}, "w"), [":a", ":b"]),
        (as_tar({"a": CSV}) + as_tar({"b": CSV}), [":a", ":b"]),
        (bz2.compress(as_tar({"a": CSV}, "w")) + bz2.compress(b"\0" * 700), [":a"]),
        (as_zip({"a.csv/": CSV, "d/": b""}), [":a.csv/"]),
        (as_zip({"a": CSV}) + b"\0" * 512, [":a"]),
        (as_parquet(LOG), [""]),
        (as_tar({"a.parquet": as_parquet(LOG)}), [":a.parquet"]),
        (as_zip({"a.parquet": as_parquet(LOG)}), [":a.parquet"]),
        (gzip.compress(as_parquet(LOG)), [""]),
    ],
    ids=lambda value: None if isinstance(value, bytes) else "",
)
def test_formats_are_told_from_content(tmp_path, content, members):
    path = tmp_path / "log.tar.gz"
    path.write_bytes(content)
    frames, refused = read_all(path)
    assert list(frames) == [f"{path}{member}" for member in members]
    assert not refused
    for frame in frames.values():
        pd.testing.assert_frame_equal(frame, LOG[list(WANTED)], check_dtype=False)
    assert [file.name for file in tmp_path.iterdir()] == ["log.tar.gz"], "an archive was unpacked"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is neither"),
        ("\0".join("binary").encode()[1:] + b"\x07\0\0", "is neither"),
        (lzma.compress(CSV), "is packed by xz, which is not read: unpack it"),
    ],
    ids=["no bytes", "empty gzip", "picture", "binary", "xz"],
)
def test_what_holds_no_table_is_handed_back(tmp_path, content, why):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    frames, refused = read_all(path)
    assert not frames
    assert refused[0].name == str(path)
    assert why in refused[0].why


def test_an_archive_within_an_archive_is_passed_over(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(as_tar({"inner.zip": as_zip({"a.csv": CSV}), "b.csv": CSV}))
    frames, refused = read_all(path)
    assert list(frames) == [f"{path}:b.csv"]
    why = "is an archive within an archive: unpack the outer one"
    assert refused == [PassedOver(f"{path}:inner.zip", why)]


def flipped(content, place):
    """The content with one bit of the byte at this place changed."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


SPOILT_STREAMS = {
    name: pack(CSV[:5000]) + flipped(pack(CSV[5000:]), 0)
    for name, pack in (("bzip2", bz2.compress), ("gzip", gzip.compress), ("zstd", as_zstd))
}
"""Two streams, a bit of the head of the second changed."""


@pytest.mark.parametrize(
    "content",
    [
        SPOILT_STREAMS["bzip2"],
        SPOILT_STREAMS["gzip"],
        SPOILT_STREAMS["zstd"],
        bz2.compress(CSV) + b"garbage",
        bz2.compress(CSV)[:-3],
        gzip.compress(CSV) + b"garbage",
        as_zstd(CSV) + b"garbage",
        as_zstd(CSV)[:-3],
        as_tar({"a.csv": CSV}, "w") + CSV,
        flipped(as_tar({"a.csv": CSV, "b.csv": CSV}, "w"), 512 + -(-len(CSV) // 512) * 512),
        as_tar({"a.csv": CSV}, "w")[: 512 + -(-len(CSV) // 512) * 512],
        gzip.compress(CSV)[:-2000],
        gzip.compress(CSV)[:-3],
        gzip.compress(CSV)[:2000] + b"\0\0" + gzip.compress(CSV)[2002:],
        as_tar({"a.csv": CSV, "b.csv": CSV})[:-1000],
        as_tar({"a.csv": CSV})[:-5],
        as_zip({"a.csv": CSV})[:-200],
        as_parquet(LOG)[:-100],
    ],
    ids=[
        *("second bzip2", "second gzip", "second zstd", "behind bzip2", "bzip2 tail"),
        *("behind gzip", "behind zstd", "zstd tail", "behind tar", "second header", "no end"),
        *("gzip", "gzip tail", "gzip middle", "tar.gz", "tar.gz tail", "zip", "parquet"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "cut.csv"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"cut\.csv.*cut short or damaged"):
        read_all(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (as_zip({"a": CSV}) + as_zip({"b": CSV}), "bytes stand before the members"),
        (as_zip({"a": CSV}) + b"a,b\n1,2\n", "8 bytes stand behind the members"),
        (as_zip({"a": CSV}) + as_zip({"b": CSV})[:500], "500 bytes stand behind the members"),
    ],
    ids=["zip", "text", "cut zip"],
)
def test_what_is_joined_to_a_zip_is_refused(tmp_path, content, why):
    path = tmp_path / "joined.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"joined\.zip.*{why}.*Give each by itself"):
        read_all(path)


@pytest.mark.parametrize(("begin", "count"), [(40, 1), (60, 30), (45, 400)])
def test_a_zip_that_lacks_bytes_is_damaged(tmp_path, begin, count):
    path = tmp_path / "x.zip"
    whole = as_zip({"a": CSV, "b": CSV})
    path.write_bytes(whole[:begin] + whole[begin + count :])
    with pytest.raises(DamagedFileError, match=rf"x\.zip.*missing of .*: {count}\).*damaged"):
        read_all(path)


def test_a_zip_behind_a_program_is_named(tmp_path):
    path = tmp_path / "extracts_itself"
    path.write_bytes(b"MZ\x90\0" * 100 + as_zip({"a": CSV}))
    frames, refused = read_all(path)
    assert not frames
    assert "is neither" in refused[0].why


def test_members_of_a_tar_that_are_no_files_are_listed(tmp_path):
    path = tmp_path / "x.tar"
    kinds = {
        "to": (tarfile.SYMTYPE, "is a link"),
        "same": (tarfile.LNKTYPE, "is a link"),
        "pipe": (tarfile.FIFOTYPE, "is a pipe"),
        "disk": (tarfile.BLKTYPE, "is a device"),
        "rest": (b"M", "is of a kind"),
    }
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, (kind, _) in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere"
            archive.addfile(info)
        info = tarfile.TarInfo("a.csv")
        info.size = len(CSV)
        archive.addfile(info, io.BytesIO(CSV))
    frames, refused = read_all(path)
    assert list(frames) == [f"{path}:a.csv"]
    assert [of.name for of in refused] == [f"{path}:{name}" for name in kinds]
    for of, (_, why) in zip(refused, kinds.values(), strict=True):
        assert of.why.startswith(why)


def lines_of(path, wanted=("a", "b")):
    good, bad = {}, []
    with open_tables(path) as found:
        for rows in next(found).rows(wanted):
            good.update(zip(rows.lines.tolist(), rows.columns["a"].to_pylist(), strict=True))
            bad.extend(rows.malformed.tolist())
    return good, bad


def test_lines_are_those_of_the_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b,c\nl2,0,0\n\nl4,0\nl5,0,0\nl6,0,0,0\n,,\nl8,0,0\n"l9,0,0\nl10,0,0\n')
    good, bad = lines_of(path)
    assert good == {2: "l2", 5: "l5", 8: "l8"}
    assert bad == [4, 6, 9, 10]


def test_a_field_may_hold_lines(tmp_path):
    """Prose with commas, a title broken in two, and what is spoilt between them."""
    path = tmp_path / "x.csv"
    text = (
        'a,note,b\nl2,"good, loud\n\nand, yes, long\nbye",0\nl6,0\n"l7\nlive",,1\nl9,,2\n'
        'l10,"0\n0",0,0,0\nl12,,3\n'
    )
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes(text.replace("\n", end).encode())
        good, bad = lines_of(path)
        assert good == {2: "l2", 7: f"l7{end}live", 9: "l9", 12: "l12"}
        assert bad == [6, 10, 11]


@pytest.mark.parametrize("end", ["\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("closing", ["before", "behind"])
@pytest.mark.parametrize("rows", [2, 3, 400])
def test_rows_between_stray_quotes_are_malformed(tmp_path, rows, closing, column, delimiter, end):
    """A quote before a field, and another one before or behind one of a later row."""
    table = [[f"l{line}", "x y", f"{line}.5", "z"] for line in range(2, 1002)]
    first, last = table[500], table[499 + rows]
    first[column] = '"' + first[column]
    last[column] = '"' + last[column] if closing == "before" else last[column] + '"'
    path = tmp_path / "x.csv"
    path.write_bytes(end.join(map(delimiter.join, [["a", "c", "d", "b"], *table, []])).encode())
    good, bad = lines_of(path)
    assert bad == list(range(502, 502 + rows))
    assert list(good) == [*range(2, 502), *range(502 + rows, 1002)]
    assert all(text == f"l{line}" for line, text in good.items())


def test_a_header_in_another_order_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,c,b\n1,2,3\n\na,b,c\n4,5,6\n")
    assert lines_of(path, ["a"])[0] == {2: "1", 4: "a", 5: "4"}
    with pytest.raises(InputError, match=r"x\.csv: line 4 names the columns in another order"):
        lines_of(path)
    for header in ("A,B,C", "A, B,C", "\ufeffA,B,C"):
        path.write_text(f"a,c,b\n1,2,3\n{header}\n4,5,6\n", encoding="utf-8")
        with pytest.raises(InputError, match="line 3 names the columns in another order"):
            lines_of(path)
        path.write_text(f"a,b,c\n1,2,3\n{header}\n4,5,6\n", encoding="utf-8")
        assert lines_of(path)[0].keys() == {2, 3, 4}


@pytest.mark.parametrize("rows", [20, 7])
def test_joined_parquet_files_are_refused(tmp_path, rows):
    path = tmp_path / "joined.parquet"
    path.write_bytes(as_parquet(LOG) + as_parquet(LOG.head(rows)))
    with pytest.raises(InputError, match=r"joined\.parquet: holds several Parquet files"):
        read_all(path)


def test_lines_hold_across_blocks(tmp_path, monkeypatch):
    """Against counting: every field says its own line, in thousands of rows, some spoilt."""
    monkeypatch.setattr(csv_tables, "BLOCK_BYTES", 1500)
    rng = np.random.default_rng(0)
    text, expected, spoilt = ["a,b\n"], {}, []
    for line in range(2, 4000):
        kind = rng.random()
        if kind < 0.05:
            text.append("\n")
        elif kind < 0.1:
            text.append(f"{line},1,2\n")
            spoilt.append(line)
        else:
            text.append(f"{line},1\n")
            expected[line] = str(line)
    path = tmp_path / "x.csv"
    path.write_text("".join(text))
    assert lines_of(path) == (expected, spoilt)


def test_the_first_rows_count_malformed_ones(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,0\nbad\n2,0\nbad\n3,0\n")
    with open_tables(path) as found:
        (rows,) = next(found).rows(("a", "b"))
    for count, lines, num_bad in [
        (0, [], 0),
        (1, [2], 0),
        (2, [2], 1),
        (3, [2, 4], 1),
        (9, [2, 4, 6], 2),
    ]:
        first = rows.first(count)
        assert first.lines.tolist() == lines
        assert len(first.malformed) == num_bad
        assert len(first.columns["a"]) == len(lines)


def test_bytes_that_are_not_utf8_are_windows_1252(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\nBeyonc\xe9,1\nBeyonc\xe8,1\n")
    assert lines_of(path)[0] == {2: "Beyoncé", 3: "Beyoncè"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("above", [(), ("My plays", ""), ("# a 12 inch",)])
def test_names_of_columns_may_hold_line_ends(tmp_path, end, delimiter, above):
    """As spreadsheets break them; the lines of rows are those of the file."""
    path = tmp_path / "x.csv"
    names = ['"the\nfirst"', "b", '"c,\nin ""all""\n(s)"']
    rows = [["one", "1", "2"], ['"t\nwo"', "3", "4"], ["three", "5", "6"]]
    text = "\n".join([*above, *map(delimiter.join, [names, *rows])])
    path.write_bytes(text.replace("\n", end).encode())
    with open_tables(path) as (table,):
        assert table.columns == ("the first", "b", 'c, in "all" (s)')
        assert table.sample()["b"][0] == "1"
        blocks = [*table.rows(("the first",))]
    read = [text for rows in blocks for text in as_strings(rows.columns["the first"]).to_pylist()]
    assert read == ["one", f"t{end}wo", "three"]
    assert [line - len(above) for rows in blocks for line in rows.lines] == [5, 6, 8]


@pytest.mark.parametrize("text", ['a,b\n7" mix,1\n12" mix,2\n', 'a,b\n"x,1\ny",2\nz,3\n'])
def test_quotes_of_rows_do_not_lengthen_a_header(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with open_tables(path) as (table,):
        assert table.columns == ("a", "b")
        assert table.dialect.lines_above == 1


def test_columns_that_nobody_wants_may_repeat(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,x,b,x\n1,2,3,4\n")
    assert lines_of(path)[0] == {2: "1"}
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ValueError, match="names a more than once"):
        lines_of(path)


def test_parquet_types_become_text(tmp_path):
    frame = pd.DataFrame(
        {
            "a": ["x", None, "y"],
            "b": [True, None, False],
            "c": pd.array([1, 2, None], dtype="Int64"),
            "d": [1.0, 2.0, np.nan],
            "e": pd.to_datetime(["2018-07-15", None, "2032-01-01"]).astype("datetime64[s]"),
            "f": pd.Categorical(["p", "q", "p"]),
        }
    )
    path = tmp_path / "x"
    path.write_bytes(as_parquet(frame))
    names = tuple(frame.columns)
    frames, _ = read_all(path, names, as_codes=names[1:])
    rows = frames[str(path)].astype(object)
    rows = rows.where(rows.notna(), None).to_numpy().tolist()
    assert [row[0] for row in rows] == ["x", None, "y"]
    assert [row[1] for row in rows] == ["true", None, "false"]
    assert [row[2] for row in rows] == ["1", "2", None]
    assert [float(row[3]) for row in rows[:2]] == [1, 2]
    assert [str(row[4])[:10] for row in rows] == ["2018-07-15", "None", "2032-01-01"]
    assert [row[5] for row in rows] == ["p", "q", "p"]


def test_sources_are_expanded_once_in_order(tmp_path):
    for name in ("b/2.csv", "b/1.csv", "b/deep/3.csv", "a.csv", "out/plays.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = find_files(
        [tmp_path / "b", tmp_path / "*.csv", tmp_path / "b/1.csv", tmp_path],
        exclude=[tmp_path / "out"],
    )
    names = [str(file.relative_to(tmp_path)) for file in found.files]
    assert names == ["b/1.csv", "b/2.csv", "b/deep/3.csv", "a.csv"]
    with pytest.raises(FileNotFoundError, match=r"nothing\*: no such file"):
        find_files([tmp_path / "nothing*"])


def test_all_bytes_are_reported(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(CSV))
    seen = []
    with open_tables(path, on_bytes=seen.append) as found:
        for table in found:
            list(table.rows(WANTED))
    assert sum(seen) == path.stat().st_size
