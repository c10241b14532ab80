"""Times and dates in every spelling and zone: the same plays, or a refusal."""

import pandas as pd
import pyarrow as pa
import pytest
from spelled_plays import MAP, PLAIN, check, ingested, plays_of, refusal, stored, with_time

from musicbox_env.ingest.histories.formats import HistoryConfig
from musicbox_env.ingest.spelling.times import DAY_FIRST, TimeSpelling, parse_times


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("%d/%m/%Y %H:%M:%S", ""),
        ("%m/%d/%Y %H:%M:%S", ""),
        ("%m/%d/%Y %I:%M:%S %p", ""),
        ("%d.%m.%Y %H:%M:%S", ""),
        ("%d-%m-%y %H:%M:%S", ""),
        ("%Y/%m/%d %H:%M:%S", ""),
        ("%d %b %Y, %H:%M:%S", ""),
        ("%B %d, %Y at %I:%M:%S %p", ""),
        ("%a %b %d %H:%M:%S UTC %Y", ""),
        ("%a, %d %b %Y %H:%M:%S GMT", ""),
        ("%d/%b/%Y:%H:%M:%S +0000", ""),
        ("%Y-%m-%dT%H:%M:%SZ[UTC]", ""),
        ("%Y-%m-%dT%H:%M:%S+00:00[Europe/London]", ""),
        ("%Y%m%d%H%M%S", ""),
        ("%s", ""),
        ("%s.0", ""),
        ("%s000", ""),
        ("%s000000", ""),
        ("%s", ",time_format=unix_s"),
        ("%d/%m/%Y %H:%M:%S", ",time_format=day_first"),
        ("%H:%M:%S on %d, %m %y", ",time_format=%H:%M:%S on %d, %m %y"),
    ],
)
@pytest.mark.parametrize("sep", [pytest.param(",", marks=pytest.mark.slow), ";"])
def test_times_in_every_spelling(tmp_path, expected, text, more, sep):
    table = with_time(plays_of(), text)
    check(tmp_path, table.to_csv(index=False, sep=sep), expected, map=MAP + more)


@pytest.mark.parametrize(
    ("text", "january", "february"),
    [
        ("{day}. {month} {rest}", "Januar", "Februar"),
        ("{day}. {month} {rest}", "Jan.", "Febr."),
        ("{day} {month} {rest}", "janvier", "FÉVRIER"),
        ("{day} de {month} de {rest}", "enero", "febrero"),
        ("{day} {month} {rest}", "gennaio", "feb"),
        ("{day}\u00a0{month} {rest}", "janv.", "fe\u0301vr."),
        ("{day}. {month} {rest}", "JANUAR", "FE\u0301VRIER"),
    ],
)
def test_months_named_in_other_languages(tmp_path, expected, text, january, february):
    def spelled(time):
        month = january if time.month == 1 else february
        return text.format(day=time.day, month=month, rest=time.strftime("%Y %H:%M:%S"))

    check(tmp_path, PLAIN.assign(time=plays_of()["time"].map(spelled)).to_csv(), expected)


@pytest.mark.parametrize(
    ("clock", "hour"),
    [
        ("13:30 pm", 13),
        ("13:30 am", None),
        ("25:30 pm", None),
        ("1:30 pm", 13),
        ("12:30 am", 0),
        ("0:30 pm", 12),
        ("0:30 am", 0),
    ],
)
@pytest.mark.parametrize("day", ["5 Mar 2024", "25/03/2024,"])
def test_hours_of_both_kinds_are_read_where_they_agree(clock, hour, day):
    values, possible = parse_times(pa.array([f"{day} {clock}"]), TimeSpelling(DAY_FIRST))
    assert possible.tolist() == [hour is not None]
    if hour is not None:
        moment = pd.Timestamp(values[0], unit="ms")
        assert (moment.month, moment.hour, moment.minute) == (3, hour, 30)


@pytest.mark.parametrize("spelling", ["", "%d/%m/%Y", DAY_FIRST])
@pytest.mark.parametrize(
    "text",
    [
        *("now", "today", "NOW", "2023-03-01T10:00:00[Asia/Tokyo]", "2023-03-01T10:00:00+99:00"),
        *("01/03/2023 10:00 +1500", "2023-03-01 10:00:00.5-02:75"),
    ],
)
def test_words_for_the_time_of_reading_and_zones_without_a_true_offset_are_no_times(text, spelling):
    assert parse_times(pa.array([text]), TimeSpelling(spelling))[1].tolist() == [False]


@pytest.mark.parametrize("comma", [".", ","])
def test_days_as_a_spreadsheet_counts_them(tmp_path, expected, comma):
    days = (plays_of()["time"] - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1)
    texts = days.map(lambda day: f"{day:.9f}".replace(".", comma))
    check(tmp_path, PLAIN.assign(time=texts).to_csv(index=False, sep=";"), expected)


@pytest.mark.parametrize("text", ["%d/%m/%Y %H:%M:%S", "%m-%d-%Y %H:%M:%S", "%d/%m/%y %H:%M:%S"])
def test_dates_that_nothing_decides_are_refused(tmp_path, text):
    table = with_time(plays_of(12), text).to_csv(index=False)
    message = refusal(tmp_path, table)
    first = plays_of(12)["time"][0].strftime(text)
    assert f"column time writes dates as {first!r}" in message
    assert "time_format=day-first" in message
    plain = with_time(plays_of(12), "%Y-%m-%dT%H:%M:%SZ").to_csv(index=False)
    (tmp_path / "plain.csv").write_text(plain)
    expected = stored(ingested(tmp_path, [tmp_path / "plain.csv"], "plain"))
    order = "day-first" if text.startswith("%d") else "month-first"
    check(tmp_path, table, expected, map=f"{MAP},time_format={order}")


def test_a_date_far_behind_decides(tmp_path):
    """The first bytes hold days up to the 12th alone."""
    early = pd.concat([plays_of(12).assign(user=f"u{i}") for i in range(20)])
    table = with_time(pd.concat([early, plays_of()], ignore_index=True), "%d/%m/%Y %H:%M:%S")
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    assert ingested(tmp_path, [tmp_path / "plays.csv"]).about["plays"] > len(early)


@pytest.mark.parametrize(("date", "time"), [("%d/%m/%Y", "%H:%M:%S"), ("%Y-%m-%d", "%I:%M:%S %p")])
def test_date_and_time_in_two_columns(tmp_path, expected, date, time):
    start = plays_of()["time"]
    table = PLAIN.assign(date=start.dt.strftime(date), time=start.dt.strftime(time))
    check(tmp_path, table.to_csv(index=False), expected, map=f"{MAP},date=date")
    typed = PLAIN.assign(date=start.dt.normalize(), time=start.dt.time)
    typed.to_parquet(tmp_path / "typed")
    mapping = f"{MAP},date=date"
    assert stored(ingested(tmp_path, [tmp_path / "typed"], "b", map=mapping)) == expected


@pytest.mark.parametrize("zone", ["local", "Europe/Berlin", "+02:00", "column"])
def test_local_times(tmp_path, zone):
    table = with_time(plays_of().assign(zone="Europe/Berlin"), "%Y-%m-%d %H:%M:%S")
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    mapping = f"{MAP},time_zone={'zone' if zone == 'column' else zone}"
    dataset = ingested(tmp_path, [tmp_path / "plays.csv"], map=mapping, timezone="Europe/Berlin")
    hours = set(dataset.sessions.column("hour").tolist())
    assert hours == {17 if zone == "+02:00" else 18}
    assert not any("taken as UTC" in note for note in dataset.about["history"]["notes"])
    noted = ingested(tmp_path, [tmp_path / "plays.csv"], "b", timezone="Europe/Berlin")
    assert set(noted.sessions.column("hour").tolist()) == {19}
    (note,) = [n for n in noted.about["history"]["notes"] if "taken as UTC" in n]
    assert "time_zone=local" in note


@pytest.mark.parametrize(
    ("text", "mapping", "noted"),
    [
        ("%d/%m/%Y %H:%M:%S", MAP, True),
        ("%m/%d/%Y %I:%M:%S %p", MAP, True),
        ("%d/%m/%Y %H:%M:%S", f"{MAP},time_format=day-first", True),
        ("%H:%M:%S on %d %m %y", f"{MAP},time_format=%H:%M:%S on %d %m %y", True),
        ("%d.%m.%Y %H:%M:%S+00:00", MAP, False),
        ("%a, %d %b %Y %H:%M:%S GMT", MAP, False),
        ("%s", MAP, False),
    ],
)
def test_times_without_a_zone_are_noted_in_every_spelling(tmp_path, text, mapping, noted):
    """The order of a date was not known yet, so that no time with a number first was noted."""
    (tmp_path / "plays.csv").write_text(with_time(plays_of(), text).to_csv(index=False))
    dataset = ingested(tmp_path, [tmp_path / "plays.csv"], map=mapping, timezone="Europe/Berlin")
    notes = [n for n in dataset.about["history"]["notes"] if "taken as UTC" in n]
    assert len(notes) == noted
    assert all(',time_zone=local"' in note for note in notes)


def test_dates_beside_times_of_day_without_a_zone_are_noted(tmp_path):
    start = plays_of()["time"]
    table = PLAIN.assign(date=start.dt.strftime("%d/%m/%Y"), time=start.dt.strftime("%H:%M:%S"))
    (tmp_path / "plays.csv").write_text(table.to_csv(index=False))
    dataset = ingested(
        tmp_path, [tmp_path / "plays.csv"], map=f"{MAP},date=date", timezone="Europe/Berlin"
    )
    assert any("taken as UTC" in note for note in dataset.about["history"]["notes"])


def test_local_times_need_a_timezone(tmp_path):
    with pytest.raises(ValueError, match="time_zone=local in --map needs --timezone"):
        HistoryConfig(map=f"{MAP},time_zone=local")
