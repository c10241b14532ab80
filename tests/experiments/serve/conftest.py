"""A run of all agents, untrained, and its service on a port of this machine."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import uvicorn
from musicbox_agents import AGENTS, make_agent
from musicbox_experiments.serve.client import Client
from musicbox_experiments.serve.engine import Engine
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.guard import Guard, Limits
from musicbox_experiments.serve.service.look import Looker
from musicbox_experiments.train.jobs import TrainingJob

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import write_json

TOKEN = "an-unlikely-secret-of-tests"


def _write_training(run: Path, name: str, dataset: Dataset, seed: int = 0) -> None:
    """Write an untrained agent as a finished training of a run."""
    folder = run / "agents" / name / f"seed-{seed}"
    make_agent(name, dataset, seed=seed).save(folder / "best")
    options = {"data": str(dataset.folder), "listener": "ground_truth"}
    job = TrainingJob(name, seed, {}, options, 1, folder.name)
    write_json(folder / "training.json", asdict(job))


@contextmanager
def served(app: Guard) -> Iterator[str]:
    """Serve an application in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False))
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


@pytest.fixture
def write_training():
    return _write_training


@pytest.fixture(scope="session")
def run(tmp_path_factory, synthetic) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "all"
    for name in AGENTS:
        _write_training(folder, name, synthetic)
    return folder


@pytest.fixture(scope="session")
def engine(run) -> Engine:
    return Engine.open(run)


@pytest.fixture(scope="session")
def looker(engine) -> Looker:
    return Looker(engine)


@pytest.fixture(scope="session")
def address(engine, looker) -> Iterator[str]:
    with served(create_app(engine, looker)) as address:
        yield address


@pytest.fixture(scope="session")
def guarded(engine, looker) -> Iterator[str]:
    """The same with a token, checks of the host's name, and short limits."""
    limits = Limits(body=10_000, receiving=0.3)
    app = create_app(engine, looker, token=TOKEN, hosts=("127.0.0.1",), limits=limits)
    with served(app) as address:
        yield address


@pytest.fixture
def client(address) -> Iterator[Client]:
    with Client(address, retries=0) as client:
        yield client
