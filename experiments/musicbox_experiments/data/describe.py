"""Print what is in a dataset folder: splits, how plays were heard, tracks, what is unknown."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from musicbox_agents.base import require_ranges
from tyro.conf import Positional

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.sessions import MEND
from musicbox_env.data.splits import TIME
from musicbox_env.data.summaries import repeats
from musicbox_env.errors import reading, shown
from musicbox_env.ingest.training_parts import SOURCE_COLUMN
from musicbox_env.kernels import fill_rows
from musicbox_env.schema import (
    DIVERSITY_FEATURES,
    MAX_SESSION_LENGTH,
    NUM_LEVELS,
    PLAY_COLUMNS,
    SOURCES,
    SPLITS,
    TRACK_FEATURES,
    UNKNOWN,
    Level,
    is_skip,
)
from musicbox_experiments.data.enough import cautions
from musicbox_experiments.text import columns, percent, say

CHUNK_SESSIONS = 100_000
"""Sessions counted at a time: memory holds two million plays at most."""
ROUNDING = 1e-12
"""What lies nearer to 0 is an error of rounding."""
CONTEXTS = (*PLAY_COLUMNS["context_type"].vocabulary, "unknown")
LEVEL_NAMES = {
    Level.BRIEF: "brief (skip_1)",
    Level.SHORT: "short (skip_2)",
    Level.MOST: "most (skip_3)",
    Level.CUT: "cut (no label)",
    Level.FULL: "full (not_skipped)",
}
SHOWN_APART = ("sources", "rows_read", "rejected", "format_version", "sessions", "plays", "tracks")
"""Keys of ``dataset.json`` that have lines of their own."""


@dataclass(frozen=True)
class DescribeConfig:
    """What to describe.

    Attributes:
        data: Dataset folder; the bundled synthetic one if none is named.
        top: How many of the most played tracks to show.
    """

    data: Positional[Path | None] = None
    top: int = 10

    def __post_init__(self) -> None:
        require_ranges(self, {"top": (0, np.inf)})


def run(config: DescribeConfig) -> None:
    """Print the description."""
    data = config.data
    if data is None:
        from musicbox_env.synthetic.generator import bundled_dataset

        data = bundled_dataset()
    say(describe(Dataset(data), top=config.top))


def describe(dataset: Dataset, *, top: int = 10) -> str:
    """Describe a dataset in readable text, a section a subject."""
    counts = PlayCounts.of(dataset)
    flagged = SOURCE_COLUMN in dataset.sessions.column_names
    with reading(dataset.folder / "dataset.json", MEND):
        origin = _origin(dataset.about)
    sections = {
        f"{dataset.folder}": _overview(dataset, counts),
        "Splits": _splits(dataset),
        "How plays were heard": _levels(counts),
        "Skipped (skip_2) by position": _grid(counts.skip_rates("position")),
        "Session lengths": _grid(
            _ratio(np.where(counts.length > 0, counts.length, np.nan), counts.length.sum())
        ),
        "Context": _contexts(counts),
        **({"Who chose the songs": _sources(counts)} if flagged else {}),
        "Known values of the plays": _known_plays(counts),
        f"Most played tracks (in training, first {top})": _top_tracks(dataset, top),
        "Track features": _features(dataset),
        "Embeddings": _embeddings(dataset),
        "What it is too small for": cautions(dataset) or ["nothing that shows in these counts"],
        "Where it comes from": origin,
    }
    return "\n\n".join(
        f"{title}\n{'-' * len(title)}\n{chr(10).join(lines)}" for title, lines in sections.items()
    )


class PlayCounts:
    """Sums over all plays.

    Attributes:
        by: Plays by a value and by level, ``(values + 1, 5 + 1)`` each, what is unknown last: by
            `position` (from 1), by whether the `previous` play was skipped, by whether the track
            is a `repeat` within the session, by `context_type`, `premium`, `shuffle` and `source`.
        length: Sessions by number of plays, ``(21,)``.
        unknown: Unknown values of each column.
    """

    def __init__(self) -> None:
        """Begin with no plays."""
        flags = dict.fromkeys(("previous", "repeat", "premium", "shuffle", SOURCE_COLUMN), 2)
        sizes = {"position": MAX_SESSION_LENGTH + 1, "context_type": len(CONTEXTS) - 1, **flags}
        self.by = {n: np.zeros((size + 1, NUM_LEVELS + 1), np.int64) for n, size in sizes.items()}
        self.length = np.zeros(MAX_SESSION_LENGTH + 1, np.int64)
        self.unknown: Counter[str] = Counter()

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Count a dataset, some sessions at a time."""
        counts = cls()
        offsets = dataset.sessions.offsets
        for first in range(0, dataset.sessions.num_sessions, CHUNK_SESSIONS):
            bounds = offsets[first : first + CHUNK_SESSIONS + 1]
            rows = slice(int(bounds[0]), int(bounds[-1]))
            log = dataset.sessions
            plays = {name: np.array(log.column(name)[rows]) for name in log.column_names}
            counts.add(plays, np.diff(bounds))
        return counts

    def add(self, plays: Mapping[str, npt.NDArray], lengths: npt.NDArray[np.int64]) -> None:
        """Count whole sessions: columns ``(plays,)`` and plays of each session ``(sessions,)``."""
        starts = np.cumsum(lengths) - lengths
        previous = np.roll(is_skip(plays["level"]).astype(np.int64), 1)
        previous[starts] = UNKNOWN
        songs = np.full((len(lengths), int(lengths.max())), UNKNOWN, plays["track"].dtype)
        fill_rows(plays["track"], starts, lengths, songs)
        values = {
            SOURCE_COLUMN: np.full(len(plays["level"]), UNKNOWN),
            **plays,
            "position": np.clip(plays["position"], 0, MAX_SESSION_LENGTH),
            "previous": previous,
            "repeat": repeats(songs)[songs != UNKNOWN].astype(np.int64),
        }
        for name, table in self.by.items():
            np.add.at(table, (values[name], plays["level"]), 1)  # -1, unknown, is the last
        np.add.at(self.length, np.minimum(lengths, MAX_SESSION_LENGTH), 1)
        for name, column in plays.items():
            self.unknown[name] += int((column == UNKNOWN).sum())

    @property
    def plays(self) -> int:
        """Number of plays."""
        return int(self.by["position"].sum())

    @property
    def level(self) -> npt.NDArray[np.int64]:
        """Plays of known level, by level ``(5,)``."""
        return self.by["position"][:, :NUM_LEVELS].sum(axis=0)

    def shares(self, name: str) -> npt.NDArray[np.float64]:
        """Share of the plays that has each value, unknown last; NaN without plays."""
        return _ratio(self.by[name].sum(axis=1), self.plays)

    def skip_rates(self, name: str) -> npt.NDArray[np.float64]:
        """Share of the plays with each value that was skipped; NaN where there are none."""
        table = self.by[name]
        return _ratio(table[:, : Level.MOST].sum(axis=1), table.sum(axis=1))


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Shares, NaN where there is nothing to take a share of."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(part) / np.where(whole > 0, whole, np.nan)


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> str:
    return percent(float(_ratio(part, whole)))


def _table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    return columns(rows, left=left).splitlines() if rows else []


def _overview(dataset: Dataset, counts: PlayCounts) -> list[str]:
    sessions, catalog = dataset.sessions, dataset.catalog
    in_training = int((catalog.plays() > 0).sum())
    after, again = counts.skip_rates("previous"), counts.skip_rates("repeat")
    return [
        f"{sessions.num_sessions:,} sessions, {sessions.num_plays:,} plays, {len(catalog):,} "
        f"tracks ({in_training:,} of them played in training)",
        f"Skipped: {_share(counts.level[: Level.MOST].sum(), counts.level.sum())} of plays; "
        f"{percent(after[0])} after a play that was kept, {percent(after[1])} after a skip",
        f"Repeats: {percent(counts.shares('repeat')[1])} of plays are of a track heard before in "
        f"the session; skipped {percent(again[1])}, first hearings {percent(again[0])}",
    ]


def _splits(dataset: Dataset) -> list[str]:
    about = dataset.about.get("split", {})
    if about.get("kind") == TIME:
        return [*_table(_sessions_and_plays(dataset)), *time_split_lines(about)]
    fold = about.get("test_fold", about.get("turn", 0))  # "turn" before it was renamed
    runs = "history" in dataset.about
    key = "the run of plays, all sessions of a run together" if runs else "the session id"
    return [
        *_table(_sessions_and_plays(dataset)),
        f"by hash of {key}, seed {about.get('seed', 'unknown')}, test fold {fold}",
    ]


def _sessions_and_plays(dataset: Dataset) -> list[tuple[str, ...]]:
    split, lengths = dataset.sessions.split, np.diff(dataset.sessions.offsets)
    sessions = np.bincount(split, minlength=len(SPLITS))
    plays = np.bincount(split, weights=lengths, minlength=len(SPLITS)).astype(int)
    return [
        (name, f"{sessions[i]:,} sessions", _share(sessions[i], len(split)), f"{plays[i]:,} plays")
        for i, name in enumerate(SPLITS)
    ]


def time_split_lines(about: Mapping[str, Any]) -> list[str]:
    """How sessions were divided by time and what was left out, by ``dataset.json``'s ``split``."""
    by = "dates that were named (and are not stored)"
    if about["by"] == "shares":
        by = "shares of " + ", ".join(
            f"{100 * about.get(name, 0):g} % {name}" for name in ("train", "validation", "test")
        )
    return [
        f"by time: training, a gap of {about['gap']}, validation, then test; by {by}; training "
        f"halved by hash, seed {about['seed']}",
        *(
            f"left out: {of['sessions']:,} sessions ({of['plays']:,} plays) {what}"
            for what, of in about.get("left_out", {}).items()
        ),
    ]


def _levels(counts: PlayCounts) -> list[str]:
    plays = counts.level
    rows = [
        (f"{level} {name}", f"{plays[level]:,}", _share(plays[level], plays.sum()))
        for level, name in LEVEL_NAMES.items()
    ]
    return _table(rows)


def _grid(shares: npt.NDArray[np.float64]) -> list[str]:
    """Shares by number, five a line, without those that are NaN."""
    known = np.flatnonzero(~np.isnan(shares))
    cells = [f"{number:>3} {percent(shares[number]):>7}" for number in known]
    return ["  ".join(cells[i : i + 5]) for i in range(0, len(cells), 5)] or ["nothing"]


def _contexts(counts: PlayCounts) -> list[str]:
    order = np.argsort(-counts.shares("context_type"), kind="stable")
    named = [("context_type", code, CONTEXTS[code]) for code in order]
    for flag in ("premium", "shuffle"):
        named += [(flag, i, f"{flag} {value}") for i, value in enumerate(("off", "on", "unknown"))]
    rows = []
    for column, code, name in named:
        share, skipped = counts.shares(column)[code], counts.skip_rates(column)[code]
        if share > 0:
            rows.append((name, percent(share), f"of plays, skipped {percent(skipped)}"))
    return _table(rows)


def _sources(counts: PlayCounts) -> list[str]:
    shares, skipped = counts.shares(SOURCE_COLUMN), counts.skip_rates(SOURCE_COLUMN)
    rows = [
        (name, percent(shares[code]), f"of plays, skipped {percent(skipped[code])}")
        for code, name in enumerate((*SOURCES, "unknown"))
        if shares[code] > 0
    ]
    return _table(rows)


def _known_plays(counts: PlayCounts) -> list[str]:
    gaps = sorted(((n, c) for n, c in counts.unknown.items() if c), key=lambda gap: -gap[1])
    rows = [(name, f"unknown for {_share(count, counts.plays)} of plays") for name, count in gaps]
    return _table(rows, left=2) or ["every column is known for every play"]


def _top_tracks(dataset: Dataset, top: int) -> list[str]:
    catalog = dataset.catalog
    plays, skips = catalog.plays(), catalog.skips()
    rows = [
        (catalog.titles[row], f"{plays[row]:,} plays", f"skipped {_share(skips[row], plays[row])}")
        for row in range(min(top, len(catalog)))
    ]
    most = [
        f"the {count:,} most played have {_share(plays[:count].sum(), plays.sum())} of the plays"
        for count in (100, 1_000, 10_000)
        if count < len(catalog)
    ]
    once = _share((plays == 1).sum(), (plays > 0).sum())
    return [*_table(rows), *most, f"{once} of the tracks played in training were played once"]


def _features(dataset: Dataset) -> list[str]:
    """Which features are known, of tracks and weighted by training plays."""
    catalog = dataset.catalog
    if not catalog.feature_names:
        return ["none: the dataset was made without track features"]
    plays = catalog.plays()
    known = {n: ~np.isnan(catalog.features((n,))[:, 0]) for n in catalog.feature_names}
    rows = [
        (
            name,
            f"known for {_share(mask.sum(), len(catalog))} of tracks",
            f"{_share(plays[mask].sum(), plays.sum())} of training plays",
        )
        for name, mask in known.items()
    ]
    lines = _table(rows)
    if absent := [name for name in TRACK_FEATURES if name not in known]:
        lines.append(f"absent: {', '.join(absent)}")
    if all(name in known for name in DIVERSITY_FEATURES):
        complete = np.all([known[name] for name in DIVERSITY_FEATURES], axis=0)
        lines.append(
            f"all {len(DIVERSITY_FEATURES)} features of the diversity measure: "
            f"{_share(complete.sum(), len(catalog))} of tracks"
        )
    return lines


def _embeddings(dataset: Dataset) -> list[str]:
    lines: list[str] = []
    notes: dict[str, dict[str, Any]] = {}
    for name in dataset.embedding_names:
        rows, dim = dataset.embedding(name).shape
        note = dataset.about_embedding(name)
        note.pop("name", None)
        twin = next((other for other, known in notes.items() if note and known == note), None)
        lines.append(f"{name}: {rows:,} tracks in {dim} dimensions{f', as {twin}' * bool(twin)}")
        if twin is None:
            lines += _flat(note, "  ")
        notes[name] = note
    return lines or ["none fitted"]


def _origin(about: Mapping[str, Any]) -> list[str]:
    """Sources, rejects, filters and whatever else ``dataset.json`` says."""
    sources = about.get("sources", [])
    lines = [
        f"{s['file']}: {s['rows']:,} rows, "
        + (f"{s['sessions']:,} sessions, " if "sessions" in s else "")
        + f"sha256 {s['sha256'][:16]}..."
        for s in sources[:10]
    ]
    if len(sources) > 10:
        lines.append(f"and {len(sources) - 10:,} files more")
    if "rejected" in about:
        rows, read = about["rejected"]["rows"], about.get("rows_read", 0)
        share = _share(rows, read)
        lines.append(f"{rows:,} of {read:,} rows rejected ({share}), listed in rejects.csv")
        lines += [f"  {count:>10,}  {why}" for why, count in about["rejected"]["reasons"].items()]
    apart = {*SHOWN_APART, "longest_session", "split"}
    return lines + list(_flat({key: value for key, value in about.items() if key not in apart}))


def _flat(content: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Nested settings as indented lines."""
    for key, value in content.items():
        if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            yield f"{indent}{key}:"
            for entry in value:
                yield f"{indent}  {', '.join(f'{k} {_plain(v)}' for k, v in entry.items())}"
        elif isinstance(value, list) and any(_is_sentence(entry) for entry in value):
            yield f"{indent}{key}:"
            for entry in value:
                yield f"{indent}  {_plain(entry)}"
        elif isinstance(value, Mapping) and set(value) == {"value", "low", "high"}:
            point, low, high = (_plain(value[name]) for name in ("value", "low", "high"))
            yield f"{indent}{key}: {point} [{low}, {high}]"
        elif isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _flat(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_plain(value)}"


def _is_sentence(value: Any) -> bool:
    """Whether a text would be lost among others between commas."""
    return isinstance(value, str) and (", " in value or value.count(" ") > 1)


def _plain(value: Any) -> str:
    match value:
        case None | {} | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value if abs(value) > ROUNDING else 0.0:.4g}"
        case list():
            return ", ".join(map(_plain, value))
    return shown(str(value))
