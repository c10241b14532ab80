"""Which part of training agents see, which listener they learn with, and which evaluate them.

No agent is evaluated by the listener alone that it learned with. The checkpoint of a training is
picked on validation sessions, by a listener that neither trained the agent nor evaluates it:

==================  ==================  =====================  ==========================
learned with        fitted on           picked by              evaluated by, the main one first
==================  ==================  =====================  ==========================
``ground_truth``    nothing: the law    the law                the law; ``replay``
``learned``         the agent's part    a second fit on        the law if there is one; a
                                        the agent's part       fit on the other part, plain and
                                                               pessimistic; ``replay``; the one
                                                               learned with
any other           as it is            the same               the law if there is one;
                                                               ``replay``
==================  ==================  =====================  ==========================

The law has no errors that an agent could exploit, so that it may train, pick and evaluate, each
time on other sessions, and agents may see all of training. Where a learned listener evaluates, they
may not: `directions_for` then divides training into two parts that share no play
(`musicbox_env.ingest.training_parts`), one for everything that the agents know, their listeners
included, one for the evaluator.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from musicbox_env.data.dataset import WHOLE, Dataset
from musicbox_env.ingest.training_parts import OTHER, PARTS, open_part
from musicbox_env.listeners import FITTED_SUFFIX, require_listener
from musicbox_env.listeners.files import read_fit, write_fit
from musicbox_env.listeners.similarity import MODES, SimilarityConfig
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.truth import knows_truth
from musicbox_experiments.cluster.tasks import Progress, Task, Where, run_all
from musicbox_experiments.text import say
from musicbox_experiments.train.variants import class_of

AUTO = "auto"
LEARNED = "learned"
PESSIMISTIC = "pessimistic"
TRUTH = "ground_truth"
SIMILARITY = "similarity-"
"""Begins the name of the similarity listener in one of its modes."""
OWN, OTHERS = "own-fold", "other-fold"
"""End the names of learned listeners: of the part that the agents see, and of the other."""
PICKING_SEED = 1
FIT_ON: Final = ("folds", "all", "shared")


@dataclass(frozen=True)
class Direction:
    """What agents, their listeners and their evaluators may know of training.

    Attributes:
        agents: Part of the training sessions that agents see.
        listener: Part that the listeners are fitted on which train agents and pick checkpoints.
        evaluator: Part that the learned evaluator is fitted on; None where none evaluates.
    """

    agents: str = WHOLE
    listener: str = WHOLE
    evaluator: str | None = None

    @property
    def name(self) -> str:
        """What it is called in a report; empty where there is one way alone."""
        if self.evaluator is None:
            return ""
        return f"{_letter(self.listener)} teaches, {_letter(self.evaluator)} evaluates"


@dataclass(frozen=True)
class Fitting:
    """How learned listeners of a run are fitted.

    Attributes:
        evaluated: The split that is evaluated, of which no listener may know; see `open_part`.
        most_sessions: Most training sessions that their networks are fitted on.
    """

    evaluated: str = "test"
    most_sessions: int = 50_000


def _letter(part: str) -> str:
    return part[-1].upper()


def directions_for(
    listener: str, evaluators: Sequence[str], dataset: Dataset, fit_on: str, *, both: bool = False
) -> tuple[Direction, ...]:
    """Decide what part of training everybody sees.

    Args:
        listener: The one that agents learn with, as chosen by the user.
        evaluators: Those that evaluate, as chosen by the user.
        dataset: The whole one.
        fit_on: One of `FIT_ON`. With ``"folds"`` agents that a learned listener evaluates see one
            part, and the evaluator the other. With ``"all"`` agents see all, and no learned
            listener evaluates. With ``"shared"`` they see all although one does, whose figures are
            then too good: to measure by how much.
        both: Whether the parts change places once.

    Raises:
        ValueError: ``"all"`` with a learned evaluator.
    """
    require_known("way to fit", fit_on, FIT_ON)
    if fit_on == "all":
        if {LEARNED, PESSIMISTIC} & set(evaluators):
            raise ValueError(
                "With --fit-on all agents know every training play, and so does any learned "
                "listener: it cannot evaluate them. Leave it out of --evaluator, or pass "
                "--fit-on folds."
            )
        return (Direction(),)
    if not {LEARNED, PESSIMISTIC} & {resolved(listener, dataset), *evaluators}:
        return (Direction(),)
    return tuple(
        Direction(WHOLE if fit_on == "shared" else part, part, OTHER[part])
        for part in PARTS[: 2 if both else 1]
    )


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


def resolved(listener: str, dataset: Dataset) -> str:
    """What `AUTO` stands for: the exact law where the data has one, else a learned listener."""
    if listener != AUTO:
        return listener
    return TRUTH if knows_truth(dataset) else LEARNED


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
    listener: str,
    evaluators: Sequence[str],
    dataset: Dataset,
    out: Path,
    direction: Direction | None = None,
    fitting: Fitting | None = None,
) -> Listeners:
    """Fill in the defaults, and fit what must be fitted.

    Args:
        listener: The one to learn with; see `resolved`.
        evaluators: Those that evaluate; none named means all that the data supports.
        dataset: What agents see, or the whole of it.
        out: Folder of the run; fitted listeners go to ``out/listeners``.
        direction: Which parts listeners are fitted on.
        fitting: How listeners are fitted.
    """
    direction, listener = direction or Direction(), resolved(listener, dataset)
    require_possible((listener, *evaluators), dataset)
    fits = _Fits(dataset, out / "listeners", direction, fitting or Fitting())
    truth = (TRUTH,) if knows_truth(dataset) else ()
    learned = (LEARNED, PESSIMISTIC) if direction.evaluator else ()
    named: dict[str, str] = {}
    for evaluator in tuple(evaluators) or (*truth, *learned, "replay"):
        name, keyword = fits.evaluator(evaluator)
        if named.setdefault(name, keyword) != keyword:
            raise ValueError(
                f"{named[name]} and {keyword} would both be called {name!r}; rename one file."
            )
    if listener != LEARNED:
        name, keyword = fits.found(listener)
        return Listeners(keyword, name, keyword, name, named | {name: keyword})
    own = LEARNED if direction.listener == WHOLE else f"{LEARNED}-{OWN}"
    keyword = fits.learned(direction.listener)
    picking = fits.learned(direction.listener, seed=PICKING_SEED)
    # Whoever knows all of training evaluates nobody who does.
    home = {own: keyword} if direction.evaluator else {}
    picking_name = f"{own}-seed-{PICKING_SEED}"
    return Listeners(keyword, own, picking, picking_name, named | home)


def require_possible(
    listeners: Sequence[str], dataset: Dataset, agents: Sequence[str] = ()
) -> None:
    """Refuse listeners and agents that a dataset cannot have, before anything is fitted or trained.

    Args:
        listeners: Those that train and evaluate.
        dataset: The whole one.
        agents: Labels.

    Raises:
        ValueError: One of them is the exact law, or reads it, and the data have none.
    """
    if knows_truth(dataset):
        return
    if TRUTH in listeners:
        raise ValueError(
            f"The listener {TRUTH} is the exact law of synthetic sessions, and {dataset.folder} "
            f"has none. Leave it out, or name another: {LEARNED}, {PESSIMISTIC} or replay."
        )
    if knowing := [label for label in agents if class_of(label).knows_law]:
        raise ValueError(
            f"{', '.join(knowing)} reads the exact law of synthetic sessions, and {dataset.folder} "
            "has none. Leave it out."
        )


def fit_missing(
    listener: str,
    arms: Sequence[tuple[Dataset, Path, Direction]],
    where: Where,
    *,
    fitting: Fitting | None = None,
) -> None:
    """Fit the learned listeners that are missing for several directions, and say how many.

    Args:
        listener: The one that agents learn with.
        arms: Dataset, folder of the run and direction of each, as `choose_listeners` takes them.
        where: Where they are fitted.
        fitting: How listeners are fitted.
    """
    missing: dict[Path, Task] = {}
    for dataset, out, direction in arms:
        fits = _Fits(dataset, out / "listeners", direction, fitting or Fitting())
        roles = [(direction.evaluator, 0)] if direction.evaluator else []
        if resolved(listener, dataset) == LEARNED:
            roles += [(direction.listener, 0), (direction.listener, PICKING_SEED)]
        for part, seed in roles:
            if not (file := fits.file(part, seed)).is_file():
                missing[file] = fits.task(part, seed)
    if not missing:
        return
    say(
        f"Fitting {len(missing)} listeners first ({', '.join(file.stem for file in missing)}); the "
        "trainings come after them.",
        to_errors=True,
    )
    for number, (task, _) in enumerate(run_all(missing.values(), where, most=len(missing)), 1):
        say(f"{number} of {len(missing)} done: {task.name}", to_errors=True)


@dataclass(frozen=True)
class _Fits:
    """Fitted listeners of a run, each made when it is first asked for."""

    dataset: Dataset
    folder: Path
    direction: Direction
    fitting: Fitting

    def evaluator(self, listener: str) -> tuple[str, str]:
        """Name in tables and keyword of an evaluator."""
        part = self.direction.evaluator
        if part is None or listener not in (LEARNED, PESSIMISTIC):
            return self.found(listener)
        keyword = self.learned(part)
        if listener == PESSIMISTIC:
            keyword = pessimistic(keyword, 1.0)
        return f"{listener}-{OTHERS}", keyword

    def found(self, listener: str) -> tuple[str, str]:
        """Name and keyword of a listener; a file of settings is written if it needs one."""
        if not listener.startswith(SIMILARITY):
            return Path(listener).stem, listener
        file = (self.folder / f"{listener}.npz").resolve()
        if not file.is_file():
            settings = SimilarityConfig(mode=listener.removeprefix(SIMILARITY))
            write_fit(file, {"listener": "similarity", "settings": asdict(settings)}, {})
        return listener, str(file)

    def file(self, part: str, seed: int) -> Path:
        """File of a listener learned on a part of training."""
        again = f"-seed-{seed}" if seed else ""
        of = "" if part == WHOLE else f"-{_letter(part)}"
        return (self.folder / f"{LEARNED}{of}{again}.npz").resolve()

    def learned(self, part: str, *, seed: int = 0) -> str:
        """The same, fitted unless an earlier run did."""
        if not self.file(part, seed).is_file():
            task = self.task(part, seed)
            task.work(*task.arguments, lambda done: None)
        return str(self.file(part, seed))

    def task(self, part: str, seed: int) -> Task:
        """Its fit, which may run on another machine."""
        file, data = self.file(part, seed), self.dataset.folder.resolve()
        return Task(
            f"Fitting {file.stem}",
            _fit,
            (data, part, self.fitting, file, seed),
            reads=(data,),
            adds_to=file.parent,
        )


def _fit(data: Path, part: str, fitting: Fitting, out: Path, seed: int, progress: Progress) -> None:
    """Fit a listener on a part of a dataset."""
    from musicbox_experiments.listeners.fit_listener import FitListenerConfig, run

    folder = open_part(open_dataset(data), part, fitting.evaluated).folder
    most = fitting.most_sessions
    run(FitListenerConfig(data=folder, out=out, seed=seed, max_sessions=most))


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
