"""What an agent is: Stable-Baselines3's face, for agents that learn and for those that need not."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Final, Self, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from musicbox_agents.progress import Callback, Progress
from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import WHOLE, Dataset
from musicbox_env.data.writing import write_json
from musicbox_env.errors import reading, writing
from musicbox_env.schema import brief, require_known
from musicbox_env.simulator.dynamics import Simulator

AGENT, WEIGHTS = "agent.json", "weights.npz"
TRAIN_AGAIN: Final = "Train the agent again."
HIGHEST_SEED: Final = 2**32 - 1
WIDEST: Final = 8_192
"""Units of a layer of a network."""
Observation = Mapping[str, npt.NDArray]
Options = Mapping[str, Any]
"""Keywords of `gymnasium.make`."""


@dataclass(frozen=True)
class AgentSettings:
    """Settings of an agent; each agent has a subclass whose fields are its options."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; an unknown name is refused with a suggestion.

        Raises:
            ValueError: A name is unknown, or a value has another type than its setting, or is
                refused by the class.
        """
        for name in values:
            require_known(f"setting of {cls.__name__}", name, [f.name for f in fields(cls)])
        settings, hints = {}, get_type_hints(cls)
        for name, value in values.items():
            settings[name] = tuple(value) if isinstance(value, list) else value
            if not _is_of(settings[name], hints[name]):
                raise ValueError(
                    f"{_owner(cls)} setting {name} is {brief(value)}; it must be "
                    f"{_described(hints[name])}."
                )
        return cls(**settings)

    def acting_with(self, changed: Mapping[str, Any]) -> Self:
        """The settings of an agent trained under these that acts under some others.

        Raises:
            ValueError: A value is refused, or what was learned cannot act so.
        """
        return self.from_mapping({**asdict(self), **changed})


def as_batch(observation: Observation) -> tuple[dict[str, npt.NDArray], bool]:
    """An observation with a leading axis of sessions, and whether that had to be added."""
    single = np.ndim(observation["context"]) == 1
    batch = {name: np.asarray(part) for name, part in observation.items()}
    return ({name: part[None] for name, part in batch.items()} if single else batch), single


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a declared type: a number, bool, str, or tuple, or None."""
    options = get_args(hint)
    if options and options[-1] is Ellipsis:
        return isinstance(value, tuple) and all(_is_of(each, options[0]) for each in value)
    if options:
        return any(_is_of(value, option) for option in options)
    kind = {int: Integral, float: Real}.get(hint, hint)
    return isinstance(value, kind) and (hint is bool or not isinstance(value, bool))


def _described(hint: Any) -> str:
    """What a declared type accepts."""
    options = get_args(hint)
    if options and options[-1] is Ellipsis:
        return f"a list, each {_described(options[0])}"
    if options:
        return " or ".join(map(_described, options))
    names = {int: "a whole number", float: "a finite number", str: "text", type(None): "null"}
    return names.get(hint, "true or false")


def _owner(cls: type) -> str:
    return cls.__name__.removesuffix("Settings").removesuffix("Config")


def require_ranges(settings: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse settings that are no finite number in their range, ends included.

    None is allowed where the type of the field names it.

    Raises:
        ValueError: With the value and the range.
    """
    types = {f.name: getattr(f.type, "__name__", str(f.type)) for f in fields(settings)}
    of = _owner(type(settings))
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if value is None and "None" in types[name]:
            continue
        kind = Integral if types[name].startswith("int") else Real
        if isinstance(value, bool) or not isinstance(value, kind) or abs(value) == np.inf:
            number = "whole number" if kind is Integral else "finite number"
            raise ValueError(f"{of} setting {name} is {brief(value)}; it must be a {number}.")
        number_of: Any = value
        if not low <= number_of <= high:
            most = "" if high == np.inf else f" and at most {high:g}"
            raise ValueError(
                f"{of} setting {name} is {brief(value)}; it must be at least {low:g}{most}."
            )


class Agent(ABC):
    """Recommends slates for observations of `MusicSession-v0`.

    Attributes:
        name: How it is called on the command line and in tables.
        Settings: Its options.
        learns: Whether `learn` changes anything.
        offline: Whether it learns from logged sessions alone, without any listener model.
        resumes: Whether a training that was killed goes on from its last checkpoint.
        knows_law: Whether it reads the exact law of synthetic data, and has no use without.
        acting: Settings that decide how it acts and nothing of what it learned: they may be others
            when it is loaded than when it was trained.
        dataset: Catalog and training statistics that it may use.
        settings: The options in force.
        seed: Of everything random in it; the same seed gives the same agent.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[AgentSettings]] = AgentSettings
    learns: ClassVar[bool] = False
    offline: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    knows_law: ClassVar[bool] = False
    acting: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """Make an untrained agent.

        Args:
            dataset: What it recommends from.
            seed: Of everything random in it.
            settings: Its options; None is their defaults.
        """
        self.dataset = dataset
        self.seed = seed
        self.settings = self.Settings() if settings is None else settings
        self.set_up()

    def set_up(self) -> None:
        """Make what the agent needs to act, untrained; `__init__` calls it last."""

    @property
    @abstractmethod
    def env_options(self) -> dict[str, Any]:
        """Keywords of `gymnasium.make` that this agent needs: kinds of action and observation."""

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray, Any]:
        """Choose actions.

        Args:
            observation: Of one session, or of a batch with a leading axis.
            state: What an earlier call returned; None at the start.
            episode_start: Which sessions of the batch have just begun.
            deterministic: Without exploration.

        Returns:
            The action or actions, and the state for the next call.
        """
        batch, single = as_batch(observation)
        actions = self.act(batch, deterministic=deterministic)
        return (actions[0] if single else actions), state

    @abstractmethod
    def act(self, batch: Observation, *, deterministic: bool) -> npt.NDArray:
        """Actions ``(n, ...)`` for n sessions; see `predict`."""

    def attach(self, simulator: Simulator) -> None:
        """Read the simulator itself: only for bounds and the logged policy, which are no agents."""

    def learn(
        self,
        env_options: Mapping[str, Any],
        total_steps: int,
        *,
        callback: Callback | None = None,
        callback_every: int = 1_000,
        checkpoint: Path | None = None,
    ) -> Self:
        """Learn from recommending.

        Args:
            env_options: Keywords of `gymnasium.make` that say what to learn on (data, split,
                listener, reward); the agent adds its own `env_options`.
            total_steps: Slates to recommend, all parallel sessions together. An agent that plays
                sessions in parallel ends with the round of slates that reaches this number.
            callback: Called about every ``callback_every`` steps and at the end.
            callback_every: In environment steps.
            checkpoint: Folder where all that the training is is kept after each callback. If it
                holds a checkpoint, the training goes on from there, to the same end as if it had
                never stopped. Agents without ``resumes`` pass it over.
        """
        options = {**env_options, **self.env_options}
        self.train(options, total_steps, Progress(callback, callback_every), checkpoint)
        return self

    def train(
        self, options: Options, total_steps: int, progress: Progress, checkpoint: Path | None
    ) -> None:
        """Learn as `learn` says; ``options`` are the environment's, the agent's own included."""

    def save(self, folder: Path) -> None:
        """Write the agent: settings as JSON, weights as arrays, nothing pickled."""
        folder.mkdir(parents=True, exist_ok=True)
        if arrays := self.arrays():
            with writing(folder / WEIGHTS), (folder / WEIGHTS).open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        about = {
            "agent": self.name,
            "seed": self.seed,
            "part": self.dataset.part,
            "settings": asdict(self.settings),
            "dataset": self.dataset.identity,
        }
        write_json(folder / AGENT, about)

    @classmethod
    def load(
        cls, folder: Path, dataset: Dataset, *, changed: Mapping[str, Any] | None = None
    ) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The checkpoint.
            dataset: What to recommend from: the catalog that it was trained on; sessions may be
                others.
            changed: Settings of `acting` that shall be others than in training.

        Raises:
            ValueError: The checkpoint is another agent's, or of another catalog, or was made of
                another part of the training sessions, or a setting is not one of acting, or it was
                trained by a version with other settings.
        """
        file = CheckedFile(folder / AGENT, TRAIN_AGAIN)
        about = file.json()
        name, stored = file.field(about, "agent", str), file.field(about, "settings", dict)
        if name != cls.name:
            raise ValueError(f"{folder} holds a {name!r} agent, not a {cls.name!r} one.")
        part = about.get("part", WHOLE)
        if part != dataset.part:
            raise ValueError(
                f"{folder} was made of the part {part!r} of the training sessions, and "
                f"{dataset.folder} holds {dataset.part!r}, whose tracks have other numbers; open "
                f"the dataset by musicbox_env.ingest.training_parts.open_part(dataset, {part!r})."
            )
        for name in changed or {}:
            require_known(f"setting of how a trained {cls.name} acts", name, cls.acting)
        differing = sorted({f.name for f in fields(cls.Settings)} ^ set(stored))
        if differing:
            raise ValueError(
                f"{folder} was trained by a MusicBox with other settings of {cls.name} "
                f"({', '.join(differing)}); train it again."
            )
        mend = "Load it on the dataset that it was trained on, or train it again."
        dataset.require_same_catalog(about.get("dataset"), f"The agent in {folder}", mend)
        seed = file.field(about, "seed", int)
        file.require(0 <= seed <= HIGHEST_SEED, f"seed is {seed}", f"0 to {HIGHEST_SEED:,}")
        with reading(file.file, TRAIN_AGAIN):
            trained = cls.Settings.from_mapping(stored)
        settings = trained.acting_with(changed or {})
        with reading(file.file, TRAIN_AGAIN):  # settings decide what is made, of which size
            agent = cls(dataset, seed=seed, settings=settings)
        agent.load_weights(folder)
        return agent

    def load_weights(self, folder: Path) -> None:
        """Read what was learned by another agent of the same settings.

        Raises:
            InputError: An array is missing, has another type or shape than this agent's own, or
                holds what is no finite number.
        """
        own, file = self.arrays(), CheckedFile(folder / WEIGHTS, TRAIN_AGAIN)
        if not own and not file.file.exists():
            return
        arrays = file.arrays()
        for name, like in own.items():
            file.require(name in arrays, f"no {name!r}", f"an array of shape {like.shape}")
            file.checked(arrays[name], like.dtype, like.shape, name)
        for name, array in arrays.items():
            file.require_numbers(array, name)
        with reading(file.file, TRAIN_AGAIN):
            self.restore(arrays)

    def arrays(self) -> dict[str, npt.NDArray]:
        """What was learned, by name; an agent that learns overrides this and `restore`."""
        return {}

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """Set what was learned to what `arrays` gave."""
