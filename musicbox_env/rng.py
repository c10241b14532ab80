"""Random numbers addressed by key and counter, the same alone and in a batch.

One session's n-th random number depends on its key and on n alone. A vector environment draws for
all its sessions at once and equals the single environments, one for one; a generator for each
session would cost a Python call a song.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import compiled, elementwise

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
DRAWS_PER_SONG = 2
"""A song takes so many numbers of its session's sequence, one for each purpose."""
LEVEL_DRAW, TIE_DRAW = 0, 1
LEAVING_COUNTER = 2**41
"""Where a session's numbers for leaving begin, which no song's own numbers reach."""
_CHOICE_COUNTER = 2**40
KEYS_AHEAD = 64
_LOW_64 = 2**64 - 1


def new_key(rng: np.random.Generator) -> int:
    """Draw a session's key: 64 bits, the one thing that a session takes from its generator."""
    return int(rng.bit_generator.random_raw())


def packed(generator: np.random.Generator) -> npt.NDArray[np.uint64]:
    """State of a PCG64 generator as six numbers: no pickle is needed to keep it."""
    state = generator.bit_generator.state
    wide = (state["state"]["state"], state["state"]["inc"])
    halves = [half for number in wide for half in (number >> 64, number & _LOW_64)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)


def unpacked(numbers: npt.NDArray[np.uint64]) -> np.random.Generator:
    """The generator that `packed` was given, as it was."""
    plain = [int(number) for number in numbers]
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": plain[0] << 64 | plain[1], "inc": plain[2] << 64 | plain[3]},
        "has_uint32": plain[4],
        "uinteger": plain[5],
    }
    return np.random.Generator(bits)


class KeyStreams:
    """Keys for the sessions of many environments, each from a generator of its own.

    What `new_key` would draw, one at a time and in that order, is drawn `KEYS_AHEAD` at a time.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        """Begin with one generator for each environment."""
        self._generators = list(generators)
        self._keys = np.zeros((len(self._generators), KEYS_AHEAD), np.uint64)
        self._next = np.full(len(self._generators), KEYS_AHEAD)

    def replace(self, row: int, generator: np.random.Generator) -> None:
        """Give an environment another generator."""
        self._generators[row] = generator
        self._next[row] = KEYS_AHEAD

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that decides the keys to come; `restore` takes it back."""
        generators = np.stack([packed(generator) for generator in self._generators])
        return {"generators": generators, "keys": self._keys, "next": self._next}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """Go on where `arrays` was taken.

        Raises:
            ValueError: They are of another number of environments, or no state of generators.
        """
        own = self.arrays()
        for name, array in own.items():
            if (found := arrays[name]).shape != array.shape or found.dtype != array.dtype:
                raise ValueError(
                    f"{name} is {found.dtype} of shape {found.shape}; expected {array.dtype} of "
                    f"shape {array.shape}."
                )
        if arrays["next"].min() < 0 or arrays["next"].max() > KEYS_AHEAD:
            raise ValueError(f"next holds what is no number from 0 to {KEYS_AHEAD}.")
        self._generators = [unpacked(row) for row in arrays["generators"]]
        self._keys[:], self._next[:] = arrays["keys"], arrays["next"]

    def draw(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
        """The next key of each of the environments ``(m,)``."""
        for row in rows[self._next[rows] == KEYS_AHEAD]:
            self._keys[row] = self._generators[row].bit_generator.random_raw(KEYS_AHEAD)
            self._next[row] = 0
        keys = self._keys[rows, self._next[rows]]
        self._next[rows] += 1
        return keys


def choose(keys: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.int64]:
    """One of ``n`` things for each key ``(m,)``; sessions' own counters never reach this number.

    ``floor(u n)`` of a 53-bit u: its bias is below n / 2**53.
    """
    return (uniform(keys, _CHOICE_COUNTER) * n).astype(np.int64)


def uniform(
    keys: npt.NDArray[np.uint64], counters: npt.NDArray[np.integer] | int
) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1): SplitMix64 of the state ``key + counter * golden gamma``.

    Source: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
    figure 16 (the mixing function is Stafford's variant 13); 53 bits of it, as java.util does.

    Args:
        keys: One for each session, ``(n,)`` or broadcastable.
        counters: How many numbers were drawn before, broadcastable with ``keys``.
    """
    return _uniform(keys, np.asarray(counters, np.int64))


@compiled
def uniform_number(key: np.uint64, counter: int | np.int64) -> float:
    """One number of `uniform`."""
    z = np.uint64(key) + (np.uint64(counter) + np.uint64(1)) * _GOLDEN_GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


@elementwise
def _uniform(key: Any, counter: Any) -> Any:
    return uniform_number(key, counter)
