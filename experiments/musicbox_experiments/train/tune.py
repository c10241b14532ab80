"""Search for settings of an agent, on validation sessions alone.

Each trial trains the agent under other settings, which Optuna's tree-structured Parzen estimator
(Bergstra et al., NeurIPS 2011) draws from what earlier trials found; the first has the defaults. A
trial is worse the higher its lowest validation skip rate. An agent whose trainings can pause is
looked at after a quarter and a half of the steps, and ends there where it is worse than the median
of the trials before it. A search that was stopped goes on with the same command.

The lowest of many values is too low: compare the settings that are printed with the defaults over
ten seeds, by the command that is printed too.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from musicbox_agents.base import require_ranges
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from musicbox_env.data.writing import write_json
from musicbox_env.locks import held
from musicbox_env.progress import tqdm
from musicbox_experiments.cluster.tasks import Progress, Task, Workers, open_workers
from musicbox_experiments.text import percent, say
from musicbox_experiments.train.folder import prepared_folder
from musicbox_experiments.train.jobs import TrainingJob, task_of, train
from musicbox_experiments.train.monitor import VALIDATION, read_curve
from musicbox_experiments.train.search_space import (
    Space,
    as_settings,
    defaults_in,
    rounded,
    space_of,
)
from musicbox_experiments.train.train import TrainConfig, planned, where_of
from musicbox_experiments.train.tune_pictures import write_pictures
from musicbox_experiments.train.variants import (
    PLUS,
    agent_of,
    class_of,
    parse_settings,
    settings_of,
)

STORAGE, BEST_SETTINGS = "search.journal", "best.json"
INCIDENTAL: Final = ("trials", "workers", "overwrite")
RUNGS: Final = (0.25, 0.5, 1.0)
"""Shares of the steps after which a trial is looked at."""
TRIALS_BEFORE_PRUNING: Final = 5
SETTINGS: Final = "settings"
"""Attribute of a trial: the settings that it has, which are `rounded`."""


@dataclass(frozen=True)
class TuneConfig(TrainConfig):
    """Options of `musicbox tune`: those of `musicbox train`, and how to search."""

    trials: int = 40
    """Settings to try, those of earlier calls on the same folder included."""
    search: tuple[str, ...] = ()
    """What to search: NAME=LOW..HIGH, NAME=LOW..HIGH:log for a logarithmic range, NAME=A,B,C for
    choices; by default the usual ranges of the agent's settings."""
    prune: bool = True
    """Whether trials end early that are worse than the median."""
    search_seed: int = 0
    """Of the settings that are drawn."""
    train_steps: int = 2_000
    """Slates of each training."""
    out: Path = field(default=Path("runs/tune"))
    """Where everything is written."""
    overwrite: bool = False
    """Start anew if --out holds another search."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, {"trials": (1, np.inf), "search_seed": (0, 2**31)})
        if not class_of(self.agent).learns:
            raise ValueError(f"{self.agent} does not learn, so that there is nothing to tune.")
        space_of(class_of(self.agent), self.search)


def run(config: TuneConfig) -> None:
    """Search, print the best settings, draw."""
    out = config.out
    with (
        held(out),
        prepared_folder(out, config, incidental=INCIDENTAL, overwrite=config.overwrite),
    ):
        study = search(config)
        write_pictures(study, out)
        _report(config, study)


def search(config: TuneConfig) -> optuna.Study:
    """Make the trials that are missing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    jobs, space = planned(config), space_of(class_of(config.agent), config.search)
    study = _open_study(config, space)
    missing = config.trials - len(_made(study))
    with (
        tqdm(total=missing, unit="trial", desc="search", disable=missing <= 0) as bar,
        open_workers(where_of(config), lambda done: None, most=max(missing, 1)) as workers,
    ):
        _Search(config, study, space, jobs, workers).run(missing, bar)
    return study


def _open_study(config: TuneConfig, space: Space) -> optuna.Study:
    """The search of the folder; its first trial has the defaults, and stopped ones come again."""
    agent = class_of(config.agent)
    prunes = config.prune and agent.resumes
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(config.out / STORAGE))),
        study_name=config.agent,
        load_if_exists=True,
        pruner=MedianPruner(TRIALS_BEFORE_PRUNING) if prunes else NopPruner(),
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)  # its trainings lie there, and go on
    if not study.trials and (defaults := defaults_in(agent, space)):
        study.enqueue_trial(defaults)
    return study


def _made(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


class _Search:
    """Trials that are under way, each a task that is sent again for every rung."""

    def __init__(
        self,
        config: TuneConfig,
        study: optuna.Study,
        space: Space,
        jobs: Sequence[TrainingJob],
        workers: Workers,
    ) -> None:
        self._config, self._study, self._space = config, study, space
        self._jobs, self._workers = jobs, workers
        self._under_way: dict[Path, tuple[Trial, list[TrainingJob], int]] = {}
        self._rungs = RUNGS if class_of(config.agent).resumes else RUNGS[-1:]

    def run(self, missing: int, bar: tqdm) -> None:
        """Make so many trials, as many at once as there are workers."""
        left = missing
        for _ in range(min(self._workers.size, missing)):
            self._begin()
            left -= 1
        for task, value in self._workers.finished():
            assert task.makes is not None
            if self._goes_on(task.makes, value):
                continue
            bar.update()
            bar.set_postfix_str(f"best {percent(self._best())}")
            if left > 0:
                self._begin()
                left -= 1

    def _begin(self) -> None:
        """Draw settings that no trial under way has, and send the first rung."""
        made = len(_made(self._study)) + len(self._under_way)
        # A sampler of its own for each trial: a search that went on draws what it would have.
        self._study.sampler = TPESampler(seed=self._config.search_seed + made)
        trial = self._study.ask(dict(self._space))
        settings = rounded(trial.params)
        trial.set_user_attr(SETTINGS, settings)
        jobs = [_job_of(job, settings, trial.number) for job in self._jobs]
        self._send(trial, jobs, 0)

    def _send(self, trial: Trial, jobs: list[TrainingJob], rung: int) -> None:
        folder = Path(jobs[0].folder).parent
        until = int(self._rungs[rung] * self._config.train_steps)
        first = task_of(jobs[0])
        task = Task(
            f"Trial {trial.number}", _train_until, (jobs, until), reads=first.reads, makes=folder
        )
        self._under_way[folder] = trial, jobs, rung
        self._workers.submit(task)

    def _goes_on(self, folder: Path, value: float) -> bool:
        """Note the value of a trial at a rung; whether the trial goes on to the next."""
        trial, jobs, rung = self._under_way.pop(folder)
        trial.report(value, rung)
        last = rung + 1 == len(self._rungs)
        if not last and not trial.should_prune():
            self._send(trial, jobs, rung + 1)
            return True
        state = TrialState.COMPLETE if last else TrialState.PRUNED
        self._study.tell(trial, value if last else None, state=state)
        return False

    def _best(self) -> float | None:
        done = self._study.get_trials(states=[TrialState.COMPLETE])
        return min((trial.value for trial in done if trial.value is not None), default=None)


def _job_of(job: TrainingJob, settings: dict[str, Any], number: int) -> TrainingJob:
    """A job under the settings of a trial, in a folder named after them."""
    text = json.dumps(settings, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    run = Path(job.folder).parents[2]
    folder = run / "trials" / name / Path(job.folder).name
    return replace(job, settings={**job.settings, **settings}, folder=str(folder.absolute()))


def _train_until(jobs: Sequence[TrainingJob], until: int, progress: Progress) -> float:
    """Train so far; the lowest validation skip rate of each seed, on average."""
    for job in jobs:
        train(job, progress=progress, until=until)
    curves = [read_curve(Path(job.folder)) for job in jobs]
    return float(np.mean([min(row[VALIDATION] for row in curve) for curve in curves]))


def _report(config: TuneConfig, study: optuna.Study) -> None:
    done = study.get_trials(states=[TrialState.COMPLETE])
    best = min(done, key=lambda trial: (trial.value, trial.number))
    settings, label = best.user_attrs[SETTINGS], f"{agent_of(config.agent)}{PLUS}tuned"
    write_json(
        config.out / BEST_SETTINGS,
        {"agent": config.agent, SETTINGS: settings, VALIDATION: best.value, "trial": best.number},
    )
    fixed = settings_of(config.agent, parse_settings(config.agent_settings))
    tuned = as_settings(label, {**fixed, **settings})
    made = _made(study)
    of_defaults = f", the defaults {percent(made[0].value)}" if made[0].number == 0 else ""
    say(
        f"{len(made)} trials, {len(made) - len(done)} of them ended early. Lowest validation skip "
        f"rate {percent(best.value)} (trial {best.number}){of_defaults}.",
        f"--agent-settings {tuned}",
        "To compare them with the defaults, on validation sessions that picked nothing:",
        f"musicbox compare --agents logged {config.agent} {label} --split validation --seeds 10 "
        f"--agent-settings {' '.join([*config.agent_settings, tuned])} "
        f"--out {config.out / 'compare'}",
    )
