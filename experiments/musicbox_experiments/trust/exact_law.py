"""Listeners beside the exact law of synthetic data, also on songs that sessions were never offered.

An agent looks for the songs that a listener skips least, and so for its errors in their favor (the
winner's curse). So three kinds of songs are queried: drawn at random, chosen by an agent, and the
listener's own favorites.

Where songs wear out those like them, the same songs heard in another order change what the next one
is worth, and nothing else does. So a listener knows of it as far as it tells these changes.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from musicbox_agents import Agent

from musicbox_env.data.summaries import holds
from musicbox_env.listeners import GroundTruthListener
from musicbox_env.schema import UNKNOWN, is_skip
from musicbox_experiments.evaluate.rollout import open_sessions
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.context import Context, ListenerUnderTest
from musicbox_experiments.trust.metrics import Predictions
from musicbox_experiments.trust.queries import FIRST_PREDICTED, Ints, Log, query, query_after

TRUTH: Final = "exact law"
WEAR_OUT: Final = "wear-out"
RANDOM_SONGS: Final = "random songs"
OWN_FAVORITES: Final = "own favorites"
RANDOM_PER_SESSION: Final = 20
FAVORITES: Final = 3
FAVORITES_POOL: Final = 1_000
FAVORITES_SESSIONS: Final = 300


def random_songs(context: Context) -> Ints:
    """Songs of the catalog drawn evenly ``(n, c)``, -1 for those that the session holds."""
    shape = (context.num_sessions, RANDOM_PER_SESSION)
    tracks = context.rng(8).integers(0, len(context.dataset.catalog), shape)
    return np.where(holds(context.log.tracks, tracks), UNKNOWN, tracks)


def chosen_songs(context: Context, agent: Agent) -> Ints:
    """An agent's first slate after each shown half ``(n, k)``, -1 for songs of the session."""
    log, options = context.log, {"data": str(context.dataset.folder), "split": "test"}
    with open_sessions(agent, options, log.sessions, context.seed) as (env, observation):
        action, _ = agent.predict(observation, deterministic=True)
        tracks, _, _ = env.simulator.choose(np.arange(len(log.sessions)), action)
    return np.where(holds(log.tracks, tracks), UNKNOWN, tracks)


def favorite_songs(context: Context, tested: ListenerUnderTest) -> Ints:
    """The songs of a random part of the catalog that the listener skips least ``(m, k)``.

    Of the first `FAVORITES_SESSIONS` sessions, without the songs that the session holds.
    """
    log, catalog = context.log, len(context.dataset.catalog)
    size = min(FAVORITES_POOL, catalog)
    pool = np.sort(context.rng(9).choice(catalog, size, replace=False))
    best = np.empty((min(context.num_sessions, FAVORITES_SESSIONS), FAVORITES), np.int64)
    for row in range(len(best)):
        songs = np.setdiff1d(pool, log.tracks[row])
        chances = query(tested.listener, log, np.array([row]), log.shown[[row]], songs[None])[0]
        best[row] = songs[np.argsort(chances, kind="stable")[:FAVORITES]]
    return best


def reordered(log: Log, rng: np.random.Generator) -> Ints:
    """Tracks of sessions, the songs of first halves in a random order ``(n, width)``.

    Songs change places with others of the session that were skipped, or kept, as they were, so that
    the levels at all places stay, and so does what was kept; the first `FIRST_PREDICTED` stay too.
    """
    place = np.arange(log.width)
    moved = (place >= FIRST_PREDICTED) & (place < log.shown[:, None])
    found = log.tracks.astype(np.int64)
    draws, skipped = rng.random(found.shape), is_skip(log.levels)
    for kind in (skipped, ~skipped):
        there = moved & kind
        drawn = np.argsort(np.where(there, draws, 2.0), axis=1)
        rows, into = np.nonzero(there)
        nth = (np.cumsum(there, axis=1) - 1)[there]
        found[rows, into] = log.tracks[rows, drawn[rows, nth]]
    return found


def measure_wear_out(context: Context, tested: ListenerUnderTest) -> None:
    """Changes of skip chances when the first halves are heard in another order; see `reordered`.

    The songs in question are those that the sessions played next, whose chances were not high or
    low by accident, heard for the first time.
    """
    law, log = GroundTruthListener(context.dataset), context.log
    other = reordered(log, context.rng(12))
    rows, places = np.nonzero(log.second_half)
    songs = np.full(log.tracks.shape, UNKNOWN, np.int64)
    songs[rows, places] = log.tracks[rows, places]
    first_half = np.where(np.arange(log.width) < log.shown[:, None], log.tracks, UNKNOWN)
    songs[holds(first_half, songs)] = UNKNOWN
    there, tracks = songs >= 0, np.maximum(songs, 0)
    predicted, exact = (
        (query_after(one, log, other, tracks) - query_after(one, log, log.tracks, tracks))[there]
        for one in (tested.listener, law)
    )
    made = Predictions(predicted, exact, np.nonzero(there)[0], context.num_sessions)
    changes = {"predicted_change": predicted, "true_change": exact}
    for metric, change in changes.items():
        context.add(tested.name, WEAR_OUT, metric, made.mean_of(np.abs(change)))
    if exact.any():
        context.add(tested.name, WEAR_OUT, "share_told", metrics.share_told(made), 1.0)


def measure_truth(context: Context, tested: ListenerUnderTest, agents: Mapping[str, Agent]) -> None:
    """Predicted against exact probabilities; the reference is a perfect listener's figure."""
    law, log = GroundTruthListener(context.dataset), context.log
    kinds = {RANDOM_SONGS: random_songs(context)}
    kinds |= {f"songs of {label}": chosen_songs(context, agent) for label, agent in agents.items()}
    kinds[OWN_FAVORITES] = favorite_songs(context, tested)
    for kind, songs in kinds.items():
        rows, there, tracks = np.arange(len(songs)), songs >= 0, np.maximum(songs, 0)
        predicted, exact = (
            query(listener, log, rows, log.shown[rows], tracks)[there]
            for listener in (tested.listener, law)
        )
        session = np.repeat(rows, there.sum(axis=1))
        made = Predictions(predicted, exact, session, context.num_sessions)
        for metric, statistic, reference in (
            ("bias", metrics.bias(made), 0.0),
            ("mean_distance", made.mean_of(np.abs(predicted - exact)), 0.0),
            ("calibration_error", metrics.calibration_error(made), 0.0),
            ("correlation", metrics.correlation(made), 1.0),
            ("slope", metrics.within_session_slope(made), 1.0),
            ("predicted", made.mean_of(predicted), None),
            ("true", made.mean_of(exact), None),
        ):
            context.add(tested.name, TRUTH, f"{metric}[{kind}]", statistic, reference)
        curve = metrics.calibration_curve(made, context.resampling)
        context.findings.truth.setdefault(kind, {})[tested.name] = curve
