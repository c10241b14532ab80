"""Fit when listeners leave, on logged sessions, and print the evidence.

A session that is shorter than the longest ended because the listener left; one of full length was
cut, and nobody knows when it would have ended. The model is `musicbox_env.listeners.leaving`,
fitted on training sessions and evaluated on all others. ``leaving="fitted"`` opens it in an
environment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from musicbox_agents.base import require_ranges
from scipy.optimize import minimize
from scipy.special import expit
from tyro.conf import Positional

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import skip_share
from musicbox_env.listeners.files import require_own_file
from musicbox_env.listeners.leaving import FILE, FITTED_ON, PUBLISHED, LeavingModel
from musicbox_env.locks import held
from musicbox_env.schema import Level
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.evaluate.resampling import Measured, Resampling, Sums, by_session, ratio
from musicbox_experiments.text import bracketed, columns, percent, say

EFFECT_SD: Final = 1.0
"""Prior standard deviation around 0 of every effect, and of a position around the mean one."""

EFFECTS: Final = ("last", "before", "skip_rate")
"""What the hazard may depend on beside the position; see `LeavingModel`."""

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FitLeavingConfig:
    """Options of `musicbox fit-leaving`."""

    data: Positional[Path | None] = None
    """Dataset folder; the bundled synthetic one if none is named."""
    out: Path | None = None
    """File to write; by default DATA/leaving.json."""
    resamples: int = 1_000
    """Times that the sessions are drawn anew for the intervals."""
    seed: int = 0
    """Of the resamples."""

    def __post_init__(self) -> None:
        require_ranges(self, {"resamples": (1, np.inf)})


@dataclass(frozen=True)
class Moments:
    """All moments at which a listener could have left: n sessions, m moments.

    Attributes:
        session: Which session each belongs to ``(m,)``, from 0 to n - 1.
        levels: Levels of that session ``(m, width)``.
        count: Songs heard so far ``(m,)``.
        left: Whether the listener left ``(m,)``.
        num_sessions: n.
        first: Fewest songs after which anybody leaves.
        last: Most songs after which anybody is seen to leave.
    """

    session: Ints
    levels: npt.NDArray[np.int8]
    count: Ints
    left: npt.NDArray[np.bool_]
    num_sessions: int
    first: int
    last: int

    @classmethod
    def of(cls, dataset: Dataset, sessions: Ints, first: int) -> Self:
        """Of logged sessions; leaving is possible after ``first`` songs and more."""
        width = dataset.longest_session
        levels = dataset.sessions.padded("level", sessions, width)
        lengths = dataset.sessions.lengths(sessions)
        counts = np.arange(first, width)
        session, which = np.nonzero(counts <= lengths[:, None])
        count = counts[which]
        left = count == lengths[session]
        return cls(session, levels[session], count, left, len(sessions), first, width - 1)

    def regressors(self) -> dict[str, Array]:
        """What the hazard is linear in, each ``(m, columns)``; full plays are the reference."""
        rows, levels = np.arange(len(self.count)), np.arange(Level.FULL)
        parts = {
            "position": self.count[:, None] == np.arange(self.first, self.last + 1),
            "last": self.levels[rows, self.count - 1, None] == levels,
            "before": self.levels[rows, self.count - 2, None] == levels,
            "skip_rate": skip_share(self.levels, self.count - 1)[:, None] - 0.5,
        }
        return {name: part.astype(np.float64) for name, part in parts.items()}


def training_moments(dataset: Dataset, sessions: Ints | None = None) -> Moments:
    """Of training sessions, of all of them if None.

    Raises:
        ValueError: All are of the same length, so that nobody is seen to leave; or they are windows
            of longer runs of plays, and end where these were divided.
    """
    if "history" in dataset.about:
        raise ValueError(
            f"{dataset.folder} was made from listening histories, whose long runs are divided into "
            "sessions: where a session ends there, nobody need have left. Only logs that cut all "
            f"sessions at one length tell when listeners leave; or take leaving={PUBLISHED!r}."
        )
    train = dataset.sessions.sessions_in("train")
    first = int(dataset.sessions.lengths(train).min(initial=dataset.longest_session))
    if first == dataset.longest_session:
        raise ValueError(
            f"All training sessions of {dataset.folder} have {first} plays; nobody is seen to "
            "leave. Ingest sessions of several lengths."
        )
    return Moments.of(dataset, train if sessions is None else sessions, max(first, 2))


def leaving_seen(dataset: Dataset, sessions: Ints | None = None) -> LeavingModel | None:
    """The hazard of training sessions, of all of them if None; None where nobody is seen to leave.

    See `training_moments`.
    """
    try:
        return fit(training_moments(dataset, sessions))
    except ValueError:
        return None


def fit(moments: Moments, effects: Sequence[str] = EFFECTS) -> LeavingModel:
    """The likeliest hazard under normal priors, with some of the effects or all."""
    names, regressors = ("position", *effects), moments.regressors()
    table = np.column_stack([np.ones(len(moments.count)), *(regressors[name] for name in names)])
    precision = np.full(table.shape[1], EFFECT_SD**-2)
    precision[0] = 0.0

    def loss(weights: Array) -> tuple[float, Array]:
        hazard = table @ weights
        prior = (precision * weights**2).sum() / 2
        value = np.logaddexp(0, hazard).sum() - hazard[moments.left].sum() + prior
        return float(value), table.T @ (expit(hazard) - moments.left) + precision * weights

    start = np.zeros(table.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    ends = np.cumsum([regressors[name].shape[1] for name in names])
    parts = dict(zip(names, np.split(found[1:], ends[:-1]), strict=True))
    rate = float(parts.pop("skip_rate", [0.0])[0])
    position = tuple(found[0] + parts.pop("position"))
    levels = {name: (*part, 0.0) for name, part in parts.items()}
    return LeavingModel(moments.first, position, skip_rate=rate, **levels)


def log_likelihood(model: LeavingModel, moments: Moments) -> Array:
    """Of what each session did, in nats ``(num_sessions,)``."""
    chances = model.chances(moments.levels, moments.count)
    each = np.log(np.where(moments.left, chances, 1 - chances))
    return by_session(each, moments.session, moments.num_sessions)


COMPARED: Final[Mapping[str, Sequence[str]]] = {
    "level of the song just heard": ("last",),
    "level of the song before it": ("before",),
    "share skipped of all before": ("skip_rate",),
    "the two that were known before the song": ("before", "skip_rate"),
    "all three": EFFECTS,
}


def run(config: FitLeavingConfig) -> Path:
    """Fit on training sessions, print the evidence of the others, write; returns the file."""
    dataset = open_dataset(config.data)
    out = config.out or dataset.folder / FILE
    require_own_file(out, LeavingModel.read)
    train = dataset.sessions.sessions_in("train")
    moments = training_moments(dataset)
    held_out = np.setdiff1d(np.arange(dataset.sessions.num_sessions), train)
    evaluated = Moments.of(dataset, held_out, moments.first)
    model = fit(moments)
    rng = np.random.default_rng(config.seed)
    resampling = Resampling(len(held_out), rng=rng, resamples=config.resamples)
    with held(out, wait=True):
        of = {"training_sessions": len(train), "left": int(moments.left.sum())}
        model.save(out, {FITTED_ON: dataset.identity, **of})
    say(evidence(model, moments, evaluated, resampling))
    say(f"\n{out}: leaving, fitted on {len(train):,} sessions.")
    return out


def evidence(
    model: LeavingModel, moments: Moments, evaluated: Moments, resampling: Resampling
) -> str:
    """Fitted against observed leaving on held-out sessions, and what each effect adds."""
    published = LeavingModel.published()
    ours, theirs = (m.chances(evaluated.levels, evaluated.count) for m in (model, published))
    positions = [["leaving after song", "log", "fitted", "published"]]
    for count in range(evaluated.first, evaluated.last + 1):
        shares = _shares(evaluated, evaluated.count == count, resampling, (ours, theirs))
        positions.append([str(count), *shares])
    levels = [["leaving after a song heard", "log", "fitted"]]
    last = evaluated.levels[np.arange(len(evaluated.count)), evaluated.count - 1]
    for level in Level:
        if level >= 0:
            shares = _shares(evaluated, last == level, resampling, (ours,))
            levels.append([level.name.lower(), *shares])
    likelihoods = [
        (f"  {name}", _with_interval(gain, lambda value: f"{value:+.1f}"))
        for name, gain in gains(moments, evaluated, resampling)
    ]
    return (
        f"{evaluated.num_sessions:,} held-out sessions, {evaluated.left.sum():,} of them left "
        f"before play {evaluated.last + 1}; [ ] 95 % intervals.\n\n"
        f"{columns(positions)}\n\n{columns(levels)}\n\n"
        "log-likelihood of the held-out sessions over position alone, in nats\n"
        f"{columns(likelihoods)}"
    )


def gains(
    moments: Moments, evaluated: Moments, resampling: Resampling
) -> list[tuple[str, Measured]]:
    """What each effect adds to position alone, in nats over all held-out sessions; then all."""
    alone = log_likelihood(fit(moments, ()), evaluated)
    found = []
    for name, effects in COMPARED.items():
        gain = log_likelihood(fit(moments, effects), evaluated) - alone
        total = Sums(gain[:, None], lambda sums: sums[:, 0])
        found.append((name, resampling.measure(total)))
    return found


def _shares(
    evaluated: Moments,
    chosen: npt.NDArray[np.bool_],
    resampling: Resampling,
    models: tuple[Array, ...],
) -> list[str]:
    """Share of the chosen moments at which listeners left: of the log, and by each model."""

    def of_session(values: npt.NDArray) -> Array:
        return by_session(values, evaluated.session, evaluated.num_sessions)

    observed = resampling.measure(ratio(of_session(evaluated.left & chosen), of_session(chosen)))
    predicted = [percent(chances[chosen].mean() if chosen.any() else None) for chances in models]
    return [_with_interval(observed, lambda value: f"{100 * value:.1f}", " %"), *predicted]


def _with_interval(measured: Measured, text: Callable[[float], str], unit: str = "") -> str:
    if measured.low is None or not np.isfinite(measured.value):
        return "-"
    return f"{text(measured.value)}{unit} {bracketed(measured.low, measured.high, text)}"
