"""What the learned listener sees: of past plays everything, of the next one only its track.

Fitting (`musicbox_experiments.listeners.sessions`) and answering (`listeners.learned`) read the
same functions,
batched over sessions, so that what a network was fitted on is what it is asked with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import GROUPS, add_to_groups
from musicbox_env.kernels import compiled, dot, level_is_skip
from musicbox_env.schema import (
    CONTEXT_TYPES,
    MAX_SESSION_LENGTH,
    NUM_LEVELS,
    PAUSE_LONG,
    PAUSE_SHORT,
    REASONS_END,
    REASONS_START,
)

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

CONTEXT_INPUTS = ("hour_cos", "hour_sin", "premium", "shuffle", *CONTEXT_TYPES)
SEEKS = ("seek_forward", "seek_back")
BEHAVIOUR_INPUTS = (
    "known",
    *(f"started_by_{reason}" for reason in REASONS_START),
    *(f"ended_by_{reason}" for reason in REASONS_END),
    "short_pause",
    "long_pause",
    "context_switch",
    *SEEKS,
)
TRACK_INPUTS = (
    "popularity",
    "effect",
    "was_played",
    *(f"heard_at_level_{level}" for level in range(NUM_LEVELS)),
    "heard_ago",
    "times_heard",
    "near_played",
    "near_kept",
    "near_skipped",
    "near_last",
)
"""Of the next track: `TrackTable`, whether any training play has it; how the session heard it last
(one-hot), the inverse of how many songs ago, log2 of one more than how often; and dot products of
its vector with the mean vectors of the songs played, kept and skipped, and with the last song's."""
POPULARITY, EFFECT, WAS_PLAYED = (
    TRACK_INPUTS.index(name) for name in ("popularity", "effect", "was_played")
)
HEARD_AT, HEARD_AGO, TIMES_HEARD, NEAR = (
    TRACK_INPUTS.index(name)
    for name in ("heard_at_level_0", "heard_ago", "times_heard", "near_played")
)
MEAN_PRIOR_SONGS = 2.0
"""A mean of song vectors is shrunken towards 0, which says nothing, by this many songs."""
SMALLEST_EFFECT_SD = 0.05
NO_VECTORS = np.zeros((1, 0), np.float32)
"""Those of any track where there is no embedding."""
LONGEST_POSITION = float(MAX_SESSION_LENGTH)
EVENT_CENTER = (0.5, 0.4, 0.35)
"""Usual shares of skipped, brief and full plays."""


@dataclass(frozen=True)
class TrackTable:
    """What the plays of one fold tell of each track, whoever hears it.

    Attributes:
        popularity: ``log(1 + plays)``, ``(num_tracks,)``.
        effect: How much likelier than usual it is skipped, on the logit scale and shrunken
            towards 0, ``(num_tracks,)``.
        effect_sd: What is not known of the effect: its posterior standard deviation.
        vectors: Embedding ``(num_tracks, d)``, or None without one.
    """

    popularity: npt.NDArray[np.float64]
    effect: npt.NDArray[np.float64]
    effect_sd: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32] | None

    @classmethod
    def counted(
        cls,
        plays: npt.NDArray[np.integer],
        skips: npt.NDArray[np.integer],
        vectors: npt.NDArray[np.float32] | None,
    ) -> TrackTable:
        """Of each track's plays and skips ``(num_tracks,)``.

        One Newton step from 0 towards the posterior mode of a track's effect under a normal
        prior: with m the mean rate, ``(skips - m plays) / (m (1 - m) plays + 1 / sd**2)``, and
        the inverse of the denominator is its variance. The prior sd is estimated from the counts:
        two plays of a track agree more often than chance by ``(m (1 - m) sd)**2``.
        """
        mean = np.clip(skips.sum() / max(plays.sum(), 1), 0.01, 0.99)
        information = mean * (1 - mean)
        excess = skips - mean * plays
        pairs = np.sum(plays * (plays - 1.0)) * information**2
        agreement = np.sum(excess**2) - information * plays.sum()
        prior_sd = max(np.sqrt(max(agreement, 0.0) / max(pairs, 1e-9)), SMALLEST_EFFECT_SD)
        precision = information * plays + prior_sd**-2
        return cls(np.log1p(plays), excess / precision, precision**-0.5, vectors)

    @classmethod
    def of(cls, dataset: Dataset, split: str, embedding: str | None) -> TrackTable:
        """Counted on a training split of a dataset; cosines from the named embedding."""
        catalog = dataset.catalog
        vectors = None if embedding is None else dataset.embedding(embedding)
        return cls.counted(catalog.plays(split), catalog.skips(split), vectors)

    @property
    def columns(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Array]:
        """Popularity, effect and vectors, as kernels read them."""
        vectors = NO_VECTORS if self.vectors is None else self.vectors
        return self.popularity, self.effect, vectors


@dataclass
class HeardSongs:
    """What is remembered of the songs of n sessions to compare the next one with.

    Attributes:
        sums: Sums of the vectors of the songs played, kept and skipped ``(n, 3, d)``.
        counts: How many songs each sum holds ``(n, 3)``.
        last: Vector of the last song ``(n, d)``.
    """

    sums: Array
    counts: Array
    last: Array

    @classmethod
    def none(cls, n: int, table: TrackTable) -> HeardSongs:
        """Nothing heard yet."""
        dim = 0 if table.vectors is None else table.vectors.shape[1]
        shapes = (n, len(GROUPS), dim), (n, len(GROUPS)), (n, dim)
        return cls(*(np.zeros(shape, np.float32) for shape in shapes))

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """As kernels read them."""
        return self.sums, self.counts, self.last

    def add(
        self,
        rows: npt.NDArray[np.integer],
        table: TrackTable,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.integer],
    ) -> None:
        """Take in one more song of each of the sessions ``rows`` ``(m,)``, in place."""
        add_songs(rows, tracks, levels, table.columns[2], *self.arrays)


@compiled
def add_songs(
    rows: Ints,
    tracks: Ints,
    levels: Ints,
    vectors: Array,
    sums: Array,
    counts: Array,
    last: Array,
) -> None:
    """`HeardSongs.add`, of arrays."""
    for i in range(len(rows)):
        row, track = rows[i], tracks[i]
        add_to_groups(row, track, levels[i], vectors, sums, counts)
        for j in range(vectors.shape[1]):
            last[row, j] = vectors[track, j]


def track_inputs(
    table: TrackTable,
    songs: HeardSongs,
    rows: npt.NDArray[np.integer],
    tracks: npt.NDArray[np.integer],
    heard_tracks: npt.NDArray[np.integer],
    heard_levels: npt.NDArray[np.integer],
    count: npt.NDArray[np.integer],
) -> Array:
    """Inputs of candidate tracks, all known before they start.

    Args:
        table: What is known of each track.
        songs: What is remembered of the songs of n sessions.
        rows: Which of the sessions are asked ``(m,)``.
        tracks: Candidates of each ``(m, c)``.
        heard_tracks: Tracks heard so far ``(n, w)``; places from ``count`` on do not matter.
        heard_levels: Their levels ``(n, w)``.
        count: Songs heard so far ``(n,)``.

    Returns:
        ``(m, c, len(TRACK_INPUTS))``.
    """
    return inputs_of_tracks(
        rows, tracks, *table.columns, *songs.arrays, heard_tracks, heard_levels, count[rows]
    )


@compiled
def inputs_of_tracks(
    rows: Ints,
    tracks: Ints,
    popularity: npt.NDArray[np.float64],
    effect: npt.NDArray[np.float64],
    vectors: Array,
    sums: Array,
    counts: Array,
    last: Array,
    heard_tracks: Ints,
    heard_levels: Ints,
    count: Ints,
) -> Array:
    """`track_inputs`, of arrays; ``count`` is that of the sessions asked ``(m,)``."""
    inputs = np.zeros((len(rows), tracks.shape[1], len(TRACK_INPUTS)), np.float32)
    for i in range(len(rows)):
        row = rows[i]
        for c in range(tracks.shape[1]):
            track, into = tracks[i, c], inputs[i, c]
            into[POPULARITY] = popularity[track]
            into[EFFECT] = effect[track]
            into[WAS_PLAYED] = popularity[track] > 0
            times, newest = 0, 0
            for place in range(count[i]):
                if heard_tracks[row, place] == track:
                    times, newest = times + 1, place
            if times:
                into[HEARD_AT + heard_levels[row, newest]] = 1.0
                into[HEARD_AGO] = 1.0 / (count[i] - newest)
                into[TIMES_HEARD] = np.log2(1.0 + times)
            vector = vectors[track]
            for group in range(sums.shape[1]):
                songs = counts[row, group] + np.float32(MEAN_PRIOR_SONGS)
                into[NEAR + group] = dot(vector, sums[row, group]) / songs
            into[NEAR + sums.shape[1]] = dot(vector, last[row])
    return inputs


@register_jitable
def is_repeat(inputs: Floats) -> Any:
    """Whether the candidate was heard in the session, from its inputs ``(..., TRACK_INPUTS)``."""
    return inputs[..., TIMES_HEARD] > 0


def _with_unknown(known: npt.NDArray) -> Array:
    """Inputs by code; the row of -1, unknown, is 0."""
    return np.concatenate([known, np.zeros_like(known[:1])]).astype(np.float32)


_ANGLES = 2 * np.pi * np.arange(24) / 24
_HOURS = _with_unknown(np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1))
_FLAGS = _with_unknown(np.array([-1.0, 1.0]))
CONTEXT_COLUMNS = ("hour", "premium", "shuffle", "context_type")
BEHAVIOUR_COLUMNS = ("reason_start", "reason_end", "pause", "context_switch", *SEEKS)
Columns = tuple[npt.NDArray[np.integer], ...]


def log_columns(dataset: Dataset) -> tuple[Columns, Columns]:
    """Columns of the log that hold the context of plays, and the behaviour around them."""
    context, behaviour = (
        tuple(dataset.sessions.column(name) for name in names)
        for names in (CONTEXT_COLUMNS, BEHAVIOUR_COLUMNS)
    )
    return context, behaviour


def context_inputs(dataset: Dataset, plays: npt.NDArray[np.integer]) -> Array:
    """Context of logged plays, of their shape and ``len(CONTEXT_INPUTS)``; 0 where unknown."""
    inputs = inputs_of_contexts(plays.ravel(), *log_columns(dataset)[0])
    return inputs.reshape(*plays.shape, len(CONTEXT_INPUTS))


@compiled
def inputs_of_contexts(
    plays: Ints, hour: Ints, premium: Ints, shuffle: Ints, context_type: Ints
) -> Array:
    """`context_inputs` of plays ``(m,)``, of columns."""
    inputs = np.zeros((len(plays), len(CONTEXT_INPUTS)), np.float32)
    for i in range(len(plays)):
        play, into = plays[i], inputs[i]
        into[0], into[1] = _HOURS[hour[play], 0], _HOURS[hour[play], 1]
        into[2], into[3] = _FLAGS[premium[play]], _FLAGS[shuffle[play]]
        if context_type[play] >= 0:
            into[4 + context_type[play]] = 1.0
    return inputs


def behaviour_inputs(dataset: Dataset, plays: npt.NDArray[np.integer]) -> Array:
    """Behaviour around plays that are over, their shape and ``len(BEHAVIOUR_INPUTS)``."""
    inputs = inputs_of_behaviour(plays.ravel(), *log_columns(dataset)[1])
    return inputs.reshape(*plays.shape, len(BEHAVIOUR_INPUTS))


@compiled
def inputs_of_behaviour(
    plays: Ints,
    started: Ints,
    ended: Ints,
    pause: Ints,
    switch: Ints,
    forward: Ints,
    back: Ints,
) -> Array:
    """`behaviour_inputs` of plays ``(m,)``, of columns."""
    inputs = np.zeros((len(plays), len(BEHAVIOUR_INPUTS)), np.float32)
    starts, ends = 1, 1 + len(REASONS_START)
    flags = ends + len(REASONS_END)
    for i in range(len(plays)):
        play, into = plays[i], inputs[i]
        into[0] = ended[play] >= 0
        if started[play] >= 0:
            into[starts + started[play]] = 1.0
        if ended[play] >= 0:
            into[ends + ended[play]] = 1.0
        pauses = max(pause[play], 0)
        into[flags], into[flags + 1] = pauses & PAUSE_SHORT > 0, pauses & PAUSE_LONG > 0
        into[flags + 2] = switch[play] > 0
        into[flags + 3], into[flags + 4] = forward[play] > 0, back[play] > 0
    return inputs


def play_inputs(
    levels: npt.NDArray[np.integer],
    position: npt.NDArray[np.integer],
    of_track: Floats,
    context: Floats,
    behaviour: Floats,
) -> Array:
    """What the recurrent network reads of a play that is over, ``(m, PLAY_INPUTS)``.

    Args:
        levels: How far it was heard ``(m,)``.
        position: Songs heard before it ``(m,)``.
        of_track: Its track as it was when it began, from `track_inputs`, ``(m, ...)``.
        context: Of it, or of the last play whose context is known ``(m, ...)``.
        behaviour: Of it, or zeros where unknown ``(m, ...)``; where it is unknown of all plays it
            may be left out, ``(m, 0)``.
    """
    parts = (part.reshape(levels.size, part.shape[-1]) for part in (of_track, context, behaviour))
    inputs = inputs_of_plays(levels.ravel(), position.ravel(), *parts)
    return inputs.reshape(*levels.shape, inputs.shape[1])


@compiled
def inputs_of_plays(
    levels: Ints, position: Ints, of_track: Array, context: Array, behaviour: Array
) -> Array:
    """`play_inputs` of plays ``(m,)``."""
    width = NUM_LEVELS + 1 + of_track.shape[1] + context.shape[1] + behaviour.shape[1]
    inputs = np.zeros((len(levels), width), np.float32)
    for i in range(len(levels)):
        into, at = inputs[i], NUM_LEVELS + 1
        if levels[i] >= 0:
            into[levels[i]] = 1.0
        into[NUM_LEVELS] = min(position[i] / LONGEST_POSITION, 1.0)
        for part in (of_track, context, behaviour):
            for j in range(part.shape[1]):
                into[at + j] = part[i, j]
            at += part.shape[1]
    return inputs


PLAY_INPUTS = NUM_LEVELS + 1 + len(TRACK_INPUTS) + len(CONTEXT_INPUTS) + len(BEHAVIOUR_INPUTS)
HALF_LIVES = (1.0, 3.0, 8.0, np.inf)
"""Of the running means over the levels heard, in songs; the last is the plain mean."""
FADING = 0.5 ** (1.0 / np.array(HALF_LIVES))
LEVELS_SEEN = 3
"""Latest levels that are told one by one."""
SUMMARY_INPUTS = (
    *(f"{what}_{life:g}" for what in ("skipped", "brief", "full") for life in HALF_LIVES),
    *(f"level_{level}_{ago}_ago" for ago in range(LEVELS_SEEN) for level in range(NUM_LEVELS)),
    "run_of_skips",
    "run_of_keeps",
    "position",
)
STATE_INPUTS = len(SUMMARY_INPUTS) + len(CONTEXT_INPUTS)
"""What the head reads of the session beside the network's memory."""


@dataclass
class HeardLevels:
    """What is remembered of the levels that n sessions heard: running sums.

    Attributes:
        deviations: Sums of skipped, brief and full less `EVENT_CENTER`, each at every one of
            `HALF_LIVES`, ``(n, 3 * len(HALF_LIVES))``.
        weight: What the sums are divided by to be means, ``(n, len(HALF_LIVES))``.
    """

    deviations: Array
    weight: npt.NDArray[np.float64]

    @classmethod
    def none(cls, n: int) -> HeardLevels:
        """Nothing heard yet."""
        lives = len(HALF_LIVES)
        return cls(np.zeros((n, 3 * lives), np.float32), np.full((n, lives), 0.5))

    @property
    def arrays(self) -> tuple[Array, npt.NDArray[np.float64]]:
        """As kernels read them."""
        return self.deviations, self.weight

    def add(self, rows: npt.NDArray[np.integer], levels: npt.NDArray[np.integer]) -> None:
        """Take in one more level of each of the sessions ``rows`` ``(m,)``, in place."""
        add_levels(rows, levels, *self.arrays)


@compiled
def add_levels(
    rows: Ints, levels: Ints, deviations: Array, weight: npt.NDArray[np.float64]
) -> None:
    """`HeardLevels.add`, of arrays."""
    lives, best = len(HALF_LIVES), NUM_LEVELS - 1
    for i in range(len(rows)):
        row, level = rows[i], levels[i]
        skipped = level_is_skip(level) - EVENT_CENTER[0]
        brief, full = (level == 0) - EVENT_CENTER[1], (level == best) - EVENT_CENTER[2]
        for life in range(lives):
            fading = FADING[life]
            deviations[row, life] = deviations[row, life] * fading + skipped
            deviations[row, lives + life] = deviations[row, lives + life] * fading + brief
            deviations[row, 2 * lives + life] = deviations[row, 2 * lives + life] * fading + full
            weight[row, life] = (weight[row, life] - 0.5) * fading + 1.5


def level_summaries(levels: npt.NDArray[np.integer], count: npt.NDArray[np.integer]) -> Array:
    """Plain statistics of the levels heard, which a network need not learn from few sessions.

    Args:
        levels: Levels heard ``(m, w)``; places from ``count`` on do not matter.
        count: Songs heard ``(m,)``.

    Returns:
        ``(m, len(SUMMARY_INPUTS))``. Running means are of deviations: 0 with nothing heard.
    """
    heard = HeardLevels.none(len(levels))
    for place in range(int(count.max(initial=0))):
        rows = np.flatnonzero(place < count)
        heard.add(rows, levels[rows, place])
    nothing = np.zeros((len(levels), 0), np.float32)
    return inputs_of_states(np.arange(len(levels)), levels, count, *heard.arrays, nothing)


@compiled
def inputs_of_states(
    rows: Ints,
    levels: Ints,
    count: Ints,
    deviations: Array,
    weight: npt.NDArray[np.float64],
    context: Array,
) -> Array:
    """`level_summaries` of sessions ``rows`` that heard ``count`` ``(m,)``, and their context.

    The other arrays are of all sessions; the middle two are those of `HeardLevels`.
    """
    lives, contexts = len(HALF_LIVES), context.shape[1]
    seen = 3 * lives
    runs = seen + LEVELS_SEEN * NUM_LEVELS
    states = np.zeros((len(rows), runs + 3 + contexts), np.float32)
    for i in range(len(rows)):
        row, into = rows[i], states[i]
        heard, newest = count[i], count[i] - 1
        for life in range(lives):
            for place in range(life, seen, lives):
                into[place] = deviations[row, place] / weight[row, life]
        for ago in range(min(LEVELS_SEEN, heard)):
            into[seen + ago * NUM_LEVELS + levels[row, newest - ago]] = 1.0
        skipped, run = level_is_skip(levels[row, newest]), 0
        while run < heard and level_is_skip(levels[row, newest - run]) == skipped:
            run += 1
        into[runs if skipped else runs + 1] = np.log2(1.0 + run)
        into[runs + 2] = min(heard / LONGEST_POSITION, 1.0)
        for j in range(contexts):
            into[runs + 3 + j] = context[row, j]
    return states


def state_inputs(summary: Floats, context: Floats) -> Array:
    """What the head reads beside the memory: `level_summaries` and the last known context."""
    return np.concatenate([summary, context], axis=-1, dtype=np.float32)
