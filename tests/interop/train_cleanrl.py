"""The loop of CleanRL's ``ddpg_continuous_action``, written anew: one file, nothing hidden.

Settings are that script's: two hidden layers of 256, Adam at 3e-4, tau 0.005, batches of 256, an
update of the actor every second step. But for exploration noise of 0.5 and gamma of 0: see
docs/findings/libraries.md.
"""

import gymnasium as gym
import numpy as np
import torch
from interop import report
from torch import nn
from torch.nn.functional import mse_loss

import musicbox_env  # noqa: F401 (registers MusicSession-v0)

torch.set_num_threads(1)
BATCH, GAMMA, TAU, NOISE, START, ACTOR_EVERY = 256, 0.0, 0.005, 0.5, 1_000, 2


def network(inputs, outputs, *last):
    layers = nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(256, outputs), *last)


def train(seed, steps):
    """A policy on flat observations, from one environment of a vector, as in CleanRL."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    envs = gym.make_vec(
        "MusicSession-v0", num_envs=1, observation="flat", autoreset_mode="SameStep"
    )
    size, d = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    actor, target_actor = (network(size, d, nn.Tanh()) for _ in range(2))
    critic, target_critic = (network(size + d, 1) for _ in range(2))
    target_actor.load_state_dict(actor.state_dict())
    target_critic.load_state_dict(critic.state_dict())
    of_actor, of_critic = (torch.optim.Adam(n.parameters(), 3e-4) for n in (actor, critic))
    kept = [np.zeros((steps, n), np.float32) for n in (size, size, d, 1, 1)]
    envs.action_space.seed(seed)
    observation, _ = envs.reset(seed=seed)
    for step in range(steps):
        if step < START:
            action = envs.action_space.sample()
        else:
            with torch.no_grad():
                action = actor(torch.from_numpy(observation)).numpy()
            action = np.clip(action + rng.normal(0, NOISE, action.shape), -1, 1).astype(np.float32)
        following, reward, terminated, truncated, info = envs.step(action)
        ended = terminated[0] or truncated[0]
        last = info["final_obs"][0] if ended else following[0]
        row = observation[0], last, action[0], reward, terminated
        for array, value in zip(kept, row, strict=True):
            array[step] = value
        observation = following
        if step < START:
            continue
        chosen = rng.integers(step + 1, size=BATCH)
        now, then, done, earned, over = (torch.from_numpy(array[chosen]) for array in kept)
        with torch.no_grad():
            ahead = target_critic(torch.cat([then, target_actor(then)], 1))
            goal = earned + GAMMA * (1 - over) * ahead
        of_critic.zero_grad()
        mse_loss(critic(torch.cat([now, done], 1)), goal).backward()
        of_critic.step()
        if step % ACTOR_EVERY == 0:
            of_actor.zero_grad()
            (-critic(torch.cat([now, actor(now)], 1)).mean()).backward()
            of_actor.step()
            with torch.no_grad():
                for net, target in ((actor, target_actor), (critic, target_critic)):
                    for a, b in zip(net.parameters(), target.parameters(), strict=True):
                        b.lerp_(a, TAU)

    @torch.no_grad()
    def policy(shown):
        return actor(torch.from_numpy(shown)).numpy()

    return policy


if __name__ == "__main__":
    report("CleanRL's DDPG loop", train)
