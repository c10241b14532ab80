"""Which listener agents learn with, and which judge them: never only the one they learned with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musicbox_env.simulator import open_dataset

AUTO = "auto"
LEARNED = "learned"
TRAINING_FOLD, JUDGING_FOLD = "A", "B"


@dataclass(frozen=True)
class Listeners:
    """The listeners of a comparison; each has a name for tables and a keyword for environments.

    Attributes:
        training: Keyword of the one that agents learn with.
        training_name: Its name.
        judges: Keyword of each judge by name, in the order of the report.
    """

    training: str
    training_name: str
    judges: dict[str, str]


def knows_truth(data: str | None) -> bool:
    """Whether the dataset was made by the generator, so that the exact law can judge."""
    return (open_dataset(data).folder / "truth" / "law.json").is_file()


def choose_listeners(
    listener: str, judges: Sequence[str], data: str | None, out: Path
) -> Listeners:
    """Fill in the defaults, and fit what must be fitted.

    Agents learn with the exact law where the data has one, else with a learned listener. A learned
    listener is fitted on fold A for training, and another on fold B to judge: the two never saw
    the same session. The one learned with judges too, so that what is lost elsewhere can be seen.

    Args:
        listener: Name or path of a listener, or `AUTO`.
        judges: Names or paths; none are all that the data supports at a bearable cost.
        data: The dataset.
        out: Where fitted listeners are kept.
    """
    truth = ("ground_truth",) if knows_truth(data) else ()
    if listener == AUTO:
        listener = truth[0] if truth else LEARNED
    asked = tuple(judges) or (*truth, *((LEARNED,) if listener == LEARNED else ()), "replay")
    named: dict[str, str] = {}
    for judge in asked:
        fold_b = judge == LEARNED and listener == LEARNED
        name, keyword = _fitted(data, out, JUDGING_FOLD) if fold_b else (_name(judge), judge)
        named[name] = keyword
    if listener != LEARNED:
        return Listeners(listener, _name(listener), named)
    name, keyword = _fitted(data, out, TRAINING_FOLD)
    return Listeners(keyword, name, named | {name: keyword})


def _name(listener: str) -> str:
    """A listener's name in tables: that of its file, if it is one."""
    return Path(listener).stem


def _fitted(data: str | None, out: Path, fold: str) -> tuple[str, str]:
    """Name and file of a listener learned on one fold, fitted unless an earlier run did."""
    file = (out / "listeners" / f"learned-{fold}.npz").resolve()
    if not file.is_file():
        from experiments.fit_listener import FitListenerConfig, run

        file.parent.mkdir(parents=True, exist_ok=True)
        folder = None if data is None else Path(data)
        run(FitListenerConfig(data=folder, fold=fold, out=file))  # type: ignore[arg-type]
    return file.stem, str(file)
