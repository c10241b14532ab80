"""Tianshou 2's DDPG: its networks, collector, buffer and trainer."""

import gymnasium as gym
import numpy as np
import torch
from interop import report
from tianshou.algorithm import DDPG
from tianshou.algorithm.modelfree.ddpg import ContinuousDeterministicPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.exploration import GaussianNoise
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorDeterministic, ContinuousCritic

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)
START, HIDDEN, GAMMA, NOISE = 1_000, (256, 256), 0.0, 0.5


def make_env():
    return gym.make("MusicSession-v0", observation="flat")


def train(seed, steps):
    """A policy on flat observations."""
    np.random.seed(seed)  # noqa: NPY002 (Tianshou's noise draws from there)
    torch.manual_seed(seed)
    envs = DummyVectorEnv([make_env])
    envs.seed(seed)
    space, actions = make_env().observation_space, make_env().action_space
    body = Net(state_shape=space.shape, hidden_sizes=HIDDEN)
    actor = ContinuousActorDeterministic(preprocess_net=body, action_shape=actions.shape)
    both = Net(
        state_shape=space.shape, action_shape=actions.shape, hidden_sizes=HIDDEN, concat=True
    )
    algorithm = DDPG(
        policy=ContinuousDeterministicPolicy(
            actor=actor, exploration_noise=GaussianNoise(sigma=NOISE), action_space=actions
        ),
        policy_optim=AdamOptimizerFactory(lr=3e-4),
        critic=ContinuousCritic(preprocess_net=both),
        critic_optim=AdamOptimizerFactory(lr=3e-4),
        gamma=GAMMA,
    )
    collector = Collector(algorithm, envs, VectorReplayBuffer(steps, 1), exploration_noise=True)
    collector.reset()
    collector.collect(n_step=START, random=True)
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=steps - START,
            collection_step_num_env_steps=1,
            batch_size=256,
            show_progress=False,
            verbose=False,
        )
    )
    return lambda shown: algorithm.policy(Batch(obs=shown, info={})).act.detach().numpy()


if __name__ == "__main__":
    report("Tianshou DDPG", train)
