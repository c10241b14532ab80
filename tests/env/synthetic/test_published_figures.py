"""Songs and sessions have the published figures, counted as these were."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musicbox_env.data.dataset import Dataset
from musicbox_env.schema import TRACK_FEATURES
from musicbox_env.synthetic import calibration, published
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize
from musicbox_env.synthetic.law import ListeningLaw
from musicbox_env.synthetic.tracks import (
    TrackConfig,
    draw_tracks,
    latent_correlations,
    nearest_correlation,
    quantile,
)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_generated_figures_are_the_published_ones(tmp_path: Path, seed: int) -> None:
    made = synthesize(SyntheticConfig(seed=seed), tmp_path / "data", embeddings=False)
    rows = calibration.compare(Dataset(made))
    off = [row for row in rows if not row.ok]
    assert not off, calibration.format_rows(off)
    assert sum(row.required for row in rows) > 150


@pytest.mark.slow
def test_a_catalog_of_another_size_has_the_same_figures(tmp_path: Path) -> None:
    config = SyntheticConfig(sessions=20_000, tracks=100_000)
    rows = calibration.compare(Dataset(synthesize(config, tmp_path / "data", embeddings=False)))
    assert not [row.name for row in rows if not row.ok]


def test_features_have_published_marginals_and_correlations() -> None:
    tracks = draw_tracks(3_000, ListeningLaw(), TrackConfig(), np.random.default_rng(5))
    summary = published.feature_summary()
    for name in ("duration", "danceability", "loudness", "valence", "acoustic_vector_3"):
        values = tracks.features[name]
        expected = summary[name]
        assert values.median() == pytest.approx(expected["q50"], abs=0.05 * expected["std"])
        assert values.std() == pytest.approx(expected["std"], rel=0.06)
        assert values.min() >= expected["min"] - 1e-3
        assert values.max() <= expected["max"] * (1 + 1e-6)
    assert set(tracks.features["mode"].unique()) == {0.0, 1.0}
    found = tracks.features[list(TRACK_FEATURES)].corr().to_numpy()
    wanted = published.feature_correlations().to_numpy()
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.03


def test_popularity_column_follows_the_plays_closely_but_not_wholly() -> None:
    tracks = draw_tracks(2_000, ListeningLaw(), TrackConfig(), np.random.default_rng(5))
    column = tracks.features["us_popularity_estimate"].to_numpy()
    assert 0.85 < pd.Series(column).corr(pd.Series(tracks.popularity), method="spearman") < 0.99


def test_quantile_inverts_the_histogram() -> None:
    values, shares = published.feature_histogram("key")
    at_most = np.cumsum(shares)
    assert quantile("key", at_most - 1e-6).tolist() == values.tolist()
    values, shares = published.feature_histogram("energy")
    upper = values[:-1] + 0.005
    found = quantile("energy", np.cumsum(shares)[:-1])
    assert found == pytest.approx(upper, abs=1e-3)


def test_nearest_correlation_is_one_and_near() -> None:
    wrong = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    mended = nearest_correlation(wrong)
    assert np.linalg.eigvalsh(mended).min() > 0
    assert np.diag(mended) == pytest.approx(np.ones(3))
    # By symmetry the three stay equal in size; -1/2 of them is the bound of a valid matrix.
    assert np.abs(mended[0, 1]) == pytest.approx(0.5, abs=0.01)
    valid = np.array([[1.0, 0.3], [0.3, 1.0]])
    assert nearest_correlation(valid) == pytest.approx(valid)
    assert np.linalg.eigvalsh(latent_correlations()).min() > 0


def test_play_curve_has_the_published_concentration() -> None:
    plays = published.play_counts(3_604_454)
    total = plays.sum()
    assert total == pytest.approx(2.07e9, rel=0.01)
    assert np.median(plays) == pytest.approx(12, abs=1)
    for top, share in ((100, 0.106), (1_000, 0.310), (10_000, 0.610)):
        assert plays[:top].sum() / total == pytest.approx(share, abs=0.002)


def test_figures_on_hand_made_sessions() -> None:
    skips = np.array([[1, 1, 0, 1, np.nan], [0, 0, 0, 1, 1]])
    assert calibration.run_lengths(skips, 1.0)[0, :4].tolist() == [0, 1, 2, 0]
    pairs = [(1, 1), (1, 0), (0, 1), (0, 0), (0, 0), (0, 1), (1, 1)]
    expected = np.corrcoef(np.array(pairs).T)[0, 1]
    assert calibration.autocorrelation(skips, 1) == pytest.approx(expected)


def test_intraclass_correlation_against_simulation() -> None:
    rng = np.random.default_rng(0)
    rate = rng.beta(2.0, 3.0, size=(20_000, 1))  # intra-class correlation 1 / (2 + 3 + 1)
    skips = (rng.random((20_000, 12)) < rate).astype(float)
    skips[:7_000, 9:] = np.nan
    assert calibration.intraclass_correlation(skips) == pytest.approx(1 / 6, abs=0.01)


def test_track_rate_sd_leaves_sampling_noise_out() -> None:
    rng = np.random.default_rng(0)
    rate = np.where(np.arange(4_000) % 2, 0.4, 0.6)
    tracks = np.repeat(np.arange(4_000), 10)
    skips = (rng.random(len(tracks)) < rate[tracks]).astype(float)
    assert calibration.track_rate_sd(tracks, skips) == pytest.approx(0.1, abs=0.01)
    assert np.isnan(calibration.track_rate_sd(np.arange(5), np.ones(5)))


def test_figures_of_a_log_without_behaviour_or_features(tmp_path: Path) -> None:
    """A dataset that says little is compared in what it says."""
    from musicbox_env.data.splits import SplitConfig
    from musicbox_env.data.writing import PlayBlock, write_dataset

    rng = np.random.default_rng(0)
    block = PlayBlock(
        session_ids=np.array([f"s{i}" for i in range(30)], dtype=object),
        lengths=np.full(30, 10),
        vocabulary=np.array([f"t{i}" for i in range(40)], dtype=object),
        columns={
            "track": rng.integers(40, size=300),
            "level": rng.integers(5, size=300),
            "position": np.tile(np.arange(1, 11), 30),
        },
    )
    write_dataset(tmp_path, [block], features=None, split=SplitConfig(), about={})
    rows = {row.name: row for row in calibration.compare(Dataset(tmp_path))}
    assert np.isnan(rows["shuffle, share"].found)
    assert not rows["shuffle, share"].ok
    assert rows["sessions of 10 plays"].found == 1.0
    assert "valence, mean" not in rows


def test_check_prints_rows_and_fails_where_a_required_one_is_off(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthesize_command = pytest.importorskip("musicbox_experiments.data.synthesize")
    config = synthesize_command.SynthesizeConfig(sessions=20, tracks=100, check=True, seed=9)
    with pytest.raises(SystemExit) as stop:
        synthesize_command.run(config)
    printed = capsys.readouterr().out
    assert stop.value.code == 1
    assert "skip_2 at position 20" in printed
    assert "  off" in printed
    assert "  OK" in printed
    with pytest.raises(ValueError, match="Nothing to do"):
        synthesize_command.SynthesizeConfig()
    with pytest.raises(ValueError, match="taste"):
        synthesize_command.SynthesizeConfig(check=True, taste="lots")


def test_published_tables_are_small() -> None:
    folder = Path(published.__file__).parent
    files = [file for file in folder.iterdir() if file.suffix in (".csv", ".json", ".md")]
    assert sum(file.stat().st_size for file in files) < 300_000
    assert json.loads((folder / "figures.json").read_text())["skip_2"] == 0.509
