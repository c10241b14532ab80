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
from tqdm import tqdm

from agents import AGENTS, Agent, agent_class, load_agent, make_agent
from experiments.evaluation import roll_out, skip_rate
from musicbox_env.dataset import write_json
from musicbox_env.listeners import LISTENERS
from musicbox_env.schema import require_known
from musicbox_env.simulator import open_dataset

CURVE_POINTS = 10
VALIDATION_SESSIONS = 500
OFFLINE_VALIDATION_SESSIONS = 5_000
"""Re-ranking takes one step a session, and its differences are small."""


@dataclass(frozen=True)
class TrainingJob:
    """One agent to be trained once.

    Attributes:
        agent: Its name.
        seed: Of everything random in its training.
        settings: Its settings, where they are not the defaults.
        options: Environment keywords: data, split, listener, reward.
        steps: Slates to recommend, all parallel sessions together.
        folder: Where the finished job shall lie.
    """

    agent: str
    seed: int
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    steps: int
    folder: str

    @property
    def done(self) -> bool:
        """Whether the job was finished, by this or an earlier run."""
        return (Path(self.folder) / "training.json").is_file()


def parse_settings(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Turn ``AGENT.NAME=VALUE`` into a dictionary for each agent; values are read as JSON.

    >>> parse_settings(["ddpg.gamma=0.5", "ddpg.start=cloned"])
    {'ddpg': {'gamma': 0.5, 'start': 'cloned'}}
    """
    parsed: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        agent, dot, name = target.partition(".")
        if not (equals and dot and name):
            raise ValueError(f"{setting!r} is no setting; expected AGENT.NAME=VALUE.")
        require_known("agent", agent, AGENTS)
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        parsed.setdefault(agent, {})[name] = value
    return parsed


def jobs_for(
    agents: Sequence[str],
    seeds: int,
    *,
    settings: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    steps: int,
    out: Path,
) -> list[TrainingJob]:
    """All jobs of a comparison; an agent that does not learn has one, with seed 0."""
    jobs = []
    for name in agents:
        for seed in range(seeds if agent_class(name).learns else 1):
            folder = out / "agents" / name / f"seed-{seed}"
            jobs.append(
                TrainingJob(name, seed, settings.get(name, {}), options, steps, str(folder))
            )
    return jobs


def train(job: TrainingJob, *, progress: Callable[[int], object] | None = None) -> None:
    """Do one job; what an interrupted attempt left is thrown away first.

    Args:
        job: What to train.
        progress: Told how many environment steps were done since it was last told.
    """
    folder = Path(job.folder)
    if job.done:
        return
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    started = time.perf_counter()
    agent = make_agent(
        job.agent, open_dataset(job.options.get("data")), seed=job.seed, settings=job.settings
    )
    if agent.learns:
        with _Monitor(job, agent, folder, progress) as monitor:
            agent.learn(
                job.options,
                job.steps,
                callback=monitor,
                callback_every=max(job.steps // CURVE_POINTS, 1),
            )
    else:
        agent.save(folder / "best")
    seconds = time.perf_counter() - started
    write_json(
        folder / "training.json",
        {
            **asdict(job),
            "options": _seen_from(folder, job.options),
            "folder": folder.name,
            "seconds": round(seconds, 2),
        },
    )


def read_training(folder: Path) -> dict[str, Any]:
    """What ``training.json`` of a finished job says, its paths as they are from here."""
    about: dict[str, Any] = json.loads((folder / "training.json").read_text())
    options = about["options"]
    found = {name: str((folder / options[name]).resolve()) for name in _paths_in(options)}
    return {**about, "options": {**options, **found}}


def _seen_from(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Environment keywords with paths from the folder on, so that a run can be moved whole."""
    paths = {name: os.path.relpath(options[name], folder) for name in _paths_in(options)}
    return {**options, **paths}


def _paths_in(options: Mapping[str, Any]) -> list[str]:
    values = {name: options.get(name) for name in ("data", "listener")}
    return [name for name, value in values.items() if value and value not in LISTENERS]


class _Monitor:
    """Follows a training: validates, keeps the best checkpoint, writes curve and TensorBoard."""

    def __init__(
        self,
        job: TrainingJob,
        agent: Agent,
        folder: Path,
        progress: Callable[[int], object] | None,
    ) -> None:
        dataset = open_dataset(job.options.get("data"))
        sessions = dataset.sessions.sessions_in("validation")
        sessions = sessions[dataset.sessions.lengths(sessions) >= 2]
        most = OFFLINE_VALIDATION_SESSIONS if agent.offline else VALIDATION_SESSIONS
        self._sessions = sessions[:most]
        self._job, self._agent, self._folder, self._progress = job, agent, folder, progress
        self._best = np.inf
        self._rows: list[dict[str, float]] = []
        self._steps = 0

    def __enter__(self) -> _Monitor:
        self._scalars = _ScalarFile(self._folder / "tensorboard")
        return self

    def __exit__(self, *exception: object) -> None:
        self._scalars.close()

    def __call__(self, steps: int, metrics: Mapping[str, float]) -> None:
        value = self._validate()
        row = {"steps": float(steps), "validation_skip_rate": value, **metrics}
        self._rows.append(row)
        self._scalars.add(steps, row)
        self._write_curve()
        if value <= self._best:
            self._best = value
            self._agent.save(self._folder / "best")
        if self._progress is not None:
            self._progress(steps - self._steps)
        self._steps = steps

    def _validate(self) -> float:
        """Skip rate on validation sessions, on the listener that the agent trains with.

        An agent that learns from logs alone is judged by logs alone: on the first slate that it
        chooses among the plays which each session still holds, whose labels are real.
        """
        if not len(self._sessions):
            return -float(len(self._rows))
        options = {**self._job.options, "split": "validation"}
        listener, steps = options.pop("listener"), None
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

        folder.mkdir()
        self._records = RecordWriter((folder / "events.out.tfevents.training").open("wb"))
        self._write(file_version="brain.Event:2")

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        values = [Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()]
        self._write(step=step, summary=Summary(value=values))
        self._records.flush()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def close(self) -> None:
        self._records.close()


def train_all(jobs: Iterable[TrainingJob], *, workers: int) -> None:
    """Do all jobs that are not done, ``workers`` at once, each on one core."""
    waiting = [job for job in jobs if not job.done]
    learning = [job for job in waiting if agent_class(job.agent).learns]
    for job in waiting:
        if job not in learning:
            train(job)
    if not learning:
        return
    total = sum(job.steps for job in learning)
    with tqdm(total=total, unit="step", desc="training", smoothing=0.05) as bar:
        if min(workers, len(learning)) == 1:
            for job in learning:
                train(job, progress=bar.update)
        else:
            _train_side_by_side(learning, workers, bar)


def _train_side_by_side(jobs: Sequence[TrainingJob], workers: int, bar: tqdm) -> None:
    """Do the jobs in processes; the first error stops those that have not begun."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool,
    ):
        steps = manager.Queue()
        running = {pool.submit(train, job, progress=steps.put): job for job in jobs}
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


def trained(job: TrainingJob) -> Agent:
    """The finished job's best checkpoint."""
    return load_agent(Path(job.folder) / "best", open_dataset(job.options.get("data")))


def curve(job: TrainingJob, name: str = "validation_skip_rate") -> list[tuple[int, float]]:
    """One column of a finished job's curve as (steps, value); empty if it did not learn."""
    file = Path(job.folder) / "curve.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as rows:
        return [(int(float(row["steps"])), float(row[name])) for row in csv.DictReader(rows)]


def seconds(job: TrainingJob) -> float:
    """Wall time that the job took."""
    return float(read_training(Path(job.folder))["seconds"])
