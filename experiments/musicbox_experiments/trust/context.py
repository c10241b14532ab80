"""What all listeners of a simulator validation report are measured on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import Listener
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.schema import is_skip
from musicbox_experiments.evaluate.resampling import Measured, Resampling, Statistic
from musicbox_experiments.listeners.fit_leaving import leaving_seen
from musicbox_experiments.trust.boosting import BoostingBaseline
from musicbox_experiments.trust.queries import Log
from musicbox_experiments.trust.records import Findings, Record


@dataclass(frozen=True)
class ListenerUnderTest:
    """A listener under test.

    Attributes:
        name: Its name in the report.
        listener: As it is queried; the replay listener as `queries.ImputingReplay`.
        spec: What opens it again in an environment: a registered name or a path.
        sees_session: Whether its answers use labels of the whole session, later ones too: it can
            then be compared with the log only as an imputer.
        split: Training sessions that it was fitted on; its baseline is fitted on the same.
    """

    name: str
    listener: Listener[Any]
    spec: str
    sees_session: bool = False
    split: str = "train"


@dataclass(frozen=True)
class Context:
    """Sessions, resamples and baselines, the same for every listener, and what is found.

    Attributes:
        log: Sessions that no listener was fitted on.
        resampling: Their resamples.
        boosting: Gradient boosting for each training split that a listener was fitted on.
        samples: Free runs of each session.
        draws: Continuations of each session from which its second half is predicted.
        seed: Of all random numbers.
        findings: All figures so far.
    """

    log: Log
    resampling: Resampling
    boosting: Mapping[str, BoostingBaseline]
    samples: int
    draws: int
    seed: int
    findings: Findings = field(default_factory=Findings)

    @property
    def dataset(self) -> Dataset:
        """The dataset of the sessions."""
        return self.log.dataset

    @property
    def split(self) -> Mapping[str, Any]:
        """How the dataset's sessions are divided, by ``dataset.json``; empty if it says nothing."""
        split: Mapping[str, Any] = self.dataset.about.get("split", {})
        return split

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return len(self.log.sessions)

    @cached_property
    def skipped(self) -> npt.NDArray[np.bool_]:
        """Real labels ``(n, width)``."""
        return is_skip(self.log.levels)

    @cached_property
    def leaving(self) -> LeavingModel | None:
        """When listeners of the training sessions leave; None where nobody is seen to."""
        return leaving_seen(self.dataset)

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of one purpose, the same for every listener."""
        return np.random.default_rng([self.seed, purpose])

    def measure(self, statistic: Statistic) -> Measured:
        """A figure with its resamples."""
        return self.resampling.measure(statistic)

    def add(
        self,
        listener: str,
        protocol: str,
        metric: str,
        figure: Measured | Statistic,
        reference: float | None = None,
    ) -> Measured:
        """Measure a figure if it is not yet measured, add its record, and return it."""
        measured = figure if isinstance(figure, Measured) else self.measure(figure)
        value = low = high = None
        if math.isfinite(measured.value):
            value, low, high = measured.value, measured.low, measured.high
        if reference is not None and not math.isfinite(reference):
            reference = None
        record = Record(listener, protocol, metric, value, low, high, reference)
        self.findings.records.append(record)
        return measured
