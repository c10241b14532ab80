"""The claim of a run on its folder: what it was asked, so that a later call can go on with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from musicbox_env.data.dataset import UNFINISHED
from musicbox_env.data.writing import write_json
from musicbox_experiments.data.sources import without_home

FILE = "config.json"


def claim(
    out: Path, config: Any, *, incidental: Sequence[str] = (), overwrite: bool = False
) -> None:
    """Make a folder this run's own, or find it to be so already.

    Args:
        out: Folder of the run.
        config: What was asked, a dataclass.
        incidental: Fields of it that may change from call to call: they decide how the work is
            done or how much of it, never what comes out.
        overwrite: Throw away what another run left there.

    Raises:
        FileExistsError: The folder holds a run with other options.
    """
    file = out / FILE
    asked = as_stored(config)
    for name in incidental:
        asked.pop(name)
    if overwrite and out.exists():
        shutil.rmtree(out)
    if file.is_file():
        found = json.loads(file.read_text())
        other = sorted(name for name in {*asked, *found} if found.get(name) != asked.get(name))
        if other and _has_work_in(out):
            raise FileExistsError(
                f"{out} holds a run with other options ({', '.join(other)}). Name another folder "
                "with --out, or pass --overwrite to start anew."
            )
        if not other:
            print(f"Going on with the run in {out} (--overwrite starts anew).")
            return
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)


def as_stored(config: Any) -> dict[str, Any]:
    """The options of a command as they are stored."""
    stored: dict[str, Any] = json.loads(without_home(json.dumps(asdict(config), default=str)))
    return stored


def _has_work_in(out: Path) -> bool:
    """Whether a run got further than to find that its data cannot be read."""
    before = {FILE, "dataset" + UNFINISHED}
    return any(entry.name not in before for entry in out.iterdir())
