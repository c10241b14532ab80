"""What the gain that a learned evaluator states was worth where the truth is known.

`musicbox calibrate-gain` trains and evaluates agents on synthetic sessions, whose law is known, and
writes how the gains stated by the evaluator of the other part compare with the true ones. The table
that was measured so is part of the package, and every report with a learned evaluator quotes it.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musicbox_env.data.dataset import Dataset
from musicbox_experiments import drawing
from musicbox_experiments.compare import plots
from musicbox_experiments.text import show, with_interval

FILE: Final = "known_gains.json"
WAYS: Final = {
    "folds": "agents and evaluator share no play",
    "shared": "agents saw the evaluator's plays",
}
"""What the ways to fit are called."""


def rows(file: Path | None = None) -> list[dict[str, Any]]:
    """The measured table: that of the package, or of a file; empty where there is none."""
    source = resources.files("musicbox_experiments.compare") / FILE if file is None else file
    if not source.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(source.read_text(encoding="utf-8"))["rows"]
    return found


def gains_known(dataset: Dataset, fit_on: str, file: Path | None = None) -> dict[str, Any] | None:
    """The row of the table for a dataset: of the size nearest to its own, on the log scale."""
    fitting = [row for row in rows(file) if row["fit_on"] == fit_on]
    size = np.log(max(dataset.sessions.num_sessions, 1))
    return min(fitting, key=lambda row: abs(np.log(row["sessions"]) - size), default=None)


def describe(row: Mapping[str, Any]) -> str:
    """A row of the table in two sentences."""
    excess, order = row["excess"], row["order"]
    each = [of["excess"]["value"] for of in row["agents"].values()]
    return (
        f"What such a gain is worth, measured on {row['sessions']:,} synthetic sessions where the "
        f"truth is known ({WAYS[row['fit_on']]}): stated gains exceeded true ones by "
        f"{with_interval(excess, 'points')} points on average over {len(each)} agents (from "
        f"{show(min(each), 'points')} to {show(max(each), 'points')}). They ordered the agents "
        f"with a Kendall's tau of {order['value']:.2f} [{order['low']:.2f}, {order['high']:.2f}]."
    )


@drawing.styled
def picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Stated against true gains over the logged policy, a panel a size; on the line they agree."""
    sizes = sorted({row["sessions"] for row in rows})
    figure = drawing.new_figure(0.9 + drawing.WIDTH_INCHES / len(sizes))
    for place, size in enumerate(sizes):
        axes = figure.add_subplot(1, len(sizes), place + 1, title=f"{size:,} sessions")
        axes.set(xlabel="true gain, points", ylabel="stated gain, points")
        axes.axline((0, 0), slope=1, **plots.REFERENCE)
        for row in rows:
            if row["sessions"] == size:
                _draw(axes, row)
        axes.set_box_aspect(1)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _draw(axes: Axes, row: Mapping[str, Any]) -> None:
    """One mark an agent, with both intervals, in points."""
    color, marker, _ = plots.look(row["fit_on"], list(WAYS))
    agents = list(row["agents"].values())
    sides = [
        [plots.Point(*(100 * of[side][end] for end in ("value", "low", "high"))) for of in agents]
        for side in ("true", "stated")
    ]
    x, y = ([point.value for point in points] for points in sides)
    xerr, yerr = (np.array([point.reach for point in points]).T for points in sides)
    label = WAYS[row["fit_on"]]
    axes.errorbar(
        x, y, xerr=xerr, yerr=yerr, fmt=marker, color=color, elinewidth=0.8, label=label, alpha=0.8
    )
