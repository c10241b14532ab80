"""Jobs that are stopped at random moments, or begun twice: they end as if nothing had happened.

Every job runs as a command in a session of its own, so that whatever it leaves running is seen. A
job that was stopped is given again until it is done, and must then leave the very bytes of a job
that was not stopped, `TIMING` aside.
"""

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

ROOT = Path(__file__).parents[2]
TIMING = "timing.json"
"""The only files that may differ: they hold wall times."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 300
SMALL = ["ddpg.warmup_updates=5", "ddpg.num_envs=8", "ddpg.learning_starts=16"]
MUSICBOX = ("-m", "musicbox_experiments")
FIRST_USE = """
from musicbox_env.synthetic import generator
generator.BUNDLED = generator.SyntheticConfig(sessions=100, tracks=120)
print(generator.bundled_dataset().name)
"""
TRAINED = [
    *["--data", "data", "--seeds", "2", "--train-steps", "96"],
    *["--workers", "2", "--out", "out"],
]
COMMANDS = {
    "first use": ["-c", FIRST_USE],
    "ingest": [
        *MUSICBOX,
        *["ingest", "logs", "--tracks", "tracks.csv", "--workers", "2", "--out", "out"],
    ],
    "train": [*MUSICBOX, "train", *TRAINED, "--agent-settings", *SMALL],
    "compare": [
        *[*MUSICBOX, "compare", *TRAINED, "--evaluation-sessions", "20"],
        *["--agents", "logged", "popularity", "ddpg", "--agent-settings", *SMALL],
    ],
}
"""What each job is, run in a folder that holds `data`, `logs` and `tracks.csv`."""
KILLS = {"first use": 3, "ingest": 2, "train": 1, "compare": 1}
"""How often each is stopped by each signal, before it is left alone."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives the folder that jobs read from, made when it is first asked for."""
    return cache(lambda: make_sources(tmp_path_factory.mktemp("sources")))


def make_sources(folder: Path) -> Path:
    """Write a small dataset, and the same as logs in four files."""
    made = ["synthesize", "--sessions", "400", "--tracks", "150", "--out", "data", "--raw", "raw"]
    subprocess.run([sys.executable, *MUSICBOX, *made], cwd=folder, env=environment(), check=True)
    (folder / "logs").mkdir()
    with gzip.open(folder / "raw/sessions.csv.gz", "rt") as file:
        head, *rows = file
    first = [i for i, row in enumerate(rows) if row.split(",")[1] == "1"]
    ends = [*(first[len(first) * part // 4] for part in range(4)), len(rows)]
    for part in range(4):
        of_part = rows[ends[part] : ends[part + 1]]
        (folder / f"logs/{part}.csv").write_text("".join([head, *of_part]))
    (folder / "raw/tracks.csv").rename(folder / "tracks.csv")
    return folder


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "agents", ROOT / "experiments")))
    return {**os.environ, "PYTHONPATH": paths, "MUSICBOX_CACHE": "cache", **more}


Sources = Callable[[], Path]


class Workplace:
    """A folder in which a job is run, stopped and run again."""

    def __init__(self, folder: Path, sources: Sources, job: str) -> None:
        folder.mkdir()
        if job != "first use":
            for name in ("data", "logs", "tracks.csv"):
                (folder / name).symlink_to(sources() / name)
        self.folder, self.arguments = folder, COMMANDS[job]

    def start(self, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *self.arguments],
            cwd=self.folder,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_interrupts,
        )

    def run(self, **more: str) -> None:
        """Let the job end; where it says that it is done already, it is."""
        process = self.start(**more)
        _, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 or "exists already" in told, told
        wait_for_silence(process.pid)

    def stop_after(self, seconds: float, how: signal.Signals) -> None:
        process = self.start()
        time.sleep(seconds)
        process.send_signal(how)
        _, told = process.communicate(timeout=PATIENCE)
        wait_for_silence(process.pid)
        if process.returncode == 0 or "exists already" in told:
            return
        if how == signal.SIGKILL or "-m" not in self.arguments:
            assert process.returncode in (-how, 1), told
        else:  # before the command can listen to signals, Python ends by itself
            assert process.returncode in (128 + how, -how, 1), told
            if process.returncode == 128 + how:
                assert "Traceback" not in told
                assert told.rstrip().endswith(": stopped.")

    def bytes(self) -> dict[str, bytes]:
        """Every file that the job left, but for times and locks that nobody holds."""
        return {
            str(file.relative_to(self.folder)): file.read_bytes()
            for top in ("out", "cache")
            for file in sorted((self.folder / top).rglob("*"))
            if file.is_file() and file.name != TIMING and not is_lock(file)
        }


def listen_to_interrupts() -> None:
    """Undo that a shell lets what it runs in the background ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_lock(file: Path) -> bool:
    return file.name.startswith(".") and file.suffix == ".lock"


def wait_for_silence(session: int) -> None:
    """Wait until no process of a session is left; fail where one stays."""
    until = time.monotonic() + 15
    while left := processes_of(session):
        assert time.monotonic() < until, f"still running: {left}"
        time.sleep(0.02)


def processes_of(session: int) -> list[str]:
    """Command lines of the running processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " ")[:200])
        except OSError:
            continue  # it has just ended
    return found


@pytest.fixture(scope="module")
def undisturbed(
    sources: Sources, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, tuple[float, dict[str, bytes]]]:
    """Of each job, made when it is first asked for: seconds that it takes, and what it leaves."""

    class Runs(dict[str, tuple[float, dict[str, bytes]]]):
        def __missing__(self, job: str) -> tuple[float, dict[str, bytes]]:
            place = Workplace(tmp_path_factory.mktemp("whole") / "place", sources, job)
            began = time.monotonic()
            place.run(PYTHONHASHSEED="1")
            self[job] = time.monotonic() - began, place.bytes()
            return self[job]

    return Runs()


def stop_and_go_on(
    job: str, how: signal.Signals, kills: int, sources: Sources, folder: Path, undisturbed: Mapping
) -> None:
    seconds, expected = undisturbed[job]
    assert len(expected) > 3
    place, moments = Workplace(folder / "place", sources, job), random.Random(f"{job} {how}")
    for _ in range(kills):
        place.stop_after(moments.uniform(0.15, 1.0) * seconds, how)
    place.run(PYTHONHASHSEED="2")
    found = place.bytes()
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def refuse_the_second(job: str, sources: Sources, folder: Path, undisturbed: Mapping) -> None:
    """While one is at work, a second is told by whom and leaves the first alone."""
    place = Workplace(folder / "place", sources, job)
    first = place.start()
    lock = place.folder / ".out.lock"
    while not lock.exists() or not lock.read_text():
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    second = place.start()
    _, told = second.communicate(timeout=PATIENCE)
    assert second.returncode == 2, told
    assert f"process {first.pid} on" in told
    assert f"{job} " in told.partition("in use by")[2]
    _, told = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, told
    assert place.bytes() == undisturbed[job][1]
    assert not [file for file in place.folder.rglob(".*.lock")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "how"),
    [("train", signal.SIGKILL), *product(("first use", "ingest", "compare"), SIGNALS)],
)
def test_a_stopped_job_goes_on_to_the_same_bytes(job, how, sources, tmp_path, undisturbed):
    stop_and_go_on(job, how, KILLS[job], sources, tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["ingest", "compare"])
def test_the_second_of_two_jobs_in_one_folder_is_refused(job, sources, tmp_path, undisturbed):
    refuse_the_second(job, sources, tmp_path, undisturbed)


def test_first_use_killed_and_then_two_at_once(sources, tmp_path, undisturbed):
    """The sample that always runs; one of the two makes the dataset, and the other waits."""
    seconds, expected = undisturbed["first use"]
    place = Workplace(tmp_path / "place", sources, "first use")
    place.stop_after(random.Random(0).uniform(0.5, 0.9) * seconds, signal.SIGKILL)
    processes = [place.start(), place.start()]
    names = {process.communicate(timeout=PATIENCE)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(names) == 1
    assert place.bytes() == expected
    assert [file.name for file in (place.folder / "cache").iterdir()] == [min(names).strip()]
