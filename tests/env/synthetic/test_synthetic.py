import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import SESSIONS, write_sessions

from musicbox_env.cache import CACHE_VARIABLE
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats
from musicbox_env.locks import held, lock_file
from musicbox_env.schema import (
    LOG_COLUMNS,
    PLAY_COLUMNS,
    REASONS_END,
    TRACK_FEATURES,
    is_skip,
    levels_from_labels,
)
from musicbox_env.synthetic import calibration, published
from musicbox_env.synthetic import generator as synthetic
from musicbox_env.synthetic.generator import (
    BATCH_SESSIONS,
    SyntheticConfig,
    SyntheticWorld,
    synthesize,
    write_raw,
)
from musicbox_env.synthetic.law import ListeningLaw
from musicbox_env.synthetic.tracks import (
    TrackConfig,
    draw_tracks,
    latent_correlations,
    nearest_correlation,
    quantile,
)
from musicbox_env.synthetic.truth import GroundTruth, SongChoice

SMALL = SyntheticConfig(sessions=1500, tracks=400, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(SMALL, tmp_path_factory.mktemp("synthetic") / "data", embeddings=False)


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return Dataset(folder)


# The published figures


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


# What a session is


def test_dataset_holds_what_was_asked_for(dataset: Dataset) -> None:
    log = dataset.sessions
    assert log.num_sessions == SMALL.sessions
    assert len(dataset.catalog) == SMALL.tracks
    assert dataset.catalog.feature_names == TRACK_FEATURES
    assert dataset.about["synthetic"]["seed"] == SMALL.seed
    lengths = np.diff(log.offsets)
    assert lengths.min() >= 10
    assert lengths.max() <= 20
    for name, column in PLAY_COLUMNS.items():
        values = log.column(name)
        assert values.dtype == np.dtype(column.dtype)
        assert values.min() >= 0, name
        if column.vocabulary:
            assert values.max() < len(column.vocabulary)


def test_no_session_is_skipped_or_kept_throughout(dataset: Dataset) -> None:
    log = dataset.sessions
    skips = np.add.reduceat(is_skip(log.column("level")).astype(int), log.offsets[:-1])
    assert (skips > 0).all()
    assert (skips < np.diff(log.offsets)).all()


def test_positions_count_from_one(dataset: Dataset) -> None:
    first_session = dataset.sessions.frame(0)
    assert first_session["position"].tolist() == list(range(1, len(first_session) + 1))


def test_reasons_agree_with_each_other(dataset: Dataset) -> None:
    frame = pd.concat([dataset.sessions.frame(s).assign(session=s) for s in range(300)])
    ended = REASONS_END.index("trackdone")
    full = frame["level"] == 4
    assert (frame["reason_end"][full] == ended).mean() > 0.97
    assert (frame["reason_end"][frame["level"] == 0] == ended).mean() < 0.03
    following = frame.groupby("session")["reason_start"].shift(-1)
    same = ~following.isna()
    fwd = (frame["reason_end"] == REASONS_END.index("fwdbtn")) & same
    assert (following[fwd] == 0).mean() > 0.97  # fwdbtn starts what fwdbtn ended


def test_shown_columns_agree(dataset: Dataset) -> None:
    frame = pd.concat([dataset.sessions.frame(s) for s in range(300)])
    first = frame["position"] == 1
    assert (frame["pause"][first] == 0).all()
    assert (frame["context_switch"][first] == 0).all()
    assert (frame["shuffle"][frame["context_type"] == 3] == 0).all()  # no shuffle on the radio


# Seeds and batches


def test_same_seed_same_data_and_sessions_do_not_depend_on_their_number() -> None:
    short = SyntheticConfig(sessions=BATCH_SESSIONS + 5, tracks=200, seed=1)
    long = SyntheticConfig(sessions=2 * BATCH_SESSIONS, tracks=200, seed=1)
    *_, last_short = SyntheticWorld(short).batches()
    *_, last_long = SyntheticWorld(long).batches()
    assert len(last_short.lengths) == 5
    for name, values in last_short.columns.items():
        np.testing.assert_array_equal(values, last_long.columns[name][:5])


def test_another_seed_other_data() -> None:
    first, second = (
        next(SyntheticWorld(SyntheticConfig(sessions=50, tracks=200, seed=s)).batches())
        for s in (0, 1)
    )
    assert (first.columns["track"] != second.columns["track"]).mean() > 0.9


def test_songs_do_not_depend_on_taste_in_the_law() -> None:
    plain, personal = (
        next(SyntheticWorld(SyntheticConfig(sessions=50, tracks=200, taste=t)).batches())
        for t in ("none", "high")
    )
    np.testing.assert_array_equal(plain.columns["track"], personal.columns["track"])
    assert (plain.columns["level"] != personal.columns["level"]).any()


# The truth


def test_truth_lies_in_the_order_of_the_dataset(dataset: Dataset) -> None:
    truth = GroundTruth.open(dataset)
    world = SyntheticWorld(SMALL)
    assert truth.law == world.law
    assert truth.choice == world.choice
    place = {track_id: row for row, track_id in enumerate(world.tracks.track_ids)}
    for row in (0, 7, 399):
        made = place[dataset.catalog.track_ids[row]]
        assert truth.track_quality[row] == world.tracks.quality[made]
        np.testing.assert_array_equal(truth.track_vectors[row], world.tracks.vectors[made])
        assert truth.track_weight[row] == pytest.approx(world.tracks.popularity[made])
    *_, last = world.batches()
    np.testing.assert_array_equal(truth.session_taste[last.first :], last.taste)
    np.testing.assert_allclose(truth.session_propensity[last.first :], last.propensity, rtol=1e-6)


def test_logged_levels_follow_the_law(dataset: Dataset) -> None:
    """Predicted by the stored truth, play by play: calibrated, and right by group."""
    truth, log = GroundTruth.open(dataset), dataset.sessions
    law, sessions = truth.law, np.arange(log.num_sessions)
    levels, tracks = log.padded("level", sessions), log.padded("track", sessions)
    context, shuffle = log.padded("context_type", sessions), log.padded("shuffle", sessions)
    again = repeats(np.where(levels >= 0, tracks, -1))
    state = law.after(np.empty((len(sessions), 0), dtype=np.int8))
    predicted = np.full(levels.shape, np.nan)
    for place in range(20):
        track = tracks[:, place]
        affinity = np.einsum("nd,nd->n", truth.session_taste, truth.track_vectors[track])
        logit = law.skip_logit(
            state,
            law.session_logit(truth.session_propensity, context[:, place], shuffle[:, place]),
            law.track_logit(truth.track_quality[track], affinity, again[:, place]),
        )
        predicted[:, place] = 1 / (1 + np.exp(-logit))
        state = law.update(state, levels[:, place])
    played = levels >= 0
    chance, skipped = predicted[played], is_skip(levels[played])
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        group = (chance >= low) & (chance < high)
        # Refused constant sessions move rates a little; 4 standard errors of a rate besides.
        slack = 0.02 + 2.0 / np.sqrt(group.sum())
        assert skipped[group].mean() == pytest.approx(chance[group].mean(), abs=slack)


def test_quality_is_truncated_whatever_the_catalog() -> None:
    law = ListeningLaw()
    for num_tracks in (200, 20_000):
        tracks = draw_tracks(num_tracks, law, TrackConfig(), np.random.default_rng(0))
        assert np.abs(tracks.quality).max() <= law.quality_sd * law.quality_limit * (1 + 1e-6)
        # 0 for the average play, whichever tracks are the hits.
        assert tracks.popularity @ tracks.quality == pytest.approx(0.0, abs=0.01)


def test_no_truth_in_other_folders(tmp_path: Path) -> None:
    logged = write_sessions(tmp_path / "data", SESSIONS)
    with pytest.raises(FileNotFoundError, match="musicbox synthesize"):
        GroundTruth.open(logged)


def test_songs_are_chosen_as_documented() -> None:
    """P(j | taste) = w_j exp(kappa taste . v_j) / sum, the first song of many equal sessions."""
    world = SyntheticWorld(SyntheticConfig(tracks=100))
    cumulative = np.cumsum(world.tracks.popularity)
    taste = np.repeat(world.tracks.vectors[[60]], 6_000, axis=0)
    songs = world._draw_songs(taste, cumulative / cumulative[-1], np.random.default_rng(0))
    found = np.bincount(songs[:, 0], minlength=100) / len(songs)
    weight = world.tracks.popularity * np.exp(
        world.choice.kappa * world.tracks.vectors @ world.tracks.vectors[60]
    )
    expected = weight / weight.sum()
    assert found == pytest.approx(expected, abs=0.02)
    assert np.corrcoef(found, expected)[0, 1] > 0.98


def test_taste_decides_more_where_it_is_higher() -> None:
    """Difference in skipping between the songs nearest to and farthest from the taste."""
    gap = []
    for taste in ("none", "default", "high"):
        world = SyntheticWorld(SyntheticConfig(sessions=3 * BATCH_SESSIONS, taste=taste))
        near, far = [], []
        for batch in world.batches():
            songs = world.tracks.vectors[batch.columns["track"]]
            affinity = np.einsum("nwd,nd->nw", songs, batch.taste)
            skips = is_skip(batch.columns["level"])
            near.append(skips[affinity > 0.45].mean())
            far.append(skips[affinity < 0.15].mean())
        gap.append(np.mean(far) - np.mean(near))
    assert abs(gap[0]) < 0.03
    assert 0.06 < gap[1] < gap[2] - 0.1


# Features


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


# Figures counted by hand


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
    from musicbox_env.data.writing import PlayBlock, SplitConfig, write_dataset

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


# Raw files


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("raw") / "raw"
    write_raw(SMALL, out)
    return out


def test_raw_files_have_the_published_columns(raw: Path) -> None:
    log = pd.read_csv(raw / "sessions.csv.gz")
    assert tuple(log.columns) == LOG_COLUMNS
    assert log["session_id"].nunique() == SMALL.sessions
    labels = [log[name].to_numpy() for name in ("skip_1", "skip_2", "skip_3", "not_skipped")]
    _, consistent = levels_from_labels(*labels)
    assert consistent.all()
    assert log["date"].str.fullmatch(r"2018-\d\d-\d\d").all()
    tracks = pd.read_csv(raw / "tracks.csv")
    assert tuple(tracks.columns) == ("track_id", *TRACK_FEATURES)
    assert set(tracks["mode"]) == {"major", "minor"}


def test_ingesting_raw_files_gives_the_same_plays(
    raw: Path, dataset: Dataset, tmp_path: Path
) -> None:
    from musicbox_env.ingest.pipeline import IngestConfig, ingest

    config = IngestConfig(
        sources=(str(raw / "sessions.csv.gz"),),
        tracks=(str(raw / "tracks.csv"),),
        out=tmp_path / "ingested",
        embeddings=False,
        workers=1,
        progress=False,
    )
    ingested = Dataset(ingest(config))
    assert ingested.about["rejected"]["rows"] == 0
    assert ingested.sessions.session_ids.tolist() == dataset.sessions.session_ids.tolist()
    np.testing.assert_array_equal(ingested.sessions.split, dataset.sessions.split)
    assert ingested.catalog.track_ids.tolist() == dataset.catalog.track_ids.tolist()
    for name in PLAY_COLUMNS:
        np.testing.assert_array_equal(
            ingested.sessions.column(name), dataset.sessions.column(name), err_msg=name
        )
    np.testing.assert_allclose(
        ingested.catalog.features(), dataset.catalog.features(), rtol=1e-5, atol=1e-6
    )


# Files, cache, configuration


def test_existing_folder_is_kept_unless_told(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="--overwrite"):
        synthesize(SMALL, folder, embeddings=False)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_raw(SMALL, folder)


def test_leftovers_of_a_killed_run_do_not_come_back(tmp_path: Path) -> None:
    partial = tmp_path / "data.partial"
    (partial / "embeddings").mkdir(parents=True)
    (partial / "embeddings" / "stale.npy").write_bytes(b"")
    made = synthesize(SyntheticConfig(sessions=20, tracks=100), tmp_path / "data", embeddings=False)
    assert not (made / "embeddings").exists()


@pytest.fixture
def small_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(synthetic, "BUNDLED", SyntheticConfig(sessions=200, tracks=150))
    return tmp_path / "cache"


def test_what_killed_first_uses_left_is_removed_but_not_what_is_in_the_making(
    small_bundle: Path,
) -> None:
    dead, alive = (small_bundle / f"synthetic-{name}.partial" for name in ("dead", "alive"))
    for folder in (dead, alive):
        (folder / "plays").mkdir(parents=True)
    lock_file(small_bundle / "synthetic-dead").touch()  # of a process that was killed
    with held(small_bundle / "synthetic-alive"):
        made = synthetic.bundled_dataset()
    assert sorted(f.name for f in small_bundle.iterdir()) == sorted([made.name, alive.name])


def test_raw_logs_are_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch) -> None:
    small = SyntheticConfig(sessions=20, tracks=100)
    write_raw(small, tmp_path / "now")
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_raw(small, tmp_path / "then")
    for name in ("sessions.csv.gz", "tracks.csv"):
        assert (tmp_path / "now" / name).read_bytes() == (tmp_path / "then" / name).read_bytes()


def test_bundled_dataset_is_made_once(small_bundle: Path) -> None:
    made = synthetic.bundled_dataset()
    assert made.parent == small_bundle
    stamp = (made / "dataset.json").stat().st_mtime_ns
    assert synthetic.bundled_dataset() == made
    assert (made / "dataset.json").stat().st_mtime_ns == stamp
    assert Dataset(made).embedding_names
    assert [f.name for f in small_bundle.iterdir()] == [made.name]


def test_bundled_dataset_name_depends_on_what_makes_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(synthetic.PACKAGE, package)
    before = synthetic.fingerprint(synthetic.BUNDLED)
    assert synthetic.fingerprint(synthetic.BUNDLED, package) == before
    assert synthetic.fingerprint(SyntheticConfig(seed=1)) != before
    with (package / "synthetic/law.py").open("a") as law:
        law.write("# another law")
    assert synthetic.fingerprint(synthetic.BUNDLED, package) != before


def test_bundled_dataset_of_whoever_was_first_is_used(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = small_bundle / f"synthetic-{synthetic.fingerprint(synthetic.BUNDLED)}"

    def make_while_another_process_finishes(config: SyntheticConfig, out: Path) -> None:
        synthesize(config, out, embeddings=False)
        synthesize(config, final, embeddings=False)

    monkeypatch.setattr(synthetic, "synthesize", make_while_another_process_finishes)
    assert synthetic.bundled_dataset() == final
    assert [f.name for f in small_bundle.iterdir()] == [final.name]


@pytest.mark.slow
def test_bundled_dataset_survives_a_race(tmp_path: Path) -> None:
    """Two processes at once: all get the same whole dataset, and nothing else is left."""
    script = (
        "from musicbox_env.synthetic import generator as synthetic\n"
        "synthetic.BUNDLED = synthetic.SyntheticConfig(sessions=60, tracks=120)\n"
        "print(synthetic.bundled_dataset())\n"
    )
    environment = {**os.environ, CACHE_VARIABLE: str(tmp_path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = {process.communicate()[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    (only,) = answers
    assert [str(path) for path in tmp_path.iterdir()] == [only]
    assert Dataset(only).sessions.num_sessions == 60


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sessions": 0}, "sessions 0"),
        ({"tracks": 5}, "tracks 5"),
        ({"taste": "hgh"}, "did you mean 'high'"),
        ({"taste": -1.0}, "taste is -1.0"),
        ({"taste": 99.0}, "taste is 99.0"),
    ],
)
def test_impossible_configurations_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**wrong)
    with pytest.raises(ValueError, match="pool is 3"):
        SongChoice(pool=3)


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


MAKE_A_WORLD = """
import sys
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize
synthesize(SyntheticConfig(sessions=300, tracks=400), sys.argv[1])
"""


def test_a_world_does_not_depend_on_the_number_of_threads(tmp_path):
    """A training from Python and one by `make`, which allows one thread, are on the same songs."""
    for threads in ("1", "2"):
        allowed = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        subprocess.run(
            [sys.executable, "-c", MAKE_A_WORLD, str(tmp_path / threads)],
            env={**os.environ, **allowed},
            check=True,
        )
    one, two = tmp_path / "1", tmp_path / "2"
    files = [file.relative_to(one) for file in one.rglob("*.npy")]
    assert files
    assert not [file for file in files if (one / file).read_bytes() != (two / file).read_bytes()]
