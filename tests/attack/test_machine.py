"""The machine fails: full disks, folders that can only be read, killed workers, much use."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from jobs import COMMANDS, PATIENCE, Workplace, environment, files_left

PLAYING = str(Path(__file__).with_name("playing.py"))
COMPLETE = {
    "first use": "cache/synthetic-????????????/dataset.json",
    "ingest": "out/dataset.json",
    "train": "out/agents/ddpg/seed-1/training.json",
    "compare": "out/report.html",
}
"""A file that only a job that is done leaves."""
MOST_GROWTH = 8 << 20
ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$1" none . && cd "$PWD" || exit 99
ln -s "$2"/data "$2"/logs "$2"/tracks.csv .
kept="$3"; shift 3
"$@" 2>"$kept/told"; echo $? >"$kept/code"
find . -type f >"$kept/left"
mount -o remount,size=1g . || exit 99
"$@" 2>"$kept/told again" || exit 98
cp -R out cache "$kept" 2>"$kept/not there"
true
"""
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; shift; exec "$@"'


def may_mount() -> bool:
    """Whether this process may mount file systems that no other one sees."""
    if shutil.which("unshare") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="only root may mount a file system")


# A full disk


def require_clean(code: int, told: str, job: str) -> None:
    """A sentence with the file or folder; a job that is no command raises an error with it."""
    assert code == (1 if job == "first use" else 2), told
    last = told.rstrip().splitlines()[-1] if job == "first use" else told
    assert job == "first use" or "Traceback" not in told, told
    assert job != "first use" or "MUSICBOX_CACHE" in last, told
    assert re.search(r"No space left|File too large|No room left", last), told
    assert re.search(r"synthetic-|out\b", last), told


def write_no_larger_than(size: int):
    """Limit files in a child that is about to begin; the limit holds for its workers too."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def fill_by_limit(job, share, sources, folder, undisturbed) -> None:
    """No file may be as large as the largest that the job leaves; then any may."""
    _, expected = undisturbed[job]
    place = Workplace(folder / "place", sources, job)
    size = int(share * max(map(len, expected.values())))
    done = subprocess.run(
        [sys.executable, *place.arguments],
        cwd=place.folder,
        env=environment(),
        preexec_fn=write_no_larger_than(size),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    require_clean(done.returncode, done.stderr, job)
    assert not list(place.folder.glob(COMPLETE[job]))
    place.run()
    require_same(place.bytes(), expected, job)


def fill_a_disk(job, share, sources, folder, undisturbed) -> None:
    """A disk with room for a share of what the job leaves; then with room for all."""
    _, expected = undisturbed[job]
    blocks = sum(-(-len(content) // 4096) for content in expected.values())
    place, kept = Workplace(folder / "place", lambda: None, "first use"), folder / "kept"
    kept.mkdir()
    size, command = str(int(share * blocks) * 4096), [sys.executable, *COMMANDS[job]]
    in_it = ["unshare", "-m", "sh", "-c", ON_A_SMALL_DISK, "sh"]
    done = subprocess.run(
        [*in_it, size, str(sources()), str(kept), *command],
        cwd=place.folder,
        env=environment(),
        timeout=2 * PATIENCE,
        check=False,
    )
    told = (kept / "told").read_text()
    assert done.returncode == 0, (told, (kept / "told again").read_text())
    require_clean(int((kept / "code").read_text()), told, job)
    left = [Path(file) for file in (kept / "left").read_text().splitlines()]
    assert not [file for file in left if file.match(COMPLETE[job])]
    require_same(files_left(kept), expected, job)


def require_same(found, expected, job) -> None:
    assert [name for name in expected if Path(name).match(COMPLETE[job])]
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_full_disk_at_first_use(sources, tmp_path, first_use):
    """The sample that always runs."""
    fill_by_limit("first use", 0.5, sources, tmp_path, {"first use": (0.0, first_use)})


@pytest.mark.slow
@pytest.mark.parametrize("job", ["ingest", "train", "compare"])
def test_a_limit_of_files(job, sources, tmp_path, undisturbed):
    fill_by_limit(job, 0.6, sources, tmp_path, undisturbed)


@needs_mounts
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("job", COMMANDS)
def test_a_full_disk(job, share, sources, tmp_path, undisturbed):
    fill_a_disk(job, share, sources, tmp_path, undisturbed)


# Folders that can only be read


@needs_mounts
@pytest.mark.slow
@pytest.mark.parametrize("which", ["cache", "home", "numba", "data/spaces", "data/parts", "data"])
def test_folders_that_can_only_be_read(which, synthetic_folder, tmp_path):
    """What is played is the same, whatever cannot be kept."""
    for name in ("cache", "home", "numba"):
        (tmp_path / name).mkdir()
    shutil.copytree(synthetic_folder, tmp_path / "data", ignore=shutil.ignore_patterns("spaces"))
    for name in ("spaces", "parts"):
        (tmp_path / "data" / name).mkdir()
    folders = {"MUSICBOX_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    if which == "numba":
        folders["NUMBA_CACHE_DIR"] = str(tmp_path / "numba")
    command = [sys.executable, PLAYING, str(tmp_path / "data"), "alone"]
    mounted = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(tmp_path / which)]
    assert run([*mounted, *command], **folders) == run(command)
    assert not [file for file in (tmp_path / which).rglob("*.tmp")]


@needs_mounts
def test_a_cache_that_can_only_be_read_is_named_at_first_use(tmp_path):
    mounted = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(tmp_path)]
    command = [*mounted, sys.executable, *COMMANDS["first use"]]
    told = failure(command, MUSICBOX_CACHE=str(tmp_path))
    said = rf"Read-only file system \(.*MUSICBOX_CACHE.*'{tmp_path}"
    assert re.search(said, told.splitlines()[-1])


# Workers, threads, much use


def run(command, **more):
    with tempfile.TemporaryDirectory() as own:
        folders = environment(**{"MUSICBOX_CACHE": own, **more})
        done = subprocess.run(
            command, env=folders, capture_output=True, text=True, timeout=900, check=False
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failure(command, **more):
    done = subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.rstrip()


def playing(*arguments):
    return run([sys.executable, PLAYING, *map(str, arguments)])


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_the_death_of_a_worker_is_an_exception(context, synthetic_folder):
    """Gymnasium's vector environment over ours: neither side waits for ever."""
    found = playing(synthetic_folder, "death", context)
    assert found in ("EOFError", "BrokenPipeError", "ConnectionResetError")


@pytest.mark.parametrize(
    "hows", [("fork", "threads"), pytest.param(("spawn",), marks=pytest.mark.slow)]
)
def test_processes_and_threads_play_the_same(hows, synthetic_folder):
    expected, *found = playing(synthetic_folder, "alone", *hows)
    assert len(set(map(tuple, expected))) == len(expected) > 1
    assert found == [expected] * len(hows)


@pytest.mark.slow
@pytest.mark.parametrize(("context", "workers"), [("fork", 24), ("spawn", 8)])
def test_many_workers_play_as_one_process(context, workers, synthetic_folder):
    played = playing(synthetic_folder, "workers", context, workers)
    assert played == playing(synthetic_folder, "workers", "none", workers)


@pytest.mark.slow
def test_two_processes_that_use_an_empty_cache_at_once(synthetic_folder, tmp_path):
    """Machine code, verdicts and spaces are made by both; what is played is the same."""
    shutil.copytree(synthetic_folder, tmp_path / "data", ignore=shutil.ignore_patterns("spaces"))
    folders = {"MUSICBOX_CACHE": str(tmp_path / "a"), "NUMBA_CACHE_DIR": str(tmp_path / "b")}
    command = [sys.executable, PLAYING, str(tmp_path / "data"), "alone"]
    both = [
        subprocess.Popen(
            command, env=environment(**folders), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=900) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert {json.dumps(json.loads(out)) for out, _ in said} == {json.dumps(run(command))}
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("steps", [3_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_memory_is_flat(steps, synthetic_folder):
    assert playing(synthetic_folder, "growth", steps) < MOST_GROWTH
