"""The environment keeps to Gymnasium: checkers, seeds, vectors, specs and pickles."""

import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from environments import LISTENERS, REPLAY, make, make_many, same
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import musicbox_env
from musicbox_env import ENV_ID
from musicbox_env.rewards import RewardConfig
from musicbox_env.simulator.config import ACTIONS, CANDIDATES, OBSERVATIONS
from musicbox_env.simulator.observations import FLAT_PARTS

COMBINATIONS = [
    (action, observation, candidates, listener)
    for action, observation, candidates, listener in itertools.product(
        ACTIONS, OBSERVATIONS, CANDIDATES, LISTENERS
    )
    if observation != "flat" or (action, listener) == ("proto", "replay")
]


@pytest.mark.parametrize(("action", "observation", "candidates", "listener"), COMBINATIONS)
def test_passes_both_environment_checkers(
    synthetic_folder, action, observation, candidates, listener
):
    options = dict(action=action, observation=observation, candidates=candidates, listener=listener)
    environments = [make(synthetic_folder, **options).unwrapped for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(environments[0], skip_render_check=True)
        sb3_check_env(environments[1], warn=True)


def test_a_refused_first_reset_does_no_harm_to_what_follows(synthetic_folder):
    env = gym.make(ENV_ID, data=str(synthetic_folder))
    with pytest.raises(gym.error.Error, match="Seed must be a python integer"):
        env.reset(seed=np.int64(0))
    env.reset(seed=0)
    assert len(env.step(env.action_space.sample())) == 5


@pytest.mark.parametrize("render_mode", ["human", "ansi", "rgb_array"])
def test_passes_the_checker_with_rendering(synthetic_folder, render_mode):
    check_env(make(synthetic_folder, render_mode=render_mode).unwrapped)


@pytest.mark.parametrize("listener", LISTENERS)
def test_same_seed_same_run(synthetic_folder, listener):
    def play():
        env = make(synthetic_folder, listener=listener)
        env.action_space.seed(3)
        trace = []
        observation, info = env.reset(seed=7)
        trace.append((observation, info, 0.0))
        for _ in range(40):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            trace.append((observation, info, reward))
            if terminated or truncated:
                observation, info = env.reset()
                trace.append((observation, info, 0.0))
        return trace

    for (obs_a, info_a, reward_a), (obs_b, info_b, reward_b) in zip(play(), play(), strict=True):
        same(obs_a, obs_b)
        same(info_a, info_b)
        assert reward_a == reward_b


@pytest.mark.parametrize(("action", "observation", "candidates", "listener"), COMBINATIONS)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_vector_equals_single_through_autoreset(
    synthetic_folder, action, observation, candidates, listener, mode
):
    options = dict(
        data=str(synthetic_folder),
        action=action,
        observation=observation,
        candidates=candidates,
        listener=listener,
    )
    mode = gym.vector.AutoresetMode(mode)
    single = gym.vector.SyncVectorEnv(
        [lambda: gym.make(musicbox_env.ENV_ID, **options)] * 5, autoreset_mode=mode
    )
    vector = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=5,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        **options,
    )
    assert vector.metadata["autoreset_mode"] == mode
    assert vector.single_observation_space == single.single_observation_space
    assert vector.action_space == single.action_space
    results = [env.reset(seed=11) for env in (single, vector)]
    same(results[0][0], results[1][0])
    same(results[0][1], results[1][1])
    vector.action_space.seed(5)
    ends = 0
    for _ in range(12):
        actions = vector.action_space.sample()
        a, b = single.step(actions), vector.step(actions)
        same(a[0], b[0])
        for left, right in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(left, right)
        _same_info(a[4], b[4])
        ends += a[2].sum()
    assert ends > 5


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("limit", [1, 2])
def test_max_episode_steps_truncates_as_in_single_environments(synthetic_folder, limit, mode):
    options = {"data": str(synthetic_folder), "action": "slate", "horizon": 9, **REPLAY}
    mode = gym.vector.AutoresetMode(mode)
    single = gym.vector.SyncVectorEnv(
        [lambda: gym.make(musicbox_env.ENV_ID, max_episode_steps=limit, **options)] * 3,
        autoreset_mode=mode,
    )
    vector = gym.make_vec(
        musicbox_env.ENV_ID, num_envs=3, max_episode_steps=limit, autoreset_mode=mode, **options
    )
    same(single.reset(seed=1)[0], vector.reset(seed=1)[0])
    truncated = 0
    for _ in range(8):
        actions = vector.action_space.sample()
        a, b = single.step(actions), vector.step(actions)
        same(a[0], b[0])
        for left, right in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(left, right)
        truncated += b[3].sum()
    assert truncated


def test_max_episode_steps_of_none_at_all_is_refused(synthetic_folder):
    with pytest.raises(ValueError, match="max_episode_steps is 0"):
        gym.make_vec(musicbox_env.ENV_ID, data=str(synthetic_folder), max_episode_steps=0)


def _same_info(a, b):
    assert a.keys() == b.keys()
    for key in a:
        if key == "final_info":
            _same_info(a[key], b[key])
        elif key == "final_obs":
            for left, right in zip(a[key], b[key], strict=True):
                assert (left is None) == (right is None)
                if left is not None:
                    same(left, right)
        else:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_spec_survives_json_and_pickle(synthetic_folder):
    env = make(synthetic_folder, reward={"diversity": 0.5}, listener="ground_truth")
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    copies = [again, pickle.loads(pickle.dumps(env))]
    first, _ = env.reset(seed=3)
    for copy in copies:
        same(first, copy.reset(seed=3)[0])
    json.dumps(env.unwrapped.config.keywords())


def test_paths_are_taken_and_the_spec_is_still_json(synthetic_folder):
    given = {"data": synthetic_folder, "reward": RewardConfig(diversity=0.5)}
    for make_one in (gym.make, partial(gym.make_vec, num_envs=2)):
        env = make_one(musicbox_env.ENV_ID, **given)
        kwargs = json.loads(env.spec.to_json())["kwargs"]
        assert kwargs["data"] == str(synthetic_folder)
        assert kwargs["reward"]["diversity"] == 0.5
    again = gym.make(
        gym.envs.registration.EnvSpec.from_json(gym.make(ENV_ID, **given).spec.to_json())
    )
    same(again.reset(seed=1)[0], gym.make(ENV_ID, **given).reset(seed=1)[0])


def test_humans_see_every_step_and_a_vector_shows_its_first_session(synthetic_folder, capsys):
    single, human = (
        make(synthetic_folder, action="slate", render_mode=mode) for mode in ("ansi", "human")
    )
    vectors = [
        make_many(synthetic_folder, 3, action="slate", render_mode=mode)
        for mode in ("ansi", "human", "rgb_array")
    ]
    slates, expected = np.arange(9).reshape(3, 3), []
    for env in (single, human, *vectors):
        env.reset(seed=4)
        expected += [single.render()] if env is single else []
        env.step(slates if env.unwrapped in vectors else slates[0])
    expected += [single.render()]
    assert capsys.readouterr().out == 2 * "".join(expected)
    assert [env.render() for env in (human, vectors[0], vectors[1])] == [
        None,
        (expected[1],),
        None,
    ]
    (picture,) = vectors[2].render()
    assert picture.shape == (480, 960, 3)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_flat_vectors_equal_flat_single_environments(synthetic_folder, mode):
    options = {"observation": "flat", "action": "slate", "autoreset_mode": mode}
    parts = make_many(synthetic_folder, 4, **{**options, "observation": "embedding"})
    flat = make_many(synthetic_folder, 4, **options)
    names = list(FLAT_PARTS)

    def joined(observation):
        return np.concatenate([observation[name] for name in names], axis=-1)

    a, b = parts.reset(seed=2), flat.reset(seed=2)
    for _ in range(6):
        assert flat.observation_space.contains(b[0])
        np.testing.assert_array_equal(joined(a[0]), b[0])
        for left, right in zip(a[-1].get("final_obs", []), b[-1].get("final_obs", []), strict=True):
            assert (left is None) == (right is None)
            if left is not None:
                np.testing.assert_array_equal(joined(left), right)
        actions = flat.action_space.sample()
        a, b = parts.step(actions), flat.step(actions)


def test_pickle_in_the_middle_of_a_session_goes_on_alike(synthetic_folder):
    env = make(synthetic_folder)
    env.reset(seed=3)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    blob = pickle.dumps(env)
    assert len(blob) < 100_000
    action = env.action_space.sample()
    a, b = env.step(action), pickle.loads(blob).step(action)
    same(a[0], b[0])
    assert a[1] == b[1]
    same(a[4], b[4])


def _first_observation(folder):
    env = gym.make("musicbox_env:MusicSession-v0", data=folder, **REPLAY)
    return env.reset(seed=9)[0]["history"]


def test_spawned_worker_makes_the_same_environment(synthetic_folder):
    here = _first_observation(str(synthetic_folder))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_first_observation, (str(synthetic_folder),))
    np.testing.assert_array_equal(here, there)


def test_importing_the_environment_does_not_import_torch():
    code = (
        "import sys, musicbox_env, musicbox_env.env, musicbox_env.vector_env;"
        "print([m for m in ('torch', 'stable_baselines3', 'matplotlib', 'tyro')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_disabled_autoreset_leaves_finished_sessions_alone(synthetic, synthetic_folder):
    vector = make_many(synthetic_folder, 3, autoreset_mode="Disabled", observation="ids")
    lengths = synthetic.sessions.lengths(np.arange(synthetic.sessions.num_sessions))
    sessions = np.array([np.flatnonzero(lengths == n)[0] for n in (10, 13, 20)])
    vector.reset(seed=0, options={"session": sessions})
    ends = []
    for _ in range(4):
        observation, _, terminated, _, info = vector.step(vector.action_space.sample())
        ends.append(terminated.tolist())
    assert ends == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert (info["slate_levels"][:2] == -1).all()
    kept = observation["tracks"][1:].copy()
    mask = np.array([True, False, False])
    observation, _ = vector.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(observation["tracks"][1:], kept)
