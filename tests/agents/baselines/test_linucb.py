import gymnasium as gym
import numpy as np
import pytest
from musicbox_agents import make_agent
from musicbox_agents.baselines.linucb import LinUCBSettings, session_matrices

import musicbox_env
from musicbox_env.retrieval.spaces import embedding_space
from musicbox_env.schema import is_skip


@pytest.fixture
def begun(synthetic):
    agent = make_agent("linucb", synthetic, settings={"alpha": 0.8, "ridge": 2.0, "num_envs": 8})
    env = gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=8,
        vectorization_mode="vector_entry_point",
        data=str(synthetic.folder),
        listener="ground_truth",
        **agent.env_options,
    )
    return agent, env


def features(observation, i, space, track):
    """x of one session and track, spelled out."""
    heard = observation["tracks"][i] >= 0
    levels = observation["levels"][i][heard]
    v, rate = space[track, :-1], space[track, -1]
    p = space[observation["tracks"][i][heard], :-1].mean(axis=0)
    skipped = is_skip(levels)
    of_session = [skipped[-1], skipped.mean(), observation["context"][i, -1]]
    return np.concatenate([v, [rate, 1], p * v, [p @ v], of_session])


def test_features_are_linear_in_the_track(synthetic, begun):
    agent, env = begun
    observation, _ = env.reset(seed=1)
    matrices = session_matrices(observation, agent.tracks)
    space = embedding_space(synthetic, "hybrid+rate")
    for i, track in ((0, 5), (3, 77)):
        expected = features(observation, i, space, track)
        np.testing.assert_allclose(matrices[i] @ agent.tracks[track], expected, atol=1e-6)


def test_learns_the_ridge_regression_and_acts_on_its_upper_bound(synthetic, begun):
    agent, env = begun
    space = embedding_space(synthetic, "hybrid+rate").astype(np.float64)
    observation, _ = env.reset(seed=agent.seed)
    rows, kept = [], []
    for _ in range(12):
        slates = np.zeros((8, 3), int)
        design = np.array(rows).reshape(-1, 2 * (space.shape[1] - 1) + 6)
        precision = 2.0 * np.eye(design.shape[1]) + design.T @ design
        covariance = np.linalg.inv(precision)
        theta = covariance @ (design.T @ np.array(kept)) if rows else np.zeros(len(precision))
        for i in range(8):
            x = np.array([features(observation, i, space, t) for t in range(len(space))])
            bound = x @ theta + 0.8 * np.sqrt(np.einsum("tx,xy,ty->t", x, covariance, x))
            bound[observation["tracks"][i][observation["tracks"][i] >= 0]] = -np.inf
            slates[i] = np.argsort(-bound, kind="stable")[:3]
        following, *_, info = env.step(slates)
        for i, place in np.argwhere(info["slate_levels"] >= 0):
            rows.append(features(observation, i, space, info["slate"][i, place]))
            kept.append(not is_skip(info["slate_levels"][i, place]))
        observation = following
    agent.learn({"data": str(synthetic.folder), "listener": "ground_truth"}, 12 * 8)
    design = np.array(rows)
    np.testing.assert_allclose(
        agent.arrays()["precision"],
        2.0 * np.eye(design.shape[1]) + design.T @ design,
        rtol=1e-5,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        agent.arrays()["kept"], design.T @ np.array(kept), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"ridge": 0.0}, {"num_envs": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinUCBSettings(**wrong)
