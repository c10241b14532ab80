"""Speed of agents: their updates, their training, millions of tracks, and their comparison."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from musicbox_agents import Agent, load_agent, make_agent

import musicbox_env
from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval.approximate import installed
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.generator import bundled_dataset
from musicbox_experiments.benchmark.measure import (
    Context,
    NotMeasured,
    Row,
    in_new_process,
    processor_seconds,
    speed,
)
from musicbox_experiments.benchmark.retrieval import faiss_is_missing
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.evaluate.metrics import PerSession, skip_rate
from musicbox_experiments.evaluate.rollout import open_sessions, roll_out
from musicbox_experiments.evaluate.statistics import paired_bootstrap
from musicbox_experiments.train.variants import agent_of, settings_of

UPDATED_SLATES = 320
"""Slates of a training that are followed by updates, after as many that are not."""
UPDATES_A_SLATE = 2
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "ddpg": {},
    "ddpg, random start": {"start": "random"},
    "sb3-ddpg+tuned": {},
    "sb3-sac": {},
}
"""Whose training is timed: a label, and settings that differ from it."""
CLOSED = 0.9
"""Share of the gap from the logged policy to Bayes at which the clock stops."""
CHECKED_EVERY = 100
SESSIONS_OF_A_CHECK = 1_000
SLATES_AT_LARGE = 320
REPLAY: dict[str, Any] = {"listener": "replay", "candidates": "catalog"}
"""The fastest answers: how long learning takes, not what is learned."""


def agents(context: Context) -> Iterator[Row]:
    """Updates, the memory of a transition, the time to close the gap, and a large catalog."""
    for batch, width in ((64, 32), (256, 256)):
        yield from _updates(context, batch, width)
    yield Row("memory of a transition", "bytes", transition_bytes(), {"limit": 200.0}, 1.0)
    slates = 4_000 if context.full else 1_000
    for name, settings in LEARNERS.items():
        yield Row(
            f"{name}: training until {CLOSED:.0%} of the gap to Bayes is closed",
            "s",
            partial(seconds_to_close, name.partition(",")[0], settings, count(), slates),
            note=f"within {slates:,} slates, on validation sessions under the exact law",
        )
    yield from _through_the_index(context, 3_700_000 if context.full else 1_000_000)


def _updates(context: Context, batch: int, width: int) -> Iterator[Row]:
    ours = {"batch_size": batch, "hidden": width, "updates_per_step": UPDATES_A_SLATE}
    theirs = {"batch_size": batch, "net_arch": (width, width), "gradient_steps": UPDATES_A_SLATE}
    env = gym.make(musicbox_env.ENV_ID, data=str(bundled_dataset()))
    sizes = [gym.spaces.flatdim(space) for space in (env.observation_space, env.action_space)]
    sb3 = {"SB3": partial(updates_a_second, "sb3-ddpg", theirs)}
    sbx = {"SBX": partial(context.peer, "sbx", batch, width, *sizes)}
    name, unit = f"ddpg updates, batch {batch}, width {width}", "updates/s"
    note = "plain autograd; ours reads songs as statistics, SB3 and SBX read ten as one vector"
    yield Row(name, unit, partial(updates_a_second, "ddpg", ours), sb3, 2.0, note)
    as_sb3 = partial(updates_a_second, "ddpg", {**ours, "history_length": 10})
    yield Row(f"{name}, 10 songs", unit, as_sb3, sb3)
    yield Row(name, unit, partial(updates_a_second, "ddpg", ours), sbx, 1.0, note)


def updates_a_second(name: str, settings: Mapping[str, Any]) -> float:
    """Updates a second of an agent: what its training takes longer than one without updates."""

    def seconds(learning_starts: int) -> float:
        all_settings = {**settings, "learning_starts": learning_starts}
        agent = make_agent(name, open_dataset(None), settings=all_settings)
        began = processor_seconds()
        agent.learn(REPLAY, 2 * UPDATED_SLATES)
        return processor_seconds() - began

    without = seconds(10**6)
    return UPDATES_A_SLATE * UPDATED_SLATES / (seconds(UPDATED_SLATES) - without)


def transition_bytes() -> float:
    """Bytes that ddpg keeps of a transition."""
    agent: Any = make_agent("ddpg", open_dataset(None), settings={"learning_starts": 10**6})
    held = agent.learn(REPLAY, 64).memory.stored
    return sum(getattr(held, field.name).nbytes for field in fields(held)) / len(held)


class _Closed(Exception):
    """The gap is closed."""


def seconds_to_close(
    label: str, settings: Mapping[str, Any], seeds: Iterator[int], slates: int
) -> float:
    """Processor time of a training until `CLOSED` of the gap to Bayes is closed.

    Reading the log counts, checking does not.

    Raises:
        NotMeasured: The gap is not closed after ``slates`` slates.
    """
    dataset, seed = open_dataset(None), next(seeds)
    settings = {**settings_of(label, {}), **settings}
    agent = make_agent(agent_of(label), dataset, seed=seed, settings=settings)
    logged, bayes = _rate_of("logged"), _rate_of("bayes")
    checking, closed = 0.0, 0.0

    def check(*_: object) -> None:
        nonlocal checking, closed
        began = processor_seconds()
        closed = (logged - _validation_rate(agent)) / (logged - bayes)
        checking += processor_seconds() - began
        if closed >= CLOSED:
            raise _Closed

    began = processor_seconds()
    try:
        agent.learn(
            {"listener": "ground_truth"}, slates, callback=check, callback_every=CHECKED_EVERY
        )
    except _Closed:
        return processor_seconds() - began - checking
    seconds = processor_seconds() - began - checking
    raise NotMeasured(f"seed {seed} not reached: closed {closed:.0%} in {seconds:.0f} s")


@cache
def _rate_of(name: str) -> float:
    return _validation_rate(make_agent(name, open_dataset(None)))


def _validation_rate(agent: Agent) -> float:
    """Skip rate on validation sessions, answered by the law of the data."""
    sessions = draw_sessions(agent.dataset, "validation", SESSIONS_OF_A_CHECK, 0)
    rollout = roll_out(agent, {"split": "validation"}, sessions, listener="ground_truth")
    return skip_rate(rollout).mean


def _through_the_index(context: Context, tracks: int) -> Iterator[Row]:
    """Training and recommending among so many tracks."""
    name = f"ddpg among {tracks:,} tracks through the index"
    if not installed():
        yield Row(name, "s", faiss_is_missing)
        return
    data, folder = context.dataset(10_000, tracks), context.folder / f"ddpg-{tracks}"
    in_new_process(train_at_large, data, folder, 64)  # the index is built once
    trained = in_new_process(train_at_large, data, folder, SLATES_AT_LARGE)
    acting = in_new_process(recommend_at_large, data, folder)
    yield Row(f"{name}: a slate of training", "s", trained["slate"])
    yield Row(f"{name}: peak memory of training", "MiB", trained["peak"])
    yield Row(f"{name}: a slate recommended", "s", acting["slate"])
    yield Row(f"{name}: peak memory, recommending", "MiB", acting["peak"], {"limit": 2048.0}, 1.0)


def train_at_large(data: str, folder: Path, slates: int) -> dict[str, float]:
    """Train an agent and save it: processor time of a ``slate``, reading the log left out."""
    settings = {"log_sessions": 500, "warmup_updates": 50, "learning_starts": 64}
    agent = make_agent("ddpg", Dataset(data), settings=settings)
    clock: list[float] = []
    agent.learn(
        {"data": data, **REPLAY},
        64 + slates,
        callback=lambda *_: clock.append(processor_seconds()),
        callback_every=64,
    )
    agent.save(folder)
    return {"slate": (clock[-1] - clock[0]) / slates}


def recommend_at_large(data: str, folder: Path) -> dict[str, float]:
    """Load the agent and recommend to one session: processor time of a ``slate``."""
    agent = load_agent(folder, Dataset(data))
    sessions = agent.dataset.sessions.playable("test")[:1]
    with open_sessions(agent, {"data": data, "split": "test"}, sessions, 0) as (_, observation):
        act = partial(agent.predict, observation, None, np.ones(1, np.bool_), deterministic=True)
        return {"slate": 1 / speed(act)}


def statistics(context: Context) -> Iterator[Row]:
    """The intervals of a comparison."""
    name = "intervals of ten agents, three seeds each, 3,000 sessions"
    yield Row(name, "s", interval_seconds, {"limit": 5.0}, 1.0)


def interval_seconds() -> float:
    """Processor time of the intervals of ten agents and of their differences to the first."""
    rng = np.random.default_rng(0)
    skips = rng.binomial(8, 0.5, (10, 3, 3_000)).astype(np.float64)
    songs = np.full(skips.shape[-1], 8.0)
    parts = {str(n): [PerSession(seed, songs) for seed in agent] for n, agent in enumerate(skips)}
    began = processor_seconds()
    bootstrap = paired_bootstrap(parts, rng=rng, resamples=2_000)
    for agent in parts:
        bootstrap.estimate(agent)
        bootstrap.difference(agent, "0", lower_is_better=True)
    return processor_seconds() - began
