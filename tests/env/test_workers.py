"""Workers end with the process that started them, and an interrupt is its own business."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from musicbox_env.workers import worker_pool

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys, time
from musicbox_env.workers import worker_pool

if __name__ == "__main__":
    if sys.argv[1] == "raise":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    with worker_pool(2) as pool:
        pids = [pool.submit(os.getpid) for _ in range(2)]
        pool.submit(time.sleep, 300)
        print(*[pid.result() for pid in pids], flush=True)
        pool.submit(time.sleep, 300).result()
"""


def listen_to_interrupts() -> None:
    """Undo that a shell lets what it runs in the background ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_there(pid: int) -> bool:
    """Whether a process runs: one that ended may wait to be asked for its exit code."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("how", "mode"),
    [
        (signal.SIGKILL, ""),
        (signal.SIGTERM, ""),
        (signal.SIGTERM, "raise"),
        (signal.SIGINT, ""),
    ],
)
def test_no_worker_outlives_its_parent(tmp_path, how, mode):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=listen_to_interrupts,
    )
    assert process.stdout is not None
    workers = {int(pid) for pid in process.stdout.readline().split()}
    assert workers
    assert all(map(is_there, workers))
    os.kill(process.pid, how)
    _, told = process.communicate(timeout=20)
    assert process.returncode == (3 if mode else -how)
    assert told.count("Traceback") == (how == signal.SIGINT)
    until = time.monotonic() + 10
    while any(map(is_there, workers)):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_worker_that_is_killed_is_told():
    with pytest.raises(OSError, match="fewer --workers"), worker_pool(1) as pool:
        pool.submit(os._exit, 1).result()


def test_an_interrupt_passes_workers_by():
    with worker_pool(1) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGINT)
        assert pool.submit(abs, -3).result() == 3


def test_results_and_errors_come_back():
    with worker_pool(2) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
