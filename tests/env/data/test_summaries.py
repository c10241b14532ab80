"""Summaries of what sessions heard, beside what one would count by hand."""

import numpy as np
import pytest

from musicbox_env.data.summaries import (
    GROUPS,
    NEUTRAL,
    add_to_groups,
    holds,
    mean_vectors,
    repeats,
    running_skips,
    skip_share,
)
from musicbox_env.schema import is_skip

TRACKS = np.array([[5, 6, 5, 5, -1, -1], [1, 2, 3, 4, 1, -1]])
LEVELS = np.array([[0, 4, 1, 2, -1, -1], [3, 1, 1, 0, 4, -1]], np.int8)


def test_a_repeat_stands_at_an_earlier_place() -> None:
    assert repeats(TRACKS).astype(int).tolist() == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0]]


def test_rows_hold_their_own_tracks_alone() -> None:
    asked = np.array([[6, 1], [6, 1]])
    assert holds(TRACKS, asked).tolist() == [[True, False], [False, True]]


def test_share_skipped_of_the_first_plays() -> None:
    assert skip_share(LEVELS, np.array([3, 1])).tolist() == [2 / 3, 0]
    assert skip_share(LEVELS, np.array([4, 5])).tolist() == [2 / 4, 3 / 5]


@pytest.mark.parametrize("keep", [0.0, 0.75])
def test_running_means_fade_and_stay_where_nothing_is_heard(keep: float) -> None:
    means = running_skips(LEVELS, keep)
    for row, levels in enumerate(LEVELS):
        mean = NEUTRAL
        for place, level in enumerate(levels[levels >= 0]):
            mean = keep * mean + (1 - keep) * is_skip(level)
            assert means[row, place] == pytest.approx(mean)
        np.testing.assert_array_equal(means[row, levels < 0], means[row, (levels >= 0).sum() - 1])


def test_mean_vectors_are_of_the_songs_counted() -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    counted = (LEVELS >= 0) & is_skip(LEVELS)
    found = mean_vectors(vectors, TRACKS, counted)
    np.testing.assert_allclose(found[0], vectors[[5, 5]].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found[1], vectors[[2, 3, 4]].mean(axis=0), rtol=1e-6)
    assert not mean_vectors(vectors, TRACKS, np.zeros_like(counted)).any()


def test_every_song_joins_the_played_and_one_other_group() -> None:
    vectors = np.array([[1, 2], [10, 20], [100, 200]], np.float32)
    sums, counts = np.zeros((2, len(GROUPS), 2), np.float32), np.zeros((2, len(GROUPS)), np.float32)
    for track, level in enumerate((4, 0, 2)):
        add_to_groups(1, track, level, vectors, sums, counts)
    assert dict(zip(GROUPS, counts[1], strict=True)) == {"played": 3, "kept": 2, "skipped": 1}
    assert sums[1].tolist() == [[111, 222], [101, 202], [10, 20]]
    assert not sums[0].any()
    assert not counts[0].any()
