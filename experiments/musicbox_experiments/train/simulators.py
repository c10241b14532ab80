"""Which listener agents learn with, which picks their checkpoints, and which evaluate them.

No agent is evaluated by the listener alone that it learned with. The checkpoint of a training is
picked on validation sessions, by a listener that neither trained the agent nor evaluates it:

==================  ==================  =====================  ==========================
learned with        fitted on           picked by              evaluated by, the main one first
==================  ==================  =====================  ==========================
``ground_truth``    nothing: the law    the law                the law; ``replay``
``learned``         fold A              a second fit on        the law if there is one; a
                                        fold A                 fit on fold B; ``replay``;
                                                               the one learned with
any other           as it is            the same               the law if there is one;
                                                               ``replay``
==================  ==================  =====================  ==========================

The law has no errors that an agent could exploit, so that it may train, pick and evaluate, each
time on other sessions. Two fits on fold A have networks of their own, which saw other parts of its
sessions, but count track rates from the same plays: picking by the second one guards against errors
of the first's networks, and not against the luck of fold A. That is left for fold B to show.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from musicbox_env.listeners import FITTED_SUFFIX, require_listener
from musicbox_env.listeners.files import read_fit, write_fit
from musicbox_env.listeners.similarity import MODES, SimilarityConfig
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import open_dataset

AUTO = "auto"
LEARNED = "learned"
SIMILARITY = "similarity-"
"""Begins the name of the similarity listener in one of its modes."""
TRAINING_FOLD, EVALUATION_FOLD = "A", "B"
PICKING_SEED = 1


@dataclass(frozen=True)
class Listeners:
    """The listeners of a comparison; each has a name for tables and a keyword for environments.

    Attributes:
        training: Keyword of the one that agents learn with.
        training_name: Its name.
        picking: Keyword of the one that picks checkpoints.
        picking_name: Its name.
        evaluators: Keyword of each evaluator by name, in the order of the report.
    """

    training: str
    training_name: str
    picking: str
    picking_name: str
    evaluators: dict[str, str]


def knows_truth(data: str | None) -> bool:
    """Whether the dataset was made by the generator, so that the exact law can evaluate."""
    return (open_dataset(data).folder / "truth" / "law.json").is_file()


def require_choice(listener: str) -> None:
    """Refuse what is neither `AUTO` nor a name, nor the path of a fitted one, nor similarity-MODE.

    Raises:
        ValueError: With a suggestion.
    """
    if listener.startswith(SIMILARITY):
        require_known("mode of the similarity listener", listener.removeprefix(SIMILARITY), MODES)
    elif listener != AUTO:
        require_listener(listener)


def choose_listeners(
    listener: str, evaluators: Sequence[str], data: str | None, out: Path
) -> Listeners:
    """Fill in the defaults, and fit what must be fitted.

    Agents learn with the exact law where the data has one, else with a learned listener. A learned
    listener is fitted on fold A for training, and another on fold B to evaluate: the two never saw
    the same session. The one learned with evaluates too, so that what is lost elsewhere can be
    seen.
    """
    truth = ("ground_truth",) if knows_truth(data) else ()
    if listener == AUTO:
        listener = truth[0] if truth else LEARNED
    defaults = (*truth, *((LEARNED,) if listener == LEARNED else ()), "replay")
    named: dict[str, str] = {}
    for evaluator in tuple(evaluators) or defaults:
        fold_b = evaluator == LEARNED and listener == LEARNED
        name, keyword = _fitted(data, out, EVALUATION_FOLD) if fold_b else _found(evaluator, out)
        named[name] = keyword
    if listener != LEARNED:
        name, keyword = _found(listener, out)
        return Listeners(keyword, name, keyword, name, named | {name: keyword})
    name, keyword = _fitted(data, out, TRAINING_FOLD)
    picking_name, picking = _fitted(data, out, TRAINING_FOLD, seed=PICKING_SEED)
    return Listeners(keyword, name, picking, picking_name, named | {name: keyword})


def _found(listener: str, out: Path) -> tuple[str, str]:
    """Name in tables and keyword of a listener; a file of settings is written if it needs one."""
    if not listener.startswith(SIMILARITY):
        return Path(listener).stem, listener
    file = (out / "listeners" / f"{listener}.npz").resolve()
    if not file.is_file():
        settings = SimilarityConfig(mode=listener.removeprefix(SIMILARITY))
        write_fit(file, {"listener": "similarity", "settings": asdict(settings)}, {})
    return listener, str(file)


def pessimistic(listener: str, deviations: float) -> str:
    """File of a learned listener that adds its uncertainty of a song to the logit of a skip.

    Raises:
        ValueError: The listener was not learned.
    """
    if not listener.endswith(FITTED_SUFFIX):
        raise ValueError(
            f"Pessimism is for learned listeners, and {listener!r} is none: pass --listener "
            "learned, or leave out the agents that train with a pessimistic listener."
        )
    about, arrays = read_fit(Path(listener))
    file = Path(f"{listener.removesuffix(FITTED_SUFFIX)}-pessimism-{deviations:g}{FITTED_SUFFIX}")
    if not file.is_file():
        write_fit(file, {**about, "pessimism": deviations}, arrays)
    return str(file)


def _fitted(data: str | None, out: Path, fold: str, *, seed: int = 0) -> tuple[str, str]:
    """Name and file of a listener learned on one fold, fitted unless an earlier run did."""
    again = f"-seed-{seed}" if seed else ""
    file = (out / "listeners" / f"learned-{fold}{again}.npz").resolve()
    if not file.is_file():
        from musicbox_experiments.listeners.fit_listener import FitListenerConfig, run

        file.parent.mkdir(parents=True, exist_ok=True)
        folder = None if data is None else Path(data)
        run(FitListenerConfig(data=folder, fold=fold, out=file, seed=seed))  # type: ignore[arg-type]
    return file.stem, str(file)
