"""Apple Music: ``Apple Music Play Activity.csv`` of a listener's data and privacy archive.

A row is an event. Those of type ``PLAY_END`` say when a play, or a piece of one around a pause or
a jump, began and ended, for how long it was heard, why it ended and how long the song is; the
pieces are joined as those of any history (`timing.pieces`). Songs have no id.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.services.converting import (
    instants,
    moments,
    numbers,
    present,
    texts,
    with_columns,
)
from musicbox_env.ingest.tables import ConvertedTable, Rows, Table

START, END, KIND, WHY = (
    "Event Start Timestamp",
    "Event End Timestamp",
    "Event Type",
    "End Reason Type",
)
HEARD, LENGTH = "Play Duration Milliseconds", "Media Duration In Milliseconds"
TITLES: Final = ("Song Name", "Content Name")
ARTISTS: Final = ("Artist Name", "Container Artist Name")
ALBUM, SHUFFLE, MEDIA = "Album Name", "Shuffle Play", "Media Type"
NO_PLAY: Final = "event that is no play (such as showing lyrics)"
VIDEO: Final = "video"
SCRUB: Final = "jump within a song, during which nothing was heard"
REASONS: Final = {
    "NATURAL_END_OF_TRACK": "trackdone",
    "TRACK_SKIPPED_FORWARDS": "fwdbtn",
    "TRACK_SKIPPED_BACKWARDS": "backbtn",
    "MANUALLY_SELECTED_PLAYBACK_OF_A_DIFF_ITEM": "clickrow",
    "PLAYBACK_MANUALLY_PAUSED": "endplay",
    "SCRUB_BEGIN": "endplay",
    "SCRUB_END": "endplay",
    "PLAYBACK_STOPPED_DUE_TO_APP_TERMINATION": "logout",
    "PLAYBACK_STOPPED_DUE_TO_SESSION_TIMEOUT": "logout",
    "EXITED_APPLICATION": "logout",
    "FAILED_TO_LOAD": "trackerror",
}
"""What ended a play, in the words of `schema.REASONS_END`; others are unknown."""


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is no play activity of Apple Music."""
    columns = present(
        table, [START, END, KIND, WHY, HEARD, LENGTH, *TITLES, *ARTISTS, ALBUM, SHUFFLE, MEDIA]
    )
    if not {END, KIND, HEARD} <= {*columns} or not {*TITLES} & {*columns}:
        return None
    return HistoryFormat(
        name="Apple Music play activity",
        mapping=PlayMapping(
            time="ended",
            time_is="end",
            began="began",
            track="id",
            title="title",
            artist="artist",
            played_ms="heard",
            duration_ms="length",
            reason_end="reason",
            shuffle="shuffle",
        ),
        table=ConvertedTable(table, columns, _plays),
        made={
            "ended": END,
            "began": START,
            "id": f"{' and '.join(present(table, [TITLES[0], ALBUM]))}, of songs without an artist",
            "title": " or ".join(present(table, TITLES)),
            "artist": " or ".join(present(table, ARTISTS)),
            "heard": HEARD,
            "length": LENGTH,
            "reason": WHY,
            "shuffle": SHUFFLE,
        },
    )


def _plays(rows: Rows) -> Rows:
    """The plays, and pieces of plays, among the events."""
    rows = rows.without(texts(rows, KIND) != "PLAY_END", NO_PLAY)
    rows = rows.without(texts(rows, MEDIA) == "VIDEO", VIDEO)
    jumped = np.array([why.startswith("SCRUB") for why in texts(rows, WHY)], np.bool_)
    rows = rows.without(jumped & ~(numbers(rows, HEARD) > 0), SCRUB)
    heard, length = numbers(rows, HEARD), numbers(rows, LENGTH)
    began, ended = moments(rows, START), moments(rows, END)
    # What was heard is negative where the listener jumped back: the clock says how long it was.
    heard = np.where(heard < 0, ended - began, heard)
    ended = np.where(np.isnan(ended), began + heard, ended)
    title, artist = _first(rows, TITLES), _first(rows, ARTISTS)
    nameless = (artist == "") & (title != "")
    return with_columns(
        rows,
        ended=instants(ended),
        began=instants(began),
        heard=heard,
        length=np.where(length > 0, length, np.nan),
        title=title,
        artist=artist,
        id=np.where(nameless, title + " - " + texts(rows, ALBUM), "").astype(object),
        reason=np.array([REASONS.get(why, "") for why in texts(rows, WHY)], object),
        shuffle=np.array([_shuffle(text) for text in texts(rows, SHUFFLE)], object),
    )


def _first(rows: Rows, names: tuple[str, str]) -> npt.NDArray[np.object_]:
    """The first of these columns that holds something, ``(rows,)`` texts."""
    first, second = (texts(rows, name) for name in names)
    return np.where(first == "", second, first).astype(object)


def _shuffle(text: str) -> str:
    return {"SHUFFLE_ON": "true", "SHUFFLE_OFF": "false"}.get(text.upper(), text.lower())
