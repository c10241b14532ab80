"""The folder of a run: it holds the run's options, so that a later call can go on with it."""

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


def prepare_folder(
    out: Path, config: Any, *, incidental: Sequence[str] = (), overwrite: bool = False
) -> None:
    """Make the folder of a run, or check that it holds this very run.

    Args:
        out: Folder of the run.
        config: Its options, a dataclass.
        incidental: Fields of it that may change from call to call: they decide how the work is
            done, or how much of it, and change nothing that is there.
        overwrite: Delete what another run left there.

    Raises:
        FileExistsError: The folder holds a run with other options.
    """
    file = out / FILE
    options = as_stored(config)
    if overwrite and out.exists():
        shutil.rmtree(out)
    if file.is_file():
        found = json.loads(file.read_text())
        names = {*options, *found} - set(incidental)
        other = sorted(name for name in names if found.get(name) != options.get(name))
        if other and _has_work_in(out):
            raise FileExistsError(
                f"{out} holds a run with other options ({', '.join(other)}). Name another folder "
                "with --out, or pass --overwrite to start anew."
            )
        if not other:
            print(f"Going on with the run in {out} (--overwrite starts anew).")
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, options)


def as_stored(config: Any) -> dict[str, Any]:
    """The options of a command as they are stored."""
    stored: dict[str, Any] = json.loads(without_home(json.dumps(asdict(config), default=str)))
    return stored


def _has_work_in(out: Path) -> bool:
    """Whether a run got further than to find that its data cannot be read."""
    before = {FILE, "dataset" + UNFINISHED}
    return any(entry.name not in before for entry in out.iterdir())
