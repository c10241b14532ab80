"""The one check of actions: their kind, shape and values, for one session and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

ActionSpace = spaces.Box | spaces.MultiDiscrete


def checked_actions(
    actions: Any, space: ActionSpace, playing: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    """Actions of sessions as an array, refused where they cannot be played.

    Args:
        actions: An action for each session ``(m, size)``, an array or nested lists. Proto-actions
            are floating or integer numbers, slates are integers.
        space: Of one session's action: a Box ``(size,)`` for proto-actions; for slates a
            MultiDiscrete ``(size,)`` with as many values a place as the catalog has tracks.
        playing: Which sessions are not over ``(m,)``; the values of the others are not checked.

    Returns:
        A contiguous array ``(m, size)``: proto-actions as float32, slates as int64 and never the
        caller's own array.

    Raises:
        ValueError: Anything else; the message says what came, what was expected and how to mend it.
    """
    if _is_masked(actions):
        raise ValueError(
            "Actions came as a masked array, and every place of an action needs a value; fill the "
            "masked ones with .filled(...)."
        )
    try:
        given = np.asarray(actions)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"Actions of type {type(actions).__name__} make no array ({error}); expected a row "
            f"for each session: {_kind(space)}."
        ) from error
    expected = (len(playing), *space.shape)
    if given.shape != expected:
        raise ValueError(_wrong_shape(given.shape, expected, space))
    if isinstance(space, spaces.MultiDiscrete):
        return _slates(given, space, playing)
    return _proto_actions(given, space, playing)


def _is_masked(actions: Any) -> bool:
    """Whether values are masked, which an array made of them would not show."""
    if type(actions) is np.ndarray:
        return False
    several = actions if isinstance(actions, list | tuple) else [actions]
    return any(isinstance(part, np.ma.MaskedArray) for part in several)


def _slates(
    given: npt.NDArray[Any], space: spaces.MultiDiscrete, playing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    if given.dtype.kind not in "iu":
        raise ValueError(
            f"A slate holds {given.dtype} values; expected integers, rows of the catalog. "
            "Convert them with .astype(np.int64), or take action='proto' for proto-actions."
        )
    slates = given.astype(np.int64, order="C")
    known = (slates >= 0) & (slates < space.nvec[0])
    if not known.all() and not known[playing].all():
        named = given[playing]
        raise ValueError(
            f"A slate names tracks from {named.min()} to {named.max()}; expected indices from 0 "
            f"to {space.nvec[0] - 1}, rows of the catalog."
        )
    return slates


def _proto_actions(
    given: npt.NDArray[Any], space: spaces.Box, playing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    if given.dtype.kind not in "fiu":
        raise ValueError(
            f"A proto-action holds {given.dtype} values; expected float32 numbers, {_kind(space)}."
        )
    if given.dtype == np.float32:
        proto_actions = np.ascontiguousarray(given)
    else:
        with np.errstate(over="ignore"):  # beyond float32 is infinity, which is refused below
            proto_actions = given.astype(np.float32, order="C")
    finite = np.isfinite(proto_actions)
    if not finite.all() and not finite[playing].all():
        raise ValueError(
            "A proto-action holds NaN or infinity (as float32); expected finite numbers, usually "
            "in [-1, 1]. Look at the policy's output or its learning rate."
        )
    return proto_actions


def _wrong_shape(given: tuple[int, ...], expected: tuple[int, ...], space: ActionSpace) -> str:
    """Say what is wrong with one action where their number is right, as in a single environment."""
    if given[:1] == expected[:1]:
        return f"An action has shape {given[1:]}; expected {expected[1:]}: {_kind(space)}."
    return (
        f"Actions have shape {given}; expected {expected}, a row for each of {expected[0]} "
        f"sessions: {_kind(space)}."
    )


def _kind(space: ActionSpace) -> str:
    """What an action is, and the option that changes it."""
    if isinstance(space, spaces.MultiDiscrete):
        return (
            "tracks of a slate in the order heard; slates of another length need slate_size=... "
            "of the environment"
        )
    return (
        "coordinates of the embedding space: with action='proto' of one proto-action, with "
        "action='proto_list' of one for each place of the slate, side by side (.reshape(-1)); the "
        "environment's options embedding and slate_size decide how many"
    )
