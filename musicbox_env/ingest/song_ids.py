"""Ids of tracks on their way into a dataset: in normal form, and one a song."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.data.catalog import OTHER_IDS
from musicbox_env.ingest.parts import Part
from musicbox_env.names import ODD_ID, id_key


def further_ids(parts: Sequence[Part]) -> dict[str, str]:
    """The id in the catalog of each further id that parts know of their songs."""
    found: dict[str, str] = {}
    for part in parts:
        if (names := part.names) is not None and OTHER_IDS in names:
            some = names[names[OTHER_IDS].notna()]
            for track, others in zip(some["track_id"], some[OTHER_IDS], strict=True):
                found.update(dict.fromkeys(others, track))
    return found


class SongIds:
    """The ids under which the catalog holds the songs of some parts."""

    def __init__(self, further: Mapping[str, str]) -> None:
        """Take what `further_ids` gives."""
        self._catalog = further
        self._as_they_are = pa.array([], pa.string())

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch of `assembly.BLOCK_SCHEMA`, each track under the id that the catalog has."""
        place = batch.schema.get_field_index("track_id")
        tracks = batch.column(place)
        # Batches of histories share their dictionary, which may have millions of ids.
        if tracks.dictionary.equals(self._as_they_are):
            return batch
        odd = pc.call_function(
            "match_substring_regex", [tracks.dictionary], pc.MatchSubstringOptions(ODD_ID)
        )
        if not self._catalog and not pc.call_function("any", [odd]).as_py():
            self._as_they_are = tracks.dictionary
            return batch
        keys = map(id_key, tracks.dictionary.to_pylist())
        ids = pa.array([self._catalog.get(key, key) for key in keys], pa.string())
        # Two ids that became one are one in the dictionary too.
        coded = pa.DictionaryArray.from_arrays(tracks.indices, ids).dictionary_decode()
        return batch.set_column(place, batch.schema.field(place), coded.dictionary_encode())
