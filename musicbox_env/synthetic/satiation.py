"""Wear-out: what a session heard makes songs like it likelier to be skipped.

The term of the skip logit that makes the order of songs matter (`law` has all others)::

    wear(j) = sum over a >= lag of decay ** (a - lag) * max(0, v_j . v_heard[a] - threshold)
    skip logit + strength * (wear(j) - center[songs heard])

``heard[0]`` is the song just heard, ``heard[1]`` the one before it; v are the unit vectors of the
tracks, so that wear is without unit and ``strength`` in logits. A song is felt ``lag`` songs after
it could be felt first, and then fades. Kept and skipped songs wear out alike, and what was heard of
j itself is left out: what hearing it again does is the law's ``repeat``, which figures fix.

``center`` is the mean wear of logged plays at each place. So the level of skipping in logged
sessions is the same at any strength, and a selection that wears out less than a logged one does is
skipped less. How strong the effect is, how long it lasts and when it is felt is an assumption: the
published figures do not say. Its kind is known from logs and user models: boredom with what the
last slates held (sardine), a level of exposure that each listening raises and time lets fade
(Ex2Vec, after Berlyne's inverted U; PISA, after ACT-R's base level). Those are about the same item
or topic heard again; that it reaches other songs by their cosine is this world's own choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.kernels import compiled, dot
from musicbox_env.schema import require_known

Array = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]

LARGEST_SPREAD: Final = 0.6
"""Largest sd of the term over logged plays, in logits: the published figures hold up to here."""
LEAST_STRENGTH, LARGEST_STRENGTH = 1e-6, 100.0
LONGEST_LAG: Final = 50
CENTER_DIGITS: Final = 4


@dataclass(frozen=True)
class Satiation:
    """Parameters of wear-out, and the term of the skip logit; the module says what they mean.

    Attributes:
        strength: Logits for each unit of wear.
        decay: What is left of a song's effect after each further song.
        lag: Songs that pass before one is felt; with 0 the very next song feels it.
        threshold: Cosine up to which songs do not wear each other out.
        center: Wear of the average logged play at each session position; later places are as the
            last.
    """

    strength: float
    decay: float = 0.8
    lag: int = 0
    threshold: float = 0.3
    center: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", tuple(float(v) for v in self.center))
        if not LEAST_STRENGTH <= self.strength <= LARGEST_STRENGTH:
            raise ValueError(
                f"The strength of satiation is {self.strength:g} logits; it must be from "
                f"{LEAST_STRENGTH:g} to {LARGEST_STRENGTH:g}. A world without satiation has none."
            )
        if not 0 <= self.decay < 1:
            raise ValueError(f"The decay of satiation is {self.decay:g}; it must be in [0, 1).")
        if not 0 <= self.lag <= LONGEST_LAG or self.lag != int(self.lag):
            raise ValueError(
                f"The lag of satiation is {self.lag:g}; it must be a whole number of songs from 0 "
                f"to {LONGEST_LAG}."
            )
        object.__setattr__(self, "lag", int(self.lag))
        if not -1 <= self.threshold < 1:
            raise ValueError(
                f"The threshold of satiation is {self.threshold:g}; it is a cosine in [-1, 1)."
            )
        if not self.center:
            raise ValueError("center is empty; give the mean wear of at least one position.")

    def centred(self, songs: Ints, vectors: Vectors) -> Satiation:
        """The same, centred on what logged sessions play.

        Args:
            songs: Songs of logged sessions in order ``(n, places)``.
            vectors: Unit vectors of all tracks ``(num_tracks, d)``.

        Raises:
            ValueError: Logged plays would differ so much by what was heard before them that no
                centre gives the published figures.
        """
        wear = self.wear_in_order(songs[:, :0], songs, vectors)
        center = wear.mean(axis=0)
        spread = float((wear - center).std())
        if self.strength * spread > LARGEST_SPREAD:
            most = np.floor(100 * LARGEST_SPREAD / spread) / 100
            raise ValueError(
                f"Satiation of strength {self.strength:g}, decay {self.decay:g} and lag {self.lag} "
                f"moves the skip logits of logged plays by {self.strength * spread:.2f} (sd), at "
                f"which they no longer have the published figures; give a strength of at most "
                f"{most:g}: {most:g},{self.decay:g},{self.lag}."
            )
        return replace(self, center=tuple(center.round(CENTER_DIGITS)))

    def logit(self, wear: npt.ArrayLike, heard: npt.ArrayLike) -> Array:
        """What wear adds to the skip logit.

        Args:
            wear: From `wear` or `wear_in_order`.
            heard: Songs that the session heard before; of one shape with ``wear``, or one that
                broadcasts to it.

        Returns:
            Of the shape of ``wear``.
        """
        usual = np.asarray(self.center)[np.minimum(heard, len(self.center) - 1)]
        return self.strength * (np.asarray(wear, np.float64) - usual)

    def wear(self, heard: Ints, songs: Ints, vectors: Vectors) -> Array:
        """Wear of candidates, each as the next song.

        Args:
            heard: Songs that sessions heard, in order ``(n, h)``, -1 for none.
            songs: Candidates ``(n, c)``, or the same for all ``(1, c)``; no -1.
            vectors: Unit vectors of all tracks ``(num_tracks, d)``.

        Returns:
            ``(n, c)``.
        """
        found = np.zeros((len(heard), songs.shape[1]))
        before = np.ascontiguousarray(heard, np.int64)
        _wear(before, songs, vectors, self.threshold, self.decay, self.lag, found)
        return found

    def wear_in_order(self, heard: Ints, songs: Ints, vectors: Vectors) -> Array:
        """Wear of songs that are heard one after the other.

        Args:
            heard: Songs that sessions heard before them, in order ``(n, h)``, -1 for none.
            songs: Songs in order ``(n, k)``, -1 where none is heard.
            vectors: Unit vectors of all tracks ``(num_tracks, d)``.

        Returns:
            ``(n, k)``, 0 where no song is heard.
        """
        found, known = np.zeros(songs.shape), np.maximum(songs, 0)
        so_far = np.concatenate([heard, songs], axis=1)
        for place in range(songs.shape[1]):
            before = so_far[:, : heard.shape[1] + place]
            found[:, place] = self.wear(before, known[:, [place]], vectors)[:, 0]
        return np.where(songs >= 0, found, 0.0)


NONE: Final = "none"
SATIATION_LEVELS: Final[Mapping[str, Satiation | None]] = MappingProxyType(
    {
        NONE: None,
        "default": Satiation(1.0),
        "high": Satiation(2.0, decay=0.7),
        "late": Satiation(2.0, decay=0.9, lag=6),
    }
)
"""Satiation by name. None of them follows from data."""
NUMBERS: Final = "or up to three finite numbers, STRENGTH,DECAY,LAG, such as 2,0.9,6."
"""What may stand in place of a name."""


def _or_numbers(message: str) -> ValueError:
    """An unknown name, with what may stand in its place."""
    return ValueError(f"{message.removesuffix('.')}, {NUMBERS}")


def satiation_of(value: str | float) -> Satiation | None:
    """Satiation by a name of `SATIATION_LEVELS`, or by its numbers; None where there is none.

    >>> satiation_of("2,0.9,6") == SATIATION_LEVELS["late"]
    True

    Args:
        value: A name, or ``"STRENGTH"``, ``"STRENGTH,DECAY"`` or ``"STRENGTH,DECAY,LAG"``; a
            strength of 0 is none.

    Raises:
        ValueError: No such name, or numbers that cannot be.
    """
    try:
        numbers = [float(part) for part in str(value).split(",")]
    except ValueError:
        require_known("satiation", str(value), SATIATION_LEVELS, _or_numbers)
        return SATIATION_LEVELS[str(value)]
    if len(numbers) > 3 or not np.isfinite(numbers).all():
        raise ValueError(
            f"satiation is {value!r}; expected one of {', '.join(SATIATION_LEVELS)}, {NUMBERS}"
        )
    none = numbers[0] == 0
    given = dict(
        zip(("strength", "decay", "lag"), [none or numbers[0], *numbers[1:]], strict=False)
    )
    found = Satiation(**given)  # type: ignore[arg-type]  # it refuses a lag that is not whole
    return None if none else found


@compiled
def alike(vectors: Vectors, one: int, other: int, threshold: float) -> float:
    """How much a song heard wears out another: their cosine above the threshold, 0 for itself."""
    if one == other:
        return 0.0
    return max(dot(vectors[one], vectors[other]) - threshold, 0.0)


@compiled
def _wear_of(
    song: int, heard: Ints, count: int, vectors: Vectors, threshold: float, decay: float, lag: int
) -> float:
    """Wear of one song after the first ``count`` of one session's songs, none of which is -1."""
    total, weight = 0.0, 1.0
    for age in range(lag, count):
        total += weight * alike(vectors, heard[count - 1 - age], song, threshold)
        weight *= decay
    return total


@compiled
def _copied(songs: Ints, into: Ints) -> int:
    """Copy a row's songs, without its -1, to the front of another row; how many there are."""
    count = 0
    for song in songs:
        if song >= 0:
            into[count] = song
            count += 1
    return count


@compiled
def _wear(
    heard: Ints,
    songs: Ints,
    vectors: Vectors,
    threshold: float,
    decay: float,
    lag: int,
    found: Array,
) -> None:
    """See `Satiation.wear`; ``found`` is changed."""
    so_far = np.empty(heard.shape[1], np.int64)
    for i in range(len(heard)):
        count = _copied(heard[i], so_far)
        mine = songs[min(i, len(songs) - 1)]
        for j in range(len(mine)):
            found[i, j] = _wear_of(mine[j], so_far, count, vectors, threshold, decay, lag)
