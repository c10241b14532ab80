"""The plays that logged sessions still hold: what may be chosen with ``candidates="session"``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from musicbox_env.retrieval.exact import top_k_among
from musicbox_env.schema import UNKNOWN

Rows = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


class LoggedPlays:
    """Plays of the logged sessions of a batch; a play is its place in its session.

    Ties are numbers in [0, 1), one for each play ``(m, width)``: among equals, the lowest is
    chosen. The order of the log would tell the future.

    Attributes:
        tracks: Tracks of the whole sessions ``(n, width)``, -1 after the last.
        held: Which of these plays were neither shown nor heard ``(n, width)``.
    """

    def __init__(self, num_envs: int, width: int) -> None:
        """Make room for sessions of up to ``width`` plays."""
        self.tracks = np.full((num_envs, width), UNKNOWN, np.int32)
        self.held = np.zeros((num_envs, width), np.bool_)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """As kernels read and change them."""
        return self.tracks, self.held

    def offer(self, row: int, tracks: npt.NDArray[np.integer]) -> None:
        """Let one session hold these songs ``(c,)`` instead, at most ``width``."""
        self.tracks[row], self.held[row] = UNKNOWN, False
        self.tracks[row, : len(tracks)], self.held[row, : len(tracks)] = tracks, True

    def find(self, rows: Rows, tracks: Ints) -> Ints:
        """For each track ``(m, c)`` the first play of it that is held, or -1."""
        matches = self.tracks[rows][:, None, :] == tracks[..., None]
        matches &= self.held[rows][:, None, :]
        return np.where(matches.any(axis=-1), matches.argmax(axis=-1), UNKNOWN)

    def nearest(
        self, rows: Rows, proto_actions: Floats, space: Floats, k: int, ties: Floats
    ) -> Ints:
        """Held plays of highest dot product ``(m, k)``, -1 where there are fewer.

        Args:
            rows: Sessions ``(m,)``.
            proto_actions: One proto-action for the slate ``(m, 1, dim)``, or one a place
                ``(m, k, dim)``.
            space: Embedding ``(num_tracks, dim)``.
            k: Places of a slate.
            ties: See the class.
        """
        held, tracks = self.held[rows], self.tracks[rows]
        if proto_actions.shape[1] == 1:
            return top_k_among(
                proto_actions[:, 0], space, np.where(held, tracks, UNKNOWN), k, order=ties
            )
        plays = np.full((len(rows), k), UNKNOWN, np.int64)
        for place in range(k):
            candidates = np.where(held, tracks, UNKNOWN)
            best = top_k_among(proto_actions[:, place], space, candidates, 1, order=ties)[:, 0]
            plays[:, place] = best
            found = np.flatnonzero(best >= 0)
            held[found, best[found]] = False
        return plays

    def allowed(self, rows: Rows, slate: Ints, ties: Floats) -> tuple[Ints, Ints]:
        """Held plays that slates of tracks ``(m, k)`` mean, and how many were replaced ``(m,)``.

        The place of a track that is not held goes to the most popular held play left.
        """
        held, tracks = self.held[rows], self.tracks[rows]
        plays = np.full(slate.shape, UNKNOWN, np.int64)
        for place in range(slate.shape[1]):
            wanted = held & (tracks == slate[:, place, None])
            _take_first(wanted, ties, held, plays[:, place])
        wrong = plays < 0
        for place in range(slate.shape[1]):
            lacking = held & wrong[:, place, None]
            _take_first(lacking, tracks + ties, held, plays[:, place])
        return plays, (wrong & (plays >= 0)).sum(axis=1)

    def by_index(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Tracks of the held plays in ascending order ``(m, width)``, -1 after the last."""
        nothing = np.iinfo(np.int32).max
        tracks = np.where(self.held[rows], self.tracks[rows], np.int32(nothing))
        tracks.sort(axis=1)
        return np.where(tracks == nothing, np.int32(UNKNOWN), tracks)

    def in_order(self, rows: Rows) -> npt.NDArray[np.int32]:
        """Tracks of the held plays in logged order ``(m, width)``, -1 after the last."""
        held = self.held[rows]
        order = np.argsort(~held, axis=1, kind="stable")
        return np.take_along_axis(np.where(held, self.tracks[rows], UNKNOWN), order, axis=1)


def _take_first(
    wanted: npt.NDArray[np.bool_], order: Floats, held: npt.NDArray, plays: Ints
) -> None:
    """Give each row of ``plays`` its first wanted play by ``order``, and hold it no longer."""
    first = np.where(wanted, order, np.inf).argmin(axis=1)
    found = np.flatnonzero(wanted.any(axis=1))
    plays[found] = first[found]
    held[found, first[found]] = False
