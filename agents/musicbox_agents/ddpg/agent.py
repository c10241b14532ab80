"""Deep deterministic policy gradient for recommending songs.

**DDPG** (Lillicrap et al., arXiv:1509.02971). A critic Q(s, a) learns the value of action a in
state s, an actor mu(s) climbs it (their equations 4 to 6)::

    y      = r + gamma * (1 - terminated) * Q'(s', mu'(s'))          target
    L      = mean (y - Q(s, a)) ** 2                                 of the critic
    grad J = mean  grad_a Q(s, a) at a = mu(s)  *  grad mu(s)        of the actor
    theta' <- tau * theta + (1 - tau) * theta'                       targets Q' and mu'

**Recommending** (LIRD, arXiv:1801.00209; Wolpertinger, arXiv:1512.07679). The state is what the
listener heard and how far. The action is a *proto-action*, a point of the space in which songs lie
as vectors e_i. A search finds the songs of highest mu(s) . e_i, and the critic picks among them.

**Here**, for the songs k of a slate, with rewards r_k in units of a slate::

    y_k    = r_k + gamma * (1 - terminated) * mean Q'(s', next slate)             `target`
    L(Q)   = mean over songs heard  (y_k - Q(s, e_k)) ** 2                        `critic_loss`
    L(mu)  = -mean Q(s, mu(s)) / mean |Q(s, mu(s))|                               `actor_loss`
    slate  = the songs of highest Q(s, e_i) among the nearest to mu(s)            `decide`

What is changed, by number and setting. Each was measured over ten seeds (docs/ddpg.md).

 1. Norm 1: mu(s) has norm 1. Retrieval uses its direction alone, and DDPG's tanh saturates.
 2. Critic of songs: it learns Q at the songs played, each with its own reward, not at the
    proto-action: proto-actions that retrieve the same songs are the same action.
 3. Quality axis (``embedding``, ``quality``): one more dimension says how good a song is. It starts
    with what the log says and moves with what is seen (`ddpg.quality`).
 4. State of statistics: means of the songs played, kept and skipped, and shares of each listen
    level under several half-lives (`ddpg.state`). LIRD reads the liked songs by a GRU.
 5. Start (``start``): the actor begins as a heuristic, the mean of the songs played plus quality.
 6. Log (``offline_fraction``, ``log_sessions``, ``warmup_updates``): a share of each batch is from
    the log (RLPD, arXiv:2302.02948), and the critic learns from it before the first slate.
 7. Myopic (``gamma`` 0): an answer hardly depends on earlier slates, so later values add noise.
 8. Exploration (``noise``): Gaussian on the proto-action, projected back to norm 1. An actor that
    starts at random first explores everywhere (``learning_starts``).
 9. Re-ranking (``rerank``): Wolpertinger's, once for the whole slate; LIRD acts place by place.
10. Parallel sessions (``num_envs``, ``updates_per_step``): many sessions, few updates.
11. Linear critic: Q(s, a) = value(s) + slope(s) . a (`ddpg.networks`). What a song adds is small
    beside the noise of one answer, and layers over session and song together fit that noise.
12. Quality weight (``quality_weight``): when songs are chosen, the quality axis counts less than
    the critic has learned. Of thousands of songs, those of highest estimated quality were partly
    lucky; at full weight every listener would get the same few of them.
13. Weight decay of the critic (AdamW, arXiv:1711.05101), for logs are small.
14. Within slates (``within_slates``): on logged slates the critic learns what songs add only from
    how the songs of one slate differ. Listeners who skip little choose other songs than the rest;
    a comparison between sessions would credit these songs with the habits of their listeners.
15. Average critic (``average_critic``): songs are chosen by the running average of the critic's
    weights (Polyak & Juditsky, SIAM J. Control Optim. 30, 1992), for the newest follow few batches.
16. Order (``reach``): where songs wear out those like them, Q also counts how alike a song is to
    each heard before it, by its age (`ddpg.recency`); slates are composed song by song.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Adam, AdamW

from musicbox_agents.base import Agent, AgentSettings, Observation, Options
from musicbox_agents.ddpg import checkpoints, networks
from musicbox_agents.ddpg.checkpoints import Loop
from musicbox_agents.ddpg.networks import Actor, Critic, CriticState
from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions, draw_batches
from musicbox_agents.ddpg.settings import DDPGSettings
from musicbox_agents.ddpg.space import Batch, Decision, SongSpace, divided, perturbed
from musicbox_agents.ddpg.state import State
from musicbox_agents.log import read_log
from musicbox_agents.progress import Progress, count_distinct, mean_cosine
from musicbox_agents.sessions import one_thread, open_env, session_seeds
from musicbox_agents.slates import Slates
from musicbox_env.data.dataset import Dataset
from musicbox_env.rewards import RewardConfig
from musicbox_env.schema import is_skip

Floats = npt.NDArray[np.float32]

NETWORKS: Final = ("actor", "critic", "target_actor", "target_critic", "average_critic")
CRITIC_DECAY: Final = 1.0
"""Weight decay of the critic, in learning rates [13]."""
NEWEST_SHARE: Final = 0.005
"""Weight of the newest critic in the running average, larger in the first updates [15]."""
RESIDUALS_FROM: Final = 500
"""Updates of the critic from which on its residuals count as the songs' quality [3]."""
ANYWHERE: Final = 1e3
"""Noise so large that nothing of the proto-action is left [8]."""


class DDPGAgent(Agent):
    """Recommends, of the songs near its actor's proto-action, those that its critic values most.

    Attributes:
        space: Songs as vectors, with the quality axis.
        actor, critic: mu and Q; ``target_actor`` and ``target_critic`` are mu' and Q'.
        average_critic: Running average of the critic.
        memory, log: Transitions of the agent's own slates, and of the log.
        updates, critic_updates: Updates so far, and those of the critic, warm-up included.
        rng: Of everything random but the networks' first weights.
    """

    name: ClassVar[str] = "ddpg"
    Settings: ClassVar[type[AgentSettings]] = DDPGSettings
    learns: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    acting: ClassVar[tuple[str, ...]] = ("rerank", "quality_weight", "reach")
    settings: DDPGSettings

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """Make an untrained agent; with ``start="heuristic"`` it recommends sensibly already."""
        super().__init__(dataset, seed=seed, settings=settings)
        config, ordered = self.settings, self.settings.reach != "nothing"
        self.space = SongSpace(dataset, config.embedding, ordered=ordered)
        self.rng = np.random.default_rng(seed)
        dim, hidden, rate = self.space.dim, config.hidden, self.space.has_rate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(dim, hidden=hidden, rate=rate, ordered=ordered)
            self.critic = Critic(dim, hidden=hidden, rate=rate, ordered=ordered)
        if config.start == "heuristic":
            self.actor.start_at_heuristic()
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.average_critic = deepcopy(self.critic).requires_grad_(False)
        self.actor_optimizer = Adam(self.actor.parameters(), config.actor_rate, fused=True)
        self.critic_optimizer = AdamW(
            self.critic.groups(CRITIC_DECAY), config.critic_rate, fused=True
        )
        self.memory = ReplayBuffer(config.buffer_size)
        self.log: ReplayBuffer | None = None
        self.updates = self.critic_updates = 0

    @property
    def env_options(self) -> dict[str, Any]:
        """Slates, and ids as observations: the memory holds a tenth of what vectors would take."""
        return {
            "observation": "ids",
            "action": "slate",
            "embedding": self.space.embedding,
            "history_length": self.settings.history_length,
            "slate_size": self.settings.slate_size,
        }

    # Acting

    def act(self, batch: Observation, *, deterministic: bool) -> Slates:
        """Slates ``(n, slate_size)``."""
        return self.decide(batch, noise=0.0 if deterministic else self.settings.noise).slates

    @torch.no_grad()
    def decide(self, batch: Observation, *, noise: float) -> Decision:
        """The slate of each session: songs of highest Q among the nearest to mu(s) [9, 12].

        Args:
            batch: Observation of n sessions.
            noise: Gaussian noise on mu(s), in shares of its norm [8].
        """
        state, critic = self.space.state(batch), self.acting_critic
        proto_actions = self.actor(state).numpy()
        if noise:
            proto_actions = perturbed(proto_actions, noise, self.rng)
        slates, values = self.slates(critic.encode(state), batch, proto_actions, critic)
        return Decision(slates, proto_actions, values)

    @property
    def acting_critic(self) -> Critic:
        """The critic that chooses songs [15]."""
        return self.average_critic if self.settings.average_critic else self.critic

    def slates(
        self, encoded: CriticState, allowed: Observation, proto_actions: Floats, critic: Critic
    ) -> tuple[Slates, Floats]:
        """Slates of songs that ``allowed`` lets be recommended, and values; see `Decision`."""
        config = self.settings
        weight = self.space.weights(allowed, config.quality_weight)
        most = min(max(config.rerank, config.slate_size), len(self.space.vectors))
        near = self.space.nearest(allowed, proto_actions * weight, most)
        if not config.rerank:
            return self.space.scored(near, proto_actions * weight)
        return self.space.best(
            encoded, near, weight, critic, config.slate_size, song_by_song=config.reach == "song"
        )

    # Learning: the update

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of the critic, the actor and their targets."""
        losses = self.update_critic(batch)
        actor_loss = self.actor_loss(self.actor, self.critic, batch.state)
        self.updates += 1
        losses["actor_loss"] = networks.descend(self.actor_optimizer, actor_loss)
        if self.settings.gamma:  # else nothing reads the targets
            networks.follow(self.target_actor, self.actor, self.settings.tau)
            networks.follow(self.target_critic, self.critic, self.settings.tau)
        return losses

    def update_critic(self, batch: Batch) -> dict[str, float]:
        """One update of the critic and of its average."""
        config, target = self.settings, self.target(batch)
        loss, mean_q = self.critic_loss(
            self.critic, batch, target, within_slates=config.within_slates
        )
        critic_loss = networks.descend(self.critic_optimizer, loss)
        if config.average_critic:
            share = networks.newest_share(self.critic_updates, NEWEST_SHARE)
            networks.follow(self.average_critic, self.critic, share)
        self.critic_updates += 1
        return {"critic_loss": critic_loss, "mean_q": mean_q.item()}

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """``y_k = r_k + gamma * (1 - terminated) * next_value(s')`` ``(B, K)``."""
        if self.settings.gamma == 0:
            return batch.rewards
        later = self.settings.gamma * ~batch.terminated * self.next_value(batch)
        return batch.rewards + later[:, None]

    def next_value(self, batch: Batch) -> Tensor:
        """Mean of ``Q'(s', e_j)`` over the slate that mu' and Q' play in s' ``(B,)``."""
        state, critic = batch.next_state, self.target_critic
        encoded, allowed = critic.encode(state), {"barred": batch.barred.numpy()}
        slates, _ = self.slates(encoded, allowed, self.target_actor(state).numpy(), critic)
        return critic.score_slates(encoded, self.space.embed(slates)).mean(dim=1)

    @staticmethod
    def critic_loss(
        critic: Critic, batch: Batch, target: Tensor, *, within_slates: bool
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error to a target ``(B, K)`` over the songs heard, and the mean of Q."""
        heard = batch.heard.to(target.dtype)
        encoded = critic.encode(batch.state)
        q = critic.score_slates(encoded, batch.songs)
        if within_slates and q.shape[1] > 1:
            added = (q - encoded.value) * heard
            common = added.sum(dim=1, keepdim=True) / heard.sum(dim=1, keepdim=True).clamp(min=1)
            common = batch.logged * common
            q = q - common + common.detach()  # the same number without its gradient [14]
        number = heard.sum()
        return ((q - target).square() * heard).sum() / number, (q.detach() * heard).sum() / number

    @staticmethod
    def actor_loss(actor: Actor, critic: Critic, state: State) -> Tensor:
        """``-mean Q(s, mu(s)) / mean |Q(s, mu(s))|``: no scale of rewards sets the step."""
        with torch.no_grad():
            encoded = critic.encode(state)
        q = critic.score(encoded, actor(state)[:, None])
        return -q.mean() / q.detach().abs().mean().clamp(min=1e-6)

    # Learning: the loop

    def train(
        self, options: Options, total_steps: int, progress: Progress, checkpoint: Path | None
    ) -> None:
        """Recommend, remember and update; one thread of torch is used."""
        config = self.settings
        with one_thread(), open_env(self.dataset, options, config.num_envs) as env:
            kept = None if checkpoint is None else checkpoints.newest(checkpoint)
            if kept is None:
                self.prepare(options)
                observation, _ = env.reset(seed=session_seeds(self.rng, config.num_envs))
                loop = Loop(observation, just_reset=np.zeros(config.num_envs, np.bool_))
            else:
                loop = checkpoints.restore(kept, self, env, progress)
            while loop.steps < total_steps:
                random_phase = config.start == "random" and loop.steps < config.learning_starts
                noise = ANYWHERE if random_phase else config.noise
                slates, proto_actions, _ = self.decide(loop.observation, noise=noise)
                following, reward, terminated, truncated, info = env.step(slates)
                # The step after an end belongs to no session: the action was ignored, and the
                # observation is the next session's first (Gymnasium's NEXT_STEP autoreset).
                real = ~loop.just_reset
                happened = Transitions.of_step(
                    loop.observation, following, reward, terminated, info, env.config.reward
                )[real]
                self.memory.add(happened)
                self.learn_quality(happened)
                progress.gather("reward", reward[real])
                progress.gather("skip_rate", is_skip(happened.slate_levels)[happened.heard])
                progress.gather("distinct_songs", happened.slate[happened.heard], count_distinct)
                progress.gather("action_cosine", proto_actions[real], mean_cosine)
                loop.observation, loop.just_reset = following, terminated | truncated
                loop.steps += len(happened)
                if loop.steps >= config.learning_starts:
                    loop.update_budget += config.updates_per_step * len(happened)
                for batch in self.batches(int(loop.update_budget)):
                    for name, value in self.update(batch).items():
                        progress.gather(name, value)
                loop.update_budget %= 1
                progress.gather("updates", self.updates, np.max)
                called = progress.call(loop.steps, last=loop.steps >= total_steps)
                if called and checkpoint is not None:
                    checkpoints.keep(checkpoint, self, env, progress, loop)

    def prepare(self, options: Options) -> None:
        """Read the log [3, 6] and let the critic learn from it; nothing if that was done."""
        if self.log is not None:
            return
        config = self.settings
        reward = RewardConfig.from_mapping(options.get("reward"))
        axes = self.space.read_quality(config, reward)
        if config.offline_fraction == 0:
            return
        self.log = read_log(
            self.dataset, options, self.rng, sessions=config.log_sessions, axes=axes
        )
        for batch in self.batches(config.warmup_updates, offline_fraction=1.0):
            self.update_critic(batch)
        self.target_critic.load_state_dict(self.critic.state_dict())

    @torch.no_grad()
    def learn_quality(self, happened: Transitions) -> None:
        """Add the residual of each song heard to its quality [3].

        The residual is the song's target less the Q that it would have at quality 0.
        """
        learned = self.space.quality is not None and self.settings.quality == "learned"
        if not (learned and self.critic_updates >= RESIDUALS_FROM and len(happened)):
            return
        batch = self.space.batch(happened, future=self.settings.gamma > 0)
        without_quality = batch.songs.clone()
        without_quality[..., -1] = 0
        encoded = self.critic.encode(batch.state)
        residuals = self.target(batch) - self.critic.score_slates(encoded, without_quality)
        self.space.add_residuals(happened.slate[happened.heard], residuals[batch.heard].numpy())

    def batches(self, number: int, *, offline_fraction: float | None = None) -> Iterator[Batch]:
        """Draw batches, with the given share of the log; None is the setting's."""
        config = self.settings
        share = config.offline_fraction if offline_fraction is None else offline_fraction
        logged = 0 if self.log is None else round(share * config.batch_size)
        sources = [(self.memory, config.batch_size - logged), (self.log or self.memory, logged)]
        for rows in draw_batches(self.rng, number, sources):
            yield from divided(self.space.batch(rows, future=config.gamma > 0), config.batch_size)

    def arrays(self) -> dict[str, npt.NDArray]:
        """Weights of all networks, and the quality of songs."""
        return networks.arrays_of(self, NETWORKS) | self.space.arrays()

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """See `Agent.restore`."""
        networks.set_arrays(self, NETWORKS, arrays)
        self.space.restore(arrays)
