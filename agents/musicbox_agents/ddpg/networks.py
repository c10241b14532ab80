"""Networks of the DDPG agent: what they see of a session, the actor and the critic.

Shapes: ``B`` sessions of a batch, ``H`` places of the history, ``d`` dimensions of the embedding
space, ``P`` points of an action (one, or one for each place of the slate).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from musicbox_env.data.summaries import GROUPS, PLAYED, add_to_groups
from musicbox_env.kernels import compiled
from musicbox_env.schema import NUM_LEVELS

ENCODERS = ("pooled", "recurrent")

HALF_LIVES = (0.5, 1.0, 2.0, 4.0, 8.0, 100.0)
"""Songs after which a play counts half, for each of the statistics; the last is plain means."""

SLOW = 0.1
"""Factor on a critic's direction: Adam moves every weight by the learning rate, signal or noise,
and a direction has many weights with little signal each."""


class State(NamedTuple):
    """A batch of sessions as the networks see them; padding is in front, the newest song last.

    Attributes:
        songs: Embeddings of the songs heard ``(B, H, d)``, 0 where padded; ``(B, 0)`` where
            nobody reads them in order.
        levels: How far each was heard ``(B, H)`` int8, -1 where padded.
        statistics: Shares of each listen level, and the mean rate of the songs, under weights that
            halve every `HALF_LIVES` songs; the context; how much of the history there is.
            ``(B, s)``.
        means: Mean embedding of the songs played, kept and skipped ``(B, 3, d)``, 0 where there is
            none. Kept apart since they say different things: taste shows in everything that was
            played, whereas kept minus skipped cancels it, because skipped songs share the liked
            genre. The rate is left at 0: that of the songs played says nothing of what is liked.
    """

    songs: Tensor
    levels: Tensor
    statistics: Tensor
    means: Tensor


def read(
    space: npt.NDArray[np.float32],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    context: npt.NDArray[np.float32],
    *,
    rate: bool,
    ordered: bool,
) -> State:
    """Read sessions, as far as that needs no learning.

    Args:
        space: Embeddings of all tracks ``(num_tracks, d)``.
        tracks: Songs heard ``(B, H)``, anything where padded.
        levels: See `State` ``(B, H)``.
        context: Context features of the observation ``(B, c)``.
        rate: Whether the last dimension of the embeddings is the songs' rate.
        ordered: Whether the songs are to be told one by one too.
    """
    size, length = tracks.shape
    statistics = np.zeros((size, num_statistics(context.shape[1], rate=rate)), np.float32)
    means = np.zeros((size, len(GROUPS), space.shape[1]), np.float32)
    weights = _half_life_weights(length)
    _read_plays(np.asarray(space), tracks, levels, context, weights, rate, statistics, means)
    songs = torch.zeros(size, 0)
    if ordered:
        songs = embedded(space, np.where(levels >= 0, tracks, -1))
    return State(songs, *(torch.from_numpy(part) for part in (levels, statistics, means)))


@compiled
def _read_plays(
    space: npt.NDArray[np.float32],
    tracks: npt.NDArray[np.int32],
    levels: npt.NDArray[np.int8],
    context: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    rate: bool,
    statistics: npt.NDArray[np.float32],
    means: npt.NDArray[np.float32],
) -> None:
    """Fill in statistics and means, which begin at 0."""
    lives, rows = weights.shape[1], NUM_LEVELS + rate
    number = np.zeros((len(tracks), len(GROUPS)), np.float32)
    total = np.empty(lives, np.float32)
    for i in range(len(tracks)):
        total[:] = 0
        for place in range(tracks.shape[1]):
            level, track = levels[i, place], tracks[i, place]
            if level < 0:
                continue
            add_to_groups(i, track, level, space, means, number)
            for life in range(lives):
                total[life] += weights[place, life]
                statistics[i, level * lives + life] += weights[place, life]
                if rate:
                    of_rate = weights[place, life] * space[track, -1]
                    statistics[i, NUM_LEVELS * lives + life] += of_rate
        for row in range(rows if number[i, PLAYED] else 0):
            for life in range(lives):
                statistics[i, row * lives + life] /= total[life]
        for group in range(len(GROUPS)):
            for j in range(space.shape[1] - rate):
                means[i, group, j] /= max(number[i, group], np.float32(1))
            if rate:
                means[i, group, -1] = 0
        for c in range(context.shape[1]):
            statistics[i, rows * lives + c] = context[i, c]
        statistics[i, -1] = number[i, PLAYED] / np.float32(tracks.shape[1])


def embedded(space: npt.NDArray[np.float32], tracks: npt.NDArray[np.integer]) -> Tensor:
    """Embeddings of tracks ``(..., d)``, 0 for -1."""
    vectors = space.take(tracks, axis=0, mode="clip")  # of a mapped file, not a copy
    vectors[tracks < 0] = 0
    return torch.from_numpy(vectors)


def num_statistics(context_size: int, *, rate: bool) -> int:
    """Length of what `read` tells of a session."""
    return len(HALF_LIVES) * (NUM_LEVELS + rate) + context_size + 1


@cache
def _half_life_weights(length: int) -> npt.NDArray[np.float32]:
    """Weights of the places of a history ``(length, number of half-lives)``, the newest 1."""
    age = np.arange(length - 1, -1, -1)[:, None]
    return (0.5 ** (age / np.array(HALF_LIVES))).astype(np.float32)


def unit(points: Tensor) -> Tensor:
    """Scale to norm 1 along the last axis: retrieval by dot product looks at nothing else."""
    return functional.normalize(points, dim=-1)


class RecurrentEncoder(nn.Module):
    """Summarises sessions by a GRU over the songs in order, beside the statistics.

    Attributes:
        size: Length of the summary.
    """

    def __init__(self, dim: int, num_statistics: int, hidden: int) -> None:
        """Make an encoder.

        Args:
            dim: Dimensions of the embedding space.
            num_statistics: Length of the statistics.
            hidden: Width of the GRU.
        """
        super().__init__()
        self.gru = nn.GRU(dim + NUM_LEVELS, hidden, batch_first=True)
        self.size = hidden + num_statistics

    def forward(self, state: State) -> Tensor:
        """Summaries ``(B, size)``."""
        # One-hot of level + 1, without the column of the padding.
        levels = functional.one_hot(state.levels.long() + 1, NUM_LEVELS + 1)[..., 1:]
        plays = torch.cat([state.songs, levels.to(state.songs.dtype)], dim=2)
        number = (state.levels >= 0).sum(dim=1)
        _, memory = self.gru(_packed(plays, number))
        return torch.cat([memory[0] * (number > 0)[:, None], state.statistics], dim=1)


def _packed(plays: Tensor, number: Tensor) -> PackedSequence:
    """The last ``number`` ``(B,)`` places of plays ``(B, H, i)``, at least one each."""
    number = number.clamp(min=1)
    length = plays.shape[1]
    place = (torch.arange(length) + (length - number)[:, None]) % length
    in_front = plays.gather(1, place[..., None].expand_as(plays))
    return pack_padded_sequence(in_front, number, batch_first=True, enforce_sorted=False)


class PooledEncoder(nn.Module):
    """Summarises sessions by their statistics alone: it has no weights.

    Attributes:
        size: Length of the summary.
    """

    def __init__(self, num_statistics: int) -> None:
        """Make an encoder."""
        super().__init__()
        self.size = num_statistics

    def forward(self, state: State) -> Tensor:
        """Summaries ``(B, size)``."""
        return state.statistics


Encoder = RecurrentEncoder | PooledEncoder


def make_encoder(kind: str, dim: int, context_size: int, *, hidden: int, rate: bool) -> Encoder:
    """Make one of `ENCODERS`.

    Args:
        kind: Which.
        dim: Dimensions of the embedding space.
        context_size: Number of context features.
        hidden: Width of a GRU.
        rate: Whether the last dimension is the songs' rate.
    """
    number = num_statistics(context_size, rate=rate)
    return PooledEncoder(number) if kind == "pooled" else RecurrentEncoder(dim, number, hidden)


def hidden_layer(inputs: int, outputs: int, layer_norm: bool) -> nn.Sequential:
    """Linear layer and ReLU, with layer normalisation (arXiv:1607.06450) in between if asked."""
    norm = [nn.LayerNorm(outputs)] if layer_norm else []
    return nn.Sequential(nn.Linear(inputs, outputs), *norm, nn.ReLU())


class Actor(nn.Module):
    """Maps a session to a proto-action: one point of the embedding space, or one a place.

    ::

        point = squash(sum_j gate_j(s) mean_j(s)  +  correction(s))

    with j over the songs played, kept and skipped. Gates and correction come from the summary.
    """

    def __init__(
        self,
        dim: int,
        context_size: int,
        *,
        points: int = 1,
        encoder: str = "pooled",
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
            encoder: How sessions are read, one of `ENCODERS`.
            hidden: Width of its layers.
            layer_norm: Whether hidden layers are normalised.
            squash: ``"unit"``, each point of norm 1; ``"tanh"``, as DDPG (arXiv:1509.02971).
            rate: Whether the last dimension is the songs' rate.
        """
        super().__init__()
        self.dim, self.points, self.squash, self.rate = dim, points, squash, rate
        self.encoder = make_encoder(encoder, dim, context_size, hidden=hidden, rate=rate)
        self.trunk = hidden_layer(self.encoder.size, hidden, layer_norm)
        self.gates_and_correction = nn.Linear(hidden, points * (len(GROUPS) + dim))

    def forward(self, state: State) -> Tensor:
        """Points ``(B, P, d)``."""
        out = self.gates_and_correction(self.trunk(self.encoder(state)))
        gates, correction = out.view(len(out), self.points, -1).split((len(GROUPS), self.dim), 2)
        point = gates @ state.means + correction
        return torch.tanh(point) if self.squash == "tanh" else unit(point)

    @torch.no_grad()
    def start_at_heuristic(self, rate_weight: float) -> None:
        """Set the weights so that each point is the mean of the songs played plus the rate axis.

        All else of the last layers starts at zero and has a gradient from the first step; the
        layers below get one as soon as those have moved.

        Args:
            rate_weight: Length along the rate axis, if the space has one.
        """
        for weights in self.gates_and_correction.parameters():
            weights.zero_()
        everybodys = self.gates_and_correction.bias.view(self.points, -1)
        everybodys[:, PLAYED] = 1
        if self.rate:
            everybodys[:, -1] = rate_weight


class CriticState(NamedTuple):
    """What a critic makes of a batch of sessions, whatever is recommended.

    Attributes:
        summary: Of its encoder ``(B, size)``.
        means: Of the state ``(B, 3, d)``.
        value: Q of the action 0 ``(B, 1)``.
        towards: What each dimension of an action adds ``(B, d)``.
    """

    summary: Tensor
    means: Tensor
    value: Tensor
    towards: Tensor


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
        encoder: str = "pooled",
        hidden: int = 32,
        layer_norm: bool = False,
        deep: bool = False,
        rate: bool = False,
    ) -> None:
        """Make a critic that thinks all actions equal.

        Args:
            dim: Dimensions of the embedding space.
            context_size: Number of context features.
            encoder: How sessions are read, one of `ENCODERS`.
            hidden: Width of its layers.
            layer_norm: Whether hidden layers are normalised.
            deep: Whether it has a deep part.
            rate: Whether the last dimension is the songs' rate, which then gets a gain of its own.
        """
        super().__init__()
        self.encoder = make_encoder(encoder, dim, context_size, hidden=hidden, rate=rate)
        self.rate = rate
        last = nn.Linear(hidden, 1 + len(GROUPS) + rate)
        with torch.no_grad():
            last.weight[1:] = 0
            last.bias[1:] = 0
        read_session = hidden_layer(self.encoder.size, hidden, layer_norm)
        self.value_and_gains = nn.Sequential(read_session, last)
        self.direction = nn.Parameter(torch.zeros(dim))
        self.register_buffer("rate_axis", torch.eye(dim)[-1], persistent=False)
        self.deep: nn.Sequential | None = None
        if deep:
            last = nn.Linear(hidden, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.deep = nn.Sequential(
                hidden_layer(self.encoder.size + dim + len(GROUPS) * dim, 2 * hidden, layer_norm),
                hidden_layer(2 * hidden, hidden, layer_norm),
                last,
            )

    def forward(self, state: State, actions: Tensor) -> Tensor:
        """Q ``(B, M)`` of M actions in each session ``(B, M, d)``."""
        return self.score(self.encode(state), actions)

    def encode(self, state: State) -> CriticState:
        """What does not depend on the action."""
        summary = self.encoder(state)
        value, gains, rest = self.value_and_gains(summary).split((1, len(GROUPS), self.rate), dim=1)
        towards = (gains[:, None] @ state.means).squeeze(1)
        if self.rate:
            towards = towards + rest * self.rate_axis
        return CriticState(summary, state.means, value, towards + SLOW * self.direction)

    def score(self, encoded: CriticState, actions: Tensor) -> Tensor:
        """Q ``(B, M)`` of actions ``(B, M, d)`` in sessions that were encoded already."""
        q = encoded.value + (actions @ encoded.towards[..., None]).squeeze(2)
        if self.deep is not None:
            products = (actions[:, :, None] * encoded.means[:, None]).flatten(2)
            summary = encoded.summary[:, None].expand(-1, actions.shape[1], -1)
            q = q + self.deep(torch.cat([summary, actions, products], dim=2))[..., 0]
        return q


def newest_share(updates: int, least: float) -> float:
    """What the newest weights count in a running mean: ``least``, and more over fewer updates."""
    return max(least, 9 / (10 + updates))
