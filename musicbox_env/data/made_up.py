"""Made-up names of synthetic songs, so that people can tell them apart.

They are a function of the id alone and stand in no file: neither agents nor listeners know them.
Whatever shows titles shows them, and whatever finds songs by name finds them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_SYNTHETIC_ID: Final = re.compile(r"t_(\d{8,})")
"""How `musicbox_env.synthetic` numbers its tracks; published ids have letters and dashes."""
_ARTIST_FIRST: Final = (
    *("Velvet", "Paper", "Northern", "Amber", "Quiet", "Copper", "Lunar", "Marble"),
    *("Crooked", "Saffron", "Winter", "Hollow", "Cobalt", "Distant", "Gentle", "Iron"),
    *("Juniper", "Restless", "Scarlet", "Tidal", "Umber", "Wandering", "Woolen", "Zinc"),
)
_ARTIST_LAST: Final = (
    *("Otters", "Lanterns", "Parade", "Harbours", "Cartographers", "Foxes", "Engines", "Orchard"),
    *("Sparrows", "Ferrymen", "Atlas", "Tailors", "Comets", "Gardeners", "Kites", "Librarians"),
    *(
        "Mountains",
        "Pilots",
        "Quartet",
        "Rivers",
        "Satellites",
        "Typewriters",
        "Walnuts",
        "Weavers",
    ),
)
_TITLE_FIRST: Final = (
    *(
        "Almost",
        "Another",
        "Barefoot",
        "Before the",
        "Beneath the",
        "Borrowed",
        "Broken",
        "Counting",
    ),
    *("Dancing", "Electric", "Empty", "Falling", "Farewell to the", "Faster than", "Forgotten"),
    *("Four", "Frozen", "Golden", "Half a", "Hello", "Hidden", "House of", "Hundred", "Last"),
    *("Letters from the", "Little", "Long Way to the", "Lost", "Midnight", "Missing", "More than"),
    *("Nearly", "Never the", "Nine", "No More", "Once in a", "Our", "Postcard from the", "Running"),
    *(
        "Second",
        "Seven",
        "Silver",
        "Sleeping",
        "Slow",
        "Somebody's",
        "Summer",
        "Two",
        "Waiting for",
    ),
)
_TITLE_LAST: Final = (
    *("Airport", "Alphabet", "Balcony", "Bicycle", "Birthday", "Blanket", "Bridge", "Calendar"),
    *("Chandelier", "Circus", "Corridor", "Daylight", "Elevator", "Embers", "February", "Festival"),
    *("Fireflies", "Fortune", "Gravity", "Halo", "Highway", "Holiday", "Hurricane", "Island"),
    *("Kitchen", "Lighthouse", "Lullaby", "Magnet", "Meadow", "Mirror", "Monday", "Neighbour"),
    *("Orbit", "Passenger", "Pavement", "Radio", "Rainfall", "Season", "Shadow", "Signal"),
    *(
        "Staircase",
        "Stranger",
        "Telescope",
        "Thunder",
        "Tomorrow",
        "Tramway",
        "Window",
        "Yesterday",
    ),
)
_ARTISTS: Final = len(_ARTIST_FIRST) * len(_ARTIST_LAST)
_NAMES: Final = _ARTISTS * len(_TITLE_FIRST) * len(_TITLE_LAST)
_STEP: Final = 820_241
"""Coprime to `_NAMES`, so that numbers in a row get names far apart and no two the same."""


def made_up_name(track_id: str) -> str | None:
    """Name of a synthetic track as "Artist - Title", another for each id; None for others.

    >>> made_up_name("t_00003352"), made_up_name("t_0479f24c-27d2-46d6-a00c-7ec928f2b539")
    ('Woolen Sparrows - Our Pavement', None)
    """
    found = _SYNTHETIC_ID.fullmatch(track_id)
    if not found:
        return None
    again, number = divmod(int(found[1]), _NAMES)
    title, artist = divmod(number * _STEP % _NAMES, _ARTISTS)
    first, last = divmod(artist, len(_ARTIST_LAST))
    begin, end = divmod(title, len(_TITLE_LAST))
    version = f", Part {again + 1}" if again else ""
    return (
        f"{_ARTIST_FIRST[first]} {_ARTIST_LAST[last]} - "
        f"{_TITLE_FIRST[begin]} {_TITLE_LAST[end]}{version}"
    )


def with_made_up_names(track_ids: Sequence[str]) -> npt.NDArray[np.object_]:
    """Names of tracks ``(n,)``: made up for synthetic ones, else the id."""
    return np.array([made_up_name(track_id) or track_id for track_id in track_ids], dtype=object)
