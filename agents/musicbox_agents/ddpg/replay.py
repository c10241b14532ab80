"""Replay memory: transitions as track indices, some 200 bytes each, in fixed arrays.

What a session looked like after a slate is not stored: it is the slate that moves up at the end of
what was heard before, and is put together when a transition is drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from musicbox_agents.base import Observation
from musicbox_env.rewards import RewardConfig, discounts
from musicbox_env.schema import NUM_LEVELS, UNKNOWN
from musicbox_env.simulator.checks import require_rows


@dataclass(frozen=True)
class Transitions:
    """What happened, a row a step of a session; a batch, or everything that a memory holds.

    The observation is that of ``observation="ids"``.

    Attributes:
        tracks: Songs heard before ``(n, H)`` int32, -1 pads in front, the newest last.
        levels: Their listen levels ``(n, H)`` int8, -1 pads.
        context: Context features ``(n, c)`` float32.
        slate: Songs heard in answer ``(n, k)`` int32, -1 where not heard.
        slate_levels: Their listen levels ``(n, k)`` int8, -1 where not heard.
        slate_axis: Their coordinate along the last axis of the embedding space ``(n, k)`` float32,
            NaN where the space itself says; see `musicbox_agents.log.read_log`.
        song_reward: Reward of each song, in units of a slate ``(n, k)`` float32; 0 where not heard.
        terminated: Whether the session ended with the slate ``(n,)`` bool.
        next_position: Last of the context features after the slate ``(n,)`` float32; the others
            stay as they are through a session.
        logged: Whether it comes from the log, where listeners chose the songs ``(n,)`` bool.
    """

    tracks: npt.NDArray[np.int32]
    levels: npt.NDArray[np.int8]
    context: npt.NDArray[np.float32]
    slate: npt.NDArray[np.int32]
    slate_levels: npt.NDArray[np.int8]
    slate_axis: npt.NDArray[np.float32]
    song_reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    next_position: npt.NDArray[np.float32]
    logged: npt.NDArray[np.bool_]

    @classmethod
    def of_step(
        cls,
        observation: Observation,
        following: Observation,
        reward: npt.NDArray[np.float64],
        terminated: npt.NDArray[np.bool_],
        info: Mapping[str, Any],
        config: RewardConfig,
        *,
        logged: bool = False,
    ) -> Self:
        """Transitions of a step of all sessions; ``truncated`` is no end of a session.

        A song earns its own reward times the weights of a whole slate's places, so that songs of
        all places compare, and shares what the slate earns as such.
        """
        levels = info["slate_levels"]
        weight = discounts(config.gamma_position, levels.shape[1])
        of_songs = info["song_reward"]
        of_slate = reward - of_songs @ weight
        song_reward = (of_songs * weight.sum() + of_slate[:, None]) * (levels >= 0)
        return cls(
            tracks=observation["tracks"],
            levels=observation["levels"],
            context=observation["context"],
            slate=info["slate"].astype(np.int32),
            slate_levels=levels,
            slate_axis=np.full(levels.shape, np.nan, np.float32),
            song_reward=song_reward.astype(np.float32),
            terminated=terminated,
            next_position=following["context"][:, -1],
            logged=np.full(len(levels), logged),
        )

    def __len__(self) -> int:
        return len(self.terminated)

    def __getitem__(self, rows: npt.NDArray | slice) -> Self:
        """Some of the rows, by indices, mask or slice."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def heard(self) -> npt.NDArray[np.bool_]:
        """Which songs of the slates were heard ``(n, k)``."""
        return self.slate >= 0

    def before(self) -> Observation:
        """What was observed before the slate."""
        return {"tracks": self.tracks, "levels": self.levels, "context": self.context}

    def after(self) -> Observation:
        """What was observed after it."""
        tracks = np.concatenate([self.tracks, self.slate], axis=1)
        levels = np.concatenate([self.levels, self.slate_levels], axis=1)
        # Stable: what is no song goes to the front, and the songs keep their order.
        order = np.argsort(levels >= 0, axis=1, kind="stable")[:, self.slate.shape[1] :]
        context = self.context.copy()
        context[:, -1] = self.next_position
        return {
            "tracks": np.take_along_axis(tracks, order, axis=1),
            "levels": np.take_along_axis(levels, order, axis=1),
            "context": context,
        }

    def require_possible(self, like: Observation, places: int, num_tracks: int) -> None:
        """Refuse what no step can have been, as a damaged file can hold: kernels read it unchecked.

        Args:
            like: Observation of sessions, for the sizes H and c.
            places: Songs of a slate, k.
            num_tracks: Size of the catalog.

        Raises:
            ValueError: With the name of what has another type, shape or values out of range.
        """
        heard, context = like["tracks"].shape[1:], like["context"].shape[1:]
        after = dict.fromkeys(("slate", "slate_levels", "slate_axis", "song_reward"), (places,))
        shapes = {"tracks": heard, "levels": heard, "context": context, **after}
        for name, dtype in TYPES.items():
            found, shape = getattr(self, name), (len(self), *shapes.get(name, ()))
            if found.shape != shape or found.dtype != dtype:
                raise ValueError(
                    f"{name} is {found.dtype} of shape {found.shape}; expected {np.dtype(dtype)} "
                    f"of shape {shape}."
                )
            missing = name == "slate_axis" and np.isnan(found)
            if found.dtype.kind == "f" and not (np.isfinite(found) | missing).all():
                raise ValueError(f"{name} holds what is no finite number.")
        for name in ("tracks", "slate"):
            require_rows(name, getattr(self, name), num_tracks, UNKNOWN)
        for name in ("levels", "slate_levels"):
            require_rows(name, getattr(self, name), NUM_LEVELS, UNKNOWN)

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Several batches as one, in order."""
        if len(parts) == 1:
            return parts[0]
        columns = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))


_FIELDS = fields(Transitions)
TYPES: Final = {
    **{"tracks": np.int32, "levels": np.int8, "context": np.float32},
    **{"slate": np.int32, "slate_levels": np.int8, "slate_axis": np.float32},
    **{"song_reward": np.float32, "terminated": np.bool_, "next_position": np.float32},
    "logged": np.bool_,
}
"""Of each field of `Transitions`."""
BATCHES_AT_ONCE: Final = 16


class ReplayBuffer:
    """The newest ``capacity`` transitions, in a ring; arrays are made when the first ones come."""

    def __init__(self, capacity: int) -> None:
        """Make an empty memory."""
        if capacity < 1:
            raise ValueError(f"A replay memory of {capacity} transitions; it needs 1 or more.")
        self.capacity = capacity
        self._added = 0
        self._ring: Transitions | None = None

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def arrays(self) -> dict[str, npt.NDArray]:
        """Everything held, and how much was ever stored; `restored` takes it back."""
        held = {} if self._ring is None else {f.name: getattr(self.stored, f.name) for f in _FIELDS}
        return {**held, "added": np.array(self._added)}

    @classmethod
    def restored(cls, capacity: int, arrays: Mapping[str, npt.NDArray]) -> Self:
        """A memory as `arrays` found it.

        Raises:
            ValueError: It holds another number of transitions than was ever stored.
        """
        memory, added = cls(capacity), int(arrays["added"])
        if added:
            held = Transitions(*(arrays[f.name] for f in _FIELDS))
            if len(held) != min(added, capacity):
                raise ValueError(f"{len(held)} transitions of {added}; {capacity} have room.")
            memory.add(held)
        memory._added = added
        return memory

    def add(self, new: Transitions) -> None:
        """Store transitions; of more than the capacity only the last are kept."""
        if self._ring is None:
            self._ring = Transitions(
                *(
                    np.empty((self.capacity, *part.shape[1:]), part.dtype)
                    for part in (getattr(new, f.name) for f in fields(new))
                )
            )
        places = (self._added + np.arange(len(new))) % self.capacity
        kept = slice(max(len(new) - self.capacity, 0), None)
        for field in fields(new):
            getattr(self._ring, field.name)[places[kept]] = getattr(new, field.name)[kept]
        self._added += len(new)

    def draw(self, rng: np.random.Generator, size: int) -> npt.NDArray[np.int64]:
        """Places in `stored` of ``size`` transitions, drawn uniformly, with replacement.

        Raises:
            ValueError: Nothing was stored yet.
        """
        return rng.integers(self._held(), size=size)

    def sample(self, rng: np.random.Generator, size: int) -> Transitions:
        """Transitions drawn likewise."""
        return self.stored[self.draw(rng, size)]

    @property
    def stored(self) -> Transitions:
        """Everything held, as a view; in a full ring the oldest need not come first."""
        held = self._held()
        assert self._ring is not None
        return self._ring[:held]

    def _held(self) -> int:
        if not len(self):
            raise ValueError("The replay memory is empty; add transitions before drawing any.")
        return len(self)


def draw_batches(
    rng: np.random.Generator, number: int, sources: Sequence[tuple[ReplayBuffer, int]]
) -> Iterator[Transitions]:
    """Draw batches that mix memories; up to `BATCHES_AT_ONCE` come together, in half the time.

    ``sources`` are memories, and how many transitions of a batch each gives, in that order.
    """
    sources = [(memory, size) for memory, size in sources if size]
    for first in range(0, number, BATCHES_AT_ONCE):
        some = min(BATCHES_AT_ONCE, number - first)
        drawn = [[memory.draw(rng, size) for memory, size in sources] for _ in range(some)]
        parts = [
            memory.stored[np.stack(places)]
            for (memory, _), places in zip(sources, zip(*drawn, strict=True), strict=True)
        ]
        columns = ([getattr(part, field.name) for part in parts] for field in _FIELDS)
        batches = (np.concatenate(column, axis=1) for column in columns)
        yield Transitions(*(rows.reshape(-1, *rows.shape[2:]) for rows in batches))
