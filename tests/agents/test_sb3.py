import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from musicbox_agents import make_agent
from musicbox_agents.base import WEIGHTS
from musicbox_agents.sb3 import SB3DDPGAgent, SB3Settings
from musicbox_agents.sessions import one_thread
from stable_baselines3 import DDPG
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise

import musicbox_env
from musicbox_env.data.checks import FileError

SMALL = {"batch_size": 8, "learning_starts": 16, "net_arch": (16,), "history_length": 4}


@pytest.fixture
def options(synthetic):
    return {"data": str(synthetic.folder), "listener": "ground_truth"}


def test_is_stable_baselines3_and_nothing_else(synthetic, options):
    steps = 30
    learning = {"learning_starts": 10, "batch_size": 32}
    ours = make_agent("sb3-ddpg", synthetic, seed=3, settings=learning).learn(options, steps)
    env = Monitor(gym.make(musicbox_env.ENV_ID, **options, embedding="hybrid+rate"))
    shape = env.action_space.shape
    noise = NormalActionNoise(np.zeros(shape), np.full(shape, 0.1))
    torch.set_num_threads(1)
    theirs = DDPG(
        "MultiInputPolicy", env, action_noise=noise, buffer_size=steps, seed=3, **learning
    )
    start = {k: v.clone() for k, v in theirs.policy.state_dict().items()}
    theirs.learn(steps)
    expected = theirs.policy.state_dict()
    assert ours.policy.state_dict().keys() == expected.keys()
    for name, value in ours.policy.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
        assert not torch.equal(value, start[name]), "nothing was learned"


def test_leaves_global_random_numbers_and_threads_alone(synthetic, options):
    def state():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = state()
        agent = make_agent("sb3-ddpg", synthetic, settings=SMALL).learn(options, 24)
        env = gym.make(musicbox_env.ENV_ID, **options, **agent.env_options)
        agent.predict(env.reset(seed=0)[0])
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    inside = []

    def fail():
        with one_thread():
            inside.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [1]
    assert torch.get_num_threads() == before


def test_a_checkpoint_holds_arrays_and_nothing_pickled(synthetic, tmp_path):
    make_agent("sb3-td3", synthetic, settings=SMALL).save(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["agent.json", WEIGHTS]
    with np.load(tmp_path / WEIGHTS, allow_pickle=False) as weights:
        assert {weights[name].dtype for name in weights} == {np.dtype(np.float32)}


def test_a_checkpoint_of_another_size_is_refused(synthetic, tmp_path):
    agent = make_agent("sb3-ddpg", synthetic, settings=SMALL)
    agent.save(tmp_path)
    about = tmp_path / "agent.json"
    about.write_text(about.read_text().replace('"history_length": 4', '"history_length": 5'))
    with pytest.raises(FileError, match=r"weights\.npz: actor\S+ is f4 of shape"):
        SB3DDPGAgent.load(tmp_path, synthetic)


def test_learning_goes_on_from_what_was_learned(synthetic, options):
    agent = make_agent("sb3-ddpg", synthetic, settings={**SMALL, "learning_starts": 10**6})
    before = {k: v.clone() for k, v in agent.policy.state_dict().items()}
    agent.policy.actor.mu[0].weight.data += 1.0
    agent.learn(options, 20)
    after = agent.policy.state_dict()
    torch.testing.assert_close(after["actor.mu.0.weight"], before["actor.mu.0.weight"] + 1.0)


@pytest.mark.parametrize("wrong", [{"buffer_size": 0}, {"action_noise": -0.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SB3Settings(**wrong)
