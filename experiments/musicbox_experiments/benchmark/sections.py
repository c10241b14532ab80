"""What `musicbox benchmark` measures: one function a section, each giving records and points."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

import musicbox_env
from musicbox_env.retrieval.approximate import ApproximateIndex, ListsInSpace, installed
from musicbox_env.retrieval.exact import top_k
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.generator import SyntheticConfig, bundled_dataset, write_raw
from musicbox_experiments.benchmark.measure import (
    MEBIBYTE,
    Found,
    Point,
    Record,
    Setting,
    against_limit,
    compare,
    processor_seconds,
    skipped,
    speed,
    summed_up,
)
from musicbox_experiments.benchmark.training import training
from musicbox_experiments.benchmark.worlds import grown, random_dataset, unit_rows

SESSIONS_AT_ONCE = 1_024
FLAT = 0.67
"""A cost counts as flat if a hundred times the size makes it at most half as large again."""
HUGE_FILE = 1 << 30
"""A file so large is read once, not in several turns."""
WHOLE_DATA_SET = 426e9
"""Bytes of the Music Streaming Sessions Dataset, uncompressed."""
VECTOR_BARS = {"replay": 0.15, "ground_truth": 0.10, "learned": 0.05}


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
                    Point(f"queries: {num_queries}", "tracks, exact top 3", num_items, 1 / ours)
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

    catalog = torch.from_numpy(items).T
    parts = torch.from_numpy(queries).split(64)  # all scores of 768 queries would take 3 GB
    return [torch.topk(part @ catalog, k, dim=1) for part in parts]


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
    dataset = open_dataset(None)
    items = grown(dataset.embedding(dataset.best_embedding), number, rng)
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
    add(_recall_in_space(mapped, kinds[near], rng))
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


def _recall_in_space(
    index: ApproximateIndex, queries: npt.NDArray[np.float32], rng: np.random.Generator
) -> Record:
    """What an agent finds of its top 50 by an index of a space whose last axis is not its own."""
    items, points = index.items.copy(), queries.copy()
    alike = items[:, :-1] @ rng.standard_normal(items.shape[1] - 1)
    noise = rng.standard_normal(len(items))
    items[:, -1] = np.clip(0.2 * (alike / alike.std() + noise), -1, 1)
    points[:, -1] = 0.4
    exact, _ = top_k(points, items, 50)
    rows, _ = ListsInSpace(index, items).top_k(points, 50)
    recall = float((rows[:, :, None] == exact[:, None, :]).any(axis=2).mean())
    name = f"recall of the top 50 of {len(items):,}, an axis of the agent's own"
    return summed_up("approximate", name, "share", [(recall, 1.0)], 0.95)


def _alike(
    items: npt.NDArray[np.float32], number: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Songs of as many sessions as asked for: each one song and seven near it ``(number, 8)``."""
    few = rng.integers(0, len(items), 20_000)
    near, _ = top_k(items[few[:number]], items[few], 8)
    return few[near]


def ingest(setting: Setting) -> Found:
    """Raw CSV to dataset against pyarrow's own CSV to Parquet, and peak memory over sizes."""
    found = Found([], [])
    sizes = (60_000, 200_000, 3_000_000) if setting.full else (3_000, 60_000)
    with tempfile.TemporaryDirectory(dir=setting.worlds) as scratch:
        for sessions in sizes:
            setting.say(f"ingest of {sessions:,} sessions")
            raw = Path(scratch) / f"raw-{sessions}"
            write_raw(SyntheticConfig(sessions=sessions, tracks=5_000), raw)
            file = _uncompressed(raw)
            _ingest_alone(setting, found, file, largest=sessions == sizes[-1])
            shutil.rmtree(raw)
        setting.say("ingest of four files")
        found.records.append(_ingest_side_by_side(setting, Path(scratch), sizes[1]))
    return found


def _ingest_alone(setting: Setting, found: Found, file: Path, *, largest: bool) -> None:
    """One file in one process, beside pyarrow; the largest is projected to the whole data set."""
    out = file.with_name("out")
    runs = setting.runs if file.stat().st_size < HUGE_FILE else 1
    pairs = [(_child("ours", 1, out, file), _child("pyarrow", 1, out, file)) for _ in range(runs)]
    size, plays = file.stat().st_size / MEBIBYTE, int(pairs[0][0]["plays"])
    speeds = [(size / a["seconds"], size / b["seconds"]) for a, b in pairs]
    record = summed_up(
        "ingest",
        f"ingest of {plays:,} plays ({size:,.0f} MiB) over pyarrow's CSV to Parquet",
        "MiB/s",
        speeds,
        0.5 if largest else None,
        note=_projection(median(ours for ours, _ in speeds)) if largest else "one process each",
    )
    peak = max(ours["peak"] for ours, _ in pairs)
    peaks = partial(against_limit, "ingest", f"peak memory, {plays:,} plays", "MiB")
    found.records += [record, peaks(lambda: peak, 1536.0, runs=1)]
    found.points += [Point("ingest", "plays ingested", plays, a["seconds"]) for a, _ in pairs]


def _projection(speed: float) -> str:
    """What the whole data set takes at a speed in MiB a second and core, with its arithmetic."""
    hours = WHOLE_DATA_SET / MEBIBYTE / speed / 3600
    return (
        f"one process each; the data set's {WHOLE_DATA_SET / 1e9:,.0f} GB / {speed:.0f} MiB/s = "
        f"{hours:.1f} hours of one core, {hours / 2:.1f} on two: its files are worked on side by "
        "side"
    )


def _ingest_side_by_side(setting: Setting, scratch: Path, sessions: int) -> Record:
    """The same four files by one process and by two, by the clock on the wall.

    What a second process gains depends on what else runs on the machine. So two processes that
    only count are timed in the same turn: their gain is what there is to be had.
    """
    files = []
    for seed in range(1, 5):
        raw = scratch / f"raw-{sessions}-{seed}"
        write_raw(SyntheticConfig(sessions=sessions, tracks=5_000, seed=seed), raw)
        files.append(_uncompressed(raw))
    out = scratch / "out"
    gains = []
    for _ in range(setting.runs):
        one, two = (_child("ours", workers, out, *files)["wall"] for workers in (1, 2))
        gains.append((one / two, 2 * _counting_seconds(1) / _counting_seconds(2)))
    size = sum(file.stat().st_size for file in files) / MEBIBYTE
    return summed_up(
        "ingest",
        f"four files ({size:,.0f} MiB) by two processes over by one",
        "times",
        gains,
        None,
        note="by the clock; theirs is what two processes gain that only count, in the same turn",
    )


def _counting_seconds(processes: int) -> float:
    """How long as many processes take to count to fifty million each, by the clock."""
    began = perf_counter()
    counting = [
        subprocess.Popen([sys.executable, "-S", "-c", "for _ in range(50_000_000): pass"])
        for _ in range(processes)
    ]
    for process in counting:
        process.wait()
    return perf_counter() - began


def _uncompressed(raw: Path) -> Path:
    import gzip

    file = raw / "sessions.csv"
    with gzip.open(raw / "sessions.csv.gz") as source, file.open("wb") as target:
        shutil.copyfileobj(source, target)
    return file


_CHILD = """
import json, shutil, sys, time
from pathlib import Path
from statistics import median
from musicbox_experiments.benchmark.measure import processor_seconds
which, workers, out, files = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
wall = time.perf_counter()
if which == "ours":
    from musicbox_env.data.dataset import Dataset
    from musicbox_env.ingest.pipeline import IngestConfig, ingest
    config = IngestConfig(tuple(files), out, embeddings=False, workers=workers, progress=False)
    began = processor_seconds()
    ingest(config)
    wall = time.perf_counter() - wall
    seconds = processor_seconds() - began
    plays = Dataset(out).sessions.num_plays
    shutil.rmtree(out)
else:
    import pyarrow, pyarrow.csv, pyarrow.parquet
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    began = processor_seconds()
    with pyarrow.csv.open_csv(files[0]) as reader:
        with pyarrow.parquet.ParquetWriter(out, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    seconds, plays = processor_seconds() - began, 0
    out.unlink()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 1024  # getrusage would count the parent's peak too
print(json.dumps({"seconds": seconds, "peak": peak, "plays": plays, "wall": wall}))
"""


def _child(*arguments: object, code: str = _CHILD) -> dict[str, float]:
    """Run code in a Python of its own; it prints one JSON object."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"A measurement failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def memory(setting: Setting) -> Found:
    """Start-up times, and what many environments and a large catalog take."""
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
            found.points.append(Point("gym.make", "tracks, gym.make", number, value["seconds"]))
    setting.say("a thousand environments")
    folder = setting.worlds / f"random-10000-{tracks[1]}"
    one, many = (_child(folder, n, code=_MAKE)["own"] for n in (1, 1_000))
    catalog = tracks[1] * 33 * 4 / MEBIBYTE
    found.records.append(
        Record(
            "memory",
            f"1,000 environments over one, {tracks[1]:,} tracks",
            "MiB of their own",
            many,
            one,
            note=f"the catalog's {catalog:,.0f} MiB of vectors are mapped and shared",
        )
    )
    setting.say("an agent for the largest catalog")
    folder = setting.worlds / f"random-10000-{tracks[-1]}"
    trained = _trained(setting.worlds / f"agent-{tracks[-1]}", folder)
    asked = [_child(trained, code=_RECOMMEND) for _ in range(setting.runs)]
    found.records += [
        summed_up(
            "memory",
            f"`musicbox recommend` by a trained ddpg from {tracks[-1]:,} tracks",
            "MiB",
            [(value["peak"], 2048.0) for value in asked],
            1.0,
            less_is_better=True,
            note="the whole process at its peak, mapped files included",
        ),
        Record(
            "memory",
            f"the same: processor time, start included, {tracks[-1]:,} tracks",
            "s",
            median(value["seconds"] for value in asked),
        ),
    ]
    return found


def _trained(run: Path, data: Path) -> Path:
    """A run with a ddpg trained on a dataset, as `musicbox train` leaves one; kept."""
    from musicbox_experiments.train.jobs import jobs_for, train_all
    from musicbox_experiments.train.simulators import Listeners

    settings = {"ddpg": {"log_sessions": 500, "warmup_updates": 50, "learning_starts": 64}}
    jobs = jobs_for(
        ["ddpg"],
        1,
        settings=settings,
        options={"data": str(data)},
        steps=128,
        out=run,
        listeners=Listeners("replay", "replay", "replay", "replay", {}),
    )
    train_all(jobs, workers=1)
    return run


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

_RECOMMEND = """
import json, sys, time
began = time.process_time()
from pathlib import Path
from statistics import median
from musicbox_experiments.serve.recommend import RecommendConfig, recommend
assert len(recommend(RecommendConfig(Path(sys.argv[1]), "t1:full,t2:skipped,t3:kept"))) == 3
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 1024
print(json.dumps({"seconds": time.process_time() - began, "peak": peak}))
"""


def statistics(setting: Setting) -> Found:
    """The intervals of a comparison: ten agents, three trainings each, 3,000 sessions."""
    from musicbox_experiments.evaluate.metrics import PerSession
    from musicbox_experiments.evaluate.statistics import paired_bootstrap

    setting.say("intervals")
    rng = np.random.default_rng(0)
    songs = np.full(3_000, 8.0)
    parts = {
        str(agent): [
            PerSession(rng.binomial(8, 0.5, 3_000).astype(np.float64), songs) for _ in range(3)
        ]
        for agent in range(10)
    }

    def seconds() -> float:
        began = processor_seconds()
        bootstrap = paired_bootstrap(parts, rng=rng, resamples=2_000)
        for agent in parts:
            bootstrap.estimate(agent)
            bootstrap.difference(agent, "0", lower_is_better=True)
        return processor_seconds() - began

    name = "intervals of ten agents, three seeds each, 3,000 sessions"
    return Found([against_limit("statistics", name, "s", seconds, 5.0, runs=setting.runs)], [])


SECTIONS: dict[str, Callable[[Setting], Found]] = {
    "environment": environment,
    "retrieval": retrieval,
    "approximate": approximate,
    "training": training,
    "ingest": ingest,
    "memory": memory,
    "statistics": statistics,
}
