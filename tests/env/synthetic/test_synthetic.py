"""Synthetic sessions, and the truth that is stored with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handmade import SESSIONS, write_sessions
from small_synthetic import SMALL

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.summaries import repeats
from musicbox_env.schema import PLAY_COLUMNS, REASONS_END, TRACK_FEATURES, is_skip
from musicbox_env.synthetic.generator import BATCH_SESSIONS, SyntheticConfig, SyntheticWorld
from musicbox_env.synthetic.law import ListeningLaw
from musicbox_env.synthetic.tracks import TrackConfig, draw_tracks
from musicbox_env.synthetic.truth import GroundTruth, SongChoice


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
