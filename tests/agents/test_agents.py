"""The contract of all agents: whatever `musicbox_agents.AGENTS` names is tried here."""

import json
from functools import cache

import gymnasium as gym
import numpy as np
import pytest
from altered import copy_to_alter
from musicbox_agents import AGENTS, agent_class, load_agent, make_agent
from musicbox_agents.baselines.neighbors import history_matrix
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import musicbox_env
from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval.spaces import embedding_space
from musicbox_env.schema import split_codes

PRIVILEGED = ("logged", "skyline", "planner")
PEERS = [name for name in AGENTS if name not in PRIVILEGED]
LEARNERS = ("ddpg", "lird", "bc", "td3-bc", "iql", "linucb", "sb3-ddpg", "sb3-td3", "sb3-sac")
_SMALL_OFFLINE = {"hidden": 8, "batch_size": 8, "log_sessions": 50}
_SMALL_SB3 = {"batch_size": 8, "learning_starts": 8, "net_arch": (16,)}
SMALL = {
    "ddpg": {
        "hidden": 8,
        "batch_size": 8,
        "num_envs": 4,
        "learning_starts": 16,
        "log_sessions": 50,
        "warmup_updates": 5,
    },
    "lird": {"hidden": 8, "batch_size": 8},
    "bc": _SMALL_OFFLINE,
    "td3-bc": _SMALL_OFFLINE,
    "iql": _SMALL_OFFLINE,
    "linucb": {"num_envs": 4},
    "sb3-ddpg": _SMALL_SB3,
    "sb3-td3": _SMALL_SB3,
    "sb3-sac": _SMALL_SB3,
}
STEPS = 32
BATCH = 6


def small_agent(name, dataset, seed=0):
    return make_agent(name, dataset, seed=seed, settings=SMALL.get(name))


def learned(name, dataset, seed=0):
    options = {"data": str(dataset.folder), "listener": "ground_truth"}
    return small_agent(name, dataset, seed).learn(options, STEPS)


@pytest.fixture(scope="module")
def taught(synthetic):
    """Agents that learned, by name and seed, each made when it is first asked for."""
    return cache(lambda name, seed=0: learned(name, synthetic, seed))


def first_observations(agent, dataset, num_envs=BATCH, **options):
    """A vector environment that has begun the first test sessions, and what it shows of them."""
    keywords = {"listener": "replay", "candidates": "catalog", **options, **agent.env_options}
    keywords |= {"data": str(dataset.folder), "split": "test"}
    env = gym.make_vec(
        musicbox_env.ENV_ID, num_envs=num_envs, vectorization_mode="vector_entry_point", **keywords
    )
    sessions = dataset.sessions.sessions_in("test")[:num_envs]
    observation, _ = env.reset(seed=0, options={"session": sessions})
    agent.attach(env.simulator)
    return env, observation


def act(agent, observation):
    return agent.predict(observation, deterministic=True)[0]


def row(observation, i):
    return {name: part[i] for name, part in observation.items()}


def changed_futures(dataset, folder, change):
    """A copy of the dataset in which the second halves of all test sessions are others.

    Args:
        change: From tracks and levels of a second half to new ones.
    """
    copy_to_alter(dataset.folder, folder)
    tracks = np.load(folder / "plays/track.npy", mmap_mode="r+")
    levels = np.load(folder / "plays/level.npy", mmap_mode="r+")
    log = dataset.sessions
    for session in np.flatnonzero(np.isin(log.split, split_codes("test"))):
        start, end = log.offsets[session : session + 2]
        future = slice(start + (end - start) // 2, end)
        tracks[future], levels[future] = change(tracks[future], levels[future])
    tracks.flush()
    levels.flush()
    return Dataset(folder)


@pytest.mark.parametrize("candidates", ["catalog", "session"])
@pytest.mark.parametrize("name", AGENTS)
def test_acts_in_the_space_on_one_session_as_on_a_batch(synthetic, name, candidates):
    agent = small_agent(name, synthetic)
    env, batch = first_observations(agent, synthetic, candidates=candidates)
    actions = act(agent, batch)
    assert actions.dtype == env.action_space.dtype
    assert env.action_space.contains(actions)
    if name in PRIVILEGED:
        agent.attach(
            first_observations(agent, synthetic, num_envs=1, candidates=candidates)[0].simulator
        )
    last = 1 if name in PRIVILEGED else BATCH
    for i in range(last):
        action = act(agent, row(batch, i))
        assert action.dtype == env.single_action_space.dtype
        assert env.single_action_space.contains(action)
        np.testing.assert_allclose(action, actions[i], atol=1e-5)


@pytest.mark.parametrize("name", AGENTS)
def test_actions_stay_in_the_space_until_the_last_session_ends(synthetic, name):
    agent = small_agent(name, synthetic)
    env, observation = first_observations(
        agent, synthetic, candidates="session", autoreset_mode="Disabled"
    )
    state, start = None, np.ones(BATCH, np.bool_)
    over = np.zeros(BATCH, np.bool_)
    while not over.all():
        action, state = agent.predict(observation, state, start, deterministic=True)
        assert env.action_space.contains(action)
        observation, _, terminated, truncated, info = env.step(action)
        assert not info["replaced"].any(), "the agent named songs that may not be played"
        over = terminated | truncated
        start = np.zeros(BATCH, np.bool_)


LONG = 60
"""Songs of a long session: three times what agents observe of it."""


def over_long_sessions(agent, dataset):
    """Observations and slates ``(BATCH, k)`` of sessions of `LONG` songs more than were shown."""
    env, observation = first_observations(
        agent, dataset, listener="ground_truth", horizon=LONG, autoreset_mode="Disabled"
    )
    state, start = None, np.ones(BATCH, np.bool_)
    for _ in range(LONG // 3):
        action, state = agent.predict(observation, state, start, deterministic=True)
        before, start = observation, np.zeros(BATCH, np.bool_)
        observation, *_, info = env.step(action)
        assert not info["replaced"].any(), "the agent named songs that the session heard"
        yield before, info["slate"]


def best_allowed(scores, observation):
    """The three tracks of highest score ``(BATCH, num_tracks)`` that are not barred."""
    for row, barred in zip(scores, observation["barred"], strict=True):
        row[barred[barred >= 0]] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :3]


@pytest.mark.parametrize("name", [name for name in PEERS if not name.startswith("sb3-")])
def test_no_agent_names_a_song_again_in_a_long_session(synthetic, name):
    heard = [set() for _ in range(BATCH)]
    for observation, slates in over_long_sessions(small_agent(name, synthetic), synthetic):
        for songs, slate, barred in zip(heard, slates, observation["barred"], strict=True):
            songs |= set(barred[barred >= 0].tolist())
            assert not songs & set(slate.tolist())
            assert len(set(slate.tolist())) == 3
            songs |= set(slate.tolist())
    assert min(map(len, heard)) >= LONG


def test_long_sessions_get_the_best_of_what_is_left(synthetic):
    space = embedding_space(synthetic, "hybrid+rate").astype(np.float64)
    popularity = np.arange(len(space), 0, -1.0)
    knn = make_agent("item-knn", synthetic)
    nearest = {"rerank": 0, "quality_weight": 1.0}
    ddpg = make_agent("ddpg", synthetic, settings=nearest)

    def played_rate(observation):
        points = act(make_agent("played-rate", synthetic), observation)
        return points.astype(np.float64) @ space.T

    def item_knn(observation):
        heard = history_matrix(observation, len(space), kept_only=False)
        return (heard @ knn.similarity).toarray().astype(np.float64)

    rules = {
        "popularity": lambda observation: np.tile(popularity, (BATCH, 1)),
        "best-rate": lambda observation: np.tile(space[:, -1], (BATCH, 1)),
        "played-rate": played_rate,
        "item-knn": item_knn,
    }
    rules["ddpg"] = lambda observation: (
        ddpg.decide(observation, noise=0.0).proto_actions.astype(np.float64)
        @ ddpg.space.vectors.T.astype(np.float64)
    )
    for name, scores in rules.items():
        agent = ddpg if name == "ddpg" else make_agent(name, synthetic)
        for observation, slates in over_long_sessions(agent, synthetic):
            expected = best_allowed(scores(observation), observation)
            np.testing.assert_array_equal(slates, expected, err_msg=name)


@pytest.mark.parametrize("name", AGENTS)
def test_deterministic_actions_are(synthetic, taught, name):
    agent = taught(name)
    _, observation = first_observations(agent, synthetic)
    first = act(agent, observation)
    agent.predict(observation, deterministic=False)
    np.testing.assert_array_equal(act(agent, observation), first)


@pytest.mark.parametrize("change", [lambda kept: kept.pop("tau"), lambda kept: kept.update(old=1)])
def test_an_agent_of_a_version_with_other_settings_is_refused(synthetic, tmp_path, change):
    """What a setting meant before it was one is not known."""
    make_agent("ddpg", synthetic).save(tmp_path)
    about = json.loads((tmp_path / "agent.json").read_text())
    change(about["settings"])
    (tmp_path / "agent.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"other settings of ddpg \((tau|old)\); train it again"):
        load_agent(tmp_path, synthetic)


@pytest.mark.parametrize("name", AGENTS)
def test_saved_and_loaded_acts_the_same(synthetic, taught, name, tmp_path):
    agent = taught(name, 1)
    agent.save(tmp_path)
    again = load_agent(tmp_path, synthetic)
    assert (type(again), again.seed, again.settings) == (type(agent), 1, agent.settings)
    _, observation = first_observations(agent, synthetic)
    first_observations(again, synthetic)
    np.testing.assert_array_equal(act(again, observation), act(agent, observation))


@pytest.mark.parametrize("name", LEARNERS)
def test_learning_changes_it_and_the_same_seed_learns_the_same(synthetic, taught, name):
    untrained = small_agent(name, synthetic)
    _, observation = first_observations(untrained, synthetic)
    agents = taught(name), learned(name, synthetic), taught(name, 1)
    first, again, other = (act(agent, observation) for agent in agents)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, act(untrained, observation))


def test_exactly_the_learners_say_that_they_learn():
    assert {name for name in AGENTS if agent_class(name).learns} == set(LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_reports_about_every_so_many_steps_and_at_the_end(synthetic, name):
    calls = []
    agent = small_agent(name, synthetic)
    agent.learn(
        {"data": str(synthetic.folder)},
        STEPS,
        callback=lambda steps, metrics: calls.append((steps, dict(metrics))),
        callback_every=10,
    )
    steps = [s for s, _ in calls]
    assert steps == sorted(set(steps))
    assert len(steps) in (3, 4)
    assert STEPS <= steps[-1] < 2 * STEPS
    assert calls[-1][1], "nothing to plot"
    assert all(np.isfinite(v) for _, metrics in calls for v in metrics.values())


@pytest.fixture(scope="module")
def redrawn(synthetic, tmp_path_factory):
    """The dataset with other futures."""
    rng = np.random.default_rng(0)

    def redraw(tracks, levels):
        return rng.integers(len(synthetic.catalog), size=len(tracks)), rng.integers(
            5, size=len(levels)
        )

    return changed_futures(synthetic, tmp_path_factory.mktemp("redrawn") / "data", redraw)


@pytest.mark.parametrize("name", PEERS)
def test_does_not_see_the_future_of_a_session(synthetic, taught, redrawn, name):
    agents = (taught(name), synthetic), (learned(name, redrawn), redrawn)
    actions = [act(agent, first_observations(agent, data)[1]) for agent, data in agents]
    np.testing.assert_array_equal(*actions)


@pytest.fixture(scope="module")
def reversed_candidates(synthetic, tmp_path_factory):
    """The dataset with futures in reverse order, kept songs skipped and skipped ones kept."""

    def reverse(tracks, levels):
        return tracks[::-1].copy(), 4 - levels[::-1]

    return changed_futures(synthetic, tmp_path_factory.mktemp("reversed") / "data", reverse)


@pytest.mark.parametrize("name", PEERS)
def test_does_not_see_in_what_order_candidates_were_played(synthetic, reversed_candidates, name):
    actions = []
    for dataset in (synthetic, reversed_candidates):
        agent = small_agent(name, dataset)
        actions.append(act(agent, first_observations(agent, dataset, candidates="session")[1]))
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("name", AGENTS)
def test_works_in_evaluate_policy_of_stable_baselines3(synthetic, name):
    agent = small_agent(name, synthetic)
    options = {"data": str(synthetic.folder), "listener": "ground_truth", **agent.env_options}
    env = Monitor(gym.make(musicbox_env.ENV_ID, **options))
    agent.attach(env.unwrapped.simulator)
    returns, lengths = evaluate_policy(agent, env, n_eval_episodes=3, return_episode_rewards=True)
    # 5 to 10 songs of at most 1 point each, 3 songs a step.
    assert all(0 <= r <= 10 for r in returns)
    assert all(2 <= length <= 4 for length in lengths)


@pytest.mark.parametrize("name", AGENTS)
def test_refuses_an_unknown_setting_with_a_suggestion(synthetic, name):
    with pytest.raises(ValueError, match="Known:"):
        make_agent(name, synthetic, settings={"no_such_setting": 1})


def test_unknown_agents_are_refused_with_a_suggestion(synthetic, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'popularity'"):
        make_agent("popularty", synthetic)
    with pytest.raises(FileNotFoundError, match=r"no agent\.json"):
        load_agent(tmp_path, synthetic)


@pytest.mark.parametrize("name", ["item-knn", "session-knn", "linucb", "bayes", "ddpg"])
def test_no_sessions_get_no_slates(synthetic, name):
    agent = make_agent(name, synthetic)
    env = gym.make("MusicSession-v0", data=str(synthetic.folder), **agent.env_options)
    observation, _ = env.reset(seed=0)
    none = {key: part[None][:0] for key, part in observation.items()}
    assert agent.predict(none, deterministic=True)[0].shape == (0, *env.action_space.shape)


@pytest.mark.parametrize(
    "setting", [{"rerank": "x"}, {"rerank": 1.5}, {"noise": float("inf")}, {"hidden": True}]
)
def test_settings_that_are_no_such_number_are_refused(synthetic, setting):
    with pytest.raises(ValueError, match=r"it must be a (whole|finite) number"):
        make_agent("ddpg", synthetic, settings=setting)
