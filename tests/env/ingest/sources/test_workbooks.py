"""Sheets of Excel workbooks are tables."""

import datetime
import io
import re
import sys
import zipfile

import openpyxl
import pytest
from make_logs import make_log, passed_over, plays_of

from musicbox_env.data.dataset import Dataset
from musicbox_env.errors import InputError
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.readers import open_tables
from musicbox_env.ingest.sources.bounds import Bounds
from musicbox_env.ingest.tables import PassedOver


def workbook(sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def with_sheet(content, change, part="sheet1.xml", method=zipfile.ZIP_DEFLATED):
    """A workbook whose first sheet, or another part, is spoilt."""
    spoilt = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(spoilt, "w", method) as new,
    ):
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, change(data) if info.filename.endswith(part) else data)
    return spoilt.getvalue()


def with_rows(xml):
    """A workbook with rows as XML in place of its own."""
    content = workbook({"S": [["a", "b"], [1, 2]]})
    return with_sheet(content, lambda sheet: sheet.replace(b"</sheetData>", xml + b"</sheetData>"))


def run(tmp_path, content, **options):
    file = tmp_path / "plays.xlsx"
    file.write_bytes(content)
    config = IngestConfig(
        (str(file),), tmp_path / "out", embeddings=False, progress=False, **options
    )
    return Dataset(ingest(config))


def tables_of(tmp_path, content, wanted=("a", "b"), **options):
    file = tmp_path / "x"
    file.write_bytes(content)
    found = {}
    with open_tables(file, **options) as tables:
        for table in tables:
            name = table.name.removeprefix(str(file))
            if isinstance(table, PassedOver):
                found[name] = table.why
            else:
                found[name] = [
                    (line, *values)
                    for rows in table.rows(wanted)
                    for line, *values in zip(
                        rows.lines.tolist(),
                        *(rows.columns[name].to_pylist() for name in wanted),
                        strict=True,
                    )
                ]
    return found


def test_a_log_in_a_sheet_is_a_log(tmp_path):
    log = make_log(20)
    rows = [log.columns, *log.itertuples(index=False)]
    content = workbook({"Notes": [["about"], ["x"]], "Plays": rows, "None": []})
    dataset = run(tmp_path, content)
    assert dataset.sessions.num_plays == sum(map(len, plays_of(log).values()))
    assert dataset.about["rejected"]["rows"] == 0
    whys = {name.rpartition(":")[2]: why for name, why in passed_over(dataset).items()}
    assert whys.keys() == {"Notes", "None"}
    assert whys["None"] == "is an empty sheet"


@pytest.mark.parametrize("titles", [["My plays"], ["My plays", "2024"], ["by", "Mira", None]])
def test_titles_above_the_names_of_a_sheet_are_skipped(tmp_path, titles):
    rows = [["a", "b", "c"], [1, 2, "x"], [3, 4, "y"]]
    content = workbook({"S": [titles, [None], *rows]})
    assert tables_of(tmp_path, content) == {":S": [(4, "1", "2"), (5, "3", "4")]}
    assert tables_of(tmp_path, workbook({"S": rows})) == {":S": [(2, "1", "2"), (3, "3", "4")]}


def test_values_of_cells_are_those_of_a_csv(tmp_path):
    moment = datetime.datetime(2024, 5, 4, 3, 2, 1)
    rows = [[None, None], ["a", " b "], [1, 2.5], [None, None], [True, moment], ["x\ny", None]]
    found = tables_of(tmp_path, workbook({"S": rows}))
    assert found == {":S": [(3, "1", "2.5"), (5, "true", "2024-05-04T03:02:01"), (6, "x\ny", None)]}


def test_what_a_sheet_states_of_its_size_is_not_believed(tmp_path):
    content = workbook({"S": [["a", "b"], [1, 2]]})
    huge = with_sheet(content, lambda xml: xml.replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"'))
    assert tables_of(tmp_path, huge) == {":S": [(2, "1", "2")]}
    far = with_sheet(content, lambda xml: xml.replace(b'<row r="2"', b'<row r="900000000"'))
    with pytest.raises(InputError, match="processor time"):
        tables_of(tmp_path, far, bounds=Bounds(seconds=1))


ENTITIES = b"<!DOCTYPE x [<!ENTITY a 'ha'>%s]>" % b"".join(
    b"<!ENTITY %c '%s'>" % (letter + 1, b"&%c;" % letter * 10) for letter in range(97, 110)
)
LONG = b'<row><c t="str"><v>%s</v></c></row>'
HOSTILE = {
    "nested more than": lambda of: with_rows(of(b"<a>", 200_000) + of(b"</a>", 200_000)),
    "row of .* cells": lambda of: with_rows(b"<row>" + of(b"<c/>", 1_000_000) + b"</row>"),
    "unpacks to more than": lambda of: with_rows(of(b"<a/>", 10_000_000)),
    "document type": lambda of: with_sheet(with_rows(b""), lambda sheet: ENTITIES + sheet),
    "row 3 holds .* characters": lambda of: with_rows(LONG % of(b"x", 50_000_000)),
    "unpacks to": lambda of: with_sheet(
        with_rows(b""), lambda _: of(b"x", 300_000_000), "styles.xml"
    ),
}
"""What is said of workbooks, and their makers, given a function that repeats bytes."""
SMALL = Bounds(harmless_bytes=1 << 20, depth=20, cells=100, characters=1_000)


def refused(tmp_path, content, said, bounds):
    with pytest.raises(InputError, match=rf"x(:[^ ]*)?: .*{said}"):
        tables_of(tmp_path, content, bounds=bounds)


@pytest.mark.parametrize(("said", "make"), HOSTILE.items())
def test_what_no_workbook_holds_is_refused(said, make, tmp_path):
    """At a 50th of the size that the slow test has, with smaller bounds."""
    refused(tmp_path, make(lambda piece, times: piece * (times // 50)), said, SMALL)


@pytest.mark.slow
@pytest.mark.parametrize(("said", "make"), HOSTILE.items())
def test_large_workbooks_are_refused(said, make, tmp_path):
    refused(tmp_path, make(bytes.__mul__), said, Bounds())


def test_reading_a_part_again_and_again_takes_time_too(tmp_path):
    """A sheet named many times over, each beginning with what has to be read past."""
    junk = with_sheet(
        workbook({"S": [["a", "b"], [1, 2]]}),
        lambda sheet: sheet.replace(b"<dimension", b"<a/>" * 20_000 + b"<dimension"),
    )
    named = with_sheet(
        junk,
        lambda book: re.sub(rb"(<sheet [^>]*/>)", lambda found: found[0] * 1_000, book),
        "workbook.xml",
    )
    refused(tmp_path, named, "processor time", Bounds(seconds=0.5))


def test_a_wrong_checksum_is_named_with_its_part(tmp_path):
    stored = with_sheet(with_rows(b""), lambda sheet: sheet, method=zipfile.ZIP_STORED)
    refused(tmp_path, stored.replace(b"<v>2</v>", b"<v>3</v>"), "Bad CRC-32", Bounds())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-300],
        lambda content: content[:700],
        lambda content: with_sheet(content, lambda xml: xml[:-40]),
        lambda content: with_sheet(content, lambda xml: b"\xff" * 99),
    ],
    ids=["no list", "beginning", "cut sheet", "no XML"],
)
def test_a_damaged_workbook_is_named(tmp_path, spoil):
    log = make_log(5)
    content = workbook({"S": [log.columns, *log.itertuples(index=False)]})
    with pytest.raises(InputError, match=r"plays\.xlsx.*(is a damaged workbook|cannot be read)"):
        run(tmp_path, spoil(content))


def test_without_the_library_a_workbook_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"is an Excel workbook: `pip install openpyxl`, or save"):
        run(tmp_path, workbook({"S": [["a"], [1]]}))
