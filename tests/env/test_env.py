"""Sessions in the environment: what is shown, heard, rewarded and refused."""

import itertools
import shutil
import subprocess
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from altered import copy_to_alter
from environments import make, same

import musicbox_env
from musicbox_env.schema import is_skip
from musicbox_env.simulator.config import ACTIONS, CANDIDATES, OBSERVATIONS, SessionConfig


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
            heard += (info["slate_levels"] >= 0).sum()
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
            np.testing.assert_array_equal(info["slate_levels"][:heard], levels)
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
            real = info["slate_levels"] >= 0
            assert info["logged"][real].all()
            heard += zip(
                info["slate"][real].tolist(), info["slate_levels"][real].tolist(), strict=True
            )
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
        heard += (info["slate_levels"] >= 0).sum()
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
        assert not info["song_reward"][info["slate_levels"] < 0].any()


def test_future_labels_change_nothing_that_is_observed(synthetic_folder, tmp_path):
    """The whole future of every session is rewritten; what agents see before it stays the same."""
    changed = tmp_path / "changed"
    copy_to_alter(synthetic_folder, changed)
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
    changed = tmp_path / "reversed"
    copy_to_alter(synthetic_folder, changed)
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


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"listner": "replay"}, TypeError, "unexpected keyword argument 'listner'"),
        ({"candidate": "session"}, TypeError, "did you mean 'candidates'"),
        ({"listener": "reply"}, ValueError, "did you mean 'replay'"),
        ({"action": "proto-list"}, ValueError, "did you mean 'proto_list'"),
        ({"split": "tests"}, ValueError, "did you mean 'test'"),
        ({"embedding": "hybird"}, ValueError, "did you mean 'hybrid'"),
        ({"reward": {"listens": 1}}, ValueError, "did you mean 'listen'"),
        ({"slate_size": 0}, ValueError, "slate_size is 0"),
        ({"slate_size": 190}, ValueError, "The catalog has 200 tracks"),
        ({"horizon": 5, "candidates": "session"}, ValueError, "exclude each other"),
        ({"render_mode": "humans"}, ValueError, "render_mode 'humans'"),
        ({"candidates": "sessions"}, ValueError, "did you mean 'session'"),
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


@pytest.fixture(scope="module")
def lawless(synthetic_folder, tmp_path_factory):
    """The same sessions as if they came from people: nobody knows a law."""
    folder = tmp_path_factory.mktemp("lawless") / "data"
    shutil.copytree(synthetic_folder, folder, ignore=shutil.ignore_patterns("truth"))
    return folder


@pytest.mark.parametrize(
    ("law", "options", "listener", "candidates"),
    [
        (True, {}, "ground_truth", "catalog"),
        (False, {}, "replay", "session"),
        (True, {"listener": "replay"}, "replay", "session"),
        (False, {"listener": "similarity"}, "similarity", "catalog"),
        (True, {"candidates": "session"}, "ground_truth", "session"),
        (False, {"horizon": 9}, "replay", "catalog"),
    ],
)
def test_the_listener_and_candidates_that_are_chosen(
    synthetic_folder, lawless, law, options, listener, candidates
):
    given = {"data": synthetic_folder if law else lawless, **options}
    for make_one in (gym.make, partial(gym.make_vec, num_envs=2)):
        config = make_one(musicbox_env.ENV_ID, **given).unwrapped.config
        assert (config.listener, config.candidates) == (listener, candidates)
        assert SessionConfig(**{**config.keywords(), "reward": config.reward}) == config


def test_without_a_law_every_reward_is_a_logged_label(lawless):
    env = gym.make(musicbox_env.ENV_ID, data=lawless)
    _, info = env.reset(seed=3)
    levels = env.unwrapped.assets.dataset.sessions.frame(info["session"])["level"].to_numpy()
    heard, terminated = [], False
    while not terminated:
        *_, terminated, _, info = env.step(env.action_space.sample())
        assert info["logged_share"] == 1
        heard += info["slate_levels"][info["slate_levels"] >= 0].tolist()
    assert sorted(heard) == sorted(levels[len(levels) // 2 :].tolist())


def test_replay_over_the_catalog_warns_once_a_process(synthetic_folder):
    code = f"""
import warnings, gymnasium, musicbox_env
from musicbox_env.simulator.imputed import imputed_answers_expected
warnings.simplefilter("always")
data = {str(synthetic_folder)!r}
with imputed_answers_expected():
    gymnasium.make("MusicSession-v0", data=data, listener="replay", candidates="catalog")
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    gymnasium.make("MusicSession-v0", data=data)
    gymnasium.make("MusicSession-v0", data=data, listener="replay")
    print(len(seen))
    for make in (gymnasium.make, gymnasium.make_vec) * 2:
        make("MusicSession-v0", data=data, listener="replay", candidates="catalog")
    print([w.category.__name__ for w in seen])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["0", "['ImputedAnswersWarning']"]


def test_no_name_of_info_is_one_of_an_observation(synthetic_folder):
    for kind, candidates in itertools.product(("embedding", "ids"), CANDIDATES):
        env = make(synthetic_folder, observation=kind, candidates=candidates)
        observation, info = env.reset(seed=0)
        assert not set(observation) & set(info)


@pytest.mark.parametrize("listener", ["replay", "ground_truth"])
def test_flat_is_the_embedding_observation_as_one_vector(synthetic_folder, listener):
    parts, flat = (
        make(synthetic_folder, listener=listener, observation=kind)
        for kind in ("embedding", "flat")
    )
    dim = flat.action_space.shape[0]
    assert flat.observation_space.shape == (10 * (dim + 2) + 11,)
    assert flat.observation_space.dtype == np.float32
    expected, got = parts.reset(seed=5)[0], flat.reset(seed=5)[0]
    for _ in range(3):
        assert flat.observation_space.contains(got)
        cuts = np.cumsum([10 * dim, 10, 10])
        for name, part in zip(
            ("history", "levels", "mask", "context"), np.split(got, cuts), strict=True
        ):
            np.testing.assert_array_equal(part, expected[name])
        action = flat.action_space.sample()
        expected, got = parts.step(action)[0], flat.step(action)[0]
    low = np.split(flat.observation_space.low, cuts)
    assert [part.min() for part in low] == [-1, 0, 0, -1]
