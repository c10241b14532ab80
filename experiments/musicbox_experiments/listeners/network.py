"""The network of the learned listener as torch fits it.

`musicbox_env.listeners.learned.network` describes it, and computes the same without torch from the
weights that `TorchNetwork.exported` returns.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from musicbox_agents.base import require_ranges
from musicbox_agents.ddpg.networks import newest_share
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from musicbox_env.listeners.learned.features import STATE_INPUTS
from musicbox_env.listeners.learned.network import Network
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD
from musicbox_experiments.listeners.sessions import Inputs, SessionArrays, tensor

WITHIN_WEIGHT: Final = 0.5
"""Weight in the loss of the level among skips and among kept plays; skipping itself has 1."""
STANDARD_SESSIONS: Final = 5_000
"""Sessions on which inputs are standardised."""
SMALLEST_SCALE: Final = 0.05
"""Inputs are divided by their standard deviation, rare ones by no less than this."""
MEMORY_HALF_LIVES: Final = (0.1, 1.0, 3.0, 8.0)
"""Of the units of memory, in songs; with the shortest, a unit holds the last play."""
PLAY_DROPOUT: Final = 0.25
"""Inputs of plays are dropped less often than units, by this factor."""
GRADIENT_NORM: Final = 1.0
AVERAGE_DECAY: Final = 0.99
"""Of the mean of the weights over the steps, which is evaluated and kept, since the latest weights
still vary much when it is time to stop (Polyak & Juditsky, SIAM J. Control Optim. 30, 1992)."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """How a network looks and is fitted."""

    memory: int = 20
    """Units of the memory, a quarter for each of its half-lives."""
    head: int = 59
    """Width of the hidden layer of the head; with its 5 outputs, 64 fill vector registers."""
    learning_rate: float = 5e-3
    """Of AdamW."""
    weight_decay: float = 1e-3
    """Of AdamW."""
    dropout: float = 0.4
    """Share of units dropped while fitting; of inputs of plays, a quarter of it."""
    batch_sessions: int = 64
    """Sessions of a batch."""
    max_epochs: int = 40
    """Passes over the sessions at most."""
    patience: int = 4
    """Passes without gain on validation sessions before it stops."""

    def __post_init__(self) -> None:
        sizes = ("memory", "head", "batch_sessions", "max_epochs", "patience")
        ranges = {
            "learning_rate": (1e-12, np.inf),
            "weight_decay": (0, np.inf),
            "dropout": (0, 0.99),
        }
        require_ranges(self, {**dict.fromkeys(sizes, (1, np.inf)), **ranges})


class TorchNetwork(nn.Module):
    """One member as it is fitted; `exported` gives the same function to numpy."""

    keep: Tensor
    plays_center: Tensor
    plays_scale: Tensor
    tracks_center: Tensor
    tracks_scale: Tensor

    def __init__(self, config: NetworkConfig, sessions: SessionArrays) -> None:
        """Make a network with random weights, inputs standardised on the given sessions."""
        super().__init__()
        inputs = Inputs.with_behaviour(sessions)
        state, tracks = config.memory + STATE_INPUTS, inputs.tracks.shape[-1]
        self.play_units = nn.Linear(inputs.plays.shape[-1], config.memory)
        self.state_units = nn.Linear(state, config.head)
        self.track_units = nn.Linear(tracks, config.head, bias=False)
        self.unit_outputs = nn.Linear(config.head, NUM_LEVELS)
        self.state_outputs = nn.Linear(state, NUM_LEVELS, bias=False)
        self.track_outputs = nn.Linear(tracks, NUM_LEVELS, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.play_dropout = nn.Dropout(config.dropout * PLAY_DROPOUT)
        paces = np.resize(MEMORY_HALF_LIVES, config.memory)
        self.register_buffer("keep", tensor(0.5 ** (1 / np.sort(paces))))
        real = inputs.levels >= 0
        of_inputs = {"plays": (self.play_units,), "tracks": (self.track_units, self.track_outputs)}
        for name, layers in of_inputs.items():
            values = getattr(inputs, name)[real]
            spread = values.std(dim=0)
            self.register_buffer(f"{name}_center", values.mean(dim=0))
            self.register_buffer(f"{name}_scale", spread.clamp(min=SMALLEST_SCALE))
            for layer in layers:
                # What hardly varies here is not learned about: a weight that stayed random would
                # decide alone about the first session, or the one track, where it does.
                layer.weight.data[:, spread < SMALLEST_SCALE] = 0

    def forward(self, inputs: Inputs) -> Tensor:
        """Outputs for each play given those before it, ``(n, T, 5)``."""
        plays = (inputs.plays - self.plays_center) / self.plays_scale
        tracks = (inputs.tracks - self.tracks_center) / self.tracks_scale
        readings = torch.relu(self.play_units(self.play_dropout(plays)))
        before = [torch.zeros_like(readings[:, 0])]
        for reading in readings.unbind(dim=1)[:-1]:
            before.append(reading + self.keep * (before[-1] - reading))
        state = torch.cat([self.dropout(torch.stack(before, dim=1)), inputs.states], dim=2)
        units = torch.relu(self.state_units(state) + self.track_units(tracks))
        outputs: Tensor = self.unit_outputs(self.dropout(units))
        return outputs + self.state_outputs(state) + self.track_outputs(tracks)

    @torch.no_grad()
    def exported(self) -> Network:
        """Weights for numpy, the standardisation of inputs taken into them."""
        play_units = self.play_units.weight / self.plays_scale
        play_bias = self.play_units.bias - play_units @ self.plays_center
        track_units = self.track_units.weight / self.tracks_scale
        track_outputs = self.track_outputs.weight / self.tracks_scale
        units_bias = self.state_units.bias - track_units @ self.tracks_center
        output_bias = self.unit_outputs.bias - track_outputs @ self.tracks_center
        weights = {
            "play_units": play_units.T,
            "play_bias": play_bias,
            "keep": self.keep,
            "state_units": self.state_units.weight.T,
            "track_units": track_units.T,
            "units_bias": units_bias,
            "unit_outputs": self.unit_outputs.weight.T,
            "state_outputs": self.state_outputs.weight.T,
            "track_outputs": track_outputs.T,
            "output_bias": output_bias,
        }
        return Network(**{k: v.numpy()[None] for k, v in weights.items()})


def play_losses(outputs: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of skip or not, and of the level within, each ``(plays,)``.

    Args:
        outputs: Of the network ``(plays, 5)``: skip, brief among skips, then most, cut and full.
        levels: Of the same plays ``(plays,)``.
    """
    skipped = levels < SKIP_THRESHOLD
    entropy = functional.binary_cross_entropy_with_logits
    skip = entropy(outputs[:, 0], skipped.float(), reduction="none")
    brief = entropy(outputs[:, 1], (levels == 0).float(), reduction="none")
    place = (levels - SKIP_THRESHOLD).clamp(min=0)
    kept = functional.cross_entropy(outputs[:, 2:], place, reduction="none")
    return skip, torch.where(skipped, brief, kept)


def fit_member(
    config: NetworkConfig,
    train: SessionArrays,
    validation: SessionArrays,
    seed: int,
    report: Callable[[int, float], None] | None = None,
) -> tuple[TorchNetwork, float]:
    """Fit one network; stops early on validation sessions.

    Returns:
        The network of the best pass, and its log-loss of skip on validation sessions: the mean of
        those with and without behaviour.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TorchNetwork(config, train.at(np.arange(min(len(train), STANDARD_SESSIONS))))
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        averaged = AveragedModel(network, avg_fn=running_mean)
        mean = averaged.module
        assert isinstance(mean, TorchNetwork)
        evaluated = [Inputs.with_behaviour(validation), Inputs.without_behaviour(validation)]
        best, best_loss, since = network, np.inf, 0
        for epoch in range(config.max_epochs):
            network.train()
            for batch in _batches(train, config.batch_sessions, rng):
                _descend(network, optimizer, batch)
                averaged.update_parameters(network)
            loss = float(np.mean([skip_loss(mean, inputs) for inputs in evaluated]))
            if report is not None:
                report(epoch, loss)
            since += 1
            if loss < best_loss:
                best, best_loss, since = deepcopy(mean), loss, 0
            if since >= config.patience:
                break
    return best.eval(), best_loss


def running_mean(averaged: Tensor, weights: Tensor, steps: Tensor | int) -> Tensor:
    """Exponential mean of the weights over the steps, over fewer of them at first."""
    share = newest_share(int(steps), 1 - AVERAGE_DECAY)
    return averaged + share * (weights - averaged)


def _batches(sessions: SessionArrays, size: int, rng: np.random.Generator) -> Iterator[Inputs]:
    order = rng.permutation(len(sessions))
    for first in range(0, len(order), size):
        yield Inputs.seen_twice(sessions.at(order[first : first + size]), rng)


def _descend(network: TorchNetwork, optimizer: torch.optim.Optimizer, inputs: Inputs) -> None:
    real = inputs.levels >= 0
    skip, within = play_losses(network(inputs)[real], inputs.levels[real])
    optimizer.zero_grad()
    (skip.mean() + WITHIN_WEIGHT * within.mean()).backward()
    nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
    optimizer.step()


@torch.no_grad()
def skip_loss(network: TorchNetwork, inputs: Inputs) -> float:
    """Log-loss of skip over all plays."""
    network.eval()
    real = inputs.levels >= 0
    return float(play_losses(network(inputs)[real], inputs.levels[real])[0].mean())
