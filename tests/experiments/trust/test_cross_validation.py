"""Cross-validation of the learned listener beside gradient boosting."""

import numpy as np
from musicbox_experiments.cli import main
from musicbox_experiments.listeners.fit_listener import EnsembleConfig, folds
from musicbox_experiments.listeners.sessions import TrainingSplit
from musicbox_experiments.trust.boosting import BOOSTING, TrackRates
from musicbox_experiments.trust.cross_validation import (
    LEARNED,
    SESSIONS,
    answers_of_networks,
    answers_of_trees,
)
from musicbox_experiments.trust.metrics import is_constant
from musicbox_experiments.trust.prediction import CHALLENGE, FREE, LAST_ACTION, NEXT, NEXT_LEVELS
from musicbox_experiments.trust.queries import Log
from musicbox_experiments.trust.records import read_report

SMALL = {"members": 1, "memory": 8, "head": 4}


def test_every_session_is_held_out_once(synthetic):
    chosen = synthetic.sessions.sessions_in("train")
    parts = list(folds(TrainingSplit.of(synthetic, "train"), chosen))
    assert len(parts) == 5
    for _, others, held_out in parts:
        assert not np.intersect1d(others, held_out).size
        np.testing.assert_array_equal(np.union1d(others, held_out), chosen)
    np.testing.assert_array_equal(np.sort(np.concatenate([p[2] for p in parts])), chosen)


def test_networks_and_trees_are_queried_alike(synthetic):
    config = EnsembleConfig(**SMALL, max_epochs=1, progress=False)
    split = TrainingSplit.of(synthetic, "train")
    chosen = synthetic.sessions.sessions_in("train")[::4]
    ours = answers_of_networks(config, split, chosen, samples=10, draws=5)
    theirs = answers_of_trees(config, split, chosen)
    sessions = ours[SESSIONS]
    np.testing.assert_array_equal(sessions, theirs[SESSIONS])
    np.testing.assert_array_equal(np.sort(sessions), np.sort(chosen))
    log = Log.of(synthetic, sessions)
    queried = {NEXT: log.heard.copy(), CHALLENGE: log.second_half}
    queried[NEXT][:, 0] = False
    queried[NEXT_LEVELS] = queried[NEXT]
    for protocol, places in queried.items():
        for answers in (ours[protocol], theirs[protocol]):
            np.testing.assert_array_equal(np.isfinite(answers), places)
    # Free runs: shown plays as logged, then the listener's own.
    assert ours[FREE].shape == (len(sessions), 10, log.width)
    for sample in range(10):
        levels = ours[FREE][:, sample]
        np.testing.assert_array_equal(levels >= 0, log.heard)
        shown = log.heard & ~log.second_half
        np.testing.assert_array_equal(levels[shown], log.levels[shown])
    assert not is_constant(ours[FREE]).any()


def test_sessions_held_out_do_not_count_in_the_rates_of_trees(synthetic):
    chosen = synthetic.sessions.sessions_in("train")
    half, other = chosen[::2], chosen[1::2]
    rates = TrackRates(synthetic, half, rng=np.random.default_rng(0))
    log = synthetic.sessions
    tracks = np.arange(len(synthetic.catalog))
    counted = np.bincount(log.column("track")[log.plays_of(half)], minlength=len(tracks))
    _, plays = rates.of(other[:1], tracks[None])
    np.testing.assert_allclose(plays[0], np.log1p(counted))


def test_both_are_reported_beside_the_last_action(synthetic_folder, tmp_path, capsys):
    options = [
        f"--{name}={value}" for name, value in {**SMALL, "max-epochs": 3, "draws": 20}.items()
    ]
    out = tmp_path / "cv"
    main(["trust", str(synthetic_folder), "--cross-validate", "--out", str(out), *options])
    assert "training sessions" in capsys.readouterr().out
    found = read_report(out).figures
    for name in (LEARNED, BOOSTING):
        for protocol in (NEXT, NEXT_LEVELS):
            auc = found[name, protocol, "auc"]
            assert 0.55 < auc.low < auc.value < auc.high < 0.95
        gain = found[name, CHALLENGE, "mean_average_accuracy_over_last_action"]
        assert gain.value is not None
    last = found[LAST_ACTION, CHALLENGE, "mean_average_accuracy"]
    assert found[LEARNED, CHALLENGE, "mean_average_accuracy"].reference == last.value
    after_keep = found[LEARNED, FREE, "skip_after_keep"]
    assert 0 < after_keep.low < after_keep.value < after_keep.high < 1
    assert abs(after_keep.value - after_keep.reference) < 0.2
    assert found[LEARNED, NEXT, "auc"].reference == found[BOOSTING, NEXT, "auc"].value
