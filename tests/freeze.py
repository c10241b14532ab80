"""Hashes of what MusicBox does, to prove that a move or a refactoring changed nothing.

    python tests/freeze.py --out before.json       # before the change
    python tests/freeze.py --against before.json   # after it; exits with 1 if a hash differs

``--only NAME ...`` takes the hashes whose names begin so: ``--only traces/replay agents/ddpg``. All
take about a minute and a half of one core. They hold for one machine, since BLAS kernels differ
between processors: compare what the same machine wrote, and commit no hashes.

Arrays are hashed by dtype, shape and bytes, files by content without clocks and paths. Parameters
go by no name, and the names of observations and ``info`` stand in ``#names`` alone, so that a new
name leaves weights and traces. ``#numbers`` are the numbers of a text in any order, which new words
leave. What a new layout or a renamed option touches is a constant below.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from itertools import product
from pathlib import Path

FOLDER = tempfile.TemporaryDirectory(prefix="freeze-")
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", PYTHONHASHSEED="0")
os.environ["MUSICBOX_CACHE"] = f"{FOLDER.name}/cache"

import gymnasium as gym  # noqa: E402  (libraries count threads on import)
import matplotlib.image  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [str(ROOT / part) for part in ("", "agents", "experiments")]
AGENTS = "musicbox_agents"
COMMAND = "musicbox_experiments"
DATASET = "musicbox_env.data.dataset"
one = partial(gym.make, "musicbox_env:MusicSession-v0")
many = partial(gym.make_vec, one.args[0], vectorization_mode="vector_entry_point")

CANDIDATES = ("catalog", "session")
NAMES = ("listener", "action", "observation", "candidates", "leaving")
KINDS = (
    ("replay", "similarity", "learned", "pessimistic", "ground_truth"),
    *(("proto", "proto_list", "slate"), ("embedding", "ids"), CANDIDATES, (None, "published")),
)
REPLAY = {"listener": "replay", "candidates": "catalog"}
TRACES = {
    "repeats": {"listener": "ground_truth", "action": "slate", "repeats": True},
    "leaving": {"listener": "learned", "horizon": 30, "leaving": "published"},
    "reward": {"listener": "learned", "reward": {"diversity": 0.5, "novelty": 0.3, "graded": 0.2}},
    "same-step": {**REPLAY, "autoreset_mode": "SameStep"},
    "wide": {"listener": "similarity", "slate_size": 5, "history_length": 20, "split": "test"},
    "content": {"listener": "ground_truth", "embedding": "content", "action": "proto_list"},
    "approximate": {"listener": "ground_truth", "retrieval": "approximate"},
    "fitted": {"listener": "learned.npz", "leaving": "leaving.json", "data": "data", "horizon": 30},
    "single-labels": {"listener": "replay", "candidates": "session", "observation": "ids"},
    "single-slate": {"listener": "learned", "action": "slate", "render_mode": "ansi"},
    "single-horizon": {"listener": "ground_truth", "horizon": 30},
}
DDPG = {"learning_starts": 64, "num_envs": 8, "warmup_updates": 50}
SETTINGS = {  # by agent, or by agent and a word for a variant of it
    "ddpg": DDPG,
    "ddpg gamma": {**DDPG, "gamma": 0.5},
    "ddpg random": {**DDPG, "start": "random"},
}
SMALL = " ".join(f"ddpg.{name}={value}" for name, value in DDPG.items())
SMALL = f"--train-steps 200 --evaluation-sessions 60 --workers 1 --agent-settings {SMALL}"
COMMANDS = {  # by what they write, or else by their first word
    "data": "synthesize --sessions 600 --tracks 200 --seed 1 --out data",
    "raw": "synthesize --sessions 600 --tracks 200 --seed 1 --raw raw",
    "ingested": "ingest raw/sessions.csv.gz --tracks raw/tracks.csv --out ingested",
    "ingested-history": "ingest history --out ingested-history",
    "learned.npz": "fit-listener data --out learned.npz --max-epochs 2 --members 2 --no-progress",
    "leaving.json": "fit-leaving data --out leaving.json",
    "run": "compare --data data --out run --seeds 1 --agents logged popularity best-rate"
    f" played-rate linucb ddpg skyline bayes {SMALL}",
    "run-learned": "compare --data ingested --out run-learned --listener learned.npz --seeds 2"
    f" --agents logged bc ddpg {SMALL}",
    "describe": "describe data",
    "evaluate": "evaluate run --sessions 30",
    "recommend": "recommend run --heard t_00000033:full,t_00000016:skipped,t_00000129:2",
    "trust": "trust data --out trust --listener ground_truth similarity replay learned.npz --draws"
    " 10 --resamples 20 --samples 2 --sessions 60 --training-sessions 300 --evaluated-sessions 20",
}
UNSTABLE = r'"(?:seconds|command)": (?:"[^"]*"|[\d.]+)|\b[0-9a-f]{64}\b|\b\d+(?:\.\d+)? s\b'
"""Times, the words of a command line, and hashes of files, of which compressed ones hold a time."""


def sha(*parts) -> str:
    """Hash arrays, plain values, and sequences or dictionaries (names aside) of these."""
    digest = sha256()
    for part in parts:
        part = part.tolist() if isinstance(part, np.ndarray) and part.dtype.hasobject else part
        if isinstance(part, dict | list | tuple):
            content = sha(*(part.values() if isinstance(part, dict) else part)).encode()
        elif isinstance(part, np.ndarray | np.generic):
            content = f"{part.dtype.str}{part.shape}".encode() + part.tobytes()
        else:
            content = repr(part).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def of_trace(options: dict, single: bool = False) -> dict[str, str]:
    """Eight random steps; every second explicit slate is of few songs, so that some repeat."""
    run_what_is_named(str(options))
    env = one(**options) if single else many(num_envs=4, **options)
    env.action_space.seed(7)
    observation, info = env.reset(seed=11)
    steps, infos = [sha(observation)], [sha(info)]
    for step in range(8):
        action = env.action_space.sample()
        if step % 2 and np.issubdtype(action.dtype, np.integer):
            action %= 20
        observation, reward, *ends, info = env.step(action)
        steps.append(sha(observation, reward, ends))
        infos.append(sha(info))
        if single and any(ends):
            steps.append(sha(env.render() if env.render_mode else "", *env.reset()))
    names = list(observation), list(info), repr((env.observation_space, env.action_space))
    return {"": sha(steps), "#info": sha(infos), "#names": sha(names)}


def of_agent(label: str) -> dict[str, str]:
    """What an agent saves if it learns, and what it chooses for fifty test sessions."""
    run("data")
    dataset, settings = import_module(DATASET).Dataset(Path("data")), SETTINGS.get(label)
    agent = import_module(AGENTS).make_agent(label.split()[0], dataset, seed=3, settings=settings)
    options, found = {"data": "data", "listener": "ground_truth"}, {}
    if agent.learns:
        agent.learn(options, 200).save(Path(label))
        found = of_files(label)
    for candidates in CANDIDATES:
        env = many(num_envs=50, split="test", candidates=candidates, **options, **agent.env_options)
        observation, _ = env.reset(seed=5)
        agent.attach(env.simulator)
        found[f"/actions/{candidates}"] = sha(agent.predict(observation, deterministic=True)[0])
    return found


def run_what_is_named(text: str, but: str = "") -> None:
    """Run the commands whose names are words of a text."""
    for name in COMMANDS:
        if name in re.findall(r"[\w.-]+", text) and name != but:
            run(name)


@cache
def run(name: str) -> str:
    """Run a command after those whose outputs it reads; what it prints."""
    run_what_is_named(COMMANDS[name], but=name)
    words = [sys.executable, "-m", COMMAND, *COMMANDS[name].split()]
    done = subprocess.run(words, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def of_command(name: str) -> dict[str, str]:
    """What a command prints and writes."""
    return of_text("#printed", run(name)) | of_files(name)


def of_files(path: str) -> dict[str, str]:
    """Hashes of a file, or of all files of a folder but those of TensorBoard, full of clocks."""
    found = {}
    for file in sorted([Path(path), *Path(path).rglob("*")]):
        name = str(file).removeprefix(path)
        if not file.is_file() or "tfevents" in name:
            continue
        if file.suffix == ".npz":
            arrays = list(np.load(file).values())
            found[name] = sha(sorted(sha(array) for array in arrays if array.dtype.kind != "U"))
            found |= of_text(f"{name}#text", str([a for a in arrays if a.dtype.kind == "U"]))
        elif file.suffix == ".parquet":
            found[name] = sha(list(pq.read_table(file).to_pydict().items()))
        elif file.suffix in (".npy", ".png"):
            found[name] = sha((np.load if file.suffix == ".npy" else matplotlib.image.imread)(file))
        else:
            content = (gzip.decompress if file.suffix == ".gz" else bytes)(file.read_bytes())
            found |= of_text(name, content.decode())
    return found


def of_text(name: str, text: str) -> dict[str, str]:
    """Hashes of a text without paths and times, and of its numbers alone."""
    text = re.sub(UNSTABLE, "", text.replace(FOLDER.name, ""))
    numbers = sorted(re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text))
    return {name: sha(text), f"{name}#numbers": sha(numbers)}


def items():
    """Name, function and arguments of everything there is to hash."""
    for name in COMMANDS:
        yield f"files/{name}", of_command, name
    for kind in product(*KINDS):
        yield f"traces/{'/'.join(map(str, kind))}", of_trace, dict(zip(NAMES, kind, strict=True))
    for name, options in TRACES.items():
        yield f"traces/{name}", of_trace, options, name.startswith("single")
    for label in dict.fromkeys([*import_module(AGENTS).AGENTS, *SETTINGS]):
        yield f"agents/{label}", of_agent, label


def compute(only: tuple[str, ...]) -> dict[str, str]:
    """All hashes whose names begin with one of ``only``; what fails has none."""
    found = {}
    for name, function, *arguments in items():
        if not any(name.startswith(start) or start.startswith(name) for start in only):
            continue
        began = time.perf_counter()
        try:
            found |= {name + rest: value for rest, value in function(*arguments).items()}
        except Exception as error:
            print(f"failed   {name}: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"{time.perf_counter() - began:6.1f} s  {name}", file=sys.stderr)
    return {name: value for name, value in found.items() if name.startswith(only)}


def main() -> None:
    """Write hashes, compare them, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=os.path.abspath)
    parser.add_argument("--against", type=os.path.abspath)
    parser.add_argument("--only", nargs="+", default=[""])
    given = parser.parse_args()
    sys.path[:0] = SOURCES + [str(file.parent) for file in ROOT.glob("tests/**/make_histories.py")]
    os.environ["PYTHONPATH"] = os.pathsep.join(SOURCES)
    os.chdir(FOLDER.name)
    make = import_module("make_histories")
    make.write_folder(make.archive_files(make.make_history(60, tracks=200)), Path("history"))
    found = compute(only := tuple(given.only))
    if given.out:
        Path(given.out).write_text(json.dumps(found, indent=1) + "\n")
    before = json.loads(Path(given.against).read_text()) if given.against else found
    changed = [f"missing  {n}" for n in before if n.startswith(only) and n not in found]
    changed += [f"differs  {name}" for name, v in found.items() if v != before.get(name, v)]
    for line in changed + [f"new      {name}" for name in found if name not in before]:
        print(line)
    raise SystemExit(bool(changed))


if __name__ == "__main__":
    main()
