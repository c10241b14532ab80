"""LIRD as published: right where the first MusicBox and its models were wrong.

Where a docstring says "there", it tells a defect of theirs that the test would find.
"""

from collections.abc import Mapping
from copy import deepcopy
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch
from musicbox_agents import load_agent, make_agent
from musicbox_agents.lird import Batch, LIRDAgent, mu, q
from torch import nn
from worlds import Loyal, Picky, genre_of, planted_world

from musicbox_env import ENV_ID
from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LISTENERS
from musicbox_env.retrieval.embeddings import fit_embeddings
from musicbox_env.schema import Level
from musicbox_env.simulator.observations import CONTEXT_SIZE

SMALL = {"hidden": 8, "batch_size": 16}


def small_agent(dataset: Dataset, seed: int = 0, **settings: Any) -> LIRDAgent:
    agent = make_agent("lird", dataset, seed=seed, settings={**SMALL, **settings})
    assert isinstance(agent, LIRDAgent)
    return agent


def options(dataset: Dataset, **more: Any) -> dict[str, Any]:
    return {"data": str(dataset.folder), "listener": "ground_truth", **more}


def learned(dataset: Dataset, steps: int = 40, seed: int = 0, **settings: Any) -> LIRDAgent:
    return small_agent(dataset, seed, **settings).learn(options(dataset), steps)


def seen(tracks: list[int], levels: list[int]) -> dict[str, npt.NDArray]:
    """What the environment shows of one session, padded in front to 20 plays."""
    pads = 20 - len(tracks)
    return {
        "tracks": np.array([-1] * pads + tracks, np.int32),
        "levels": np.array([-1] * pads + levels, np.int8),
        "context": np.zeros(CONTEXT_SIZE, np.float32),
    }


def weights_of(network: nn.Module) -> npt.NDArray[np.float32]:
    return np.concatenate([w.detach().flatten().numpy() for w in network.parameters()])


def some_batch(agent: LIRDAgent, n: int = 32) -> Batch:
    """Random transitions; every second one ends its session."""
    rng = np.random.default_rng(0)
    states = (agent.read(rng.integers(100, size=(n, 10), dtype=np.int32)) for _ in range(2))
    action = rng.uniform(-1, 1, (n, agent.action_dim)).astype(np.float32)
    parts = (action, rng.random(n), np.arange(n) % 2 == 0)
    return Batch(*states, *map(torch.from_numpy, parts))


# The update rules.


def test_the_actor_climbs_the_critic(synthetic: Dataset) -> None:
    """There the gradient had the wrong sign: the actor looked for the least Q."""
    agent = small_agent(synthetic, critic_rate=0.01)
    batch = some_batch(agent)
    for _ in range(20):
        agent.update(batch)
    before = weights_of(agent.networks["critic"])
    gradient = torch.autograd.grad(
        agent.actor_loss(batch), list(agent.networks["actor"].parameters())
    )
    climbed = deepcopy(agent.networks)
    with torch.no_grad():
        for weights, slope in zip(climbed["actor"].parameters(), gradient, strict=True):
            weights -= 0.01 * slope
        values = [
            float(q(agent.networks, batch.state, mu(networks, batch.state)).mean())
            for networks in (agent.networks, climbed)
        ]
    assert values[1] > values[0]
    np.testing.assert_array_equal(weights_of(agent.networks["critic"]), before)


def test_updates_raise_the_value_of_what_the_actor_does(synthetic: Dataset) -> None:
    """The whole update: of actions that pay more the more their numbers are, it takes such."""
    agent = small_agent(synthetic, critic_rate=0.01, actor_rate=0.01, gamma=0.0)
    batch = some_batch(agent, 64)
    batch = batch._replace(reward=batch.action.mean(dim=1).double())
    with torch.no_grad():
        before = float(mu(agent.networks, batch.state).mean())
    for _ in range(100):
        agent.update(batch)
    with torch.no_grad():
        assert float(mu(agent.networks, batch.state).mean()) > max(before, 0) + 0.5


def test_the_actors_step_leaves_nothing_in_the_critics(synthetic: Dataset) -> None:
    """The gradient of the actor's loss in the critic must not count in the critic's next step."""
    alone, after = (small_agent(synthetic, actor_rate=0.0) for _ in range(2))
    batch = some_batch(alone)
    after.actor_loss(batch).backward()
    for agent in (alone, after):
        agent.update(batch)
    np.testing.assert_array_equal(
        weights_of(after.networks["critic"]), weights_of(alone.networks["critic"])
    )


def test_both_targets_follow_by_tau(synthetic: Dataset) -> None:
    """There the critic's target was never synchronised."""
    agent = small_agent(synthetic, tau=0.25, actor_rate=0.01, critic_rate=0.01)
    for name in ("actor", "critic"):
        slow, quick = agent.targets[name], agent.networks[name]
        before = weights_of(slow)
        np.testing.assert_array_equal(before, weights_of(quick))
        agent.update(some_batch(agent))
        assert not np.array_equal(weights_of(quick), before)
        expected = 0.25 * weights_of(quick) + 0.75 * before
        np.testing.assert_allclose(weights_of(slow), expected, atol=1e-6)
        agent = small_agent(synthetic, tau=0.25, actor_rate=0.01, critic_rate=0.01)


def test_target_by_hand(synthetic: Dataset) -> None:
    """There the next action was that of s, the networks' own, and ends had a future."""
    agent = small_agent(synthetic, gamma=0.5, tau=0.01, actor_rate=0.01, critic_rate=0.01)
    batch = some_batch(agent)
    for _ in range(20):
        agent.update(batch)
    with torch.no_grad():
        after = batch.next_state
        slow = q(agent.targets, after, mu(agent.targets, after))
        others = {
            "of s": q(agent.targets, batch.state, mu(agent.targets, batch.state)),
            "action of s": q(agent.targets, after, mu(agent.targets, batch.state)),
            "not slow": q(agent.networks, after, mu(agent.networks, after)),
        }
    found = agent.target(batch)
    ends = batch.terminated
    torch.testing.assert_close(found[ends], batch.reward[ends].float())
    torch.testing.assert_close(found[~ends], (batch.reward.float() + 0.5 * slow)[~ends])
    for what, other in others.items():
        assert not torch.allclose(slow[~ends], other[~ends], atol=1e-4), what


# What the networks see.


def test_the_state_is_the_last_kept_songs_in_the_order_heard(synthetic: Dataset) -> None:
    """There histories were sampled without order."""
    agent = small_agent(synthetic, history_length=3)
    kept, skip = int(Level.FULL), int(Level.BRIEF)
    few = seen([7, 5, 9], [kept, skip, kept])
    many = seen([4, 8, 1, 6, 2, 3], [kept, kept, skip, kept, skip, kept])
    none = seen([4, 8], [skip, skip])
    states = [agent.kept(o)[0].tolist() for o in (few, many, none)]
    assert states == [[7, 9, -1], [8, 6, 3], [-1, -1, -1]]
    both = {name: np.stack([few[name], many[name]]) for name in few}
    assert agent.kept(both).tolist() == states[:2]


@pytest.mark.parametrize("place", range(10))
def test_every_kept_song_is_read(synthetic: Dataset, place: int) -> None:
    """There the GRU read the three oldest of ten songs."""
    agent = small_agent(synthetic)
    songs = np.arange(10, dtype=np.int32)[None]
    other = songs.copy()
    other[0, place] = 50
    with torch.no_grad():
        for network in ("actor", "critic"):
            points = torch.zeros(1, agent.action_dim if network == "critic" else 0)
            first, second = (
                agent.networks[network](*agent.read(s), points) for s in (songs, other)
            )
            assert not torch.equal(first, second)


def test_order_counts_and_pads_do_not(synthetic: Dataset) -> None:
    agent = small_agent(synthetic)
    songs = np.array([[3, 1, 4]], np.int32)
    padded = np.full((1, 10), -1, np.int32)
    padded[:, :3] = songs
    with torch.no_grad():
        short, long, turned = (
            mu(agent.networks, agent.read(s)) for s in (songs, padded, songs[:, ::-1].copy())
        )
        torch.testing.assert_close(short, long)
        assert not torch.allclose(short, turned, atol=1e-5)
        # Nothing was kept: what fills the places of songs is not read either.
        vectors, number = agent.read(np.full((1, 10), -1, np.int32))
        torch.testing.assert_close(
            mu(agent.networks, (vectors, number)), mu(agent.networks, (vectors + 1, number))
        )


def test_skipped_songs_are_not_seen(synthetic: Dataset) -> None:
    agent = small_agent(synthetic)
    kept, skip = int(Level.FULL), int(Level.BRIEF)
    first, _ = agent.predict(seen([3, 8, 4], [kept, skip, kept]))
    second, _ = agent.predict(seen([3, 9, 4], [kept, skip, kept]))
    third, _ = agent.predict(seen([3, 9, 4], [kept, kept, kept]))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


# Sessions and what is remembered of them.


def test_transitions_are_those_of_the_sessions(synthetic: Dataset) -> None:
    """There agent and environment were in different sessions, and ends were no ends."""
    agent = learned(synthetic, 60)
    assert len(agent.memory) == 60
    pushed = 0
    for (s, next_s, _, reward, ended), (following, *_) in zip(
        agent.memory, islice(agent.memory, 1, None), strict=False
    ):
        if not ended[0]:
            np.testing.assert_array_equal(next_s, following)
        before, after = s[s >= 0].tolist(), next_s[next_s >= 0].tolist()
        new = next(
            k for k in range(4) if before[max(0, len(before) + k - 10) :] == after[: -k or 99]
        )
        # Each kept song is worth .9 to the power of its place, and is pushed to the end.
        worth = {
            round(sum(0.9**k for k in range(3) if chosen >> k & 1), 6)
            for chosen in range(8)
            if chosen.bit_count() == new
        }
        assert round(float(reward[0]), 6) in worth
        pushed += new
    assert pushed > 20
    ends = np.array([ended[0] for *_, ended in agent.memory])
    # Sessions of 10 to 20 plays: 5 to 10 songs are left, in slates of three.
    lengths = np.diff(np.flatnonzero(ends))
    assert set(lengths) <= {2, 3, 4}
    assert len(lengths) > 10


def test_a_horizon_is_no_end(synthetic: Dataset) -> None:
    agent = small_agent(synthetic).learn(options(synthetic, horizon=6), 20)
    ends = [bool(ended[0]) for *_, ended in agent.memory]
    assert not any(ends)
    states = [(s.tolist(), next_s.tolist()) for s, next_s, *_ in agent.memory]
    broken = [one[1] != two[0] for one, two in pairwise(states)]
    assert sum(broken) == 9
    assert broken[1::2] == [True] * 9, "a session of two slates is followed by another"


def test_no_song_twice_nor_one_just_heard(synthetic: Dataset) -> None:
    """There one song filled all places, and songs just heard came back."""
    agent = learned(synthetic)
    env = gym.make(ENV_ID, **{**options(synthetic), **agent.env_options})
    observation, _ = env.reset(seed=1)
    over = False
    while not over:
        heard = observation["tracks"]
        # The same point for all places asks for the same song three times.
        action = np.tile(agent.predict(observation)[0][: agent.space.shape[1]], 3)
        observation, _, terminated, truncated, info = env.step(action)
        slate = info["slate"][info["slate"] >= 0]
        assert len(set(slate.tolist())) == len(slate)
        assert not np.isin(slate, heard).any()
        over = terminated or truncated


def test_the_oldest_transitions_are_dropped(synthetic: Dataset) -> None:
    whole = learned(synthetic, 30)
    short = learned(synthetic, 30, buffer_size=8)
    assert (len(whole.memory), len(short.memory)) == (30, 8)
    drawn = short.sample()
    stored = {float(reward[0]) for _, _, _, reward, _ in short.memory}
    assert drawn.reward.shape == (16,)
    assert set(drawn.reward.tolist()) <= stored


# Exploration.


def test_noise_has_the_moments_of_an_ornstein_uhlenbeck_process(synthetic: Dataset) -> None:
    """There the increments were uniform above 0, and the noise drifted to +.2."""
    agent = small_agent(synthetic, noise_theta=0.5, noise_sigma=0.2)
    noise = agent.noise()
    np.testing.assert_allclose(np.std(next(noise)), 0.2, atol=0.05)
    x = np.array(list(islice(noise, 5_000)))[50:]
    variance = 0.2**2 / (1 - 0.5**2)
    assert abs(x.mean()) < 0.002
    assert x.var() == pytest.approx(variance, rel=0.02)
    assert (x[1:] * x[:-1]).mean() == pytest.approx(0.5 * variance, rel=0.03)
    first, again = next(agent.noise()), next(agent.noise())
    assert max(np.abs(first).max(), np.abs(again).max()) < 1.1, "a session begins at 0"


def test_noise_is_on_the_action_and_never_on_the_state(synthetic: Dataset) -> None:
    """There it was added to the state."""
    quiet = learned(synthetic, 1, noise_sigma=0.0)
    loud = learned(synthetic, 1, noise_sigma=0.9)
    untrained = small_agent(synthetic)
    (state, _, exact, *_), (same, _, noisy, *_) = quiet.memory[0], loud.memory[0]
    np.testing.assert_array_equal(state, same)
    with torch.no_grad():
        points = mu(untrained.networks, untrained.read(state)).numpy()
    np.testing.assert_allclose(exact, points, atol=1e-6)
    assert np.abs(noisy - points).mean() > 0.3
    assert np.abs(noisy).max() <= 1
    np.testing.assert_array_equal(
        *(small_agent(synthetic).predict(seen([3], [4]))[0] for _ in "ab")
    )


# Learning, keeping, settings.


def rewards_while_learning(
    world: Dataset, listener: str, steps: int, **settings: Any
) -> list[float]:
    """Mean reward of a list in each hundred while learning; 2.3 is the most, 1.15 is chance."""
    rates = {"actor_rate": 1e-3, "critic_rate": 0.01, "tau": 0.01}
    agent = small_agent(world, embedding="colisten", **{**rates, "hidden": 16, **settings})
    rewards: list[float] = []

    def note(step: int, metrics: Mapping[str, float]) -> None:
        rewards.append(metrics["reward"])

    agent.learn(
        {"data": str(world.folder), "listener": listener}, steps, callback=note, callback_every=100
    )
    return rewards


def test_finds_the_songs_that_all_listeners_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = planted_world(tmp_path / "world", tracks=120)
    fit_embeddings(world.folder, dim=8)
    monkeypatch.setitem(LISTENERS, "picky", lambda dataset: Picky(genre_of(dataset) == 0))
    rewards = rewards_while_learning(world, "picky", 400, batch_size=16, gamma=0.9)
    assert np.mean(rewards[-3:]) > 1.9, rewards


@pytest.mark.slow
def test_tells_listeners_apart_by_what_they_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them keep one genre, half the other: the same list for all gets chance."""
    world = planted_world(tmp_path / "world", tracks=120)
    fit_embeddings(world.folder, dim=8)
    monkeypatch.setitem(LISTENERS, "loyal", lambda dataset: Loyal(genre_of(dataset)))
    rewards = rewards_while_learning(world, "loyal", 900, batch_size=64, gamma=0.0)
    assert np.mean(rewards[-3:]) > 1.8, rewards


def test_the_same_seed_learns_the_same(synthetic: Dataset) -> None:
    first, again, other = (learned(synthetic, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(weights_of(first.weights), weights_of(again.weights))
    assert not np.array_equal(weights_of(first.weights), weights_of(other.weights))


def test_saved_and_loaded_it_acts_and_learns_the_same(synthetic: Dataset, tmp_path: Path) -> None:
    """There models were never saved. Targets are kept too."""
    agent = learned(synthetic, tau=0.1)
    agent.save(tmp_path)
    again = load_agent(tmp_path, synthetic)
    assert isinstance(again, LIRDAgent)
    batch = some_batch(agent)
    assert torch.equal(agent.target(batch), again.target(batch))
    observation = seen([3, 8], [4, 4])
    np.testing.assert_array_equal(agent.predict(observation)[0], again.predict(observation)[0])


def test_learning_leaves_torchs_threads_and_random_numbers_alone(synthetic: Dataset) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    learned(synthetic, 5)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 1.5}, "tau is 1.5; it must be at least 0 and at most 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"noise_sigma": -0.1}, "noise_sigma"),
        ({"gama": 0.9}, "did you mean 'gamma'"),
    ],
)
def test_settings_out_of_range_are_refused(
    synthetic: Dataset, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent("lird", synthetic, settings=settings)
