"""Apple Music's play activity in its own columns, against what was really heard."""

from dataclasses import replace

import pandas as pd
import pytest
from make_histories import DEVICE, IP, USERNAME, make_history
from read_histories import agreement, contents_of, run

REASONS = {
    "trackdone": "NATURAL_END_OF_TRACK",
    "fwdbtn": "TRACK_SKIPPED_FORWARDS",
    "backbtn": "TRACK_SKIPPED_BACKWARDS",
    "clickrow": "MANUALLY_SELECTED_PLAYBACK_OF_A_DIFF_ITEM",
    "endplay": "MANUALLY_SELECTED_PLAYBACK_OF_A_DIFF_ITEM",
    "logout": "PLAYBACK_STOPPED_DUE_TO_APP_TERMINATION",
}
LYRICS, PIECES, SCRUBS = 13, 17, 11
"""Of so many plays one shows lyrics, is paused, or is jumped in."""


@pytest.fixture(scope="module")
def heard():
    history = make_history(60, tracks=100, days=200, seed=12)
    plays = history.plays.reset_index(drop=True)
    return replace(history, plays=plays.assign(name=plays["artist"] + " - " + plays["title"]))


def _stamp(ms):
    return pd.Timestamp(int(ms), unit="ms").strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def activity(heard, artists=True):
    """Events; how many are no plays."""
    rows, no_plays = [], 0
    for play in heard.plays.itertuples():
        row = {
            "Apple Id Number": USERNAME,
            "Client IP Address": IP,
            "Device Type": DEVICE,
            "Event Type": "PLAY_END",
            "Event Start Timestamp": _stamp(play.start_ms),
            "Event End Timestamp": _stamp(play.end_ms),
            "End Reason Type": REASONS.get(play.reason_end, "NOT_APPLICABLE"),
            "Play Duration Milliseconds": play.ms_played,
            "Media Duration In Milliseconds": play.duration_ms,
            "Media Type": "AUDIO",
            "Song Name": play.title,
            "Album Name": play.album,
            **({"Artist Name": play.artist} if artists else {}),
            "Shuffle Play": "SHUFFLE_ON" if play.shuffle else "SHUFFLE_OFF",
            "UTC Offset In Seconds": 3600,
            "Milliseconds Since Play": 0,
        }
        if play.Index % LYRICS == 0:
            rows.append({**row, "Event Type": "LYRIC_DISPLAY"})
            no_plays += 1
        cut, long = 4_000, play.ms_played > 8_000
        if long and play.Index % SCRUBS == 0:
            middle = {
                "Event End Timestamp": _stamp(play.start_ms + cut),
                "Play Duration Milliseconds": cut,
            }
            rows.append({**row, **middle, "End Reason Type": "SCRUB_BEGIN"})
            back = {
                "Event Start Timestamp": _stamp(play.start_ms + cut),
                "Event End Timestamp": _stamp(play.start_ms + cut),
            }
            rows.append(
                {**row, **back, "Play Duration Milliseconds": -900, "End Reason Type": "SCRUB_END"}
            )
            no_plays += 1
        elif long and play.Index % PIECES == 0:
            middle = {
                "Event End Timestamp": _stamp(play.start_ms + cut),
                "Play Duration Milliseconds": cut,
            }
            rows.append({**row, **middle, "End Reason Type": "PLAYBACK_MANUALLY_PAUSED"})
        if long and (play.Index % SCRUBS == 0 or play.Index % PIECES == 0):
            row |= {
                "Event Start Timestamp": _stamp(play.start_ms + cut),
                "Play Duration Milliseconds": play.ms_played - cut,
            }
        rows.append(row)
    return pd.DataFrame(rows), no_plays


def test_plays_are_recovered(tmp_path, heard):
    """Lyrics and jumps are left out, pieces are one play, and nothing private stays."""
    table, no_plays = activity(heard)
    table.to_csv(tmp_path / "Apple Music Play Activity.csv", index=False)
    dataset = run(tmp_path, tmp_path / "Apple Music Play Activity.csv")
    sessions, levels, skips = agreement(dataset, heard, "name")
    assert sessions > 0.95
    assert levels > 0.97
    assert skips > 0.98
    rows = dataset.about["history"]["rows"]
    assert sum(n for what, n in rows.items() if what.startswith("left out")) == no_plays
    ends = dataset.sessions.column("reason_end")
    assert len(set(ends.tolist())) > 3
    assert set(dataset.sessions.column("shuffle").tolist()) == {0, 1}
    (read_as,) = dataset.about["history"]["read_as"].values()
    assert read_as["time"] == "Event End Timestamp (end of the play)"
    named = [*read_as["title"].split(" or "), read_as["played_ms"], read_as["reason_end"]]
    assert {*named} <= {*table.columns}, "columns of the file, not those that the reader makes"
    text = contents_of(dataset.folder)
    stamps = [*table["Event End Timestamp"][::7], *table["Event End Timestamp"].str[11:19][::7]]
    assert not [word for word in (USERNAME, IP, DEVICE, *stamps) if word in text]


def test_songs_without_artists_are_known_by_their_album(tmp_path, heard):
    table, _ = activity(heard, artists=False)
    table.to_csv(tmp_path / "plays.csv", index=False)
    dataset = run(tmp_path, tmp_path / "plays.csv")
    assert dataset.about["history"]["rows"]["plays in sessions"] > 0.9 * len(heard.in_sessions)
    (read_as,) = dataset.about["history"]["read_as"].values()
    assert "artist" not in read_as


def test_bad_rows_are_counted(tmp_path, heard):
    """Times that are none, no duration, no song, a video; times of the end alone are enough."""
    table, _ = activity(heard)
    plain = table[table["Event Type"] == "PLAY_END"].tail(1)
    no_times = {"Event Start Timestamp": "", "Event End Timestamp": "yesterday"}
    bad = [
        plain.assign(**no_times),
        plain.assign(**{"Play Duration Milliseconds": ""}),
        plain.assign(**{"Song Name": "", "Artist Name": "", "Album Name": ""}),
        plain.assign(**{"Media Type": "VIDEO"}),
    ]
    fewer = table.assign(**{"Event Start Timestamp": ""})
    pd.concat([fewer, *bad]).to_csv(tmp_path / "plays.csv", index=False)
    dataset = run(tmp_path, tmp_path / "plays.csv")
    rows = dataset.about["history"]["rows"]
    assert rows["rejected"] == 2
    assert rows["left out: video"] == 1
    assert sum(n for what, n in rows.items() if what.startswith("left out: no track")) == 1
    assert agreement(dataset, heard, "name")[0] > 0.9
