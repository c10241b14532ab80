"""Players' logs, Deezer's workbook and set, and 30Music, against what was really heard."""

import json
from dataclasses import replace
from urllib.parse import quote_plus

import pandas as pd
import pytest
from make_histories import DEVICE, IP, USERNAME, make_history
from make_scrobbles import dsg17_table
from read_histories import agreement, contents_of, run

from musicbox_env.schema import is_skip


@pytest.fixture(scope="module")
def heard():
    history = make_history(60, tracks=100, days=200, seed=13, users=2)
    plays = history.plays.reset_index(drop=True)
    number = pd.Series(pd.factorize(plays["uri"])[0] + 5)
    names = plays["artist"] + " - " + plays["title"]
    plays = plays.assign(name=names, number=number.astype(str), s=plays["start_ms"] // 1000)
    return replace(history, plays=plays)


def skipped(plays):
    return is_skip(plays["level"].to_numpy())


def scrobbler_log(plays, version="1.1"):
    lines = [f"#AUDIOSCROBBLER/{version}", "#TZ/UTC", f"#CLIENT/Rockbox {DEVICE}"]
    for play, skip in zip(plays.itertuples(), skipped(plays), strict=True):
        fields = [
            play.artist,
            play.album,
            play.title,
            3,
            round(play.duration_ms / 1000),
            "LS"[int(skip)],
            play.s,
        ]
        lines.append("\t".join(map(str, fields + ["id"] * (version == "1.1"))))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_players_log_tells_skips(tmp_path, heard, version):
    one = replace(heard, plays=heard.plays[heard.plays["user"] == 0])
    log = (
        scrobbler_log(one.plays, version)
        + "a\tb\tc\t1\t200\tX\t1700000000"
        + "\tid" * (version == "1.1")
    )
    (tmp_path / ".scrobbler.log").write_text(log + "\ncut\toff\n")
    dataset = run(tmp_path, tmp_path / ".scrobbler.log")
    sessions, _, skips = agreement(dataset, one, "name")
    assert sessions > 0.95
    assert skips == 1.0
    rows = dataset.about["history"]["rows"]
    assert rows["rejected"] == 2, "a line that is cut, and one that is neither L nor S"
    assert dataset.about["history"]["read_as"]["scrobbler log of a player"]["skipped"] == "rating"
    text = contents_of(dataset.folder)
    assert not [word for word in (DEVICE, *one.plays["s"].astype(str)) if word in text]


def test_the_workbook_of_deezer(tmp_path, heard):
    """Its sheets of other things are passed over; addresses and devices stay nowhere."""
    plays = heard.plays[heard.plays["user"] == 0]
    table = pd.DataFrame(
        {
            "Song Title": plays["title"],
            "Artist": plays["artist"],
            "ISRC": plays["uri"],
            "Album Title": plays["album"],
            "Listening Time": (plays["ms_played"] / 1000).round().astype(int),
            "IP Address": IP,
            "Platform Name": "web",
            "Platform Model": DEVICE,
            "Date": pd.to_datetime(plays["s"], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )
    bad = table.tail(2).assign(**{"Listening Time": ["soon", -4]})
    with pd.ExcelWriter(tmp_path / "deezer-data_1.xlsx") as book:
        pd.DataFrame({"Email": [USERNAME], "Phone": ["1"]}).to_excel(
            book, sheet_name="01_account", index=False
        )
        pd.concat([table, bad]).to_excel(book, sheet_name="10_listeningHistory", index=False)
    dataset = run(tmp_path, tmp_path / "deezer-data_1.xlsx")
    one = replace(heard, plays=plays)
    sessions, levels, skips = agreement(dataset, one, "name")
    assert sessions > 0.95
    assert levels > 0.8
    assert skips > 0.93
    assert dataset.about["history"]["rows"]["rejected"] == 2
    assert dataset.about["passed_over"]["files"] == 1
    text = contents_of(dataset.folder)
    stamps = [*table["Date"], *table["Date"].str[11:]]
    assert not [word for word in (USERNAME, IP, DEVICE, *stamps) if word in text]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_set_of_deezer_has_flags_and_sources(tmp_path, heard, kind):
    plays = heard.plays
    table = dsg17_table(plays)
    file = tmp_path / f"train.{kind}"
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    dataset = run(tmp_path, file)
    sessions, _, skips = agreement(dataset, heard, "number")
    assert sessions > 0.95
    assert skips == 1.0
    assert dataset.about["history"]["listeners"] == 2
    assert 0.4 < dataset.sessions.column("source").mean() < 0.6
    (read_as,) = dataset.about["history"]["read_as"].values()
    assert {*read_as.values()} - {*table.columns} == {"ts_listen (start of the play)"}
    assert "8765432" not in contents_of(dataset.folder)


def idomaar(plays, space):
    lines = []
    for number, (_, of) in enumerate(plays.groupby("run", sort=False)):
        first = int(of["s"].iloc[0])
        objects = [
            {
                "type": "track",
                "id": int(play.number),
                "playstart": play.s - first,
                "playtime": round(play.ms_played / 1000),
                "playratio": round(play.ms_played / play.duration_ms, 4),
                "action": "skip" if play.reason_end == "fwdbtn" else "play",
            }
            for play in of.itertuples()
        ]
        about = json.dumps({"numtracks": len(of), "playtime": 1})
        linked = json.dumps(
            {
                "subjects": [{"type": "user", "id": f"{USERNAME}{of['user'].iloc[0]}"}],
                "objects": objects,
            }
        )
        lines.append(f"event.session\t{number}\t{first}\t{about}{space}{linked}")
    return lines


@pytest.mark.parametrize("space", [" ", "\t"])
def test_sessions_of_30music_are_cut_anew(tmp_path, heard, space):
    lines = idomaar(heard.plays, space)
    objects = {
        "subjects": [{"type": "user", "id": 1}],
        "objects": [{"type": "track", "id": 1, "playratio": None}],
    }
    bad = [
        "event.session\t1\t2",
        f"event.session\t1\t1400000000\t{{}} {json.dumps(objects)}",
        "event.session\t1\t1\t{} {",
    ]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "sessions.idomaar").write_text("\n".join([*lines, *bad]))
    songs = heard.plays.drop_duplicates("number")
    tracks = [
        f"track\t{song.number}\t-1\t"
        + json.dumps(
            {"duration": -1, "name": f"{quote_plus(song.artist)}/_/{quote_plus(song.title)}"}
        )
        + space
        + json.dumps({"artists": [{"type": "person", "id": 1}]})
        for song in songs.itertuples()
    ]
    (tmp_path / "set" / "tracks.idomaar").write_text("\n".join(tracks))
    dataset = run(tmp_path, tmp_path / "set")
    sessions, levels, skips = agreement(dataset, heard, "number")
    assert sessions > 0.95
    assert levels > 0.95
    assert skips > 0.98
    rows = dataset.about["history"]["rows"]
    assert rows["read"] == len(heard.plays) + len(songs) + 3
    assert rows["left out: names of tracks, no plays"] == len(songs)
    named = dict(zip(songs["number"], songs["name"], strict=True))
    assert all(
        named[number] == title
        for number, title in zip(dataset.catalog.track_ids, dataset.catalog.titles, strict=True)
    )
    assert rows["rejected"] == 3
    assert dataset.about["history"]["listeners"] == 2
    text = contents_of(dataset.folder)
    assert not [word for word in (USERNAME, *heard.plays["s"].astype(str)) if word in text]
