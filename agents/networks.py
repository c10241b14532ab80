"""Networks of the DDPG agent: what they see of a session, the actor and the critic.

Shapes: ``B`` sessions of a batch, ``H`` places of the history, ``d`` dimensions of the embedding
space, ``P`` points of an action (one, or one for each place of the slate).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD

POOLS = ("played", "kept", "skipped")
"""Groups of songs whose mean embeddings the networks see, in this order."""


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
        return torch.cat([self._read(state), state.context, share_played, share_skipped], dim=1)

    def _read(self, state: State) -> Tensor:
        """Hidden state of the GRU after the newest song ``(B, hidden)``.

        The songs are moved to the front and the padding behind them, where the GRU reaches it
        only after the newest song; so padding never touches the result.
        """
        length = state.levels.shape[1]
        count = (state.levels >= 0).sum(dim=1)
        place = (torch.arange(length) - count[:, None]) % length
        # One-hot of level + 1, without the column of the padding.
        levels = functional.one_hot(state.levels + 1, NUM_LEVELS + 1)[..., 1:]
        plays = torch.cat([state.songs, levels.to(state.songs.dtype)], dim=2)
        plays = plays.gather(1, place[:, :, None].expand_as(plays))
        outputs, _ = self.gru(plays)
        newest = (count - 1).clamp(min=0)[:, None, None].expand(-1, 1, outputs.shape[2])
        return outputs.gather(1, newest)[:, 0] * (count > 0)[:, None]


def hidden_layer(inputs: int, outputs: int, layer_norm: bool) -> nn.Sequential:
    """Linear layer and ReLU, with layer normalisation (arXiv:1607.06450) in between if asked."""
    norm = [nn.LayerNorm(outputs)] if layer_norm else []
    return nn.Sequential(nn.Linear(inputs, outputs), *norm, nn.ReLU())


class Actor(nn.Module):
    """Maps a session to a proto-action: one point of the embedding space, or one a place.

    ::

        point = squash(sum_j gate_j(s) M_j mean_j(s)  +  constant  +  correction(s))

    with j over the songs played, kept and skipped. Matrices M and the constant say which direction
    to go for everybody with the same songs; gates and correction come from the recurrent summary.
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
    ) -> None:
        """Make an actor with random weights.

        Args:
            dim: Dimensions of the embedding space.
            context_size: Number of context features.
            points: Points of an action.
            hidden: Width of its layers.
            layer_norm: Whether hidden layers are normalised.
            squash: ``"unit"``, each point of norm 1; ``"tanh"``, as DDPG (arXiv:1509.02971).
        """
        super().__init__()
        self.dim, self.points, self.squash = dim, points, squash
        self.encoder = SessionEncoder(dim, context_size, hidden)
        self.maps = nn.Parameter(torch.randn(len(POOLS), dim, dim) / dim**0.5)
        self.constant = nn.Parameter(torch.zeros(points, dim))
        self.trunk = hidden_layer(self.encoder.size, hidden, layer_norm)
        self.gates = nn.Linear(hidden, points * len(POOLS))
        self.correction = nn.Linear(hidden, points * dim)

    def forward(self, state: State) -> Tensor:
        """Points ``(B, P, d)``."""
        features = self.trunk(self.encoder(state))
        means = torch.einsum("bjd,jde->bje", pool(state), self.maps)
        gates = 1 + self.gates(features).view(-1, self.points, len(POOLS))
        correction = self.correction(features).view(-1, self.points, self.dim)
        point = gates @ means + self.constant + correction
        return torch.tanh(point) if self.squash == "tanh" else unit(point)

    @torch.no_grad()
    def start_at_heuristic(self, rate_weight: float | None) -> None:
        """Set the weights so that each point is the mean of the songs played plus the rate axis.

        Everything else starts at exactly zero and has a gradient from the first step, but for the
        layers below gates and correction, which get one as soon as those move.

        Args:
            rate_weight: Length along the last axis of the space, the rate; None where the space
                has no such axis.
        """
        for weights in (self.maps, self.constant, *self.gates.parameters()):
            weights.zero_()
        for weights in self.correction.parameters():
            weights.zero_()
        self.maps[0] = torch.eye(self.dim)
        if rate_weight is not None:
            self.maps[0, -1, -1] = 0
            self.constant[:, -1] = rate_weight


class Critic(nn.Module):
    """Value of recommending in a session: Q(s, a) of the songs' (mean) embedding a.

    Beside session and action it is shown the products of the action with what was played, kept and
    skipped, so that "like what you play" is one weight and need not be found by a hidden layer.
    A linear part beside the hidden layers finds such effects early ("wide and deep",
    arXiv:1606.07792).
    """

    def __init__(
        self,
        dim: int,
        context_size: int,
        *,
        points: int = 1,
        hidden: int = 32,
        layer_norm: bool = False,
    ) -> None:
        """Make a critic with random weights; arguments as `Actor`."""
        super().__init__()
        self.encoder = SessionEncoder(dim, context_size, hidden)
        inputs = self.encoder.size + points * (dim + len(POOLS) * (dim + 1))
        self.deep = nn.Sequential(
            hidden_layer(inputs, 2 * hidden, layer_norm),
            hidden_layer(2 * hidden, hidden, layer_norm),
            nn.Linear(hidden, 1),
        )
        self.wide = nn.Linear(inputs, 1)

    def forward(self, state: State, action: Tensor) -> Tensor:
        """Q ``(B,)`` of actions ``(B, P, d)``."""
        return self.score(self.encoder(state), pool(state), action)

    def score(self, summary: Tensor, means: Tensor, action: Tensor) -> Tensor:
        """The same from an encoded session, for many actions in one session.

        Args:
            summary: Of the encoder ``(B, size)``.
            means: From `pool` ``(B, 3, d)``.
            action: ``(B, P, d)``.
        """
        products = action[:, :, None] * means[:, None]
        parts = [summary, action.flatten(1), products.flatten(1), products.sum(dim=3).flatten(1)]
        inputs = torch.cat(parts, dim=1)
        return (self.deep(inputs) + self.wide(inputs))[:, 0]


@torch.no_grad()
def move_towards(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Polyak averaging: ``target <- tau * source + (1 - tau) * target`` (arXiv:1509.02971)."""
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new, tau)
