"""Jobs as commands: what each is, a folder to run it in, and the bytes that it leaves."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from musicbox_env.data.verdicts import CHECKED

ROOT = Path(__file__).parents[2]
TIMING = "timing.json"
"""The only files that may differ: they hold wall times."""
PATIENCE = 300
SMALL = ["ddpg.warmup_updates=5", "ddpg.num_envs=8", "ddpg.learning_starts=16"]
MUSICBOX = ("-m", "musicbox_experiments")
SMALL_BUNDLE = {"sessions": 100, "tracks": 120}
FIRST_USE = f"""
from musicbox_env.synthetic import generator
generator.BUNDLED = generator.SyntheticConfig(**{SMALL_BUNDLE})
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
        """Every file that the job left; see `files_left`."""
        return files_left(self.folder)


def listen_to_interrupts() -> None:
    """Undo that a shell lets what it runs in the background ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def files_left(folder: Path) -> dict[str, bytes]:
    """Files in ``out`` and ``cache``, but for times, locks that nobody holds, and verdicts.

    Verdicts are named after the inodes of the files that they are of.
    """
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for top in ("out", "cache")
        for file in sorted((folder / top).rglob("*"))
        if file.is_file()
        and not (file.name == TIMING or is_lock(file) or file.parent.name == CHECKED)
    }


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
