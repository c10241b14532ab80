"""Compiled steps of the learned listener: probabilities of levels, whole slates, shown plays.

A song takes a dozen kernels, each over many sessions. Called from Python, one after the other, they
would spend as long on passing arrays as on songs; here compiled code calls them. Arguments that
recur, of m sessions in a batch of n:

- ``rows``: sessions ``(m,)``; ``before``: songs that each heard ``(m,)``
- ``history``: `History.arrays`
- ``state``: `LearnedState.model_arrays`
- ``model``: `TrackTable.arrays`, `Network.of_play`, `Network.head`, inputs of a usual track,
  `Calibration.song` and ``simulated``, and how many spreads are added to skip logits
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicbox_env import kernels
from musicbox_env.kernels import compiled
from musicbox_env.listeners.learned.features import (
    EFFECT,
    Columns,
    Doubles,
    Sums,
    Table,
    add_songs,
    behaviour_inputs,
    context_inputs,
    is_repeat,
    play_inputs,
    state_inputs,
    track_inputs,
)
from musicbox_env.listeners.learned.network import Head, OfPlay, head_outputs, update_memory
from musicbox_env.schema import NUM_LEVELS, SKIP_THRESHOLD, UNHEARD

Array = npt.NDArray[np.float32]
Levels = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.integer]
History = tuple[npt.NDArray[np.int32], Levels, Ints]
State = tuple[Array, Array, Sums]
Pair = tuple[float, float]
Model = tuple[Table, OfPlay, Head, Array, Pair, Pair, np.float32]


@compiled
def level_probabilities(
    rows: Rows, tracks: Ints, history: History, state: State, model: Model
) -> tuple[Doubles, Array]:
    """Level probabilities ``(m, c, 5)`` of candidates ``(m, c)``, and their inputs."""
    table, _, head, usual, song, (scale, shift), pessimism = model
    memory, context, heard = state
    heard_tracks, heard_levels, count = history
    before = count[rows]
    states = state_inputs(rows, before, heard_levels, heard, context)
    asked = rows, tracks, before, (heard_tracks, heard_levels)
    inputs = track_inputs(*asked, table, heard, len(usual))
    outputs, of_usual = head_outputs(rows, memory, states, inputs, usual, head)
    mean, base = _mean_of_members(outputs), _mean_of_members(of_usual)
    logits, skip = mean[:, :, 0].copy(), np.empty(tracks.shape)
    if pessimism:
        shifted = inputs.copy()
        for i in range(len(rows)):
            for c in range(tracks.shape[1]):
                shifted[i, c, EFFECT] += table[2][tracks[i, c]]
        other, _ = head_outputs(rows, memory, states, shifted, usual, head)
        logits += pessimism * _spread(outputs, other, logits)
    for i in range(len(rows)):
        for c in range(tracks.shape[1]):
            shrinkage = song[1] if is_repeat(inputs[i, c]) else song[0]
            logit = scale * (base[i] + shrinkage * (logits[i, c] - base[i])) + shift
            skip[i, c] = 1.0 / (1.0 + np.exp(-logit))
    return share_out(skip, mean), inputs


@compiled
def _spread(outputs: Array, shifted: Array, mean: Array) -> Array:
    """Standard deviation of what is not known of each candidate's skip logit ``(m, c)``.

    Members differ in seed alone and read the same track effects. So the uncertainty of an effect is
    added to their variance: the change of the logit when the effect moves by its posterior sd.

    Args:
        outputs: Of the members ``(M, m, c, 5)``.
        shifted: The same with the effect moved.
        mean: Mean skip logits of the members ``(m, c)``.
    """
    logits = outputs[:, :, :, 0]
    deviations, by_effect = logits - mean, _mean_of_members(shifted[:, :, :, 0] - logits)
    return np.sqrt(_mean_of_members(deviations * deviations) + by_effect * by_effect)


@compiled
def _mean_of_members(values: Array) -> Array:
    """Mean over the first axis; numba's own ``sum`` of an axis takes seconds to compile."""
    total = values[0].copy()
    for i in range(1, len(values)):
        total += values[i]
    return total / np.float32(len(values))


@compiled
def share_out(skip: Doubles, outputs: Array) -> Doubles:
    """Probabilities of the levels ``(m, c, 5)``.

    Args:
        skip: Probability of a skip ``(m, c)``.
        outputs: Of the network ``(m, c, 5)``: after that of a skip, which is not read, the logit of
            a skip's being brief, and those of most, cut and full among plays that are kept.
    """
    chances = np.empty(outputs.shape)
    for i in range(skip.shape[0]):
        for c in range(skip.shape[1]):
            of, into = outputs[i, c], chances[i, c]
            brief = 1.0 / (1.0 + np.exp(-np.float64(of[1])))
            into[0] = skip[i, c] * brief
            into[1] = skip[i, c] * (1.0 - brief)
            largest, total = of[SKIP_THRESHOLD], 0.0
            for level in range(SKIP_THRESHOLD + 1, NUM_LEVELS):
                largest = max(largest, of[level])
            for level in range(SKIP_THRESHOLD, NUM_LEVELS):
                into[level] = np.exp(np.float64(of[level] - largest))
                total += into[level]
            for level in range(SKIP_THRESHOLD, NUM_LEVELS):
                into[level] *= (1.0 - skip[i, c]) / total
    return chances


@compiled
def hear_slates(
    rows: Rows,
    slates: Ints,
    uniforms: Doubles,
    history: History,
    state: State,
    model: Model,
) -> Levels:
    """Play slates to sessions; see `Listener.simulate_response`. History and state change.

    - ``slates``: Tracks in the order heard ``(m, k)``, -1 for none.
    - ``uniforms``: A random number in [0, 1) for each ``(m, k)``.

    Returns:
        Listen levels ``(m, k)``, -1 where nothing was heard.
    """
    tracks, levels, count = history
    heard = np.full(slates.shape, UNHEARD, np.int8)
    for place in range(slates.shape[1]):
        at = np.flatnonzero(slates[:, place] >= 0)
        who, song, drawn = rows[at], slates[:, place][at].reshape(-1, 1), uniforms[:, place][at]
        before = count[who]
        chances, inputs = level_probabilities(who, song, history, state, model)
        level = kernels.sample_levels(chances[:, 0], drawn)
        unknown = np.zeros((len(who), 0), np.float32)
        add_plays(who, song, level, before, inputs, unknown, state, model)
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
    history: History,
    state: State,
    model: Model,
) -> None:
    """Read the plays that sessions begin with, and the behaviour around them, into ``state``.

    - ``shown``: How many plays of each are read ``(m,)``.
    - ``starts``: The first of each in the columns ``(m,)``.
    - ``columns``: `features.log_columns`.
    - ``state``: Nothing heard in these rows; changed.
    """
    of_context, of_behaviour = columns
    tracks, levels, _ = history
    for place in range(max(shown) if len(shown) else 0):
        at = np.flatnonzero(place < shown)
        who, before, plays = rows[at], np.full(len(at), place), starts[at] + place
        song = tracks[:, place][who].astype(np.int64).reshape(-1, 1)
        level = levels[:, place][who]
        asked = who, song, before, (tracks, levels)
        inputs = track_inputs(*asked, model[0], state[2], len(model[3]))
        state[1][who] = context_inputs(plays, of_context)
        behaviour = behaviour_inputs(plays, of_behaviour)
        add_plays(who, song, level, before, inputs, behaviour, state, model)


@compiled
def add_plays(
    rows: Rows,
    songs: Ints,
    levels: Levels,
    before: Ints,
    of_track: Array,
    behaviour: Array,
    state: State,
    model: Model,
) -> None:
    """Add a play of each of the sessions ``rows`` to ``state``, which holds its context already.

    - ``songs``: Their tracks ``(m, 1)``.
    - ``levels``: How far they were heard ``(m,)``.
    - ``of_track``: `features.track_inputs` of the tracks ``(m, 1, ...)``.
    - ``behaviour``: See `features.play_inputs`.
    """
    (_, _, _, vectors), of_play = model[0], model[1]
    memory, context, heard = state
    inputs = of_track.reshape(len(rows), of_track.shape[2])
    play = play_inputs(levels, before, inputs, context[rows], behaviour)
    update_memory(rows, play, of_play, memory)
    add_songs(rows, songs.reshape(len(rows)), levels, vectors, heard)
