"""Listen levels out of milliseconds heard, track lengths, and what ended the play.

The challenge data set does not publish where it draws the lines between "very briefly",
"briefly", "most of the track" and all of it; `LevelConfig` draws them at shares of the track's
length. Three rules say more than the share, where there is something to apply them to:

1. A play that *ended by itself* (reason_end ``trackdone``, or a flag that says so) is full, also
   where a crossfade took its last seconds; unless less was heard than most of it: a listener who
   jumps ahead lets it end by itself too.
2. A play that the *listener ended* (any other known reason, or a flag) is cut at best. In the
   challenge data set itself 99 % of the full plays ended by themselves, and 2 % of all others.
3. Where no time heard is known, "completed" and "not skipped" are full, and "skipped" and "not
   completed" are short: how short is not known.

Plays of which nothing but the start is known get a time heard from `inferred`, and count apart.
Where a length is not stated it is estimated (`LengthEstimate`). `Evidence` counts which of all
this gave how many levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.kernels import unlocked
from musicbox_env.schema import REASONS_END, UNKNOWN, Level

TRACK_DONE: Final = REASONS_END.index("trackdone")
LENGTH_SAMPLES: Final = 16
"""Plays of a track that ended by themselves and are kept to estimate its length."""
TRUSTED_SAMPLES: Final = 3
SAME_LENGTH_MS: Final = 1_500
"""Two plays that stop no further apart than this stopped at the same place: the track's end."""
SHORTEST_AGREEING: Final = 0.4
"""Part of the typical length from which on two plays that stop together give the track's length;
before, skips meet by chance."""
TYPICAL_LENGTH_MS: Final = 210_000
"""Length of a track where nothing at all is known."""


@dataclass(frozen=True)
class LevelConfig:
    """Where the lines between listen levels lie, as shares of the track's length.

    Attributes:
        brief: Heard less than this: brief (``skip_1``).
        short: Less than this: short. What lies below is a skip (``skip_2``).
        most: Less than this: most of the track (``skip_3``).
        cut: Less than this: cut, with no label; from here on: full.
    """

    brief: float = 0.1
    short: float = 0.33
    most: float = 0.9
    cut: float = 0.97

    def __post_init__(self) -> None:
        if not 0 < self.brief < self.short < self.most <= self.cut <= 1:
            raise ValueError(
                f"The level shares are brief {self.brief}, short {self.short}, most {self.most}, "
                f"cut {self.cut}; they must rise from above 0 to 1 at most."
            )

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Lower edges of the levels 1 to 4."""
        return self.brief, self.short, self.most, self.cut


MOST_HEARD: Final = 2
"""Place among `LevelConfig.edges` of the least that is most of a track."""


class Evidence(IntEnum):
    """What a level rests on, strongest first; a stated share is as good as a stated length."""

    ENDED_ITSELF = 0
    STATED_LENGTH = 1
    ENDED_PLAYS = 2
    AGREEING_PLAYS = 3
    TYPICAL_LENGTH = 4
    FLAG = 5
    STATED_SHARE = 6
    INFERRED = 7


# Numbers of an enumeration, for compiled loops.
SHORT, CUT, FULL = int(Level.SHORT), int(Level.CUT), int(Level.FULL)
ENDED_ITSELF, STATED_LENGTH = int(Evidence.ENDED_ITSELF), int(Evidence.STATED_LENGTH)
FLAG, STATED_SHARE = int(Evidence.FLAG), int(Evidence.STATED_SHARE)
INFERRED = int(Evidence.INFERRED)

MEANING: Final = {
    Evidence.ENDED_ITSELF: "ended by itself",
    Evidence.STATED_LENGTH: "time heard, against the stated length",
    Evidence.ENDED_PLAYS: "time heard, against the length of plays that ran to the end",
    Evidence.AGREEING_PLAYS: "time heard, against the longest time heard twice",
    Evidence.TYPICAL_LENGTH: "time heard, against a typical length",
    Evidence.FLAG: "a completed or skipped flag alone",
    Evidence.STATED_SHARE: "share heard, as stated",
    Evidence.INFERRED: "inferred: heard until the next play began, or to the end",
}


def ended_itself(listens: Listens) -> npt.NDArray[np.bool_]:
    """Plays that ran to the track's end, ``(plays,)``."""
    return np.broadcast_to(_ended(listens)[0], len(listens)).copy()


def _ended(listens: Listens) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Plays that ran to the track's end, and those that listener or device ended before.

    Both ``(plays,)``, or ``()`` where all plays are alike.
    """
    reason, skipped, completed = map(listens.kept, ("reason_end", "skipped", "completed"))
    trusted = listens.kept("flags_trusted")
    by_flag = trusted & ((completed == 1) | ((completed < 0) & (skipped == 0)))
    itself = (reason == TRACK_DONE) | ((reason == UNKNOWN) & by_flag)
    return itself, ~itself & ((reason >= 0) | (skipped == 1) | (completed == 0))


class LengthEstimate:
    """Lengths of tracks, estimated from how they were played.

    In this order: the middle of the plays that ended by themselves (with fewer than
    `TRUSTED_SAMPLES` of them no shorter than the longest play, since one of them may have been
    jumped through); the longest time heard if two plays reached it; the typical length of those
    tracks, but no less than was ever heard.
    """

    def __init__(self, num_tracks: int) -> None:
        """Begin with nothing known."""
        self._samples = np.zeros((num_tracks, LENGTH_SAMPLES), np.int32)
        self._count = np.zeros(num_tracks, np.int64)
        self._longest = np.full((num_tracks, 2), UNKNOWN, np.int32)

    def add(self, listens: Listens) -> None:
        """Add plays, duplicates left out."""
        ended = ended_itself(listens) & (listens["ms"] > 0)
        self._sample(listens["track"][ended], listens["ms"][ended])
        known = listens["ms"] >= 0
        self._stretch(listens["track"][known], listens["ms"][known])

    def _sample(self, track: npt.NDArray[np.int32], ms: npt.NDArray[np.int32]) -> None:
        place = self._count[track] + place_in_group(track)
        room = place < LENGTH_SAMPLES
        self._samples[track[room], place[room]] = ms[room]
        np.add.at(self._count, track, 1)

    def _stretch(self, track: npt.NDArray[np.int32], ms: npt.NDArray[np.int32]) -> None:
        """Keep the two longest plays of each track."""
        mentioned = np.unique(track)
        track = np.concatenate([track, np.repeat(mentioned, 2)])
        ms = np.concatenate([ms, self._longest[mentioned].ravel()])
        order = np.argsort(-ms)
        track, ms = track[order], ms[order]
        place = place_in_group(track)
        longest = place < 2
        self._longest[track[longest], place[longest]] = ms[longest]

    def finish(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
        """Length in milliseconds of each track, and the `Evidence` behind it, ``(tracks,)``."""
        count = np.minimum(self._count, LENGTH_SAMPLES)
        longest = self._longest[:, 0]
        empty = np.arange(LENGTH_SAMPLES) >= count[:, None]
        ordered = np.sort(np.where(empty, np.iinfo(np.int32).max, self._samples), axis=1)
        middle = ordered[np.arange(len(count)), count // 2 * (count > 0)]
        few = count < TRUSTED_SAMPLES
        ended = np.where(few, np.maximum(middle, longest), middle)
        known = count > 0
        agreeing = ~known & (longest - self._longest[:, 1] <= SAME_LENGTH_MS)
        agreeing &= self._longest[:, 1] >= 0
        typical = _typical(ended[known])
        agreeing &= longest >= SHORTEST_AGREEING * typical
        if agreeing.any() and not known.any():
            typical = _typical(longest[agreeing])
        length = np.where(known, ended, np.where(agreeing, longest, np.maximum(typical, longest)))
        evidence = np.select(
            [known, agreeing],
            [Evidence.ENDED_PLAYS, Evidence.AGREEING_PLAYS],
            Evidence.TYPICAL_LENGTH,
        )
        return np.maximum(length, 1).astype(np.int32), evidence.astype(np.int8)


def _typical(lengths: npt.NDArray[np.int32]) -> int:
    return int(np.median(lengths)) if len(lengths) else TYPICAL_LENGTH_MS


def place_in_group(keys: npt.NDArray) -> npt.NDArray[np.int64]:
    """Place of each entry among those of the same key, from 0."""
    return np.asarray(pd.Series(keys).groupby(keys).cumcount(), np.int64)


def listen_levels(
    listens: Listens,
    estimated: npt.NDArray[np.int32],
    estimated_from: npt.NDArray[np.int8],
    config: LevelConfig,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Levels of plays, by the rules of this module's page.

    Args:
        listens: The plays.
        estimated: Length of each play's track in milliseconds ``(plays,)``.
        estimated_from: The `Evidence` of these lengths ``(plays,)``.
        config: Where the lines lie.

    Returns:
        Levels and the `Evidence` of each, ``(plays,)``.
    """
    levels, evidence = np.empty(len(listens), np.int8), np.empty(len(listens), np.int8)
    itself, listener = _ended(listens)
    _tell_levels(
        listens.dense("ms"),
        listens.dense("length"),
        listens.dense("share"),
        listens.dense("share_told"),
        listens.dense("inferred"),
        _of_each(itself, len(listens)),
        _of_each(listener, len(listens)),
        estimated,
        estimated_from,
        np.array(config.edges),
        levels,
        evidence,
    )
    return levels, evidence


@unlocked
def _tell_levels(
    ms: npt.NDArray[np.int32],
    stated: npt.NDArray[np.int32],
    share_heard: npt.NDArray[np.float32],
    told: npt.NDArray[np.bool_],
    inferred: npt.NDArray[np.bool_],
    itself: npt.NDArray[np.bool_],
    listener: npt.NDArray[np.bool_],
    estimated: npt.NDArray[np.int32],
    estimated_from: npt.NDArray[np.int8],
    edges: npt.NDArray[np.float64],
    levels: npt.NDArray[np.int8],
    evidence: npt.NDArray[np.int8],
) -> None:
    """See `listen_levels`; ``levels`` and ``evidence`` are changed."""
    most = edges[MOST_HEARD]
    for i in range(len(ms)):
        if ms[i] < 0 and not told[i]:
            levels[i] = FULL if itself[i] else SHORT
            evidence[i] = FLAG
            continue
        length = stated[i] if stated[i] > 0 else estimated[i]
        share = np.float64(share_heard[i]) if told[i] else ms[i] / length
        # Rounded: 0.9 of a length is most of it, also where binary fractions fall short of it.
        share = np.rint(share * 1e6) / 1e6
        level = 0
        for edge in edges:
            level += share >= edge
        levels[i] = min(level, CUT) if listener[i] else level
        evidence[i] = STATED_LENGTH if stated[i] > 0 else estimated_from[i]
        if told[i]:
            evidence[i] = STATED_SHARE
        if inferred[i]:
            evidence[i] = INFERRED
        if itself[i] and share >= most:
            levels[i], evidence[i] = FULL, ENDED_ITSELF


def _of_each(values: npt.NDArray[np.bool_], plays: int) -> npt.NDArray[np.bool_]:
    return np.ascontiguousarray(np.broadcast_to(values, plays))
