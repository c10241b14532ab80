"""Recommenders that need no training: what every agent that learns has to beat, and two bounds.

Where a rule is a point in embedding space it acts by proto-action, so that the environment
retrieves, masks and breaks ties for it as it does for the agents that learn (`PointAgent`). Where
it ranks tracks in another way it acts by explicit slates (`SlateAgent`).

All counts, rates and co-occurrences are those of training plays. They hold the training sessions'
own second halves, so these agents are to be evaluated on validation or test sessions.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy import sparse

from musicbox_agents.base import Agent, AgentSettings, Observation
from musicbox_env.data.dataset import RATE_SUFFIX, Dataset
from musicbox_env.data.summaries import mean_vectors
from musicbox_env.listeners import RankingSpace
from musicbox_env.retrieval.exact import Find, top_k, top_k_among
from musicbox_env.rng import uniform
from musicbox_env.schema import MAX_SESSION_LENGTH, UNKNOWN, is_skip
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.dynamics import Simulator

MAX_SCORES = 1 << 21
"""Scores of tracks held at once, 8 MB in single precision: memory stays bounded for any batch."""
SHORTLIST = 512
"""Songs that the skyline asks a listener about, where it cannot order all of them."""

Batch = dict[str, npt.NDArray]
Floats = npt.NDArray[np.floating]
Slates = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


class BaselineAgent(Agent):
    """An agent without memory that reads track ids: one of `PointAgent` and `SlateAgent`."""

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray, Any]:
        """Choose actions; see `Agent.predict`."""
        batch, single = as_batch(observation)
        actions = self._act(batch, deterministic)
        return (actions[0] if single else actions), state

    @abstractmethod
    def _act(self, batch: Batch, deterministic: bool) -> npt.NDArray:
        """Actions ``(n, ...)`` for n sessions."""


def as_batch(observation: Observation) -> tuple[Batch, bool]:
    """An observation with a leading axis of sessions, and whether that had to be added."""
    single = np.ndim(observation["context"]) == 1
    batch = {name: np.asarray(part) for name, part in observation.items()}
    return ({name: part[None] for name, part in batch.items()} if single else batch), single


@dataclass(frozen=True)
class PointSettings(AgentSettings):
    """Settings of agents that act by proto-action.

    Attributes:
        embedding: Space of the action; None is the best that the dataset has for the rule.
    """

    embedding: str | None = None


class PointAgent(BaselineAgent):
    """Acts by proto-action: a point of embedding space, of which only the direction matters."""

    Settings = PointSettings

    @property
    def embedding(self) -> str:
        """Name of the embedding in which the agent acts."""
        assert isinstance(self.settings, PointSettings)
        return self.settings.embedding or self._default_embedding()

    def _default_embedding(self) -> str:
        return self.dataset.default_embedding

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Unit vectors of the tracks, without a rate column, ``(num_tracks, d)``."""
        return self.dataset.embedding(self.embedding.removesuffix(RATE_SUFFIX))

    @property
    def env_options(self) -> dict[str, Any]:
        """Proto-actions, the whole session as track ids."""
        return {
            "action": "proto",
            "observation": "ids",
            "history_length": MAX_SESSION_LENGTH,
            "embedding": self.embedding,
        }

    def _act(self, batch: Batch, deterministic: bool) -> npt.NDArray[np.float32]:
        points = self._points(batch)
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        return (points / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)

    @abstractmethod
    def _points(self, batch: Batch) -> Floats:
        """Points ``(n, dim)`` of any length."""


class ContentAgent(PointAgent):
    """Songs that sound like those kept: the mean content vector of the kept songs.

    Where nothing was kept, the mean of all songs heard. A dataset without track features has no
    content embedding; then the best that it has takes its place, and a log line says so.
    """

    name = "content"

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """See `Agent`."""
        super().__init__(dataset, seed=seed, settings=settings)
        if self.embedding != "content":
            _log.warning(
                "The content agent uses the embedding %r: it was told to, or %s has none of "
                "content.",
                self.embedding,
                dataset.folder,
            )

    def _default_embedding(self) -> str:
        names = self.dataset.embedding_names
        return "content" if "content" in names else self.dataset.best_embedding

    def _points(self, batch: Batch) -> Floats:
        points = mean_vectors(self.vectors, batch["tracks"], kept_or_all(batch))
        if self.embedding.endswith(RATE_SUFFIX):
            return np.pad(points, ((0, 0), (0, 1)))
        return points


class BestRateAgent(PointAgent):
    """The tracks that are skipped least, whoever listens: the unit vector on the rate axis.

    The rate is the catalog's, shrunken and counted on training plays. The rate column ends at
    3 standard deviations; the few tracks beyond are equal, and the more played come first.
    """

    name = "best-rate"

    def _points(self, batch: Batch) -> Floats:
        check_rate_axis(self)
        points = np.zeros((len(batch["tracks"]), self.vectors.shape[1] + 1))
        points[:, -1] = 1.0
        return points


@dataclass(frozen=True)
class PlayedRateSettings(PointSettings):
    """Settings of `PlayedRateAgent`.

    Attributes:
        rate_weight: Weight of the rate column, in units of the mean played vector.
    """

    rate_weight: float = 0.4


class PlayedRateAgent(PointAgent):
    """Tracks like those played that are skipped little: two lines, and hard to beat.

    The point is (mean vector of all songs heard, weight), so a track scores its mean cosine with
    these songs plus the weighted rate column. Skipped songs count like kept ones: what a listener
    plays shows their taste, and what they skip of it hardly does.
    """

    name = "played-rate"
    Settings = PlayedRateSettings

    def _points(self, batch: Batch) -> Floats:
        check_rate_axis(self)
        assert isinstance(self.settings, PlayedRateSettings)
        mean = mean_vectors(self.vectors, batch["tracks"], batch["tracks"] >= 0)
        return np.pad(mean, ((0, 0), (0, 1)), constant_values=self.settings.rate_weight)


def check_rate_axis(agent: PointAgent) -> None:
    """Refuse an embedding without the rate column.

    Raises:
        ValueError: The agent's embedding has none.
    """
    if not agent.embedding.endswith(RATE_SUFFIX):
        raise ValueError(
            f"The {agent.name} agent was given the embedding {agent.embedding!r}; it needs the "
            f"rate column: {agent.embedding + RATE_SUFFIX!r}."
        )


@dataclass(frozen=True)
class SlateSettings(AgentSettings):
    """Settings of agents that act by explicit slates.

    Attributes:
        slate_size: Songs of a slate.
    """

    slate_size: int = 3

    def __post_init__(self) -> None:
        if self.slate_size < 1:
            raise ValueError(f"slate_size is {self.slate_size}; it must be 1 or more.")


class SlateAgent(BaselineAgent):
    """Acts by naming tracks: none that ``observation["barred"]`` holds, none twice.

    With ``candidates="session"`` it chooses among ``observation["candidates"]``; a track that
    stands there twice is two plays and may be named twice. Where fewer plays are left than places,
    the last places hold track 0, which the environment does not play.
    """

    Settings = SlateSettings

    @property
    def slate_size(self) -> int:
        """Songs of a slate."""
        assert isinstance(self.settings, SlateSettings)
        return self.settings.slate_size

    @property
    def num_tracks(self) -> int:
        """Size of the catalog."""
        return len(self.dataset.catalog)

    @property
    def env_options(self) -> dict[str, Any]:
        """Slates of tracks, the whole session as track ids."""
        return {
            "action": "slate",
            "observation": "ids",
            "history_length": MAX_SESSION_LENGTH,
            "slate_size": self.slate_size,
        }

    def _best_by_points(
        self, batch: Batch, points: Floats, items: Floats, find: Find | None = None
    ) -> Slates:
        """Tracks of highest dot product of items ``(num_tracks, e)`` and points ``(n, e)``.

        ``find`` searches the items in place of `top_k`.
        """
        if "candidates" not in batch:
            barred, k = batch["barred"], self.slate_size
            slates, _ = find(points, k, barred) if find else top_k(points, items, k, barred)
            return np.maximum(slates, 0)
        candidates = batch["candidates"]
        # Sorted by track, hence the place as the order of equal ones tells nothing.
        order = np.broadcast_to(np.arange(candidates.shape[1]), candidates.shape)
        places = top_k_among(points, items, candidates, self.slate_size, order)
        return named(candidates, places)

    def _best_by_scores(self, batch: Batch, scores: Floats) -> Slates:
        """Tracks of highest score ``(n, num_tracks)``, ties to the more popular."""
        if "candidates" in batch:
            candidates = batch["candidates"]
            of_candidates = np.take_along_axis(scores, np.maximum(candidates, 0), axis=1)
            return best_candidates(candidates, of_candidates, self.slate_size)
        scores = np.array(scores, dtype=np.float64)
        barred = np.nonzero(batch["barred"] >= 0)
        scores[barred[0], batch["barred"][barred]] = -np.inf
        slates = np.zeros((len(scores), self.slate_size), np.int64)
        for place in range(self.slate_size):
            slates[:, place] = scores.argmax(axis=1)
            scores[np.arange(len(scores)), slates[:, place]] = -np.inf
        return slates


def best_candidates(candidates: npt.NDArray, scores: Floats, k: int) -> Slates:
    """The k candidates ``(n, c)`` of highest score ``(n, c)``, as tracks ``(n, k)``."""
    scores = np.where(candidates >= 0, scores, -np.inf)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return named(candidates, places)


def named(candidates: npt.NDArray, places: npt.NDArray) -> Slates:
    """Tracks at places of candidate lists, 0 where there is none (place or track -1)."""
    tracks = np.take_along_axis(candidates, np.maximum(places, 0), axis=1)
    return np.where((places >= 0) & (tracks >= 0), tracks, 0).astype(np.int64)


def in_chunks(batch: Batch, rows: int, act: Callable[[Batch], npt.NDArray]) -> npt.NDArray:
    """Apply ``act`` to at most ``rows`` sessions at a time and join what it gives."""
    n = len(batch["context"])
    parts = [
        act({name: part[start : start + rows] for name, part in batch.items()})
        for start in range(0, n, max(rows, 1))
    ]
    return np.concatenate(parts)


def nth_allowed(
    excluded: npt.NDArray[np.integer], ranks: npt.NDArray[np.integer], num_tracks: int
) -> Slates:
    """For each place the track of that rank among those not excluded and not chosen before.

    Args:
        excluded: Tracks that may not be chosen ``(n, b)``, -1 for none; may hold some twice.
        ranks: Rank among the tracks allowed at that place, counted from 0, ``(n, k)``.
        num_tracks: Size of the catalog.
    """
    slates = np.empty(ranks.shape, np.int64)
    barred = np.where(excluded >= 0, excluded, num_tracks).astype(np.int64)
    for place in range(ranks.shape[1]):
        barred.sort(axis=1)
        barred[:, 1:][barred[:, 1:] == barred[:, :-1]] = num_tracks
        barred.sort(axis=1)
        track = ranks[:, place].astype(np.int64)
        for column in barred.T:
            track += track >= column
        slates[:, place] = track
        barred = np.column_stack([barred, track])
    return slates


class RandomAgent(SlateAgent):
    """Tracks drawn uniformly, without memory: a slate depends on the seed and on the history.

    The same session gets the same songs however often and in whatever batch it is asked.
    """

    name = "random"

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        keys = np.array([self._key(batch, row) for row in range(len(batch["tracks"]))], np.uint64)
        if "candidates" in batch:
            candidates = batch["candidates"]
            order = uniform(keys[:, None], np.arange(candidates.shape[1]))
            return best_candidates(candidates, order, self.slate_size)
        barred = batch["barred"]
        number = np.array([len(np.unique(row[row >= 0])) for row in barred])
        left = self.num_tracks - number[:, None] - np.arange(self.slate_size)
        numbers = uniform(keys[:, None], np.arange(self.slate_size))
        return nth_allowed(barred, (numbers * left).astype(np.int64), self.num_tracks)

    def _key(self, batch: Batch, row: int) -> int:
        """64 bits that depend on the seed and on what a session heard."""
        seen = batch["tracks"][row].tobytes() + batch["levels"][row].tobytes()
        seen += batch["context"][row].tobytes()
        return crc32(seen, self.seed & 0xFFFFFFFF) << 32 | crc32(seen)


class PopularityAgent(SlateAgent):
    """The tracks most played in training: the catalog holds them in that order."""

    name = "popularity"

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        if "candidates" in batch:
            candidates = batch["candidates"]
            return best_candidates(candidates, np.zeros(candidates.shape), self.slate_size)
        return most_popular(batch["barred"], self.slate_size, self.num_tracks)


def most_popular(excluded: npt.NDArray[np.integer], k: int, num_tracks: int) -> Slates:
    """The k most played tracks that are not excluded ``(n, b)``, as ``(n, k)``."""
    return nth_allowed(excluded, np.zeros((len(excluded), k), np.int64), num_tracks)


@dataclass(frozen=True)
class ItemKNNSettings(SlateSettings):
    """Settings of `ItemKNNAgent`.

    Attributes:
        neighbors: Neighbours kept of each track.
        kept_only: Whether only plays that were kept count, in training sessions and in the
            history; where nothing was kept, the whole history counts.
    """

    neighbors: int = 200
    kept_only: bool = False


class ItemKNNAgent(SlateAgent):
    """Tracks that other sessions hold together with those heard (item to item).

    A track's score is the sum of its similarities to the songs heard; similarity is the cosine of
    the tracks' columns in the binary matrix of training sessions by tracks.
    Source: Deshpande & Karypis, "Item-based top-N recommendation algorithms", TOIS 2004.
    """

    name = "item-knn"
    Settings = ItemKNNSettings

    @cached_property
    def similarity(self) -> sparse.csr_array:
        """Cosine of each track with its neighbours ``(num_tracks, num_tracks)``, diagonal 0."""
        assert isinstance(self.settings, ItemKNNSettings)
        log, kept_only = self.dataset.sessions, self.settings.kept_only
        holds = log.held_tracks(log.sessions_in("train"), self.num_tracks, kept_only=kept_only)
        together = sparse.csr_array(holds.T @ holds)
        norms = np.sqrt(np.maximum(together.diagonal(), 1))
        scale = sparse.diags_array((1 / norms).astype(np.float32))
        cosines = sparse.csr_array(scale @ together @ scale)
        cosines.setdiag(0)
        return strongest(cosines, self.settings.neighbors)

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        return in_chunks(batch, MAX_SCORES // self.num_tracks, self._slates)

    def _slates(self, batch: Batch) -> Slates:
        assert isinstance(self.settings, ItemKNNSettings)
        heard = history_matrix(batch, self.num_tracks, kept_only=self.settings.kept_only)
        return self._best_by_scores(batch, (heard @ self.similarity).toarray())


@dataclass(frozen=True)
class SessionKNNSettings(SlateSettings):
    """Settings of `SessionKNNAgent`.

    Attributes:
        neighbors: Training sessions asked.
        kept_only: As in `ItemKNNSettings`.
    """

    neighbors: int = 200
    kept_only: bool = True


class SessionKNNAgent(SlateAgent):
    """Tracks of the training sessions most alike to this one.

    Likeness is the dot product of the history, in which the n-th of N songs weighs n / N, and the
    binary row of a training session, divided by the square root of its number of tracks. A track's
    score is the summed likeness of the nearest sessions that hold it.
    Source: VS-KNN of Ludewig & Jannach, "Evaluation of session-based recommendation algorithms",
    UMUAI 2018, without its second decay and idf weights.
    """

    name = "session-knn"
    Settings = SessionKNNSettings

    @cached_property
    def _sessions(self) -> tuple[sparse.csr_array, sparse.csc_array]:
        """Training sessions by tracks, binary; and tracks by sessions, of unit norm a session."""
        assert isinstance(self.settings, SessionKNNSettings)
        log, kept_only = self.dataset.sessions, self.settings.kept_only
        holds = log.held_tracks(log.sessions_in("train"), self.num_tracks, kept_only=kept_only)
        sizes = np.maximum(np.diff(holds.indptr), 1)
        unit = sparse.diags_array((1 / np.sqrt(sizes)).astype(np.float32)) @ holds
        return holds, sparse.csr_array(unit).T

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        width = max(self.num_tracks, self._sessions[0].shape[0])
        return in_chunks(batch, MAX_SCORES // width, self._slates)

    def _slates(self, batch: Batch) -> Slates:
        assert isinstance(self.settings, SessionKNNSettings)
        holds, by_track = self._sessions
        heard = history_matrix(
            batch, self.num_tracks, kept_only=self.settings.kept_only, recent_first=True
        )
        likeness = strongest(sparse.csr_array(heard @ by_track), self.settings.neighbors)
        return self._best_by_scores(batch, (likeness @ holds).toarray())


def kept_or_all(batch: Batch) -> npt.NDArray[np.bool_]:
    """Songs that were kept ``(n, H)``; all heard in sessions that kept none."""
    heard = batch["tracks"] >= 0
    kept = heard & ~is_skip(batch["levels"])
    return np.where(kept.any(axis=1, keepdims=True), kept, heard)


def history_matrix(
    batch: Batch, num_tracks: int, *, kept_only: bool, recent_first: bool = False
) -> sparse.csr_array:
    """What each session heard, ``(n, num_tracks)``.

    Args:
        batch: Observation of n sessions.
        num_tracks: Size of the catalog.
        kept_only: Whether songs that were skipped count nothing, unless all were.
        recent_first: Whether the n-th of N songs weighs n / N instead of 1.
    """
    heard = batch["tracks"] >= 0
    counted = kept_or_all(batch) if kept_only else heard
    weights = np.ones(heard.shape, np.float32)
    if recent_first:
        number = np.cumsum(heard, axis=1)
        weights = (number / np.maximum(number[:, -1:], 1)).astype(np.float32)
    row, place = np.nonzero(counted)
    entries = (weights[row, place], (row, batch["tracks"][row, place]))
    return sparse.csr_array(entries, shape=(len(heard), num_tracks))


def strongest(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """Each row's k largest entries, ties to the lower column; the rest becomes 0."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    within = np.arange(len(row)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    best = order[within < k]
    return sparse.csr_array(
        (matrix.data[best], (row[best], matrix.indices[best])), shape=matrix.shape
    )


class PrivilegedAgent(SlateAgent):
    """Looks into the simulator that it is attached to: a bound or a reference, no competitor."""

    def __init__(
        self, dataset: Dataset, *, seed: int = 0, settings: AgentSettings | None = None
    ) -> None:
        """See `Agent`; `attach` before the first `predict`."""
        super().__init__(dataset, seed=seed, settings=settings)
        self._simulator: Simulator | None = None

    def attach(self, simulator: Simulator) -> None:
        """Look into this simulator from now on; observations are rows of its batch."""
        self._simulator = simulator

    def _attached(self, batch: Batch) -> Simulator:
        """The simulator whose sessions the observation shows.

        Raises:
            RuntimeError: There is none, or it runs another number of sessions.
        """
        if self._simulator is None:
            raise RuntimeError(
                f"The {self.name} agent looks into the simulator; call "
                "agent.attach(env.unwrapped.simulator) before predict()."
            )
        if self._simulator.num_envs != len(batch["tracks"]):
            raise RuntimeError(
                f"The {self.name} agent was asked about {len(batch['tracks'])} sessions and is "
                f"attached to a simulator of {self._simulator.num_envs}; attach it to the "
                "environment that made the observation."
            )
        return self._simulator


class LoggedAgent(PrivilegedAgent):
    """The songs that were playing, in their order: what a recommender has to improve on.

    When the log has no song left (a long horizon), the most popular of those not heard.
    """

    name = "logged"

    @property
    def env_options(self) -> dict[str, Any]:
        """As of `SlateAgent`, with repeats: logs hold them."""
        return {**super().env_options, "repeats": True}

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        simulator = self._attached(batch)
        log = simulator.remaining_log(np.arange(simulator.num_envs))[:, : self.slate_size]
        missing = self.slate_size - log.shape[1]
        log = np.pad(log, ((0, 0), (0, max(missing, 0))), constant_values=UNKNOWN)
        popular = most_popular(simulator.history.tracks, self.slate_size, self.num_tracks)
        return np.where(log >= 0, log, popular).astype(np.int64)


class SkylineAgent(PrivilegedAgent):
    """Oracle: greedy on the evaluating listener's own skip probabilities, over what may be played.

    Where the listener's law adds up history and song on the logit scale, as the ground truth's
    does, one order of the songs is right at every moment, and a song kept makes the next one
    likelier to be kept; then no policy does better in expectation. The law is also a product of
    vectors, so that exact retrieval finds the best of all songs.

    For other listeners it is only the best first song, and of a shortlist: the `SHORTLIST` songs
    that come first by the listener's `RankingSpace` (`replay`: to first order), or where it has
    none, as `PlayedRateAgent` ranks them; and the songs that the log still holds, where the
    listener answers from it. Better songs may exist, so there it is no upper bound.
    """

    name = "skyline"

    def _act(self, batch: Batch, deterministic: bool) -> Slates:
        simulator = self._attached(batch)
        rows = np.arange(simulator.num_envs)
        if "candidates" in batch:
            return self._best(simulator, rows, batch["candidates"])
        slates = np.zeros((len(rows), self.slate_size), np.int64)
        playing = np.flatnonzero(simulator.remaining)
        # A listener holds some hundred numbers for each candidate, not just its score.
        chunk = max(1, MAX_SCORES // (16 * min(SHORTLIST, self.num_tracks)))
        for start in range(0, len(playing), chunk):
            part = playing[start : start + chunk]
            slates[part] = self._best(simulator, part, self._shortlist(simulator, part))
        return slates

    def _best(self, simulator: Simulator, rows: npt.NDArray, candidates: npt.NDArray) -> Slates:
        skips = simulator.skip_probabilities(rows, candidates)
        return best_candidates(candidates, -skips, self.slate_size)

    def _shortlist(self, simulator: Simulator, rows: npt.NDArray) -> npt.NDArray[np.int64]:
        """Songs among which the best are looked for ``(m, c)``, ascending, -1 for none."""
        assets, heard = simulator.assets, simulator.history.tracks[rows]
        space = simulator.ranking_space(rows) or usual_ranking(assets, heard)
        size = self.slate_size if space.exact else max(SHORTLIST, self.slate_size)
        best, _ = top_k(space.sessions, space.tracks, min(size, self.num_tracks), heard)
        parts: list[npt.NDArray[np.integer]] = [best]
        if assets.listener.answers_from_log:
            parts.append(simulator.remaining_log(rows))
        if assets.config.repeats:
            parts.append(heard)
        songs = np.sort(np.concatenate(parts, axis=1, dtype=np.int64), axis=1)
        songs[:, 1:][songs[:, 1:] == songs[:, :-1]] = UNKNOWN
        if not assets.config.repeats:
            songs[simulator.history.holds(rows, songs)] = UNKNOWN
        return songs


def usual_ranking(assets: EnvAssets, heard: npt.NDArray[np.integer]) -> RankingSpace:
    """Songs like those heard ``(m, h)`` that are skipped little, for listeners that rank none."""
    counted = heard >= 0
    share = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)
    points = np.einsum("mh,mhd->md", share, assets.vectors(heard)).astype(np.float32)
    if assets.config.embedding.endswith(RATE_SUFFIX):
        points[:, -1] = 1.0
    return RankingSpace(points, assets.space, exact=False)
