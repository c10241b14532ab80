"""The learned listener: a recurrent model of the listen level, fitted on logs, answering in numpy.

A `network` reads the plays that are over; its head prices the next track from this memory, plain
statistics of the levels, the last known context, and scalars of the track (`features`). Nothing
that is known only once the play has started enters. `musicbox_experiments.listeners.fit_listener`
fits it::

    z        = outputs[0], mean over members;  z_0 the same for a usual track not heard before
    skip logit = scale (z_0 + song (z + pessimism * spread - z_0)) + shift

``song``, one number for first hearings and one for repeats, is the part of a song's effect that is
believed. It is fitted on validation sessions, and where these are few on training sessions priced
by networks that did not see them: each play is priced when its turn comes, beside new songs that
followed, as if they had come in its place, such that real skips move by as much as predicted ones.
scale and shift are fitted on validation sessions, played as the environment plays them. The other
outputs divide skips into brief and short, and kept plays into most, cut and full.

The shown half of a session is read with its behaviour (what ended a play, pauses, jumps), where
the log has it; simulated plays have none, and the network was fitted with such gaps.

**Pessimism** guards against the winner's curse: a policy that searches the catalog finds what
the model overrates. The spread is what the model does not know of the song, the standard deviation
between ensemble members and the posterior one of the track's own rate, and pessimism adds so many
of it to the skip logit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.dataset import Dataset
from musicbox_env.kernels import copy_rows
from musicbox_env.listeners.base import History, Rows, for_each, hear_one_by_one, put_rows
from musicbox_env.listeners.files import read_fit, write_fit
from musicbox_env.listeners.learned.features import (
    BEHAVIOUR_INPUTS,
    CONTEXT_INPUTS,
    EFFECT,
    SUMMARY_INPUTS,
    TRACK_INPUTS,
    HeardLevels,
    HeardSongs,
    TrackTable,
    behaviour_inputs,
    context_inputs,
    inputs_of_states,
    is_repeat,
    log_columns,
    track_inputs,
)
from musicbox_env.listeners.learned.kernels import (
    StateArrays,
    hear_slates,
    level_chances,
    read_shown,
    recommended_logit,
    take_in,
)
from musicbox_env.listeners.learned.network import Network
from musicbox_env.schema import NUM_LEVELS, UNKNOWN, is_skip

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]

BUNDLED: Final = Path(__file__).parent / "fitted" / "synthetic.npz"
CANDIDATES_AT_ONCE: Final = 1 << 15
BEGUN_BYTES: Final = 32 << 20
"""Room for the states of sessions whose shown plays were read."""
INPUTS: Final = {
    "track": list(TRACK_INPUTS),
    "summary": list(SUMMARY_INPUTS),
    "context": list(CONTEXT_INPUTS),
    "behaviour": list(BEHAVIOUR_INPUTS),
}
"""Names of all inputs; a file that was fitted on others is refused."""


@dataclass(frozen=True)
class Calibration:
    """How the network's logit becomes a probability that can be believed.

    A song that is recommended and one that the log holds are two questions. The log's was the
    listener's own choice; the recommended one follows plays whose behaviour nobody knows, of which
    the network makes too much. Each has a scale and a shift of its own.

    Attributes:
        song: Which part of a recommended song's effect is believed: of first hearings, of repeats.
        simulated: Scale and shift for recommended songs.
        logged: Scale and shift for plays of the log.
        usual: Inputs of a usual track that the session did not hear, ``(TRACK_INPUTS,)``.
    """

    song: tuple[float, float]
    simulated: tuple[float, float]
    logged: tuple[float, float]
    usual: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("song", "simulated", "logged", "usual"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))

    @classmethod
    def none(cls, usual: npt.NDArray[np.floating]) -> Calibration:
        """Leave the network's logits as they are."""
        return cls((1.0, 1.0), (1.0, 0.0), (1.0, 0.0), tuple(usual))

    def apply(
        self, usual: Floats, logit: Floats, repeat: npt.NDArray[np.bool_], *, recommended: bool
    ) -> npt.NDArray[np.float64]:
        """Calibrated skip logits.

        Args:
            usual: Network's logit of a usual track, z_0.
            logit: That of the candidates, z.
            repeat: Which of them the session heard before.
            recommended: Whether they are recommended, and not plays of the log.
        """
        if not recommended:
            scale, shift = self.logged
            return scale * logit.astype(np.float64) + shift
        believed = np.asarray(self.song)[repeat.astype(np.int64)]
        return recommended_logit(usual, logit, believed, *self.simulated)


@dataclass(frozen=True)
class FittedNetwork:
    """What a file of a learned listener holds.

    Attributes:
        network: Weights.
        calibration: Fitted on sessions that its network did not see.
        about: Where it comes from: ``split``, ``embedding``, ``pessimism``, ``reject_constant``,
            and how well it did.
    """

    network: Network
    calibration: Calibration
    about: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write to a file."""
        arrays = {f.name: getattr(self.network, f.name) for f in fields(Network)}
        about = {
            "listener": "learned",
            **self.about,
            "inputs": INPUTS,
            "calibration": asdict(self.calibration),
        }
        write_fit(path, about, arrays)

    @classmethod
    def load(cls, path: Path) -> FittedNetwork:
        """Read from a file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds something else, or was fitted on other inputs.
        """
        about, arrays = read_fit(path)
        if about["listener"] != "learned":
            raise ValueError(f"{path} holds a {about['listener']!r} listener, not a learned one.")
        if about["inputs"] != INPUTS:
            raise ValueError(
                f"{path} was fitted by a MusicBox whose listeners saw other inputs; fit it again."
            )
        network = Network(**{f.name: arrays[f.name] for f in fields(Network)})
        return cls(network, Calibration(**about["calibration"]), about)


@dataclass
class LearnedState:
    """Attributes hold one row for each session.

    Attributes:
        memory: Memory of the members ``(n, M, R)``.
        context: Last known context ``(n, CONTEXT_INPUTS)``.
        sums: See `features.HeardSongs`, as are the next two.
        counts: Songs in each sum.
        last: Vector of the last song.
        deviations: See `features.HeardLevels`, as is the next.
        weight: What they are divided by.
    """

    memory: Array
    context: Array
    sums: Array
    counts: Array
    last: Array
    deviations: Array
    weight: npt.NDArray[np.float64]

    @property
    def songs(self) -> HeardSongs:
        """The songs heard; shares its arrays with the state."""
        return HeardSongs(self.sums, self.counts, self.last)

    @property
    def arrays(self) -> StateArrays:
        """As kernels read them."""
        return self.memory, self.context, self.songs.arrays, (self.deviations, self.weight)


class Begun:
    """States of logged sessions after their shown plays, so that these need not be read again.

    A session has one place, which it shares with others where there are more sessions than places;
    the latest takes it.
    """

    def __init__(self, states: LearnedState) -> None:
        """Begin with nothing remembered; ``states`` has a row for each place."""
        self._states = states
        self._session = np.full(len(states.memory), UNKNOWN, np.int64)
        self._shown = np.full(len(states.memory), UNKNOWN, np.int64)

    def recall(self, history: History, rows: Rows, states: LearnedState) -> Rows:
        """Put the sessions ``rows`` of ``states``, in place; give those that are not remembered."""
        session = history.session[rows]
        place = session % len(self._session)
        known = (self._session[place] == session) & (self._shown[place] == history.count[rows])
        _copy_rows(self._states, place[known], states, rows[known])
        return rows[~known]

    def remember(self, history: History, rows: Rows, states: LearnedState) -> None:
        """Keep the states of the sessions ``rows``, of which only the shown plays were heard."""
        place = history.session[rows] % len(self._session)
        self._session[place], self._shown[place] = history.session[rows], history.count[rows]
        _copy_rows(states, rows, self._states, place)


def _copy_rows(source: LearnedState, come: Rows, target: LearnedState, go: Rows) -> None:
    """Copy rows of one state over those of another, in place."""
    for field in fields(source):
        here, there = getattr(source, field.name), getattr(target, field.name)
        copy_rows(here.reshape(len(here), -1), come, there.reshape(len(there), -1), go)


class LearnedListener:
    """Answers with a fitted network; see the module.

    Attributes:
        dataset: Its counts and embedding tell the network of the tracks.
        fit: Network, calibration, and where they come from.
        pessimism: Spreads added to the skip logit.
        reject_constant: Whether sessions skipped or kept throughout are avoided, as the published
            data hold none; see `_not_constant`.
    """

    answers_from_log = False

    def __init__(
        self,
        dataset: Dataset,
        fit: FittedNetwork | Path | str | None = None,
        *,
        pessimism: float | None = None,
        reject_constant: bool | None = None,
    ) -> None:
        """Open the listener of a dataset.

        Args:
            dataset: The sessions to simulate.
            fit: A fit or its file; by default the dataset's own, ``DATA/listeners/learned.npz``,
                or for a synthetic dataset of default taste the one that MusicBox brings.
            pessimism: Replaces what the fit says.
            reject_constant: Replaces what the fit says.

        Raises:
            FileNotFoundError: There is no fit; the message says how to make one.
            ValueError: The fit needs an embedding that the dataset lacks.
        """
        self.dataset = dataset
        self._source = fit
        if not isinstance(fit, FittedNetwork):
            fit = FittedNetwork.load(default_fit(dataset) if fit is None else Path(fit))
        self.fit = fit
        about = fit.about
        self.pessimism = float(about.get("pessimism", 0) if pessimism is None else pessimism)
        self.reject_constant = bool(
            about.get("reject_constant", False) if reject_constant is None else reject_constant
        )
        embedding = about.get("embedding")
        if embedding is not None and embedding not in dataset.embedding_names:
            raise ValueError(
                f"The listener was fitted with the embedding {embedding!r}, and {dataset.folder} "
                f"has {dataset.embedding_names or 'none'}. Fit it again on this dataset."
            )
        self.table = TrackTable.of(dataset, about["split"], embedding)
        self._usual = np.array(fit.calibration.usual, np.float32)
        self._begun = Begun(self._nothing_heard(self._room(dataset.sessions.num_sessions)))

    def __reduce__(self) -> tuple[Callable[..., LearnedListener], tuple[Any, ...]]:
        """Pickle by path where it came from one."""
        return _reopen, (self.dataset, self._source, self.pessimism, self.reject_constant)

    def begin(self, history: History) -> LearnedState:
        """State after the shown plays; see `Listener.begin`."""
        state = self._nothing_heard(len(history.count))
        self.begin_rows(state, history, np.arange(len(history.count)))
        return state

    def begin_rows(self, state: LearnedState, history: History, rows: Rows) -> None:
        """Read the shown plays with their behaviour, once; see `base.begin_by_copy`."""
        unread = self._begun.recall(history, rows, state)
        if not len(unread):
            return
        put_rows(state, unread, self._nothing_heard(len(unread)))
        read_shown(
            unread,
            history.count[unread],
            self.dataset.sessions.offsets[history.session[unread]],
            log_columns(self.dataset),
            self.table.columns,
            (history.tracks, history.levels),
            state.arrays,
            self.fit.network.of_play,
        )
        self._begun.remember(history, unread, state)

    def level_probabilities(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        plays: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.float64]:
        """What the network makes of each candidate; see the protocol. ``plays`` do not matter."""
        tracks = for_each(rows, tracks)
        answers = np.empty((*tracks.shape, NUM_LEVELS))
        step = max(1, CANDIDATES_AT_ONCE // max(tracks.shape[1], 1))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            asked = rows[part], tracks[part]
            inputs = self._track_inputs(state, history, *asked)
            answers[part] = self._answers(state, history, *asked, inputs)
        return answers

    def hear(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        slates: npt.NDArray[np.int64],
        plays: npt.NDArray[np.int64],
        uniforms: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int8]:
        """Hear whole slates; see `base.hear_one_by_one`."""
        if self.pessimism or self.reject_constant:
            return hear_one_by_one(self, state, history, rows, slates, plays, uniforms)
        return hear_slates(
            rows,
            slates,
            uniforms,
            self.table.columns,
            (history.tracks, history.levels, history.count),
            state.arrays,
            self.fit.network.of_play,
            self.fit.network.head,
            self._usual,
            (self.fit.calibration.song, self.fit.calibration.simulated),
        )

    def advance(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.int8],
    ) -> None:
        """Read a simulated play, whose behaviour nobody knows; see the protocol."""
        inputs = self._track_inputs(state, history, rows, tracks[:, None])
        nobody_knows = np.zeros((len(rows), 0), np.float32)
        self._take_in(state, history, rows, tracks, levels, inputs, nobody_knows)

    def levels_given_past(
        self,
        sessions: npt.NDArray[np.int64],
        *,
        behaviour: bool = True,
        recommended: bool = False,
    ) -> npt.NDArray[np.float64]:
        """Probabilities of the level of each logged play, given all plays before it.

        Args:
            sessions: Sessions of the log ``(n,)``.
            behaviour: Whether the behaviour around the earlier plays is read too.
            recommended: Whether the songs are taken as recommended, as the environment takes
                them. If not, they are what they are in a log, the listener's own choice; see
                `Calibration`.

        Returns:
            ``(n, longest session, 5)``, NaN after a session's last play.
        """
        width, lengths = self.dataset.longest_session, self.dataset.sessions.lengths(sessions)
        whole = History.logged(self.dataset, sessions, lengths, width)
        history = History.logged(self.dataset, sessions, np.zeros_like(lengths), width)
        state = self._nothing_heard(len(sessions))
        answers = np.full((len(sessions), width, NUM_LEVELS), np.nan)
        for place in range(width):
            rows = np.flatnonzero(place < lengths)
            tracks, levels = whole.tracks[rows, place], whole.levels[rows, place]
            inputs = self._track_inputs(state, history, rows, tracks[:, None])
            answers[rows, place] = self._answers(
                state, history, rows, tracks[:, None], inputs, recommended=recommended
            )[:, 0]
            plays = self.dataset.sessions.offsets[sessions[rows]] + place
            state.context[rows] = context_inputs(self.dataset, plays)
            seen = behaviour_inputs(self.dataset, plays) * np.float32(behaviour)
            self._take_in(state, history, rows, tracks, levels, inputs, seen)
            history.record(rows, tracks, levels)
        return answers

    def network_logits(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """What the calibration starts from.

        Returns:
            Skip logits of a usual track ``(M, m, 1)`` and of the candidates ``(M, m, c)``, and
            which of these the session heard before ``(m, c)``.
        """
        inputs = self._track_inputs(state, history, rows, tracks)
        outputs, usual = self._outputs(state, history, rows, inputs)
        return usual[..., None].astype(float), outputs[..., 0].astype(float), is_repeat(inputs)

    def _room(self, sessions: int) -> int:
        """How many sessions' first halves are remembered."""
        one = self._nothing_heard(1)
        size = sum(getattr(one, field.name).nbytes for field in fields(one))
        return min(sessions, max(1, BEGUN_BYTES // size))

    def _nothing_heard(self, n: int) -> LearnedState:
        network, songs, levels = (
            self.fit.network,
            HeardSongs.none(n, self.table),
            HeardLevels.none(n),
        )
        memory = np.zeros((n, network.members, network.memory_size), np.float32)
        context = np.zeros((n, len(CONTEXT_INPUTS)), np.float32)
        return LearnedState(memory, context, *songs.arrays, *levels.arrays)

    def _take_in(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.int8],
        inputs: Array,
        behaviour: Array,
    ) -> None:
        """Remember a play of each of the sessions ``rows``, in place."""
        songs = tracks[:, None].astype(np.int64)  # as slates, so compiled but once
        before = history.count[rows]
        arrays = self.table.columns, state.arrays, self.fit.network.of_play
        take_in(rows, songs, levels, before, inputs, behaviour, *arrays)

    def _track_inputs(
        self, state: LearnedState, history: History, rows: Rows, tracks: npt.NDArray[np.integer]
    ) -> Array:
        heard = history.tracks, history.levels, history.count
        return track_inputs(self.table, state.songs, rows, tracks, *heard)

    def _outputs(
        self, state: LearnedState, history: History, rows: Rows, inputs: Array
    ) -> tuple[Array, Array]:
        """Outputs for candidates ``(M, m, c, 5)``, and the first for a usual track ``(M, m)``."""
        _, context, _, listened = state.arrays
        heard = history.levels, history.count[rows]
        states = inputs_of_states(rows, *heard, *listened, context)
        return self.fit.network.price(rows, state.memory, states, inputs, self._usual)

    def _answers(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        inputs: Array,
        *,
        recommended: bool = True,
    ) -> npt.NDArray[np.float64]:
        """Level probabilities ``(m, c, 5)``; ``inputs`` are those of the tracks."""
        from scipy.special import expit  # late: most environments need no scipy

        outputs, usual = self._outputs(state, history, rows, inputs)
        mean, base = outputs.mean(axis=0), usual.mean(axis=0)[:, None]
        skip_logit = mean[..., 0]
        if self.pessimism:
            spread = self._spread(state, history, rows, tracks, inputs, outputs[..., 0])
            skip_logit = skip_logit + self.pessimism * spread
        logit = self.fit.calibration.apply(
            base, skip_logit, is_repeat(inputs), recommended=recommended
        )
        skip = expit(logit)
        if self.reject_constant:
            skip = self._not_constant(skip, history, rows)
        return level_chances(skip, mean)

    def _spread(
        self,
        state: LearnedState,
        history: History,
        rows: Rows,
        tracks: npt.NDArray[np.integer],
        inputs: Array,
        logits: Array,
    ) -> Array:
        """What is not known of each candidate's logit, ``(m, c)``.

        Members differ in seed alone and read the same track rates, so what is not known of a
        rate is added: the logit's change when the effect moves by its posterior sd.
        """
        moved = inputs.copy()
        moved[..., EFFECT] += self.table.effect_sd[tracks]
        outputs, _ = self._outputs(state, history, rows, moved)
        by_rate = (outputs[..., 0] - logits).mean(axis=0)
        return np.sqrt(logits.var(axis=0) + by_rate**2)

    def _not_constant(self, skip: Array, history: History, rows: Rows) -> Array:
        """Skip probabilities, given that the session will not be skipped or kept throughout.

        Only a session that was constant so far is concerned. With p the chance that the next song
        goes on so and R the songs up to the longest session, all will with chance about ``p**R``,
        and given that they do not, the next does with ``(p - p**R) / (1 - p**R)``. Two
        approximations: p stays as it is, and sessions last as long as the longest.
        """
        skipped = is_skip(history.levels[rows])
        heard = history.levels[rows] >= 0
        all_skipped = np.all(skipped | ~heard, axis=1, keepdims=True)
        all_kept = ~np.any(skipped, axis=1, keepdims=True)
        left = np.maximum(self.dataset.longest_session - history.count[rows], 0)[:, None]
        goes_on = np.clip(np.where(all_skipped, skip, 1 - skip), 1e-9, 1 - 1e-9)
        throughout = goes_on ** np.maximum(left, 1)
        goes_on = (goes_on - throughout) / (1 - throughout)
        concerned = (all_skipped | all_kept) & (left > 0)
        return np.where(concerned, np.where(all_skipped, goes_on, 1 - goes_on), skip)


def default_fit(dataset: Dataset) -> Path:
    """The file that ``listener="learned"`` means for a dataset.

    Raises:
        FileNotFoundError: It has none, and the bundled one is not for it.
    """
    own = dataset.folder / "listeners" / "learned.npz"
    if own.is_file():
        return own
    made = dataset.about.get("synthetic", {})
    if made.get("taste") in ("default", 1.3):
        return BUNDLED
    raise FileNotFoundError(
        f"{dataset.folder} has no fitted listener (listeners/learned.npz), and the one that "
        "MusicBox brings is for synthetic data of default taste. Fit one with `musicbox "
        f"fit-listener {dataset.folder}`."
    )


def _reopen(
    dataset: Dataset,
    source: FittedNetwork | Path | str | None,
    pessimism: float,
    reject_constant: bool,
) -> LearnedListener:
    return LearnedListener(dataset, source, pessimism=pessimism, reject_constant=reject_constant)
