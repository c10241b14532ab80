"""Applications that were replaced are forgotten, and their workers' counts are not."""

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from http.client import HTTPConnection
from itertools import count

import pytest
from musicbox_agents import load_agent
from musicbox_experiments.serve import engine as engines
from musicbox_experiments.serve.client import Client
from musicbox_experiments.serve.loading import Loader
from musicbox_experiments.serve.serve import ServeConfig, state_of_run
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.look import Looker
from musicbox_experiments.serve.service.metrics import SHARED
from served_runs import HEARD, served, serving, wait_until, workers, write_training


def test_an_application_that_is_replaced_leaves_nothing(engine):
    looker = Looker(engine)
    forgotten, app = weakref.ref(looker), create_app(engine, looker)
    with served(app) as address, Client(address) as client:
        assert client.recommend(HEARD)["songs"]
    del app, looker
    gc.collect()
    assert forgotten() is None


REPLACED = """
import socket, weakref
from musicbox_experiments.serve.service.guard import Guard, Limits
from musicbox_experiments.serve.service.metrics import Metrics
from musicbox_experiments.serve.service.workers import Supervisor

alive = weakref.WeakSet()

def load():
    print(len(alive), flush=True)
    guard = Guard(None, Metrics(), limits=Limits(), token=None, hosts=None)
    guard.app = guard  # a cycle, as real applications have
    alive.add(guard)
    return guard

with socket.create_server(("127.0.0.1", 0)) as listening:
    Supervisor(listening, load, int, 1, started=int).run()
"""


def test_a_supervisor_forgets_applications_that_it_replaced():
    """What was frozen for the fork of a worker is collected before the next one."""
    program = [sys.executable, "-c", REPLACED]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        alive = [int(process.stdout.readline())]
        for _ in range(4):
            process.send_signal(signal.SIGHUP)
            alive.append(int(next(line for line in process.stdout if line[0].isdigit())))
        process.terminate()
    assert alive == [0, 1, 1, 1, 1]


def test_workers_are_replaced_where_the_end_of_children_is_ignored():
    """As by a shell or a manager of processes that began the service."""
    ignoring = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    program = [sys.executable, "-c", ignoring + REPLACED]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        wait_until(lambda: workers(process))
        (killed,) = workers(process)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: {*workers(process)} - {killed})
        process.terminate()


def test_counts_are_read_beside_a_file_that_is_just_made_and_go_on(tmp_path):
    program = """
import os, sys
from pathlib import Path
from musicbox_experiments.serve.service.metrics import Metrics, count_as

metrics = Metrics()
for worker in range(5):
    if not os.fork():
        count_as(1)  # each is the one worker that lives
        metrics.requests.labels("/v1/recommend", 200).inc()
        os._exit(0)
    os.wait()
Path(sys.argv[1], "counter_9.db").touch()
print(metrics.page().decode())
"""
    env = {**os.environ, SHARED: str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=env, capture_output=True, text=True
    )
    assert 'musicbox_requests_total{route="/v1/recommend",status="200"} 5.0' in done.stdout
    assert {file.name for file in tmp_path.glob("counter_*")} == {
        f"counter_{place}.db" for place in (0, 1, 9)
    }


@pytest.mark.parametrize("room", [2, 3], ids=["no room", "room for a half"])
def test_a_worker_without_room_for_its_counts_answers_all_the_same(room, tmp_path):
    """On a full disk, to which no map may write what has no room there (SIGBUS)."""
    program = """
import errno, os, sys
from pathlib import Path
from musicbox_experiments.serve.service.metrics import Metrics, count_as

write, left = Path.write_bytes, [int(sys.argv[1])]

def write_until_full(file, data):
    write(file, data if left[0] else data[:9])
    if not left[0]:
        raise OSError(errno.ENOSPC, "No space left on device")
    left[0] -= 1

Path.write_bytes = write_until_full
metrics = Metrics()
for worker in (1, 2):
    if not os.fork():
        count_as(worker)
        metrics.requests.labels("/v1/recommend", 200).inc()
        metrics.batches.observe(1)
        os._exit(0)
    assert os.wait()[1] == 0
assert b"musicbox_requests_total" in metrics.page()
"""
    env = {**os.environ, SHARED: str(tmp_path)}
    words = [sys.executable, "-c", program, str(room)]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("No space left")) == (0, 2), done.stderr
    assert {file.stat().st_size for file in tmp_path.glob("*.db")} == {1 << 20}


@pytest.mark.slow
def test_live_connections_end_with_an_answer(run):
    """SIGTERM resets no connection, whose client may just be sending."""
    last, all_answered = [], threading.Barrier(9)

    def ask(address):
        connection = HTTPConnection(address.removeprefix("http://"), timeout=30)
        for number in count():
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            response.read()
            if not number:
                all_answered.wait()
            if response.getheader("connection") == "close":
                last.append(response.status)
                return

    with serving(run, "--agents", "popularity") as (address, process):
        threads = [threading.Thread(target=ask, args=(address,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        all_answered.wait()
        process.terminate()
        for thread in threads:
            thread.join()
        assert process.wait(timeout=60) == 0
    assert last == [200] * 8


LABELS = ("best-rate", "played-rate", "popularity")


def moved(link, target):
    """Move a link as `ln -s TARGET next && mv -T next LINK` does."""
    (link.parent / "next").symlink_to(target)
    (link.parent / "next").rename(link)


@pytest.mark.parametrize("opened_before", range(len(LABELS)))
def test_a_link_that_moves_while_its_run_is_opened(opened_before, synthetic, tmp_path, monkeypatch):
    """All agents are of one run, of that name: the one that the supervisor saw and goes by."""
    for seed, run in enumerate(("old", "new")):
        for label in LABELS:
            write_training(tmp_path / run, label, synthetic, seed)
    current, loaded = tmp_path / "current", []
    current.symlink_to("old")

    def load_and_move(folder, dataset):
        if len(loaded) == opened_before:
            moved(current, "new")
        loaded.append(folder)
        return load_agent(folder, dataset)

    monkeypatch.setattr(engines, "load_agent", load_and_move)
    seen = state_of_run(current)
    app = Loader(ServeConfig(current), None)()
    engine = app.app.state.service.engine
    assert (engine.run, {agent.seed for agent in engine.agents.values()}) == ("old", {0})
    assert state_of_run(current) != seen  # so that the supervisor opens the other one, too
    engine = Loader(ServeConfig(current), None)().app.state.service.engine
    assert (engine.run, {agent.seed for agent in engine.agents.values()}) == ("new", {1})
