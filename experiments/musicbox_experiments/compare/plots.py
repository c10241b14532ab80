"""Pictures of a comparison, drawn with matplotlib's object interface: no global state, no window.

Every function takes plain data and gives a `Figure`; `png` turns it into bytes. Colours are those
of Okabe & Ito (Color Universal Design, 2008) and Tol ("bright", 2021), which people with colour
vision deficiencies can tell apart; marker and dash differ too, so that colour is never alone. An
agent's place in ``order``, which lists all agents of the report, decides its colour.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

WIDTH_INCHES: Final = 9.0
DPI: Final = 150

_CYCLE: Final = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#b8860b", "#56b4e9", "#000000")
Curve = Sequence[tuple[float, float]]
"""Points (steps, value) of one training run."""


@dataclass(frozen=True)
class Theme:
    """Colours of the pictures."""

    paper: str = "#ffffff"  # background
    ink: str = "#1d2230"  # text
    muted: str = "#6b7280"  # axes, ticks, reference lines
    grid: str = "#e6e8ee"
    cycle: tuple[str, ...] = _CYCLE  # agents
    highlight: str = "#0072b2"  # intervals, where agents need no colour of their own


THEME: Final = Theme()
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: Final = ("-", "--", ":", "-.")
_REFERENCE: Final[dict[str, Any]] = {
    "linewidth": 1.2,
    "linestyle": (0, (4, 3)),
    "color": THEME.muted,
}
"""How lines are drawn that are no agent's."""


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


def png(figure: Figure) -> bytes:
    """Render a figure as a PNG 1,350 pixels wide."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def new_figure(height: float) -> Figure:
    """An empty figure `WIDTH_INCHES` wide and ``height`` inches high."""
    figure = Figure(
        figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor=THEME.paper, layout="constrained"
    )
    FigureCanvasAgg(figure)
    return figure


def _canvas(height: float, *, x: str, y: str = "") -> tuple[Figure, Axes]:
    """A figure with one pair of axes, and their labels."""
    figure = new_figure(height)
    axes = figure.add_subplot()
    dress(axes)
    axes.set_xlabel(x, color=THEME.ink, fontsize=12, labelpad=8)
    axes.set_ylabel(y, color=THEME.ink, fontsize=12, labelpad=8)
    return figure, axes


def dress(axes: Axes, *, labelsize: int = 11) -> None:
    """Give axes the colours and grid of `THEME`; ``labelsize`` is that of the ticks, in points."""
    axes.set_facecolor(THEME.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(THEME.muted)
    axes.tick_params(which="both", color=THEME.muted, labelcolor=THEME.ink, labelsize=labelsize)
    axes.grid(color=THEME.grid, linewidth=0.8)
    axes.set_axisbelow(True)


def _percent_ticks(axis: Axis, values: Iterable[float]) -> None:
    """Show shares in percent, with a decimal only where the range is narrow."""
    values = [v for v in values if np.isfinite(v)]
    narrow = bool(values) and max(values) - min(values) < 0.05
    axis.set_major_formatter(PercentFormatter(1.0, decimals=1 if narrow else 0, symbol=" %"))
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))  # 2.5 would be rounded


def _logarithmic(axis: Axis) -> None:
    """Count on a logarithmic scale."""
    axis.axes.set_xscale("log")
    axis.set_major_formatter(FuncFormatter(_thousands))
    axis.set_minor_formatter(NullFormatter())


def _thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _style(name: str, order: Sequence[str]) -> tuple[str, str, str]:
    """Colour, marker and dash of an agent by its place in ``order``: 28 that differ."""
    cycle, index = THEME.cycle, list(order).index(name)
    return (
        cycle[index % len(cycle)],
        _MARKERS[index % len(_MARKERS)],
        _DASHES[index // len(cycle) % len(_DASHES)],
    )


def forest(
    points: Mapping[str, Point], *, references: Sequence[str] = ("logged", "skyline")
) -> Figure:
    """Skip rates, a row an agent, lowest on top: value, interval, single seeds as small dots.

    Where ``references`` are present, they are hollow marks with a line through all rows.
    """
    names = sorted(points, key=lambda n: points[n].value, reverse=True)
    figure, axes = _canvas(1.5 + 0.42 * len(names), x="skip rate")
    for row, name in enumerate(names):
        point, special = points[name], name in references
        colour = THEME.muted if special else THEME.highlight
        if special:
            axes.axvline(point.value, **_REFERENCE)
        axes.errorbar(
            point.value,
            row,
            xerr=np.array(point.reach)[:, None],
            fmt="o",
            color=colour,
            markerfacecolor=THEME.paper if special else colour,
            markersize=8,
            elinewidth=2.4,
            capsize=4,
            zorder=4,
        )
        if len(point.by_seed) > 1:
            axes.plot(
                point.by_seed,
                np.full(len(point.by_seed), row - 0.24),
                ".",
                color=colour,
                alpha=0.65,
                markersize=5,
                zorder=3,
            )
        axes.annotate(
            _interval_text(point),
            (1.015, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10.5,
            color=THEME.ink,
            annotation_clip=False,
        )
    axes.set_yticks(range(len(names)), names, fontsize=12)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    _percent_ticks(axes.xaxis, [p.value for p in points.values()])
    return figure


def _interval_text(point: Point) -> str:
    if point.low is None or point.high is None:
        return f"{100 * point.value:.1f} %"
    return f"{100 * point.value:.1f} %  [{100 * point.low:.1f}, {100 * point.high:.1f}]"


def scatter(
    x: Mapping[str, Point],
    y: Mapping[str, Point],
    *,
    hollow: Sequence[str] = ("logged", "skyline"),
    order: Sequence[str] = (),
) -> Figure:
    """Skip rates ``y`` against effective catalog sizes ``x``, with both intervals."""
    figure, axes = _canvas(6.2, x="effective catalog size", y="skip rate")
    _logarithmic(axes.xaxis)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # agents often lie within a decade
    for name in x:
        colour, marker, _ = _style(name, order or list(x))
        # A lower end at or below 0 (few seeds) cannot be drawn on a logarithmic axis.
        left, right = x[name].reach
        axes.errorbar(
            x[name].value,
            y[name].value,
            xerr=[[min(left, 0.9 * x[name].value)], [right]],
            yerr=np.array(y[name].reach)[:, None],
            fmt=marker,
            color=colour,
            markerfacecolor=THEME.paper if name in hollow else colour,
            markeredgewidth=1.6,
            markersize=9,
            elinewidth=1.3,
            zorder=3,
        )
    _percent_ticks(axes.yaxis, [p.value for p in y.values()])
    axes.margins(0.12)
    _place_names(figure, axes, {n: (x[n].value, y[n].value) for n in x})
    return figure


def _place_names(figure: Figure, axes: Axes, anchors: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, where it overlaps least with points and other names.

    A line leads from a name that found no place close by to its point.
    """
    figure.draw_without_rendering()
    frame = np.array([axes.get_window_extent().extents])
    scale = figure.dpi / 72
    pixels = {name: axes.transData.transform(point) for name, point in anchors.items()}
    taken = [np.array([x - 10, y - 10, x + 10, y + 10]) for x, y in pixels.values()]
    for name, (x, y) in pixels.items():
        text = axes.annotate(
            name,
            anchors[name],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=11,
            color=THEME.ink,
            arrowprops={"arrowstyle": "-", "color": THEME.muted, "shrinkA": 0, "shrinkB": 10},
            zorder=5,
        )
        width, height = text.get_window_extent().size
        corners = [
            (
                x + scale * distance * dx + (dx - 1) / 2 * width,
                y + scale * distance * dy + (dy - 1) / 2 * height,
            )
            for distance in (9, 18, 30, 45)
            for dx, dy in ((1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (0, 1), (0, -1))
        ]
        boxes = np.array([(left, low, left + width, low + height) for left, low in corners])
        costs = (
            _overlaps(boxes, np.array(taken)).sum(axis=1)
            + 10 * (width * height - _overlaps(boxes, frame)[:, 0])
            + np.arange(len(boxes))
        )
        best = boxes[int(np.argmin(costs))]
        # Offsets count from the point to the lower left corner of the text.
        text.set_position(((best[0] - x) / scale, (best[1] - y) / scale))
        taken.append(best)


def _overlaps(boxes: npt.NDArray, others: npt.NDArray) -> npt.NDArray:
    """Shared area of boxes ``(n, 4)`` and ``(m, 4)`` given as x0, y0, x1, y1: ``(n, m)``."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=2)


def learning_curves(
    curves: Mapping[str, Mapping[int, Curve]], *, order: Sequence[str] = ()
) -> Figure:
    """Validation skip rate by training steps: mean of the seeds, band from lowest to highest."""
    figure, axes = _canvas(5.2, x="training steps", y="validation skip rate")
    shown: list[float] = []
    for agent, by_seed in curves.items():
        colour, _, dash = _style(agent, order or list(curves))
        steps, values = _common_steps(by_seed.values())
        mean = values.mean(axis=0)
        shown.extend(mean)
        single = len(steps) == 1
        axes.plot(
            steps, mean, "o" if single else dash, color=colour, linewidth=2.2, label=agent, zorder=3
        )
        if len(values) > 1:
            axes.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0
            )
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    _percent_ticks(axes.yaxis, shown)
    _legend(axes, list(curves))
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


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines at the right, in the order given."""
    handles, labels = axes.get_legend_handles_labels()
    by_name = dict(zip(labels, handles, strict=True))
    axes.legend(
        [by_name[n] for n in names if n in by_name],
        [n for n in names if n in by_name],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=11,
        labelcolor=THEME.ink,
        handlelength=2.6,
    )


def exposure_curves(
    exposures: Mapping[str, npt.NDArray[np.integer]],
    *,
    order: Sequence[str] = (),
) -> Figure:
    """Share of all plays that the most played songs have: the Lorenz curve, read from its top.

    The x axis counts songs on a logarithmic scale, since an agent that plays ten songs to everybody
    and one that plays three hundred look the same on a linear scale of the whole catalog.
    """
    figure, axes = _canvas(5.2, x="most played songs of the agent", y="share of all its plays")
    _logarithmic(axes.xaxis)
    num_tracks = max(len(counts) for counts in exposures.values())
    even = "every song equally"
    ranks = np.unique(np.geomspace(1, num_tracks, 200).astype(int))
    axes.plot(ranks, ranks / num_tracks, label=even, **_REFERENCE)
    distinct = {agent: int(np.count_nonzero(counts)) for agent, counts in exposures.items()}
    drawn = sorted((a for a in exposures if distinct[a]), key=lambda a: distinct[a])
    for agent in drawn:
        colour, _, dash = _style(agent, order or list(exposures))
        shares = np.cumsum(np.sort(exposures[agent])[::-1]) / exposures[agent].sum()
        ranks = np.unique(np.geomspace(1, distinct[agent], 400).astype(int))
        axes.plot(ranks, shares[ranks - 1], dash, color=colour, linewidth=2.2, label=agent)
        axes.plot(ranks[-1], 1.0, "o", color=colour, markersize=6, clip_on=False, zorder=4)
    axes.set_xlim(1, num_tracks)
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    _legend(axes, [*drawn, even])
    return figure


def by_position(
    rates: Mapping[str, npt.NDArray[np.float64]],
    *,
    order: Sequence[str] = (),
) -> Figure:
    """Skip rate of the first, second, ... song recommended, NaN where no session went so far."""
    figure, axes = _canvas(5.2, x="n-th song recommended in the session", y="skip rate")
    for agent, values in rates.items():
        colour, marker, dash = _style(agent, order or list(rates))
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            dash,
            marker=marker,
            markersize=6,
            color=colour,
            linewidth=1.8,
            label=agent,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent_ticks(axes.yaxis, np.concatenate(list(rates.values())))
    _legend(axes, sorted(rates, key=lambda a: float(np.nanmean(rates[a])), reverse=True))
    return figure
