"""Columns of plays: one value for all stays one value, and orders are those of a plain sort."""

import numpy as np
import pytest

from musicbox_env.ingest.histories.timing.clock import Clock, by_user_and
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.histories.timing.sorting import sort_rows

LARGEST = np.iinfo(np.int64).max


@pytest.mark.parametrize("rows", [0, 1, 2, 5_000])
@pytest.mark.parametrize("users", [1, 4])
@pytest.mark.parametrize("lowest", [-50, 0, LARGEST - 60])
def test_orders_by_user_and_moment(rows, users, lowest):
    rng = np.random.default_rng(rows)
    user = rng.integers(7, 7 + users, rows).astype(np.int32)
    moment = lowest + rng.integers(0, 60, rows)
    expected = np.lexsort((moment, user))
    assert by_user_and(user, moment).tolist() == expected.tolist()
    in_order = by_user_and(user[expected], moment[expected])
    assert in_order.tolist() == list(range(rows))


def test_orders_moments_of_all_sizes():
    user, moment = np.array([1, 0, 1, 0]), np.array([LARGEST, -LARGEST, -LARGEST, LARGEST])
    assert by_user_and(user, moment).tolist() == [1, 3, 2, 0]
    assert by_user_and(user[:1], moment[:1]).tolist() == [0]


@pytest.mark.parametrize("starts", [True, False, None])
def test_clocks_of_plays_of_either_end(starts):
    """A play without a time heard lasts its track's length; pauses belong to it."""
    rng = np.random.default_rng(1)
    ms, length, pause = rng.integers(-1, 9, 50), rng.integers(10, 99, 50), rng.integers(0, 3, 50)
    is_start = rng.random(50) < 0.5 if starts is None else np.full(50, starts)
    plays = Listens(50, {"time": 1_000, "ms": ms, "pause": pause, "time_is_start": is_start})
    lasted = np.where(ms < 0, length, ms) + pause
    for order in (np.arange(50), rng.permutation(50)[:20]):
        clock = Clock.of(plays, length.astype(np.int32)).take(order)
        assert clock.start.tolist() == (1_000 - np.where(is_start, 0, lasted))[order].tolist()
        assert clock.end.tolist() == (1_000 + np.where(is_start, lasted, 0))[order].tolist()
        assert clock.measured.tolist() == (ms >= 0)[order].tolist()
        assert clock.slack.tolist() == [-1] * len(order)


def test_one_value_for_all_plays_takes_no_room():
    plays = Listens(6, {"time": np.arange(6), "device": 3})
    one = plays["device"]
    assert one.tolist() == [3] * 6
    assert one.strides == (0,)
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 4
    some = plays.take(np.array([5, 0, 1, 4]))
    assert some.kept("device").shape == ()
    assert some["time"].tolist() == [5, 0, 1, 4]
    for name in ("device", "time"):
        column = some.dense(name)
        assert column.tolist() == some[name].tolist()
        assert column.flags.c_contiguous
        assert column.flags.writeable


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_sorted_by_key_and_place(seed):
    """Nearly in order, in reverse, with many of one key: as a plain sort does."""
    rng = np.random.default_rng(seed)
    for number in (0, 1, 2, 15, 16, 17, 33, 500):
        key = np.arange(number) + rng.integers(0, 1 + 20 * seed, number)
        key = key[::-1].copy() if seed == 3 else key
        place, rows = rng.permutation(number), rng.permutation(number)
        sort_rows(rows, key, place, np.empty_like(rows))
        assert rows.tolist() == np.lexsort((place, key)).tolist()
