"""People's own histories become sessions, of every format in which services give them."""

import io
import json
import zipfile

import pandas as pd
import pytest
from make_histories import (
    COUNTRY,
    FIRST_MS,
    USERNAME,
    History,
    account_records,
    archive_files,
    exported_csv,
    extended_records,
    make_history,
    write_folder,
    write_zip,
)
from make_logs import make_log, passed_over, write_csv
from musicbox_experiments.data.ingest import history_account
from musicbox_experiments.data.ingest import passed_over as passed_over_lines
from read_histories import agreement, ingest_records, run, session_of, stored, truth

from musicbox_env.schema import REASONS_END, UNKNOWN


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


def test_a_file_that_lacks_a_column_of_the_archive_is_named_with_it(tmp_path, history):
    records = extended_records(history)
    (tmp_path / "whole.json").write_text(json.dumps(records))
    for record in records:
        del record["ms_played"]
    path = tmp_path / "shorn.json"
    path.write_text(json.dumps(records))
    with pytest.raises(ValueError, match="extended streaming history, but is without the column"):
        run(tmp_path, path)
    dataset = run(tmp_path, tmp_path / "*.json")
    assert "without the column ms_played" in passed_over(dataset)["shorn.json"]


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


def test_first_plays_are_not_before_the_first_day(history):
    """The generator itself: every clock starts on its first day, no play ends before the last."""
    assert history.plays["start_ms"].min() >= FIRST_MS
    assert (history.plays["end_ms"].diff().dropna() >= 0).all()
