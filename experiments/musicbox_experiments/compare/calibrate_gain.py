"""Measure what a gain stated by a learned evaluator is worth, where the truth is known.

On synthetic sessions, whose law is known, agents are trained with a learned listener of one half of
the training sessions and evaluated by a learned listener of the other half and by the exact law:
once strict, so that agents and evaluators share no play, and once with agents that see all of
training. The table says by how much the stated gains over the logged policy exceed the true ones,
and whether they order the agents alike.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from musicbox_agents.base import require_ranges

from musicbox_env.data.writing import write_json
from musicbox_env.locks import held
from musicbox_env.synthetic.generator import synthesize
from musicbox_env.synthetic.world import SyntheticConfig
from musicbox_experiments import drawing
from musicbox_experiments.cluster.tasks import require_address
from musicbox_experiments.compare.compare import train_and_evaluate
from musicbox_experiments.compare.config import CompareConfig
from musicbox_experiments.compare.known_gains import FILE, WAYS, describe, picture
from musicbox_experiments.compare.presets import BASELINES
from musicbox_experiments.compare.study import EXACT_EVALUATOR, Study
from musicbox_experiments.compare.summary import parts_of
from musicbox_experiments.data.sources import Source
from musicbox_experiments.evaluate.metrics import PerSession
from musicbox_experiments.evaluate.resampling import ENDS
from musicbox_experiments.evaluate.statistics import Gain, gain_excess, resampled_means
from musicbox_experiments.text import say, table, with_interval
from musicbox_experiments.train.simulators import LEARNED, OTHERS
from musicbox_experiments.train.variants import MOST_SEEDS

STATED: Final = f"{LEARNED}-{OTHERS}"
STRICT: Final = "folds"
METRIC: Final = "skip_rate"
RESAMPLES: Final = 2_000


@dataclass(frozen=True)
class CalibrateGainConfig:
    """Options of `musicbox calibrate-gain`."""

    sessions: tuple[int, ...] = (2_500, 20_000, 200_000)
    """Sizes of the synthetic logs."""
    tracks: int = 5_000
    """Size of the catalog."""
    agents: tuple[str, ...] = (*BASELINES, "ddpg", "ddpg+pessimistic")
    """Agents to train and evaluate."""
    seeds: int = 3
    """Trainings of each agent that learns, in each direction."""
    train_steps: int = 4_000
    """Slates that each recommends while it learns."""
    evaluation_sessions: int = 3_000
    """Most test sessions."""
    listener_sessions: int = 10_000
    """Most training sessions that the networks of listeners are fitted on."""
    out: Path = Path("runs/gains")
    """Where everything is written; what is finished there is kept."""
    workers: int = 0
    """Trainings at once; 0 is one for each core."""
    cluster: str | None = None
    """Run trainings on Ray; see `musicbox compare --help`."""

    def __post_init__(self) -> None:
        sizes = ("tracks", "seeds", "train_steps", "evaluation_sessions", "listener_sessions")
        ranges = {**dict.fromkeys(sizes, (1, np.inf)), "workers": (0, np.inf)}
        require_ranges(self, {**ranges, "seeds": (1, MOST_SEEDS)})
        require_address(self.cluster)


def run(config: CalibrateGainConfig) -> None:
    """Train, evaluate, print and write the table."""
    with held(config.out):
        _run(config)


def _run(config: CalibrateGainConfig) -> None:
    rows = []
    for size, way in product(config.sessions, WAYS):
        rows.append(row_of(study(config, size, way), size, way))
        say(f"{as_text(rows[-1])}\n")
    options = {k: v for k, v in asdict(config).items() if k not in ("out", "workers", "cluster")}
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / FILE, {"options": options, "rows": rows})
    (config.out / "known_gains.png").write_bytes(drawing.png(picture(rows)))
    say(config.out / FILE)


def study(config: CalibrateGainConfig, size: int, way: str) -> Study:
    """The comparison on so many sessions, strict or not; listeners are the same in both."""
    data = config.out / f"data-{size}"
    if not data.exists():
        synthesize(SyntheticConfig(sessions=size, tracks=config.tracks), data, progress=True)
    out, strict = (config.out / f"{size}-{name}" for name in (way, STRICT))
    if (strict / "listeners").is_dir() and not (out / "listeners").exists():
        shutil.copytree(strict / "listeners", out / "listeners")
    compared = CompareConfig(
        source=Source(data=data),
        agents=config.agents,
        seeds=config.seeds,
        train_steps=config.train_steps,
        listener=LEARNED,
        listener_sessions=config.listener_sessions,
        evaluator=(EXACT_EVALUATOR, LEARNED),
        fit_on=way,  # type: ignore[arg-type]
        both_directions=True,
        evaluation_sessions=config.evaluation_sessions,
        out=out,
        workers=config.workers,
        cluster=config.cluster,
    )
    with held(out):
        return train_and_evaluate(compared)


def row_of(study: Study, size: int, way: str) -> dict[str, Any]:
    """What was stated and what was true of each agent, and of their order."""
    stated, true = (_parts(study, evaluator) for evaluator in (STATED, EXACT_EVALUATOR))
    agents = [agent for agent in stated if agent != study.reference and agent not in study.bounds]
    references = [parts[study.reference][0] for parts in (stated, true)]
    found = {}
    for agent in agents:
        gains = [
            Gain(parts[agent], reference)
            for parts, reference in zip((stated, true), references, strict=True)
        ]
        nothing = Gain([gains[0].reference] * len(gains[0].agent), gains[0].reference)
        found[agent] = {
            "stated": _excess(gains[0], nothing),
            "true": _excess(gains[1], nothing),
            "excess": _excess(*gains),
        }
    return {
        "sessions": size,
        "fit_on": way,
        "agents": found,
        "order": _order(stated, true, agents),
        "excess": _mean_excess(stated, true, agents, study.reference),
    }


def _excess(gain: Gain, other: Gain) -> dict[str, Any]:
    """A gain less another one."""
    return asdict(gain_excess(gain, other, rng=np.random.default_rng(0), resamples=RESAMPLES))


def _parts(study: Study, evaluator: str) -> dict[str, list[PerSession]]:
    return {
        agent: [parts_of(rollout, study.world)[METRIC] for rollout in by_seed.values()]
        for agent, by_seed in study.at(evaluator).items()
    }


Parts = Mapping[str, Sequence[PerSession]]


def _resampled(parts: Parts, agents: Sequence[str]) -> npt.NDArray[np.float64]:
    """Skip rate of each agent on all sessions, and on resampled ones ``(1 + resamples, agents)``.

    Of all its seeds together; the same sessions are drawn for every evaluator.
    """
    flat = [part for agent in agents for part in parts[agent]]
    rng = np.random.default_rng(0)
    means = resampled_means(flat, rng=rng, resamples=RESAMPLES)
    rows = np.vstack([[part.mean for part in flat], means])
    ends = np.cumsum([len(parts[agent]) for agent in agents])[:-1]
    return np.stack([columns.mean(axis=1) for columns in np.split(rows, ends, axis=1)], axis=1)


def _order(stated: Parts, true: Parts, agents: Sequence[str]) -> dict[str, float]:
    """Kendall's tau between the agents' stated and true skip rates."""
    first, second = (_resampled(parts, agents) for parts in (stated, true))
    pairs = np.triu_indices(len(agents), 1)
    sides = [np.sign(values[:, pairs[0]] - values[:, pairs[1]]) for values in (first, second)]
    return _with_ends((sides[0] * sides[1]).mean(axis=1))


def _mean_excess(
    stated: Parts, true: Parts, agents: Sequence[str], reference: str
) -> dict[str, float]:
    """Mean over the agents of their stated gain less the true one, in skip rate."""
    every = [reference, *agents]
    first, second = (_resampled(parts, every) for parts in (stated, true))
    gains = [values[:, :1] - values[:, 1:] for values in (first, second)]
    return _with_ends((gains[0] - gains[1]).mean(axis=1))


def _with_ends(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """The first of the values, and the interval of the others."""
    low, high = np.quantile(values[1:], ENDS)
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def as_text(row: Mapping[str, Any]) -> str:
    """A row of the table for a terminal."""
    lines = [
        {
            "agent": agent,
            "stated gain, points": with_interval(of["stated"], "points"),
            "true gain": with_interval(of["true"], "points"),
            "overstated by": with_interval(of["excess"], "points"),
        }
        for agent, of in sorted(row["agents"].items(), key=lambda item: -item[1]["true"]["value"])
    ]
    return f"{describe(row)}\n{table(lines)}"
