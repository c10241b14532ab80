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
from musicbox_experiments.serve.recommender import Choice

NEAR: Final = 50
"""Songs that are shown around a proto-action."""

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def points_of(agent: Agent, assets: EnvAssets, choice: Choice) -> Floats:
    """Proto-actions behind a choice ``(n, m, d)``; m is 0 where an agent has none."""
    actions = choice.actions
    if choice.decision is not None:
        return choice.decision.proto_actions[:, None]
    if assets.config.action != "slate":
        return actions.reshape(len(actions), -1, assets.dim)
    if not isinstance(agent, BCAgent):
        return np.empty((len(actions), 0, assets.dim), np.float32)
    with torch.no_grad():
        points: Floats = agent.actor(agent.space.state(choice.observation)).numpy()
    return points[:, None]


def scores_of(agent: Agent, assets: EnvAssets, choice: Choice) -> Floats:
    """What an agent orders the songs of its slates by ``(n, k)``; NaN where that is no number.

    The critic's value, after the songs before it where slates are composed song by song; or the dot
    product with the proto-action of the song's place.
    """
    if choice.decision is not None:
        replaced = choice.slates != choice.decision.slates
        return np.where(replaced, np.float32(np.nan), choice.decision.values)
    if assets.config.action == "slate":
        return np.full(choice.slates.shape, np.nan, np.float32)
    points = points_of(agent, assets, choice)
    scores: Floats = (assets.vectors(choice.slates) * points).sum(axis=2)
    return scores


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
