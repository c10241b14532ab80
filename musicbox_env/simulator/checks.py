"""Checks of what callers hand to the simulator, beside actions: rooms, songs, stored states."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import NUM_LEVELS, UNHEARD, UNKNOWN, brief

Arrays = Mapping[str, npt.NDArray]
MOST_ROOM: Final = 10_000_000
"""Of sessions, and of the songs of one: room is made for all of them."""
BYTES_A_SONG: Final = 5
"""Of memory that a session's history takes at least."""


def require_room(num_envs: Any, capacity: Any, least: int) -> None:
    """Refuse numbers of sessions and of songs that the simulator cannot make room for.

    Raises:
        ValueError: ``num_envs`` is no whole number from 1, or ``capacity`` none from ``least``, or
            the machine has not the memory.
    """
    require_whole("capacity", capacity, least, MOST_ROOM)
    require_memory(num_envs, BYTES_A_SONG * capacity)


def require_memory(num_envs: Any, bytes_each: int) -> None:
    """Refuse a number of sessions that is none, or that the machine has no memory for.

    How much there is some systems do not say; then nothing is compared.

    Raises:
        ValueError: With what came, or how much they take and how much there is.
    """
    require_whole("num_envs", num_envs, 1, MOST_ROOM)
    if not hasattr(os, "sysconf"):
        return
    needed = num_envs * bytes_each
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"num_envs is {num_envs:,}: that takes {needed / 1e9:,.0f} GB of memory, at "
            f"{bytes_each:,} bytes a session, and this machine has {there / 1e9:,.0f} GB."
        )


def require_whole(name: str, value: Any, low: int, high: int) -> None:
    """Refuse what is no whole number from ``low`` to ``high``.

    Raises:
        ValueError: With what came.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise ValueError(
            f"{name} is {brief(value)}; it must be a whole number of {low} or more, and at most "
            f"{high:,}."
        )


def require_songs(
    tracks: npt.ArrayLike, levels: npt.ArrayLike, context: npt.ArrayLike, num_tracks: int, size: int
) -> None:
    """Refuse a history that no session can have.

    Args:
        tracks: Songs heard, in order ``(t,)``.
        levels: How far each was heard ``(t,)``.
        context: Context features ``(size,)``.
        num_tracks: Size of the catalog.
        size: See ``context``.

    Raises:
        ValueError: Shapes, tracks or levels that cannot be.
    """
    songs, heard, features = np.asarray(tracks), np.asarray(levels), np.asarray(context)
    if songs.ndim != 1 or heard.shape != songs.shape or features.shape != (size,):
        raise ValueError(
            f"tracks, levels and context have shapes {songs.shape}, {heard.shape} and "
            f"{features.shape}; expected (songs,), (songs,) and ({size},)."
        )
    require_rows("tracks", songs, num_tracks)
    require_rows("levels", heard, NUM_LEVELS)
    if features.dtype.kind not in "fiu" or not np.isfinite(features).all():
        raise ValueError("context holds what is no finite number; see context_features.")


def require_rows(name: str, rows: npt.NDArray, number: int, lowest: int = 0) -> None:
    """Refuse what are no indices from ``lowest`` to ``number - 1``.

    Raises:
        ValueError: With the smallest and largest that came.
    """
    if rows.size and rows.dtype.kind not in "iu":
        raise ValueError(f"{name} hold {rows.dtype} values; expected integers.")
    if rows.size and (rows.min() < lowest or rows.max() >= number):
        raise ValueError(
            f"{name} are from {rows.min()} to {rows.max()}; expected {lowest} to {number - 1}."
        )


def require_state(given: Arrays, own: Arrays, num_sessions: int, num_tracks: int) -> None:
    """Refuse arrays that are no state of a simulator, such as those of a damaged checkpoint.

    Args:
        given: What shall be restored.
        own: Arrays of the simulator, by the same names.
        num_sessions: Sessions of the log.
        num_tracks: Size of the catalog.

    Raises:
        ValueError: An array is missing, or has another type, shape or values out of range.
    """
    for name, array in own.items():
        found = given.get(name)
        if found is None or found.shape != array.shape or found.dtype != array.dtype:
            came = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise ValueError(
                f"The state's {name} is {came}; expected {array.dtype} of shape {array.shape}, "
                "from an environment with the same data and options."
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ValueError(f"The state's {name} holds NaN or infinity.")
    capacity = own["history.tracks"].shape[1]
    limits = {
        "history.session": (UNKNOWN, num_sessions),
        "history.tracks": (UNKNOWN, num_tracks),
        "logged_tracks": (UNKNOWN, num_tracks),
        **dict.fromkeys(("history.count", "history.shown", "remaining"), (0, capacity + 1)),
        **dict.fromkeys(("history.levels", "listener.levels"), (UNHEARD, NUM_LEVELS)),
    }
    for name, (low, number) in limits.items():
        if name in own:
            require_rows(f"The state's {name}", given[name], number, low)
    total = given["history.count"] + given["remaining"]
    require_rows("The state's songs, heard and remaining,", total, capacity + 1)
