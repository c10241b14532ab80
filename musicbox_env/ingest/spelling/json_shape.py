"""Where the records of a JSON document are, told by its first bytes; and the numbers JSON lacks.

A table can stand in JSON in many ways: objects in a list or one a line, a list somewhere within an
object, and what ``DataFrame.to_json()`` writes: objects by row label (``orient="index"``), columns
as objects or lists (``"columns"``), lists beside a list of their names (``"split"``).
"""

from __future__ import annotations

import io
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import ijson

from musicbox_env.ingest.spelling.dialect import Rewritten, Source

MAX_DEPTH: Final = 64
MAX_DIGITS: Final = 600
"""Of one number: the parser crashes where Python refuses to read more, at 640 or 4,300."""
DIGITS_SAMPLED: Final = 32
_MANY_DIGITS: Final = re.compile(rb"[0-9]{%d}" % MAX_DIGITS)
_SAMPLED_DIGITS: Final = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS // DIGITS_SAMPLED))
MANY: Final = 8
"""Objects in a list of each object, on average, from which on the lists are the table."""
MAX_LEVELS: Final = 4
"""How deep within an object a table is looked for."""
_BARE: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_REST_OF_TEXT: Final = re.compile(rb'(?:[^"\\]|\\.)*"?', re.DOTALL)
_LETTERS: Final = string.ascii_letters.encode() + b"-"
LONGEST_WORD: Final = len(b"-Infinity")
_ROW_LABEL: Final = re.compile(r"-?\d+(\.0)?$|\d{4}-\d\d-\d\d")


class WithoutNan(Rewritten):
    """JSON as Python and pandas write it, with null for NaN and Infinity outside of texts."""

    def __init__(self, stream: Source) -> None:
        """Read this JSON."""
        super().__init__(stream)
        self._in_text = False
        self._kept = b""

    def _changed(self, data: bytes, last: bool) -> bytes:
        data, self._kept = self._kept + data, b""
        if not last:
            # A word or an escape at the end may go on in the next bytes.
            before = data.rstrip(_LETTERS)
            cut = len(data) - LONGEST_WORD
            if len(before) > cut:
                cut = len(before) - (len(before) - len(before.rstrip(b"\\"))) % 2
            data, self._kept = data[:cut], data[cut:]
        begun_in_text = self._in_text
        quotes = data.count(b'"')
        if b"\\" in data:
            quotes = data.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
        self._in_text ^= bool(quotes % 2)
        if b"NaN" not in data and b"Infinity" not in data:
            return data
        rest = b""
        if begun_in_text and (end := _REST_OF_TEXT.match(data)):
            rest, data = end[0], data[end.end() :]
        return rest + _BARE.sub(lambda m: m[0] if m[0].startswith(b'"') else b"null", data)


class ShortNumbers:
    """JSON up to a number of more than `MAX_DIGITS` digits, at which the parser would crash."""

    def __init__(self, stream: Source) -> None:
        """Read this JSON."""
        self._stream = stream
        self._before = b""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes; empty at the end.

        Raises:
            ijson.JSONError: A number is too long.
        """
        data = self._stream.read(size)
        seen = self._before + data
        # Few bytes tell where it is worth looking at all.
        if _SAMPLED_DIGITS.search(seen[::DIGITS_SAMPLED]) and _MANY_DIGITS.search(seen):
            raise ijson.JSONError(f"a number has more than {MAX_DIGITS} digits")
        self._before = seen[-MAX_DIGITS:]
        return data


@dataclass(frozen=True)
class Shape:
    """Where the records are.

    Attributes:
        kind: ``records`` are objects at the top or in lists there; ``list``, objects in the list
            at ``path`` within each object; ``index``, the values of the object at ``path``;
            ``columns``, one object or list for each column; ``split``, lists of values at
            ``path``, their names at ``names``; ``values``, lists of values without names.
        path: Names of what is around the records.
        names: Name of the list of the columns' names.
    """

    kind: Literal["records", "list", "index", "columns", "split", "values"] = "records"
    path: tuple[str, ...] = ()
    names: str = ""

    @property
    def where(self) -> str:
        """Where records were looked for, for a message; empty for the usual places."""
        told = {
            "list": f"in the list {'.'.join(self.path)!r}",
            "index": f"in the object {'.'.join(self.path)!r}" if self.path else "by row label",
            "columns": "column by column",
            "split": f"in the lists of {'.'.join(self.path)!r}",
            "values": "in lists without names of columns; write objects, as "
            "DataFrame.to_json(orient='records') does",
        }
        return told.get(self.kind, "")


SCHEMA: Final = "schema"
"""What ``DataFrame.to_json(orient="table")`` says of the columns."""
EACH: Final = "<number>"
"""In a path, in place of any name with a digit, as of a month or page."""


def fits(step: str, name: str) -> bool:
    """Whether a step of a path is, or stands for, a name."""
    return step == name or (step == EACH and _is_numbered(name))


def _is_numbered(name: str) -> bool:
    return any(map(str.isdigit, name))


def find_shape(head: bytes) -> Shape:
    """Tell where the records are by the first bytes of a document."""
    values, unfinished = beginning(head)
    if not values:
        return Shape()
    first = values[0]
    if isinstance(first, list):
        if first and all(isinstance(row, list) for row in first):
            return Shape("values")
        return _lists_of_each([item for item in first if isinstance(item, dict)])
    if not isinstance(first, dict):
        return Shape()
    if len(values) > 1:
        return _lists_of_each([value for value in values if isinstance(value, dict)])
    return _within(first, unfinished)


def _lists_of_each(objects: Sequence[dict[str, Any]]) -> Shape:
    """Objects are the records, unless each is a mere heading above many."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in objects:
        for path, items in _lists_of_objects(one):
            found.setdefault(path, []).extend(items)
    path = max(found, key=lambda path: len(found[path]), default=())
    if path:
        each = len(found[path]) / len(objects)
        heading = 2 * _count_plain(objects[0], path) <= _count_plain(found[path][0], ())
        if each >= MANY or (each >= 2 and heading):
            return Shape("list", path)
    return Shape()


def _count_plain(one: dict[str, Any], but: tuple[str, ...]) -> int:
    """Plain values within an object, those of the list at a path left out."""
    count = 0
    for name, value in one.items():
        if isinstance(value, dict):
            count += _count_plain(value, but[1:] if but[:1] == (name,) else ())
        elif but != (name,):
            count += 1
    return count


def _within(one: dict[str, Any], unfinished: Any) -> Shape:
    """Where the table is in a document that is a single object."""
    names = {k: v for k, v in one.items() if _all_are(v, str)}
    for key, rows in one.items():
        if _all_are(rows, list):
            for name, texts in names.items():
                if len(texts) == len(rows[0]):
                    return Shape("split", (key,), name)
    if lists := list(_lists_of_objects(one)):
        # What is still open where the first bytes end may be long; else the longest.
        longest = max(lists, key=lambda f: (f[1] is unfinished, len(f[1])))[0]
        return Shape("list", _numbered(lists) or _with_each(longest))
    columns = list(one.values())
    inner = [set(column) for column in columns if isinstance(column, dict)]
    labels = bool(inner) and all(_ROW_LABEL.match(key) for key in inner[0])
    if labels and len(inner) == len(columns) and not all(map(_ROW_LABEL.match, one)):
        return Shape("columns")
    lists_alone = [c for c in columns if isinstance(c, list) and len(c) > 1]
    if lists_alone and len(lists_alone) >= len(columns) - (unfinished is columns[-1]):
        return Shape("columns")
    if maps := list(_maps_of_objects(one)):
        return Shape("index", max(maps, key=lambda f: len(f[1]))[0])
    return Shape()


def _numbered(lists: Sequence[tuple[tuple[str, ...], list[Any]]]) -> tuple[str, ...]:
    """Where several lists of like records are, as by month or page; empty if nowhere."""
    names: dict[tuple[str, ...], list[set[str]]] = {}
    for path, items in lists:
        names.setdefault(_with_each(path), []).append(set(items[0]))
    alike = {path: len(of) for path, of in names.items() if EACH in path and len(of) > 1}
    # The first bytes may cut off the last record.
    alike = {
        path: n for path, n in alike.items() if all(of == names[path][0] for of in names[path][:-1])
    }
    return max(alike, key=lambda path: alike[path], default=())


def _with_each(path: tuple[str, ...]) -> tuple[str, ...]:
    """A path, and all that differ from it in numbers alone: others may follow the first bytes."""
    return tuple(EACH if _is_numbered(name) else name for name in path)


def _all_are(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, kind) for v in value)


def _lists_of_objects(
    one: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, value in one.items():
        if name == SCHEMA:
            continue
        if _all_are(value, dict):
            yield (*path, name), value
        elif isinstance(value, dict) and len(path) < MAX_LEVELS:
            yield from _lists_of_objects(value, (*path, name))


def _maps_of_objects(
    one: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Objects whose values are all objects of much the same names."""
    rows = list(one.values())
    if len(rows) > 1 and all(isinstance(row, dict) for row in rows):
        # The last one may be cut off by the end of the first bytes.
        whole = rows[:-1]
        shared = set.intersection(*(set(row) for row in whole))
        if len(shared) > 1:
            yield path, one
            return
    for name, value in one.items():
        if isinstance(value, dict) and len(path) < MAX_LEVELS:
            yield from _maps_of_objects(value, (*path, name))


def beginning(head: bytes) -> tuple[list[Any], Any]:
    """The values at the top of a document, as far as its first bytes hold them.

    Returns:
        The values, and the innermost list or object that is still open where the bytes end, or
        the list around it.
    """
    top: list[Any] = []
    stack: list[Any] = [top]
    names: list[str] = [""]
    text = ShortNumbers(WithoutNan(io.BytesIO(head)))
    try:
        for event, value in ijson.basic_parse(text, multiple_values=True, use_float=True):
            if event == "map_key":
                names[-1] = value
            elif event in ("end_map", "end_array"):
                stack.pop()
                names.pop()
            else:
                new = {"start_map": {}, "start_array": []}.get(event, value)
                if isinstance(stack[-1], list):
                    stack[-1].append(new)
                else:
                    stack[-1][names[-1]] = new
                if event.startswith("start"):
                    stack.append(new)
                    names.append("")
                    if len(stack) > MAX_DEPTH:
                        break
    except (ijson.JSONError, ArithmeticError, UnicodeError):
        pass
    open_lists = [value for value in stack[1:] if isinstance(value, list)]
    return top, (open_lists or stack[1:] or [None])[0 if open_lists else -1]
