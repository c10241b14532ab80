"""The page of a simulator validation report: tables, and pictures of what tables cannot show.

::

    OUT/
      trust.html    self-contained: pictures inlined, no external resource
      trust.json    every figure: listener, protocol, metric, value, low, high, reference
      *.png         the pictures
"""

import base64
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from musicbox_experiments import text
from musicbox_experiments.compare import plots
from musicbox_experiments.compare.report import template_environment
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.prediction import FREE, LOG_NAME
from musicbox_experiments.trust.records import CurvePoint, Findings, rows_of, write_records
from musicbox_experiments.trust.tables import REFERENCES, listeners_of, tables_of, verdicts

THEME: Final = plots.THEME
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")


def write_trust_report(
    out: Path,
    context: Context,
    *,
    config: Mapping[str, Any],
    command: str,
    sees_session: Sequence[str],
) -> None:
    """Write ``trust.html``, ``trust.json`` and the pictures into a folder, made if missing."""
    findings, records = context.findings, context.findings.records
    write_records(out, records)
    pictures = draw_pictures(findings)
    for name, image in pictures.items():
        (out / f"{name}.png").write_bytes(image)
    by_position = "skip_by_position_distance"
    noise = [r[by_position].reference for r in rows_of(records, FREE).values() if by_position in r]
    page = (
        template_environment()
        .get_template("trust.html")
        .render(
            context=context,
            config=config,
            command=command,
            sees_session=sees_session,
            listeners=listeners_of(records),
            verdicts=verdicts(records),
            tables=tables_of(records),
            references=REFERENCES,
            position_noise=text.percent(noise[0] if noise else None),
            pictures={
                name: "data:image/png;base64," + base64.b64encode(image).decode("ascii")
                for name, image in pictures.items()
            },
            version=metadata.version("musicbox-env"),
        )
    )
    (out / "trust.html").write_text(page, encoding="utf-8")


# Pictures: a color and a mark for each listener.


def draw_pictures(findings: Findings) -> dict[str, bytes]:
    """All pictures that there are curves for, as PNG by name."""
    order, by_listener = listeners_of(findings.records), findings.calibration
    panels = {name: {name: curve} for name, curve in by_listener.items()}
    figures = {
        "calibration": _calibration(panels, order, "real skip rate"),
        "skip_by_position": _skip_by_position(findings, order),
    }
    if findings.truth:
        figures["exact_law"] = _calibration(findings.truth, order, "exact skip probability")
    return {name: plots.png(figure) for name, figure in figures.items()}


def _calibration(
    panels: Mapping[str, Mapping[str, Sequence[CurvePoint]]], order: Sequence[str], y: str
) -> Figure:
    """Predicted against real, a panel each; the diagonal is what a perfect listener shows."""
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = plots.new_figure(0.4 + rows * (plots.WIDTH_INCHES / columns + 0.3))
    for place, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        _dress(axes, x="predicted skip rate", y=y, title=title)
        axes.plot([0, 1], [0, 1], color=THEME.muted, linewidth=1.2, linestyle=(0, (4, 3)))
        for name, curve in curves.items():
            color, marker = _style(name, order)
            reach = [plots.Point(real.value, real.low, real.high).reach for _, real in curve]
            axes.errorbar(
                [predicted for predicted, _ in curve],
                [real.value for _, real in curve],
                yerr=np.array(reach).T,
                fmt=f"{marker}-",
                color=color,
                markersize=5,
                linewidth=1.3,
                label=name,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_box_aspect(1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    _add_legend(figure)
    return figure


def _skip_by_position(findings: Findings, order: Sequence[str]) -> Figure:
    """Skip rate along the session: the log with its interval as a band, listeners as lines."""
    figure = plots.new_figure(5.0)
    axes = figure.add_subplot()
    _dress(axes, x="position in the session", y="skip rate")
    for name, places in findings.by_place.items():
        reached = [(i + 1, m) for i, m in enumerate(places) if np.isfinite(m.value)]
        x, rates = [at for at, _ in reached], [m.value for _, m in reached]
        if name == LOG_NAME:
            ends = np.array([(m.low, m.high) for _, m in reached], np.float64)
            axes.fill_between(x, *ends.T, color=THEME.muted, alpha=0.22, linewidth=0)
            axes.plot(x, rates, color=THEME.ink, linewidth=2.6, label=name, zorder=2)
        else:
            color, marker = _style(name, order)
            axes.plot(x, rates, f"{marker}-", color=color, markersize=5, linewidth=1.7, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(figure)
    return figure


def _dress(axes: Axes, *, x: str, y: str, title: str = "") -> None:
    plots.dress(axes)
    axes.set_title(title, color=THEME.ink, fontsize=12, loc="left", pad=8)
    axes.set_xlabel(x, color=THEME.ink, fontsize=11, labelpad=6)
    axes.set_ylabel(y, color=THEME.ink, fontsize=11, labelpad=6)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _style(name: str, order: Sequence[str]) -> tuple[str, str]:
    """A listener's color and mark by its place in the report; what is no listener is muted."""
    if name not in order:
        return THEME.muted, "."
    place = list(order).index(name)
    return THEME.cycle[place % len(THEME.cycle)], MARKERS[place % len(MARKERS)]


def _add_legend(figure: Figure) -> None:
    """One legend below all panels, each name once."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        labelcolor=THEME.ink,
    )
