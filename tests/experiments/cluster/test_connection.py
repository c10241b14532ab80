"""Which cluster a command finds, with which token, and what it says where it finds none."""

import signal
from pathlib import Path

import nodes
import pytest
from make_logs import make_log, write_csv

pytest.importorskip("ray", reason="Ray is not installed (extra [cluster])")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not nodes.possible(), reason=nodes.WHY_NOT),
]

HEAD, CLIENT = f"127.0.0.1:{nodes.PORT}", f"ray://127.0.0.1:{nodes.CLIENT_PORT}"
NOTHING = "127.0.0.1:7000"
NO_TOKEN = {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None}
TRAINED = ["ddpg.warmup_updates=20", "ddpg.num_envs=16", "ddpg.learning_starts=32"]
COMPARE = [
    *["compare", "--agents", "logged", "ddpg", "--seeds", "1", "--train-steps", "160"],
    *["--evaluation-sessions", "20", "--out", "out", "--agent-settings", *TRAINED, "--data"],
]
NO_TRAINING = ["compare", "--agents", "logged", "--evaluation-sessions", "5"]
NO_TRAINING += ["--out", "quick", "--data"]
FIT = ["--members", "1", "--max-epochs", "1"]


def home_with(folder: Path, token: str) -> str:
    """A home directory as an earlier cluster of this user left it."""
    file = folder / ".ray/auth_token"
    file.parent.mkdir(parents=True)
    file.write_text(token)
    return str(folder)


@pytest.mark.parametrize("address", ["auto", HEAD, CLIENT])
def test_another_token_is_a_sentence_and_leaves_nothing(tmp_path, synthetic_folder, address):
    home = home_with(tmp_path / "home", "cd" * 32)
    command = [*COMPARE, str(synthetic_folder), "--cluster", address]
    with nodes.Cluster(1, tmp_path) as cluster:
        code, told = cluster.run(tmp_path, *command, **NO_TOKEN, HOME=home)
    assert code == 2, told
    assert "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_a_cluster_of_the_command_leaves_no_token(tmp_path, synthetic_folder):
    """Ray would keep one in the home, for which clusters that start later would ask."""
    home = tmp_path / "home"
    home.mkdir()
    with nodes.Cluster(0, tmp_path) as cluster:
        command = [*COMPARE, str(synthetic_folder), "--cluster", "local"]
        code, told = cluster.run(tmp_path, *command, **NO_TOKEN, HOME=str(home))
    assert code == 0, told
    assert "160/160" in told
    assert not (home / ".ray").exists()


COMMANDS = {
    "compare": COMPARE,
    "train": ["train", "--seeds", "1", "--train-steps", "160", "--out", "out", "--data"],
    "tune": ["tune", "--trials", "2", "--train-steps", "160", "--out", "out", "--data"],
    "fit-listener": ["fit-listener", *FIT, "--out", "out"],
    "trust": ["trust", *FIT, "--out", "out"],
    "ingest": ["ingest", "--out", "out"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_cluster_is_looked_for_before_anything_is_done(tmp_path, synthetic_folder, name):
    write_csv(make_log(20), tmp_path / "logs/0.csv")
    data = "logs" if name == "ingest" else str(synthetic_folder)
    with nodes.Cluster(0, tmp_path) as cluster:
        code, told = cluster.run(tmp_path, *COMMANDS[name], data, "--cluster", NOTHING)
    assert code == 2, told
    assert told.startswith(f"musicbox {name}: No Ray cluster answers at --cluster {NOTHING}"), told
    assert not list(tmp_path.glob("out*"))


def test_the_wrong_port_of_a_head_is_named(tmp_path, synthetic_folder):
    with nodes.Cluster(1, tmp_path) as cluster:
        address = CLIENT.removeprefix("ray://")
        code, told = cluster.run(tmp_path, *COMPARE, str(synthetic_folder), "--cluster", address)
    assert code == 2, told
    assert "port 6379 of a head; ray:// and 10001 for Ray Client" in told


def test_an_interrupt_ends_a_command_that_connects(tmp_path, synthetic_folder):
    """Ray tries for 20 seconds to show `auto` a token that is not the cluster's."""
    home = home_with(tmp_path / "home", "cd" * 32)
    with nodes.Cluster(1, tmp_path) as cluster:
        command = [*COMPARE, str(synthetic_folder), "--cluster", "auto"]
        process = cluster.start(tmp_path, *command, **NO_TOKEN, HOME=home)
        while "InvalidAuthToken" not in (line := process.stderr.readline()):
            assert line, process.communicate()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=nodes.PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert told.rstrip().endswith("musicbox compare: stopped.")
    assert not (tmp_path / "out").exists()
