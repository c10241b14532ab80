"""A dataset made under --out is used again for the same files alone; its JSON is checked."""

import json
import shutil
from contextlib import suppress

import pandas as pd
import pytest
from musicbox_experiments.data.describe import describe
from musicbox_experiments.data.sources import Source

from musicbox_env.data.checks import FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize, write_raw


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Logs, tracks, a file that is passed over, and the dataset made of them."""
    folder = tmp_path_factory.mktemp("made")
    write_raw(SyntheticConfig(sessions=60, tracks=100), folder / "raw")
    (folder / "logs").mkdir()
    shutil.move(folder / "raw/sessions.csv.gz", folder / "logs/1.csv.gz")
    (folder / "logs/README.txt").write_text("About these logs\n")
    source_of(folder).resolve(folder / "run")
    return folder


@pytest.fixture
def made(first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(first, tmp_path / "made")


def source_of(folder, tracks=("raw/tracks.csv",)):
    return Source(sessions=(str(folder / "logs"),), tracks=tuple(str(folder / t) for t in tracks))


def more_sessions(folder):
    log = pd.read_csv(folder / "logs/1.csv.gz")
    log.assign(session_id="x" + log.session_id).to_csv(folder / "logs/2.csv", index=False)


def more_tracks(folder):
    text = (folder / "raw/tracks.csv").read_text()
    (folder / "raw/more.csv").write_text(text + "\n")


def test_the_same_files_are_gone_on_with(first):
    before = (first / "run/dataset/dataset.json").stat().st_mtime_ns
    assert source_of(first).resolve(first / "run") == str(first / "run/dataset")
    assert (first / "run/dataset/dataset.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "tracks", "says"),
    [
        (more_sessions, ("raw/tracks.csv",), r"--sessions names now \(added: .*logs/2\.csv\)"),
        (more_tracks, ("raw",), r"--tracks names now \(added: .*raw/more\.csv\)"),
        (more_tracks, ("raw/more.csv",), r"--tracks .*missing: .*tracks\.csv; added: .*more\.csv"),
        (None, (), r"--tracks names now \(missing: .*raw/tracks\.csv\)"),
    ],
)
def test_files_that_were_added_or_are_missing_are_named(first, made, change, tracks, says):
    if change:
        change(made)
    with pytest.raises(FileExistsError, match=says):
        source_of(made, tracks).resolve(made / "run")


def test_a_dataset_of_no_files_is_refused(made):
    shutil.rmtree(made / "run/dataset")
    synthesize(SyntheticConfig(sessions=20, tracks=100), made / "run/dataset", embeddings=False)
    with pytest.raises(FileExistsError, match=r"--sessions names now \(added: .*1\.csv\.gz"):
        source_of(made).resolve(made / "run")


ODD = (None, -1.5, "x", 3, [], [3], {}, {"a": {}}, True)


@pytest.mark.parametrize(
    "place",
    [
        ("history", "levels"),
        ("history", "levels", "inferred_share"),
        ("rejected", "reasons"),
        ("rejected", "reasons", "bad"),
        ("rejected", "rows"),
        ("rows_read",),
        ("sources",),
        ("passed_over", "names"),
        ("track_features", "sources"),
        ("split",),
        ("split", "kind"),
        ("part", "name"),
        ("notes",),
    ],
)
def test_odd_json_is_refused_where_it_is_opened_or_described(made, place):
    file = made / "run/dataset/dataset.json"
    about = json.loads(file.read_text())

    def refused(odd):
        changed = json.loads(json.dumps(about))
        inner = changed
        for name in place[:-1]:
            inner = inner.setdefault(name, {})
        inner[place[-1]] = odd
        file.write_text(json.dumps(changed))
        with suppress(FileError):
            describe(Dataset(made / "run/dataset"))
            return False
        return True

    number = sum(map(refused, ODD))
    assert number == 0 if place == ("notes",) else number >= 4
