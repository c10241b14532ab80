"""DDPG learns: the same from the same seed, what is good, and more than the log knew."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from musicbox_agents import load_agent, make_agent
from musicbox_agents.ddpg import quality
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.progress import mean_cosine
from musicbox_agents.sessions import one_thread
from musicbox_experiments.evaluate.metrics import effective_catalog_size, exposure, skip_rate
from musicbox_experiments.evaluate.rollout import roll_out
from small_ddpg import an_observation, options, small_agent
from worlds import genre_of, planted_world

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LISTENERS, History, Listener, NoState
from musicbox_env.retrieval.embeddings import fit_embeddings
from musicbox_env.schema import Level
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize


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
    monkeypatch.setattr(quality, "PRIORS", (2.0, 2.0))
    agent = small_agent(world, warmup_updates=500, offline_fraction=0.25, num_envs=16)
    seen: list[Mapping[str, float]] = []
    agent.learn(
        {"data": str(world.folder), "listener": "picky"},
        300,
        callback=lambda _, metrics: seen.append(metrics),
        callback_every=50,
    )
    assert seen[-1]["skip_rate"] < 0.1 < seen[0]["skip_rate"]


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
