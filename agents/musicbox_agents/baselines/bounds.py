"""Bounds and references that read the simulator: the logged policy, and an oracle.

They are no competitors: what they read, no recommender can know.
"""

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from musicbox_agents.baselines.base import SlateAgent, in_chunks
from musicbox_agents.baselines.popularity import most_popular
from musicbox_agents.slates import Batch, Slates, best_candidates
from musicbox_env.data.dataset import RATE_SUFFIX
from musicbox_env.listeners import RankingSpace
from musicbox_env.listeners.base import holds
from musicbox_env.retrieval.exact import top_k
from musicbox_env.schema import UNKNOWN
from musicbox_env.simulator.dynamics import EnvAssets, Simulator
from musicbox_env.synthetic.outlook import Outlook

SHORTLIST: Final = 512
"""Songs whose skip probabilities the oracle computes, where the listener cannot order all."""


class PrivilegedAgent(SlateAgent):
    """Reads the simulator that it is attached to."""

    def set_up(self) -> None:
        """Begin without a simulator; `attach` one before the first `predict`."""
        self._simulator: Simulator | None = None

    def attach(self, simulator: Simulator) -> None:
        """Read this simulator from now on.

        Args:
            simulator: The one that makes the observations: row i of an observation ``(n, ...)`` is
                session i of its batch of n.
        """
        self._simulator = simulator

    def _attached(self, batch: Batch) -> Simulator:
        """The simulator whose sessions the observation shows.

        Raises:
            RuntimeError: None was attached, or one of another number of sessions.
        """
        if self._simulator is None:
            raise RuntimeError(
                f"The {self.name} agent reads the simulator; call "
                "agent.attach(env.unwrapped.simulator) before predict()."
            )
        if self._simulator.num_envs != len(batch["tracks"]):
            raise RuntimeError(
                f"The {self.name} agent got {len(batch['tracks'])} sessions and is "
                f"attached to a simulator of {self._simulator.num_envs}; attach it to the "
                "environment that made the observation."
            )
        return self._simulator


class LoggedAgent(PrivilegedAgent):
    """The logged policy: the songs that were played, in their order.

    When the log has no song left (a long horizon), the most popular of those not heard.
    """

    name = "logged"

    @property
    def env_options(self) -> dict[str, Any]:
        """As of `SlateAgent`, with repeats: logs hold them."""
        return {**super().env_options, "repeats": True}

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        simulator = self._attached(batch)
        log = simulator.remaining_log(np.arange(simulator.num_envs))[:, : self.slate_size]
        missing = self.slate_size - log.shape[1]
        log = np.pad(log, ((0, 0), (0, max(missing, 0))), constant_values=UNKNOWN)
        popular = most_popular(simulator.history.tracks, self.slate_size, self.num_tracks)
        return np.where(log >= 0, log, popular).astype(np.int64)


class SkylineAgent(PrivilegedAgent):
    """Oracle: greedy on the evaluation listener's own skip probabilities, an upper bound at best.

    Where the listener's law adds up history and song on the logit scale, as the ground truth's
    does, one order of the songs is right at every moment, and a song kept makes the next one
    likelier to be kept. Then it is an upper bound: no policy does better in expectation. The law is
    also a product of vectors, so that exact retrieval finds the best of all songs.

    Where songs wear out (`synthetic.satiation`) it composes the slate song by song, each the best
    after those before it, out of the shortlist. It does not look ahead: `PlannerAgent` does, and
    may do better.

    For other listeners it is only the best first song, and of a shortlist: the `SHORTLIST` songs
    that come first by the listener's `RankingSpace` (`replay`: to first order), or where it has
    none, as `PlayedRateAgent` ranks them; and the songs that the log still holds, where the
    listener answers from it. Better songs may exist, so there it is no upper bound.
    """

    name = "skyline"

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        simulator = self._attached(batch)
        rows = np.arange(simulator.num_envs)
        if "candidates" in batch:
            return self._best(simulator, rows, batch["candidates"])
        slates = np.zeros((len(rows), self.slate_size), np.int64)
        playing = np.flatnonzero(simulator.remaining)
        if len(playing):
            # A listener holds some hundred numbers for each candidate, not just its score.
            size = 16 * min(SHORTLIST, self.num_tracks)
            slates[playing] = in_chunks({"rows": playing}, size, partial(self._part, simulator))
        return slates

    def _part(self, simulator: Simulator, part: Batch) -> Slates:
        """The best songs for some sessions that still play."""
        return self._best(simulator, part["rows"], self._shortlist(simulator, part["rows"]))

    def compose(self, simulator: Simulator, rows: npt.NDArray, outlook: Outlook) -> Slates:
        """Slates ``(m, k)`` of sessions for which the order of songs matters.

        Args:
            simulator: The one attached.
            rows: The sessions ``(m,)``.
            outlook: What candidates are worth after which songs.
        """
        return outlook.greedy(self.slate_size)

    def _best(self, simulator: Simulator, rows: npt.NDArray, candidates: npt.NDArray) -> Slates:
        if (outlook := simulator.outlook(rows, candidates)) is not None:
            return self.compose(simulator, rows, outlook)
        skips = simulator.skip_probabilities(rows, candidates)
        return best_candidates(candidates, -skips, self.slate_size)

    def _shortlist(self, simulator: Simulator, rows: npt.NDArray) -> npt.NDArray[np.int64]:
        """Songs among which the best are searched ``(m, c)``, ascending, -1 for none."""
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
        songs[holds(simulator.barred(rows), songs)] = UNKNOWN
        return songs


def usual_ranking(assets: EnvAssets, heard: npt.NDArray[np.integer]) -> RankingSpace:
    """Songs like those heard ``(m, h)`` of high keep rate, for listeners that order none."""
    counted = heard >= 0
    share = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)
    queries = np.einsum("mh,mhd->md", share, assets.vectors(heard)).astype(np.float32)
    if assets.config.embedding.endswith(RATE_SUFFIX):
        queries[:, -1] = 1.0
    return RankingSpace(queries, assets.space, exact=False)
