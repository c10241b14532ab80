"""Synthetic sessions in memory: a catalog, a law, and the sessions that they give.

A session draws a taste, a propensity to skip, a length, contexts; it chooses songs
(`truth.SongChoice`) and hears them by the listening law (`law.ListeningLaw`). Sessions skipped or
kept throughout are heard again until they are neither, since the published data hold none.

Sessions are made in batches of `BATCH_SESSIONS`, each with a random stream of its own, so that the
first sessions of a long log are those of a short one with the same seed, tracks and taste.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_env.data.summaries import repeats
from musicbox_env.data.writing import PlayBlock
from musicbox_env.retrieval.embeddings import unit_rows
from musicbox_env.schema import MAX_SESSION_LENGTH, UNKNOWN, brief, is_skip, require_known
from musicbox_env.synthetic import published
from musicbox_env.synthetic.behaviour import draw_behaviour, draw_contexts
from musicbox_env.synthetic.law import ListenerState, ListeningLaw
from musicbox_env.synthetic.satiation import NONE, Satiation, satiation_of
from musicbox_env.synthetic.tracks import SyntheticTracks, TrackConfig, draw_tracks
from musicbox_env.synthetic.truth import SongChoice

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BATCH_SESSIONS: Final = 1024
TASTE_LEVELS: Final = {"none": 0.0, "default": 1.3, "high": 3.9}
LARGEST_TASTE: Final = 10.0
MIN_TRACKS: Final = 100
IMMEDIATE_KEPT: Final = 0.65
"""Share of the published immediate repeats that is drawn. Where longer ways back are impossible, or
would lead to the song just heard, only immediate repeats remain, so that all would be too many."""
CENTER_SESSIONS: Final = 2048
REDRAWS: Final = 1000
_TRACK_STREAM, _SESSION_STREAM = 0, 1


@dataclass(frozen=True)
class SyntheticConfig:
    """What to make.

    Attributes:
        sessions: Number of sessions.
        tracks: Size of the catalog; its popularity is that of as many most played tracks of
            the full published set.
        seed: Seed of everything that is drawn.
        taste: How much personal taste decides what is skipped: a number, the law's ``taste``, or
            a name. ``"none"`` is 0: songs matter by their quality alone. ``"default"`` is an
            assumption: the published figures hardly say how much taste matters, and pass with
            none as well. ``"high"``, three times that, shows what personal choice could be worth.
        satiation: How songs wear out those like them: a name of `satiation.SATIATION_LEVELS`, or
            its numbers, ``"STRENGTH,DECAY,LAG"``. ``"none"`` is the bundled world; all others are
            assumptions, in which the order of songs matters.
    """

    sessions: int = 20_000
    tracks: int = 5_000
    seed: int = 0
    taste: str | float = "default"
    satiation: str | float = NONE

    def __post_init__(self) -> None:
        for name in ("sessions", "tracks", "seed"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise ValueError(f"{name} is {brief(value)}; it must be a whole number.")
        if self.sessions < 1 or self.tracks < MIN_TRACKS or self.seed < 0:
            raise ValueError(
                f"sessions {self.sessions}, tracks {self.tracks}, seed {self.seed}: there must be "
                f"1 session and {MIN_TRACKS} tracks or more, and the seed must not be negative."
            )
        if isinstance(self.taste, str):
            require_known("taste", self.taste, TASTE_LEVELS)
        elif not isinstance(self.taste, Real) or not 0 <= self.taste <= LARGEST_TASTE:
            raise ValueError(
                f"taste is {brief(self.taste)}; it must be a number from 0 to "
                f"{LARGEST_TASTE:g} or one of {', '.join(TASTE_LEVELS)}."
            )
        satiation_of(self.satiation)

    @property
    def about(self) -> dict[str, Any]:
        """What a dataset says of how it was made.

        Where nothing wears out, satiation is not named: the files are those of a world that knows
        of none.
        """
        named = asdict(self)
        if satiation_of(self.satiation) is None:
            del named["satiation"]
        return named

    @property
    def taste_value(self) -> float:
        """The law's ``taste``."""
        return TASTE_LEVELS[self.taste] if isinstance(self.taste, str) else float(self.taste)


@dataclass(frozen=True)
class SessionBatch:
    """Sessions in the making, a row a session, `MAX_SESSION_LENGTH` places, the last ones unused.

    Attributes:
        first: Index of the first session.
        lengths: Plays of each session ``(n,)``.
        propensity: ``(n,)``.
        taste: Unit rows ``(n, dim)``.
        columns: Columns of `schema.PLAY_COLUMNS`, ``(n, places)``; ``track`` in the order of
            `SyntheticTracks`.
    """

    first: int
    lengths: Ints
    propensity: Array
    taste: npt.NDArray[np.float32]
    columns: dict[str, npt.NDArray]

    def head(self, n: int) -> SessionBatch:
        """The first ``n`` sessions."""
        columns = {name: values[:n] for name, values in self.columns.items()}
        some = self.lengths[:n], self.propensity[:n], self.taste[:n]
        return SessionBatch(self.first, *some, columns)


@dataclass(frozen=True)
class SyntheticWorld:
    """A catalog, a law, and the sessions that they give.

    Attributes:
        config: What to make.
        law: The listening law; its ``taste`` is that of the configuration, its
            ``affinity_center`` that of the plays in this world.
        satiation: How songs wear out, centred on the plays of this world; None where they do not.
        choice: How sessions choose songs.
        track_config: How tracks are made.
        tracks: The catalog, most played first.
    """

    config: SyntheticConfig
    law: ListeningLaw = field(default_factory=ListeningLaw)
    choice: SongChoice = field(default_factory=SongChoice)
    track_config: TrackConfig = field(default_factory=TrackConfig)
    tracks: SyntheticTracks = field(init=False)
    satiation: Satiation | None = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.config.seed, _TRACK_STREAM])
        tracks = draw_tracks(self.config.tracks, self.law, self.track_config, rng)
        object.__setattr__(self, "tracks", tracks)
        cumulative = self._cumulative_popularity()
        taste = self._draw_tastes(CENTER_SESSIONS, cumulative, rng)
        songs = self._draw_songs(taste, cumulative, rng)
        affinity = np.einsum("nwd,nd->nw", tracks.vectors[songs], taste).mean()
        center = round(float(affinity), 4)
        law = replace(self.law, taste=self.config.taste_value, affinity_center=center)
        object.__setattr__(self, "law", law)
        satiation = satiation_of(self.config.satiation)
        if satiation is not None:
            satiation = satiation.centred(songs, tracks.vectors)
        object.__setattr__(self, "satiation", satiation)

    def _cumulative_popularity(self) -> Array:
        cumulative = np.cumsum(self.tracks.popularity)
        return cumulative / cumulative[-1]

    def batches(self) -> Iterator[SessionBatch]:
        """All sessions, a batch at a time."""
        cumulative = self._cumulative_popularity()
        for first in range(0, self.config.sessions, BATCH_SESSIONS):
            rng = np.random.default_rng([self.config.seed, _SESSION_STREAM, first])
            # Always a whole batch, so that a session does not depend on how many follow it.
            batch = self._draw_batch(first, cumulative, rng)
            yield batch.head(self.config.sessions - first)

    def _draw_batch(self, first: int, cumulative: Array, rng: np.random.Generator) -> SessionBatch:
        n, width = BATCH_SESSIONS, MAX_SESSION_LENGTH
        possible, share = published.session_lengths()
        lengths = rng.choice(possible, size=n, p=share)
        propensity = self.law.propensity_sd * rng.standard_normal(n)
        taste = self._draw_tastes(n, cumulative, rng)
        songs = self._draw_songs(taste, cumulative, rng)
        is_repeat = repeats(songs)
        context, shuffle = draw_contexts(n, width, rng)

        affinity = np.einsum("nwd,nd->nw", self.tracks.vectors[songs], taste)
        of_track = self.law.track_logit(self.tracks.quality[songs], affinity, is_repeat)
        of_session = self.law.session_logit(propensity[:, None], context, shuffle)
        if self.satiation is not None:
            wear = self.satiation.wear_in_order(songs[:, :0], songs, self.tracks.vectors)
            of_track = of_track + self.satiation.logit(wear, np.arange(width))
        levels = self._draw_levels(of_session + of_track, lengths, rng)
        columns: dict[str, npt.NDArray] = {
            "track": songs,
            "level": levels,
            "position": np.broadcast_to(np.arange(1, width + 1), (n, width)),
            "context_type": context,
            "shuffle": shuffle,
            **draw_behaviour(levels, lengths, is_repeat, context, rng),
        }
        return SessionBatch(first, lengths, propensity, taste, columns)

    def _draw_tastes(
        self, n: int, cumulative: Array, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Unit tastes ``(n, dim)``, each around the vector of a track drawn by popularity."""
        seed_track = np.searchsorted(cumulative, rng.random(n), side="right")
        blur = unit_rows(rng.standard_normal((n, self.track_config.dim)))
        focus = self.choice.taste_focus
        taste = focus * self.tracks.vectors[seed_track] + np.sqrt(1.0 - focus**2) * blur
        return unit_rows(taste).astype(np.float32)

    def _draw_songs(
        self, taste: npt.NDArray[np.float32], cumulative: Array, rng: np.random.Generator
    ) -> Ints:
        """Tracks that each session plays ``(n, places)``; `SongChoice` says how."""
        n, pool_size, width = len(taste), self.choice.pool, MAX_SESSION_LENGTH
        # One draw in each of as many equal slices of the popularity: the same expectation as
        # independent draws, and much less noise in how often the hits are in a pool.
        slices = (np.arange(pool_size) + rng.random((n, pool_size))) / pool_size
        pool = np.searchsorted(cumulative, slices.ravel(), side="right").reshape(n, pool_size)
        pool = np.minimum(pool, len(cumulative) - 1)
        affinity = np.matmul(self.tracks.vectors[pool], taste[:, :, None])[..., 0]
        # Exponential race: the order of the arrival times is a draw without replacement with
        # chances in proportion to the rates.
        arrival = rng.standard_exponential((n, pool_size), dtype=np.float32)
        arrival *= np.exp(-self.choice.kappa * affinity)
        first = np.argpartition(arrival, 2 * width, axis=1)[:, : 2 * width]
        first = np.take_along_axis(
            first, np.take_along_axis(arrival, first, axis=1).argsort(axis=1), axis=1
        )
        fresh = np.take_along_axis(pool, first, axis=1)
        # A hit can be in a pool more than once, which makes it likelier to be played, not twice.
        twice = np.argsort(repeats(fresh), axis=1, kind="stable")
        fresh = np.take_along_axis(fresh, twice, axis=1)[:, :width]
        return self._mix_repeats(fresh, rng)

    def _mix_repeats(self, fresh: Ints, rng: np.random.Generator) -> Ints:
        """Put songs heard before among the fresh ones, ``(n, places)``."""
        n, width = fresh.shape
        gap_share = np.array(published.figures()["repeat_gap"])
        gap_share[0] *= IMMEDIATE_KEPT
        gap = 1 + rng.choice(len(gap_share), size=(n, width), p=gap_share / gap_share.sum())
        first, second = self.choice.repeat_beta
        habit = rng.beta(first, second, size=(n,))
        habit[rng.random(n) < self.choice.never_repeat] = 0.0
        again = (rng.random((n, width)) < habit[:, None]) & (gap <= np.arange(width))
        songs = np.full_like(fresh, UNKNOWN)
        row, used = np.arange(n), np.zeros(n, dtype=np.int64)
        for place in range(width):
            earlier = songs[row, np.maximum(place - gap[:, place], 0)]
            at_once = earlier == songs[:, place - 1]
            back = again[:, place] & ((gap[:, place] == 1) | ~at_once)
            songs[:, place] = np.where(back, earlier, fresh[row, used])
            used += ~back
        return songs

    def _draw_levels(
        self, fixed: Array, lengths: Ints, rng: np.random.Generator
    ) -> npt.NDArray[np.int8]:
        """Levels ``(n, places)``, redrawn while a session is skipped or kept throughout."""
        n, width = fixed.shape
        played = np.arange(width) < lengths[:, None]
        levels = np.zeros((n, width), dtype=np.int8)
        todo = np.arange(n)
        for _ in range(REDRAWS):
            uniform = rng.random((len(todo), width))
            state = ListenerState.begin(len(todo))
            for place in range(width):
                logit = self.law.skip_logit(state, 0.0, fixed[todo, place])
                levels[todo, place] = self.law.draw_levels(logit, uniform[:, place])
                state = self.law.update(state, levels[todo, place])
            skips = (is_skip(levels[todo]) & played[todo]).sum(axis=1)
            todo = todo[(skips == 0) | (skips == lengths[todo])]
            if len(todo) == 0:
                return levels
        raise RuntimeError(
            f"{len(todo)} sessions were skipped or kept throughout {REDRAWS} times; the law "
            f"{self.law} leaves them no choice. Use smaller effects."
        )

    def play_block(self, batch: SessionBatch) -> PlayBlock:
        """A batch as a dataset takes it."""
        real = np.arange(MAX_SESSION_LENGTH) < batch.lengths[:, None]
        columns = {name: values[real] for name, values in batch.columns.items()}
        tracks, columns["track"] = np.unique(columns["track"], return_inverse=True)
        return PlayBlock(
            session_ids=self.session_ids(batch),
            lengths=batch.lengths,
            vocabulary=self.tracks.track_ids[tracks],
            columns=columns,
        )

    def session_ids(self, batch: SessionBatch) -> npt.NDArray[np.object_]:
        """Ids of the sessions of a batch ``(n,)``."""
        numbers = range(batch.first, batch.first + len(batch.lengths))
        return np.array([f"{self.config.seed}_{i:09d}" for i in numbers], dtype=object)
