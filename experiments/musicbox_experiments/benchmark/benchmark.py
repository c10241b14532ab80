"""Measure speed and memory side by side with peers and limits.

Every figure is a ratio within one run on one machine; seconds of different machines cannot be
compared, ratios mostly can. Written to --out: benchmark.json, benchmark.png (cost against size)
and the table that is printed.

Peers that the project does not depend on are measured with a Python of their own: make a virtual
environment, `pip install sardine-rec==1.0.8 faiss-cpu sbx-rl` there, and pass its Python as
--peers. Without it their figures are left out, by name.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from musicbox_env.schema import require_known
from musicbox_experiments.benchmark.measure import Found, Point, Record, Setting
from musicbox_experiments.benchmark.sections import SECTIONS
from musicbox_experiments.compare.plots import THEME, png

BYTES_A_GIGABYTE = 1e9


@dataclass(frozen=True)
class BenchmarkConfig:
    """What to measure, and how often."""

    only: tuple[str, ...] = ()
    """Sections: environment, retrieval, approximate, training, ingest, memory, statistics; all if
    left out."""
    runs: int = 3
    """Turns of each comparison."""
    full: bool = False
    """Measure the largest sizes too: 3.7 million tracks, millions of plays."""
    peers: Path | None = None
    """Python of a virtual environment that holds sardine-rec, faiss-cpu and sbx-rl."""
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
    worlds = config.out / "worlds"
    worlds.mkdir(parents=True, exist_ok=True)
    setting = Setting(config.runs, config.full, config.peers, worlds, _say)
    whole = Found([], [])
    for section in config.only or SECTIONS:
        found = SECTIONS[section](setting)
        whole.records += found.records
        whole.points += found.points
        _write(config.out, whole)  # after each: sections take minutes
    print(f"{machine()}\n{text_table(whole.records)}")
    print(f"Written to {config.out}: benchmark.json, benchmark.txt, benchmark.png.")


def _write(out: Path, found: Found) -> None:
    content = {
        "machine": machine(),
        "records": [asdict(record) for record in found.records],
        "points": [asdict(point) for point in found.points],
    }
    (out / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n")
    (out / "benchmark.txt").write_text(f"{machine()}\n{text_table(found.records)}\n")
    (out / "benchmark.png").write_bytes(png(picture(found.points)))


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


def machine() -> str:
    """The machine in general terms."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / BYTES_A_GIGABYTE
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB, "
        f"Python {platform.python_version()}"
    )


def text_table(records: Sequence[Record]) -> str:
    """The records as a table: one line each, notes below."""
    rows: list[tuple[str, ...]]
    rows = [("", "ours", "theirs", "unit", "ratio", "of runs", "bar", "")]
    rows += [_row(record) for record in records]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 3, 7) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    notes = [f"  {record.name}: {record.note}" for record in records if record.note]
    return "\n".join([*lines, *(["", "Notes", *notes] if notes else [])])


def _row(record: Record) -> tuple[str, ...]:
    if record.ours is None:
        return (record.name, "", "", "", "", "", "", "skipped")
    spread = record.spread
    return (
        record.name,
        _short(record.ours),
        "" if record.theirs is None else _short(record.theirs),
        record.unit,
        "" if record.ratio is None else f"{record.ratio:.3g}",
        "" if spread is None else f"{spread[0]:.3g} .. {spread[1]:.3g}",
        "" if record.bar is None else f"{record.bar:g}",
        {True: "reached", False: "SHORT", None: ""}[record.reached],
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def picture(points: Sequence[Point]) -> Figure:
    """Cost against size, an axis for each thing that grows, both scales logarithmic."""
    kinds = list(dict.fromkeys(point.size_of for point in points))
    figure = Figure(figsize=(9, 4 * max(1, (len(kinds) + 1) // 2)), layout="constrained")
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot((len(kinds) + 1) // 2, 2, place + 1)
        here = [point for point in points if point.size_of == kind]
        for colour, curve in zip(
            THEME.cycle, dict.fromkeys(point.curve for point in here), strict=False
        ):
            of_curve = [point for point in here if point.curve == curve]
            sizes = sorted({point.size for point in of_curve})
            least = [min(p.cost for p in of_curve if p.size == size) for size in sizes]
            axes.plot(sizes, least, color=colour, marker="o", label=curve)
            axes.scatter([p.size for p in of_curve], [p.cost for p in of_curve], s=8, color=colour)
        axes.set(xscale="log", yscale="log", xlabel=kind, ylabel="processor seconds")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.set_ylim(bottom=min(p.cost for p in here) / 3, top=max(p.cost for p in here) * 3)
        axes.grid(color=THEME.grid)
        axes.legend(frameon=False)
    return figure
