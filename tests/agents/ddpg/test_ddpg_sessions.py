"""DDPG keeps account of sessions: those that it plays, and those of the log."""

from typing import Any

import numpy as np
import pytest
import torch
from musicbox_agents.ddpg.agent import RESIDUALS_FROM, DDPGAgent
from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions
from small_ddpg import options, small_agent

from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval.spaces import rate_column
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import is_skip


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
