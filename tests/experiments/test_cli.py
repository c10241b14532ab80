import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.cli import COMMANDS, INTERNAL_ERROR, main
from musicbox_experiments.data import describe
from musicbox_experiments.options import OPTIONS, WORD_OPTIONS
from musicbox_experiments.text import say, table

import musicbox_env
from musicbox_env.schema import require_known


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert not stopped.value.code
    shown = capsys.readouterr().out
    assert f"musicbox {command}" in shown
    assert "[[" not in shown
    heads = re.findall(r"^(?:│ |  )((?:-h, )?--[a-z][\w-]+(?:, --[\w-]+)*)(?= |$)", shown, re.M)
    found = {option for head in heads for option in re.findall(r"--[\w-]+", head)} - {"--help"}
    assert found == set(OPTIONS[command]), "options.py lists other options than the command has"


def test_the_version_is_printed(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"musicbox {musicbox_env.__version__}\n"


def test_overview_names_every_command(capsys):
    main([])
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)


def test_unknown_command_is_refused_with_a_suggestion(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["comapre"])
    assert stopped.value.code == 2
    assert "did you mean 'compare'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "--agents", "logged", "dppg"], "did you mean 'ddpg'"),
        (["compare", "--agents", "ddpg"], "must name `logged`"),
        (["compare", "--seeds", "0"], "seeds is 0"),
        (["compare", "--seeds", "abc"], "--seeds: 'abc' came; a whole number expected"),
        (["compare", "--listen", "much"], "--listen: 'much' came; a number expected"),
        (["recommend", "x", "--heard", "t:4", "--songs", "ten"], "'ten' came; a whole number"),
        (["compare", "--listener", "reply"], "did you mean 'replay'"),
        (["compare", "--agent-settings", "ddpg.gamma"], "expected AGENT.NAME=VALUE"),
        (["compare", "--agent-settings", "ddpg.gamma=abc"], "it must be a finite number"),
        (["compare", "--agent-settings", "ddpg.rerank=1.5"], "it must be a whole number"),
        (["train", "--agent-settings", "ddpg.within_slates=1"], "it must be true or false"),
        (["train", "--agent", "lird", "--agent-settings", "lird.tau=[1]"], "a finite number"),
        (["compare", "--agent-settings", "sb3-ddpg.learning_rate=fast"], "a finite number"),
        (["compare", "--agent-settings", "sb3-ddpg.gamma=2"], "at least 0 and at most 1"),
        (["compare", "--agent-settings", "lird.gamma=0.5"], "lird, which --agents does not name"),
        (["compare", "--agent-settings", "ddpg+far.gamma=0.5"], "--agents does not name"),
        (["train", "--agent-settings", "lird.gamma=0.5"], "which --agent does not name"),
        (["compare", "--workers", "-1"], "workers is -1; it must be at least 0"),
        (["train", "--workers", "-1"], "workers is -1; it must be at least 0"),
        (["calibrate-gain", "--workers", "-1"], "workers is -1; it must be at least 0"),
        (["ingest", "x", "--out", "y", "--workers", "-1"], "workers is -1; at least 1"),
        (["evaluate", "x", "--sessions", "-1"], "sessions is -1; it must be at least 1"),
        (["export"], "Say in which format to export: --minari"),
        (["compare", "--tracks", "x.csv"], "--tracks belongs to --sessions"),
        (["describe", "nowhere"], "musicbox ingest"),
        (["recommend", "nowhere", "--heard", "t_1"], "expected SONG:LEVEL"),
        (["recommend", "nowhere", "--heard", "t_1:full"], "holds no trained agent"),
        (["evaluate", "nowhere"], "holds no trained agent"),
    ],
)
def test_mistakes_are_explained_without_a_traceback(arguments, says, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown


def test_unknown_options_are_refused_with_a_suggestion(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--train-step", "5"])
    assert stopped.value.code == 2
    assert "--train-steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "--seed", "5"], "--evaluation-seed draws the sessions"),
        (["compare", "--seed=5"], "--seeds says how many trainings"),
        (["train", "--seed", "5"], "--seeds says how many trainings"),
        (["export", "--minary"], "Did you mean --minari"),
        (["ingest", "logs", "--track", "x"], "Did you mean --tracks"),
        (["trust", "--nonsense"], "`musicbox trust --help` lists all"),
    ],
)
def test_options_that_do_not_exist_are_named(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_options_that_do_not_exist_are_told_before_anything_heavy_is_imported():
    code = (
        "import sys\n"
        "from musicbox_experiments.cli import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    try:\n"
        "        main([command, '--nonsense'])\n"
        "    except SystemExit as stopped:\n"
        "        assert stopped.code == 2\n"
        "heavy = {'torch', 'pandas', 'numba', 'scipy', 'matplotlib', 'tyro', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
    assert ran.stderr.count("there is no option --nonsense.") == len(COMMANDS)


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ("compare logged ddpg", "musicbox compare --agents logged"),
        ("train ddpg --seeds 2", "musicbox train --agent ddpg"),
        ("tune ddpg", "musicbox tune --agent ddpg"),
        ("synthesize world", "musicbox synthesize --out world"),
    ],
)
def test_a_word_without_its_option_is_answered_with_what_to_write(given, mend, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(given.split())
    assert stopped.value.code == 2
    assert f"`{mend}`" in capsys.readouterr().err


def test_the_options_that_words_are_meant_for_exist():
    assert all(option in OPTIONS[command] for command, option in WORD_OPTIONS.items())


@pytest.mark.parametrize("command", ["compare", "train", "calibrate-gain"])
def test_more_seeds_than_can_be_meant_are_refused(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--seeds", "10000000000", "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert "at most 10000" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


WRITING = {
    "compare": ["--data", "DATA", "--agents", "logged"],
    "train": ["--data", "DATA", "--agent", "popularity"],
    "trust": ["DATA"],
    "export": ["DATA", "--minari"],
    "benchmark": ["--only", "statistics"],
    "calibrate-gain": ["--sessions", "60"],
    "synthesize": ["--sessions", "60", "--overwrite"],
}


@pytest.mark.parametrize("command", WRITING)
def test_a_file_in_place_of_a_folder_to_write_is_refused(
    command, synthetic_folder, tmp_path, capsys
):
    (file := tmp_path / "notes.txt").write_text("mine")
    arguments = [str(synthetic_folder) if a == "DATA" else a for a in WRITING[command]]
    with pytest.raises(SystemExit) as stopped:
        main([command, *arguments, "--out", str(file)])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert "notes.txt" in shown
    assert "file" in shown
    assert "Errno" not in shown
    assert file.read_text() == "mine"


@pytest.mark.parametrize("command", ["fit-listener", "fit-leaving"])
def test_a_folder_in_place_of_a_file_to_write_is_refused(
    command, synthetic_folder, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        main([command, str(synthetic_folder), "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "is a folder; name the file to write" in capsys.readouterr().err


def test_module_and_command_are_the_same_function():
    run = [sys.executable, "-m", "musicbox_experiments", "describe", "nowhere"]
    shown = subprocess.run(run, capture_output=True, text=True)
    assert shown.returncode == 2
    assert "musicbox describe" in shown.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["describe", "--help"], ["describe", "DATA"]]
)
def test_a_closed_pipe_ends_every_output_quietly(arguments, synthetic_folder):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [str(synthetic_folder) if a == "DATA" else a for a in arguments]
    run = [sys.executable, "-m", "musicbox_experiments", *arguments]
    with os.fdopen(writer, "w") as pipe:
        ended = subprocess.run(run, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.fixture
def failing(monkeypatch):
    """The command ``describe``, failing as a function says."""

    def fail(action):
        monkeypatch.setattr(describe, "run", lambda config: action())
        with pytest.raises(SystemExit) as stopped:
            main(["describe"])
        return stopped.value.code

    return fail


@pytest.mark.parametrize(
    "action",
    [
        lambda: {}["weights"],
        lambda: int("x"),
        lambda: np.zeros(2)[[7]],
        lambda: None + 1,
        lambda: os.lseek(0, -1, 9),
    ],
    ids=["KeyError", "ValueError", "IndexError", "TypeError", "nameless OSError"],
)
def test_faults_of_musicbox_are_shown_as_such(failing, action, capsys):
    assert failing(action) == INTERNAL_ERROR
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "this is a fault of MusicBox" in shown
    assert "Please report it" in shown


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (lambda: require_known("level", "x", ["y"]), "Unknown level 'x'"),
        (lambda: Path("nowhere").read_text(), "'nowhere'"),
        (lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"x"), "Make room"),
    ],
)
def test_mistakes_of_users_are_no_faults(failing, action, says, capsys):
    assert failing(action) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown


def test_text_of_others_reaches_no_terminal_raw(capsys):
    say("a\nb \x1b[31m\u202e", table([{"title": "x\ny\x07"}, {"title": "\udcff"}]))
    say("\x9b", to_errors=True)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["a", r"b \x1b[31m\u202e", "title", r"x\ny\x07", r"\xff"]
    assert err == "\\x9b\n"
