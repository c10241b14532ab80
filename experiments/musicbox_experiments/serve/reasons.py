"""What agents think: their proto-actions, and the numbers that they order songs by."""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from musicbox_agents import Agent
from musicbox_agents.base import Observation
from musicbox_agents.ddpg.agent import DDPGAgent
from musicbox_agents.offline.bc import BCAgent

from musicbox_env.simulator.assets import EnvAssets

NEAR: Final = 50
"""Songs that are shown around a proto-action."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def points_of(
    agent: Agent, assets: EnvAssets, observation: Observation, actions: npt.NDArray
) -> Floats:
    """Proto-actions behind actions ``(n, m, d)``; m is 0 where an agent has none."""
    if assets.config.action != "slate":
        return actions.reshape(len(actions), -1, assets.dim)
    if not isinstance(agent, DDPGAgent | BCAgent):
        return np.empty((len(actions), 0, assets.dim), np.float32)
    with torch.no_grad():
        points: Floats = agent.actor(agent.space.state(observation)).numpy()
    return points[:, None]


def scores_of(
    agent: Agent,
    assets: EnvAssets,
    observation: Observation,
    actions: npt.NDArray,
    slates: Rows,
) -> Floats:
    """What an agent orders the songs of slates by ``(n, k)``; NaN where that is no number.

    The critic's value, or the dot product with the proto-action of the song's place.
    """
    if isinstance(agent, DDPGAgent) and agent.settings.rerank:
        return _critic_values(agent, observation, slates)
    if assets.config.action == "slate":
        return np.full(slates.shape, np.nan, np.float32)
    points = points_of(agent, assets, observation, actions)
    scores: Floats = (assets.vectors(slates) * points).sum(axis=2)
    return scores


@torch.no_grad()
def _critic_values(agent: DDPGAgent, observation: Observation, slates: Rows) -> Floats:
    config, space = agent.settings, agent.space
    critic = agent.average_critic if config.average_critic else agent.critic
    weight = torch.from_numpy(space.weights(observation, config.quality_weight))
    values: Floats = critic(space.state(observation), space.embed(slates) * weight).numpy()
    return values


def near_to(agent: Agent, assets: EnvAssets, observation: Observation, point: Floats) -> Rows:
    """Rows of the songs nearest to a proto-action ``(d,)`` of one session's observation.

    Where a critic chooses among them, quality counts as it does when they are found.
    """
    search = assets.search
    if isinstance(agent, DDPGAgent):
        search = agent.space.search
        point = point * agent.space.weights(observation, agent.settings.quality_weight)
    found, _ = search.top_k(point[None], min(NEAR, assets.num_tracks), observation.get("barred"))
    return found[0][found[0] >= 0]
