"""Training agents: one job an agent and seed, side by side in processes, each resumable.

A finished job is a folder::

    agents/<agent>/seed-<s>/
      best/            the checkpoint that validation liked best
      curve.csv        steps, validation skip rate and what the agent reports of itself
      tensorboard/     the same for TensorBoard
      training.json    written last: settings, steps, time; without it the job is not done
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from musicbox_agents import Agent, load_agent, make_agent
from musicbox_agents.ddpg import resume
from tqdm import tqdm

from musicbox_env.data.writing import write_json
from musicbox_env.listeners import LISTENERS
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.data.sampling import picking_sessions
from musicbox_experiments.evaluate.rollout import roll_out, skip_rate
from musicbox_experiments.train.simulators import Listeners, pessimistic
from musicbox_experiments.train.variants import agent_of, class_of, pessimism_of, settings_of

CURVE_POINTS = 10
CHECKPOINTS, ASKED, ELAPSED = "checkpoints", "asked.json", "elapsed.json"
"""What an unfinished job leaves to go on from."""
VALIDATION = "validation_skip_rate"
VALIDATION_SESSIONS = 500
OFFLINE_VALIDATION_SESSIONS = 5_000
"""Re-ranking takes one step a session, and its differences are small."""


@dataclass(frozen=True)
class TrainingJob:
    """One agent to be trained once.

    Attributes:
        agent: Its label: a name, or that of a variant (see `variants`).
        seed: Of everything random in its training.
        settings: Its settings, where they are not the defaults.
        options: Environment keywords: data, split, listener, reward.
        steps: Slates to recommend, all parallel sessions together.
        folder: Where the finished job shall lie.
        validation_sessions: Most validation sessions that pick the checkpoint.
        validation_listener: Keyword of the listener that picks it; None is the one learned with.
    """

    agent: str
    seed: int
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    steps: int
    folder: str
    validation_sessions: int = VALIDATION_SESSIONS
    validation_listener: str | None = None

    @property
    def done(self) -> bool:
        """Whether the job was finished, by this or an earlier run."""
        return (Path(self.folder) / "training.json").is_file()

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
    validation_sessions: int = VALIDATION_SESSIONS,
) -> list[TrainingJob]:
    """All jobs of a comparison; an agent that does not learn has one, with seed 0.

    Args:
        labels: Agents and variants of them.
        seeds: How many trainings of each.
        settings: For each label what differs from what it stands for.
        options: Environment keywords, without the listener.
        steps: Slates of each training.
        out: Folder of the run.
        listeners: Those that teach and pick.
        validation_sessions: Most validation sessions that pick the checkpoint.
        validation_listener: Keyword of the listener that picks it; None is the one learned with.
    """
    return [
        TrainingJob(
            label,
            seed,
            settings_of(label, settings),
            {**options, "listener": _teacher(label, listeners)},
            steps,
            str(out / "agents" / label / f"seed-{seed}"),
            validation_sessions,
            listeners.picking,
        )
        for label in labels
        for seed in range(seeds if class_of(label).learns else 1)
    ]


def _teacher(label: str, listeners: Listeners) -> str:
    """The listener that an agent learns with."""
    spreads = pessimism_of(label)
    return pessimistic(listeners.training, spreads) if spreads else listeners.training


def train(job: TrainingJob, *, progress: Callable[[int], object] | None = None) -> None:
    """Do one job; an interrupted attempt goes on from its last checkpoint, if its agent can.

    The outcome is then the same, bit for bit, as without the interruption.

    Args:
        job: What to train.
        progress: Told how many environment steps were done since it was last told.
    """
    folder = Path(job.folder)
    if job.done:
        return
    _prepare(job, folder)
    started = time.perf_counter() - _seconds_before(folder)
    agent = make_agent(
        agent_of(job.agent),
        open_dataset(job.options.get("data")),
        seed=job.seed,
        settings=job.settings,
    )
    if agent.learns:
        with _Monitor(job, agent, folder, progress) as monitor:
            agent.learn(
                job.options,
                job.steps,
                callback=monitor,
                callback_every=max(job.steps // CURVE_POINTS, 1),
                checkpoint=folder / CHECKPOINTS,
            )
    else:
        agent.save(folder / "best")
    seconds = time.perf_counter() - started
    write_json(
        folder / "training.json",
        {**_about(job), "seconds": round(seconds, 2)},
    )
    for leftover in (folder / CHECKPOINTS, folder / ASKED, folder / ELAPSED):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _prepare(job: TrainingJob, folder: Path) -> None:
    """Make room for a job, or find what an interrupted attempt at the very same job left."""
    asked, checkpoints = folder / ASKED, folder / CHECKPOINTS
    same = asked.is_file() and json.loads(asked.read_text()) == _about(job)
    if same and resume.newest(checkpoints) is not None:
        return
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(asked, _about(job))


def _about(job: TrainingJob) -> dict[str, Any]:
    """The job as plain values, wherever its folder lies."""
    folder = Path(job.folder)
    about = {
        **asdict(job),
        "options": _seen_from(folder, job.options),
        "validation_listener": _listener_from(folder, job.validation_listener),
        "folder": folder.name,
    }
    return dict(json.loads(json.dumps(about)))


def read_training(folder: Path) -> dict[str, Any]:
    """What ``training.json`` of a finished job says, its paths as they are from here."""
    about: dict[str, Any] = json.loads((folder / "training.json").read_text())
    options, picking = about["options"], about.get("validation_listener") or ""
    found = {name: str((folder / options[name]).resolve()) for name in _paths_in(options)}
    if _is_path(picking):
        about["validation_listener"] = str((folder / picking).resolve())
    return {**about, "options": {**options, **found}}


def _seen_from(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Environment keywords with paths from the folder on, so that a run can be moved whole."""
    paths = {name: os.path.relpath(options[name], folder) for name in _paths_in(options)}
    return {**options, **paths}


def _listener_from(folder: Path, listener: str | None) -> str | None:
    return os.path.relpath(listener, folder) if listener and _is_path(listener) else listener


def _paths_in(options: Mapping[str, Any]) -> list[str]:
    return [name for name in ("data", "listener") if _is_path(options.get(name))]


def _is_path(value: str | None) -> bool:
    """Whether a keyword names a file or folder, and not a listener or nothing."""
    return bool(value) and value not in LISTENERS


def _seconds_before(folder: Path) -> float:
    """What interrupted attempts took until their last checkpoint."""
    file = folder / ELAPSED
    return float(json.loads(file.read_text())["seconds"]) if file.is_file() else 0.0


class _Monitor:
    """Follows a training: validates, keeps the best checkpoint, writes curve and TensorBoard."""

    def __init__(
        self,
        job: TrainingJob,
        agent: Agent,
        folder: Path,
        progress: Callable[[int], object] | None,
    ) -> None:
        most = OFFLINE_VALIDATION_SESSIONS if agent.offline else job.validation_sessions
        self._sessions = picking_sessions(open_dataset(job.options.get("data")), most)
        self._job, self._agent, self._folder, self._progress = job, agent, folder, progress
        self._started = time.perf_counter() - _seconds_before(folder)
        self._rows = self._rows_before()
        self._best = min((row[VALIDATION] for row in self._rows), default=np.inf)
        self._steps = 0

    def _rows_before(self) -> list[dict[str, float]]:
        """The curve up to the checkpoint from which the training goes on."""
        checkpoint = resume.newest(self._folder / CHECKPOINTS)
        if checkpoint is None:
            return []
        rows = _read_curve(self._folder / "curve.csv")
        return [row for row in rows if row["steps"] <= resume.steps_of(checkpoint)]

    def __enter__(self) -> _Monitor:
        self._scalars = _ScalarFile(self._folder / "tensorboard")
        for row in self._rows:
            self._scalars.add(row)
        return self

    def __exit__(self, *exception: object) -> None:
        self._scalars.close()

    def __call__(self, steps: int, metrics: Mapping[str, float]) -> None:
        value = self._validate()
        row = {"steps": float(steps), VALIDATION: value, **metrics}
        self._rows.append(row)
        self._scalars.add(row)
        self._write_curve()
        if value <= self._best:
            self._best = value
            self._agent.save(self._folder / "best")
        if self._progress is not None:
            self._progress(steps - self._steps)
        self._steps = steps
        write_json(self._folder / ELAPSED, {"seconds": time.perf_counter() - self._started})

    def _validate(self) -> float:
        """Skip rate on validation sessions, on the listener that picks checkpoints.

        An agent that learns from logs alone is evaluated by logs alone: on the first slate that it
        chooses among the plays which each session still holds, whose labels are real.
        """
        if not len(self._sessions):
            return -float(len(self._rows))
        options = {**self._job.options, "split": "validation", "horizon": None}
        taught_by, steps = options.pop("listener"), None
        listener = self._job.validation_listener or taught_by
        if self._agent.offline:
            options["candidates"] = "session"
            listener, steps = "replay", 1
        rollout = roll_out(self._agent, options, self._sessions, listener=listener, max_steps=steps)
        return skip_rate(rollout)

    def _write_curve(self) -> None:
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with (self._folder / "curve.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)


class _ScalarFile:
    """Scalars for TensorBoard.

    Its own writer names the file after the machine; a run shall not tell whose it was.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        self._records = RecordWriter((folder / "events.out.tfevents.training").open("wb"))
        self._write(file_version="brain.Event:2")

    def add(self, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        self._write(step=int(scalars["steps"]), summary=Summary(value=values))
        self._records.flush()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        self._records.close()


def train_all(
    jobs: Iterable[TrainingJob],
    *,
    workers: int,
    then: Callable[[TrainingJob], None] | None = None,
) -> None:
    """Do all jobs that are not done, ``workers`` at once, each on one core.

    Args:
        jobs: What to train.
        workers: Processes.
        then: Done with each agent that learned, in the process that trained it; may do nothing
            that is not also done for jobs of an earlier run.

    Raises:
        FileExistsError: A job was finished under other settings than it would have today.
    """
    jobs = list(jobs)
    for job in jobs:
        if job.done:
            _require_same_settings(job)
    waiting = [job for job in jobs if not job.done]
    learning = [job for job in waiting if job.learns]
    for job in waiting:
        if job not in learning:
            train(job)
    if not learning:
        return
    total = sum(job.steps for job in learning)
    with tqdm(total=total, unit="step", desc="training", smoothing=0.05) as bar:
        if min(workers, len(learning)) == 1:
            for job in learning:
                _train_then(job, then, bar.update)
        else:
            _train_side_by_side(learning, workers, then, bar)


def _train_then(
    job: TrainingJob,
    then: Callable[[TrainingJob], None] | None,
    progress: Callable[[int], object],
) -> None:
    train(job, progress=progress)
    if then is not None:
        then(job)


def _require_same_settings(job: TrainingJob) -> None:
    """Refuse to mix trainings from before and after a change of an agent's defaults."""
    found = json.loads((Path(job.folder) / "best" / "agent.json").read_text())["settings"]
    settings = class_of(job.agent).Settings.from_mapping(job.settings)
    asked = json.loads(json.dumps(asdict(settings)))
    other = sorted(name for name in {*found, *asked} if found.get(name) != asked.get(name))
    if other:
        raise FileExistsError(
            f"{job.folder} holds a training of {job.agent} with other settings "
            f"({', '.join(other)}); the agent's defaults may have changed since. Remove it, or "
            "name another folder with --out."
        )


def _train_side_by_side(
    jobs: Sequence[TrainingJob],
    workers: int,
    then: Callable[[TrainingJob], None] | None,
    bar: tqdm,
) -> None:
    """Do the jobs in processes; the first error stops those that have not begun."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool,
    ):
        steps = manager.Queue()
        running = {pool.submit(_train_then, job, then, steps.put): job for job in jobs}
        while running:
            finished = [future for future in running if future.done()]
            while not steps.empty():
                bar.update(steps.get())
            for future in finished:
                job = running.pop(future)
                if error := future.exception():
                    pool.shutdown(cancel_futures=True)
                    raise RuntimeError(
                        f"Training {job.agent} with seed {job.seed} failed: {error}"
                    ) from error
                bar.set_postfix_str(f"{job.agent} seed {job.seed} done")
            time.sleep(0.2)


def trained(job: TrainingJob, changed: Mapping[str, Any] | None = None) -> Agent:
    """The finished job's best checkpoint, acting under changed settings if any are given."""
    dataset = open_dataset(job.options.get("data"))
    return load_agent(Path(job.folder) / "best", dataset, changed=changed)


def finished_jobs(run: Path) -> list[TrainingJob]:
    """Every finished training of a run.

    Raises:
        FileNotFoundError: There is none.
    """
    jobs = []
    for file in sorted((run / "agents").glob("*/seed-*/training.json")):
        about = read_training(file.parent)
        about.pop("seconds")
        jobs.append(TrainingJob(**{**about, "folder": str(file.parent)}))
    if not jobs:
        raise FileNotFoundError(f"{run} holds no trained agent (no agents/*/seed-*/).")
    return sorted(jobs, key=lambda job: (job.agent, job.seed))


def curve(job: TrainingJob, name: str = VALIDATION) -> list[tuple[int, float]]:
    """One column of a finished job's curve as (steps, value); empty if it did not learn."""
    file = Path(job.folder) / "curve.csv"
    if not file.is_file():
        return []
    return [(int(row["steps"]), row[name]) for row in _read_curve(file)]


def _read_curve(file: Path) -> list[dict[str, float]]:
    """Rows of a curve; what a row does not tell is left out of it."""
    with file.open(newline="") as rows:
        return [{n: float(v) for n, v in row.items() if v} for row in csv.DictReader(rows)]


def seconds(job: TrainingJob) -> float:
    """Wall time that the job took."""
    return float(read_training(Path(job.folder))["seconds"])
