"""Gradient boosting: what its features may know, and what it learns."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from altered import copy_to_alter
from musicbox_experiments.trust import metrics
from musicbox_experiments.trust.boosting import (
    RATE_FOLDS,
    Boosting,
    TrackRates,
    features,
)
from musicbox_experiments.trust.queries import Log, Targets

from musicbox_env.data.dataset import Dataset
from musicbox_env.schema import PLAY_COLUMNS, UNKNOWN


def test_features_do_not_know_what_comes_after_the_past(synthetic_folder, synthetic, tmp_path):
    """Every column but the track changes from the first play after the shown half on."""
    changed = tmp_path / "changed"
    copy_to_alter(synthetic_folder, changed)
    offsets = np.load(changed / "sessions" / "offsets.npy")
    for name in PLAY_COLUMNS:
        if name == "track":
            continue
        column = np.lib.format.open_memmap(changed / "plays" / f"{name}.npy", mode="r+")
        for start, end in itertools.pairwise(offsets):
            column[start + (end - start) // 2 : end] = 1
        column.flush()
    sessions = synthetic.sessions.sessions_in("test")
    rates = TrackRates(
        synthetic, synthetic.sessions.sessions_in("train"), rng=np.random.default_rng(0)
    )
    logs = [Log.of(dataset, sessions) for dataset in (synthetic, Dataset(changed))]
    assert not np.array_equal(logs[0].levels, logs[1].levels)
    for behavior in (False, True):
        tables = [
            features(log, Targets.second_halves(log), rates, behavior=behavior, distance=True)
            for log in logs
        ]
        np.testing.assert_array_equal(*tables)


def test_levels_alone_read_no_behavior(synthetic_folder, synthetic, tmp_path, log):
    changed = tmp_path / "changed"
    copy_to_alter(synthetic_folder, changed)
    for name in ("reason_end", "reason_start", "pause", "context_switch", "seek_forward"):
        column = np.lib.format.open_memmap(changed / "plays" / f"{name}.npy", mode="r+")
        column[:] = 1
        column.flush()
    rates = TrackRates(
        synthetic, synthetic.sessions.sessions_in("train"), rng=np.random.default_rng(0)
    )
    logs = [log, Log.of(Dataset(changed), log.sessions)]
    for behavior in (False, True):
        one, other = (
            features(each, Targets.next_plays(each), rates, behavior=behavior, distance=False)
            for each in logs
        )
        assert np.array_equal(one, other, equal_nan=True) != behavior


def test_a_track_rate_leaves_the_sessions_own_fold_out(synthetic):
    rates = TrackRates(
        synthetic, synthetic.sessions.sessions_in("train"), rng=np.random.default_rng(0)
    )
    train = synthetic.sessions.sessions_in("train")
    test = synthetic.sessions.sessions_in("test")
    session, track = train[3], 0
    # The folds are drawn so, one for each training session in order.
    fold = np.random.default_rng(0).integers(0, RATE_FOLDS, len(train))
    others = train[fold != fold[3]]
    plays = synthetic.sessions.plays_of(others)
    count = (synthetic.sessions.column("track")[plays] == track).sum()
    _, log_plays = rates.of(np.array([session]), np.array([[track]]))
    assert log_plays[0, 0] == pytest.approx(np.log1p(count))
    _, log_plays = rates.of(test[:1], np.array([[track]]))
    assert log_plays[0, 0] == pytest.approx(np.log1p(synthetic.catalog.plays("train")[track]))


def test_boosting_learns_persistence_and_nothing_from_permuted_labels(context):
    measure, baseline, log = context.measure, context.boosting["train"], context.log
    learned = measure(metrics.AUC(log.predicted(baseline.next_play)))
    assert learned.value > 0.7
    rng = np.random.default_rng(0)
    levels, heard = baseline.training.levels.copy(), baseline.training.heard
    levels[heard] = rng.permutation(levels[heard])
    model = Boosting(replace(baseline.training, levels=levels), baseline.rates, behavior=False)
    nothing = measure(metrics.AUC(log.predicted(model.predict(log))))
    assert nothing.value < 0.6 < learned.low


def test_boosting_does_without_what_a_history_leaves_unknown(synthetic, tmp_path, make_context):
    """Listening histories know no context: columns of nothing but unknown values."""
    folder = tmp_path / "data"
    copy_to_alter(synthetic.folder, folder)
    for name in ("hour", "premium", "context_type", "shuffle"):
        column = np.load(folder / f"plays/{name}.npy")
        np.save(folder / f"plays/{name}.npy", np.full_like(column, UNKNOWN))
    dataset = Dataset(folder)
    training, log = (Log.of(dataset, dataset.sessions.sessions_in(s)) for s in ("train", "test"))
    context = make_context(log, training)
    answers = log.predicted(context.boosting["train"].next_play)
    learned = context.measure(metrics.AUC(answers))
    assert learned.value > 0.7
