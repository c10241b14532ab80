"""The dynamics of recommending songs into listening sessions, for many sessions at once.

This is the only copy. `env.MusicSessionEnv` runs it with one session, `vector_env` with many; both
only translate between it and Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from musicbox_env import kernels
from musicbox_env import rng as draws
from musicbox_env.data.dataset import DEFAULT_EMBEDDING, Dataset
from musicbox_env.listeners import (
    History,
    RankingSpace,
    make_listener,
    put_rows,
    skip_probability,
)
from musicbox_env.listeners.leaving import make_leaving, require_leaving
from musicbox_env.retrieval.embeddings import space_dim
from musicbox_env.retrieval.exact import top_k_among, top_k_list
from musicbox_env.retrieval.search import RETRIEVALS, Search
from musicbox_env.rewards import TERMS, RewardConfig, reward_terms, song_rewards, total_reward
from musicbox_env.schema import CONTEXT_TYPES, UNHEARD, UNKNOWN, Level, require_known, split_codes
from musicbox_env.simulator.actions import checked_actions

ACTIONS: Final = ("proto", "proto_list", "slate")
OBSERVATIONS: Final = ("embedding", "ids")
CANDIDATES: Final = ("catalog", "session")
CONTEXT_SIZE: Final = 5 + len(CONTEXT_TYPES)

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
    leaving: str | None = None
    reward: RewardConfig = field(default_factory=RewardConfig)
    embedding: str = DEFAULT_EMBEDDING
    retrieval: str = "auto"

    def __post_init__(self) -> None:
        split_codes(self.split)
        require_known("action", self.action, ACTIONS)
        require_known("observation", self.observation, OBSERVATIONS)
        require_known("candidates", self.candidates, CANDIDATES)
        require_known("retrieval", self.retrieval, RETRIEVALS)
        require_leaving(self.leaving)
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
        for name in ("data", "leaving"):
            if values.get(name) is not None:
                values[name] = str(values[name])
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
        from musicbox_env.synthetic.generator import bundled_dataset

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


class EnvAssets:
    """What all sessions of an environment share and nothing changes: data, space, listener.

    Attributes:
        config: The environment's keyword values.
        dataset: Logged sessions and catalog.
        listener: The user simulator.
        leaving: When listeners leave; None where nobody does.
        dim: Dimensions of the embedding space.
        capacity: Most songs that a session can have heard.
        pool: Sessions of the split that can be episodes, ``(s,)``.
    """

    def __init__(self, config: SessionConfig) -> None:
        """Open everything that a configuration names.

        Raises:
            ValueError: The split holds no session, or the catalog is too small for the sessions.
        """
        self.config = config
        self.dataset = open_dataset(config.data)
        self.listener = make_listener(config.listener, self.dataset)
        self.leaving = make_leaving(config.leaving, self.dataset)
        self.dim = space_dim(self.dataset, config.embedding)
        log = self.dataset.sessions
        self.pool: Ints = log.playable(config.split)
        if not len(self.pool):
            raise ValueError(f"{self.dataset.folder} has no session in split {config.split!r}.")
        self.capacity = self.dataset.longest_session + (config.horizon or 0)
        heard = 0 if config.repeats else self.capacity
        needed = heard + config.slate_size
        if config.candidates == "catalog" and self.num_tracks < needed:
            raise ValueError(
                f"The catalog has {self.num_tracks} tracks; sessions of up to {self.capacity} "
                f"songs with slates of {config.slate_size} and repeats={config.repeats} need "
                f"{needed}. Pass repeats=True, a smaller horizon or slate, or more tracks."
            )

    def __reduce__(self) -> tuple[Callable[[SessionConfig], EnvAssets], tuple[SessionConfig]]:
        """Pickle by name, so that a worker process maps the same files."""
        return EnvAssets, (self.config,)

    @property
    def num_tracks(self) -> int:
        """Size of the catalog."""
        return len(self.dataset.catalog)

    @property
    def space(self) -> npt.NDArray[np.float32]:
        """Embedding that actions are scored in, ``(num_tracks, dim)``; read where it is needed."""
        return self.search.space

    @cached_property
    def search(self) -> Search:
        """How points find their songs."""
        return Search(self.dataset, self.config.embedding, self.config.retrieval)

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
        else:
            parts["barred"] = spaces.Box(-1, last, (self.capacity,), np.int32)
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
        song_reward: What each song earned ``(n, k)``, 0 where not heard. The reward is their sum
            by ``gamma_position ** k`` and the weighted terms ``diversity`` and ``novelty``.
        slate: Tracks in the order heard ``(n, k)``, -1 where not heard.
        levels: Their listen levels ``(n, k)``, -1 where not heard.
        logged: Whether the level is the logged one ``(n, k)``.
        logged_share: Share of the songs heard whose level is ``(n,)``.
        replaced: Places of the action whose song was not allowed and was replaced ``(n,)``.
    """

    reward: npt.NDArray[np.float64]
    terms: dict[str, npt.NDArray[np.float64]]
    song_reward: npt.NDArray[np.float64]
    slate: Ints
    levels: npt.NDArray[np.int8]
    logged: npt.NDArray[np.bool_]
    logged_share: npt.NDArray[np.float64]
    replaced: Ints

    @classmethod
    def nothing(cls, n: int, slate_size: int) -> Outcome:
        """Of sessions that did not act: nothing heard, nothing earned."""
        return cls(
            np.zeros(n),
            {name: np.zeros(n) for name in TERMS},
            np.zeros((n, slate_size)),
            np.full((n, slate_size), UNKNOWN, np.int64),
            np.full((n, slate_size), UNHEARD, np.int8),
            np.zeros((n, slate_size), np.bool_),
            np.zeros(n),
            np.zeros(n, np.int64),
        )


class Simulator:
    """Batched session dynamics: what was heard, what may be recommended, what the listener says.

    Every array has one row for each session and is changed in place by `begin` and `step`.

    Attributes:
        history: What was heard, shown plays first.
        remaining: Songs still to be heard ``(n,)``; 0 where the listener left.
        left: Where the listener left ``(n,)``.
        context: Context features of the observation ``(n, CONTEXT_SIZE)``.
    """

    def __init__(self, assets: EnvAssets, num_envs: int, *, capacity: int | None = None) -> None:
        """Make room for ``num_envs`` sessions; `begin` starts them.

        Args:
            assets: What they share.
            num_envs: How many they are.
            capacity: Most songs that a session can have heard; None is the world's.
        """
        self.assets = assets
        width = assets.dataset.longest_session
        self.history = History.empty(num_envs, capacity or assets.capacity)
        self.remaining = np.zeros(num_envs, np.int64)
        self.left = np.zeros(num_envs, np.bool_)
        self.context = np.zeros((num_envs, CONTEXT_SIZE), np.float32)
        self._action_space = assets.action_space()
        self._key = np.zeros(num_envs, np.uint64)
        self._logged_tracks = np.full((num_envs, width), UNKNOWN, np.int32)
        self._held = np.zeros((num_envs, width), np.bool_)
        self._hear_all = assets.listener.simulate_response
        self._begin_listener = assets.listener.begin_rows

    @property
    def num_envs(self) -> int:
        """Number of sessions in the batch."""
        return len(self.remaining)

    @cached_property
    def _state(self) -> Any:
        """The listener's state of all sessions; made when the first ones begin.

        It takes the first kernel, and with it half a second in which numba gets ready.
        """
        assets, one_play = self.assets, np.ones(self.num_envs, np.int64)
        anyone = np.full(self.num_envs, assets.pool[0])
        capacity = self.history.tracks.shape[1]
        return assets.listener.begin(History.logged(assets.dataset, anyone, one_play, capacity))

    def begin(self, rows: Rows, sessions: Ints, keys: npt.NDArray[np.uint64]) -> None:
        """Start logged sessions: show their first half, see `schema.num_shown`.

        Args:
            rows: Rows places of the batch to fill ``(m,)``.
            sessions: Session indices ``(m,)``.
            keys: Seeds of the sessions' random numbers ``(m,)``; see `draws`.
        """
        assets, log, history = self.assets, self.assets.dataset.sessions, self.history
        kernels.begin_sessions(
            rows,
            sessions,
            log.offsets,
            log.column("track"),
            log.column("level"),
            history.tracks,
            history.levels,
            history.shown,
            self.remaining,
            self._logged_tracks,
            self._held,
        )
        shown = history.shown.take(rows)
        history.session[rows], history.count[rows] = sessions, shown
        self._begin_listener(self._state, history, rows)
        if assets.config.horizon is not None:
            self.remaining[rows] = assets.config.horizon
        self.left[rows] = False
        self._key[rows] = keys
        last = log.offsets.take(sessions) + shown - 1
        kernels.fill_context(
            rows,
            last,
            log.column("hour"),
            log.column("premium"),
            log.column("shuffle"),
            log.column("context_type"),
            *_CONTEXT_TABLES,
            self.context,
        )

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that distinguishes this batch from another of the same kind, by name; not copied."""
        parts = {"history": self.history, "listener": self._state}
        return {
            "remaining": self.remaining,
            "left": self.left,
            "context": self.context,
            "key": self._key,
            "logged_tracks": self._logged_tracks,
            "held": self._held,
            **{
                f"{name}.{field.name}": getattr(part, field.name)
                for name, part in parts.items()
                for field in fields(part)
            },
        }

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """Put all sessions back to where `arrays` found them."""
        for name, array in self.arrays().items():
            array[:] = arrays[name]

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
            tracks: Tracks heard, in order ``(t,)``, at most the simulator's capacity.
            levels: How far each was heard ``(t,)``.
            context: Context features ``(CONTEXT_SIZE,)``; see `context_features`.

        Raises:
            ValueError: More songs than there is room for, or too few left to recommend.
        """
        count, capacity = len(tracks), self.history.tracks.shape[1]
        if count > capacity:
            raise ValueError(
                f"The session heard {count} songs and there is room for {capacity}; "
                "make the Simulator with a larger capacity."
            )
        config, known = self.assets.config, self.assets.num_tracks
        distinct = len(np.unique(tracks))
        if not config.repeats and known - distinct < config.slate_size:
            raise ValueError(
                f"The session heard {distinct} of {known} tracks; no slate of "
                f"{config.slate_size} songs is left. Pass repeats=True or fewer songs."
            )
        put_rows(self.history, np.array([row]), History.empty(1, capacity))
        self.history.tracks[row, :count] = tracks
        self.history.levels[row, :count] = levels
        self.history.count[row] = self.history.shown[row] = count
        self.context[row] = context
        self._held[row] = False

    def barred(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Songs that sessions may not be recommended ``(m, capacity)``, -1 pads.

        All that each heard; none with ``repeats``, nor with ``candidates="session"``, where only
        the plays that the log still holds may be chosen.
        """
        config, heard = self.assets.config, self.history.tracks
        if config.repeats or config.candidates == "session":
            return np.full((len(rows), heard.shape[1]), UNKNOWN, np.int32)
        return heard.take(rows, axis=0)

    def observe(self, rows: Rows) -> dict[str, npt.NDArray]:
        """Observations of the given sessions; fresh arrays, the newest play last."""
        config, assets = self.assets.config, self.assets
        heard, shape = self.history, (len(rows), config.history_length)
        tracks, levels = np.empty(shape, np.int32), np.empty(shape, np.int8)
        context = np.empty((len(rows), CONTEXT_SIZE), np.float32)
        kernels.look_back(
            rows,
            heard.tracks,
            heard.levels,
            heard.count,
            self.context,
            assets.dataset.longest_session,
            tracks,
            levels,
            context,
        )
        if config.observation == "ids":
            observation: dict[str, npt.NDArray] = {
                "tracks": tracks,
                "levels": levels,
                "context": context,
            }
            if config.candidates == "session":
                observation["candidates"] = self._sorted_candidates(rows)
            else:
                observation["barred"] = self.barred(rows)
            return observation
        real = tracks >= 0
        vectors = assets.vectors(tracks)
        vectors[~real] = 0
        return {
            "history": vectors.reshape(len(tracks), -1),
            "levels": np.maximum(levels, 0).astype(np.float32) / float(Level.FULL),
            "mask": real.astype(np.float32),
            "context": context,
        }

    def step(self, rows: Rows, actions: npt.NDArray) -> Outcome:
        """Play the recommended songs in order, as far as each session goes.

        Args:
            rows: Sessions that act ``(m,)``; those that are over hear nothing, and their actions
                are not looked at.
            actions: ``(m, size)`` of the configured kind; see `actions.checked_actions`.

        Raises:
            ValueError: Actions that cannot be played.
        """
        slate, plays, replaced = self._choose_for_the_playing(rows, actions)
        uniforms = np.empty(slate.shape)
        kernels.line_up(
            rows,
            self._key,
            self.history.count,
            self._logged_tracks,
            self.remaining,
            self._held,
            slate,
            plays,
            uniforms,
        )
        levels = self._hear(rows, slate, plays, uniforms)
        logged, share = np.empty(slate.shape, np.bool_), np.empty(len(slate))
        kernels.find_logged(slate, plays, self.assets.listener.answers_from_log, logged, share)
        terms = self._reward_terms(slate, levels)
        rewards = self.assets.config.reward
        reward, of_songs = total_reward(rewards, terms), song_rewards(rewards, levels)
        return Outcome(reward, terms, of_songs, slate, levels, logged, share, replaced)

    def _hear(
        self, rows: Rows, slate: Ints, plays: Ints, uniforms: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int8]:
        """Hear slates in order; where listeners may leave, what they do not hear goes out of it.

        Returns:
            Levels ``(m, k)``, -1 where nothing was heard; ``slate`` is changed likewise.
        """
        if self.assets.leaving is None:
            return self._hear_all(self._state, self.history, rows, slate, plays, uniforms)
        levels = np.full(slate.shape, UNHEARD, np.int8)
        for place in range(slate.shape[1]):
            slate[self.left[rows], place] = UNKNOWN
            song = [place]
            levels[:, song] = self._hear_all(
                self._state, self.history, rows, slate[:, song], plays[:, song], uniforms[:, song]
            )
            self._let_leave(rows[slate[:, place] >= 0])
        return levels

    def _let_leave(self, rows: Rows) -> None:
        """Decide who of the sessions ``rows`` leaves after the song just heard, in place."""
        assert self.assets.leaving is not None
        history = self.history
        chances = self.assets.leaving.chances(history.levels[rows], history.count[rows])
        drawn = draws.uniform(self._key[rows], draws.LEAVING_COUNTER + history.count[rows])
        self.left[rows] = drawn < chances
        self.remaining[rows[self.left[rows]]] = 0

    def _choose_for_the_playing(self, rows: Rows, actions: npt.NDArray) -> tuple[Ints, Ints, Ints]:
        """`choose` for the sessions that are not over; -1 and nothing replaced for the others."""
        playing = self.remaining.take(rows) > 0
        actions = checked_actions(actions, self._action_space, playing)
        if self.assets.config.action == "slate" and self.assets.config.candidates == "catalog":
            return self._allow(rows, actions, playing)
        if playing.all():
            return self._chosen(rows, actions)
        who = np.flatnonzero(playing)
        shape = (len(rows), self.assets.config.slate_size)
        slate, plays = np.full(shape, UNKNOWN, np.int64), np.full(shape, UNKNOWN, np.int64)
        replaced = np.zeros(len(rows), np.int64)
        slate[who], plays[who], replaced[who] = self._chosen(rows[who], actions[who])
        return slate, plays, replaced

    def _tie_draws(self, rows: Rows) -> npt.NDArray[np.float64]:
        """A number for each play of the logged session ``(m, width)``, new with every slate.

        They come from a sequence of their own, keyed by one number of the session's.
        """
        counter = self.history.count[rows] * draws.DRAWS_PER_SONG + draws.TIE_DRAW
        key = (draws.uniform(self._key[rows], counter) * 2.0**53).astype(np.uint64)
        return draws.uniform(key[:, None], np.arange(self._held.shape[1]))

    def choose(self, rows: Rows, actions: npt.NDArray) -> tuple[Ints, Ints, Ints]:
        """Turn actions into tracks ``(m, k)``, and places replaced ``(m,)``.

        In between stand the logged plays that the tracks are ``(m, k)``, or -1 where any play
        of the track will do: it is then looked up when its turn comes.

        Raises:
            ValueError: Actions that cannot be played; see `actions.checked_actions`.
        """
        everyone = np.ones(len(rows), np.bool_)
        return self._chosen(rows, checked_actions(actions, self._action_space, everyone))

    def _chosen(self, rows: Rows, actions: npt.NDArray) -> tuple[Ints, Ints, Ints]:
        """`choose` for actions that were checked; slates among them may be changed."""
        config = self.assets.config
        if config.action == "slate" and config.candidates == "session":
            return self._allow_plays(rows, actions)
        if config.action == "slate":
            return self._allow(rows, actions, np.ones(len(rows), np.bool_))
        points = actions.reshape(len(actions), -1, self.assets.dim)
        nothing_replaced = np.zeros(len(points), np.int64)
        if config.candidates == "session":
            plays = self._retrieve_plays(rows, points)
            return self._tracks_of(rows, plays), plays, nothing_replaced
        barred = self.barred(rows)
        if config.action == "proto_list":
            slate = top_k_list(points, self.assets.space, barred, find=self.assets.search.top_k)
        else:
            slate, _ = self.assets.search.top_k(points[:, 0], config.slate_size, barred)
        return slate, _any_play(slate), nothing_replaced

    def _retrieve_plays(self, rows: Rows, points: npt.NDArray[np.float32]) -> Ints:
        """Best plays among those that the logged session still holds ``(m, k)``."""
        held = self._held[rows]
        ties = self._tie_draws(rows)
        tracks = self._logged_tracks[rows]
        space, k = self.assets.space, self.assets.config.slate_size
        if self.assets.config.action == "proto":
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

    def _allow(
        self, rows: Rows, slate: Ints, playing: npt.NDArray[np.bool_]
    ) -> tuple[Ints, Ints, Ints]:
        """Take slates of tracks at their word where they may be played; replace the rest, in place.

        Unless ``repeats``, a song is not allowed if it is barred or the slate names it twice; and
        never if it is not among the candidates. Its place goes to the most popular
        song that is allowed, and the step says how many were replaced.
        """
        replaced = np.empty(len(slate), np.int64)
        kernels.allow_slates(
            playing,
            self.barred(rows),
            self.assets.config.repeats,
            slate,
            replaced,
        )
        return slate, _any_play(slate), replaced

    def _allow_plays(self, rows: Rows, slate: Ints) -> tuple[Ints, Ints, Ints]:
        """The same where only the plays that the logged session still holds are candidates."""
        held, tracks = self._held[rows], self._logged_tracks[rows]
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

    def _tracks_of(self, rows: Rows, plays: Ints) -> Ints:
        """Tracks of plays of the logged sessions ``(m, k)``, -1 where there is no play."""
        tracks = self._logged_tracks[rows[:, None], np.maximum(plays, 0)].astype(np.int64)
        return np.where(plays >= 0, tracks, UNKNOWN)

    def _sorted_candidates(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Tracks of the plays still held, by index: their logged order would tell the future."""
        nothing = np.iinfo(np.int32).max
        tracks = np.where(self._held[rows], self._logged_tracks[rows], np.int32(nothing))
        tracks.sort(axis=1)
        return np.where(tracks == nothing, np.int32(UNKNOWN), tracks)

    def _reward_terms(
        self, slate: Ints, levels: npt.NDArray[np.int8]
    ) -> dict[str, npt.NDArray[np.float64]]:
        config, assets = self.assets.config.reward, self.assets
        vectors = assets.base_vectors[slate] if config.diversity else None
        surprise = assets.surprise[slate] if config.novelty else None
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
        chances = self.assets.listener.level_probabilities(
            self._state, self.history, rows, asked, self._logged_plays(rows, asked)
        )
        return np.where(tracks >= 0, skip_probability(chances), np.nan)

    def ranking_space(self, rows: Rows) -> RankingSpace | None:
        """Vectors that order all tracks for the given sessions; None where the listener has none.

        For oracles, as `skip_probabilities`.
        """
        return self.assets.listener.ranking_space(self._state, rows)

    def remaining_log(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Tracks that the log still holds, in logged order ``(m, width)``, -1 after the last.

        For the logged policy and for diagnosis; an agent that saw it would see the future.
        """
        held = self._held[rows]
        order = np.argsort(~held, axis=1, kind="stable")
        tracks = np.where(held, self._logged_tracks[rows], UNKNOWN)
        return np.take_along_axis(tracks, order, axis=1)


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


def _any_play(slate: Ints) -> Ints:
    """-1 for each song: whichever logged play of it the session still holds."""
    plays = np.empty_like(slate)
    plays.fill(UNKNOWN)
    return plays


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
    features = np.empty((len(hour), CONTEXT_SIZE), np.float32)
    every = np.arange(len(hour))
    kernels.fill_context(
        every, every, hour, premium, shuffle, context_type, *_CONTEXT_TABLES, features
    )
    return features


def _with_unknown(known: npt.NDArray) -> npt.NDArray[np.float32]:
    """A table of features by code, the row of -1, unknown, being 0."""
    return np.concatenate([known, np.zeros_like(known[:1])]).astype(np.float32)


_ANGLES = 2 * np.pi * np.arange(24) / 24
_CONTEXT_TABLES: Final = (
    _with_unknown(np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)),
    _with_unknown(np.array([-1.0, 1.0])),
    _with_unknown(np.eye(len(CONTEXT_TYPES))),
)
"""Features of the hours, of flags and of context types."""
