"""The inputs of the learned listener, written out."""

import numpy as np
import pytest
from altered import copy_to_alter
from level_summaries import summaries
from scipy.special import expit
from worlds import next_plays

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LearnedListener
from musicbox_env.listeners.learned.features import (
    BEHAVIOUR_INPUTS,
    SUMMARY_INPUTS,
    TRACK_INPUTS,
    WEAR_INPUTS,
    HeardSums,
    TrackTable,
    add_songs,
    behaviour_inputs,
    is_repeat,
    log_columns,
    track_inputs,
)
from musicbox_env.schema import REASONS_END, REASONS_START


def test_what_the_log_does_not_say_is_no_behaviour(synthetic_folder, tmp_path):
    """A log without the optional columns reads as a simulated play does: all zeros."""
    poor = tmp_path / "poor"
    copy_to_alter(synthetic_folder, poor)
    optional = (
        "reason_start",
        "reason_end",
        "pause",
        "context_switch",
        "seek_forward",
        "seek_back",
    )
    for name in (*optional, "hour", "premium", "shuffle", "context_type"):
        column = np.lib.format.open_memmap(poor / "plays" / f"{name}.npy", mode="r+")
        column[:] = -1
        column.flush()
    dataset = Dataset(poor)
    behaviour = behaviour_inputs(np.arange(50), log_columns(dataset)[1])
    np.testing.assert_array_equal(behaviour, 0)
    answers = next_plays(LearnedListener(dataset), np.arange(5))
    assert np.nansum(answers) == pytest.approx(dataset.sessions.lengths(np.arange(5)).sum())


def test_behaviour_inputs_written_out(synthetic):
    plays = np.arange(200)
    inputs = behaviour_inputs(plays, log_columns(synthetic)[1])
    got = dict(zip(BEHAVIOUR_INPUTS, inputs.T, strict=True))
    column = synthetic.sessions.column
    ended = [REASONS_END[code] for code in column("reason_end")[plays]]
    started = [REASONS_START[code] for code in column("reason_start")[plays]]
    np.testing.assert_array_equal(got["ended_by_fwdbtn"], [r == "fwdbtn" for r in ended])
    np.testing.assert_array_equal(got["started_by_clickrow"], [r == "clickrow" for r in started])
    np.testing.assert_array_equal(got["long_pause"], (column("pause")[plays] & 4) > 0)
    np.testing.assert_array_equal(got["seek_back"], column("seek_back")[plays] > 0)
    np.testing.assert_array_equal(got["known"], 1)


def test_track_inputs_written_out():
    plays, skipped = np.array([100, 10, 1, 0]), np.array([60, 2, 1, 0])
    table = TrackTable.counted(plays, skipped, None)
    heard = np.array([[2, 0, 2, 1, -1]], np.int32), np.array([[4, 1, 0, 3, -1]], np.int8)
    songs, row = HeardSums.none(1, table), np.zeros(1, np.int64)
    asked = row, np.array([[2, 3, 0]]), np.array([4])
    inputs = track_inputs(*asked, heard, table.arrays, songs.arrays, len(TRACK_INPUTS))[0]
    by_name = dict(zip(TRACK_INPUTS, inputs.T, strict=True))
    np.testing.assert_allclose(by_name["popularity"], np.log1p([1, 0, 100]))
    np.testing.assert_array_equal(by_name["was_played"], [1, 0, 1])
    np.testing.assert_array_equal(by_name["heard_at_level_0"], [1, 0, 0])
    np.testing.assert_array_equal(by_name["heard_at_level_1"], [0, 0, 1])
    np.testing.assert_allclose(by_name["heard_ago"], [1 / 2, 0, 1 / 3])
    np.testing.assert_allclose(by_name["times_heard"], [np.log2(3), 0, 1])
    np.testing.assert_array_equal(is_repeat(inputs), [True, False, True])


def test_nearness_is_to_shrunken_means():
    table = TrackTable.counted(np.ones(3, int), np.zeros(3, int), np.eye(3, dtype=np.float32))
    heard = HeardSums.none(2, table)
    rows = np.array([1])
    for track, level in ((0, 4), (0, 0), (1, 1)):
        add_songs(rows, np.array([track]), np.array([level]), table.vectors, heard.arrays)
    nothing = np.full((2, 5), -1, np.int32), np.full((2, 5), -1, np.int8)
    asked = np.arange(2), np.array([[0, 1], [0, 1]]), np.array([0, 3])
    inputs = track_inputs(*asked, nothing, table.arrays, heard.arrays, len(TRACK_INPUTS))
    near = [TRACK_INPUTS.index(f"near_{what}") for what in ("played", "kept", "skipped", "last")]
    expected = [[2 / 5, 1 / 3, 1 / 4, 0], [1 / 5, 0, 1 / 4, 1]]
    np.testing.assert_array_equal(inputs[0][:, near], 0)
    np.testing.assert_allclose(inputs[1][:, near], expected, rtol=1e-6)


def test_likeness_to_songs_heard_is_summed_by_age():
    """Squared where positive; the song itself wears out nothing, nor does one heard long ago."""
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    table = TrackTable.counted(np.ones(40, int), np.zeros(40, int), vectors)
    heard = np.arange(30, dtype=np.int32)[None], np.zeros((1, 30), np.int8)
    asked = np.zeros(2, np.int64), np.array([[28, 35], [3, 35]]), np.array([30, 3])
    width = len(TRACK_INPUTS) + len(WEAR_INPUTS)
    sums = HeardSums.none(1, table).arrays
    inputs = track_inputs(*asked, heard, table.arrays, sums, width)
    plain = track_inputs(*asked, heard, table.arrays, sums, len(TRACK_INPUTS))
    np.testing.assert_array_equal(inputs[..., : len(TRACK_INPUTS)], plain)
    for row, before in enumerate(asked[2]):
        for place, song in enumerate(asked[1][row]):
            alike = np.maximum(vectors[:before] @ vectors[song], 0) ** 2
            alike = np.where(np.arange(before) == song, 0, alike)[::-1]
            spans = (0, 1), (1, 2), (2, 4), (4, 6), (6, 9), (9, 14), (14, 20)
            expected = [alike[first:last].sum() for first, last in spans]
            got = inputs[row, place, len(TRACK_INPUTS) :]
            np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_effects_of_tracks_are_recovered_and_shrunken():
    """Tracks with known effects, played often and rarely: estimates, and their stated errors."""
    rng = np.random.default_rng(0)
    effect = rng.normal(0, 0.4, 4000)
    plays = rng.integers(0, 200, 4000)
    table = TrackTable.counted(plays, rng.binomial(plays, expit(effect)), None)
    error = (table.effect - effect) / table.effect_sd
    assert error.std() == pytest.approx(1, abs=0.06)
    assert table.effect_sd[plays == 0].max() == pytest.approx(0.4, abs=0.03)
    assert np.corrcoef(table.effect[plays > 100], effect[plays > 100])[0, 1] > 0.9
    np.testing.assert_array_equal(table.effect[plays == 0], 0)


def test_level_summaries_written_out():
    table = TrackTable.counted(np.ones(1, int), np.zeros(1, int), None)
    got = dict(zip(SUMMARY_INPUTS, summaries([4, 1, 0, 0], table), strict=True))
    weights = 0.5 ** np.array([3, 2, 1, 0])
    expected = weights @ (np.array([0, 1, 1, 1]) - 0.5) / (weights.sum() + 0.5)
    assert got["skipped_1"] == pytest.approx(expected)
    assert got["full_inf"] == pytest.approx((1 - 4 * 0.35) / 4.5)
    latest = [[got[f"level_{level}_{ago}_ago"] for level in range(5)] for ago in range(3)]
    np.testing.assert_array_equal(latest, np.eye(5)[[0, 0, 1]])
    assert got["run_of_skips"] == pytest.approx(np.log2(1 + 3))
    assert got["run_of_keeps"] == 0
    assert got["position"] == pytest.approx(4 / 20)
    np.testing.assert_array_equal(summaries([], table), 0)
