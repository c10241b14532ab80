"""The songs of a catalog by name: exact, and with typos, in few bytes a song."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import fuzz, process

from musicbox_env.data.catalog import Catalog
from musicbox_env.names import id_key, name_key

LONGEST_QUERY: Final = 200
MOST_WORDS: Final = 8
"""Words of a query that are looked at."""
ALIKE: Final = 70.0
"""Likeness of two words, of 100, from which one may be a misspelling of the other."""
BEGINS: Final = 90.0
"""Likeness of a word and a longer one that begins with it."""
MOST_SPELLINGS: Final = 30
SHOWN_IDS: Final = 5
"""Ids that are shown of songs that are called the same."""
SHORTLIST: Final = 200
"""Songs that are compared with the query as a whole."""

Rows = npt.NDArray[np.int64]


class AmbiguousSongError(LookupError):
    """Several songs are called so."""


class Songs:
    """Finds songs by any of their ids, by a Spotify link, or by "Artist - Title".

    `find` finds what `Catalog.find` does, in microseconds among millions of songs; `search` ranks
    songs by likeness. Names lie in Arrow's memory, which processes share and nobody copies.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Read the names of a catalog, which may be forgotten afterwards."""
        self.named = catalog.shows_titles
        ids, others = catalog.track_ids.tolist(), catalog.other_ids
        names = catalog.titles.tolist()
        self._ids, self._names = (pa.array(texts, pa.large_string()) for texts in (ids, names))
        row_of = {name: row for row, name in enumerate(ids)} if others else {}
        self._others = {name: row_of[track_id] for name, track_id in others.items()}
        self._by_id = _HashTable(ids)
        keys = [name_key(name) for name in names] if self.named else []
        self._by_name, self._words = _HashTable(keys), _Words(keys)

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, row: int) -> str:
        """Track id of a song."""
        return str(self._ids[row].as_py())

    def name(self, row: int) -> str:
        """What people call a song: "Artist - Title", or else its id."""
        return str(self._names[row].as_py())

    def artist_and_title(self, row: int) -> tuple[str | None, str]:
        """Artist of a song, where one is known, and its title, or else its id."""
        artist, dash, title = self.name(row).partition(" - ")
        return (artist, title) if dash and self.named else (None, self.name(row))

    def find(self, song: str) -> int | None:
        """Row of a song; None where there is none of that name.

        Raises:
            AmbiguousSongError: Several songs are called so; the message has their ids.
        """
        for name in (song, id_key(song)):
            own = [int(row) for row in self._by_id.rows(name) if self.id(row) == name]
            if own or name in self._others:
                return own[0] if own else self._others[name]
        wanted = name_key(song)
        alike = self._by_name.rows(wanted)
        called = (int(row) for row in alike if name_key(self.name(row)) == wanted)
        rows = [*islice(called, SHOWN_IDS)]  # of thousands that are called so, not all are read
        if len(rows) > 1:
            ids = ", ".join(map(self.id, rows))
            raise AmbiguousSongError(
                f"{len(alike)} songs are called so; name one by its id: {ids}."
            )
        return rows[0] if rows else None

    def search(self, query: str, limit: int) -> list[int]:
        """Rows of the songs most like a query, best first; of equals the more played first.

        Where the catalog knows no titles, these are songs whose ids hold the query.
        """
        text = query[:LONGEST_QUERY].strip()
        rows = [*self._found(text), *self._words.songs(name_key(text))]
        if text and (not self._words or not rows):
            rows += _holding(self._ids, text, ignore_case=True)[:limit].tolist()
        return list(dict.fromkeys(rows))[:limit]

    def _found(self, text: str) -> list[int]:
        try:
            row = self.find(text)
        except AmbiguousSongError:
            return []
        return [] if row is None else [row]


class _HashTable:
    """Rows of texts by their hashes, which other texts may share."""

    def __init__(self, texts: Sequence[str]) -> None:
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
        self._rows = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._rows]

    def rows(self, text: str) -> npt.NDArray[np.int32]:
        """Rows, ascending, of which one may hold the text."""
        first, last = (np.searchsorted(self._hashes, hash(text), side) for side in _SIDES)
        return self._rows[first:last]


_SIDES: Final = ("left", "right")


def _holding(texts: pa.Array, text: str, *, ignore_case: bool = False) -> Rows:
    """Places of the texts that hold a text."""
    pattern = pc.MatchSubstringOptions(text, ignore_case=ignore_case)
    holding = pc.call_function("match_substring", [texts], pattern)
    return np.flatnonzero(holding.to_numpy(zero_copy_only=False))


def _holding_words(texts: pa.Array, words: str) -> Rows:
    """Places of the texts that hold words as they stand, in this order."""
    pattern = pc.MatchSubstringOptions(rf"(?:^|\s){re.escape(words)}(?:\s|$)")
    holding = pc.call_function("match_substring_regex", [texts], pattern)
    return np.flatnonzero(holding.to_numpy(zero_copy_only=False))


def _words_of(name: str) -> list[str]:
    """Words of a name in normal form, as people type them: "t.n.t." is "tnt"."""
    return [word for word in (_NO_LETTERS.sub("", part) for part in name.split()) if word]


_NO_LETTERS: Final = re.compile(r"\W")


class _Words:
    """Songs by the words of their names, and words by their likeness."""

    def __init__(self, names: Sequence[str]) -> None:
        """Take the normal forms of the names of all songs; letters alone make words."""
        self._names = pa.array(names, pa.large_string())
        numbers: dict[str, int] = {}
        found, sizes = array("i"), np.empty(len(names), np.int64)
        for row, name in enumerate(names):
            words_of = _words_of(name)
            sizes[row] = len(words_of)
            found.extend(numbers.setdefault(word, len(numbers)) for word in words_of)
        words = np.asarray(found)
        order = np.argsort(words, kind="stable")
        self._songs = np.repeat(np.arange(len(names), dtype=np.int32), sizes)[order]
        self._starts = np.searchsorted(words[order], np.arange(len(numbers) + 1))
        self._numbers, self._sorted = numbers, sorted(numbers)

    def __bool__(self) -> bool:
        return len(self._names) > 0

    def songs(self, query: str) -> list[int]:
        """Rows of songs like a query in normal form, best first."""
        if not query or not self:
            return []
        scores = np.zeros(len(self._names), np.float32)
        for word in _words_of(query)[:MOST_WORDS]:
            scores += self._scores(word)
        scores /= max(scores.max(), np.finfo(np.float32).tiny)
        holding = _holding(self._names, query)  # where words have no blanks between, too
        scores[holding[:SHORTLIST]] += 1
        scores[holding[_holding_words(self._names.take(pa.array(holding)), query)][:SHORTLIST]] += 1
        best = np.argsort(-scores, kind="stable")[:SHORTLIST]
        best = best[scores[best] > 0]
        names = self._names.take(pa.array(best)).to_pylist()
        alike = np.array([fuzz.token_set_ratio(query, name) for name in names]) / 100
        return [int(row) for row in best[np.argsort(-scores[best] - alike, kind="stable")]]

    def _scores(self, word: str) -> npt.NDArray[np.float32]:
        """Likeness of each song's best word to a word, times what the word tells ``(songs,)``."""
        scores = np.zeros(len(self._names), np.float32)
        for spelling, alike in sorted(self._spellings(word).items(), key=lambda found: found[1]):
            number = self._numbers[spelling]
            songs = self._songs[self._starts[number] : self._starts[number + 1]]
            tells = alike * np.log1p(len(self._names) / len(songs))
            # A rarer word that it only begins or resembles tells no more than the word itself.
            scores[songs] = max(tells, scores.max()) if spelling == word else tells
        return scores

    def _spellings(self, word: str) -> dict[str, float]:
        """Words of the catalog that a word may be meant as, and their likeness."""
        first = bisect_left(self._sorted, word)
        following = self._sorted[first : first + MOST_SPELLINGS]
        begun = {each: BEGINS for each in following if each.startswith(word)}
        near = process.extract(
            word, self._sorted, scorer=fuzz.ratio, limit=MOST_SPELLINGS, score_cutoff=ALIKE
        )
        return {**begun, **{each: score for each, score, _ in near}}
