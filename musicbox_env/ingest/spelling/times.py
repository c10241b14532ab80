"""Times as people and programs write them, turned into milliseconds since 1970 UTC.

ISO 8601 and Unix time are read as they are; so is any date whose month is named or whose year
comes first. Of 03/04/2022 `date_evidence` finds out which number is the day.
"""

from __future__ import annotations

import re
import unicodedata
import zoneinfo
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from musicbox_env.ingest.spelling.values import stripped
from musicbox_env.ingest.tables import as_floats
from musicbox_env.schema import UNKNOWN, require_known

EARLIEST_MS: Final = int(pd.Timestamp("2000-01-01").value // 10**6)
LATEST_MS: Final = int(pd.Timestamp("2100-01-01").value // 10**6)
UNIX_UNITS: Final = {"unix_s": 1e3, "unix_ms": 1.0, "unix_us": 1e-3, "unix_ns": 1e-6}
NANOSECOND_DIGITS: Final = ((1e17, 1e-6), (1e14, 1e-3), (1e11, 1.0), (0.0, 1e3))
"""Unix times from this number on, and what makes milliseconds of them: they name no unit, but in
any one unit the years 2000 to 2100 take numbers that they do not take in another."""
COMPACT: Final = (2e13, 2.1e13)
"""20220103180000, a date and time without separators: no Unix time of these years."""
EXCEL_DAYS: Final = (36_526.0, 73_051.0)
"""The days of the years 2000 to 2100 as Excel counts them."""
EXCEL_FIRST_MS: Final = int(pd.Timestamp("1899-12-30").value // 10**6)
DAY_FIRST, MONTH_FIRST, YEAR_FIRST = ORDERS = ("day-first", "month-first", "year-first")
ELAPSED: Final = "elapsed_s"
"""Seconds since a moment that nobody tells: which play followed which is known, not the hour."""
FORMATS: Final = (*ORDERS, *UNIX_UNITS, ELAPSED)
ONE_SIDED: Final = 10
"""So many times more dates must speak for an order than against it."""
LOCAL: Final = "local"
EXACT_FROM: Final = 1e9
_PLAIN: Final = "NFKC"
"""Accents in one character with their letters, blanks of any kind as the usual one."""
_ROUNDED: Final = r"\d(?:[.,]\d{1,8})?[eE]\+?\d+"

_OFFSET: Final = re.compile(r"^(?:UTC|GMT)?([+-])(\d\d?)(?::?(\d\d))?$")
_WEEKDAY: Final = r"^(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*[.,]*\s+)?"
_CLOCK: Final = (
    r"(?:[T ,_]+(?:at )?(?P<h>\d{1,2})[:.](?P<m>\d\d)(?:[:.](?P<s>\d\d))?(?:[.,:](?P<f>\d{1,9}))?"
    r"(?:\s*(?P<ap>[AaPp])\.?[Mm]\.?)?)?"
)
_AHEAD: Final = r"(?:0\d|1[0-4]):?(?:[0-5]\d)?"
"""Hours and minutes of an offset; no place on earth is further ahead or behind."""
_ZONE: Final = rf"\s*(?P<u>UTC|GMT|Z)?(?P<z>[+-]{_AHEAD})?"
_NO_TIME: Final = rf"^[^\W\d_]+$|:\d\d(?:[.,]\d+)?\s*[+-](?!{_AHEAD}$)[\d:]+$"
"""Words, of which ``now`` and ``today`` are the clock's to pandas, and offsets that are none."""
_NAMED: Final = r"(?:\s*\[[\w/+-]+\]|\s*\([\w ]+\))?"
_BEHIND: Final = rf"(?(z){_NAMED}|(?(u){_NAMED}))"
"""The name of a zone behind its offset; alone it would have to be looked up."""
_NUMERIC: Final = re.compile(
    r"^(?P<a>\d{4}|\d{1,2})(?P<p>[./-])(?P<b>\d{1,2})(?P=p)(?P<c>\d{4}|\d{1,2})\.?"
    + _CLOCK
    + _ZONE
    + _BEHIND
    + "$"
)
_MONTH_NAMED: Final = (
    _WEEKDAY
    + r"(?P<c>[^\W\d_]{3,10})\.?[ -]+(?P<b>\d{1,2})(?:st|nd|rd|th)?,?(?:[ -](?P<a>\d{4}))?"
    + _CLOCK
    + _ZONE
    + r"(?: (?P<a2>\d{4}))?"
    + _BEHIND
    + "$",
    _WEEKDAY + r"(?P<b>\d{1,2})(?:st|nd|rd|th|er|\.)?[ /-]?(?:de )?(?P<c>[^\W\d_]{3,10})\.?,?[ /-]?"
    r"(?:de )?(?P<a>\d{4}|\d\d)(?::(?=\d))?,?"
    + _CLOCK.replace("[T ,_]+", "[T ,_]*")
    + _ZONE
    + _BEHIND
    + "$",
    r"^(?P<a>\d{4})[ /-](?P<c>[^\W\d_]{3,10})\.?[ /-](?P<b>\d{1,2})"
    + _CLOCK
    + _ZONE
    + _BEHIND
    + "$",
)
_MONTH_NAMES: Final = (
    "january february march april may june july august september october november december",
    "januar februar märz april mai juni juli august september oktober november dezember",
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "januari februari maart april mei juni juli augustus september oktober november december",
)


def _months() -> dict[str, int]:
    """Number of each month by its names in several languages, and by how they are cut short."""
    found: dict[str, set[int]] = {"mrz": {3}, "mrt": {3}}
    for names in _MONTH_NAMES:
        for place, full in enumerate(names.split(), start=1):
            plain = unicodedata.normalize("NFKD", full).encode("ascii", "ignore").decode()
            for name in (full, full[:3], full[:4], plain, plain[:3], plain[:4]):
                found.setdefault(name, set()).add(place)
    # French jui is June or July.
    return {name: places.pop() for name, places in found.items() if len(places) == 1}


_MONTHS: Final = _months()


@dataclass(frozen=True)
class TimeSpelling:
    """How the times of a column are written, as far as it must be said.

    Attributes:
        format: One of `FORMATS`, or a pattern of ``strptime``; empty for what is unambiguous.
        zone: Where clocks stood that wrote times without a zone; empty for UTC.
    """

    format: str = ""
    zone: str = ""


def require_format(text: str) -> None:
    """Refuse what is no way of writing times.

    Raises:
        ValueError: It is neither one of `FORMATS` nor a pattern of ``strptime``.
    """
    if "%" not in text:
        require_known("time_format", text, (*FORMATS, "%d/%m/%Y %H:%M:%S"))
        return
    now = datetime(2021, 2, 3, 4, 5, 6, tzinfo=UTC)
    try:
        datetime.strptime(now.strftime(text), text)
    except (ValueError, re.error) as error:
        raise ValueError(
            f"time_format is {text!r}, which is no pattern ({error}); one such as "
            "%d/%m/%Y %H:%M:%S expected."
        ) from error


def find_zone(name: str) -> tzinfo | None:
    """A zone by its name, as Europe/Berlin, or its offset, as +02:00; None if there is none."""
    if offset := _OFFSET.match(name):
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        return timezone(span if offset[1] == "+" else -span)
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def parse_times(
    column: pa.Array,
    spelling: TimeSpelling | None = None,
    *,
    dates: pa.Array | None = None,
    zones: pa.Array | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Milliseconds since 1970 UTC, and a mask of those that could be read and can be.

    Args:
        column: Times, or times of day where ``dates`` are given.
        spelling: How they are written.
        dates: The dates that belong to times of day.
        zones: A zone for each time that names none.
    """
    spelling = TimeSpelling() if spelling is None else spelling
    zoned = zones is not None or bool(spelling.zone)
    if dates is not None:
        values, naive = _of_texts(_joined(dates, column), spelling.format, zoned)
    elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        naive_type = pa.types.is_date(column.type) or column.type.tz is None
        stamps = column.cast(pa.timestamp("ms")) if pa.types.is_date(column.type) else column
        stamps = stamps.cast(pa.timestamp("ms", getattr(stamps.type, "tz", None)), safe=False)
        values = stamps.cast(pa.int64()).fill_null(UNKNOWN).to_numpy(zero_copy_only=False)
        naive = np.full(len(values), naive_type)
    elif (numbers := _plain_numbers(column, spelling.format)) is not None:
        values, naive = _of_numbers(numbers, spelling.format)
    else:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values, naive = _of_texts(stripped(column), spelling.format, zoned)
    if zones is not None:
        values = _zoned(values, naive, stripped(zones))
    elif spelling.zone:
        values = _localized(values, naive, spelling.zone)
    return values, (values >= EARLIEST_MS) & (values < LATEST_MS)


def without_zone(texts: Collection[str], fmt: str = "") -> bool:
    """Whether any of these times, of a format, is of a clock in a zone that it does not name."""
    values, naive = _of_texts(np.array([*texts], object), fmt, True)
    return bool((naive & (values > UNKNOWN)).any())


def date_evidence(texts: npt.NDArray[np.object_]) -> Counter[str]:
    """Dates that can be read in one order only, by order; all ``dates`` that need one; ``values``.

    Of dates between dots the day is first unless values say otherwise.
    """
    series = pd.Series(pd.unique(pd.Series(texts, dtype=object)), dtype=object)
    series = series[series != ""].str.normalize(_PLAIN)
    parts = series.str.extract(_NUMERIC)
    parts = parts[parts["a"].notna() & (parts["a"].str.len() < 4)]
    found: Counter[str] = Counter(dates=len(parts), values=len(series))
    if len(parts):
        a, b, c = (parts[name].astype(int) for name in "abc")
        found[DAY_FIRST] = int(((a > 12) & (a <= 31) & (b <= 12)).sum())
        found[MONTH_FIRST] = int(((b > 12) & (b <= 31) & (a <= 12)).sum())
        short = bool((parts["c"].str.len() < 4).all())
        if short and 4 * a.nunique() <= c.nunique() and bool((c <= 31).all()):
            found = Counter({"dates": len(parts), "values": len(series), YEAR_FIRST: len(parts)})
        found["dots"] = int((parts["p"] == ".").sum())
    return found


def decide_order(evidence: Counter[str]) -> str | None:
    """The order that dates are written in; empty if they need none, None if nothing decides it."""
    if 2 * evidence["dates"] < evidence["values"] or not evidence["dates"]:
        return ""
    best, other = sorted(ORDERS, key=lambda order: -evidence[order])[:2]
    if evidence[best] and evidence[best] >= ONE_SIDED * evidence[other]:
        return best
    all_dots = evidence["dots"] == evidence["dates"]
    return DAY_FIRST if all_dots and not evidence[best] else None


def _joined(dates: pa.Array, clocks: pa.Array) -> npt.NDArray[np.object_]:
    """Dates and times of day as one text; the midnight of a date that is a timestamp is dropped."""
    days = pd.Series(stripped(dates), dtype=object)
    days = days.str.replace(r"[T ]00:00(:00(\.0+)?)?Z?$", "", regex=True)
    return (days + " " + pd.Series(stripped(clocks), dtype=object)).to_numpy(object)


def _of_texts(
    texts: npt.NDArray[np.object_], fmt: str, zoned: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Milliseconds of each text, `UNKNOWN` where it is no time, and a mask of those without zone.

    The mask is right where ``zoned``; else nobody asks.
    """
    series = pd.Series(texts, dtype=object)
    if "%" in fmt:
        return _by_pattern(series, fmt)
    days = series.str.replace(r"^(\d{5}),(\d+)$", r"\1.\2", regex=True)  # a spreadsheet's
    numbers = pd.to_numeric(days, errors="coerce").to_numpy(np.float64)
    if (numbers >= EXACT_FROM).any():
        # A spreadsheet wrote 1.64123E+12, and the rest of the digits is lost.
        numbers = np.where(series.str.fullmatch(_ROUNDED), np.nan, numbers)
    values, naive = _of_numbers(numbers, fmt)
    if fmt in (*UNIX_UNITS, ELAPSED):
        return values, naive
    compact = _are_compact(numbers)
    if compact.any():
        values[compact], naive[compact] = _by_pattern(series[compact], "%Y%m%d%H%M%S")
    words = np.flatnonzero(np.isnan(numbers))
    if len(words):
        values[words], naive[words] = _of_words(series.iloc[words], fmt, zoned)
    return values, naive


def _plain_numbers(column: pa.Array, fmt: str) -> npt.NDArray[np.float64] | None:
    """The numbers of a column of numbers, NaN where there is none; None if text tells more."""
    kind = column.type
    if "%" in fmt or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    numbers = as_floats(column)
    return None if _are_compact(numbers).any() else numbers


def _are_compact(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return (numbers >= COMPACT[0]) & (numbers < COMPACT[1])


def _of_numbers(
    numbers: npt.NDArray[np.float64], fmt: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """What `_of_texts` gives, of numbers; NaN is none."""
    naive = np.zeros(len(numbers), np.bool_)
    known = ~np.isnan(numbers)
    if fmt == ELAPSED:
        known &= numbers >= 0
        passed = np.minimum(np.where(known, numbers, 0), (LATEST_MS - EARLIEST_MS) / 1e3)
        return np.where(known, EARLIEST_MS + (1e3 * passed).astype(np.int64), UNKNOWN), naive
    values = np.full(len(numbers), UNKNOWN, np.int64)
    if fmt in UNIX_UNITS:
        values[known] = np.clip(numbers[known] * UNIX_UNITS[fmt], 0, LATEST_MS).astype(np.int64)
        return values, naive
    below = np.inf
    for least, scale in NANOSECOND_DIGITS:
        chosen = (numbers >= least) & (numbers < below)
        values[chosen] = np.clip(numbers[chosen] * scale, 0, LATEST_MS).astype(np.int64)
        below = least
    if known.any() and _are_excel_days(numbers[known]):
        values[known] = EXCEL_FIRST_MS + np.round(numbers[known] * 86_400).astype(np.int64) * 1000
        naive[known] = True
    return values, naive


def _are_excel_days(numbers: npt.NDArray[np.float64]) -> bool:
    inside = (numbers >= EXCEL_DAYS[0]) & (numbers < EXCEL_DAYS[1])
    return bool(inside.all() and (numbers % 1 > 0).any())


def _by_pattern(
    series: pd.Series, pattern: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    stamps = _stamps(series, pattern)
    naive = "%z" not in pattern and "%Z" not in pattern
    return _milliseconds(stamps), np.full(len(series), naive)


def _stamps(series: pd.Series, pattern: str) -> pd.Series:
    none = series.str.contains(_NO_TIME)
    return pd.to_datetime(series.mask(none), format=pattern, errors="coerce", utc=True)


def _milliseconds(stamps: pd.Series) -> npt.NDArray[np.int64]:
    values = stamps.dt.as_unit("ms")
    return np.where(values.isna(), UNKNOWN, values.astype(np.int64)).astype(np.int64)


def _of_words(
    series: pd.Series, order: str, zoned: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Times that are no numbers: ISO 8601, and what `_respelled` makes out."""
    stamps = _stamps(series, "ISO8601")
    values = _milliseconds(stamps)
    naive = np.zeros(len(series), np.bool_)
    if zoned:
        naive = ~series.str.contains(r":.*(?:Z|[+-]\d\d(?::?\d\d)?)$").to_numpy(bool)
    left = np.flatnonzero((values == UNKNOWN) & (series != "").to_numpy())
    if len(left):
        values[left], naive[left] = _respelled(series.iloc[left], order)
    return values, naive


def _respelled(
    series: pd.Series, order: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Dates in numbers by an order, and dates whose month is named."""
    series = series.str.normalize(_PLAIN)
    values = np.full(len(series), UNKNOWN, np.int64)
    naive = np.zeros(len(series), np.bool_)
    for pattern in (_NUMERIC, *_MONTH_NAMED):
        left = np.flatnonzero(values == UNKNOWN)
        parts = series.iloc[left].str.extract(pattern)
        fits = parts["b"].notna().to_numpy()
        if fits.any():
            parts = parts[fits]
            values[left[fits]] = _of_parts(parts, order)
            naive[left[fits]] = (parts["z"].isna() & parts["u"].isna()).to_numpy()
        if (values != UNKNOWN).all():
            break
    return values, naive


def _of_parts(parts: pd.DataFrame, order: str) -> npt.NDArray[np.int64]:
    """Milliseconds of dates taken apart by one of the patterns."""
    a, b, c = parts["a"], parts["b"], parts["c"]
    if "a2" in parts:
        a = a.fillna(parts["a2"])
    named = c.str.lower().map(_MONTHS)
    first = a.str.len() == 4
    if named.notna().any():
        year, month, day = a, named, b
    elif order == DAY_FIRST:
        year, month, day = a.where(first, c), b, c.where(first, a)
    elif order == MONTH_FIRST:
        year, month, day = a.where(first, c), b.where(first, a), c.where(first, b)
    else:
        # Without an order only a year of four digits at the front says which is which.
        known = first | (order == YEAR_FIRST)
        year, month, day = a.where(known), b, c
    numbers = pd.DataFrame({"year": year, "month": month, "day": day}).apply(
        pd.to_numeric, errors="coerce"
    )
    numbers["year"] += np.where(numbers["year"] < 100, 2000, 0)
    stamps = pd.to_datetime(numbers, errors="coerce", utc=True)
    clock = parts[["h", "m", "s"]].apply(pd.to_numeric).fillna(0)
    hour = clock["h"]
    afternoon = parts["ap"].str.lower()
    # 13:30 pm is half past one; 13:30 am is no time.
    valid = (
        (hour < 24) & (clock["m"] < 60) & (clock["s"] < 61) & ~((hour > 12) & (afternoon == "a"))
    )
    hour = hour.where(afternoon.isna(), hour % 12 + 12 * (afternoon == "p"))
    seconds = hour * 3600 + clock["m"] * 60 + clock["s"]
    seconds += pd.to_numeric("0." + parts["f"]).fillna(0)
    offset = parts["z"].str.replace(":", "").fillna("+0000").str.ljust(5, "0")
    ahead = offset.str[1:3].astype(int) * 3600 + offset.str[3:5].astype(int) * 60
    seconds -= ahead.where(offset.str[0] == "+", -ahead)
    values = _milliseconds(stamps)
    known = (values != UNKNOWN) & valid.to_numpy(bool)
    return np.where(known, values + np.round(1000 * seconds).astype(np.int64), UNKNOWN)


def _localized(
    values: npt.NDArray[np.int64], naive: npt.NDArray[np.bool_], zone: str
) -> npt.NDArray[np.int64]:
    """UTC of clock times of a zone; of an hour that is told twice the first."""
    rows = np.flatnonzero(naive & (values != UNKNOWN))
    place = find_zone(zone)
    if not len(rows) or place is None:
        return values
    clock = pd.DatetimeIndex(values[rows].astype("datetime64[ms]"))
    summer = np.ones(len(rows), np.bool_)
    local = clock.tz_localize(place, ambiguous=summer, nonexistent="shift_forward")
    values = values.copy()
    values[rows] = local.tz_convert("UTC").tz_localize(None).as_unit("ms").astype(np.int64)
    return values


def _zoned(
    values: npt.NDArray[np.int64],
    naive: npt.NDArray[np.bool_],
    zones: npt.NDArray[np.object_],
) -> npt.NDArray[np.int64]:
    """UTC of clock times, each in its own zone; unknown where there is no such zone."""
    codes, names = pd.factorize(zones)
    values = values.copy()
    for code, name in enumerate(names):
        rows = np.flatnonzero((codes == code) & naive)
        if find_zone(name) is None:
            values[rows] = UNKNOWN
        else:
            values[rows] = _localized(values[rows], naive[rows], name)
    return values
