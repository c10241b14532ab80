"""TorchRL: DDPG by its own loss, buffer and exploration, on `GymEnv` and on the native vector."""

import argparse

import gymnasium as gym
import torch
from interop import report
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymEnv, GymWrapper, StepCounter, TransformedEnv
from torchrl.modules import MLP, AdditiveGaussianModule, ValueOperator
from torchrl.objectives import DDPGLoss, SoftUpdate

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)
START, BATCH, GAMMA, NOISE = 1_000, 256, 0.0, 0.5


def make_env(kind):
    """One environment by its name, or sixteen sessions as TorchRL sees a Gymnasium vector."""
    if kind == "GymEnv":
        return TransformedEnv(GymEnv("MusicSession-v0", observation="flat"), StepCounter())
    envs = gym.make_vec(
        "MusicSession-v0", num_envs=16, observation="flat", autoreset_mode="SameStep"
    )
    return GymWrapper(envs)


def train(kind, seed, steps):
    """A policy on flat observations."""
    torch.manual_seed(seed)
    env = make_env(kind)
    env.set_seed(seed)
    spec = env.action_spec_unbatched if kind != "GymEnv" else env.action_spec
    size, d = env.observation_spec["observation"].shape[-1], spec.shape[-1]
    layers = nn.Sequential(MLP(size, d, num_cells=[256, 256]), nn.Tanh())
    actor = TensorDictModule(layers, in_keys=["observation"], out_keys=["action"])
    critic = ValueOperator(
        MLP(size + d, 1, num_cells=[256, 256]), in_keys=["observation", "action"]
    )
    noise = AdditiveGaussianModule(spec, sigma_init=NOISE, sigma_end=NOISE)
    loss = DDPGLoss(actor, critic, delay_actor=True, delay_value=True)
    loss.make_value_estimator(gamma=GAMMA)
    target = SoftUpdate(loss, tau=0.005)
    optimizers = [
        torch.optim.Adam(parameters.flatten_keys().values(), 3e-4)
        for parameters in (loss.actor_network_params, loss.value_network_params)
    ]
    at_once = env.batch_size.numel() if env.batch_size else 1
    collector = Collector(
        env,
        TensorDictSequential(actor, noise),
        frames_per_batch=at_once,
        total_frames=steps,
        init_random_frames=START,
    )
    kept = TensorDictReplayBuffer(storage=LazyTensorStorage(steps), batch_size=BATCH)
    for played in collector:
        kept.extend(played.reshape(-1))
        if len(kept) <= START:
            continue
        for _ in range(at_once):
            losses = loss(kept.sample())
            for name, optimizer in zip(("loss_actor", "loss_value"), optimizers, strict=True):
                optimizer.zero_grad()
                losses[name].backward()
                optimizer.step()
            target.step()
    collector.shutdown()

    @torch.no_grad()
    def policy(shown):
        return layers(torch.from_numpy(shown)).numpy()

    return policy


if __name__ == "__main__":
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--kind", choices=["GymEnv", "vector"], default="GymEnv")
    kind, rest = chosen.parse_known_args()
    report(
        f"TorchRL DDPG, {kind.kind}",
        lambda seed, steps: train(kind.kind, seed, steps),
        arguments=rest,
    )
