"""How speeds are compared: side by side, in turns, several times, in processor time.

Processor time of the process and its children does not count what other programs on the machine
do, so that a busy machine disturbs a ratio little. A run takes turns, ours and theirs, and each
figure is the median of the runs with the smallest and the largest beside it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

MEBIBYTE = 2**20
SHORTEST_SECONDS = 0.2
"""A speed is measured for at least this long."""
PEER_SCRIPT = Path(__file__).with_name("peers.py")


@dataclass(frozen=True)
class Run:
    """One turn each."""

    ours: float
    theirs: float
    ratio: float


@dataclass(frozen=True)
class Record:
    """One figure.

    Attributes:
        section: Where it belongs.
        name: What is measured.
        unit: Of ``ours`` and ``theirs``.
        ours: Median over the runs.
        theirs: The peer's or limit's; None where there is none.
        ratio: What ``bar`` asks of, above 1 where ours is better; None where nothing is asked.
        bar: The least ratio; None where it is only reported.
        runs: What each run gave.
        note: What the reader must know.
    """

    section: str
    name: str
    unit: str
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    bar: float | None = None
    runs: Sequence[Run] = field(default_factory=tuple)
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the bar is reached; None where there is none, or nothing was measured."""
        return None if self.bar is None or self.ratio is None else self.ratio >= self.bar

    @property
    def spread(self) -> tuple[float, float] | None:
        """Smallest and largest ratio over the runs."""
        if self.ratio is None or not self.runs:
            return None
        return min(run.ratio for run in self.runs), max(run.ratio for run in self.runs)


@dataclass(frozen=True)
class Point:
    """Cost at one size, for the picture.

    Attributes:
        curve: Which line it belongs to.
        size_of: What grows, the axis.
        size: How large it is.
        cost: Processor time in seconds.
    """

    curve: str
    size_of: str
    size: float
    cost: float


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


def compare(
    section: str,
    name: str,
    unit: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    runs: int,
    bar: float | None,
    less_is_better: bool = False,
    note: str = "",
) -> Record:
    """Measure in turns; the ratio is that of ours over theirs, or the inverse of costs."""
    pairs = [(ours(), theirs()) for _ in range(runs)]
    return summed_up(section, name, unit, pairs, bar, less_is_better=less_is_better, note=note)


def summed_up(
    section: str,
    name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    bar: float | None,
    *,
    less_is_better: bool = False,
    note: str = "",
) -> Record:
    """Medians over runs that gave (ours, theirs)."""
    done = [Run(a, b, b / max(a, 1e-12) if less_is_better else a / b) for a, b in pairs]
    return Record(
        section,
        name,
        unit,
        median(run.ours for run in done),
        median(run.theirs for run in done),
        median(run.ratio for run in done),
        bar,
        done,
        note,
    )


def against_limit(
    section: str,
    name: str,
    unit: str,
    ours: Callable[[], float],
    limit: float,
    *,
    runs: int,
    note: str = "",
) -> Record:
    """A cost that must stay below a limit; the ratio is how many times it fits."""
    pairs = [(ours(), limit) for _ in range(runs)]
    return summed_up(section, name, unit, pairs, 1.0, less_is_better=True, note=note)


def skipped(section: str, name: str, why: str) -> Record:
    """A figure that could not be measured here, and what it needs."""
    return Record(section, name, "", note=f"skipped: {why}")
