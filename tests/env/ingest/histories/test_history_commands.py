"""What the commands make of a history, and what they say of how much it is."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from make_histories import FOREIGN_MAP, archive_files, write_zip
from musicbox_experiments.cli import main
from musicbox_experiments.data.describe import describe
from musicbox_experiments.data.enough import cautions, skip_rate_interval
from musicbox_experiments.data.sources import Source
from musicbox_experiments.serve.recommend import LEVEL_NAMES, parse_heard
from read_histories import ingest_records, run, session_of

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.histories.sessionize import SessionConfig
from musicbox_env.schema import is_skip


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


@pytest.mark.parametrize("text", ["t_a", "A - B", ":full", " , "])
def test_a_song_without_a_level_is_told_every_level(text):
    with pytest.raises(ValueError, match="expected SONG:LEVEL") as refused:
        parse_heard(text)
    assert all(name in str(refused.value) for name in LEVEL_NAMES if not name.isdigit())


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
