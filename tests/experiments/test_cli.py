import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.cli import COMMANDS, INTERNAL_ERROR, main
from musicbox_experiments.data import describe
from musicbox_experiments.text import say, table

from musicbox_env.schema import require_known


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert not stopped.value.code
    assert f"musicbox {command}" in capsys.readouterr().out


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
        (["compare", "--listener", "reply"], "did you mean 'replay'"),
        (["compare", "--agent-settings", "ddpg.gamma"], "expected AGENT.NAME=VALUE"),
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


def test_module_and_command_are_the_same_function():
    run = [sys.executable, "-m", "musicbox_experiments", "describe", "nowhere"]
    shown = subprocess.run(run, capture_output=True, text=True)
    assert shown.returncode == 2
    assert "musicbox describe" in shown.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["compare", "--help"], ["describe"]])
def test_a_closed_pipe_ends_every_output_quietly(arguments):
    reader, writer = os.pipe()
    os.close(reader)
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
