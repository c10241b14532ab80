"""A mapping proposed for a table of plays, by the names of its columns and by its first values.

A proposal is only ever shown; it is used where the user says so (`mapping.AUTO`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.ingest.histories.mapping import AUTO, EVIDENCE, PlayMapping, mapping_lines
from musicbox_env.ingest.plays import EMPTY_VALUES, UNPARSABLE, parse_flag, source_parser
from musicbox_env.ingest.spelling.times import DAY_FIRST, TimeSpelling, date_evidence, parse_times
from musicbox_env.ingest.spelling.usual_names import (
    DATES,
    SONGS,
    USUAL_NAMES,
    WITHOUT_UNIT,
    folded,
    telling_end,
    without_unit,
)
from musicbox_env.ingest.spelling.values import NumberColumn

Values = Mapping[str, Sequence[str]]
MOST: Final = 0.8
"""Share of the values that must be what a column is taken for."""
SPACED: Final = 0.3
"""Share of values with a blank inside from which on they are titles, not ids."""
_EITHER: Final = ("track",)
"""Names, as in `USUAL_NAMES`, of columns that hold ids in some tables and titles in others."""
_OR_NUMBERS: Final = ("nummer",)
"""The same of titles: a song in Dutch, a number in German."""
_WORD: Final = re.compile(r"[^\W\d_][^\d_:/]*[^\W\d_][^\d_:/]*")
"""A title of one word; ids have digits, underlines or colons."""
MS_FROM, S_BELOW = 10_000, 3_000
"""Lengths whose middle is above the one are milliseconds, below the other seconds."""
OPEN: Final = "COLUMN"
"""Stands in a mapping for a column that its user has to name."""
AMOUNTS: Final = ("time", "began", "played", "duration")
"""How the keys begin whose columns may hold numbers in a unit."""
_WITH_CLOCK: Final = re.compile(r"\d[\sT,]+\d{1,2}:\d\d")
_CLOCK: Final = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?(\s*[AaPp][Mm])?")


def usual_columns(columns: Sequence[str], values: Values | None = None) -> dict[str, str]:
    """Keys of a mapping and the columns that have a usual name, and usual values, for them."""
    values = values or {}
    # The first of a list of artists is the artist.
    single = {c: re.sub(r"s\.0(\.name)?$", "", c, flags=re.IGNORECASE) for c in columns}
    short = {column: without_unit(name) for column, name in single.items()}
    by_name = {folded(name): column for column, name in reversed(single.items())}
    for column, (name, _) in short.items():
        by_name.setdefault(name, column)
    in_units = {name: column for column, (name, unit) in reversed(short.items()) if unit}
    found: dict[str, str] = {}

    def propose(
        key: str, names: Sequence[str], among: Mapping[str, str], fits: Callable[[str], bool]
    ) -> None:
        free = [among[n] for n in names if n in among and among[n] not in found.values()]
        if chosen := next((column for column in free if fits(column)), None):
            found[key] = chosen

    def fits_key(column: str, key: str) -> bool:
        named = not key.startswith(AMOUNTS) and short[column][1]
        return _fits(key, column, values) and not (named and _are_numbers(values.get(column, ())))

    def in_unit(column: str, unit: str) -> bool:
        share = "%" in column
        return not share and unit == (short[column][1] or _unit(values.get(column)))

    def in_percent(column: str) -> bool:
        return "%" in column and fits_key(column, "played_share")

    ends = {telling_end(column): column for column in reversed(columns)}
    for key, names in USUAL_NAMES.items():
        for among in (by_name, ends):
            if key not in found:
                propose(key, names, among, lambda column, key=key: fits_key(column, key))  # type: ignore[misc]
    for what, names in WITHOUT_UNIT.items():
        if f"{what}_ms" in found:
            found.pop(f"{what}_s", None)
        elif f"{what}_s" not in found:
            for unit in ("ms", "s"):
                propose(f"{what}_{unit}", names, by_name, lambda c, unit=unit: in_unit(c, unit))  # type: ignore[misc]
    if not found.keys() & {"duration_ms", "duration_s"}:
        for unit in ("ms", "s"):
            propose(f"duration_{unit}", SONGS, in_units, lambda c, unit=unit: in_unit(c, unit))  # type: ignore[misc]
    if "played_ms" in found or "played_s" in found:
        found.pop("played_share", None)
    elif "played_share" not in found:
        propose("played_share", WITHOUT_UNIT["played"], by_name, in_percent)
    return _by_values(found, by_name, values)


def _by_values(found: dict[str, str], by_name: Mapping[str, str], values: Values) -> dict[str, str]:
    """Mend what names alone get wrong: times of day beside dates, titles that look like ids."""
    time = found.get("time")
    if time is not None and _all_clocks(values.get(time, ())):
        dates = [by_name[name] for name in DATES if name in by_name]
        dates = [name for name in dates if name != time and _times(values.get(name, ()))]
        whole = [name for name in dates if _have_clocks(values.get(name, ()))]
        if whole:
            found["time"] = whole[0]
        elif dates:
            found["date"] = dates[0]
        else:
            del found["time"]
    track = found.get("track")
    if track is not None and _are_titles(track, values.get(track, ()), alone="title" not in found):
        del found["track"]
        found.setdefault("title", track)
    _share_a_name(found, values)
    return found


def _share_a_name(found: dict[str, str], values: Values) -> None:
    """Tell ids and titles apart in columns of one name, such as ``track`` and ``Track``."""
    for column, texts in values.items():
        if folded(column) in _EITHER and column not in found.values() and _filled(texts):
            titles = _are_titles(column, texts, alone="title" not in found)
            found.setdefault("title" if titles else "track", column)


def _fits(key: str, column: str, values: Values) -> bool:
    """Whether the first values of a column are such as the key needs; yes where there are none."""
    filled = _filled(values.get(column, ()))
    if not filled:
        return True
    if key in ("time", "began"):
        return _times(filled) or _all_clocks(filled)
    if key == "title" and folded(column) in _OR_NUMBERS:
        return not _are_numbers(filled)
    if key in ("completed", "skipped", "shuffle"):
        return _share(parse_flag(text) != UNPARSABLE for text in filled) >= MOST
    if key == "source":
        parse = source_parser(column)
        return all(parse(text) >= 0 for text in filled)
    if key.startswith(("played", "duration")):
        numbers = NumberColumn(clocks=None if key == "played_share" else 1)
        texts = [text.rstrip("% ") for text in filled]
        return _share(~np.isnan(numbers.read_texts(np.array(texts, object))[0])) >= MOST
    return True


def _filled(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip().lower() not in EMPTY_VALUES]


def _share(flags: object) -> float:
    return float(np.mean([*flags]))  # type: ignore[misc]


def _times(texts: Sequence[str]) -> bool:
    filled = _filled(texts)
    if not filled:
        return False
    if date_evidence(np.array(filled, object))["dates"] >= MOST * len(set(filled)):
        return True
    return _share(parse_times(pa.array(filled), TimeSpelling(DAY_FIRST))[1]) >= MOST


def _all_clocks(texts: Sequence[str]) -> bool:
    filled = _filled(texts)
    return bool(filled) and all(_CLOCK.fullmatch(text) for text in filled)


def _have_clocks(texts: Sequence[str]) -> bool:
    """Whether times hold a time of day, beside a date."""
    filled = _filled(texts)
    return bool(filled) and _share(_WITH_CLOCK.search(text) is not None for text in filled) >= MOST


def _are_titles(column: str, texts: Sequence[str], *, alone: bool) -> bool:
    """Whether the values of a column that may hold ids are titles, of several words or of one.

    Titles of one word look like ids made of letters: only a column whose name says neither, and
    beside which no other holds titles, is taken to hold them.
    """
    filled = set(_filled(texts))
    if not filled:
        return False
    if _share(" " in text for text in filled) >= SPACED:
        return True
    either = folded(column) in _EITHER
    return either and alone and _share(bool(_WORD.fullmatch(text)) for text in filled) >= MOST


def _unit(texts: Sequence[str] | None) -> str:
    """The unit of times heard, or of lengths, by their size; empty where it does not show."""
    filled = _filled(texts or ())
    if not filled:
        return ""
    if not _are_numbers(filled):
        return ""
    middle = float(np.nanmedian(_numbers(filled)))
    return "ms" if middle >= MS_FROM else "s" if middle < S_BELOW else ""


def _are_numbers(texts: Sequence[str]) -> bool:
    filled = _filled(texts)
    return bool(filled) and _share(~np.isnan(_numbers(filled))) >= MOST


def _numbers(filled: Sequence[str]) -> npt.NDArray[np.float64]:
    """The values as numbers ``(n,)``, clocks as seconds, NaN for what is none."""
    return NumberColumn(clocks=1).read_texts(np.array(filled, object))[0]


def looks_like_plays(columns: Sequence[str]) -> bool:
    """Whether a table's columns name a time and a song."""
    found = usual_columns(columns)
    return "time" in found and ("track" in found or "title" in found)


def propose_mapping(columns: Sequence[str], values: Values | None = None) -> PlayMapping | None:
    """A mapping by usual names and by values; None where they do not say enough."""
    try:
        found = PlayMapping(**usual_columns(columns, values))
    except (ValueError, TypeError):
        return None
    return found if found.evidence else None


def explain_proposal(name: str, values: Values) -> str:
    """What to do with a table that looks like plays but comes without a mapping."""
    columns = [*values]
    mapping = propose_mapping(columns, values)
    found = usual_columns(columns, values) if mapping is None else mapping.described()
    lines = [
        f"{name} looks like a table of plays. By its columns it says:",
        *mapping_lines(found),
    ]
    if mapping is not None:
        lines += [
            "Nothing was read, since only you know whether that is so. If it is, run the same "
            f"command with --map {AUTO}; if not, with what is right, as in",
            f'  --map "{mapping.option()}"',
        ]
    else:
        needed = f"one of {', '.join(EVIDENCE)} (or, with --inferred-levels, none)"
        if found.keys() & EVIDENCE and "artist" not in found:
            needed = "track, or artist beside title"
        lines += [
            f"Which of its columns ({', '.join(columns)}) say the rest, above all {needed}, only "
            "you know: say it with --map, as in",
            f'  --map "{_written(_to_fill_in(found))}"',
        ]
    return "\n".join(lines)


def explain_half_told(columns: Sequence[str], values: Values) -> str | None:
    """What the columns of a table tell and do not, where it may be one of plays; else None."""
    found = usual_columns(columns, values)
    option = _to_fill_in(found)
    open_keys = [key for key, column in option.items() if column == OPEN]
    # Of the user, the time, the song, and how far it was heard; of the last three each may be open.
    if ("user" in found) + 3 - len(open_keys) < 2:
        return None
    return (
        f"may be a table of plays, but its columns do not tell {', '.join(open_keys)}. Say it, in "
        f'place of {OPEN}, with --map "{_written(option)}"'
    )


def _to_fill_in(found: Mapping[str, str]) -> dict[str, str]:
    """What was found in a table, and `OPEN` for what else a mapping needs."""
    option = {key: found.get(key, OPEN) for key in ("time", *found)}
    if "track" not in found and not ("title" in found and "artist" in found):
        beside = "title" if "artist" in found else "artist" if "title" in found else "track"
        option[beside] = OPEN
    if not found.keys() & EVIDENCE:
        option["played_ms"] = OPEN
    return option


def _written(option: Mapping[str, str]) -> str:
    return ",".join(f"{key}={column}" for key, column in option.items())


def explain_dates(name: str, column: str, texts: Sequence[str], mapping: PlayMapping) -> str:
    """What to do with a table in which nothing says which number of a date is the day."""
    value = next((text for text in texts if date_evidence(np.array([text], object))["dates"]), "")
    return (
        f"{name}: column {column} writes dates as {value!r}, and no value says whether the day or "
        "the month comes first. Say it with time_format=day-first or time_format=month-first, or "
        "with a pattern such as time_format=%d/%m/%Y %H:%M, as in\n"
        f'  --map "{mapping.option()},time_format={DAY_FIRST}"'
    )
