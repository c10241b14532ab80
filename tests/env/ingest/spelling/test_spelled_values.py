"""Lengths, flags, ids and types of columns: the same plays, however they are spelled."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spelled_plays import LONG_GAPS, MAP, PLAIN, check, ingested, refusal, stored

from musicbox_env.errors import InputError


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
    assert "The digits are lost: take the file as it was before" in message


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


@pytest.mark.parametrize("heard", [-3, "long"])
def test_a_refused_value_is_placed_as_its_file_is_counted(tmp_path, heard):
    """Lines of text below the header, records of JSON, rows of Parquet and of sheets."""
    table = PLAIN.assign(played=heard)
    table.to_csv(tmp_path / "csv", index=False)
    table.to_json(tmp_path / "json", orient="records", indent=1)
    table.to_json(tmp_path / "lines", orient="records", lines=True)
    table.to_parquet(tmp_path / "parquet")
    table.to_excel(tmp_path / "book.xlsx", index=False)
    places = {"csv": "on line 2", "json": "in record 1", "lines": "in record 1"}
    for name, place in {**places, "parquet": "in row 1", "book.xlsx": "in row 2"}.items():
        with pytest.raises(ValueError, match=f"day, as '{heard}' {place}\n"):
            ingested(tmp_path, [tmp_path / name])


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


EXTREMES = {
    "int64": ("length", pa.array([2**63 - 1])),
    "uint64": ("played", pa.array([2**64 - 1], pa.uint64())),
    "duration": ("length", pa.array([2**63 - 1], pa.duration("us"))),
    "nanoseconds": ("length", pa.array([2**45 + 1], pa.time64("ns"))),
    "date32": ("time", pa.array([2**31 - 1], pa.date32())),
    "date64": ("played", pa.array([86_400_000 * 10**11], pa.date64())),
    "infinity": ("track", pa.array([np.inf])),
}


@pytest.mark.parametrize("kind", EXTREMES)
def test_the_largest_numbers_of_a_type_are_a_row_each(tmp_path, kind):
    """One row of them, the others empty: read, unknown, or rejected with what it says."""
    name, extreme = EXTREMES[kind]
    table = pa.Table.from_pandas(PLAIN)
    column = pa.concat_arrays([extreme, pa.nulls(len(PLAIN) - 1, extreme.type)])
    table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "plays")
    if name == "length":
        dataset = ingested(tmp_path, [tmp_path / "plays"])
        assert dataset.about["rows_read"] == len(PLAIN)
    else:
        with pytest.raises(InputError, match="of 72 rows of the logs"):
            ingested(tmp_path, [tmp_path / "plays"])
