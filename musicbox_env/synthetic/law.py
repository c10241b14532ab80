"""The listening law of synthetic data: how far a song is heard, given everything that matters.

Pure functions over explicit arrays. The generator draws logs with them and the ground-truth
listener answers with them, so that the two can never differ::

    skip logit = position[heard]                            what is usual at this place
               + previous_skip * (previous - .5)            persistence of skipping
               + running_skip * (running - .5)              the same, with a longer memory
               + propensity + context_type[...] + shuffle   the session
               - quality - taste * (affinity - affinity_center) + repeat   the song
               + satiation.strength * (wear - satiation.center[heard])   songs like it just heard
    P(level <= k) = sigmoid(skip logit + cut_k), cut_1 = 0

It is an ordinal (cumulative-logit) model: one number, the skip logit, says how far a song is
heard, and ``sigmoid(skip logit)`` is exactly P(``skip_2``). The last line, wear-out, is there only
in worlds made with it, and in a module of its own: `satiation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicbox_env.data.summaries import NEUTRAL, faded
from musicbox_env.kernels import compiled, level_is_skip
from musicbox_env.schema import CONTEXT_TYPES

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class ListenerState:
    """What the law reads of the histories of n sessions; `ListeningLaw.update` returns a new one.

    Attributes:
        previous: 1 where the last song heard was skipped, 0 where it was kept, ``(n,)``.
        running: `summaries.faded` mean of the skips so far, ``(n,)``.
        heard: Songs heard so far ``(n,)``; the next one has session position ``heard + 1``.
    """

    previous: Array
    running: Array
    heard: npt.NDArray[np.int64]

    @classmethod
    def begin(cls, n: int) -> ListenerState:
        """State of ``n`` sessions before their first song: both of its terms vanish."""
        return cls(np.full(n, NEUTRAL), np.full(n, NEUTRAL), np.zeros(n, dtype=np.int64))

    def at(self, rows: npt.NDArray) -> ListenerState:
        """The state of some of the sessions (indices or a mask)."""
        return ListenerState(self.previous[rows], self.running[rows], self.heard[rows])


@dataclass(frozen=True)
class ListeningLaw:
    """Parameters of the law, all on the logit scale of P(``skip_2``), and the law itself.

    The values are fitted to the published figures that `musicbox_env.synthetic.calibration` checks.

    Attributes:
        position: Logit at each session position; later places are as the last.
        previous_skip: From the last song kept to the last song skipped.
        running_skip: From a running mean of 0 to one of 1.
        running_weight: Weight of the old running mean when a song joins it.
        propensity_sd: Sd of the sessions' own propensity to skip.
        quality_sd: Sd of the tracks' quality before it is truncated.
        quality_limit: Quality lies within this many sd of 0: an untruncated one would be worth
            more the larger the catalog, since the best of many draws grows.
        taste: What one unit of affinity (cosine of taste and track vector) takes off.
        affinity_center: Affinity that neither adds nor takes: the mean of logged plays, so that
            another ``taste`` leaves the level of skipping where it is.
        repeat: For a song that the session already holds.
        context_type: One for each of `schema.CONTEXT_TYPES`.
        shuffle: Without shuffle, with shuffle.
        level_cuts: Cuts of levels 0, 2 and 3 relative to that of level 1; ascending around 0.
    """

    position: tuple[float, ...] = (
        *(-0.512, 0.105, 0.122, 0.175, 0.170, 0.169, 0.143, 0.124, 0.080, -0.019),
        *(0.042, 0.071, 0.087, 0.118, 0.097, 0.113, 0.118, 0.115, 0.119, 0.092),
    )
    previous_skip: float = 1.339
    running_skip: float = 2.075
    running_weight: float = 0.75
    propensity_sd: float = 0.267
    quality_sd: float = 0.44
    quality_limit: float = 2.0
    taste: float = 1.3
    affinity_center: float = 0.293
    repeat: float = -0.208
    context_type: tuple[float, ...] = (0.058, -0.162, -0.027, 0.154, -0.161, 0.146)
    shuffle: tuple[float, float] = (-0.051, 0.112)
    level_cuts: tuple[float, float, float] = (-0.519, 0.753, 0.854)

    def __post_init__(self) -> None:
        for name in ("position", "context_type", "shuffle", "level_cuts"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if len(self.context_type) != len(CONTEXT_TYPES):
            raise ValueError(
                f"context_type has {len(self.context_type)} values; it needs "
                f"{len(CONTEXT_TYPES)}, one for each of {CONTEXT_TYPES}."
            )
        if not self.position:
            raise ValueError("position is empty; give the logit of at least one position.")
        cut_0, cut_2, cut_3 = self.level_cuts
        if not cut_0 < 0 < cut_2 < cut_3:
            raise ValueError(
                f"level_cuts are {self.level_cuts}; they must ascend around 0, the cut of level 1."
            )
        if not 0 <= self.running_weight < 1:
            raise ValueError(f"running_weight is {self.running_weight}; it must be in [0, 1).")
        if min(self.propensity_sd, self.quality_sd) < 0 or self.quality_limit <= 0:
            raise ValueError(
                f"propensity_sd {self.propensity_sd} and quality_sd {self.quality_sd} must not be "
                f"negative, and quality_limit {self.quality_limit} must be above 0."
            )

    def session_logit(
        self, propensity: npt.ArrayLike, context_type: npt.NDArray, shuffle: npt.NDArray
    ) -> Array:
        """What the session adds: its propensity and where it plays from now.

        Args:
            propensity: The sessions' propensity ``(n,)``.
            context_type: Codes of `schema.CONTEXT_TYPES` ``(n,)``; -1, unknown, adds 0.
            shuffle: 1 where shuffle is on, 0 where off, -1 where unknown, ``(n,)``.

        Returns:
            ``(n,)``, or the shape to which the three broadcast.
        """
        of_context = np.append(self.context_type, 0.0)[context_type]
        of_shuffle = np.append(self.shuffle, 0.0)[shuffle]
        return np.asarray(propensity, dtype=np.float64) + of_context + of_shuffle

    def track_logit(
        self, quality: npt.ArrayLike, affinity: npt.ArrayLike, is_repeat: npt.ArrayLike = False
    ) -> Array:
        """What the song adds to the skip logit.

        Args:
            quality: Quality of the tracks.
            affinity: Dot product of the session's taste and the track's vector.
            is_repeat: Whether the session holds the track already.

        Returns:
            Of the shape to which the three broadcast, usually ``(n,)`` or ``(n, m)``.
        """
        personal = self.taste * (np.asarray(affinity, dtype=np.float64) - self.affinity_center)
        again = self.repeat * np.asarray(is_repeat, dtype=np.float64)
        return again - np.asarray(quality, dtype=np.float64) - personal

    def history_logit(self, state: ListenerState) -> Array:
        """What position and the songs heard so far add, ``(n,)``."""
        place = np.minimum(state.heard, len(self.position) - 1)
        return (
            np.asarray(self.position)[place]
            + self.previous_skip * (state.previous - NEUTRAL)
            + self.running_skip * (state.running - NEUTRAL)
        )

    def skip_logit(self, state: ListenerState, session: npt.ArrayLike, track: Array) -> Array:
        """Logit of the probability that the next song is skipped (``skip_2``).

        Args:
            state: What was heard, n sessions.
            session: From `session_logit`, ``(n,)``.
            track: From `track_logit`, and `Satiation.logit` where songs wear out: one song for
                each session ``(n,)``, or m candidates ``(n, m)``.

        Returns:
            Of the shape of ``track``.
        """
        of_session = self.history_logit(state) + np.asarray(session, dtype=np.float64)
        return track + (of_session[:, None] if track.ndim == 2 else of_session)

    def update(self, state: ListenerState, levels: npt.NDArray) -> ListenerState:
        """State after one more song each.

        Args:
            state: State before, n sessions.
            levels: Listen levels of the song ``(n,)``; -1 where none was heard, which changes
                nothing.

        Returns:
            A new state.
        """
        return self._after(state, np.asarray(levels)[:, None])

    def after(self, levels: npt.NDArray) -> ListenerState:
        """State after whole histories.

        Args:
            levels: Listen levels ``(n, plays)`` in the order heard, -1 where there is none.
        """
        return self._after(ListenerState.begin(len(levels)), np.asarray(levels))

    def _after(self, state: ListenerState, levels: npt.NDArray) -> ListenerState:
        """State after songs ``(n, plays)`` more; a new one."""
        parts = state.previous.copy(), state.running.copy(), state.heard.copy()
        _hear(levels, self.running_weight, *parts)
        return ListenerState(*parts)

    @property
    def _cuts(self) -> tuple[float, float, float, float]:
        """Cuts of all four levels relative to that of level 1, whose own is 0."""
        cut_0, cut_2, cut_3 = self.level_cuts
        return cut_0, 0.0, cut_2, cut_3

    def level_probabilities(self, skip_logit: npt.ArrayLike) -> Array:
        """Probability of each listen level, ``(..., 5)``."""
        from scipy.special import expit  # late: most environments need no scipy

        at_most = expit(np.asarray(skip_logit)[..., None] + np.array(self._cuts))
        ends = np.zeros((*at_most.shape[:-1], 1))
        return np.diff(at_most, axis=-1, prepend=ends, append=ends + 1.0)

    def draw_levels(
        self, skip_logit: npt.ArrayLike, uniform: npt.ArrayLike
    ) -> npt.NDArray[np.int8]:
        """Listen levels by inversion: the same uniform number gives the same level everywhere.

        Args:
            skip_logit: Any shape.
            uniform: Random numbers in [0, 1) of the same shape.

        Returns:
            Levels, int8, of that shape.
        """
        logit, target = np.broadcast_arrays(
            np.asarray(skip_logit, np.float64), np.asarray(uniform, np.float64)
        )
        levels = np.zeros(logit.shape, np.int8)
        odds = np.exp(-np.array(self._cuts))
        _invert(logit.ravel(), target.ravel(), odds, levels.reshape(-1))
        return levels


@compiled
def _hear(
    levels: npt.NDArray[np.integer], weight: float, previous: Array, running: Array, heard: Ints
) -> None:
    """Add songs ``(n, plays)``, in order, to a state; -1 is none. See `ListeningLaw.update`."""
    for i in range(len(levels)):
        for level in levels[i]:
            if level >= 0:
                previous[i] = level_is_skip(level)
                running[i] = faded(running[i], weight, previous[i])
                heard[i] += 1


@compiled
def _invert(logit: Array, target: Array, odds: Array, levels: npt.NDArray[np.int8]) -> None:
    """Levels whose P(level <= k) = 1 / (1 + odds_k exp(-logit)) the targets have reached."""
    for i in range(len(logit)):
        against = np.exp(-logit[i])
        for k in range(len(odds)):
            levels[i] += target[i] * (1.0 + odds[k] * against) >= 1.0
