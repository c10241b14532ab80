"""Jobs that are stopped at random moments, or begun twice: they end as if nothing had happened.

Every job runs as a command in a session of its own, so that whatever it leaves running is seen. A
job that was stopped is given again until it is done, and must then leave the very bytes of a job
that was not stopped, `TIMING` aside.
"""

import random
import signal
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from jobs import PATIENCE, Sources, Workplace

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = {"first use": 3, "ingest": 2, "train": 1, "compare": 1}
"""How often each is stopped by each signal, before it is left alone."""


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
def test_a_stopped_job_goes_on_to_the_same_bytes(job, how, sources, tmp_path, undisturbed, cases):
    stop_and_go_on(job, how, KILLS[job], sources, tmp_path, undisturbed)
    cases(f"killed: {job}", KILLS[job], KILLS[job])


@pytest.mark.slow
@pytest.mark.parametrize("job", ["ingest", "compare"])
def test_the_second_of_two_jobs_in_one_folder_is_refused(job, sources, tmp_path, undisturbed):
    refuse_the_second(job, sources, tmp_path, undisturbed)


def test_first_use_killed_and_then_two_at_once(sources, tmp_path, first_use):
    """The sample that always runs; one of the two makes the dataset, and the other waits."""
    place = Workplace(tmp_path / "place", sources, "first use")
    killed = place.start()
    while not [*(place.folder / "cache").glob("synthetic-*.partial/**/*.npy")]:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.001)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    processes = [place.start(), place.start()]
    names = {process.communicate(timeout=PATIENCE)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(names) == 1
    assert place.bytes() == first_use
    assert [file.name for file in (place.folder / "cache").iterdir()] == [min(names).strip()]
