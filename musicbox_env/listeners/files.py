"""Files of fitted listeners: arrays, and beside them JSON that says what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from musicbox_env.schema import require_known

FORMAT_VERSION: Final = 1
KINDS: Final = ("learned", "similarity")
ABOUT: Final = "about"


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
        ValueError: It is not a fitted listener, or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no fitted listener {path}; make one with "
            f"`musicbox fit-listener DATA --out {path}`."
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        about: dict[str, Any] = json.loads(str(arrays.pop(ABOUT)))
    except (BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a fitted listener ({error}); it must be a file that "
            "`musicbox fit-listener` wrote."
        ) from None
    if about.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {about.get('format_version')}, and this MusicBox reads "
            f"version {FORMAT_VERSION}; fit the listener again."
        )
    require_known("kind of fitted listener", about.get("listener", ""), KINDS)
    return about, arrays
