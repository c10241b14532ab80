"""What songs heard lately do to those like them, song by song."""

from typing import Any

import numpy as np
import pytest
import torch
from musicbox_agents.ddpg.networks import Critic, CriticState, unit
from musicbox_agents.ddpg.recency import FIRST, HALF_LIVES, SPANS, alike_by_age, means_by_age
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.ddpg.space import divided
from musicbox_agents.ddpg.state import read_sessions
from small_ddpg import an_observation, options, small_agent, some_batch, trained_critic
from torch import Tensor

from musicbox_env.data.dataset import Dataset
from musicbox_env.simulator.observations import CONTEXT_SIZE


@pytest.fixture
def heard() -> Tensor:
    vectors = unit(torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(1)))
    vectors[1, :25] = 0  # a session of five songs
    return vectors


def test_likeness_is_summed_within_spans_of_ages(heard: Tensor) -> None:
    songs = unit(torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2)))
    wanted = np.zeros((2, 4, len(SPANS)))
    for i, j, place in np.ndindex(2, 4, 30):
        cosine = float(songs[i, j] @ heard[i, place])
        span = sum(29 - place >= begin for begin in SPANS) - 1
        wanted[i, j, span] += max(cosine, 0) ** 2
    np.testing.assert_allclose(alike_by_age(songs, heard), wanted, atol=1e-5)


def test_means_of_the_beginning_and_of_what_was_heard_lately(heard: Tensor) -> None:
    real = heard.abs().sum(dim=2) > 0
    means = means_by_age(heard, real)
    for i, count in enumerate((30, 5)):
        songs = heard[i, 30 - count :]
        torch.testing.assert_close(means[i, 0], songs[:FIRST].mean(dim=0))
        for mean, half_life in zip(means[i, 1:], HALF_LIVES, strict=True):
            weight = torch.tensor([0.5 ** (age / half_life) for age in range(count)][::-1])
            torch.testing.assert_close(mean, (weight @ songs) / weight.sum())
    assert not means_by_age(torch.zeros(1, 5, 6), torch.zeros(1, 5, dtype=torch.bool)).any()


def test_slates_are_composed_song_by_song(synthetic: Dataset) -> None:
    """Each song has the highest Q once those before it were heard; and Q says what wear it took."""
    agent = small_agent(synthetic, rerank=12, reach="song")
    trained_critic(agent, some_batch(agent))
    with torch.no_grad():
        agent.average_critic.wear[:] = torch.linspace(-2, 0, len(SPANS))  # type: ignore[index]
    observation = an_observation(agent, 5)
    seen = agent.space.vectors * np.append(np.ones(agent.space.dim - 1), 0.35)
    chosen, _ = agent.predict(observation, deterministic=True)
    state, proto_actions = (
        agent.space.state(observation),
        agent.decide(observation, noise=0.0).proto_actions,
    )
    encoded = [agent.average_critic.encode(one) for one in divided(state, 1)]
    in_order = 0
    for i, slate in enumerate(chosen):
        scores = seen @ proto_actions[i]
        scores[observation["tracks"][i]] = -np.inf
        near = [int(track) for track in np.argsort(-scores)[:12]]
        at_once = np.argsort(-_q(agent.average_critic, encoded[i], seen[near]))[:3]
        in_order += slate.tolist() != [near[j] for j in at_once]
        for track in slate:
            assert near[_q(agent.average_critic, encoded[i], seen[near]).argmax()] == track
            near.remove(track)
            song = agent.space.embed(np.array([[track]]))
            encoded[i] = agent.average_critic.after(encoded[i], song)
    assert in_order


def _q(critic: Critic, encoded: CriticState, songs: np.ndarray) -> np.ndarray:
    actions = torch.from_numpy(songs[None].astype(np.float32))
    return critic.score(encoded, actions)[0].detach().numpy()


def test_the_rate_wears_out_nothing(synthetic: Dataset) -> None:
    agent = small_agent(synthetic, reach="song")
    batch = some_batch(agent)
    encoded = agent.critic.encode(batch.state)
    after = agent.critic.after(encoded, batch.songs[:, :1])
    assert not encoded.heard[..., -1].any()
    assert not after.heard[..., -1].any()
    torch.testing.assert_close(after.heard[:, -1, :-1], batch.songs[:, 0, :-1])


def test_the_critic_learns_how_late_songs_wear_out() -> None:
    """Rewards fall with likeness to the songs of six to eight songs ago, and to no others."""
    rng, critic = np.random.default_rng(0), Critic(6, ordered=True)
    optimizer = torch.optim.AdamW(critic.groups(1.0), 1e-2)
    vectors = unit(torch.from_numpy(rng.standard_normal((40, 6)).astype(np.float32)))
    context = np.zeros((64, CONTEXT_SIZE), np.float32)
    for _ in range(300):
        tracks = rng.integers(40, size=(64, 20)).astype(np.int32)
        levels = np.full(tracks.shape, 4, np.int8)
        state = read_sessions(vectors.numpy(), tracks, levels, context, rate=False, ordered=True)
        songs = vectors[rng.integers(40, size=(64, 1))]
        reward = -2 * alike_by_age(songs, state.heard)[..., 4]
        loss = (critic.score_slates(critic.encode(state), songs) - reward).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoded = critic.encode(state)
    assert encoded.wear is not None
    found = encoded.wear.detach().numpy()
    assert found[4] == pytest.approx(-2, abs=0.3)
    assert np.abs(np.delete(found, 4)).max() < 0.3


@pytest.mark.parametrize(("before", "after"), [("nothing", "song"), ("slate", "nothing")])
def test_what_was_trained_without_order_cannot_act_by_it(before: str, after: str) -> None:
    with pytest.raises(ValueError, match=f"reach={before} cannot act with reach={after}"):
        DDPGSettings(reach=before).acting_with({"reach": after})


def test_what_was_trained_by_order_acts_song_by_song_or_not() -> None:
    trained = DDPGSettings(reach="song", rerank=20)
    assert trained.acting_with({"reach": "slate"}) == DDPGSettings(reach="slate", rerank=20)


@pytest.mark.parametrize("reach", ["nothing", "slate", "song"])
@pytest.mark.parametrize("log", [{"offline_fraction": 0.0}, {"warmup_updates": 0}, {}])
def test_an_agent_learns_after_it_chose_songs(
    synthetic: Dataset, reach: str, log: dict[str, Any]
) -> None:
    agent = small_agent(synthetic, reach=reach, rerank=12, history_length=13, **log)
    agent.decide(an_observation(agent, 5), noise=0.0)
    agent.learn(options(synthetic, candidates="catalog"), 40)
    assert agent.updates > 0
