"""The last two protocols: listeners against exact probabilities, and listeners as evaluators.

Where the law behind the data is known, a listener that was fitted on logs alone can be asked about
songs that the session was never offered: that is what an agent trained on it explores. An agent
looks for the songs that the listener likes best, hence for its errors in their favour: the
winner's curse. So three kinds of songs are asked about: drawn at random, picked by an agent, and
the listener's own favourites.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from musicbox_agents import Agent, load_agent, make_agent

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import holds
from musicbox_env.listeners import GroundTruthListener
from musicbox_env.schema import UNKNOWN
from musicbox_experiments.compare.evaluation import RERANKED
from musicbox_experiments.evaluate.metrics import PerSession, Rollout, skip_rate
from musicbox_experiments.evaluate.resampling import Measured, Resampling, ratio
from musicbox_experiments.evaluate.rollout import open_sessions, roll_out
from musicbox_experiments.train.variants import class_of
from musicbox_experiments.trust import protocols
from musicbox_experiments.trust.asking import Array, Ints, ask
from musicbox_experiments.trust.measures import Bench, Findings, Record, Subject
from musicbox_experiments.trust.protocols import Predictions

TRUTH: Final = "against the truth"
AGREEMENT: Final = "agreement"
RANDOM_SONGS: Final = "random songs"
OWN_FAVOURITES: Final = "own favourites"

BASELINES: Final = ("random", "popularity", "content", "best-rate", "played-rate")
"""Agents that need no training: rolled out where no run is given."""
PICKING_AGENT: Final = "played-rate"
RANDOM_PER_SESSION: Final = 20
FAVOURITES: Final = 3
FAVOURITES_POOL: Final = 1_000
FAVOURITES_SESSIONS: Final = 300
REFERENCE: Final = "logged"


# Songs never offered, where the truth is known.


@dataclass(frozen=True)
class Songs:
    """Songs to ask about, the same for every listener.

    Attributes:
        rows: Sessions ``(m,)``, places in the bench's log.
        tracks: Songs for each ``(m, c)``; -1 where there is none.
    """

    rows: Ints
    tracks: Ints


def random_songs(bench: Bench, count: int = RANDOM_PER_SESSION) -> Songs:
    """Songs of the catalog drawn evenly, none of which the logged session holds."""
    rng, n = bench.rng(8), bench.num_sessions
    tracks = rng.integers(0, len(bench.dataset.catalog), (n, count))
    return Songs(np.arange(n), np.where(holds(bench.log.tracks, tracks), UNKNOWN, tracks))


def picked_songs(bench: Bench, agent: Agent) -> Songs:
    """What an agent would play first after each shown half, less what the session holds."""
    log = bench.log
    options = {"data": str(bench.dataset.folder), "split": "test"}
    with open_sessions(agent, options, log.sessions, bench.seed) as (env, observation):
        action, _ = agent.predict(observation, deterministic=True)
        tracks, _, _ = env.simulator.choose(np.arange(len(log.sessions)), action)
    held = (tracks[:, :, None] == log.tracks[:, None, :]).any(axis=2)
    return Songs(np.arange(len(tracks)), np.where(held, UNKNOWN, tracks))


def favourite_songs(bench: Bench, subject: Subject) -> Songs:
    """The songs of a random part of the catalog that the listener itself skips least."""
    rng = bench.rng(9)
    size = min(FAVOURITES_POOL, len(bench.dataset.catalog))
    pool = np.sort(rng.choice(len(bench.dataset.catalog), size, replace=False))
    rows = np.arange(min(bench.num_sessions, FAVOURITES_SESSIONS))
    best = np.empty((len(rows), FAVOURITES), np.int64)
    for row in rows:
        candidates = np.setdiff1d(pool, bench.log.tracks[row])[None]
        chances = _chances(bench, subject, Songs(np.array([row]), candidates))[0]
        best[row] = candidates[0][np.argsort(chances, kind="stable")[:FAVOURITES]]
    return Songs(rows, best)


def _chances(bench: Bench, subject: Subject, songs: Songs) -> Array:
    nowhere = np.full(songs.tracks.shape, UNKNOWN)
    asked = np.maximum(songs.tracks, 0)
    shown = bench.log.shown[songs.rows]
    return ask(subject.listener, bench.log, songs.rows, shown, asked, nowhere)


def against_truth(
    bench: Bench, subject: Subject, agents: Mapping[str, Agent], findings: Findings
) -> None:
    """Predicted against exact probabilities; the bar is what a perfect listener would have."""
    truth = Subject("truth", GroundTruthListener(bench.dataset), "ground_truth")
    kinds = {RANDOM_SONGS: random_songs(bench)}
    kinds |= {f"picks of {label}": picked_songs(bench, agent) for label, agent in agents.items()}
    kinds[OWN_FAVOURITES] = favourite_songs(bench, subject)
    for kind, songs in kinds.items():
        there = songs.tracks >= 0
        made = Predictions(
            _chances(bench, subject, songs)[there],
            _chances(bench, truth, songs)[there],
            np.repeat(songs.rows, there.sum(axis=1)),
            bench.num_sessions,
        )
        _record_truth(bench, subject.name, kind, made, findings)


def _record_truth(
    bench: Bench, name: str, kind: str, made: Predictions, findings: Findings
) -> None:
    apart = made.probability - made.outcome
    figures = {
        "bias": (protocols.bias(made), 0.0),
        "mean_distance": (made.mean_of(np.abs(apart)), 0.0),
        "calibration_error": (protocols.calibration_error(made), 0.0),
        "correlation": (
            protocols.correlation(
                made.probability,
                made.outcome.astype(np.float64),
                made.session,
                made.num_sessions,
            ),
            1.0,
        ),
        "slope": (protocols.within_session_slope(made), 1.0),
        "predicted": (made.mean_of(made.probability), None),
        "true": (made.mean_of(made.outcome), None),
    }
    for metric, (statistic, bar) in figures.items():
        measured = bench.resampling.measure(statistic)
        findings.records.append(Record.of(name, TRUTH, f"{metric}[{kind}]", measured, bar))
    curve = protocols.calibration_curve(made, bench.resampling)
    findings.truth.setdefault(name, {})[kind] = curve


# Listeners as evaluators.


@dataclass(frozen=True)
class Evaluated:
    """What every listener makes of every agent, on the same sessions.

    Attributes:
        skips: For each evaluator and agent the skips, the seeds of an agent together.
        num_sessions: Sessions evaluated.
        trained_with: Evaluator that the agents were trained with, if they were.
    """

    skips: Mapping[str, Mapping[str, PerSession]]
    num_sessions: int
    trained_with: str | None = None


def evaluate_baselines(bench: Bench, subjects: Sequence[Subject], *, sessions: int) -> Evaluated:
    """Roll the agents that need no training out before every listener."""
    chosen = bench.log.sessions[:sessions]
    options = {"data": str(bench.dataset.folder), "split": "test"}
    agents = [make_agent(name, bench.dataset, seed=bench.seed) for name in BASELINES]
    skips = {
        subject.name: {
            agent.name: skip_rate(
                roll_out(agent, options, chosen, listener=subject.spec, seed=bench.seed)
            )
            for agent in agents
        }
        for subject in subjects
    }
    return Evaluated(skips, len(chosen))


def evaluated_in_run(run: Path) -> Evaluated:
    """What a run of `musicbox compare` holds.

    Raises:
        FileNotFoundError: The folder holds no finished run.
        ValueError: Its rollouts are over different sessions.
    """
    files = sorted((run / "rollouts").glob("*.npz"))
    files = [file for file in files if not file.name.startswith(RERANKED)]
    if not files:
        raise FileNotFoundError(
            f"{run} holds no rollouts; pass a folder made by `musicbox compare`."
        )
    rollouts = [Rollout.load(file) for file in files]
    sessions = rollouts[0].sessions
    if any(not np.array_equal(r.sessions, sessions) for r in rollouts):
        raise ValueError(f"The rollouts of {run} are over different sessions; start it anew.")
    parts: dict[str, dict[str, list[PerSession]]] = {}
    for rollout in rollouts:
        parts.setdefault(rollout.evaluator, {}).setdefault(rollout.agent, []).append(
            skip_rate(rollout)
        )
    skips = {
        evaluator: {agent: _together(seeds) for agent, seeds in agents.items()}
        for evaluator, agents in parts.items()
    }
    return Evaluated(skips, len(sessions), _listener_of(run))


def _together(seeds: Sequence[PerSession]) -> PerSession:
    return PerSession(
        np.sum([s.numerator for s in seeds], axis=0),
        np.sum([s.denominator for s in seeds], axis=0),
    )


def _listener_of(run: Path) -> str | None:
    """Name of the listener that a run's agents were trained with: of a fitted one, its file's."""
    for file in sorted((run / "agents").glob("*/seed-*/training.json")):
        return Path(json.loads(file.read_text())["options"]["listener"]).stem
    return None


def trained_agents(run: Path, dataset: Dataset) -> dict[str, Agent]:
    """The agents of a run that learned by their labels, first seed, best checkpoint."""
    folders = {folder.parent.name: folder for folder in (run / "agents").glob("*/seed-0")}
    return {
        label: load_agent(folders[label] / "best", dataset)
        for label in sorted(folders)
        if class_of(label).learns
    }


def agreement(evaluated: Evaluated, resampling: Resampling, findings: Findings) -> None:
    """Skip rate of each agent at each listener, and how far the listeners rank them alike.

    Of two listeners the bar of each is 1, the same ranking. With agents trained on one of them,
    ``gain_lost[agent]`` is how much of the gain over the logged order, in skip rate, is gone at
    another evaluator.
    """
    rates: dict[str, dict[str, Measured]] = {
        evaluator: {
            agent: resampling.measure(ratio(skips.numerator, skips.denominator))
            for agent, skips in agents.items()
        }
        for evaluator, agents in evaluated.skips.items()
    }
    for evaluator, figures in rates.items():
        for agent, figure in figures.items():
            record = Record.of(evaluator, AGREEMENT, f"skip_rate[{agent}]", figure)
            findings.records.append(record)
        for other, theirs in rates.items():
            both = [agent for agent in figures if agent in theirs]
            if other != evaluator and len(both) > 1:
                tau = protocols.ranking_agreement(
                    [figures[a] for a in both], [theirs[a] for a in both]
                )
                findings.records.append(Record.of(evaluator, AGREEMENT, f"tau[{other}]", tau, 1.0))
    _gain_lost(rates, evaluated.trained_with, findings)


def _gain_lost(
    rates: Mapping[str, Mapping[str, Measured]], home: str | None, findings: Findings
) -> None:
    if home is None or REFERENCE not in rates.get(home, {}):
        return
    for evaluator, figures in rates.items():
        if evaluator == home or REFERENCE not in figures:
            continue
        for agent, figure in figures.items():
            if agent == REFERENCE or agent not in rates[home]:
                continue
            at_home = rates[home][agent].minus(rates[home][REFERENCE])
            lost = figure.minus(figures[REFERENCE]).minus(at_home)
            record = Record.of(evaluator, AGREEMENT, f"gain_lost[{agent}]", lost, 0.0)
            findings.records.append(record)


def rates_of(records: Sequence[Record]) -> dict[str, dict[str, Record]]:
    """Skip rate of each agent at each evaluator, from the records."""
    found: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.protocol == AGREEMENT and record.metric.startswith("skip_rate["):
            agent = record.metric.removeprefix("skip_rate[").removesuffix("]")
            found.setdefault(record.listener, {})[agent] = record
    return found
