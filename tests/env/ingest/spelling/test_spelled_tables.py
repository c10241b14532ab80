"""The same plays in tables and records of every shape, and with columns lacking."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spelled_plays import CSV, MAP, PLAIN, check, ingested, refusal, stored

from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.tables import HEAD_BYTES

QUOTED = PLAIN.to_csv(index=False, quoting=1)


def quoted_by_backslash():
    titled = PLAIN.assign(title=[f'The "{t}" One, Live' for t in PLAIN["title"]])
    return titled.to_csv(index=False, quoting=1, doublequote=False, escapechar="\\")


def unquoted_tabs():
    titled = PLAIN.assign(title=[f'"{t}" (Live)' for t in PLAIN["title"]])
    lines = ["\t".join(map(str, row)) for row in [titled.columns, *titled.to_numpy()]]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("content", "title"),
    [
        (f"sep=,\n{CSV}", "Song 0"),
        ("sep=;\r\n" + PLAIN.to_csv(index=False, sep=";").replace("\n", "\r\n"), "Song 0"),
        ('"sep=\t"\n' + PLAIN.to_csv(index=False, sep="\t"), "Song 0"),
        (PLAIN.to_csv(index=False, sep="|"), "Song 0"),
        (f"# exported by a player, version 2\n# on 2022-03-01\n\n{CSV}", "Song 0"),
        (f"// one, two\n{CSV}", "Song 0"),
        (f"# {CSV}", "Song 0"),
        (f"Plays of Mira\n\nExported,2022-03-01\n{CSV}", "Song 0"),
        (f"Plays of Mira,2022,,,,,\n{CSV}", "Song 0"),
        (f"Plays of Mira,,,,,,\n,,,,,,\nExported,2022-03-01,,,,,\n{CSV}", "Song 0"),
        *((f"# plays{end} of Mira\n{CSV}", "Song 0") for end in "\x0b\x0c\x1c\x85\u2028"),
        (f"Plays\x0cof Mira,,,,,,\n{CSV}", "Song 0"),
        (f"Plays,of,Mira,to,2022-03-01,as,text\n{CSV}", "Song 0"),
        (b"\xef\xbb\xbf" + CSV.encode(), "Song 0"),
        (b"\xef\xbb\xbfsep=,\n" + CSV.encode(), "Song 0"),
        (CSV.encode("utf-16"), "Song 0"),
        (CSV.encode("utf-16-be"), "Song 0"),
        (PLAIN.to_csv(index=False, sep="\t").encode("utf-16"), "Song 0"),
        (quoted_by_backslash(), 'The "Song 0" One, Live'),
        (QUOTED.replace('"', "'"), "Song 0"),
        (unquoted_tabs(), '"Song 0" (Live)'),
        (CSV.replace('"Ola, Bo"', "Ola\\, Bo"), "Song 0"),
        (CSV.replace("\n", "\r"), "Song 0"),
    ],
)
def test_what_stands_around_a_csv(tmp_path, expected, content, title):
    dataset = check(tmp_path, content, expected)
    assert f"Ola, Bo - {title}" in dataset.catalog.titles


@pytest.mark.parametrize("content", [PLAIN.to_csv(), CSV.replace("\n", ",\n")])
def test_a_header_without_some_names_is_no_title(tmp_path, expected, content):
    """Of a numbered table, and of one with a comma behind the last field."""
    check(tmp_path, content, expected)


def test_a_table_without_a_header_is_not_named_by_a_spoilt_row(tmp_path):
    rows = CSV.splitlines()[1:]
    rows[1] = "u1,unknown,id,Song,Ola,none,none"
    assert "what seem to be values in place of names" in refusal(tmp_path, "\n".join(rows))


def test_a_backslash_far_behind_the_first_bytes(tmp_path):
    """Found when it comes, also where a read ends between it and its quote."""
    many = pd.concat([PLAIN] * 40, ignore_index=True)
    many["user"] = [f"u{i // len(PLAIN)}" for i in range(len(many))]
    late = [f'12" {title}, Live' for title in many["title"][-400:]]
    many["title"], many["track"] = [*many["title"][:-400], *late], None
    file = tmp_path / "plays.csv"
    text = many.to_csv(index=False, quoting=1, doublequote=False, escapechar="\\")
    assert text.index("\\") > 1 << 16
    file.write_text(text)
    dataset = ingested(tmp_path, [file], map=MAP.replace("track=track,", ""))
    assert dataset.about["plays"] == len(many)
    assert f'Ola, Bo - 12" {many["title"].iloc[-1][4:]}' in dataset.catalog.titles


def test_rejected_lines_are_those_of_the_file(tmp_path):
    """Whatever stands before the header."""
    lines = CSV.splitlines()
    lines[5] = lines[5] + ",one too many"
    lines[9] = lines[9].replace("2022", "1922")
    (tmp_path / "plays.csv").write_text("\n".join(["sep=,", "# a comment", "", *lines]))
    config = IngestConfig(
        sources=(str(tmp_path / "plays.csv"),),
        out=tmp_path / "out",
        embeddings=False,
        progress=False,
        max_rejects=0.1,
        history=HistoryConfig(map=MAP),
    )
    rejects = pd.read_csv(ingest(config) / "rejects.csv")
    assert rejects["line"].tolist() == [9, 13]


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_mapping_with_a_byte_order_mark(tmp_path, expected, bom, encoding):
    pairs = [pair.split("=") for pair in MAP.split(",")]
    text = "\n".join(f'{key} = "{column}"' for key, column in pairs)
    (tmp_path / "map.toml").write_bytes(
        ((bom if encoding == "utf-8" else "") + text).encode(encoding)
    )
    check(tmp_path, CSV, expected, map=str(tmp_path / "map.toml"))


RECORDS = PLAIN.to_dict("records")


def nested(record):
    inner = {k: record[k] for k in ("track", "title", "artist")}
    return {"user": record["user"], "time": record["time"], "song": inner, "n": {"a": record}}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"exported": "2022", "plays": RECORDS}),
        json.dumps({"meta": {"by": [{"name": "me"}]}, "data": {"count": 3, "items": RECORDS}}),
        json.dumps(
            [{"user": "u1", "plays": [{**r, "user": None} | {"user": "u1"} for r in RECORDS]}]
        ),
        json.dumps(
            {"user": "u1", "plays": [{k: v for k, v in r.items() if k != "user"} for r in RECORDS]}
        ),
        "\n".join(json.dumps({"plays": RECORDS[i : i + 9]}) for i in range(0, len(RECORDS), 9)),
        *(
            PLAIN.to_json(orient=orient)
            for orient in ("records", "columns", "index", "split", "table")
        ),
        PLAIN.set_index(PLAIN["time"]).to_json(orient="split"),
        PLAIN.to_json(orient="records", lines=True),
        json.dumps(PLAIN.to_dict("list")),
        json.dumps({"columns": [*PLAIN], "rows": PLAIN.to_numpy().tolist()}),
        json.dumps({"plays": {f"-N{i}": record for i, record in enumerate(RECORDS)}}),
        json.dumps(
            [
                {**r, "time": {"$date": r["time"]}, "played": {"$numberInt": str(r["played"])}}
                for r in RECORDS
            ]
        ),
        json.dumps(
            [
                {
                    **r,
                    "time": {"$date": {"$numberLong": str(pd.Timestamp(r["time"]).value // 10**6)}},
                }
                for r in RECORDS
            ]
        ),
        b"\xef\xbb\xbf" + json.dumps(RECORDS).encode(),
        json.dumps(RECORDS).encode("utf-16"),
    ],
)
def test_shapes_of_json(tmp_path, expected, content):
    check(tmp_path, content, expected)


def test_dotted_names_reach_nested_values(tmp_path, expected):
    mapping = (
        "user=user,time=time,track=song.track,title=song.title,artist=song.artist,"
        "played_s=n.a.played,duration_s=n.a.length"
    )
    records = [nested(record) for record in RECORDS]
    check(tmp_path, "\n".join(map(json.dumps, records)), expected, map=mapping)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "plays.parquet")
    assert stored(ingested(tmp_path, [tmp_path / "plays.parquet"], "b", map=mapping)) == expected


@pytest.mark.parametrize("label", ["%Y-%m", "%Y/%m", "month %m"])
def test_lists_by_month_are_one_table(tmp_path, expected, label):
    """Every list of the object is read, and not the longest alone."""
    months = PLAIN.groupby(pd.to_datetime(PLAIN["time"]).dt.strftime(label))
    content: dict = {"owner": {"since": 2020}, "plays": {}}
    for name, plays in months:
        *above, last = name.split("/")
        inner = content["plays"]
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = plays.to_dict("records")
    dataset = check(tmp_path, json.dumps(content), expected)
    assert dataset.about["rows_read"] == len(PLAIN)


def test_lists_beside_the_records_are_named(tmp_path, expected):
    content = {"before": {"queue": RECORDS[:2]}, "history": RECORDS, "liked": RECORDS[:3]}
    dataset = check(tmp_path, json.dumps(content), expected)
    passed_over = dataset.about["passed_over"]
    assert [name.rpartition(", ")[2] for name in passed_over["names"]] == ["before", "liked"]
    assert all("objects beside the records" in why for why in passed_over["why"])


@pytest.mark.parametrize("months", [["plays_2024-01", "plays_2024-02"], ["01", "02"]])
def test_months_behind_the_first_bytes_are_read_and_other_lists_are_not(tmp_path, expected, months):
    """The first month fills all that the shape is told by; the last list is no month."""
    first, second = RECORDS[:-20], RECORDS[-20:]
    padded = [{**record, "note": "x" * (HEAD_BYTES // len(first) + 1)} for record in first]
    content = {months[0]: padded, months[1]: second, "liked": RECORDS[:12]}
    dataset = check(tmp_path, json.dumps(content), expected)
    assert dataset.about["rows_read"] == len(RECORDS)
    (why,) = dataset.about["passed_over"]["why"]
    assert why.startswith("holds 12 objects beside the records")
    both = {months[0]: first, months[1]: second, "liked": RECORDS[:12]}
    (tmp_path / "short").mkdir()
    assert check(tmp_path / "short", json.dumps(both), expected).about["rows_read"] == len(RECORDS)


def test_names_of_columns_in_windows_1252(tmp_path, expected):
    content = CSV.replace("artist", "Künstler", 1).encode("cp1252")
    check(tmp_path, content, expected, map=MAP.replace("artist=artist", "artist=Künstler"))


def test_the_first_of_a_list_of_artists_is_proposed(tmp_path, expected):
    lines = [
        {"at": {}, "track": {"name": row.title, "artists": [{"name": row.artist}]}}
        | {"played_at": row.time, "played_s": row.played, "duration_s": row.length}
        for row in PLAIN.itertuples()
    ]
    content = b"\xef\xbb\xbf" + "\n".join(map(json.dumps, lines)).encode()
    (tmp_path / "plays").write_bytes(content)
    dataset = ingested(tmp_path, [tmp_path / "plays"], map="auto")
    read_as = dataset.about["history"]["read_as"]["table of plays"]
    assert read_as["artist"] == "track.artists.0.name"
    assert [levels for _, levels in stored(dataset)] == [levels for _, levels in expected]
    for line in lines:
        line["track"] = {"name": line["track"]["name"]}
    (tmp_path / "second").mkdir()
    message = refusal(tmp_path / "second", json.dumps(lines), map="auto")
    assert "say the rest, above all track, or artist beside title" in message
    assert "title=track.name" in message
    assert "artist=COLUMN" in message


def test_lists_without_names_are_named_as_the_cause(tmp_path):
    assert "without names of columns" in refusal(tmp_path, PLAIN.to_json(orient="values"))
    message = refusal(tmp_path, json.dumps({"songs": [{"id": 1}] * 9, "n": 2}), map="auto")
    assert "in the list 'songs'" in message
    assert "--map" in message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("indent", [None, 1])
def test_numbers_that_json_lacks_are_null(tmp_path, expected, word, indent):
    records = [
        {
            **r,
            "extra": float(word.replace("Infinity", "inf")),
            "title": f'{r["title"]}: {word}, \\" {word}',
        }
        for r in RECORDS
    ]
    dataset = check(tmp_path, json.dumps(records, indent=indent), expected)
    assert f'Ola, Bo - Song 0: {word}, \\" {word}' in dataset.catalog.titles


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
@pytest.mark.parametrize("words", [("None", "nan"), ("null", "NULL"), ("NA", "N/A")])
def test_songs_may_be_called_what_means_nothing(tmp_path, form, words):
    title, artist = words
    named = PLAIN.assign(title=[title, "Other"] * (len(PLAIN) // 2), artist=artist, skipped="None")
    file = tmp_path / "plays"
    if form == "csv":
        named.to_csv(file, index=False)
    elif form == "json":
        named.to_json(file, orient="records")
    else:
        named.to_parquet(file)
    mapping = f"{MAP.replace('track=track,', '')},skipped=skipped"
    dataset = ingested(tmp_path, [file], map=mapping)
    assert dataset.about["plays"] == len(PLAIN)
    assert set(dataset.catalog.titles) == {f"{artist} - {title}", f"{artist} - Other"}
    assert dataset.about["notes"] == {}


@pytest.mark.parametrize("lacking", ["length", "skipped", "shuffle"])
def test_a_missing_optional_column_is_unknown(tmp_path, lacking):
    table = PLAIN.assign(skipped=False, shuffle=True)
    table[:36].to_csv(tmp_path / "jan.csv", index=False)
    table[36:].drop(columns=lacking).to_csv(tmp_path / "feb.csv", index=False)
    files = [tmp_path / "jan.csv", tmp_path / "feb.csv"]
    mapping = f"{MAP},skipped=skipped,shuffle=shuffle"
    dataset = ingested(tmp_path, files, map=mapping)
    assert dataset.about["plays"] == len(PLAIN)
    if lacking == "shuffle":
        assert (dataset.sessions.column("shuffle") == 1).sum() == 36
    (note,) = [n for n in dataset.about["history"]["notes"] if "feb.csv" in n]
    assert f"no column {lacking}" in note


@pytest.mark.parametrize("lacking", ["time", "track", "played", "user"])
def test_a_missing_column_that_is_needed_is_named(tmp_path, lacking):
    folder = tmp_path / "logs"
    folder.mkdir()
    PLAIN[:36].to_csv(folder / "jan.csv", index=False)
    PLAIN[36:].drop(columns=lacking).to_csv(folder / "feb.csv", index=False)
    mapping = "user=user,time=time,track=track,played_s=played,duration_s=length"
    with pytest.raises(ValueError, match=rf"feb\.csv: has no column {lacking}, which --map names"):
        ingested(tmp_path, [folder], map=mapping)


def test_other_tables_are_passed_over_with_a_reason(tmp_path, expected):
    folder = tmp_path / "logs"
    folder.mkdir()
    PLAIN.to_csv(folder / "plays.csv", index=False)
    PLAIN[["track", "title", "length"]].to_csv(folder / "songs.csv", index=False)
    dataset = ingested(tmp_path, [folder])
    assert stored(dataset) == expected
    passed_over = dataset.about["passed_over"]
    assert passed_over["names"] == ["songs.csv"]
    assert "has no column time, user, artist, played, which --map names" in passed_over["why"][0]
