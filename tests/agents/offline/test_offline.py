"""Agents that learn from logs alone: what they point at, and what they never look at."""

import numpy as np
import pytest
import torch
from altered import copy_to_alter
from handmade import KEPT, SKIPPED, observe, write_sessions
from musicbox_agents import AGENTS, agent_class, make_agent
from musicbox_agents.offline.iql import expectile_loss
from musicbox_experiments.train.jobs import jobs_for, train
from musicbox_experiments.train.simulators import Listeners
from scipy.stats import expectile

from musicbox_env.data.dataset import Dataset
from musicbox_env.schema import split_codes
from musicbox_env.simulator.observations import CONTEXT_SIZE

OFFLINE = ("bc", "td3-bc", "iql")
SMALL = {"hidden": 8, "batch_size": 64, "history_length": 6, "embedding": "content"}
FAST = {"actor_rate": 0.03}
FAST_CRITIC = {"critic_rate": 0.03, "tau": 0.2}
EAST, NORTH, WEST = np.eye(4)[0], np.eye(4)[1], np.eye(4)[2]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Sessions that begin alike; of what follows, songs in the north are kept, others skipped.

    Track names tell the direction of the track's vector: e, n, w.
    """
    rng = np.random.default_rng(0)
    sessions = [
        [(f"e{rng.integers(9)}", KEPT if rng.random() < 0.5 else SKIPPED) for _ in range(5)]
        + [
            (f"{place}{rng.integers(9)}", KEPT if place == "n" else SKIPPED)
            for place in rng.permutation(["e", "n", "n", "w", "w", "w"])
        ]
        for _ in range(200)
    ]
    names = sorted({track for session in sessions for track, _ in session})
    folder = tmp_path_factory.mktemp("planted") / "d"
    # Rows of the catalog are in another order than the names: write once to learn it.
    ids = write_sessions(folder, sessions).catalog.track_ids
    assert sorted(ids) == names
    where = {"e": EAST, "n": NORTH, "w": WEST}
    vectors = np.array([where[i[0]] for i in ids]) + 0.1 * rng.standard_normal((len(ids), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "embeddings/content.npy", vectors.astype(np.float32))
    return Dataset(folder)


def logs_of(dataset):
    """What to learn from; nobody can have asked this listener."""
    return {"data": str(dataset.folder), "split": "train", "listener": "nobody"}


def taught(name, dataset, steps=120, seed=0, **settings):
    agent = make_agent(name, dataset, seed=seed, settings={**SMALL, **settings})
    return agent.learn(logs_of(dataset), steps)


def point_of(agent, dataset):
    """Where the agent points after five songs of the east, and the places of the next songs."""
    ids = dataset.catalog.track_ids
    heard = [track for track, name in enumerate(ids) if name.startswith("e")][:5]
    levels = [KEPT, SKIPPED, KEPT, SKIPPED, KEPT]
    observation = observe(list(zip(heard, levels, strict=True)))
    observation = {name: part[:, -6:] for name, part in observation.items() if name != "context"}
    observation["context"] = np.zeros((1, CONTEXT_SIZE), np.float32)
    point = agent.predict(observation, deterministic=True)[0][0]
    nearest = np.argsort(-dataset.embedding("content") @ point)[:3]
    return point, {ids[track][0] for track in nearest}


def weights(agent):
    return [p.detach().numpy() for p in agent.actor.parameters()]


@pytest.mark.parametrize("name", ["td3-bc", "iql"])
def test_the_first_critic_chooses_among_the_nearest(planted, name):
    agent = taught(name, planted, steps=20, **FAST_CRITIC, rerank=20)
    ids = np.arange(len(planted.catalog), dtype=np.int32)
    observation = {
        "tracks": np.full((1, 6), 3, np.int32),
        "levels": np.full((1, 6), KEPT, np.int8),
        "context": np.zeros((1, CONTEXT_SIZE), np.float32),
        "candidates": ids[None],
    }
    state = agent.space.state(observation)
    with torch.no_grad():
        near = np.argsort(-agent.space.vectors @ agent.actor(state)[0].numpy(), kind="stable")[:20]
        q = agent.critics[0](state, agent.space.embed(near[None]))[0].numpy()
    slate, _ = agent.predict(observation)
    assert set(slate[0]) == set(near[np.argsort(-q, kind="stable")[:3]])


def test_exactly_these_agents_say_that_they_learn_offline():
    assert {name for name in AGENTS if agent_class(name).offline} == set(OFFLINE)


@pytest.mark.parametrize("name", OFFLINE)
def test_points_at_what_was_kept(planted, name):
    settings = FAST if name == "bc" else {**FAST, **FAST_CRITIC}
    point, songs = point_of(taught(name, planted, **settings), planted)
    assert np.linalg.norm(point) == pytest.approx(1, abs=1e-5)
    assert songs == {"n"}
    # The critic also turns away from what was skipped, which costs a point some of its north.
    assert point @ NORTH > (0.5 if name == "td3-bc" else 0.8)


def test_cloning_everything_points_at_the_mean_of_what_was_played(planted):
    point, _ = point_of(taught("bc", planted, **FAST, clone="played"), planted)
    expected = EAST + 2 * NORTH + 3 * WEST
    assert point @ expected / np.linalg.norm(expected) > 0.95


def test_the_critic_leads_where_cloning_would_not(planted):
    """Most songs played were of the west, and all of these were skipped."""
    settings = {**FAST, **FAST_CRITIC, "clone": "played", "actor_delay": 1}
    _, cloned = point_of(taught("td3-bc", planted, **settings, alpha=0.0), planted)
    _, led = point_of(taught("td3-bc", planted, **settings, alpha=100.0), planted)
    assert (cloned, led) == ({"w"}, {"n"})


def test_iql_prefers_the_better_of_two_songs_kept(tmp_path):
    """East and north are kept now and then, the north more often."""
    rng = np.random.default_rng(1)
    north = {True: 0.9, False: 0.3}
    sessions = [
        [("start", KEPT)] * 6
        + [
            (f"{'n' if is_n else 'e'}{rng.integers(5)}", KEPT if rng.random() < chance else SKIPPED)
            for is_n in rng.permutation([True, False, False, False, False, False])
            for chance in [north[bool(is_n)]]
        ]
        for _ in range(300)
    ]
    ids = write_sessions(tmp_path / "d", sessions).catalog.track_ids
    where = {"e": EAST, "n": NORTH, "s": WEST}
    np.save(
        tmp_path / "d/embeddings/content.npy",
        np.array([where[i[0]] for i in ids], np.float32),
    )
    dataset = Dataset(tmp_path / "d")
    start = int(np.flatnonzero(ids == "start")[0])

    def northward(beta):
        agent = taught("iql", dataset, **FAST, **FAST_CRITIC, beta=beta, history_length=20)
        return agent.predict(observe([(start, KEPT)] * 6), deterministic=True)[0][0] @ NORTH

    assert northward(0.0) < 0.7
    assert northward(5.0) > 0.9


@pytest.mark.parametrize("tau", [0.2, 0.5, 0.9])
def test_expectile_loss_is_least_at_the_expectile(tau):
    sample = torch.from_numpy(np.random.default_rng(0).exponential(size=200))
    value = torch.tensor(expectile(sample.numpy(), tau), requires_grad=True)
    expectile_loss(sample - value, tau).backward()
    assert abs(float(value.grad)) < 1e-7
    here = float(expectile_loss(sample - value, tau).detach())
    for aside in (-0.1, 0.1):
        assert float(expectile_loss(sample - value.detach() - aside, tau)) > here


def test_iql_learns_the_expectile_of_the_values_of_logged_songs(planted):
    low, high = (taught("iql", planted, **FAST_CRITIC, expectile=e) for e in (0.5, 0.99))
    batch = low.space.batch(low.log.stored, future=False)
    with torch.no_grad():
        q = torch.stack([critic(batch.state, batch.songs) for critic in low.critics])
        q = q.amin(dim=0)[batch.heard]
        means = [float(agent.value(batch.state).mean()) for agent in (low, high)]
    assert means[0] == pytest.approx(expectile(q.numpy(), 0.5), abs=0.15)
    assert means[1] > means[0] + 0.5 * float(q.std())


@pytest.mark.parametrize(
    ("name", "settings"),
    [("td3-bc", {"alpha": 0.0, "actor_delay": 1}), ("iql", {"beta": 0.0})],
)
def test_without_its_critic_it_is_behaviour_cloning(planted, name, settings):
    cloned = taught("bc", planted, steps=20)
    other = taught(name, planted, steps=20, **settings)
    for ours, theirs in zip(weights(other), weights(cloned), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_little_of_the_critic_is_nearly_behaviour_cloning(planted):
    def turn(alpha):
        agent = taught("td3-bc", planted, steps=20, alpha=alpha, actor_delay=1)
        return max(
            np.abs(ours - theirs).max() for ours, theirs in zip(weights(agent), cloned, strict=True)
        )

    cloned = weights(taught("bc", planted, steps=20))
    assert turn(1e-3) < turn(1e-1) < turn(10.0)
    assert turn(1e-3) < 5e-3


@pytest.mark.parametrize("name", OFFLINE)
def test_learning_again_learns_the_same(planted, name):
    first, again = (taught(name, planted, steps=10, seed=3) for _ in range(2))
    for ours, theirs in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", OFFLINE)
def test_reads_no_session_but_those_of_training(synthetic, name, tmp_path):
    copy_to_alter(synthetic.folder, tmp_path / "other")
    log = synthetic.sessions
    others = np.isin(log.split, split_codes("validation") + split_codes("test"))
    plays = log.plays_of(np.flatnonzero(others))
    rng = np.random.default_rng(0)
    for column, values in (("track", len(synthetic.catalog)), ("level", 5), ("hour", 24)):
        stored = np.load(tmp_path / f"other/plays/{column}.npy", mmap_mode="r+")
        stored[plays] = rng.integers(values, size=len(plays))
        stored.flush()
    first, other = (
        taught(name, d, steps=10, embedding="hybrid+rate")
        for d in (synthetic, Dataset(tmp_path / "other"))
    )
    for ours, theirs in zip(weights(first), weights(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_one_fold_is_learned_from_without_the_other(synthetic, tmp_path):
    """Track rates come from the other fold by design, so a space without rates."""
    copy_to_alter(synthetic.folder, tmp_path / "other")
    plays = synthetic.sessions.plays_of(synthetic.sessions.sessions_in("train_b"))
    levels = np.load(tmp_path / "other/plays/level.npy", mmap_mode="r+")
    levels[plays] = 4 - levels[plays]
    levels.flush()
    points = []
    for dataset in (synthetic, Dataset(tmp_path / "other")):
        agent = make_agent("bc", dataset, settings={**SMALL, "embedding": "hybrid"})
        agent.learn({**logs_of(dataset), "split": "train_a"}, 10)
        points.append(weights(agent))
    for ours, theirs in zip(*points, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_checkpoint_is_chosen_without_any_listener(synthetic, tmp_path):
    [job] = jobs_for(
        ["bc"],
        1,
        settings={"bc": {"hidden": 8, "batch_size": 8}},
        options=logs_of(synthetic),
        steps=10,
        out=tmp_path,
        listeners=Listeners("replay", "replay", "replay", "replay", {}),
    )
    train(job)
    assert job.done


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("bc", {"clone": "keep"}, "did you mean 'kept'"),
        ("bc", {"start": "cloned"}, "Known: 'heuristic', 'random'"),
        ("bc", {"batch_size": 0}, "BC setting batch_size is 0"),
        ("bc", {"alpha": 1.0}, "Unknown setting"),
        ("td3-bc", {"alpha": -1.0}, "alpha is -1"),
        ("iql", {"expectile": 1.0}, "expectile is 1.0; .* at most"),
        ("iql", {"beta": -1.0}, "beta is -1"),
    ],
)
def test_impossible_settings_are_refused(planted, name, settings, says):
    with pytest.raises(ValueError, match=says):
        make_agent(name, planted, settings=settings)
