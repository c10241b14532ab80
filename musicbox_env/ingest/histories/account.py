"""What became of the rows of listening histories, in the words of the account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.levels import MEANING, Evidence
from musicbox_env.ingest.histories.sessionize import FATES
from musicbox_env.ingest.histories.timing.players import OVERLAPS
from musicbox_env.schema import UNKNOWN

NO_TIME: Final = "left out: times without a time of day, or to the hour"
DUPLICATES: Final = "duplicate plays"
COPIES: Final = "copies of a play, told again at another time"
PIECES: Final = "rows that go on with a play after a pause"
UNCLEAR: Final = "rows that may go on with a play"
OPINIONS_READ: Final = "likes and dislikes"
OPINIONS_AGAIN: Final = "duplicate likes and dislikes"
OPINIONS_COUNTED: Final = "likes and dislikes given within a session"
PLAYS: Final = "plays of music"
STARTS: Final = "plays whose times are read as their starts"
FLIPPED: Final = "overlaps if times were the other end"
NO_CLOCK: Final = "Hours of the day are unknown: times count from a moment that is not told."
INFERRED: Final = "inferred_share"
"""Key, among the levels of the account, of the share that is inferred."""
SUSPICIOUS_OVERLAP: Final = 0.05
SECONDS_BELOW: Final = 10_000
"""Where all times heard, or all lengths, are below this many milliseconds, they may be seconds."""


def rows_account(counts: Counter[str]) -> dict[str, int]:
    """What became of the rows that were read, those left out or rejected aside."""
    always = (DUPLICATES, COPIES, PIECES, *FATES)
    seldom = (name for name in (OPINIONS_AGAIN, OPINIONS_READ, NO_TIME) if counts[name])
    return {name: counts[name] for name in (*always, *seldom)}


def level_account(evidence: npt.NDArray[np.int64]) -> dict[str, Any]:
    """What levels rest on, given the number of plays of each `Evidence`."""
    total = max(int(evidence.sum()), 1)
    of = {e: (int(evidence[e]), round(int(evidence[e]) / total, 4)) for e in Evidence}
    told = {MEANING[e]: {"plays": n, "share": share} for e, (n, share) in of.items() if n}
    plays, share = of[Evidence.INFERRED]
    return {**({INFERRED: share} if plays else {}), "evidence": told}


def history_notes(
    counts: Counter[str], longest: Mapping[str, int], *, hours_known: bool
) -> list[str]:
    """What a user should know of how histories were read, by what was counted.

    Args:
        counts: Rows and plays, by the names above and by `players.OVERLAPS`.
        longest: Largest number of milliseconds of a time heard (``played``) and of a length
            (``duration``).
        hours_known: Whether the listener's timezone was named.
    """
    notes = []
    overlaps, on_another_device = counts[OVERLAPS[1]], counts[OVERLAPS[2]]
    if overlaps > SUSPICIOUS_OVERLAP * counts[PLAYS] > 3 * counts[FLIPPED]:
        read, other = "start", "end"
        if 2 * counts[STARTS] < counts[PLAYS]:
            read, other = other, read
        notes.append(
            f"Many plays overlap with each time read as the {read} of its play, and few would if "
            f"it were the {other}: try time_is={other} in the mapping. Without --map, ingest "
            "prints a mapping of the columns to begin with."
        )
    elif overlaps > on_another_device:
        notes.append(
            f"{overlaps - on_another_device:,} plays begin before another ends, though nothing "
            "tells of two devices: they count as heard on a second player. Times that were noted "
            "late look the same."
        )
    if counts[UNCLEAR]:
        notes.append(
            f"{counts[UNCLEAR]:,} rows may be the second piece of a play around a pause, or "
            "the same song begun again: they count as plays. A mapped reason_end tells."
        )
    notes += [
        f"No play's {what}_ms is above {most:,}: if its column holds seconds, map it as {what}_s."
        for what, most in longest.items()
        if UNKNOWN < most < SECONDS_BELOW
    ]
    if counts[OPINIONS_READ]:
        notes.append(
            f"{counts[OPINIONS_COUNTED]:,} of {counts[OPINIONS_READ]:,} likes and dislikes "
            "were given during a session or within its longest pause; the catalog counts those "
            "of training sessions."
        )
    if not hours_known and counts[PLAYS]:
        notes.append("Hours of the day are unknown: times are in UTC, and no --timezone was named.")
    return notes
