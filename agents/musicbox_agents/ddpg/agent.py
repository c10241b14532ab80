"""Deep deterministic policy gradient for recommending songs.

DDPG (Lillicrap et al., arXiv:1509.02971) learns two functions. The critic Q(s, a) says what action
a is worth in state s; it is fitted to what happened (their equations 4 and 5)::

    y = r + gamma * (1 - terminated) * Q'(s', mu'(s'))        L = mean (y - Q(s, a))**2

The actor mu(s) is moved uphill on the critic (their equation 6, the deterministic policy
gradient)::

    grad J = mean  grad_a Q(s, a) at a = mu(s)  *  grad mu(s)

Q' and mu' are slow copies, ``theta' <- tau * theta + (1 - tau) * theta'``. LIRD (Zhao et al.,
arXiv:1801.00209, algorithms 2 and 3) brought this to recommending lists: the state is what the
listener heard, the action a point of the embedding space for each place of the list, and each
place takes the song with the highest dot product.

What works for control does not work here as it is. Each departure is a setting, under this number:

 1. ``squash``: a point has norm 1. Retrieval looks at nothing but its direction, and under DDPG's
    tanh the outputs saturate in the corners of the cube, where the gradient is 0.
 2. ``critic_sees``: the critic learns of the songs that were played, each with its own reward, not
    of the point that chose them; points that retrieve the same songs are the same action.
 3. ``embedding``: the space has one more dimension, how good a song is. Unit vectors say what a
    song is like and hide how good it is. The dataset's own axis is the rate of being listened to.
 4. ``encoder``: the state tells played, kept and skipped songs apart, as three means and as
    shares of each listen level under several half-lives (`networks.read`), or in order too (a
    GRU). LIRD's state is the songs liked, alone, in a GRU.
 5. ``start``: the actor starts as a two-line heuristic, or as a clone of the log, not at random.
 6. ``log_share``, ``log_sessions``, ``warmup_updates``: a share of every batch is logged
    transitions of the training sessions (arXiv:2302.02948), and the critic reads them first.
 7. ``gamma`` 0: what a session thinks of a song hardly depends on the songs before, so values of
    later states are noise on the target and no information.
 8. ``whole_slates``: the last slate of a session is heard only in part; its reward is scaled to a
    whole slate, or the critic would have to guess where sessions end.
 9. ``noise``: exploration is Gaussian on the actor's output, relative to its norm and then
    projected back; not an Ornstein-Uhlenbeck process, and never on the state. An actor that starts
    at random first plays songs from anywhere (``learning_starts``): else each kind of listener
    hears one kind of song, and no critic can tell which of the two was liked.
10. ``neighbours``, ``temperature``: the actor climbs the critic at the songs nearest to its point,
    weighted by a softmax of their scores (retrieval made differentiable), not at the point itself,
    where no song need be and the critic never learned.
11. ``cloning_weight``: the actor is held near the songs that were kept in the log (TD3+BC,
    arXiv:2106.06860).
12. ``alignment_weight``: the point is pulled towards the songs that it retrieves (HAC, WWW 2023).
13. ``rerank``: the critic chooses among that many nearest songs (Wolpertinger, arXiv:1512.07679).
14. ``points`` 1: one point for the whole slate; LIRD has one for each place (``points`` 3).
15. ``critics`` 2, ``actor_delay``, ``target_noise``: twin critics, a delayed actor and smoothed
    targets (TD3, arXiv:1802.09477).
16. ``layer_norm``: normalised hidden layers (DDPG used batch normalisation).
17. ``quality``, ``quality_prior``: that axis is the agent's own. It starts with what the log tells
    of a song beyond its session, and what the agent sees of it while learning is added
    (`musicbox_agents.ddpg.quality`). The retrieval then finds what the agent found out.
18. Batches are drawn uniformly (as DDPG), not by priority; sessions are played in parallel, with
    ``updates_per_step`` updates for each slate.
19. ``deep`` off: the critic is linear in the action, with weights that depend on the session
    (`networks.Critic`); what a song adds is small beside the noise of one answer, and hidden
    layers over session and song together fit that noise.
20. ``curiosity``, ``spread``: what is not known of a song's quality is drawn (Thompson, 1933; as
    Chapelle & Li, NIPS 2011), while learning or also after it.
21. ``quality_weight``: when songs are chosen, quality counts less than the critic says. The songs
    that look best of thousands are partly lucky, and everybody would be told the same few; taste
    is each session's own. It buys variety at the best price (`musicbox frontier`).
22. ``critic_decay``: the critic's weights decay (AdamW), for logs are small.
23. ``within_slates``: what songs add to Q is learned in the log from the differences between songs
    of the same slate; what they have in common teaches the session's value alone. Listeners chose
    those songs: who skips little plays other songs than who skips much, and a critic that compares
    them across sessions takes the mood of those who play a song for its merit. The agent's own
    songs follow from the very state that the critic sees.
24. ``mean_critic``: songs are chosen by the running mean of the critic's weights over the updates
    (Polyak & Juditsky, SIAM J. Control Optim. 30, 1992). The newest weights still follow the last
    few batches, and what tells songs apart is small beside the noise of one answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from musicbox_agents.base import Agent, AgentSettings, Callback, Observation
from musicbox_agents.ddpg import resume
from musicbox_agents.ddpg.descent import Adam, Follower, Function, Recorded
from musicbox_agents.ddpg.networks import (
    ENCODERS,
    Actor,
    Critic,
    State,
    embedded,
    newest_share,
    read,
    unit,
)
from musicbox_agents.ddpg.quality import FOLDS, TrackQuality, own_gauss, quality_in_log
from musicbox_agents.ddpg.replay import ReplayBuffer, Transitions
from musicbox_agents.threads import one_thread
from musicbox_env import ENV_ID
from musicbox_env.data.dataset import RATE_SUFFIX, Dataset
from musicbox_env.retrieval.exact import top_k_among
from musicbox_env.retrieval.search import Search
from musicbox_env.retrieval.spaces import rate_column
from musicbox_env.rewards import RewardConfig, discounts
from musicbox_env.rng import packed, unpacked
from musicbox_env.schema import is_skip, require_known
from musicbox_env.simulator.context import CONTEXT_SIZE
from musicbox_env.vector_env import MusicSessionVectorEnv

WEIGHTS = "weights.npz"
SQUASHES = ("unit", "tanh")
ACTIONS_SEEN = ("songs", "slate", "proto")
STARTS = ("heuristic", "cloned", "random")
QUALITIES = ("learned", "logged", "counted")
TRUSTED_UPDATES = 500
"""Updates after which what a critic leaves unexplained is told of the tracks, not of the critic."""
NEWEST_SHARE = 0.005
"""What the newest weights count in the mean critic, once there were many updates."""
_LOG_BATCH = 512
_BATCHES_AT_ONCE = 16
_ANYWHERE = 1e3


_LEAST = 1e-12
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("history_length", "slate_size", "hidden", "batch_size"), (1, np.inf)),
    **dict.fromkeys(("buffer_size", "num_envs", "log_sessions", "actor_delay"), (1, np.inf)),
    **dict.fromkeys(("cloning_updates", "warmup_updates", "learning_starts"), (0, np.inf)),
    **dict.fromkeys(("noise", "target_noise", "cloning_weight", "alignment_weight"), (0, np.inf)),
    **dict.fromkeys(("critic_decay", "quality_weight", "curiosity", "spread"), (0, np.inf)),
    **dict.fromkeys(("neighbours", "rerank", "quality_prior"), (0, np.inf)),
    **dict.fromkeys(("updates_per_step", "temperature"), (_LEAST, np.inf)),
    **dict.fromkeys(("tau", "actor_rate", "critic_rate"), (_LEAST, 1)),
    **dict.fromkeys(("gamma", "log_share"), (0, 1)),
    "critics": (1, 2),
}


@dataclass(frozen=True)
class DDPGSettings(AgentSettings):
    """Options of the agent; numbers in brackets are the departures of the module's page.

    Attributes:
        embedding: Space of actions and observations; None is the dataset's best, with the
            rate [3].
        history_length: Songs of the state; 20 is every session of the data set whole.
        slate_size: Songs of a slate.
        points: Points of an action: 1, or ``slate_size``, one for each place [14].
        squash: ``"unit"`` or ``"tanh"`` [1].
        critic_sees: Actions that the critic learns of: ``"songs"``, each song played with its own
            reward; ``"slate"``, their mean with the slate's; ``"proto"``, the points with the
            slate's [2].
        within_slates: Whether the log tells what songs add within slates alone; where a slate is
            one action there is nothing to compare [23].
        start: ``"heuristic"`` (mean of the songs played plus the rate axis), ``"cloned"`` or
            ``"random"`` [5].
        rate_weight: Length of the rate axis in the heuristic; a mean of songs is about 0.6 long.
        cloning_updates: Updates towards the log before the first slate, for ``"cloned"``.
        encoder: How sessions are read: ``"pooled"``, by statistics that need no learning;
            ``"recurrent"``, by a GRU beside them [4].
        hidden: Width of the networks.
        deep: Whether the critic has hidden layers over session and action together [19].
        layer_norm: Whether hidden layers are normalised [16].
        gamma: Discount from slate to slate [7].
        whole_slates: Whether rewards of slates heard in part are scaled to whole ones [8].
        tau: Share of the way that targets move at each update.
        mean_critic: Whether songs are chosen by the mean of the critic over the updates [24].
        actor_rate: Learning rate of the actor (Adam).
        critic_rate: Learning rate of the critic (AdamW, arXiv:1711.05101).
        critic_decay: Weight decay of the critic, in learning rates: logs are small [22].
        batch_size: Transitions of an update.
        buffer_size: Transitions remembered; the oldest are overwritten.
        num_envs: Sessions played in parallel while learning.
        updates_per_step: Updates for each slate recommended.
        learning_starts: Slates before the first update.
        noise: Exploration, as a share of the point's norm; 0.3 turns a point by about 17 degrees
            [9].
        log_share: Share of logged transitions in a batch; 0 is not to read the log [6].
        log_sessions: Logged sessions to read [6].
        warmup_updates: Updates of the critic on logged transitions before the first slate [6].
        neighbours: Nearest songs at which the actor climbs; 0 is at the point itself [10].
        temperature: Of the softmax over them; the scores of near neighbours differ by about this
            much [10].
        cloning_weight: Of the pull towards songs kept in the log, against Q of size 1 [11].
        alignment_weight: Of the pull towards the songs retrieved [12].
        rerank: Nearest songs among which the critic chooses; 0 is not to [13].
        quality: What the last axis of the space says of a song: ``"counted"``, its rate of being
            listened to in training, as the dataset has it; ``"logged"``, how much more it was
            listened to than its sessions predicted; ``"learned"``, the same, and learning goes on
            [3, 17].
        quality_prior: Plays that the prior of a song's quality is worth; None is what the log says
            of how much songs differ [17].
        curiosity: Standard deviations of doubt about its quality that are drawn and added to a
            song's Q while learning [20].
        quality_weight: What the quality axis counts when songs are chosen out of the catalog,
            in learning and after it; 1 is what the critic says [21].
        spread: The same when recommending, drawn anew by each session: songs that nobody can tell
            apart share the listeners [20].
        critics: 1, or 2 whose smaller target counts [15].
        actor_delay: Critic updates for each update of actor and targets [15].
        target_noise: Noise on the target action, as ``noise`` [15].
    """

    embedding: str | None = None
    history_length: int = 20
    slate_size: int = 3
    points: int = 1
    squash: str = "unit"
    critic_sees: str = "songs"
    within_slates: bool = True
    start: str = "heuristic"
    rate_weight: float = 0.4
    cloning_updates: int = 1_000
    encoder: str = "pooled"
    hidden: int = 32
    deep: bool = False
    layer_norm: bool = False
    gamma: float = 0.0
    whole_slates: bool = True
    tau: float = 0.005
    mean_critic: bool = True
    actor_rate: float = 3e-4
    critic_rate: float = 1e-3
    critic_decay: float = 1.0
    batch_size: int = 64
    buffer_size: int = 100_000
    num_envs: int = 64
    updates_per_step: float = 0.25
    learning_starts: int = 512
    noise: float = 0.3
    log_share: float = 0.5
    log_sessions: int = 5_000
    warmup_updates: int = 1_000
    neighbours: int = 0
    temperature: float = 0.05
    cloning_weight: float = 0.0
    alignment_weight: float = 0.0
    rerank: int = 50
    quality: str = "learned"
    quality_prior: float | None = None
    curiosity: float = 0.0
    quality_weight: float = 0.35
    spread: float = 0.0
    critics: int = 1
    actor_delay: int = 1
    target_noise: float = 0.0

    def __post_init__(self) -> None:
        require_known("squash", self.squash, SQUASHES)
        require_known("critic_sees", self.critic_sees, ACTIONS_SEEN)
        require_known("start", self.start, STARTS)
        require_known("encoder", self.encoder, ENCODERS)
        require_known("quality", self.quality, QUALITIES)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                most = "" if high == np.inf else f" and at most {high:g}"
                raise ValueError(
                    f"DDPG setting {name} is {value!r}; it must be at least {low:g}{most}."
                )
        if self.points not in (1, self.slate_size):
            raise ValueError(
                f"DDPG setting points is {self.points}; it must be 1, or slate_size "
                f"({self.slate_size}) for one point a place."
            )
        if self.rerank and self.points > 1:
            raise ValueError(
                f"rerank is {self.rerank} and points is {self.points}: the critic chooses among "
                "the songs nearest to one point. Take points=1, or rerank=0."
            )


Parts = TypeVar("Parts", bound=tuple)


class Batch(NamedTuple):
    """Transitions as the networks take them; see `replay.Transitions`.

    Attributes:
        state: Before the slate.
        actions: What the critic learns of ``(B, M, d)``.
        rewards: Of each of them ``(B, M)``.
        counted: Which of them there are ``(B, M)``.
        discount: Of the next state's value ``(B,)``, 0 where the session ended.
        next_state: After the slate; that before it where the discount is 0 anyway.
        heard: Tracks of the state ``(B, H)``, -1 pads; they stand for all that are barred, see
            `DDPGAgent._near`.
        next_heard: Tracks of the next state ``(B, H)``.
        logged: Which come from the log, where listeners chose the songs ``(B, 1)``.
    """

    state: State
    actions: Tensor
    rewards: Tensor
    counted: Tensor
    discount: Tensor
    next_state: State
    heard: Tensor
    next_heard: Tensor
    logged: Tensor


def divided(parts: Parts, size: int) -> list[Parts]:
    """Split nested tuples of tensors into rows of ``size`` each."""
    split = (
        part.split(size) if isinstance(part, Tensor) else divided(part, size) for part in parts
    )
    return [type(parts)(*pieces) for pieces in zip(*split, strict=True)]


class DDPGAgent(Agent):
    """Recommends, of the songs near its actor's point, those that its critic likes best."""

    name: ClassVar[str] = "ddpg"
    Settings: ClassVar[type[AgentSettings]] = DDPGSettings
    learns: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    acting: ClassVar[tuple[str, ...]] = ("rerank", "quality_weight", "spread")
    settings: DDPGSettings

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """Make an untrained agent; with ``start="heuristic"`` it recommends sensibly already."""
        super().__init__(dataset, seed=seed, settings=settings)
        config = self.settings
        self.embedding = config.embedding or dataset.default_embedding
        self.has_rate = self.embedding.endswith(RATE_SUFFIX)
        self.search = Search(dataset, self.embedding)
        self._rng = np.random.default_rng(seed)
        shape: dict[str, Any] = {
            "encoder": config.encoder,
            "hidden": config.hidden,
            "layer_norm": config.layer_norm,
            "rate": self.has_rate,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(
                self.dim, CONTEXT_SIZE, points=config.points, squash=config.squash, **shape
            )
            self.critics = nn.ModuleList(
                Critic(self.dim, CONTEXT_SIZE, deep=config.deep, **shape)
                for _ in range(config.critics)
            )
        if config.start == "heuristic":
            self.actor.start_at_heuristic(config.rate_weight)
        self.target_actor = deepcopy(self.actor).requires_grad_(False)
        self.target_critics = deepcopy(self.critics).requires_grad_(False)
        self.mean_critic = deepcopy(self.critics[0]).requires_grad_(False)
        self._actor_follower = Follower(self.target_actor, self.actor)
        self._critics_follower = Follower(self.target_critics, self.critics)
        self._mean_follower = Follower(self.mean_critic, self.critics[0])
        self._actor_adam = Adam(self.actor, config.actor_rate)
        self._critic_adam = Adam(self.critics, config.critic_rate, decay=config.critic_decay)
        self._critic_gradient: Function = self._gradient_of_critic
        self._actor_gradient: Function = self._gradient_of_actor
        if config.encoder == "pooled":  # a GRU packs sessions by their lengths
            weights = self._critic_adam.weights
            self._critic_gradient = Recorded(self._gradient_of_critic, weights)
            if not (config.neighbours or config.alignment_weight or config.cloning_weight):
                weights = [*self._actor_adam.weights, *weights]
                self._actor_gradient = Recorded(self._gradient_of_actor, weights)
        self.quality: TrackQuality | None = None
        self.memory = ReplayBuffer(config.buffer_size)
        self.log: ReplayBuffer | None = None
        self._updates = self._critic_updates = 0

    @property
    def space(self) -> npt.NDArray[np.float32]:
        """Where songs lie for this agent ``(num_tracks, dim)``; the last axis may be its own."""
        return self.search.space

    @property
    def dim(self) -> int:
        """Dimensions of the embedding space."""
        return self.space.shape[1]

    @property
    def env_options(self) -> dict[str, Any]:
        """Ids are observed, since the memory then holds a tenth of what vectors would take."""
        options: dict[str, Any] = {
            "observation": "ids",
            "action": "proto" if self.settings.points == 1 else "proto_list",
            "embedding": self.embedding,
            "history_length": self.settings.history_length,
        }
        if self._retrieves:
            options["action"] = "slate"
        if self._retrieves or self.settings.points > 1:
            options["slate_size"] = self.settings.slate_size
        return options

    @property
    def _retrieves(self) -> bool:
        """Whether the agent finds the songs itself, in a space or an order of its own."""
        return self.settings.rerank > 0 or self.settings.quality != "counted"

    # Acting.

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray, Any]:
        """Choose actions; see `Agent.predict`. The observation holds all: ``state`` is None."""
        single = observation["tracks"].ndim == 1
        if single:
            observation = {name: part[None] for name, part in observation.items()}
        points = self.points(observation)
        if not deterministic:
            points = self.explore(points)
        action = self._action(observation, points, curious=not deterministic)
        return (action[0] if single else action), None

    def _axis_weights(self, observation: Observation) -> npt.NDArray[np.float32]:
        """What each dimension of the space counts in acting ``(d,)`` [21].

        Among the few plays of a logged session there is nothing to spread: the critic has its say.
        """
        weights = np.ones(self.dim, np.float32)
        if self.has_rate and "candidates" not in observation:
            weights[-1] = self.settings.quality_weight
        return weights

    @torch.no_grad()
    def points(self, observation: Observation) -> npt.NDArray[np.float32]:
        """The actor's points for a batch of sessions ``(n, P, d)``."""
        return self.actor(self._state(observation)).numpy()

    def explore(
        self, points: npt.NDArray[np.float32], *, anywhere: bool = False
    ) -> npt.NDArray[np.float32]:
        """Add noise of ``noise`` times a point's norm, on average, and stay within bounds [9].

        With ``anywhere`` the points themselves are forgotten.
        """
        return self._perturbed(points, _ANYWHERE if anywhere else self.settings.noise)

    def _perturbed(self, points: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.float32]:
        norm = np.linalg.norm(points, axis=-1, keepdims=True)
        gauss = self._rng.standard_normal(points.shape, dtype=np.float32)
        noisy = points + share * norm * gauss / np.float32(np.sqrt(self.dim))
        if self.settings.squash == "tanh":
            return np.clip(noisy, -1, 1)
        return noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)

    def _action(
        self, observation: Observation, points: npt.NDArray[np.float32], *, curious: bool
    ) -> npt.NDArray:
        """What the environment is told: the points, or the slate that they lead to."""
        points = points * self._axis_weights(observation)
        if not self._retrieves:
            return points.reshape(len(points), -1)
        if not self.settings.rerank:
            return self._nearest_to_each(observation, points)
        return self._reranked(observation, points[:, 0], curious)

    def _nearest_to_each(
        self, observation: Observation, points: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int64]:
        """The songs nearest to one point, or the nearest to each that no place before has [14]."""
        size = self.settings.slate_size
        near = [
            self._nearest(observation, points[:, place], size) for place in range(points.shape[1])
        ]
        if len(near) == 1:
            return np.maximum(near[0], 0)
        slate = np.full_like(near[0], -1)
        for place, songs in enumerate(near):
            free = (songs[:, :, None] != slate[:, None, :]).all(axis=2)
            slate[:, place] = np.take_along_axis(songs, free.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.maximum(slate, 0)

    @torch.no_grad()
    def _reranked(
        self, observation: Observation, points: npt.NDArray[np.float32], curious: bool
    ) -> npt.NDArray[np.int64]:
        """The songs of highest Q among those nearest to the points ``(n, slate_size)`` [13]."""
        size = self.settings.slate_size
        near = self._nearest(observation, points, max(self.settings.rerank, size))
        songs = self._embed(near) * torch.from_numpy(self._axis_weights(observation))
        q = self._believed(self._state(observation), songs).numpy()
        q = np.where(near >= 0, q + self._doubts(observation, near, curious), -np.inf)
        best = np.argsort(-q, axis=1, kind="stable")[:, :size]
        return np.maximum(np.take_along_axis(near, best, axis=1), 0)

    def _doubts(
        self, observation: Observation, near: npt.NDArray[np.int64], curious: bool
    ) -> npt.NDArray[np.float32]:
        """A draw of what may be unknown of songs ``(n, k)``: Thompson sampling [20].

        While learning from the agent's random numbers; else from the session's own songs, so that
        the same session is always told the same.
        """
        size = self.settings.curiosity if curious else self.settings.spread
        if self.quality is None or not size:
            return np.zeros(near.shape, np.float32)
        if curious:
            gauss = self._rng.standard_normal(near.shape, dtype=np.float32)
        else:
            gauss = own_gauss(observation["tracks"], near)
        return size * gauss * self.quality.doubt(near)

    def _nearest(
        self, observation: Observation, points: npt.NDArray[np.float32], k: int
    ) -> npt.NDArray[np.int64]:
        """The k tracks nearest to each point that may be recommended ``(n, k)``, -1 for none."""
        if "candidates" not in observation:
            return self.search.top_k(points, k, observation["barred"])[0]
        candidates = observation["candidates"].astype(np.int64)
        # They come sorted by track, so that their places tell nothing of the log's order.
        order = np.broadcast_to(np.arange(candidates.shape[1]), candidates.shape)
        places = top_k_among(points, self.space, candidates, k, order)
        return np.where(places >= 0, np.take_along_axis(candidates, places, axis=1), -1)

    # What the networks see.

    def _embed(self, tracks: npt.NDArray[np.integer]) -> Tensor:
        return embedded(self.space, tracks)

    def _state(self, observation: Observation) -> State:
        return read(
            self.space,
            observation["tracks"],
            observation["levels"].astype(np.int8, copy=False),
            observation["context"].astype(np.float32, copy=False),
            rate=self.has_rate,
            ordered=self.settings.encoder == "recurrent",
        )

    def _embed_slate(self, rows: Transitions) -> Tensor:
        """Embeddings of the songs that were heard ``(n, k, d)``, 0 where none was."""
        songs = self._embed(rows.slate)
        if self.has_rate:
            told = ~np.isnan(rows.slate_rate)
            songs.numpy()[told, -1] = rows.slate_rate[told]
        return songs

    def _tensors(self, rows: Transitions, from_log: npt.NDArray[np.bool_] | None = None) -> Batch:
        """The batch of some transitions, and which are from the log ``(n,)``; all if left out."""
        if from_log is None:
            from_log = np.ones(len(rows), np.bool_)
        actions = self._embed_slate(rows)
        heard = rows.slate >= 0
        rewards: npt.NDArray[np.float32] = rows.song_reward
        counted: npt.NDArray[np.bool_] = heard
        if self.settings.critic_sees != "songs":
            count = np.maximum(heard.sum(axis=1, keepdims=True), 1)
            actions = actions.sum(dim=1, keepdim=True) / torch.from_numpy(count)[:, :, None]
            rewards, counted = rows.reward[:, None], heard.sum(axis=1, keepdims=True) > 0
        if self.settings.critic_sees == "proto":
            proto = torch.from_numpy(rows.action).view(len(rows), self.settings.points, self.dim)
            # The log has songs and no points.
            actions = torch.where(proto.isnan(), actions, proto)
            rewards = np.repeat(rewards, proto.shape[1], axis=1)
            counted = np.repeat(counted, proto.shape[1], axis=1)
        state = self._state(rows.before())
        following = rows.after() if self.settings.gamma else rows.before()
        return Batch(
            state,
            actions,
            torch.from_numpy(rewards),
            torch.from_numpy(counted),
            torch.from_numpy(rows.discount),
            self._state(following) if self.settings.gamma else state,
            torch.from_numpy(rows.tracks),
            torch.from_numpy(following["tracks"]),
            torch.from_numpy(from_log)[:, None],
        )

    # Learning: the algorithm.

    def learn(
        self,
        env_options: Mapping[str, Any],
        total_steps: int,
        *,
        callback: Callback | None = None,
        callback_every: int = 1_000,
        checkpoint: Path | None = None,
    ) -> Self:
        """Learn from recommending; see `Agent.learn`.

        One thread of torch is used while learning: the networks are too small to share out, and
        several trainings run side by side.
        """
        config = self.settings
        with one_thread(), open_env(self.dataset, env_options, self, config.num_envs) as env:
            report = _Report(callback, callback_every)
            kept = None if checkpoint is None else resume.newest(checkpoint)
            observation: Observation
            if kept is None:
                self._prepare(env_options)
                observation, _ = env.reset(seed=self._new_seeds(config.num_envs))
                rest = np.zeros(config.num_envs, np.bool_)
                steps, owed = 0, 0.0
            else:
                observation, rest, steps, owed = self._go_on(kept, env, report)
            while steps < total_steps:
                lost = config.start == "random" and steps < config.learning_starts
                points = self.explore(self.points(observation), anywhere=lost)
                action = self._action(observation, points, curious=True)
                following, reward, terminated, truncated, info = env.step(action)
                happened = self._transitions(
                    env, observation, points, info, reward, terminated, following
                )
                # The step after an end belongs to no session: the action was ignored, and the
                # observation is the next session's first (Gymnasium's NEXT_STEP autoreset).
                happened = happened[~rest]
                self.memory.add(happened)
                self._learn_quality(happened)
                report.played(points[~rest], happened)
                observation, rest = following, terminated | truncated
                steps += len(happened)
                if steps >= config.learning_starts:
                    owed += config.updates_per_step * len(happened)
                for batch in self._batches(int(owed), self._sources()):
                    report.learned(self.update(batch))
                owed %= 1
                called = report.call(steps, last=steps >= total_steps)
                if called and checkpoint is not None:
                    self._keep(checkpoint, env, report, rest, steps, owed)
        return self

    @property
    def _believed(self) -> Critic:
        """The critic that songs are chosen by [24]."""
        return cast(Critic, self.mean_critic if self.settings.mean_critic else self.critics[0])

    def update(self, batch: Batch) -> dict[str, float]:
        """One update of the critic and, every ``actor_delay`` times, of actor and targets."""
        losses = self._update_critic(batch)
        self._updates += 1
        if self._updates % self.settings.actor_delay == 0:
            actor_loss, *gradient = self._actor_gradient(batch)
            self._actor_adam.step(gradient)
            losses["actor_loss"] = float(actor_loss)
            if self.settings.gamma:  # else nobody asks the targets
                self._move_targets()
        return losses

    def _move_targets(self) -> None:
        self._actor_follower.move(self.settings.tau)
        self._critics_follower.move(self.settings.tau)

    def _update_critic(self, batch: Batch) -> dict[str, float]:
        loss, mean_q, *gradient = self._critic_gradient(batch, self.target(batch))
        self._critic_adam.step(gradient)
        if self.settings.mean_critic:
            share = newest_share(self._critic_updates, NEWEST_SHARE)
            self._mean_follower.move(share)
        self._critic_updates += 1
        return {"critic_loss": float(loss), "mean_q": float(mean_q)}

    def _gradient_of_critic(self, batch: Batch, target: Tensor) -> tuple[Tensor, ...]:
        """`critic_loss`, and its gradient in each weight."""
        loss, mean_q = self.critic_loss(batch, target)
        return loss.detach(), mean_q.detach(), *self._critic_adam.gradient(loss)

    def _gradient_of_actor(self, batch: Batch) -> tuple[Tensor, ...]:
        """`actor_loss`, and its gradient in each weight."""
        loss = self.actor_loss(batch)
        return loss.detach(), *self._actor_adam.gradient(loss)

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared error to a target ``(B, M)``, summed over the critics; and the mean of Q."""
        counted = batch.counted.to(target.dtype)
        number, losses = counted.sum(), []
        for critic in cast("Iterable[Critic]", self.critics):
            encoded = critic.encode(batch.state)
            q = critic.score(encoded, batch.actions)
            if self.settings.within_slates and q.shape[1] > 1:
                common = batch.logged * mean_counted(q - encoded.value, counted)
                q = q - common + common.detach()  # the same number without its gradient [23]
            losses.append(((q - target).square() * counted).sum() / number)
        return sum(losses[1:], losses[0]), (q * counted).sum() / number

    @torch.no_grad()
    def target(self, batch: Batch) -> Tensor:
        """``r + discount * min_i Q'_i(s', mu'(s'))``, the discount 0 at an end ``(B, M)``."""
        if self.settings.gamma == 0:
            return batch.rewards
        points = self.target_actor(batch.next_state)
        if self.settings.target_noise:
            noisy = self._perturbed(points.numpy(), self.settings.target_noise)
            points = torch.from_numpy(noisy)
        actions = points
        if self.settings.neighbours:
            slate = self.settings.slate_size if self.settings.points == 1 else 1
            near = self._near(points, batch.next_heard, slate)
            actions = self._embed(near)
        values = [critic(batch.next_state, actions) for critic in self.target_critics]
        lower = torch.stack([q.mean(dim=1) for q in values]).amin(dim=0)
        return batch.rewards + (batch.discount * lower)[:, None]

    def actor_loss(self, batch: Batch) -> Tensor:
        """Minus Q of the actor's own action, in units of the mean size of Q, and the pulls."""
        config = self.settings
        points = self.actor(batch.state)
        q = self._value_of(points, batch)
        loss = -q.mean() / q.detach().abs().mean().clamp(min=1e-6)
        if config.alignment_weight:
            slate = config.slate_size if config.points == 1 else 1
            songs = self._embed(self._near(points, batch.heard, slate))
            songs = songs.view(*points.shape[:2], slate, self.dim).mean(dim=2)
            loss = loss + config.alignment_weight * cosine_distance(points, songs)
        if config.cloning_weight and self.log is not None:
            loss = loss + config.cloning_weight * self.cloning_loss(self._draw_log())
        return loss

    def _value_of(self, points: Tensor, batch: Batch) -> Tensor:
        """Q of points ``(B, P)``, differentiable in them but not in the critic's weights.

        With ``neighbours`` it is ``sum_i p_i Q(s, song_i)`` over the songs nearest to a point,
        ``p = softmax(point . song / temperature)``: as the point turns, it lets go of some songs
        and takes others [10].
        """
        critic = cast(Critic, self.critics[0])
        with torch.no_grad():
            encoded = critic.encode(batch.state)
        if not self.settings.neighbours:
            return critic.score(encoded, points)
        near = self._near(points, batch.heard, self.settings.neighbours)
        songs = self._embed(near)
        with torch.no_grad():
            q = critic.score(encoded, songs)
        shape = (*points.shape[:2], self.settings.neighbours)
        scores = (songs.view(*shape, self.dim) @ points[..., None])[..., 0]
        weights = torch.softmax(scores / self.settings.temperature, dim=2)
        return (weights * q.view(shape)).sum(dim=2)

    def _near(self, points: Tensor, heard: Tensor, k: int) -> npt.NDArray[np.int64]:
        """The k tracks nearest to each point ``(B, P * k)``, without those heard of late.

        A stored transition knows the songs of its state and not all that the session's horizon
        bars, which would make it several times as large. They are enough here: what is found
        smooths the gradient and the target over neighbours, and nobody is recommended it.
        """
        queries = points.detach().flatten(0, 1).numpy()
        near, _ = self.search.top_k(queries, k, heard.numpy().repeat(points.shape[1], axis=0))
        return near.reshape(len(points), -1)

    def cloning_loss(self, rows: Transitions) -> Tensor:
        """1 - cosine of the actor's points and the songs of the logged slate that were kept."""
        kept = (rows.slate >= 0) & ~is_skip(rows.slate_levels)
        some = np.flatnonzero(kept.sum(axis=1))
        rows, kept = rows[some], kept[some]
        wanted = (self._embed_slate(rows) * torch.from_numpy(kept)[..., None]).sum(dim=1)
        return cosine_distance(self.actor(self._state(rows.before())), wanted[:, None])

    @torch.no_grad()
    def _learn_quality(self, happened: Transitions) -> None:
        """Note how much better each song was than the critic predicted of the session [17]."""
        trusted = self._critic_updates >= TRUSTED_UPDATES
        if self.quality is None or self.settings.quality != "learned" or not trusted:
            return
        if len(happened) == 0:  # all sessions have just ended
            return
        batch, heard = self._tensors(happened), happened.slate >= 0
        actions = batch.actions.clone()
        actions[..., -1] = 0
        left = self.target(batch) - self.critics[0](batch.state, actions)
        if self.settings.critic_sees != "songs":
            left = left.mean(dim=1, keepdim=True).expand(-1, heard.shape[1])
        self.quality.add(happened.slate[heard], left.numpy()[heard])
        self._turn_axis(np.unique(happened.slate[heard]))

    def _turn_axis(self, tracks: npt.NDArray[np.integer]) -> None:
        """Move tracks along the last axis of the space to what is known of them."""
        assert self.quality is not None
        self.search.move(tracks, self.quality.axis(tracks))

    # Learning: what feeds it.

    def _prepare(self, env_options: Mapping[str, Any]) -> None:
        """Read the log, clone it if asked, and let the critic learn from it first."""
        config = self.settings
        if self.log is not None:
            return
        rates = self._read_quality(env_options)
        if config.log_share == 0 and config.cloning_weight == 0 and config.start != "cloned":
            return
        self.log = self._read_log(env_options, rates)
        if config.start == "cloned":
            for _ in range(config.cloning_updates):
                self._actor_adam.descend(self.cloning_loss(self._draw_log()))
        if config.log_share > 0:
            for batch in self._batches(config.warmup_updates, [(self.log, config.batch_size)]):
                self._update_critic(batch)
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.target_critics.load_state_dict(self.critics.state_dict())

    def _read_quality(self, env_options: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Learn from the log how good songs are; gives the last axis as each fold alone has it."""
        if self.settings.quality == "counted" or not self.has_rate:
            return {fold: rate_column(self.dataset.catalog, fold) for fold in FOLDS}
        reward = RewardConfig.from_mapping(env_options.get("reward"))
        unit = (reward.gamma_position ** np.arange(self.settings.slate_size)).sum()
        read = quality_in_log(
            self.dataset, self.space[:, :-1], reward, self.settings.quality_prior, unit
        )
        self.quality = read["train"]
        everything = np.arange(len(self.space))
        self._turn_axis(everything)
        return {fold: read[fold].axis(everything) for fold in FOLDS}

    def _read_log(
        self, env_options: Mapping[str, Any], rates: Mapping[str, npt.NDArray[np.float32]]
    ) -> ReplayBuffer:
        """Transitions of logged sessions: the environment, playing what was played.

        The replay listener answers every song that the log still holds with its logged level, so
        these are facts whatever listener the agent learns with. Only training sessions are read.

        The rate column counts the very labels that are learned from here, and would look twice as
        telling as it is to new listeners; so sessions of one fold see the rates of the other.
        """
        own = {**self.env_options, "action": "slate", "listener": "replay", "repeats": True}
        options = {**env_options, **own, "candidates": "catalog", "horizon": None}
        parts: list[Transitions] = []
        folds = env_options.get("split", "train")
        other = {"train_a": "train_b", "train_b": "train_a"}
        for sessions, fold in self._logged_sessions(folds):
            with open_env(self.dataset, options, None, len(sessions)) as env:
                observation, _ = env.reset(
                    seed=self._new_seeds(len(sessions)), options={"session": sessions}
                )
                over = np.zeros(len(sessions), np.bool_)
                everyone = np.arange(len(sessions))
                nowhere = np.full((len(sessions), self.settings.points, self.dim), np.nan)
                while not over.all():
                    slate = env.simulator.remaining_log(everyone)[:, : env.config.slate_size]
                    played = np.maximum(slate, 0).astype(np.int64)
                    following, reward, terminated, _, info = env.step(played)
                    happened = self._transitions(
                        env, observation, nowhere, info, reward, terminated, following
                    )
                    if self.has_rate:
                        happened.slate_rate[:] = rates[other[fold]][happened.slate]
                    parts.append(happened[~over])
                    observation, over = following, terminated
        if not parts:
            raise ValueError(
                f"{self.dataset.folder} has no training session of two plays to learn from; pass "
                "log_share=0 and start='heuristic' to learn without the log."
            )
        everything = Transitions.joined(parts)
        log = ReplayBuffer(len(everything))
        log.add(everything)
        return log

    def _logged_sessions(self, split: str) -> Iterator[tuple[npt.NDArray[np.int64], str]]:
        """Training sessions to read, in batches of one fold; never those of another split."""
        log = self.dataset.sessions
        folds = (split,) if split in FOLDS else FOLDS
        for fold in folds:
            sessions = log.playable(fold)
            number = min(self.settings.log_sessions // len(folds), len(sessions))
            chosen = self._rng.choice(sessions, size=number, replace=False)
            for start in range(0, number, _LOG_BATCH):
                yield chosen[start : start + _LOG_BATCH], fold

    def _transitions(
        self,
        env: MusicSessionVectorEnv,
        observation: Observation,
        points: npt.NDArray,
        info: Mapping[str, Any],
        reward: npt.NDArray[np.float64],
        terminated: npt.NDArray[np.bool_],
        following: Observation,
    ) -> Transitions:
        """What a step of all sessions was, for the memory; ``truncated`` is no end of the world."""
        levels = info["levels"]
        asked = None if self.settings.critic_sees == "proto" else 0  # 132 bytes each
        weight = discounts(env.config.reward.gamma_position, levels.shape[1])
        heard, of_songs = levels >= 0, info["song_reward"]
        of_slate = reward - of_songs @ weight
        if self.settings.whole_slates:
            share = (heard @ weight) / weight.sum()
            reward = reward / np.where(share > 0, share, 1)
        return Transitions(
            tracks=observation["tracks"],
            levels=observation["levels"],
            context=observation["context"],
            action=points.reshape(len(points), -1)[:, :asked].astype(np.float32),
            slate=info["slate"].astype(np.int32),
            slate_levels=levels,
            slate_rate=np.full(levels.shape, np.nan, np.float32),
            reward=reward.astype(np.float32),
            song_reward=((of_songs * weight.sum() + of_slate[:, None]) * heard).astype(np.float32),
            discount=(self.settings.gamma * ~terminated).astype(np.float32),
            next_position=following["context"][:, -1],
        )

    def _sources(self) -> list[tuple[ReplayBuffer, int]]:
        """Where a batch comes from, and how many of its transitions."""
        size = self.settings.batch_size
        logged = 0 if self.log is None else round(self.settings.log_share * size)
        sources = [(self.memory, size - logged)] if logged < size else []
        return sources if self.log is None or not logged else [*sources, (self.log, logged)]

    def _batches(self, number: int, sources: Sequence[tuple[ReplayBuffer, int]]) -> Iterator[Batch]:
        """Draw batches; several are read at once, which takes half as long."""
        config = self.settings
        # Updates that draw numbers themselves draw them between batches.
        at_once = 1 if config.target_noise or config.cloning_weight else _BATCHES_AT_ONCE
        from_log = np.concatenate([np.full(size, memory is self.log) for memory, size in sources])
        for first in range(0, number, at_once):
            some = min(at_once, number - first)
            drawn = [[memory.draw(self._rng, n) for memory, n in sources] for _ in range(some)]
            parts = [
                memory.stored[np.stack(places)]
                for (memory, _), places in zip(sources, zip(*drawn, strict=True), strict=True)
            ]
            rows = self._tensors(Transitions.mixed(parts), np.tile(from_log, some))
            yield from divided(rows, len(from_log))

    def _draw_log(self) -> Transitions:
        assert self.log is not None
        return self.log.sample(self._rng, self.settings.batch_size)

    def _new_seeds(self, number: int) -> list[int]:
        """Seeds of sessions, unlike any other agent's: ``seed + i`` would share all but a few."""
        return self._rng.integers(2**31, size=number).tolist()

    # Keeping.

    def _keep(
        self,
        checkpoint: Path,
        env: MusicSessionVectorEnv,
        report: _Report,
        rest: npt.NDArray[np.bool_],
        steps: int,
        owed: float,
    ) -> None:
        """Write all that the training is; `_go_on` reads it."""
        loop = {"rest": rest, "owed": np.array(owed), "steps": np.array(steps)}
        counters = {"updates": self._updates, "critic_updates": self._critic_updates}
        log = {} if self.log is None else self.log.arrays()
        arrays = {
            **resume.named("loop", loop),
            **resume.named("report", report.arrays()),
            **resume.named("counters", {n: np.array(c) for n, c in counters.items()}),
            **resume.named("rng", {"state": packed(self._rng)}),
            **resume.named("env", env.arrays()),
            **resume.named("memory", self.memory.arrays()),
            **resume.named("log", log),
        }
        for name, optimizer in self._optimizers().items():
            arrays |= resume.named(name, optimizer.arrays())
        resume.keep(checkpoint, steps, self, arrays)

    def _go_on(
        self, kept: Path, env: MusicSessionVectorEnv, report: _Report
    ) -> tuple[Observation, npt.NDArray[np.bool_], int, float]:
        """Be as the agent was that wrote a checkpoint; gives where its loop stood."""
        arrays = resume.read(kept)
        self._load_weights(kept)
        for name, optimizer in self._optimizers().items():
            optimizer.restore(resume.part(name, arrays))
        self._updates = int(arrays["counters.updates"])
        self._critic_updates = int(arrays["counters.critic_updates"])
        self._rng = unpacked(arrays["rng.state"])
        self.memory = ReplayBuffer.restored(
            self.settings.buffer_size, resume.part("memory", arrays)
        )
        if "log.added" in arrays:
            self.log = ReplayBuffer.restored(int(arrays["log.added"]), resume.part("log", arrays))
        report.restore(resume.part("report", arrays))
        observation = env.restore(resume.part("env", arrays))
        loop = resume.part("loop", arrays)
        return observation, loop["rest"], int(loop["steps"]), float(loop["owed"])

    def _optimizers(self) -> dict[str, Adam]:
        return {"actor_adam": self._actor_adam, "critic_adam": self._critic_adam}

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "actor": self.actor,
            "critics": self.critics,
            "target_actor": self.target_actor,
            "target_critics": self.target_critics,
            "mean_critic": self.mean_critic,
        }

    def _save_weights(self, folder: Path) -> None:
        """Weights of all networks; neither memory nor the state of the optimisers."""
        arrays: dict[str, Any] = {
            f"{name}.{key}": value.numpy()
            for name, module in self._modules().items()
            for key, value in module.state_dict().items()
        }
        if self.quality is not None:
            arrays |= {f"quality.{k}": value for k, value in self.quality.arrays().items()}
        with (folder / WEIGHTS).open("wb") as file:
            np.savez(file, **arrays)

    def _load_weights(self, folder: Path) -> None:
        with np.load(folder / WEIGHTS, allow_pickle=False) as arrays:
            if "quality.sum" in arrays:
                saved = {
                    name.removeprefix("quality."): arrays[name]
                    for name in arrays.files
                    if name.startswith("quality.")
                }
                self.quality = TrackQuality.of(saved)
                self._turn_axis(np.arange(len(self.space)))
            for name, module in self._modules().items():
                prefix = f"{name}."
                module.load_state_dict(
                    {
                        key.removeprefix(prefix): torch.from_numpy(arrays[key])
                        for key in arrays.files
                        if key.startswith(prefix)
                    }
                )


def mean_counted(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of those of a row's values ``(B, M)`` that count, ``(B, 1)``; 0 where none does."""
    number = counted.sum(dim=1, keepdim=True).clamp(min=1)
    return (values * counted).sum(dim=1, keepdim=True) / number


def cosine_distance(points: Tensor, wanted: Tensor) -> Tensor:
    """Mean of 1 - cosine, along the last axis."""
    return 1 - (unit(points) * unit(wanted)).sum(dim=-1).mean()


@contextmanager
def open_env(
    dataset: Dataset, options: Mapping[str, Any], agent: Agent | None, num_envs: int
) -> Iterator[MusicSessionVectorEnv]:
    """Open parallel sessions for an agent, on the dataset that it was made for.

    Raises:
        ValueError: ``options`` name another dataset.
    """
    options = {**options, **(agent.env_options if agent else {})}
    mode = "NextStep" if agent else "Disabled"
    env = gym.make_vec(
        ENV_ID,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        **options,
    )
    assert isinstance(env, MusicSessionVectorEnv)
    try:
        if env.assets.dataset.folder.resolve() != dataset.folder.resolve():
            raise ValueError(
                f"The agent was made for {dataset.folder} and shall learn on "
                f"{env.assets.dataset.folder}; its track numbers mean other songs there. "
                "Make the agent with the dataset that env_options['data'] names."
            )
        yield env
    finally:
        env.close()


class _Report:
    """Gathers what is worth plotting, and tells the callback now and then."""

    def __init__(self, callback: Callback | None, every: int) -> None:
        self._callback, self._every, self._next = callback, every, every
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._points: list[npt.NDArray[np.float32]] = []
        self._happened: list[Transitions] = []
        self._updates = self._critic_updates = 0

    def played(self, points: npt.NDArray[np.float32], happened: Transitions) -> None:
        self._points.append(points)
        self._happened.append(happened)

    def learned(self, losses: Mapping[str, float]) -> None:
        self._updates += 1
        for name, value in losses.items():
            self._losses[name].append(value)

    def arrays(self) -> dict[str, npt.NDArray]:
        """What it knows right after a call."""
        return {"next": np.array(self._next), "updates": np.array(self._updates)}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        self._next, self._updates = int(arrays["next"]), int(arrays["updates"])

    def call(self, steps: int, *, last: bool) -> bool:
        """Tell the callback if it is time; gives whether it was."""
        if steps < self._next and not last:
            return False
        self._next = steps + self._every
        if self._callback is not None:
            self._callback(steps, self._metrics())
        self._losses.clear()
        self._points, self._happened = [], []
        return True

    def _metrics(self) -> dict[str, float]:
        """Means since the last call."""
        happened = Transitions.joined(self._happened)
        heard = happened.slate >= 0
        return {
            **{name: float(np.mean(values)) for name, values in self._losses.items()},
            "updates": float(self._updates),
            "reward": float(happened.reward.mean()),
            "skip_rate": float(is_skip(happened.slate_levels)[heard].mean()),
            "action_cosine": mean_cosine(np.concatenate(self._points)[:, 0]),
            "distinct_songs": float(len(np.unique(happened.slate[heard]))),
        }


def mean_cosine(points: npt.NDArray[np.float32]) -> float:
    """Mean cosine of all pairs of points ``(n, d)``: 1 where everybody is told the same."""
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    n = len(units)
    return float((np.square(units.sum(axis=0)).sum() - n) / max(n * (n - 1), 1))
