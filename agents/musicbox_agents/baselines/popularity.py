"""Agents that look at no taste: random tracks and popular tracks."""

from zlib import crc32

import numpy as np
import numpy.typing as npt

from musicbox_agents.baselines.base import SlateAgent
from musicbox_agents.slates import Batch, Slates, best_candidates
from musicbox_env import rng


class RandomAgent(SlateAgent):
    """Tracks drawn uniformly, without memory: a slate depends on the seed and on the history.

    The same session gets the same songs every time and in every batch.
    """

    name = "random"

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        keys = np.array([self._key(batch, row) for row in range(len(batch["tracks"]))], np.uint64)
        if "candidates" in batch:
            candidates = batch["candidates"]
            order = rng.uniform(keys[:, None], np.arange(candidates.shape[1]))
            return best_candidates(candidates, order, self.slate_size)
        barred = batch["barred"]
        number = np.array([len(np.unique(row[row >= 0])) for row in barred])
        left = self.num_tracks - number[:, None] - np.arange(self.slate_size)
        uniform = rng.uniform(keys[:, None], np.arange(self.slate_size))
        return nth_allowed(barred, (uniform * left).astype(np.int64), self.num_tracks)

    def _key(self, batch: Batch, row: int) -> int:
        """64 bits that depend on the seed and on what a session heard."""
        seen = batch["tracks"][row].tobytes() + batch["levels"][row].tobytes()
        seen += batch["context"][row].tobytes()
        return crc32(seen, self.seed & 0xFFFFFFFF) << 32 | crc32(seen)


class PopularityAgent(SlateAgent):
    """The tracks most played in training: the catalog holds them in that order."""

    name = "popularity"

    def act(self, batch: Batch, *, deterministic: bool) -> Slates:
        """See `Agent.act`."""
        if "candidates" in batch:
            candidates = batch["candidates"]
            return best_candidates(candidates, np.zeros(candidates.shape), self.slate_size)
        return most_popular(batch["barred"], self.slate_size, self.num_tracks)


def most_popular(excluded: npt.NDArray[np.integer], k: int, num_tracks: int) -> Slates:
    """The k most played tracks that are not excluded ``(n, b)``, as ``(n, k)``."""
    return nth_allowed(excluded, np.zeros((len(excluded), k), np.int64), num_tracks)


def nth_allowed(
    excluded: npt.NDArray[np.integer], ranks: npt.NDArray[np.integer], num_tracks: int
) -> Slates:
    """For each place the track of that rank among those not excluded and not chosen before.

    Args:
        excluded: Tracks that may not be chosen ``(n, b)``, -1 for none; may hold some twice.
        ranks: Rank among the tracks allowed at that place, counted from 0, ``(n, k)``.
        num_tracks: Size of the catalog.

    Returns:
        ``(n, k)``, 0 where no such track is left.
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
        slates[:, place] = np.where(track < num_tracks, track, 0)
        barred = np.column_stack([barred, track])
    return slates
