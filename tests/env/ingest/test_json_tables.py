"""JSON as a table: every record once, whatever is in it, and no memory for what does not end."""

import io
import json
import tracemalloc

import numpy as np
import pytest

from musicbox_env.ingest import json_tables as jsontables
from musicbox_env.ingest.json_tables import JsonTable, looks_like_json
from musicbox_env.ingest.tables import DamagedFileError, PeekedStream


def table_of(content):
    data = content if isinstance(content, bytes) else content.encode()
    return JsonTable("x.json", PeekedStream(io.BytesIO(data)))


def rows_of(table, columns=None, **options):
    """All rows as dictionaries, their lines, and the lines of what is no record."""
    columns = table.columns if columns is None else columns
    records, lines, malformed = [], [], []
    for rows in table.rows(columns, **options):
        values = [rows.columns[name].to_pylist() for name in columns]
        records += [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
        lines += rows.lines.tolist()
        malformed += rows.malformed.tolist()
    return records, lines, malformed


@pytest.mark.parametrize("form", ["array", "lines", "arrays"])
@pytest.mark.parametrize("block", [7, 10_000])
def test_all_forms_against_the_plain_reader(monkeypatch, form, block):
    monkeypatch.setattr(jsontables, "RECORDS_A_BLOCK", block)
    rng = np.random.default_rng(0)
    values = [None, True, False, 0, -3, 2.5, "", "é \n", {"in": [1]}, [1, {"b": 2}], 10**20]
    records = [
        {name: values[rng.integers(len(values))] for name in "abc" if rng.random() < 0.9}
        for _ in range(500)
    ]
    text = {
        "array": json.dumps(records, indent=1),
        "lines": "\n".join(map(json.dumps, records)),
        "arrays": json.dumps(records[:100]) + json.dumps(records[100:]),
    }[form]
    found, lines, malformed = rows_of(table_of("\ufeff" + text), "abc", as_codes=("b",))
    spelled = {None: None, True: "true", False: "false"}

    def plain(value):
        if isinstance(value, dict | list):
            return None
        return spelled[value] if value is None or isinstance(value, bool) else str(value)

    assert found == [{name: plain(record.get(name)) for name in "abc"} for record in records]
    assert lines == list(range(1, 501))
    assert malformed == []


PLAYS = [{"song": str(number), "ms": number} for number in range(300)]


def test_a_list_of_one_may_be_its_element():
    """As converters of XML write pages, and the last one holds a single play."""
    pages = [{"page": at, "track": PLAYS[at : at + 10]} for at in range(0, 290, 10)]
    content = json.dumps([*pages, {"page": 290, "track": PLAYS[290]}])
    records, *_, malformed = rows_of(table_of(content), ["song", "ms"])
    assert [record["song"] for record in records] == [play["song"] for play in PLAYS[:291]]
    assert malformed == []


def test_objects_without_the_list_are_rows_that_are_no_records():
    pages = [{"page": at, "track": PLAYS[at : at + 10]} for at in range(0, 290, 10)]
    content = "\n".join(map(json.dumps, [*pages, {"page": 290, "track": []}, *PLAYS[290:]]))
    records, *_, malformed = rows_of(table_of(content), ["song", "ms"])
    assert len(records) == 290
    assert malformed == list(range(291, 301))


@pytest.mark.parametrize(
    "content",
    [
        '{"song": ["a", "b"], "ms": [1, 2], "song": ["c", "d"]}',
        '{"columns": ["song", "song"], "data": [["a", "b"], ["c", "d"]]}',
    ],
)
def test_a_column_that_is_named_twice_is_damage(content):
    table = table_of(content)
    with pytest.raises(DamagedFileError, match="names a column twice"):
        rows_of(table, ["song"])


@pytest.mark.parametrize(
    ("twice", "wanted", "refused"),
    [
        ('"song": "x"', "song", True),
        ('"more": 1, "more": 2', "song", False),
        ('"a": {"b": 1, "b": 2}', "a.b", True),
        ('"a": {"b": 1}, "a": {"b": 2}', "a.b", True),
        ('"a.b": 1, "a": {"b": 2}', "a.b", True),
        ('"a": [{"b": 1, "b": 2}]', "a.0.b", True),
        ('"a": {"$date": 1, "$more": 2}', "a", False),
    ],
)
def test_a_record_that_names_a_wanted_column_twice_is_none(monkeypatch, twice, wanted, refused):
    monkeypatch.setattr("musicbox_env.ingest.json_tables.RECORDS_A_BLOCK", 7)
    lines = [json.dumps(play) for play in PLAYS]
    lines[250] = f"{{{twice}, {lines[250][1:]}"
    records, *_, malformed = rows_of(table_of("\n".join(lines)), ["ms", wanted])
    assert malformed == ([251] if refused else [])
    assert [r["ms"] for r in records] == [
        str(p["ms"]) for p in PLAYS if not refused or p["ms"] != 250
    ]


def test_columns_whose_rows_stand_in_other_orders_are_damage():
    one, other = {"0": "a", "1": "b"}, {"1": 2, "0": 1}
    assert rows_of(table_of(json.dumps({"song": one, "ms": one})))[1] == [1, 2]
    with pytest.raises(DamagedFileError, match="name other rows, or in another order"):
        rows_of(table_of(json.dumps({"song": one, "ms": other})), ["song"])


def test_a_list_of_objects_beside_split_records_is_named():
    rows = [list(play.values()) for play in PLAYS]
    table = table_of(json.dumps({"columns": ["song", "ms"], "data": rows, "more": PLAYS[:7]}))
    records, *_ = rows_of(table)
    assert len(records) == 300
    assert [(found.name, "7 objects" in found.why) for found in table.unread] == [
        ("x.json, more", True)
    ]


def test_what_is_no_record_has_a_line_too():
    table = table_of('[{"a": 1}, 5, [1, {"a": 3}], "x", null, {"a": 2}, {}]')
    records, lines, malformed = rows_of(table)
    assert records == [{"a": "1"}, {"a": "2"}, {"a": None}]
    assert lines == [1, 6, 7]
    assert malformed == [2, 3, 4, 5]


def test_damage_comes_after_what_was_read():
    """Far behind the first records, so that it is met while rows are given."""
    text = json.dumps([{"a": i} for i in range(5_000)])
    place = text.index("}", len(text) // 2)
    table = table_of(text[:place] + "}" + text[place:])
    assert table.damage is None
    given = []

    def read():
        for rows in table.rows(("a",)):
            given.extend(rows.columns["a"].to_pylist())

    with pytest.raises(DamagedFileError, match=r"x\.json: cannot be read to its end \(parse error"):
        read()
    assert given == [str(i) for i in range(len(given))]
    assert 2_000 < len(given) < 3_000
    assert table.records_lost() == pytest.approx(5_000 - len(given), rel=0.4)


@pytest.mark.parametrize("record", [3, 90, 700])
def test_what_damage_costs_is_estimated_wherever_it_is(record):
    """In the first bytes that are read too, of which a part alone is parsed."""
    records = [{"ts": f"2024-01-01T{i % 24:02d}", "text": "x" * 500} for i in range(1_000)]
    lines = [json.dumps(of) for of in records]
    lines[record] = lines[record].replace(":", ";", 1)
    table = table_of("[" + ",".join(lines) + "]")
    with pytest.raises(DamagedFileError):
        list(table.rows(("ts",)))
    assert table.records_lost() == pytest.approx(1_000 - record, rel=0.15)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 1_000_000, "nested more than"),
        (b'[{"a":' * 200_000, "nested more than"),
        (b'[{"a": "' + b"x" * 30_000_000, "no record ends within"),
        (b"[" + b" " * 30_000_000, "no record ends within"),
        (b"[section]\nname = value\n", "lexical error"),
        (b"[{]", "parse error"),
    ],
)
def test_endless_things_are_damage_and_take_no_memory(content, why):
    tracemalloc.start()
    table = table_of(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert why in str(table.damage)
    assert peak < 30_000_000
    with pytest.raises(DamagedFileError, match=why):
        rows_of(table)


def test_long_records_are_held_a_few_at_a_time(monkeypatch):
    """Sixty megabytes in records of one, most of it in a field that nobody wants."""
    monkeypatch.setattr(jsontables, "BYTES_A_BLOCK", 3 << 20)
    records = (json.dumps({"a": i, "page": "x" * (1 << 20)}) for i in range(60))
    content = "\n".join(records).encode()
    tracemalloc.start()
    found, lines, _ = rows_of(table_of(content), ("a",))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [{"a": str(i)} for i in range(60)]
    assert lines == list(range(1, 61))
    assert peak < 20 << 20


def test_damage_quotes_nothing_of_the_file():
    assert "hortensia" not in table_of('[{"user": "hortensia" "x"}]').damage.why


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("number", [0, 1, 900])
def test_a_byte_that_is_no_utf8_is_named_with_its_place(before, number):
    """Records before it are read, whole letters of several bytes on either side of a block."""
    lines = [json.dumps({"a": "\u00e9\u20ac" * (i % 7)}, ensure_ascii=False) for i in range(1_000)]
    good = before + "\n".join(lines[:number]).encode() + b"\n"
    content = good + b'{"a": "\xe9t\xe9"}\n' + "\n".join(lines[number:]).encode()
    table = table_of(content)
    with pytest.raises(DamagedFileError, match=f"byte 0xE9 at place {len(good) + 7:,} is no UTF-8"):
        rows_of(table, ("a",))
    assert number < 900 or table.records_lost() == pytest.approx(101, rel=0.25)
    read: list[int] = []
    with pytest.raises(DamagedFileError):
        read.extend(len(rows) for rows in table_of(content).rows(("a",)))
    assert sum(read) == number


def test_what_looks_like_json():
    assert looks_like_json(b"\xef\xbb\xbf\n [1]")
    assert looks_like_json(b'{"a"')
    assert not looks_like_json(b"a,b\n")
    assert not looks_like_json(b"")
