"""When listeners leave: the chance, after each song, that it was the last one of the session.

A logged session ends because the log cuts it, at 20 plays in the published data, or because the
listener left. Only the second says something of listeners, so the length of a session is modelled
as a discrete-time hazard, sessions that were cut being censored (Allison, Sociological Methodology
13, 1982)::

    P(leave after song t | there at song t)
        = sigmoid(position[t] + last[level of t] + before[level of t - 1]
                  + skip_rate * (share skipped of the songs before t - 1/2))

and 0 as long as no logged session is so short: the published data hold none below 10 plays, by a
filter of the release. Beyond the last position in the log the hazard is unknown, and stays as it
is there.

The model supports claims about how long simulated sessions last. It supports none about songs. In
the published log listeners leave after songs heard to the end, and hardly ever after a skip: who
skips is there to press the button, and who leaves lets the song end. So an agent that is rewarded
for long sessions would learn to be skipped. That is why leaving is off by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.checks import CheckedFile
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import skip_share
from musicbox_env.data.writing import write_json
from musicbox_env.schema import NUM_LEVELS, brief, suggest

PUBLISHED: Final = "published"
FITTED: Final = "fitted"
LEAVING: Final = (PUBLISHED, FITTED)
FILE: Final = "leaving.json"
FITTED_ON: Final = "fitted_on"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class LeavingModel:
    """A discrete-time hazard of leaving, on the logit scale; see the module.

    Attributes:
        first: Songs after which leaving is first possible.
        position: Of leaving after ``first``, ``first + 1``, ... songs.
        last: Added for each level of the song just heard ``(5,)``.
        before: Added for each level of the song before it ``(5,)``.
        skip_rate: Times the share skipped of all songs before the last, less one half.
    """

    first: int
    position: tuple[float, ...]
    last: tuple[float, ...] = (0.0,) * NUM_LEVELS
    before: tuple[float, ...] = (0.0,) * NUM_LEVELS
    skip_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("position", "last", "before"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if self.first < 2 or not self.position:
            raise ValueError(
                f"first is {self.first} and position {self.position}; expected leaving to be "
                "possible after 2 songs or more, and a logit for at least one position."
            )
        for name in ("last", "before"):
            if len(getattr(self, name)) != NUM_LEVELS:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {NUM_LEVELS} numbers.")
        numbers = (*self.position, *self.last, *self.before, self.skip_rate)
        if not np.isfinite(numbers).all():
            raise ValueError("A leaving model holds NaN or infinity; fit it again.")

    @classmethod
    def published(cls) -> LeavingModel:
        """Position alone, from the lengths of the 124,950,714 published training sessions."""
        from scipy.special import logit

        from musicbox_env.synthetic.published import session_lengths  # needs pandas

        lengths, shares = session_lengths()
        there = shares[::-1].cumsum()[::-1]
        return cls(int(lengths[0]), tuple(logit(shares[:-1] / there[:-1])))

    def chances(
        self, levels: npt.NDArray[np.integer], count: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.float64]:
        """Chance that the song just heard was each session's last ``(m,)``.

        Args:
            levels: Levels heard, in order ``(m, w)``; places from ``count`` on do not matter.
            count: Songs heard ``(m,)``, at least 2.
        """
        from scipy.special import expit  # late: most environments need no scipy

        rows = np.arange(len(levels))
        place = np.clip(count - self.first, 0, len(self.position) - 1)
        hazard = (
            np.asarray(self.position)[place]
            + np.asarray(self.last)[levels[rows, count - 1]]
            + np.asarray(self.before)[levels[rows, count - 2]]
            + self.skip_rate * (skip_share(levels, count - 1) - 0.5)
        )
        return np.where(count >= self.first, expit(hazard), 0.0)

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write to a JSON file; ``about`` holds the `Dataset.identity` `FITTED_ON`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format_version": FORMAT_VERSION, "leaving": asdict(self), **about}
        write_json(path, content)

    @classmethod
    def load(cls, path: Path, dataset: Dataset) -> LeavingModel:
        """Read from a file that `save` wrote for a dataset, or for the whole that it is a part of.

        Raises:
            FileNotFoundError: There is no such file; the message says how to make one.
            FileError: It holds something else.
            ValueError: It was fitted on another dataset, or does not say on which.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no leaving model {path}; make one with `musicbox fit-leaving DATA`, or "
                f"take leaving={PUBLISHED!r}."
            )
        model, fitted_on = cls.read(path)
        if fitted_on != dataset.whole.identity:
            mend = f"Fit one with `musicbox fit-leaving {dataset.folder}`."
            dataset.require_same_catalog(fitted_on, f"The leaving model {path}", mend)
        return model

    @classmethod
    def read(cls, path: Path) -> tuple[LeavingModel, object]:
        """What `save` wrote: the model, and the identity of the dataset that it was fitted on.

        Raises:
            FileError: The file holds something else.
        """
        file = CheckedFile(path, "It must be a file that `musicbox fit-leaving` wrote.")
        content = file.json()
        version = file.field(content, "format_version", int)
        file.require(version == FORMAT_VERSION, f"format version {version}", str(FORMAT_VERSION))
        return file.built(cls, content.get("leaving"), "leaving"), content.get(FITTED_ON)


def require_leaving(name: str | None) -> None:
    """Refuse what names no leaving model.

    Raises:
        ValueError: With a suggestion.
    """
    if name is not None and name not in LEAVING and not str(name).endswith(".json"):
        raise ValueError(
            f"Unknown leaving {brief(name)}; {suggest(str(name), LEAVING)} Or None, or the path of "
            "a JSON file that `musicbox fit-leaving` wrote."
        )


def make_leaving(name: str | None, dataset: Dataset) -> LeavingModel | None:
    """The leaving model that a keyword names, or None where nobody leaves.

    Args:
        name: None; ``"published"``, by position alone as in the published data; ``"fitted"``, the
            dataset's own, DATA/leaving.json; or the path of such a file.
        dataset: The sessions to simulate.
    """
    require_leaving(name)
    if name is None:
        return None
    if name == PUBLISHED:
        return LeavingModel.published()
    return LeavingModel.load(dataset.folder / FILE if name == FITTED else Path(name), dataset)
