"""Progress bars: drawn on a terminal, lines elsewhere."""

import io

import pytest

from musicbox_env import progress
from musicbox_env.progress import tqdm


class Terminal(io.StringIO):
    """What claims to be a terminal."""

    def isatty(self):
        return True


def shown(file, steps=5):
    with tqdm(total=steps, desc="work", file=file, mininterval=0) as bar:
        for step in range(steps):
            bar.update()
            bar.set_postfix(at=step)
    return file.getvalue()


def test_a_pipe_gets_whole_lines(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    text = shown(io.StringIO())
    assert "\r" not in text
    assert text.endswith("\n")
    lines = text.splitlines()
    assert all(line.startswith("work:") for line in lines)
    assert "100%" in lines[-1]


def test_a_short_task_prints_nothing_into_a_pipe():
    assert shown(io.StringIO()) == ""


def test_a_terminal_gets_a_bar():
    assert "\r" in shown(Terminal())


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()])
def test_a_bar_that_is_turned_off_shows_nothing(file):
    assert list(tqdm(range(3), disable=True, file=file)) == [0, 1, 2]
    assert file.getvalue() == ""
