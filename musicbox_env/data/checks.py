"""Reading files that came from elsewhere: what cannot be right is refused by the file's name.

Compiled kernels check no bounds, so that every array that they read from a file is opened here:
type, dimensions and order first, then the values. `verdicts.once` keeps the second from being done
again.
"""

from __future__ import annotations

import json
import types
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from musicbox_env.errors import InputError, shown

Settings = TypeVar("Settings")

UNREADABLE: Final = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, SyntaxError),
    *(MemoryError, RuntimeError, BadZipFile, zlib.error, pa.ArrowException, TokenError),
)
"""What libraries raise on files that are damaged or were made to harm."""
LARGEST_JSON: Final = 64 << 20
LARGEST_ARRAYS: Final = 1 << 30
"""Bytes of the arrays of one file of weights, unpacked."""
LARGEST_NUMBER: Final = 1e6
"""Weights and settings beyond it are no result of fitting, and products of them overflow."""
LARGEST_WHOLE: Final = 2**53
LARGEST_FLOAT: Final = np.finfo(np.float64).max
UNIT_TOLERANCE: Final = 1e-3
BLOCK: Final = 1 << 16
"""Numbers that are looked at in one go: few enough to stay in the processor's cache."""
Limits = tuple[float, float]


class FileError(InputError):
    """A file holds what it should not; the message says what came, what was expected, the mend."""


@dataclass(frozen=True)
class CheckedFile:
    """A file that is read with distrust.

    Attributes:
        file: Where it lies.
        mend: What to do where it is refused; a sentence.
    """

    file: Path
    mend: str

    def refused(self, came: object, expected: str) -> FileError:
        """The error to raise."""
        return FileError(f"{self.file}: {came}; expected {expected}. {self.mend}")

    def require(self, right: object, came: object, expected: str) -> None:
        """Refuse the file unless it is right.

        Raises:
            FileError: It is not.
        """
        if not right:
            raise self.refused(came, expected)

    def require_regular(self) -> None:
        """Refuse what is no regular file: a pipe would be waited for, a device has no end.

        Raises:
            FileError: There is none.
        """
        self.require(self.file.is_file(), "there is no such file", "a regular file")

    def json(self) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            FileError: It holds something else, or is too large.
        """
        self.require_regular()
        size = self.file.stat().st_size
        self.require(size <= LARGEST_JSON, f"{size:,} bytes", f"{LARGEST_JSON:,} at most")
        try:
            text = self.file.read_bytes().decode("utf-8")
        except UNREADABLE as error:
            raise self.refused(f"no text ({error})", "a JSON object") from None
        return self.json_of(text)

    def json_of(self, text: str) -> dict[str, Any]:
        """The JSON object that a text of the file holds; see `json`."""
        try:
            content = json.loads(text)
        except UNREADABLE as error:
            raise self.refused(f"no JSON ({error})", "a JSON object") from None
        self.require(isinstance(content, dict), f"JSON {_kind(content)}", "a JSON object")
        return dict(content)

    def field(self, content: Mapping[str, Any], name: str, hint: Any) -> Any:
        """One value of a JSON object, by its declared type; see `built`.

        Raises:
            FileError: It is missing, or of another type.
        """
        self.require(name in content, f"no {name!r}", f"{name!r}, {_described(hint)}")
        return self._typed(content[name], hint, name)

    def built(
        self, cls: type[Settings], content: Any, where: str, *, defaults: bool = False
    ) -> Settings:
        """A dataclass from a JSON object, each field by its declared type.

        Types are bool, int, float, str, dict, optional ones and tuples of them. Numbers are finite.

        Args:
            cls: The dataclass.
            content: JSON object with the values of its fields.
            where: What the object is called.
            defaults: Whether fields may be missing, where the class has defaults for them.

        Raises:
            FileError: A field is missing, unknown, of another type, or refused by the class.
        """
        self.require(isinstance(content, dict), f"{where} is {_kind(content)}", "a JSON object")
        each = fields(cls)  # type: ignore[arg-type]
        known = [f.name for f in each]
        free = {f.name for f in each if {f.default, f.default_factory} != {MISSING}}
        wrong = content.keys() ^ set(known)
        if defaults:
            wrong -= free - content.keys()
        for name in sorted(wrong):
            verb = "holds no" if name in known else "holds an unknown"
            raise self.refused(f"{where} {verb} {name[:60]!r}", f"the keys {', '.join(known)}")
        hints = get_type_hints(cls)
        values = {n: self._typed(v, hints[n], f"{where}: {n}") for n, v in content.items()}
        try:
            return cls(**values)
        except ValueError as error:
            raise FileError(f"{self.file}: {where}: {error} {self.mend}") from None

    def require_form(self, value: Any, form: Any, where: str = "") -> None:
        """Refuse JSON of another form, at any depth.

        Args:
            value: The JSON value.
            form: A declared type as of `built`; a list of the form of each entry; or a dict of
                forms by name, where a name that ends with ? may be missing and * is any other.
            where: What the value is called; the whole of the file has no name.

        Raises:
            FileError: It has another form.
        """
        named = where or "it"
        if isinstance(form, list):
            self.require(isinstance(value, list), f"{named} is {_kind(value)}", "a list")
            for number, entry in enumerate(value):
                self.require_form(entry, form[0], f"{named}[{number}]")
        elif isinstance(form, dict):
            self._typed(value, dict, named)
            for name, inner in form.items():
                key = name.removesuffix("?")
                missing = key == name != "*" and key not in value
                self.require(not missing, f"{named} has no {key!r}", f"{key!r}")
                for found in value if name == "*" else {key} & value.keys():
                    of = f"{where}: " if where else ""
                    self.require_form(value[found], inner, of + shown(found)[:60])
        else:
            self._typed(value, form, named)

    def _typed(self, value: Any, hint: Any, where: str) -> Any:
        """A JSON value as its declared type, or refused."""
        origin, options = get_origin(hint), get_args(hint)
        if origin is Mapping:
            origin, hint = None, dict
        if origin in (Union, types.UnionType):
            if value is None and type(None) in options:
                return None
            return self._typed(value, options[0], where)
        if origin is tuple:
            self.require(isinstance(value, list), f"{where} is {_kind(value)}", _described(hint))
            each = options[:1] * len(value) if options[-1] is Ellipsis else options
            self.require(
                len(value) == len(each), f"{where} has {len(value)} values", f"{len(each)}"
            )
            return tuple(self._typed(v, h, where) for v, h in zip(value, each, strict=True))
        accepted = (int, float) if hint is float else (hint,)
        right = isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))
        if right and hint in (int, float):
            right = abs(value) <= (LARGEST_WHOLE if hint is int else LARGEST_NUMBER)
        self.require(right, f"{where} is {_kind(value)}", _described(hint))
        return float(value) if hint is float else value

    def array(self, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> npt.NDArray:
        """Map an ``.npy`` file as a plain view, indexing of which does not go through Python.

        Args:
            dtype: Its type.
            shape: Its shape; None is any number.

        Raises:
            FileError: It has another type, shape or order, or is no such file.
        """
        self.require_regular()
        try:
            with np.errstate(over="ignore"):
                mapped = np.lib.format.open_memmap(self.file, mode="r")
        except UNREADABLE as error:
            raise self.refused(f"no array ({error})", _of_shape(dtype, shape)) from None
        return self.checked(np.asarray(mapped), dtype, shape)

    def checked(
        self,
        found: npt.NDArray,
        dtype: npt.DTypeLike,
        shape: tuple[int | None, ...],
        name: str = "",
    ) -> npt.NDArray:
        """An array of the file, refused where it has another type, shape or order.

        Raises:
            FileError: It does.
        """
        alike = found.ndim == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
        )
        of, flags = f"{name} is " if name else "", found.flags
        came = f"{of}{found.dtype.str.lstrip('<|')} of shape {found.shape}"
        self.require(found.dtype == np.dtype(dtype) and alike, came, _of_shape(dtype, shape))
        self.require(
            flags.c_contiguous and flags.aligned, f"{came}, columns first or unaligned", "C order"
        )
        return found

    def arrays(self) -> dict[str, npt.NDArray]:
        """Read all arrays of an ``.npz`` file; nothing in it is executed.

        Raises:
            FileError: It holds something else, or is too large.
        """
        self.require_regular()
        try:
            with ZipFile(self.file) as members:
                size = sum(member.file_size for member in members.infolist())
            most = max(LARGEST_ARRAYS, self.file.stat().st_size)  # what is not packed may be larger
            self.require(size <= most, f"{size:,} bytes", f"{most:,} at most")
            with np.load(self.file, allow_pickle=False) as content:
                return {name: np.asarray(content[name]) for name in content.files}
        except FileError:
            raise
        except UNREADABLE as error:
            raise self.refused(f"no file of arrays ({error})", "an .npz file of numbers") from None

    def require_within(self, values: npt.NDArray, limits: Limits, name: str = "") -> None:
        """Refuse numbers out of range, NaN included.

        Args:
            values: C-contiguous, of any shape.
            limits: Smallest and largest that is allowed.
            name: What they are called.

        Raises:
            FileError: With the smallest and largest of some that came.
        """
        flat = values.reshape(-1)
        for start in range(0, len(flat), BLOCK):
            block = flat[start : start + BLOCK]
            low, high = block.min(), block.max()
            if not (low >= limits[0] and high <= limits[1]):
                of = f"{name} holds " if name else ""
                raise self.refused(
                    f"{of}values from {low} to {high}",
                    f"numbers from {limits[0]:g} to {limits[1]:g}",
                )

    def require_finite(self, values: npt.NDArray, name: str = "") -> None:
        """Refuse NaN, infinity, and what overflows when multiplied; see `require_within`."""
        self.require_within(values, (-LARGEST_NUMBER, LARGEST_NUMBER), name)

    def require_numbers(self, values: npt.NDArray, name: str = "") -> None:
        """Refuse what are no numbers, NaN, and infinity, however large; see `require_within`."""
        came = f"{name} is {values.dtype.str.lstrip('<|')}"
        self.require(values.dtype.kind in "biuf", came, "finite numbers")
        self.require_within(values, (-LARGEST_FLOAT, LARGEST_FLOAT), name)

    def require_unit_rows(self, vectors: npt.NDArray) -> None:
        """Refuse rows ``(n, d)`` that are not of norm 1; see `require_within`."""
        rows = max(1, BLOCK // max(vectors.shape[1], 1))
        norms = partial(np.einsum, "ij,ij->i")
        for start in range(0, len(vectors), rows):
            block = vectors[start : start + rows]
            limits = 1 - UNIT_TOLERANCE, 1 + UNIT_TOLERANCE
            with np.errstate(over="ignore", invalid="ignore"):
                squares = norms(block, block)
            self.require_within(squares, limits, "the squared norm of its rows")


def are_strings(field: pa.Field) -> bool:
    """Whether a column of a table holds strings."""
    return pa.types.is_string(field.type) or pa.types.is_large_string(field.type)


def _of_shape(dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    return f"{np.dtype(dtype)} of shape ({sizes})"


def _described(hint: Any) -> str:
    """What a declared type accepts."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is tuple:
        number = "" if options[-1] is Ellipsis else f"{len(options)} of "
        return f"a list, {number}{_described(options[0])}"
    if origin in (Union, types.UnionType):
        return f"{_described(options[0])} or null"
    names = {
        bool: "true or false",
        int: f"a whole number of at most {LARGEST_WHOLE:,}",
        float: f"a finite number of at most {LARGEST_NUMBER:,.0f}",
        str: "a string",
        dict: "a JSON object",
    }
    return names[hint]


def _kind(value: Any) -> str:
    """A JSON value as a message shows it: short, whatever it holds."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} values"
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        return "a whole number beyond all bounds"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
