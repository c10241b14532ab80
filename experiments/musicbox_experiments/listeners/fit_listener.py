"""Fit a listener on logged sessions: the user simulator that environments answer with.

The result is one file; its path is a `listener` for the environment and for every command. One
fitted on fold A is the training simulator, one fitted on fold B the evaluation simulator. A fold is
a dataset of its own (`musicbox_env.ingest.training_parts`): no play of a training or validation
session makes anything in both, rates and embeddings included.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from musicbox_agents.base import require_ranges
from musicbox_agents.sessions import one_thread
from tyro.conf import Positional

from musicbox_env.data.dataset import WHOLE, Dataset
from musicbox_env.ingest.training_parts import evaluated_in, open_part
from musicbox_env.listeners.files import read_fit, require_own_file, write_fit
from musicbox_env.listeners.learned.listener import Calibration, FittedNetwork, LearnedListener
from musicbox_env.listeners.learned.network import Network
from musicbox_env.listeners.similarity import MODES, SimilarityConfig
from musicbox_env.locks import held
from musicbox_env.progress import tqdm
from musicbox_env.retrieval.embeddings import NO_SESSIONS
from musicbox_env.schema import require_known
from musicbox_env.simulator.assets import open_dataset
from musicbox_experiments.cluster.tasks import Progress, Task, Where, require_address, run_all
from musicbox_experiments.listeners.calibration import (
    SongLogits,
    calibrated,
    held_out_gain,
    song_logits,
)
from musicbox_experiments.listeners.network import NetworkConfig, TorchNetwork, fit_member
from musicbox_experiments.listeners.sessions import (
    SessionArrays,
    TrainingSplit,
    usual_track,
)
from musicbox_experiments.text import say

FOLDS: Final = {"A": "train_a", "B": "train_b", "both": "train"}
FOLDS_TO_HOLD_OUT: Final = 5
"""Folds of training sessions, each evaluated by networks that were fitted on the others."""
ENOUGH_TO_CALIBRATE: Final = 1_000
"""With so many validation sessions, these alone determine the shrinkage of songs' effects."""
SURELY: Final = 2.0
"""Standard errors by which further inputs must predict held-out sessions better."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(NetworkConfig):
    """How the networks of a listener are fitted together."""

    members: int = 3
    """Networks of the ensemble."""
    max_sessions: int = 50_000
    """Of more training sessions than this, so many are drawn."""
    seed: int = 0
    """Of everything drawn; member i has seed + i."""
    progress: bool = True
    """Show progress bars."""
    cluster: str | None = None
    """Fit the networks side by side on Ray; see `musicbox compare --help`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, dict.fromkeys(("members", "max_sessions"), (1, np.inf)))
        require_address(self.cluster)


@dataclass(frozen=True)
class FitListenerConfig(EnsembleConfig):
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
    """Standard deviations of its uncertainty that the learned listener adds to skip logits."""
    mode: str = "nearest_k"
    """Of the similarity listener: nearest_k, normal, grouped_average or grouped_cosine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known("mode of the similarity listener", self.mode, MODES)
        require_ranges(self, {"pessimism": (0, np.inf)})


def fit_ensemble(config: FitListenerConfig, dataset: Dataset) -> FittedNetwork:
    """Fit all members, then calibrate their mean, on the part of a dataset that is the fold.

    They are fitted without likeness to the songs heard, which may wear out others, and with it
    (`features.WEAR_INPUTS`); these are kept where they predict held-out sessions better, `SURELY`.
    """
    rng = np.random.default_rng(config.seed)
    dataset = fold_of_dataset(dataset, config.fold)
    sessions = TrainingSplit.of(dataset, WHOLE, progress=config.progress)
    chosen = drawn_sessions(dataset, sessions.split, config.max_sessions, rng)
    validation = drawn_sessions(dataset, "validation", max(1, config.max_sessions // 10), rng)
    groups = [Group("", config.seed, config.members, chosen)]
    if len(validation) < ENOUGH_TO_CALIBRATE:
        groups += calibration_folds(config, sessions, chosen)
    kept = fit_and_evaluate(config, sessions, validation, groups)
    wear_out = {"gain": 0.0, "standard_error": 0.0, "used": False}
    if sessions.spaces is not None:
        wearing = fit_and_evaluate(config, replace(sessions, wear=True), validation, groups)
        gain, error = held_out_gain(kept[2], wearing[2])
        wear_out = {"gain": gain, "standard_error": error, "used": gain > SURELY * error}
        kept = wearing if wear_out["used"] else kept
    together, losses, songs = kept
    fit = calibrated(LearnedListener(dataset, together), validation, songs)
    about = {
        **together.about,
        "pessimism": config.pessimism,
        "fitted_on": dataset.identity,
        "fitted_sessions": len(chosen),
        "validation_sessions": len(validation),
        "member_validation_log_losses": losses,
        "wear_out": wear_out,
        "settings": {
            k: v for k, v in asdict(config).items() if k not in ("data", "out", "cluster")
        },
    }
    if dataset.part != WHOLE:
        about["part"] = dataset.about["part"]
    return replace(fit, about=about)


def fold_of_dataset(dataset: Dataset, fold: str) -> Dataset:
    """The dataset that a fold is; ``"both"`` is the dataset itself, which may be a part.

    Raises:
        ValueError: A fold of what is a fold already.
    """
    if fold == "both":
        return dataset
    if dataset.part not in (WHOLE, FOLDS[fold]):
        raise ValueError(
            f"{dataset.folder} is {dataset.part} of {dataset.whole.folder}, which has no fold "
            f"{fold!r}; name the whole dataset, or leave --fold out."
        )
    return open_part(dataset, FOLDS[fold], evaluated_in(dataset))


@dataclass(frozen=True)
class Group:
    """Networks that are fitted on the same sessions.

    Attributes:
        name: What sets them apart, for messages; empty for those of all sessions.
        seed: Of the first; each has one of its own.
        members: How many.
        sessions: What they are fitted on.
        held_out: Sessions whose plays do not count in the rates of tracks either.
    """

    name: str
    seed: int
    members: int
    sessions: Ints
    held_out: Ints = field(default_factory=lambda: NO_SESSIONS)


def fit_and_evaluate(
    config: EnsembleConfig, sessions: TrainingSplit, validation: Ints, groups: Sequence[Group]
) -> tuple[FittedNetwork, list[float], SongLogits]:
    """Fit the networks of the listener, the first group, and those that hold out folds.

    Returns:
        The listener's, uncalibrated; the validation loss of each; and the songs of held-out folds
        and of validation sessions.
    """
    fits = fit_networks(config, sessions, sessions.others(validation), groups)
    (together, losses), *others = fits
    folds_left = listeners_of(groups[1:], [fit for fit, _ in others], sessions)
    songs = [song_logits(listener, some) for listener, some in folds_left]
    songs.append(song_logits(LearnedListener(sessions.dataset, together), validation))
    return together, losses, SongLogits.joined(songs)


def fit_networks(
    config: EnsembleConfig,
    sessions: TrainingSplit,
    validation: SessionArrays,
    groups: Sequence[Group],
) -> list[tuple[FittedNetwork, list[float]]]:
    """Fit the networks of all groups, each a task, with a progress bar; see `fit_member`.

    Returns:
        Of each group its ensemble without calibration, and the validation loss of each member.
    """
    usual: list[npt.NDArray[np.float32]] = []

    def tasks() -> Iterator[Task]:
        for group in groups:
            train = sessions.arrays(group.sessions, without=group.held_out)
            usual.append(usual_track(train))
            for number in range(group.members):
                own = config, train, validation, group.seed + number
                yield Task(_name(group, number), _fit_member, own)

    most = sum(group.members for group in groups)
    total = most * config.max_epochs
    with tqdm(total=total, unit="pass", disable=not config.progress, desc="networks") as bar:
        where = Where(workers=1) if config.cluster is None else Where(cluster=config.cluster)
        fits = {task.name: fit for task, fit in run_all(tasks(), where, bar.update, most=most)}
    found = []
    for group, track in zip(groups, usual, strict=True):
        own = [fits[_name(group, number)] for number in range(group.members)]
        together = uncalibrated([network for network, _ in own], sessions, track)
        found.append((together, [loss for _, loss in own]))
    return found


def _name(group: Group, number: int) -> str:
    return f"Fitting member {number + 1}{group.name}"


def uncalibrated(
    networks: list[TorchNetwork], sessions: TrainingSplit, usual: npt.NDArray[np.float32]
) -> FittedNetwork:
    """Networks fitted on sessions of a split, as an ensemble without calibration.

    Args:
        networks: Its members.
        sessions: The split.
        usual: What `usual_track` says of the sessions.
    """
    return FittedNetwork(
        Network.stacked([network.exported() for network in networks]),
        Calibration.none(usual),
        {"split": sessions.split, "embedding": sessions.embedding},
    )


def calibration_folds(config: EnsembleConfig, sessions: TrainingSplit, chosen: Ints) -> list[Group]:
    """Networks, one a fold of training sessions, that tell the calibration how songs fare.

    A few hundred validation sessions leave it open whether half or all of a song's effect is real.
    """
    one_each = replace(config, members=1, seed=config.seed + config.members)
    return groups_of_folds(one_each, sessions, chosen, "calibration fold")


def folds(sessions: TrainingSplit, chosen: Ints) -> Iterator[tuple[int, Ints, Ints]]:
    """Folds of sessions: the number of each, the others, and those that it holds out.

    There are none where no session would be left to fit on.
    """
    fold_of_each = fold_of(sessions, chosen)
    numbers = np.unique(fold_of_each)
    for fold in numbers if len(numbers) > 1 else ():
        yield int(fold), chosen[fold_of_each != fold], chosen[fold_of_each == fold]


def fold_of(split: TrainingSplit, sessions: Ints) -> Ints:
    """The fold that holds out each session ``(n,)``."""
    return split.part[sessions].astype(np.int64) % FOLDS_TO_HOLD_OUT


def groups_of_folds(
    config: EnsembleConfig, sessions: TrainingSplit, chosen: Ints, what: str = "fold"
) -> list[Group]:
    """The networks that are fitted without each fold of the sessions."""
    return [
        Group(
            f" without {what} {fold + 1} of {FOLDS_TO_HOLD_OUT}",
            config.seed + fold * config.members,
            config.members,
            others,
            held_out,
        )
        for fold, others, held_out in folds(sessions, chosen)
    ]


def listeners_of(
    groups: Sequence[Group], fitted: Sequence[FittedNetwork], sessions: TrainingSplit
) -> Iterator[tuple[LearnedListener, Ints]]:
    """Listeners fitted without a fold of the sessions, and sessions of it to evaluate them on.

    Yields:
        A listener with the track statistics of a part, and the sessions of that part.
    """
    for group, networks in zip(groups, fitted, strict=True):
        listener = LearnedListener(sessions.dataset, networks)
        for part, some in sessions.in_parts(group.held_out):
            listener.table = sessions.table_of(part, group.held_out)
            yield listener, some


def drawn_sessions(dataset: Dataset, split: str, most: int, rng: np.random.Generator) -> Ints:
    """Sessions of a split in random order, no more than ``most``.

    Raises:
        ValueError: The split holds no session.
    """
    sessions = dataset.sessions.sessions_in(split)
    if not len(sessions):
        raise ValueError(f"{dataset.folder} has no session in split {split!r} to fit on.")
    return rng.permutation(sessions)[:most]


def _fit_member(
    config: EnsembleConfig,
    train: SessionArrays,
    validation: SessionArrays,
    seed: int,
    progress: Progress,
) -> tuple[TorchNetwork, float]:
    def report(epoch: int, loss: float) -> None:
        progress(1)

    with one_thread():
        return fit_member(config, train, validation, seed, report)


def output_file(config: FitListenerConfig, dataset: Dataset) -> Path:
    """Where the fitted listener is written."""
    if config.out is not None:
        return config.out
    fold = "" if config.fold == "both" else f"-{config.fold}"
    return dataset.folder / "listeners" / f"{config.listener}{fold}.npz"


def run(config: FitListenerConfig) -> Path:
    """Fit, write, and print how well it went; returns the file."""
    dataset = open_dataset(config.data)
    out = output_file(config, dataset)
    require_own_file(out, read_fit)
    with held(out):
        return _fit(config, dataset, out)


def _fit(config: FitListenerConfig, dataset: Dataset, out: Path) -> Path:
    if config.listener == "similarity":
        settings = SimilarityConfig(mode=config.mode, split=FOLDS[config.fold], seed=config.seed)
        write_fit(out, {"listener": "similarity", "settings": asdict(settings)}, {})
        say(f"{out}: settings of a similarity listener, memory of {settings.split}.")
        return out
    fit = fit_ensemble(config, dataset)
    fit.save(out)
    song = fit.calibration.song
    losses = ", ".join(f"{loss:.4f}" for loss in fit.about["member_validation_log_losses"])
    part, wear = fit.about.get("part", {"name": WHOLE})["name"], fit.about["wear_out"]
    say(
        f"{out}: learned listener, {config.members} members fitted on "
        f"{fit.about['fitted_sessions']:,} sessions of {part}; log-loss of skip on "
        f"validation sessions {losses}; effects of songs shrunk by {song[0]:.2f} on a first "
        f"hearing and {song[1]:.2f} on a repeat. Likeness to the songs heard, which may wear out "
        f"others, lowers the log-loss of held-out plays by {wear['gain']:.4f} (standard error "
        f"{wear['standard_error']:.4f}): it is {'an' if wear['used'] else 'no'} input."
    )
    return out
