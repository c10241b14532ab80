"""The same commands on a Ray cluster: the same bytes, whatever is lost on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nodes
import numpy as np
import pytest
from altered import forget_identity
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
        table, told = process.communicate(timeout=nodes.PATIENCE)
        assert process.returncode == 0, told
    assert contents(folder) == expected
    assert "raylet" not in table


def test_a_lost_head_is_a_sentence(tmp_path, synthetic_folder):
    """Ray Client tries for half a minute to reach it again; Ray itself would look for another."""
    folder = workplace(tmp_path / "work", synthetic_folder)
    address = f"ray://127.0.0.1:{nodes.CLIENT_PORT}"
    with nodes.Cluster(1, tmp_path) as cluster:
        process = cluster.start(folder, *COMPARE, "--cluster", address)
        wait_for(lambda: any(begun(folder, seed) for seed in range(3)), process)
        cluster.lose(0)
        _, told = process.communicate(timeout=nodes.PATIENCE)
    assert process.returncode == 2, told
    assert f"musicbox compare: The cluster {address} was lost (" in told
    assert "the same command goes on from what is done" in told
    assert "fault of MusicBox" not in told


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


TRUST = ["--sessions", "40", "--training-sessions", "200", "--samples", "1", "--draws", "2"]
FITTED = ["--members", "1", "--max-epochs", "1", "--resamples", "10", "--out", "out"]
TRAINED = ["--train-steps", "160", "--data", "data", "--out", "out", "--agent-settings", *SMALL]
PRESETS = ["--seeds", "1", "--evaluation-sessions", "40"]
MORE = {
    "cross-validate": ["trust", "data", "--cross-validate", *TRUST, *FITTED],
    "trust": ["trust", "data", *TRUST, *FITTED, "--evaluated-sessions", "20"],
    "train": ["train", "--seeds", "2", *TRAINED],
    # Settings of the command line stand in place of the preset's.
    "ablation": [
        *("compare", "--preset", "ablation", "--agents", "logged", "ddpg", "ddpg+content"),
        *(*PRESETS, *TRAINED, "ddpg+content.embedding=content"),
    ],
    "frontier": ["compare", "--preset", "frontier", *PRESETS, *TRAINED],
}


@pytest.mark.parametrize("name", MORE)
def test_commands_that_fit_and_train_make_the_same(tmp_path, synthetic_folder, name):
    made = []
    with nodes.Cluster(2, tmp_path) as cluster:
        for where in ([], ["--cluster", "auto"]):
            folder = workplace(tmp_path / f"work{len(made)}", synthetic_folder)
            if name == "trust":
                say_who_chose(folder / "data")
            code, told = cluster.run(folder, *MORE[name], *where)
            assert code == 0, told
            made.append(contents(folder))
    assert made[0] == made[1]
    assert made[0]


def say_who_chose(data: Path) -> None:
    """Give sessions recommended plays, so that `trust` fits listeners of its own."""
    plays = len(np.load(data / "plays/track.npy"))
    np.save(data / "plays/source.npy", (np.arange(plays) % 3 == 0).astype(np.int8))
    forget_identity(data)


def logs_in(folder: Path, number: int) -> None:
    for i in range(number):
        write_csv(make_log(12, seed=i, prefix=f"f{i % 60}_"), folder / f"{i}.csv")


@pytest.mark.parametrize("shared", [True, False])
def test_logs_of_many_files_make_the_same_on_three_nodes(tmp_path, shared):
    """Some sessions are in two files; nodes may see the logs alone, not where the dataset goes."""
    logs_in(tmp_path / "logs", 64)
    command = ["ingest", str(tmp_path / "logs"), "--no-embeddings", "--max-rejects", "0.5"]
    command += ["--out", "out/data"]
    made = []
    hidden = [tmp_path / "work0", tmp_path / "work1"]
    for folder in hidden:
        folder.mkdir()
    with nodes.Cluster(3, tmp_path, hidden=[] if shared else hidden) as cluster:
        for folder, where in zip(hidden, ([], ["--cluster", "auto"]), strict=True):
            code, told = cluster.run(folder, *command, *where)
            assert code == 0, told
            made.append(contents(folder))
    assert made[0] == made[1]
    assert b'"duplicate_sessions": 48' in made[0]["out/data/dataset.json"]


def test_logs_that_a_node_does_not_see_are_named(tmp_path, synthetic_folder):
    folder = workplace(tmp_path / "work", synthetic_folder)
    write_csv(make_log(20), folder / "logs/0.csv")
    with nodes.Cluster(1, tmp_path, hidden=[folder]) as cluster:
        code, told = cluster.run(folder, *OTHERS["ingest"], "--cluster", "auto")
    assert code == 2, told
    assert "has no logs/0.csv. Put the logs where all nodes find them" in told


def test_a_node_with_other_packages_is_refused(tmp_path, synthetic_folder):
    folder = workplace(tmp_path / "work", synthetic_folder)
    other = tmp_path / "packages/numpy-0.1.dist-info/METADATA"
    other.parent.mkdir(parents=True)
    other.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    with nodes.Cluster(1, tmp_path, finds_first=tmp_path / "packages") as cluster:
        code, told = cluster.run(folder, *COMPARE, "--cluster", "auto")
    assert code == 2, told
    assert f"has numpy 0.1, and this machine {np.__version__}. Install the same versions" in told
    assert "Traceback" not in told


def test_too_little_memory_is_a_sentence(tmp_path, synthetic_folder):
    folder = workplace(tmp_path / "work", synthetic_folder)
    with nodes.Cluster(1, tmp_path, memory=600 << 20) as cluster:
        code, told = cluster.run(folder, *COMPARE, "--cluster", "auto")
    assert code == 2, told
    assert "A task takes 1.0 GiB of memory, and the largest node of auto gives its tasks" in told
    assert "Traceback" not in told


def test_a_full_disk_on_a_node_is_a_sentence(tmp_path, synthetic_folder):
    folder = workplace(tmp_path / "work", synthetic_folder)
    with nodes.Cluster(1, tmp_path, hidden=[folder], cache_room="100k") as cluster:
        code, told = cluster.run(folder, *COMPARE, "--cluster", "auto")
    assert code == 2, told
    assert "No space left on device" in told
    assert "run the same command again" in told
    assert "Traceback" not in told


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
