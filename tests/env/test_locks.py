"""Locks hold between processes, name their holder, and leave nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from musicbox_env.cache import CACHE_VARIABLE
from musicbox_env.locks import InUseError, held, lock_file

CHILD = """
import sys, time
from musicbox_env.locks import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def listen_to_interrupts() -> None:
    """Undo that a shell lets what it runs in the background ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def hold(path: Path, seconds: float = 60) -> subprocess.Popen[str]:
    """A process that holds a lock, once it does."""
    arguments = [sys.executable, "-c", CHILD, str(path), str(seconds)]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=listen_to_interrupts,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGKILL) -> None:
    os.kill(process.pid, how)
    process.communicate()


def test_the_second_is_told_by_whom_the_lock_is_held(tmp_path):
    process = hold(tmp_path / "run")
    try:
        with pytest.raises(InUseError) as error, held(tmp_path / "run"):
            pass
    finally:
        end(process)
    message = str(error.value)
    for part in (tmp_path / "run", process.pid, socket.gethostname(), "since 20", "-c"):
        assert str(part) in message


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_lock_is_free_when_its_process_has_ended(tmp_path, how):
    end(hold(tmp_path / "run"), how)
    with held(tmp_path / "run"):
        assert [file.name for file in tmp_path.iterdir()] == [".run.lock"]
    assert not list(tmp_path.iterdir())


def test_who_waits_says_for_whom_and_goes_on(tmp_path, capfd):
    process = hold(tmp_path / "run", seconds=2)
    began = time.monotonic()
    with held(tmp_path / "run", wait=True):
        assert time.monotonic() - began > 0.5
    process.communicate()
    told = capfd.readouterr().err
    assert f"Waiting for {tmp_path / 'run'}" in told
    assert f"process {process.pid} on" in told


def test_a_path_by_another_name_is_the_same(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    process = hold(tmp_path / "run")
    try:
        with pytest.raises(InUseError), held(tmp_path / "link"):
            pass
    finally:
        end(process)


def test_one_at_a_time_though_lock_files_are_removed(tmp_path):
    """Threads that take a lock in turns: never two at once."""
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with held(tmp_path / "x", wait=True):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.001)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_the_lock_lies_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    lock_file(tmp_path / "run").mkdir()  # root may write anywhere, but opens no folder as a file
    with held(tmp_path / "run"):
        assert len(list((tmp_path / "cache/locks").iterdir())) == 1
        with pytest.raises(InUseError), held(tmp_path / "run"):
            pass
    assert not list((tmp_path / "cache/locks").iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="makes files in /proc")
@pytest.mark.parametrize("path", ["/proc/run", "/proc/self/run"])
@pytest.mark.parametrize("wait", [False, True])
def test_where_no_lock_can_be_made_nobody_is_said_to_hold_it(path, wait, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICBOX_CACHE", str(tmp_path))
    with held(path, wait=wait):
        assert list((tmp_path / "locks").iterdir())
        with pytest.raises(InUseError), held(path):
            pass
