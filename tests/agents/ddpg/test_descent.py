"""Adam against torch's own, and recorded gradients against those that autograd finds each time."""

from typing import Any

import numpy as np
import pytest
import torch
from musicbox_agents.ddpg.agent import Batch, DDPGAgent
from musicbox_agents.ddpg.descent import Adam, Recorded
from test_ddpg import options, small_agent, some_batch
from torch import nn

from musicbox_env.data.dataset import Dataset


def two_layers() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_adam_is_torchs(decay: float) -> None:
    ours, theirs = two_layers(), two_layers()
    adam = Adam(ours, 0.01, decay=decay)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=decay, fused=True)
    for step in range(20):
        inputs = torch.randn(9, 5, generator=torch.Generator().manual_seed(step))
        adam.descend(ours(inputs).square().mean())
        adamw.zero_grad()
        theirs(inputs).square().mean().backward()
        adamw.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other)


def test_adam_comes_back() -> None:
    networks = [two_layers(), two_layers()]
    one, two = (Adam(network, 0.1) for network in networks)
    inputs = torch.ones(1, 5)
    for _ in range(3):
        one.descend(networks[0](inputs).square().sum())
    networks[1].load_state_dict(networks[0].state_dict())
    two.restore(one.arrays())
    for adam, network in zip((one, two), networks, strict=True):
        adam.descend(network(inputs).square().sum())
    for own, other in zip(one.weights, two.weights, strict=True):
        assert torch.equal(own, other)


def test_a_record_follows_its_arguments_and_weights() -> None:
    """Other values, other shapes, weights that were moved in place: nothing of them is recorded."""
    network = two_layers()
    weights = list(network.parameters())

    def gradient(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        loss = (network(pair[0]) * pair[1]).square().sum()
        return loss.detach(), *torch.autograd.grad(loss, weights)

    recorded = Recorded(gradient, weights)
    for rows in (4, 4, 4, 9, 4):
        pair = torch.randn(rows, 5), torch.randn(rows, 1)
        for found, expected in zip(recorded(pair), gradient(pair), strict=True):
            assert torch.equal(found, expected)
        with torch.no_grad():
            for w in weights:
                w.add_(0.1 * torch.randn(w.shape))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"deep": True},
    {"critics": 2, "gamma": 0.5, "target_noise": 0.1, "actor_delay": 2},
    {"layer_norm": True, "squash": "tanh", "points": 3},
    {"critic_sees": "proto", "within_slates": False},
    {"critic_sees": "slate", "embedding": "hybrid"},
]


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda settings: "-".join(settings) or "default")
def test_recorded_updates_are_those_of_autograd(
    synthetic: Dataset, settings: dict[str, Any]
) -> None:
    """To the last bit, over updates of two batches of different size."""
    recorded, plain = (small_agent(synthetic, **settings) for _ in range(2))
    assert isinstance(recorded._critic_gradient, Recorded)
    assert isinstance(recorded._actor_gradient, Recorded)
    plain._critic_gradient = plain._gradient_of_critic
    plain._actor_gradient = plain._gradient_of_actor
    for _ in range(4):
        for size in (32, 20):
            told = [agent.update(moved(agent, size)) for agent in (recorded, plain)]
            assert told[0] == told[1]
    weights = [agent._modules()["actor"].state_dict() for agent in (recorded, plain)]
    weights += [agent._modules()["critics"].state_dict() for agent in (recorded, plain)]
    for own, other in (weights[:2], weights[2:]):
        for name, value in own.items():
            assert torch.equal(value, other[name])


def moved(agent: DDPGAgent, size: int) -> Batch:
    """A batch whose numbers depend on how many updates there were."""
    batch = some_batch(agent, size)
    return batch._replace(rewards=batch.rewards + np.float32(0.1 * agent._updates))


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder": "recurrent"},
        {"neighbours": 5},
        {"alignment_weight": 0.1},
        {"cloning_weight": 0.1},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_leaves_torch_is_not_recorded(synthetic: Dataset, settings: dict[str, Any]) -> None:
    """Lengths of sessions, the search for songs and draws of the log differ in every batch."""
    agent = small_agent(synthetic, **settings)
    assert not isinstance(agent._actor_gradient, Recorded)
    assert isinstance(agent._critic_gradient, Recorded) == ("encoder" not in settings)
    agent._prepare(options(synthetic))
    agent.update(some_batch(agent))
