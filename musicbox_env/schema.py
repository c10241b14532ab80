"""What a log of listening sessions holds: columns, vocabularies, listen levels, and what leaks.

The schema is that of the Music Streaming Sessions Dataset (Brost, Mehrotra & Jehan, WWW 2019,
arXiv:1901.09851). This module alone defines how labels become levels, and which columns are known
only once a play has started or ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAX_SESSION_LENGTH: Final = 20
MIN_SESSION_LENGTH: Final = 10


class Level(IntEnum):
    """How far a play was heard. ``skip_k`` of the data set is ``level < k``."""

    UNHEARD = -1
    BRIEF = 0
    SHORT = 1
    MOST = 2
    CUT = 3
    FULL = 4


NUM_LEVELS: Final = 5
SKIP_THRESHOLD: Final = int(Level.MOST)
"""A play below this level is a skip: ``skip_2``, the ground truth of the data set."""


def is_skip(levels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell which listen levels are skips (``skip_2``); levels never heard are not.

    >>> is_skip([-1, 0, 1, 2, 3, 4]).tolist()
    [False, True, True, False, False, False]
    """
    levels = np.asarray(levels)
    if levels.dtype == np.int8:
        return levels.view(np.uint8) < SKIP_THRESHOLD  # -1 is 255 there; a third of the time
    return (levels >= 0) & (levels < SKIP_THRESHOLD)


def num_shown(length: Any) -> Any:
    """Plays that begin an episode, ``L - ceil(L / 2)`` of a session of L: its first half.

    The other ``ceil(L / 2)`` are recommended. For whole numbers and arrays of them; compiled
    kernels may call it too.

    >>> [num_shown(length) for length in (1, 2, 5, 20)]
    [0, 1, 2, 10]
    """
    return length // 2


def levels_from_labels(
    skip_1: npt.NDArray[np.bool_],
    skip_2: npt.NDArray[np.bool_],
    skip_3: npt.NDArray[np.bool_],
    not_skipped: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Fold the four nested labels into one listen level.

    Args:
        skip_1: Played only very briefly, ``(plays,)``.
        skip_2: Played only briefly, ``(plays,)``.
        skip_3: Not played to the end, ``(plays,)``.
        not_skipped: Played to the end, ``(plays,)``.

    Returns:
        The levels ``(plays,)`` and a mask ``(plays,)`` that is False where the labels contradict
        each other: a ``skip_k`` without the weaker ``skip_k+1``, or one beside ``not_skipped``.
    """
    levels = np.full(skip_1.shape, int(Level.CUT), dtype=np.int8)
    levels[not_skipped] = Level.FULL
    levels[skip_3] = Level.MOST
    levels[skip_2] = Level.SHORT
    levels[skip_1] = Level.BRIEF
    consistent = (~skip_1 | skip_2) & (~skip_2 | skip_3) & ~(skip_3 & not_skipped)
    return levels, consistent


def labels_from_levels(levels: npt.NDArray[np.integer[Any]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Unfold listen levels into the four labels of the data set; inverse of the above."""
    return {
        "skip_1": levels == Level.BRIEF,
        "skip_2": levels <= Level.SHORT,
        "skip_3": levels <= Level.MOST,
        "not_skipped": levels == Level.FULL,
    }


CONTEXT_TYPES: Final = (
    "user_collection",
    "catalog",
    "editorial_playlist",
    "radio",
    "personalized_playlist",
    "charts",
)
REASONS_START: Final = (
    "fwdbtn",
    "trackdone",
    "clickrow",
    "backbtn",
    "appload",
    "playbtn",
    "remote",
    "trackerror",
    "endplay",
    "clickside",
    "popup",
    "uriopen",
)
REASONS_END: Final = (
    "fwdbtn",
    "trackdone",
    "endplay",
    "backbtn",
    "logout",
    "remote",
    "appload",
    "clickrow",
    "clickside",
    "popup",
    "uriopen",
    "trackerror",
)

PAUSE_NONE: Final = 1
PAUSE_SHORT: Final = 2
PAUSE_LONG: Final = 4

UNKNOWN: Final = -1
"""In every stored column: the log has no value."""
UNHEARD: Final = int(Level.UNHEARD)
"""The level as a plain number: numpy takes a detour around members of enumerations."""


@dataclass(frozen=True)
class PlayColumn:
    """One stored column of plays.

    Attributes:
        dtype: Type on disk. ``UNKNOWN`` (-1) stands for a value that the log does not give.
        known: When its value is known: ``"before"`` the play starts, at its ``"start"``, or only
            ``"after"`` it. Anything but ``"before"`` leaks if a listener or an observation reads
            it for the play in question; of past plays every column may be read.
        vocabulary: Names of the codes of a categorical column.
        meaning: One line for people.
        lowest: Smallest value that can be stored.
        highest: Largest one; None is that of the type, or of the vocabulary.
    """

    dtype: str
    known: str
    meaning: str
    vocabulary: tuple[str, ...] = ()
    lowest: int = -1
    highest: int | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that can be stored."""
        if self.highest is not None:
            return self.lowest, self.highest
        if self.vocabulary:
            return self.lowest, len(self.vocabulary) - 1
        return self.lowest, int(np.iinfo(self.dtype).max)


PLAY_COLUMNS: Final[Mapping[str, PlayColumn]] = {
    "track": PlayColumn("int32", "before", "row of the catalog", lowest=0),
    "level": PlayColumn(
        "int8", "after", "listen level, 0 brief to 4 full", lowest=0, highest=int(Level.FULL)
    ),
    "position": PlayColumn("int8", "before", "place in the session as logged, from 1"),
    "hour": PlayColumn("int8", "before", "hour of the day, 0 to 23", highest=23),
    "premium": PlayColumn("int8", "before", "1 where the listener pays", highest=1),
    "date": PlayColumn(
        "int32", "before", "days since 1970-01-01 as logged (some are wrong)", lowest=-(2**31)
    ),
    "context_type": PlayColumn("int8", "start", "where the song was played from", CONTEXT_TYPES),
    "shuffle": PlayColumn("int8", "start", "1 where shuffle is on", highest=1),
    "context_switch": PlayColumn(
        "int8", "start", "1 where the context changed before the play", highest=1
    ),
    "pause": PlayColumn(
        "int8", "start", "pauses before the play, bits: 1 none, 2 short, 4 long", highest=7
    ),
    "reason_start": PlayColumn("int8", "start", "what started the play", REASONS_START),
    "reason_end": PlayColumn("int8", "after", "what ended the play", REASONS_END),
    "seek_forward": PlayColumn("int16", "after", "jumps forward within the play"),
    "seek_back": PlayColumn("int16", "after", "jumps back within the play"),
}

SOURCES: Final = ("organic", "recommended")
EXTRA_PLAY_COLUMNS: Final[Mapping[str, PlayColumn]] = {
    "source": PlayColumn("int8", "start", "who chose the song, listener or recommender", SOURCES),
}
"""Stored only where the log gives a value for some play."""
OPINIONS: Final = ("like", "dislike", "unlike", "undislike")
"""What listeners say of a song; the last two take an earlier one back."""
OPINION_COUNTS: Final = tuple(f"{opinion}s_{fold}" for opinion in OPINIONS for fold in ("a", "b"))
"""Columns of the catalog: how often it was said in the training sessions of each fold."""
STORED_PLAY_COLUMNS: Final = {**PLAY_COLUMNS, **EXTRA_PLAY_COLUMNS}

REQUIRED_LOG_COLUMNS: Final = (
    "session_id",
    "session_position",
    "session_length",
    "track_id_clean",
    "skip_1",
    "skip_2",
    "skip_3",
    "not_skipped",
)
OPTIONAL_LOG_COLUMNS: Final = (
    "context_switch",
    "no_pause_before_play",
    "short_pause_before_play",
    "long_pause_before_play",
    "hist_user_behavior_n_seekfwd",
    "hist_user_behavior_n_seekback",
    "hist_user_behavior_is_shuffle",
    "hour_of_day",
    "date",
    "premium",
    "context_type",
    "hist_user_behavior_reason_start",
    "hist_user_behavior_reason_end",
)
LOG_COLUMNS: Final = REQUIRED_LOG_COLUMNS + OPTIONAL_LOG_COLUMNS
"""The 21 columns of a published session file, in order."""

ACOUSTIC_VECTOR: Final = tuple(f"acoustic_vector_{i}" for i in range(8))
TRACK_FEATURES: Final = (
    "duration",
    "release_year",
    "us_popularity_estimate",
    "acousticness",
    "beat_strength",
    "bounciness",
    "danceability",
    "dyn_range_mean",
    "energy",
    "flatness",
    "instrumentalness",
    "key",
    "liveness",
    "loudness",
    "mechanism",
    "mode",
    "organism",
    "speechiness",
    "tempo",
    "time_signature",
    "valence",
    *ACOUSTIC_VECTOR,
)
"""Feature columns of the published track files, in order; ``mode`` is 1 for major, 0 for minor."""

DIVERSITY_FEATURES: Final = (
    "acousticness",
    "beat_strength",
    "bounciness",
    "danceability",
    "energy",
    "liveness",
    "speechiness",
    "valence",
)
"""The eight features over which the first MusicBox measured diversity."""

SPLITS: Final = ("train_a", "train_b", "validation", "test")
"""Stored split codes are positions in this tuple; ``"train"`` means both of its folds."""


def split_codes(split: str) -> tuple[int, ...]:
    """Translate a split's name into stored codes.

    >>> split_codes("train"), split_codes("test")
    ((0, 1), (3,))
    """
    names = {"train": (0, 1), **{name: (code,) for code, name in enumerate(SPLITS)}}
    require_known("split", split, names)
    return names[split]


def brief(value: object) -> str:
    """A value as a message shows it, whatever it is.

    >>> brief("slow"), brief([0] * 1000)[:12], brief(10**9999)
    ("'slow'", '[0, 0, 0, 0,', 'a whole number of too many digits')
    """
    try:
        return f"{' '.join(repr(value).split()):.80}"
    except ValueError:  # Python writes no such number
        return "a whole number of too many digits"


def suggest(name: str, known: Iterable[str]) -> str:
    """Say what is possible, nearest first: the tail of every message about an unknown name."""
    known = list(known)
    small = {k.lower(): k for k in known}
    near = get_close_matches(str(name).strip("'").lower(), small, n=1, cutoff=0.5)
    hint = f"did you mean {small[near[0]]!r}? " if near else ""
    return f"{hint}Known: {', '.join(repr(k) for k in known)}."


def require_known(
    what: str,
    name: str,
    known: Iterable[str],
    error: Callable[[str], Exception] = ValueError,
) -> None:
    """Refuse an unknown name with a suggestion.

    Raises:
        ValueError: ``name`` is not in ``known``.
    """
    known = list(known)
    if not isinstance(name, str) or name not in known:
        raise error(f"Unknown {what} {brief(name)}; {suggest(brief(name), known)}")
