"""What a training writes of its course is the same whether it was interrupted or not."""

import numpy as np
from musicbox_agents.registry import make_agent
from musicbox_experiments.train.monitor import CHECKPOINTS, CURVE, Monitor

EVENTS = "tensorboard/events.out.tfevents.training"
NO_SESSIONS = np.empty(0, np.int64)
METRICS = {16: {"updates": 0.0}, 28: {"loss": 4.5, "updates": 3.0}, 40: {"loss": 2.0, "updates": 9}}
"""Losses begin late, so that the curve has them last."""


def follow(agent, folder, steps):
    monitor = Monitor(
        agent, folder, NO_SESSIONS, options={"listener": "replay"}, listener="replay", progress=None
    )
    with monitor:
        for at in steps:
            monitor(at, METRICS[at])
    return [(folder / file).read_bytes() for file in (CURVE, EVENTS)]


def test_what_went_on_from_a_checkpoint_leaves_the_same_curve_and_events(synthetic, tmp_path):
    agent = make_agent("random", synthetic)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    follow(agent, stopped, [16, 28])
    (stopped / CHECKPOINTS / "steps-000000000028").mkdir(parents=True)
    assert follow(agent, stopped, [40]) == follow(agent, whole, METRICS)
