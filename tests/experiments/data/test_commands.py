"""What `musicbox synthesize` and `musicbox ingest` print."""

import shlex
import shutil

import pandas as pd
import pytest
from musicbox_experiments.cli import main

from musicbox_env.data.dataset import Dataset


@pytest.fixture
def offered(tmp_path, capsys):
    """The line with which to go on after synthetic logs were written."""
    raw = tmp_path / "raw logs"
    main(["synthesize", "--sessions", "60", "--tracks", "100", "--raw", str(raw)])
    [line] = capsys.readouterr().out.splitlines()
    return line.partition(": ")[2]


def test_the_line_after_raw_logs_makes_a_dataset_of_them(offered, tmp_path, monkeypatch):
    command, *arguments = shlex.split(offered)
    assert command == "musicbox"
    monkeypatch.chdir(tmp_path)
    main([*arguments, "--no-embeddings"])
    about = Dataset(tmp_path / arguments[-1]).about
    assert (about["sessions"], about["rejected"]["rows"]) == (60, 0)


def test_files_passed_over_are_named(offered, tmp_path, capsys):
    folder = tmp_path / "raw logs"
    (folder / "README.txt").write_text("About these logs\n")
    out = ["--out", str(tmp_path / "data"), "--no-embeddings"]
    main(["ingest", str(folder), *out])
    assert "Passed over 2:" in (shown := capsys.readouterr().out)
    assert "README.txt" in shown
    assert "tracks.csv, which holds features of tracks: name it with --tracks" in shown
    main(["ingest", str(folder), "--tracks", str(folder / "tracks.csv"), *out, "--overwrite"])
    assert "Passed over 1:" in (shown := capsys.readouterr().out)
    assert "tracks.csv" not in shown
    (folder / "README.txt").unlink()
    shutil.rmtree(tmp_path / "data")
    main(["ingest", str(folder / "sessions.csv.gz"), *out])
    assert "Passed over" not in capsys.readouterr().out


def test_rejected_rows_are_counted_by_reason_and_their_list_named(offered, tmp_path, capsys):
    folder = tmp_path / "raw logs"
    log, tracks = pd.read_csv(folder / "sessions.csv.gz"), pd.read_csv(folder / "tracks.csv")
    log.loc[[3, 9, 11], "session_position"] = -1
    log.loc[5, "track_id_clean"] = ""
    tracks["acousticness"] = tracks["acousticness"].astype(object)
    tracks.loc[2, "acousticness"] = "loud"
    log.to_csv(folder / "sessions.csv.gz", index=False)
    tracks.to_csv(folder / "tracks.csv", index=False)
    named = [str(folder / "sessions.csv.gz"), "--tracks", str(folder / "tracks.csv")]
    out = tmp_path / "data"
    main(["ingest", *named, "--out", str(out), "--no-embeddings", "--max-rejects", "0.05"])
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(f"Rejected rows, listed in {out / 'rejects.csv'}:")
    counts = {
        reason: int(n)
        for n, reason in (line.split(maxsplit=1) for line in lines[place + 1 : place + 4])
    }
    listed = pd.read_csv(out / "rejects.csv")["reason"].value_counts().to_dict()
    assert counts == listed
    assert sorted(counts.values()) == [1, 1, 3]
