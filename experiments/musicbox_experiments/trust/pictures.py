"""Pictures of the trust report, in the palette of `plots`: a colour and a mark for each listener.

Every function takes plain data and gives a `Figure`; see `plots` for the conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from musicbox_experiments.compare.plots import THEME, WIDTH_INCHES, Point, Theme, dress, new_figure

MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
CURVE_PANELS: Final = 3
_LEGEND_COLUMNS: Final = 5
_DASHED: Final = (0, (4, 3))
_QUARTERS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)

Curve = Sequence[tuple[float, Point]]
"""(predicted, real with its interval) of each bin."""


def _dress(axes: Axes, theme: Theme, *, title: str = "", x: str = "", y: str = "") -> None:
    dress(axes, labelsize=10)
    axes.set_title(title, color=theme.ink, fontsize=12, loc="left", pad=8)
    axes.set_xlabel(x, color=theme.ink, fontsize=11, labelpad=6)
    axes.set_ylabel(y, color=theme.ink, fontsize=11, labelpad=6)


def _colour(name: str, order: Sequence[str], theme: Theme) -> str:
    """A listener's colour by its place in the report; whatever is no listener is muted."""
    if name not in order:
        return theme.muted
    return theme.cycle[list(order).index(name) % len(theme.cycle)]


def _marker(name: str, order: Sequence[str]) -> str:
    return MARKERS[list(order).index(name) % len(MARKERS)] if name in order else "."


def _percent(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _legend(
    figure: Figure, panels: Sequence[Axes], theme: Theme, *, order: Sequence[str] = ()
) -> None:
    """One legend below all panels, each name once, those of ``order`` first."""
    known: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    names = [*(n for n in order if n in known), *(n for n in known if n not in order)]
    figure.legend(
        [known[n] for n in names],
        names,
        loc="outside lower center",
        ncols=min(len(names), _LEGEND_COLUMNS),
        frameon=False,
        fontsize=11,
        labelcolor=theme.ink,
    )


def _errors(points: Sequence[Point]) -> np.ndarray:
    return np.array([p.reach for p in points]).T


def calibration(
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    order: Sequence[str],
    x: str,
    y: str,
    theme: Theme = THEME,
) -> Figure:
    """Predicted against real, a panel each; the dashed diagonal is what a perfect listener shows.

    Args:
        panels: For each panel its curves by name; names that are no listener are drawn muted.
        order: Listeners of the report.
        x: Name of the prediction.
        y: Name of what it is held against.
        theme: Colours.
    """
    columns = 2 if len(panels) == 4 else min(CURVE_PANELS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(0.4 + rows * (WIDTH_INCHES / columns + 0.3))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < len(panels))
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        _dress(axes, theme, title=title)
        axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1.2, linestyle=_DASHED)
        for name, curve in curves.items():
            axes.errorbar(
                [predicted for predicted, _ in curve],
                [real.value for _, real in curve],
                yerr=_errors([real for _, real in curve]),
                fmt=_marker(name, order) + "-",
                color=_colour(name, order, theme),
                markersize=5,
                linewidth=1.3,
                elinewidth=1.6,
                label=name,
                zorder=4 if name in order else 3,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_box_aspect(1)
        axes.set_xticks(_QUARTERS, [f"{100 * t:.0f}" for t in _QUARTERS])
        axes.set_yticks(_QUARTERS, [f"{100 * t:.0f}" for t in _QUARTERS])
    for axes in grid[:, 0]:
        axes.set_ylabel(f"{y}, %")
    for column in range(columns):
        lowest = max(row for row in range(rows) if row * columns + column < len(panels))
        grid[lowest, column].set_xlabel(f"{x}, %")
        grid[lowest, column].tick_params(labelbottom=True)
    if any(len(curves) > 1 for curves in panels.values()):
        _legend(figure, list(grid.flat), theme, order=order)
    return figure


def by_part(
    parts: Mapping[str, Mapping[str, Mapping[str, Point]]],
    *,
    order: Sequence[str],
    y: str,
    theme: Theme = THEME,
) -> Figure:
    """A figure of each listener in each part of the plays; one kind of parts a panel.

    Args:
        parts: For each kind of parts, listener and part the figure. The first kind gets the width.
        order: Listeners of the report.
        y: Name of the figure.
        theme: Colours.
    """
    figure = new_figure(7.2)
    grid = figure.add_gridspec(2, 2)
    spots = [grid[0, :], grid[1, 0], grid[1, 1]]
    first = None
    for spot, (kind, curves) in zip(spots, parts.items(), strict=True):
        axes = figure.add_subplot(spot, sharey=first)
        first = first or axes
        _dress(axes, theme, title=kind, y=y)
        names = list(dict.fromkeys(part for curve in curves.values() for part in curve))
        apart = 0.5 / max(len(curves), 1)
        for place, (name, curve) in enumerate(curves.items()):
            shift = (place - (len(curves) - 1) / 2) * apart
            axes.errorbar(
                [names.index(part) + shift for part in curve],
                [point.value for point in curve.values()],
                yerr=_errors(list(curve.values())),
                fmt=_marker(name, order),
                color=_colour(name, order, theme),
                markersize=5,
                elinewidth=1.4,
                label=name,
            )
        tilted = max(map(len, names), default=0) > 6
        axes.set_xticks(
            range(len(names)),
            names,
            rotation=28 if tilted else 0,
            ha="right" if tilted else "center",
        )
        axes.grid(visible=False, axis="x")
    if first is not None:
        _legend(figure, figure.axes, theme, order=order)
    return figure


def places(
    curves: Mapping[str, Sequence[Point]],
    *,
    order: Sequence[str],
    theme: Theme = THEME,
) -> Figure:
    """Skip rate along the session: the log with its interval as a band, listeners as lines.

    Args:
        curves: For each listener, and for the log, the rate at each position, NaN where there is
            none.
        order: Listeners of the report.
        theme: Colours.
    """
    figure = new_figure(5.0)
    axes = figure.add_subplot()
    _dress(axes, theme, x="position in the session", y="skip rate")
    for name, points in curves.items():
        at = [i for i, p in enumerate(points) if np.isfinite(p.value)]
        x = [i + 1 for i in at]
        values = [points[i].value for i in at]
        if name in order:
            style = _marker(name, order) + "-"
            colour = _colour(name, order, theme)
            axes.plot(x, values, style, color=colour, markersize=5, linewidth=1.7, label=name)
            continue
        low = [points[i].value - points[i].reach[0] for i in at]
        high = [points[i].value + points[i].reach[1] for i in at]
        axes.fill_between(x, low, high, color=theme.muted, alpha=0.22, linewidth=0)
        axes.plot(x, values, color=theme.ink, linewidth=2.6, label=name, zorder=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent(axes, "y")
    _legend(figure, [axes], theme)
    return figure


def dots(
    panels: Mapping[str, Mapping[str, Mapping[str, Point]]],
    *,
    order: Sequence[str],
    targets: Mapping[str, float],
    bands: Mapping[str, Mapping[str, float]] | None = None,
    percent: Sequence[str] = (),
    theme: Theme = THEME,
) -> Figure:
    """Figures with their intervals, a row each, a colour a listener; panels side by side.

    Args:
        panels: For each panel and row the figure of each listener.
        order: Listeners of the report.
        targets: For each panel where a perfect listener's figures would lie.
        bands: For each panel and row how far from that is still close, drawn as a band.
        percent: Panels whose figures are shares.
        theme: Colours.
    """
    most = max(len(rows) for rows in panels.values())
    spread = max(len(by) for rows in panels.values() for by in rows.values())
    figure = new_figure(1.4 + most * (0.22 + 0.15 * spread))
    alike = len({tuple(rows) for rows in panels.values()}) == 1
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=alike, sharey=alike)[0]
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        _dress(axes, theme, title=title)
        axes.axvline(targets[title], color=theme.muted, linewidth=1.2, linestyle=_DASHED)
        for row, (label, by_listener) in enumerate(rows.items()):
            reach = (bands or {}).get(title, {}).get(label)
            if reach is not None:
                left = targets[title] - reach
                axes.barh(row, 2 * reach, left=left, height=0.86, color=theme.grid, zorder=0)
            for name, point in by_listener.items():
                place = list(by_listener).index(name) - (len(by_listener) - 1) / 2
                axes.errorbar(
                    point.value,
                    row + place * 0.7 / max(spread, 1),
                    xerr=_errors([point]),
                    fmt=_marker(name, order),
                    color=_colour(name, order, theme),
                    markersize=6,
                    elinewidth=1.8,
                    label=name,
                )
        axes.set_yticks(range(len(rows)), list(rows), fontsize=10.5)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        if title in percent:
            _percent(axes, "x")
    _legend(figure, list(grid), theme, order=order)
    return figure


def shares(rows: Mapping[str, Mapping[str, float]], *, theme: Theme = THEME) -> Figure:
    """Parts of a whole, a bar a row; the last part is drawn muted.

    Args:
        rows: For each listener the share of each part, summing to 1.
        theme: Colours.
    """
    figure = new_figure(1.3 + 0.5 * len(rows))
    axes = figure.add_subplot()
    _dress(axes, theme, x="share of the variance of an answer (skipped or not)")
    parts = list(next(iter(rows.values())))
    colours = [*theme.cycle[: len(parts) - 1], theme.grid]
    for row, (_, of) in enumerate(rows.items()):
        left = 0.0
        for part, colour in zip(parts, colours, strict=True):
            label = part if row == 0 else None
            axes.barh(row, of[part], left=left, height=0.62, color=colour, label=label)
            if of[part] > 0.08:
                ink = theme.ink if colour == theme.grid else theme.paper
                axes.text(
                    left + of[part] / 2,
                    row,
                    f"{100 * of[part]:.0f} %",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=10.5,
                )
            elif of[part] > 0:
                # Too narrow to write into: beside it, on the part that follows.
                axes.text(
                    left + of[part] + 0.008,
                    row,
                    f"{100 * of[part]:.1f} %",
                    va="center",
                    color=theme.ink,
                    fontsize=10.5,
                )
            left += of[part]
    axes.set_yticks(range(len(rows)), list(rows), fontsize=11)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    _percent(axes, "x")
    _legend(figure, [axes], theme)
    return figure


def rankings(rates: Mapping[str, Mapping[str, Point]], *, theme: Theme = THEME) -> Figure:
    """Skip rate of each agent (a line) at each listener (a column): lines cross where they differ.

    Args:
        rates: For each listener the skip rate of each agent.
        theme: Colours.
    """
    evaluators = list(rates)
    agents = list(dict.fromkeys(agent for by in rates.values() for agent in by))
    figure = new_figure(5.2)
    axes = figure.add_subplot()
    _dress(axes, theme, y="skip rate")
    for place, agent in enumerate(agents):
        at = [i for i, evaluator in enumerate(evaluators) if agent in rates[evaluator]]
        points = [rates[evaluators[i]][agent] for i in at]
        shift = (place - (len(agents) - 1) / 2) * 0.02
        axes.errorbar(
            [i + shift for i in at],
            [p.value for p in points],
            yerr=_errors(points),
            fmt=MARKERS[place % len(MARKERS)] + "-",
            color=theme.cycle[place % len(theme.cycle)],
            markersize=6,
            linewidth=1.6,
            elinewidth=1.2,
            label=agent,
        )
    axes.set_xticks(range(len(evaluators)), evaluators, fontsize=11)
    axes.set_xlim(-0.3, len(evaluators) - 0.7)
    axes.grid(visible=False, axis="x")
    _percent(axes, "y")
    _legend(figure, [axes], theme)
    return figure
