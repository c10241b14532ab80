"""The README as a newcomer pastes it: its commands in order, its Python as it stands."""

import re
import shlex
from pathlib import Path

import pytest
from make_histories import archive_files, make_history, write_zip
from musicbox_experiments.cli import COMMANDS, main
from musicbox_experiments.options import OPTIONS

from musicbox_env.data.dataset import Dataset

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
FEW = ["--seeds", "1", "--train-steps", "40", "--evaluation-sessions", "40", "--workers", "1"]


def blocks(language):
    """The README's blocks of a language; shell blocks name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
    return [block for name, block in found if name == language]


def lines():
    """Every line of the shell blocks, in order."""
    split = [line for block in blocks("") for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in split]


def commands():
    """Arguments of the `musicbox` commands among them."""
    found = [shlex.split(line) for line in lines() if line.startswith(("musicbox ", "make "))]
    return [args[1:] for args in found if args != ["make", "test"]]


def test_the_readme_says_how_to_get_in():
    text = "\n".join(lines())
    for line in ("git clone ", "pip install ", "uvx ", "source .venv/bin/activate", "--version"):
        assert line in text


def test_commands_of_the_readme_have_the_options_that_it_gives_them():
    named = [args for args in commands() if args[0] in COMMANDS]
    assert {args[0] for args in named} >= {"compare", "describe", "ingest", "recommend"}
    for name, *args in named:
        assert {arg for arg in args if arg.startswith("--")} <= set(OPTIONS[name]), name


def test_python_of_the_readme_runs_as_it_stands(synthetic_folder, tmp_path, monkeypatch):
    code = "\n".join(blocks("python"))
    data = f"data={str(synthetic_folder)!r}"
    code = code.replace('"MusicSession-v0"', f'"MusicSession-v0", {data}')
    code = code.replace("open_dataset()", f"open_dataset({str(synthetic_folder)!r})")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.slow
def test_commands_of_the_readme_pasted_one_by_one(tmp_path, monkeypatch, capsys):
    """In the order in which they stand, in one folder; trainings are short."""
    monkeypatch.chdir(tmp_path)
    write_zip(
        archive_files(make_history(80, tracks=200, days=300, seed=5)),
        tmp_path / "my_spotify_data.zip",
    )
    done = set()
    for args in commands():
        if args == ["compare"] and "compare" in done:
            continue  # another way in
        if args[:2] == ["recommend", "runs/mine"]:
            titles = Dataset(Path("data/mine")).catalog.titles
            unique = [title for title in titles if list(titles).count(title) == 1]
            args = [*args[:3], f"{unique[0]}:full,{unique[1]}:skipped"]
        main([*args, *(FEW if args[0] == "compare" else [])])
        done.add(args[0])
        assert capsys.readouterr().out.strip(), args
    assert Path("runs/compare/report.html").is_file()
    assert Path("runs/mine/report.html").is_file()
