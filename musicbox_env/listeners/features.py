"""What the learned listener sees: of past plays everything, of the next one only its track.

Fitting (`experiments.fit_listener`) and answering (`listeners.learned`) read the same functions,
batched over sessions, so that what a network was fitted on is what it is asked with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicbox_env.dataset import Dataset
from musicbox_env.schema import (
    CONTEXT_TYPES,
    MAX_SESSION_LENGTH,
    NUM_LEVELS,
    PAUSE_LONG,
    PAUSE_SHORT,
    REASONS_END,
    REASONS_START,
    UNKNOWN,
    is_skip,
)

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]

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
GROUPS = ("played", "kept", "skipped")
"""Songs whose vectors are added up, and compared with the next one's."""
MEAN_PRIOR_SONGS = 2.0
"""A mean of song vectors is shrunken towards 0, which says nothing, by this many songs."""
SMALLEST_EFFECT_SD = 0.05
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

    popularity: Array
    effect: Array
    effect_sd: Array
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
        return cls(np.zeros((n, len(GROUPS), dim)), np.zeros((n, len(GROUPS))), np.zeros((n, dim)))

    def add(
        self,
        rows: npt.NDArray[np.integer],
        table: TrackTable,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.integer],
    ) -> None:
        """Take in one more song of each of the sessions ``rows`` ``(m,)``, in place."""
        skipped = is_skip(levels)
        member = np.stack([np.ones_like(skipped), ~skipped, skipped], axis=1)
        self.counts[rows] += member
        if table.vectors is not None:
            vectors = table.vectors[tracks].astype(np.float64)
            self.sums[rows] += member[:, :, None] * vectors[:, None, :]
            self.last[rows] = vectors

    def nearness(
        self,
        rows: npt.NDArray[np.integer],
        table: TrackTable,
        tracks: npt.NDArray[np.integer],
    ) -> Array:
        """Dot products of candidates ``(m, c)`` with the means and the last song ``(m, c, 4)``."""
        if table.vectors is None:
            return np.zeros((*tracks.shape, len(GROUPS) + 1))
        means = self.sums[rows] / (self.counts[rows] + MEAN_PRIOR_SONGS)[:, :, None]
        references = np.concatenate([means, self.last[rows][:, None]], axis=1)
        return np.einsum("mcd,mgd->mcg", table.vectors[tracks], references, optimize=False)


def track_inputs(
    table: TrackTable,
    near: Array,
    tracks: npt.NDArray[np.integer],
    heard_tracks: npt.NDArray[np.integer],
    heard_levels: npt.NDArray[np.integer],
    count: npt.NDArray[np.integer],
) -> Array:
    """Inputs of candidate tracks, all known before they start.

    Args:
        table: What is known of each track.
        near: From `HeardSongs.nearness`, ``(m, c, 4)``.
        tracks: Candidates of m sessions ``(m, c)``.
        heard_tracks: Tracks heard so far ``(m, w)``; places from ``count`` on do not matter.
        heard_levels: Their levels ``(m, w)``.
        count: Songs heard so far ``(m,)``.

    Returns:
        ``(m, c, len(TRACK_INPUTS))``.
    """
    inputs = np.zeros((*tracks.shape, len(TRACK_INPUTS)))
    inputs[..., POPULARITY] = table.popularity[tracks]
    inputs[..., EFFECT] = table.effect[tracks]
    inputs[..., WAS_PLAYED] = table.popularity[tracks] > 0
    inputs[..., NEAR:] = near
    width = int(count.max(initial=1))
    was_heard = np.arange(width) < count[:, None]
    heard = np.where(was_heard, heard_tracks[:, :width], UNKNOWN)
    same = tracks[:, :, None] == heard[:, None, :]
    row, candidate = np.nonzero(same.any(axis=2))
    matches = same[row, candidate]
    last = width - 1 - matches[:, ::-1].argmax(axis=1)
    inputs[row, candidate, HEARD_AT + heard_levels[row, last]] = 1.0
    inputs[row, candidate, HEARD_AGO] = 1.0 / (count[row] - last)
    inputs[row, candidate, TIMES_HEARD] = np.log2(1 + matches.sum(axis=1))
    return inputs


def is_repeat(inputs: Floats) -> npt.NDArray[np.bool_]:
    """Whether the candidate was heard in the session, from its inputs ``(..., TRACK_INPUTS)``."""
    return inputs[..., TIMES_HEARD] > 0


def context_inputs(dataset: Dataset, plays: npt.NDArray[np.integer]) -> Array:
    """Context of logged plays, of their shape and ``len(CONTEXT_INPUTS)``; 0 where unknown."""
    log = dataset.sessions
    hour, context = log.column("hour")[plays], log.column("context_type")[plays]
    inputs = np.zeros((*plays.shape, len(CONTEXT_INPUTS)))
    angle = 2 * np.pi * hour / 24
    inputs[..., 0] = np.where(hour >= 0, np.cos(angle), 0)
    inputs[..., 1] = np.where(hour >= 0, np.sin(angle), 0)
    for place, name in ((2, "premium"), (3, "shuffle")):
        value = log.column(name)[plays]
        inputs[..., place] = np.where(value >= 0, 2.0 * value - 1.0, 0)
    inputs[..., 4:] = context[..., None] == np.arange(len(CONTEXT_TYPES))
    return inputs


def behaviour_inputs(dataset: Dataset, plays: npt.NDArray[np.integer]) -> Array:
    """Behaviour around plays that are over, their shape and ``len(BEHAVIOUR_INPUTS)``."""
    log = dataset.sessions
    pause = log.column("pause")[plays]
    known = log.column("reason_end")[plays] >= 0
    reasons = [
        log.column(name)[plays][..., None] == np.arange(len(vocabulary))
        for name, vocabulary in (("reason_start", REASONS_START), ("reason_end", REASONS_END))
    ]
    pauses = [(pause >= 0) & (pause & kind > 0) for kind in (PAUSE_SHORT, PAUSE_LONG)]
    events = [log.column(name)[plays] > 0 for name in ("context_switch", *SEEKS)]
    parts = [known[..., None], *reasons, np.stack([*pauses, *events], axis=-1)]
    return np.concatenate(parts, axis=-1).astype(np.float64)


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
        behaviour: Of it, or zeros where unknown ``(m, ...)``.
    """
    one_hot = (levels[..., None] == np.arange(NUM_LEVELS)).astype(np.float64)
    place = np.minimum(position / LONGEST_POSITION, 1.0)[..., None]
    return np.concatenate([one_hot, place, of_track, context, behaviour], axis=-1)


PLAY_INPUTS = NUM_LEVELS + 1 + len(TRACK_INPUTS) + len(CONTEXT_INPUTS) + len(BEHAVIOUR_INPUTS)
HALF_LIVES = (1.0, 3.0, 8.0)
"""Of the running means over the levels heard, in songs."""
SUMMARY_INPUTS = (
    *(f"{what}_{life:g}" for what in ("skipped", "brief", "full") for life in HALF_LIVES),
    *(f"last_level_{level}" for level in range(NUM_LEVELS)),
    "run_of_skips",
    "run_of_keeps",
    "position",
)
STATE_INPUTS = len(SUMMARY_INPUTS) + len(CONTEXT_INPUTS)
"""What the head reads of the session beside the network's memory."""


def level_summaries(levels: npt.NDArray[np.integer], count: npt.NDArray[np.integer]) -> Array:
    """Plain statistics of the levels heard, which a network need not learn from few sessions.

    Args:
        levels: Levels heard ``(m, w)``; places from ``count`` on do not matter.
        count: Songs heard ``(m,)``.

    Returns:
        ``(m, len(SUMMARY_INPUTS))``. Running means are of deviations: 0 with nothing heard.
    """
    m, width = len(levels), int(count.max(initial=1))
    summary = np.zeros((m, len(SUMMARY_INPUTS)))
    heard = np.arange(width) < count[:, None]
    levels = np.where(heard, levels[:, :width], UNKNOWN)
    age = count[:, None] - 1 - np.arange(width)
    skipped = is_skip(levels)
    events = np.stack([skipped, levels == 0, levels == NUM_LEVELS - 1], axis=2) - EVENT_CENTER
    for place, life in enumerate(HALF_LIVES):
        weight = np.where(heard, 0.5 ** (np.maximum(age, 0) / life), 0)
        total = weight.sum(axis=1) + 0.5
        means = np.einsum("mw,mwe->me", weight, events) / total[:, None]
        summary[:, place : 3 * len(HALF_LIVES) : len(HALF_LIVES)] = means
    first = 3 * len(HALF_LIVES)
    last = levels[np.arange(m), np.maximum(count - 1, 0)]
    summary[:, first : first + NUM_LEVELS] = last[:, None] == np.arange(NUM_LEVELS)
    for place, different in ((first + NUM_LEVELS, ~skipped), (first + NUM_LEVELS + 1, skipped)):
        newest_other = np.where(heard & different, np.arange(width), -1).max(axis=1)
        summary[:, place] = np.log2(count - newest_other)
    summary[:, -1] = np.minimum(count / LONGEST_POSITION, 1.0)
    return summary


def state_inputs(summary: Floats, context: Floats) -> Array:
    """What the head reads beside the memory: `level_summaries` and the last known context."""
    return np.concatenate([summary, context], axis=-1, dtype=np.float64)
