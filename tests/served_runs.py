"""Runs of untrained agents, and their service: in a thread, or as the command, under load."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from musicbox_agents import make_agent
from musicbox_experiments.serve.client import Client
from musicbox_experiments.serve.service.connections import make_server
from musicbox_experiments.serve.service.guard import Guard
from musicbox_experiments.train.jobs import TrainingJob

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import write_json

TOKEN = "an-unlikely-secret-of-tests"
HEARD = "t_00000003:full,t_00000017:skipped"


def write_training(
    run: Path, name: str, dataset: Dataset, seed: int = 0, listener: str = "ground_truth"
) -> None:
    """Write an untrained agent as a finished training of a run."""
    folder = run / "agents" / name / f"seed-{seed}"
    make_agent(name, dataset, seed=seed).save(folder / "best")
    options = {"data": str(dataset.folder), "listener": listener}
    job = TrainingJob(name, seed, {}, options, 1, folder.name)
    write_json(folder / "training.json", asdict(job))


@contextmanager
def served(app: Guard) -> Iterator[str]:
    """Serve an application in a thread; its address."""
    server = make_server(app, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    (port,) = {sock.getsockname()[1] for each in server.servers for sock in each.sockets}
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def sent(address, method, path, body=None, headers=()):
    """Status, headers and body of a request as it is."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=20)
    given = {"Content-Type": "application/json", **dict(headers)}
    connection.request(method, path, body, given)
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def command(run: Path, *options: str) -> list[str]:
    """What serves a run."""
    return [sys.executable, "-m", "musicbox_experiments", "serve", str(run), *options]


@contextmanager
def serving(folder, *options):
    """The command as a process: its address and itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(folder, "--port", str(port), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    try:
        for line in process.stdout:
            if line.startswith("Serving at"):
                break
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()


def workers(process):
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


@contextmanager
def load(address, clients=8, retries=0):
    """Requests without a pause from several clients; gives their answers and failures."""
    answers, failures, over = [], [], threading.Event()

    def ask():
        with Client(address, retries=retries) as client:
            while not over.is_set():
                try:
                    answers.append(client.ask("POST", "/v1/recommend", {"heard": HEARD}))
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers, failures
    finally:
        over.set()
        for thread in threads:
            thread.join()


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)
