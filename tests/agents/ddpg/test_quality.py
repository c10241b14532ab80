"""Quality of songs: residuals by hand, priors by another library, truth by the law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from handmade import write_sessions
from musicbox_agents.ddpg.quality import (
    PRIOR,
    PRIORS,
    RIDGE,
    TrackQuality,
    estimated_prior,
    expectations,
    quality_in_log,
)
from sklearn.linear_model import Ridge

from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval.spaces import rate_column
from musicbox_env.rewards import RewardConfig
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize
from musicbox_env.synthetic.truth import GroundTruth

KEPT, SKIPPED = 4, 0


def no_vectors(dataset: Dataset) -> np.ndarray:
    return np.zeros((len(dataset.catalog), 1), np.float32)


def test_quality_is_a_shrunken_mean() -> None:
    quality = TrackQuality.none(3, prior=2.0)
    quality.add(np.array([1, 1, 2]), np.array([1.0, 3.0, 6.0]))
    np.testing.assert_allclose(quality.mean(np.arange(3)), [0, 4 / 4, 6 / 3])
    quality.expected[:] = [0.5, 1.0, -1.0]
    np.testing.assert_allclose(quality.mean(np.arange(3)), [0.5, 6 / 4, 4 / 3])
    again = TrackQuality.of(quality.arrays())
    np.testing.assert_array_equal(again.mean(np.arange(3)), quality.mean(np.arange(3)))


def test_a_song_is_evaluated_beside_others_in_the_same_situation(tmp_path: Path) -> None:
    """``good`` is played after skips alone and ``bad`` after kept songs: their rates are equal."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(300):
        before = bool(rng.integers(2))
        start = [(f"x{rng.integers(30)}", KEPT if before else SKIPPED)] * 9
        # After keeps others are kept in .8 of all cases and ``bad`` in .5; after skips .2 and .5.
        name = ("bad" if before else "good") if rng.random() < 0.5 else f"y{rng.integers(30)}"
        chance = 0.5 if name in ("good", "bad") else (0.8 if before else 0.2)
        sessions.append([*start, (name, KEPT if rng.random() < chance else SKIPPED)])
    dataset = write_sessions(tmp_path / "d", sessions)
    read = quality_in_log(dataset, no_vectors(dataset), RewardConfig(), prior=10.0, unit=1.0)
    ids = list(dataset.catalog.track_ids)
    good, bad = (read["train"].mean(np.array([ids.index(name)]))[0] for name in ("good", "bad"))
    assert good > 0.08
    assert bad < -0.08


def test_folds_add_up_and_share_a_scale(synthetic: Dataset) -> None:
    vectors = np.asarray(synthetic.embedding("hybrid"))
    read = quality_in_log(synthetic, vectors, RewardConfig(), prior=50.0, unit=2.0)
    whole, parts = read["train"], [read["train_a"], read["train_b"]]
    np.testing.assert_array_equal(whole.count, synthetic.catalog.plays("train"))
    np.testing.assert_array_equal(whole.count, parts[0].count + parts[1].count)
    np.testing.assert_allclose(whole.sum, parts[0].sum + parts[1].sum, atol=1e-3)
    assert {quality.scale for quality in read.values()} == {whole.scale}
    half = quality_in_log(synthetic, vectors, RewardConfig(), prior=50.0, unit=1.0)["train"]
    np.testing.assert_allclose(half.sum * 2, whole.sum, atol=1e-3)
    assert half.scale * 2 == pytest.approx(whole.scale)


def test_sessions_of_other_splits_are_not_read(synthetic: Dataset, tmp_path: Path) -> None:
    read = quality_in_log(synthetic, no_vectors(synthetic), RewardConfig(), 50.0, 1.0)
    held_out = np.concatenate([synthetic.sessions.sessions_in(s) for s in ("validation", "test")])
    plays = synthetic.sessions.lengths(held_out).sum()
    assert read["train"].count.sum() == synthetic.sessions.num_plays - plays


def test_expectations_are_those_of_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    quality = TrackQuality.none(400, prior=30.0)
    vectors = rng.standard_normal((400, 5)).astype(np.float32)
    quality.count[:300] = rng.integers(1, 80, 300)
    quality.sum[:300] = quality.count[:300] * (vectors[:300, 0] + rng.standard_normal(300))
    rows = np.column_stack([vectors, np.log1p(quality.count)])
    played = quality.count > 0
    model = Ridge(alpha=RIDGE)
    weight = quality.count[played] / (1 + quality.count[played] / quality.prior)
    model.fit(rows[played], quality.sum[played] / quality.count[played], sample_weight=weight)
    np.testing.assert_allclose(expectations(quality, vectors), model.predict(rows), atol=1e-4)


@pytest.mark.parametrize("prior", [10.0, 60.0])
def test_the_prior_is_found_in_the_residuals(prior: float) -> None:
    """Residuals of known variance on songs of known variance; and on songs that do not differ."""
    rng = np.random.default_rng(4)
    variance, number = 0.2, 4_000
    count = rng.geometric(0.1, number)
    songs = np.sqrt(variance / prior) * rng.standard_normal(number)
    chance = np.sqrt(variance / count) * rng.standard_normal(number)
    quality = TrackQuality.none(number, prior=1.0)
    quality.count[:] = count
    quality.sum[:] = count * (songs + chance + 0.3)  # what all songs share is no difference
    assert estimated_prior(quality, variance) == pytest.approx(prior, rel=0.15)
    quality.sum[:] = 0
    assert estimated_prior(quality, variance) == PRIORS[1]


def test_a_log_that_cannot_tell_gets_the_usual_prior() -> None:
    quality = TrackQuality.none(3, prior=1.0)
    quality.count[:] = 1
    assert estimated_prior(quality, 0.2) == PRIOR


def test_without_residuals_nothing_is_expected() -> None:
    vectors = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(expectations(TrackQuality.none(4, 10.0), vectors), np.zeros(4))


def test_it_is_nearer_to_the_truth_than_the_rate(tmp_path: Path) -> None:
    """The very reason for it, on a law that is known."""
    synthesize(SyntheticConfig(sessions=6_000, tracks=1_000, seed=5), tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    truth = np.asarray(GroundTruth.open(dataset).track_quality)
    vectors = np.asarray(dataset.embedding("hybrid"))
    read = quality_in_log(dataset, vectors, RewardConfig(), prior=50.0, unit=1.0)["train"]
    of_rate = np.corrcoef(truth, rate_column(dataset.catalog))[0, 1]
    of_quality = np.corrcoef(truth, read.axis(np.arange(len(truth))))[0, 1]
    assert of_quality > of_rate + 0.02, (of_quality, of_rate)
