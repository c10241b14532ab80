"""The truth behind a synthetic dataset: the law that made it and everything that it read.

::

    DIR/truth/
      law.json                parameters of the ListeningLaw, of the choice of songs, and where
                              songs wear out, of the Satiation
      session_propensity.npy  (sessions,)    in the dataset's session order
      session_taste.npy       (sessions, d)  unit rows
      track_quality.npy       (tracks,)      in the order of the catalog
      track_vectors.npy       (tracks, d)    unit rows
      track_weight.npy        (tracks,)      share of the draws into a session's pool; sums to 1
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.verdicts import once, state_of
from musicbox_env.data.writing import save_array, write_json
from musicbox_env.errors import writing
from musicbox_env.synthetic.law import ListeningLaw
from musicbox_env.synthetic.satiation import Satiation

FOLDER = "truth"
SATIATION = "satiation"
MEND = "Make the dataset again with `musicbox synthesize`, or ask its sender for it again."
UNIT_ROWS = ("session_taste", "track_vectors")
SMALLEST_POOL = 64


def knows_truth(dataset: Dataset) -> bool:
    """Whether the law that made a dataset, or the whole that it is a part of, is known."""
    return (dataset.whole.folder / FOLDER / "law.json").is_file()


@dataclass(frozen=True)
class SongChoice:
    """How the songs of a synthetic session come to be played.

    A session looks at ``pool`` tracks, drawn with the tracks' weights w, and plays of them, none
    twice, with chance in proportion to ``exp(kappa * affinity)``; affinity is the dot product of
    its taste and the track's vector. The pool is large, so that for one song, but for terms of
    order 1 / pool::

        P(track j | taste) = w_j exp(kappa taste . v_j) / sum_i w_i exp(kappa taste . v_i)

    With a chance of its own a session plays a song again instead. What was heard does not
    influence what is played next; levels and songs are independent given the session.

    Attributes:
        kappa: How much taste steers the choice; 0 means by popularity alone.
        pool: Tracks that a session looks at, drawn in equal slices of the cumulative weight.
        taste_focus: A session's taste is the direction of ``f v + sqrt(1 - f**2) u`` with f this
            number, v the vector of a track drawn by weight, and u a random unit vector.
        never_repeat: Share of sessions that play no song again.
        repeat_beta: Of the others, the chance to go back to an earlier song at each place is
            beta distributed. How far they go back is drawn from published shares; where the
            session is not that old, a new song is played.
    """

    kappa: float = 5.0
    pool: int = 512
    taste_focus: float = 0.85
    never_repeat: float = 0.2
    repeat_beta: tuple[float, float] = (0.7, 2.4)

    def __post_init__(self) -> None:
        object.__setattr__(self, "repeat_beta", tuple(float(v) for v in self.repeat_beta))
        if self.pool < SMALLEST_POOL:
            raise ValueError(f"pool is {self.pool}; it must be {SMALLEST_POOL} or more.")
        if not (0 <= self.taste_focus <= 1 and 0 <= self.never_repeat <= 1):
            raise ValueError(
                f"taste_focus {self.taste_focus} and never_repeat {self.never_repeat} must be in "
                "[0, 1]."
            )


@dataclass(frozen=True)
class GroundTruth:
    """What made a synthetic dataset; rows are those of its sessions and of its catalog.

    Attributes:
        law: The listening law.
        choice: How songs came to be played.
        session_propensity: Propensity to skip ``(num_sessions,)`` float32.
        session_taste: Unit taste vectors ``(num_sessions, d)`` float32.
        track_quality: Quality ``(num_tracks,)`` float32.
        track_vectors: Unit track vectors ``(num_tracks, d)`` float32.
        track_weight: Weight in a session's pool ``(num_tracks,)`` float32.
        satiation: How songs wear out; None where they do not, as in datasets made before there was
            such a thing.
    """

    law: ListeningLaw
    choice: SongChoice
    session_propensity: npt.NDArray[np.float32]
    session_taste: npt.NDArray[np.float32]
    track_quality: npt.NDArray[np.float32]
    track_vectors: npt.NDArray[np.float32]
    track_weight: npt.NDArray[np.float32]
    satiation: Satiation | None = None

    @classmethod
    def open(cls, dataset: Dataset) -> GroundTruth:
        """Open the truth of a dataset, arrays mapped; that of a part has the part's own rows.

        Raises:
            FileNotFoundError: The dataset was not made by the generator.
            FileError: A file of it holds what it should not.
        """
        truth = cls._of_whole(dataset.whole)
        if dataset.whole is dataset:
            return truth
        sessions, tracks = (dataset.rows_of_whole(what) for what in ("sessions", "tracks"))
        return replace(
            truth,
            session_propensity=truth.session_propensity[sessions],
            session_taste=truth.session_taste[sessions],
            track_quality=truth.track_quality[tracks],
            track_vectors=truth.track_vectors[tracks],
            track_weight=truth.track_weight[tracks],
        )

    @classmethod
    def _of_whole(cls, dataset: Dataset) -> GroundTruth:
        truth = dataset.folder / FOLDER
        file = CheckedFile(truth / "law.json", MEND)
        if not file.file.exists():
            raise FileNotFoundError(
                f"{dataset.folder} has no ground truth (no {FOLDER}/law.json): only datasets made "
                "by `musicbox synthesize` know the law behind them."
            )
        content = file.json()
        for name in ("law", "choice"):
            file.field(content, name, dict)
        arrays, files = {}, {}
        state = state_of(truth / f"{name}.npy" for name in _shapes(dataset))
        for name, shape in _shapes(dataset).items():
            files[name] = CheckedFile(truth / f"{name}.npy", MEND)
            arrays[name] = files[name].array(np.float32, shape)
        dims = [arrays[name].shape[1] for name in UNIT_ROWS]
        came = f"{' and '.join(UNIT_ROWS)} of {dims[0]} and {dims[1]} dimensions"
        file.require(dims[0] == dims[1], came, "as many of both")
        once("truth", state, lambda: _check(files, arrays))
        return cls(
            law=file.built(ListeningLaw, content["law"], "law"),
            choice=file.built(SongChoice, content["choice"], "choice"),
            **arrays,
            satiation=(
                file.built(Satiation, content[SATIATION], SATIATION)
                if SATIATION in content
                else None
            ),
        )


def _shapes(dataset: Dataset) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the arrays of a dataset's truth; None is any number."""
    sessions, tracks = dataset.sessions.num_sessions, len(dataset.catalog)
    return {
        "session_propensity": (sessions,),
        "session_taste": (sessions, None),
        "track_quality": (tracks,),
        "track_vectors": (tracks, None),
        "track_weight": (tracks,),
    }


def _check(files: Mapping[str, CheckedFile], arrays: Mapping[str, npt.NDArray]) -> None:
    """Refuse values that no law has."""
    for name, array in arrays.items():
        if name in UNIT_ROWS:
            files[name].require_unit_rows(array)
        elif name == "track_weight":
            files[name].require_within(array, (0, 1))
            total = float(array.sum(dtype=np.float64))
            files[name].require(abs(total - 1) < 1e-3, f"weights that sum to {total:g}", "1")
        else:
            files[name].require_finite(array)


def open_truth_arrays(folder: Path, num_sessions: int, dim: int) -> tuple[np.memmap, np.memmap]:
    """Make the truth folder of a (staged) dataset, with room for its sessions' truth.

    Returns:
        Propensities ``(num_sessions,)`` and tastes ``(num_sessions, dim)`` on disk, to be filled
        while sessions are made, and flushed.
    """
    truth = folder / FOLDER
    truth.mkdir(exist_ok=True)
    shapes = {"session_propensity": (num_sessions,), "session_taste": (num_sessions, dim)}
    propensity, taste = (_mapped(truth / f"{name}.npy", shape) for name, shape in shapes.items())
    return propensity, taste


def _mapped(file: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new file to be filled through a map, its room taken: else a full disk kills the process."""
    with writing(file):
        mapped = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        if hasattr(os, "posix_fallocate"):
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return mapped


def write_truth(
    folder: Path,
    law: ListeningLaw,
    choice: SongChoice,
    *,
    quality: npt.NDArray,
    vectors: npt.NDArray,
    weight: npt.NDArray,
    satiation: Satiation | None = None,
) -> None:
    """Write parameters and the tracks' truth, in the order of the catalog."""
    truth = folder / FOLDER
    arrays = {"track_quality": quality, "track_vectors": vectors, "track_weight": weight}
    for name, values in arrays.items():
        save_array(truth / f"{name}.npy", values.astype(np.float32))
    parameters = {"law": asdict(law), "choice": asdict(choice)}
    if satiation is not None:
        parameters[SATIATION] = asdict(satiation)
    write_json(truth / "law.json", parameters)
