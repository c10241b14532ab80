"""Runs of untrained agents, and applications served in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import uvicorn
from musicbox_agents import make_agent
from musicbox_experiments.serve.service.guard import Guard
from musicbox_experiments.train.jobs import TrainingJob

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import write_json

TOKEN = "an-unlikely-secret-of-tests"


def write_training(run: Path, name: str, dataset: Dataset, seed: int = 0) -> None:
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
