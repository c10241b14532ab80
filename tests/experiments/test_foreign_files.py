"""No command deletes or overwrites what MusicBox did not write, and paths of no use are named."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from musicbox_experiments.cli import main

from musicbox_env.data.dataset import Dataset
from musicbox_env.errors import UserError
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize, write_raw

SMALL = SyntheticConfig(sessions=60, tracks=100)
RUN = ["--agents", "logged", "--seeds", "1", "--evaluation-sessions", "10"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset and raw logs."""
    folder = tmp_path_factory.mktemp("made")
    synthesize(SMALL, folder / "data")
    write_raw(SMALL, folder / "raw")
    return folder


@pytest.fixture
def commands(made, tmp_path, monkeypatch):
    """Ways to fill a folder, by name."""
    monkeypatch.chdir(tmp_path)
    data = str(made / "data")
    return {
        "compare": ["compare", "--data", data, *RUN],
        "train": ["train", "--data", data, "--agent", "popularity"],
        "tune": ["tune", "--data", data, "--trials", "1"],
        "ingest": ["ingest", str(made / "raw/sessions.csv.gz"), "--no-embeddings"],
        "synthesize": ["synthesize", "--sessions", "60", "--tracks", "100"],
    }


def refused(arguments, capsys):
    """What is said by a command that ends as one whose options are wrong."""
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    return " ".join(said.split())


@pytest.mark.parametrize("name", ["compare", "tune", "ingest", "synthesize"])
@pytest.mark.parametrize("file", ["thesis.txt", "config.json", "agents/a.csv"])
def test_overwrite_leaves_the_files_of_the_user(commands, tmp_path, capsys, name, file):
    (tmp_path / "p" / file).parent.mkdir(parents=True)
    (tmp_path / "p" / file).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    said = refused([*commands[name], "--out", "p", "--overwrite"], capsys)
    assert file.partition("/")[0] in said or "is no run" in said
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "p" / file).read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "file"),
    [(n, f) for n in ("compare", "tune") for f in ("thesis.txt", "config.json")]
    + [("train", "thesis.txt")],
)
def test_a_refused_run_writes_nothing_into_the_folder_of_a_user(
    commands, tmp_path, capsys, name, file
):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / file).write_text('{"out": "mine"}')
    refused([*commands[name], "--out", "p"], capsys)
    assert [f.name for f in tmp_path.rglob("*")] == ["p", file]
    assert (tmp_path / "p" / file).read_text() == '{"out": "mine"}'


def test_nothing_is_written_or_deleted_for_data_that_are_none(commands, made, tmp_path, capsys):
    for data in (["--data", "nowhere"], ["--sessions", "nowhere"]):
        refused(["compare", *data, *RUN, "--out", "p"], capsys)
        assert not list(tmp_path.iterdir())
    main([*commands["compare"], "--out", "p"])
    before = sorted(tmp_path.rglob("*"))
    refused(["compare", "--data", "nowhere", *RUN, "--out", "p", "--overwrite"], capsys)
    shutil.copytree(made / "data", "p/dataset")
    said = refused(["compare", "--data", "p/dataset", *RUN, "--out", "p", "--overwrite"], capsys)
    assert "p/dataset lies in p, which --overwrite would delete" in said
    shutil.rmtree("p/dataset")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_deleted_behind_a_link_that_stays(commands, tmp_path):
    main([*commands["compare"], "--out", "p"])
    (tmp_path / "link").symlink_to("p")
    (tmp_path / "p/report.html").write_text("old")
    main([*commands["compare"], "--out", "link", "--overwrite"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "p/report.html").read_text() != "old"


@pytest.mark.parametrize("name", ["compare", "train", "ingest", "synthesize"])
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", "/ is no name for something to be made"),
        (os.fsdecode(b"\xff"), r"\xff: the path is no UTF-8 text"),
        (os.fsdecode(b"\xff/x"), r"\xff/x: the path is no UTF-8 text"),
    ],
)
def test_paths_that_nothing_can_be_made_at(commands, tmp_path, capsys, name, path, says):
    assert says in refused([*commands[name], "--out", path], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [".", "./", "", "p/.."])
def test_the_folder_that_one_is_in_exists(commands, tmp_path, capsys, path):
    (tmp_path / "p").mkdir()
    (tmp_path / "thesis.txt").touch()
    assert "exists already" in refused([*commands["ingest"], "--out", path], capsys)
    for name in ("ingest", "compare"):
        said = refused([*commands[name], "--out", path, "--overwrite"], capsys)
        assert "which is nothing that MusicBox wrote there" in said
    assert sorted(f.name for f in tmp_path.iterdir()) == ["p", "thesis.txt"]


def test_a_dataset_whose_path_is_no_text_is_not_called_damaged(made, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(made / "data", folder)
    with pytest.raises(ValueError, match=r"\\xff: the path is no UTF-8 text"):
        Dataset(folder)


@pytest.mark.parametrize("path", ["x" * 10_000, "a\0b"])
def test_what_can_be_no_path_is_said_so(path):
    for open_it in (Dataset, open_dataset):
        with pytest.raises(UserError, match="cannot be a path"):
            open_it(path)


def test_a_command_needs_no_output_to_write_to():
    arguments = [sys.executable, "-m", "musicbox_experiments", "--version"]
    done = subprocess.run(["sh", "-c", f"{shlex.join(arguments)} >&-"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["fit-leaving", "fit-listener"])
@pytest.mark.parametrize("name", ["notes.txt", "dataset.json", "t.npz", "link"])
def test_a_fitted_file_takes_the_place_of_such_a_file_alone(made, tmp_path, capsys, command, name):
    file = tmp_path / name
    text = (made / "data/dataset.json").read_text() if name == "dataset.json" else "mine"
    (tmp_path / "target").write_text(text)
    file.symlink_to("target") if name == "link" else file.write_text(text)
    arguments = [command, made / "data", "--out", file]
    arguments += ["--listener", "similarity"] if command == "fit-listener" else []
    assert "is left alone" in refused(arguments, capsys)
    assert file.read_text() == text
    file.unlink()
    for _ in range(2):
        main(list(map(str, arguments)))
    assert file.is_file()
