"""People's own histories become sessions: of every format, whatever is wrong, nothing private."""

import io
import json
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_histories import (
    COUNTRY,
    DEVICE,
    FIRST_MS,
    FOREIGN_MAP,
    IP,
    USERNAME,
    History,
    account_records,
    archive_files,
    exported_csv,
    extended_records,
    foreign_table,
    make_history,
    write_folder,
    write_zip,
)
from make_logs import make_log, passed_over, write_csv
from musicbox_experiments.cli import main
from musicbox_experiments.data.describe import describe
from musicbox_experiments.data.enough import cautions, skip_rate_interval
from musicbox_experiments.data.ingest import history_account
from musicbox_experiments.data.ingest import passed_over as passed_over_lines
from musicbox_experiments.data.sources import Source
from musicbox_experiments.serve.recommend import parse_heard

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest import json_tables as jsontables
from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.histories.mapping import read_mapping
from musicbox_env.ingest.histories.proposal import propose_mapping
from musicbox_env.ingest.histories.sessionize import SessionConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.spelling.times import parse_times
from musicbox_env.schema import REASONS_END, UNKNOWN, is_skip


@pytest.fixture(scope="module")
def history() -> History:
    return make_history(80, tracks=200, days=300, seed=5)


def run(tmp_path, *sources, out="out", max_rejects=0.01, max_rows=None, **options) -> Dataset:
    config = IngestConfig(
        sources=tuple(map(str, sources)),
        out=tmp_path / out,
        embeddings=False,
        progress=False,
        max_rejects=max_rejects,
        max_rows=max_rows,
        history=HistoryConfig(**options),
    )
    dataset = Dataset(ingest(config))
    rows = dict(dataset.about["history"]["rows"])
    assert rows.pop("read") == sum(rows.values()), "a row is lost, or counted twice"
    return dataset


def stored(dataset, columns=("level",)) -> dict:
    """Tracks of each session, and its columns."""
    log, ids = dataset.sessions, dataset.catalog.track_ids
    bounds = [slice(a, b) for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)]
    return {
        tuple(ids[log.column("track")[rows]]): [log.column(name)[rows].tolist() for name in columns]
        for rows in bounds
    }


def truth(history, track="uri") -> dict:
    plays = history.in_sessions.sort_values(["session", "position"])
    return {tuple(of[track]): of["level"].tolist() for _, of in plays.groupby("session")}


def agreement(dataset, history, track="uri") -> tuple[float, float, float]:
    """Share of sessions recovered play by play; in these, of levels and of skips."""
    found, true = stored(dataset), truth(history, track)
    both = [session for session in true if session in found]
    ours = np.concatenate([found[session][0] for session in both])
    theirs = np.concatenate([true[session] for session in both])
    same_skip = is_skip(ours) == is_skip(theirs)
    return len(both) / len(true), float((ours == theirs).mean()), float(same_skip.mean())


def test_the_archive_as_downloaded(tmp_path, history):
    """Every session comes back; the rest of the rows is accounted for to the last one."""
    dataset = run(tmp_path, write_zip(archive_files(history), tmp_path / "my_spotify_data.zip"))
    sessions, levels, skips = agreement(dataset, history)
    assert sessions == 1
    assert dataset.sessions.num_sessions == 80
    assert levels > 0.96
    assert skips > 0.99
    account = dataset.about["history"]
    rows = dict(account["rows"])
    read = rows.pop("read")
    assert read == len(history.plays) + 4
    assert sum(rows.values()) == read
    for what in ("podcast", "audiobook", "private session", "no track named"):
        assert sum(n for name, n in rows.items() if name.startswith(f"left out: {what}")) == 1
    assert rows["plays in sessions"] == len(history.in_sessions)
    assert rows["plays in runs too short"] == len(history.plays) - len(history.in_sessions)
    evidence = account["levels"]["evidence"]
    assert sum(found["plays"] for found in evidence.values()) == len(history.in_sessions)
    assert list(passed_over(dataset)) == [
        "my_spotify_data.zip:Spotify Extended Streaming History/ReadMeFirst.pdf"
    ]
    printed = "\n".join(history_account(dataset.about))
    for said in ("played_ms    from column ms_played", "ended by itself"):
        assert said in printed
    assert "ReadMeFirst.pdf, which is neither" in "\n".join(passed_over_lines(dataset.about))


def test_all_forms_of_the_extended_history_are_the_same(tmp_path, history):
    files = archive_files(history)
    expected = run(tmp_path, write_folder(files, tmp_path / "new"), out="a")
    older = write_folder(archive_files(history, older=True), tmp_path / "old")
    single = [tmp_path / "new" / name for name in files]
    (tmp_path / "plays.csv").write_text(exported_csv(history))
    (tmp_path / "lines.json").write_text(
        "\n".join(json.dumps(record) for record in extended_records(history))
    )
    sources = {"b": [older], "c": single, "d": [tmp_path / "plays.csv"]}
    sources["e"] = [tmp_path / "lines.json"]
    columns = ("level", "shuffle", "reason_start", "reason_end", "position")
    for out, of in sources.items():
        other = run(tmp_path, *of, out=out)
        assert stored(other, columns) == stored(expected, columns), out
        assert sorted(other.catalog.titles) == sorted(expected.catalog.titles), out
    plays = history.in_sessions
    assert (expected.sessions.column("shuffle") == 1).sum() == plays["shuffle"].sum()
    done = expected.sessions.column("reason_end") == REASONS_END.index("trackdone")
    assert done.sum() == (plays["reason_end"] == "trackdone").sum()
    for name in ("date", "premium", "hour", "context_type", "pause", "seek_back"):
        assert (expected.sessions.column(name) == UNKNOWN).all(), name


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("start", "newline"), [(b"", "\n"), (b"\xef\xbb\xbf", "\r\n"), (b"", "\r")]
)
def test_csv_of_every_dialect(tmp_path, history, delimiter, start, newline):
    """What spreadsheets of other countries and systems write."""
    frame = pd.read_csv(io.StringIO(exported_csv(history)))
    text = frame.to_csv(sep=delimiter, lineterminator=newline, index=False)
    (tmp_path / "plays.csv").write_bytes(start + text.encode())
    dataset = run(tmp_path, tmp_path / "plays.csv")
    assert agreement(dataset, history)[0] == 1
    assert set(dataset.catalog.titles) <= set(
        history.plays["artist"] + " - " + history.plays["title"]
    )


def test_json_with_a_byte_order_mark_foreign_line_ends_and_titles(tmp_path, history):
    plays = history.plays.assign(title=[f"夜に駆ける {t} 🎵" for t in history.plays["track"]])
    text = json.dumps(extended_records(History(plays)), indent=1, ensure_ascii=False)
    content = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    (tmp_path / "a.json").write_bytes(content)
    dataset = run(tmp_path, tmp_path / "a.json")
    assert agreement(dataset, history)[0] == 1
    assert set(dataset.catalog.titles) <= set(plays["artist"] + " - " + plays["title"])


def test_archives_that_hold_nothing(tmp_path, history):
    picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    write_zip(archive_files(history), tmp_path / "folder/data.zip")
    zips = {"empty": {}, "pictures": {"a.png": picture, "b.png": picture}}
    zips["nested"] = {"data.zip": (tmp_path / "folder/data.zip").read_bytes()}
    for name, members in zips.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    (tmp_path / "nothing").mkdir()
    for name, message in [
        ("empty.zip", r"empty\.zip: is an empty archive"),
        ("pictures.zip", r"pictures\.zip:a\.png: is neither"),
        ("nested.zip", r"nested\.zip:data\.zip: is an archive within an archive"),
        ("nothing", "No listening log among the 0 files"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(tmp_path, tmp_path / name)
        assert not (tmp_path / "out").exists()
    assert agreement(run(tmp_path, tmp_path / "folder"), history)[0] == 1


@pytest.mark.parametrize("shuffle", [None, 3])
def test_account_data_to_the_minute(tmp_path, history, shuffle):
    """Without reasons and seconds: all sessions still, and nine levels of ten.

    In no order within a minute all plays of a session are found, though not in what order.
    """
    records = account_records(history, shuffle)
    (tmp_path / "StreamingHistory_music_0.json").write_text(json.dumps(records))
    podcasts = [{"endTime": "2021-05-01 10:00", "podcastName": "P", "episodeName": "E"}]
    podcasts[0]["msPlayed"] = 5
    (tmp_path / "StreamingHistory_podcast_0.json").write_text(json.dumps(podcasts))
    (tmp_path / "Userdata.json").write_text(json.dumps({"username": USERNAME, "country": COUNTRY}))
    dataset = run(tmp_path, tmp_path / "*.json")
    plays = history.plays
    named = History(plays.assign(name=plays["artist"] + " - " + plays["title"]))
    sessions, levels, skips = agreement(dataset, named, "name")
    assert sessions == 1 if shuffle is None else 0.2 < sessions < 0.6
    found, true = ({tuple(sorted(s)) for s in of} for of in (stored(dataset), truth(named, "name")))
    assert found == true
    assert levels > 0.88
    assert skips > 0.95
    assert dataset.about["history"]["rows"]["left out: podcast"] == 1
    assert list(passed_over(dataset)) == ["Userdata.json"]


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


@pytest.mark.parametrize("table", ODD_TABLES)
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_tables_of_every_type_are_the_same(tmp_path, table, ending):
    """Integer ids, times of every unit: the same sessions, levels and number of listeners."""
    history = make_history(60, tracks=150, users=5, days=60, seed=6)
    found = []
    for name, frame in (("a", foreign_table(history)), ("b", None)):
        frame = ODD_TABLES[table](foreign_table(history)) if frame is None else frame
        path = tmp_path / f"{name}.{ending}"
        frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
        dataset = run(tmp_path, path, out=name, map=FOREIGN_MAP)
        found.append((dataset.about["history"]["listeners"], sorted(by_length(dataset, "level"))))
    assert found[0] == found[1]
    assert len(found[0][1]) == 60


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
    with pytest.raises(ValueError, match="above all one of played_ms"):
        run(tmp_path, source, out="b")


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


def test_duplicates_within_and_between_archives(tmp_path, history):
    """Told twice in a file, again in an older archive with a name, again to the minute."""
    records = extended_records(history)
    write_folder({"a.json": json.dumps(records + records[50:150])}, tmp_path / "x")
    write_folder(archive_files(history, older=True), tmp_path / "x")
    write_folder({"acc.json": json.dumps(account_records(history))}, tmp_path / "x")
    dataset = run(tmp_path, tmp_path / "x")
    rows = dataset.about["history"]["rows"]
    assert rows["duplicate plays"] >= 2 * len(history.plays) + 100
    assert rows["plays in sessions"] == len(history.in_sessions)
    assert dataset.about["history"]["listeners"] == 1
    assert agreement(dataset, history)[0] == 1
    assert len(dataset.catalog) == history.in_sessions["uri"].nunique()


def test_archives_apart(tmp_path):
    """A household: two zips, one of them unpacked, and what of it is whose."""
    for i in range(2):
        files = archive_files(make_history(15 + i, tracks=100))
        write_zip(files, tmp_path / f"{i}/my_spotify_data.zip")
    write_folder(files, tmp_path / "unpacked")
    apart = run(
        tmp_path, *(tmp_path / name for name in ("0", "1", "unpacked")), archives_apart=True
    )
    assert apart.about["history"]["listeners"] == 3
    assert apart.sessions.num_sessions == 15 + 16 + 16
    together = run(tmp_path, tmp_path / "1", tmp_path / "unpacked", out="one")
    assert together.sessions.num_sessions == 16


def session_of(tracks=12, *, start="2022-01-01T10:00:00", seconds=200, prefix="t", **changes):
    """Plays of equal length, one right after the other."""
    end = pd.Timestamp(start)
    records = []
    for i in range(tracks):
        end += pd.Timedelta(seconds=seconds)
        record = {
            "ts": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ms_played": 1000 * seconds,
            "spotify_track_uri": f"spotify:track:{prefix}{i}",
            "reason_end": "trackdone",
        }
        records.append({**record, **changes})
    return records


def ingest_records(tmp_path, records, name="a.json", **options):
    (tmp_path / name).write_text(json.dumps(records))
    return run(tmp_path, tmp_path / name, **options)


def test_two_players_at_once_are_two_listeners_places(tmp_path):
    """A second device plays through the first one's session; neither breaks the other."""
    first = session_of(platform="phone")
    second = session_of(11, start="2022-01-01T10:01:40", prefix="u", platform="kitchen")
    dataset = ingest_records(tmp_path, first + second)
    sessions = {tuple(sorted(session)) for session in stored(dataset)}
    expected = [[f"t{i}" for i in range(12)], [f"u{i}" for i in range(11)]]
    assert sessions == {tuple(sorted(tracks)) for tracks in expected}
    overlaps = list(dataset.about["history"]["overlaps"].values())
    assert overlaps == [0, 22, 22]


def test_times_of_the_wrong_end_are_noticed(tmp_path):
    table = foreign_table(make_history(60, tracks=100))
    table.to_csv(tmp_path / "plays.csv", index=False)
    right = run(tmp_path, tmp_path / "plays.csv", map=FOREIGN_MAP)
    assert not [note for note in right.about["history"]["notes"] if "time_is" in note]
    with pytest.raises(ValueError, match=r"No session is left[\s\S]*try time_is=start or"):
        run(tmp_path, tmp_path / "plays.csv", out="b", map=f"{FOREIGN_MAP},time_is=end")


def by_length(dataset, name):
    """A column of each session, sessions ordered by their length."""
    log = dataset.sessions
    bounds = zip(log.offsets[:-1], log.offsets[1:], strict=True)
    return sorted((log.column(name)[a:b].tolist() for a, b in bounds), key=len)


def test_skipped_says_different_things(tmp_path):
    """Null, 0, false never make a play full; true makes a full length a cut one."""
    known = session_of(10)
    said = [None, 0, False, 1, True, "1"] * 2
    flagged = session_of(12, start="2022-02-01")
    brief = session_of(11, start="2022-03-01", seconds=15, skipped=False)
    for record, skipped in zip(flagged, said, strict=True):
        record["skipped"] = skipped
    for record in flagged + brief:
        del record["reason_end"]
    for record in flagged[10:]:
        record["spotify_track_uri"] = "spotify:track:t0"
    brief[10]["spotify_track_uri"] = "spotify:track:t0"
    dataset = ingest_records(tmp_path, known + flagged + brief)
    assert by_length(dataset, "level") == [[4] * 10, [0] * 11, [4, 4, 4, 3, 3, 3] * 2]


def test_track_errors_and_other_reasons(tmp_path):
    records = session_of(12)
    records.insert(4, {**records[4], "ms_played": 0, "reason_end": "trackerror"})
    records[0]["reason_end"] = "unexpected-exit-while-paused"
    dataset = ingest_records(tmp_path, records)
    rows = dataset.about["history"]["rows"]
    assert rows["left out: track error before anything was heard"] == 1
    assert dataset.sessions.num_plays == 12
    assert dataset.about["notes"] == {"reason_end stored as unknown": 1}


def test_rows_that_cannot_be(tmp_path):
    records = session_of(20) + session_of(20, start="2022-02-01")
    times, heard = ["1970-01-01T00:00:00Z", "3/4/2022", None], [-5, "long", 10**9, None]
    for record, ts in zip(records, times, strict=False):
        record["ts"] = ts
    for record, ms in zip(records[3:], heard, strict=False):
        record["ms_played"] = ms
    records.insert(0, "not a record")
    dataset = ingest_records(tmp_path, records, max_rejects=0.5)
    rejects = pd.read_csv(dataset.folder / "rejects.csv")
    assert rejects["line"].tolist() == list(range(1, 9))
    assert set(rejects["file"]) == {"a.json"}
    assert rejects["reason"].value_counts().to_dict() == {
        "time is neither ISO 8601 nor Unix time, or not from 2000 to 2100": 3,
        "time heard is no number from 0 to a day": 3,
        "nothing says how far it was heard": 1,
        "no record, or wrong number of fields": 1,
    }


def test_long_runs_short_runs_and_other_definitions(tmp_path):
    records = session_of(47) + session_of(9, start="2022-02-01")
    window = ingest_records(tmp_path, records)
    assert sorted(np.diff(window.sessions.offsets)) == [15, 16, 16]
    cut = ingest_records(tmp_path, records, out="cut", session=SessionConfig(long_runs="cut"))
    assert np.diff(cut.sessions.offsets).tolist() == [20]
    assert list(stored(cut)) == [tuple(f"t{i}" for i in range(20))]
    assert cut.about["history"]["rows"]["plays cut off long runs"] == 27
    small = SessionConfig(min_plays=5, max_plays=9)
    other = ingest_records(tmp_path, records, out="small", session=small)
    assert sorted(np.diff(other.sessions.offsets)) == [7, 8, 8, 8, 8, 8, 9]


def test_all_windows_of_a_run_are_in_one_split(tmp_path):
    """What is learned from the first hour of an evening is not evaluated on its second."""
    evenings = [
        session_of(45, start=start, prefix=f"{i}_")
        for i, start in enumerate(pd.date_range("2022-01-01", periods=60))
    ]
    dataset = ingest_records(tmp_path, [play for plays in evenings for play in plays])
    tracks = dataset.catalog.track_ids[dataset.sessions.column("track")]
    evening = [track.partition("_")[0] for track in tracks[dataset.sessions.offsets[:-1]]]
    splits = pd.Series(dataset.sessions.split).groupby(evening)
    assert (splits.size() == 3).all()
    assert (splits.nunique() == 1).all()
    assert splits.first().nunique() == 4
    assert len(set(dataset.sessions.session_ids)) == 180
    assert "all sessions of a run together" in describe(dataset)


def test_nothing_left_says_where_the_rows_went(tmp_path):
    with pytest.raises(ValueError, match=r"No session is left of 9 rows[\s\S]*9  plays in runs"):
        ingest_records(tmp_path, session_of(9))


def test_hours_where_the_listener_lives(tmp_path):
    """Winter and summer time; the zone itself is nowhere."""
    records = session_of(10, start="2022-01-10T22:30:00", seconds=60)
    records += session_of(11, start="2022-07-10T22:20:00", seconds=60)
    dataset = ingest_records(tmp_path, records, timezone="Europe/Berlin")
    assert by_length(dataset, "hour") == [[23] * 10, [0] * 11]
    assert "Berlin" not in contents_of(dataset.folder)
    with pytest.raises(ValueError, match="No timezone 'Berlin'"):
        HistoryConfig(timezone="Berlin")


def contents_of(folder: Path) -> str:
    """Everything in a folder, names and Parquet cells included, as text."""
    texts = []
    for file in sorted(folder.rglob("*")):
        texts.append(str(file.relative_to(folder)))
        if file.suffix == ".parquet":
            texts.append(pd.read_parquet(file).to_csv())
        elif file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    return "\n".join(texts)


def private_words(history) -> set[str]:
    ends = history.plays["end_ms"][::7]
    stamps = pd.to_datetime(ends, unit="ms")
    return {
        *(USERNAME, IP, DEVICE, "Gramophone", f'"{COUNTRY}"', f",{COUNTRY},"),
        *stamps.dt.strftime("%Y-%m-%d"),
        *stamps.dt.strftime("%H:%M:%S"),
        *(ends // 1000).astype(str),
        *ends.astype(str),
        *(history.plays["start_ms"][::7] // 1000).astype(str),
    }


def assert_no_times(folder: Path, history) -> None:
    """No array holds a time, in whatever unit, and no column of plays a day."""
    moments = np.concatenate([history.plays["start_ms"], history.plays["end_ms"]])
    times = np.concatenate([moments // unit for unit in (1, 1_000, 60_000)])
    files = list(folder.rglob("*.npy"))
    assert len(files) > 10
    for file in files:
        assert not np.isin(np.load(file), times).any()
        if file.parent.name == "plays":
            assert not np.isin(np.load(file), moments // 86_400_000).any()


def assert_private(text, history):
    found = [word for word in private_words(history) if word in text]
    assert not found


def test_nothing_private_is_left_anywhere(tmp_path, history, capfd):
    """Not in the dataset, what is printed, or what a run that fails leaves behind."""
    source = write_folder(archive_files(history, older=True), tmp_path / "old")
    write_folder({"broken.json": json.dumps(extended_records(history))[:-9]}, source)
    config = IngestConfig((str(source),), tmp_path / "out", max_rejects=0.5)
    dataset = Dataset(ingest(config))
    shown = "\n".join([describe(dataset), *history_account(dataset.about)])
    captured = capfd.readouterr()
    for text in (contents_of(dataset.folder), shown, captured.out, captured.err):
        assert_private(text, history)
    assert_no_times(dataset.folder, history)
    with pytest.raises(ValueError, match="damaged JSON") as refusal:
        run(tmp_path, source, out="strict", max_rejects=0.0)
    assert_private(str(refusal.value), history)
    assert_private(contents_of(tmp_path / "strict.partial"), history)


def test_a_refusal_shows_no_rows(tmp_path):
    """A table without a header begins with somebody's name and time."""
    line = f"{USERNAME}\t2009-05-04T23:08:57Z\tid\tArtist\tid\tTitle\n"
    (tmp_path / "plays.tsv").write_text(line)
    with pytest.raises(ValueError, match="what seem to be values in place of names") as refusal:
        run(tmp_path, tmp_path / "plays.tsv")
    assert USERNAME not in str(refusal.value)
    assert "2009" not in str(refusal.value)


def test_nothing_leaves_the_machine(tmp_path, history, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    source = write_zip(archive_files(history), tmp_path / "my_spotify_data.zip")
    ingest(IngestConfig((str(source),), tmp_path / "out", progress=False))


def test_session_ids_tell_no_order_and_no_name(tmp_path, history):
    """Hashes under a salt from the content: the same for the same files, and only for them."""
    source = write_folder(archive_files(history, older=True), tmp_path / "old")
    first, again = run(tmp_path, source), run(tmp_path, source, out="b")
    ids = list(first.sessions.session_ids)
    assert ids == list(again.sessions.session_ids)
    assert stored(first) == stored(again)
    assert ids == sorted(ids)
    true = list(truth(history))
    order = [true.index(session) for session in stored(first)]
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.35
    other = archive_files(history, older=True)
    other["endsong_0.json"] += "\n"
    changed = run(tmp_path, write_folder(other, tmp_path / "other"), out="c")
    assert stored(changed).keys() == stored(first).keys()
    assert set(changed.sessions.session_ids).isdisjoint(ids)


def test_a_corrupt_file_among_good_ones_is_named_and_passed_over(tmp_path, history):
    files = {f"{i}.json": json.dumps(extended_records(history)) for i in range(3)}
    whole = files["1.json"]
    files["1.json"] = whole[: len(whole) // 2] + "\0\1garbage" + whole[len(whole) // 2 :]
    source = write_folder(files, tmp_path / "x")
    with pytest.raises(ValueError, match="damaged JSON"):
        run(tmp_path, source)
    assert not (tmp_path / "out").exists()
    dataset = run(tmp_path, source, max_rejects=0.25)
    assert agreement(dataset, history)[0] == 1
    (note,) = [n for n in dataset.about["history"]["notes"] if "damaged" in n]
    record = int(re.search(r"1\.json is damaged behind record ([\d,]+)", note)[1].replace(",", ""))
    assert record == pytest.approx(len(history.plays) / 2, rel=0.1)
    lost = int(re.search(r"about ([\d,]+) more are lost", note)[1].replace(",", ""))
    assert dataset.about["rejected"]["rows"] == 1
    rows = dict(dataset.about["history"]["rows"])
    assert rows.pop("read") == sum(rows.values())
    assert lost == pytest.approx(len(history.plays) - record, rel=0.1)
    rejects = pd.read_csv(dataset.folder / "rejects.csv")
    assert rejects["file"].tolist() == ["1.json"]
    assert rejects["line"].tolist() == [record + 1]


def test_ruins_of_every_kind(tmp_path, history):
    """Cut in the first record, in a zip too; emptied; of zeros: named, and the rest is read."""
    good = json.dumps(extended_records(history))
    files = {"good.json": good, "ruin.json": good[:200], "empty.json": "", "zeros.json": b"\0" * 99}
    files["brackets.json"] = "[" * 300_000
    dataset = run(tmp_path, write_zip(files, tmp_path / "x.zip"))
    assert agreement(dataset, history)[0] == 1
    named = {Path(name).name for name in list(passed_over(dataset))}
    assert named == {"ruin.json", "empty.json", "zeros.json", "brackets.json", "ReadMeFirst.pdf"}
    folder = write_folder(files, tmp_path / "loose")
    with pytest.raises(ValueError, match=r"empty\.json: is empty"):
        run(tmp_path, folder / "good.json", folder / "empty.json", out="b")


def test_archive_members_go_nowhere(tmp_path, history):
    work = tmp_path / "deep/work"
    work.mkdir(parents=True)
    with zipfile.ZipFile(work / "evil.zip", "w") as archive:
        for i, (name, content) in enumerate(archive_files(history).items()):
            archive.writestr(f"{'../' * i}../{name}", content)
    dataset = run(work, work / "evil.zip")
    assert agreement(dataset, history)[0] == 1
    assert not list(tmp_path.rglob("*.json.json")) + list(tmp_path.rglob("Streaming*"))


def test_a_zip_bomb_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("endsong_0.json", "w") as member,
    ):
        member.write(b'[{"ts": "2022-01-01T00:00:00Z", "ms_played": 1}')
        for _ in range(100):
            member.write(b" " * (1 << 20))
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="unpacks to 104,857"):
        run(tmp_path, tmp_path / "bomb.zip")


def test_a_record_without_end_is_not_read_on(tmp_path, monkeypatch, history):
    monkeypatch.setattr(jsontables, "MAX_RECORD_BYTES", 1 << 20)
    good = json.dumps(extended_records(history))
    endless = good[:-1] + ', {"ts": "' + "x" * (3 << 20) + '"}]'
    write_folder({"good.json": endless}, tmp_path / "x")
    dataset = run(tmp_path, tmp_path / "x", max_rejects=0.9)
    assert agreement(dataset, history)[0] == 1
    assert "damaged" in dataset.about["history"]["notes"][0]


MEASURE = """
import resource, sys
from pathlib import Path
from musicbox_env.ingest.pipeline import IngestConfig, ingest
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ingest(IngestConfig((sys.argv[1],), Path(sys.argv[2]), embeddings=False, progress=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_two_gigabytes_of_json_in_half_a_gigabyte(tmp_path):
    """A block of records, and a sixteenth of the plays, 61 bytes each, since many listen."""
    record_text = json.dumps(
        [
            {**record, "username": "NAME"}
            for record in extended_records(make_history(80, tracks=200))
        ]
    )[1:-1]
    file = tmp_path / "endsong_0.json"
    size = copy = 0
    with file.open("w") as out:
        size += out.write("[")
        while size < 2 << 30:
            year = f'"20{22 + copy // 64:02d}-'
            text = record_text.replace('"2021-', year).replace("NAME", f"u{copy % 64}")
            size += out.write(f",{text}" if copy else text)
            copy += 1
        out.write("]")
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    assert int(process.stdout) < 512 * 1024


def test_histories_beside_logs_and_a_row_limit(tmp_path, history):
    write_folder(archive_files(history), tmp_path / "x")
    write_csv(make_log(20), tmp_path / "x/log.csv")
    dataset = run(tmp_path, tmp_path / "x")
    assert dataset.sessions.num_sessions == 100
    assert [s["file"].rpartition("/")[2] for s in dataset.about["sources"]][-1] == "log.csv"
    some = run(tmp_path, tmp_path / "x", out="some", max_rows=500)
    assert some.about["rows_read"] == 500


def test_titles_and_finding_songs_by_them(tmp_path):
    records = session_of(12)
    for i, record in enumerate(records):
        record["master_metadata_track_name"] = f"Song {i}, Live" if i else "Same"
        record["master_metadata_album_artist_name"] = "Äther"
    records[1].update(master_metadata_track_name="Same")
    records[2].pop("master_metadata_track_name")
    catalog = ingest_records(tmp_path, records).catalog
    row = {track: i for i, track in enumerate(catalog.track_ids)}
    assert catalog.titles[row["t5"]] == "Äther - Song 5, Live"
    assert catalog.titles[row["t2"]] == "t2"
    found = catalog.find(["t3", "äther - song 5, LIVE", "t1", "Äther - Same"])
    assert found.tolist() == [row["t3"], row["t5"], row["t0"], row["t0"]]
    with pytest.raises(KeyError, match="Did you mean 'Äther - Song 7, Live'"):
        catalog.find(["Äther - Song 7 Live"])


def test_heard_songs_may_hold_commas_and_colons():
    assert parse_heard("A - B, C: the D, E:kept, x:0") == (["A - B, C: the D, E", "x"], [4, 0])
    for text, message in [
        ("t_a:loud,t_b:4", "Unknown level 'loud'"),
        ("t_a", "'t_a' is no song heard"),
        ("t_a:4, b", "'b' is no song heard"),
        (":4", "':4' is no song heard"),
        (" , ", "names no song"),
    ]:
        with pytest.raises(ValueError, match=message):
            parse_heard(text)


def test_a_handful_of_sessions_is_said_to_be_too_few(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(session_of(12)))
    main(["ingest", str(tmp_path / "a.json"), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    (empty,) = re.findall(r"Of 1 sessions none fell to (.*): nothing can be learned", told)
    assert len(empty.split(", ")) == 3
    assert "nothing can be measured" in told


def test_too_little_is_said_in_plain_words(tmp_path, history, synthetic):
    dataset = run(tmp_path, write_zip(archive_files(history), tmp_path / "x.zip"))
    text = describe(dataset)
    assert "Too little for fine claims" in text
    assert "All sessions are one listener's" in text
    assert f"{dataset.catalog.titles[0]}  " in text
    assert dataset.catalog.titles[0].startswith("Artist ")
    assert not [line for line in cautions(synthetic) if "one listener" in line]


def test_the_interval_of_the_skip_rate_covers(synthetic):
    """Half the interval against resampled sessions."""
    log = synthetic.sessions
    sessions = log.sessions_in("test")
    level = log.padded("level", sessions)
    skips, plays = is_skip(level).sum(axis=1), (level >= 0).sum(axis=1)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(sessions), (4000, len(sessions)))
    rates = skips[rows].sum(axis=1) / plays[rows].sum(axis=1)
    found = skip_rate_interval(synthetic, np.arange(len(sessions)))
    assert found == pytest.approx(1.96 * rates.std(), rel=0.05)


def test_windows_of_a_run_are_not_taken_for_independent(tmp_path):
    """Whole evenings kept or skipped: three windows say no more than one."""
    ended = ("trackdone", "fwdbtn")
    records = [
        {**play, "ms_played": play["ms_played"] // (1 + 19 * (i % 2)), "reason_end": ended[i % 2]}
        for i, start in enumerate(pd.date_range("2022-01-01", periods=200))
        for play in session_of(45, start=start, seconds=60)
    ]
    dataset = ingest_records(tmp_path, records, session=SessionConfig(max_gap=90))
    (told,) = [line for line in cautions(dataset) if "windows of" in line]
    sessions = len(dataset.sessions.sessions_in("test"))
    assert f"The {sessions} test sessions are windows of {sessions // 3} runs" in told
    assert "1.7 times as wide" in told


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
    assert read_mapping("time=ended_at,track=a,played_s=b").time_is == "end"
    assert read_mapping("time=played_at,track=a,skipped=b").time_is == "start"
    for text, message in [
        ("time=a,trak=b,played_ms=c", "Unknown key of a mapping 'trak'; did you mean 'track'"),
        ("track=b,played_ms=c", "must name time"),
        ("time=a,played_ms=c", "must name track, or both title and artist"),
        ("time=a,track=b", "how far a play was heard"),
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


def test_every_command_takes_histories(tmp_path, history, capsys):
    """The dataset is made under --out; a mapping belongs to --sessions."""
    source = write_zip(archive_files(history), tmp_path / "my_spotify_data.zip")
    data = Source(sessions=(str(source),)).resolve(tmp_path / "run")
    assert Dataset(data).sessions.num_sessions == 80
    assert Dataset(data).embedding_names[0] == "hybrid"
    assert re.search(r"colisten: .* tracks in 32 dimensions, as hybrid\n", describe(Dataset(data)))
    assert "Read as Spotify extended streaming history" in capsys.readouterr().out
    assert Source(sessions=(str(source),)).resolve(tmp_path / "run") == data
    source.write_bytes(source.read_bytes() + b"more")
    with pytest.raises(FileExistsError, match=r"made from other files .*my_spotify_data\.zip"):
        Source(sessions=(str(source),)).resolve(tmp_path / "run")
    with pytest.raises(ValueError, match="--map belongs to --sessions"):
        Source(map=FOREIGN_MAP)


def test_first_plays_are_not_before_the_first_day(history):
    """The generator itself: every clock starts on its first day, no play ends before the last."""
    assert history.plays["start_ms"].min() >= FIRST_MS
    assert (history.plays["end_ms"].diff().dropna() >= 0).all()


@pytest.mark.slow
def test_from_the_archive_to_the_next_songs(tmp_path, history, capsys, monkeypatch):
    """The three commands of the README, and nothing private in the run that they leave.

    Not even where it lies, so that it still works where it is moved to.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    source = write_zip(archive_files(history, older=True), tmp_path / "my_spotify_data.zip")
    out = tmp_path / "run"
    options = ["--seeds", "1", "--train-steps", "160", "--workers", "1", "--out", str(out)]
    agents = ["--agents", "logged", "played-rate", "ddpg"]
    main(["compare", "--sessions", str(source), *options, *agents])
    catalog = Dataset(out / "dataset").catalog
    titles = [title for title in catalog.titles if list(catalog.titles).count(title) == 1]
    page = (out / "report.html").read_text()
    (songs,) = re.findall(r"Recommended most</h2>.*?</table>", page, re.DOTALL)
    assert len(re.findall(r"Artist \d+ - Song \d+, Part \d <small>", songs)) == 3 * 5
    assert "Too little for fine claims" in page
    compared = capsys.readouterr()
    assert '"~/my_spotify_data.zip"' in (out / "config.json").read_text()
    assert str(tmp_path) not in contents_of(out)
    out = out.rename(tmp_path / "moved")
    main(["recommend", str(out), "--heard", f"{titles[0].upper()}:full,{titles[3]}:skipped"])
    songs = capsys.readouterr().out.splitlines()
    assert len(songs) == 3
    assert all(song.startswith("Artist ") for song in songs)
    main(["describe", str(out / "dataset")])
    described = capsys.readouterr().out
    assert "All sessions are one listener's" in described
    for text in (contents_of(out), compared.out, compared.err, described):
        assert_private(text, history)
