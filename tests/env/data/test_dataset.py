"""Dataset folders: what is written is what is read, whole or not at all."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from musicbox_env.data import column_files
from musicbox_env.data.catalog import RATE_PRIOR_PLAYS, Catalog
from musicbox_env.data.column_files import ColumnFile
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.sessions import SessionLog, assign_splits
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import (
    PlayBlock,
    save_array,
    staged_folder,
    write_dataset,
)
from musicbox_env.schema import (
    PLAY_COLUMNS,
    SPLITS,
    UNKNOWN,
    is_skip,
    labels_from_levels,
    levels_from_labels,
    split_codes,
)


def random_blocks(num_sessions=300, *, num_tracks=60, seed=0, sessions_per_block=40):
    """Whole sessions in blocks, each with a vocabulary of its own in an order of its own."""
    rng = np.random.default_rng(seed)
    blocks = []
    for first in range(0, num_sessions, sessions_per_block):
        count = min(sessions_per_block, num_sessions - first)
        lengths = rng.integers(2, 21, count)
        words = rng.permutation(num_tracks)[: num_tracks // 2]
        num_plays = int(lengths.sum())
        blocks.append(
            PlayBlock(
                session_ids=np.array([f"s{first + i}" for i in range(count)], dtype=object),
                lengths=lengths,
                vocabulary=np.array([f"t{w}" for w in words], dtype=object),
                columns={
                    "track": rng.integers(0, len(words), num_plays),
                    "level": rng.integers(0, 5, num_plays),
                    "hour": rng.integers(0, 24, num_plays),
                },
            )
        )
    return blocks


def write(folder, blocks, *, features=None, split=None):
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset(folder, blocks, features=features, split=split or SplitConfig(), about={})
    return Dataset.unfinished(folder)


@pytest.fixture
def blocks():
    return random_blocks()


@pytest.fixture
def dataset(tmp_path, blocks):
    return write(tmp_path / "data", blocks)


def test_plays_come_back_as_written(dataset, blocks):
    sessions = dataset.sessions
    ids = np.concatenate([b.vocabulary[b.columns["track"]] for b in blocks])
    np.testing.assert_array_equal(dataset.catalog.track_ids[sessions.column("track")], ids)
    for name in ("level", "hour"):
        expected = np.concatenate([b.columns[name] for b in blocks])
        np.testing.assert_array_equal(sessions.column(name), expected)
    assert (sessions.column("shuffle") == UNKNOWN).all()
    assert all(sessions.column(n).dtype == c.dtype for n, c in PLAY_COLUMNS.items())
    np.testing.assert_array_equal(
        sessions.lengths(np.arange(300)), np.concatenate([b.lengths for b in blocks])
    )
    assert list(sessions.session_ids) == [f"s{i}" for i in range(300)]
    assert dataset.about["plays"] == sessions.num_plays == len(ids)
    assert dataset.about["longest_session"] == max(int(b.lengths.max()) for b in blocks)
    assert not list(dataset.folder.rglob("*.raw"))


def test_a_dataset_says_what_it_holds(tmp_path):
    small = write(tmp_path / "small", random_blocks(1_200, sessions_per_block=1_200))
    plays = small.sessions.num_plays
    assert repr(small) == (
        f"<Dataset {small.folder}: {len(small.catalog)} tracks, 1,200 sessions, {plays:,} plays>"
    )


def test_how_sessions_are_cut_into_blocks_does_not_matter(tmp_path, monkeypatch):
    small = write(tmp_path / "small", random_blocks(90, sessions_per_block=90))
    (whole,) = random_blocks(90, sessions_per_block=90)
    pieces = []
    ends = np.cumsum(whole.lengths)
    for i in range(90):
        rows = slice(ends[i] - whole.lengths[i], ends[i])
        pieces.append(
            PlayBlock(
                whole.session_ids[i : i + 1],
                whole.lengths[i : i + 1],
                whole.vocabulary,
                {name: values[rows] for name, values in whole.columns.items()},
            )
        )
    monkeypatch.setattr(column_files, "COPY_ROWS", 17)
    monkeypatch.setattr(column_files, "IDS_ROW_GROUP", 7)
    cut = write(tmp_path / "cut", pieces)
    for name in PLAY_COLUMNS:
        np.testing.assert_array_equal(cut.sessions.column(name), small.sessions.column(name))
    assert list(cut.catalog.track_ids) == list(small.catalog.track_ids)
    assert list(cut.sessions.session_ids) == list(small.sessions.session_ids)


def test_popularity_and_skips_are_counted_on_training_plays_alone(dataset):
    """Against a loop over plays."""
    sessions, catalog = dataset.sessions, dataset.catalog
    plays = {fold: np.zeros(len(catalog), int) for fold in ("train_a", "train_b")}
    skips = {fold: np.zeros(len(catalog), int) for fold in ("train_a", "train_b")}
    for i in range(sessions.num_sessions):
        fold = SPLITS[sessions.split[i]]
        for row in range(sessions.offsets[i], sessions.offsets[i + 1]):
            if fold in plays:
                track = sessions.column("track")[row]
                plays[fold][track] += 1
                skips[fold][track] += sessions.column("level")[row] < 2
    for fold in plays:
        np.testing.assert_array_equal(catalog.plays(fold), plays[fold])
        np.testing.assert_array_equal(catalog.skips(fold), skips[fold])
    total = plays["train_a"] + plays["train_b"]
    np.testing.assert_array_equal(catalog.plays(), total)
    order = sorted(range(len(catalog)), key=lambda row: (-total[row], catalog.track_ids[row]))
    assert order == list(range(len(catalog)))
    total_skips = skips["train_a"] + skips["train_b"]
    mean = total_skips.sum() / total.sum()
    row = int(np.argmax(total))
    expected = (total_skips[row] + RATE_PRIOR_PLAYS * mean) / (total[row] + RATE_PRIOR_PLAYS)
    assert catalog.skip_rate()[row] == pytest.approx(expected)
    with pytest.raises(ValueError, match="training plays alone"):
        catalog.plays("test")


def test_features_find_their_tracks(tmp_path, blocks):
    features = pd.DataFrame(
        {"track_id": ["t3", "t_unheard", "t1"], "tempo": [1.0, 2.0, np.nan], "other": [1, 2, 3]}
    )
    catalog = write(tmp_path / "data", blocks, features=features).catalog
    tempo = catalog.features(("tempo", "valence"))
    assert catalog.feature_names == ("tempo",)
    rows = catalog.index_of(["t3", "t_unheard", "t1"])
    np.testing.assert_array_equal(tempo[rows, 0], [1, 2, np.nan])
    assert np.isnan(np.delete(tempo[:, 0], rows)).all()
    assert np.isnan(tempo[:, 1]).all()
    assert catalog.plays()[rows[1]] == 0
    with pytest.raises(KeyError, match="No track 'nope' in the catalog of"):
        catalog.index_of(["nope"])


def test_splits_have_their_shares_and_depend_on_nothing_else():
    ids = [f"session {i}" for i in range(40_000)]
    codes = assign_splits(ids, seed=42, shares=(0.7, 0.1, 0.2))
    shares = np.bincount(codes, minlength=4) / len(ids)
    np.testing.assert_allclose(shares, [0.35, 0.35, 0.1, 0.2], atol=0.01)
    some = np.arange(0, len(ids), 7)[::-1]
    again = assign_splits([ids[i] for i in some], seed=42, shares=(0.7, 0.1, 0.2))
    np.testing.assert_array_equal(again, codes[some])
    other = assign_splits(ids, seed=43, shares=(0.7, 0.1, 0.2))
    same = float((other == codes).mean())
    assert same == pytest.approx((shares**2).sum(), abs=0.01), "another seed is independent"
    extreme = assign_splits(ids, seed=0, shares=(0.5, 0.0, 0.5))
    assert set(extreme) == {0, 1, 3}


@pytest.mark.parametrize("shares", [(0.7, 0.1, 0.2), (0.5, 0.2, 0.3)])
def test_over_all_test_folds_no_session_is_tested_twice(shares):
    ids = [f"session {i}" for i in range(4_000)]
    folds = int(1 / shares[2] + 1e-9)
    codes = [assign_splits(ids, seed=42, shares=shares, test_fold=fold) for fold in range(folds)]
    tested = sum(of == SPLITS.index("test") for of in codes)
    assert tested.max() == 1
    assert tested.mean() == pytest.approx(folds * shares[2], abs=0.02)
    np.testing.assert_array_equal(codes[0], assign_splits(ids, seed=42, shares=shares))
    for of in codes:
        expected = [shares[0] / 2, shares[0] / 2, *shares[1:]]
        np.testing.assert_allclose(np.bincount(of, minlength=4) / len(ids), expected, atol=0.03)
    SplitConfig(*shares, test_fold=folds - 1)
    with pytest.raises(ValueError, match=f"it must be from 0 to {folds - 1}"):
        SplitConfig(*shares, test_fold=folds)


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1, 10**30])
def test_a_seed_that_is_no_key_of_the_hash_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; a whole number from"):
        SplitConfig(seed=seed)
    for most in (-(1 << 63), (1 << 63) - 1):
        split = SplitConfig(seed=most)
        assert len(assign_splits(["a"], seed=split.seed, shares=split.shares)) == 1


@pytest.mark.parametrize("test", [5e-324, 1e-320, 1e-300, 1e-12])
def test_a_test_share_of_next_to_nothing_is_read(test):
    assert SplitConfig(0.7, 0.3, test).shares == (0.7, 0.3, test)
    with pytest.raises(ValueError, match=r"test_fold is 10+; with a test share of"):
        SplitConfig(0.7, 0.3, test, test_fold=10**30)


def test_split_shares_are_checked():
    for bad in ((0.7, 0.1, 0.1), (1.2, -0.1, -0.1), (0.0, 0.5, 0.5)):
        with pytest.raises(ValueError, match="their sum 1"):
            SplitConfig(*bad)


def test_sessions_of_a_split(dataset):
    sessions = dataset.sessions
    parts = [sessions.sessions_in(name) for name in SPLITS]
    assert sorted(np.concatenate(parts)) == list(range(300))
    np.testing.assert_array_equal(sessions.sessions_in("train"), np.sort(np.concatenate(parts[:2])))
    with pytest.raises(ValueError, match="did you mean 'train'"):
        split_codes("trian")


def test_sessions_of_two_plays_or_more_are_playable(tmp_path):
    lengths = np.array([1, 2, 3, 20, 1])
    block = PlayBlock(
        session_ids=np.array(list("abcde"), object),
        lengths=lengths,
        vocabulary=np.array(["t"], object),
        columns={name: np.zeros(lengths.sum(), int) for name in ("track", "level")},
    )
    write_dataset(tmp_path, [block], features=None, split=SplitConfig(1, 0, 0), about={})
    log = Dataset(tmp_path).sessions
    assert log.num_shown(np.arange(5)).tolist() == [0, 1, 1, 10, 0]
    assert log.is_playable(np.arange(5)).tolist() == [False, True, True, True, False]
    assert log.playable("train").tolist() == [1, 2, 3]
    assert log.playable("test").tolist() == []


def test_views_of_sessions_agree(dataset):
    sessions = dataset.sessions
    some = np.array([5, 0, 299, 5])
    padded = sessions.padded("level", some, width=12)
    rows = sessions.plays_of(some)
    start = 0
    for i, session in enumerate(some):
        frame = sessions.frame(session)
        length = sessions.lengths(some)[i]
        assert len(frame) == length
        shown = min(length, 12)
        np.testing.assert_array_equal(padded[i, :shown], frame["level"][:shown])
        assert (padded[i, shown:] == UNKNOWN).all()
        np.testing.assert_array_equal(
            sessions.column("track")[rows[start : start + length]], frame["track"]
        )
        start += length
    assert start == len(rows)
    assert padded.dtype == sessions.column("level").dtype


@pytest.mark.parametrize("opened", [Dataset, SessionLog, Catalog])
def test_opened_things_are_pickled_by_path(dataset, opened):
    """A pickled memory map would carry the whole array."""
    stored = pickle.dumps(opened(dataset.folder))
    assert len(stored) < 500
    back = pickle.loads(stored)
    assert isinstance(back, opened)


def test_labels_and_levels_are_inverse():
    levels = np.arange(5)
    labels = labels_from_levels(levels)
    back, consistent = levels_from_labels(**labels)
    np.testing.assert_array_equal(back, levels)
    assert consistent.all()
    np.testing.assert_array_equal(labels["skip_2"], is_skip(levels))
    every = np.array(np.meshgrid(*[[False, True]] * 4)).reshape(4, -1)
    _, consistent = levels_from_labels(*every)
    assert consistent.sum() == 5


def test_a_failing_job_leaves_no_dataset(tmp_path, blocks):
    out = tmp_path / "data"

    def failing():
        yield from blocks[:3]
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError), staged_folder(out) as folder:
        write(folder, failing())
    assert not out.exists()
    with pytest.raises(FileNotFoundError, match="is not a dataset folder"):
        Dataset(tmp_path / "data.partial")
    with staged_folder(out) as folder:
        write(folder, blocks)
        with pytest.raises(
            FileNotFoundError, match=r"data\.partial is not a dataset folder: the job"
        ):
            Dataset(folder)
        assert Dataset.unfinished(folder).sessions.num_sessions == 300
    assert Dataset(out).sessions.num_sessions == 300
    assert not (tmp_path / "data.partial").exists()


def test_a_job_that_wrote_no_file_leaves_nothing(tmp_path):
    def fail_after(folder, *files):
        (folder / "parts" / "empty").mkdir(parents=True)
        for file in files:
            (folder / file).write_text("")
        raise RuntimeError("the source broke")

    for kept in ([], ["parts/done"]):
        with pytest.raises(RuntimeError), staged_folder(tmp_path / "data") as folder:
            fail_after(folder, *kept)
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
        expected = {"data.partial", "data.partial/parts", "data.partial/parts/done"}
        assert left == (expected if kept else set())


def test_a_broken_rewrite_of_a_staged_folder_is_not_taken_for_the_old_one(tmp_path, blocks):
    folder = tmp_path / "x.partial"
    write(folder, blocks)
    with pytest.raises(ValueError, match="No session"):
        write(folder, [])
    with pytest.raises(FileNotFoundError, match=r"no dataset\.json"):
        Dataset.unfinished(folder)


def test_a_dataset_is_replaced_only_on_demand(tmp_path, blocks):
    out = tmp_path / "data"
    write(out, blocks)
    with pytest.raises(FileExistsError, match="--overwrite"), staged_folder(out):
        pass
    (tmp_path / "data.replaced.partial").mkdir()
    with staged_folder(out, overwrite=True) as folder:
        write(folder, blocks[:1])
    assert Dataset(out).sessions.num_sessions == 40
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["data", "data.partial", "data.replaced.partial"])
def test_a_file_where_a_folder_is_to_be_made_is_left_alone(tmp_path, blocks, name):
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(FileExistsError, match=rf"{name} is a file, .*Move the file away"),
        staged_folder(tmp_path / "data", overwrite=True) as folder,
    ):
        write(folder, blocks)
    assert (tmp_path / name).read_text() == "mine"


def test_a_block_must_be_consistent(tmp_path, blocks):
    blocks[2].columns["hour"] = blocks[2].columns["hour"][:-1]
    with pytest.raises(ValueError, match="Column 'hour' of a block has"):
        write(tmp_path / "data", blocks)


def test_another_format_is_refused(dataset):
    file = dataset.folder / "dataset.json"
    file.write_text(file.read_text().replace('"format_version": 1', '"format_version": 0'))
    with pytest.raises(ValueError, match="format version 0, and this MusicBox reads version 1"):
        Dataset(dataset.folder)


def test_the_best_embedding_is_the_default(dataset):
    with pytest.raises(ValueError, match="has no embeddings; fit them"):
        _ = dataset.default_embedding
    folder = dataset.folder / "embeddings"
    folder.mkdir()
    for name in ("zeta", "content"):
        np.save(folder / f"{name}.npy", np.zeros((3, 2), np.float32))
    again = Dataset.unfinished(dataset.folder)
    assert (again.best_embedding, again.default_embedding) == ("content", "content+rate")


def test_an_unknown_embedding_is_refused(dataset):
    folder = dataset.folder / "embeddings"
    folder.mkdir()
    for name in ("zeta", "content", "hybrid"):
        np.save(folder / f"{name}.npy", np.zeros((3, 2), np.float32))
    assert dataset.embedding_names == ("hybrid", "content", "zeta")
    with pytest.raises(KeyError, match="did you mean 'content'"):
        dataset.embedding("contents")


@pytest.mark.parametrize("length", [0, 1, 12_345])
def test_column_files_are_plain_npy(tmp_path, length):
    values = np.arange(length, dtype=np.int16)
    with ColumnFile(tmp_path / "x.npy", np.int16) as file:
        for part in np.array_split(values, 3):
            file.write(part)
    got = np.load(tmp_path / "x.npy", mmap_mode="r" if length else None, allow_pickle=False)
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, values)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_named_as_such():
    with pytest.raises(OSError, match="No space left on device"):
        save_array(Path("/dev/full"), np.arange(100_000).reshape(-1, 10))


def test_opening_maps_columns_in_place_of_reading_them(dataset):
    code = (
        "import sys; from musicbox_env.data.dataset import Dataset; d = Dataset(sys.argv[1]);"
        "assert 'torch' not in sys.modules; from mmap import mmap;"
        "base = lambda a: base(a.base) if hasattr(a, 'base') else type(a);"
        "assert base(d.sessions.offsets) is mmap; assert base(d.sessions.column('track')) is mmap"
    )
    subprocess.run([sys.executable, "-c", code, str(dataset.folder)], check=True)


@pytest.mark.parametrize("kept_only", [False, True])
def test_held_tracks_hold_each_track_once(synthetic, kept_only):
    log, some = synthetic.sessions, np.array([7, 3, 40])
    held = log.held_tracks(some, len(synthetic.catalog), kept_only=kept_only).toarray()
    assert held.shape == (3, len(synthetic.catalog))
    assert set(np.unique(held)) == {0, 1}
    repeated = False
    for row, session in zip(held, some, strict=True):
        frame = log.frame(session)
        if kept_only:
            frame = frame[~is_skip(frame["level"])]
        assert set(np.flatnonzero(row)) == set(frame["track"])
        repeated |= frame["track"].duplicated().any()
    assert repeated, "no session of these plays a track twice: the test shows nothing of it"
