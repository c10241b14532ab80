"""Plays of a history become sessions and levels: what is left out, split and counted."""

import numpy as np
import pandas as pd
import pytest
from make_histories import FOREIGN_MAP, foreign_table, make_history
from musicbox_experiments.data.describe import describe
from read_histories import by_length, contents_of, ingest_records, run, session_of, stored

from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.histories.sessionize import SessionConfig


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
    said = r"No session is left[\s\S]*read as the end of its play[\s\S]*time_is=start"
    with pytest.raises(ValueError, match=said):
        run(tmp_path, tmp_path / "plays.csv", out="b", map=f"{FOREIGN_MAP},time_is=end")


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
    for dataset, fate in ((window, "divided into several"), (cut, "the first plays are kept")):
        found = dataset.about["history"]["sessions"]["found"]
        assert [n for what, n in found.items() if fate in what] == [1]
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


@pytest.mark.parametrize("name", ["Europe", "America/Argentina", "A" * 5_000, "../Europe", "a\0b"])
def test_what_names_a_folder_of_zones_or_no_file_is_no_timezone(name):
    with pytest.raises(ValueError, match=r"No timezone '.*'; a name such as Europe/Berlin"):
        HistoryConfig(timezone=name)


@pytest.mark.parametrize("gap", [float("nan"), float("inf"), 1e308, 1.1e9, -1.0])
def test_a_longest_pause_that_no_clock_tells_is_refused(gap):
    with pytest.raises(ValueError, match=r"max_gap is .*; 0 to 1,000,000,000 seconds expected"):
        SessionConfig(max_gap=gap)
    assert SessionConfig(max_gap=1e9).max_gap == 1e9
