"""A dataset is made whole or not at all: by workers, killed, on a full disk, over another one."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ingest_runs import contents, run
from make_logs import make_log, write_csv

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.parts import make_parts
from musicbox_env.workers import Processes


def test_a_worker_need_not_wait_for_the_compiler():
    code = "import sys, musicbox_env.ingest.parts; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_workers_make_the_same_dataset(tmp_path):
    for i in range(4):
        write_csv(make_log(20, seed=i, prefix=f"f{i}_"), tmp_path / f"logs/{i}.csv")
    alone = run(tmp_path, tmp_path / "logs", out="a")
    together = run(tmp_path, tmp_path / "logs", out="b", workers=2)
    assert contents(alone.folder) == contents(together.folder)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "account", "no account"])
def test_a_damaged_part_is_made_again(tmp_path, damage):
    file = write_csv(make_log(5), tmp_path / "0.csv")
    (part,) = make_parts([file], tmp_path / "parts", Processes(1))
    expected, plays = contents(part.folder), part.folder / "plays.arrows"
    about, content = part.folder / "part.json", bytearray(plays.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 255
        plays.write_bytes(content)
    elif damage == "cut":
        plays.write_bytes(content[:-9])
    elif damage == "gone":
        plays.unlink()
    elif damage == "account":
        about.write_text(about.read_text()[:-9])
    else:
        about.unlink()
    make_parts([file], tmp_path / "parts", Processes(1))
    assert contents(part.folder) == expected


def test_folders_of_a_stopped_run_may_be_links(tmp_path):
    """As of who has more room on another disk; what they point to stays."""
    write_csv(make_log(5), tmp_path / "logs/0.csv")
    expected = contents(run(tmp_path, tmp_path / "logs", out="a").folder)
    staging = tmp_path / "b.partial"
    staging.mkdir()
    for name in ("parts", "slices", "plays"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "mine").write_text("mine")
        (staging / name).symlink_to(tmp_path / "elsewhere" / name)
    assert contents(run(tmp_path, tmp_path / "logs", out="b").folder) == expected
    assert len(list((tmp_path / "elsewhere").rglob("mine"))) == 3


def test_a_run_stopped_while_it_removes_its_parts_goes_on(tmp_path, monkeypatch):
    write_csv(make_log(5), tmp_path / "logs/0.csv")
    expected, unlink = contents(run(tmp_path, tmp_path / "logs", out="a").folder), os.unlink

    def stopped(file, *given, **named):
        unlink(file, *given, **named)
        if Path(file).name == "plays.arrows":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tmp_path / "logs", out="b")
    monkeypatch.undo()
    assert contents(run(tmp_path, tmp_path / "logs", out="b").folder) == expected


@pytest.mark.slow
def test_workers_pass_errors_on(tmp_path):
    write_csv(make_log(10), tmp_path / "logs/0.csv")
    write_csv(make_log(10).drop(columns="skip_1"), tmp_path / "logs/1.csv")
    with pytest.raises(ValueError, match=r"1\.csv: missing column skip_1;"):
        run(tmp_path, tmp_path / "logs", workers=2)


def test_parts_are_used_again_until_what_they_depend_on_changes(tmp_path):
    files = [write_csv(make_log(5, seed=i), tmp_path / f"{i}.csv") for i in range(2)]

    def parts(max_rows=None):
        made = make_parts(files, tmp_path / "parts", Processes(1), max_rows=max_rows)
        return [part.folder for part in made]

    first = parts()
    made = [folder.stat().st_mtime_ns for folder in first]
    assert parts() == first
    assert [folder.stat().st_mtime_ns for folder in first] == made
    assert set(parts(max_rows=20)).isdisjoint(first)
    write_csv(make_log(5, seed=7), files[1])
    changed = parts()
    assert changed[0] == first[0]
    assert changed[1] != first[1]


def test_an_existing_dataset_is_replaced_only_on_demand(tmp_path):
    old = write_csv(make_log(5), tmp_path / "old.csv")
    new = write_csv(make_log(7), tmp_path / "new.csv")
    run(tmp_path, old)
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(tmp_path, new)
    assert Dataset(tmp_path / "out").sessions.num_sessions == 5
    assert run(tmp_path, new, overwrite=True).sessions.num_sessions == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.csv", "old.csv", "out"]


CHILD = """
import sys
from pathlib import Path
from musicbox_env.ingest.pipeline import IngestConfig, ingest
try:
    ingest(IngestConfig((sys.argv[1],), Path(sys.argv[2]), embeddings=False, progress=False,
                        workers=1))
except OSError as error:
    sys.exit(str(error))
"""


def start_ingest(tmp_path, *, file_limit=None):
    def limit():
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "logs"), str(tmp_path / "out")],
        cwd=Path(__file__).parents[3],
        preexec_fn=limit,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_when(process, ready):
    """SIGKILL a process as soon as something is seen on disk."""
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def write_many_logs(tmp_path, num_files=8, sessions=400):
    log = make_log(sessions, lengths=[20] * sessions).to_csv(index=False)
    for i in range(num_files):
        path = tmp_path / f"logs/{i}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(log.replace("\ns", f"\n{i}s"))


def finished_parts(tmp_path):
    folder = tmp_path / "out.partial/parts"
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*") if not p.suffix}


def test_a_killed_run_leaves_nothing_that_opens_and_goes_on(tmp_path):
    """Killed among the parts, then again among the columns; the third run makes the same bytes."""
    write_many_logs(tmp_path)
    kill_when(start_ingest(tmp_path), lambda: len(finished_parts(tmp_path)) >= 2)
    done = finished_parts(tmp_path)
    assert 2 <= len(done) < 8
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="is not a dataset folder"):
        Dataset(tmp_path / "out.partial")
    columns = tmp_path / "out.partial/plays"
    kill_when(start_ingest(tmp_path), columns.is_dir)
    assert finished_parts(tmp_path).items() >= done.items(), "a finished part was made again"
    assert not (tmp_path / "out").exists()
    process = start_ingest(tmp_path)
    output = process.communicate()
    assert process.returncode == 0, output
    undisturbed = run(tmp_path, tmp_path / "logs", out="undisturbed")
    assert contents(tmp_path / "out") == contents(undisturbed.folder)
    assert undisturbed.sessions.num_plays == 8 * 400 * 20


@pytest.mark.slow
@pytest.mark.parametrize("where", ["part", "columns"])
def test_a_full_disk_is_told_and_survived(tmp_path, where):
    """A limit on file size fails writes as a full disk does, in the first part or the columns."""
    write_many_logs(tmp_path, num_files=2)
    limit = 20_000
    if where == "columns":
        make_parts(
            sorted((tmp_path / "logs").iterdir()), tmp_path / "out.partial/parts", Processes(1)
        )
    process = start_ingest(tmp_path, file_limit=limit)
    _, error = process.communicate()
    assert process.returncode == 1, error
    assert "No room left to write" in error
    assert "run the same command again" in error
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial/dataset.json").exists()
    assert len(finished_parts(tmp_path)) == (2 if where == "columns" else 0)
    process = start_ingest(tmp_path)
    assert process.wait() == 0
    process.communicate()
    undisturbed = run(tmp_path, tmp_path / "logs", out="undisturbed")
    assert contents(tmp_path / "out") == contents(undisturbed.folder)


def test_json_says_no_paths_of_the_staging_folder(tmp_path):
    dataset = run(tmp_path, write_csv(make_log(5), tmp_path / "log.csv"))
    assert ".partial" not in json.dumps(dataset.about)
