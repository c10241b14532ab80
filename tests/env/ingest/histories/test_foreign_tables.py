"""Tables of plays under names of their own, and the mappings that name their columns."""

import io
import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from make_histories import FOREIGN_MAP, exported_csv, foreign_table, make_history
from musicbox_experiments.cli import main
from read_histories import agreement, by_length, run, stored, truth

from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.histories.mapping import read_mapping
from musicbox_env.ingest.histories.proposal import (
    explain_half_told,
    propose_mapping,
    usual_columns,
)
from musicbox_env.ingest.spelling.times import parse_times


def test_a_table_of_many_users_under_foreign_names(tmp_path):
    history = make_history(200, tracks=200, users=30, days=20, seed=5)
    table = foreign_table(history).sample(frac=1, random_state=0)
    table.to_parquet(tmp_path / "plays.parquet")
    table.assign(played_at=pd.to_datetime(table["played_at"], unit="ms", utc=True)).to_csv(
        tmp_path / "plays.csv", index=False
    )
    pairs = [pair.split("=") for pair in FOREIGN_MAP.split(",")]
    (tmp_path / "map.toml").write_text("\n".join(f'{key} = "{name}"' for key, name in pairs))
    dataset = run(tmp_path, tmp_path / "plays.parquet", map=FOREIGN_MAP)
    sessions, levels, skips = agreement(dataset, history)
    assert sessions == 1
    assert levels > 0.99
    assert skips == 1
    assert dataset.about["history"]["listeners"] == history.in_sessions["user"].nunique()
    listeners = {session.partition("-")[0] for session in dataset.sessions.session_ids}
    assert len(listeners) == dataset.about["history"]["listeners"]
    assert not dataset.catalog.has_titles
    other = run(tmp_path, tmp_path / "plays.csv", out="csv", map=str(tmp_path / "map.toml"))
    assert stored(other) == stored(dataset)


ODD_TABLES = {
    "seconds": lambda t: t.assign(played_at=t["played_at"] // 1_000),
    "fractions": lambda t: t.assign(played_at=t["played_at"] / 1_000),
    "microseconds": lambda t: t.assign(played_at=t["played_at"] * 1_000),
    "naive times": lambda t: t.assign(played_at=pd.to_datetime(t["played_at"], unit="ms")),
    "times in Tokyo": lambda t: t.assign(
        played_at=pd.to_datetime(t["played_at"], unit="ms", utc=True).dt.tz_convert("Asia/Tokyo")
    ),
    "numbers for users": lambda t: t.assign(uid=pd.factorize(t["uid"])[0]),
    "numbers for tracks": lambda t: t.assign(song_id=pd.factorize(t["song_id"])[0]),
    "categories": lambda t: t.astype({"uid": "category", "song_id": "category"}),
}


def heard_by_listeners(folder, table, ending):
    """How many listeners a table has, and the levels of their sessions."""
    path = folder / f"plays.{ending}"
    table.to_parquet(path) if ending == "parquet" else table.to_csv(path, index=False)
    dataset = run(folder, path, map=FOREIGN_MAP)
    return dataset.about["history"]["listeners"], sorted(by_length(dataset, "level"))


@pytest.fixture(scope="module")
def plain_table():
    return foreign_table(make_history(60, tracks=150, users=5, days=60, seed=6))


@pytest.fixture(scope="module")
def heard(plain_table, tmp_path_factory):
    """What the plain table holds, by the ending of its file."""
    return cache(
        lambda ending: heard_by_listeners(tmp_path_factory.mktemp("plain"), plain_table, ending)
    )


@pytest.mark.parametrize("table", ODD_TABLES)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_tables_of_every_type_are_the_same(tmp_path, plain_table, heard, table, ending):
    """Integer ids, times of every unit: the same sessions, levels and number of listeners."""
    found = heard_by_listeners(tmp_path, ODD_TABLES[table](plain_table), ending)
    assert found == heard(ending)
    assert len(found[1]) == 60


def test_a_table_with_titles_speaks_in_songs(tmp_path):
    history = make_history(20, tracks=100, users=2, days=60)
    table = foreign_table(history).assign(
        what=history.plays["title"], by=history.plays["artist"], song_id=history.plays["track"]
    )
    table.to_csv(tmp_path / "plays.csv", index=False)
    mapping = f"{FOREIGN_MAP},title=what,artist=by"
    catalog = run(tmp_path, tmp_path / "plays.csv", map=mapping).catalog
    for track, title in zip(catalog.track_ids, catalog.titles, strict=True):
        assert title == f"Artist {int(track) % 97} - Song {track}, Part {int(track) % 3}"


def test_plays_of_nobody_are_rejected(tmp_path):
    """An empty user is not one more listener."""
    history = make_history(30, tracks=100, users=3, days=60)
    table = foreign_table(history)
    table["uid"] = table["uid"].where(np.arange(len(table)) % 50 > 0)
    table.to_parquet(tmp_path / "plays.parquet")
    dataset = run(tmp_path, tmp_path / "plays.parquet", map=FOREIGN_MAP, max_rejects=0.05)
    assert dataset.about["rejected"]["reasons"] == {"user is empty": -(-len(table) // 50)}
    assert dataset.about["history"]["listeners"] == 3


def test_seconds_called_milliseconds_are_noticed(tmp_path):
    history = make_history(40, tracks=100, users=3, days=60)
    table = foreign_table(history)
    table.assign(heard=table["heard"] / 1_000).to_csv(tmp_path / "plays.csv", index=False)
    mapping = FOREIGN_MAP.replace(",duration_ms=song_len", "")
    wrong = run(tmp_path, tmp_path / "plays.csv", out="wrong", map=mapping)
    (note,) = [note for note in wrong.about["history"]["notes"] if "seconds" in note]
    assert re.fullmatch(r"No play's played_ms is above \d+: .* map it as played_s\.", note)
    right = mapping.replace("played_ms", "played_s")
    dataset = run(tmp_path, tmp_path / "plays.csv", map=right)
    assert not [note for note in dataset.about["history"]["notes"] if "seconds" in note]
    assert agreement(dataset, history)[0] == 1


def test_a_table_without_mapping_is_read_only_on_demand(tmp_path):
    table = foreign_table(make_history(20, tracks=100))
    table = table.rename(columns={"heard": "ms_played", "song_len": "duration_ms"})
    table.to_csv(tmp_path / "plays.csv", index=False)
    source = tmp_path / "plays.csv"
    with pytest.raises(ValueError, match=r"played_ms    from column ms_played[\s\S]*--map auto"):
        run(tmp_path, source)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, source, map="auto").sessions.num_sessions == 20
    with pytest.raises(ValueError, match="no column heard, song_len, which --map names"):
        run(tmp_path, source, out="b", map=FOREIGN_MAP)
    table[["played_at", "song_id"]].to_csv(source, index=False)
    with pytest.raises(ValueError, match="above all one of played_ms") as told:
        run(tmp_path, source, out="b")
    assert '--map "time=played_at,track=song_id,played_ms=COLUMN"' in str(told.value)


def test_a_comparison_refused_for_its_mapping_is_given_again_with_one(tmp_path, capsys):
    """Until its data can be read, a command may be given again with other options."""
    table = foreign_table(make_history(20, tracks=100))
    table.rename(columns={"heard": "ms_played"}).to_csv(tmp_path / "plays.csv", index=False)
    command = ["compare", "--sessions", str(tmp_path / "plays.csv"), "--out", str(tmp_path / "run")]
    for mapping, said in (
        ([], "with --map auto"),
        (["--map", "time=uid,track=song_id,played_ms=ms_played"], "time is neither ISO 8601"),
        (["--map", "time=played_at,track=song_id,played_ms=heard"], "no column heard"),
    ):
        with pytest.raises(SystemExit):
            main([*command, *mapping])
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run/dataset").exists()


def test_a_table_of_several_users_is_never_taken_for_one_listeners_archive(tmp_path):
    frame = pd.read_csv(io.StringIO(exported_csv(make_history(3, tracks=100))))
    frame.assign(user_id="a").to_csv(tmp_path / "plays.csv", index=False)
    with pytest.raises(ValueError, match="user         from column user_id"):
        run(tmp_path, tmp_path / "plays.csv")


@pytest.mark.parametrize("flag", ["completed", "skipped"])
def test_flags_alone(tmp_path, flag):
    """With nothing but a flag: full or short, and sessions by the tracks' lengths."""
    history = make_history(20, tracks=100)
    table = foreign_table(history)
    full = history.plays["level"].to_numpy() == 4
    table[flag] = full if flag == "completed" else ~full
    table.drop(columns="heard").to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    mapping = FOREIGN_MAP.replace("played_ms=heard", f"{flag}={flag}")
    dataset = run(tmp_path, tmp_path / "t.jsonl", map=mapping)
    counts = np.bincount(dataset.sessions.column("level"), minlength=5)
    np.testing.assert_array_equal(counts[[0, 2, 3]], 0)
    assert counts[4] / counts.sum() == pytest.approx(full.mean(), abs=0.05)
    evidence = dataset.about["history"]["levels"]["evidence"]
    assert list(evidence) == ["a completed or skipped flag alone"]
    assert set(truth(history)) <= set(stored(dataset))


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2022-01-01T00:00:01Z", 1_640_995_201_000),
        ("2022-01-01 00:00", 1_640_995_200_000),
        ("2022-01-01T01:00:00+01:00", 1_640_995_200_000),
        ("2022-01-01T05:30:00.25+0530", 1_640_995_200_250),
        ("2022-01-01T00:00:00.123456789Z", 1_640_995_200_123),
        ("2022-01-01 00:00:01 UTC", 1_640_995_201_000),
        ("1640995200", 1_640_995_200_000),
        ("1640995200.5", 1_640_995_200_500),
        ("1640995200123", 1_640_995_200_123),
        ("1640995200123456", 1_640_995_200_123),
        ("1640995200123456789", 1_640_995_200_123),
        ("03/04/2022", None),
        ("", None),
        ("1999-12-31", None),
        ("2022", None),
    ],
)
def test_times_in_every_spelling(text, milliseconds):
    import pyarrow as pa

    values, good = parse_times(pa.array([text, text]))
    assert good.tolist() == [milliseconds is not None] * 2
    if milliseconds is not None:
        assert values.tolist() == [milliseconds] * 2


def test_mappings_are_checked():
    with pytest.raises(ValueError, match="must name what says how far a play was heard"):
        HistoryConfig(map="time=a,track=b")
    assert HistoryConfig(map="time=a,track=b", inferred_levels=True).mapping() is not None
    assert read_mapping("time=ended_at,track=a,played_s=b").time_is == "end"
    assert read_mapping("time=played_at,track=a,skipped=b").time_is == "start"
    for text, message in [
        ("time=a,trak=b,played_ms=c", "Unknown key of a mapping 'trak'; did you mean 'track'"),
        ("track=b,played_ms=c", "must name time"),
        ("time=a,played_ms=c", "must name track, or both title and artist"),
        ("time=a,track=b,played_ms=c,played_s=d", "both played_ms and played_s"),
        ("time=a,track=,played_ms=c", "The mapping of track is ''"),
        ("time=a,track=b,track=c,skipped=d", "maps a key twice"),
        ("time=a,time_is=middle,track=b,played_ms=c", "Unknown time_is 'middle'"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_mapping(text)
    with pytest.raises(FileNotFoundError, match="no such file; --map takes"):
        read_mapping("plays.toml")
    proposed = propose_mapping(["UID", "Played At", "track_name", "Artist", "ms_played"])
    assert proposed.option() == (
        "time=Played At,user=UID,title=track_name,artist=Artist,played_ms=ms_played,time_is=start"
    )
    assert read_mapping(proposed.option()) == proposed
    assert propose_mapping(["time", "song_id"]) is None


SECONDS, MILLISECONDS = ["200", "214"], ["200000", "214000"]
WORDS = ["Sinnerman", "Hallelujah", "Doo-wop", "L'amour", "Ålesund", "99"]
CODES = ["4uLU6hMCjMI75M1A2tKUQC", "a_b", "spotify:track:x", "17", "s1", "s2"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"track": WORDS}, {"title": "track"}),
        ({"track": CODES}, {"track": "track"}),
        ({"track": WORDS, "title": WORDS}, {"track": "track", "title": "title"}),
        ({"track_id": WORDS}, {"track": "track_id"}),
        ({"track": ["Blue Moon", *WORDS]}, {"title": "track"}),
        ({"song": WORDS}, {"title": "song"}),
        ({"track": CODES, "Track": WORDS}, {"track": "track", "title": "Track"}),
        ({"Track": WORDS, "track": CODES}, {"track": "track", "title": "Track"}),
        (
            {"TRACK": ["Blue Moon"], "song": WORDS, "track": CODES},
            {"track": "track", "title": "song"},
        ),
        ({"track": CODES, "Track": CODES[:2]}, {"track": "track"}),
        ({"Nummer": WORDS}, {"title": "Nummer"}),
        ({"Nummer": SECONDS, "Titel": WORDS}, {"title": "Titel"}),
    ],
)
def test_titles_of_one_word_are_no_ids(columns, expected):
    found = usual_columns([*columns, "artist"], columns)
    assert {key: found[key] for key in ("track", "title") if key in found} == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"Track seconds": SECONDS, "Song": WORDS}, "title=Song,duration_s=Track seconds"),
        ({"Track seconds": SECONDS, "Track": CODES}, "track=Track,duration_s=Track seconds"),
        ({"track_ms": MILLISECONDS, "title": WORDS}, "title=title,duration_ms=track_ms"),
        ({"Lied (Sekunden)": SECONDS, "Titel": WORDS}, "title=Titel,duration_s=Lied (Sekunden)"),
        ({"title_s": WORDS, "duration": SECONDS}, "title=title_s,duration_s=duration"),
        ({"track": SECONDS, "title": WORDS}, "track=track,title=title"),
    ],
)
def test_songs_in_a_unit_are_their_lengths(columns, expected):
    """A length was taken for the id of its song, so that songs of equal length were one."""
    proposed = usual_columns([*columns, "artist"], columns)
    del proposed["artist"]
    assert proposed == dict(cell.split("=") for cell in expected.split(","))


IN_LANGUAGES = [
    (
        "Date d'écoute=2024-03-05 14:03;Titre=Bleu;Artiste=Mira;Durée d'écoute=0:40;Durée=4:00",
        "time=Date d'écoute,title=Titre,artist=Artiste,played_s=Durée d'écoute,duration_s=Durée",
    ),
    (
        "Tijdstip=2024-03-05 14:03;Nummer=Blauw;Artiest=Mira;Luistertijd=0:40;Duur=4:00",
        "time=Tijdstip,title=Nummer,artist=Artiest,played_s=Luistertijd,duration_s=Duur",
    ),
    (
        "Date=2024-03-05 14:03:20;Time=4:00;Track=Blue;Artist=Mira;Played=0:40",
        "time=Date,title=Track,artist=Artist,played_s=Played",
    ),
    (
        "Date (UTC)=2024-03-05 14:03:20;Spotify URI=a1;Track time=4:00;Time played=0:40",
        "time=Date (UTC),track=Spotify URI,played_s=Time played,duration_s=Track time",
    ),
    (
        "Zeitpunkt=05.03.2024 14:03:20;Titel=Blau;Interpret=Mira;Sekunden gehört=200;Länge=240",
        "time=Zeitpunkt,title=Titel,artist=Interpret,played_s=Sekunden gehört,duration_s=Länge",
    ),
    (
        "Datum=05.03.2024;Uhrzeit=14:03:20;Benutzer=m;Lied=Blau;Künstler=Mira;Hördauer=200000;"
        "Dauer (ms)=240000;Übersprungen=ja",
        "time=Uhrzeit,date=Datum,user=Benutzer,title=Lied,artist=Künstler,played_ms=Hördauer,"
        "duration_ms=Dauer (ms),skipped=Übersprungen",
    ),
    (
        "Fecha y hora=2024-03-05 14:03;Canción=Azul;Artista=Mira;Tiempo escuchado (s)=200;"
        "Duración de la canción=240;Saltada=no",
        "time=Fecha y hora,title=Canción,artist=Artista,played_s=Tiempo escuchado (s),"
        "duration_s=Duración de la canción,skipped=Saltada",
    ),
    (
        "Date=05/03/2024;Heure=14:03:20;Nom d'utilisateur=m;Titre=Bleu;Artiste=Mira;"
        "Durée d'écoute=0:40;Durée=4:00",
        "time=Heure,date=Date,user=Nom d'utilisateur,title=Titre,artist=Artiste,"
        "played_s=Durée d'écoute,duration_s=Durée",
    ),
    (
        "heureFin=2024-03-05 14:03:20;idMorceau=x1;secondes_écoutées=200",
        "time=heureFin,track=idMorceau,time_is=end,played_s=secondes_écoutées",
    ),
    (
        "Data=2024-03-05 14:03:20;Faixa=Azul;Artista=Mira;Ouvido (s)=100",
        "time=Data,title=Faixa,artist=Artista,played_s=Ouvido (s)",
    ),
    (
        "Ora=2024-03-05 14:03:20;Brano=Blu;Artista=Mira;Ascoltato=100;Durata=200",
        "time=Ora,title=Brano,artist=Artista,played_s=Ascoltato,duration_s=Durata",
    ),
    (
        "eindtijd=2024-03-05 14:03:20;titel=Blauw;artiest=Mira;luistertijd=100;lengte=200",
        "time=eindtijd,time_is=end,title=titel,artist=artiest,played_s=luistertijd,"
        "duration_s=lengte",
    ),
]


@pytest.mark.parametrize(("table", "expected"), IN_LANGUAGES)
def test_columns_named_in_other_languages_are_proposed(table, expected):
    row = dict(cell.split("=") for cell in table.split(";"))
    found = propose_mapping([*row], {column: [value] for column, value in row.items()})
    assert found == read_mapping(expected)


@pytest.mark.parametrize("name", ["Gehört in %", "Played (%)", "% écouté"])
def test_a_column_named_with_a_percent_sign_holds_shares(name):
    values = {"Time": ["2024-01-01 10:00:00"], "Track": ["t1"], name: ["50"]}
    found = usual_columns([*values], values)
    assert found["played_share"] == name
    assert not found.keys() & {"played_s", "duration_s"}
    assert "duration_s" not in usual_columns(["Length (%)"], {"Length (%)": ["50"]})


def test_last_parts_of_nested_names_are_proposed():
    """A record within a record names its values as a flat one does."""
    nested = {
        "listener.id": "u",
        "track.createdAt": "2020-01-01T10:00:00Z",
        "album.artist.name": "Various",
        "track.artist.name": "Mira",
        "track.name": "Blau",
        "playback.startedAt": "2024-03-05T14:03:20Z",
        "playback.playedMs": "200000",
        "track.durationMs": "240000",
        "device.name": "phone",
    }
    found = usual_columns([*nested], {name: [value] for name, value in nested.items()})
    assert found == {
        "user": "listener.id",
        "time": "playback.startedAt",
        "title": "track.name",
        "artist": "track.artist.name",
        "played_ms": "playback.playedMs",
        "duration_ms": "track.durationMs",
    }


@pytest.mark.parametrize("more", [{}, {"map": "auto"}])
@pytest.mark.parametrize(
    ("renamed", "lacking", "option"),
    [
        ({"played_at": "wann"}, "time", "time=COLUMN,user=uid,track=song_id,"),
        ({"song_id": "was"}, "track", ",track=COLUMN"),
        ({"played_at": "wann", "heard": "lange"}, "time, played_ms", ",played_ms=COLUMN"),
    ],
)
def test_a_table_that_half_tells_is_refused_by_what_it_lacks(
    tmp_path, more, renamed, lacking, option
):
    """The refusal said that no table of plays was found, and to try what had been tried."""
    table = foreign_table(make_history(20, tracks=100)).rename(columns={"song_len": "length_ms"})
    table = table.rename(columns=renamed).rename(columns={"heard": "ms_played"})
    table.to_csv(tmp_path / "plays.csv", index=False)
    with pytest.raises(ValueError, match=f"columns do not tell {lacking}\\. ") as error:
        run(tmp_path, tmp_path / "plays.csv", **more)
    assert option in str(error.value)
    assert next(iter(renamed.values())) in str(error.value)


def test_what_lacks_beside_an_artist_is_the_title():
    for known, lacking in (("artist", "title"), ("titel", "artist")):
        told = explain_half_told(["user", "ms_played", known, "x"], {})
        assert f"do not tell time, {lacking}. " in told


def test_a_table_of_something_else_is_no_half_told_one():
    for columns in (["customer", "city", "revenue"], ["artist", "title", "year"], ["time", "cpu"]):
        assert explain_half_told(columns, {}) is None


def test_tables_of_plays_with_other_columns_are_told_apart(tmp_path):
    """Only the columns of the first were printed."""
    table = foreign_table(make_history(20, tracks=100))
    table = table.rename(columns={"heard": "ms_played", "song_len": "length_ms"})
    for name, of in (("a", table), ("b", table.rename(columns={"uid": "user"})), ("c", table)):
        of.to_csv(tmp_path / f"{name}.csv", index=False)
    read_as = run(tmp_path, tmp_path, map="auto").about["history"]["read_as"]
    assert {title: columns["user"] for title, columns in read_as.items()} == {
        "table of plays": "uid",
        "table of plays, b.csv": "user",
    }


def test_words_that_say_not_who_chose_a_song_are_noted_with_those_that_do(tmp_path):
    table = foreign_table(make_history(20, tracks=100)).assign(by="eigene Wahl")
    table.to_csv(tmp_path / "plays.csv", index=False)
    dataset = run(tmp_path, tmp_path / "plays.csv", map=f"{FOREIGN_MAP},source=by")
    (note,) = [n for n in dataset.about["history"]["notes"] if "eigene Wahl" in n]
    assert note.endswith("it is unknown there (organic or recommended expected).")
