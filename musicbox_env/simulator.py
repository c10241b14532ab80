"""The dynamics of recommending songs into listening sessions, for many sessions at once.

This is the only copy. `env.MusicSessionEnv` runs it with one session, `vector_env` with many; both
only translate between it and Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from musicbox_env import draws
from musicbox_env.dataset import Dataset
from musicbox_env.embeddings import embedding_space
from musicbox_env.listeners import (
    History,
    Which,
    hear_one_by_one,
    make_listener,
    put_rows,
    sessions_together,
    skip_probability,
)
from musicbox_env.retrieval import top_k, top_k_among, top_k_list
from musicbox_env.rewards import TERMS, RewardConfig, reward_terms, total_reward
from musicbox_env.schema import CONTEXT_TYPES, UNKNOWN, Level, require_known, split_codes

ACTIONS: Final = ("proto", "proto_list", "slate")
OBSERVATIONS: Final = ("embedding", "ids")
CANDIDATES: Final = ("catalog", "session")
CONTEXT_SIZE: Final = 5 + len(CONTEXT_TYPES)
_DRAWS_PER_SONG: Final = 2
_LEVEL_DRAW, _TIE_DRAW = 0, 1

Rows = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SessionConfig:
    """Keyword values of the environment; `env.MusicSessionEnv` explains each of them."""

    data: str | None = None
    split: str = "train"
    listener: str = "replay"
    action: str = "proto"
    observation: str = "embedding"
    candidates: str = "catalog"
    slate_size: int = 3
    history_length: int = 10
    repeats: bool = False
    horizon: int | None = None
    reward: RewardConfig = field(default_factory=RewardConfig)
    embedding: str = "hybrid+rate"

    def __post_init__(self) -> None:
        split_codes(self.split)
        require_known("action", self.action, ACTIONS)
        require_known("observation", self.observation, OBSERVATIONS)
        require_known("candidates", self.candidates, CANDIDATES)
        for name in ("slate_size", "history_length", "horizon"):
            value = getattr(self, name)
            if value is None and name == "horizon":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of 1 or more.")
        if self.horizon is not None and self.candidates == "session":
            raise ValueError(
                "horizon and candidates='session' exclude each other: a logged session has only "
                "so many plays left. Leave horizon out, or take candidates='catalog'."
            )

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> SessionConfig:
        """Build from `gymnasium.make` keywords; an unknown one is refused with a suggestion."""
        for name in keywords:
            require_known("environment option", name, [f.name for f in fields(cls)], TypeError)
        values = dict(keywords)
        if not isinstance(values.get("reward"), RewardConfig):
            values["reward"] = RewardConfig.from_mapping(values.get("reward"))
        if values.get("data") is not None:
            values["data"] = str(values["data"])
        return cls(**values)

    def keywords(self) -> dict[str, Any]:
        """JSON-able keywords that give this configuration again."""
        return asdict(self)


def open_dataset(data: str | Path | None) -> Dataset:
    """Open a dataset folder, or the bundled synthetic one; opened once a process.

    Args:
        data: Dataset folder; None is the bundled synthetic dataset, made on first use.
    """
    if data is None:
        from musicbox_env.synthetic import bundled_dataset

        data = bundled_dataset()
    folder = Path(data).resolve()
    try:
        stamp = (folder / "dataset.json").stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _open_dataset(folder, stamp)


@lru_cache(maxsize=8)
def _open_dataset(folder: Path, stamp: int) -> Dataset:
    return Dataset(folder)


@lru_cache(maxsize=8)
def _embedding_space(dataset: Dataset, spec: str) -> npt.NDArray[np.float32]:
    space = embedding_space(dataset, spec)
    space.setflags(write=False)
    return space


class World:
    """What all sessions of an environment share and nothing changes: data, space, listener.

    Attributes:
        config: The environment's keyword values.
        dataset: Logged sessions and catalogue.
        listener: The user simulator.
        space: Embedding that actions are scored in, ``(num_tracks, dim)``.
        pool: Sessions of the split that have a first half to show, ``(s,)``.
    """

    def __init__(self, config: SessionConfig) -> None:
        """Open everything that a configuration names.

        Raises:
            ValueError: The split holds no session, or the catalogue is too small for the sessions.
        """
        self.config = config
        self.dataset = open_dataset(config.data)
        self.listener = make_listener(config.listener, self.dataset)
        self.space = _embedding_space(self.dataset, config.embedding)
        log = self.dataset.sessions
        sessions = log.sessions_in(config.split)
        self.pool: Ints = sessions[log.lengths(sessions) >= 2]
        if not len(self.pool):
            raise ValueError(f"{self.dataset.folder} has no session in split {config.split!r}.")
        self.capacity = self.dataset.longest_session + (config.horizon or 0)
        heard = 0 if config.repeats else self.capacity
        needed = heard + config.slate_size
        if config.candidates == "catalog" and self.num_tracks < needed:
            raise ValueError(
                f"The catalogue has {self.num_tracks} tracks; sessions of up to {self.capacity} "
                f"songs with slates of {config.slate_size} and repeats={config.repeats} need "
                f"{needed}. Pass repeats=True, a smaller horizon or slate, or more tracks."
            )

    def __reduce__(self) -> tuple[Callable[[SessionConfig], World], tuple[SessionConfig]]:
        """Pickle by name, so that a worker process maps the same files."""
        return World, (self.config,)

    @property
    def num_tracks(self) -> int:
        """Size of the catalogue."""
        return len(self.space)

    @property
    def dim(self) -> int:
        """Dimensions of the embedding space."""
        return self.space.shape[1]

    def vectors(self, tracks: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Rows of the space, ``(..., dim)``; anything where a track is -1."""
        return self.space.take(tracks, axis=0, mode="clip")

    @cached_property
    def base_vectors(self) -> npt.NDArray[np.float32]:
        """Unit-norm embedding without the rate, ``(num_tracks, d)``; for diversity."""
        name = self.config.embedding.partition("+")[0]
        return self.dataset.embedding(name)

    @cached_property
    def surprise(self) -> npt.NDArray[np.float64]:
        """-log2 of each track's share of training plays, scaled to [0, 1]; one play is added."""
        plays = self.dataset.catalog.plays() + 1
        bits = -np.log2(plays / plays.sum())
        return bits / bits.max()

    def observation_space(self) -> spaces.Dict:
        """Space of one session's observation."""
        length, config = self.config.history_length, self.config
        context = spaces.Box(-1, 1, (CONTEXT_SIZE,), np.float32)
        if config.observation == "embedding":
            return spaces.Dict(
                {
                    "history": spaces.Box(-1, 1, (length * self.dim,), np.float32),
                    "levels": spaces.Box(0, 1, (length,), np.float32),
                    "mask": spaces.Box(0, 1, (length,), np.float32),
                    "context": context,
                }
            )
        last = self.num_tracks - 1
        parts: dict[str, spaces.Space] = {
            "tracks": spaces.Box(-1, last, (length,), np.int32),
            "levels": spaces.Box(-1, int(Level.FULL), (length,), np.int8),
            "context": context,
        }
        if config.candidates == "session":
            parts["candidates"] = spaces.Box(-1, last, (self.dataset.longest_session,), np.int32)
        return spaces.Dict(parts)

    def action_space(self) -> spaces.Box | spaces.MultiDiscrete:
        """Space of one session's action."""
        k = self.config.slate_size
        if self.config.action == "slate":
            return spaces.MultiDiscrete(np.full(k, self.num_tracks))
        points = k if self.config.action == "proto_list" else 1
        return spaces.Box(-1, 1, (points * self.dim,), np.float32)


@dataclass
class Outcome:
    """What one step did, a row a session.

    Attributes:
        reward: ``(n,)``.
        terms: Unweighted reward terms, each ``(n,)``.
        slate: Tracks in the order heard ``(n, k)``, -1 where not heard.
        levels: Their listen levels ``(n, k)``, -1 where not heard.
        logged: Whether the level is the logged one ``(n, k)``.
        replaced: Places of the action whose song was not allowed and was replaced ``(n,)``.
    """

    reward: npt.NDArray[np.float64]
    terms: dict[str, npt.NDArray[np.float64]]
    slate: Ints
    levels: npt.NDArray[np.int8]
    logged: npt.NDArray[np.bool_]
    replaced: Ints

    @classmethod
    def nothing(cls, n: int, slate_size: int) -> Outcome:
        """Of sessions that did not act: nothing heard, nothing earned."""
        return cls(
            np.zeros(n),
            {name: np.zeros(n) for name in TERMS},
            np.full((n, slate_size), UNKNOWN, np.int64),
            np.full((n, slate_size), Level.UNHEARD, np.int8),
            np.zeros((n, slate_size), np.bool_),
            np.zeros(n, np.int64),
        )


class Simulator:
    """Batched session dynamics: what was heard, what may be recommended, what the listener says.

    Every array has one row for each session and is changed in place by `begin` and `step`.

    Attributes:
        history: What was heard, shown plays first.
        remaining: Songs still to be heard ``(n,)``.
        context: Context features of the observation ``(n, CONTEXT_SIZE)``.
    """

    def __init__(self, world: World, num_envs: int) -> None:
        """Make room for ``num_envs`` sessions; `begin` starts them."""
        self.world = world
        width = world.dataset.longest_session
        self.history = History.empty(num_envs, world.capacity)
        self.remaining = np.zeros(num_envs, np.int64)
        self.context = np.zeros((num_envs, CONTEXT_SIZE), np.float32)
        self._key = np.zeros(num_envs, np.uint64)
        self._logged_tracks = sessions_together(num_envs, width, UNKNOWN, np.int32)
        self._held = sessions_together(num_envs, width, False, np.bool_)
        self._indices = np.arange(num_envs)
        anyone = np.full(num_envs, world.pool[0])
        one_play = np.ones(num_envs, np.int64)
        self._state = world.listener.begin(
            History.logged(world.dataset, anyone, one_play, world.capacity)
        )
        one_by_one = partial(hear_one_by_one, world.listener)
        self._hear = getattr(world.listener, "hear", one_by_one)

    @property
    def num_envs(self) -> int:
        """Number of sessions in the batch."""
        return len(self.remaining)

    def begin(self, rows: Rows, sessions: Ints, keys: npt.NDArray[np.uint64]) -> None:
        """Start logged sessions: show their first half, ``L - ceil(L / 2)`` of L plays.

        Args:
            rows: Which places of the batch to fill ``(m,)``.
            sessions: Session indices ``(m,)``.
            keys: Seeds of the sessions' random numbers ``(m,)``; see `draws`.
        """
        world, log = self.world, self.world.dataset.sessions
        width = self._logged_tracks.shape[1]
        lengths = log.lengths(sessions)
        shown = lengths // 2
        history = History.logged(world.dataset, sessions, shown, world.capacity)
        put_rows(self.history, rows, history)
        put_rows(self._state, rows, world.listener.begin(history))
        horizon = world.config.horizon
        self.remaining[rows] = lengths - shown if horizon is None else horizon
        self._key[rows] = keys
        self._logged_tracks[rows] = log.padded("track", sessions, width)
        place = np.arange(width)[:, None]
        self._held[rows] = ((place >= shown) & (place < lengths)).T
        self.context[rows] = _context_features(world.dataset, sessions, shown)

    def show(
        self,
        row: int,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.integer],
        context: npt.NDArray[np.float32],
    ) -> None:
        """Fill a place with a session that is in no log: to recommend from, not to simulate.

        Args:
            row: Place of the batch.
            tracks: Tracks heard, in order ``(t,)``; of more than fit, the last are kept.
            levels: How far each was heard ``(t,)``.
            context: Context features ``(CONTEXT_SIZE,)``; see `context_features`.
        """
        count = min(len(tracks), self.history.tracks.shape[1])
        put_rows(self.history, np.array([row]), History.empty(1, self.history.tracks.shape[1]))
        self.history.tracks[row, :count] = tracks[len(tracks) - count :]
        self.history.levels[row, :count] = levels[len(levels) - count :]
        self.history.count[row] = self.history.shown[row] = count
        self.context[row] = context
        self._held[row] = False

    def observe(self, rows: Which) -> dict[str, npt.NDArray]:
        """Observations of the given sessions; fresh arrays, the newest play last."""
        config, world = self.world.config, self.world
        length = config.history_length
        heard = self.history
        place = heard.count[rows][:, None] - length + np.arange(length)
        real = place >= 0
        at = np.maximum(place, 0) * self.num_envs + self._indices[rows, None]
        tracks = np.where(real, heard.tracks.ravel("F").take(at), np.int32(UNKNOWN))
        levels = np.where(real, heard.levels.ravel("F").take(at), np.int8(Level.UNHEARD))
        context = self.context[rows].copy()
        context[:, -1] = np.minimum(heard.count[rows] / world.dataset.longest_session, 1.0)
        if config.observation == "ids":
            observation: dict[str, npt.NDArray] = {
                "tracks": tracks,
                "levels": levels,
                "context": context,
            }
            if config.candidates == "session":
                observation["candidates"] = self._sorted_candidates(rows)
            return observation
        vectors = world.vectors(tracks)
        vectors[~real] = 0
        return {
            "history": vectors.reshape(len(tracks), -1),
            "levels": np.maximum(levels, 0).astype(np.float32) / float(Level.FULL),
            "mask": real.astype(np.float32),
            "context": context,
        }

    def step(self, rows: Which, actions: npt.NDArray) -> Outcome:
        """Play the recommended songs in order, as far as each session goes.

        Args:
            rows: Sessions that act ``(m,)``; those that are over hear nothing, and their actions
                are not looked at.
            actions: ``(m, ...)`` of the configured kind.
        """
        slate, plays, replaced = self._choose_for_the_playing(rows, actions)
        wanted = (slate >= 0).T
        before: npt.NDArray[np.int64] = np.cumsum(wanted, axis=0) - wanted
        heard = (wanted & (before < self.remaining[rows])).T
        slate = np.where(heard, slate, UNKNOWN)
        if plays is None:
            plays = self._take_plays(rows, slate)
        else:
            plays = np.where(heard, plays, UNKNOWN)
            session, place = np.nonzero(plays >= 0)
            self._held[self._indices[rows][session], plays[session, place]] = False
        uniforms = self._level_draws(rows, before.T)
        levels = self._hear(self._state, self.history, rows, slate, plays, uniforms)
        self.remaining[rows] -= heard.sum(axis=1)
        logged = (plays >= 0) & self.world.listener.answers_from_log
        terms = self._reward_terms(slate, levels)
        reward = total_reward(self.world.config.reward, terms)
        return Outcome(reward, terms, slate, levels, logged, replaced)

    def _choose_for_the_playing(
        self, rows: Which, actions: npt.NDArray
    ) -> tuple[Ints, Ints | None, Ints]:
        """`choose` for the sessions that are not over; -1 and nothing replaced for the others."""
        playing = self.remaining[rows] > 0
        if playing.all():
            return self.choose(rows, actions)
        who = np.flatnonzero(playing)
        of_playing = self.choose(self._indices[rows][who], actions[who])
        m = len(playing)
        k = self.world.config.slate_size
        slate, plays = (sessions_together(m, k, UNKNOWN, np.int64) for _ in range(2))
        replaced = np.zeros(m, np.int64)
        slate[who], replaced[who] = of_playing[0], of_playing[2]
        if of_playing[1] is None:
            return slate, None, replaced
        plays[who] = of_playing[1]
        return slate, plays, replaced

    def _level_draws(self, rows: Which, before: npt.NDArray) -> npt.NDArray[np.float64]:
        """The number that decides each song's level, after ``before`` ``(m, k)`` of the slate."""
        counter = (self.history.count[rows] + before.T) * _DRAWS_PER_SONG + _LEVEL_DRAW
        return draws.uniform(self._key[rows], counter).T

    def _tie_draws(self, rows: Which) -> npt.NDArray[np.float64]:
        """A number for each play of the logged session ``(m, width)``, new with every slate.

        A song takes `_DRAWS_PER_SONG` numbers of the session's sequence, one for each purpose;
        these come from a sequence of their own, keyed by one of them.
        """
        counter = self.history.count[rows] * _DRAWS_PER_SONG + _TIE_DRAW
        key = (draws.uniform(self._key[rows], counter) * 2.0**53).astype(np.uint64)
        return draws.uniform(key[:, None], np.arange(self._held.shape[1]))

    def choose(self, rows: Which, actions: npt.NDArray) -> tuple[Ints, Ints | None, Ints]:
        """Turn actions into tracks ``(m, k)``, and places replaced ``(m,)``.

        In between stand the logged plays that the tracks are ``(m, k)``, or None where any play
        of the track will do: it is then looked up when its turn comes.
        """
        config = self.world.config
        if config.action == "slate":
            slate = _checked_slate(actions, self.world.num_tracks)
            return self._allow(rows, slate)
        points = _checked_points(actions, self.world.dim)
        nothing_replaced = np.zeros(len(points), np.int64)
        if config.candidates == "session":
            plays = self._retrieve_plays(rows, points)
            return self._tracks_of(rows, plays), plays, nothing_replaced
        barred = None if config.repeats else self.history.tracks[rows]
        if config.action == "proto_list":
            slate = top_k_list(points, self.world.space, barred)
        else:
            slate, _ = top_k(points[:, 0], self.world.space, config.slate_size, barred)
        return slate, None, nothing_replaced

    def _retrieve_plays(self, rows: Which, points: npt.NDArray[np.float32]) -> Ints:
        """Best plays among those that the logged session still holds ``(m, k)``."""
        held = self._held[rows].copy()
        ties = self._tie_draws(rows)
        tracks = self._logged_tracks[rows]
        space, k = self.world.space, self.world.config.slate_size
        if self.world.config.action == "proto":
            candidates = np.where(held, tracks, UNKNOWN)
            return top_k_among(points[:, 0], space, candidates, k, order=ties)
        plays = np.full((len(points), k), UNKNOWN, np.int64)
        for place in range(k):
            candidates = np.where(held, tracks, UNKNOWN)
            best = top_k_among(points[:, place], space, candidates, 1, order=ties)[:, 0]
            plays[:, place] = best
            found = np.flatnonzero(best >= 0)
            held[found, best[found]] = False
        return plays

    def _logged_plays(self, rows: Rows, tracks: Ints) -> Ints:
        """For each track the first play of it that the logged session still holds, or -1."""
        matches = self._logged_tracks[rows][:, None, :] == tracks[..., None]
        matches &= self._held[rows][:, None, :]
        first = matches.argmax(axis=-1)
        return np.where(matches.any(axis=-1), first, UNKNOWN)

    def _take_plays(self, rows: Which, slate: Ints) -> Ints:
        """The play that each song is ``(m, k)``, -1 for none; it is then held no longer.

        The first play of the track that the logged session still holds, after those that the
        slate's earlier songs took.
        """
        held, tracks = self._held.T[:, rows], self._logged_tracks.T[:, rows]
        indices = self._indices[rows]
        plays = sessions_together(len(slate), slate.shape[1], UNKNOWN, np.int64)
        for place in range(slate.shape[1]):
            matches = held & (tracks == slate[:, place])
            play, session = np.divmod(np.flatnonzero(matches), len(indices))
            # Of several plays the last one written stays; from behind, that is the first.
            play, session = play[::-1], session[::-1]
            plays[session, place] = play
            first = plays[session, place]
            self._held[indices[session], first] = held[first, session] = False
        return plays

    def _allow(self, rows: Which, slate: Ints) -> tuple[Ints, Ints | None, Ints]:
        """Take a slate of tracks at its word where it may be played, and replace the rest.

        Unless ``repeats``, a song is not allowed if the session heard it or the slate names it
        twice; and never if it is not among the candidates. Its place goes to the most popular
        song that is allowed, and the step says how many were replaced.
        """
        config = self.world.config
        if config.candidates == "session":
            return self._allow_plays(rows, slate)
        if config.repeats:
            return slate, None, np.zeros(len(slate), np.int64)
        heard = self.history.tracks.T[:, rows]
        wrong = sessions_together(len(slate), slate.shape[1], False, np.bool_)
        for place in range(slate.shape[1]):
            wrong[:, place] = (heard == slate[:, place]).any(axis=0)
            for earlier in range(place):
                wrong[:, place] |= slate[:, place] == slate[:, earlier]
        some = np.flatnonzero(wrong.any(axis=1))
        if len(some):
            slate[some] = _replace(slate[some], wrong[some], heard[:, some].T)
        return slate, None, wrong.sum(axis=1)

    def _allow_plays(self, rows: Which, slate: Ints) -> tuple[Ints, Ints, Ints]:
        """The same where only the plays that the logged session still holds are candidates."""
        held, tracks = self._held[rows].copy(), self._logged_tracks[rows]
        ties = self._tie_draws(rows)
        plays = np.full(slate.shape, UNKNOWN, np.int64)
        for place in range(slate.shape[1]):
            wanted = held & (tracks == slate[:, place, None])
            _take_first(wanted, ties, held, plays[:, place])
        wrong = plays < 0
        for place in range(slate.shape[1]):
            lacking = held & wrong[:, place, None]
            _take_first(lacking, tracks + ties, held, plays[:, place])
        return self._tracks_of(rows, plays), plays, (wrong & (plays >= 0)).sum(axis=1)

    def _tracks_of(self, rows: Which, plays: Ints) -> Ints:
        """Tracks of plays of the logged sessions ``(m, k)``, -1 where there is no play."""
        at = self._indices[rows, None], np.maximum(plays, 0)
        tracks = self._logged_tracks[at].astype(np.int64)
        return np.where(plays >= 0, tracks, UNKNOWN)

    def _sorted_candidates(self, rows: Which) -> npt.NDArray[np.int32]:
        """Tracks of the plays still held, by index: their logged order would tell the future."""
        nothing = np.iinfo(np.int32).max
        tracks = np.where(self._held[rows], self._logged_tracks[rows], np.int32(nothing))
        tracks = np.sort(np.ascontiguousarray(tracks), axis=1)
        return np.where(tracks == nothing, np.int32(UNKNOWN), tracks)

    def _reward_terms(
        self, slate: Ints, levels: npt.NDArray[np.int8]
    ) -> dict[str, npt.NDArray[np.float64]]:
        config, world = self.world.config.reward, self.world
        vectors = world.base_vectors[slate] if config.diversity else None
        surprise = world.surprise[slate] if config.novelty else None
        return reward_terms(config, levels, vectors, surprise)

    def skip_probabilities(self, rows: Rows, tracks: Ints) -> npt.NDArray[np.float64]:
        """The listener's own skip probabilities: for diagnosis and skylines, never for agents.

        Args:
            rows: Sessions asked ``(m,)``.
            tracks: Candidates for each ``(m, c)``, or the same for all ``(1, c)``.

        Returns:
            ``(m, c)``, NaN where the candidate is -1.
        """
        asked = np.maximum(tracks, 0)
        chances = self.world.listener.level_probabilities(
            self._state, self.history, rows, asked, self._logged_plays(rows, asked)
        )
        return np.where(tracks >= 0, skip_probability(chances), np.nan)

    def remaining_log(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Tracks that the log still holds, in logged order ``(m, width)``, -1 after the last.

        For the logged policy and for diagnosis; an agent that saw it would see the future.
        """
        held = self._held[rows]
        order = np.argsort(~held, axis=1, kind="stable")
        tracks = np.where(held, self._logged_tracks[rows], UNKNOWN)
        return np.take_along_axis(tracks, order, axis=1)


def _replace(slate: Ints, wrong: npt.NDArray[np.bool_], heard: npt.NDArray[np.integer]) -> Ints:
    """Put the most popular songs that are allowed where slates ``(m, k)`` are wrong, in order."""
    m, k = slate.shape
    taken = np.hstack([np.where(wrong, UNKNOWN, slate), heard])
    # Among so many of the most popular songs there are always k that are not taken.
    free = np.ones((m, taken.shape[1] + k), np.bool_)
    session, place = np.nonzero((taken >= 0) & (taken < free.shape[1]))
    free[session, taken[session, place]] = False
    free_up_to = np.cumsum(free, axis=1)
    number = np.cumsum(wrong, axis=1)
    popular = (free_up_to[:, None, :] < number[:, :, None]).sum(axis=2)
    return np.where(wrong, popular, slate)


def _take_first(
    wanted: npt.NDArray[np.bool_],
    order: npt.NDArray[np.floating],
    held: npt.NDArray[np.bool_],
    plays: Ints,
) -> None:
    """Give each row of ``plays`` its first wanted play by ``order``, and hold it no longer."""
    first = np.where(wanted, order, np.inf).argmin(axis=1)
    found = np.flatnonzero(wanted.any(axis=1))
    plays[found] = first[found]
    held[found, first[found]] = False


def _checked_points(actions: npt.NDArray, dim: int) -> npt.NDArray[np.float32]:
    """Proto-actions as ``(m, points, dim)``."""
    points = np.asarray(actions, dtype=np.float32)
    if not np.isfinite(points).all():
        raise ValueError(
            "A proto-action holds NaN or infinity; expected finite numbers, usually in [-1, 1]. "
            "Look at the policy's output or its learning rate."
        )
    return points.reshape(len(points), -1, dim)


def _checked_slate(actions: npt.NDArray, num_tracks: int) -> Ints:
    """Slate actions as integers within the catalogue ``(m, k)``."""
    slate = np.asarray(actions)
    if not np.issubdtype(slate.dtype, np.integer):
        raise TypeError(f"A slate holds {slate.dtype} values; expected integer track indices.")
    if slate.min(initial=0) < 0 or slate.max(initial=0) >= num_tracks:
        raise ValueError(
            f"A slate names tracks from {slate.min()} to {slate.max()}; expected indices from 0 "
            f"to {num_tracks - 1}, rows of the catalogue."
        )
    # A copy to write to, the sessions of a place side by side.
    return slate.astype(np.int64, order="F", copy=True)


def _context_features(dataset: Dataset, sessions: Ints, shown: Ints) -> npt.NDArray[np.float32]:
    """Context of the last shown play of each session, ``(m, CONTEXT_SIZE)``."""
    log = dataset.sessions
    last = log.offsets[sessions] + shown - 1
    return context_features(
        *(log.column(name)[last] for name in ("hour", "premium", "shuffle", "context_type"))
    )


def context_features(
    hour: npt.NDArray[np.integer],
    premium: npt.NDArray[np.integer],
    shuffle: npt.NDArray[np.integer],
    context_type: npt.NDArray[np.integer],
) -> npt.NDArray[np.float32]:
    """Context as an observation holds it, ``(m, CONTEXT_SIZE)``; unknown values (-1) give 0.

    Hour on the circle (cosine, sine), premium and shuffle as -1 or 1, one-hot context type, and a
    last place for the position, which changes with every song and is filled in when observed.
    """
    features = np.zeros((len(hour), CONTEXT_SIZE), np.float32)
    features[:, :2] = _HOURS[hour]
    features[:, 2] = _FLAGS[premium]
    features[:, 3] = _FLAGS[shuffle]
    features[:, 4:-1] = _CONTEXT_TYPES[context_type]
    return features


def _with_unknown(known: npt.NDArray) -> npt.NDArray[np.float32]:
    """A table of features by code, the row of -1, unknown, being 0."""
    return np.concatenate([known, np.zeros_like(known[:1])]).astype(np.float32)


_ANGLES = 2 * np.pi * np.arange(24) / 24
_HOURS = _with_unknown(np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1))
_FLAGS = _with_unknown(np.array([-1.0, 1.0]))
_CONTEXT_TYPES = _with_unknown(np.eye(len(CONTEXT_TYPES)))
