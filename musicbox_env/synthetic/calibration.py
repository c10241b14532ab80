"""Figures of a dataset beside the published ones, row by row.

Every figure is counted in the same way on any dataset, generated or ingested. Some rows are
required of generated data, with a tolerance; the others are shown alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats
from musicbox_env.schema import (
    CONTEXT_TYPES,
    MAX_SESSION_LENGTH,
    PAUSE_LONG,
    PAUSE_NONE,
    PAUSE_SHORT,
    REASONS_END,
    REASONS_START,
    UNKNOWN,
    Level,
    is_skip,
)
from musicbox_env.synthetic import published

Array = npt.NDArray[np.float64]

MOST_SESSIONS = 200_000
"""Figures are counted on as many sessions, spread evenly over the log: more would not move them."""


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: What it is.
        published: The published value.
        found: The dataset's value; NaN where the dataset lacks what it is counted on.
        tolerance: Largest difference that passes; None where the row is shown alone.
    """

    name: str
    published: float
    found: float
    tolerance: float | None = None

    @property
    def required(self) -> bool:
        """Whether generated data must pass it."""
        return self.tolerance is not None

    @property
    def ok(self) -> bool:
        """Whether it passes; a row that is shown alone always does."""
        return self.tolerance is None or abs(self.found - self.published) <= self.tolerance


def _row(name: str, figure: str, found: float | np.floating, tolerance: float) -> Row:
    """A row whose published value is one of `published.figures`."""
    return Row(name, published.figures()[figure], float(found), tolerance)


def compare(dataset: Dataset) -> list[Row]:
    """All rows of a dataset."""
    plays = PaddedPlays(dataset)
    return [
        *_level_rows(plays),
        *_persistence_rows(plays),
        *_spread_rows(plays),
        *_repeat_rows(plays),
        *_session_rows(plays),
        *_behaviour_rows(plays),
        *_popularity_rows(dataset),
        *_feature_rows(dataset.catalog),
    ]


def format_rows(rows: Iterable[Row]) -> str:
    """The rows as a table to print."""
    lines = [f"{'figure':46s} {'published':>10s} {'found':>10s} {'within':>8s}"]
    for row in rows:
        within = "" if row.tolerance is None else f"{row.tolerance:8.3g}"
        verdict = "" if row.tolerance is None else ("  OK" if row.ok else "  off")
        lines.append(f"{row.name:46s} {row.published:10.4g} {row.found:10.4g} {within:8s}{verdict}")
    return "\n".join(lines)


class PaddedPlays:
    """Columns of a dataset as rectangles, a row a session, and the skips in them.

    Attributes:
        sessions: Indices of the sessions counted ``(n,)``.
        played: Which places hold a play ``(n, 20)``.
        skips: 1 where a play was skipped, 0 where kept, NaN where there is none, ``(n, 20)``.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Read the levels of up to `MOST_SESSIONS` sessions."""
        log = dataset.sessions
        step = -(-log.num_sessions // MOST_SESSIONS)
        self._log = log
        self.sessions = np.arange(0, log.num_sessions, step)
        levels = self.column("level")
        self.played = levels != UNKNOWN
        self.skips: Array = np.where(self.played, is_skip(levels), np.nan)

    def column(self, name: str) -> npt.NDArray:
        """One column ``(n, 20)``, -1 where there is no play."""
        return self._log.padded(name, self.sessions, MAX_SESSION_LENGTH)

    def flat(self, name: str) -> npt.NDArray:
        """One column of all plays where it is known."""
        values = self.column(name)[self.played]
        return values[values != UNKNOWN]


def _mean(values: npt.NDArray) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _shares(codes: npt.NDArray, names: tuple[str, ...]) -> dict[str, float]:
    counts = np.bincount(codes.astype(np.int64), minlength=len(names))
    return dict(zip(names, counts / (len(codes) or np.nan), strict=True))


def _level_rows(plays: PaddedPlays) -> Iterator[Row]:
    figures = published.figures()
    shares = _shares(plays.flat("level"), tuple(level.name for level in Level if level >= 0))
    below = np.cumsum(list(shares.values()))
    for k in (1, 2, 3):
        yield _row(f"skip_{k}", f"skip_{k}", below[k - 1], 0.02)
    yield _row("not skipped", "not_skipped", shares["FULL"], 0.02)
    for position, expected in enumerate(figures["skip_by_position"], start=1):
        found = _mean(plays.skips[:, position - 1])
        yield Row(f"skip_2 at position {position}", expected, found, 0.02)


def _persistence_rows(plays: PaddedPlays) -> Iterator[Row]:
    figures, skips = published.figures(), plays.skips
    before, after = skips[:, :-1], skips[:, 1:]
    for name, value in (("keep", 0.0), ("skip", 1.0)):
        found = _mean(after[before == value])
        yield _row(f"skip_2 after a {name}", f"skip_after_{name}", found, 0.03)
    for lag, expected in enumerate(figures["autocorrelation"], start=1):
        found = autocorrelation(skips, lag)
        yield Row(f"autocorrelation at lag {lag}", expected, found, 0.05 if lag <= 5 else None)
    for name, value in (("skip", 1.0), ("keep", 0.0)):
        runs = run_lengths(skips, value)
        for length, expected in figures[f"skip_after_{name}s_in_a_row"].items():
            number = int(length.split()[0])
            these = runs >= number if length.endswith("or more") else runs == number
            yield Row(f"skip_2 after {length} {name}s in a row", expected, _mean(skips[these]))


def autocorrelation(skips: Array, lag: int) -> float:
    """Correlation of skips ``lag`` plays apart, over all pairs of all sessions ``(n, places)``."""
    first, second = skips[:, :-lag], skips[:, lag:]
    both = ~np.isnan(first) & ~np.isnan(second)
    return float(np.corrcoef(first[both], second[both])[0, 1])


def run_lengths(skips: Array, value: float) -> npt.NDArray[np.int64]:
    """Plays in a row with ``value`` just before each play, within its session, ``(n, places)``."""
    runs = np.zeros(skips.shape, dtype=np.int64)
    for place in range(1, skips.shape[1]):
        runs[:, place] = np.where(skips[:, place - 1] == value, runs[:, place - 1] + 1, 0)
    return runs


def _spread_rows(plays: PaddedPlays) -> Iterator[Row]:
    skips, tracks = plays.skips, plays.column("track")
    rates = np.nanmean(skips, axis=1)
    yield _row("sd of the session's skip rate", "session_rate_sd", rates.std(), 0.03)
    correlation = intraclass_correlation(skips)
    yield _row("intra-class correlation of skips", "intraclass_correlation", correlation, 0.03)
    constant = np.mean((rates == 0) | (rates == 1))
    yield _row("sessions skipped or kept throughout", "constant_sessions", constant, 0.0)
    fresh = plays.played & ~repeats(tracks)
    sd = track_rate_sd(tracks[fresh], skips[fresh])
    yield _row("true sd of the track's skip rate", "track_rate_sd", sd, 0.02)


def intraclass_correlation(skips: Array) -> float:
    """Share of the variance of skips that lies between sessions ``(n, places)``.

    One-way random effects with groups of unequal size, ANOVA estimator (Donner 1986, Int. Stat.
    Rev. 54, eq. 2.1).
    """
    size = (~np.isnan(skips)).sum(axis=1)
    groups, total = len(size), size.sum()
    means = np.nanmean(skips, axis=1)
    between = (size * (means - np.nanmean(skips)) ** 2).sum() / (groups - 1)
    within = np.nansum((skips - means[:, None]) ** 2) / (total - groups)
    typical = (total - (size**2).sum() / total) / (groups - 1)
    return float((between - within) / (between + (typical - 1) * within))


def track_rate_sd(tracks: npt.NDArray, skips: Array) -> float:
    """Sd between tracks of their true skip rates, each play counting the same.

    ``s (s - 1) / (n (n - 1))`` is an unbiased estimate of a track's squared rate, so sampling
    noise is no part of it. Tracks played once say nothing.

    Args:
        tracks: Track of each play ``(p,)``; at most one play of a track in a session, since plays
            of one session are alike.
        skips: Whether it was skipped ``(p,)``.
    """
    n = np.bincount(tracks).astype(np.float64)
    s = np.bincount(tracks, weights=skips)
    n, s = n[n >= 2], s[n >= 2]
    if len(n) == 0:
        return float("nan")
    squared = np.sum(s * (s - 1.0) / (n - 1.0)) / n.sum()
    return float(np.sqrt(max(squared - (s.sum() / n.sum()) ** 2, 0.0)))


def _repeat_rows(plays: PaddedPlays) -> Iterator[Row]:
    tracks, skips, played = plays.column("track"), plays.skips, plays.played
    again, num_plays = repeats(tracks), played.sum()
    at_once = ((tracks[:, 1:] == tracks[:, :-1]) & played[:, 1:]).sum() / num_plays
    none, fresh = np.mean(~again.any(axis=1)), _mean(skips[played & ~again])
    yield _row("repeats, share of plays", "repeat_share", again.sum() / num_plays, 0.02)
    yield _row("immediate repeats, share of plays", "immediate_repeat_share", at_once, 0.005)
    yield _row("sessions without a repeat", "sessions_without_repeat", none, 0.05)
    yield _row("skip_2 of a repeat", "skip_on_repeat", _mean(skips[again]), 0.03)
    yield _row("skip_2 of a first hearing", "skip_on_first_hearing", fresh, 0.03)


def _session_rows(plays: PaddedPlays) -> Iterator[Row]:
    lengths = plays.played.sum(axis=1)
    for length, share in zip(*published.session_lengths(), strict=True):
        yield Row(f"sessions of {length} plays", share, float(np.mean(lengths == length)), 0.01)


def _behaviour_rows(plays: PaddedPlays) -> Iterator[Row]:
    figures = published.figures()
    context, shuffle = plays.column("context_type"), plays.column("shuffle")
    context_share = _shares(plays.flat("context_type"), CONTEXT_TYPES)
    for name in CONTEXT_TYPES:
        yield Row(f"{name}, share", figures["context_share"][name], context_share[name], 0.02)
    for code, name in enumerate(CONTEXT_TYPES):
        expected = figures["skip_by_context"][name]
        # The two rare types have too few sessions for a figure that must hold.
        common = figures["context_share"][name] > 0.1
        found = _mean(plays.skips[context == code])
        yield Row(f"skip_2 in {name}", expected, found, 0.03 if common else None)
    several = np.mean([len(np.unique(row[row != UNKNOWN])) > 1 for row in context])
    name, figure = "sessions of several context types", "sessions_with_several_contexts"
    yield _row(name, figure, several, 0.05)
    yield _row("shuffle, share", "shuffle_share", _mean(plays.flat("shuffle")), 0.02)
    for code, name in enumerate(("without", "with")):
        found = _mean(plays.skips[shuffle == code])
        yield _row(f"skip_2 {name} shuffle", f"skip_{name}_shuffle", found, 0.03)
    yield _row("premium, share", "premium_share", _mean(plays.flat("premium")), 0.02)
    hours = plays.flat("hour")
    yield _row("hour, mean", "hour_mean", _mean(hours), 0.3)
    yield _row("hour, sd", "hour_sd", hours.std() if len(hours) else np.nan, 0.3)
    switch = _mean(plays.flat("context_switch"))
    yield _row("context switches, share", "context_switch_share", switch, 0.01)
    for name, bit in (("no", PAUSE_NONE), ("short", PAUSE_SHORT), ("long", PAUSE_LONG)):
        found = _mean(plays.flat("pause") & bit > 0)
        yield Row(f"{name} pause before, share", figures["pause_share"][name], found, 0.03)
    for what, names in (("reason_end", REASONS_END), ("reason_start", REASONS_START)):
        found_share = _shares(plays.flat(what), names)
        for name, expected in figures[f"{what}_share"].items():
            yield Row(f"{what} {name}, share", expected, found_share[name], 0.03)
    for way in ("forward", "back"):
        found = _mean(plays.flat(f"seek_{way}"))
        yield _row(f"seeks {way}, mean", f"seek_{way}_mean", found, 0.02)


def _popularity_rows(dataset: Dataset) -> Iterator[Row]:
    """Share of plays on the most played tracks, of as many tracks played as often.

    The published curve of the same number of tracks is sampled as often as the dataset has plays:
    a small log looks more concentrated than it is.
    """
    tracks = dataset.sessions.column("track")
    counts = np.bincount(tracks, minlength=len(dataset.catalog))
    curve = published.play_counts(len(counts))
    expected = np.random.default_rng(0).poisson(curve / curve.sum() * len(tracks))
    for percent in (1, 10):
        wanted, found = (top_share(plays, percent) for plays in (expected, counts))
        yield Row(f"plays on the top {percent} % of tracks, share", wanted, found, 0.05)


def top_share(counts: npt.NDArray, percent: int) -> float:
    """Share of plays that the most played ``percent`` of tracks have; one track at least."""
    most = max(len(counts) * percent // 100, 1)
    return float(np.sort(counts)[::-1][:most].sum() / max(counts.sum(), 1))


def _feature_rows(catalog: Catalog) -> Iterator[Row]:
    """Marginals in units of the published sd, and correlations."""
    summary = published.feature_summary()
    for name in catalog.feature_names:
        if name not in summary:
            continue
        values = catalog.features((name,))[:, 0].astype(np.float64)
        values = values[~np.isnan(values)]
        if len(values) == 0:
            continue
        expected = summary[name]
        sd = expected["std"]
        yield Row(f"{name}, mean", expected["mean"], values.mean(), 0.1 * sd)
        yield Row(f"{name}, sd", sd, values.std(), 0.15 * sd)
        # A step of a discrete feature can lie right at a quartile.
        tolerance = 0.1 * sd if len(np.unique(values)) > 100 else None
        for quartile in (25, 50, 75):
            found = float(np.percentile(values, quartile))
            yield Row(f"{name}, {quartile} %", expected[f"q{quartile}"], found, tolerance)
    yield from _correlation_rows(catalog)


def _correlation_rows(catalog: Catalog) -> Iterator[Row]:
    expected = published.feature_correlations()
    names = tuple(name for name in catalog.feature_names if name in expected.index)
    matrix = catalog.features(names).astype(np.float64)
    matrix = matrix[~np.isnan(matrix).any(axis=1)]
    if len(names) < 2 or len(matrix) < 3:
        return
    difference = np.corrcoef(matrix.T) - expected.loc[list(names), list(names)].to_numpy(float)
    pairs = difference[np.triu_indices(len(names), 1)]
    rms = float(np.sqrt(np.mean(pairs**2)))
    yield Row("feature correlations, rms difference", 0.0, rms, 0.03)
    yield Row("feature correlations, largest difference", 0.0, float(np.abs(pairs).max()), 0.1)
