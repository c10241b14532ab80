"""How all pictures look, drawn with matplotlib's object interface: no window."""

import io
import math
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator

WIDTH_INCHES: Final = 9.0
PAPER: Final = "#ffffff"
INK: Final = "#1d2230"
MUTED: Final = "#6b7280"
"""Of axes, reference lines and whatever is none of those compared."""
HIGHLIGHT: Final = "#0072b2"
"""Of intervals, where agents need no colour of their own."""
STYLE: Final[Any] = {
    "figure.dpi": 150,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "text.color": INK,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 12,
    "axes.labelpad": 8,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8ee",
    **{f"{axis}tick.color": MUTED for axis in "xy"},
    **{f"{axis}tick.labelcolor": INK for axis in "xy"},
    **{f"{axis}tick.labelsize": 11 for axis in "xy"},
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 2.6,
    "lines.linewidth": 2.0,
}
"""How all pictures look, as matplotlib's settings."""
styled = rc_context(STYLE)
"""Decorates whatever draws: matplotlib reads its settings when an artist is made."""


@styled
def png(figure: Figure) -> bytes:
    """Render a figure as a PNG 1,350 pixels wide."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@styled
def new_figure(height: float) -> Figure:
    """An empty figure `WIDTH_INCHES` wide and ``height`` inches high."""
    figure = Figure(figsize=(WIDTH_INCHES, height))
    FigureCanvasAgg(figure)
    return figure


def canvas(height: float, *, x: str, y: str = "") -> tuple[Figure, Axes]:
    """A figure with one pair of axes, and their labels."""
    figure = new_figure(height)
    return figure, figure.add_subplot(xlabel=x, ylabel=y)


class Rounded(Formatter):
    """Numbers with as many decimals as tell neighbouring ticks apart."""

    def __init__(self, scale: float = 1.0, unit: str = "") -> None:
        self._scale, self._unit = scale, unit

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Label of a tick."""
        assert isinstance(self.axis, Axis)
        low, high = sorted(self.axis.get_view_interval())
        ticks = np.unique([tick for tick in self.axis.get_majorticklocs() if low <= tick <= high])
        steps = np.diff(np.unique(np.round(self._scale * ticks, 9)))
        least = steps.min() if len(steps) else 1.0
        decimals = max(0, -math.floor(math.log10(least) + 1e-9))
        return f"{self._scale * x:,.{decimals}f}{self._unit}"


def percent_ticks(axis: Axis) -> None:
    """Show shares in percent, no two ticks alike."""
    axis.set_major_formatter(Rounded(100, " %"))
    axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
