"""Pictures of a comparison.

Every function takes plain data and gives a `Figure`; `drawing.png` turns it into bytes. Colours are
those of Okabe & Ito (Color Universal Design, 2008) and Tol ("bright", 2021), which people with
colour vision deficiencies can tell apart; marker and dash differ too, so that colour is never
alone. An agent's place in ``order``, which lists all agents of the report, decides its colour.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from musicbox_experiments.drawing import (
    HIGHLIGHT,
    MUTED,
    PAPER,
    Rounded,
    canvas,
    percent_ticks,
    styled,
)

_CYCLE: Final = (HIGHLIGHT, "#d55e00", "#009e73", "#aa3377", "#b8860b", "#56b4e9", "#000000")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: Final = ("-", "--", ":", "-.")
REFERENCE: Final[dict[str, Any]] = {"linewidth": 1.2, "linestyle": (0, (4, 3)), "color": MUTED}
"""How lines are drawn that are no agent's."""
Curve = Sequence[tuple[float, float]]
"""Points (steps, value) of one training run."""


@dataclass(frozen=True)
class Point:
    """A value with its interval, as drawn.

    Attributes:
        value: The value.
        low: Lower end of its interval, None where there is none.
        high: Upper end.
        by_seed: The single seeds' values.
    """

    value: float
    low: float | None = None
    high: float | None = None
    by_seed: tuple[float, ...] = ()

    @property
    def reach(self) -> tuple[float, float]:
        """Distance to both ends of the interval, 0 where there is none."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return max(self.value - low, 0.0), max(high - self.value, 0.0)

    def __str__(self) -> str:
        shown = f"{100 * self.value:.1f} %"
        if self.low is None or self.high is None:
            return shown
        return f"{shown}  [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def _logarithmic(axis: Axis) -> None:
    """Count on a logarithmic scale."""
    axis.axes.set_xscale("log")
    axis.set_major_formatter(Rounded())
    axis.set_minor_formatter(NullFormatter())


def look(name: str, order: Sequence[str]) -> tuple[str, str, str]:
    """Colour, marker and dash by the place in ``order``; others are muted.

    28 differ in colour and dash, 49 in colour and marker: a second round of colours has the markers
    of their neighbours.
    """
    if name not in order:
        return MUTED, ".", "-"
    lap, index = divmod(list(order).index(name), len(_CYCLE))
    return (
        _CYCLE[index],
        _MARKERS[(index + 3 * lap) % len(_MARKERS)],
        _DASHES[lap % len(_DASHES)],
    )


def add_legend(figure: Figure, names: Sequence[str] = (), *, below: bool = False) -> None:
    """Name what all panels show, each once, in the order given; at the right, or below."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    shown = [name for name in names or found if name in found]
    place: dict[str, Any] = {"loc": "outside right center"}
    if below:
        place = {"loc": "outside lower center", "ncols": 5}
    figure.legend([found[name] for name in shown], shown, **place)


@styled
def forest(
    points: Mapping[str, Point], *, references: Sequence[str] = ("logged", "skyline")
) -> Figure:
    """Skip rates, a row an agent, lowest on top: value, interval, single seeds as small dots.

    Where ``references`` are present, they are hollow marks with a line through all rows.
    """
    names = sorted(points, key=lambda n: points[n].value, reverse=True)
    figure, axes = canvas(1.5 + 0.42 * len(names), x="skip rate")
    for row, name in enumerate(names):
        point, special = points[name], name in references
        colour = MUTED if special else HIGHLIGHT
        if special:
            axes.axvline(point.value, **REFERENCE)
        axes.errorbar(
            point.value,
            row,
            xerr=np.array(point.reach)[:, None],
            fmt="o",
            color=colour,
            markerfacecolor=PAPER if special else colour,
            markersize=8,
            capsize=4,
            zorder=4,
        )
        if len(point.by_seed) > 1:
            below = np.full(len(point.by_seed), row - 0.24)
            axes.plot(point.by_seed, below, ".", color=colour, alpha=0.65, markersize=5)
        axes.annotate(
            str(point),
            (1.015, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10.5,
            annotation_clip=False,
        )
    axes.set_yticks(range(len(names)), names, fontsize=12)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    percent_ticks(axes.xaxis)
    return figure


@styled
def scatter(
    x: Mapping[str, Point],
    y: Mapping[str, Point],
    *,
    hollow: Sequence[str] = ("logged", "skyline"),
    order: Sequence[str] = (),
) -> Figure:
    """Skip rates ``y`` against effective catalog sizes ``x``, with both intervals."""
    figure, axes = canvas(6.2, x="effective catalog size", y="skip rate")
    _logarithmic(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # agents often lie within a decade
    for name in x:
        colour, marker, _ = look(name, order or list(x))
        # A lower end at or below 0 (few seeds) cannot be drawn on a logarithmic axis.
        left, right = x[name].reach
        axes.errorbar(
            x[name].value,
            y[name].value,
            xerr=[[min(left, 0.9 * x[name].value)], [right]],
            yerr=np.array(y[name].reach)[:, None],
            fmt=marker,
            color=colour,
            markerfacecolor=PAPER if name in hollow else colour,
            markersize=9,
            elinewidth=1.3,
            label=name,
        )
    percent_ticks(axes.yaxis)
    axes.margins(0.12)
    add_legend(figure, sorted(x, key=lambda name: y[name].value, reverse=True))
    return figure


@styled
def learning_curves(
    curves: Mapping[str, Mapping[int, Curve]], *, order: Sequence[str] = ()
) -> Figure:
    """Validation skip rate by training steps: mean of the seeds, band from lowest to highest."""
    figure, axes = canvas(5.2, x="training steps", y="validation skip rate")
    for agent, by_seed in curves.items():
        colour, _, dash = look(agent, order or list(curves))
        steps, values = _common_steps(by_seed.values())
        mean = values.mean(axis=0)
        axes.plot(steps, mean, "o" if len(steps) == 1 else dash, color=colour, label=agent)
        if len(values) > 1:
            band = values.min(axis=0), values.max(axis=0)
            axes.fill_between(steps, *band, color=colour, alpha=0.18, linewidth=0)
    axes.xaxis.set_major_formatter(Rounded())
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    percent_ticks(axes.yaxis)
    add_legend(figure)
    return figure


def _common_steps(curves: Iterable[Curve]) -> tuple[npt.NDArray, npt.NDArray]:
    """Seeds' curves on the steps that all of them span, ``(s,)`` and ``(seeds, s)``."""
    arrays = [np.asarray(sorted(c), dtype=np.float64) for c in curves]
    first, last = max(a[0, 0] for a in arrays), min(a[-1, 0] for a in arrays)
    steps = np.unique(np.concatenate([a[:, 0] for a in arrays]))
    steps = steps[(steps >= first) & (steps <= last)]
    if not len(steps):
        steps = np.array([last])
    return steps, np.stack([np.interp(steps, a[:, 0], a[:, 1]) for a in arrays])


@styled
def exposure_curves(
    exposures: Mapping[str, npt.NDArray[np.integer]], *, order: Sequence[str] = ()
) -> Figure:
    """Share of all plays that the most played songs have: the Lorenz curve, read from its top.

    The x axis counts songs on a logarithmic scale, since an agent that plays ten songs to everybody
    and one that plays three hundred look the same on a linear scale of the whole catalog.
    """
    figure, axes = canvas(5.2, x="most played songs of the agent", y="share of all its plays")
    _logarithmic(axes.xaxis)
    num_tracks = max(len(counts) for counts in exposures.values())
    even = "every song equally"
    ranks = np.unique(np.geomspace(1, num_tracks, 200).astype(int))
    axes.plot(ranks, ranks / num_tracks, label=even, **REFERENCE)
    distinct = {agent: int(np.count_nonzero(counts)) for agent, counts in exposures.items()}
    drawn = sorted((a for a in exposures if distinct[a]), key=lambda a: distinct[a])
    for agent in drawn:
        colour, _, dash = look(agent, order or list(exposures))
        shares = np.cumsum(np.sort(exposures[agent])[::-1]) / exposures[agent].sum()
        ranks = np.unique(np.geomspace(1, distinct[agent], 400).astype(int))
        axes.plot(ranks, shares[ranks - 1], dash, color=colour, label=agent)
        axes.plot(ranks[-1], 1.0, "o", color=colour, markersize=6, clip_on=False, zorder=4)
    axes.set(xlim=(1, num_tracks), ylim=(0, 1.03))
    percent_ticks(axes.yaxis)
    add_legend(figure, [*drawn, even])
    return figure


@styled
def by_position(
    rates: Mapping[str, npt.NDArray[np.float64]],
    *,
    order: Sequence[str] = (),
    x: str = "n-th song recommended in the session",
    bands: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> Figure:
    """Skip rate of the first, second, ... song, NaN where no session went so far.

    ``bands`` holds the interval ``(2, places)`` of those that are drawn with theirs.
    """
    figure, axes = canvas(5.2, x=x, y="skip rate")
    for name, values in rates.items():
        colour, marker, dash = look(name, order or list(rates))
        places = np.arange(1, len(values) + 1)
        axes.plot(places, values, dash, marker=marker, color=colour, label=name)
        if bands and name in bands:
            axes.fill_between(places, *bands[name], color=colour, alpha=0.22, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_ticks(axes.yaxis)
    add_legend(figure, sorted(rates, key=lambda a: float(np.nanmean(rates[a])), reverse=True))
    return figure
