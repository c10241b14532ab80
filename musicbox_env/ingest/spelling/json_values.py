"""Values of JSON as those of a table, taken from the events of a parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import ijson

from musicbox_env.ingest.spelling.json_shape import MAX_DEPTH

Record = dict[str, str | None]
Events = Iterator[tuple[str, Any]]
TOO_DEEP: Final = f"values are nested more than {MAX_DEPTH} deep"
_FLAGS: Final = {True: "true", False: "false"}


def read_object(events: Events, depth: int, twice: set[str]) -> Record:
    """The rest of an object: its plain values, and those inside under dotted names.

    Names that begin with ``$`` only say of what type a value is, as in ``{"$date": ...}``. To
    ``twice`` go those of several values.
    """
    if depth > MAX_DEPTH:
        raise ijson.JSONError(TOO_DEEP)
    record: Record = {}
    name = ""
    for event, value in events:
        if event == "map_key":
            name = value
            if name in record:
                twice.add(name)
        elif event == "string":
            record[name or " "] = value
        elif event == "end_map":
            break
        elif event == "start_map" or event == "start_array":
            read = read_object if event == "start_map" else first_value
            inner: set[str] = set()
            for key, text in read(events, depth + 1, inner).items():
                full = name if key.startswith("$") else f"{name}.{key}"
                if full in record and full != name:
                    twice.add(full)
                record[full] = text
            twice.update(f"{name}.{key}" for key in inner)
        else:
            record[name or " "] = text_of(value)
    return record


def first_value(events: Events, depth: int, twice: set[str]) -> Record:
    """The first value of the rest of a list, as number 0 of its values."""
    if depth > MAX_DEPTH:
        raise ijson.JSONError(TOO_DEEP)
    first: Record | None = None
    for event, value in events:
        inner: set[str] = set()
        if event == "end_array":
            break
        if event == "start_map":
            found = {f"0.{k}": text for k, text in read_object(events, depth + 1, inner).items()}
        elif event == "start_array":
            found = {f"0.{k}": text for k, text in first_value(events, depth + 1, inner).items()}
        else:
            found = {"0": text_of(value)}
        if first is None:
            first = found
            twice.update(f"0.{key}" for key in inner)
    return first or {}


def plain_values(events: Events) -> list[str | None]:
    """The rest of a list as texts; what is no plain value is nothing."""
    values: list[str | None] = []
    for event, value in events:
        if event == "end_array":
            break
        if event in ("start_map", "start_array"):
            (read_object if event == "start_map" else first_value)(events, 1, set())
            values.append(None)
        else:
            values.append(text_of(value))
    return values


def text_of(value: Any) -> str | None:
    """A plain value as text; None where there is none."""
    if isinstance(value, bool):
        return _FLAGS[value]
    return None if value is None else str(value)
