"""Export logged sessions as a Minari data set, for offline reinforcement learning elsewhere.

    musicbox export DATA --minari --out DIR
    MINARI_DATASETS_PATH=DIR python -c "import minari; print(minari.load_dataset('musicbox-logged-v0'))"

An episode is a logged session: what MusicSession-v0 shows of it, the slates that were played in
its second half, the rewards for the labels that were logged. Nothing is simulated. The recovered
environment replays every episode exactly (with slate actions and options={"session": i}, which
each episode's metadata holds). To evaluate, recover_environment(eval_env=True): there only the
plays that a session still holds can be chosen, so that every label is a logged one as well.
"""  # noqa: E501 (a command to copy)

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import tyro
from musicbox_agents.base import require_ranges

from musicbox_env import ENV_ID
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.folders import Kind
from musicbox_env.data.writing import staged_folder
from musicbox_env.progress import tqdm
from musicbox_env.schema import require_known, split_codes
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.simulator.config import OBSERVATIONS
from musicbox_env.simulator.imputed import imputed_answers_expected
from musicbox_env.simulator.observations import part_of
from musicbox_env.vector_env import MusicSessionVectorEnv
from musicbox_experiments.data.sampling import draw_sessions
from musicbox_experiments.text import say

if TYPE_CHECKING:
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

ACTIONS = ("proto", "slate")
BATCH = 512
EXPORTED = Kind("Minari data set", ("data",), ("data",))


@dataclass(frozen=True)
class ExportConfig:
    """Options of `musicbox export`."""

    data: Annotated[Path | None, tyro.conf.Positional] = None
    """Dataset folder; the bundled synthetic one if none is named."""
    minari: bool = False
    """Write a Minari data set. Required: it names the format, and no other is supported yet."""
    out: Path = Path("runs/minari")
    """Folder of Minari data sets, as in MINARI_DATASETS_PATH; the new one gets a folder within."""
    dataset_id: str = "musicbox-logged-v0"
    """What minari.load_dataset calls it: NAME-vNUMBER."""
    action: str = "proto"
    """Actions: `slate`, the tracks played; or `proto`, the mean of their embeddings, for algorithms
    with continuous actions. The nearest songs of a mean need not be those that were played, so only
    slates replay exactly. Of a last slate heard in part the missing places repeat its last song."""
    observation: str = "embedding"
    """Observations: `embedding`, vectors; `flat`, the same as one vector; or `ids`, rows of the
    catalog."""
    embedding: str | None = None
    """Space of observations and proto-actions; the dataset's best, with the rate, if left out."""
    history_length: int = 10
    """Songs in an observation."""
    slate_size: int = 3
    """Songs of a slate."""
    split: str = "train"
    """Sessions to export. Whoever learns from the test split has nothing left to be
    evaluated on."""
    sessions: int | None = None
    """Most sessions, drawn at random; all if left out."""
    seed: int = 0
    """Of that draw."""
    overwrite: bool = False
    """Replace a data set of that name."""

    def __post_init__(self) -> None:
        if not self.minari:
            raise ValueError("Say in which format to export: --minari.")
        if not re.fullmatch(r"[-\w]+-v\d+", self.dataset_id):
            raise ValueError(
                f"dataset_id is {self.dataset_id!r}; expected NAME-vNUMBER, as musicbox-logged-v0."
            )
        require_known("action", self.action, ACTIONS)
        require_known("observation", self.observation, OBSERVATIONS)
        split_codes(self.split)
        require_ranges(self, {"sessions": (1, np.inf)})

    def env_options(self, dataset: Dataset) -> dict[str, Any]:
        """The environment in which all that was played can be played again, repeats included."""
        return {
            "data": None if self.data is None else str(self.data.resolve()),
            "split": self.split,
            "listener": "replay",
            "action": self.action,
            "observation": self.observation,
            "candidates": "catalog",
            "repeats": True,
            "slate_size": self.slate_size,
            "history_length": self.history_length,
            "embedding": self.embedding or dataset.default_embedding,
        }


def run(config: ExportConfig) -> None:
    """Export, and say how to open what was written."""
    dataset = open_dataset(config.data)
    most = dataset.sessions.num_sessions if config.sessions is None else config.sessions
    sessions = draw_sessions(dataset, config.split, most, config.seed)
    target = config.out / config.dataset_id
    with staged_folder(target, overwrite=config.overwrite, kind=EXPORTED) as folder:
        # What an interrupted export left.
        shutil.rmtree(folder / "data", ignore_errors=True)
        storage = _new_storage(folder / "data", config, dataset)
        with tqdm(total=len(sessions), unit="session", desc="exporting") as bar:
            for start in range(0, len(sessions), BATCH):
                batch = sessions[start : start + BATCH]
                storage.update_episodes(_episodes(config, dataset, batch))
                bar.update(len(batch))
        slates = storage.total_steps
    say(
        f"{target}: {len(sessions):,} {config.split} sessions, {slates:,} slates.\n"
        f"Open it with MINARI_DATASETS_PATH={config.out} and "
        f"minari.load_dataset({config.dataset_id!r})."
    )


def _new_storage(folder: Path, config: ExportConfig, dataset: Dataset) -> MinariStorage:
    """Begin a Minari data set: spaces, how to make the environments, what it holds."""
    try:
        import h5py  # noqa: F401
        import PIL  # noqa: F401 (Minari's HDF5 storage needs it and does not say so)
        from minari import __version__
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise ValueError(
            f"Exporting needs {error.name}, which is not installed; install it with "
            '`pip install "musicbox-env[experiments,minari]"`.'
        ) from error

    options = config.env_options(dataset)
    with imputed_answers_expected():
        collected = gym.make(ENV_ID, **options)
    evaluated = gym.make(ENV_ID, **{**options, "candidates": "session", "repeats": False})
    assert evaluated.spec is not None
    storage = MinariStorage.new(
        folder,
        observation_space=collected.observation_space,
        action_space=collected.action_space,
        env_spec=collected.spec,
    )
    storage.update_metadata(
        {
            "dataset_id": config.dataset_id,
            "minari_version": __version__,
            "algorithm_name": "logged",
            "eval_env_spec": evaluated.spec.to_json(),
            "requirements": ["musicbox-env"],
            "description": (
                f"Logged listening sessions ({config.split} split): the songs that were playing, "
                "in their order, and how far each was heard. Nothing is simulated."
            ),
        }
    )
    return storage


def _episodes(
    config: ExportConfig, dataset: Dataset, sessions: npt.NDArray[np.int64]
) -> Iterator[EpisodeBuffer]:
    """Replay what the log holds of some sessions, all at once; one episode for each."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    slates, lengths = logged_slates(dataset, sessions, config.slate_size)
    options = {**config.env_options(dataset), "action": "slate", "autoreset_mode": "Disabled"}
    with imputed_answers_expected():
        env = gym.make_vec(
            ENV_ID, num_envs=len(sessions), vectorization_mode="vector_entry_point", **options
        )
    assert isinstance(env, MusicSessionVectorEnv)
    observation, info = env.reset(seed=0, options={"session": sessions})
    observations, infos, rewards = [observation], [info], []
    for place in range(slates.shape[1]):
        observation, reward, _, _, info = env.step(slates[:, place])
        observations.append(observation)
        infos.append(info)
        rewards.append(reward)
    env.close()
    heard = np.stack([info["slate"] for info in infos], axis=1)
    levels = np.stack([info["slate_levels"] for info in infos], axis=1)
    shown = _joined(observations)
    actions: npt.NDArray = slates
    if config.action == "proto":
        actions = _mean_embedding(env.assets.space, heard[:, 1:])
    for row, steps in enumerate(lengths):
        yield EpisodeBuffer(
            options={"session": int(sessions[row])},
            observations=part_of(shown, np.s_[row, : steps + 1]),
            actions=list(actions[row, :steps]),
            rewards=[float(reward[row]) for reward in rewards[:steps]],
            terminations=[False] * (steps - 1) + [True],
            truncations=[False] * steps,
            infos={"slate": heard[row, : steps + 1], "slate_levels": levels[row, : steps + 1]},
        )


def _joined(observations: Sequence[Any]) -> Any:
    """Observations of all steps, stacked along a second axis."""
    if not isinstance(observations[0], Mapping):
        return np.stack(observations, axis=1)
    return {name: np.stack([o[name] for o in observations], axis=1) for name in observations[0]}


def logged_slates(
    dataset: Dataset, sessions: npt.NDArray[np.int64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What was played in the second halves of sessions, cut into slates.

    Returns:
        Tracks ``(n, steps, size)`` and each session's number of slates ``(n,)``. Where there is no
        song, the last one is repeated; it will not be heard.
    """
    log = dataset.sessions
    length = log.lengths(sessions)
    shown = log.num_shown(sessions)
    steps = -(-(length - shown) // size)
    place = np.minimum(shown[:, None] + np.arange(steps.max() * size), length[:, None] - 1)
    tracks = log.column("track")[log.offsets[sessions][:, None] + place]
    return tracks.reshape(len(sessions), -1, size).astype(np.int64), steps


def _mean_embedding(
    space: npt.NDArray[np.float32], slates: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Mean embedding of the songs heard ``(n, steps, d)`` of slates with -1 where none was."""
    heard = slates >= 0
    count = np.maximum(heard.sum(axis=2, keepdims=True), 1)
    return ((space[slates] * heard[..., None]).sum(axis=2) / count).astype(np.float32)
