"""Next-play prediction from the true past: scores and calibration, beside gradient boosting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from musicbox_experiments.evaluate.resampling import Statistic
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.metrics import Predictions
from musicbox_experiments.trust.queries import Array

NEXT: Final = "next play"
NEXT_LEVELS: Final = "next play, levels only"
"""Given only what a simulation knows."""
SCORES: Final[Mapping[str, Callable[[Predictions], Statistic]]] = {
    "auc": metrics.AUC,
    "log_loss": metrics.log_loss,
    "brier": metrics.brier,
    "accuracy": metrics.accuracy,
    "bias": metrics.bias,
}


def measure_scores(
    context: Context, name: str, protocol: str, answers: Array, boosting: Array | None
) -> None:
    """All scores of predictions ``(n, width)``, beside those of boosting where they are given.

    Those of `NEXT` leave a calibration curve too.
    """
    made = context.log.predicted(answers)
    for metric, score in SCORES.items():
        if boosting is None:
            context.add(name, protocol, metric, score(made))
            continue
        theirs = context.measure(score(context.log.predicted(boosting)))
        ours = context.add(name, protocol, metric, score(made), theirs.value)
        if metric != "bias":
            context.add(name, protocol, f"{metric}_over_boosting", ours.minus(theirs), 0.0)
    noise = metrics.calibration_noise(made, context.rng(1))
    error = context.measure(metrics.calibration_error(made)).centred()
    context.add(name, protocol, "calibration_error", error, noise)
    context.add(name, protocol, "calibration_excess", error.less(noise), 0.0)
    if protocol == NEXT:
        curve = metrics.calibration_curve(made, context.resampling)
        context.findings.calibration[name] = curve
