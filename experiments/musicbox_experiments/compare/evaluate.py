"""Evaluate the trained agents of a run again: other evaluators, other sessions, another split."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from musicbox_agents.base import require_ranges

from musicbox_env.data.dataset import WHOLE, Dataset
from musicbox_env.ingest.training_parts import OTHER, evaluated_in
from musicbox_env.listeners import require_listener
from musicbox_env.locks import held
from musicbox_env.schema import split_codes
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.truth import knows_truth
from musicbox_experiments.compare.evaluation import Evaluation, evaluate_all
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.evaluate.metrics import CatalogStats, Rollout, measure
from musicbox_experiments.text import say, table
from musicbox_experiments.train.folder import require_data, require_made_on
from musicbox_experiments.train.jobs import finished_jobs, run_folders
from musicbox_experiments.train.simulators import (
    AUTO,
    LEARNED,
    TRUTH,
    Direction,
    Fitting,
    choose_listeners,
    directions_for,
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `musicbox evaluate`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run made by `musicbox compare` or `musicbox train`; of one that trained on parts
    of training, the folder of a part, such as runs/real/train_a."""
    evaluator: tuple[str, ...] = ()
    """Listeners that evaluate; none named means all that the data supports."""
    split: str = "validation"
    """Sessions to evaluate on. Choose settings on validation, and look at test once."""
    sessions: int = 3_000
    """Most sessions to evaluate on."""
    seed: int = 0
    """Which sessions, and the evaluator's random numbers."""
    out: Path | None = None
    """Where to keep the rollouts; beside the run's own if left out."""

    def __post_init__(self) -> None:
        split_codes(self.split)
        require_ranges(self, {"sessions": (1, np.inf), "seed": (0, np.inf)})
        for name in self.evaluator:
            require_listener(name)


def run(config: EvaluateConfig) -> None:
    """Print one line for each evaluator, agent and seed."""
    with held(config.run):
        _run(config)


def _run(config: EvaluateConfig) -> None:
    folders = run_folders(config.run)
    if len(folders) > 1:
        raise ValueError(
            f"{config.run} holds several runs in one; name one of them: "
            f"{', '.join(str(folder) for folder in folders)}."
        )
    run = folders[0]
    jobs = finished_jobs(run)
    dataset = open_dataset(jobs[0].options["data"])
    require_made_on(run, dataset, "Bring the data of the run back, or train anew.")
    evaluators = _evaluators(config, dataset, run)
    sessions = draw_sessions(dataset, config.split, config.sessions, config.seed)
    out = config.out or run / f"evaluate-{config.split}-{config.seed}-{len(sessions)}"
    require_data(out, dataset)
    options = {**jobs[0].options, "split": config.split}
    evaluation = Evaluation(evaluators, options, sessions, out / "rollouts", config.seed)
    with nullcontext() if out.resolve() == config.run.resolve() else held(out):
        rollouts, reranking = evaluate_all(jobs, evaluation)
    rows = [
        {
            "evaluator": row["evaluator"],
            "agent": row["agent"],
            "seed": str(row["seed"]),
            "skip rate": f"{row['skip_rate']:.3f}",
            "effective catalog size": f"{row['effective_catalog_size']:.0f}",
            "re-ranking": f"{reranking[row['agent']][row['seed']].mean:.3f}",
        }
        for row in figures(rollouts, CatalogStats.of(dataset))
    ]
    say(table(rows, left=2))
    say(
        f"\n{len(sessions)} {config.split} sessions. Re-ranking of logged candidates: skips among "
        "the plays chosen from what the log still held, relative to a random choice of the same "
        f"plays (real labels).\nRollouts: {out}"
    )


def figures(rollouts: Sequence[Rollout], world: CatalogStats) -> list[dict[str, Any]]:
    """A row a rollout: ``evaluator``, ``agent``, ``seed`` and all metrics of `measure`."""
    return [
        {
            "evaluator": rollout.evaluator,
            "agent": rollout.agent,
            "seed": rollout.seed,
            **measure(rollout, world),
        }
        for rollout in rollouts
    ]


def _evaluators(config: EvaluateConfig, dataset: Dataset, run: Path) -> dict[str, str]:
    """Those named, or all that share no play with what the agents saw."""
    if dataset.part == WHOLE:
        directions_for(AUTO, config.evaluator, dataset, "all")  # refuses learned evaluators
        truth = (TRUTH,) if knows_truth(dataset) else ()
        named = config.evaluator or (*truth, "replay")
        return choose_listeners("replay", named, dataset, run).evaluators
    direction = Direction(dataset.part, dataset.part, OTHER[dataset.part])
    fitting = Fitting(evaluated_in(dataset))
    chosen = choose_listeners(LEARNED, config.evaluator, dataset, run.parent, direction, fitting)
    return chosen.evaluators
