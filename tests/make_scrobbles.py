"""Scrobbles of generated listeners in the schema of each service."""

import bz2
import io
import json
import tarfile
import zipfile
from dataclasses import replace

import pandas as pd
import pyarrow as pa
from make_histories import DEVICE, IP, USERNAME, make_history

from musicbox_env.schema import is_skip


def scrobbled_history(sessions=90):
    """A year of plays; songs are known by their names, users by a number."""
    history = make_history(sessions, tracks=100, days=300, seed=11)
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


def lines_of(records):
    """JSON lines."""
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
        archive.writestr("listens/2021/3.jsonl", lines_of(listenbrainz_records(heard)))
    return buffer.getvalue()


def listenbrainz_dump(heard):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        data = lines_of({**record, "user_id": 7} for record in listenbrainz_records(heard)).encode()
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
    return lines_of(
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


def dsg17_table(plays):
    """Plays with a flag, not scrobbles; ``plays`` have a ``number`` of their song."""
    return pd.DataFrame(
        {
            "genre_id": 7,
            "ts_listen": plays["s"],
            "media_id": plays["number"].astype(int),
            "album_id": 3,
            "context_type": 1,
            "release_date": 20040704,
            "platform_name": 1,
            "platform_family": 0,
            "media_duration": (plays["duration_ms"] / 1000).round().astype(int),
            "listen_type": plays.index % 2,
            "user_gender": 1,
            "user_id": plays["user"] + 87_654_321,
            "artist_id": 2,
            "user_age": 29,
            "is_listened": (~is_skip(plays["level"].to_numpy())).astype(int),
        }
    )


LENGTHS = (listenbrainz_export, listenbrainz_dump, maloja, pano)
MINUTES = (lastfm_headless, tidal)
BY_ID = {lfm_1b: "{}", onion: "t_{}", pisa: "{}"}
ALL = [*LENGTHS, *MINUTES, *BY_ID, lastfm_uts, libre_fm, youtube, lastfm_1k]


def with_ids(heard, service):
    numbers = pd.factorize(heard.plays["name"])[0] + 100
    ids = pd.Series(numbers).map(BY_ID.get(service, "{}").format)
    names = heard.plays["name"] if service not in BY_ID else ids.to_numpy()
    return replace(heard, plays=heard.plays.assign(number=numbers, key=names))
