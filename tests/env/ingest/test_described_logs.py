"""What `musicbox describe` counts of an ingested log."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from ingest_runs import run, stored_plays
from make_logs import make_features, make_log, write_csv
from musicbox_experiments.data import describe as describe_command

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.schema import is_skip


def test_describe_says_what_was_counted(tmp_path):
    log = make_log(50)
    log["context_type"] = ""
    log.loc[5, "session_position"] = "x"
    tracks = sorted(set(log["track_id_clean"]))
    features = make_features(tracks[:50]).drop(columns="valence")
    dataset = run(
        tmp_path,
        write_csv(log, tmp_path / "log.csv"),
        tracks=(str(write_csv(features, tmp_path / "tracks.csv")),),
    )
    text = describe_command.describe(dataset, top=3)
    level = dataset.sessions.column("level")
    counts = np.bincount(level, minlength=5)
    for code, count in enumerate(counts):
        assert f"{count:,}  {100 * count / len(level):.1f} %" in text, code
    assert f"Skipped: {100 * is_skip(level).mean():.1f} % of plays" in text
    assert "context_type  unknown for 100.0 % of plays" in text
    assert "absent: valence" in text
    assert "session_position is not a whole number" in text
    assert f"1 of {len(log):,} rows rejected" in text
    for track in dataset.catalog.track_ids[:3]:
        assert track in text
    assert dataset.catalog.track_ids[3] not in text
    position = dataset.sessions.column("position")
    assert f"  1 {100 * is_skip(level[position == 1]).mean():>5.1f} %" in text


def test_describe_counts_in_pieces(tmp_path, monkeypatch):
    dataset = run(tmp_path, write_csv(make_log(50), tmp_path / "log.csv"))
    whole = describe_command.describe(dataset)
    monkeypatch.setattr(describe_command, "CHUNK_SESSIONS", 7)
    assert describe_command.describe(dataset) == whole
    repeats = sum(
        len(plays) - len({track for _, track in plays}) for plays in stored_plays(dataset).values()
    )
    assert f"Repeats: {100 * repeats / dataset.sessions.num_plays:.1f} % of plays" in whole


def test_a_dataset_that_names_the_test_fold_as_it_was_is_described(tmp_path):
    log = write_csv(make_log(50), tmp_path / "log.csv")
    folder = run(tmp_path, log, split=SplitConfig(test_fold=3)).folder
    about = json.loads((folder / "dataset.json").read_text())
    assert about["split"]["test_fold"] == 3
    text = describe_command.describe(Dataset(folder))
    assert "seed 42, test fold 3" in text
    about["split"]["turn"] = about["split"].pop("test_fold")
    (folder / "dataset.json").write_text(json.dumps(about))
    assert describe_command.describe(Dataset(folder)) == text


SESSIONS, TRACKS = os.environ.get("MUSICBOX_SESSIONS"), os.environ.get("MUSICBOX_TRACKS")


@pytest.mark.real_data
@pytest.mark.skipif(
    not SESSIONS or not TRACKS, reason="MUSICBOX_SESSIONS and MUSICBOX_TRACKS name no real plays"
)
def test_real_plays_have_the_published_figures(tmp_path):
    """Figures of the full training set, within what a sample of a few thousand sessions allows."""
    dataset = run(tmp_path, SESSIONS, tracks=(TRACKS,))
    sessions, about = dataset.sessions, dataset.about
    assert about["rejected"]["rows"] == 0
    assert about["notes"] == {}
    counts = describe_command.PlayCounts.of(dataset)
    by_level = counts.level / counts.level.sum()
    np.testing.assert_allclose(np.cumsum(by_level)[:3], [0.415, 0.509, 0.639], atol=0.02)
    np.testing.assert_allclose(by_level[3:], [0.019, 0.344], atol=0.02)
    after = counts.skip_rates("previous")[:2]
    np.testing.assert_allclose(after, [0.279, 0.750], atol=0.01)
    by_position = counts.skip_rates("position")[1:21]
    published = [37.4, 46.7, 49.4, 51.6, 52.4, 53.2, 53.1, 53.0, 52.1, 50.3]
    published += [50.7, 51.3, 51.7, 52.2, 52.5, 53.0, 53.3, 53.5, 53.6, 53.6]
    np.testing.assert_allclose(by_position, np.array(published) / 100, atol=0.03)
    lengths = counts.length / sessions.num_sessions
    published_lengths = [8.82, 7.69, 6.73, 5.88, 5.17, 4.53, 4.00, 3.52, 3.14, 2.78, 47.74]
    np.testing.assert_allclose(lengths[10:], np.array(published_lengths) / 100, atol=0.04)
    assert counts.shares("repeat")[1] == pytest.approx(0.128, abs=0.01)
    assert not any(counts.unknown.values())
    assert about["track_features"]["rejected"]["rows"] == 0
    assert about["incomplete_sessions"]["found"] == 1, "the last session of the sample is cut short"
    assert Counter(dataset.catalog.feature_names) == Counter(set(dataset.catalog.feature_names))
