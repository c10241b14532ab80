"""Load on `musicbox serve`: requests a second, latency and memory, beside a constant answer.

    python tests/serve_load.py /tmp/load --tracks 5000 200000 --clients 1 16 64

Client and servers share the machine. Server and constant answer take turns, a second each, so that
what else the machine does befalls both. Processor time of the server for a request hardly depends
on that: its inverse is what a core of one's own answers in a second.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from musicbox_agents import make_agent
from musicbox_experiments.benchmark.worlds import random_dataset
from musicbox_experiments.serve.engine import Engine, ServedAgent
from musicbox_experiments.serve.loading import warm_up
from musicbox_experiments.serve.recommend import context_of
from musicbox_experiments.serve.recommender import AT_ONCE, LiveSession
from musicbox_experiments.serve.serve import bound
from musicbox_experiments.serve.service.app import create_app
from musicbox_experiments.serve.service.look import Looker
from musicbox_experiments.serve.service.workers import Supervisor
from musicbox_experiments.train.jobs import TrainingJob

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import write_json

PLAYS_A_SESSION = 15
HEARD = 10
HISTORIES = 500


class Constant(ServedAgent):
    """Answers with the first songs of the catalog, whoever listens."""

    def add_slates(self, asked):
        for one in asked:
            one.found, one.over = [(row, 0.0) for row in range(one.number)], True


def made_run(folder: Path, tracks: int) -> Path:
    """A run on random plays of so many tracks, whose ddpg has learned how good songs are."""
    run = folder / f"run-{tracks}"
    if not run.exists():
        sessions = max(20_000, tracks // PLAYS_A_SESSION + 1)
        data = random_dataset(folder / f"data-{tracks}", sessions, tracks)
        options = {"data": str(data), "listener": "replay", "candidates": "catalog"}
        agent = make_agent("ddpg", Dataset(data), settings={"warmup_updates": 10})
        agent.learn(options, 64)
        training = run / "agents" / "ddpg" / "seed-0"
        agent.save(training / "best")
        job = TrainingJob("ddpg", 0, {}, {**options, "listener": "replay"}, 1, "seed-0")
        write_json(training / "training.json", asdict(job))
    return run


def serve(run: Path, constant: bool, workers: int, listening) -> None:
    """Serve a run, or the constant answer of the same server, until terminated."""

    def load():
        engine = Engine.open(run)
        looker = Looker(engine, "replay")
        warm_up(engine, looker)
        if constant:
            (agent,) = engine.agents.values()
            agent.__class__ = Constant
        return create_app(engine, looker)

    def stop(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    Supervisor(listening, load, lambda: None, workers, started=lambda: None).run()


class Server:
    """A served run, while the block lasts."""

    def __init__(self, run: Path, *, constant: bool, workers: int) -> None:
        self._listening = bound("127.0.0.1", 0)
        self.port = self._listening.getsockname()[1]
        arguments = run, constant, workers, self._listening
        self._process = multiprocessing.get_context("fork").Process(target=serve, args=arguments)

    def __enter__(self):
        self._process.start()
        self._listening.close()
        asyncio.run(answered(self.port))
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.join()

    def processes(self) -> list[int]:
        """The supervisor and its workers."""
        pid = self._process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, listed)]

    def memory(self) -> float:
        """Bytes of supervisor and workers, what they share counted once."""
        return sum(map(proportional, self.processes()))

    def busy(self) -> float:
        """Seconds of processor time so far."""
        return sum(map(processor_seconds, self.processes()))


def proportional(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (size,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(size) * 1024


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(tracks: int) -> list[bytes]:
    """Requests of listeners with different histories, as bytes."""
    rng = np.random.default_rng(0)
    sent = []
    for _ in range(HISTORIES):
        heard = [
            {"song": f"t{row}", "level": int(level)}
            for row, level in zip(
                rng.integers(0, tracks, HEARD), rng.integers(0, 5, HEARD), strict=True
            )
        ]
        body = json.dumps({"heard": heard, "k": 3}).encode()
        head = (
            "POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        sent.append(head.encode() + body)
    return sent


async def ask(reader, writer, request: bytes) -> bytes:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head + body)
    return body


async def answered(port: int) -> None:
    """Wait until the service answers."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await ask(reader, writer, b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.2)


async def load(port: int, clients: int, seconds: float, sent: list[bytes]) -> np.ndarray:
    """Seconds that each request took, of so many clients that each ask without a pause."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begun := time.perf_counter()) < until:
            await ask(reader, writer, sent[(number + len(took)) % len(sent)])
            took.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(one(number) for number in range(clients)))
    return np.array(took)


def bare(run: Path, size: int, seconds: float) -> float:
    """Listeners a second of processor time, without a server, in batches of a size."""
    engine = Engine.open(run)
    rng, agent = np.random.default_rng(0), engine.agents["ddpg"]
    sessions = [
        LiveSession(
            rng.integers(0, len(engine.songs), HEARD),
            rng.integers(0, 5, HEARD).astype(np.int8),
            context_of(),
        )
        for _ in range(size)
    ]
    agent.slates(sessions)
    number, begun = 0, time.process_time()
    while time.process_time() < begun + seconds:
        agent.slates(sessions)
        number += size
    return number / (time.process_time() - begun)


class Tally:
    """What some rounds of load on a server came to."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.took: list[np.ndarray] = []
        self.busy = 0.0

    def add(self, server: Server, clients: int, seconds: float, sent: list[bytes]) -> None:
        busy = server.busy()
        took = asyncio.run(load(server.port, clients, seconds, sent))
        self.busy += server.busy() - busy
        self.rates.append(len(took) / seconds)
        self.took.append(took)

    @property
    def rate(self) -> float:
        """Requests a second, in the median round."""
        return float(np.median(self.rates))

    @property
    def of_core(self) -> float:
        """Requests a second of processor time."""
        return sum(map(len, self.took)) / max(self.busy, 0.01)

    def show(self, name: str) -> None:
        p50, p99 = 1_000 * np.quantile(np.concatenate(self.took), [0.5, 0.99])
        print(
            f"{name:<22} {self.rate:6.0f} requests/s, {self.of_core:6.0f} a processor second, "
            f"p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, p99/p50 {p99 / p50:4.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tracks", type=int, nargs="+", default=[5_000, 200_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0, help="and memory over so long")
    options = parser.parse_args()
    for tracks in options.tracks:
        run = made_run(options.folder, tracks)
        print(f"\n{tracks:,} tracks, {options.workers} workers, {os.cpu_count()} cores")
        measure(run, tracks, options)


def measure(run: Path, tracks: int, options: argparse.Namespace) -> None:
    for size in (1, AT_ONCE):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rate = pool.apply(bare, (run, size, options.seconds))
        print(f"bare predict, batches of {size:<2} {rate:8.0f} listeners a processor second")
    sent, workers = requests(tracks), options.workers
    with Server(run, constant=False, workers=workers) as real:
        with Server(run, constant=True, workers=workers) as constant:
            for clients in options.clients:
                tallies = Tally(), Tally()
                for _ in range(options.rounds):
                    for tally, server in zip(tallies, (constant, real), strict=True):
                        tally.add(server, clients, options.seconds, sent)
                for tally, name in zip(tallies, ("constant", "agent"), strict=True):
                    tally.show(f"{name}, {clients} clients")
                same, own = tallies
                ratio, of_core = own.rate / same.rate, own.of_core / same.of_core
                print(f"ratio {ratio:.2f}, of processor time {of_core:.2f}")
        # Only here: what both servers mapped would be counted half.
        print(f"memory, shared parts once {real.memory() / 1e9:17.2f} GB")
        begun = time.monotonic()
        while time.monotonic() - begun < 60 * options.minutes:
            took = asyncio.run(load(real.port, 16, 30.0, sent))
            minute = (time.monotonic() - begun) / 60
            print(
                f"{minute:5.1f} min  {len(took):7} answers  {real.memory() / 1e6:8.1f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
