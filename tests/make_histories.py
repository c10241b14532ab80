"""Listening histories in the formats that people really have, made from the synthetic law.

Sessions, songs, levels and reasons are those of `SyntheticWorld`; this module gives them clocks.
The truth stays beside them: which session each play belongs to, and how far it was heard.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from musicbox_env.schema import REASONS_END, REASONS_START
from musicbox_env.synthetic.generator import BATCH_SESSIONS, SyntheticConfig, SyntheticWorld

FIRST_MS = int(pd.Timestamp("2021-03-01T06:00:00").value // 10**6)
SHARES = ((0.002, 0.1), (0.1, 0.33), (0.33, 0.9), (0.9, 0.97), (1.0, 1.0))
"""Share of the length that plays of each level are heard: what the levels mean here."""
USERNAME, IP, COUNTRY, DEVICE = "hortensia.q", "203.0.113.77", "ZW", "Fridge OS 9 (Gramophone 3000)"
LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))


@dataclass(frozen=True)
class History:
    """Plays in the order they ended, and the truth about them.

    Attributes:
        plays: A row a play: user, start_ms, end_ms, uri, title, artist, album, ms_played,
            duration_ms, reason_start, reason_end, shuffle; true ``session`` (-1 in runs too short
            for one), ``position`` and ``level``.
    """

    plays: pd.DataFrame

    @property
    def in_sessions(self) -> pd.DataFrame:
        return self.plays[self.plays["session"] >= 0]


def make_history(
    sessions: int = 300,
    *,
    tracks: int = 800,
    users: int = 1,
    days: float = 365.0,
    seed: int = 0,
    crossfade: float = 0.05,
) -> History:
    """Draw the listening of some users.

    Args:
        sessions: Sessions of all users together.
        tracks: Size of the catalog.
        users: How many users; sessions fall to them at random.
        days: Time that each user's sessions are spread over.
        seed: Of everything.
        crossfade: Share of the full plays that lose up to eight seconds to the next one.
    """
    rng = np.random.default_rng(seed)
    plays, duration = _drawn(sessions, tracks, seed)
    plays = pd.concat([plays, _short_runs(plays, rng)], ignore_index=True)
    plays = plays.sort_values(["run", "position"], kind="stable", ignore_index=True)
    plays["duration_ms"] = duration[plays["track"]]
    plays["ms_played"] = _heard(plays, crossfade, rng)
    plays["user"] = rng.integers(0, users, plays["run"].max() + 1)[plays["run"]]
    plays = plays.sort_values(["user", "run", "position"], kind="stable", ignore_index=True)
    _give_clocks(plays, days, rng)
    uris = ["".join(letters) for letters in rng.choice(LETTERS, (tracks, 22))]
    plays["uri"] = np.array(uris, dtype=object)[plays["track"]]
    plays["title"] = [f"Song {track}, Part {track % 3}" for track in plays["track"]]
    plays["artist"] = [f"Artist {track % 97}" for track in plays["track"]]
    plays["album"] = [f"Album {track % 211}" for track in plays["track"]]
    return History(plays.sort_values(["user", "end_ms"], kind="stable", ignore_index=True))


def _drawn(sessions: int, tracks: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Plays of the first sessions of a world, and the length of each track in milliseconds."""
    plays, duration = _drawn_batches(-(-sessions // BATCH_SESSIONS), tracks, seed)
    return plays[plays["session"] < sessions], duration


@cache
def _drawn_batches(batches: int, tracks: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    config = SyntheticConfig(sessions=batches * BATCH_SESSIONS, tracks=tracks, seed=seed)
    world = SyntheticWorld(config)
    plays = pd.concat([_plays(batch) for batch in world.batches()], ignore_index=True)
    duration = (1000 * world.tracks.features["duration"].to_numpy()).astype(np.int64)
    return plays, duration


def _plays(batch) -> pd.DataFrame:
    real = np.arange(batch.columns["track"].shape[1]) < batch.lengths[:, None]
    rows = np.repeat(np.arange(len(batch.lengths)), batch.lengths)
    of = {name: values[real] for name, values in batch.columns.items()}
    return pd.DataFrame(
        {
            "run": 2 * (batch.first + rows),
            "session": batch.first + rows,
            "position": of["position"],
            "track": of["track"],
            "level": of["level"],
            "reason_start": np.array(REASONS_START, dtype=object)[of["reason_start"]],
            "reason_end": np.array(REASONS_END, dtype=object)[of["reason_end"]],
            "shuffle": of["shuffle"].astype(bool),
        }
    )


def _short_runs(plays: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The first plays of every third session once more, too few for a session."""
    some = plays[plays["session"] % 3 == 0]
    most = rng.integers(1, 10, plays["session"].max() + 1)
    some = some[some["position"] <= most[some["session"]]]
    return some.assign(run=some["run"] + 1, session=-1)


def _heard(plays: pd.DataFrame, crossfade: float, rng: np.random.Generator) -> np.ndarray:
    low, high = np.array(SHARES)[plays["level"]].T
    share = low + (high - low) * rng.random(len(plays))
    fades = (rng.random(len(plays)) < crossfade) & (plays["level"] == 4)
    heard = share * plays["duration_ms"] - fades * 8_000 * rng.random(len(plays))
    return np.maximum(heard.round().astype(np.int64), 0)


def _give_clocks(plays: pd.DataFrame, days: float, rng: np.random.Generator) -> None:
    """Seconds between the plays of a run, five minutes at least between runs."""
    new_run = (plays["run"] != plays["run"].shift()).to_numpy()
    gap = np.where(rng.random(len(plays)) < 0.1, rng.uniform(2_000, 55_000, len(plays)), 0)
    gap += rng.uniform(-900, 900, len(plays))
    runs = plays.groupby("user")["run"].nunique().max()
    spare = days * 86_400_000 - plays.groupby("user")["ms_played"].sum().max()
    between = 300_000 + rng.exponential(max(spare / runs - 300_000, 60_000), len(plays))
    # Clocks disagree a little, but no play begins or ends before the one before it.
    shorter = np.minimum(plays["ms_played"], plays["ms_played"].shift(fill_value=0))
    gap = np.maximum(np.where(new_run, between, gap), -shorter / 2)
    gap = gap.round().astype(np.int64)
    passed = (gap + plays["ms_played"]).groupby(plays["user"]).cumsum()
    plays["end_ms"] = FIRST_MS + passed
    plays["start_ms"] = plays["end_ms"] - plays["ms_played"]


def extended_records(history: History, *, older: bool = False) -> list[dict]:
    """Records of the extended streaming history, of the newer kind or the older."""
    plays = history.plays
    stamps = pd.to_datetime(plays["end_ms"] // 1000, unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    records = []
    for i, (play, ts) in enumerate(zip(plays.to_dict("records"), stamps, strict=True)):
        skipped = play["reason_end"] == "fwdbtn"
        record = {
            "ts": ts,
            "platform": DEVICE,
            "ms_played": play["ms_played"],
            "conn_country": COUNTRY,
            "ip_addr": IP,
            "master_metadata_track_name": play["title"],
            "master_metadata_album_artist_name": play["artist"],
            "master_metadata_album_album_name": play["album"],
            "spotify_track_uri": f"spotify:track:{play['uri']}",
            "episode_name": None,
            "episode_show_name": None,
            "spotify_episode_uri": None,
            "audiobook_title": None,
            "audiobook_uri": None,
            "audiobook_chapter_uri": None,
            "audiobook_chapter_title": None,
            "reason_start": play["reason_start"],
            "reason_end": play["reason_end"],
            "shuffle": play["shuffle"],
            # What Spotify wrote there over the years.
            "skipped": (None, False, skipped)[i * 3 // len(plays)],
            "offline": False,
            "offline_timestamp": play["start_ms"] // 1000,
            "incognito_mode": False,
        }
        if older:
            record = {
                "ts": record.pop("ts"),
                "username": USERNAME,
                "platform": record.pop("platform"),
                "ms_played": record.pop("ms_played"),
                "conn_country": record.pop("conn_country"),
                "ip_addr_decrypted": record.pop("ip_addr"),
                "user_agent_decrypted": "unknown",
                **{name: v for name, v in record.items() if "audiobook" not in name},
                "skipped": (None, 0, int(skipped))[i * 3 // len(plays)],
            }
        records.append(record)
    return records


def other_records() -> list[dict]:
    """A podcast, an audiobook, a local file and a private play."""
    (record,) = extended_records(History(make_history(1, tracks=100).plays.iloc[:1]))
    nothing = dict.fromkeys(
        [
            "master_metadata_track_name",
            "master_metadata_album_artist_name",
            "master_metadata_album_album_name",
            "spotify_track_uri",
        ]
    )
    return [
        {**record, **nothing, "episode_name": "One", "spotify_episode_uri": "spotify:episode:1"},
        {**record, **nothing, "audiobook_uri": "spotify:show:2", "audiobook_title": "Two"},
        {**record, **nothing},
        {**record, "incognito_mode": True},
    ]


def account_records(history: History, seed: int | None = 0) -> list[dict]:
    """Records of the simple account data: minutes, names, milliseconds.

    In no order within a minute, as Spotify writes them; in true order without a seed.
    """
    plays = history.plays
    if seed is not None:
        shuffled = plays.sample(frac=1, random_state=seed)
        minute = shuffled["end_ms"] // 60_000
        plays = shuffled.iloc[np.lexsort((np.arange(len(plays)), minute, shuffled["user"]))]
    minutes = pd.to_datetime(plays["end_ms"] // 60_000 * 60, unit="s").dt.strftime("%Y-%m-%d %H:%M")
    return [
        {"endTime": minute, "artistName": artist, "trackName": title, "msPlayed": ms}
        for minute, artist, title, ms in zip(
            minutes, plays["artist"], plays["title"], plays["ms_played"].tolist(), strict=True
        )
    ]


def archive_files(history: History, *, older: bool = False, parts: int = 3) -> dict[str, str]:
    """The JSON files of an archive by name."""
    records = extended_records(history, older=older)
    names = [
        f"endsong_{i}.json" if older else f"Streaming_History_Audio_{2021 + i}_{i}.json"
        for i in range(parts)
    ]
    bounds = np.linspace(0, len(records), parts + 1).astype(int)
    files = {
        name: json.dumps(records[first:last], indent=2)
        for name, first, last in zip(names, bounds[:-1], bounds[1:], strict=True)
    }
    if not older:
        files["Streaming_History_Video_2021.json"] = json.dumps(other_records())
    return files


def write_zip(files: dict[str, str | bytes], path: Path) -> Path:
    """An archive as downloaded, with the manual that comes along."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"Spotify Extended Streaming History/{name}", content)
        archive.writestr("Spotify Extended Streaming History/ReadMeFirst.pdf", b"%PDF-1.4\n\0\0")
    return path


def write_folder(files: dict[str, str | bytes], folder: Path) -> Path:
    """The same, unpacked."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def exported_csv(history: History) -> str:
    """A CSV export with the shorter names that circulate."""
    records = pd.DataFrame(extended_records(history))
    short = records.rename(
        columns={
            "master_metadata_track_name": "track_name",
            "master_metadata_album_artist_name": "artist_name",
            "master_metadata_album_album_name": "album_name",
        }
    )
    names = ["spotify_track_uri", "ts", "platform", "ms_played", "track_name", "artist_name"]
    names += ["album_name", "reason_start", "reason_end", "shuffle", "skipped"]
    short["spotify_track_uri"] = short["spotify_track_uri"].str.removeprefix("spotify:track:")
    short["ts"] = short["ts"].str.replace("T", " ").str.removesuffix("Z")
    short["shuffle"] = short["shuffle"].map({True: "TRUE", False: "FALSE"})
    buffer = io.StringIO()
    short[names].to_csv(buffer, index=False)
    return buffer.getvalue()


def foreign_table(history: History) -> pd.DataFrame:
    """A table of plays under names of nobody's schema."""
    plays = history.plays
    return pd.DataFrame(
        {
            "uid": [f"{USERNAME}/{user}" for user in plays["user"]],
            "played_at": plays["start_ms"],
            "song_id": plays["uri"],
            "heard": plays["ms_played"],
            "song_len": plays["duration_ms"],
            "mixed": plays["shuffle"].astype(int),
            "gadget": DEVICE,
        }
    )


FOREIGN_MAP = (
    "user=uid,time=played_at,track=song_id,played_ms=heard,duration_ms=song_len,shuffle=mixed,"
    "platform=gadget"
)
