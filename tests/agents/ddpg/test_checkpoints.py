"""A training that was killed ends as if it had never stopped, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from musicbox_agents import make_agent
from musicbox_agents.ddpg import agent as ddpg
from musicbox_agents.ddpg import checkpoints
from musicbox_agents.ddpg.replay import ReplayBuffer
from musicbox_experiments.train.jobs import jobs_for, train
from musicbox_experiments.train.simulators import Listeners

import musicbox_env
from musicbox_env.rewards import RewardConfig
from musicbox_env.rng import packed, unpacked

SETTINGS = {
    "num_envs": 16,
    "log_sessions": 40,
    "warmup_updates": 20,
    "learning_starts": 32,
    "updates_per_step": 0.3,
    "hidden": 8,
    "batch_size": 8,
    "buffer_size": 100,
    "gamma": 0.5,
}
STEPS = 240


def job_in(folder, data, agent="ddpg", **settings):
    [job] = jobs_for(
        [agent],
        1,
        settings={agent: {**SETTINGS, **settings} if agent == "ddpg" else settings},
        options={"data": str(data), "split": "train", "reward": asdict(RewardConfig())},
        steps=STEPS,
        out=folder,
        listeners=Listeners("ground_truth", "law", "ground_truth", "law", {}),
        validation_sessions=30,
    )
    return job


def content(folder):
    """Every file that a finished training leaves, save what tells the time."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(Path(folder).rglob("*"))
        if file.is_file() and file.name != "timing.json"
    }


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_checkpoints import job_in, train
train(job_in(Path(sys.argv[2]), sys.argv[3]))
"""


def test_killed_in_the_middle_it_ends_the_same(synthetic_folder, tmp_path):
    """kill -9 as soon as there is a checkpoint; what was done after it is lost."""
    whole = job_in(tmp_path / "whole", synthetic_folder)
    train(whole)
    arguments = [str(Path(__file__).parent), str(tmp_path / "killed"), str(synthetic_folder)]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], env=dict(os.environ))
    killed = job_in(tmp_path / "killed", synthetic_folder)
    folder = Path(killed.folder) / "checkpoints"
    until = time.monotonic() + 120
    while not len(list(folder.glob("steps-*"))):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.done
    before = checkpoints.steps_of(checkpoints.newest(folder))
    assert 0 < before < STEPS
    steps = []
    train(killed, progress=steps.append)
    assert steps[0] > before
    assert content(killed.folder) == content(whole.folder)
    left = {path.name for path in Path(killed.folder).iterdir()}
    assert left == {"best", "curve.csv", "tensorboard", "timing.json", "training.json"}


class Stopped(Exception):
    """Raised in a callback, as a kill would come."""


def learn(agent, folder, checkpoint, *, stop_at=np.inf):
    def record(steps, metrics):
        seen.append((steps, dict(metrics)))
        if steps >= stop_at:
            raise Stopped

    seen = []
    options = {"data": str(folder), "listener": "replay", "candidates": "catalog"}
    try:
        agent.learn(options, STEPS, callback=record, callback_every=40, checkpoint=checkpoint)
    except Stopped:
        seen.pop()
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"quality": "counted", "average_critic": False},
        {"offline_fraction": 0.0, "start": "random", "rerank": 0},
        {"warmup_updates": 120},
    ],
    ids=["default", "counted", "without log", "residuals"],
)
def test_all_that_a_training_is_comes_back(
    settings, synthetic, synthetic_folder, tmp_path, monkeypatch
):
    """Weights, targets, optimizers, memory, random numbers and open sessions, file by file."""
    monkeypatch.setattr(ddpg, "RESIDUALS_FROM", 100)
    settings = {**SETTINGS, **settings}
    uninterrupted = make_agent("ddpg", synthetic, seed=3, settings=settings)
    expected = learn(uninterrupted, synthetic_folder, tmp_path / "whole")
    first = make_agent("ddpg", synthetic, seed=3, settings=settings)
    before = learn(first, synthetic_folder, tmp_path / "stopped", stop_at=150)
    second = make_agent("ddpg", synthetic, seed=3, settings=settings)
    after = learn(second, synthetic_folder, tmp_path / "stopped")
    assert before
    assert after
    assert before + after == expected
    ends = [checkpoints.newest(tmp_path / name) for name in ("whole", "stopped")]
    assert ends[0].name == ends[1].name
    for name in ("weights.npz", "agent.json", checkpoints.TRAINING):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes()
    with np.load(ends[0] / checkpoints.TRAINING) as arrays:
        assert {name.partition(".")[0] for name in arrays} >= {
            *("env", "memory", "rng", "actor_optimizer", "critic_optimizer", "update_budget"),
        }


def test_of_checkpoints_only_the_newest_complete_one_stays(synthetic, synthetic_folder, tmp_path):
    (tmp_path / "unfinished-steps-000000000300").mkdir()
    agent = make_agent("ddpg", synthetic, settings=SETTINGS)
    last = learn(agent, synthetic_folder, tmp_path)[-1][0]
    assert [path.name for path in tmp_path.glob("steps-*")] == [f"steps-{last:012d}"]
    assert checkpoints.steps_of(checkpoints.newest(tmp_path)) == last >= STEPS
    assert checkpoints.newest(tmp_path / "nowhere") is None


def test_another_job_does_not_go_on_from_a_checkpoint(synthetic_folder, tmp_path):
    """Settings that changed between the attempts make it a new training."""
    old = job_in(tmp_path, synthetic_folder, hidden=8)
    with pytest.raises(Stopped):
        train(old, progress=stop_after(60))
    assert checkpoints.newest(Path(old.folder) / "checkpoints") is not None
    new = job_in(tmp_path, synthetic_folder, hidden=9)
    steps = []
    train(new, progress=steps.append)
    assert steps[0] < 60
    assert (
        json.loads((Path(new.folder) / "best" / "agent.json").read_text())["settings"]["hidden"]
        == 9
    )


def stop_after(most):
    done = []

    def progress(steps):
        done.append(steps)
        if sum(done) > most:
            raise Stopped

    return progress


def test_agents_that_cannot_go_on_start_anew(synthetic_folder, tmp_path):
    whole, stopped = (job_in(tmp_path / n, synthetic_folder, "linucb") for n in ("a", "b"))
    train(whole)
    with pytest.raises(Stopped):
        train(stopped, progress=stop_after(60))
    train(stopped)
    assert content(whole.folder) == content(stopped.folder)


@pytest.mark.parametrize("leaving", [None, "published"])
@pytest.mark.parametrize("listener", ["replay", "similarity", "ground_truth"])
def test_open_sessions_come_back(listener, leaving, synthetic_folder):
    """An environment put back hears what it would have heard, ends and next sessions included."""

    def make():
        return gym.make_vec(
            musicbox_env.ENV_ID,
            num_envs=5,
            vectorization_mode="vector_entry_point",
            data=str(synthetic_folder),
            listener=listener,
            candidates="catalog",
            leaving=leaving,
            observation="ids",
            split="train",
        )

    env, other = make(), make()
    env.reset(seed=4)
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(12, 5, env.single_action_space.shape[0])).astype(np.float32)
    for action in actions[:5]:
        observation, *_ = env.step(action)
    arrays = {name: array.copy() for name, array in env.arrays().items()}
    again = other.restore(arrays)
    for name in observation:
        np.testing.assert_array_equal(observation[name], again[name])
    for action in actions[5:]:
        one, two = env.step(action), other.step(action)
        for name in one[0]:
            np.testing.assert_array_equal(one[0][name], two[0][name])
        for mine, theirs in zip(one[1:4], two[1:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(one[4]["slate"], two[4]["slate"])


def test_a_generator_comes_back():
    rng = np.random.default_rng(5)
    rng.integers(10, size=3, dtype=np.uint32)
    again = unpacked(packed(rng))
    assert again.bit_generator.state == rng.bit_generator.state
    np.testing.assert_array_equal(rng.standard_normal(5), again.standard_normal(5))


def test_a_full_memory_comes_back(synthetic, synthetic_folder):
    """A ring that has overwritten its oldest goes on at the right place."""
    agent = make_agent("ddpg", synthetic, settings={**SETTINGS, "log_sessions": 30})
    learn(agent, synthetic_folder, None)
    memory = agent.memory
    assert int(memory.arrays()["added"]) > memory.capacity == len(memory)
    again = ReplayBuffer.restored(memory.capacity, memory.arrays())
    more = memory.stored[:7]
    memory.add(more)
    again.add(more)
    for name, array in memory.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


def test_a_checkpoint_of_another_version_is_refused(synthetic, synthetic_folder, tmp_path):
    agent = make_agent("ddpg", synthetic, settings=SETTINGS)
    learn(agent, synthetic_folder, tmp_path)
    np.savez(checkpoints.newest(tmp_path) / checkpoints.TRAINING, steps=np.array(9))
    with pytest.raises(
        ValueError, match=r"another version of MusicBox \(format 1; .* reads 3.* train anew"
    ):
        learn(agent, synthetic_folder, tmp_path)
