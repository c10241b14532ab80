"""Time heard of plays that are known by their start alone, as scrobbles are: an upper bound.

A play was heard no longer than until the listener's next play began, and no longer than its
track. So it is taken: a song that was left without another one after it counts as heard to its
end. Lengths that no file states are those at which plays of the track were followed again and
again. Such levels are marked (`levels.Evidence.INFERRED`), since nothing told them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.levels import (
    LENGTH_SAMPLES,
    SAME_LENGTH_MS,
    SHORTEST_AGREEING,
    Evidence,
    place_in_group,
)
from musicbox_env.ingest.histories.timing.clock import Clock
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.spelling.values import LONGEST_MS
from musicbox_env.schema import UNKNOWN

LIKELY_LENGTHS_MS: Final = 30_000, 20 * 60_000
"""Only what is between these may be a track's length: shorter are skips, longer are pauses."""
MAY_BE_LONGER: Final = 1.75
"""How many times a typical length a track may last of which no length is known."""
TRACKS_AT_A_TIME: Final = 1 << 16


def bound_by_next(listens: Listens) -> Listens:
    """Plays whose ``bound`` ends where the listener's next play begins.

    Where times are the ends of plays, it begins where the play before ended.
    """
    if not listens["inferred"].any():
        return listens
    listens = _oldest_first(listens)
    clock = Clock.of(listens, np.zeros(len(listens), np.int32))
    order = np.lexsort((listens["order"], clock.start, listens["user"]))
    clock, user = clock.take(order), listens["user"][order]
    between = np.where(user[1:] == user[:-1], clock.start[1:] - clock.end[:-1], LONGEST_MS)
    between = np.clip(between, 0, LONGEST_MS)
    after, before = np.append(between, LONGEST_MS), np.insert(between, 0, LONGEST_MS)
    gaps = np.empty(len(order), np.int64)
    gaps[order] = np.where(listens["time_is_start"][order], after, before)
    listens["bound"] = np.where(listens["inferred"], gaps, UNKNOWN)
    return listens


def _oldest_first(listens: Listens) -> Listens:
    """A copy in which rows of tables that list the newest play first are numbered in reverse.

    Their numbers order plays of one minute, or one second.
    """
    listens = listens.take(np.argsort(listens["order"]))
    same = (listens["table"][1:] == listens["table"][:-1]) & (
        listens["user"][1:] == listens["user"][:-1]
    )
    later = np.where(same, np.sign(np.diff(listens["time"])), 0)
    rises = np.bincount(listens["table"][1:], weights=later)
    for table in np.flatnonzero(rises < 0):
        rows = np.flatnonzero((listens["table"] == table) & listens["inferred"])
        order = listens["order"].copy()
        order[rows] = order[rows][::-1]
        listens["order"] = order
    return listens


def with_inferred_times(
    listens: Listens, lengths: npt.NDArray[np.int32], known: npt.NDArray[np.bool_]
) -> Listens:
    """Plays with the time heard where it is inferred: the bound, or the track's length.

    It is the length where it is the bound, as exactly as the times are known; a length that is but
    a guess may be longer, so that another play not much later followed at once.

    Args:
        listens: The plays, with their bounds.
        lengths: Lengths of their tracks in milliseconds ``(plays,)``.
        known: Where these are more than a guess ``(plays,)``.
    """
    inferred = listens["inferred"]
    if not inferred.any():
        return listens
    listens = listens.copy()
    near = ~known & (listens["bound"] <= MAY_BE_LONGER * lengths)
    lengths = np.where(near, np.maximum(lengths, listens["bound"]), lengths)
    whole = listens["bound"].astype(np.int64) + listens["resolution"] >= lengths
    heard = np.where(whole, lengths, listens["bound"])
    listens["ms"] = np.where(inferred, heard, listens["ms"])
    return listens


class GapLengths:
    """Lengths of tracks by the time after which other plays followed, where that repeats."""

    def __init__(self, num_tracks: int) -> None:
        """Begin with nothing known."""
        self._samples = np.zeros((num_tracks, LENGTH_SAMPLES), np.int32)
        self._count = np.zeros(num_tracks, np.int64)

    def add(self, listens: Listens) -> None:
        """Add plays with their bounds."""
        low, high = LIKELY_LENGTHS_MS
        likely = listens["inferred"] & (listens["bound"] >= low) & (listens["bound"] <= high)
        if not likely.any():
            return
        track, gap = listens["track"][likely], listens["bound"][likely]
        place = self._count[track] + place_in_group(track)
        room = place < LENGTH_SAMPLES
        self._samples[track[room], place[room]] = gap[room]
        np.add.at(self._count, track, 1)

    def improve(
        self, estimate: tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
        """`levels.LengthEstimate.finish`, with lengths found here in place of typical ones."""
        length, evidence = estimate
        if not self._count.any():
            return estimate
        found = np.zeros(len(length), np.int32)
        for first in range(0, len(length), TRACKS_AT_A_TIME):
            some = slice(first, first + TRACKS_AT_A_TIME)
            found[some] = _usual_gap(self._samples[some])
        if not found.any():
            return estimate
        found[found < SHORTEST_AGREEING * np.median(found[found > 0])] = 0
        better = (evidence == Evidence.TYPICAL_LENGTH) & (found > 0)
        of_plays = np.where(better, Evidence.AGREEING_PLAYS, evidence).astype(np.int8)
        return np.where(better, found, length).astype(np.int32), of_plays


def _usual_gap(samples: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The gap that most others are alike, the longest of several, 0 where none repeats.

    ``samples`` are ``(tracks, LENGTH_SAMPLES)``, 0 where there is none.
    """
    ordered = np.sort(samples, axis=1)
    alike = np.abs(ordered[:, :, None] - ordered[:, None, :]) <= SAME_LENGTH_MS
    votes = np.where(ordered > 0, alike.sum(axis=2), 0)
    best = LENGTH_SAMPLES - 1 - np.argmax(votes[:, ::-1], axis=1)
    rows = np.arange(len(samples))
    return np.where(votes[rows, best] > 1, ordered[rows, best], 0).astype(np.int32)
