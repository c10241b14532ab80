"""DDPG: the update rules by hand.

Where a docstring says "there", it tells a defect of the first MusicBox that the test would find.
"""

import numpy as np
import pytest
import torch
from musicbox_agents.ddpg.agent import DDPGAgent
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.ddpg.space import Batch, divided
from small_ddpg import small_agent, some_batch, trained_critic
from torch import Tensor

from musicbox_env.data.dataset import Dataset


def mean_q(agent: DDPGAgent, batch: Batch) -> float:
    with torch.no_grad():
        return float(agent.critic(batch.state, agent.actor(batch.state)[:, None]).mean())


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


@pytest.mark.parametrize("reach", ["nothing", "song"])
def test_target_by_hand(synthetic: Dataset, reach: str) -> None:
    """There the target's action came from s, and values were carried over the session's end."""
    agent = small_agent(synthetic, gamma=0.5, tau=0.5, reach=reach)
    batch = some_batch(agent)
    for _ in range(5):
        agent.update(batch)
    seen = agent.space.vectors * np.append(np.ones(agent.space.dim - 1), 0.35)
    value = torch.zeros(len(batch.rewards))
    for i, one in enumerate(divided(batch.next_state, 1)):
        # The slate that mu' plays in s', of songs that the session did not hear.
        scores = seen @ agent.target_actor(one)[0].detach().numpy()
        scores[batch.barred[i]] = -np.inf
        slate = np.argsort(-scores)[:3]
        q = agent.target_critic.encode(one)
        for track in slate:
            song = agent.space.embed(np.array([[track]]))
            value[i] += agent.target_critic.score(q, song)[0, 0].detach() / 3
            q = agent.target_critic.after(q, song)
    goes_on = torch.arange(len(value)) % 2 == 1
    wanted = batch.rewards + (0.5 * value * goes_on)[:, None]
    assert value.std() > 1e-3
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
