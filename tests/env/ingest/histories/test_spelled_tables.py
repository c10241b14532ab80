"""Tables of plays as people and programs write them: the same plays, however they are spelled."""

import datetime
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    PLAIN.to_csv(folder / "plays.csv", index=False)
    found = stored(ingested(folder, [folder / "plays.csv"]))
    assert len(found) == SESSIONS
    assert {level for _, levels in found for level in levels} == {1, 4}
    return found


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


def clock(seconds):
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


@pytest.mark.parametrize(
    ("key", "spell"),
    [
        ("s", lambda s: f"{s},0"),
        ("s", lambda s: f"{s}.000"),
        ("s", lambda s: f"{s:.3f}".replace(".", ",")),
        ("s", lambda s: f"{s / 100:.2f}E+02"),
        ("s", clock),
        ("ms", clock),
        ("s", lambda s: f"0 days {clock(3600 + s)[2:]}".replace("days ", "days 00:")),
        ("s", lambda s: f"{s} s"),
        ("ms", lambda s: f"{s} sec"),
        ("s", lambda s: f"PT{s // 60}M{s % 60}S"),
        ("ms", lambda s: f"{s * 1000:,}"),
        ("ms", lambda s: f"{s * 1000:,}".replace(",", ".")),
        ("ms", lambda s: f"{s * 1000:,}".replace(",", " ")),
        ("ms", lambda s: f"{s * 1000:,}".replace(",", "\u202f")),
        ("ms", lambda s: f"{s * 1000:,}".replace(",", "'")),
        ("ms", lambda s: f"{s * 1000:,}.00"),
        ("ms", lambda s: f"{s * 1000:,}.00".translate(str.maketrans(",.", ".,"))),
    ],
)
def test_lengths_in_every_spelling(tmp_path, expected, key, spell):
    spelled = PLAIN.assign(
        played=[spell(s) for s in PLAIN["played"]], length=[spell(s) for s in PLAIN["length"]]
    )
    mapping = MAP.replace("played_s", f"played_{key}").replace("duration_s", f"duration_{key}")
    check(tmp_path, spelled.to_csv(index=False, sep=";"), expected, map=mapping)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("key", ["s", "ms"])
def test_typed_durations_keep_their_units(tmp_path, expected, unit, key):
    table = pa.Table.from_pandas(PLAIN)
    for name in ("played", "length"):
        spans = pa.array([datetime.timedelta(seconds=int(s)) for s in PLAIN[name]])
        place = table.column_names.index(name)
        table = table.set_column(place, name, spans.cast(pa.duration(unit)))
    pq.write_table(table, tmp_path / "plays")
    mapping = MAP.replace("played_s", f"played_{key}").replace("duration_s", f"duration_{key}")
    assert stored(ingested(tmp_path, [tmp_path / "plays"], map=mapping)) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("played", pa.decimal128(9, 2)),
        ("length", pa.float32()),
        ("track", pa.dictionary(pa.int32(), pa.string())),
        ("time", pa.timestamp("us", "UTC")),
        ("time", pa.timestamp("ns")),
        ("time", pa.dictionary(pa.int32(), pa.string())),
        ("title", pa.large_string()),
        ("user", pa.binary()),
    ],
)
def test_typed_columns_of_parquet(tmp_path, expected, name, kind):
    table = pa.Table.from_pandas(PLAIN)
    column = table[name].combine_chunks()
    if pa.types.is_timestamp(kind):
        column = pa.array(pd.to_datetime(PLAIN["time"]).dt.tz_localize(None), kind)
    elif pa.types.is_dictionary(kind):
        column = column.cast(pa.string()).dictionary_encode()
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.decimal128(19, 0)).cast(pa.decimal128(21, 2))
    else:
        column = column.cast(kind)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, column), tmp_path / "plays")
    assert stored(ingested(tmp_path, [tmp_path / "plays"])) == expected


@pytest.mark.parametrize(
    "words",
    ["true false", "Yes No", "Y N", "T F", "1 0", "1.0 0.0", "on off", "WAHR FALSCH", "oui non"],
)
def test_flags_in_every_spelling(tmp_path, words):
    yes, no = words.split()
    skipped = PLAIN["played"] < PLAIN["length"]
    table = PLAIN.assign(skipped=np.where(skipped, yes, no))
    mapping = "user=user,time=time,track=track,duration_s=length,skipped=skipped"
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    dataset = ingested(tmp_path, [tmp_path / "plays.csv"], map=mapping, session=LONG_GAPS)
    assert (dataset.sessions.column("level") < 2).sum() == skipped.sum()


@pytest.mark.parametrize(("spell"), [lambda s: s, lambda s: round(100 * s), lambda s: f"{s:.0%}"])
@pytest.mark.parametrize("with_length", [True, False])
def test_shares_and_percent_are_told_apart(tmp_path, expected, spell, with_length):
    share = (PLAIN["played"] / PLAIN["length"]).round(2)
    table = PLAIN.assign(share=[spell(s) for s in share])
    mapping = "user=user,time=time,track=track,title=title,artist=artist,played_share=share"
    if with_length:
        check(tmp_path, table.to_csv(index=False), expected, map=f"{mapping},duration_s=length")
    else:
        (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
        dataset = ingested(tmp_path, [tmp_path / "plays.csv"], map=mapping, session=LONG_GAPS)
        levels = dataset.sessions.column("level")
        assert (levels == 1).sum() == (share < 0.5).sum()
        assert (levels == 4).sum() == (share == 1).sum()


@pytest.mark.parametrize("column", ["track", "user"])
@pytest.mark.parametrize("word", ["1.23456E+17", "4.5e+21", "1,2E+12"])
def test_ids_that_a_spreadsheet_destroyed_are_refused(tmp_path, column, word):
    message = refusal(tmp_path, PLAIN.assign(**{column: word}).to_csv(index=False, sep=";"))
    assert (
        f"{column} is a number whose digits a spreadsheet rounded, as '{word}' on line 2" in message
    )


def test_ids_stored_as_fractions_are_whole(tmp_path):
    numbers = PLAIN.assign(track=[float(t[2:]) for t in PLAIN["track"]], user=7.0)
    numbers[:36].to_csv(tmp_path / "jan.csv", index=False)
    numbers[36:].astype({"track": int, "user": int}).to_csv(tmp_path / "feb.csv", index=False)
    numbers[36:].to_parquet(tmp_path / "feb.parquet")
    for feb, out in (("feb.csv", "a"), ("feb.parquet", "b")):
        dataset = ingested(tmp_path, [tmp_path / "jan.csv", tmp_path / feb], out)
        assert dataset.about["history"]["listeners"] == 1
        assert set(dataset.catalog.track_ids) == {t[2:] for t in PLAIN["track"]}


@pytest.mark.parametrize(
    ("key", "column"), [("duration_s", "length"), ("skipped", "skipped"), ("reason_end", "why")]
)
def test_a_column_that_cannot_be_read_is_told(tmp_path, key, column):
    table = PLAIN.assign(**{column: "three"})
    pairs = [p for p in MAP.split(",") if not p.startswith(key)]
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    mapping = ",".join([*pairs, f"{key}={column}"])
    dataset = ingested(tmp_path, [tmp_path / "plays.csv"], map=mapping)
    told = [note for note in dataset.about["history"]["notes"] if column in note]
    assert told == [
        f"plays.csv: {key}, column {column}, could not be read in {len(PLAIN)} of {len(PLAIN)} "
        "rows, as 'three' on line 2; it is unknown there."
    ]


@pytest.mark.parametrize(
    ("column", "value"), [("time", "yesterday\x1b[2J"), ("played", "long"), ("played", "-3")]
)
def test_a_refusal_quotes_a_value_and_its_line(tmp_path, column, value):
    table = PLAIN.copy()
    table[column] = table[column].astype(object)
    table.loc[3:20, column] = value
    message = refusal(tmp_path, table.to_csv(index=False))
    assert f"as {value!r} on line 5" in message
    assert ("time_format" in message) == (column == "time")


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("%d/%m/%Y %H:%M:%S", ""),
        ("%m/%d/%Y %H:%M:%S", ""),
        ("%m/%d/%Y %I:%M:%S %p", ""),
        ("%d.%m.%Y %H:%M:%S", ""),
        ("%d-%m-%y %H:%M:%S", ""),
        ("%Y/%m/%d %H:%M:%S", ""),
        ("%d %b %Y, %H:%M:%S", ""),
        ("%B %d, %Y at %I:%M:%S %p", ""),
        ("%a %b %d %H:%M:%S UTC %Y", ""),
        ("%a, %d %b %Y %H:%M:%S GMT", ""),
        ("%d/%b/%Y:%H:%M:%S +0000", ""),
        ("%Y-%m-%dT%H:%M:%SZ[UTC]", ""),
        ("%Y-%m-%dT%H:%M:%S+00:00[Europe/London]", ""),
        ("%Y%m%d%H%M%S", ""),
        ("%s", ""),
        ("%s.0", ""),
        ("%s000", ""),
        ("%s000000", ""),
        ("%s", ",time_format=unix_s"),
        ("%d/%m/%Y %H:%M:%S", ",time_format=day_first"),
        ("%H:%M:%S on %d, %m %y", ",time_format=%H:%M:%S on %d, %m %y"),
    ],
)
@pytest.mark.parametrize("sep", [",", ";"])
def test_times_in_every_spelling(tmp_path, expected, text, more, sep):
    table = with_time(plays_of(), text)
    check(tmp_path, table.to_csv(index=False, sep=sep), expected, map=MAP + more)


@pytest.mark.parametrize("text", ["%d/%m/%Y %H:%M:%S", "%m-%d-%Y %H:%M:%S", "%d/%m/%y %H:%M:%S"])
def test_dates_that_nothing_decides_are_refused(tmp_path, text):
    table = with_time(plays_of(12), text).to_csv(index=False)
    message = refusal(tmp_path, table)
    first = plays_of(12)["time"][0].strftime(text)
    assert f"column time writes dates as {first!r}" in message
    assert "time_format=day-first" in message
    plain = with_time(plays_of(12), "%Y-%m-%dT%H:%M:%SZ").to_csv(index=False)
    (tmp_path / "plain.csv").write_text(plain)
    expected = stored(ingested(tmp_path, [tmp_path / "plain.csv"], "plain"))
    order = "day-first" if text.startswith("%d") else "month-first"
    check(tmp_path, table, expected, map=f"{MAP},time_format={order}")


def test_a_date_far_behind_decides(tmp_path):
    """The first bytes hold days up to the 12th alone."""
    early = pd.concat([plays_of(12).assign(user=f"u{i}") for i in range(20)])
    table = with_time(pd.concat([early, plays_of()], ignore_index=True), "%d/%m/%Y %H:%M:%S")
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    assert ingested(tmp_path, [tmp_path / "plays.csv"]).about["plays"] > len(early)


@pytest.mark.parametrize(("date", "time"), [("%d/%m/%Y", "%H:%M:%S"), ("%Y-%m-%d", "%I:%M:%S %p")])
def test_date_and_time_in_two_columns(tmp_path, expected, date, time):
    start = plays_of()["time"]
    table = PLAIN.assign(date=start.dt.strftime(date), time=start.dt.strftime(time))
    check(tmp_path, table.to_csv(index=False), expected, map=f"{MAP},date=date")
    typed = PLAIN.assign(date=start.dt.normalize(), time=start.dt.time)
    typed.to_parquet(tmp_path / "typed")
    mapping = f"{MAP},date=date"
    assert stored(ingested(tmp_path, [tmp_path / "typed"], "b", map=mapping)) == expected


@pytest.mark.parametrize("zone", ["local", "Europe/Berlin", "+02:00", "column"])
def test_local_times(tmp_path, zone):
    table = with_time(plays_of().assign(zone="Europe/Berlin"), "%Y-%m-%d %H:%M:%S")
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    mapping = f"{MAP},time_zone={'zone' if zone == 'column' else zone}"
    dataset = ingested(tmp_path, [tmp_path / "plays.csv"], map=mapping, timezone="Europe/Berlin")
    hours = set(dataset.sessions.column("hour").tolist())
    assert hours == {17 if zone == "+02:00" else 18}
    assert not any("taken as UTC" in note for note in dataset.about["history"]["notes"])
    noted = ingested(tmp_path, [tmp_path / "plays.csv"], "b", timezone="Europe/Berlin")
    assert set(noted.sessions.column("hour").tolist()) == {19}
    (note,) = [n for n in noted.about["history"]["notes"] if "taken as UTC" in n]
    assert "time_zone=local" in note


def test_local_times_need_a_timezone(tmp_path):
    with pytest.raises(ValueError, match="time_zone=local in --map needs --timezone"):
        HistoryConfig(map=f"{MAP},time_zone=local")


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


@pytest.mark.parametrize(
    ("column", "organic", "recommended"),
    [
        ("is_organic", "1", "0"),
        ("is_organic", "true", "false"),
        ("is_recommended", "no", "yes"),
        ("source", "organic", "recommended"),
    ],
)
@pytest.mark.parametrize("mapped", [True, False])
def test_who_chose_a_song_is_kept(tmp_path, expected, column, organic, recommended, mapped):
    chosen = np.where(np.arange(len(PLAIN)) % 4 == 0, recommended, organic)
    names = {"played": "played_s", "length": "duration_s"}
    table = PLAIN.assign(**{column: chosen}).rename(columns=names)
    mapping = MAP.replace("=played", "=played_s").replace("=length", "=duration_s")
    text = table.to_csv(index=False)
    mapping = f"{mapping},source={column}" if mapped else "auto"
    dataset = check(tmp_path, text, expected, map=mapping)
    source = dataset.sessions.column("source")
    assert (source == 1).sum() == len(PLAIN) / 4
    assert (source == 0).sum() == 3 * len(PLAIN) / 4


def test_a_flag_that_may_mean_either_is_not_guessed(tmp_path, expected):
    table = PLAIN.assign(kind=1).to_csv(index=False)
    dataset = check(tmp_path, table, expected, map=f"{MAP},source=kind")
    assert not (dataset.folder / "plays/source.npy").exists()
    (note,) = [n for n in dataset.about["history"]["notes"] if "source, column kind" in n]
    assert "'1' on line 2" in note
