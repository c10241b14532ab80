"""Rows of a listening history read into records: one a play, names turned into codes.

Here names end: of users only a salted hash is kept, of devices only whether two are the same,
and addresses and countries are not even read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from musicbox_env.ingest.histories.columns import OTHER_EVENT, MappedColumns
from musicbox_env.ingest.histories.timing.clock import changes
from musicbox_env.ingest.histories.timing.records import Listens
from musicbox_env.ingest.histories.tracks import PLACEHOLDER, Names, Tracks
from musicbox_env.ingest.plays import (
    Rejects,
    RowCheck,
    parse_codes,
    parse_flag,
    parse_name,
    source_parser,
)
from musicbox_env.ingest.spelling.precision import SECOND, TimeGrid, written_precision
from musicbox_env.ingest.spelling.values import LONGEST_MS
from musicbox_env.ingest.tables import Rows, text_codes
from musicbox_env.kernels import unlocked
from musicbox_env.names import id_key
from musicbox_env.schema import CONTEXT_TYPES, REASONS_END, REASONS_START, UNKNOWN

PRIVATE: Final = "private session"
PODCAST: Final = "podcast"
AUDIOBOOK: Final = "audiobook"
OTHER_MEDIA: Final = "no track named (local file, video or other media)"
NOT_PLAYABLE: Final = "track error before anything was heard"
TRACK_ERROR: Final = REASONS_END.index("trackerror")
ROUNDED: Final = "is a number whose digits a spreadsheet rounded"
BAD_TIME: Final = "time is neither ISO 8601 nor Unix time, or not from 2000 to 2100"
OF_OTHER_KIND: Final = "event that is neither a play nor an opinion"
NO_SONG: Final = "placeholder in place of a song (such as Unknown Artist - Unknown Track)"
NAMES: Final = "names of tracks, no plays"
PLAYED_AT_ALL_MS: Final = 1_000


class ListenReader:
    """Reads tables of one ingest into plays.

    Attributes:
        users: Salted hashes of the users.
        tracks: The tracks.
        grids: How exact the times of each table are.
        left_out: Rows that are no listening to music, by what they are.
        lengths_missing: Whether a play was read whose track has no stated length.
        pauses_untold: Whether one was read that may be a piece of another, for all that is told.
    """

    def __init__(self, salt: bytes, rejects: Rejects, notes: Counter[str]) -> None:
        """Begin.

        Args:
            salt: Key of the users' hashes.
            rejects: Receives rows that cannot be plays.
            notes: Receives values stored as unknown: how many, by what they are.
        """
        self.users = Names()
        self.tracks = Tracks()
        self.grids: list[TimeGrid] = []
        self.left_out: Counter[str] = Counter()
        self.lengths_missing = False
        self._pauses_untold: set[int] = set()
        self._rejects, self._notes = rejects, notes
        self._devices = Names()
        self._salt = salt
        self._order = 0

    def user_code(self, name: str) -> int:
        """Code of a user; the name goes no further than this."""
        return self.users.code(blake2b(name.encode(), key=self._salt, digest_size=8).hexdigest())

    def listeners(self, owners: set[int]) -> npt.NDArray[np.int32]:
        """Who each user really is: the one archive's owner without a name is the one with a name.

        Spotify's older archives name the user in every play, the newer ones nowhere.

        Args:
            owners: Codes of the users that stand for an archive without names.
        """
        same = np.arange(len(self.users.codes), dtype=np.int32)
        named = [code for code in self.users.codes.values() if code not in owners]
        if len(named) == 1 and len(owners) == 1:
            same[list(owners)] = named[0]
        return same

    def begin_table(self) -> None:
        """Look at the times of what is read from here on together."""
        self.grids.append(TimeGrid())

    def read(self, rows: Rows, columns: MappedColumns, owner: str) -> Listens:
        """Turn rows into records.

        Args:
            rows: Rows of a table, all columns of its format.
            columns: Reads them.
            owner: Whose plays they are where the table names no user.

        Returns:
            The plays, in the order of the rows, of the table that was begun last.
        """
        fmt = columns.fmt
        columns.begin(rows)
        self._rejects.add(rows.malformed, "no record, or wrong number of fields")
        self.left_out.update({what: len(lines) for what, lines in rows.left_out.items()})
        records = Listens(len(rows))
        user, names, user_lost = _users(rows, columns)
        if fmt.event is not None or fmt.opinion is not None:
            records["opinion"] = columns.opinions(rows)
        records["track"], track_lost = self._tracks(rows, columns)
        source = source_parser(fmt.mapping.source or "")
        for name, parse in {**_CODED, "source": source, "device": self._devices.code}.items():
            if columns.name(_KEYS.get(name, name)) is not None:
                values, unread = columns.codes(rows, _KEYS.get(name, name), parse)
                records[name] = values
                self._note(name, unread)
        music = self._music(records, rows, columns)
        check = RowCheck(rows, self._rejects, music)
        for key, lost in (("user", user_lost), ("track", track_lost)):
            if lost.any():
                ids = rows.columns[str(columns.name(key))]
                check.reject(lost, f"{key} {ROUNDED}", ids)
        if columns.fmt.flags_trusted and fmt.mapping.user is not None:
            check.reject(np.array([name == "" for name in names], np.bool_)[user], "user is empty")
        self._possible(records, rows, columns, check)
        codes = [self.user_code(id_key(name) or owner) for name in names]
        records["user"] = np.array(codes, np.int32)[user]
        written = written_precision(rows.columns[fmt.mapping.time], whole=not fmt.mapping.date)
        records["resolution"] = np.maximum(fmt.resolution_ms, written)
        records["table"] = len(self.grids) - 1
        self.grids[-1].add(records["time"][check.kept])
        records["time_is_start"] = fmt.mapping.time_is == "start"
        records["flags_trusted"] = fmt.flags_trusted
        unplayable = check.kept & (records["reason_end"] == TRACK_ERROR)
        unplayable &= (records["ms"] >= 0) & (records["ms"] < PLAYED_AT_ALL_MS)
        self._leave_out(unplayable, NOT_PLAYABLE)
        records["order"] = self._order + np.arange(len(rows))
        self._order += len(rows)
        kept = check.kept & ~unplayable
        records = records if kept.all() else records.compress(kept)
        plays = records["opinion"] < 0
        self.lengths_missing |= bool(((records["length"] < 0) & plays).any())
        untold = plays & (records["reason_end"] < 0) & (records["reason_start"] < 0)
        untold &= (records["ms"] >= 0) & (records["resolution"] <= SECOND)
        if untold.any():
            self._pauses_untold.add(len(self.grids) - 1)
        return records

    @property
    def pauses_untold(self) -> bool:
        """Whether a play was read that may be a piece of another, for all that is told."""
        return any(self.grids[table].step <= SECOND for table in self._pauses_untold)

    def _tracks(
        self, rows: Rows, columns: MappedColumns
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Codes of tracks, and a mask of ids that lost digits.

        Each distinct combination of id and names is looked up once.
        """
        fmt, numbers = columns.fmt.mapping, columns.numbers(rows, "track")
        if numbers is not None and not (fmt.title or fmt.artist):
            return self.tracks.of_numbers(numbers), np.zeros(len(rows), np.bool_)
        ids, lost = columns.ids(rows, "track")
        names = {key: columns.texts(rows, key) for key in ("title", "artist")}
        frame = pd.DataFrame({"track": ids, **names})
        group = frame.groupby([*frame], sort=False).ngroup().to_numpy()
        codes = [
            self.tracks.of(track, title, artist)
            for track, title, artist in frame.drop_duplicates().itertuples(index=False)
        ]
        return np.array(codes, np.int32)[group], lost

    def _note(self, what: str, count: int) -> None:
        if count:
            self._notes[f"{what} stored as unknown"] += count

    def _music(self, records: Listens, rows: Rows, columns: MappedColumns) -> npt.NDArray[np.bool_]:
        """Rows that are music heard in public; the others are counted, each once."""
        fmt, tracks = columns.fmt, records["track"]
        private = np.zeros(len(rows), np.bool_)
        if fmt.private is not None:
            private = parse_codes(text_codes(rows.columns[fmt.private]), parse_flag)[0] == 1
        names = np.full(len(rows), fmt.only_names)
        no_track = (tracks == UNKNOWN) & (not fmt.flags_trusted)
        keep = np.ones(len(rows), np.bool_)
        for mask, what in (
            (names, NAMES),
            (records["opinion"] == OTHER_EVENT, OF_OTHER_KIND),
            (private, PRIVATE),
            (columns.filled(rows, fmt.podcast), PODCAST),
            (columns.filled(rows, fmt.audiobook), AUDIOBOOK),
            (tracks == PLACEHOLDER, NO_SONG),
            (no_track, OTHER_MEDIA),
        ):
            if mask.any():
                self._leave_out(keep & mask, what)
                keep &= ~mask
        return keep

    def _leave_out(self, mask: npt.NDArray[np.bool_], what: str) -> None:
        if count := int(mask.sum()):
            self.left_out[what] += count

    def _possible(
        self,
        records: Listens,
        rows: Rows,
        columns: MappedColumns,
        check: RowCheck,
    ) -> None:
        """Fill in times and lengths; reject rows of music that cannot be plays."""
        mapping = columns.fmt.mapping
        records["time"], in_range = columns.times(rows)
        if mapping.began is not None:
            records["began"] = columns.starts(rows)
        heard, heard_bad = columns.lengths(rows, "played")
        length, length_bad = columns.lengths(rows, "duration")
        share, share_bad = columns.shares(rows)
        self._note("track length", int(length_bad.sum()))
        told = ~np.isnan(share)
        records["share_told"], records["share"] = told, np.where(told, share, 0.0)
        _tell_heard(share, length, heard)
        records["ms"] = heard
        records["length"] = np.where(length > 0, length, UNKNOWN)
        if columns.fmt.flags_trusted:
            check.reject(records["track"] == UNKNOWN, "track is empty")
        check.reject(
            ~in_range,
            BAD_TIME,
            rows.columns[mapping.time],
        )
        played = mapping.played_ms or mapping.played_s
        if played is not None:
            check.reject(heard_bad, "time heard is no number from 0 to a day", rows.columns[played])
        if mapping.played_share is not None:
            shares = rows.columns[mapping.played_share]
            check.reject(share_bad, "share heard is neither 0 to 1 nor percent", shares)
        nothing_says = (heard < 0) & ~told & (records["completed"] < 0) & (records["skipped"] < 0)
        nothing_says &= records["opinion"] == UNKNOWN
        records["inferred"] = nothing_says & columns.fmt.scrobbles
        if not columns.fmt.scrobbles:
            check.reject(nothing_says, "nothing says how far it was heard")


@unlocked
def _tell_heard(
    share: npt.NDArray[np.float64], length: npt.NDArray[np.int64], heard: npt.NDArray[np.int64]
) -> None:
    """Milliseconds heard of plays whose share and length are told; ``heard`` is changed."""
    for i in range(len(heard)):
        if length[i] > 0 and not np.isnan(share[i]):
            heard[i] = np.int64(np.rint(min(share[i] * length[i], LONGEST_MS)))


def _users(
    rows: Rows, columns: MappedColumns
) -> tuple[npt.NDArray[np.int64], list[str], npt.NDArray[np.bool_]]:
    """Number of each row's user, their names, and a mask of those that lost digits."""
    numbers = columns.numbers(rows, "user")
    if numbers is not None:
        # Rows of a user mostly follow each other.
        first = np.flatnonzero(changes(numbers))
        user, names = pd.factorize(numbers[first])
        user = np.repeat(user, np.diff(first, append=len(numbers)))
        return user, list(map(str, names.tolist())), np.zeros(len(rows), np.bool_)
    texts, lost = columns.ids(rows, "user")
    user, named = pd.factorize(texts)
    return user, list(map(str, named)), lost


_CODED: Final[dict[str, Callable[[str], int]]] = {
    "skipped": parse_flag,
    "completed": parse_flag,
    "shuffle": parse_flag,
    "reason_start": parse_name(REASONS_START),
    "reason_end": parse_name(REASONS_END),
    "context_type": parse_name(CONTEXT_TYPES),
}
_KEYS: Final = {"context_type": "context", "device": "platform"}
"""Keys of a mapping, where they differ from the names of `records.LISTEN`."""
