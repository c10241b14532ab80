"""One row is one play only where the clock allows it; every row is accounted for."""

import numpy as np
import pandas as pd
import pytest
from evenings import evenings, ingested, sizes, songs, spotify_records, table, true_songs

from musicbox_env.schema import is_skip

COPIES = "copies of a play, told again at another time"
PIECES = "rows that go on with a play after a pause"


@pytest.fixture(scope="module")
def plays() -> pd.DataFrame:
    return evenings()


def told_again(plays, count=40, *, later=9_000, **changes) -> pd.DataFrame:
    """Some plays told once more, that much later."""
    again = plays.sample(count, random_state=2)
    again = again.assign(end_ms=again["end_ms"] + later)
    again = again.assign(**{name: change(again) for name, change in changes.items()})
    return pd.concat([plays, again]).sort_values("end_ms", kind="stable")


@pytest.mark.parametrize("later", [1_000, 3_000, 9_000, 20_000])
def test_plays_told_twice_seconds_apart(tmp_path, plays, later):
    dataset, rows, _ = ingested(tmp_path, spotify_records(told_again(plays, later=later)))
    assert rows[COPIES] == 40
    assert sizes(dataset) == (40, 600)
    assert songs(dataset, ordered=True) == true_songs(plays, ordered=True)


def test_plays_told_twice_in_a_table_without_reasons(tmp_path, plays):
    told = told_again(plays, later=1_500)
    source = table(told, "end_ms", 1, "%Y-%m-%dT%H:%M:%S.%fZ")
    dataset, rows, _ = ingested(tmp_path, source)
    assert rows[COPIES] == 40
    assert songs(dataset) == true_songs(plays)


def test_a_song_on_repeat_is_no_copy(tmp_path):
    """Full plays of one song after each other, faded into each other by four seconds."""
    plays = evenings(tracks=2)
    plays["ms"] = plays["length"]
    plays["reason_end"] = plays["reason_start"] = "trackdone"
    plays["track"] = plays["id"] = "A"
    passed = (plays["ms"] - 4_000).groupby(plays["session"]).cumsum()
    plays["end_ms"] = plays["session"] * 86_400_000 + 1_641_232_800_000 + passed
    dataset, rows, _ = ingested(tmp_path, spotify_records(plays))
    assert rows[COPIES] == rows[PIECES] == 0
    assert dataset.sessions.num_plays + rows["plays in runs too short"] == 600


def test_a_song_heard_again_after_another_play_of_it_is_no_copy(tmp_path, plays):
    """The first A overlaps B, and the last A, as long, nothing; the A in between is longer."""
    begun = {"A": (0, 20), "B": (5, 20), "C": (30, 20), "A again": (50, 40), "D": (90, 20)}
    begun |= {"E": (125, 20), "B again": (130, 20), "A at last": (150, 20)}
    start, heard = np.array([*begun.values()]).T * 1_000
    end = int(plays["end_ms"].max()) + 86_400_000 + start + heard
    title = [name[0] for name in begun]
    late = {"end_ms": end, "ms": heard, "title": title, "artist": "One", "id": title}
    told = pd.concat([plays, pd.DataFrame(late).assign(reason_end="fwdbtn")])
    _, rows, _ = ingested(tmp_path, spotify_records(told, reason_start=None))
    assert rows[COPIES] == 0


def test_copies_on_two_devices_are_two_players(tmp_path, plays):
    told = told_again(plays, later=9_000)
    platform = np.where(told.index.duplicated(), "kitchen", "phone")
    dataset, rows, notes = ingested(tmp_path, spotify_records(told, platform=platform))
    assert rows[COPIES] < 3
    overlaps = list(dataset.about["history"]["overlaps"].values())
    assert overlaps[1] == overlaps[2] > 0
    assert "two devices" not in notes


def test_overlaps_without_devices_get_a_note(tmp_path, plays):
    """Another song at the same time is no copy."""
    other = evenings(10, seed=7).assign(id=lambda f: "U" + f["id"])
    other = other.assign(title="Other " + other["title"], end_ms=other["end_ms"] + 90_000)
    told = pd.concat([plays, other]).sort_values("end_ms")
    _, rows, notes = ingested(tmp_path, spotify_records(told))
    assert rows[COPIES] == 0
    assert "though nothing tells of two devices" in notes


LATE = {
    "some by two minutes": lambda p: p["end_ms"] + 120_000 * (p.index % 9 == 0),
    "all by an hour": lambda p: p["end_ms"] + 3_600_000,
    "at the end of the evening": lambda p: p.groupby("session")["end_ms"].transform("max"),
    "once in five days": lambda p: p.groupby(p["session"] // 5)["end_ms"].transform("max"),
    "some at their start": lambda p: p["end_ms"].where(p.index % 7 > 0, p["start_ms"]),
    "some after a pause": lambda p: p["end_ms"] + 500 * (p.index % 3),
}


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("unit", [1, 1_000])
def test_the_start_that_is_told_counts(tmp_path, plays, late, unit):
    """In seconds or milliseconds, wherever the end was noted."""
    told = plays.assign(end_ms=LATE[late](plays), off=plays["start_ms"] // unit)
    told = told.sort_values("end_ms", kind="stable")
    records = spotify_records(told, offline_timestamp=told["off"])
    dataset, rows, notes = ingested(tmp_path, records)
    assert sizes(dataset) == (40, 600)
    assert songs(dataset) == true_songs(plays)
    assert rows["duplicate plays"] == rows[COPIES] == 0
    assert "devices" not in notes


@pytest.mark.parametrize("told", ["nothing", "zero", "one moment", "ends"])
def test_a_start_that_cannot_be_is_not_used(tmp_path, plays, told):
    starts = {
        "nothing": None,
        "zero": 0,
        "one moment": int(plays["start_ms"][0] // 1_000),
        "ends": plays["end_ms"] // 1_000,
    }
    records = spotify_records(plays, offline_timestamp=starts[told])
    dataset, _, _ = ingested(tmp_path, records)
    assert songs(dataset, ordered=True) == true_songs(plays, ordered=True)


def test_a_start_told_twice_is_one_play(tmp_path, plays):
    """The second time minutes later, or of another length."""
    for later, more in ((300_000, 0), (9_000, 200)):
        told = told_again(plays, later=later, ms=lambda again, more=more: again["ms"] + more)
        records = spotify_records(told, offline_timestamp=told["start_ms"] // 1_000)
        dataset, rows, _ = ingested(tmp_path, records)
        assert rows[COPIES] == 40
        assert sizes(dataset) == (40, 600)


def in_pieces(plays, pause=0, every=5, reasons=("logout", "appload")) -> pd.DataFrame:
    """Each fifth play in two rows around a pause; what follows is later by it."""
    plays = plays.copy()
    chosen = plays.index % every == 0
    shift = (pause * chosen).cumsum() if pause else 0
    plays[["start_ms", "end_ms"]] = plays[["start_ms", "end_ms"]].add(shift, axis=0)
    whole = plays[chosen]
    first_ms = whole["ms"] // 3
    second = whole.assign(
        ms=whole["ms"] - first_ms,
        start_ms=whole["end_ms"] - whole["ms"] + first_ms,
        reason_start=reasons[1],
    )
    first = whole.assign(ms=first_ms, end_ms=second["start_ms"] - pause, reason_end=reasons[0])
    return pd.concat([plays[~chosen], first, second]).sort_values("end_ms", kind="stable")


@pytest.mark.parametrize("pause", [0, 20_000, 600_000])
@pytest.mark.parametrize("reasons", [("logout", "appload"), ("endplay", "playbtn")])
def test_a_pause_is_no_skip(tmp_path, plays, pause, reasons):
    dataset, rows, _ = ingested(tmp_path, spotify_records(in_pieces(plays, pause, 5, reasons)))
    assert rows[PIECES] == 120
    assert sizes(dataset) == (40, 600)
    assert is_skip(dataset.sessions.column("level")).mean() == pytest.approx(
        (~plays["full"]).mean(), abs=0.06
    )


def test_pieces_in_a_table_without_reasons(tmp_path, plays):
    """Many are how the service tells plays; a few may be songs begun again, and stay."""
    spelled = "%Y-%m-%dT%H:%M:%S.%fZ"
    dataset, rows, _ = ingested(tmp_path, table(in_pieces(plays), "end_ms", 1, spelled))
    assert rows[PIECES] == 120
    assert sizes(dataset) == (40, 600)
    few = table(in_pieces(plays, every=200), "end_ms", 1, spelled)
    dataset, rows, notes = ingested(tmp_path, few)
    assert rows[PIECES] == 0
    assert sizes(dataset) == (40, 603)
    assert "3 rows may be the second piece of a play" in notes


@pytest.mark.parametrize(("lengths_told", "joined"), [(True, 122), (False, 118)])
def test_what_a_service_tells_is_read_of_all_its_listeners(tmp_path, plays, lengths_told, joined):
    """Whoever else's plays lie beside theirs, a few pieces of one listener are joined too.

    Without lengths all but four: those of songs whose estimated length is too short.
    """
    of = {name: plays if name == "often" else plays.iloc[:300] for name in ("often", "seldom")}
    told = [
        table(in_pieces(of[name], every=every), "end_ms", 1, "%Y-%m-%dT%H:%M:%S.%fZ")
        for name, every in (("often", 5), ("seldom", 200))
    ]
    both = pd.concat([rows.assign(user_id=name) for rows, name in zip(told, of, strict=True)])
    if not lengths_told:
        both = both.drop(columns="duration_ms")
    _, rows, notes = ingested(tmp_path, both)
    assert rows[PIECES] == joined
    assert "may be the second piece" not in notes


@pytest.mark.parametrize("reasons", [("fwdbtn", "fwdbtn"), ("backbtn", "backbtn")])
def test_a_song_skipped_and_begun_again_is_two_plays(tmp_path, plays, reasons):
    records = spotify_records(in_pieces(plays, 0, 5, reasons))
    dataset, rows, _ = ingested(tmp_path, records)
    assert rows[PIECES] == 0
    assert sizes(dataset)[1] == 720
