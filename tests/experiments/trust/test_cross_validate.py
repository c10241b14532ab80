"""Cross-validation of the learned listener beside gradient boosting."""

import json

import numpy as np
import pytest
from musicbox_experiments.cli import main
from musicbox_experiments.listeners.fit_listener import folds
from musicbox_experiments.listeners.sessions import TrainingSplit
from musicbox_experiments.trust.asking import Log
from musicbox_experiments.trust.boosting import BAR_NAME, TrackRates
from musicbox_experiments.trust.cross_validate import (
    LEARNED,
    CrossValidateConfig,
    answers_of_boosting,
    answers_of_networks,
    run,
)
from musicbox_experiments.trust.measures import (
    CHALLENGE,
    FREE,
    FREE_FILTERED,
    LAST_ACTION,
    NEXT,
    NEXT_LEVELS,
)
from musicbox_experiments.trust.protocols import is_constant

SMALL = {"members": 1, "memory": 8, "head": 4, "max_epochs": 6, "progress": False}


def test_every_session_is_held_out_once(synthetic):
    chosen = synthetic.sessions.sessions_in("train")
    parts = list(folds(TrainingSplit.of(synthetic, "train"), chosen))
    assert len(parts) == 5
    for _, others, held_out in parts:
        assert not np.intersect1d(others, held_out).size
        np.testing.assert_array_equal(np.union1d(others, held_out), chosen)
    np.testing.assert_array_equal(np.sort(np.concatenate([p[2] for p in parts])), chosen)


def test_networks_and_trees_are_asked_the_same(synthetic):
    config = CrossValidateConfig(**{**SMALL, "max_epochs": 1})
    split = TrainingSplit.of(synthetic, "train")
    chosen = synthetic.sessions.sessions_in("train")[::4]
    networks = list(answers_of_networks(config, split, chosen))
    trees = list(answers_of_boosting(config, split, chosen))
    for (some, ours), (same, theirs) in zip(networks, trees, strict=True):
        np.testing.assert_array_equal(some, same)
        log = Log.of(synthetic, some)
        asked = {NEXT: log.heard.copy(), CHALLENGE: log.second_half}
        asked[NEXT][:, 0] = False
        asked[NEXT_LEVELS] = asked[NEXT]
        for protocol, places in asked.items():
            for answers in (ours[protocol], theirs[protocol]):
                np.testing.assert_array_equal(np.isfinite(answers), places)
        for protocol in (FREE, FREE_FILTERED):  # shown plays as logged, then the listener's own
            assert ours[protocol].shape == (len(some), config.samples, log.width)
            for sample in range(config.samples):
                levels = ours[protocol][:, sample]
                np.testing.assert_array_equal(levels >= 0, log.heard)
                shown = log.heard & ~log.second_half
                np.testing.assert_array_equal(levels[shown], log.levels[shown])
        assert not is_constant(ours[FREE_FILTERED]).any()


def test_sessions_held_out_do_not_count_in_the_rates_of_trees(synthetic):
    chosen = synthetic.sessions.sessions_in("train")
    half, other = chosen[::2], chosen[1::2]
    rates = TrackRates(synthetic, half, rng=np.random.default_rng(0))
    log = synthetic.sessions
    tracks = np.arange(len(synthetic.catalog))
    counted = np.bincount(log.column("track")[log.plays_of(half)], minlength=len(tracks))
    _, plays = rates.of(other[:1], tracks[None])
    np.testing.assert_allclose(plays[0], np.log1p(counted))


def test_it_reports_both_beside_the_last_action(synthetic_folder, tmp_path, capsys):
    findings = run(CrossValidateConfig(synthetic_folder, out=tmp_path / "cv", **SMALL))
    told = capsys.readouterr().out
    assert "training sessions" in told
    records = json.loads((tmp_path / "cv" / "cross_validation.json").read_text())
    assert len(records) == len(findings.records)
    for name in (LEARNED, BAR_NAME):
        for protocol in (NEXT, NEXT_LEVELS):
            auc = findings.value(name, protocol, "auc")
            assert 0.55 < auc.low < auc.value < auc.high < 0.95
        assert findings.value(name, CHALLENGE, "mean_average_accuracy_over_bar").value is not None
    last = findings.value(LAST_ACTION, CHALLENGE, "mean_average_accuracy")
    assert findings.value(LEARNED, CHALLENGE, "mean_average_accuracy").bar == last.value
    after_keep = findings.value(LEARNED, FREE, "skip_after_keep")
    assert 0 < after_keep.low < after_keep.value < after_keep.high < 1
    assert abs(after_keep.value - after_keep.bar) < 0.2
    auc = findings.value(LEARNED, NEXT, "auc")
    assert auc.bar == findings.value(BAR_NAME, NEXT, "auc").value


def test_mistakes_are_told(capsys):
    with pytest.raises(SystemExit):
        main(["cross-validate", "--resamples", "0"])
    assert "resamples is 0" in capsys.readouterr().err
