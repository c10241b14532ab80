"""Actor and critic of the DDPG agent.

Shapes: ``B`` sessions of a batch, ``M`` actions in each, ``d`` dimensions of the embedding space.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from musicbox_agents.ddpg.recency import SPANS, alike_by_age
from musicbox_agents.ddpg.state import State, num_means, num_statistics
from musicbox_env.data.summaries import PLAYED

SLOW: Final = 0.1
"""Factor on a critic's direction: Adam moves every weight by the learning rate, signal or noise,
and a direction has many weights with little signal each."""

FAST: Final = 4.0
"""Factor on what likeness to songs heard counts, which some hundred updates must learn."""

RATE_WEIGHT: Final = 0.4
"""Length of the rate axis in the heuristic; a mean of songs is about 0.6 long."""

SHORTEST: Final = 1e-12
"""Length from which on vectors are scaled to norm 1."""


def unit(vectors: Tensor) -> Tensor:
    """Scale to norm 1 along the last axis: retrieval by dot product looks at nothing else."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / length.clamp_min(SHORTEST)


def two_layers(x: Tensor, *layers: nn.Module) -> Tensor:
    """``last(relu(first(x)))`` of the linear layers, sooner than calls of modules say it."""
    first, last = (layer for layer in layers if isinstance(layer, nn.Linear))
    hidden = torch.relu(functional.linear(x, first.weight, first.bias))
    return functional.linear(hidden, last.weight, last.bias)


def weighted_sum(weights: Tensor, vectors: Tensor) -> Tensor:
    """Sum ``(B, d)`` of vectors ``(B, m, d)`` times their weights ``(B, m)``."""
    return torch.bmm(weights[:, None], vectors).squeeze(1)


class Actor(nn.Module):
    """Maps a session to a proto-action: a point of norm 1 of the embedding space.

    ::

        mu(s) = unit(sum_j gate_j(s) mean_j(s)  +  correction(s))

    with j over the songs played, kept and skipped, and where order counts over the session's first
    and last songs.
    """

    def __init__(
        self, dim: int, *, hidden: int = 32, rate: bool = False, ordered: bool = False
    ) -> None:
        """Make an actor with random weights."""
        super().__init__()
        self.dim, self.means = dim, num_means(ordered=ordered)
        self.rate = rate
        self.trunk = nn.Sequential(nn.Linear(num_statistics(rate=rate), hidden), nn.ReLU())
        self.gates_and_correction = nn.Linear(hidden, self.means + dim)

    def forward(self, state: State) -> Tensor:
        """Proto-actions ``(B, d)``."""
        out = two_layers(state.statistics, *self.trunk, self.gates_and_correction)
        gates, correction = out.split((self.means, self.dim), dim=1)
        return unit(weighted_sum(gates, state.means) + correction)

    @torch.no_grad()
    def start_at_heuristic(self, rate_weight: float = RATE_WEIGHT) -> None:
        """Set the weights so that mu(s) points to the mean of the songs played plus the rate axis.

        All else of the last layer starts at zero and has a gradient from the first update; the
        hidden layer gets one as soon as the last has moved.
        """
        for weights in self.gates_and_correction.parameters():
            weights.zero_()
        self.gates_and_correction.bias[PLAYED] = 1
        if self.rate:
            self.gates_and_correction.bias[-1] = rate_weight


class CriticState(NamedTuple):
    """A batch of sessions, encoded by a critic, whatever is recommended.

    Attributes:
        value: Q of the action 0 ``(B, 1)``.
        slope: What each dimension of an action adds ``(B, d)``.
        wear: What likeness to songs heard adds, by their age ``(L,)``; None where order does not
            count.
        heard: Songs before the action, as `State.heard`.
    """

    value: Tensor
    slope: Tensor
    wear: Tensor | None
    heard: Tensor


class Critic(nn.Module):
    """Value of recommending in a session: Q(s, a) of a song, or of any point of its space.

    ::

        Q(s, a)  = value(s) + slope(s) . a  [ + sum_l wear_l alike_l(a) ]
        slope(s) = sum_j gain_j(s) mean_j(s)  +  direction

    with j over the songs played, kept and skipped: "like what you play" is one weight, and how much
    that counts in this session another. Q is linear in a, so the actor climbs the same gradient at
    any point, learned from all songs together. Where order counts, so does how alike a is to what
    was heard l songs ago (`recency`), songs of the same slate included.
    """

    rate_axis: Tensor

    def __init__(
        self, dim: int, *, hidden: int = 32, rate: bool = False, ordered: bool = False
    ) -> None:
        """Make a critic that values all actions equally."""
        super().__init__()
        self.rate, self.means = rate, num_means(ordered=ordered)
        last = nn.Linear(hidden, 1 + self.means + rate)
        with torch.no_grad():
            last.weight[1:] = 0
            last.bias[1:] = 0
        first = nn.Linear(num_statistics(rate=rate), hidden)
        self.value_and_gains = nn.Sequential(first, nn.ReLU(), last)
        self.direction = nn.Parameter(torch.zeros(dim))
        self.wear = nn.Parameter(torch.zeros(len(SPANS))) if ordered else None
        self.register_buffer("rate_axis", torch.eye(dim)[-1], persistent=False)

    def forward(self, state: State, actions: Tensor) -> Tensor:
        """Q ``(B, M)`` of actions ``(B, M, d)``."""
        return self.score(self.encode(state), actions)

    def encode(self, state: State) -> CriticState:
        """What does not depend on the action."""
        out = two_layers(state.statistics, *self.value_and_gains)
        value, gains, of_rate = out.split((1, self.means, self.rate), dim=1)
        slope = weighted_sum(gains, state.means)
        if self.rate:
            slope = slope + of_rate * self.rate_axis
        wear = None if self.wear is None else FAST * self.wear
        return CriticState(value, slope + SLOW * self.direction, wear, state.heard)

    def score(self, encoded: CriticState, actions: Tensor) -> Tensor:
        """Q ``(B, M)`` of actions ``(B, M, d)`` in sessions that were encoded already."""
        q = encoded.value + torch.bmm(actions, encoded.slope[..., None]).squeeze(2)
        if encoded.wear is None:
            return q
        return q + alike_by_age(actions, encoded.heard) @ encoded.wear

    def score_slates(self, encoded: CriticState, songs: Tensor) -> Tensor:
        """Q ``(B, K)`` of the songs of slates ``(B, K, d)``, each after those before it."""
        if encoded.wear is None:
            return self.score(encoded, songs)
        q = []
        for place in range(songs.shape[1]):
            song = songs[:, place : place + 1]
            q.append(self.score(encoded, song))
            encoded = self.after(encoded, song)
        return torch.cat(q, dim=1)

    def after(self, encoded: CriticState, song: Tensor) -> CriticState:
        """Sessions in which one more song ``(B, 1, d)`` of the slate stands before the action."""
        if encoded.wear is None:
            return encoded
        without_rate = song - song * self.rate_axis if self.rate else song
        return encoded._replace(heard=torch.cat([encoded.heard, without_rate], dim=1))

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """Weights for an optimizer: all decay but `wear`, which few songs of a log tell of."""
        own = [] if self.wear is None else [self.wear]
        others = [w for name, w in self.named_parameters() if name != "wear"]
        return [
            {"params": others, "weight_decay": decay},
            *({"params": [w], "weight_decay": 0.0} for w in own),
        ]


def descend(optimizer: Optimizer, loss: Tensor) -> float:
    """Move an optimizer's weights down the gradient of a loss; gives the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def follow(copy: nn.Module, original: nn.Module, share: float) -> None:
    """Move a copy: ``theta' <- share * theta + (1 - share) * theta'`` (arXiv:1509.02971)."""
    for slow, fast in zip(copy.parameters(), original.parameters(), strict=True):
        slow.lerp_(fast, share)


def newest_share(updates: int, least: float) -> float:
    """What the newest weights count in a running mean: ``least``, and more over fewer updates."""
    return max(least, 9 / (10 + updates))


def arrays_of(owner: object, names: Sequence[str]) -> dict[str, npt.NDArray]:
    """Weights of the modules that are attributes of these names, as ``name.weight``."""
    return {
        f"{name}.{weight}": value.numpy()
        for name in names
        for weight, value in getattr(owner, name).state_dict().items()
    }


def set_arrays(owner: object, names: Sequence[str], arrays: Mapping[str, npt.NDArray]) -> None:
    """Give modules the weights that `arrays_of` found."""
    for name in names:
        module: nn.Module = getattr(owner, name)
        weights = {key: torch.from_numpy(arrays[f"{name}.{key}"]) for key in module.state_dict()}
        module.load_state_dict(weights)
