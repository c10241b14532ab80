"""Nothing private of a history is left in what is written, printed or sent."""

import json
import re
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_histories import (
    COUNTRY,
    DEVICE,
    IP,
    USERNAME,
    archive_files,
    extended_records,
    write_folder,
    write_zip,
)
from musicbox_experiments.cli import main
from musicbox_experiments.data.describe import describe
from musicbox_experiments.data.ingest import history_account
from read_histories import contents_of, run, stored, truth

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.pipeline import IngestConfig, ingest


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
