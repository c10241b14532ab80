"""Print what is in a dataset folder: splits, how plays were heard, tracks, what is unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tyro.conf import Positional

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats
from musicbox_env.kernels import fill_rows
from musicbox_env.schema import (
    DIVERSITY_FEATURES,
    MAX_SESSION_LENGTH,
    NUM_LEVELS,
    PLAY_COLUMNS,
    SPLITS,
    TRACK_FEATURES,
    UNKNOWN,
    Level,
    is_skip,
)
from musicbox_experiments.data.enough import cautions

CHUNK_SESSIONS = 100_000
"""Sessions counted at a time: memory holds two million plays at most."""


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
        if self.top < 0:
            raise ValueError(f"top is {self.top}; 0 or more expected.")


def run(config: DescribeConfig) -> None:
    """Print the description."""
    data = config.data
    if data is None:
        from musicbox_env.synthetic.generator import bundled_dataset

        data = bundled_dataset()
    print(describe(Dataset(data), top=config.top))


def describe(dataset: Dataset, *, top: int = 10) -> str:
    """Describe a dataset in readable text, a section a subject."""
    counts = PlayCounts.of(dataset)
    sections = {
        f"{dataset.folder}": _overview(dataset, counts),
        "Splits": _splits(dataset),
        "How plays were heard": _levels(counts),
        "Skipped (skip_2) by position": _by_position(counts),
        "Session lengths": _lengths(counts),
        "Context": _contexts(counts),
        "Known values of the plays": _known_plays(counts),
        f"Most played tracks (in training, first {top})": _top_tracks(dataset, top),
        "Track features": _features(dataset),
        "Embeddings": _embeddings(dataset),
        "What it is too small for": cautions(dataset) or ["nothing that shows in these counts"],
        "Where it comes from": _origin(dataset.about),
    }
    return "\n\n".join(
        f"{title}\n{'-' * len(title)}\n{chr(10).join(lines)}" for title, lines in sections.items()
    )


@dataclass
class PlayCounts:
    """Sums over all plays.

    Attributes:
        level: Plays by position and level, ``(21, 5)``; positions count from 1.
        length: Sessions by number of plays, ``(21,)``.
        after: Plays by whether the play before was skipped and whether they are, ``(2, 2)``.
        repeats: Plays by whether their track was in the session before and whether they are
            skipped, ``(2, 2)``.
        context: Plays by context and whether skipped, ``(contexts + 1, 2)``; unknown comes last.
        flags: Of ``premium`` and ``shuffle``, plays by value (unknown last) and skip, ``(3, 2)``.
        unknown: Unknown values of each column.
    """

    level: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    repeats: npt.NDArray[np.int64]
    context: npt.NDArray[np.int64]
    flags: dict[str, npt.NDArray[np.int64]]
    unknown: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> PlayCounts:
        """Count a dataset, some sessions at a time."""
        num_contexts = len(PLAY_COLUMNS["context_type"].vocabulary)
        places = MAX_SESSION_LENGTH + 1
        counts = cls(
            level=np.zeros((places, NUM_LEVELS), np.int64),
            length=np.zeros(places, np.int64),
            after=np.zeros((2, 2), np.int64),
            repeats=np.zeros((2, 2), np.int64),
            context=np.zeros((num_contexts + 1, 2), np.int64),
            flags={name: np.zeros((3, 2), np.int64) for name in ("premium", "shuffle")},
            unknown=dict.fromkeys(PLAY_COLUMNS, 0),
        )
        for columns, lengths in _chunks(dataset):
            counts._add(columns, lengths)
        return counts

    def _add(self, columns: Mapping[str, npt.NDArray], lengths: npt.NDArray[np.int64]) -> None:
        level, position = columns["level"], np.clip(columns["position"], 0, MAX_SESSION_LENGTH)
        skip = is_skip(level).astype(np.int64)
        heard = level >= 0
        np.add.at(self.level, (position[heard], level[heard]), 1)
        self.length += np.bincount(
            np.minimum(lengths, MAX_SESSION_LENGTH), minlength=MAX_SESSION_LENGTH + 1
        )
        session = np.repeat(np.arange(len(lengths)), lengths)
        follows = session[1:] == session[:-1]
        np.add.at(self.after, (skip[:-1][follows], skip[1:][follows]), 1)
        songs = np.full((len(lengths), int(lengths.max())), UNKNOWN, columns["track"].dtype)
        fill_rows(columns["track"], np.cumsum(lengths) - lengths, lengths, songs)
        again = repeats(songs)[songs != UNKNOWN]
        np.add.at(self.repeats, (again.astype(np.int64), skip), 1)
        # Code -1, unknown, counts in the last row.
        np.add.at(self.context, (columns["context_type"], skip), 1)
        for name, table in self.flags.items():
            np.add.at(table, (columns[name], skip), 1)
        for name, values in columns.items():
            self.unknown[name] += int((values == UNKNOWN).sum())

    @property
    def plays(self) -> int:
        """Number of plays."""
        return int(self.context.sum())


def _chunks(
    dataset: Dataset,
) -> Iterator[tuple[dict[str, npt.NDArray], npt.NDArray[np.int64]]]:
    offsets = dataset.sessions.offsets
    for first in range(0, dataset.sessions.num_sessions, CHUNK_SESSIONS):
        bounds = offsets[first : first + CHUNK_SESSIONS + 1]
        rows = slice(int(bounds[0]), int(bounds[-1]))
        columns = {name: np.array(dataset.sessions.column(name)[rows]) for name in PLAY_COLUMNS}
        yield columns, np.diff(bounds)


def _overview(dataset: Dataset, counts: PlayCounts) -> list[str]:
    sessions, catalog = dataset.sessions, dataset.catalog
    in_training = int((catalog.plays() > 0).sum())
    after, repeats = counts.after, counts.repeats
    return [
        f"{sessions.num_sessions:,} sessions, {sessions.num_plays:,} plays, {len(catalog):,} "
        f"tracks ({in_training:,} of them played in training)",
        f"Skipped: {_share(counts.level[:, : Level.MOST].sum(), counts.level.sum())} of plays; "
        f"{_share(after[0, 1], after[0].sum())} after a play that was kept, "
        f"{_share(after[1, 1], after[1].sum())} after a skip",
        f"Repeats: {_share(repeats[1].sum(), repeats.sum())} of plays are of a track heard before "
        f"in the session; skipped {_share(repeats[1, 1], repeats[1].sum())}, first hearings "
        f"{_share(repeats[0, 1], repeats[0].sum())}",
    ]


def _splits(dataset: Dataset) -> list[str]:
    split, lengths = dataset.sessions.split, np.diff(dataset.sessions.offsets)
    sessions = np.bincount(split, minlength=len(SPLITS))
    plays = np.bincount(split, weights=lengths, minlength=len(SPLITS)).astype(int)
    division = dataset.about.get("split", {})
    seed = division.get("seed", "unknown")
    fold = division.get("test_fold", division.get("turn", 0))  # turn: of datasets before 0.2
    runs = "history" in dataset.about
    key = "the run of plays, all sessions of a run together" if runs else "the session id"
    return [
        *(
            f"{name:<12}{sessions[code]:>14,} sessions {_share(sessions[code], len(split)):>8}"
            f"{plays[code]:>16,} plays"
            for code, name in enumerate(SPLITS)
        ),
        f"by hash of {key}, seed {seed}, test fold {fold}",
    ]


def _levels(counts: PlayCounts) -> list[str]:
    meaning = {
        Level.BRIEF: "brief (skip_1)",
        Level.SHORT: "short (skip_2)",
        Level.MOST: "most (skip_3)",
        Level.CUT: "cut (no label)",
        Level.FULL: "full (not_skipped)",
    }
    by_level = counts.level.sum(axis=0)
    return [
        f"{level} {name:<20}{by_level[level]:>14,} {_share(by_level[level], by_level.sum()):>8}"
        for level, name in meaning.items()
    ]


def _by_position(counts: PlayCounts) -> list[str]:
    plays = counts.level.sum(axis=1)
    skips = counts.level[:, : Level.MOST].sum(axis=1)
    cells = [
        f"{position:>3} {_share(skips[position], plays[position]):>7}"
        for position in range(1, MAX_SESSION_LENGTH + 1)
        if plays[position]
    ]
    return ["  ".join(cells[i : i + 5]) for i in range(0, len(cells), 5)] or ["no plays"]


def _lengths(counts: PlayCounts) -> list[str]:
    cells = [
        f"{length:>3} {_share(count, counts.length.sum()):>7}"
        for length, count in enumerate(counts.length)
        if count
    ]
    return ["  ".join(cells[i : i + 5]) for i in range(0, len(cells), 5)] or ["no sessions"]


def _contexts(counts: PlayCounts) -> list[str]:
    names = [*PLAY_COLUMNS["context_type"].vocabulary, "unknown"]
    order = np.argsort(-counts.context.sum(axis=1), kind="stable")
    lines = [_group(names[code], counts.context[code], counts.plays) for code in order]
    for flag, table in counts.flags.items():
        for value, name in enumerate(("off", "on", "unknown")):
            lines.append(_group(f"{flag} {name}", table[value], counts.plays))
    return [line for line in lines if line]


def _group(name: str, skip_counts: npt.NDArray[np.int64], plays: int) -> str:
    """A line on the plays of a group, given how many were kept and how many skipped."""
    total = int(skip_counts.sum())
    if not total:
        return ""
    return f"{name:<24}{_share(total, plays):>8} of plays, skipped {_share(skip_counts[1], total)}"


def _known_plays(counts: PlayCounts) -> list[str]:
    gaps = {name: count for name, count in counts.unknown.items() if count}
    if not gaps:
        return ["every column is known for every play"]
    return [
        f"{name:<20}unknown for {_share(count, counts.plays)} of plays"
        for name, count in sorted(gaps.items(), key=lambda item: -item[1])
    ]


def _top_tracks(dataset: Dataset, top: int) -> list[str]:
    catalog = dataset.catalog
    plays, skips = catalog.plays(), catalog.skips()
    total = plays.sum()
    lines = [
        f"{catalog.titles[row]:<40}{plays[row]:>10,} plays, skipped "
        f"{_share(skips[row], plays[row])}"
        for row in range(min(top, len(catalog)))
    ]
    for count in (100, 1_000, 10_000):
        if count < len(catalog):
            share = _share(plays[:count].sum(), total)
            lines.append(f"the {count:,} most played have {share} of the plays")
    once = _share((plays == 1).sum(), (plays > 0).sum())
    return [*lines, f"{once} of the tracks played in training were played once"]


def _features(dataset: Dataset) -> list[str]:
    """Which features are known, of tracks and weighted by training plays."""
    catalog = dataset.catalog
    if not catalog.feature_names:
        return ["none: the dataset was made without track features"]
    plays = catalog.plays()
    known = {n: ~np.isnan(catalog.features((n,))[:, 0]) for n in catalog.feature_names}
    lines = [
        f"{name:<24}known for {_share(mask.sum(), len(catalog)):>7} of tracks, "
        f"{_share(plays[mask].sum(), plays.sum()):>7} of training plays"
        for name, mask in known.items()
    ]
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
    lines = []
    notes: dict[str, dict[str, Any]] = {}
    for name in dataset.embedding_names:
        rows, dim = dataset.embedding(name).shape
        file = dataset.folder / "embeddings" / f"{name}.json"
        note = json.loads(file.read_text()) if file.is_file() else {}
        note.pop("name", None)
        twin = next((other for other, told in notes.items() if note and told == note), None)
        lines.append(f"{name}: {rows:,} tracks in {dim} dimensions{f', as {twin}' * bool(twin)}")
        if twin is None:
            lines.extend(f"  {line}" for line in _flat(note))
        notes[name] = note
    return lines or ["none fitted"]


def _origin(about: Mapping[str, Any]) -> list[str]:
    """Sources, rejects, filters and whatever else ``dataset.json`` says."""
    shown = {"format_version", "sessions", "plays", "tracks", "longest_session", "split"}
    sources = about.get("sources", [])
    lines = [
        f"{s['file']}: {s['rows']:,} rows, "
        + (f"{s['sessions']:,} sessions, " if "sessions" in s else "")
        + f"sha256 {s['sha256'][:16]}..."
        for s in sources[:10]
    ]
    if len(sources) > 10:
        lines.append(f"and {len(sources) - 10:,} files more")
    lines.extend(_rejects(about))
    rest = {
        key: value
        for key, value in about.items()
        if key not in shown and key not in ("sources", "rows_read", "rejected")
    }
    return [*lines, *_flat(rest)]


def _rejects(about: Mapping[str, Any]) -> list[str]:
    if "rejected" not in about:
        return []
    rows, read = about["rejected"]["rows"], about.get("rows_read", 0)
    lines = [f"{rows:,} of {read:,} rows rejected ({_share(rows, read)}), listed in rejects.csv"]
    for reason, count in about["rejected"]["reasons"].items():
        lines.append(f"  {count:>10,}  {reason}")
    return lines


def _flat(content: Mapping[str, Any], indent: str = "") -> list[str]:
    """Nested settings as indented lines."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{indent}{key}:")
            lines.extend(f"{indent}  {_on_one_line(entry)}" for entry in value)
        elif isinstance(value, Mapping) and set(value) == {"value", "low", "high"}:
            low, high = _plain(value["low"]), _plain(value["high"])
            lines.append(f"{indent}{key}: {_plain(value['value'])} [{low}, {high}]")
        elif isinstance(value, Mapping) and value:
            lines.append(f"{indent}{key}:")
            lines.extend(_flat(value, indent + "  "))
        else:
            lines.append(f"{indent}{key}: {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    match value:
        case None | {} | []:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case list():
            return ", ".join(map(_plain, value))
    return str(value)


def _on_one_line(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in content.items())


def _share(part: float | np.number, whole: float | np.number) -> str:
    """A share in per cent, or that there is nothing to take a share of."""
    return f"{100 * float(part) / float(whole):.1f} %" if whole else "unknown"
