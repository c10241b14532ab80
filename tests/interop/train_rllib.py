"""RLlib's SAC and PPO, with two remote runners each."""

import argparse

import ray
import torch
from interop import report
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns

RUNNERS, START = 2, 250


def sac():
    """SAC; a slate changes little of what later ones earn: hence no gamma."""
    return SACConfig().training(
        gamma=0.0, num_steps_sampled_before_learning_starts=START, initial_alpha=0.1
    )


def ppo():
    """PPO by clipping alone; each runner plays eight sessions at once.

    With RLlib's KL penalty the first proto-actions change too slowly. Sessions are short, and a
    slate changes little of what later ones earn: hence the low gamma.
    """
    return (
        PPOConfig()
        .env_runners(num_envs_per_env_runner=8)
        .rl_module(model_config={"vf_share_layers": True})
        .training(train_batch_size=2_000, minibatch_size=250, num_epochs=10, lr=3e-4)
        .training(gamma=0.5, lambda_=0.95, use_kl_loss=False)
    )


ALGORITHMS = {"SAC": sac, "PPO": ppo}


def train(name, seed, steps):
    """A policy on flat observations; the runners make environments by name, as `gym.make` does."""
    algorithm = (
        ALGORITHMS[name]()
        .environment("musicbox_env:MusicSession-v0", env_config={"observation": "flat"})
        .env_runners(num_env_runners=RUNNERS)
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
    chosen.add_argument("--algorithm", choices=ALGORITHMS, default="SAC")
    given, rest = chosen.parse_known_args()
    ray.init(num_cpus=RUNNERS + 1, include_dashboard=False, log_to_driver=False)
    report(
        f"RLlib {given.algorithm}",
        lambda seed, steps: train(given.algorithm, seed, steps),
        arguments=rest,
    )
