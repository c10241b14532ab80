"""How listening histories are read: the user's settings, and what a format of a table says."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field

from musicbox_env.ingest.histories.levels import LevelConfig
from musicbox_env.ingest.histories.mapping import AUTO, EVIDENCE, PlayMapping, read_mapping
from musicbox_env.ingest.histories.sessionize import SessionConfig
from musicbox_env.ingest.spelling.precision import SECOND
from musicbox_env.ingest.spelling.times import LOCAL, TimeSpelling
from musicbox_env.ingest.tables import Table


@dataclass(frozen=True)
class HistoryConfig:
    """How listening histories are read: Spotify's archives, and tables of plays.

    Attributes:
        map: Columns of a table of plays, as user=COLUMN,time=COLUMN,track=COLUMN,
            played_ms=COLUMN and so on, or a TOML file of the same keys; auto takes the mapping
            that is proposed. Spotify's own files need none.
        timezone: Where the listener lives, such as Europe/Berlin: hours of the day are computed
            from the times, which are in UTC unless a mapping says time_zone=local. Left out,
            hours are unknown. The zone is not stored.
        inferred_levels: Read scrobbles and other plays of which nothing says how far they were
            heard: until the next play of that listener began, or to the end. Such levels are
            marked as inferred, counted, and named in every report.
        archives_apart: Each archive or table that names no user has a listener of its own; by
            default they are all one listener's.
        session: What a session is.
        level: Which share of a track's length makes which listen level.
    """

    map: str | None = None
    timezone: str | None = None
    inferred_levels: bool = False
    archives_apart: bool = False
    session: SessionConfig = field(default_factory=SessionConfig)
    level: LevelConfig = field(default_factory=LevelConfig)

    def __post_init__(self) -> None:
        mapping = self.mapping()
        if mapping is not None and not mapping.evidence and not self.inferred_levels:
            raise ValueError(
                "A mapping must name what says how far a play was heard: one or more of "
                f"{', '.join(EVIDENCE)}. Where nothing does, --inferred-levels infers it from "
                "the start of the next play."
            )
        if mapping is not None and mapping.time_zone == LOCAL and self.timezone is None:
            raise ValueError("time_zone=local in --map needs --timezone, which says where that is.")
        if self.timezone is not None:
            try:
                zoneinfo.ZoneInfo(self.timezone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(
                    f"No timezone {self.timezone!r}; a name such as Europe/Berlin or UTC expected."
                ) from error

    def mapping(self) -> PlayMapping | None:
        """The mapping that the user gave, if it is not the proposed one."""
        return None if self.map in (None, AUTO) else read_mapping(str(self.map))

    def spelling(self, mapping: PlayMapping) -> TimeSpelling:
        """What a mapping says of how times are written."""
        zone = "" if mapping.zone_column else mapping.time_zone
        return TimeSpelling(mapping.time_format, str(self.timezone) if zone == LOCAL else zone)


@dataclass(frozen=True, kw_only=True)
class HistoryFormat:
    """How a table says what was played.

    Attributes:
        name: For people.
        mapping: Which columns say what.
        table: The table, where its rows are read in another way than they are written: converted
            or filtered (`tables.ConvertedTable`), or by another dialect (`CsvTable.read_as`).
        made: Columns that the reader makes, and those of the file that they are made of; empty
            where the file has none.
        podcast: Columns that are filled where a podcast was played.
        audiobook: Columns that are filled where an audiobook was played.
        private: Column that is true where the listener asked not to be recorded.
        scrobbles: Whether rows may say nothing of how far a play was heard, so that it is
            inferred; such a table is read with ``inferred_levels`` alone.
        only_names: Whether rows are tracks and their names, beside the plays of another table.
        flags_trusted: Whether "not skipped" means heard to the end. Not so at Spotify, where
            ``skipped`` is null, 0 or false over whole years, whatever happened.
        resolution_ms: How exact its times are; coarser where the times themselves say so.
        relative_times: Whether its times count from a moment that is not known: no hour of the day,
            and no date.
        spelling: How its times are written, as far as it must be said.
        end_told: Whether it is known which end of a play a time is; else the times themselves
            decide (`players.times_are_starts`), and ``time_is`` of the mapping says nothing.
        event: Column that says what a row is: ``listen``, or one of `schema.OPINIONS`.
        opinion: What all its rows are, where they are opinions; they name a user, a time and a
            track alone.
    """

    name: str
    mapping: PlayMapping
    table: Table | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    podcast: tuple[str, ...] = ()
    audiobook: tuple[str, ...] = ()
    private: str | None = None
    scrobbles: bool = False
    only_names: bool = False
    flags_trusted: bool = False
    resolution_ms: int = SECOND
    relative_times: bool = False
    spelling: TimeSpelling = field(default_factory=TimeSpelling)
    end_told: bool = True
    event: str | None = None
    opinion: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that it reads."""
        single = (name for name in (self.private, self.event) if name is not None)
        every = (*self.mapping.columns, *self.podcast, *self.audiobook, *single)
        return tuple(dict.fromkeys(every))

    def described(self) -> dict[str, str]:
        """Which column says what, under the names of the file, for people."""
        pairs, found = self.mapping.pairs(), self.mapping.described()
        for key, column in pairs.items():
            source = self.made.get(column, column)
            found[key] = source + found[key].removeprefix(column) if source else ""
        found = {key: source for key, source in found.items() if source}
        if self.opinion is not None or not self.end_told:
            found["time"] = self.made.get(self.mapping.time, self.mapping.time)
        if self.opinion is not None:
            return {key: found[key] for key in ("user", "time", "track")}
        return found
