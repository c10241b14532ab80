"""Roll-outs: every agent recommends into the same sessions, with the same random numbers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from musicbox_agents import Agent

import musicbox_env
from musicbox_env.data.checks import CheckedFile
from musicbox_env.errors import reading
from musicbox_env.schema import NUM_LEVELS, UNHEARD
from musicbox_env.simulator.checks import require_rows
from musicbox_env.simulator.imputed import imputed_answers_expected
from musicbox_env.vector_env import MusicSessionVectorEnv

FloatArray = npt.NDArray[np.float64]
BATCH = 512
MEND = "Delete the file, and `musicbox compare` makes it again."
_SEED_STRIDE = 1_000_003
"""Prime; spreads the seeds of neighbouring evaluation seeds over the sessions."""


class Stored:
    """A dataclass of arrays and plain values that is kept as an ``.npz`` file without pickles."""

    def save(self, path: Path) -> None:
        """Write all fields."""
        with path.open("wb") as file:
            np.savez_compressed(file, **{k: v for k, v in vars(self).items() if v is not None})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: It holds something else.
        """
        found = CheckedFile(path, MEND).arrays()
        with reading(path, MEND):
            return cls(**{name: a if a.ndim else a.item() for name, a in found.items()})


@dataclass(frozen=True)
class Rollout(Stored):
    """What one agent recommended to the evaluated sessions, and how it was heard.

    Attributes:
        agent: Name of the agent.
        seed: Seed of its training (0 for an agent that does not learn).
        evaluator: Name of the listener that answered.
        sessions: Session indices ``(n,)`` int64.
        slates: Track rows ``(n, steps, k)`` int32 in the order played, -1 where not heard.
        levels: Listen levels ``(n, steps, k)`` int8, -1 where not heard.
        logged: Where the level is a label from the log and not imputed, ``(n, steps, k)`` bool.
        returns: Undiscounted sum of rewards of each session ``(n,)`` float64.
        source: Of pooled roll-outs the training and evaluation that each row is of ``(n,)`` int64;
            see `pooling`. Sessions may then stand there more than once.
        known: Plays from which the evaluator knows each song ``(n, steps, k)`` int64, where it
            answers by what it learned of songs.
        held: Whether the logged session still held the song, ``(n, steps, k)`` bool.
    """

    agent: str
    seed: int
    evaluator: str
    sessions: npt.NDArray[np.int64]
    slates: npt.NDArray[np.int32]
    levels: npt.NDArray[np.int8]
    logged: npt.NDArray[np.bool_]
    returns: FloatArray
    source: npt.NDArray[np.int64] | None = None
    known: npt.NDArray[np.int64] | None = None
    held: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        require_array("sessions", self.sessions, "iu", ndim=1)
        require_array("slates", self.slates, "iu", ndim=3)
        require_array("returns", self.returns, "f", shape=self.sessions.shape)
        require_array("levels", self.levels, "iu", shape=self.slates.shape)
        require_array("logged", self.logged, "b", shape=self.slates.shape)
        for name, kinds in (("known", "iu"), ("held", "b")):
            if (array := getattr(self, name)) is not None:
                require_array(name, array, kinds, shape=self.slates.shape)
        if self.source is not None:
            require_array("source", self.source, "iu", shape=self.sessions.shape)
        if not np.isfinite(self.returns).all():
            raise ValueError("returns hold NaN or infinity; expected finite numbers.")
        require_rows("levels", self.levels, NUM_LEVELS, UNHEARD)
        if len(self.slates) != len(self.sessions):
            raise ValueError(
                f"slates has {len(self.slates)} rows for {len(self.sessions)} sessions; "
                "give one row for each session."
            )
        if not np.array_equal(self.slates >= 0, self.levels >= 0):
            raise ValueError(
                "slates and levels disagree about which songs were heard; "
                "write -1 into both where a song was not heard."
            )

    @property
    def heard(self) -> npt.NDArray[np.bool_]:
        """Which places of the slates were heard, ``(n, steps, k)``."""
        return self.levels >= 0


def require_array(
    name: str,
    array: npt.NDArray,
    kinds: str,
    *,
    ndim: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Refuse an array of other dimensions, another shape, or of none of the kinds of types."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        of = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{name} holds {of} values; expected numbers of kind {kinds!r}.")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; expected {ndim} dimensions.")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}.")


def session_seeds(seed: int, sessions: npt.NDArray[np.integer]) -> list[int]:
    """Seed of each session's random numbers: of the session alone, so agents are paired."""
    return [(seed * _SEED_STRIDE + int(session)) % 2**31 for session in sessions]


@contextmanager
def open_sessions(
    agent: Agent, options: Mapping[str, Any], sessions: npt.NDArray[np.int64], seed: int
) -> Iterator[tuple[MusicSessionVectorEnv, dict[str, npt.NDArray]]]:
    """A vector environment in which every given session has just begun, and what it shows.

    Replay over the catalog is what options leave out.
    """
    with imputed_answers_expected():
        env = gym.make_vec(
            musicbox_env.ENV_ID,
            num_envs=len(sessions),
            vectorization_mode="vector_entry_point",
            autoreset_mode="Disabled",
            **{"listener": "replay", "candidates": "catalog", **options, **agent.env_options},
        )
    assert isinstance(env, MusicSessionVectorEnv)
    try:
        observation, _ = env.reset(
            seed=session_seeds(seed, sessions), options={"session": sessions}
        )
        agent.attach(env.simulator)
        yield env, observation
    finally:
        env.close()


def roll_out(
    agent: Agent,
    options: Mapping[str, Any],
    sessions: npt.NDArray[np.int64],
    *,
    listener: str,
    label: str | None = None,
    evaluator: str | None = None,
    seed: int = 0,
    training_seed: int = 0,
    max_steps: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Rollout:
    """Let an agent recommend until each of the sessions is over.

    Args:
        agent: Acts deterministically.
        options: Keywords of the environment (data, split, ...), without the agent's own.
        sessions: Which logged sessions ``(n,)``.
        listener: Name or path of the listener that answers.
        label: What the result calls the agent; its own name if left out.
        evaluator: What the result calls the listener; its own name if left out.
        seed: Of the evaluator's random numbers: the same for every agent that is compared.
        training_seed: The agent's own, noted in the result.
        max_steps: Stop after this many slates.
        progress: Called with the number of sessions of each batch that is done.
    """
    options = {**options, "listener": listener}
    returns = np.zeros(len(sessions))
    outcomes: list[tuple[slice, int, dict[str, npt.NDArray]]] = []
    for start in range(0, len(sessions), BATCH):
        batch = slice(start, start + BATCH)
        steps = _steps(agent, options, sessions[batch], seed)
        for step, (reward, info) in enumerate(islice(steps, max_steps)):
            returns[batch] += reward
            outcomes.append((batch, step, info))
        if progress is not None:
            progress(len(sessions[batch]))
    shape = (len(sessions), 1 + max(step for _, step, _ in outcomes), *info["slate"].shape[1:])
    slates = np.full(shape, -1, np.int32)
    levels = np.full(shape, -1, np.int8)
    logged = np.zeros(shape, np.bool_)
    for batch, step, info in outcomes:
        slates[batch, step] = info["slate"]
        levels[batch, step] = info["slate_levels"]
        logged[batch, step] = info["logged"]
    return Rollout(
        agent=label or agent.name,
        seed=training_seed,
        evaluator=evaluator or listener,
        sessions=sessions,
        slates=slates,
        levels=levels,
        logged=logged,
        returns=returns,
    )


def _steps(
    agent: Agent, options: Mapping[str, Any], sessions: npt.NDArray[np.int64], seed: int
) -> Iterator[tuple[npt.NDArray, dict[str, npt.NDArray]]]:
    """Rewards ``(n,)`` and infos of one batch, step by step until all its sessions are over."""
    state: Any = None
    start = np.ones(len(sessions), np.bool_)
    over = np.zeros_like(start)
    with open_sessions(agent, options, sessions, seed) as (env, observation):
        while not over.all():
            action, state = agent.predict(observation, state, start, deterministic=True)
            observation, reward, terminated, truncated, info = env.step(action)
            start, over = np.zeros_like(start), terminated | truncated
            yield reward, info
