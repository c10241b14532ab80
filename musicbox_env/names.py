"""What makes two names the same: the ONE normal form of ids, titles and artists.

Files spell one song in many ways: in capitals, composed or decomposed accents, with the dash or
the apostrophe of another keyboard, read in the wrong encoding; its id as a link, a URI, or a
number that a spreadsheet gave a decimal point. Ids are stored in their normal form. Titles are
stored as they came, and compared by theirs.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

_SPOTIFY: Final = re.compile(
    r"(?:spotify:(?:user:[^:]+:)?track:"
    r"|(?:https?://)?(?:open|play)\.spotify\.com/(?:embed/)?(?:intl-[\w-]+/)?(?:embed/)?track/)"
    r"([A-Za-z0-9]+)(?:[/?#].*)?",
    re.IGNORECASE,
)
_INTEGRAL: Final = re.compile(r"([+-]?\d+)\.0*")
ODD_ID: Final = r"[:/.]|[^\x21-\x7e]"
"""What an id that is not in normal form holds, as a regular expression."""
_ODD_ID: Final = re.compile(ODD_ID)

_SCRIPTS: Final = re.compile("[\0-\u017f\u0370-\u04ff\u2000-\U0010ffff]*")
"""Latin, Greek, Cyrillic, and all from punctuation on: Chinese, Japanese, Korean, emoji."""
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d"
_APOSTROPHES: Final = "\u2018\u2019\u201b\u02bc\u2032\u00b4\u0060\uff07"
_QUOTES: Final = "\u201c\u201d\u201e\u201f\u2033\uff02"
_NOTHING: Final = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Characters that are not seen: soft hyphens, joiners, marks of direction and of byte order."""
_SPELLINGS: Final = str.maketrans(
    {
        **dict.fromkeys(_DASHES, "-"),
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys(_QUOTES, '"'),
        **dict.fromkeys(_NOTHING, ""),
        "\u2026": "...",
    }
)

_NO_ARTISTS: Final = frozenset(
    {"unknown", "unknown artist", "artist unknown", "various", "various artists"}
)
_NO_TITLES: Final = frozenset({"unknown track", "unknown title", "unknown song", "track unknown"})
_NUMBERED: Final = re.compile(r"(audio )?track ?\d*|untitled|unknown")


def id_key(text: str) -> str:
    """The normal form of an id: the bare id of a Spotify link or URI, whole numbers without point.

    Capitals stay, since ids that differ in nothing else are different.

    >>> id_key("https://open.spotify.com/track/4uLU6hMCjMI75M1A2tKUQC?si=1"), id_key(" 123.0 ")
    ('4uLU6hMCjMI75M1A2tKUQC', '123')
    """
    text = text.strip()
    if not _ODD_ID.search(text):
        return text
    if found := _SPOTIFY.fullmatch(text):
        return found[1]
    if found := _INTEGRAL.fullmatch(text):
        return found[1]
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=1 << 16)
def name_key(text: str) -> str:
    r"""The normal form of a title, an artist or "Artist - Title", to compare and never to show.

    Unicode NFC, small letters, one kind of dash, apostrophe, quotation mark and blank, and UTF-8
    that was read as Windows-1252 read again.

    >>> name_key("BJO\u0308RK \u2013  Venus "), name_key("Bj\u00c3\u00b6rk - venus")
    ('bj\xf6rk - venus', 'bj\xf6rk - venus')
    """
    text = _reread(text).translate(_SPELLINGS)
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def song_key(title: str, artist: str) -> tuple[str, str]:
    """What all recordings of one title by one artist share."""
    return name_key(artist), name_key(title)


def is_placeholder(title: str, artist: str) -> bool:
    """Whether a title and an artist name no song, as "Unknown Artist - Unknown Track" does.

    Both must be placeholders: an artist may be called so, and so may a song.

    >>> is_placeholder("Track 01", "<Unknown>"), is_placeholder("Unknown", "Nobody Else")
    (True, False)
    """
    if not title:
        return False
    artist, title = (name_key(name).strip("<>[]()") for name in (artist, title))
    if title in _NO_TITLES:
        return not artist or artist in _NO_ARTISTS
    return artist in _NO_ARTISTS and _NUMBERED.fullmatch(title) is not None


def _reread(text: str) -> str:
    """Text whose UTF-8 was taken for Windows-1252, as it was meant; any other as it is.

    Only where all of it is valid UTF-8 that way, of scripts that titles are in: meant text hardly
    ever is. A capital with an accent before a quotation mark may be, of a script of phonetics.
    """
    if text.isascii():
        return text
    try:
        meant = text.encode("cp1252").decode()
    except UnicodeError:
        return text
    return meant if _SCRIPTS.fullmatch(meant) else text
