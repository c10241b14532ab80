"""Evaluator the trained agents of a run again: other evaluators, other sessions, another split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from musicbox_env.listeners import require_listener
from musicbox_env.schema import split_codes
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.compare.evaluation import evaluate_all, evaluations_for
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.evaluate.metrics import CatalogStats, measure
from musicbox_experiments.train.jobs import finished_jobs
from musicbox_experiments.train.simulators import AUTO, choose_listeners


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `musicbox evaluate`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run made by `musicbox compare` or `musicbox train`."""
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
        for name in self.evaluator:
            require_listener(name)


def run(config: EvaluateConfig) -> None:
    """Print one line for each evaluator, agent and seed."""
    jobs = finished_jobs(config.run)
    data = jobs[0].options["data"]
    dataset = open_dataset(data)
    evaluators = choose_listeners(AUTO, config.evaluator, data, config.run).evaluators
    sessions = draw_sessions(dataset, config.split, config.sessions, config.seed)
    out = config.out or config.run / f"evaluate-{config.split}-{config.seed}-{len(sessions)}"
    out.mkdir(parents=True, exist_ok=True)
    options = {**jobs[0].options, "split": config.split}
    evaluations = evaluations_for(evaluators, options, sessions, out, config.seed)
    rollouts, reranking = evaluate_all(jobs, evaluations)
    world = CatalogStats.of(dataset)
    print(f"{'evaluator':<14}{'agent':<14}{'seed':>4}{'skip rate':>11}{'songs':>8}{'rerank':>9}")
    for rollout in rollouts:
        figures = measure(rollout, world)
        relative = reranking[rollout.agent][rollout.seed].mean
        print(
            f"{rollout.evaluator:<14}{rollout.agent:<14}{rollout.seed:>4}{figures['skip_rate']:>11.3f}"
            f"{figures['effective_catalog_size']:>8.0f}{relative:>9.3f}"
        )
    print(
        f"\n{len(sessions)} {config.split} sessions. songs: effective number of different songs. "
        "rerank: skips among the plays chosen from what the log still held, relative to a random "
        f"choice of the same plays (real labels).\nRollouts: {out}"
    )
