import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import musicbox_env
from musicbox_env.schema import is_skip
from musicbox_env.simulator.config import ACTIONS, CANDIDATES, OBSERVATIONS

LISTENERS = ("replay", "similarity", "learned", "ground_truth")
COMBINATIONS = list(itertools.product(ACTIONS, OBSERVATIONS, CANDIDATES, LISTENERS))


def make(folder, **options):
    return gym.make(musicbox_env.ENV_ID, data=str(folder), **options)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize(("action", "observation", "candidates", "listener"), COMBINATIONS)
def test_passes_both_environment_checkers(
    synthetic_folder, action, observation, candidates, listener
):
    options = dict(action=action, observation=observation, candidates=candidates, listener=listener)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(synthetic_folder, **options).unwrapped, skip_render_check=True)
        sb3_check_env(make(synthetic_folder, **options).unwrapped, warn=True)


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
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
    options = {"data": str(synthetic_folder), "action": "slate", "horizon": 9}
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


def test_shows_the_first_half_and_hears_the_second(synthetic, synthetic_folder):
    env = make(synthetic_folder, observation="ids", action="slate", history_length=20)
    log = synthetic.sessions
    for session in log.sessions_in("test")[:30]:
        plays = log.frame(session)
        shown = len(plays) - -(-len(plays) // 2)
        observation, info = env.reset(seed=0, options={"session": int(session)})
        assert info["session"] == session
        np.testing.assert_array_equal(observation["tracks"][-shown:], plays["track"][:shown])
        np.testing.assert_array_equal(observation["levels"][-shown:], plays["level"][:shown])
        assert (observation["tracks"][:-shown] == -1).all()
        heard, terminated = 0, False
        while not terminated:
            observation, _, terminated, truncated, info = env.step(env.action_space.sample())
            heard += (info["levels"] >= 0).sum()
            assert not truncated
        assert heard == len(plays) - shown
        last = info["slate"][info["slate"] >= 0]
        np.testing.assert_array_equal(observation["tracks"][-len(last) :], last)


def test_logged_order_replayed_gets_the_logged_labels(synthetic, synthetic_folder):
    env = make(synthetic_folder, observation="ids", action="slate", repeats=True)
    log = synthetic.sessions
    for session in log.sessions_in("train")[:30]:
        plays = log.frame(session)
        rest = plays.iloc[len(plays) // 2 :]
        env.reset(seed=1, options={"session": int(session)})
        for start in range(0, len(rest), 3):
            slate = rest["track"][start : start + 3].to_numpy()
            levels = rest["level"][start : start + 3].to_numpy()
            _, reward, _, _, info = env.step(np.resize(slate, 3))
            heard = len(levels)
            np.testing.assert_array_equal(info["levels"][:heard], levels)
            assert info["logged"][:heard].all()
            assert info["logged_share"] == 1.0
            expected = (0.9 ** np.arange(heard) * ~is_skip(levels)).sum()
            assert reward == pytest.approx(expected)


def test_session_candidates_are_never_imputed_and_each_is_heard_once(synthetic, synthetic_folder):
    env = make(synthetic_folder, observation="ids", candidates="session")
    log = synthetic.sessions
    for session in log.sessions_in("train")[:20]:
        plays = log.frame(session)
        rest = plays.iloc[len(plays) // 2 :]
        observation, _ = env.reset(seed=2, options={"session": int(session)})
        listed = observation["candidates"][observation["candidates"] >= 0]
        np.testing.assert_array_equal(listed, np.sort(rest["track"]))
        heard, terminated = [], False
        while not terminated:
            _, _, terminated, _, info = env.step(env.action_space.sample())
            real = info["levels"] >= 0
            assert info["logged"][real].all()
            heard += zip(info["slate"][real].tolist(), info["levels"][real].tolist(), strict=True)
        assert sorted(heard) == sorted(zip(rest["track"], rest["level"], strict=True))


@pytest.mark.parametrize("action", ACTIONS)
def test_no_song_is_recommended_twice(synthetic_folder, action):
    env = make(synthetic_folder, observation="ids", action=action, history_length=20)
    env.action_space.seed(0)
    for episode in range(20):
        observation, _ = env.reset(seed=episode)
        songs = [t for t in observation["tracks"] if t >= 0]
        shown, terminated = len(songs), False
        while not terminated:
            _, _, terminated, _, info = env.step(env.action_space.sample())
            songs += [t for t in info["slate"] if t >= 0]
        new = songs[shown:]
        assert len(set(new)) == len(new)
        assert not set(new) & set(songs[:shown])


def test_proto_action_recommends_the_nearest_songs(synthetic, synthetic_folder):
    env = make(synthetic_folder, embedding="hybrid", repeats=True)
    vectors = synthetic.embedding("hybrid")
    env.reset(seed=0)
    point = np.random.default_rng(0).normal(size=vectors.shape[1]).astype(np.float32)
    _, _, _, _, info = env.step(point)
    np.testing.assert_array_equal(info["slate"], np.argsort(-(vectors @ point))[:3])


def test_wrong_songs_of_a_slate_are_replaced_and_counted(synthetic_folder):
    env = make(synthetic_folder, observation="ids", action="slate")
    observation, _ = env.reset(seed=4)
    heard = observation["tracks"][-1]
    free = np.setdiff1d(np.arange(200), observation["tracks"])
    _, _, _, _, info = env.step(np.array([heard, free[5], free[5]]))
    assert info["replaced"] == 2
    np.testing.assert_array_equal(info["slate"], [free[0], free[5], free[1]])


@pytest.mark.parametrize("repeats", [False, True])
def test_all_heard_songs_are_barred_also_beyond_the_window(synthetic, synthetic_folder, repeats):
    options = dict(observation="ids", action="slate", history_length=4, horizon=30)
    env = make(synthetic_folder, repeats=repeats, **options)
    env.action_space.seed(0)
    observation, info = env.reset(seed=1)
    plays = synthetic.sessions.frame(info["session"])
    heard, truncated = plays["track"][: len(plays) // 2].tolist(), False
    while not truncated:
        barred = observation["barred"]
        assert barred.shape == (20 + 30,)
        assert barred[barred >= 0].tolist() == ([] if repeats else heard)
        observation, _, _, truncated, info = env.step(env.action_space.sample())
        heard += info["slate"][info["slate"] >= 0].tolist()
    assert len(heard) > 30
    of_session = make(synthetic_folder, observation="ids", candidates="session")
    assert "barred" not in of_session.observation_space.spaces


def test_horizon_truncates_a_long_run(synthetic_folder):
    env = make(synthetic_folder, horizon=31, listener="ground_truth")
    env.reset(seed=0)
    env.action_space.seed(0)
    heard = 0
    for step in range(11):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        heard += (info["levels"] >= 0).sum()
        assert not terminated
        assert truncated == (step == 10)
    assert heard == 31


def test_reward_terms_are_reported_and_weighted(synthetic_folder):
    weights = {"listen": 0.5, "graded": 2.0, "diversity": 1.0, "novelty": 0.25}
    env = make(synthetic_folder, reward=weights)
    _, info = env.reset(seed=0)
    assert not info["song_reward"].any()
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(env.action_space.sample())
        assert reward == pytest.approx(sum(w * info[f"reward_{n}"] for n, w in weights.items()))
        assert all(info[f"reward_{name}"] >= 0 for name in weights)
        of_slate = info["reward_diversity"] + 0.25 * info["reward_novelty"]
        assert reward == pytest.approx(info["song_reward"] @ 0.9 ** np.arange(3) + of_slate)
        assert not info["song_reward"][info["levels"] < 0].any()


def test_future_labels_change_nothing_that_is_observed(synthetic_folder, tmp_path):
    """The whole future of every session is rewritten; what agents see before it stays the same."""
    import shutil

    changed = tmp_path / "changed"
    shutil.copytree(synthetic_folder, changed)
    offsets = np.load(changed / "sessions" / "offsets.npy")
    lengths = np.diff(offsets)
    rng = np.random.default_rng(0)
    for file in (changed / "plays").glob("*.npy"):
        if file.stem == "track":
            continue
        column = np.lib.format.open_memmap(file, mode="r+")
        for start, length in zip(offsets[:-1], lengths, strict=True):
            future = slice(start + length // 2, start + length)
            column[future] = rng.permutation(column[future])
            if file.stem == "level":
                column[future] = (column[future] + 1) % 5
        column.flush()
    for kind, candidates in itertools.product(OBSERVATIONS, CANDIDATES):
        options = dict(observation=kind, candidates=candidates)
        before, after = make(synthetic_folder, **options), make(changed, **options)
        for session in range(40):
            choice = {"session": session}
            same(before.reset(seed=0, options=choice)[0], after.reset(seed=0, options=choice)[0])


def test_order_of_the_candidates_in_the_log_does_not_matter(synthetic_folder, tmp_path):
    """Plays of the second half change places, labels and all: the same songs are chosen."""
    import shutil

    changed = tmp_path / "reversed"
    shutil.copytree(synthetic_folder, changed)
    offsets = np.load(changed / "sessions" / "offsets.npy")
    for file in (changed / "plays").glob("*.npy"):
        column = np.lib.format.open_memmap(file, mode="r+")
        for start, end in itertools.pairwise(offsets):
            middle = start + (end - start) // 2
            column[middle:end] = column[middle:end][::-1].copy()
        column.flush()
    options = dict(candidates="session", observation="ids")
    before, after = make(synthetic_folder, **options), make(changed, **options)
    before.action_space.seed(0)
    for session in range(60):
        choice = {"session": session}
        same(before.reset(seed=0, options=choice)[0], after.reset(seed=0, options=choice)[0])
        action = before.action_space.sample()
        a, b = before.step(action), after.step(action)
        np.testing.assert_array_equal(a[4]["slate"], b[4]["slate"])


def test_spec_survives_json_and_pickle(synthetic_folder):
    env = make(synthetic_folder, reward={"diversity": 0.5}, listener="ground_truth")
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    copies = [again, pickle.loads(pickle.dumps(env))]
    first, _ = env.reset(seed=3)
    for copy in copies:
        same(first, copy.reset(seed=3)[0])
    json.dumps(env.unwrapped.config.keywords())


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
    env = gym.make("musicbox_env:MusicSession-v0", data=folder)
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


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"listner": "replay"}, TypeError, "did you mean 'listener'"),
        ({"listener": "reply"}, ValueError, "did you mean 'replay'"),
        ({"action": "proto-list"}, ValueError, "did you mean 'proto_list'"),
        ({"split": "tests"}, ValueError, "did you mean 'test'"),
        ({"embedding": "hybird"}, ValueError, "did you mean 'hybrid'"),
        ({"reward": {"listens": 1}}, ValueError, "did you mean 'listen'"),
        ({"slate_size": 0}, ValueError, "slate_size is 0"),
        ({"slate_size": 190}, ValueError, "The catalog has 200 tracks"),
        ({"horizon": 5, "candidates": "session"}, ValueError, "exclude each other"),
        ({"render_mode": "human"}, ValueError, "render_mode 'human'"),
    ],
)
def test_bad_options_say_what_came_and_what_was_expected(synthetic_folder, options, error, says):
    from musicbox_env.env import MusicSessionEnv

    with pytest.raises(error, match=says):
        MusicSessionEnv(data=str(synthetic_folder), **options)


def test_missing_dataset_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="musicbox ingest"):
        make(tmp_path / "nowhere")


def test_bad_calls_are_refused(synthetic_folder):
    env = make(synthetic_folder).unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    with pytest.raises(ValueError, match="did you mean 'session'"):
        env.reset(options={"sesion": 1})
    with pytest.raises(ValueError, match="not in the log"):
        env.reset(options={"session": 600})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        env.step(np.full(env.action_space.shape, np.nan, np.float32))
    slates = make(synthetic_folder, action="slate").unwrapped
    slates.reset(seed=0)
    with pytest.raises(ValueError, match="expected indices from 0 to 199"):
        slates.step(np.array([0, 1, 200]))


def test_disabled_autoreset_leaves_finished_sessions_alone(synthetic, synthetic_folder):
    vector = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=3,
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        data=str(synthetic_folder),
        observation="ids",
    )
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
    assert (info["levels"][:2] == -1).all()
    kept = observation["tracks"][1:].copy()
    mask = np.array([True, False, False])
    observation, _ = vector.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(observation["tracks"][1:], kept)
