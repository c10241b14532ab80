"""Hashes of what MusicBox does, to prove that a move or a refactoring changed nothing.

    python tests/freeze.py --out before.json       # before the change
    python tests/freeze.py --against before.json   # after it; exits with 1 if a hash differs

``--only NAME ...`` takes the hashes whose names begin so: ``--only traces/replay agents/ddpg``. All
take about three minutes of one core. They hold for one machine, since BLAS kernels differ between
processors: compare only what the same machine wrote, and commit no hashes.

Arrays are hashed by dtype, shape and bytes, files by content without clocks and paths. Names of
parameters and of the keys of observations and ``info`` stand in ``#names`` alone, so that renaming
one leaves traces and weights. ``#numbers`` are the numbers of a text in any order, which renamed
words leave. Whatever a new layout or a renamed option touches is a constant below.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

work = Path(tempfile.mkdtemp(prefix="freeze-"))
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MUSICBOX_CACHE=str(work / "cache"))

import gymnasium as gym  # noqa: E402  (threads are counted on import)
import matplotlib.image  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
MOVED = (ROOT / "agents/musicbox_agents").is_dir()
SOURCES = [str(ROOT / part) for part in (("", "agents", "experiments") if MOVED else ("",))]
ENV_ID = "musicbox_env:MusicSession-v0"
AGENTS = "musicbox_agents" if MOVED else "agents"
COMMAND = "musicbox_experiments" if MOVED else "experiments.cli"
DATASET = ("musicbox_env.data", "musicbox_env.data.dataset", "musicbox_env.dataset")

KINDS = {
    "listener": ("replay", "similarity", "learned", "pessimistic", "ground_truth"),
    "action": ("proto", "proto_list", "slate"),
    "observation": ("embedding", "ids"),
    "candidates": ("catalog", "session"),
    "leaving": (None, "published"),
}
TRACES: dict[str, dict[str, Any]] = {
    "repeats": {"listener": "ground_truth", "action": "slate", "repeats": True},
    "horizon": {"listener": "ground_truth", "horizon": 30},
    "horizon-leaving": {"listener": "learned", "horizon": 30, "leaving": "published"},
    "reward": {"listener": "learned", "reward": {"diversity": 0.5, "novelty": 0.3, "graded": 0.2}},
    "same-step": {"listener": "replay", "autoreset_mode": "SameStep"},
    "wide": {"listener": "similarity", "slate_size": 5, "history_length": 20, "split": "test"},
    "content": {"listener": "ground_truth", "embedding": "content", "action": "proto_list"},
    "approximate": {"listener": "ground_truth", "retrieval": "approximate"},
    "single-labels": {"listener": "replay", "candidates": "session", "observation": "ids"},
    "single-slate": {"listener": "learned", "action": "slate", "render_mode": "ansi"},
    "single-proto": {"listener": "ground_truth", "horizon": 30},
}
DDPG = {"learning_starts": 64, "num_envs": 8, "warmup_updates": 50, "log_sessions": 300}
SETTINGS: dict[str, dict[str, Any]] = {
    "ddpg": DDPG,
    "ddpg gamma": {**DDPG, "gamma": 0.5},
    "ddpg random": {**DDPG, "start": "random"},
    "linucb": {"num_envs": 8},
    **{name: {"log_sessions": 300} for name in ("bc", "td3-bc", "iql")},
    **{f"sb3-{name}": {"learning_starts": 64, "batch_size": 32} for name in ("ddpg", "td3", "sac")},
}
"""By agent, or by agent and a word for a variant of it."""
TRAIN_STEPS = 200
COMMANDS = (
    "synthesize --sessions 600 --tracks 200 --seed 1 --out data --raw raw",
    "ingest raw/sessions.csv.gz --tracks raw/tracks.csv --out ingested",
    "ingest history --out ingested-history",
    "fit-listener data --out learned.npz --max-epochs 2 --members 2 --no-progress",
    "fit-leaving data --out leaving.json",
    "compare --data data --out run --seeds 1 --train-steps 200 --test-sessions 60 --workers 1"
    " --agents logged popularity best-rate played-rate linucb ddpg skyline bayes --agent-settings"
    + "".join(f" ddpg.{name}={value}" for name, value in DDPG.items()),
    "describe data",
    "evaluate run --sessions 30",
    "recommend run --heard t_00000033:full,t_00000016:skipped,t_00000129:2",
    "trust data --out trust --listener ground_truth similarity replay learned.npz --sessions 60"
    " --training-sessions 300 --judged-sessions 20 --samples 2 --draws 10 --resamples 20",
)
UNSTABLE = ("seconds", "command")
"""Keys of JSON files that hold times, or the words of a command line."""

Hashes = dict[str, str]


def sha(*parts: Any) -> str:
    """Hash arrays, bytes, plain values, and sequences or dictionaries (names aside) of these."""
    digest = sha256()
    for part in parts:
        if isinstance(part, dict | list | tuple):
            content = sha(*(part.values() if isinstance(part, dict) else part)).encode()
        elif isinstance(part, np.ndarray | np.generic):
            content = f"{part.dtype.str}{part.shape}".encode() + part.tobytes()
        else:
            content = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def open_env(num_envs: int, **options: Any) -> Any:
    """A vector environment, or a single one for 0."""
    if not num_envs:
        return gym.make(ENV_ID, **options)
    many = {"num_envs": num_envs, "vectorization_mode": "vector_entry_point"}
    return gym.make_vec(ENV_ID, **many, **options)


def trace(num_envs: int, options: dict[str, Any]) -> Hashes:
    """Eight random steps; every second explicit slate is of few songs, so that some repeat."""
    env = open_env(num_envs, **options)
    env.action_space.seed(7)
    observation, info = env.reset(seed=11)
    names = list(observation), list(info), repr((env.observation_space, env.action_space))
    steps, infos = [observation], [info]
    for step in range(8):
        action = env.action_space.sample()
        if step % 2 and np.issubdtype(action.dtype, np.integer):
            action %= 20
        observation, reward, *ends, info = env.step(action)
        steps.append([observation, reward, ends])
        infos.append(info)
        if not num_envs and any(ends):
            steps += [env.render() if env.render_mode else "", env.reset()[0]]
    return {"": sha(steps), "#info": sha(infos), "#names": sha(names)}


def open_dataset(folder: str) -> Any:
    """The dataset of a folder, wherever its class lives."""
    for module in DATASET:
        try:
            return import_module(module).Dataset(Path(folder))
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"No class Dataset in any of {', '.join(DATASET)}.")


def choices(agent: Any, candidates: str) -> str:
    """Hash of three slates of an agent for each of twelve test sessions."""
    options = {"data": world(), "listener": "ground_truth", "split": "test"}
    env = open_env(12, **options, candidates=candidates, **agent.env_options)
    observation, _ = env.reset(seed=5)
    agent.attach(env.simulator)
    state, start, chosen = None, np.ones(12, np.bool_), []
    for _ in range(3):
        action, state = agent.predict(observation, state, start, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        start = terminated | truncated
        chosen += [action, reward]
    return sha(chosen)


def agent_hashes(label: str) -> Hashes:
    """What an agent chooses, and what it saves if it learns."""
    make, settings = import_module(AGENTS).make_agent, SETTINGS.get(label)
    agent = make(label.split()[0], open_dataset(world()), seed=3, settings=settings)
    saved = {}
    if agent.learns:
        agent.learn({"data": world(), "listener": "ground_truth"}, TRAIN_STEPS)
        agent.save(work / label)
        saved = file_hashes(label)
    return saved | {f"/actions/{c}": choices(agent, c) for c in KINDS["candidates"]}


@cache
def world() -> str:
    """Folder of a small dataset."""
    run(COMMANDS[0])
    return str(work / "data")


def outputs(command: str) -> list[str]:
    """What a command writes."""
    return re.findall(r"--(?:out|raw) (\S+)", command)


@cache
def run(command: str) -> str:
    """Run ``musicbox`` after the commands whose outputs it reads; what it prints."""
    read = {word.partition("/")[0] for word in command.split()} - {*outputs(command)}
    for other in COMMANDS:
        if read & {*outputs(other)}:
            run(other)
    if "history" in read:
        sys.path += {str(file.parent) for file in ROOT.glob("tests/**/make_histories.py")}
        made = import_module("make_histories")
        made.write_folder(made.archive_files(made.make_history(60, tracks=200)), work / "history")
    words = [sys.executable, "-m", COMMAND, *command.split()]
    options: dict[str, Any] = {"cwd": work, "capture_output": True, "text": True}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    done = subprocess.run(words, env=environment, **options)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def command_hashes(command: str) -> Hashes:
    """What a command prints, and all files that it writes."""
    found = text_hashes("/printed", run(command))
    for output in outputs(command):
        found |= {f"/{output}{name}": value for name, value in file_hashes(output).items()}
    return found


def file_hashes(path: str) -> Hashes:
    """Hashes of a file, or of all files of a folder but those of TensorBoard, full of clocks."""
    found: Hashes = {}
    for file in sorted([work / path, *(work / path).rglob("*")]):
        name = str(file).removeprefix(str(work / path))
        if not file.is_file() or "tfevents" in file.name:
            continue
        if file.suffix == ".npz":
            with np.load(file) as opened:
                arrays = [opened[key] for key in opened.files]
            words = "".join(str(array) for array in arrays if array.dtype.kind == "U")
            found[name] = sha(sorted(sha(array) for array in arrays if array.dtype.kind != "U"))
            found |= text_hashes(f"{name}#text", words) if words else {}
        elif file.suffix == ".parquet":
            table = pq.read_table(file).to_pydict()
            found[name] = sha(list(table), table)
        elif file.suffix in (".npy", ".png"):
            found[name] = sha((np.load if file.suffix == ".npy" else matplotlib.image.imread)(file))
        else:
            content = file.read_bytes()
            text = (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
            found |= text_hashes(name, stable_json(text) if file.suffix == ".json" else text)
    return found


def stable_json(text: str) -> str:
    """The same without what is `UNSTABLE`."""

    def stable(content: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in content.items() if key not in UNSTABLE}

    return json.dumps(json.loads(text, object_hook=stable), indent=1)


def text_hashes(name: str, text: str) -> Hashes:
    """Hashes of a text without paths and times, and of its numbers alone."""
    text = re.sub(r"\d+(\.\d+)? s\b", "", text.replace(str(work), ""))
    numbers = sorted(re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text))
    return {name: sha(text), f"{name}#numbers": sha(numbers)}


def items() -> Iterator[tuple[str, Callable[[], Hashes]]]:
    """Everything there is to hash, not yet computed."""
    for values in product(*KINDS.values()):
        options = dict(zip(KINDS, values, strict=True))
        yield f"traces/{'/'.join(map(str, values))}", partial(trace, 4, options)
    for name, options in TRACES.items():
        yield f"traces/{name}", partial(trace, 0 if name.startswith("single") else 4, options)
    for command in COMMANDS:
        name = "/".join(["commands", command.split()[0], *outputs(command)[:1]])
        yield name, partial(command_hashes, command)
    for label in dict.fromkeys([*import_module(AGENTS).AGENTS, *SETTINGS]):
        yield f"agents/{label}", partial(agent_hashes, label)


def compute(only: tuple[str, ...]) -> Hashes:
    """All hashes whose names begin with one of ``only``; what fails has none."""
    found: Hashes = {}
    for name, hashes in items():
        if not name.startswith(only) and not any(o.startswith(f"{name}/") for o in only):
            continue
        began = time.perf_counter()
        try:
            found |= {name + rest: value for rest, value in hashes().items()}
        except Exception as error:
            print(f"failed   {name}: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"{time.perf_counter() - began:6.1f} s  {name}", file=sys.stderr)
    return {name: value for name, value in found.items() if name.startswith(only)}


def main() -> None:
    """Write hashes, compare them, or both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--against", type=Path, help="file to compare with")
    parser.add_argument("--only", nargs="+", default=[""], help="first parts of names")
    given = parser.parse_args()
    only = tuple(given.only)
    sys.path[:0] = SOURCES
    found = compute(only)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    if given.against:
        before = json.loads(given.against.read_text())
        before = {name: value for name, value in before.items() if name.startswith(only)}
        lost = [f"missing  {name}" for name in before if name not in found]
        other = [
            f"differs  {name}" for name in found if found[name] != before.get(name, found[name])
        ]
        new = [f"new      {name}" for name in found if name not in before]
        print(*lost, *other, *new, sep="\n")
        raise SystemExit(bool(lost or other))


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(work)
