"""Fit a listener on logged sessions: the user simulator that environments answer with.

The result is one file; its path is a `listener` for the environment and for every command. Fit
one on fold A to train agents with, and one on fold B to judge them: the two never saw the same
session.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import logit
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm
from tyro.conf import Positional

from musicbox_env.crossfit import PARTS, crossfitted, parts_of
from musicbox_env.dataset import Dataset
from musicbox_env.embeddings import NO_SESSIONS
from musicbox_env.listeners.base import History, skip_probability
from musicbox_env.listeners.features import (
    PLAY_INPUTS,
    STATE_INPUTS,
    SUMMARY_INPUTS,
    TRACK_INPUTS,
    HeardSongs,
    TrackTable,
    behaviour_inputs,
    context_inputs,
    is_repeat,
    level_summaries,
    play_inputs,
    state_inputs,
    track_inputs,
)
from musicbox_env.listeners.files import write_fit
from musicbox_env.listeners.learned import (
    Calibration,
    FittedNetwork,
    LearnedListener,
    LearnedState,
)
from musicbox_env.listeners.network import Network
from musicbox_env.listeners.similarity import MODES, SimilarityConfig
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD, UNKNOWN, is_skip, require_known
from musicbox_env.simulator import open_dataset

FOLDS: Final = {"A": "train_a", "B": "train_b", "both": "train"}
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
"""Of the mean of the weights over the steps, which is judged and kept in place of the last ones
(Polyak & Juditsky, SIAM J. Control Optim. 30, 1992): they still jump about when it is time to stop.
"""
SCALE_SD: Final = 0.1
SHIFT_SD: Final = 0.03
"""Prior standard deviations of scale around 1 and of shift around 0. The shift's is narrow: what a
few hundred sessions skip more than others is mostly chance, and a simulated session goes on with
it."""
BELIEF_SD: Final = 0.25
"""Prior standard deviation of the believed part of a song's effect around 1."""
ALTERNATIVES: Final = 4
"""Plays to come that a play is compared with, as if they came in its place."""
PRICING_FOLDS: Final = 5
"""Folds of training sessions, each priced by a network that was fitted on the others."""
ENOUGH_TO_PRICE: Final = 1_000
"""With so many validation sessions, these alone tell what is real of songs' effects."""

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FitListenerConfig:
    """Options of `musicbox fit-listener`."""

    data: Positional[Path | None] = None
    """Dataset folder; by default the bundled synthetic one."""
    fold: Literal["A", "B", "both"] = "both"
    """Training sessions to fit on."""
    out: Path | None = None
    """File to write; by default DATA/listeners/learned.npz, for a fold learned-A.npz."""
    listener: Literal["learned", "similarity"] = "learned"
    """Which kind. The similarity listener has nothing to fit: its file holds its settings."""
    pessimism: float = 0.0
    """Spreads that the learned listener adds to its skip logits; see its documentation."""
    reject_constant: bool = False
    """Whether the learned listener avoids sessions skipped or kept throughout."""
    members: int = 3
    """Networks of the ensemble."""
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
    max_sessions: int = 50_000
    """Of more training sessions, as many are drawn."""
    mode: str = "nearest_k"
    """Of the similarity listener: nearest_k, normal, grouped_average or grouped_cosine."""
    seed: int = 0
    """Of everything drawn; member i has seed + i."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        require_known("mode of the similarity listener", self.mode, MODES)
        for name in (
            "members", "memory", "head", "batch_sessions", "max_epochs", "patience", "max_sessions",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.pessimism < 0:
            raise ValueError(
                f"learning_rate {self.learning_rate} must be above 0, weight_decay "
                f"{self.weight_decay} and pessimism {self.pessimism} must not be negative."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be in [0, 1).")


@dataclass(frozen=True)
class SessionArrays:
    """Whole sessions as a network is fitted on them: n sessions, T places.

    Attributes:
        levels: Listen levels ``(n, T)``, -1 after a session's last play.
        tracks: Inputs of each play's track just before it began ``(n, T, TRACK_INPUTS)``.
        summary: `features.level_summaries` before each play ``(n, T, SUMMARY_INPUTS)``.
        context: Context of each play ``(n, T, CONTEXT_INPUTS)``.
        behaviour: Behaviour around each play ``(n, T, BEHAVIOUR_INPUTS)``.
    """

    levels: Ints
    tracks: npt.NDArray[np.float32]
    summary: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    behaviour: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def width(self) -> int:
        """Places T."""
        return self.levels.shape[1]

    def at(self, rows: npt.NDArray[np.integer]) -> SessionArrays:
        """Some of the sessions."""
        return SessionArrays(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def joined(cls, parts: list[SessionArrays]) -> SessionArrays:
        """Sessions of several parts, one part after the other."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def session_arrays(dataset: Dataset, sessions: Ints, table: TrackTable) -> SessionArrays:
    """Read sessions, each place seen as the listener would see it when its turn comes."""
    log, width = dataset.sessions, dataset.longest_session
    levels = log.padded("level", sessions, width).astype(np.int64)
    songs = log.padded("track", sessions, width)
    tracks = np.zeros((len(sessions), width, len(TRACK_INPUTS)), np.float32)
    summary = np.zeros((len(sessions), width, len(SUMMARY_INPUTS)), np.float32)
    heard = HeardSongs.none(len(sessions), table)
    for place in range(width):
        rows = np.flatnonzero(levels[:, place] >= 0)
        now, count = songs[rows, place], np.full(len(rows), place)
        near = heard.nearness(rows, table, now[:, None])
        tracks[rows, place] = track_inputs(
            table, near, now[:, None], songs[rows], levels[rows], count
        )[:, 0]
        summary[rows, place] = level_summaries(levels[rows], count)
        heard.add(rows, table, now, levels[rows, place])
    plays = np.minimum(log.offsets[sessions][:, None] + np.arange(width), log.num_plays - 1)
    real = (levels >= 0)[..., None]
    context = np.where(real, context_inputs(dataset, plays), 0).astype(np.float32)
    behaviour = np.where(real, behaviour_inputs(dataset, plays), 0).astype(np.float32)
    return SessionArrays(levels, tracks, summary, context, behaviour)


@dataclass(frozen=True)
class TrainingSplit:
    """A training split, and what its plays tell of each track.

    Attributes:
        dataset: Where it is.
        split: Its name.
        embedding: The embedding that songs are compared in, or None.
        table: Of all tracks, counted on the whole split.
        part: Part of each session of the dataset; see `crossfit.parts_of`.
        spaces: `crossfit.crossfitted` embedding, or None.
    """

    dataset: Dataset
    split: str
    embedding: str | None
    table: TrackTable
    part: npt.NDArray[np.int8]
    spaces: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, dataset: Dataset, split: str) -> TrainingSplit:
        """Of a dataset, with its best embedding."""
        embedding = dataset.embedding_names[0] if dataset.embedding_names else None
        table = TrackTable.of(dataset, split, embedding)
        spaces = None if embedding is None else crossfitted(dataset, embedding)
        return cls(dataset, split, embedding, table, parts_of(dataset), spaces)

    def in_parts(self, sessions: Ints) -> Iterator[tuple[int, Ints]]:
        """Parts, and those of the sessions that are in them."""
        for part in range(PARTS):
            some = sessions[self.part[sessions] == part]
            if len(some):
                yield part, some

    def table_of(self, part: int, without: Ints) -> TrackTable:
        """What sessions of a part may know of each track.

        Args:
            part: The embedding was fitted without it.
            without: Sessions whose plays do not count, those of the part among them. With its own
                play in a track's rate a session would read its own label there; and leaving out
                just that play is no better: the rate then moves against the label.
        """
        log, catalog = self.dataset.sessions, self.dataset.catalog
        rows = log.plays_of(without)
        track, level = log.column("track")[rows], log.column("level")[rows]
        plays = catalog.plays(self.split) - np.bincount(track, minlength=len(catalog))
        skips = np.bincount(track[is_skip(level)], minlength=len(catalog))
        vectors = None if self.spaces is None else self.spaces[part % len(self.spaces)]
        return TrackTable.counted(plays, catalog.skips(self.split) - skips, vectors)

    def arrays(self, sessions: Ints, *, without: Ints = NO_SESSIONS) -> SessionArrays:
        """Sessions to fit on, each with what sessions of its part may know.

        Args:
            sessions: Of the split ``(n,)``.
            without: More sessions that do not count.
        """
        return SessionArrays.joined(
            [
                session_arrays(self.dataset, some, self.table_of(part, np.append(some, without)))
                for part, some in self.in_parts(sessions)
            ]
        )

    def uncalibrated(self, networks: list[TorchNetwork], train: SessionArrays) -> FittedNetwork:
        """Networks fitted on sessions of the split, together."""
        return FittedNetwork(
            Network.stacked([network.exported() for network in networks]),
            Calibration.none(usual_track(train)),
            {"split": self.split, "embedding": self.embedding},
        )


class Inputs:
    """Tensors of sessions in which something is hidden from the network."""

    def __init__(self, sessions: SessionArrays, behaviour_until: Ints, context_until: Ints) -> None:
        """Hide what a simulated session does not know.

        Args:
            sessions: n sessions.
            behaviour_until: Plays of each whose behaviour is known ``(n,)``, 0 to T.
            context_until: Plays of each whose context is known ``(n,)``, 1 to T; later ones keep
                the last known context.
        """
        place = np.broadcast_to(np.arange(sessions.width), sessions.levels.shape)
        seen = (place < behaviour_until[:, None])[..., None]
        last_known = np.minimum(place, context_until[:, None] - 1)[..., None]
        context = np.take_along_axis(sessions.context, last_known, axis=1)
        behaviour = np.where(seen, sessions.behaviour, 0)
        plays = play_inputs(sessions.levels, place, sessions.tracks, context, behaviour)
        before = np.concatenate([np.zeros_like(context[:, :1]), context[:, :-1]], axis=1)
        self.plays = _tensor(plays)
        self.states = _tensor(state_inputs(sessions.summary, before))
        self.tracks = _tensor(sessions.tracks)
        self.levels = torch.from_numpy(sessions.levels)

    @classmethod
    def with_behaviour(cls, sessions: SessionArrays) -> Inputs:
        """Everything about the past is known."""
        whole = np.full(len(sessions), sessions.width)
        return cls(sessions, whole, whole)

    @classmethod
    def without_behaviour(cls, sessions: SessionArrays) -> Inputs:
        """Levels and contexts are known."""
        whole = np.full(len(sessions), sessions.width)
        return cls(sessions, np.zeros_like(whole), whole)

    @classmethod
    def seen_twice(cls, sessions: SessionArrays, rng: np.random.Generator) -> Inputs:
        """Every session twice: with behaviour, half of them only up to some place, and without.

        Where behaviour ends, a part of the sessions keeps the context too: that is how a simulated
        session goes on after its shown half.
        """
        n, width = sessions.levels.shape
        some = rng.integers(1, width + 1, n)
        until = np.where(rng.random(n) < 0.5, some, width)
        context_until = np.where(rng.random(n) < 0.5, until, width)
        return cls(
            SessionArrays.joined([sessions, sessions]),
            np.concatenate([until, np.zeros_like(until)]),
            np.concatenate([context_until, np.full_like(until, width)]),
        )


def _tensor(values: npt.NDArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


class TorchNetwork(nn.Module):
    """One member as it is fitted; `exported` gives the same function to numpy."""

    keep: Tensor
    plays_center: Tensor
    plays_scale: Tensor
    tracks_center: Tensor
    tracks_scale: Tensor

    def __init__(self, config: FitListenerConfig, sessions: SessionArrays) -> None:
        """Make a network with random weights, inputs standardised on the given sessions."""
        super().__init__()
        state = config.memory + STATE_INPUTS
        self.play_units = nn.Linear(PLAY_INPUTS, config.memory)
        self.state_units = nn.Linear(state, config.head)
        self.track_units = nn.Linear(len(TRACK_INPUTS), config.head, bias=False)
        self.unit_outputs = nn.Linear(config.head, NUM_LEVELS)
        self.state_outputs = nn.Linear(state, NUM_LEVELS, bias=False)
        self.track_outputs = nn.Linear(len(TRACK_INPUTS), NUM_LEVELS, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.play_dropout = nn.Dropout(config.dropout * PLAY_DROPOUT)
        paces = np.resize(MEMORY_HALF_LIVES, config.memory)
        self.register_buffer("keep", _tensor(0.5 ** (1 / np.sort(paces))))
        inputs = Inputs.with_behaviour(sessions)
        real = inputs.levels >= 0
        for name in ("plays", "tracks"):
            values = getattr(inputs, name)[real]
            self.register_buffer(f"{name}_center", values.mean(dim=0))
            self.register_buffer(f"{name}_scale", values.std(dim=0).clamp(min=SMALLEST_SCALE))

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
    config: FitListenerConfig,
    train: SessionArrays,
    validation: SessionArrays,
    seed: int,
    report: Callable[[int, float], None] | None = None,
) -> tuple[TorchNetwork, float]:
    """Fit one network; stops early on validation sessions.

    Args:
        config: Settings.
        train: Sessions to fit on, with out-of-fold track counts.
        validation: Sessions that decide when to stop.
        seed: Of weights, order of sessions, and what is hidden.
        report: Called after each pass with its number and the validation loss.

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
        averaged = AveragedModel(network, avg_fn=_towards)
        mean = averaged.module
        assert isinstance(mean, TorchNetwork)
        judged = [Inputs.with_behaviour(validation), Inputs.without_behaviour(validation)]
        best, best_loss, since = network, np.inf, 0
        for epoch in range(config.max_epochs):
            network.train()
            for batch in _batches(train, config.batch_sessions, rng):
                _descend(network, optimizer, batch)
                averaged.update_parameters(network)
            loss = float(np.mean([skip_loss(mean, inputs) for inputs in judged]))
            if report is not None:
                report(epoch, loss)
            since += 1
            if loss < best_loss:
                best, best_loss, since = deepcopy(mean), loss, 0
            if since >= config.patience:
                break
    return best.eval(), best_loss


def _towards(averaged: Tensor, weights: Tensor, steps: Tensor | int) -> Tensor:
    """Exponential mean of the weights over the steps, over fewer of them at first."""
    share = max(1 - AVERAGE_DECAY, 9 / (10 + int(steps)))
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


@dataclass(frozen=True)
class Moment:
    """Second halves at one place: what comes next in sessions that reach it.

    Attributes:
        rows: Sessions that go on ``(m,)``.
        place: Songs that they have heard.
        tracks: The next song of each ``(m,)``.
        levels: How far it was heard ``(m,)``.
        state: The listener's state of all sessions, before that song.
        history: What all sessions heard before it.
    """

    rows: Ints
    place: int
    tracks: Ints
    levels: npt.NDArray[np.int8]
    state: LearnedState
    history: History


def second_halves(listener: LearnedListener, sessions: Ints) -> Iterator[Moment]:
    """Go through second halves as the environment plays them, but heard as they really were."""
    log, capacity = listener.dataset.sessions, listener.dataset.longest_session
    lengths = log.lengths(sessions)
    shown = np.maximum(lengths // 2, 1)
    whole = History.logged(listener.dataset, sessions, lengths, capacity)
    history = History.logged(listener.dataset, sessions, shown, capacity)
    state = listener.begin(history)
    for place in range(capacity):
        rows = np.flatnonzero((place >= shown) & (place < lengths))
        if not len(rows):
            continue
        tracks, levels = whole.tracks[rows, place].astype(np.int64), whole.levels[rows, place]
        yield Moment(rows, place, tracks, levels, state, history)
        listener.advance(state, history, rows, tracks, levels)
        history.record(rows, tracks, levels)


@dataclass(frozen=True)
class PricedSongs:
    """Plays as the network prices them, each beside songs that could have been played instead.

    Attributes:
        usual: Logit of a usual track at that point of the session ``(p,)``.
        logit: Logits of the play and of `ALTERNATIVES` plays that followed ``(p, c)``.
        repeat: Which of them the session heard before ``(p, c)``.
        real: False where the session had no more plays ``(p, c)``.
        skipped: Whether the play was skipped ``(p,)``.
    """

    usual: Array
    logit: Array
    repeat: npt.NDArray[np.bool_]
    real: npt.NDArray[np.bool_]
    skipped: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: list[PricedSongs]) -> PricedSongs:
        """Plays of several parts, one part after the other."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def priced_songs(listener: LearnedListener, sessions: Ints) -> PricedSongs:
    """Price the plays of second halves, and for each the next plays as if they came at once."""
    log, dataset = listener.dataset.sessions, listener.dataset
    songs, lengths = log.padded("track", sessions, dataset.longest_session), log.lengths(sessions)
    parts = []
    for moment in second_halves(listener, sessions):
        candidates = moment.place + np.arange(1 + ALTERNATIVES)
        real = candidates < lengths[moment.rows][:, None]
        tracks = songs[moment.rows[:, None], np.where(real, candidates, moment.place)]
        usual, logits, repeat = listener.network_logits(
            moment.state, moment.history, moment.rows, tracks
        )
        base, logit = usual.mean(axis=0)[:, 0], logits.mean(axis=0)
        parts.append(PricedSongs(base, logit, repeat, real, is_skip(moment.levels)))
    return PricedSongs.joined(parts)


def believed_part(songs: PricedSongs) -> tuple[float, float]:
    """Which part of a song's effect to believe, of first hearings and of repeats.

    The likeliest parts b in ``skip logit = a + s mean logit + (z - mean z)`` with z the song's
    ``b (logit - usual)`` and means over the songs that could have been played at that moment. The
    past is the same for all of these, so what is compared are songs: the slope of real on
    predicted effects becomes 1 (`trust_protocols.price_slope`). a and s take up what the network
    misjudges in moods. A normal prior holds the parts near 1 where few songs speak.
    """
    above = songs.logit - songs.usual[:, None]
    several = songs.real.sum(axis=1)

    def mean(values: Array) -> Array:
        total: Array = np.where(songs.real, values, 0).sum(axis=1) / several
        return total

    mood = mean(songs.logit)

    def loss(weights: Array) -> float:
        effects = weights[2:][songs.repeat.astype(np.int64)] * above
        scaled = weights[0] + weights[1] * mood + effects[:, 0] - mean(effects)
        misfit = np.sum(np.logaddexp(0, scaled) - songs.skipped * scaled)
        return float(misfit + np.sum((weights[2:] - 1) ** 2) / (2 * BELIEF_SD**2))

    bounds = [(None, None), (None, None), (0.0, 2.0), (0.0, 2.0)]
    found = minimize(loss, np.array([0.0, 1.0, 1.0, 1.0]), bounds=bounds, method="L-BFGS-B").x
    return float(found[2]), float(found[3])


def scale_and_shift(logits: Array, skipped: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Platt's calibration: the likeliest ``scale * logits + shift``, held near 1 and 0 by a prior.

    Args:
        logits: Predicted ``(plays,)``.
        skipped: Real ``(plays,)``.
    """

    def loss(parts: Array) -> float:
        scaled = parts[0] * logits + parts[1]
        misfit = np.sum(np.logaddexp(0, scaled) - skipped * scaled)
        surprise = ((parts[0] - 1) / SCALE_SD) ** 2 + (parts[1] / SHIFT_SD) ** 2
        return float(misfit + surprise / 2)

    found = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return float(found[0]), float(found[1])


def calibrated(
    listener: LearnedListener, validation: Ints, priced: list[PricedSongs]
) -> FittedNetwork:
    """Fit the calibration of an ensemble.

    Args:
        listener: With the uncalibrated ensemble, neither pessimistic nor rejecting.
        validation: Sessions that no member was fitted on ``(v,)``.
        priced: Songs of other sessions, by networks that were not fitted on these.
    """
    song = believed_part(PricedSongs.joined([*priced, priced_songs(listener, validation)]))
    fit = replace(listener.fit, calibration=replace(listener.fit.calibration, song=song))
    listener = LearnedListener(listener.dataset, fit)
    simulated = scale_and_shift(*predicted_as_simulated(listener, validation))
    logged = scale_and_shift(*predicted_as_logged(listener, validation))
    return replace(fit, calibration=replace(fit.calibration, simulated=simulated, logged=logged))


def predicted_as_simulated(
    listener: LearnedListener, sessions: Ints
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Skip logits of all plays of `second_halves`, and which of these were skipped."""
    logits, skipped = [], []
    for moment in second_halves(listener, sessions):
        nowhere = np.full((len(moment.rows), 1), UNKNOWN)
        chances = listener.level_probabilities(
            moment.state, moment.history, moment.rows, moment.tracks[:, None], nowhere
        )
        logits.append(logit(skip_probability(chances[:, 0])))
        skipped.append(is_skip(moment.levels))
    return np.concatenate(logits), np.concatenate(skipped)


def predicted_as_logged(
    listener: LearnedListener, sessions: Ints
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Skip logits of all plays given their true past, with its behaviour and without, and skips."""
    dataset = listener.dataset
    levels = dataset.sessions.padded("level", sessions, dataset.longest_session)
    real = levels >= 0
    chances = [listener.levels_given_past(sessions, behaviour=seen)[real] for seen in (True, False)]
    logits = logit(skip_probability(np.concatenate(chances)))
    return logits, np.tile(is_skip(levels[real]), len(chances))


def fit_ensemble(config: FitListenerConfig, dataset: Dataset) -> FittedNetwork:
    """Fit all members, then calibrate what they say together."""
    rng = np.random.default_rng(config.seed)
    sessions = TrainingSplit.of(dataset, FOLDS[config.fold])
    chosen = _drawn(dataset, sessions.split, config.max_sessions, rng)
    validation = _drawn(dataset, "validation", max(1, config.max_sessions // 10), rng)
    judged = session_arrays(dataset, validation, sessions.table)
    train = sessions.arrays(chosen)
    fits = [_fit_with_bar(config, train, judged, member) for member in range(config.members)]
    together = sessions.uncalibrated([network for network, _ in fits], train)
    priced = []
    if len(validation) < ENOUGH_TO_PRICE:
        priced = priced_out_of_fold(config, sessions, chosen, judged)
    fit = calibrated(LearnedListener(dataset, together), validation, priced)
    about = {
        **together.about,
        "pessimism": config.pessimism,
        "reject_constant": config.reject_constant,
        "fitted_on": {name: dataset.about[name] for name in ("sessions", "plays", "tracks")},
        "fitted_sessions": len(chosen),
        "validation_sessions": len(validation),
        "member_validation_log_losses": [loss for _, loss in fits],
        "settings": {k: v for k, v in asdict(config).items() if k not in ("data", "out")},
    }
    return replace(fit, about=about)


def priced_out_of_fold(
    config: FitListenerConfig, sessions: TrainingSplit, chosen: Ints, judged: SessionArrays
) -> list[PricedSongs]:
    """Price songs of training sessions by networks that were fitted on other ones.

    A few hundred validation sessions leave it open whether half or all of a song's effect is real.
    """
    priced = []
    fold_of = sessions.part[chosen] % PRICING_FOLDS
    for fold in np.unique(fold_of):
        held_out = chosen[fold_of == fold]
        train = sessions.arrays(chosen[fold_of != fold], without=held_out)
        network, _ = _fit_with_bar(config, train, judged, config.members + int(fold))
        listener = LearnedListener(sessions.dataset, sessions.uncalibrated([network], train))
        for part, some in sessions.in_parts(held_out):
            listener.table = sessions.table_of(part, held_out)
            priced.append(priced_songs(listener, some))
    return priced


def usual_track(sessions: SessionArrays) -> npt.NDArray[np.float32]:
    """Mean inputs of the tracks of first hearings ``(TRACK_INPUTS,)``."""
    first_hearings = (sessions.levels >= 0) & ~is_repeat(sessions.tracks)
    mean: npt.NDArray[np.float32] = sessions.tracks[first_hearings].mean(axis=0)
    return mean


def _drawn(dataset: Dataset, split: str, most: int, rng: np.random.Generator) -> Ints:
    """Sessions of a split in random order, no more than ``most``.

    Raises:
        ValueError: The split holds no session.
    """
    sessions = dataset.sessions.sessions_in(split)
    if not len(sessions):
        raise ValueError(f"{dataset.folder} has no session in split {split!r} to fit on.")
    return rng.permutation(sessions)[:most]


def _fit_with_bar(
    config: FitListenerConfig, train: SessionArrays, validation: SessionArrays, number: int
) -> tuple[TorchNetwork, float]:
    """Fit network ``number``: a member, or after all members one that prices a fold."""
    of_fold = number - config.members
    description = (
        f"member {number + 1} of {config.members}"
        if of_fold < 0
        else f"pricing fold {of_fold + 1} of {PRICING_FOLDS}"
    )
    with tqdm(total=config.max_epochs, disable=not config.progress, desc=description) as bar:

        def report(epoch: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(validation_log_loss=f"{loss:.4f}")

        return fit_member(config, train, validation, config.seed + number, report)


def output_file(config: FitListenerConfig, dataset: Dataset) -> Path:
    """Where the fitted listener is written."""
    if config.out is not None:
        return config.out
    fold = "" if config.fold == "both" else f"-{config.fold}"
    return dataset.folder / "listeners" / f"{config.listener}{fold}.npz"


def run(config: FitListenerConfig) -> Path:
    """Fit, write, and say how well it went; returns the file."""
    dataset = open_dataset(config.data)
    out = output_file(config, dataset)
    if config.listener == "similarity":
        settings = SimilarityConfig(mode=config.mode, split=FOLDS[config.fold], seed=config.seed)
        write_fit(out, {"listener": "similarity", "settings": asdict(settings)}, {})
        print(f"{out}: settings of a similarity listener, memory of {settings.split}.")
        return out
    fit = fit_ensemble(config, dataset)
    fit.save(out)
    song = fit.calibration.song
    losses = ", ".join(f"{loss:.4f}" for loss in fit.about["member_validation_log_losses"])
    print(
        f"{out}: learned listener, {config.members} members fitted on "
        f"{fit.about['fitted_sessions']:,} sessions of {fit.about['split']}; log-loss of skip on "
        f"validation sessions {losses}; of a song's effect {song[0]:.2f} is believed on a first "
        f"hearing and {song[1]:.2f} on a repeat."
    )
    return out


if __name__ == "__main__":
    from experiments.cli import run_command

    run_command("fit-listener", sys.argv[1:])
