"""Pictures of a comparison: what the lines show, and what has no interval."""

import numpy as np
import pytest
from musicbox_experiments import drawing
from musicbox_experiments.compare import plots


def test_curves_of_unlike_length_are_averaged_where_all_seeds_have_been() -> None:
    figure = plots.learning_curves({"a": {0: [(0, 1.0), (10, 0.0)], 1: [(5, 1.0), (20, 0.0)]}})
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [5, 10]
    assert list(line.get_ydata()) == pytest.approx([(0.5 + 1.0) / 2, (0.0 + 2 / 3) / 2])


def test_exposure_curve_ends_at_the_number_of_distinct_songs() -> None:
    counts = np.array([0, 6, 0, 3, 1])
    line = plots.exposure_curves({"a": counts}).axes[0].lines[1]
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx([0.6, 0.9, 1.0])


def test_points_without_interval_and_many_agents_can_be_drawn() -> None:
    names = [f"agent {i}" for i in range(12)]
    points = {n: plots.Point(0.3 + 0.01 * i) for i, n in enumerate(names)}
    songs = {n: plots.Point(10.0 + i, -5.0, 40.0) for i, n in enumerate(names)}
    for figure in (
        plots.forest(points),
        plots.scatter(songs, points),
        plots.by_position({n: np.array([0.5, np.nan]) for n in names}),
    ):
        assert drawing.png(figure).startswith(b"\x89PNG")


def test_no_two_of_many_agents_look_alike() -> None:
    order = [f"agent {i}" for i in range(49)]
    looks = [plots.look(name, order) for name in order]
    assert len({(color, marker) for color, marker, _ in looks}) == 49
    assert len({(color, dash) for color, _, dash in looks[:28]}) == 28


@pytest.mark.parametrize("spread", [0.4, 0.03, 0.004, 0.0003])
def test_no_two_ticks_have_the_same_label(spread: float) -> None:
    curve = {"a": {0: [(0, 0.5), (10, 0.5 + spread)], 1: [(0, 0.5), (10, 0.5 + 2 * spread)]}}
    points = {n: plots.Point(0.5 + spread * i) for i, n in enumerate("ab")}
    sizes = {n: plots.Point(40 * (1 + spread * i)) for i, n in enumerate("ab")}
    for figure in (plots.learning_curves(curve), plots.scatter(sizes, points)):
        axes = figure.axes[0]
        axes.figure.canvas.draw()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
            labels = [label.get_text() for place, label in ticks if low <= place <= high]
            assert len(set(labels)) == len(labels)
            assert axis is axes.xaxis or len(labels) > 1


def test_ticks_say_where_they_lie_and_are_more_than_one() -> None:
    rates = {n: plots.Point(v, v - 0.05, v + 0.05) for n, v in {"a": 0.5, "b": 0.55}.items()}
    songs = {"a": plots.Point(92.0), "b": plots.Point(412.0)}
    axes = plots.scatter(songs, rates).axes[0]
    axes.figure.canvas.draw()
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert float(label.get_text().removesuffix(" %")) == pytest.approx(100 * tick)
    low, high = axes.get_xlim()
    assert {100, 200} <= {round(x) for x in axes.get_xticks() if low <= x <= high}
