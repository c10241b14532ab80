"""Scrobbles of every service in its own schema, against what was really heard."""

import json

import pandas as pd
import pytest
from make_histories import DEVICE, IP, USERNAME
from make_scrobbles import (
    ALL,
    LENGTHS,
    MINUTES,
    lastfm_1k,
    lastfm_headless,
    lfm_1b,
    lines_of,
    listenbrainz_dump,
    listenbrainz_records,
    scrobbled_history,
    with_ids,
    youtube,
)
from musicbox_experiments.data.describe import describe
from musicbox_experiments.data.ingest import history_account
from read_histories import agreement, contents_of, run

from musicbox_env.errors import InputError
from musicbox_env.ingest.services.youtube import surroundings


@pytest.fixture(scope="module")
def heard():
    return scrobbled_history()


def write(tmp_path, content):
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "listens").write_bytes(data)
    return tmp_path / "listens"


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
    (tmp_path / "pano.jsonl").write_text(lines_of(plays))
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
    source = write(tmp_path, lines_of([*records, *bad]))
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
