"""Measure speed and memory side by side with peers and limits.

Every figure is a ratio within one run on one machine; seconds of different machines cannot be
compared, ratios mostly can. Written to --out: benchmark.json, with every run, and benchmark.txt,
the table that is printed.

Peers that the project does not depend on are measured with a Python of their own: make a virtual
environment, `pip install sardine-rec==1.0.8 sbx-rl` there, and pass its Python as --peers. Without
it their figures are left out, by name.
"""

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from musicbox_agents.base import require_ranges
from musicbox_agents.sessions import one_thread

from musicbox_env.locks import held
from musicbox_env.schema import require_known
from musicbox_experiments.benchmark.agents import agents, statistics
from musicbox_experiments.benchmark.environment import environment, listeners
from musicbox_experiments.benchmark.ingest import ingest
from musicbox_experiments.benchmark.measure import Context, Result, Row, measure
from musicbox_experiments.benchmark.retrieval import retrieval
from musicbox_experiments.text import columns, say

BYTES_A_GIGABYTE = 1e9
SECTIONS: dict[str, Callable[[Context], Iterator[Row]]] = {
    "environment": environment,
    "listeners": listeners,
    "retrieval": retrieval,
    "ingest": ingest,
    "agents": agents,
    "statistics": statistics,
}


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure, and how often."""

    only: tuple[str, ...] = ()
    """Sections: environment, listeners, retrieval, ingest, agents, statistics; all if left out."""
    runs: int = 3
    """Repetitions of each comparison, ours and theirs alternating; the median counts."""
    full: bool = False
    """Measure the largest sizes too: 3.7 million tracks, millions of plays, whole trainings."""
    peers: Path | None = None
    """Python of a virtual environment that holds sardine-rec and sbx-rl."""
    out: Path = Path("runs/benchmark")
    """Where results are written; datasets to measure on are kept below it."""

    def __post_init__(self) -> None:
        for section in self.only:
            require_known("section", section, SECTIONS)
        require_ranges(self, {"runs": (1, math.inf)})
        if self.peers is not None and not self.peers.exists():
            raise FileNotFoundError(f"There is no Python at {self.peers}; see --help.")


def run(config: BenchmarkConfig) -> None:
    """Measure, print the table, and write everything."""
    with held(config.out):
        _run(config)


def _run(config: BenchmarkConfig) -> None:
    folder = config.out / "worlds"
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(config.full, config.peers, folder)
    results: list[Result] = []
    with one_thread():
        for section in config.only or SECTIONS:
            say(f"measuring {section} ...", to_errors=True)
            for row in SECTIONS[section](context):
                say(f"  {row.name}", to_errors=True)
                results.append(measure(row, runs=config.runs, section=section))
                _write(config.out, results)  # after each: rows take minutes
    say(f"{machine()}\n{text_table(results)}")
    say(f"Written to {config.out}: benchmark.json, benchmark.txt.")


def _write(out: Path, results: Sequence[Result]) -> None:
    content = {"machine": machine(), "results": results}
    (out / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")
    (out / "benchmark.txt").write_text(f"{machine()}\n{text_table(results)}\n")


def machine() -> str:
    """The machine in general terms."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / BYTES_A_GIGABYTE
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB, "
        f"Python {platform.python_version()}"
    )


def text_table(results: Sequence[Result]) -> str:
    """The results as a table: one line each, notes below."""
    header = ("", "beside", "unit", "ours", "theirs", "ratio", "of runs", "target", "")
    table = columns([header, *map(_cells, results)], left=3)
    notes = [f"  {r['name']}: {'; '.join(r['notes'])}" for r in results if r["notes"]]
    return "\n".join([table, *(["", "Notes", *notes] if notes else [])])


def _cells(result: Result) -> tuple[str, ...]:
    ratios = [run["ratio"] for run in result["runs"] if run["ratio"] is not None]
    outcome = {True: "reached", False: "SHORT", None: ""}[result["reached"]]
    return (
        result["name"],
        result["runs"][-1]["peer"] if result["runs"] else "",
        result["unit"],
        *(_short(result[name]) for name in ("ours", "theirs", "ratio")),
        f"{_short(min(ratios))} .. {_short(max(ratios))}" if ratios else "",
        _short(result["target"]),
        outcome if result["runs"] else "not measured",
    )


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
