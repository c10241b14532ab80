"""The command where only the environment is installed: a sentence says what is missing."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("tyro", "describe"),
        ("torch", "train"),
        pytest.param("matplotlib", "trust", marks=pytest.mark.slow),
    ],
)
def test_a_missing_extra_is_named_in_a_sentence(missing, command):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from musicbox_experiments.cli import main\n"
        f"main([{command!r}, '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"musicbox {command}: {missing} is not installed; commands need the extra [experiments]: "
        'pip install "musicbox-env[experiments]".\n'
    )
