"""The same commands on a Ray cluster: the same bytes, whatever is lost on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nodes
import pytest
from make_logs import make_log, write_csv

pytest.importorskip("ray", reason="Ray is not installed (extra [cluster])")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not nodes.possible(), reason=nodes.WHY_NOT),
]

SMALL = ["ddpg.warmup_updates=20", "ddpg.num_envs=16", "ddpg.learning_starts=32"]
COMPARE = [
    *["compare", "--data", "data", "--agents", "logged", "popularity", "ddpg", "--seeds", "3"],
    *["--train-steps", "1200", "--evaluation-sessions", "60", "--agent-settings", *SMALL],
    *["--out", "out"],
]


def workplace(folder: Path, data: Path) -> Path:
    folder.mkdir()
    subprocess.run(["cp", "-r", str(data), str(folder / "data")], check=True)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, but those with wall times."""
    files = sorted(file for file in (folder / "out").rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.name != "timing.json"
    }


def wait_for(found, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + nodes.PATIENCE
    while not found():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)


def begun(folder: Path, seed: int) -> bool:
    return any((folder / f"out/agents/ddpg/seed-{seed}/checkpoints").glob("steps-*"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory, synthetic_folder):
    """What processes of this machine make, with configuration, report and all."""
    folder = workplace(tmp_path_factory.mktemp("local") / "work", synthetic_folder)
    command = [sys.executable, "-m", "musicbox_experiments", *COMPARE]
    subprocess.run(command, cwd=folder, env=nodes.environment(), check=True, capture_output=True)
    return contents(folder)


def test_a_lost_node_changes_nothing(tmp_path, synthetic_folder, expected):
    folder = workplace(tmp_path / "work", synthetic_folder)
    with nodes.Cluster(3, tmp_path) as cluster:
        process = cluster.start(folder, *COMPARE, "--cluster", "auto")
        wait_for(lambda: any(begun(folder, seed) for seed in range(3)), process)
        cluster.lose(2)
        _, told = process.communicate(timeout=nodes.PATIENCE)
        assert process.returncode == 0, told
    assert contents(folder) == expected


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_goes_on(tmp_path, synthetic_folder, expected, how):
    folder = workplace(tmp_path / "work", synthetic_folder)
    with nodes.Cluster(2, tmp_path) as cluster:
        process = cluster.start(folder, *COMPARE, "--cluster", f"127.0.0.1:{nodes.PORT}")
        wait_for(lambda: any(begun(folder, seed) for seed in range(3)), process)
        os.kill(process.pid, how)
        _, told = process.communicate(timeout=nodes.PATIENCE)
        if how == signal.SIGINT:
            assert process.returncode == 128 + how, told
            assert told.rstrip().endswith("musicbox compare: stopped."), told
        code, told = cluster.run(folder, *COMPARE, "--cluster", f"127.0.0.1:{nodes.PORT}")
        assert code == 0, told
    assert contents(folder) == expected


def test_data_that_nodes_lack_are_sent_once_a_node(tmp_path, synthetic_folder, expected):
    """Nodes find neither the data nor the run's folder; the client's port is used."""
    folder = workplace(tmp_path / "work", synthetic_folder)
    with nodes.Cluster(2, tmp_path, hidden=[folder]) as cluster:
        address = f"ray://127.0.0.1:{nodes.CLIENT_PORT}"
        code, told = cluster.run(folder, *COMPARE, "--cluster", address)
        assert code == 0, told
    assert contents(folder) == expected
    sent = [line for line in told.splitlines() if line.startswith("Sent ")]
    assert len(sent) == 2, told
    caches = [list((tmp_path / f"cache-{number}/cluster/data").iterdir()) for number in range(2)]
    assert [len(found) for found in caches] == [1, 1]
    assert not [left for cache in tmp_path.glob("cache-*/cluster/tasks/*") for left in [cache]]


NETWORK = ["--members", "2", "--max-epochs", "2", "--memory", "8", "--head", "4"]
OTHERS = {
    "ingest": ["ingest", "logs", "--out", "out/data"],
    "fit-listener": ["fit-listener", "data", *NETWORK, "--out", "out/learned.npz"],
    "tune": [
        *["tune", "--data", "data", "--trials", "3", "--train-steps", "160", "--out", "out"],
        *["--workers", "1", "--search", "gamma=0.0..0.9", "--agent-settings", *SMALL],
    ],
}


def test_other_commands_make_the_same(tmp_path, synthetic_folder):
    with nodes.Cluster(2, tmp_path) as cluster:
        for name, command in OTHERS.items():
            made = []
            for where in ([], ["--cluster", "auto"]):
                folder = workplace(tmp_path / f"{name}{len(made)}", synthetic_folder)
                for i in range(4):
                    log = make_log(20, seed=i, prefix=f"f{i}_")
                    write_csv(log, folder / f"logs/{i}.csv")
                code, told = cluster.run(folder, *command, *where)
                assert code == 0, told
                made.append(contents(folder))
                made[-1].pop("out/search.journal", None)  # holds times
            assert made[0] == made[1]


def test_logs_that_a_node_does_not_see_are_named(tmp_path, synthetic_folder):
    folder = workplace(tmp_path / "work", synthetic_folder)
    write_csv(make_log(20), folder / "logs/0.csv")
    with nodes.Cluster(1, tmp_path, hidden=[folder]) as cluster:
        code, told = cluster.run(folder, *OTHERS["ingest"], "--cluster", "auto")
    assert code == 2, told
    assert "has no logs/0.csv. Put the logs where all nodes find them" in told


def test_what_cannot_be_is_a_sentence(tmp_path, synthetic_folder):
    folder = workplace(tmp_path / "work", synthetic_folder)
    with nodes.Cluster(1, tmp_path) as cluster:
        for address in ("127.0.0.1:7000", "ray://127.0.0.1:7000"):
            code, told = cluster.run(folder, *COMPARE, "--cluster", address)
            assert code == 2, told
            assert f"No Ray cluster answers at --cluster {address}" in told
            assert "Traceback" not in told
        settings = [*COMPARE, "--agent-settings", *SMALL, "ddpg.embedding=none-such"]
        code, told = cluster.run(folder, *settings, "--cluster", "auto")
        assert code == 2, told
        assert "Training ddpg with seed" in told
        assert "none-such" in told
        assert "Traceback" not in told
