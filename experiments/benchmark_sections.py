"""What `musicbox benchmark` measures: one function a section, each giving records and points."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

import musicbox_env
from experiments.benchmark_measure import (
    MEBIBYTE,
    Point,
    Record,
    against_limit,
    compare,
    processor_seconds,
    skipped,
    speed,
    summed_up,
)
from experiments.benchmark_worlds import grown, random_dataset, unit_rows
from musicbox_env.approximate import ApproximateIndex, installed
from musicbox_env.retrieval import top_k
from musicbox_env.simulator import open_dataset
from musicbox_env.synthetic import SyntheticConfig, bundled_dataset, write_raw

SESSIONS_AT_ONCE = 1_024
TRAINING_STEPS = 600
FLAT = 0.67
"""A cost counts as flat if a hundred times the size makes it at most half as large again."""
PEER_SCRIPT = Path(__file__).with_name("benchmark_peers.py")
VECTOR_BARS = {"replay": 0.15, "ground_truth": 0.10, "learned": 0.05}


@dataclass(frozen=True)
class Setting:
    """What all sections are told.

    Attributes:
        runs: Turns of each comparison.
        full: Whether the largest sizes are measured too.
        peers: Python of an environment that holds the peers, or None.
        worlds: Folder for datasets made to measure on; kept between runs.
        say: Called with what is being measured.
    """

    runs: int
    full: bool
    peers: Path | None
    worlds: Path
    say: Callable[[str], None]

    def peer(self, name: str, *arguments: object) -> Callable[[], float] | str:
        """Give the function that measures a peer, or say why it cannot be."""
        if self.peers is None:
            return "peers are not measured; pass --peers PYTHON, see --help"
        command = [str(self.peers), str(PEER_SCRIPT), name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"{name} does not run there ({done.stderr.strip().splitlines()[-1]})"

        def measure() -> float:
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            return float(json.loads(output.splitlines()[-1])["speed"])

        return measure


@dataclass
class Found:
    """What a section found."""

    records: list[Record]
    points: list[Point]


def environment(setting: Setting) -> Found:
    """Steps a second of vector and single environments, and what they cost at other sizes."""
    found = Found([], [])
    data = str(bundled_dataset())
    for listener, bar in VECTOR_BARS.items():
        setting.say(f"vector environment, {listener} listener")
        found.records.append(
            compare(
                "environment",
                f"vector of {SESSIONS_AT_ONCE:,}, {listener}, over CartPoleVectorEnv",
                "steps/s",
                partial(vector_speed, data, listener),
                cartpole_speed,
                runs=setting.runs,
                bar=bar,
                note="slate actions, ids observations; each step of ours is three songs",
            )
        )
    setting.say("single environment")
    sardine = setting.peer("sardine", "sardine/SlateTopK-Bored-v0")
    name = "single environment, replay, over sardine-rec"
    if isinstance(sardine, str):
        found.records.append(skipped("environment", name, sardine))
    else:
        ours = partial(single_speed, data)
        found.records.append(
            compare("environment", name, "steps/s", ours, sardine, runs=setting.runs, bar=2.0)
        )
    tracks = (1_000, 100_000, 3_700_000) if setting.full else (1_000, 30_000, 1_000_000)
    growths = {
        "sessions in the log": [(n, 5_000) for n in (1_000, 10_000, 100_000)],
        "tracks, no retrieval": [(10_000, n) for n in tracks],
    }
    for what, worlds in growths.items():
        of_tracks = what.startswith("tracks")
        folders = []
        for sessions, number in worlds:
            setting.say(f"{what}: {number if of_tracks else sessions:,}")
            folder = setting.worlds / f"random-{sessions}-{number}"
            folders.append(str(random_dataset(folder, sessions, number)))
        pairs = []
        for _ in range(setting.runs):
            speeds = [vector_speed(folder, "replay") for folder in folders]
            pairs.append((speeds[-1], speeds[0]))
            for (sessions, number), value in zip(worlds, speeds, strict=True):
                size = number if of_tracks else sessions
                cost = SESSIONS_AT_ONCE / value
                found.points.append(Point(f"step of {SESSIONS_AT_ONCE:,}", what, size, cost))
        largest = worlds[-1][1] if of_tracks else worlds[-1][0]
        name = f"step with {largest:,} over one with 1,000 {what}"
        note = "replay listener; random plays, so that every look-up misses the processor's cache"
        found.records.append(summed_up("environment", name, "steps/s", pairs, FLAT, note=note))
    return found


def vector_speed(data: str, listener: str) -> float:
    """Steps a second of a vector environment, as many as it has sessions each time."""
    env = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=SESSIONS_AT_ONCE,
        vectorization_mode="vector_entry_point",
        data=data,
        listener=listener,
        action="slate",
        observation="ids",
    )
    return _stepping(env, SESSIONS_AT_ONCE)


def cartpole_speed() -> float:
    """The same of Gymnasium's own vectorised CartPole."""
    return _stepping(CartPoleVectorEnv(SESSIONS_AT_ONCE), SESSIONS_AT_ONCE)


def _stepping(env: gym.vector.VectorEnv, number: int) -> float:
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(20)]
    at = iter(range(10**9))

    def step() -> None:
        env.step(actions[next(at) % len(actions)])

    for _ in range(10):
        step()
    return speed(step, number)


def single_speed(data: str) -> float:
    """Steps a second of one environment, resets included."""
    env = gym.make(musicbox_env.ENV_ID, data=data, action="slate", observation="ids")
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(100)]
    at = iter(range(10**9))

    def step() -> None:
        *_, terminated, truncated, _ = env.step(actions[next(at) % 100])
        if terminated or truncated:
            env.reset()

    return speed(step)


def retrieval(setting: Setting) -> Found:
    """Exact top 3, against whichever of FAISS, torch and plain numpy is fastest."""
    import torch

    found = Found([], [])
    dim, k, seed = 32, 3, 0
    for num_items in (50_000, 1_000_000):
        rng = np.random.default_rng(seed)
        items = unit_rows(rng, num_items, dim)
        for num_queries in (1, 64, 768):
            setting.say(f"exact top {k} of {num_items:,}, {num_queries} queries")
            queries = np.random.default_rng(1).standard_normal((num_queries, dim), np.float32)
            faiss = setting.peer("faiss", num_items, num_queries, dim, k, seed)
            rivals: dict[str, Callable[[], float]] = {
                "torch": partial(speed, partial(_torch_top_k, queries, items, k)),
                "numpy in tiles": partial(speed, partial(_numpy_top_k, queries, items, k)),
            }
            if not isinstance(faiss, str):
                rivals["FAISS"] = faiss
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            pairs, best = [], ""
            for _ in range(setting.runs):
                ours = speed(partial(top_k, queries, items, k))
                theirs = {name: measure() for name, measure in rivals.items()}
                best = max(theirs, key=lambda name: theirs[name])
                pairs.append((ours, theirs[best]))
                found.points.append(
                    Point(f"exact, {num_queries} queries", "tracks", num_items, 1 / ours)
                )
            torch.set_num_threads(threads)
            note = f"best of {', '.join(rivals)}: {best}"
            if isinstance(faiss, str):
                note += f"; FAISS: {faiss}"
            name = f"exact top {k} of {num_items:,}, queries: {num_queries}"
            found.records.append(summed_up("retrieval", name, "calls/s", pairs, 1.0, note=note))
    return found


def _torch_top_k(queries: npt.NDArray, items: npt.NDArray, k: int) -> object:
    import torch

    catalogue = torch.from_numpy(items).T
    parts = torch.from_numpy(queries).split(64)  # all scores of 768 queries would take 3 GB
    return [torch.topk(part @ catalogue, k, dim=1) for part in parts]


def _numpy_top_k(queries: npt.NDArray, items: npt.NDArray, k: int) -> npt.NDArray:
    """Scores of 16,384 items at a time, the best of each tile by ``argpartition``."""
    rows, scores = [], []
    for start in range(0, len(items), 1 << 14):
        tile = queries @ items[start : start + (1 << 14)].T
        best = np.argpartition(tile, -k, axis=1)[:, -k:]
        rows.append(best + start)
        scores.append(np.take_along_axis(tile, best, axis=1))
    order = np.argsort(-np.hstack(scores), axis=1)[:, :k]
    return np.take_along_axis(np.hstack(rows), order, axis=1)


def approximate(setting: Setting) -> Found:
    """Retrieval among millions: what is overlooked, what is gained, what the index takes."""
    found = Found([], [])
    number, k, asked = 3_700_000 if setting.full else 1_000_000, 3, 200
    if not installed():
        why = "FAISS is not installed; pip install musicbox-env[approximate]"
        found.records.append(skipped("approximate", f"top {k} of {number:,}", why))
        return found
    setting.say(f"index of {number:,} tracks")
    rng = np.random.default_rng(0)
    items = grown(open_dataset(None).embedding("hybrid"), number, rng)
    began = processor_seconds()
    index = ApproximateIndex.build(items)
    built = processor_seconds() - began
    file = setting.worlds / "benchmark.faiss"
    index.save(file)
    began = processor_seconds()
    mapped = ApproximateIndex.open(items, file, newer_than=file)
    opened = processor_seconds() - began
    add = found.records.append
    add(Record("approximate", f"index of {number:,}: build", "s", built))
    add(Record("approximate", f"index of {number:,}: file", "MiB", file.stat().st_size / MEBIBYTE))
    add(Record("approximate", f"index of {number:,}: open", "s", opened))
    near = "means of 8 songs alike"
    kinds = {
        near: items[_alike(items, asked, rng)].mean(axis=1),
        "directions without songs": rng.standard_normal((asked, items.shape[1]), np.float32),
    }
    for (kind, queries), bar in zip(kinds.items(), (0.95, None), strict=True):
        setting.say(f"recall, {kind}")
        exact, _ = top_k(queries, items, k)
        rows, _ = mapped.top_k(queries, k)
        recall = float((rows[:, :, None] == exact[:, None, :]).any(axis=2).mean())
        name = f"recall of the top {k} of {number:,}, {kind}"
        add(summed_up("approximate", name, "share", [(recall, 1.0)], bar))
    at = iter(range(10**9))
    barred = rng.integers(0, number, (1, 20))

    def one() -> npt.NDArray[np.float32]:
        return kinds[near][next(at) % asked, None]

    setting.say("one query")
    add(
        compare(
            "approximate",
            f"one query of {number:,}, 20 songs barred, over exact",
            "calls/s",
            lambda: speed(lambda: mapped.top_k(one(), k, barred)),
            lambda: speed(lambda: top_k(one(), items, k, barred)),
            runs=setting.runs,
            bar=30.0 if setting.full else None,
            note="the bar is that of 3.7 million tracks, --full",
        )
    )
    file.unlink()
    return found


def _alike(
    items: npt.NDArray[np.float32], number: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Songs of as many sessions as asked for: each one song and seven near it ``(number, 8)``."""
    few = rng.integers(0, len(items), 20_000)
    near, _ = top_k(items[few[:number]], items[few], 8)
    return few[near]


def training(setting: Setting) -> Found:
    """Gradient updates a second, and what a remembered transition takes."""
    from agents import make_agent

    found = Found([], [])
    data = str(bundled_dataset())
    options = {"data": data, "listener": "replay"}
    for batch, width in ((64, 32), (256, 256)):
        setting.say(f"gradient updates, batch {batch}, width {width}")
        ours: Any = make_agent(
            "ddpg",
            open_dataset(data),
            settings={
                "batch_size": batch,
                "hidden": width,
                "learning_starts": 10**6,
                "log_share": 0.0,
            },
        )
        ours.learn(options, TRAINING_STEPS)
        rival: Any = make_agent(
            "sb3-ddpg",
            open_dataset(data),
            settings={"batch_size": batch, "net_arch": (width, width)},
        )
        model = _filled_sb3(rival, options)
        own_speed = _alone(partial(speed, partial(_update, ours), 5.0))
        sb3_speed = _alone(partial(speed, partial(model.train, 5, batch), 5.0))
        flat = gym.spaces.flatdim(model.observation_space)
        sbx = setting.peer("sbx", batch, width, flat, int(np.prod(model.action_space.shape)))
        note = (
            "ours reads 20 songs by a recurrent network and has a critic of every song; theirs "
            "reads 10 as one vector; one thread each"
        )
        measure = partial(compare, "training", unit="updates/s", runs=setting.runs, note=note)
        title = f"ddpg updates, batch {batch}, width {width}, over"
        found.records.append(measure(f"{title} SB3's", ours=own_speed, theirs=sb3_speed, bar=2.0))
        if isinstance(sbx, str):
            found.records.append(skipped("training", f"{title} SBX's", sbx))
        else:
            found.records.append(measure(f"{title} SBX's", ours=own_speed, theirs=sbx, bar=1.0))
    held = ours.memory.stored
    size = sum(getattr(held, field.name).nbytes for field in fields(held)) / len(held)
    found.records.append(
        against_limit("training", "memory of a transition", "bytes", lambda: size, 200.0, runs=1)
    )
    return found


def _update(agent: Any) -> None:
    for _ in range(5):
        agent.update(agent._draw())


def _filled_sb3(agent: Any, options: dict[str, Any]) -> Any:
    """SB3's model with a filled replay buffer."""
    from stable_baselines3.common.logger import Logger

    env = gym.make(musicbox_env.ENV_ID, **{**options, **agent.env_options})
    model = agent._model(env, TRAINING_STEPS)
    model.learning_starts = TRAINING_STEPS
    model.learn(TRAINING_STEPS)
    model.set_logger(Logger(None, []))
    return model


def _alone(measure: Callable[[], float]) -> Callable[[], float]:
    """Measure with one thread of torch: two on a busy machine can be ten times slower."""
    import torch

    def measured() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return measure()
        finally:
            torch.set_num_threads(before)

    return measured


def ingest(setting: Setting) -> Found:
    """Raw CSV to dataset against pyarrow's own CSV to Parquet, and peak memory over sizes."""
    found = Found([], [])
    sizes = (3_000, 30_000, 300_000) if setting.full else (3_000, 30_000)
    peaks = []
    with tempfile.TemporaryDirectory(dir=setting.worlds) as scratch:
        for sessions in sizes:
            setting.say(f"ingest of {sessions:,} sessions")
            raw = Path(scratch) / f"raw-{sessions}"
            write_raw(SyntheticConfig(sessions=sessions, tracks=5_000), raw)
            file = _uncompressed(raw)
            out = Path(scratch) / "out"
            pairs = [
                (_child("ours", file, out), _child("pyarrow", file, out))
                for _ in range(setting.runs)
            ]
            size = file.stat().st_size / MEBIBYTE
            speeds = [(size / a["seconds"], size / b["seconds"]) for a, b in pairs]
            peaks.append(max(a["peak"] for a, _ in pairs))
            plays = int(pairs[0][0]["plays"])
            name = f"ingest of {plays:,} plays ({size:,.0f} MiB) over pyarrow's CSV to Parquet"
            bar = 0.5 if sessions == sizes[-1] else None
            found.records.append(
                summed_up("ingest", name, "MiB/s", speeds, bar, note="one process each")
            )
            for seconds, _ in pairs:
                found.points.append(Point("ingest", "plays ingested", plays, seconds["seconds"]))
            found.records.append(
                against_limit(
                    "ingest",
                    f"peak memory, {plays:,} plays",
                    "MiB",
                    partial(float, peaks[-1]),
                    1536.0,
                    runs=1,
                )
            )
            shutil.rmtree(raw)
    return found


def _uncompressed(raw: Path) -> Path:
    import gzip

    file = raw / "sessions.csv"
    with gzip.open(raw / "sessions.csv.gz") as source, file.open("wb") as target:
        shutil.copyfileobj(source, target)
    return file


_CHILD = """
import json, shutil, sys
from pathlib import Path
from experiments.benchmark_measure import processor_seconds
which, file, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if which == "ours":
    from musicbox_env.dataset import Dataset
    from musicbox_env.ingest import IngestConfig, ingest
    config = IngestConfig((str(file),), out, embeddings=False, workers=1, progress=False)
    began = processor_seconds()
    ingest(config)
    seconds = processor_seconds() - began
    plays = Dataset(out).sessions.num_plays
    shutil.rmtree(out)
else:
    import pyarrow, pyarrow.csv, pyarrow.parquet
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    began = processor_seconds()
    with pyarrow.csv.open_csv(file) as reader:
        with pyarrow.parquet.ParquetWriter(out, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    seconds, plays = processor_seconds() - began, 0
    out.unlink()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 1024  # getrusage would count the parent's peak too
print(json.dumps({"seconds": seconds, "peak": peak, "plays": plays}))
"""


def _child(*arguments: object, code: str = _CHILD) -> dict[str, float]:
    """Run code in a Python of its own; it prints one JSON object."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"A measurement failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def memory(setting: Setting) -> Found:
    """Start-up times, and what many environments and a large catalogue take."""
    found = Found([], [])
    setting.say("import")
    limit = partial(against_limit, "memory", runs=setting.runs)
    imported = lambda: _child(code=_IMPORT)["seconds"]  # noqa: E731
    found.records.append(limit("import musicbox_env", "s", imported, 1.0))
    tracks = (5_000, 1_000_000, 3_700_000) if setting.full else (5_000, 1_000_000)
    for number in tracks:
        setting.say(f"gym.make with {number:,} tracks")
        folder = random_dataset(setting.worlds / f"random-10000-{number}", 10_000, number)
        _child(folder, 1, code=_MAKE)  # the space with the rate is written once
        name = f"gym.make with {number:,} tracks, in a new process"
        made = [_child(folder, 1, code=_MAKE) for _ in range(setting.runs)]
        pairs = [(value["seconds"], 1.0) for value in made]
        note = "import of the environment included; processor time"
        found.records.append(
            summed_up("memory", name, "s", pairs, 1.0, less_is_better=True, note=note)
        )
        for value in made:
            found.points.append(Point("gym.make", "tracks (start)", number, value["seconds"]))
    setting.say("a thousand environments")
    folder = setting.worlds / f"random-10000-{tracks[1]}"
    one, many = (_child(folder, n, code=_MAKE)["own"] for n in (1, 1_000))
    catalogue = tracks[1] * 33 * 4 / MEBIBYTE
    found.records.append(
        Record(
            "memory",
            f"1,000 environments over one, {tracks[1]:,} tracks",
            "MiB of their own",
            many,
            one,
            note=f"the catalogue's {catalogue:,.0f} MiB of vectors are mapped and shared",
        )
    )
    setting.say("recommending from the largest catalogue")
    folder = setting.worlds / f"random-10000-{tracks[-1]}"
    found.records.append(
        limit(
            f"process that recommends from {tracks[-1]:,} tracks",
            "MiB",
            lambda: _child(folder, 1, code=_MAKE)["peak"],
            2048.0,
        )
    )
    return found


_IMPORT = """
import json, time
began = time.process_time()
import musicbox_env
print(json.dumps({"seconds": time.process_time() - began}))
"""
_MAKE = """
import json, sys, time
import musicbox_env
began = time.process_time()
import gymnasium as gym
envs = [gym.make(musicbox_env.ENV_ID, data=sys.argv[1])]
seconds = time.process_time() - began
envs += [gym.make(musicbox_env.ENV_ID, data=sys.argv[1]) for _ in range(int(sys.argv[2]) - 1)]
for env in envs[:3]:
    env.reset(seed=0)
    env.step(env.action_space.sample())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
own, peak = (int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmHWM"))
print(json.dumps({"seconds": seconds, "own": own, "peak": peak}))
"""

SECTIONS: dict[str, Callable[[Setting], Found]] = {
    "environment": environment,
    "retrieval": retrieval,
    "approximate": approximate,
    "training": training,
    "ingest": ingest,
    "memory": memory,
}
