"""DDPG: the update rules by hand, the bookkeeping of sessions, and that it learns.

Where a docstring says "there", it tells a defect of the first MusicBox that the test would find.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from musicbox_agents import load_agent, make_agent
from musicbox_agents.ddpg.agent import RESIDUALS_FROM, DDPGAgent
from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.ddpg.space import Batch
from musicbox_agents.ddpg.state import State
from musicbox_agents.progress import mean_cosine
from musicbox_agents.sessions import one_thread
from musicbox_experiments.evaluate.metrics import effective_catalog_size, exposure, skip_rate
from musicbox_experiments.evaluate.rollout import roll_out
from torch import Tensor
from worlds import genre_of, planted_world

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LISTENERS, History, Listener, NoState
from musicbox_env.retrieval import search
from musicbox_env.retrieval.embeddings import fit_embeddings
from musicbox_env.retrieval.spaces import rate_column
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import Level, is_skip
from musicbox_env.simulator.assets import CONTEXT_SIZE
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
    slate = rng.integers(100, 150, size=(n, 3)).astype(np.int32)
    rows = Transitions(
        tracks=tracks,
        levels=levels,
        context=np.zeros((n, CONTEXT_SIZE), np.float32),
        slate=slate,
        slate_levels=rng.integers(5, size=(n, 3)).astype(np.int8),
        slate_axis=np.full((n, 3), np.nan, np.float32),
        song_reward=rng.random((n, 3), dtype=np.float32),
        terminated=np.arange(n) % 2 == 0,
        next_position=np.zeros(n, np.float32),
        logged=np.ones(n, np.bool_),
    )
    return agent.space.batch(rows, future=True)


def trained_critic(agent: DDPGAgent, batch: Batch, updates: int = 50) -> None:
    for _ in range(updates):
        agent.update_critic(batch)


def mean_q(agent: DDPGAgent, batch: Batch) -> float:
    with torch.no_grad():
        return float(agent.critic(batch.state, agent.actor(batch.state)[:, None]).mean())


# The update rules.


def without_decay(agent: DDPGAgent) -> DDPGAgent:
    agent.critic_optimizer.param_groups[0]["weight_decay"] = 0.0
    return agent


@pytest.mark.parametrize("start", ["random", "heuristic"])
def test_the_actor_climbs_the_critic(synthetic: Dataset, start: str) -> None:
    """There the gradient had the wrong sign: the actor looked for the least Q."""
    agent = small_agent(synthetic, start=start)
    batch = some_batch(agent)
    trained_critic(agent, batch)
    before = mean_q(agent, batch)
    weights = {name: w.clone() for name, w in agent.critic.state_dict().items()}
    for _ in range(5):
        agent.actor_optimizer.zero_grad()
        agent.actor_loss(agent.actor, agent.critic, batch.state).backward()
        agent.actor_optimizer.step()
    assert mean_q(agent, batch) > before
    for name, w in agent.critic.state_dict().items():
        assert torch.equal(w, weights[name]), "the actor's step moved the critic"


class Fixed(torch.nn.Module):
    """An actor or critic whose output shows its input."""

    def forward(self, state: State, actions: Tensor | None = None) -> Tensor:
        played = state.means[:, 0]
        return played if actions is None else 2 * (actions * played[:, None]).sum(dim=2)


def test_target_by_hand(synthetic: Dataset) -> None:
    """There the target's action came from s, and values were carried over the session's end."""
    agent = small_agent(synthetic, gamma=0.5)
    batch = some_batch(agent)
    agent.target_actor = agent.target_critic = Fixed()  # type: ignore[assignment]
    # mu'(s') is the mean m of the songs of s', Q'(s', a) = 2 a . m: hence 2 |m|**2.
    value = 2 * batch.next_state.means[:, 0].square().sum(dim=1)
    goes_on = torch.arange(len(value)) % 2 == 1
    wanted = batch.rewards + (0.5 * value * goes_on)[:, None]
    torch.testing.assert_close(agent.target(batch), wanted)


def test_another_target_needs_one_method(synthetic: Dataset) -> None:
    class Optimistic(DDPGAgent):
        def next_value(self, batch: Batch) -> Tensor:
            return torch.full((len(batch.rewards),), 7.0)

    agent = Optimistic(synthetic, settings=DDPGSettings(gamma=0.5))
    batch = some_batch(agent)
    later = agent.target(batch) - batch.rewards
    torch.testing.assert_close(later[:, 0], torch.tensor([0.0, 3.5]).repeat(16))


def test_without_discount_the_target_is_the_reward(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, gamma=0.0)
    batch = some_batch(agent)
    torch.testing.assert_close(agent.target(batch), batch.rewards)


def test_critic_loss_counts_songs_heard_alone(synthetic: Dataset) -> None:
    agent = small_agent(synthetic)
    batch = some_batch(agent)
    heard = batch.heard.clone()
    heard[:, 2] = False
    loss, _ = agent.critic_loss(
        agent.critic, batch._replace(heard=heard), batch.rewards, within_slates=True
    )
    with torch.no_grad():
        q = agent.critic(batch.state, batch.songs)
    torch.testing.assert_close(loss.detach(), (batch.rewards - q)[:, :2].square().mean())


def test_targets_follow_by_tau(synthetic: Dataset) -> None:
    """There the target critic was never moved."""
    agent = small_agent(synthetic, tau=0.25, gamma=0.5)
    batch = some_batch(agent)
    old = {n: w.clone() for n, w in agent.target_critic.state_dict().items()}
    agent.update(batch)
    moved = 0
    for name, new in agent.critic.state_dict().items():
        target = agent.target_critic.state_dict()[name]
        torch.testing.assert_close(target, 0.75 * old[name] + 0.25 * new)
        moved += not torch.equal(target, old[name])
    assert moved == len(old)


def test_the_average_critic_is_a_mean_over_the_updates(synthetic: Dataset) -> None:
    """At a constant pace, and faster before there were as many updates as that averages."""
    agent = small_agent(synthetic)
    batch = some_batch(agent)
    expected = {n: w.clone() for n, w in agent.average_critic.state_dict().items()}
    for update in range(40):
        agent.update(batch)
        share = max(0.005, 9 / (10 + update))
        for name, new in agent.critic.state_dict().items():
            expected[name] = (1 - share) * expected[name] + share * new
    for name, mean in agent.average_critic.state_dict().items():
        torch.testing.assert_close(mean, expected[name])


@pytest.mark.parametrize("within", [True, False])
def test_the_session_effect_of_a_songs_listeners_is_not_its_merit(
    synthetic: Dataset, within: bool
) -> None:
    """All songs of a slate earn the same; those of happy sessions lie in one direction."""
    agent = without_decay(small_agent(synthetic, within_slates=within, critic_rate=0.01))
    batch = some_batch(agent, 200)
    effect = batch.rewards.mean(dim=1, keepdim=True).expand(-1, 3)
    songs = 0.1 * torch.randn(batch.songs.shape, generator=torch.Generator().manual_seed(0))
    songs[..., 0] += 10 * (effect - effect.mean())
    batch = batch._replace(rewards=effect, songs=songs)
    trained_critic(agent, batch, 200)
    with torch.no_grad():
        slope = agent.critic.encode(batch.state).slope[:, 0].mean()
    assert (slope > 0.03) != within
    assert within == (abs(slope) < 0.003)


def test_what_songs_of_a_slate_differ_in_is_learned(synthetic: Dataset) -> None:
    agent = without_decay(small_agent(synthetic, critic_rate=0.01))
    batch = some_batch(agent, 200)
    songs = torch.randn(batch.songs.shape, generator=torch.Generator().manual_seed(0))
    batch = batch._replace(rewards=0.3 * songs[..., 0], songs=songs)
    trained_critic(agent, batch, 600)
    with torch.no_grad():
        slope = agent.critic.encode(batch.state).slope[:, 0].mean()
    assert slope == pytest.approx(0.3, abs=0.05)


def test_critic_learns_a_reward_that_depends_on_session_and_song(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, critic_rate=0.01)
    batch = some_batch(agent, 64)
    taste = batch.state.means[:, :1, :-1]
    affinity = (taste * batch.songs[..., :-1]).sum(dim=2)
    wanted = 3 * affinity + 2 * batch.songs[..., -1]
    trained_critic(agent, batch._replace(rewards=wanted), 200)
    with torch.no_grad():
        error = (agent.critic(batch.state, batch.songs) - wanted).square().mean()
    assert error < 0.1 * wanted.var()


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
    agent = small_agent(synthetic, noise=0.3)
    observation = an_observation(agent)
    kept = {name: part.copy() for name, part in observation.items()}
    mu = agent.proto_actions(observation)
    noisy = np.stack([agent.explore(mu) for _ in range(50)])
    agent.predict(observation)
    for name, part in observation.items():
        np.testing.assert_array_equal(part, kept[name])
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=-1), 1, atol=1e-5)
    # Noise of 0.3 of the norm, nearly all of it sideways: a cosine of 1 / sqrt(1 + 0.3**2).
    assert np.mean((noisy * mu).sum(-1)) == pytest.approx(1 / np.sqrt(1.09), abs=0.005)
    sideways = noisy - (noisy * mu).sum(-1, keepdims=True) * mu
    # 20,000 draws of sd 0.3 / sqrt(dim) in each dimension.
    assert np.abs(sideways.mean(axis=(0, 1))).max() < 5 * 0.3 / np.sqrt(agent.space.dim * 20_000)


def test_no_song_twice_nor_one_just_heard(synthetic: Dataset) -> None:
    """There one song could fill all places, and songs just heard came back."""
    for settings in ({}, {"rerank": 10}):
        agent = small_agent(synthetic, **settings).learn(options(synthetic), 40)
        rows = agent.memory.stored
        for slate, tracks in zip(rows.slate, rows.tracks, strict=True):
            heard = slate[slate >= 0]
            assert len(set(heard)) == len(heard)
            assert not np.isin(heard, tracks).any()


@pytest.mark.parametrize("average", [True, False])
def test_the_critic_chooses_among_the_nearest(synthetic: Dataset, average: bool) -> None:
    agent = small_agent(synthetic, rerank=15, average_critic=average)
    critic = agent.average_critic if average else agent.critic
    trained_critic(agent, some_batch(agent))
    observation = an_observation(agent, 10)
    chosen, _ = agent.predict(observation, deterministic=True)
    proto_actions = agent.proto_actions(observation)
    seen = agent.space.vectors.copy()
    seen[:, -1] *= agent.settings.quality_weight
    for i, slate in enumerate(chosen):
        scores = seen @ proto_actions[i]
        scores[observation["tracks"][i]] = -np.inf
        near = np.argsort(-scores)[:15]
        with torch.no_grad():
            one = {name: part[i : i + 1] for name, part in observation.items()}
            songs = torch.from_numpy(seen[near][None])
            q = critic(agent.space.state(one), songs)[0].numpy()
        assert slate.tolist() == near[np.argsort(-q)[:3]].tolist()


def test_by_the_index_it_recommends_what_it_recommends_without(
    synthetic: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 lists are fewer than are looked into, so that nothing can be overlooked."""
    pytest.importorskip("faiss")
    chosen = []
    for size, kind in ((10**9, "exact"), (100, "approximate")):
        monkeypatch.setattr(search, "APPROXIMATE_FROM", size)
        agent = small_agent(synthetic, gamma=0.5).learn(options(synthetic), 100)
        assert agent.space.search.kind == kind
        chosen.append(agent.predict(an_observation(agent), deterministic=True)[0])
    np.testing.assert_array_equal(*chosen)


# Bookkeeping.


@pytest.fixture
def played(synthetic: Dataset) -> Transitions:
    """What an agent remembers of some sessions, several of them to their end and beyond."""
    settings = {"num_envs": 5, "learning_starts": 10**6, "offline_fraction": 0.0, "gamma": 1.0}
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
        if not played.terminated[i] and later:
            for name, part in played.before().items():
                np.testing.assert_array_equal(following[name][i], part[later[0]])
            goes_on += 1
    assert goes_on > 5


def test_only_ends_have_no_future(played: Transitions) -> None:
    """Five sessions in parallel: what was stored five rows later goes on, unless it had ended."""
    is_partial = count(played.slate) < 3
    assert played.terminated[is_partial].all()
    assert 0 < played.terminated.mean() < 1


def test_a_time_limit_is_no_end(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, gamma=0.9, learning_starts=10**6, offline_fraction=0.0)
    agent.learn(options(synthetic, horizon=6), 64)
    rows = agent.memory.stored
    assert not rows.terminated.any()
    assert (count(rows.slate) > 0).all(), "an autoreset step was stored"


def test_a_song_earns_what_a_slate_of_such_songs_would(played: Transitions) -> None:
    kept = (played.heard & ~is_skip(played.slate_levels)).astype(float)
    np.testing.assert_allclose(played.song_reward, kept * (1 + 0.9 + 0.81), rtol=1e-6)


def log_of(agent: DDPGAgent, **more: Any) -> Transitions:
    """All logged training sessions as the agent reads them."""
    agent.prepare({**options(agent.dataset, **more), **agent.env_options})
    assert agent.log is not None
    return agent.log.stored


def test_the_log_is_read_as_it_was_played(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, log_sessions=10**6)
    rows, log = log_of(agent), synthetic.sessions
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
    columns = agent.space.read_quality(agent.settings, RewardConfig())
    if quality == "counted":
        for fold, column in columns.items():
            np.testing.assert_array_equal(column, rate_column(synthetic.catalog, fold))
    rows = log_of(agent, split=split)
    fits = {
        fold: np.isclose(rows.slate_axis, column[rows.slate]).all(axis=1)
        for fold, column in columns.items()
    }
    if split == "test":
        # Sessions of other splits are never read: those of both training folds are.
        assert (fits["train_a"] | fits["train_b"]).all()
        assert 0.3 < fits["train_a"].mean() < 0.7
    else:
        assert fits["train_b" if split == "train_a" else "train_a"].all()
        assert not fits[split].all()
    seen = agent.space.batch(rows, future=False).songs[..., -1].numpy()
    np.testing.assert_array_equal(seen[rows.heard], rows.slate_axis[rows.heard])


# Learning.


def test_saved_in_the_midst_of_learning_it_acts_the_same(
    synthetic: Dataset, tmp_path: Path
) -> None:
    agent = small_agent(synthetic, rerank=8)
    observation = an_observation(agent, 20)
    acted = {}

    def keep(steps: int, metrics: Mapping[str, float]) -> None:
        agent.space.add_residuals(np.arange(5), np.ones(5, np.float32))
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
    small_agent(synthetic, gamma=0.5).learn(options(synthetic), 60)
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
        {"gamma": 0.9, "within_slates": False},
        {"start": "random", "average_critic": False, "rerank": 8},
        {"quality": "counted", "slate_size": 1},
        {"quality": "logged", "slate_size": 5, "num_envs": 1},
        {"embedding": "colisten", "offline_fraction": 1.0},
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
    agent = small_agent(synthetic, offline_fraction=0.25, gamma=0.5).learn(options(synthetic), 64)
    agent.rng, again = (np.random.default_rng(9) for _ in range(2))
    together = list(agent.batches(20))
    assert agent.log is not None
    for batch in together:
        assert batch.logged[:, 0].tolist() == [False] * 12 + [True] * 4
        rows = Transitions.joined([agent.memory.sample(again, 12), agent.log.sample(again, 4)])
        alone = agent.space.batch(rows, future=True)
        assert torch.equal(batch.songs, alone.songs)
        assert torch.equal(batch.rewards, alone.rewards)
        assert torch.equal(batch.next_state.statistics, alone.next_state.statistics)
    assert len(together) == 20
    assert agent.rng.integers(2**60) == again.integers(2**60)


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
        ({"start": "randon"}, "did you mean 'random'"),
        ({"quality": "learnt"}, "did you mean 'learned'"),
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


class Picky(Listener[NoState]):
    """Keeps good songs to the end, whoever listens, and skips all others at once."""

    def __init__(self, good: npt.NDArray[np.bool_]) -> None:
        self.good = good

    def level_probabilities(
        self, state: NoState, history: History, rows: Any, tracks: Any, plays: Any
    ) -> npt.NDArray[np.float64]:
        return np.eye(5)[np.where(self.good[tracks], Level.FULL, Level.BRIEF)]


def test_at_most_24_settings() -> None:
    assert len(fields(DDPGSettings)) <= 24


def test_finds_the_one_good_region_from_a_random_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two genres, all listeners like the first: learned in seconds, without the log or rates."""
    world = planted_world(tmp_path / "world", tracks=120)
    fit_embeddings(world.folder, dim=8)
    monkeypatch.setitem(LISTENERS, "picky", lambda dataset: Picky(genre_of(dataset) == 0))
    agent = small_agent(
        world,
        embedding="colisten",
        start="random",
        offline_fraction=0.0,
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
    """Good and bad songs mixed at random: no proto-action tells them apart, their quality does."""
    world = planted_world(tmp_path / "world", tracks=120)
    fit_embeddings(world.folder, dim=8)
    good = np.random.default_rng(0).random(len(world.catalog)) < 0.5

    monkeypatch.setitem(LISTENERS, "picky", lambda dataset: Picky(good))
    # Residuals count after 500 updates; the log says nothing of which songs are good.
    agent = small_agent(
        world, quality_prior=2.0, warmup_updates=500, offline_fraction=0.25, num_envs=16
    )
    seen: list[Mapping[str, float]] = []
    agent.learn(
        {"data": str(world.folder), "listener": "picky"},
        300,
        callback=lambda _, metrics: seen.append(metrics),
        callback_every=50,
    )
    assert seen[-1]["skip_rate"] < 0.1 < seen[0]["skip_rate"]


def test_one_session_at_a_time(synthetic: Dataset) -> None:
    """Between two sessions nobody hears anything; late enough that residuals count."""
    agent = small_agent(synthetic, gamma=0.9, num_envs=1, warmup_updates=RESIDUALS_FROM)
    agent.learn(options(synthetic), 12)
    assert len(agent.memory) == 12
    assert agent.space.quality is not None
    added = agent.space.quality.count.sum() - synthetic.catalog.plays("train").sum()
    assert 12 < added <= 36


def test_memory_is_compact(synthetic: Dataset) -> None:
    """A transition of 20 songs and 33 dimensions, as vectors, would take 5 kB for s alone."""
    memory = ReplayBuffer(1)
    agent = small_agent(synthetic, offline_fraction=0.0).learn(options(synthetic), 8)
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
    assert songs > 30, "nearly all sessions get the same songs"


def test_it_acts_in_the_best_space_of_the_dataset(synthetic: Dataset) -> None:
    """Unless another one is asked for."""
    assert small_agent(synthetic).space.embedding == f"{synthetic.embedding_names[0]}+rate"
    assert small_agent(synthetic, embedding="colisten").space.embedding == "colisten"
