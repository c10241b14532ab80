"""The folder of a run: it holds the run's options, so that a later call can go on with it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import UNFINISHED, Dataset
from musicbox_env.data.folders import Kind, remove
from musicbox_env.data.writing import write_json
from musicbox_env.locks import lock_file
from musicbox_env.schema import brief
from musicbox_experiments.data.sources import without_home
from musicbox_experiments.text import say

FILE = "config.json"
MADE_ON = "made_on.json"
"""Which dataset a run was made on: `Dataset.identity`."""


RUN = Kind(
    "run",
    (FILE, MADE_ON),
    (
        *(FILE, MADE_ON, "agents", "rollouts", "evaluate-*", "trials", "listeners", "tensorboard"),
        *("train_a*", "train_b*", "test-fold-*", "search.journal*", "best.json", "compare"),
        *("report.html", "summary.json", "results.csv", "trust.html", "trust.json", "*.png"),
        *(f"{name}{ending}" for name in ("dataset", "raw") for ending in ("", f"*{UNFINISHED}")),
    ),
    {"rollouts": ("*.npz", "*.made_of")},
)


@contextmanager
def prepared_folder(
    out: Path, config: Any, *, incidental: Sequence[str] = (), overwrite: bool = False
) -> Iterator[None]:
    """Make the folder of a run, or check that it holds this very run; the block works in it.

    A block that fails before it has made anything leaves no folder.

    Args:
        out: Folder of the run.
        config: Its options, a dataclass with the `Source` of the run.
        incidental: Fields of it that may change from call to call: they decide how the work is
            done, or how much of it, and change nothing that is there.
        overwrite: Delete what another run left there.

    Raises:
        FileExistsError: The folder holds a run with other options, or what is no run.
        ValueError: The data are none, or lie in the folder that is to be deleted.
    """
    config.source.require()
    options, is_run = as_stored(config), (out / MADE_ON).is_file()
    found = None if overwrite and is_run else _options_in(out)
    if overwrite:
        _require_outside(out, config)
        RUN.require_own(out)
        for entry in out.iterdir() if out.exists() else ():
            remove(entry)
    elif found is not None:
        there, here = (
            {name: value for name, value in of.items() if name not in incidental}
            for of in (found, options)
        )
        other = _differences(there, here)
        begun = _has_work_in(out)
        if other and begun:
            raise FileExistsError(
                f"{out} holds a run with other options: {'; '.join(other)}. Name another folder "
                "with --out, or pass --overwrite to start anew."
            )
        if begun:
            say(f"Going on with the run in {out} (--overwrite starts anew).")
    elif _has_work_in(out) and not is_run:
        RUN.require_own(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, options)
    try:
        yield
    except BaseException:
        if [entry.name for entry in out.iterdir()] == [FILE]:
            remove(out)
        raise


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], of: str = "") -> list[str]:
    """What differs between stored options, a line each."""
    found = []
    for name in sorted({*there, *here}):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{of}{name}.")
        elif old != new:
            found.append(f"{of}{name} is {brief(old)} there and {brief(new)} here")
    return found


def _options_in(out: Path) -> dict[str, Any] | None:
    """The options of the run in a folder, None where none are stored.

    Raises:
        FileError: A file of that name is no run's.
    """
    file = CheckedFile(out / FILE, "Move it away, or name another folder with --out.")
    if not os.path.lexists(file.file):
        return None
    found = file.json()
    file.require({"source", "out"} <= found.keys(), "JSON of another program", "options of a run")
    return found


def _require_outside(out: Path, config: Any) -> None:
    """Refuse to delete what a run reads.

    Raises:
        ValueError: It lies in the folder of the run.
    """
    source, listeners = config.source, (config.listener, *getattr(config, "evaluator", ()))
    for name in (source.data, *source.sessions, *source.tracks, *listeners):
        path = Path(name or os.curdir)
        if name and path.exists() and path.resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"{path} lies in {out}, which --overwrite would delete. Move it away, or name "
                "another folder with --out."
            )


def require_data(out: Path, dataset: Dataset) -> None:
    """Note which dataset a run is made on; refuse other data, maybe under the same path.

    Args:
        out: Folder of the run.
        dataset: What a command works on there.

    Raises:
        ValueError: The folder holds work on another dataset, or does not say on which.
    """
    require_made_on(out, dataset, _MEND)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / MADE_ON, dataset.identity)


def require_made_on(run: Path, dataset: Dataset, mend: str) -> None:
    """Refuse a run that was made on another dataset; ``mend`` tells how to go on.

    Raises:
        ValueError: As `require_data`.
    """
    if _has_work_in(run):
        file = run / MADE_ON
        found = CheckedFile(file, mend).json() if file.exists() else None
        dataset.require_same(found, f"The run in {run}", mend)


_MEND = "Name another folder with --out, or remove that one to start anew."


def as_stored(config: Any) -> dict[str, Any]:
    """The options of a command as they are stored; on which cluster it ran changes nothing."""
    stored: dict[str, Any] = json.loads(without_home(json.dumps(asdict(config), default=str)))
    stored.pop("cluster", None)
    return stored


def _has_work_in(out: Path) -> bool:
    """Whether a run got further than to make and open its data; listeners name theirs."""
    made = {name + ending for name in ("dataset", "raw") for ending in ("", UNFINISHED)}
    before = {
        FILE,
        MADE_ON,
        "listeners",
        *made,
        *(lock_file(out / name).name for name in ("dataset", "raw")),
    }
    return out.is_dir() and any(entry.name not in before for entry in out.iterdir())
