"""Measure speed and memory side by side with peers and limits.

Every figure is a ratio within one run on one machine; seconds of different machines cannot be
compared, ratios mostly can. Written to --out: benchmark.json, benchmark.txt (the table that is
printed) and benchmark.png (cost against size).

Peers that the project does not depend on are measured with a Python of their own: make a virtual
environment, `pip install sardine-rec==1.0.8 sbx-rl` there, and pass its Python as --peers. Without
it their figures are left out, by name.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from musicbox_agents.threads import one_thread

from musicbox_env.schema import require_known
from musicbox_experiments.benchmark.agents import agents, statistics
from musicbox_experiments.benchmark.environment import environment, listeners
from musicbox_experiments.benchmark.ingest import ingest
from musicbox_experiments.benchmark.measure import COSTS, Context, Result, Row, measure
from musicbox_experiments.benchmark.retrieval import retrieval
from musicbox_experiments.text import columns

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
    """Turns of each comparison."""
    full: bool = False
    """Measure the largest sizes too: 3.7 million tracks, millions of plays, whole trainings."""
    peers: Path | None = None
    """Python of a virtual environment that holds sardine-rec and sbx-rl."""
    out: Path = Path("runs/benchmark")
    """Where results are written; datasets to measure on are kept below it."""

    def __post_init__(self) -> None:
        for section in self.only:
            require_known("section", section, SECTIONS)
        if self.runs < 1:
            raise ValueError(f"runs is {self.runs}; it must be 1 or more.")
        if self.peers is not None and not self.peers.exists():
            raise FileNotFoundError(f"There is no Python at {self.peers}; see --help.")


def run(config: BenchmarkConfig) -> None:
    """Measure, print the table, and write everything."""
    folder = config.out / "worlds"
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(config.full, config.peers, folder)
    results: list[Result] = []
    with one_thread():
        for section in config.only or SECTIONS:
            print(f"measuring {section} ...", file=sys.stderr, flush=True)
            for row in SECTIONS[section](context):
                print(f"  {row.name}", file=sys.stderr, flush=True)
                results.append(measure(row, runs=config.runs, section=section))
            _write(config.out, results)  # after each: sections take minutes
    print(f"{machine()}\n{text_table(results)}")
    print(f"Written to {config.out}: benchmark.json, benchmark.txt, benchmark.png.")


def _write(out: Path, results: Sequence[Result]) -> None:
    content = {"machine": machine(), "results": results}
    (out / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")
    (out / "benchmark.txt").write_text(f"{machine()}\n{text_table(results)}\n")
    picture(results).savefig(out / "benchmark.png", dpi=150)


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


def picture(results: Sequence[Result]) -> Figure:
    """Least cost against size, axes for each thing that grows, both scales logarithmic."""
    costs = pd.DataFrame(
        [
            (*result["point"], run["ours"] if result["unit"] in COSTS else 1 / run["ours"])
            for result in results
            for run in result["runs"]
            if result["point"] is not None
        ],
        columns=["axis", "curve", "size", "cost"],
    )
    axes_of = costs.groupby("axis", sort=False)
    figure = Figure(figsize=(9, 4 * max(1, (len(axes_of) + 1) // 2)), layout="constrained")
    for place, (name, of_axis) in enumerate(axes_of, 1):
        axes = figure.add_subplot((len(axes_of) + 1) // 2, 2, place)
        for curve, of_curve in of_axis.groupby("curve", sort=False):
            least = of_curve.groupby("size").cost.min()
            axes.plot(least.index, least, marker="o", label=curve)
        axes.set(xscale="log", yscale="log", xlabel=name, ylabel="processor seconds")
        axes.set_ylim(bottom=of_axis.cost.min() / 3, top=of_axis.cost.max() * 3)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure
