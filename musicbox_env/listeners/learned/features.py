"""Inputs of the learned listener's network: all of past plays, of the next one only its track.

Fitting (`musicbox_experiments.listeners.sessions`) and simulation (`learned.kernels`) call the same
kernels, so that a network is used on the inputs that it was fitted on. Shapes: n sessions in a
batch, m of them at a time, c candidate tracks for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

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
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Columns = tuple[Ints, ...]
Table = tuple[Doubles, Doubles, Doubles, Array]
Sums = tuple[Array, Array, Array, Array, Doubles]

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
"""Of the next track: log plays and effect of `TrackTable`, whether any training play has it; the
level at which the session heard it last (one-hot), the inverse of how many songs ago, log2 of one
more than how often; and dot products of its vector with the mean vectors of the songs played, kept
and skipped, and with the last song's."""
POPULARITY, EFFECT, WAS_PLAYED = (
    TRACK_INPUTS.index(name) for name in ("popularity", "effect", "was_played")
)
HEARD_AT, HEARD_AGO, TIMES_HEARD, NEAR = (
    TRACK_INPUTS.index(name)
    for name in ("heard_at_level_0", "heard_ago", "times_heard", "near_played")
)
WEAR_AGES = (0, 1, 2, 4, 6, 9, 14, MAX_SESSION_LENGTH)
"""Spans of ages, in songs: 0 is the song just heard. No log says what older songs do."""
WEAR_INPUTS = tuple(f"alike_{age}_ago" for age in WEAR_AGES[:-1])
"""Further inputs of the next track, of listeners that were fitted with them: the sum over the other
songs heard in each span of ``max(0, dot product) ** 2``, as songs may wear out those like them."""
SPAN_OF_AGE = np.repeat(np.arange(len(WEAR_INPUTS)), np.diff(WEAR_AGES))
MEAN_PRIOR_SONGS = 2.0
"""A mean of song vectors is shrunk towards 0, which means no information, by this many songs."""
SMALLEST_EFFECT_SD = 0.05
LONGEST_POSITION = float(MAX_SESSION_LENGTH)
EVENT_CENTER = (0.5, 0.4, 0.35)
"""Usual shares of skipped, brief and full plays."""
PLAY_INPUTS = NUM_LEVELS + 1 + len(TRACK_INPUTS) + len(CONTEXT_INPUTS) + len(BEHAVIOUR_INPUTS)
HALF_LIVES = (1.0, 3.0, 8.0, np.inf)
"""Of the running means over the levels heard, in songs; the last is the plain mean."""
FADING = 0.5 ** (1.0 / np.array(HALF_LIVES))
LEVELS_SEEN = 3
"""Latest levels that are inputs of their own."""
SUMMARY_INPUTS = (
    *(f"{what}_{life:g}" for what in ("skipped", "brief", "full") for life in HALF_LIVES),
    *(f"level_{level}_{ago}_ago" for ago in range(LEVELS_SEEN) for level in range(NUM_LEVELS)),
    "run_of_skips",
    "run_of_keeps",
    "position",
)
STATE_INPUTS = len(SUMMARY_INPUTS) + len(CONTEXT_INPUTS)
"""Inputs of the head that describe the session, beside the network's memory."""


@dataclass(frozen=True)
class TrackTable:
    """Statistics of each track over the plays of one fold.

    Attributes:
        popularity: ``log(1 + plays)``, ``(num_tracks,)``.
        effect: How much likelier than usual it is skipped, on the logit scale and shrunk towards
            0, ``(num_tracks,)``.
        effect_sd: Posterior standard deviation of the effect ``(num_tracks,)``.
        vectors: Embedding ``(num_tracks, d)``; d is 0 without one.
    """

    popularity: Doubles
    effect: Doubles
    effect_sd: Doubles
    vectors: Array

    @classmethod
    def counted(cls, plays: Ints, skips: Ints, vectors: Array | None) -> TrackTable:
        """From each track's plays and skips ``(num_tracks,)``.

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
        if vectors is None:
            vectors = np.zeros((len(plays), 0), np.float32)
        return cls(np.log1p(plays), excess / precision, precision**-0.5, vectors)

    @classmethod
    def of(cls, dataset: Dataset, split: str, embedding: str | None) -> TrackTable:
        """Of a training split of a dataset; cosines from the named embedding."""
        catalog = dataset.catalog
        vectors = None if embedding is None else dataset.embedding(embedding)
        return cls.counted(catalog.plays(split), catalog.skips(split), vectors)

    def at(self, rows: Ints) -> TrackTable:
        """The same for other rows ``(n,)``: tracks of a catalog in another order."""
        return TrackTable(
            self.popularity[rows], self.effect[rows], self.effect_sd[rows], self.vectors[rows]
        )

    @cached_property
    def arrays(self) -> Table:
        """As kernels read them: all read-only, as mapped ones are, so that kernels compile once."""
        arrays = self.popularity, self.effect, self.effect_sd, self.vectors
        views = tuple(array.view() for array in arrays)
        for view in views:
            view.flags.writeable = False
        return cast(Table, views)


@dataclass
class HeardSums:
    """Running sums over the songs that n sessions heard.

    Attributes:
        sums: Sums of the vectors of the songs played, kept and skipped ``(n, 3, d)``.
        counts: How many songs each sum holds ``(n, 3)``.
        last: Vector of the last song ``(n, d)``.
        deviations: Sums of skipped, brief and full less `EVENT_CENTER`, each at every one of
            `HALF_LIVES`, ``(n, 3 * len(HALF_LIVES))``.
        weight: What the deviations are divided by to be means, ``(n, len(HALF_LIVES))``.
    """

    sums: Array
    counts: Array
    last: Array
    deviations: Array
    weight: Doubles

    @classmethod
    def none(cls, n: int, table: TrackTable) -> HeardSums:
        """Nothing heard yet."""
        dim, lives = table.vectors.shape[1], len(HALF_LIVES)
        return HeardSums(
            np.zeros((n, len(GROUPS), dim), np.float32),
            np.zeros((n, len(GROUPS)), np.float32),
            np.zeros((n, dim), np.float32),
            np.zeros((n, 3 * lives), np.float32),
            np.full((n, lives), 0.5),
        )

    @property
    def arrays(self) -> Sums:
        """As kernels read and change them."""
        return self.sums, self.counts, self.last, self.deviations, self.weight


@compiled
def add_songs(rows: Ints, tracks: Ints, levels: Ints, vectors: Array, heard: Sums) -> None:
    """Add one more song of each of the sessions ``rows`` ``(m,)`` to `HeardSums.arrays`."""
    sums, counts, last, deviations, weight = heard
    lives, best = len(HALF_LIVES), NUM_LEVELS - 1
    for i in range(len(rows)):
        row, track, level = rows[i], tracks[i], levels[i]
        add_to_groups(row, track, level, vectors, sums, counts)
        for j in range(vectors.shape[1]):
            last[row, j] = vectors[track, j]
        skipped = level_is_skip(level) - EVENT_CENTER[0]
        brief, full = (level == 0) - EVENT_CENTER[1], (level == best) - EVENT_CENTER[2]
        for life in range(lives):
            fading = FADING[life]
            deviations[row, life] = deviations[row, life] * fading + skipped
            deviations[row, lives + life] = deviations[row, lives + life] * fading + brief
            deviations[row, 2 * lives + life] = deviations[row, 2 * lives + life] * fading + full
            weight[row, life] = (weight[row, life] - 0.5) * fading + 1.5


@compiled
def track_inputs(
    rows: Ints,
    tracks: Ints,
    before: Ints,
    history: tuple[Ints, Ints],
    table: Table,
    heard: Sums,
    width: int,
) -> Array:
    """Inputs of candidate tracks, all known before they start.

    Args:
        rows: Sessions ``(m,)``.
        tracks: Candidates of each ``(m, c)``.
        before: Songs that each heard ``(m,)``.
        history: Tracks and levels heard ``(n, w)``; places from ``before`` on do not matter.
        table: `TrackTable.arrays`.
        heard: `HeardSums.arrays`.
        width: How many inputs: those of `TRACK_INPUTS`, or of `WEAR_INPUTS` too.

    Returns:
        ``(m, c, width)``.
    """
    heard_tracks, heard_levels = history
    popularity, effect, _, vectors = table
    sums, counts, last, _, _ = heard
    inputs = np.zeros((len(rows), tracks.shape[1], width), np.float32)
    for i in range(len(rows)):
        row, felt = rows[i], min(before[i], len(SPAN_OF_AGE))
        for c in range(tracks.shape[1]):
            track, into = tracks[i, c], inputs[i, c]
            into[POPULARITY] = popularity[track]
            into[EFFECT] = effect[track]
            into[WAS_PLAYED] = popularity[track] > 0
            times, newest = 0, 0
            for place in range(before[i]):
                if heard_tracks[row, place] == track:
                    times, newest = times + 1, place
            if times:
                into[HEARD_AT + heard_levels[row, newest]] = 1.0
                into[HEARD_AGO] = 1.0 / (before[i] - newest)
                into[TIMES_HEARD] = np.log2(1.0 + times)
            vector = vectors[track]
            for group in range(sums.shape[1]):
                songs = counts[row, group] + np.float32(MEAN_PRIOR_SONGS)
                into[NEAR + group] = dot(vector, sums[row, group]) / songs
            into[NEAR + sums.shape[1]] = dot(vector, last[row])
            for age in range(felt if width > len(TRACK_INPUTS) else 0):
                other = heard_tracks[row, before[i] - 1 - age]
                if other != track:
                    alike: Any = max(dot(vector, vectors[other]), np.float32(0))
                    into[len(TRACK_INPUTS) + SPAN_OF_AGE[age]] += alike * alike
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


def log_columns(dataset: Dataset) -> tuple[Columns, Columns]:
    """Columns of the log that hold the context of plays, and the behaviour around them."""
    context, behaviour = (
        tuple(dataset.sessions.column(name) for name in names)
        for names in (CONTEXT_COLUMNS, BEHAVIOUR_COLUMNS)
    )
    return context, behaviour


@compiled
def context_inputs(plays: Ints, columns: Columns) -> Array:
    """Context of logged plays ``(m, len(CONTEXT_INPUTS))``, 0 where unknown.

    Args:
        plays: Places in the columns ``(m,)``.
        columns: `CONTEXT_COLUMNS` of the log.
    """
    hour, premium, shuffle, context_type = columns
    inputs = np.zeros((len(plays), len(CONTEXT_INPUTS)), np.float32)
    for i in range(len(plays)):
        play, into = plays[i], inputs[i]
        into[0], into[1] = _HOURS[hour[play], 0], _HOURS[hour[play], 1]
        into[2], into[3] = _FLAGS[premium[play]], _FLAGS[shuffle[play]]
        if context_type[play] >= 0:
            into[4 + context_type[play]] = 1.0
    return inputs


@compiled
def behaviour_inputs(plays: Ints, columns: Columns) -> Array:
    """Behaviour around plays that are over ``(m, len(BEHAVIOUR_INPUTS))``, 0 where unknown.

    Args:
        plays: Places in the columns ``(m,)``.
        columns: `BEHAVIOUR_COLUMNS` of the log.
    """
    started, ended, pause, switch, forward, back = columns
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


@compiled
def play_inputs(
    levels: Ints, position: Ints, of_track: Array, context: Array, behaviour: Array
) -> Array:
    """Inputs of the memory from plays that are over ``(m, PLAY_INPUTS)``.

    Args:
        levels: How far each was heard ``(m,)``.
        position: Songs heard before it ``(m,)``.
        of_track: `track_inputs` of its track just before it began ``(m, ...)``.
        context: Of it, or of the last play whose context is known ``(m, ...)``.
        behaviour: Of it, or zeros where unknown ``(m, ...)``; ``(m, 0)``, which leaves these inputs
            out, where it is unknown of all plays.
    """
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


@compiled
def state_inputs(rows: Ints, before: Ints, levels: Ints, heard: Sums, context: Array) -> Array:
    """Inputs of the head from sessions ``(m, len(SUMMARY_INPUTS) + contexts)``.

    Plain statistics of the levels heard, which a network need not learn from few sessions, and the
    last known context. Running means are of deviations: 0 with nothing heard.

    Args:
        rows: Sessions ``(m,)``.
        before: Songs that each heard ``(m,)``.
        levels: Levels heard ``(n, w)``; places from ``before`` on do not matter.
        heard: `HeardSums.arrays`.
        context: ``(n, contexts)``.
    """
    _, _, _, deviations, weight = heard
    lives, contexts = len(HALF_LIVES), context.shape[1]
    seen = 3 * lives
    runs = seen + LEVELS_SEEN * NUM_LEVELS
    states = np.zeros((len(rows), runs + 3 + contexts), np.float32)
    for i in range(len(rows)):
        row, into = rows[i], states[i]
        count, newest = before[i], before[i] - 1
        for life in range(lives):
            for place in range(life, seen, lives):
                into[place] = deviations[row, place] / weight[row, life]
        for ago in range(min(LEVELS_SEEN, count)):
            into[seen + ago * NUM_LEVELS + levels[row, newest - ago]] = 1.0
        skipped, run = level_is_skip(levels[row, newest]), 0
        while run < count and level_is_skip(levels[row, newest - run]) == skipped:
            run += 1
        into[runs if skipped else runs + 1] = np.log2(1.0 + run)
        into[runs + 2] = min(count / LONGEST_POSITION, 1.0)
        for j in range(contexts):
            into[runs + 3 + j] = context[row, j]
    return states
