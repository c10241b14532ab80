"""The network of the learned listener: what it keeps of the plays that are over, and its prices.

Memory is a bank of running means: each unit reads a play and forgets it at its own pace, fixed
when the network is made. Nothing in it is gated, so taking in a song costs one product, and what a
session did long ago stays for the head to weigh::

    reading  = relu(W_r play + b_r)
    memory   = reading + keep (memory - reading)
    units    = relu(W_s [memory, state] + W_t track + b)
    outputs  = W_u units + D_s [memory, state] + D_t track + c

The kernels go session by session and skip inputs that are 0, as most are: an answer takes a few
thousand products, and does not depend on who else is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import in_registers
from musicbox_env.listeners.features import PLAY_INPUTS, STATE_INPUTS, TRACK_INPUTS
from musicbox_env.schema import NUM_LEVELS

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]

LANES: Final = 16
"""Numbers of single precision in a vector register; rows of weights are filled up to so many."""


@dataclass(frozen=True)
class Network:
    """Weights of M members, stacked, in single precision; R units of memory, U of the head.

    Attributes:
        play_units: ``(M, PLAY_INPUTS, R)``.
        play_bias: ``(M, R)``.
        keep: Which part of the memory one more song leaves ``(M, R)``.
        state_units: ``(M, R + STATE_INPUTS, U)``.
        track_units: ``(M, TRACK_INPUTS, U)``.
        units_bias: ``(M, U)``.
        unit_outputs: ``(M, U, 5)``.
        state_outputs: ``(M, R + STATE_INPUTS, 5)``.
        track_outputs: ``(M, TRACK_INPUTS, 5)``.
        output_bias: ``(M, 5)``.
    """

    play_units: Array
    play_bias: Array
    keep: Array
    state_units: Array
    track_units: Array
    units_bias: Array
    unit_outputs: Array
    state_outputs: Array
    track_outputs: Array
    output_bias: Array

    def __post_init__(self) -> None:
        for field in fields(self):
            weights = np.ascontiguousarray(getattr(self, field.name), np.float32)
            object.__setattr__(self, field.name, weights)
        members, memory = self.play_bias.shape
        units = self.unit_outputs.shape[1]
        shapes = {
            "play_units": (members, PLAY_INPUTS, memory),
            "keep": (members, memory),
            "state_units": (members, memory + STATE_INPUTS, units),
            "track_units": (members, len(TRACK_INPUTS), units),
        }
        for name, expected in shapes.items():
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(
                    f"{name} of the learned listener has shape {shape}; expected {expected}. "
                    "Fit the listener again."
                )

    @classmethod
    def stacked(cls, members: list[Network]) -> Network:
        """Several networks as one."""
        return cls(
            **{f.name: np.concatenate([getattr(m, f.name) for m in members]) for f in fields(cls)}
        )

    @property
    def members(self) -> int:
        """Networks of the ensemble."""
        return len(self.play_bias)

    @property
    def memory_size(self) -> int:
        """Units of memory."""
        return self.play_bias.shape[1]

    def remember(self, rows: Rows, plays: Array, memory: Array) -> None:
        """Take in a play of each of the sessions ``rows`` ``(m,)``, in place.

        Args:
            rows: Sessions.
            plays: ``(m, PLAY_INPUTS)``, or less at the end where those inputs are 0 anyway.
            memory: Of all sessions ``(n, M, R)``; changed.
        """
        remember_plays(rows, plays, *self.of_play, memory)

    def price(
        self, rows: Rows, memory: Array, states: Array, tracks: Array, usual: Array
    ) -> tuple[Array, Array]:
        """Outputs of the head for candidates ``(M, m, c, 5)``, the first for a usual ``(M, m)``.

        Args:
            rows: Sessions asked ``(m,)``.
            memory: Of all sessions ``(n, M, R)``.
            states: ``(m, STATE_INPUTS)``.
            tracks: Candidates ``(m, c, TRACK_INPUTS)``.
            usual: One more track, for all sessions alike ``(TRACK_INPUTS,)``.
        """
        return price_tracks(rows, memory, states, tracks, usual, *self.head)

    @cached_property
    def of_play(self) -> tuple[Array, Array, Array]:
        """Weights from a play to the memory, as `remember_plays` reads them, rows filled up."""
        return _in_registers(self.play_units), _in_registers(self.play_bias), self.keep

    @cached_property
    def head(self) -> tuple[Array, Array, Array, Array, int]:
        """Weights as `price_tracks` reads them, rows filled up.

        Those from memory and state, and from the track, to units and outputs at once; the bias of
        both; the weights from units to outputs, ``(M, 5, row)``; and how many units there are.
        """
        nothing = np.zeros((self.members, NUM_LEVELS, NUM_LEVELS), np.float32)
        return (
            _in_registers(self.state_units, self.state_outputs),
            _in_registers(self.track_units, self.track_outputs),
            _in_registers(self.units_bias, self.output_bias),
            _in_registers(self.unit_outputs.swapaxes(1, 2), nothing),
            self.unit_outputs.shape[1],
        )


def _in_registers(*weights: Array) -> Array:
    """Weights side by side, filled up with 0 to whole registers, the first at a cache line.

    A register that is loaded from two cache lines takes twice as long.
    """
    together = np.concatenate(weights, axis=-1)
    *shape, width = together.shape
    row = width + -width % LANES
    size = math.prod(shape) * row
    room = np.zeros(size + LANES, np.float32)
    first = -(room.ctypes.data // room.itemsize) % LANES
    rows = room[first : first + size].reshape(*shape, row)
    rows[..., :width] = together
    return rows


# Loops over units are written out: a view of a row costs more than the sums over it. Weighted rows
# are added four at a time, so that the sum is loaded and stored once for four. Inputs that are not
# 0 are listed without branches, as which these are, nothing foretells.


@in_registers
def _add_weighted(
    weights: Array, places: npt.NDArray[np.uint32], count: int, rows: Array, into: Array
) -> None:
    """Add ``sum_k weights[k] * rows[places[k]]`` over the first ``count`` k to ``into``.

    Both lists have room for three more, which are filled with nothing.
    """
    for k in range(count, count + 3):
        weights[k], places[k] = 0, 0
    for k in range(0, count, 4):
        a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        of_a, of_b, of_c, of_d = places[k], places[k + 1], places[k + 2], places[k + 3]
        for j in range(len(into)):
            into[j] += (a * rows[of_a, j] + b * rows[of_b, j]) + (
                c * rows[of_c, j] + d * rows[of_d, j]
            )


@in_registers
def _output(head: Array, unit_outputs: Array, units: int, output: int) -> float:
    """One output of so many units, which are not cut off at 0 yet."""
    total: Any = head[units + output]
    for u in range(len(head)):
        total += max(head[u], np.float32(0)) * unit_outputs[output, u]
    return total


@in_registers
def remember_plays(
    rows: Rows, plays: Array, play_units: Array, play_bias: Array, keep: Array, memory: Array
) -> None:
    """See `Network.remember`; the weights are those of `Network.of_play`."""
    width, size, inputs = play_bias.shape[1], memory.shape[2], plays.shape[1]
    reading = np.empty(width, np.float32)
    told, places = np.empty(inputs + 3, np.float32), np.empty(inputs + 3, np.uint32)
    for member in range(len(play_bias)):
        of_play = play_units[member]
        for i in range(len(rows)):
            count = 0
            for p in range(inputs):
                value = plays[i, p]
                told[count], places[count] = value, p
                count += value != 0
            for j in range(width):
                reading[j] = play_bias[member, j]
            _add_weighted(told, places, count, of_play, reading)
            row = rows[i]
            for j in range(size):
                new = max(reading[j], np.float32(0))
                memory[row, member, j] = new + keep[member, j] * (memory[row, member, j] - new)


@in_registers
def price_tracks(
    rows: Rows,
    memory: Array,
    states: Array,
    tracks: Array,
    usual: Array,
    of_state: Array,
    of_track: Array,
    bias: Array,
    unit_outputs: Array,
    units: int,
) -> tuple[Array, Array]:
    """See `Network.price`; the weights are those of `Network.head`."""
    width, size = bias.shape[1], memory.shape[2]
    members, asked, candidates = len(bias), len(rows), tracks.shape[1]
    prices = np.empty((members, asked, candidates, unit_outputs.shape[1]), np.float32)
    of_usual = np.empty((members, asked), np.float32)
    known, head = np.empty(width, np.float32), np.empty(width, np.float32)
    room = size + states.shape[1] + 3
    told, places = np.empty(room, np.float32), np.empty(room, np.uint32)
    told_usual, usual_places = np.empty(room, np.float32), np.empty(room, np.uint32)
    usual_count = 0
    for t in range(len(usual)):
        told_usual[usual_count], usual_places[usual_count] = usual[t], t
        usual_count += usual[t] != 0
    for member in range(members):
        state_rows, track_rows = of_state[member], of_track[member]
        to_outputs = unit_outputs[member]
        for i in range(asked):
            count = 0
            for j in range(size):
                mean = memory[rows[i], member, j]
                told[count], places[count] = mean, j
                count += mean != 0
            for s in range(states.shape[1]):
                value = states[i, s]
                told[count], places[count] = value, size + s
                count += value != 0
            for w in range(width):
                known[w] = bias[member, w]
            _add_weighted(told, places, count, state_rows, known)
            for w in range(width):
                head[w] = known[w]
            _add_weighted(told_usual, usual_places, usual_count, track_rows, head)
            of_usual[member, i] = _output(head, to_outputs, units, 0)
            for c in range(candidates):
                count = 0
                for t in range(tracks.shape[2]):
                    value = tracks[i, c, t]
                    told[count], places[count] = value, t
                    count += value != 0
                for w in range(width):
                    head[w] = known[w]
                _add_weighted(told, places, count, track_rows, head)
                for o in range(unit_outputs.shape[1]):
                    prices[member, i, c, o] = _output(head, to_outputs, units, o)
    return prices, of_usual
