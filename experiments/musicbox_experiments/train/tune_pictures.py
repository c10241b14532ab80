"""Pictures of a search: what was tried when, and which settings matter."""

from pathlib import Path

import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from musicbox_experiments.drawing import HIGHLIGHT, MUTED, canvas, percent_ticks, png, styled

FEWEST_TRIALS = 4
"""Trials from which on something can be said of settings."""


def write_pictures(study: optuna.Study, folder: Path) -> None:
    """Write ``history.png`` and, where there are enough trials, ``importance.png``."""
    (folder / "history.png").write_bytes(png(history(study)))
    values = [trial.value for trial in study.get_trials(states=[TrialState.COMPLETE])]
    if len(values) >= FEWEST_TRIALS and len(set(values)) > 1:
        (folder / "importance.png").write_bytes(png(importance(study)))


@styled
def history(study: optuna.Study) -> Figure:
    """The lowest validation skip rate of each trial, and the lowest of all so far."""
    figure, axes = canvas(4.0, x="trial", y="validation skip rate")
    done = study.get_trials(states=[TrialState.COMPLETE])
    pruned = study.get_trials(states=[TrialState.PRUNED])
    values = np.array([trial.value for trial in done], float)
    axes.plot([t.number for t in done], values, "o", color=HIGHLIGHT, label="trial")
    ended = [(t.number, t.intermediate_values[max(t.intermediate_values)]) for t in pruned]
    if ended:
        axes.plot(*zip(*ended, strict=True), "x", color=MUTED, label="ended early")
    axes.step(
        [t.number for t in done],
        np.minimum.accumulate(values),
        color=HIGHLIGHT,
        where="post",
        label="lowest so far",
    )
    percent_ticks(axes.yaxis)
    axes.legend()
    return figure


@styled
def importance(study: optuna.Study) -> Figure:
    """Share of the variance of skip rates that each setting explains (fANOVA, Hutter et al. 2014).

    Of trials that ended regularly.
    """
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    figure, axes = canvas(1.2 + 0.35 * len(found), x="share of the variance of skip rates")
    names = list(found)[::-1]
    axes.barh(names, [found[name] for name in names], color=HIGHLIGHT)
    percent_ticks(axes.xaxis)
    return figure
