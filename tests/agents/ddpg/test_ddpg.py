"""DDPG: the update rules by hand, the bookkeeping of sessions, and that it learns.

Where a docstring says "there", it tells a defect of the first MusicBox that the test would find.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from musicbox_agents import load_agent, make_agent
from musicbox_agents.ddpg.agent import (
    TRUSTED_UPDATES,
    Batch,
    DDPGAgent,
    DDPGSettings,
    mean_cosine,
    one_thread,
)
from musicbox_agents.ddpg.descent import tensors
from musicbox_agents.ddpg.networks import State
from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions
from musicbox_experiments.evaluate.metrics import effective_catalog_size, exposure, skip_rate
from musicbox_experiments.evaluate.rollout import roll_out
from torch import Tensor
from worlds import genre_of, planted_world

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LISTENERS, History
from musicbox_env.retrieval import search
from musicbox_env.retrieval.embeddings import fit_embeddings
from musicbox_env.retrieval.spaces import rate_column
from musicbox_env.schema import Level, is_skip
from musicbox_env.simulator.context import CONTEXT_SIZE
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize

SMALL = {
    "hidden": 8,
    "batch_size": 16,
    "num_envs": 8,
    "learning_starts": 16,
    "log_sessions": 60,
    "warmup_updates": 5,
    "rerank": 0,
}


def small_agent(dataset: Dataset, seed: int = 0, **settings: Any) -> DDPGAgent:
    agent = make_agent("ddpg", dataset, seed=seed, settings={**SMALL, **settings})
    assert isinstance(agent, DDPGAgent)
    return agent


def options(dataset: Dataset, **more: Any) -> dict[str, Any]:
    return {"data": str(dataset.folder), "listener": "ground_truth", **more}


def some_batch(agent: DDPGAgent, n: int = 32) -> Batch:
    """Transitions of random songs; half of them end their session."""
    rng = np.random.default_rng(0)
    tracks = rng.integers(100, size=(n, 20)).astype(np.int32)
    levels = rng.integers(5, size=(n, 20)).astype(np.int8)
    ends = np.arange(n) % 2 == 0
    slate = rng.integers(100, 150, size=(n, 3)).astype(np.int32)
    rows = Transitions(
        tracks=tracks,
        levels=levels,
        context=np.zeros((n, CONTEXT_SIZE), np.float32),
        action=np.zeros((n, agent.dim), np.float32),
        slate=slate,
        slate_levels=rng.integers(5, size=(n, 3)).astype(np.int8),
        slate_rate=np.full((n, 3), np.nan, np.float32),
        reward=rng.random(n, dtype=np.float32),
        song_reward=rng.random((n, 3), dtype=np.float32),
        discount=(agent.settings.gamma * ~ends).astype(np.float32),
        next_position=np.zeros(n, np.float32),
    )
    return agent._tensors(rows)


def trained_critic(agent: DDPGAgent, batch: Batch, updates: int = 50) -> None:
    for _ in range(updates):
        agent._update_critic(batch)


def mean_q(agent: DDPGAgent, batch: Batch) -> float:
    with torch.no_grad():
        return float(agent.critics[0](batch.state, agent.actor(batch.state)).mean())


# The update rules.


@pytest.mark.parametrize("start", ["random", "heuristic"])
@pytest.mark.parametrize("deep", [False, True])
def test_the_actor_climbs_the_critic(synthetic: Dataset, start: str, deep: bool) -> None:
    """There the gradient had the wrong sign: the actor looked for the least Q."""
    agent = small_agent(synthetic, start=start, deep=deep)
    batch = some_batch(agent)
    trained_critic(agent, batch)
    before = mean_q(agent, batch)
    weights = {name: w.clone() for name, w in agent.critics.state_dict().items()}
    for _ in range(5):
        agent._actor_adam.descend(agent.actor_loss(batch))
    assert mean_q(agent, batch) > before
    for name, w in agent.critics.state_dict().items():
        assert torch.equal(w, weights[name]), "the actor's step moved the critic"


def test_the_actor_climbs_at_the_songs_that_it_would_retrieve(synthetic: Dataset) -> None:
    """With neighbours, hence with a gradient that is that of retrieval."""
    agent = small_agent(synthetic, neighbours=20, temperature=0.2)
    batch = some_batch(agent)
    trained_critic(agent, batch)

    def value() -> float:
        with torch.no_grad():
            return float(agent._value_of(agent.actor(batch.state), batch).mean())

    before = value()
    for _ in range(20):
        agent._actor_adam.descend(agent.actor_loss(batch))
    assert value() > before


def test_q_of_the_retrieved_songs_by_hand(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, neighbours=4, temperature=0.5)
    batch = some_batch(agent, 1)
    trained_critic(agent, batch)
    with torch.no_grad():
        points = agent.actor(batch.state)
        scores = torch.from_numpy(np.array(agent.space)) @ points[0, 0]
        scores[batch.heard[0].long()] = -np.inf
        best = scores.topk(4).indices
        chances = torch.softmax(scores[best] / 0.5, dim=0)
        q = agent.critics[0](batch.state, torch.from_numpy(np.array(agent.space))[best][None])[0]
        found = agent._value_of(points, batch)
    torch.testing.assert_close(found[0, 0], (chances * q).sum())


class _Fixed(torch.nn.Module):
    """An actor or critic that says what its input was."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, state: State, actions: Tensor | None = None) -> Tensor:
        newest = state.songs[:, -1:, :]
        if actions is None:
            return newest
        return self.weight * (actions * newest).sum(dim=2)


@pytest.mark.parametrize("critics", [1, 2])
def test_target_by_hand(synthetic: Dataset, critics: int) -> None:
    """There the target's action came from s, and values were carried over the session's end."""
    agent = small_agent(synthetic, gamma=0.5, critics=critics, encoder="recurrent")
    batch = some_batch(agent)
    agent.target_actor = _Fixed(0.0)  # type: ignore[assignment]
    agent.target_critics = torch.nn.ModuleList([_Fixed(2.0), _Fixed(3.0)][:critics])
    newest = batch.next_state.songs[:, -1]
    # mu'(s') is the newest song e of s', Q'(s', a) = 2 a . e: hence 2 |e|**2, the smaller critic's.
    value = 2 * newest.square().sum(dim=1)
    still_on = torch.arange(len(value)) % 2 == 1
    wanted = batch.rewards + (0.5 * value * still_on)[:, None]
    torch.testing.assert_close(agent.target(batch), wanted)


def test_without_discount_the_target_is_the_reward(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, gamma=0.0)
    batch = some_batch(agent)
    torch.testing.assert_close(agent.target(batch), batch.rewards)


def test_critic_loss_counts_songs_heard_alone(synthetic: Dataset) -> None:
    agent = small_agent(synthetic)
    batch = some_batch(agent)
    counted = batch.counted.clone()
    counted[:, 2] = False
    loss, _ = agent.critic_loss(batch._replace(counted=counted), batch.rewards)
    with torch.no_grad():
        q = agent.critics[0](batch.state, batch.actions)
    torch.testing.assert_close(loss.detach(), (batch.rewards - q)[:, :2].square().mean())


def test_targets_follow_by_tau(synthetic: Dataset) -> None:
    """There the target critic was never moved."""
    agent = small_agent(synthetic, tau=0.25, gamma=0.5)
    batch = some_batch(agent)
    old = {n: w.clone() for n, w in agent._modules()["target_critics"].state_dict().items()}
    agent.update(batch)
    moved = 0
    for name, new in agent.critics.state_dict().items():
        target = agent.target_critics.state_dict()[name]
        torch.testing.assert_close(target, 0.75 * old[name] + 0.25 * new)
        moved += not torch.equal(target, old[name])
    assert moved == len(old)


def test_the_mean_critic_is_a_mean_over_the_updates(synthetic: Dataset) -> None:
    """At a constant pace, and faster before there were as many updates as that averages."""
    agent = small_agent(synthetic)
    batch = some_batch(agent)
    expected = {n: w.clone() for n, w in agent.mean_critic.state_dict().items()}
    for update in range(40):
        agent.update(batch)
        share = max(0.005, 9 / (10 + update))
        for name, new in agent.critics[0].state_dict().items():
            expected[name] = (1 - share) * expected[name] + share * new
    for name, mean in agent.mean_critic.state_dict().items():
        torch.testing.assert_close(mean, expected[name])


def test_targets_wait_for_the_actor(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, gamma=0.5, actor_delay=2)
    batch = some_batch(agent)
    at_first = {n: w.clone() for n, w in agent.target_critics.state_dict().items()}
    for update in (1, 2):
        agent.update(batch)
        same = [torch.equal(w, at_first[n]) for n, w in agent.target_critics.state_dict().items()]
        assert all(same) if update == 1 else not any(same)


@pytest.mark.parametrize("within", [True, False])
def test_the_mood_of_those_who_play_a_song_is_not_its_merit(
    synthetic: Dataset, within: bool
) -> None:
    """All songs of a slate earn the same; those of happy sessions lie in one direction."""
    agent = small_agent(synthetic, within_slates=within, critic_rate=0.01, critic_decay=0.0)
    batch = some_batch(agent, 200)
    mood = batch.rewards.mean(dim=1, keepdim=True).expand(-1, 3)
    actions = 0.1 * torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(0))
    actions[..., 0] += 10 * (mood - mood.mean())
    batch = batch._replace(rewards=mood, actions=actions)
    trained_critic(agent, batch, 200)
    with torch.no_grad():
        slope = agent.critics[0].encode(batch.state).towards[:, 0].mean()
    assert (slope > 0.03) != within
    assert within == (abs(slope) < 0.003)


def test_what_songs_of_a_slate_differ_in_is_learned(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, critic_rate=0.01, critic_decay=0.0)
    batch = some_batch(agent, 200)
    actions = torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(0))
    batch = batch._replace(rewards=0.3 * actions[..., 0], actions=actions)
    trained_critic(agent, batch, 600)
    with torch.no_grad():
        slope = agent.critics[0].encode(batch.state).towards[:, 0].mean()
    assert slope == pytest.approx(0.3, abs=0.05)


def test_a_delayed_actor_waits(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, actor_delay=3)
    batch = some_batch(agent)
    reports = [agent.update(batch) for _ in range(6)]
    assert ["actor_loss" in r for r in reports] == [False, False, True] * 2


def test_critic_learns_a_reward_that_depends_on_session_and_song(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, critic_rate=0.01)
    batch = some_batch(agent, 64)
    taste = agent._embed(batch.heard.numpy())[..., :-1].mean(dim=1, keepdim=True)
    affinity = (taste * batch.actions[..., :-1]).sum(dim=2)
    wanted = 3 * affinity + 2 * batch.actions[..., -1]
    trained_critic(agent, batch._replace(rewards=wanted), 200)
    with torch.no_grad():
        error = (agent.critics[0](batch.state, batch.actions) - wanted).square().mean()
    assert error < 0.1 * wanted.var()


@pytest.mark.parametrize(
    ("sees", "shape"), [("songs", (32, 3)), ("slate", (32, 1)), ("proto", (32, 1))]
)
def test_what_the_critic_sees(synthetic: Dataset, sees: str, shape: tuple[int, int]) -> None:
    agent = small_agent(synthetic, critic_sees=sees)
    batch = some_batch(agent)
    assert batch.rewards.shape == batch.counted.shape == shape
    assert batch.actions.shape == (*shape, agent.dim)
    songs = some_batch(small_agent(synthetic)).actions
    if sees == "slate":
        torch.testing.assert_close(batch.actions[:, 0], songs.mean(dim=1))
    if sees == "proto":
        assert not batch.actions.any()
    agent.update(batch)


@pytest.mark.parametrize("pull", ["cloning_weight", "alignment_weight"])
def test_pulls_pull(synthetic: Dataset, pull: str) -> None:
    """Towards the songs kept in the log, and towards the songs retrieved: each loss goes down."""
    agent = small_agent(synthetic, actor_rate=0.003, **{pull: 1000.0})
    agent._prepare(options(synthetic))
    batch = some_batch(agent)
    assert agent.log is not None
    rows = agent.log.stored

    def distance() -> float:
        with torch.no_grad():
            if pull == "cloning_weight":
                return float(agent.cloning_loss(rows))
            points = agent.actor(batch.state)
            songs = agent._embed(agent._near(points, batch.heard, 3)).mean(dim=1)
            return float(1 - torch.cosine_similarity(points[:, 0], songs, dim=1).mean())

    before = distance()
    for _ in range(30):
        agent._actor_adam.descend(agent.actor_loss(batch))
    assert distance() < before


# Acting.


def an_observation(agent: DDPGAgent, n: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    tracks = rng.integers(100, size=(n, 20)).astype(np.int32)
    return {
        "tracks": tracks,
        "levels": rng.integers(5, size=(n, 20)).astype(np.int8),
        "context": np.zeros((n, CONTEXT_SIZE), np.float32),
        "barred": tracks,
    }


def test_exploration_is_on_the_action_bounded_and_without_drift(synthetic: Dataset) -> None:
    """There it was added to the state, and drew from [0, 1): it drifted."""
    agent = small_agent(synthetic, noise=0.3, quality="counted", quality_weight=1.0)
    observation = an_observation(agent)
    kept = {name: part.copy() for name, part in observation.items()}
    points, _ = agent.predict(observation, deterministic=True)
    noisy = np.stack([agent.predict(observation)[0] for _ in range(50)])
    for name, part in observation.items():
        np.testing.assert_array_equal(part, kept[name])
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=-1), 1, atol=1e-5)
    # Noise of 0.3 of the norm, nearly all of it sideways: a cosine of 1 / sqrt(1 + 0.3**2).
    assert np.mean((noisy * points).sum(-1)) == pytest.approx(1 / np.sqrt(1.09), abs=0.005)
    sideways = noisy - (noisy * points).sum(-1, keepdims=True) * points
    # 20,000 draws of sd 0.3 / sqrt(dim) in each dimension.
    assert np.abs(sideways.mean(axis=(0, 1))).max() < 5 * 0.3 / np.sqrt(agent.dim * 20_000)


def test_tanh_points_stay_in_the_cube(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, squash="tanh", noise=3.0, quality="counted")
    action, _ = agent.predict(an_observation(agent))
    assert np.abs(action).max() <= 1


def test_no_song_twice_nor_one_just_heard(synthetic: Dataset) -> None:
    """There one song could fill all places, and songs just heard came back."""
    for settings in ({}, {"rerank": 10}, {"points": 3}):
        agent = small_agent(synthetic, **settings).learn(options(synthetic), 40)
        rows = agent.memory.stored
        for slate, tracks in zip(rows.slate, rows.tracks, strict=True):
            heard = slate[slate >= 0]
            assert len(set(heard)) == len(heard)
            assert not np.isin(heard, tracks).any()


@pytest.mark.parametrize("mean", [True, False])
def test_the_critic_chooses_among_the_nearest(synthetic: Dataset, mean: bool) -> None:
    agent = small_agent(synthetic, rerank=15, mean_critic=mean)
    critic = agent.mean_critic if mean else agent.critics[0]
    trained_critic(agent, some_batch(agent))
    observation = an_observation(agent, 10)
    chosen, _ = agent.predict(observation, deterministic=True)
    points = agent.points(observation)[:, 0]
    seen = agent.space.copy()
    seen[:, -1] *= agent.settings.quality_weight
    for i, slate in enumerate(chosen):
        scores = seen @ points[i]
        scores[observation["tracks"][i]] = -np.inf
        near = np.argsort(-scores)[:15]
        with torch.no_grad():
            one = {name: part[i : i + 1] for name, part in observation.items()}
            songs = torch.from_numpy(seen[near][None])
            q = critic(agent._state(one), songs)[0].numpy()
        assert slate.tolist() == near[np.argsort(-q)[:3]].tolist()


def test_by_the_index_it_recommends_what_it_recommends_without(
    synthetic: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 lists are fewer than are looked into, so that nothing can be overlooked."""
    pytest.importorskip("faiss")
    chosen = []
    for size, kind in ((10**9, "exact"), (100, "approximate")):
        monkeypatch.setattr(search, "APPROXIMATE_FROM", size)
        agent = small_agent(synthetic, neighbours=4, gamma=0.5).learn(options(synthetic), 100)
        assert agent.search.kind == kind
        chosen.append(agent.predict(an_observation(agent), deterministic=True)[0])
    np.testing.assert_array_equal(*chosen)


# Bookkeeping.


@pytest.fixture
def played(synthetic: Dataset) -> Transitions:
    """What an agent remembers of some sessions, several of them to their end and beyond."""
    settings = {"num_envs": 5, "learning_starts": 10**6, "log_share": 0.0, "gamma": 1.0}
    agent = small_agent(synthetic, **settings).learn(options(synthetic), 60)
    return agent.memory.stored


def count(tracks: np.ndarray) -> np.ndarray:
    return (tracks >= 0).sum(axis=1)


def test_every_next_state_continues_its_session(played: Transitions) -> None:
    """What is put together is what was observed: five sessions in parallel, one after the other.

    The step after an end (NEXT_STEP autoreset) would show another session's beginning.
    """
    following = played.after()
    assert (count(played.slate) > 0).all(), "an autoreset step was stored"
    goes_on = 0
    for i in range(len(played)):
        before = played.tracks[i][played.tracks[i] >= 0]
        later = [
            j
            for j in range(i + 1, len(played))
            if np.array_equal(played.tracks[j][played.tracks[j] >= 0][: len(before)], before)
        ]
        if played.discount[i] and later:
            for name, part in played.before().items():
                np.testing.assert_array_equal(following[name][i], part[later[0]])
            goes_on += 1
    assert goes_on > 5


def test_only_ends_have_no_future(played: Transitions) -> None:
    """Five sessions in parallel: what was stored five rows later goes on, unless it had ended."""
    is_partial = count(played.slate) < 3
    assert (played.discount[is_partial] == 0).all()
    assert set(np.unique(played.discount)) == {0.0, 1.0}


def test_a_time_limit_is_no_end(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, gamma=0.9, learning_starts=10**6, log_share=0.0)
    agent.learn(options(synthetic, horizon=6), 64)
    rows = agent.memory.stored
    assert (rows.discount == np.float32(0.9)).all()
    assert (count(rows.slate) > 0).all(), "an autoreset step was stored"


def test_rewards_of_songs_and_slates(played: Transitions) -> None:
    """A song is worth what a slate of such songs would be; slates heard in part are scaled up."""
    whole = 1 + 0.9 + 0.81
    kept = ((played.slate_levels >= 0) & ~is_skip(played.slate_levels)).astype(float)
    np.testing.assert_allclose(played.song_reward, kept * whole, rtol=1e-6)
    weight = 0.9 ** np.arange(3) * (played.slate_levels >= 0)
    np.testing.assert_allclose(
        played.reward, (kept * weight).sum(1) / weight.sum(1) * whole, rtol=1e-6
    )


def test_the_log_is_read_as_it_was_played(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, log_sessions=10**6)
    rates = agent._read_quality(options(synthetic))
    rows, log = agent._read_log(options(synthetic), rates).stored, synthetic.sessions
    wanted = []
    for session in log.sessions_in("train"):
        plays = slice(*log.offsets[session : session + 2])
        tracks, levels = (np.asarray(log.column(c)[plays]).tolist() for c in ("track", "level"))
        for at in range(len(tracks) // 2, len(tracks), 3):
            wanted.append((tracks[:at], levels[:at], tracks[at : at + 3], levels[at : at + 3]))
    found = [
        tuple(c[i][c[i] >= 0].tolist() for c in columns)
        for columns in [(rows.tracks, rows.levels, rows.slate, rows.slate_levels)]
        for i in range(len(rows))
    ]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("quality", ["counted", "learned"])
@pytest.mark.parametrize("split", ["train_a", "train_b", "test"])
def test_logged_songs_are_seen_with_the_rates_of_the_other_fold(
    synthetic: Dataset, split: str, quality: str
) -> None:
    """A rate that counts the label itself would look far more telling than it is."""
    agent = small_agent(synthetic, log_sessions=10**6, quality=quality)
    columns = agent._read_quality(options(synthetic, split=split))
    if quality == "counted":
        for fold, column in columns.items():
            np.testing.assert_array_equal(column, rate_column(synthetic.catalog, fold))
    rows = agent._read_log(options(synthetic, split=split), columns).stored
    fits = {
        fold: np.isclose(rows.slate_rate, column[rows.slate]).all(axis=1)
        for fold, column in columns.items()
    }
    if split == "test":
        # Sessions of other splits are never read: those of both training folds are.
        assert (fits["train_a"] | fits["train_b"]).all()
        assert 0.3 < fits["train_a"].mean() < 0.7
    else:
        assert fits["train_b" if split == "train_a" else "train_a"].all()
        assert not fits[split].all()
    seen = agent._embed_slate(rows)[..., -1].numpy()
    heard = rows.slate >= 0
    np.testing.assert_array_equal(seen[heard], rows.slate_rate[heard])


# Learning.


def test_saved_in_the_midst_of_learning_it_acts_the_same(
    synthetic: Dataset, tmp_path: Path
) -> None:
    agent = small_agent(synthetic, rerank=8)
    observation = an_observation(agent, 20)
    acted = {}

    def keep(steps: int, metrics: Mapping[str, float]) -> None:
        assert agent.quality is not None
        agent.quality.add(np.arange(5), np.ones(5))
        agent._turn_axis(np.arange(5))
        agent.save(tmp_path / str(steps))
        acted[steps] = agent.predict(observation, deterministic=True)[0]

    agent.learn(options(synthetic), 120, callback=keep, callback_every=40)
    assert len(acted) == 3
    for steps, actions in acted.items():
        again = load_agent(tmp_path / str(steps), synthetic)
        np.testing.assert_array_equal(again.predict(observation, deterministic=True)[0], actions)


def test_learning_leaves_global_randomness_and_threads_alone(synthetic: Dataset) -> None:
    threads = torch.get_num_threads()
    torch_before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    small_agent(synthetic, target_noise=0.1, gamma=0.5).learn(options(synthetic), 60)
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_one_thread_is_given_back_after_an_error() -> None:
    threads = torch.get_num_threads()

    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": 0.9, "critics": 2, "actor_delay": 2, "target_noise": 0.2},
        {"gamma": 0.9, "neighbours": 8, "alignment_weight": 0.1, "layer_norm": True},
        {"points": 3, "neighbours": 8, "gamma": 0.5, "alignment_weight": 0.1},
        {"points": 3, "critic_sees": "proto", "squash": "tanh", "start": "random"},
        {"rerank": 8, "critic_sees": "slate", "deep": True},
        {"start": "cloned", "cloning_weight": 0.5, "cloning_updates": 5, "log_share": 0.0},
        {"embedding": "colisten", "log_share": 1.0, "whole_slates": False},
        {"history_length": 6, "rerank": 5},
    ],
)
def test_the_same_seed_learns_the_same_whatever_the_options(
    synthetic: Dataset, settings: dict[str, Any]
) -> None:
    weights = [
        small_agent(synthetic, seed, **settings).learn(options(synthetic), 60).actor.state_dict()
        for seed in (3, 3, 4)
    ]
    first, again, other = (torch.cat([w.flatten() for w in d.values()]) for d in weights)
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_read_together_are_those_drawn_one_by_one(synthetic: Dataset) -> None:
    """Of memory and log, their order and the states of the random numbers included."""
    agent = small_agent(synthetic, log_share=0.25, gamma=0.5).learn(options(synthetic), 64)
    (memory, own), (log, logged) = agent._sources()
    assert (own, logged) == (12, 4)
    agent._rng, again = (np.random.default_rng(9) for _ in range(2))
    together = list(agent._batches(20, agent._sources()))
    from_log = np.arange(16) >= 12
    for batch in together:
        rows = Transitions.joined([memory.sample(again, own), log.sample(again, logged)])
        for found, expected in zip(
            tensors(batch), tensors(agent._tensors(rows, from_log)), strict=True
        ):
            assert torch.equal(found, expected)
    assert len(together) == 20
    assert agent._rng.integers(2**60) == again.integers(2**60)


def test_refuses_another_dataset(synthetic: Dataset, tmp_path: Path) -> None:
    other = planted_world(tmp_path / "other")
    fit_embeddings(other.folder, dim=4)
    with pytest.raises(ValueError, match="The agent was made for"):
        small_agent(synthetic).learn({"data": str(other.folder)}, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.0}, "tau is 0.0; it must be at least"),
        ({"gamma": 1.5}, "at most 1"),
        ({"points": 2}, "it must be 1, or slate_size"),
        ({"points": 3, "rerank": 5}, "Take points=1, or rerank=0"),
        ({"start": "clone"}, "did you mean 'cloned'"),
        ({"critic_sees": "song"}, "did you mean 'songs'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DDPGSettings(**settings)


def test_mean_cosine_of_all_pairs() -> None:
    points = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    pairs = [units[i] @ units[j] for i in range(6) for j in range(6) if i != j]
    assert mean_cosine(points) == pytest.approx(np.mean(pairs), abs=1e-5)
    assert mean_cosine(np.ones((4, 3), np.float32)) == pytest.approx(1)


@dataclass
class Nothing:
    """The state of a listener that remembers nothing."""


class Picky:
    """Keeps good songs to the end, whoever listens, and skips all others at once."""

    answers_from_log = False

    def __init__(self, good: npt.NDArray[np.bool_]) -> None:
        self.good = good

    def begin(self, history: History) -> Nothing:
        return Nothing()

    def level_probabilities(
        self, state: Nothing, history: History, rows: Any, tracks: Any, plays: Any
    ) -> npt.NDArray[np.float64]:
        return np.eye(5)[np.where(self.good[tracks], Level.FULL, Level.BRIEF)]

    def advance(
        self, state: Nothing, history: History, rows: Any, tracks: Any, levels: Any
    ) -> None:
        pass


@pytest.mark.parametrize("deep", [False, True])
def test_finds_the_one_good_region_from_a_random_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    """Two genres, all listeners like the first: learned in seconds, without the log or rates."""
    world = planted_world(tmp_path / "world", tracks=120)
    fit_embeddings(world.folder, dim=8)
    monkeypatch.setitem(LISTENERS, "picky", lambda dataset: Picky(genre_of(dataset) == 0))
    agent = small_agent(
        world,
        embedding="colisten",
        start="random",
        log_share=0.0,
        deep=deep,
        rerank=0,
        actor_rate=0.01,
        critic_rate=0.01,
        num_envs=16,
        updates_per_step=0.5,
        learning_starts=160,
    )
    seen: list[Mapping[str, float]] = []
    agent.learn(
        {"data": str(world.folder), "listener": "picky"},
        600,
        callback=lambda _, metrics: seen.append(metrics),
        callback_every=100,
    )
    assert seen[-1]["skip_rate"] < 0.1, seen
    assert seen[-1]["mean_q"] > 2.0


def test_learns_which_songs_are_good_beyond_their_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good and bad songs mixed at random: no point of the space tells them apart, Q does."""
    world = planted_world(tmp_path / "world", tracks=120)
    fit_embeddings(world.folder, dim=8)
    good = np.random.default_rng(0).random(len(world.catalog)) < 0.5

    monkeypatch.setitem(LISTENERS, "picky", lambda dataset: Picky(good))
    # Q trusts what it noted after 500 updates; the log here knows nothing of which songs are good.
    agent = small_agent(world, quality_prior=2.0, warmup_updates=500, log_share=0.25, num_envs=16)
    seen: list[Mapping[str, float]] = []
    agent.learn(
        {"data": str(world.folder), "listener": "picky"},
        300,
        callback=lambda _, metrics: seen.append(metrics),
        callback_every=50,
    )
    assert seen[-1]["skip_rate"] < 0.1 < seen[0]["skip_rate"]


@pytest.mark.parametrize("encoder", ["pooled", "recurrent"])
@pytest.mark.parametrize("critic_sees", ["songs", "slate", "proto"])
def test_one_session_at_a_time(synthetic: Dataset, critic_sees: str, encoder: str) -> None:
    """Between two sessions nobody hears anything; late enough that qualities are noted."""
    agent = small_agent(
        synthetic,
        critic_sees=critic_sees,
        encoder=encoder,
        points=3,
        gamma=0.9,
        num_envs=1,
        warmup_updates=TRUSTED_UPDATES,
    )
    agent.learn(options(synthetic), 12)
    assert len(agent.memory) == 12
    assert agent.quality is not None
    noted = agent.quality.count.sum() - synthetic.catalog.plays("train").sum()
    assert 12 < noted <= 36


def test_memory_is_compact(synthetic: Dataset) -> None:
    """A transition of 20 songs and 33 dimensions, as vectors, would take 5 kB for s alone."""
    memory = ReplayBuffer(1)
    agent = small_agent(synthetic, log_share=0.0).learn(options(synthetic), 8)
    memory.add(agent.memory.stored)
    row = memory.stored
    size = sum(getattr(row, name).nbytes for name in vars(row))
    assert size < 600


@pytest.mark.slow
def test_beats_the_log_and_the_heuristic_that_it_starts_from(tmp_path: Path) -> None:
    """On synthetic sessions that it never saw; two minutes on a busy core, half of one on a free.

    2,000 sessions of eight songs: the skip rates have a standard error of .006 unpaired.
    """
    synthesize(SyntheticConfig(sessions=12_000, tracks=2_000, seed=3), tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    sessions = dataset.sessions.sessions_in("test")[:2_000]
    agents = {name: make_agent(name, dataset) for name in ("logged", "played-rate", "ddpg")}
    agents["ddpg"].learn(options(dataset, split="train"), 6_000)
    rollouts = {
        name: roll_out(
            agent, {"data": str(dataset.folder), "split": "test"}, sessions, listener="ground_truth"
        )
        for name, agent in agents.items()
    }
    rates = {name: skip_rate(rollout).mean for name, rollout in rollouts.items()}
    assert rates["ddpg"] < rates["logged"] - 0.1, rates
    assert rates["ddpg"] < rates["played-rate"], rates
    songs = effective_catalog_size(exposure(rollouts["ddpg"], len(dataset.catalog)))
    assert songs > 30, "nearly everybody is told the same"


def test_it_acts_in_the_best_space_of_the_dataset(synthetic: Dataset) -> None:
    """Unless another one is asked for."""
    assert small_agent(synthetic).embedding == f"{synthetic.embedding_names[0]}+rate"
    assert small_agent(synthetic, embedding="colisten").embedding == "colisten"


def test_spread_is_each_sessions_own_and_the_same_every_time(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, rerank=30, spread=1.0)
    agent._prepare(options(synthetic))
    observation = an_observation(agent, 12)
    drawn, _ = agent.predict(observation, deterministic=True)
    again, _ = agent.predict(observation, deterministic=True)
    np.testing.assert_array_equal(again, drawn)
    alone = {name: part[3] for name, part in observation.items()}
    np.testing.assert_array_equal(agent.predict(alone, deterministic=True)[0], drawn[3])
    agent.settings = replace(agent.settings, spread=0.0)
    assert (agent.predict(observation, deterministic=True)[0] != drawn).any(axis=1).mean() > 0.5
