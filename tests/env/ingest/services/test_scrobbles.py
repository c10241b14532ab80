"""Scrobbles of every service in its own schema, against what was really heard."""

import bz2
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest
from make_histories import DEVICE, IP, USERNAME, make_history
from musicbox_experiments.data.describe import describe
from musicbox_experiments.data.ingest import history_account
from read_histories import agreement, contents_of, run

from musicbox_env.errors import InputError
from musicbox_env.ingest.services.youtube import surroundings

USER = {"user": "user_000001"}


@pytest.fixture(scope="module")
def heard():
    """A year of plays; songs are known by their names, users by a number."""
    history = make_history(90, tracks=100, days=300, seed=11)
    plays = history.plays
    song = pd.Series(pd.factorize(plays["title"])[0], plays.index)
    title = song.map(lambda i: ("The", "1979", "Élan", "My")[i % 4]) + " " + plays["title"]
    title += song.map(lambda i: ("", ' "live"', ", Été")[i % 3])
    plays = plays.assign(
        title=title,
        name=plays["artist"] + " - " + title,
        s=plays["start_ms"] // 1000,
        start=pd.to_datetime(plays["start_ms"], unit="ms", utc=True),
    )
    return replace(history, plays=plays)


def _lines(records):
    return "\n".join(json.dumps(record) for record in records)


def listenbrainz_records(heard):
    for play in heard.plays.itertuples():
        extra = (
            {"duration_ms": play.duration_ms}
            if play.Index % 2
            else {"duration": play.duration_ms // 1000}
        )
        yield {
            "listened_at": play.s,
            "user_name": USERNAME,
            "inserted_at": 0,
            "track_metadata": {
                "artist_name": play.artist,
                "track_name": play.title,
                "release_name": play.album,
                "mbid_mapping": {"recording_mbid": "r"},
                "additional_info": {**extra, "media_player": DEVICE, "origin_url": IP},
            },
        }


def listenbrainz_export(heard):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("user.json", json.dumps({"user_id": 1, "username": USERNAME}))
        archive.writestr("feedback.jsonl", "")
        archive.writestr("listens/2021/3.jsonl", _lines(listenbrainz_records(heard)))
    return buffer.getvalue()


def listenbrainz_dump(heard):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        data = _lines({**record, "user_id": 7} for record in listenbrainz_records(heard)).encode()
        info = tarfile.TarInfo("listenbrainz-listens-dump/listens/2021/3.listens")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return pa.compress(buffer.getvalue(), "zstd", asbytes=True)


def lastfm_headless(heard):
    table = heard.plays.assign(date=heard.plays["start"].dt.strftime("%d %b %Y, %H:%M"))
    columns = ["artist", "album", "title", "date"]
    return table[columns].iloc[::-1].to_csv(index=False, header=False)


def lastfm_uts(heard):
    plays = heard.plays
    return pd.DataFrame(
        {
            "uts": plays["s"],
            "utc_time": plays["start"].dt.strftime("%d %b %Y, %H:%M"),
            "artist": plays["artist"],
            "artist_mbid": "",
            "album": plays["album"],
            "album_mbid": "",
            "track": plays["title"],
            "track_mbid": "",
        }
    ).to_csv(index=False)


def maloja(heard):
    scrobbles = [
        {
            "time": play.s,
            "track": {
                "artists": [play.artist, "x"],
                "title": play.title,
                "album": {"albumtitle": play.album},
                "length": play.duration_ms // 1000,
            },
            "duration": None,
            "origin": f"client:{USERNAME}",
        }
        for play in heard.plays.itertuples()
    ]
    return json.dumps({"maloja": {"export_time": 1}, "scrobbles": scrobbles})


def pano(heard):
    return _lines(
        {
            "timeMs": play.start_ms,
            "durationMs": play.duration_ms,
            "track": play.title,
            "artist": play.artist,
            "album": play.album,
            "event": "scrobble",
        }
        for play in heard.plays.itertuples()
    )


def libre_fm(heard):
    plays = heard.plays
    return pd.DataFrame(
        {
            "Time": plays["s"],
            "Artist": plays["artist"],
            "Track": plays["title"],
            "Album": plays["album"],
        }
    ).to_csv(index=False)


def tidal(heard):
    plays = heard.plays
    local = plays["start"].dt.tz_convert("Europe/Oslo").dt.strftime("%d/%m/%Y %H:%M")
    return pd.DataFrame(
        {
            "artist_name": plays["artist"],
            "track_title": plays["title"],
            "entry_date": local,
            "time_zone": "Europe/Oslo",
        }
    ).to_csv(index=False)


def youtube(heard):
    rows = []
    for play in heard.plays.iloc[::-1].itertuples():
        rows.append(
            {
                "header": "YouTube Music",
                "title": f"Je hebt {play.title} bekeken",
                "titleUrl": f"https://music.youtube.com/watch?v={play.Index}",
                "subtitles": [
                    {"name": f"{play.artist} - Topic", "url": "https://www.youtube.com/channel/x"}
                ],
                "time": play.start.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "products": ["YouTube"],
                "activityControls": [USERNAME],
            }
        )
        if play.Index % 10 == 0:
            rows.append({**rows[-1], "header": "YouTube", "title": f"Je hebt {USERNAME} bekeken"})
    return json.dumps(rows)


def lastfm_1k(heard):
    plays = heard.plays
    table = pd.DataFrame(
        {
            "user": "user_000001",
            "time": plays["start"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "a": "",
            "artist": plays["artist"],
            "t": "",
            "track": plays["title"],
        }
    )
    return "\n".join("\t".join(map(str, row)) for row in table.iloc[::-1].itertuples(index=False))


def lfm_1b(heard):
    plays = heard.plays
    return pd.DataFrame(
        {"u": 31435741, "a": 2, "l": 4, "t": plays["number"], "s": plays["s"]}
    ).to_csv(sep="\t", index=False, header=False)


def onion(heard):
    plays = heard.plays.iloc[::-1]
    table = pd.DataFrame(
        {
            "user_id": "u_1",
            "track_id": plays["number"].map("t_{}".format),
            "timestamp": plays["start"].dt.strftime("%Y-%m-%d %H:%M:%S"),
        }
    )
    return bz2.compress(table.to_csv(sep="\t", index=False).encode())


def pisa(heard):
    plays = heard.plays
    buffer = io.BytesIO()
    pd.DataFrame(
        {"user_id": 5, "session_id": 1, "ts": plays["s"], "product_track_id": plays["number"]}
    ).to_parquet(buffer)
    return buffer.getvalue()


LENGTHS = {listenbrainz_export, listenbrainz_dump, maloja, pano}
MINUTES = {lastfm_headless, tidal}
BY_ID = {lfm_1b: "{}", onion: "t_{}", pisa: "{}"}
ALL = [*LENGTHS, *MINUTES, *BY_ID, lastfm_uts, libre_fm, youtube, lastfm_1k]


def write(tmp_path, content):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "listens").write_bytes(data)
    return tmp_path / "listens"


def with_ids(heard, service):
    numbers = pd.factorize(heard.plays["name"])[0] + 100
    ids = pd.Series(numbers).map(BY_ID.get(service, "{}").format)
    names = heard.plays["name"] if service not in BY_ID else ids.to_numpy()
    return replace(heard, plays=heard.plays.assign(number=numbers, key=names))


@pytest.mark.parametrize("service", ALL, ids=lambda service: service.__name__)
def test_scrobbles_are_read_as_what_was_heard(tmp_path, heard, service):
    """Sessions come back, and where lengths or seconds are known, what was skipped."""
    known = with_ids(heard, service)
    source = write(tmp_path, service(known))
    dataset = run(tmp_path, source, inferred_levels=True)
    sessions, _, skips = agreement(dataset, known, "key")
    history = dataset.about["history"]
    assert history["levels"]["inferred_share"] == 1
    assert sessions > (0.5 if service in MINUTES else 0.98)
    assert skips > (0.95 if service in LENGTHS else 0.88 if service in MINUTES else 0.93)
    others = history["rows"].get("left out: YouTube, not YouTube Music", 0)
    assert others == (known.plays.index % 10 == 0).sum() * (service is youtube)
    account = "\n".join(history_account(dataset.about))
    assert "100.0%  inferred" in account
    shown = describe(dataset)
    assert "100.0 % of the listen levels are inferred" in shown
    times = [*known.plays["s"][::9].astype(str), *known.plays["start"][::9].dt.strftime("%H:%M:%S")]
    for text in (contents_of(dataset.folder), account, shown):
        assert not [word for word in (USERNAME, IP, DEVICE, "31435741", *times) if word in text]


@pytest.mark.parametrize("service", [youtube, listenbrainz_dump, lastfm_headless, lfm_1b])
def test_scrobbles_are_refused_without_the_option(tmp_path, heard, service):
    source = write(tmp_path, service(with_ids(heard, service)))
    with pytest.raises(InputError, match="--inferred-levels each counts as heard until") as refusal:
        run(tmp_path, source)
    assert USERNAME not in str(refusal.value)


def scrobbled(*gaps, song="a", length=""):
    """Maloja's file of plays that follow each other after these seconds."""
    times = pd.Series([0, *gaps]).cumsum() + 1_700_000_000
    tracks = [
        {"artists": ["b"], "title": f"{song}{i}", "length": length or None}
        for i in range(len(times))
    ]
    return json.dumps(
        {
            "scrobbles": [
                {"time": int(t), "track": track} for t, track in zip(times, tracks, strict=True)
            ]
        }
    )


def test_levels_are_bounded_by_the_next_play(tmp_path):
    """Of songs of 200 s: followed after 10, 50, 100, 185, 199, 230 s and so on."""
    gaps = [10, 50, 100, 185, 192, 199, 200, 230, 259, 12, 300]
    dataset = run(tmp_path, write(tmp_path, scrobbled(*gaps, length=200)), inferred_levels=True)
    assert dataset.sessions.column("level").tolist() == [0, 1, 2, 3, 3, 4, 4, 4, 4, 0, 4]


def test_lengths_are_told_by_repeated_plays(tmp_path):
    """Songs of 240 s, each followed twice after its end and once after 60 s."""
    songs = [f"song {i}" for i in range(12)]
    plays, now = [], 1_700_000_000
    for gap in (240, 240, 60):
        for song in songs:
            plays.append({"timeMs": now * 1000, "track": song, "artist": "b"})
            now += gap
        now += 5_000
    (tmp_path / "pano.jsonl").write_text(_lines(plays))
    dataset = run(tmp_path, tmp_path / "pano.jsonl", inferred_levels=True)
    assert sorted(dataset.sessions.column("level").tolist()) == [1] * 11 + [4] * 25


def test_a_mapped_table_without_evidence_may_be_inferred(tmp_path, heard):
    table = pd.DataFrame({"who": 1, "at": heard.plays["s"], "what": heard.plays["name"]})
    table.to_csv(tmp_path / "plays.csv", index=False)
    options = {"map": "user=who,time=at,track=what"}
    with pytest.raises(ValueError, match="--inferred-levels infers it"):
        run(tmp_path, tmp_path / "plays.csv", **options)
    dataset = run(tmp_path, tmp_path / "plays.csv", inferred_levels=True, **options)
    assert agreement(dataset, with_ids(heard, None), "name")[0] > 0.85


def test_bad_rows_of_scrobbles_are_counted(tmp_path, heard):
    """No time, a time of 1970, no artist, and a line that is cut."""
    records = list(listenbrainz_records(heard))
    bad = [
        {**records[0], "listened_at": None},
        {**records[0], "listened_at": 100},
        {**records[0], "track_metadata": {"track_name": "x", "artist_name": ""}},
    ]
    source = write(tmp_path, _lines([*records, *bad]))
    rows = run(tmp_path, source, inferred_levels=True, max_rejects=0.1).about["history"]["rows"]
    assert rows["rejected"] == 2
    assert sum(n for what, n in rows.items() if what.startswith("left out: no track")) == 1
    lines = lastfm_1k(with_ids(heard, lastfm_1k)).splitlines()
    source = write(tmp_path, "\n".join([*lines, "user_000001\t2009-05-04T23:08:57Z"]))
    rows = run(tmp_path, source, out="2", inferred_levels=True).about["history"]["rows"]
    assert rows["rejected"] == 1


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("Watched ", ""),
        ("Hai guardato ", ""),
        ("„", "“ angesehen"),
        ("", " を視聴しました"),
        ("", ""),
    ],
)
def test_what_surrounds_titles_is_found_in_any_language(before, behind):
    titles = ["The Sea", "The Sun (Live)", "Go", "1979", "Été (Live)"]
    assert surroundings({f"{before}{title}{behind}" for title in titles}) == (before, behind)
