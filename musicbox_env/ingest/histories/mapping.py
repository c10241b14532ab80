"""Which columns of a table of plays say what: given by the user, or proposed from their names.

A mapping is written ``user=uid,time=played_at,track=song_id,played_ms=heard``, or as a TOML file
of the same keys. A proposal is only ever shown; it is used where the user says so (`AUTO`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from musicbox_env.schema import require_known

AUTO: Final = "auto"
"""In place of a mapping: take the one that is proposed."""
TIMES: Final = ("start", "end")
EVIDENCE: Final = ("played_ms", "played_s", "completed", "skipped")


@dataclass(frozen=True, kw_only=True)
class PlayMapping:
    """Names of the columns of a table of plays; those left out are unknown.

    Attributes:
        time: When the play started or ended: ISO 8601 (UTC where it names no zone), or Unix
            seconds, milliseconds, microseconds or nanoseconds.
        time_is: Which of both, ``start`` or ``end``; where left out, by the column's name,
            and ``start`` where that does not say.
        user: Who listened; without it all plays are one listener's.
        track: Id of the track; without it title and artist together are the id.
        title: Title of the track.
        artist: Artist of the track.
        played_ms: Milliseconds heard.
        played_s: Seconds heard, in place of ``played_ms``.
        duration_ms: Length of the track in milliseconds.
        duration_s: Length of the track in seconds, in place of ``duration_ms``.
        completed: True where the track was heard to its end.
        skipped: True where the listener skipped it.
        context: Where it was played from; names of `schema.CONTEXT_TYPES`, others are unknown.
        shuffle: True where shuffle was on.
        reason_start: What started the play, in the words of `schema.REASONS_START`.
        reason_end: What ended it, in the words of `schema.REASONS_END`.
        platform: Device; never stored, it separates players that ran at once.
    """

    time: str
    time_is: str = ""
    user: str | None = None
    track: str | None = None
    title: str | None = None
    artist: str | None = None
    played_ms: str | None = None
    played_s: str | None = None
    duration_ms: str | None = None
    duration_s: str | None = None
    completed: str | None = None
    skipped: str | None = None
    context: str | None = None
    shuffle: str | None = None
    reason_start: str | None = None
    reason_end: str | None = None
    platform: str | None = None

    def __post_init__(self) -> None:
        if not self.time_is:
            object.__setattr__(self, "time_is", _time_by_name(self.time))
        require_known("time_is", self.time_is, TIMES)
        if not self.track and not (self.title and self.artist):
            raise ValueError("A mapping must name track, or both title and artist.")
        if not self.evidence:
            raise ValueError(
                "A mapping must name what says how far a play was heard: one or more of "
                f"{', '.join(EVIDENCE)}."
            )
        for name in ("played", "duration"):
            if getattr(self, f"{name}_ms") and getattr(self, f"{name}_s"):
                raise ValueError(f"A mapping names both {name}_ms and {name}_s; one expected.")

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
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "time_is"}
        return {key: column for key, column in named.items() if column}

    def fits(self, columns: Collection[str]) -> bool:
        """Whether a table has all columns that it names."""
        return set(self.columns) <= set(columns)

    def option(self) -> str:
        """The mapping as ``--map`` takes it."""
        pairs = {**self.pairs(), "time_is": self.time_is}
        return ",".join(f"{key}={column}" for key, column in pairs.items())

    def described(self) -> dict[str, str]:
        """Key and column of everything that is mapped, for people."""
        return {**self.pairs(), "time": f"{self.time} ({self.time_is} of the play)"}


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
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
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


def _read_toml(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; --map takes key=column pairs separated by commas, a TOML file "
            f"of them, or {AUTO!r}."
        )
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no TOML file: {error}") from error


USUAL_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "user": (
        *("user", "userid", "uid", "username", "listener", "listenerid", "account", "accountid"),
        *("customer", "customerid", "member", "memberid", "profileid"),
    ),
    "time": (
        *("startedat", "starttime", "start", "playedat", "listenedat", "timestamp", "eventtime"),
        *("time", "datetime", "utctime", "createdat", "endedat", "endtime", "stoppedat"),
        *("stoptime", "end", "stop", "ts"),
    ),
    "track": ("trackid", "songid", "trackuri", "uri", "itemid", "recordingid", "isrc", "track"),
    "title": ("title", "trackname", "tracktitle", "songname", "songtitle", "name", "song"),
    "artist": ("artist", "artistname", "performer"),
    "played_ms": ("msplayed", "playedms", "listenms", "listenedms", "mslistened", "heardms"),
    "played_s": ("secondsplayed", "playedseconds", "secondslistened", "listenseconds", "playeds"),
    "duration_ms": ("durationms", "trackdurationms", "lengthms", "tracklengthms"),
    "duration_s": ("durations", "durationsec", "durationseconds", "lengthseconds", "lengths"),
    "completed": ("completed", "iscompleted", "complete", "finished", "playedtoend"),
    "skipped": ("skipped", "isskipped", "skip", "wasskipped"),
    "context": ("context", "contexttype"),
    "shuffle": ("shuffle", "isshuffle", "shuffled"),
    "reason_start": ("reasonstart",),
    "reason_end": ("reasonend",),
    "platform": ("platform", "device", "deviceid", "devicetype"),
}
"""Names, in small letters and digits, under which columns are proposed; earlier ones first."""
_ENDS: Final = re.compile(r"end|stop|^ts$")


def _time_by_name(column: str) -> str:
    return "end" if _ENDS.search(column.lower()) else "start"


def usual_columns(columns: Sequence[str]) -> dict[str, str]:
    """Keys of a mapping and the columns that have a usual name for them."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(re.sub(r"[^a-z0-9]", "", column.lower()), column)
    found: dict[str, str] = {}
    for key, names in USUAL_NAMES.items():
        free = [by_name[n] for n in names if n in by_name and by_name[n] not in found.values()]
        if free:
            found[key] = free[0]
    for name in ("played", "duration"):
        if f"{name}_ms" in found:
            found.pop(f"{name}_s", None)
    return found


def looks_like_plays(columns: Sequence[str]) -> bool:
    """Whether a table's columns name a time and a song."""
    found = usual_columns(columns)
    return "time" in found and ("track" in found or "title" in found)


def propose_mapping(columns: Sequence[str]) -> PlayMapping | None:
    """A mapping by the usual names; None where they do not say enough."""
    try:
        return PlayMapping(**usual_columns(columns))
    except (ValueError, TypeError):
        return None


def explain_proposal(name: str, columns: Sequence[str]) -> str:
    """What to do with a table that looks like plays but comes without a mapping."""
    mapping = propose_mapping(columns)
    found = usual_columns(columns) if mapping is None else mapping.described()
    lines = [
        f"{name} looks like a table of plays. By the names of its columns it says:",
        *mapping_lines(found),
    ]
    if mapping is not None:
        lines += [
            "Nothing was read, since only you know whether that is so. If it is, run the same "
            f"command with --map {AUTO}; if not, with what is right, as in",
            f'  --map "{mapping.option()}"',
        ]
    else:
        lines += [
            f"Which of its columns ({', '.join(columns)}) say the rest, above all one of "
            f"{', '.join(EVIDENCE)}, only you know: say it with --map, as in",
            "  --map user=COLUMN,time=COLUMN,track=COLUMN,played_ms=COLUMN,duration_ms=COLUMN",
        ]
    return "\n".join(lines)
