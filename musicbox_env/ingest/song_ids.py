"""Ids of tracks on their way into a dataset: in normal form, and one a song."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from musicbox_env.data.catalog import OTHER_IDS
from musicbox_env.ingest.parts import Part
from musicbox_env.names import ODD_ID, id_key


def song_ids(parts: Sequence[Part]) -> dict[str, str]:
    """The id under which the catalog holds each song, of all its further ids."""
    found: dict[str, str] = {}
    for part in parts:
        if (names := part.names) is not None and OTHER_IDS in names:
            some = names[names[OTHER_IDS].notna()]
            for track, others in zip(some["track_id"], some[OTHER_IDS], strict=True):
                found.update(dict.fromkeys(others, track))
    return found


def with_song_ids(batch: pa.RecordBatch, songs: Mapping[str, str]) -> pa.RecordBatch:
    """A batch of `assembly.BLOCK_SCHEMA` with each track under the id that the catalog has.

    Args:
        batch: Whole sessions.
        songs: What `song_ids` gives.
    """
    place = batch.schema.get_field_index("track_id")
    tracks = batch.column(place)
    odd = pc.call_function(
        "match_substring_regex", [tracks.dictionary], pc.MatchSubstringOptions(ODD_ID)
    )
    if not songs and not pc.call_function("any", [odd]).as_py():
        return batch
    keys = map(id_key, tracks.dictionary.to_pylist())
    ids = pa.array([songs.get(key, key) for key in keys], pa.string())
    # Two ids that became one are one in the dictionary too.
    coded = pa.DictionaryArray.from_arrays(tracks.indices, ids).dictionary_decode()
    return batch.set_column(place, batch.schema.field(place), coded.dictionary_encode())
