"""Times that order plays only in part: ties, minutes, days; every row is accounted for."""

import numpy as np
import pandas as pd
import pytest
from evenings import (
    account_rows,
    evenings,
    ingested,
    shuffled_within,
    sizes,
    songs,
    spotify_records,
    table,
    true_songs,
)
from make_histories import account_records, make_history

from musicbox_env.ingest.spelling.precision import DAY, HOUR, MINUTE, SECOND, TimeGrid
from musicbox_env.schema import is_skip

SPELLED = {
    "%Y-%m-%d %H:%M": 60_000,
    "%Y-%m-%dT%H:%M:%SZ": 60_000,
    "%Y-%m-%d %H:%M:%S": 1_000,
}


@pytest.fixture(scope="module")
def plays() -> pd.DataFrame:
    return evenings()


@pytest.mark.parametrize("time", ["start_ms", "end_ms"])
@pytest.mark.parametrize("spelled", SPELLED)
def test_a_table_in_no_order_within_its_unit(tmp_path, plays, time, spelled):
    unit = SPELLED[spelled]
    mixed = shuffled_within(plays, time, unit)
    dataset, rows, notes = ingested(tmp_path, table(mixed, time, unit, spelled))
    assert sizes(dataset) == (40, 600)
    assert songs(dataset) == true_songs(plays)
    assert rows["plays in sessions"] == 600
    assert ("exact to the minute" in notes) == (unit == 60_000)


@pytest.mark.parametrize("unit", [60_000, 1_000])
@pytest.mark.parametrize("step", [1, -1])
def test_an_order_of_the_file_that_can_be_is_kept(tmp_path, plays, unit, step):
    """Oldest first or newest first: then the order within a minute is known too."""
    dataset, _, _ = ingested(tmp_path, table(plays[::step], "end_ms", unit, "%Y-%m-%dT%H:%M:%SZ"))
    assert songs(dataset, ordered=True) == true_songs(plays, ordered=True)


@pytest.mark.parametrize("by", [["ms"], ["title"], None])
def test_account_data_in_any_order_within_the_minute(tmp_path, plays, by):
    minute = plays["end_ms"] // 60_000
    mixed = plays.assign(minute=minute).sort_values(["minute", *(by or [])])
    if by is None:
        mixed = shuffled_within(plays, "end_ms", 60_000)
    dataset, rows, _ = ingested(tmp_path, account_rows(mixed))
    assert sizes(dataset) == (40, 600)
    assert not any(dataset.about["history"]["overlaps"].values())
    assert rows["plays in sessions"] == 600


def test_a_skip_noted_before_the_long_play_of_its_second(tmp_path, plays):
    """At full seconds: the skip of a moment stands first, and two at once stay two players."""
    end = plays["end_ms"] // 1_000 * 1_000
    brief = plays["full"].shift(fill_value=False) & ~plays["full"]
    ms, before = plays["ms"].where(~brief, 300), end.shift(fill_value=0)
    told = plays.assign(ms=ms, end_ms=end.where(~brief, before))
    told = told.iloc[np.lexsort((told["ms"], told["end_ms"]))]
    dataset, _, _ = ingested(tmp_path, spotify_records(told))
    assert sizes(dataset) == (40, 600)


def test_times_that_are_dates_make_no_session(tmp_path, plays):
    dates = table(plays, "start_ms", 86_400_000, "%Y-%m-%d")
    with pytest.raises(ValueError, match=r"600  left out: times without[\s\S]*dates alone"):
        ingested(tmp_path, dates)
    berlin = dates.assign(started_at=dates["started_at"] + "T00:00:00+01:00")
    with pytest.raises(ValueError, match="without a time of day"):
        ingested(tmp_path, berlin)
    later = plays.assign(start_ms=plays["start_ms"] + 3_600_000 * plays["session"])
    hours = table(later, "start_ms", 3_600_000, "%Y-%m-%dT%H:%M:%SZ")
    with pytest.raises(ValueError, match="exact to the hour"):
        ingested(tmp_path, hours)


def test_dates_among_times_cost_only_themselves(tmp_path, plays):
    """In one column: rows with a date alone are left out, counted; minutes and seconds mixed."""
    exact = table(plays, "end_ms", 1, "%Y-%m-%dT%H:%M:%S.%fZ")
    coarse = table(plays, "end_ms", 60_000, "%Y-%m-%d %H:%M")
    dates = table(plays[:20], "end_ms", 86_400_000, "%Y-%m-%d")
    mixed = pd.concat([coarse[:300], exact[300:], dates])
    dataset, rows, _ = ingested(tmp_path, mixed)
    assert sizes(dataset) == (40, 600)
    assert rows["left out: times without a time of day, or to the hour"] == 20


@pytest.mark.parametrize(
    ("step", "times"),
    [
        (SECOND, np.arange(0, 50) * 61_000),
        (MINUTE, np.arange(0, 50) * 180_000),
        (HOUR, np.arange(0, 50) * 7_200_000),
        (DAY, np.arange(0, 50) * 86_400_000),
        (DAY, np.arange(0, 50) * 86_400_000 + 82_800_000),
        (DAY, np.arange(0, 50) * 86_400_000 + np.repeat([82_800_000, 79_200_000], 25)),
        (DAY, np.zeros(2)),
        (SECOND, np.zeros(1)),
        (SECOND, np.arange(2) * 60_000),
        (SECOND, np.zeros(0)),
    ],
)
def test_how_exact_times_are(step, times):
    whole, in_pieces = TimeGrid(), TimeGrid()
    whole.add(times.astype(np.int64))
    for part in np.array_split(times.astype(np.int64), 3):
        in_pieces.add(part)
    assert whole.step == in_pieces.step == step


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_account_data_of_three_years(tmp_path, seed):
    """The figures of docs/data.md: all sessions, in unknown order within the minute."""
    history = make_history(3_000, tracks=2_000, days=1_095, seed=seed)
    dataset, _, _ = ingested(tmp_path, account_records(history, seed))
    plays = history.in_sessions.assign(name=lambda f: f["artist"] + " - " + f["title"])
    plays = plays.sort_values(["session", "position"])
    found, true = songs(dataset), true_songs(plays, "name")
    assert len(set(found) & set(true)) > 0.999 * len(set(true))
    in_order = set(songs(dataset, ordered=True)) & set(true_songs(plays, "name", ordered=True))
    assert len(in_order) > 0.3 * len(true)
    # Plays of one song of one session are compared by their levels, in rising order.
    log = dataset.sessions
    session = np.repeat(np.arange(log.num_sessions), np.diff(log.offsets))
    names = dataset.catalog.track_ids[log.column("track")]
    ours = pd.DataFrame({"session": session, "name": names, "level": log.column("level")})
    levels = []
    for frame in (ours, plays):
        of = frame.sort_values(["session", "name", "level"]).groupby("session")
        levels.append({tuple(g["name"]): g["level"].to_numpy() for _, g in of})
    both = levels[0].keys() & levels[1].keys()
    one, other = (np.concatenate([of[key] for key in sorted(both)]) for of in levels)
    assert (one == other).mean() > 0.97
    assert (is_skip(one) == is_skip(other)).mean() > 0.98
