"""Tasks in this process and in others: results, progress, errors, and what is refused."""

import errno
import os
import sys
import time
from pathlib import Path

import pytest
from musicbox_experiments.cluster.tasks import Task, Where, open_workers, require_address, run_all

from musicbox_env.errors import UserError, writing


def doubled(number, progress):
    progress(number)
    return os.getpid(), 2 * number


def refused(address, progress):
    require_address(address)


def slow(seconds, file, progress):
    time.sleep(seconds)
    file.touch()


def out_of_room(progress):
    raise OSError(errno.ENOSPC, "No space left on device", "out/weights.npz")


def out_of_room_for(file, progress):
    with writing(file):
        raise OSError(errno.ENOSPC, "No space left on device")


class TwoPartsError(Exception):
    """One that pickles, and cannot be read back."""

    def __init__(self, first, second):
        super().__init__(first)


def two_parts(progress):
    raise TwoPartsError("broken", 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_progress_come_back(workers):
    tasks = [Task(f"doubling {number}", doubled, (number,)) for number in range(5)]
    done = []
    found = list(run_all(tasks, Where(workers), done.append, most=5))
    assert {task.name: result for task, (_, result) in found} == {
        f"doubling {number}": 2 * number for number in range(5)
    }
    assert sum(done) == 10
    assert ({pid for _, (pid, _) in found} == {os.getpid()}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_may_follow_from_results(workers):
    results = []
    with open_workers(Where(workers), lambda done: None, most=2) as pool:
        pool.submit(Task("first", doubled, (1,)))
        for _, (_, result) in pool.finished():
            results.append(result)
            if result < 16:
                pool.submit(Task("next", doubled, (result,)))
    assert results == [2, 4, 8, 16]


def test_the_first_error_ends_all_tasks_and_says_its_own_message(tmp_path):
    tasks = [Task("Waiting", slow, (0.5, tmp_path / str(i))) for i in range(20)]
    tasks.insert(1, Task("Going there", refused, ("there",)))
    with pytest.raises(UserError, match=r"^Going there failed: --cluster is 'there'; expected"):
        list(run_all(tasks, Where(2), most=2))
    assert len(list(tmp_path.iterdir())) < 10


@pytest.mark.parametrize("work", [(out_of_room,), (out_of_room_for, Path("out/weights.npz"))])
def test_a_full_disk_is_named_with_how_to_go_on(work):
    with pytest.raises(UserError, match=r"No space left.*out/weights.npz.*run the same command"):
        Task("Writing", work[0], work[1:]).perform(lambda done: None)


def test_an_error_that_cannot_be_read_back_is_no_killed_process():
    tasks = [Task(f"Work {number}", two_parts, ()) for number in range(2)]
    with pytest.raises(RuntimeError, match=r"^Work \d failed: TwoPartsError: broken"):
        list(run_all(tasks, Where(2), most=2))


@pytest.mark.parametrize("address", ["auto", "local", "ray://10.0.0.5:10001", "head:6379", None])
def test_addresses_of_clusters(address):
    assert Where(cluster=address).cluster == address


@pytest.mark.parametrize(
    "address", ["", "head", "ray://head", "http://head:80", "yes", "h:0", "h:71915"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="expected auto, local, HOST:PORT or ray://HOST:PORT"):
        Where(cluster=address)


def test_a_missing_ray_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r'pip install "musicbox-env\[cluster\]"'),
        open_workers(Where(cluster="auto"), lambda done: None, most=1),
    ):
        pass
