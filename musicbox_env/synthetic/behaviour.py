"""Columns of synthetic plays other than song and level: context, shuffle, reasons, pauses, hours.

Context type and shuffle are drawn before the levels, which they shift a little. All the rest is
drawn after them, from published shares given what it goes with: what ended a play given its level
and whether an earlier song follows, what started a play given what ended the one before, pauses
given what started the play.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import (
    CONTEXT_TYPES,
    NUM_LEVELS,
    PAUSE_LONG,
    PAUSE_NONE,
    PAUSE_SHORT,
    REASONS_END,
    REASONS_START,
    Level,
)
from musicbox_env.synthetic import published

Array = npt.NDArray[np.float64]

RESTLESS_SESSIONS = 0.38
"""Share of sessions that change their context type at all, nearly always more than once."""
RESTLESS_REDRAW = 0.10
"""In them, chance before each play that the context type is drawn anew (maybe the same again)."""
SWITCH_WITHIN_TYPE = 0.018
"""Chance of a context switch that leaves the context's type, such as to another playlist."""

FIRST_DAY = int(np.datetime64("2018-07-15").astype(np.int64))
DAYS = 66
MINUTES_HEARD = (0.2, 0.8, 2.0, 2.8, 3.6)
"""Time that passes with a play of each level, so that hours move on within a session."""
SEEKS_MEAN_EXTRA = 0.4
"""Mean number of seeks beyond the first, in plays that have any."""

NEW_SONG, EARLIER_SONG, OTHER_CONTEXT, NOTHING = range(4)
"""What follows a play."""


def draw_contexts(
    n: int, width: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Context type and shuffle of each play, both ``(n, width)``.

    Redrawing from the published shares leaves these shares as they are at every position.
    """
    share = published.figures()["context_share"]
    cumulative = _cumulative(np.array([[share[name] for name in CONTEXT_TYPES]]))
    fresh = _draw(cumulative, np.zeros((n, width), dtype=np.int64), rng)
    restless = rng.random((n, 1)) < RESTLESS_SESSIONS
    redraw = restless & (rng.random((n, width)) < RESTLESS_REDRAW)
    redraw[:, 0] = True
    drawn_at = np.maximum.accumulate(np.where(redraw, np.arange(width), 0), axis=1)
    context = np.take_along_axis(fresh, drawn_at, axis=1)
    shuffle_share = published.figures()["shuffle_by_context"]
    chance = np.array([shuffle_share[name] for name in CONTEXT_TYPES])
    shuffle = rng.random((n, 1)) < chance[context]
    return context.astype(np.int8), shuffle.astype(np.int8)


def draw_behaviour(
    levels: npt.NDArray[np.int8],
    lengths: npt.NDArray[np.int64],
    is_repeat: npt.NDArray[np.bool_],
    context: npt.NDArray[np.int8],
    rng: np.random.Generator,
) -> dict[str, npt.NDArray]:
    """All columns that remain.

    Args:
        levels: Listen levels ``(n, width)``.
        lengths: Plays of each session ``(n,)``.
        is_repeat: Whether the session held the song before, ``(n, width)``.
        context: Context type codes ``(n, width)``.
        rng: Source of randomness.

    Returns:
        Columns of `schema.PLAY_COLUMNS`, each ``(n, width)``.
    """
    n, width = levels.shape
    switch = rng.random((n, width)) < SWITCH_WITHIN_TYPE
    switch[:, 1:] |= context[:, 1:] != context[:, :-1]
    switch[:, 0] = False

    follows = np.full((n, width), NEW_SONG)
    follows[:, :-1][is_repeat[:, 1:]] = EARLIER_SONG
    follows[:, :-1][switch[:, 1:]] = OTHER_CONTEXT
    follows[np.arange(width) == lengths[:, None] - 1] = NOTHING
    reason_end = _draw(_reason_end_table(), levels * 4 + follows, rng)

    before = np.full((n, width), len(REASONS_END))
    before[:, 1:] = np.where(switch[:, 1:], len(REASONS_END) + 1, reason_end[:, :-1])
    reason_start = _draw(_reason_start_table(), before, rng)
    pause = np.array([PAUSE_NONE, PAUSE_LONG, PAUSE_SHORT | PAUSE_LONG])[
        _draw(_pause_table(), reason_start, rng)
    ]
    pause[:, 0] = 0

    hour, day = _draw_clock(levels, rng)
    forward, back = (
        _draw_seeks(np.asarray(published.figures()[f"seek_{way}_by_level"]), levels, rng)
        for way in ("forward", "back")
    )
    premium = rng.random((n, 1)) < published.figures()["premium_share"]
    return {
        "context_switch": switch,
        "reason_start": reason_start,
        "reason_end": reason_end,
        "pause": pause,
        "hour": hour,
        "date": FIRST_DAY + day,
        "premium": np.broadcast_to(premium, (n, width)),
        "seek_forward": forward,
        "seek_back": back,
    }


def _draw_clock(
    levels: npt.NDArray[np.int8], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hour of the day and day of the period at the start of each play, ``(n, width)``."""
    n = len(levels)
    cumulative = _cumulative(np.array([published.figures()["hour_share"]]))
    first = _draw(cumulative, np.zeros((n, 1), dtype=np.int64), rng)
    passed = np.cumsum(np.asarray(MINUTES_HEARD)[levels], axis=1)
    minutes = np.concatenate([np.zeros((n, 1)), passed[:, :-1]], axis=1)
    hours = (first + rng.random((n, 1)) + minutes / 60.0).astype(np.int64)
    day = rng.integers(DAYS, size=(n, 1))
    return hours % 24, day + hours // 24


def _draw_seeks(
    chance: Array, levels: npt.NDArray[np.int8], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Number of jumps in each play, of the shape of ``levels``."""
    seeks = np.zeros(levels.shape, dtype=np.int64)
    some = rng.random(levels.shape) < chance[levels]
    seeks[some] = rng.geometric(1.0 / (1.0 + SEEKS_MEAN_EXTRA), size=int(some.sum()))
    return seeks


def _draw(
    cumulative: Array, row: npt.NDArray[np.integer], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw a code from the given row of a table of cumulative chances, for each entry."""
    uniform = rng.random(row.shape)
    code = np.zeros(row.shape, dtype=np.int64)
    for column in cumulative.T[:-1]:
        code += uniform >= column[row]
    return code


def _cumulative(weights: Array) -> Array:
    """Cumulative chances along the rows of a table of weights."""
    return np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)


def _weights(shares: Mapping[str, float], names: tuple[str, ...]) -> Array:
    return np.array([shares.get(name, 0.0) for name in names])


@cache
def _reason_end_table() -> Array:
    """Chances of `REASONS_END`, a row for each level and each of the four things that follow.

    By Bayes' rule from how often each reason is followed by a repeat and by another context: going
    back to an earlier song is what the back button is for.
    """
    figures = published.figures()
    after = {
        EARLIER_SONG: (figures["repeat_share"], figures["repeat_after_reason_end"]),
        OTHER_CONTEXT: (figures["context_switch_share"], figures["switch_after_reason_end"]),
    }
    odds = {what: _weights(shares, REASONS_END) / mean for what, (mean, shares) in after.items()}
    # A song that is neither comes after the rest.
    neither = 1.0 - sum(mean * odds[what] for what, (mean, _) in after.items())
    rows = []
    for level in range(NUM_LEVELS):
        plain = _weights(figures["reason_end_by_level"][Level(level).name], REASONS_END)
        factor = {NEW_SONG: np.maximum(neither, 0.0), NOTHING: np.ones(len(plain)), **odds}
        rows += [plain * factor[what] for what in range(4)]
    return _cumulative(np.array(rows))


@cache
def _reason_start_table() -> Array:
    """Chances of `REASONS_START` after each of `REASONS_END`, at first, and in a new context."""
    figures = published.figures()
    plain = figures["reason_start_share"]
    after = figures["reason_start_after_end"]
    tables = [after.get(end, plain) for end in REASONS_END]
    tables += [figures["first_reason_start"], figures["reason_start_in_new_context"]]
    return _cumulative(np.array([_weights(table, REASONS_START) for table in tables]))


@cache
def _pause_table() -> Array:
    """Chances of no, long, short and long pause after each of `REASONS_START`."""
    after = published.figures()["pause_after_reason_start"]
    kinds = ("no", "long", "short_and_long")
    return _cumulative(
        np.array([_weights(after.get(r, after["clickrow"]), kinds) for r in REASONS_START])
    )
