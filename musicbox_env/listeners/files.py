"""Files of fitted listeners: arrays, and beside them JSON that says what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.checks import CheckedFile, FileError

FORMAT_VERSION: Final = 1
KINDS: Final = ("learned", "similarity")
ABOUT: Final = "about"
MEND: Final = "It must be a file that `musicbox fit-listener` wrote; fit the listener again."


def require_own_file(path: Path, read: Callable[[Path], object]) -> None:
    """Refuse to write over a folder or a foreign file, before hours are spent on what goes there.

    Args:
        path: File to write.
        read: Reads what was written there before.

    Raises:
        ValueError: It is a folder.
        FileExistsError: It holds something else.
    """
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name the file to write, as {path}/fitted.npz.")
    if not os.path.lexists(path):
        return
    try:
        read(path)
    except FileError as error:
        raise FileExistsError(
            f"--out {path} holds something else than is to be written, and is left alone. Move it "
            "away, or name another file."
        ) from error
    except ValueError:  # what another version wrote
        pass


def write_fit(path: Path, about: Mapping[str, Any], arrays: Mapping[str, npt.NDArray]) -> None:
    """Write a fitted listener, whole or not at all.

    Args:
        path: File to write, ``.npz``.
        about: What it is; ``"listener"`` names one of `KINDS`.
        arrays: Its weights by name.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, **about}, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{ABOUT: np.array(text)}, **arrays)
    os.replace(temporary, path)


def read_fit(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray]]:
    """Read what `write_fit` wrote; nothing in the file is executed.

    Raises:
        FileNotFoundError: There is no such file; the message says how to make one.
        ValueError: It is of another version.
        FileError: It is not a fitted listener.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no fitted listener {path}; make one with "
            f"`musicbox fit-listener DATA --out {path}`."
        )
    checked = CheckedFile(path, MEND)
    arrays = checked.arrays()
    text = arrays.pop(ABOUT, None)
    checked.require(text is not None and text.dtype.kind == "U", f"no {ABOUT}", "a listener")
    about = checked.json_of(str(text))
    if about.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {about.get('format_version')}, and this MusicBox reads "
            f"version {FORMAT_VERSION}; fit the listener again."
        )
    kind = checked.field(about, "listener", str)
    checked.require(kind in KINDS, f"a {kind[:60]!r} listener", f"one of {', '.join(KINDS)}")
    return about, arrays
