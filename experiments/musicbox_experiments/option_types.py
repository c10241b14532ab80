"""Numbers on the command line, refused in plain words where they are none."""

from functools import partial
from typing import Any, get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}
"""What is expected where an option is of a type, or of it or None."""


def plain_words() -> ConstructorRegistry:
    """How tyro reads the types of options that `NUMBERS` holds."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_number_rule)
    return registry


def _number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    kinds = get_args(info.type) or (info.type,)
    kind, optional = kinds[0], kinds[1:] == (type(None),)
    if kind not in NUMBERS or len(kinds) != 1 + optional:
        return None
    accepted = {kind, *((int,) if kind is float else ()), *kinds[1:]}
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{None}|" * optional + kind.__name__.upper(),
        instance_from_str=partial(_number, kind, optional),
        is_instance=lambda value: type(value) in accepted,
        str_from_instance=lambda value: [str(value)],
    )


def _number(kind: Any, optional: bool, words: list[str]) -> Any:
    """The number, or None, that a word of the command line is.

    >>> _number(int, True, ["20"])
    20

    Raises:
        ValueError: It is none; tyro says so beside the option's name.
    """
    if optional and words == ["None"]:
        return None
    try:
        return kind(words[0])
    except ValueError:
        raise ValueError(f"{words[0]!r} came; {NUMBERS[kind]} expected.") from None
