import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from musicbox_agents import make_agent
from musicbox_agents.base import WEIGHTS
from musicbox_agents.sb3 import SB3DDPGAgent, SB3Settings, as_vec_env
from musicbox_agents.sessions import one_thread
from stable_baselines3 import DDPG
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

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


def both_vec_envs(synthetic, num_envs=6, **more):
    """SB3's own over monitored single environments, and ours over the native one."""
    options = {"data": str(synthetic.folder), **more}

    def single():
        return Monitor(gym.make(musicbox_env.ENV_ID, **options))

    native = gym.make_vec(
        musicbox_env.ENV_ID, num_envs=num_envs, autoreset_mode="SameStep", **options
    )
    return DummyVecEnv([single] * num_envs), as_vec_env(native)


def require_equal(a, b):
    """Two nested structures are equal but for the seconds since the start."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a.keys() - {"t"}:
            require_equal(a[name], b[name])
    elif isinstance(a, list | tuple):
        for left, right in zip(a, b, strict=True):
            require_equal(left, right)
    else:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "more",
    [
        {"listener": "ground_truth"},
        {"listener": "replay", "observation": "flat"},
        {"listener": "ground_truth", "observation": "ids", "action": "slate", "horizon": 7},
        {"listener": "ground_truth", "max_episode_steps": 2, "horizon": 12},
        {"listener": "ground_truth", "horizon": 9, "leaving": "published"},
    ],
)
def test_the_vec_env_does_what_that_of_sb3_does(synthetic, more):
    theirs, ours = both_vec_envs(synthetic, **more)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.env_is_wrapped(Monitor) == theirs.env_is_wrapped(Monitor)
    ours.action_space.seed(1)
    for env in (theirs, ours):
        env.seed(5)
    require_equal(theirs.reset(), ours.reset())
    require_equal(theirs.reset_infos, ours.reset_infos)
    ends = cut = 0
    for _ in range(14):
        actions = np.array([ours.action_space.sample() for _ in range(6)])
        expected, got = theirs.step(actions), ours.step(actions)
        require_equal(expected, got)
        require_equal(theirs.reset_infos, ours.reset_infos)
        ends += got[2].sum()
        cut += sum(info["TimeLimit.truncated"] for info in got[3])
        assert all(("episode" in info) == over for info, over in zip(got[3], got[2], strict=True))
    assert ends > 6
    assert bool(cut) == (more.get("horizon") is not None)


def test_sb3_learns_on_the_vec_env_what_it_learns_on_its_own(synthetic):
    weights = []
    for env in both_vec_envs(synthetic, 4, listener="ground_truth", observation="flat"):
        model = DDPG(
            "MlpPolicy", env, seed=3, learning_starts=20, buffer_size=400, batch_size=32,
            policy_kwargs={"net_arch": [16]},
        )  # fmt: skip
        model.learn(120)
        assert len(model.ep_info_buffer) > 10
        weights.append(model.policy.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["mode", "single", "wrapped"])
def test_the_vec_env_refuses_what_it_cannot_be(synthetic, kind):
    data = {"data": str(synthetic.folder), "num_envs": 2}
    if kind == "mode":
        given, says = gym.make_vec(musicbox_env.ENV_ID, **data), "SameStep"
    elif kind == "single":
        given, says = gym.make_vec("CartPole-v1", num_envs=2), "CartPoleVectorEnv|SyncVectorEnv"
    else:
        given = gym.make_vec(musicbox_env.ENV_ID, vectorization_mode="sync", **data)
        says = "SyncVectorEnv"
    with pytest.raises(ValueError, match=says):
        as_vec_env(given)


@pytest.mark.parametrize("wrong", [{"buffer_size": 0}, {"action_noise": -0.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SB3Settings(**wrong)
