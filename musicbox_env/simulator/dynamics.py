"""The dynamics of recommending songs into listening sessions, for many sessions at once.

`env.MusicSessionEnv` runs them with one session, `vector_env` with many; both only translate
between `Simulator` and Gymnasium. A step: `Simulator.choose` turns actions into slates, the
listener answers them, and `rewards` says what they earn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from musicbox_env import rng
from musicbox_env.listeners import History, RankingSpace, skip_probability
from musicbox_env.listeners.learned.features import context_inputs, log_columns
from musicbox_env.retrieval.exact import top_k_list
from musicbox_env.rewards import TERMS, reward_terms, song_rewards, total_reward
from musicbox_env.schema import UNHEARD, UNKNOWN, Level
from musicbox_env.simulator import checks, kernels
from musicbox_env.simulator.actions import checked_actions
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.logged import LoggedPlays
from musicbox_env.simulator.observations import CONTEXT_SIZE, flattened
from musicbox_env.synthetic.outlook import Outlook

Rows = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]


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
    """Batched session dynamics: what was heard, what may be recommended, what the listener answers.

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
            capacity: Most songs that a session can have heard; None is that of the assets.

        Raises:
            ValueError: No whole number of sessions, or a capacity below that of the assets.
        """
        checks.require_room(num_envs, capacity or assets.capacity, assets.capacity)
        self.assets = assets
        self.logged = LoggedPlays(num_envs, max(assets.dataset.longest_session, capacity or 0))
        self.history = History.empty(num_envs, capacity or assets.capacity)
        self.remaining = np.zeros(num_envs, np.int64)
        self.left = np.zeros(num_envs, np.bool_)
        self.context = np.zeros((num_envs, CONTEXT_SIZE), np.float32)
        self._action_space = assets.action_space()
        self._key = np.zeros(num_envs, np.uint64)
        self._hear_all = assets.listener.simulate_response
        self._begin_listener = assets.listener.begin_rows

    @property
    def num_envs(self) -> int:
        """Number of sessions in the batch."""
        return len(self.remaining)

    @cached_property
    def _state(self) -> Any:
        """The listener's state of all sessions.

        It is made when the first sessions begin: the first kernel costs half a second of numba.
        """
        assets, one_play = self.assets, np.ones(self.num_envs, np.int64)
        anyone = np.full(self.num_envs, assets.pool[0])
        capacity = self.history.tracks.shape[1]
        return assets.listener.begin(History.logged(assets.dataset, anyone, one_play, capacity))

    def begin(self, rows: Rows, sessions: Ints, keys: npt.NDArray[np.uint64]) -> None:
        """Start logged sessions: show their first half, see `schema.num_shown`.

        Args:
            rows: Rows of the batch to fill ``(m,)``.
            sessions: Session indices ``(m,)``.
            keys: Seeds of the sessions' random numbers ``(m,)``; see `rng`.

        Raises:
            ValueError: A row that is not in the batch, or a session that is not in the log.
        """
        assets, log, history = self.assets, self.assets.dataset.sessions, self.history
        state = history.arrays, self.logged.arrays, self.remaining
        kernels.begin_sessions(rows, sessions, log.replayed, *state)
        shown = history.count.take(rows)
        history.session[rows], history.shown[rows] = sessions, shown
        self._begin_listener(self._state, history, rows)
        if assets.config.horizon is not None:
            self.remaining[rows] = assets.config.horizon
        self.left[rows] = False
        self._key[rows] = keys
        last = log.offsets.take(sessions) + shown - 1
        self.context[rows, :-1] = context_inputs(last, log_columns(assets.dataset)[0])

    def arrays(self) -> dict[str, npt.NDArray]:
        """All that distinguishes this batch from another of the same kind, by name; not copied."""
        parts = {"history": self.history, "listener": self._state}
        return {
            "remaining": self.remaining,
            "left": self.left,
            "context": self.context,
            "key": self._key,
            "logged_tracks": self.logged.tracks,
            "held": self.logged.held,
            **{
                f"{name}.{field.name}": getattr(part, field.name)
                for name, part in parts.items()
                for field in fields(part)
            },
        }

    def restore(self, arrays: Mapping[str, npt.NDArray]) -> None:
        """Put all sessions back to where `arrays` found them.

        Raises:
            ValueError: The arrays are no state of this simulator.
        """
        log, own = self.assets.dataset.sessions, self.arrays()
        checks.require_state(arrays, own, log.num_sessions, self.assets.num_tracks)
        for name, array in own.items():
            array[:] = arrays[name]

    def show(
        self,
        row: int,
        tracks: npt.NDArray[np.integer],
        levels: npt.NDArray[np.integer],
        context: npt.NDArray[np.float32],
        *,
        among: npt.NDArray[np.integer] | None = None,
        barred: npt.NDArray[np.integer] | None = None,
    ) -> None:
        """Fill a place with a session that is in no log: to recommend from, not to simulate.

        Args:
            row: Place of the batch.
            tracks: Tracks heard, in order ``(t,)``, at most the simulator's capacity.
            levels: How far each was heard ``(t,)``.
            context: Context features ``(CONTEXT_SIZE,)``: `features.CONTEXT_INPUTS`, and a place
                for the position, which is filled in when observed.
            among: Tracks that alone may be recommended ``(c,)``, at most the simulator's capacity,
                with ``candidates="session"``; None is nothing, or the catalog.
            barred: Tracks not heard that may not be recommended either ``(b,)``; they take room as
                those heard do.

        Raises:
            ValueError: More songs than there is room for, or too few left to recommend; or what
                are no tracks, levels or context.
        """
        checks.require_songs(tracks, levels, context, self.assets.num_tracks, CONTEXT_SIZE)
        nothing = np.empty(0, np.int64)
        offered, others = (nothing if x is None else np.asarray(x) for x in (among, barred))
        checks.require_rows("among", offered, self.assets.num_tracks)
        checks.require_rows("barred", others, self.assets.num_tracks)
        count, capacity = len(tracks), self.history.tracks.shape[1]
        if (most := max(count + len(others), len(offered))) > capacity:
            raise ValueError(
                f"The session has {most} songs, those barred or offered among them, and there is "
                f"room for {capacity}; make the Simulator with a larger capacity."
            )
        distinct = count + len(others)
        if not self.assets.has_slate(distinct):
            distinct = len(np.unique(np.concatenate([tracks, others])))
        if not self.assets.has_slate(distinct):
            raise ValueError(
                f"The session heard or bars {distinct} of {self.assets.num_tracks} tracks; no "
                f"slate of {self.assets.config.slate_size} songs is left; name fewer songs."
            )
        self.history.begin(row, tracks, levels)
        self.history.tracks[row, capacity - len(others) :] = others
        self.context[row] = context
        self.logged.offer(row, offered)

    def barred(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Songs that sessions may not be recommended ``(m, capacity)``, -1 pads.

        All that each heard, and what `show` bars; none with ``repeats``, nor with
        ``candidates="session"``, where only the plays that the log still holds may be chosen.
        """
        config, heard = self.assets.config, self.history.tracks
        if config.repeats or config.candidates == "session":
            return np.full((len(rows), heard.shape[1]), UNKNOWN, np.int32)
        return heard.take(rows, axis=0)

    def observe(self, rows: Rows) -> Any:
        """Observations of the given sessions; fresh arrays, the newest play last.

        Returns:
            A dictionary of arrays ``(m, ...)``; one array ``(m, size)`` with ``"flat"``.
        """
        config, assets = self.assets.config, self.assets
        sizes = assets.dataset.longest_session, config.history_length
        tracks, levels, context = kernels.last_songs(
            rows, self.history.arrays, self.context, *sizes
        )
        if config.observation == "ids":
            last: dict[str, npt.NDArray] = {"tracks": tracks, "levels": levels, "context": context}
            if config.candidates == "session":
                return {**last, "candidates": self.logged.by_index(rows)}
            return {**last, "barred": self.barred(rows)}
        real = tracks >= 0
        vectors = assets.vectors(tracks)
        vectors[~real] = 0
        parts = {
            "history": vectors.reshape(len(tracks), -1),
            "levels": np.maximum(levels, 0).astype(np.float32) / float(Level.FULL),
            "mask": real.astype(np.float32),
            "context": context,
        }
        return flattened(parts) if config.observation == "flat" else parts

    def step(self, rows: Rows, actions: npt.NDArray) -> Outcome:
        """Play the recommended songs in order, as far as each session goes.

        Args:
            rows: Sessions that act ``(m,)``; those that are over hear nothing, and their actions
                are not checked.
            actions: ``(m, size)`` of the configured kind; see `actions.checked_actions`.

        Raises:
            ValueError: Actions that cannot be played.
        """
        playing = self.remaining.take(rows) > 0
        slate, plays, replaced = self.choose(rows, actions, playing)
        state = self._key, self.history.count, self.logged.arrays, self.remaining
        uniforms = kernels.prepare_slates(rows, *state, slate, plays)
        levels = self._hear(rows, slate, plays, uniforms)
        logged, share = self._find_logged(slate, plays)
        terms = self._reward_terms(slate, levels)
        rewards = self.assets.config.reward
        reward, of_songs = total_reward(rewards, terms), song_rewards(rewards, levels)
        return Outcome(reward, terms, of_songs, slate, levels, logged, share, replaced)

    def _find_logged(
        self, slate: Ints, plays: Ints
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Which songs heard have their logged level ``(m, k)``; their share of them ``(m,)``."""
        if not self.assets.listener.answers_from_log:
            return np.zeros(slate.shape, np.bool_), np.zeros(len(slate))
        heard = slate >= 0
        logged = heard & (plays >= 0)
        return logged, logged.sum(axis=1) / np.maximum(heard.sum(axis=1), 1)

    def _hear(
        self, rows: Rows, slate: Ints, plays: Ints, uniforms: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int8]:
        """Let listeners hear slates in order; songs after they leave are taken out.

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
        drawn = rng.uniform(self._key[rows], rng.LEAVING_COUNTER + history.count[rows])
        self.left[rows] = drawn < chances
        self.remaining[rows[self.left[rows]]] = 0

    def choose(
        self, rows: Rows, actions: npt.NDArray, playing: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Ints, Ints, Ints]:
        """Find the slates that actions mean.

        Args:
            rows: Sessions that act ``(m,)``.
            actions: ``(m, size)``; see `actions.checked_actions`.
            playing: Which sessions are not over ``(m,)``; None is all of them.

        Returns:
            Tracks ``(m, k)``, -1 for a session that is over; the logged plays that they are
            ``(m, k)``, or -1 where any play of the track will do, which is looked up when the song
            is heard; and how many places of each action were replaced ``(m,)``.

        Raises:
            ValueError: Actions that cannot be played.
        """
        if playing is None:
            playing = np.ones(len(rows), np.bool_)
        config = self.assets.config
        actions = checked_actions(actions, self._action_space, playing)
        if config.action == "slate" and config.candidates == "catalog":
            heard = self.history.tracks
            replaced = kernels.allow_slates(rows, playing, heard, config.repeats, actions)
            return actions, np.full(actions.shape, UNKNOWN, np.int64), replaced
        replaced = np.zeros(len(rows), np.int64)
        slate = np.full((len(rows), config.slate_size), UNKNOWN, np.int64)
        plays = slate.copy()
        who = np.flatnonzero(playing)
        acting, actions = rows[who], actions[who]
        if config.candidates == "catalog":
            slate[who] = self._retrieve(acting, self._proto_actions(actions))
            return slate, plays, replaced
        ties = self._ties(acting)
        if config.action == "slate":
            plays[who], replaced[who] = self.logged.allowed(acting, actions, ties)
        else:
            proto_actions, space = self._proto_actions(actions), self.assets.space
            plays[who] = self.logged.nearest(acting, proto_actions, space, config.slate_size, ties)
        tracks = self.logged.tracks[rows[:, None], plays]
        return np.where(plays >= 0, tracks, slate), plays, replaced

    def _proto_actions(self, actions: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Proto-actions of sessions, one for the slate or one a place ``(m, 1 or k, dim)``."""
        return actions.reshape(len(actions), -1, self.assets.dim)

    def _retrieve(self, rows: Rows, proto_actions: npt.NDArray[np.float32]) -> Ints:
        """Tracks of the catalog that lie nearest to proto-actions ``(m, k)``."""
        assets, barred = self.assets, self.barred(rows)
        if assets.config.action == "proto_list":
            return top_k_list(proto_actions, assets.space, barred, find=assets.search.top_k)
        return assets.search.top_k(proto_actions[:, 0], assets.config.slate_size, barred)[0]

    def _ties(self, rows: Rows) -> npt.NDArray[np.float64]:
        """A number for each play of the logged session ``(m, width)``, new with every slate.

        They come from a sequence of their own, keyed by one number of the session's.
        """
        counter = self.history.count[rows] * rng.DRAWS_PER_SONG + rng.TIE_DRAW
        key = (rng.uniform(self._key[rows], counter) * 2.0**53).astype(np.uint64)
        return rng.uniform(key[:, None], np.arange(self.logged.held.shape[1]))

    def _reward_terms(
        self, slate: Ints, levels: npt.NDArray[np.int8]
    ) -> dict[str, npt.NDArray[np.float64]]:
        config, assets = self.assets.config.reward, self.assets
        vectors = assets.base_vectors[slate] if config.diversity else None
        surprise = assets.surprise[slate] if config.novelty else None
        return reward_terms(config, levels, vectors, surprise)

    def skip_probabilities(self, rows: Rows, tracks: Ints) -> npt.NDArray[np.float64]:
        """The listener's own skip probabilities: for diagnosis and oracles, never for agents.

        Args:
            rows: Sessions ``(m,)``.
            tracks: Candidates of each ``(m, c)``, or the same for all ``(1, c)``.

        Returns:
            ``(m, c)``, NaN where the candidate is -1.
        """
        checks.require_rows("tracks", tracks, self.assets.num_tracks, UNKNOWN)
        checks.require_rows("rows", rows, self.num_envs)
        known = np.maximum(tracks, 0)
        chances = self.assets.listener.level_probabilities(
            self._state, self.history, rows, known, self.logged.find(rows, known)
        )
        return np.where(tracks >= 0, skip_probability(chances), np.nan)

    def ranking_space(self, rows: Rows) -> RankingSpace | None:
        """Vectors that order all tracks for the given sessions; None where the listener has none.

        For oracles, as `skip_probabilities`.
        """
        return self.assets.listener.ranking_space(self._state, rows)

    def outlook(self, rows: Rows, tracks: Ints) -> Outlook | None:
        """What candidates ``(m, c)`` will be worth after songs not heard yet; see `Listener`.

        For oracles, as `skip_probabilities`.
        """
        return self.assets.listener.outlook(self._state, self.history, rows, tracks)

    def remaining_log(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Tracks that the log still holds, in logged order ``(m, width)``, -1 after the last.

        For the logged policy and for diagnosis; an agent that saw it would see the future.
        """
        return self.logged.in_order(rows)
