"""YouTube Music: ``watch-history.json`` of Google Takeout.

A row says "Watched" and the title in the account's language, whose words stand before or behind
every title alike: so they are found, whatever the language. Artists are channels that end in
" - Topic". Rows of YouTube itself are left out.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

import numpy as np

from musicbox_env.ingest.histories.formats import HistoryFormat
from musicbox_env.ingest.histories.mapping import PlayMapping
from musicbox_env.ingest.json_tables import JsonTable
from musicbox_env.ingest.services.converting import texts, with_columns
from musicbox_env.ingest.tables import ConvertedTable, Rows, Table

MUSIC: Final = "YouTube Music"
ARTIST: Final = "subtitles.0.name"
TOPIC: Final = " - Topic"
OTHER: Final = "YouTube, not YouTube Music"
WATCHED: Final = "Watched "
FEWEST: Final = 5
"""So many different titles must show what surrounds them."""
BREAKS: Final = ' \u00a0"\u201c\u201d\u201e\u00ab\u00bb\u201a\u2018\u2019\u300c\u300d'
"""Blanks and quotes: a title begins behind one, and ends before one."""


def recognize(table: Table) -> HistoryFormat | None:
    """How to read a table, None if it is no history of YouTube."""
    columns = {"header", "title", "titleUrl", "time"}
    if not isinstance(table, JsonTable) or not columns <= {*table.columns}:
        return None
    first = table.sample()
    titles = {
        title
        for title, header in zip(first["title"], first["header"], strict=True)
        if header == MUSIC
    }
    around = surroundings(titles)
    return HistoryFormat(
        name="YouTube Music history",
        mapping=PlayMapping(time="time", time_is="start", title="song", artist="artist"),
        table=ConvertedTable(
            table, ["header", "title", ARTIST, "time"], partial(_songs, around=around)
        ),
        made={"song": "title", "artist": ARTIST},
        scrobbles=True,
    )


def surroundings(titles: Collection[str]) -> tuple[str, str]:
    """The words, or quotes, that stand before and behind all titles.

    >>> surroundings({f"Je hebt {song} bekeken" for song in ("One", "Two", "Six", "Ten", "Go")})
    ('Je hebt ', ' bekeken')
    """
    if len(titles) < FEWEST:
        return (WATCHED, "") if all(title.startswith(WATCHED) for title in titles) else ("", "")
    before = _beginning(titles)
    behind = _beginning([title[::-1] for title in titles])[::-1]
    first = max(before.rfind(mark) for mark in BREAKS) + 1
    last = [place for mark in BREAKS if (place := behind.find(mark)) >= 0]
    return before[:first], behind[min(last) :] if last else ""


def _beginning(texts: Collection[str]) -> str:
    """What all these texts begin with."""
    first, last = min(texts), max(texts)
    most = min(len(first), len(last))
    return first[: next((i for i in range(most) if first[i] != last[i]), most)]


def _songs(rows: Rows, around: tuple[str, str]) -> Rows:
    """Songs and artists of YouTube Music."""
    rows = rows.without(texts(rows, "header") != MUSIC, OTHER)
    before, behind = around
    songs = [t.removeprefix(before).removesuffix(behind).strip() for t in texts(rows, "title")]
    artists = [name.removesuffix(TOPIC) for name in texts(rows, ARTIST)]
    return with_columns(
        rows, song=np.array(songs, dtype=object), artist=np.array(artists, dtype=object)
    )
