"""The figures that the first MusicBox reported, by its own definition."""

import numpy as np

from musicbox_env.data.sessions import SessionLog
from musicbox_env.schema import MAX_SESSION_LENGTH, is_skip
from musicbox_experiments.evaluate.metrics import CatalogStats, diversity
from musicbox_experiments.evaluate.rollout import Rollout


def first_musicbox_figures(
    rollout: Rollout, catalog: CatalogStats, log: SessionLog
) -> dict[str, float]:
    """The two figures that the first MusicBox reported, by its own definition.

    The skip rate of recommended tracks that happen to be in the test session, beside the rate of
    all data; and the diversity of the eight raw features within the slate, in percent. Neither
    proves much: songs that are not in the session are dropped (see ``share_in_session``), and the
    two rates belong to different populations of plays.

    Where a session holds a track more than once, the track's mean over these plays counts (the
    first MusicBox kept an arbitrary one).

    Returns:
        ``skip_rate`` and ``skip_rate_all_data`` (shares), ``share_in_session`` of the recommended
        songs, ``diversity_percent`` of the slates and ``diversity_percent_sessions`` of the
        logged plays of the same sessions, cut into slates of the same size.
    """
    n, _, slate_size = rollout.slates.shape
    tracks = log.padded("track", rollout.sessions)
    skipped = is_skip(log.padded("level", rollout.sessions))
    recommended = rollout.slates.reshape(n, -1)
    same = (recommended[:, :, None] == tracks[:, None, :]) & (recommended >= 0)[:, :, None]
    plays = same.sum(axis=2)
    skips = (same & skipped[:, None, :]).sum(axis=2)
    found = plays > 0

    places = MAX_SESSION_LENGTH // slate_size * slate_size
    played = tracks[:, :places].reshape(n, -1, slate_size)
    return {
        "skip_rate": float(np.mean(skips[found] / plays[found])) if found.any() else float("nan"),
        "skip_rate_all_data": float(is_skip(log.column("level")).mean()),
        "share_in_session": float(found.sum() / max((recommended >= 0).sum(), 1)),
        "diversity_percent": 100 * diversity(rollout.slates, catalog.features).mean,
        "diversity_percent_sessions": 100 * diversity(played, catalog.features).mean,
    }
