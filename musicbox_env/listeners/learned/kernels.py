"""From what the network says to levels, and whole slates and shown halves at once.

A song takes a dozen kernels, each over many sessions. Called from Python, one after the other, they
would spend as long on handing arrays over as on songs; `hear_slates` and `read_shown` call the same
ones from compiled code. `hear_slates` knows the listener as it mostly is: nothing is added to the
network's skip logit but its calibration.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba.extending import register_jitable

from musicbox_env import kernels
from musicbox_env.kernels import compiled
from musicbox_env.listeners.learned.features import (
    Columns,
    add_levels,
    add_songs,
    inputs_of_behaviour,
    inputs_of_contexts,
    inputs_of_plays,
    inputs_of_states,
    inputs_of_tracks,
    is_repeat,
)
from musicbox_env.listeners.learned.network import price_tracks, remember_plays
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD, UNHEARD

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.integer]
Table = tuple[Doubles, Doubles, Array]
Heard = tuple[npt.NDArray[np.int32], npt.NDArray[np.int8], Ints]
StateArrays = tuple[Array, Array, tuple[Array, Array, Array], tuple[Array, Doubles]]
OfPlay = tuple[Array, Array, Array]
Head = tuple[Array, Array, Array, Array, int]


@register_jitable
def recommended_logit(usual: Any, logit: Any, believed: Any, scale: float, shift: float) -> Any:
    """Calibrated skip logit of recommended songs: of many in numpy, of one in a kernel.

    Args:
        usual: Network's logit of a usual track.
        logit: That of the song.
        believed: Part of the song's effect that is believed.
        scale: See `Calibration.simulated`.
        shift: Likewise.
    """
    return scale * (usual + believed * (logit - usual)) + shift


def level_chances(skip: Floats, outputs: Floats) -> Doubles:
    """Probabilities of the levels ``(..., 5)``.

    Args:
        skip: Probability of a skip.
        outputs: Of the network ``(..., 5)``: after that of a skip, which is not read, the logit of
            a skip's being brief, and those of most, cut and full among plays that are kept.
    """
    return _share_out(skip.ravel(), outputs.reshape(-1, NUM_LEVELS)).reshape(outputs.shape)


@compiled
def _share_out(skip: Floats, outputs: Floats) -> Doubles:
    """`level_chances` of ``(n,)`` songs."""
    chances = np.empty((len(skip), NUM_LEVELS))
    for i in range(len(skip)):
        brief = 1.0 / (1.0 + np.exp(-np.float64(outputs[i, 1])))
        chances[i, 0] = skip[i] * brief
        chances[i, 1] = skip[i] * (1.0 - brief)
        largest, total = outputs[i, SKIP_THRESHOLD], 0.0
        for level in range(SKIP_THRESHOLD + 1, NUM_LEVELS):
            largest = max(largest, outputs[i, level])
        for level in range(SKIP_THRESHOLD, NUM_LEVELS):
            chances[i, level] = np.exp(np.float64(outputs[i, level] - largest))
            total += chances[i, level]
        for level in range(SKIP_THRESHOLD, NUM_LEVELS):
            chances[i, level] *= (1.0 - skip[i]) / total
    return chances


@compiled
def hear_slates(
    rows: Rows,
    slates: Ints,
    uniforms: Doubles,
    table: Table,
    history: Heard,
    state: StateArrays,
    of_play: OfPlay,
    head: Head,
    usual: Array,
    calibration: tuple[tuple[float, float], tuple[float, float]],
) -> npt.NDArray[np.int8]:
    """Hear slates; see `LearnedListener.hear`.

    Args:
        rows: Sessions that hear ``(m,)``.
        slates: Tracks in the order heard ``(m, k)``, -1 for none.
        uniforms: A random number in [0, 1) for each ``(m, k)``.
        table: `TrackTable.columns`.
        history: Tracks, levels and count of all sessions; changed.
        state: `LearnedState.arrays`; changed.
        of_play: `Network.of_play`.
        head: `Network.head`.
        usual: Inputs of a usual track.
        calibration: `Calibration.song` and ``simulated``.

    Returns:
        Listen levels ``(m, k)``, -1 where nothing was heard.
    """
    tracks, levels, count = history
    memory, context, songs, listened = state
    heard = np.full(slates.shape, UNHEARD, np.int8)
    for place in range(slates.shape[1]):
        at, who, song, drawn = _songs_at(place, rows, slates, uniforms)
        before = count[who]
        states = inputs_of_states(who, levels, before, *listened, context)
        inputs = inputs_of_tracks(who, song, *table, *songs, tracks, levels, before)
        prices, of_usual = price_tracks(who, memory, states, inputs, usual, *head)
        level = kernels.sample_levels(_chances(prices, of_usual, inputs, *calibration), drawn)
        nobody_knows = np.zeros((len(who), 0), np.float32)
        take_in(who, song, level, before, inputs, nobody_knows, table, state, of_play)
        kernels.record_slates(who, song, level.reshape(-1, 1), tracks, levels, count)
        for i in range(len(who)):
            heard[at[i], place] = level[i]
    return heard


@compiled
def read_shown(
    rows: Rows,
    shown: Ints,
    starts: Ints,
    columns: tuple[Columns, Columns],
    table: Table,
    logged: tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]],
    state: StateArrays,
    of_play: OfPlay,
) -> None:
    """Read the plays that sessions begin with, and the behaviour around them.

    Args:
        rows: Sessions that begin ``(m,)``.
        shown: How many plays each is read ``(m,)``.
        starts: The first of each in the columns ``(m,)``.
        columns: `features.log_columns`.
        table: `TrackTable.columns`.
        logged: Tracks and levels of these plays, of all sessions ``(n, w)``.
        state: `LearnedState.arrays`, nothing heard in these rows; changed.
        of_play: `Network.of_play`.
    """
    of_context, of_behaviour = columns
    _, context, songs, _ = state
    tracks, levels = logged
    for place in range(max(shown) if len(shown) else 0):
        at = np.flatnonzero(place < shown)
        who, before, plays = rows[at], np.full(len(at), place), starts[at] + place
        song, level = np.empty((len(at), 1), np.int64), np.empty(len(at), np.int8)
        for i in range(len(at)):
            song[i, 0], level[i] = tracks[who[i], place], levels[who[i], place]
        inputs = inputs_of_tracks(who, song, *table, *songs, tracks, levels, before)
        context[who] = inputs_of_contexts(plays, *of_context)
        behaviour = inputs_of_behaviour(plays, *of_behaviour)
        take_in(who, song, level, before, inputs, behaviour, table, state, of_play)


@compiled
def take_in(
    rows: Rows,
    songs: Ints,
    levels: npt.NDArray[np.int8],
    before: Ints,
    of_track: Array,
    behaviour: Array,
    table: Table,
    state: StateArrays,
    of_play: OfPlay,
) -> None:
    """Remember a play of each of the sessions ``rows`` ``(m,)``.

    Args:
        rows: Sessions.
        songs: Their tracks ``(m, 1)``.
        levels: How far they were heard ``(m,)``.
        before: Songs heard before ``(m,)``.
        of_track: Inputs of the tracks ``(m, 1, TRACK_INPUTS)``.
        behaviour: See `features.play_inputs`.
        table: `TrackTable.columns`.
        state: `LearnedState.arrays`, with the context of the play; changed.
        of_play: `Network.of_play`.
    """
    memory, context, heard, listened = state
    inputs = of_track.reshape(len(rows), of_track.shape[2])
    play = inputs_of_plays(levels, before, inputs, context[rows], behaviour)
    remember_plays(rows, play, *of_play, memory)
    add_songs(rows, songs.reshape(len(rows)), levels, table[2], *heard)
    add_levels(rows, levels, *listened)


@compiled
def _songs_at(
    place: int, rows: Rows, slates: Ints, uniforms: Doubles
) -> tuple[Ints, Ints, Ints, Doubles]:
    """Which slates have a song at a place; their sessions, songs ``(s, 1)``, random numbers."""
    at, found = np.empty(len(rows), np.int64), 0
    for i in range(len(rows)):
        at[found] = i
        found += slates[i, place] >= 0
    who, song, drawn = np.empty(found, np.int64), np.empty((found, 1), np.int64), np.empty(found)
    for s in range(found):
        i = at[s]
        who[s], song[s, 0], drawn[s] = rows[i], slates[i, place], uniforms[i, place]
    return at, who, song, drawn


@compiled
def _chances(
    prices: Array,
    of_usual: Array,
    inputs: Array,
    song: tuple[float, float],
    simulated: tuple[float, float],
) -> Doubles:
    """Level probabilities ``(m, 5)`` of a song for each session; see `Network.price`."""
    members, scale, shift = np.float32(len(prices)), *simulated
    outputs, skip = np.zeros((len(inputs), NUM_LEVELS), np.float32), np.empty(len(inputs))
    for i in range(len(inputs)):
        usual = np.float32(0)
        for member in range(len(prices)):
            usual += of_usual[member, i]
            for output in range(NUM_LEVELS):
                outputs[i, output] += prices[member, i, 0, output]
        for output in range(NUM_LEVELS):
            outputs[i, output] /= members
        believed = song[1] if is_repeat(inputs[i, 0]) else song[0]
        logit = recommended_logit(usual / members, outputs[i, 0], believed, scale, shift)
        skip[i] = 1.0 / (1.0 + np.exp(-logit))
    return _share_out(skip, outputs)
