"""RLlib's SAC and PPO, with two remote runners each."""

import argparse

import ray
import torch
from interop import report
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns

RUNNERS, START = 2, 250
# PPO's KL penalty is left out: it keeps the proto-actions near those of the first random networks.
# Sessions are short, and a slate changes little of what later ones earn: hence the low gamma.
PPO = {"train_batch_size": 2_000, "minibatch_size": 250, "num_epochs": 10, "lr": 3e-4}
PPO |= {"gamma": 0.5, "lambda_": 0.95, "use_kl_loss": False}
SAC = {"num_steps_sampled_before_learning_starts": START, "initial_alpha": 0.1}
# Each with the sessions that a runner plays at once.
SETTINGS = {"SAC": (SACConfig, 1, SAC), "PPO": (PPOConfig, 8, PPO)}


def train(name, seed, steps):
    """A policy on flat observations; the runners make environments by name, as `gym.make` does."""
    config, at_once, settings = SETTINGS[name]
    algorithm = (
        config()
        .environment("musicbox_env:MusicSession-v0", env_config={"observation": "flat"})
        .env_runners(num_env_runners=RUNNERS, num_envs_per_env_runner=at_once)
        .training(**settings)
        .debugging(seed=seed, log_level="ERROR")
        .build_algo()
    )
    sampled = 0
    while sampled < steps:
        sampled = algorithm.train()["num_env_steps_sampled_lifetime"]
    module = algorithm.get_module()
    distribution = module.get_inference_action_dist_cls()
    algorithm.stop()

    @torch.no_grad()
    def policy(shown):
        out = module.forward_inference({Columns.OBS: torch.from_numpy(shown)})
        drawn = distribution.from_logits(out[Columns.ACTION_DIST_INPUTS])
        return drawn.to_deterministic().sample().clamp(-1, 1).numpy()

    return policy


if __name__ == "__main__":
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--algorithm", choices=SETTINGS, default="SAC")
    given, rest = chosen.parse_known_args()
    ray.init(num_cpus=RUNNERS + 1, include_dashboard=False, log_to_driver=False)
    report(
        f"RLlib {given.algorithm}",
        lambda seed, steps: train(given.algorithm, seed, steps),
        arguments=rest,
    )
