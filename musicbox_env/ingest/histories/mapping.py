"""Which columns of a table of plays say what, as the user says it; `proposal` proposes one.

A mapping is written ``user=uid,time=played_at,track=song_id,played_ms=heard``, or as a TOML file
of the same keys. A proposal is only ever shown; it is used where the user says so (`AUTO`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from musicbox_env.ingest.spelling.dialect import decoded
from musicbox_env.ingest.spelling.times import LOCAL, find_zone, require_format
from musicbox_env.schema import require_known

AUTO: Final = "auto"
"""In place of a mapping: take the one that is proposed."""
TIMES: Final = ("start", "end")
EVIDENCE: Final = ("played_ms", "played_s", "played_share", "completed", "skipped")
SETTINGS: Final = ("time_is", "time_format")
"""Keys that name no column; ``time_zone`` may or may not."""


@dataclass(frozen=True, kw_only=True)
class PlayMapping:
    """Names of the columns of a table of plays; those left out are unknown.

    Attributes:
        time: When the play started or ended: ISO 8601 (UTC where it names no zone), Unix seconds,
            milliseconds, microseconds or nanoseconds, or a date in most other spellings.
        date: The date, where ``time`` holds the time of day alone.
        time_format: How times are written, where their values leave it open: day-first or
            month-first, unix_s, unix_ms, unix_us, or a pattern such as ``%d/%m/%Y %H:%M``.
        time_zone: Where the clocks stood, for times that name no zone: a zone such as
            Europe/Berlin or +02:00, ``local`` for that of ``--timezone``, or a column of zones.
        time_is: Which of both, ``start`` or ``end``; where left out, by the column's name,
            and ``start`` where that does not say.
        began: When the play began, where ``time`` is its end: the better of both where they
            disagree. It is not used where it cannot be true.
        user: Who listened; without it all plays are one listener's.
        track: Id of the track; without it title and artist together are the id.
        title: Title of the track.
        artist: Artist of the track.
        played_ms: Milliseconds heard.
        played_s: Seconds heard, in place of ``played_ms``.
        played_share: Share of the track that was heard, 0 to 1 or percent, in place of both.
        duration_ms: Length of the track in milliseconds.
        duration_s: Length of the track in seconds, in place of ``duration_ms``.
        completed: True where the track was heard to its end.
        skipped: True where the listener skipped it.
        source: Whether the listener chose the song (organic) or a recommender did (recommended).
        context: Where it was played from; names of `schema.CONTEXT_TYPES`, others are unknown.
        shuffle: True where shuffle was on.
        reason_start: What started the play, in the words of `schema.REASONS_START`.
        reason_end: What ended it, in the words of `schema.REASONS_END`.
        platform: Device; never stored, it separates players that ran at once.
    """

    time: str
    date: str | None = None
    time_is: str = ""
    time_format: str = ""
    time_zone: str = ""
    began: str | None = None
    user: str | None = None
    track: str | None = None
    title: str | None = None
    artist: str | None = None
    played_ms: str | None = None
    played_s: str | None = None
    played_share: str | None = None
    duration_ms: str | None = None
    duration_s: str | None = None
    completed: str | None = None
    skipped: str | None = None
    source: str | None = None
    context: str | None = None
    shuffle: str | None = None
    reason_start: str | None = None
    reason_end: str | None = None
    platform: str | None = None

    def __post_init__(self) -> None:
        if not self.time_is:
            object.__setattr__(self, "time_is", _time_by_name(self.time))
        require_known("time_is", self.time_is, TIMES)
        if self.time_format:
            words = self.time_format.replace("_first", "-first")
            object.__setattr__(self, "time_format", words)
            require_format(words)
        if not self.track and not (self.title and self.artist):
            raise ValueError("A mapping must name track, or both title and artist.")
        for name in ("played", "duration"):
            if getattr(self, f"{name}_ms") and getattr(self, f"{name}_s"):
                raise ValueError(f"A mapping names both {name}_ms and {name}_s; one expected.")
        if self.played_share and (self.played_ms or self.played_s):
            raise ValueError(
                "A mapping names both a time heard and played_share; one of them expected."
            )

    @property
    def evidence(self) -> list[str]:
        """Keys that say how far a play was heard."""
        return [name for name in EVIDENCE if getattr(self, name)]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it names, each once."""
        return tuple(dict.fromkeys(self.pairs().values()))

    def pairs(self) -> dict[str, str]:
        """Key and column of everything that is mapped."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in SETTINGS}
        if not self.zone_column:
            del named["time_zone"]
        return {key: column for key, column in named.items() if column}

    @property
    def zone_column(self) -> str:
        """The column of zones, if ``time_zone`` names one."""
        zone = self.time_zone
        return zone if zone and zone != LOCAL and find_zone(zone) is None else ""

    def settings(self) -> dict[str, str]:
        """What it says beside columns."""
        zone = "" if self.zone_column else self.time_zone
        named = {**{name: getattr(self, name) for name in SETTINGS}, "time_zone": zone}
        return {key: value for key, value in named.items() if value}

    def lacking(self, columns: Collection[str]) -> list[str]:
        """Columns that it names, that a table lacks, and without which it cannot be read."""
        names = [self.time, self.date, self.user, self.zone_column]
        missing = [name for name in names if name and name not in columns]
        song = [name for name in (self.track, self.title, self.artist) if name]
        named = self.track in columns or {self.title, self.artist} <= {*columns}
        missing += [] if named else [name for name in song if name not in columns]
        evidence = [getattr(self, key) for key in self.evidence]
        if not any(name in columns for name in evidence):
            missing += evidence
        return missing

    def fits(self, columns: Collection[str]) -> bool:
        """Whether a table has all columns without which it cannot be read."""
        return not self.lacking(columns)

    def nearly_fits(self, columns: Collection[str]) -> bool:
        """Whether a table that does not fit seems to be meant, not some other table."""
        song = any(name in columns for name in (self.track, self.title) if name)
        heard = any(getattr(self, key) in columns for key in self.evidence)
        return [self.time in columns, song, heard].count(True) >= 2

    def within(self, columns: Collection[str]) -> PlayMapping:
        """The same without the columns that a table lacks."""
        missing = {key: None for key, column in self.pairs().items() if column not in columns}
        return replace(self, **missing) if missing else self  # type: ignore[arg-type]

    def option(self) -> str:
        """The mapping as ``--map`` takes it."""
        pairs = {**self.pairs(), **self.settings()}
        return ",".join(f"{key}={column}" for key, column in pairs.items())

    def described(self) -> dict[str, str]:
        """Key and column of everything that is mapped, for people."""
        time = f"{self.time} ({self.time_is} of the play)"
        return {**self.pairs(), "time": time}


def mapping_lines(columns: Mapping[str, str]) -> list[str]:
    """Keys and columns for people, a line a key."""
    return [f"  {key:<13}from column {column}" for key, column in columns.items()]


def read_mapping(text: str) -> PlayMapping:
    """Read ``--map``: pairs ``key=column`` separated by commas, or the name of a TOML file.

    >>> read_mapping("time=ts,track=song,played_ms=heard").time_is
    'end'

    Raises:
        ValueError: It cannot be read, or says too little or what is unknown.
        FileNotFoundError: There is no such TOML file.
    """
    if "=" in text:
        pairs = [part.partition("=") for part in _parts(text)]
        content: Mapping[str, Any] = {key.strip(): column.strip() for key, _, column in pairs}
        if len(content) < len(pairs):
            raise ValueError(f"{text!r} maps a key twice, or names a column without a key.")
    else:
        content = _read_toml(Path(text))
    known = [f.name for f in fields(PlayMapping)]
    for key, column in content.items():
        require_known("key of a mapping", key, known)
        if not isinstance(column, str) or not column:
            raise ValueError(f"The mapping of {key} is {column!r}; the name of a column expected.")
    if "time" not in content:
        raise ValueError(f"A mapping must name time; it names {', '.join(content) or 'nothing'}.")
    return PlayMapping(**content)


def _parts(text: str) -> list[str]:
    """The pairs of a mapping; a pattern of times may hold the comma that separates them."""
    parts: list[str] = []
    for part in filter(str.strip, text.split(",")):
        if "=" not in part and parts and parts[-1].lstrip().startswith("time_format"):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _read_toml(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; --map takes key=column pairs separated by commas, a TOML file "
            f"of them, or {AUTO!r}."
        )
    try:
        return tomllib.loads(decoded(file.read_bytes()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no TOML file: {error}") from error


_ENDS: Final = re.compile(r"end|stop|finish|^ts$|(?<![a-z])(?:fine?|fim)(?![a-z])|(?<![a-z])eind")


def _time_by_name(column: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return "end" if _ENDS.search(words.lower()) else "start"
