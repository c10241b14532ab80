"""Where only the environment is installed: a sentence says what is missing."""

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


@pytest.mark.parametrize(
    ("missing", "code", "what", "extra"),
    [
        (
            "matplotlib",
            "import musicbox_experiments.api",
            "musicbox_experiments.api",
            "experiments",
        ),
        ("torch", "import musicbox_experiments.api", "musicbox_experiments.api", "experiments"),
        ("tyro", "import musicbox_experiments.api", "musicbox_experiments.api", "experiments"),
        ("torch", "import musicbox_agents as a; a.agent_class('ddpg')", "ddpg", "agents"),
        ("torch", "import musicbox_agents as a; a.agent_class('td3-bc')", "td3-bc", "agents"),
        (
            "stable_baselines3",
            "import musicbox_agents as a; a.agent_class('sb3-sac')",
            "sb3-sac",
            "agents",
        ),
    ],
)
def test_from_python_too_a_missing_extra_is_named(missing, code, what, extra):
    code = f"import sys; sys.modules[{missing!r}] = None; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: {missing} is not installed; {what} needs the extra [{extra}]: "
        f'pip install "musicbox-env[{extra}]".'
    )
