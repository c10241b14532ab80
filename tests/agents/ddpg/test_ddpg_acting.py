"""DDPG chooses songs: exploration, the critic's choice among the nearest, no song twice.

Where a docstring says "there", it tells a defect of the first MusicBox that the test would find.
"""

import numpy as np
import pytest
import torch
from small_ddpg import an_observation, options, small_agent, some_batch, trained_critic

from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval import search


def test_exploration_is_on_the_action_bounded_and_without_drift(synthetic: Dataset) -> None:
    """There it was added to the state, and drew from [0, 1): it drifted."""
    agent = small_agent(synthetic, noise=0.3)
    observation = an_observation(agent)
    kept = {name: part.copy() for name, part in observation.items()}
    mu = agent.decide(observation, noise=0.0).proto_actions
    decided = [agent.decide(observation, noise=0.3) for _ in range(50)]
    noisy = np.stack([decision.proto_actions for decision in decided])
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
    proto_actions = agent.decide(observation, noise=0.0).proto_actions
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


def test_it_acts_in_the_best_space_of_the_dataset(synthetic: Dataset) -> None:
    """Unless another one is asked for."""
    assert small_agent(synthetic).space.embedding == f"{synthetic.embedding_names[0]}+rate"
    assert small_agent(synthetic, embedding="colisten").space.embedding == "colisten"
