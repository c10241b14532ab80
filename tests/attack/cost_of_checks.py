"""What checks cost: ``python cost_of_checks.py [ROUNDS]`` prints time with them over time without.

Both are measured in turns, in processor time: the median ratio, and in brackets its quartiles. Left
out in the second is all that refuses: actions, rows, files that are opened, bounds of sources.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import gymnasium as gym
import numpy as np

import musicbox_env
from musicbox_env import vector_env
from musicbox_env.data import dataset
from musicbox_env.data.checks import CheckedFile
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.ingest.sources.bounds import Budget
from musicbox_env.retrieval import spaces
from musicbox_env.simulator import checks, dynamics
from musicbox_env.synthetic import truth
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize, write_raw
from musicbox_env.workers import worker_pool

WORLD = SyntheticConfig(sessions=10_000, tracks=5_000, seed=1)
SESSIONS, STEPS, MAKES = 1_024, 40, 50
LEFT_OUT = {
    **dict.fromkeys((dataset, spaces, truth), ("once",)),
    checks: ("require_room", "require_rows", "require_songs"),
    vector_env: ("require_whole",),
    CheckedFile: ("require", "require_within", "require_unit_rows", "require_regular"),
    Budget: ("unpack", "check_time", "check_stated", "check_blank_lines", "check_malformed"),
}


def do_nothing(*arguments: object, **named: object) -> None:
    """In place of a check."""


@contextmanager
def without_checks() -> Iterator[None]:
    """Nothing is refused in the block."""
    with ExitStack() as stack, patch.object(dynamics, "checked_actions", lambda given, *_: given):
        for of, names in LEFT_OUT.items():
            for name in names:
                stack.enter_context(patch.object(of, name, do_nothing))
        yield


def make(data: Path, **options: object) -> gym.vector.VectorEnv:
    """A vector environment that answers by replay."""
    kind = {"vectorization_mode": "vector_entry_point", "data": data, "listener": "replay"}
    return gym.make_vec(musicbox_env.ENV_ID, **kind, **{"num_envs": SESSIONS, **options})


def steps(data: Path, kind: str) -> Callable[[], None]:
    """Steps of many sessions."""
    env = make(data, action=kind, candidates="session")
    env.reset(seed=0)
    env.action_space.seed(0)
    action = np.ascontiguousarray(env.action_space.sample())

    def run() -> None:
        for _ in range(STEPS):
            env.step(action)

    return run


def make_first(data: Path) -> None:
    """Make an environment."""
    make(data)


def make_and_step(data: Path) -> None:
    """Make an environment, begin its sessions, and make a step."""
    env = make(data)
    env.reset(seed=0)
    env.step(env.action_space.sample())


def makes(data: Path) -> None:
    """Make an environment over a dataset, again and again."""
    for _ in range(MAKES):
        gym.make(musicbox_env.ENV_ID, data=data, listener="replay").close()


def ingest_again(logs: Path, out: Path) -> None:
    """Make a dataset of logs."""
    config = IngestConfig((str(logs),), out, embeddings=False, workers=1, progress=False)
    shutil.rmtree(ingest(config))


def seconds(action: Callable[[], object], *, checked: bool) -> float:
    """Processor time of an action."""
    with nullcontext() if checked else without_checks():
        began = time.process_time()
        action()
        return time.process_time() - began


def seconds_in_new_process(action: Callable[[], object], *, checked: bool) -> float:
    """The same in a process of its own, verdicts being kept from others."""
    with worker_pool(1) as pool:
        return pool.submit(seconds, action, checked=checked).result()


def ratios(measure: Callable[..., float], rounds: int) -> Iterator[float]:
    """Time with checks over time without, in turns; the first of each is not counted."""
    for number in range(rounds + 1):
        ratio = measure(checked=True) / measure(checked=False)
        if number:
            yield ratio


def main(rounds: int) -> None:
    """Print a ratio for each action."""
    with tempfile.TemporaryDirectory() as folder:
        data, raw, out = (Path(folder) / name for name in ("data", "raw", "out"))
        synthesize(WORLD, data)
        write_raw(WORLD, raw)
        again = partial(ingest_again, raw / "sessions.csv.gz", out)
        measures: dict[str, tuple[Callable[..., float], int]] = {
            "gym.make_vec, first in a process": (
                partial(seconds_in_new_process, partial(make_first, data)),
                3,
            ),
            "gym.make_vec, and a step, first in a process": (
                partial(seconds_in_new_process, partial(make_and_step, data)),
                1,
            ),
            "gym.make, again in a process": (partial(seconds, partial(makes, data)), 10),
            f"step of {SESSIONS:,}, slates": (partial(seconds, steps(data, "slate")), 10),
            f"step of {SESSIONS:,}, proto-actions": (partial(seconds, steps(data, "proto")), 10),
            "ingest": (partial(seconds, again), 1),
        }
        for name, (measure, times) in measures.items():
            found = sorted(ratios(measure, rounds * times))
            low, middle, high = (found[int(share * len(found))] for share in (0.25, 0.5, 0.75))
            print(f"{name}: {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 9)
