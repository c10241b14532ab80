"""The page of a simulator validation report: tables, and pictures of what tables cannot show.

::

    OUT/
      trust.html    self-contained: pictures inlined, no external resource
      trust.json    split: how the sessions were divided (as in dataset.json);
                    figures: listener, protocol, metric, value, low, high, reference of each
      *.png         the pictures
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from musicbox_env.data.splits import TIME
from musicbox_env.data.writing import write_text
from musicbox_experiments import drawing, text
from musicbox_experiments.compare import known_gains, plots
from musicbox_experiments.compare.report import data_uri, render_page
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.prediction import FREE, LOG_NAME
from musicbox_experiments.trust.records import CurvePoint, Findings, rows_of, write_records
from musicbox_experiments.trust.tables import listeners_of, tables_of, verdict_table


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
    write_records(out, records, context.split)
    pictures, gains = draw_pictures(findings), known_gains.rows()
    if gains:
        pictures["gains"] = drawing.png(known_gains.picture(gains))
    for name, image in pictures.items():
        (out / f"{name}.png").write_bytes(image)
    by_position = "skip_by_position_distance"
    noise = [r[by_position].reference for r in rows_of(records, FREE).values() if by_position in r]
    listeners, about = listeners_of(records), context.dataset.about
    facts = {
        "listeners under test": len(listeners),
        "test sessions": context.num_sessions,
        "plays in them": context.log.heard.sum(),
        "tracks in the catalog": about.get("tracks", 0),
        "sessions in the data": about.get("sessions", 0),
    }
    page = render_page(
        "trust.html",
        title="MusicBox: simulator validation report",
        facts=[(label, f"{value:,}") for label, value in facts.items()],
        command=command,
        details={"Configuration": config, "Dataset": about},
        notes=findings.notes,
        draws=context.draws,
        samples=context.samples,
        sees_session=sees_session,
        by_time=context.split.get("kind") == TIME,
        listeners=listeners,
        verdicts=verdict_table(records),
        tables=tables_of(records),
        gains=gains,
        position_noise=text.percent(noise[0]) if noise and noise[0] is not None else None,
        pictures={name: data_uri(image) for name, image in pictures.items()},
        version=metadata.version("musicbox-env"),
    )
    write_text(out / "trust.html", page)


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
    return {name: drawing.png(figure) for name, figure in figures.items()}


@drawing.styled
def _calibration(
    panels: Mapping[str, Mapping[str, Sequence[CurvePoint]]], order: Sequence[str], y: str
) -> Figure:
    """Predicted against real, a panel each; the diagonal is what a perfect listener shows."""
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = drawing.new_figure(0.4 + rows * (drawing.WIDTH_INCHES / columns + 0.3))
    for place, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1, title=title)
        axes.set(xlabel="predicted skip rate", ylabel=y)
        axes.plot([0, 1], [0, 1], **plots.REFERENCE)
        for name, curve in curves.items():
            color, marker, _ = plots.look(name, order)
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
        for axis in (axes.xaxis, axes.yaxis):
            drawing.percent_ticks(axis)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_box_aspect(1)
    plots.add_legend(figure, below=True)
    return figure


def _skip_by_position(findings: Findings, order: Sequence[str]) -> Figure:
    """Skip rate along the session: the log with its interval as a band, listeners as lines."""
    rates = {name: np.array([m.value for m in at]) for name, at in findings.by_place.items()}
    of_log = findings.by_place[LOG_NAME]
    band = np.array([(m.low, m.high) for m in of_log], np.float64).T
    return plots.by_position(
        rates, order=order, x="position in the session", bands={LOG_NAME: band}
    )
