"""The learned listener: a recurrent model of the listen level, fitted on logs, running in numpy.

The memory of a `network` reads the plays that are over; its head reads this memory, plain
statistics of the levels, the last known context, and scalars of the next track (`features`).
Nothing that is known only once that play has started enters.
`musicbox_experiments.listeners.fit_listener` fits it::

    z        = outputs[0], mean over members;  z_0 the same for a usual track not heard before
    skip logit = scale (z_0 + song (z + pessimism * spread - z_0)) + shift

``song`` shrinks the effect of a song, ``z - z_0``: one number for first hearings and one for
repeats, so that real skips move by as much as predicted ones. scale and shift are those of Platt's
calibration. `musicbox_experiments.listeners.calibration` fits all of them on sessions that the
networks were not fitted on. The other outputs divide skips into brief and short, and kept plays
into most, cut and full.

The shown half of a session is read with its behaviour (what ended a play, pauses, jumps), where
the log has it; simulated plays have none, and the network was fitted with such gaps.

**Pessimism** guards against the winner's curse: a policy that searches the catalog finds what
the model overrates. The spread is the uncertainty of a song's logit, from the standard deviation
between ensemble members and the posterior one of the track's own effect. Pessimism adds so many
spreads to the skip logit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.checks import LARGEST_NUMBER, CheckedFile, FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.training_parts import open_part, rows_in
from musicbox_env.kernels import copy_rows
from musicbox_env.listeners.base import (
    Doubles,
    History,
    Ints,
    Levels,
    Listener,
    Rows,
    Slates,
    for_each,
    put_rows,
)
from musicbox_env.listeners.files import MEND, read_fit, write_fit
from musicbox_env.listeners.learned import kernels
from musicbox_env.listeners.learned.features import (
    BEHAVIOUR_INPUTS,
    CONTEXT_INPUTS,
    SUMMARY_INPUTS,
    TRACK_INPUTS,
    WEAR_INPUTS,
    HeardSums,
    TrackTable,
    is_repeat,
    log_columns,
    state_inputs,
    track_inputs,
)
from musicbox_env.listeners.learned.network import Network, head_outputs
from musicbox_env.schema import NUM_LEVELS, UNKNOWN

Array = npt.NDArray[np.float32]

BUNDLED: Final = Path(__file__).parent / "fitted" / "synthetic.npz"
CANDIDATES_AT_ONCE: Final = 1 << 15
CACHE_BYTES: Final = 32 << 20
"""Size of the cache of states after shown plays."""
FITTED_ON: Final = ("train", "train_a", "train_b")
INPUTS: Final = {
    "track": list(TRACK_INPUTS),
    "summary": list(SUMMARY_INPUTS),
    "context": list(CONTEXT_INPUTS),
    "behaviour": list(BEHAVIOUR_INPUTS),
}
"""Names of all inputs; a file that was fitted on others is refused."""
WITH_WEAR: Final = {**INPUTS, "track": [*TRACK_INPUTS, *WEAR_INPUTS]}
"""The same of listeners that were fitted with `WEAR_INPUTS`."""


@dataclass(frozen=True)
class Calibration:
    """How the network's logit becomes a calibrated probability.

    Attributes:
        song: Factors that shrink a song's effect: of first hearings, of repeats.
        simulated: Scale and shift of the skip logit, fitted on second halves played as the
            environment plays them.
        usual: Inputs of a usual track that the session did not hear, as many as the network has.
    """

    song: tuple[float, float]
    simulated: tuple[float, float]
    usual: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("song", "simulated", "usual"):
            values = tuple(float(v) for v in getattr(self, name))
            size = len(TRACK_INPUTS) if name == "usual" else 2
            if name == "usual" and len(values) != size:
                size += len(WEAR_INPUTS)  # which of the two, `FittedNetwork` knows
            if len(values) != size or not all(abs(v) <= LARGEST_NUMBER for v in values):
                raise ValueError(
                    f"{name} of a calibration is {values}; expected {size} finite numbers. Fit "
                    "the listener again."
                )
            object.__setattr__(self, name, values)

    @classmethod
    def none(cls, usual: npt.NDArray[np.floating]) -> Calibration:
        """Leave the network's logits as they are."""
        return cls((1.0, 1.0), (1.0, 0.0), tuple(usual))


@dataclass(frozen=True)
class FittedNetwork:
    """What a file of a learned listener holds.

    Attributes:
        network: Weights.
        calibration: Fitted on sessions that its network did not see.
        about: Where it comes from: ``part`` of the dataset, where it was fitted on one, ``split``,
            ``embedding``, ``pessimism``, and how well it did.
    """

    network: Network
    calibration: Calibration
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        given, expected = len(self.calibration.usual), len(self.inputs["track"])
        if given != expected:
            raise ValueError(
                f"usual of a calibration has {given} numbers, and its network {expected} inputs of "
                "a track. Fit the listener again."
            )

    @property
    def inputs(self) -> Mapping[str, list[str]]:
        """Names of all inputs."""
        return WITH_WEAR if self.network.reads_wear else INPUTS

    def save(self, path: Path) -> None:
        """Write to a file."""
        arrays = {f.name: getattr(self.network, f.name) for f in fields(Network)}
        about = {
            "listener": "learned",
            **self.about,
            "inputs": self.inputs,
            "calibration": asdict(self.calibration),
        }
        write_fit(path, about, arrays)

    @classmethod
    def load(cls, path: Path) -> FittedNetwork:
        """Read from a file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It was fitted on other inputs.
            FileError: It holds something else.
        """
        about, arrays = read_fit(path)
        file, names = CheckedFile(path, MEND), {f.name for f in fields(Network)}
        if about["listener"] != "learned":
            raise ValueError(f"{path} holds a {about['listener']!r} listener, not a learned one.")
        if about.get("inputs") not in (INPUTS, WITH_WEAR):
            raise ValueError(
                f"{path} was fitted by a MusicBox whose listeners saw other inputs; fit it again."
            )
        split = file.field(about, "split", str)
        file.require(split in FITTED_ON, f"split {split[:60]!r}", f"one of {', '.join(FITTED_ON)}")
        for name, hint in {"embedding": str | None, "pessimism": float}.items():
            if name in about:
                file.field(about, name, hint)
        file.require(
            arrays.keys() == names,
            f"weights {', '.join(sorted(arrays))[:200]}",
            f"the weights {', '.join(sorted(names))}",
        )
        for name, array in arrays.items():
            file.checked(array, np.float32, (None,) * array.ndim, name)
        known, given = fields(Calibration), file.field(about, "calibration", dict)
        values = {f.name: given[f.name] for f in known if f.name in given}  # older files hold more
        calibration = file.built(Calibration, values, "calibration")
        try:
            fit = cls(Network(**arrays), calibration, about)
        except ValueError as error:
            raise FileError(f"{path}: {error}") from None
        listed = "inputs that its network does not have"
        file.require(about["inputs"] == fit.inputs, listed, "those of the network")
        return fit


@dataclass
class LearnedState(HeardSums):
    """Attributes hold one row for each session, beside those of `features.HeardSums`.

    Attributes:
        memory: Memory of the members ``(n, M, R)``.
        context: Last known context ``(n, CONTEXT_INPUTS)``.
    """

    memory: Array
    context: Array

    @property
    def model_arrays(self) -> kernels.State:
        """As kernels read and change them."""
        return self.memory, self.context, self.arrays


class ShownCache:
    """States of logged sessions after their shown plays, so that these are read only once.

    A session has one place, which it shares with others where there are more sessions than places;
    the latest takes it.
    """

    def __init__(self, states: LearnedState) -> None:
        """Make an empty cache; ``states`` has a row for each place."""
        self._states = states
        self._session = np.full(len(states.memory), UNKNOWN, np.int64)
        self._shown = np.full(len(states.memory), UNKNOWN, np.int64)

    def load(self, history: History, rows: Rows, states: LearnedState) -> Rows:
        """Fill in the sessions ``rows`` of ``states``, in place; returns those not in the cache."""
        session = history.session[rows]
        place = session % len(self._session)
        known = (self._session[place] == session) & (self._shown[place] == history.count[rows])
        _copy_rows(self._states, place[known], states, rows[known])
        return rows[~known]

    def store(self, history: History, rows: Rows, states: LearnedState) -> None:
        """Keep the states of the sessions ``rows``, of which only the shown plays were heard."""
        place = history.session[rows] % len(self._session)
        self._session[place], self._shown[place] = history.session[rows], history.count[rows]
        _copy_rows(states, rows, self._states, place)


def _copy_rows(source: LearnedState, come: Rows, target: LearnedState, go: Rows) -> None:
    """Copy rows of one state over those of another, in place."""
    for field in fields(source):
        here, there = getattr(source, field.name), getattr(target, field.name)
        copy_rows(here.reshape(len(here), -1), come, there.reshape(len(there), -1), go)


class LearnedListener(Listener[LearnedState]):
    """Responds by a fitted network, calibrated on sessions that it was not fitted on.

    Attributes:
        dataset: Its sessions are simulated.
        home: Its counts and embedding describe the tracks to the network: the dataset, or the part
            of it that the network was fitted on, which may be another than the dataset is.
        fit: Network, calibration, and where they come from.
        pessimism: Spreads added to the skip logit.
        table: Statistics of the tracks; may be replaced by those of other plays.
    """

    def __init__(
        self,
        dataset: Dataset,
        fit: FittedNetwork | Path | str | None = None,
        *,
        pessimism: float | None = None,
    ) -> None:
        """Open the listener of a dataset.

        Args:
            dataset: The sessions to simulate.
            fit: A fit or its file; by default the dataset's own, ``DATA/listeners/learned.npz``,
                or for a synthetic dataset of default taste the one that MusicBox brings.
            pessimism: Replaces what the fit says.

        Raises:
            FileNotFoundError: There is no fit; the message says how to make one.
            ValueError: The fit is of another catalog, or needs an embedding that the dataset lacks.
        """
        self.dataset = dataset
        self._source = fit
        file, name = None, "The listener"
        if not isinstance(fit, FittedNetwork):
            file = default_fit(dataset) if fit is None else Path(fit)
            name, fit = f"The listener {file}", FittedNetwork.load(file)
        self.fit = fit
        about = fit.about
        self.pessimism = float(about.get("pessimism", 0) if pessimism is None else pessimism)
        if not abs(self.pessimism) <= LARGEST_NUMBER:
            raise ValueError(f"pessimism is {self.pessimism}; it must be a finite number.")
        self.home = _home(dataset, about)
        if file not in (None, BUNDLED):  # that one is for all datasets that `default_fit` gives it
            mend = f"Fit one with `musicbox fit-listener {dataset.folder}`."
            self.home.require_same_catalog(about.get("fitted_on"), name, mend)
        embedding = about.get("embedding")
        if embedding is not None and embedding not in self.home.embedding_names:
            raise ValueError(
                f"{name} was fitted with the embedding {embedding!r}, and {self.home.folder} "
                f"has {self.home.embedding_names or 'none'}. Fit it again on this dataset."
            )
        self.table = TrackTable.of(self.home, about["split"], embedding)
        if self.home is not dataset:
            self.table = self.table.at(rows_in(dataset, self.home, "tracks"))
        self._usual = np.array(fit.calibration.usual, np.float32)
        one = self._nothing_heard(1)
        places = CACHE_BYTES // sum(getattr(one, field.name).nbytes for field in fields(one))
        places = min(dataset.sessions.num_sessions, max(1, places))
        self._cache = ShownCache(self._nothing_heard(places))

    def __reduce__(self) -> tuple[Callable[..., LearnedListener], tuple[Any, ...]]:
        """Pickle by path where it came from one."""
        return _reopen, (self.dataset, self._source, self.pessimism)

    @property
    def model(self) -> kernels.Model:
        """All of it that kernels read."""
        network, calibration = self.fit.network, self.fit.calibration
        weights = network.of_play, network.head, self._usual
        shrinkage = calibration.song, calibration.simulated, np.float32(self.pessimism)
        return self.table.arrays, *weights, *shrinkage

    def begin(self, history: History) -> LearnedState:
        """Read the shown plays with their behaviour; see `Listener.begin`."""
        state = self._nothing_heard(len(history.count))
        self.begin_rows(state, history, np.arange(len(history.count)))
        return state

    def begin_rows(self, state: LearnedState, history: History, rows: Rows) -> None:
        """Do the same in place, from the cache where it can; see `Listener.begin_rows`."""
        unread = self._cache.load(history, rows, state)
        if not len(unread):
            return
        put_rows(state, unread, self._nothing_heard(len(unread)))
        first = self.dataset.sessions.offsets[history.session[unread]]
        shown = history.count[unread], first, log_columns(self.dataset)
        kernels.read_shown(unread, *shown, history.arrays, state.model_arrays, self.model)
        self._cache.store(history, unread, state)

    def level_probabilities(
        self, state: LearnedState, history: History, rows: Rows, tracks: Ints, plays: Ints
    ) -> Doubles:
        """Calibrated probabilities of the network; see the base class. ``plays`` do not matter."""
        each = for_each(rows, tracks).astype(np.int64, copy=False)
        found = np.empty((*each.shape, NUM_LEVELS))
        step = max(1, CANDIDATES_AT_ONCE // max(each.shape[1], 1))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            found[part], _ = kernels.level_probabilities(
                rows[part], each[part], history.arrays, state.model_arrays, self.model
            )
        return found

    def simulate_response(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        slates: Slates,
        plays: Slates,
        uniforms: Doubles,
    ) -> Levels:
        """Play whole slates in one kernel; see `Listener.simulate_response`."""
        sessions = history.arrays, state.model_arrays
        return kernels.hear_slates(rows, slates, uniforms, *sessions, self.model)

    def update_state(
        self, state: LearnedState, history: History, rows: Rows, tracks: Ints, levels: Levels
    ) -> None:
        """Read a simulated play, whose behaviour is unknown; see the base class."""
        before, songs = history.count[rows], tracks[:, None].astype(np.int64)
        unknown = np.zeros((len(rows), 0), np.float32)
        play = levels, before, self._track_inputs(state, history, rows, songs), unknown
        kernels.add_plays(rows, songs, *play, state.model_arrays, self.model)

    def network_logits(
        self, state: LearnedState, history: History, rows: Rows, tracks: Ints
    ) -> tuple[Doubles, Doubles, npt.NDArray[np.bool_]]:
        """Skip logits of the network before calibration.

        Returns:
            Those of a usual track ``(M, m, 1)`` and of the candidates ``(M, m, c)``, and which of
            these the session heard before ``(m, c)``.
        """
        inputs = self._track_inputs(state, history, rows, tracks.astype(np.int64))
        heard = history.count[rows], history.levels, state.arrays
        states = state_inputs(rows, *heard, state.context)
        _, _, head, usual_track, *_ = self.model
        outputs, usual = head_outputs(rows, state.memory, states, inputs, usual_track, head)
        return usual[..., None].astype(float), outputs[..., 0].astype(float), is_repeat(inputs)

    def _track_inputs(
        self, state: LearnedState, history: History, rows: Rows, tracks: Ints
    ) -> Array:
        heard = history.count[rows], (history.tracks, history.levels)
        width = len(self._usual)
        return track_inputs(rows, tracks, *heard, self.table.arrays, state.arrays, width)

    def _nothing_heard(self, n: int) -> LearnedState:
        network, heard = self.fit.network, HeardSums.none(n, self.table)
        memory = np.zeros((n, network.members, network.memory_size), np.float32)
        return LearnedState(*heard.arrays, memory, np.zeros((n, len(CONTEXT_INPUTS)), np.float32))


def _home(dataset: Dataset, about: Mapping[str, Any]) -> Dataset:
    """The part of a dataset that describes the tracks to a fit."""
    part = about.get("part")
    return dataset if part is None else open_part(dataset, part["name"], part["evaluated"])


def plays_known(listener: Listener[Any]) -> npt.NDArray[np.int64] | None:
    """Plays from which a listener knows each track of its dataset ``(num_tracks,)``.

    None of one that answers by something else than what it learned of tracks.
    """
    if not isinstance(listener, LearnedListener):
        return None
    return np.rint(np.expm1(listener.table.popularity)).astype(np.int64)


def default_fit(dataset: Dataset) -> Path:
    """The file that ``listener="learned"`` means for a dataset.

    Raises:
        FileNotFoundError: It has none, and the bundled one is not for it.
    """
    own = dataset.folder / "listeners" / "learned.npz"
    if own.is_file():
        return own
    made = dataset.about.get("synthetic", {})
    if made.get("taste") in ("default", 1.3) and "satiation" not in made:
        return BUNDLED
    raise FileNotFoundError(
        f"{dataset.folder} has no fitted listener (listeners/learned.npz), and the one that "
        "MusicBox brings is for synthetic data of default taste, in which nothing wears out. Fit "
        f"one with `musicbox fit-listener {dataset.folder}`."
    )


def _reopen(
    dataset: Dataset, source: FittedNetwork | Path | str | None, pessimism: float
) -> LearnedListener:
    return LearnedListener(dataset, source, pessimism=pessimism)
