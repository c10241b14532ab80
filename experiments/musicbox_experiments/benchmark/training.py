"""What `musicbox benchmark` measures of learning: updates, memory, and the time to a skip rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

import musicbox_env
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.generator import bundled_dataset
from musicbox_experiments.benchmark.measure import (
    Found,
    Record,
    Setting,
    against_limit,
    compare,
    processor_seconds,
    skipped,
    speed,
    summed_up,
)

TRAINING_STEPS = 600
"""Transitions in memory when updates are timed."""
UPDATES = 16
"""Updates in a row, as many as a training of ddpg has after each step of its 64 sessions."""
LEARNED_STEPS = 4_000
"""Slates of a training, as `musicbox compare` has them."""
CHECKED_EVERY = 500


def training(setting: Setting) -> Found:
    """Gradient updates a second, what a transition takes, and how soon SB3's result is reached."""
    found = Found([], [])
    data = str(bundled_dataset())
    for batch, width in ((64, 32), (256, 256)):
        setting.say(f"gradient updates, batch {batch}, width {width}")
        found.records += _updates(setting, data, batch, width)
    found.records.append(_transition(data))
    found.records.append(_time_to_sb3(setting, data))
    return found


def _updates(setting: Setting, data: str, batch: int, width: int) -> list[Record]:
    from musicbox_agents import make_agent

    options = {"data": data, "listener": "replay"}
    rival: Any = make_agent(
        "sb3-ddpg",
        open_dataset(data),
        settings={"batch_size": batch, "net_arch": (width, width)},
    )
    model = _filled_sb3(rival, options)
    sb3 = alone(partial(speed, partial(model.train, UPDATES, batch), UPDATES))
    flat = gym.spaces.flatdim(model.observation_space)
    sbx = setting.peer("sbx", batch, width, flat, int(np.prod(model.action_space.shape)))
    ours = _learner(data, options, {"batch_size": batch, "hidden": width})
    ten = _learner(data, options, {"batch_size": batch, "hidden": width, "history_length": 10})
    title = f"ddpg updates, batch {batch}, width {width}"
    note = "ours reads the songs heard as statistics, theirs ten of them as one vector"
    measure = partial(compare, "training", unit="updates/s", runs=setting.runs, note=note)
    records = [
        measure(f"{title}, over SB3's", ours=ours, theirs=sb3, bar=2.0),
        measure(f"{title}, 10 songs as theirs, over SB3's", ours=ten, theirs=sb3, bar=None),
    ]
    name = f"{title}, over SBX's"
    if isinstance(sbx, str):
        return [*records, skipped("training", name, sbx)]
    return [*records, measure(name, ours=ours, theirs=sbx, bar=1.0)]


def _learner(
    data: str, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> Callable[[], float]:
    """Give the function that measures updates a second of a ddpg with a filled memory."""
    agent = _filled_ddpg(data, options, settings)

    def update() -> None:
        for batch in agent._batches(UPDATES, agent._sources()):
            agent.update(batch)

    return alone(partial(speed, update, UPDATES))


def _filled_ddpg(data: str, options: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    from musicbox_agents import make_agent

    waiting = {"learning_starts": 10**6, "log_share": 0.0}
    agent: Any = make_agent("ddpg", open_dataset(data), settings={**settings, **waiting})
    return agent.learn(options, TRAINING_STEPS)


def _filled_sb3(agent: Any, options: Mapping[str, Any]) -> Any:
    """SB3's model with a filled replay buffer."""
    from stable_baselines3.common.logger import Logger

    env = gym.make(musicbox_env.ENV_ID, **{**options, **agent.env_options})
    model = agent._model(env, TRAINING_STEPS)
    model.learning_starts = TRAINING_STEPS
    model.learn(TRAINING_STEPS)
    model.set_logger(Logger(None, []))
    return model


def alone(measure: Callable[[], float]) -> Callable[[], float]:
    """Measure with one thread of torch: two on a busy machine can be ten times slower."""
    import torch

    def measured() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return measure()
        finally:
            torch.set_num_threads(before)

    return measured


def _transition(data: str) -> Record:
    """Bytes that ddpg, as it is, remembers of a transition."""
    held = _filled_ddpg(data, {"data": data, "listener": "replay"}, {}).memory.stored
    size = sum(getattr(held, field.name).nbytes for field in fields(held)) / len(held)
    name = "memory of a transition"
    return against_limit("training", name, "bytes", lambda: size, 200.0, runs=1)


def _time_to_sb3(setting: Setting, data: str) -> Record:
    """Time of a training of sb3-ddpg, and of ours until it is skipped no more often than that."""
    pairs, rates = [], []
    for seed in range(setting.runs if setting.full else 1):
        setting.say(f"a training of sb3-ddpg, seed {seed}")
        theirs, goal = _learned(data, "sb3-ddpg", seed, None)
        setting.say(f"ddpg until it is skipped as little, {goal:.3f}")
        ours, reached = _learned(data, "ddpg", seed, goal)
        pairs.append((ours, theirs))
        rates.append(f"{goal:.3f} by {reached:.3f}")
    return summed_up(
        "training",
        "ddpg to the final skip rate of sb3-ddpg",
        "s",
        pairs,
        5.0,
        less_is_better=True,
        note=f"processor time, reading the log included; looked at every {CHECKED_EVERY} slates: "
        + ", ".join(rates)
        + "; an untrained ddpg starts at the mean of the songs heard plus the rate",
    )


class _Reached(Exception):
    """The skip rate that was asked for."""


def _learned(data: str, name: str, seed: int, goal: float | None) -> tuple[float, float]:
    """Train to the end, or until a skip rate on validation sessions: seconds, and the rate."""
    from musicbox_agents import make_agent

    from musicbox_experiments.data.sampling import draw_sessions
    from musicbox_experiments.evaluate.rollout import roll_out, skip_rate

    dataset = open_dataset(data)
    sessions = draw_sessions(dataset, "validation", 500, 0)
    agent = make_agent(name, dataset, seed=seed)
    options = {"data": data, "listener": "ground_truth"}
    looking, rate = 0.0, np.nan

    def look(*_: object) -> None:
        nonlocal looking, rate
        began = processor_seconds()
        evaluated = {"data": data, "split": "validation"}
        rate = skip_rate(roll_out(agent, evaluated, sessions, listener="ground_truth"))
        looking += processor_seconds() - began
        if goal is not None and rate <= goal:
            raise _Reached

    began = processor_seconds()
    every = LEARNED_STEPS if goal is None else CHECKED_EVERY
    with suppress(_Reached):
        agent.learn(options, LEARNED_STEPS, callback=look, callback_every=every)
    return processor_seconds() - began - looking, float(rate)
