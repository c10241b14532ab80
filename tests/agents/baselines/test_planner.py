"""Bounds where the order of songs matters: by brute force over all orders of a tiny world."""

from dataclasses import replace
from itertools import permutations, product

import gymnasium as gym
import numpy as np
import pytest
from handmade import KEPT, SKIPPED, observe
from musicbox_agents import make_agent
from musicbox_agents.baselines import planner
from musicbox_agents.baselines.planner import PlannerSettings

import musicbox_env
from musicbox_env.data.summaries import holds
from musicbox_env.listeners import GroundTruthListener, skip_probability
from musicbox_env.schema import is_skip
from musicbox_env.synthetic.law import ListenerState, ListeningLaw
from musicbox_env.synthetic.outlook import Outlook
from musicbox_env.synthetic.satiation import Satiation

LAW = ListeningLaw()
WORLDS = [Satiation(1.0), Satiation(2.0, 0.7), Satiation(2.0, 0.9, 2)]
SONGS, PLACES = 6, 5


def tiny_world(satiation, seed):
    """Six songs of three kinds, two more heard before, and what is known of them."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((3, 4))[rng.integers(0, 3, SONGS + 2)]
    vectors = kinds + 0.3 * rng.standard_normal(kinds.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    logits = rng.normal(-0.8, 0.5, (1, SONGS))
    heard = np.array([[SONGS, SONGS + 1, -1]])
    state = LAW.after(np.array([[4, 0]]))
    outlook = Outlook.of(
        LAW,
        satiation,
        state,
        heard=heard,
        candidates=np.arange(SONGS)[None],
        logits=logits,
        vectors=vectors,
    )
    return outlook, heard


def expected_skips(outlook, heard, orders):
    """Exactly, of each order ``(m, k)``: over all ways to skip and keep its songs."""
    orders, size = np.array(orders), len(orders[0])
    before = np.repeat(heard, len(orders), axis=0)
    wear = outlook.satiation.wear_in_order(before, orders, outlook.vectors)
    places = outlook.state.heard[0] + np.arange(size)
    songs = outlook.logits[0, orders] + outlook.satiation.logit(wear, places)
    ways = np.array(list(product([0, 4], repeat=size)))  # skipped at once, or kept to the end
    state = ListenerState(*(np.repeat(v, len(ways)) for v in vars(outlook.state).values()))
    chance, total = np.ones((len(orders), len(ways))), np.zeros(len(orders))
    for place in range(size):
        logit = songs[:, [place]] + LAW.history_logit(state)
        skip = 1 / (1 + np.exp(-logit))
        total += (chance * skip).sum(axis=1) / 2 ** (size - place)
        chance *= np.where(ways[:, place] == 0, skip, 1 - skip)
        state = LAW.update(state, ways[:, place])
    return total


def act(agent, observation):
    return agent.predict(observation, deterministic=True)[0]


def begun(agent, dataset, num_envs):
    """An environment with an agent attached, on sessions of 40 songs, and what it shows."""
    env = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        data=str(dataset.folder),
        listener="ground_truth",
        horizon=40,
        **agent.env_options,
    )
    observation, _ = env.reset(seed=0)
    agent.attach(env.simulator)
    return env, observation


def planned(outlook, size, **settings):
    """What the planner makes of a tiny world, where the slate is the rest of the session."""
    return planner.planned(outlook, 0, size, size, PlannerSettings(**settings)).tolist()


def test_expected_skips_of_one_song_are_its_probability():
    outlook, heard = tiny_world(WORLDS[0], 0)
    wear = outlook.satiation.logit(outlook.wear, outlook.state.heard[:, None])
    logit = LAW.skip_logit(outlook.state, 0.0, outlook.logits + wear)[0]
    found = expected_skips(outlook, heard, np.arange(SONGS)[:, None])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logit)), rtol=1e-6)


@pytest.mark.parametrize("satiation", WORLDS)
def test_planner_finds_the_best_of_all_orders(satiation):
    """With room for every try it is the optimum of 720 orders; as it comes, nearly."""
    gaps = []
    for seed in range(4):
        outlook, heard = tiny_world(satiation, seed)
        orders = list(permutations(range(SONGS), PLACES))
        worth = dict(zip(orders, expected_skips(outlook, heard, orders), strict=True))
        best = min(worth.values())
        greedy = worth[tuple(outlook.greedy(PLACES)[0].tolist())]
        thorough = worth[tuple(planned(outlook, PLACES, beam=800, branch=SONGS))]
        usual = worth[tuple(planned(outlook, PLACES))]
        assert thorough == pytest.approx(best, abs=2e-3)
        gaps.append([greedy - best, usual - best, np.mean(list(worth.values())) - best])
    greedy, usual, random = np.mean(gaps, axis=0)
    assert usual < 0.01 * random
    assert usual <= greedy
    if satiation.lag:
        assert usual < 0.1 * greedy, "where wear is felt late, looking ahead pays"


def test_skyline_composes_its_slate_song_by_song(worn):
    """Each song is the least likely to be skipped of all 200, had those before it been heard."""
    agent = make_agent("skyline", worn)
    env, observation = begun(agent, worn, 12)
    listener, rows = GroundTruthListener(worn), np.arange(12)
    state = listener.begin(env.simulator.history.at(rows))
    several = False
    for _ in range(4):
        history = env.simulator.history.at(rows)
        action = act(agent, observation)
        first = None
        for place in range(3):
            asked = np.broadcast_to(np.arange(200), (12, 200)), np.full((12, 200), -1)
            skips = skip_probability(listener.level_probabilities(state, history, rows, *asked))
            skips[holds(history.tracks, asked[0])] = 1.0
            np.testing.assert_array_equal(action[:, place], skips.argmin(axis=1))
            first = skips if first is None else first
            history.record(rows, action[:, place], np.full(12, 4, np.int8))
        several |= bool((np.sort(action) != np.sort(np.argsort(first, axis=1)[:, :3])).any())
        observation = env.step(action)[0]
    assert several, "no slate differed from the three best at its start"


def test_reading_more_of_wear_is_worth_something(worn):
    rates = {}
    for reach in ("nothing", "slate", "session"):
        agent = make_agent("planner", worn, settings={"reach": reach})
        env, observation = begun(agent, worn, 60)
        skips = []
        for _ in range(10):
            observation, *_, info = env.step(act(agent, observation))
            skips.append(is_skip(info["slate_levels"]).mean())
        rates[reach] = np.mean(skips)
    assert rates["session"] < rates["slate"] < rates["nothing"]


def test_of_a_slate_that_is_not_heard_to_its_end_only_what_is_heard_counts(worn):
    """Of sessions of 40 songs the last slate is one song: the least likely to be skipped."""
    agent, rows = make_agent("planner", worn), np.arange(12)
    env, observation = begun(agent, worn, 12)
    listener = GroundTruthListener(worn)
    state = listener.begin(env.simulator.history.at(rows))
    for _ in range(13):
        observation = env.step(act(agent, observation))[0]
    history = env.simulator.history.at(rows)
    asked = np.broadcast_to(np.arange(200), (12, 200)), np.full((12, 200), -1)
    skips = skip_probability(listener.level_probabilities(state, history, rows, *asked))
    skips[holds(history.tracks, asked[0])] = 1.0
    np.testing.assert_array_equal(env.simulator.remaining[rows], 1)
    np.testing.assert_array_equal(act(agent, observation)[:, 0], skips.argmin(axis=1))


def test_planner_names_no_song_twice_in_a_slate_that_is_not_heard_to_its_end(worn):
    """Not even where the songs that it plans for the places heard are others than the best next."""
    agent = make_agent("planner", worn, settings={"slate_size": 8})
    env, observation = begun(agent, worn, 60)
    env.simulator.remaining[:] = 3
    assert [len(set(slate)) for slate in act(agent, observation).tolist()] == [8] * 60


def test_planner_is_the_skyline_where_nothing_wears_out(synthetic):
    slates = []
    for name in ("planner", "skyline"):
        agent = make_agent(name, synthetic)
        slates.append(act(agent, begun(agent, synthetic, 20)[1]))
    np.testing.assert_array_equal(*slates)


def test_bayes_composes_by_the_wear_that_it_knows(worn):
    agent = make_agent("bayes", worn)
    batch = observe([(3, KEPT), (8, KEPT), (40, SKIPPED), (11, KEPT)])
    taste = agent.posterior_taste({**batch, "shown": np.array([4])})[0]
    truth, heard, slate = agent.truth, [3, 8, 40, 11], []
    vectors, satiation = np.asarray(truth.track_vectors), replace(agent.truth.satiation, lag=0)
    object.__setattr__(truth, "satiation", satiation)  # felt at once, so that four songs matter
    for _ in range(3):
        wear = satiation.wear(np.array([heard + slate]), np.arange(200)[None], vectors)[0]
        score = truth.law.taste * vectors @ taste + agent.quality - satiation.strength * wear
        score[heard + slate] = -np.inf
        slate.append(int(score.argmax()))
    assert agent.predict(batch)[0][0].tolist() == slate


def test_bayes_that_looks_ahead_is_skipped_less_where_songs_are_few_and_wear_is_late(worn):
    rates = {}
    for look_ahead in (False, True):
        agent = make_agent("bayes", worn, settings={"look_ahead": look_ahead})
        env, observation = begun(agent, worn, 100)
        skips, state = [], None
        for _ in range(13):
            slates, state = agent.predict(observation, state=state)
            observation, *_, info = env.step(slates)
            skips.append(is_skip(info["slate_levels"]).mean())
        rates[look_ahead] = np.mean(skips)
    assert rates[True] < rates[False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reach": "sonk"}, "song"),
        ({"foresight": []}, "foresight"),
        ({"foresight": [-1.0]}, "foresight"),
        ({"foresight": [0.0, float("nan")]}, "foresight"),
        ({"beam": 0}, "beam"),
        ({"candidates": 2}, "candidates is 2; it must be at least 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(worn, settings, message):
    with pytest.raises(ValueError, match=message):
        make_agent("planner", worn, settings=settings)
