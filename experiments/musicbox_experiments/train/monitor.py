"""Follow a training: validate it, keep its best checkpoint, write its curve."""

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent
from musicbox_agents.ddpg import checkpoints

from musicbox_env.data.checks import LARGEST_WHOLE, CheckedFile
from musicbox_env.data.writing import write_json
from musicbox_env.errors import reading
from musicbox_experiments.evaluate.metrics import skip_rate
from musicbox_experiments.evaluate.rollout import roll_out

BEST, CURVE = "best", "curve.csv"
CHECKPOINTS = "checkpoints"
"""What an unfinished training leaves to go on from."""
TIMING = "timing.json"
"""What differs between two runs of the same training."""
VALIDATION = "validation_skip_rate"


class Monitor:
    """Callback of `Agent.learn`; a context manager."""

    def __init__(
        self,
        agent: Agent,
        folder: Path,
        sessions: npt.NDArray[np.int64],
        *,
        options: Mapping[str, Any],
        listener: str,
        progress: Callable[[int], object] | None,
    ) -> None:
        """Go on from the last checkpoint, if the folder holds one.

        The listener picks the best checkpoint on the validation sessions; without sessions the
        last one is kept. ``progress`` is called with the steps since its last call.
        """
        self._agent, self._folder, self._sessions = agent, folder, sessions
        self._options = {**options, "split": "validation"}
        self._options.pop("listener")
        self._listener, self._progress = listener, progress
        self._started = time.perf_counter() - seconds_before(folder)
        self._rows = self._rows_before()
        self._best = min((row[VALIDATION] for row in self._rows), default=np.inf)
        self._steps = 0

    def _rows_before(self) -> list[dict[str, float]]:
        """The curve up to the checkpoint from which the training goes on."""
        checkpoint = checkpoints.newest(self._folder / CHECKPOINTS)
        if checkpoint is None:
            return []
        rows = read_curve(self._folder)
        return [row for row in rows if row["steps"] <= checkpoints.steps_of(checkpoint)]

    def __enter__(self) -> Self:
        self._scalars = _ScalarFile(self._folder / "tensorboard")
        for row in self._rows:
            self._scalars.add(row)
        return self

    def __exit__(self, *exception: object) -> None:
        self._scalars.close()

    def __call__(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Validate after so many steps of the training."""
        value = self._validate()
        row = {"steps": float(steps), VALIDATION: value, **metrics}
        self._rows.append(row)
        self._scalars.add(row)
        self._write_curve()
        if value <= self._best:
            self._best = value
            self._agent.save(self._folder / BEST)
        if self._progress is not None:
            self._progress(steps - self._steps)
        self._steps = steps
        write_seconds(self._folder, time.perf_counter() - self._started)

    def _validate(self) -> float:
        """Skip rate on the validation sessions, with the listener that picks checkpoints.

        An agent that learns from logs alone is evaluated by logs alone: on the first slate that it
        chooses among the plays which each session still holds, whose labels are real.
        """
        if not len(self._sessions):
            return -float(len(self._rows))
        options, listener, steps = self._options, self._listener, None
        if self._agent.offline:
            options = {**options, "candidates": "session", "horizon": None}
            listener, steps = "replay", 1
        rollout = roll_out(self._agent, options, self._sessions, listener=listener, max_steps=steps)
        return skip_rate(rollout).mean

    def _write_curve(self) -> None:
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        with (self._folder / CURVE).open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)


class _ScalarFile:
    """Scalars for TensorBoard.

    Its own writer names the file after the machine, which no run may reveal. All events are of
    time 0, so that the same training gives the same bytes.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        self._records = RecordWriter((folder / "events.out.tfevents.training").open("wb"))
        self._write(file_version="brain.Event:2")

    def add(self, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        # Rows of the curve hold their numbers in another order than metrics as they come.
        values = [Summary.Value(tag=name, simple_value=x) for name, x in sorted(scalars.items())]
        self._write(step=int(scalars["steps"]), summary=Summary(value=values))
        self._records.flush()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]

        self._records.write(Event(wall_time=0, **content).SerializeToString())

    def close(self) -> None:
        self._records.close()


def read_curve(folder: Path) -> list[dict[str, float]]:
    """Rows of a training's curve without their empty cells; no rows where it did not learn."""
    file = CheckedFile(folder / CURVE, "Train the agent again.")
    if not file.file.is_file():
        return []
    with reading(file.file, file.mend), file.file.open(newline="") as rows:
        found = [{n: float(v) for n, v in row.items() if v} for row in csv.DictReader(rows)]
    for row in found:
        steps = row.get("steps", np.nan)
        right = 0 <= steps <= LARGEST_WHOLE and VALIDATION in row
        file.require(right, f"a row of {steps} steps", f"steps and {VALIDATION} in each row")
    return found


def write_seconds(folder: Path, seconds: float) -> None:
    """Write how long a training has taken so far, interrupted attempts included."""
    write_json(folder / TIMING, {"seconds": round(seconds, 2)})


def seconds_before(folder: Path) -> float:
    """Time that a training took: that of a finished one, or until the last validation."""
    file = CheckedFile(folder / TIMING, "Delete it.")
    if not file.file.is_file():
        return 0.0
    seconds = file.json().get("seconds")
    right = isinstance(seconds, int | float) and 0 <= seconds <= LARGEST_WHOLE
    file.require(right, "no seconds in it", "how long a training took")
    return float(seconds or 0)
