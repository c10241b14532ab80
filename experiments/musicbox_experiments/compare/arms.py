"""The arms of a comparison: each a test fold and a direction, with trainings of its own.

Where training is divided, arm A trains on one half what the other half evaluates, and arm B does
so the other way round. An arm's folder is laid out as that of a run; with one arm it is the run's::

    OUT/train_a/                 OUT/test-fold-2/train_b/
      agents/  rollouts/           agents/  rollouts/
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import WHOLE, Dataset
from musicbox_env.ingest.training_parts import open_part, rows_in
from musicbox_env.listeners import make_listener
from musicbox_env.listeners.learned.listener import plays_known
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.cluster.tasks import Where
from musicbox_experiments.compare.config import CompareConfig
from musicbox_experiments.compare.evaluation import Evaluation, evaluate_all, evaluate_one
from musicbox_experiments.data.sampling import draw_sessions, picking_sessions
from musicbox_experiments.evaluate.metrics import PerSession, Rollout
from musicbox_experiments.evaluate.pooling import described, grouped, joined, renumbered
from musicbox_experiments.train.folder import require_data
from musicbox_experiments.train.jobs import VALIDATION_SESSIONS, TrainingJob, jobs_for
from musicbox_experiments.train.simulators import (
    Direction,
    Fitting,
    Listeners,
    choose_listeners,
    directions_for,
    fit_missing,
    require_possible,
)
from musicbox_experiments.train.variants import parse_settings


@dataclass(frozen=True)
class Arm:
    """One way of training and evaluating.

    Attributes:
        source: Its number; see `pooling`.
        name: What the report calls it.
        whole: The dataset of its test fold.
        dataset: What its agents see of it.
        direction: Which parts of training everybody sees.
        listeners: Those that train, pick and evaluate.
        jobs: Its trainings.
        evaluation: How they are evaluated.
    """

    source: int
    name: str
    whole: Dataset
    dataset: Dataset
    direction: Direction
    listeners: Listeners
    jobs: Sequence[TrainingJob]
    evaluation: Evaluation


@dataclass(frozen=True)
class EvaluateWith:
    """Evaluates a training where and when it is done; the roll-outs are kept."""

    evaluation: Evaluation

    def __call__(self, job: TrainingJob) -> None:
        """Evaluate it."""
        evaluate_one(job, self.evaluation)

    @property
    def reads(self) -> list[str]:
        """The fitted listeners that evaluate; data are those of the training."""
        return list(self.evaluation.evaluators.values())

    @property
    def adds_to(self) -> Path:
        """The folder of roll-outs."""
        return self.evaluation.folder


def evaluations_of(arms: Sequence[Arm]) -> Callable[[TrainingJob], EvaluateWith]:
    """How each training is evaluated: by the arm that it is of."""
    by_folder = {arm.evaluation.folder.parent: arm.evaluation for arm in arms}

    def evaluation(job: TrainingJob) -> EvaluateWith:
        found = by_folder[Path(job.folder).parents[2]]
        return EvaluateWith(replace(found, folder=found.folder.absolute()))

    return evaluation


def arms_of(config: CompareConfig) -> list[Arm]:
    """All arms of a comparison, their data and listeners made."""
    planned = [plan for fold in range(config.test_folds) for plan in _plans(config, fold)]
    fit_missing(
        config.listener,
        [(plan.whole, plan.out, plan.direction) for plan in planned],
        where_of(config),
        fitting=_fitting(config),
    )
    return [_arm(config, plan) for plan in planned]


@dataclass(frozen=True)
class _Plan:
    """An arm before anything is fitted for it; attributes as of `Arm`."""

    source: int
    name: str
    data: str | None
    whole: Dataset
    direction: Direction
    out: Path


def _plans(config: CompareConfig, fold: int) -> list[_Plan]:
    """The directions of one test fold."""
    several = config.test_folds > 1
    out = config.out / f"test-fold-{fold}" if several else config.out
    source = replace(config.source, test_fold=fold) if several else config.source
    data = source.resolve(out)
    whole = open_dataset(data)
    require_possible((config.listener, *config.evaluator), whole, config.agents)
    require_data(out, whole)
    directions = directions_for(
        config.listener, config.evaluator, whole, config.fit_on, both=config.both_directions
    )
    before = [f"test fold {fold}"] if several else []
    return [
        _Plan(
            2 * fold + number,
            ", ".join([*before, *filter(None, [direction.name])]),
            data,
            whole,
            direction,
            out,
        )
        for number, direction in enumerate(directions)
    ]


def _arm(config: CompareConfig, plan: _Plan) -> Arm:
    data, evaluated, direction = plan.data, config.split, plan.direction
    dataset = open_part(plan.whole, direction.agents, evaluated)
    listeners = choose_listeners(
        config.listener, config.evaluator, plan.whole, plan.out, direction, _fitting(config)
    )
    if dataset.part != WHOLE:  # its test split holds what is to be evaluated
        data, evaluated = str(dataset.folder.resolve()), "test"
    picking = _picking_sessions(evaluated, dataset)
    options = {"data": data, "reward": asdict(config.reward)}
    folder = plan.out
    if direction.evaluator is not None:
        folder = plan.out / direction.listener
        require_data(folder, dataset)
    jobs = jobs_for(
        config.agents,
        config.seeds,
        settings=parse_settings(config.agent_settings),
        options={
            **options,
            "split": "train",
            "candidates": "catalog",
            "horizon": config.train_horizon or config.horizon,
        },
        steps=config.train_steps,
        out=folder,
        listeners=listeners,
        dataset=dataset.identity,
        validation_sessions=picking,
        horizon=config.horizon,
    )
    but = picking_sessions(dataset, picking or 0)
    sessions = draw_sessions(
        dataset, evaluated, config.evaluation_sessions, config.evaluation_seed, but=but
    )
    evaluation = Evaluation(
        listeners.evaluators,
        {**options, "split": evaluated, "horizon": config.horizon},
        sessions,
        folder / "rollouts",
        config.evaluation_seed,
    )
    return Arm(plan.source, plan.name, plan.whole, dataset, direction, listeners, jobs, evaluation)


def where_of(config: CompareConfig) -> Where:
    """Where its tasks run."""
    return Where(config.workers, config.cluster, config.out)


def _fitting(config: CompareConfig) -> Fitting:
    return Fitting(config.split, config.listener_sessions)


def _picking_sessions(split: str, dataset: Dataset) -> int | None:
    """How many validation sessions pick checkpoints where others evaluate: at most half."""
    if split == "test":
        return None
    there = len(dataset.sessions.playable("validation"))
    return max(min(VALIDATION_SESSIONS, there // 2), 1)


def evaluated_together(
    arms: Sequence[Arm],
) -> tuple[list[Rollout], dict[str, dict[int, PerSession]]]:
    """Roll-outs of all arms, joined, and the same of their re-rankings of logged candidates.

    Rows are those of the whole dataset of the first arm.
    """
    rollouts: dict[tuple[str, str, int], list[Rollout]] = {}
    reranked: dict[tuple[str, int], list[PerSession]] = {}
    for arm in arms:
        made, ordered = evaluate_all(arm.jobs, arm.evaluation)
        known = _known(arm)
        for rollout in made:
            seen = described(rollout, arm.dataset, known[rollout.evaluator])
            ours = _as_of(arms[0].whole, arm, seen)
            key = rollout.evaluator, rollout.agent, rollout.seed
            rollouts.setdefault(key, []).append(ours)
        for agent, by_seed in ordered.items():
            for seed, part in by_seed.items():
                reranked.setdefault((agent, seed), []).append(part)
    sources = [arm.source for arm in arms]
    if len(arms) == 1:
        together = [parts[0] for parts in rollouts.values()]
    else:
        together = [joined(parts, sources) for parts in rollouts.values()]
    found: dict[str, dict[int, PerSession]] = {}
    for (agent, seed), parts in reranked.items():
        found.setdefault(agent, {})[seed] = _joined_parts(parts, arms)
    return together, found


def _known(arm: Arm) -> dict[str, npt.NDArray[np.int64] | None]:
    """Plays from which each evaluator knows each track of the arm's dataset."""
    return {
        name: plays_known(make_listener(keyword, arm.dataset))
        for name, keyword in arm.listeners.evaluators.items()
    }


def _as_of(first: Dataset, arm: Arm, rollout: Rollout) -> Rollout:
    """A roll-out of an arm with the rows of the first arm's whole dataset."""
    ours = renumbered(rollout, arm.dataset, arm.whole)
    if arm.whole is first:
        return ours
    # Test folds are of the same logs: the same sessions in the same order, the same tracks.
    if not np.array_equal(arm.whole.sessions.session_ids, first.sessions.session_ids):
        raise ValueError(
            f"{arm.whole.folder} and {first.folder} hold other sessions; test folds must be of the "
            "same logs. Start anew with --overwrite."
        )
    rows = first.catalog.index_of(list(arm.whole.catalog.track_ids))
    return replace(ours, slates=np.where(ours.slates >= 0, rows[ours.slates], -1).astype(np.int32))


def _joined_parts(parts: Sequence[PerSession], arms: Sequence[Arm]) -> PerSession:
    """A mean in parts over the sessions of all arms."""
    if len(arms) == 1:
        return parts[0]
    rows = [rows_in(arm.dataset, arm.whole, "sessions")[arm.evaluation.sessions] for arm in arms]
    whole = PerSession(
        np.concatenate([part.numerator for part in parts]),
        np.concatenate([part.denominator for part in parts]),
    )
    source = np.repeat([arm.source for arm in arms], [len(of_arm) for of_arm in rows])
    return grouped(whole, np.concatenate(rows), source)
