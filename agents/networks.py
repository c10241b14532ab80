"""Networks of the DDPG agent: what they see of a session, the actor and the critic.

Shapes: ``B`` sessions of a batch, ``H`` places of the history, ``d`` dimensions of the embedding
space, ``P`` points of an action (one, or one for each place of the slate).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from musicbox_env.kernels import gru_factors, gru_step
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD

POOLS = ("played", "kept", "skipped")
"""Groups of songs whose mean embeddings the networks see, in this order."""

SLOW = 0.1
"""Factor on a critic's direction: Adam moves every weight by the learning rate, signal or noise,
and a direction has many weights with little signal each."""


class State(NamedTuple):
    """A batch of sessions as the networks see them; padding is in front, the newest song last.

    Attributes:
        songs: Embeddings of the songs heard ``(B, H, d)``, 0 where padded.
        levels: How far each was heard ``(B, H)`` int64, -1 where padded.
        context: Context features of the observation ``(B, c)``.
    """

    songs: Tensor
    levels: Tensor
    context: Tensor


def unit(points: Tensor) -> Tensor:
    """Scale to norm 1 along the last axis: retrieval by dot product looks at nothing else."""
    return functional.normalize(points, dim=-1)


def pool(state: State) -> Tensor:
    """Mean embedding of the songs played, kept and skipped ``(B, 3, d)``; 0 where there is none.

    Kept apart since they say different things: taste shows in everything that was played, whereas
    kept minus skipped cancels it, because skipped songs share the liked genre.
    """
    played = state.levels >= 0
    skipped = played & (state.levels < SKIP_THRESHOLD)
    groups = torch.stack([played, played & ~skipped, skipped], dim=1).to(state.songs.dtype)
    return groups @ state.songs / groups.sum(dim=2, keepdim=True).clamp(min=1)


def taste(means: Tensor, rate: bool) -> Tensor:
    """Mean embeddings without the rate: that of the songs played says nothing of what is liked."""
    if not rate:
        return means
    return torch.cat([means[..., :-1], torch.zeros_like(means[..., :1])], dim=-1)


class Recurrence(torch.autograd.Function):
    """What ``torch.nn.GRU`` of one layer remembers at the end, and its gradients, much faster.

    For networks as small as these torch spends most of its time on starting operations, dozens for
    each place; here a place is one product and one compiled loop. And padding is left out: plays
    are packed place after place, sessions of many plays first, so that those that have begun are
    always the first rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plays: Tensor,
        played: Tensor,
        of_input: Tensor,
        of_memory: Tensor,
        b: Tensor,
        c: Tensor,
    ) -> Tensor:
        """Memory after the newest play ``(B, H)``, 0 where there is none.

        Args:
            ctx: What `backward` needs.
            plays: ``(B, T, inputs)``, the newest last.
            played: True where there is a play, False for the padding in front ``(B, T)``.
            of_input: Weights ``(3 H, inputs)``.
            of_memory: Weights ``(3 H, H)``.
            b: Bias beside the first ``(3 H,)``.
            c: Bias beside the second ``(3 H,)``.
        """
        weights = [part.detach().numpy() for part in (of_input, of_memory, b, c)]
        real = played.numpy()
        order = np.argsort(-real.sum(axis=1), kind="stable")
        place, session = np.nonzero(real[order].T)
        inputs = plays.detach().numpy()[order[session], place]
        begun = real.sum(axis=0)
        x = inputs @ weights[0].T
        m = np.empty_like(x)
        before = np.empty((len(x), of_memory.shape[1]), np.float32)
        memory = np.zeros((len(real), of_memory.shape[1]), np.float32)
        for part, k in _places(begun):
            before[part] = memory[:k]
            np.matmul(before[part], weights[1].T, out=m[part])
            gru_step(
                x[None, part],
                m[None, part],
                weights[2][None],
                weights[3][None],
                before[part, None],
                memory[:k, None],
            )
        ctx.kept = inputs, order, begun, x, m, before, weights
        newest = np.empty_like(memory)
        newest[order] = memory
        return torch.from_numpy(newest)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by all weights; none by the plays, which are data.

        Those at a place are multiples of the one by its memory: the factors come from all places
        at once, and only the multiplication goes from place to place.
        """
        inputs, order, begun, x, m, before, (_, of_memory, b, c) = ctx.kept
        size = before.shape[1]
        factors = np.empty((len(x), 5, size), np.float32)
        gru_factors(x, m, b, c, before, factors)
        back = gradient.numpy()[order]
        for part, k in reversed(_places(begun)):
            factors[part] *= back[:k, None]
            np.matmul(factors[part, :3].reshape(k, -1), of_memory, out=back[:k])
            back[:k] += factors[part, 4]
        by_m = factors[:, :3].reshape(len(x), -1)
        by_x = factors[:, [0, 1, 3]].reshape(len(x), -1)
        gradients = by_x.T @ inputs, by_m.T @ before, by_x.sum(axis=0), by_m.sum(axis=0)
        return None, None, *(torch.from_numpy(part) for part in gradients)


def _places(begun: npt.NDArray[np.int64]) -> list[tuple[slice, int]]:
    """Where the plays of each place lie when packed, and how many they are."""
    ends = np.cumsum(begun).tolist()
    return [(slice(end - k, end), k) for end, k in zip(ends, begun.tolist(), strict=True) if k]


class SessionEncoder(nn.Module):
    """Reads a session: a GRU over the songs in order, and plain statistics that need no learning.

    Attributes:
        size: Length of the summary.
    """

    def __init__(self, dim: int, context_size: int, hidden: int) -> None:
        """Make an encoder.

        Args:
            dim: Dimensions of the embedding space.
            context_size: Number of context features.
            hidden: Width of the GRU.
        """
        super().__init__()
        self.gru = nn.GRU(dim + NUM_LEVELS, hidden, batch_first=True)
        self.size = hidden + context_size + 2

    def forward(self, state: State) -> Tensor:
        """Summarise sessions: ``(B, size)``."""
        played = (state.levels >= 0).to(state.songs.dtype)
        skipped = played * (state.levels < SKIP_THRESHOLD)
        share_played = played.mean(dim=1, keepdim=True)
        share_skipped = skipped.sum(dim=1, keepdim=True) / played.sum(1, keepdim=True).clamp(min=1)
        # One-hot of level + 1, without the column of the padding.
        levels = functional.one_hot(state.levels + 1, NUM_LEVELS + 1)[..., 1:]
        plays = torch.cat([state.songs, levels.to(state.songs.dtype)], dim=2)
        gru = self.gru
        weights = gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0
        memory: Tensor = Recurrence.apply(plays, state.levels >= 0, *weights)
        return torch.cat([memory, state.context, share_played, share_skipped], dim=1)


def hidden_layer(inputs: int, outputs: int, layer_norm: bool) -> nn.Sequential:
    """Linear layer and ReLU, with layer normalisation (arXiv:1607.06450) in between if asked."""
    norm = [nn.LayerNorm(outputs)] if layer_norm else []
    return nn.Sequential(nn.Linear(inputs, outputs), *norm, nn.ReLU())


class Actor(nn.Module):
    """Maps a session to a proto-action: one point of the embedding space, or one a place.

    ::

        point = squash(sum_j gate_j(s) mean_j(s)  +  constant  +  correction(s))

    with j over the songs played, kept and skipped. Gates and correction come from the recurrent
    summary; the constant is what everybody gets.
    """

    def __init__(
        self,
        dim: int,
        context_size: int,
        *,
        points: int = 1,
        hidden: int = 32,
        layer_norm: bool = False,
        squash: str = "unit",
        rate: bool = False,
    ) -> None:
        """Make an actor with random weights.

        Args:
            dim: Dimensions of the embedding space.
            context_size: Number of context features.
            points: Points of an action.
            hidden: Width of its layers.
            layer_norm: Whether hidden layers are normalised.
            squash: ``"unit"``, each point of norm 1; ``"tanh"``, as DDPG (arXiv:1509.02971).
            rate: Whether the last dimension is the songs' rate.
        """
        super().__init__()
        self.dim, self.points, self.squash, self.rate = dim, points, squash, rate
        self.encoder = SessionEncoder(dim, context_size, hidden)
        self.trunk = hidden_layer(self.encoder.size, hidden, layer_norm)
        self.gates = nn.Linear(hidden, points * len(POOLS))
        self.constant = nn.Parameter(torch.zeros(points, dim))
        self.correction = nn.Linear(hidden, points * dim)

    def forward(self, state: State) -> Tensor:
        """Points ``(B, P, d)``."""
        features = self.trunk(self.encoder(state))
        gates = self.gates(features).view(-1, self.points, len(POOLS))
        correction = self.correction(features).view(-1, self.points, self.dim)
        point = gates @ taste(pool(state), self.rate) + self.constant + correction
        return torch.tanh(point) if self.squash == "tanh" else unit(point)

    @torch.no_grad()
    def start_at_heuristic(self, rate_weight: float) -> None:
        """Set the weights so that each point is the mean of the songs played plus the rate axis.

        All else of the last layers starts at zero and has a gradient from the first step; the
        layers below get one as soon as those have moved.

        Args:
            rate_weight: Length along the rate axis, if the space has one.
        """
        for weights in (self.constant, *self.gates.parameters(), *self.correction.parameters()):
            weights.zero_()
        self.gates.bias[:: len(POOLS)] = 1
        if self.rate:
            self.constant[:, -1] = rate_weight


class Critic(nn.Module):
    """Value of recommending in a session: Q(s, a) of a song, or of any point of its space.

    ::

        Q(s, a) = value(s) + sum_j gain_j(s) (mean_j(s) . a)  +  direction . a  [+ deep(s, a)]

    with j over the songs played, kept and skipped: "like what you play" is one weight, and how
    much that counts in this session another. Without the deep part Q is linear in a, so that the
    actor finds at any point the same gradient, learned from all songs together. A deep part can
    say more, and needs many times the plays to say it.
    """

    def __init__(
        self,
        dim: int,
        context_size: int,
        *,
        hidden: int = 32,
        layer_norm: bool = False,
        deep: bool = False,
        rate: bool = False,
    ) -> None:
        """Make a critic that thinks all actions equal.

        Args:
            dim: Dimensions of the embedding space.
            context_size: Number of context features.
            hidden: Width of its layers.
            layer_norm: Whether hidden layers are normalised.
            deep: Whether it has a deep part.
            rate: Whether the last dimension is the songs' rate, which then gets a gain of its own.
        """
        super().__init__()
        self.encoder = SessionEncoder(dim, context_size, hidden)
        self.rate = rate
        self.value = nn.Sequential(
            hidden_layer(self.encoder.size, hidden, layer_norm), nn.Linear(hidden, 1)
        )
        self.gains = nn.Sequential(
            hidden_layer(self.encoder.size, hidden, layer_norm),
            nn.Linear(hidden, len(POOLS) + rate),
        )
        self.direction = nn.Parameter(torch.zeros(dim))
        self.deep: nn.Sequential | None = None
        if deep:
            inputs = self.encoder.size + dim + len(POOLS) * dim
            self.deep = nn.Sequential(
                hidden_layer(inputs, 2 * hidden, layer_norm),
                hidden_layer(2 * hidden, hidden, layer_norm),
                nn.Linear(hidden, 1),
            )
        last = [self.gains[-1]] if self.deep is None else [self.gains[-1], self.deep[-1]]
        for layer in last:
            for weights in layer.parameters():
                nn.init.zeros_(weights)

    def forward(self, state: State, actions: Tensor) -> Tensor:
        """Q ``(B, M)`` of M actions in each session ``(B, M, d)``."""
        return self.score(self.encoder(state), pool(state), actions)

    def score(self, summary: Tensor, means: Tensor, actions: Tensor) -> Tensor:
        """The same from a session that was read already.

        Args:
            summary: Of the encoder ``(B, size)``.
            means: From `pool` ``(B, 3, d)``.
            actions: ``(B, M, d)``.
        """
        similar = taste(means, self.rate)
        if self.rate:
            axis = torch.zeros(len(means), 1, means.shape[2])
            axis[..., -1] = 1
            similar = torch.cat([similar, axis], dim=1)
        towards = self.gains(summary)[:, None] @ similar + SLOW * self.direction
        q = self.value(summary) + (actions @ towards.mT)[..., 0]
        if self.deep is not None:
            products = (actions[:, :, None] * means[:, None]).flatten(2)
            summary = summary[:, None].expand(-1, actions.shape[1], -1)
            q = q + self.deep(torch.cat([summary, actions, products], dim=2))[..., 0]
        return q


def adam(module: nn.Module, rate: float, *, decay: float = 0.0) -> torch.optim.AdamW:
    """Adam over all weights in one operation, where torch would start ten for each.

    Args:
        module: Whose weights.
        rate: Learning rate.
        decay: Of the weights, times the rate (AdamW, arXiv:1711.05101).
    """
    return torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay, fused=True)


@torch.no_grad()
def move_towards(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Polyak averaging: ``target <- tau * source + (1 - tau) * target`` (arXiv:1509.02971)."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), tau)
