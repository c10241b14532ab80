"""skrl's DDPG on the native vector environment, by its own wrapper, memory and trainer."""

import gymnasium as gym
import torch
from interop import report
from skrl.agents.torch.ddpg import DDPG, DDPG_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, Model
from skrl.resources.noises.torch import GaussianNoise
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed
from torch import nn

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)
SESSIONS, START, GAMMA, NOISE = 4, 250, 0.0, 0.5


class Network(DeterministicMixin, Model):
    """Actor or critic, as the role says."""

    def __init__(self, inputs, outputs, last, **spaces):
        Model.__init__(self, device="cpu", **spaces)
        DeterministicMixin.__init__(self)
        hidden = nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
        self.net = nn.Sequential(*hidden, nn.Linear(256, outputs), last)

    def compute(self, inputs, role):
        parts = [inputs["observations"]]
        if "critic" in role:
            parts.append(inputs["taken_actions"])
        return self.net(torch.cat(parts, 1)), {}


def train(seed, steps):
    """A policy on flat observations; ``steps`` slates by `SESSIONS` sessions at once."""
    set_seed(seed)
    envs = gym.make_vec("MusicSession-v0", num_envs=SESSIONS, observation="flat")
    env = wrap_env(envs, wrapper="gymnasium")
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    size, d = env.observation_space.shape[0], env.action_space.shape[0]
    models = {name: Network(size, d, nn.Tanh(), **spaces) for name in ("policy", "target_policy")}
    for name in ("critic", "target_critic"):
        models[name] = Network(size + d, 1, nn.Identity(), **spaces)
    cfg = DDPG_CFG(batch_size=256, random_timesteps=START, learning_starts=START)
    cfg.learning_rate, cfg.gradient_steps, cfg.discount_factor = 3e-4, SESSIONS, GAMMA
    cfg.exploration_noise = GaussianNoise
    cfg.exploration_noise_kwargs = {"mean": 0.0, "std": NOISE, "device": "cpu"}
    cfg.experiment.write_interval = cfg.experiment.checkpoint_interval = 0
    memory = RandomMemory(memory_size=steps // SESSIONS, num_envs=SESSIONS, device="cpu")
    agent = DDPG(models=models, memory=memory, device="cpu", cfg=cfg, **spaces)
    trainer = {"timesteps": steps // SESSIONS, "headless": True, "disable_progressbar": True}
    SequentialTrainer(env=env, agents=agent, cfg=trainer).train()
    actor = models["policy"].eval()
    return lambda shown: actor.net(torch.from_numpy(shown)).detach().numpy()


if __name__ == "__main__":
    report("skrl DDPG", train)
