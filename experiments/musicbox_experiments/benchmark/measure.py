"""How speeds are compared: repeated, alternating, in processor time.

Processor time of the process and its children does not count what other programs on the machine
do, so that a busy machine disturbs a ratio little. Ours and theirs alternate; a figure
is the median of the runs, and the smallest and largest ratio stand beside it.
"""

import json
import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from musicbox_env.workers import worker_pool
from musicbox_experiments.benchmark.worlds import random_dataset

MEBIBYTE = 2**20
SHORTEST_SECONDS = 0.2
"""A speed is measured for at least this long."""
PEER_SCRIPT = Path(__file__).with_name("peers.py")
COSTS = ("s", "MiB", "bytes", "hours")
"""Units of which less is better."""

Measure = Callable[[], float]


class NotMeasured(Exception):
    """A figure cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Row:
    """A figure to measure: the system under test beside peers and limits.

    Attributes:
        name: What is measured.
        unit: Of all values; less is better where it is one of `COSTS`.
        ours: Measures the system under test; a number is taken as it is, in one run.
        theirs: Measures of peers by name, or numbers that are limits. The best of them counts.
        target: The least ratio to the best, above 1 where ours is to be better; None where the
            ratio is only reported.
        note: What the reader must know.
    """

    name: str
    unit: str
    ours: Measure | float
    theirs: Mapping[str, Measure | float] = field(default_factory=dict)
    target: float | None = None
    note: str = ""


Result = dict[str, Any]
"""What the runs of a row gave, as benchmark.json has it."""


def measure(row: Row, *, runs: int, section: str) -> Result:
    """Measure a row, ours and theirs alternating; notes why what is left out is."""
    done, notes = [], dict.fromkeys([row.note] if row.note else [])
    for _ in range(runs if callable(row.ours) else 1):
        values = {}
        for name, value in {"": row.ours, **row.theirs}.items():
            try:
                values[name] = value() if callable(value) else value
            except NotMeasured as reason:
                notes[f"{name} {reason}".strip()] = None
        if "" in values:
            done.append(_beside_the_best(values.pop(""), values, is_cost=row.unit in COSTS))
    medians = {name: _median([run[name] for run in done]) for name in ("ours", "theirs", "ratio")}
    asked = row.target is not None and medians["ratio"] is not None
    return {
        **{"section": section, "name": row.name, "unit": row.unit},
        **medians,
        "target": row.target,
        "reached": medians["ratio"] >= row.target if asked else None,
        "runs": done,
        "notes": list(notes),
    }


def _beside_the_best(ours: float, theirs: Mapping[str, float], *, is_cost: bool) -> Result:
    """One run, beside the best peer in it; without a peer there is no ratio."""
    if not theirs:
        return {"ours": ours, "theirs": None, "ratio": None, "peer": ""}
    best = (min if is_cost else max)(theirs, key=lambda name: theirs[name])
    ratio = theirs[best] / max(ours, 1e-12) if is_cost else ours / theirs[best]
    return {"ours": ours, "theirs": theirs[best], "ratio": ratio, "peer": best}


def _median(values: list[float | None]) -> Any:
    there = [value for value in values if value is not None]
    return median(there) if there else None


@dataclass(frozen=True)
class Context:
    """What all sections are given.

    Attributes:
        full: Whether the largest sizes are measured too.
        peers: Python of an environment that holds the peers, or None.
        folder: Where datasets made to measure on are kept between runs.
    """

    full: bool
    peers: Path | None
    folder: Path

    def peer(self, name: str, *arguments: object) -> float:
        """Speed of a peer, measured by the Python that has it; may be `NotMeasured`."""
        if self.peers is None:
            raise NotMeasured("is not measured without --peers PYTHON, see --help")
        command = [str(self.peers), str(PEER_SCRIPT), name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise NotMeasured(f"does not run there ({done.stderr.strip().splitlines()[-1]})")
        return float(json.loads(done.stdout.splitlines()[-1])["speed"])

    def dataset(self, sessions: int, tracks: int) -> str:
        """Folder of a dataset of random plays of that size."""
        return str(random_dataset(self.folder / f"random-{sessions}-{tracks}", sessions, tracks))


def processor_seconds() -> float:
    """Processor time of this process and of its children that ended."""
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in of)


def speed(action: Callable[[], object], units: float = 1.0) -> float:
    """Units a second of processor time, over as many calls as take `SHORTEST_SECONDS`."""
    action()
    calls, began = 0, time.process_time()
    while time.process_time() - began < SHORTEST_SECONDS:
        action()
        calls += 1
    return units * calls / (time.process_time() - began)


Action = Callable[..., Mapping[str, float] | None]


def in_new_process(action: Action, *arguments: object) -> dict[str, float]:
    """Run an importable function in a process of its own.

    Returns:
        ``seconds`` (processor time) and ``clock`` of the call, without imports, ``peak`` memory of
        the process in MiB, and what the function returns.
    """
    with worker_pool(1) as pool:
        found: dict[str, float] = pool.submit(_usage, action, arguments).result()
    return found


def _usage(action: Action, arguments: tuple[object, ...]) -> dict[str, float]:
    began, clock = processor_seconds(), time.perf_counter()
    found = action(*arguments) or {}
    seconds, clock = processor_seconds() - began, time.perf_counter() - clock
    return {"seconds": seconds, "clock": clock, "peak": process_memory("VmHWM"), **found}


def process_memory(kind: str) -> float:
    """MiB of this process as Linux counts them: ``VmHWM``, its peak, or ``RssAnon``, its own.

    The peak of `resource.getrusage` would be that of the parent process too.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))
