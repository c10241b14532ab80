"""Training agents: one job an agent and seed, side by side in processes, each resumable.

A finished job is a folder::

    agents/<agent>/seed-<s>/
      best/            the checkpoint with the lowest skip rate on validation sessions
      curve.csv        steps, validation skip rate, and the metrics that the agent reports
      tensorboard/     the same for TensorBoard
      timing.json      wall time, the only file that differs between two runs of the same job
      training.json    written last: settings and steps; without it the job is not done
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from musicbox_agents import Agent, load_agent, make_agent
from musicbox_agents.base import AGENT
from musicbox_agents.ddpg import checkpoints

from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.writing import write_json
from musicbox_env.errors import reading, remove_tree
from musicbox_env.listeners import LISTENERS
from musicbox_env.locks import held
from musicbox_env.progress import tqdm
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.simulator.config import SessionConfig
from musicbox_experiments.cluster.tasks import Task, Where, run_all
from musicbox_experiments.data.sampling import picking_sessions
from musicbox_experiments.train.monitor import (
    BEST,
    CHECKPOINTS,
    VALIDATION,
    Monitor,
    read_curve,
    seconds_before,
    write_seconds,
)
from musicbox_experiments.train.simulators import Listeners, pessimistic
from musicbox_experiments.train.variants import (
    acting_of,
    agent_of,
    class_of,
    settings_of,
    training_of,
    variant_of,
)

CURVE_POINTS = 10
TRAINING, BEGUN, SEED = "training.json", "begun.json", "seed-"
"""The record of a finished job, and that of an unfinished one."""
DELETE = "Delete the folder that it is in, and train anew."
TRAINS = "Training "
"""Begins the name of a task."""
VALIDATION_SESSIONS = 500
OFFLINE_VALIDATION_SESSIONS = 5_000
"""Re-ranking takes one step a session, and its differences are small."""


@dataclass(frozen=True)
class TrainingJob:
    """One agent to be trained once.

    Attributes:
        agent: Its label, see `variants`.
        seed: Of everything random in its training.
        settings: Its settings, where they are not the defaults.
        options: Environment keywords: data, split, listener, reward.
        steps: Slates to recommend, all parallel sessions together.
        folder: Where the finished job shall lie.
        validation_sessions: Most validation sessions that pick the checkpoint.
        validation_listener: Keyword of the listener that picks it; None is the one learned with.
        acting: Settings of acting in which the trained agent differs from its training.
        horizon: Songs of a validation session; None is as many as the log had left.
        dataset: `Dataset.identity` of the data that the run began with; empty where nobody says.
    """

    agent: str
    seed: int
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    steps: int
    folder: str
    validation_sessions: int = VALIDATION_SESSIONS
    validation_listener: str | None = None
    acting: Mapping[str, Any] = field(default_factory=dict)
    horizon: int | None = None
    dataset: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the job was finished, by this or an earlier run."""
        return (Path(self.folder) / TRAINING).is_file()

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return class_of(self.agent).learns


def jobs_for(
    labels: Sequence[str],
    seeds: int,
    *,
    settings: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    steps: int,
    out: Path,
    listeners: Listeners,
    validation_sessions: int | None = None,
    horizon: int | None = None,
    dataset: Mapping[str, Any] | None = None,
) -> list[TrainingJob]:
    """All jobs of a comparison; an agent that does not learn has one, with seed 0.

    ``settings`` are those that the user gave, by label; ``options`` lack the listener. Without
    ``validation_sessions`` it is `VALIDATION_SESSIONS` or `OFFLINE_VALIDATION_SESSIONS`. The
    ``horizon`` is that of validation sessions, ``dataset`` the `Dataset.identity` of their data.
    """
    return [
        TrainingJob(
            label,
            seed,
            settings_of(label, settings),
            {**options, "listener": _training_listener(label, listeners)},
            steps,
            str(out / "agents" / training_of(label) / f"{SEED}{seed}"),
            validation_sessions or _default_validation_sessions(label),
            listeners.picking,
            acting_of(label),
            horizon,
            dataset or {},
        )
        for label in labels
        for seed in range(seeds if class_of(label).learns else 1)
    ]


def _default_validation_sessions(label: str) -> int:
    return OFFLINE_VALIDATION_SESSIONS if class_of(label).offline else VALIDATION_SESSIONS


def _training_listener(label: str, listeners: Listeners) -> str:
    pessimism = variant_of(label).pessimism
    return pessimistic(listeners.training, pessimism) if pessimism else listeners.training


def train(
    job: TrainingJob,
    *,
    progress: Callable[[int], object] | None = None,
    until: int | None = None,
) -> None:
    """Do one job; an interrupted attempt goes on from its last checkpoint, if its agent can.

    The outcome is then the same, bit for bit, as without the interruption. ``progress`` is called
    with the environment steps since its last call. With ``until`` the job pauses after so many
    steps, with a checkpoint to go on from.
    """
    folder = Path(job.folder)
    with held(folder, wait=True):  # a worker whose parent was killed may still be at it
        if not job.done:
            _train(job, folder, progress, until or job.steps)


def _train(
    job: TrainingJob, folder: Path, progress: Callable[[int], object] | None, until: int
) -> None:
    dataset = open_same(job)
    begun = {**_about(job), "dataset": dataset.identity}
    _prepare(folder, begun)
    started = time.perf_counter() - seconds_before(folder)
    agent = make_agent(agent_of(job.agent), dataset, seed=job.seed, settings=job.settings)
    if agent.learns:
        sessions = picking_sessions(dataset, job.validation_sessions)
        listener = job.validation_listener or job.options["listener"]
        validated = {**job.options, "horizon": job.horizon}
        with Monitor(
            agent, folder, sessions, options=validated, listener=listener, progress=progress
        ) as monitor:
            agent.learn(
                job.options,
                until,
                callback=monitor,
                callback_every=max(job.steps // CURVE_POINTS, 1),
                checkpoint=folder / CHECKPOINTS,
            )
    else:
        agent.save(folder / BEST)
    write_seconds(folder, time.perf_counter() - started)
    if until < job.steps:
        return
    open_same(job)  # what it learned with was opened by path, again and again
    write_json(folder / TRAINING, _about(job))
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / BEGUN).unlink(missing_ok=True)


def _prepare(folder: Path, about: Mapping[str, Any]) -> None:
    """Make an empty folder, or keep what an interrupted attempt at the very same job left."""
    begun = folder / BEGUN
    same = begun.is_file() and CheckedFile(begun, DELETE).json() == about
    if same and checkpoints.newest(folder / CHECKPOINTS) is not None:
        return
    if folder.exists():
        remove_tree(folder)
    folder.mkdir(parents=True)
    write_json(begun, {**about})


def _about(job: TrainingJob) -> dict[str, Any]:
    """The job as plain values, with paths relative to its folder: a run can be moved whole."""
    folder = Path(job.folder)
    moved = _with_paths(job, lambda path: os.path.relpath(path, folder))
    about: dict[str, Any] = json.loads(json.dumps({**asdict(moved), "folder": folder.name}))
    return about


def read_training(folder: Path) -> dict[str, Any]:
    """The record of a finished job, its paths made absolute."""
    return asdict(_read_job(folder))


def _read_job(folder: Path) -> TrainingJob:
    """The job whose record lies in a folder.

    Raises:
        InputError: The record is no job's, or the folder is not named after a seed.
    """
    file = CheckedFile(folder / TRAINING, DELETE)
    number = folder.name.removeprefix(SEED)
    file.require(number.isdecimal(), f"it lies in {folder.name!r}", f"a folder {SEED}0, {SEED}1..")
    about = {**file.json(), "folder": str(folder)}
    job = file.built(TrainingJob, about, "the training", defaults=True)
    file.field(job.options, "data", str | None)
    file.field(job.options, "listener", str)
    with reading(file.file, DELETE):
        class_of(job.agent)
        SessionConfig.from_keywords(job.options)
        return _with_paths(job, lambda path: str((folder / path).resolve()))


def _with_paths(job: TrainingJob, moved: Callable[[str], str]) -> TrainingJob:
    """A job with other paths in place of those of its dataset and of fitted listeners."""

    def new(value: str | None) -> str | None:
        return moved(value) if value and value not in LISTENERS else value

    options, picking = job.options, new(job.validation_listener)
    paths = {name: new(options[name]) for name in ("data", "listener") if name in options}
    return replace(job, options={**options, **paths}, validation_listener=picking)


def untrained(jobs: Iterable[TrainingJob]) -> list[str]:
    """A sentence for each agent that ends before it begins to learn from its own slates."""
    said = {}
    for job in jobs:
        settings = class_of(job.agent).Settings.from_mapping(job.settings)
        first = getattr(settings, "learning_starts", 0)
        if job.learns and job.steps < first:
            said[training_of(job.agent)] = (
                f"{training_of(job.agent)} begins to learn after {first:,} slates "
                f"(learning_starts), and --train-steps is {job.steps:,}: of its own slates it "
                "learns nothing, so its figures show how it starts, and not what training gives."
            )
    return list(said.values())


class Afterwards(Protocol):
    """What is done with a finished job, in the process that did it."""

    def __call__(self, job: TrainingJob) -> object:
        """Do it."""

    @property
    def reads(self) -> list[str]:
        """Paths and names of listeners that it reads."""

    @property
    def adds_to(self) -> Path:
        """The folder that it writes files into, an absolute path."""


def train_all(
    jobs: Iterable[TrainingJob],
    where: Where,
    *,
    then: Callable[[TrainingJob], Afterwards] | None = None,
) -> None:
    """Do all jobs that are not done, each on one core.

    Jobs that act with the same training are trained once. ``then`` gives what is done with a job
    in the process that did it; not with jobs of an earlier run.

    Raises:
        FileExistsError: A job was finished under other settings than it would have today.
        ValueError: A job was finished on other data.
    """
    waiting = {}
    for job in jobs:
        if job.done:
            _require_same_settings(job)
        else:
            waiting[job.folder] = replace(job, agent=training_of(job.agent), acting={})
    # Trainings take longest, so that they come first and the others fill the last cores.
    in_order = sorted(waiting.values(), key=lambda job: not job.learns)
    steps = sum(job.steps for job in in_order if job.learns)
    if not steps:  # a process would take longer to start
        where = Where(workers=1)
    tasks = [task_of(job, then and then(job)) for job in in_order]
    with tqdm(total=steps, unit="step", desc="training", smoothing=0.05, disable=not steps) as bar:
        for task, _ in run_all(tasks, where, bar.update, most=len(tasks)):
            bar.set_postfix_str(f"{task.name.removeprefix(TRAINS)} done")


def task_of(job: TrainingJob, then: Afterwards | None = None) -> Task:
    """A job as a task, which can run on another machine: its paths are absolute."""
    job = replace(job, folder=str(Path(job.folder).absolute()))
    read = [job.options.get("data"), job.options["listener"], job.validation_listener]
    read += then.reads if then else []
    return Task(
        f"{TRAINS}{job.agent} with seed {job.seed}",
        _train_then,
        (job, then),
        reads=tuple({Path(path): None for path in read if path and path not in LISTENERS}),
        makes=Path(job.folder),
        adds_to=then.adds_to if then else None,
    )


def _train_then(
    job: TrainingJob, then: Afterwards | None, progress: Callable[[int], object]
) -> None:
    train(job, progress=_up_to(job.steps, progress) if job.learns else None)
    if then is not None:
        then(job)


def _up_to(total: int, progress: Callable[[int], object]) -> Callable[[int], object]:
    """Report no more steps than a total: agents with parallel sessions finish their last round."""
    done = 0

    def report(steps: int) -> None:
        nonlocal done
        step = min(steps, total - done)
        done += step
        progress(step)

    return report


def _require_same_settings(job: TrainingJob) -> None:
    """Refuse to mix trainings on other data, or from before a change of an agent's defaults."""
    file = CheckedFile(Path(job.folder) / BEST / AGENT, DELETE)
    agent = file.json()
    found = file.field(agent, "settings", dict)
    mend = "Remove it, or name another folder with --out."
    dataset = open_dataset(job.options.get("data"))
    dataset.require_same(agent.get("dataset"), f"The training in {job.folder}", mend)
    made, asked = read_training(Path(job.folder)), json.loads(json.dumps(asdict(job)))
    options = {"steps": (made["steps"], asked["steps"])} if job.learns else {}
    for name in ("reward", "horizon"):
        options[name] = made["options"].get(name), asked["options"].get(name)
    if other := sorted(name for name, (before, now) in options.items() if before != now):
        raise FileExistsError(
            f"{job.folder} holds a training of {job.agent} with other options "
            f"({', '.join(other)}). {mend}"
        )
    settings = class_of(job.agent).Settings.from_mapping(job.settings)
    expected = json.loads(json.dumps(asdict(settings)))
    other = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if other:
        raise FileExistsError(
            f"{job.folder} holds a training of {job.agent} with other settings "
            f"({', '.join(other)}); the agent's defaults may have changed since. Remove it, or "
            "name another folder with --out."
        )


def trained(job: TrainingJob) -> Agent:
    """The best checkpoint of a finished job, with its settings of acting."""
    return load_agent(Path(job.folder) / BEST, open_same(job), changed=job.acting)


def open_same(job: TrainingJob) -> Dataset:
    """Open the data of a job.

    Raises:
        ValueError: They are not those that its run began with.
    """
    dataset = open_dataset(job.options.get("data"))
    if job.dataset:
        mend = "Bring the data of the run back, or name another folder with --out."
        dataset.require_same(job.dataset, "What this run has made so far", mend)
    return dataset


def run_folders(run: Path) -> list[Path]:
    """Folders within a run that hold trainings: itself, or those of its parts and test folds.

    Raises:
        FileNotFoundError: There is no training.
    """
    inner = ("", "train_?/", "test-fold-*/", "test-fold-*/train_?/")
    found = {
        file.parents[3]
        for where in inner
        for file in run.glob(f"{where}agents/*/seed-*/{TRAINING}")
    }
    if not found:
        raise FileNotFoundError(f"{run} holds no trained agent (no agents/*/seed-*/).")
    return sorted(found)


def finished_jobs(run: Path) -> list[TrainingJob]:
    """Every finished training of a run.

    Raises:
        FileNotFoundError: There is none.
    """
    files = sorted((run / "agents").glob(f"*/{SEED}*/{TRAINING}"))
    jobs = [_read_job(file.parent) for file in files]
    if not jobs:
        raise FileNotFoundError(f"{run} holds no trained agent (no agents/*/seed-*/).")
    return sorted(jobs, key=lambda job: (job.agent, job.seed))


def curve(job: TrainingJob) -> list[tuple[int, float]]:
    """Validation skip rate of a finished job by steps; empty if it did not learn."""
    return [(int(row["steps"]), row[VALIDATION]) for row in read_curve(Path(job.folder))]


def seconds(job: TrainingJob) -> float:
    """Wall time that the job took."""
    return seconds_before(Path(job.folder))
