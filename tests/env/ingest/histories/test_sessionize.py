"""Plays cut into sessions, against the rules once more, a play at a time."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from musicbox_env.ingest.histories.sessionize import (
    FATES,
    SessionConfig,
    cut_sessions,
    find_runs,
    plays_of,
)
from musicbox_env.ingest.histories.timing.clock import Clock
from musicbox_env.ingest.histories.timing.copies import without_duplicates
from musicbox_env.ingest.histories.timing.records import LISTEN, Listens


def listens_of(rows, **columns):
    """Plays of one user by default, times exact to the second."""
    given = {"user": 0, "track": 0, "song": 0, "resolution": 1_000, "order": np.arange(rows)}
    return Listens(rows, {**given, **columns})


def rows_of(listens):
    """Each play by itself."""
    for values in zip(*(listens[name].tolist() for name in LISTEN.names), strict=True):
        yield dict(zip(LISTEN.names, values, strict=True))


def random_listens(seed, rows=400, users=3):
    """Plays one after the other on one player, rows in any order."""
    rng = np.random.default_rng(seed)
    gaps = rng.choice(
        [0, 3_000, 59_000, 60_000, 61_000, 500_000], rows, p=[0.6, 0.2, 0.1, 0.05, 0.03, 0.02]
    )
    ms = rng.integers(1_000, 300_000, rows)
    end = 1_640_995_200_000 + np.cumsum(gaps + ms)
    listens = listens_of(rows, time=end, ms=ms, user=rng.integers(0, users, rows))
    return listens.take(rng.permutation(rows))


@pytest.mark.parametrize("seed", range(4))
def test_runs_against_brute_force(seed):
    listens = random_listens(seed)
    found_order, run = find_runs(
        listens, Clock.of(listens, listens["ms"]), SessionConfig(), Counter()
    )
    expected = []
    for user in np.unique(listens["user"]):
        rows = sorted(np.flatnonzero(listens["user"] == user), key=lambda i: listens["time"][i])
        runs = [[rows[0]]]
        for before, after in pairwise(rows):
            start = listens["time"][after] - listens["ms"][after]
            if start - listens["time"][before] > 60_000:
                runs.append([])
            runs[-1].append(after)
        expected += runs
    found = [found_order[run == number].tolist() for number in range(run.max() + 1)]
    assert found == expected


@pytest.mark.parametrize("long_runs", ["window", "cut"])
@pytest.mark.parametrize(("least", "most"), [(10, 20), (2, 3), (15, 20), (20, 20), (5, 12)])
def test_windows_against_brute_force(long_runs, least, most):
    rng = np.random.default_rng(least)
    lengths = [*range(1, 70), *rng.integers(1, 300, 30)]
    config = SessionConfig(min_plays=least, max_plays=most, long_runs=long_runs)
    counts = Counter()
    run = np.repeat(np.arange(len(lengths)), lengths)
    first, size = cut_sessions(run, config, counts)
    by_session = [range(a, a + n) for a, n in zip(first.tolist(), size.tolist(), strict=True)]
    assert plays_of(first, size).tolist() == [row for rows in by_session for row in rows]
    assert (np.diff(plays_of(first, size)) > 0).all()
    for rows in by_session:
        assert len(set(run[rows])) == 1
        assert least <= len(rows) <= most
    for number, length in enumerate(lengths):
        sizes = [len(rows) for rows in by_session if run[rows[0]] == number]
        if length < least:
            assert sizes == []
        elif long_runs == "cut":
            assert sizes == [min(length, most)]
        elif length // -(-length // most) >= least:
            assert sum(sizes) == length, "a play was lost without need"
            assert max(sizes) - min(sizes) <= 1
        else:
            rest = length % most
            assert sizes == [most] * (length // most) + [rest] * int(rest >= least)
    assert sum(counts[fate] for fate in FATES) == len(run)
    assert counts["sessions"] == len(by_session)


def test_two_players_are_told_apart_and_small_overlaps_are_not():
    """Player A without a pause, B in the middle of it, and clocks that disagree by seconds."""
    a_end = np.arange(1, 13) * 200_000
    b_end = 90_000 + np.arange(2, 8) * 200_000
    jitter = np.random.default_rng(0).integers(-2_000, 2_000, 12)
    listens = listens_of(
        18,
        time=1_640_995_200_000 + np.concatenate([a_end + jitter, b_end]),
        ms=200_000,
        device=[1] * 12 + [2] * 6,
    )
    counts = Counter()
    order, run = find_runs(listens, Clock.of(listens, listens["ms"]), SessionConfig(), counts)
    groups = {tuple(sorted(order[run == number].tolist())) for number in set(run.tolist())}
    assert groups == {tuple(range(12)), tuple(range(12, 18))}
    assert counts["of these on another device"] == 12


def test_start_and_end_times_say_the_same():
    ends = random_listens(7)
    starts = ends.copy()
    starts["time"] = starts["time"] - starts["ms"]
    starts["time_is_start"] = True
    results = [
        find_runs(each, Clock.of(each, each["ms"]), SessionConfig(), Counter())
        for each in (ends, starts)
    ]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_against_a_dictionary(seed):
    """Few distinct values, so that everything collides; minutes give way to seconds."""
    rng = np.random.default_rng(seed)
    coarse = rng.random(300) < 0.3
    time = 60_000 * rng.integers(1, 6, 300) + np.where(coarse, 0, 1_000 * rng.integers(0, 60, 300))
    listens = listens_of(
        300,
        time=time,
        ms=rng.integers(0, 2, 300),
        song=rng.integers(0, 3, 300),
        user=rng.integers(0, 2, 300),
        resolution=np.where(coarse, 60_000, 1_000),
    )
    left, again = without_duplicates(listens)
    exact, minutes = {}, set()
    for row in rows_of(listens.compress(~coarse)):
        exact.setdefault((row["user"], row["song"], row["ms"], row["time"]), row["order"])
        minutes.add((row["user"], row["song"], row["ms"], row["time"] // 60_000))
    for row in rows_of(listens.compress(coarse)):
        key = (row["user"], row["song"], row["ms"], row["time"] // 60_000)
        if key not in minutes:
            exact.setdefault((*key, "minute"), row["order"])
    assert sorted(left["order"]) == sorted(exact.values())
    assert again == 300 - len(exact)
    assert without_duplicates(listens.take(np.arange(0)))[1] == 0


def test_configuration_is_checked():
    for options, message in [
        ({"max_gap": -1.0}, "max_gap is -1"),
        ({"min_plays": 1}, "min_plays is 1"),
        ({"min_plays": 12, "max_plays": 11}, "the first no more than the second"),
        ({"max_plays": 21}, "max_plays 21; 2 to 20"),
        ({"long_runs": "split"}, "'window' or 'cut'"),
    ]:
        with pytest.raises(ValueError, match=message):
            SessionConfig(**options)
