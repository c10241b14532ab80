"""The network of the learned listener: a memory of past plays, and a head for the next track.

The memory is a bank of running means: each unit reads a play and forgets it at a pace of its own,
fixed when the network is made. Nothing in it is gated, so that a song costs one product, and what
a session did long ago stays for the head to weigh::

    reading  = relu(W_r play + b_r)
    memory   = reading + keep (memory - reading)
    units    = relu(W_s [memory, state] + W_t track + b)
    outputs  = W_u units + D_s [memory, state] + D_t track + c

The kernels go session by session and skip inputs that are 0, as most are. An output takes a few
thousand products, and does not depend on the other sessions of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.checks import LARGEST_NUMBER
from musicbox_env.kernels import in_registers
from musicbox_env.listeners.learned.features import (
    PLAY_INPUTS,
    STATE_INPUTS,
    TRACK_INPUTS,
    WEAR_INPUTS,
)
from musicbox_env.schema import NUM_LEVELS

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.integer]
OfPlay = tuple[Array, Array, Array]
Head = tuple[Array, Array, Array, Array, int]

LANES: Final = 16
"""Numbers of single precision in a vector register; rows of weights are filled up to so many."""
INPUTS_AT_ONCE: Final = 6
AT_ONCE: Final = 16


@dataclass(frozen=True)
class Network:
    """Weights of M members, stacked, in single precision; R units of memory, U of the head.

    Those of plays and tracks have more rows, `WEAR_INPUTS`, where it was fitted with these.

    Attributes:
        play_units: ``(M, PLAY_INPUTS, R)``.
        play_bias: ``(M, R)``.
        keep: Share of the memory that remains after one more song ``(M, R)``.
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
        of_bias, of_outputs = np.shape(self.play_bias), np.shape(self.unit_outputs)
        if len(of_bias) != 2 or len(of_outputs) != 3 or 0 in (*of_bias, *of_outputs):
            raise ValueError(
                f"play_bias and unit_outputs of the learned listener have shapes {of_bias} and "
                f"{of_outputs}; expected (members, memory) and (members, units, {NUM_LEVELS}). Fit "
                "the listener again."
            )
        wear = len(WEAR_INPUTS) * self.reads_wear
        for name, expected in _shapes(of_bias[0], of_bias[1], of_outputs[1], wear).items():
            weights = np.ascontiguousarray(getattr(self, name), np.float32)
            if weights.shape != expected:
                raise ValueError(
                    f"{name} of the learned listener has shape {weights.shape}; expected "
                    f"{expected}. Fit the listener again."
                )
            if not (np.abs(weights) <= LARGEST_NUMBER).all():
                raise ValueError(
                    f"{name} of the learned listener holds NaN or numbers beyond "
                    f"{LARGEST_NUMBER:g}. Fit the listener again."
                )
            object.__setattr__(self, name, weights)

    @classmethod
    def stacked(cls, members: list[Network]) -> Network:
        """Several networks as one."""
        return cls(
            **{f.name: np.concatenate([getattr(m, f.name) for m in members]) for f in fields(cls)}
        )

    @property
    def reads_wear(self) -> bool:
        """Whether `WEAR_INPUTS` are among its inputs."""
        return np.shape(self.track_units)[1:2] == (len(TRACK_INPUTS) + len(WEAR_INPUTS),)

    @property
    def members(self) -> int:
        """Networks of the ensemble."""
        return len(self.play_bias)

    @property
    def memory_size(self) -> int:
        """Units of memory."""
        return self.play_bias.shape[1]

    @cached_property
    def of_play(self) -> OfPlay:
        """Weights of `update_memory`, rows filled up."""
        return _of_inputs(self.play_units), _in_registers(self.play_bias), self.keep

    @cached_property
    def head(self) -> Head:
        """Weights of `head_outputs`, rows filled up.

        Those from memory and state, and from the track, to units and outputs at once; the bias of
        both; the weights from units to outputs, ``(M, 5, row)``; and how many units there are.
        """
        nothing = np.zeros((self.members, NUM_LEVELS, NUM_LEVELS), np.float32)
        return (
            _of_inputs(self.state_units, self.state_outputs),
            _of_inputs(self.track_units, self.track_outputs),
            _in_registers(self.units_bias, self.output_bias),
            _in_registers(self.unit_outputs.swapaxes(1, 2), nothing),
            self.unit_outputs.shape[1],
        )


def _shapes(members: int, memory: int, units: int, wear: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights, which kernels read without checks of their own."""
    return {
        "play_units": (members, PLAY_INPUTS + wear, memory),
        "play_bias": (members, memory),
        "keep": (members, memory),
        "state_units": (members, memory + STATE_INPUTS, units),
        "track_units": (members, len(TRACK_INPUTS) + wear, units),
        "units_bias": (members, units),
        "unit_outputs": (members, units, NUM_LEVELS),
        "state_outputs": (members, memory + STATE_INPUTS, NUM_LEVELS),
        "track_outputs": (members, len(TRACK_INPUTS) + wear, NUM_LEVELS),
        "output_bias": (members, NUM_LEVELS),
    }


def _of_inputs(*weights: Array) -> Array:
    """Weights side by side as `_add_products` reads them, ``(M, inputs, row)``."""
    together = np.concatenate(weights, axis=-1)
    rows = -together.shape[1] % INPUTS_AT_ONCE
    return _in_registers(np.pad(together, ((0, 0), (0, rows), (0, 0))))


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


# Loops over units are written out: a view of a row costs more than the sums over it.


@in_registers
def _add_products(inputs: Array, weights: Array, into: Array) -> None:
    """Add ``inputs @ weights`` to ``into``; weights have rows for `INPUTS_AT_ONCE` at a time.

    What a row becomes does not depend on the others, which is not so of a library's product. The
    sum is loaded and stored once for several inputs, and weights are used while they are near for
    all rows, of which there should be few.
    """
    last, nothing = inputs.shape[1] - 1, np.float32(0)
    for k in range(0, inputs.shape[1], INPUTS_AT_ONCE):
        for i in range(len(inputs)):
            a = inputs[i, k]
            b = inputs[i, k + 1] if k + 1 <= last else nothing
            c = inputs[i, k + 2] if k + 2 <= last else nothing
            d = inputs[i, k + 3] if k + 3 <= last else nothing
            e = inputs[i, k + 4] if k + 4 <= last else nothing
            f = inputs[i, k + 5] if k + 5 <= last else nothing
            for j in range(into.shape[1]):
                into[i, j] += (
                    (a * weights[k, j] + b * weights[k + 1, j])
                    + (c * weights[k + 2, j] + d * weights[k + 3, j])
                    + (e * weights[k + 4, j] + f * weights[k + 5, j])
                )


@in_registers
def _output(head: Array, row: int, unit_outputs: Array, units: int, output: int) -> float:
    """One output of a row of units, which are not cut off at 0 yet."""
    total: Any = head[row, units + output]
    for u in range(head.shape[1]):
        total += max(head[row, u], np.float32(0)) * unit_outputs[output, u]
    return total


@in_registers
def update_memory(rows: Rows, plays: Array, of_play: OfPlay, memory: Array) -> None:
    """Add a play of each of the sessions ``rows`` ``(m,)`` to their memory, in place.

    Args:
        rows: Sessions.
        plays: ``(m, PLAY_INPUTS)``, or less at the end where those inputs are 0 anyway.
        of_play: `Network.of_play`.
        memory: Of all sessions ``(n, M, R)``; changed.
    """
    play_units, play_bias, keep = of_play
    reading = np.empty((AT_ONCE, play_bias.shape[1]), np.float32)
    for member in range(len(play_bias)):
        for first in range(0, len(rows), AT_ONCE):
            some = plays[first : first + AT_ONCE]
            for i in range(len(some)):
                for j in range(reading.shape[1]):
                    reading[i, j] = play_bias[member, j]
            _add_products(some, play_units[member], reading)
            for i in range(len(some)):
                row = rows[first + i]
                for j in range(memory.shape[2]):
                    new = max(reading[i, j], np.float32(0))
                    memory[row, member, j] = new + keep[member, j] * (memory[row, member, j] - new)


@in_registers
def _session_units(
    rows: Rows, memory: Array, member: int, states: Array, of_state: Array, bias: Array
) -> Array:
    """Units and outputs of one member from memory and state, without a track ``(m, row)``."""
    size = memory.shape[2]
    known = np.empty((len(rows), len(bias)), np.float32)
    inputs = np.empty((len(rows), size + states.shape[1]), np.float32)
    for i in range(len(rows)):
        for w in range(len(bias)):
            known[i, w] = bias[w]
        for j in range(size):
            inputs[i, j] = memory[rows[i], member, j]
        for s in range(states.shape[1]):
            inputs[i, size + s] = states[i, s]
    for first in range(0, len(rows), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        _add_products(inputs[some], of_state, known[some])
    return known


@in_registers
def head_outputs(
    rows: Rows, memory: Array, states: Array, tracks: Array, usual: Array, weights: Head
) -> tuple[Array, Array]:
    """Outputs of the head for candidates ``(M, m, c, 5)``, the first for a usual ``(M, m)``.

    Args:
        rows: Sessions ``(m,)``.
        memory: Of all sessions ``(n, M, R)``.
        states: ``(m, STATE_INPUTS)``.
        tracks: Candidates ``(m, c, TRACK_INPUTS)``.
        usual: One more track, the same for all sessions ``(TRACK_INPUTS,)``.
        weights: `Network.head`.
    """
    of_state, of_track, bias, unit_outputs, units = weights
    sessions, candidates, inputs = tracks.shape
    members, width, outputs = len(bias), bias.shape[1], unit_outputs.shape[1]
    found = np.empty((members, sessions * candidates, outputs), np.float32)
    of_usual = np.empty((members, sessions), np.float32)
    each, head = tracks.reshape(-1, inputs), np.empty((AT_ONCE, width), np.float32)
    for member in range(members):
        to_outputs = unit_outputs[member]
        known = _session_units(rows, memory, member, states, of_state[member], bias[member])
        usual_units = np.zeros((1, width), np.float32)
        _add_products(usual.reshape(1, inputs), of_track[member], usual_units)
        for i in range(sessions):
            for w in range(width):
                head[0, w] = known[i, w] + usual_units[0, w]
            of_usual[member, i] = _output(head, 0, to_outputs, units, 0)
        for first in range(0, len(each), AT_ONCE):
            some = each[first : first + AT_ONCE]
            for c in range(len(some)):
                for w in range(width):
                    head[c, w] = known[(first + c) // candidates, w]
            _add_products(some, of_track[member], head)
            for c in range(len(some)):
                for o in range(outputs):
                    found[member, first + c, o] = _output(head, c, to_outputs, units, o)
    return found.reshape(members, sessions, candidates, outputs), of_usual
