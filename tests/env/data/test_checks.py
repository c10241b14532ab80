"""Received folders: what is checked when they are opened, and that nobody can forge a verdict."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicbox_env.data import verdicts
from musicbox_env.data.checks import CheckedFile, FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.learned.listener import BUNDLED, FittedNetwork
from musicbox_env.retrieval.spaces import embedding_space, space_file
from musicbox_env.schema import OPINION_COUNTS, PLAY_COLUMNS
from musicbox_env.synthetic.truth import GroundTruth


@pytest.fixture
def received(synthetic_folder, tmp_path):
    """A folder of one's own."""
    folder = tmp_path / "received"
    shutil.copytree(synthetic_folder, folder, ignore=shutil.ignore_patterns("spaces"))
    return folder


def change(file, place, value):
    array = np.load(file)
    array.reshape(-1)[place] = value
    np.save(file, array)


def set_about(folder, **values):
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("place", [0, 4321, -1])
@pytest.mark.parametrize("name", [name for name in PLAY_COLUMNS if name != "date"])
def test_codes_out_of_their_vocabulary_are_refused_wherever_they_stand(received, name, place):
    low, high = PLAY_COLUMNS[name].limits
    limits = np.iinfo(PLAY_COLUMNS[name].dtype)
    beyond = [v for v in (low - 1, high + 1) if limits.min <= v <= limits.max]
    if name == "track":
        beyond = [-1, 200, 2**31 - 1]
    for value in beyond:
        change(received / f"plays/{name}.npy", place, value)
        with pytest.raises(FileError, match=rf"plays/{name}\.npy: values from .* to .*; expected"):
            Dataset(received)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        (lambda o: np.concatenate([o[:2], o[1:]])[:-1], "plays|above"),
        (lambda o: o + 1, "begins at 1|plays"),
        (lambda o: np.concatenate([o[:5], o[3:5], o[7:]]), "not above the one before"),
        (lambda o: np.append(o[:-1], -5), "plays is"),
        (lambda o: np.append(o[:-1], 2**62), "plays is"),
        (lambda o: o[:1], "no session"),
        (lambda o: o.astype(np.int32), "int64"),
        (lambda o: o[None], "of shape"),
    ],
)
def test_offsets_rise_from_0_to_the_number_of_plays(received, offsets, message):
    file = received / "sessions/offsets.npy"
    np.save(file, offsets(np.load(file)))
    with pytest.raises(FileError, match=message):
        Dataset(received)


@pytest.mark.parametrize("name", ["sessions", "plays", "tracks", "longest_session"])
@pytest.mark.parametrize("value", [2, -1, 10**9, 10**30, None, "20", 19.0, True, [20]])
def test_numbers_of_dataset_json_are_true(received, name, value):
    set_about(received, **{name: value})
    with pytest.raises(FileError, match=rf"dataset\.json: {name} is .*; expected .* again"):
        Dataset(received)


def test_a_good_folder_is_opened_and_every_file_is_needed(received):
    Dataset(received)
    needed = [file for name in ("plays", "sessions") for file in (received / name).iterdir()]
    for file in [received / "catalog.parquet", *needed]:
        kept = file.read_bytes()
        file.unlink()
        with pytest.raises(FileError, match=file.name):
            Dataset(received)
        file.write_bytes(kept)


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0, 0.5])
def test_rows_of_an_embedding_have_norm_1(received, value):
    change(received / "embeddings/hybrid.npy", 77, value)
    with pytest.raises(FileError, match=r"hybrid\.npy: the squared norm"):
        Dataset(received).embedding("hybrid")


def test_embeddings_have_a_row_for_each_track(received):
    file = received / "embeddings/hybrid.npy"
    np.save(file, np.load(file)[:40])
    with pytest.raises(FileError, match=r"\(40, 32\); expected float32 of shape \(200, any\)"):
        Dataset(received).embedding("hybrid")


def test_a_space_that_its_sources_do_not_give_is_made_again(received):
    true = np.array(embedding_space(Dataset(received), "hybrid+rate"))
    file = space_file(Dataset(received), "hybrid+rate")
    later = file.stat().st_mtime_ns + 10**12
    for place, value in ((5, np.nan), (-1, 0.123), (0, 7e30)):
        change(file, place, value)
        os.utime(file, ns=(later, later))
        np.testing.assert_array_equal(embedding_space(Dataset(received), "hybrid+rate"), true)
    np.save(file, true[:, :-1])
    np.testing.assert_array_equal(embedding_space(Dataset(received), "hybrid+rate"), true)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("session_taste", np.nan), ("session_taste", 3.0), ("track_vectors", np.inf)),
        *(("track_quality", np.nan), ("session_propensity", 1e30), ("track_weight", -0.1)),
    ],
)
def test_a_truth_holds_what_a_law_has(received, name, value):
    change(received / f"truth/{name}.npy", 3, value)
    with pytest.raises(FileError, match=rf"{name}\.npy"):
        GroundTruth.open(Dataset(received))


def test_weights_have_the_shapes_that_their_sizes_imply(tmp_path):
    with np.load(BUNDLED) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name in set(arrays) - {"about"}:
        bad = np.array(arrays[name])
        bad.reshape(-1)[-1] = np.nan
        wide = np.concatenate([arrays[name]] * 2, axis=-1)
        double = arrays[name].astype(np.float64)
        for other in (arrays[name][..., :-1], wide, arrays[name][None], bad, double):
            np.savez(tmp_path / "cut.npz", **{**arrays, name: other})
            with pytest.raises(FileError, match=r"cut\.npz"):
                FittedNetwork.load(tmp_path / "cut.npz")


# Verdicts


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A cache of its own, in which verdicts of small files are kept too; counts checks."""
    monkeypatch.setenv("MUSICBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "SMALL", 0)
    return tmp_path / "cache" / verdicts.CHECKED


def test_a_check_is_done_once_for_each_state_of_the_files(kept, tmp_path):
    file, done = tmp_path / "a.npy", []
    np.save(file, np.arange(3))
    for times in (1, 1):
        verdicts.once("numbers", verdicts.state_of([file]), lambda: done.append(1))
        assert len(done) == times
    assert len(list(kept.iterdir())) == 1
    verdicts.once("other check", verdicts.state_of([file]), lambda: done.append(1))
    assert len(done) == 2


def test_a_file_that_was_refused_is_looked_at_again(kept, tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.array([1.0, np.nan]))
    checked = CheckedFile(file, "Mend it.")
    for _ in range(2):
        with pytest.raises(FileError, match="Mend it"):
            verdicts.once(
                "finite", verdicts.state_of([file]), lambda: checked.require_finite(np.load(file))
            )
    assert not kept.exists()


def test_no_sender_can_forge_a_verdict(kept, received):
    """The same size and time of writing as the file that was found right, at the same path."""
    Dataset(received)
    assert kept.is_dir()
    file = received / "plays/level.npy"
    before = file.stat()
    change(file, 9, 77)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = file.stat()
    assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(FileError, match=r"level\.npy"):
        Dataset(received)


def test_a_state_is_of_files_by_their_names(tmp_path):
    """Links that are pointed elsewhere: the same files in the same order, under other names."""
    for name in ("checked", "other"):
        (tmp_path / name).write_text(name)
    for folder, names in {"before": "ab", "after": "bc"}.items():
        (tmp_path / folder).mkdir()
        for name, file in zip(names, ("checked", "other"), strict=True):
            (tmp_path / folder / name).symlink_to(tmp_path / file)
    states = [verdicts.state_of([], [tmp_path / folder]) for folder in ("before", "after")]
    assert states[0] != states[1]


def test_what_is_replaced_after_opening_is_not_played(received):
    Dataset(received)
    dataset, file = Dataset(received), received / "plays/track.npy"
    true = np.load(file)
    np.save(received / "new.npy", np.full_like(true, 2_000_000_000))
    os.replace(received / "new.npy", file)
    np.testing.assert_array_equal(dataset.sessions.column("track"), true)


def test_verdicts_do_not_grow_without_end(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "MOST_KEPT", 3)
    for number in range(6):
        file = tmp_path / f"{number}"
        file.write_text("x")
        verdicts.once("text", verdicts.state_of([file]), lambda: None)
    assert len(list(kept.iterdir())) == 3


def test_a_cache_that_cannot_be_written_costs_a_check(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("MUSICBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "SMALL", 0)
    file, done = tmp_path / "a", []
    file.write_text("x")
    verdicts.once("text", verdicts.state_of([file]), lambda: done.append(1))
    assert done


@pytest.mark.parametrize(
    ("likes", "said"),
    [
        ({"likes_a": [0] * 200}, "no column likes_b of int64"),
        (dict.fromkeys(OPINION_COUNTS, [-1] * 200), "values from -1"),
        (dict.fromkeys(OPINION_COUNTS, [None] * 200), "of int64"),
        (dict.fromkeys(OPINION_COUNTS, ["many"] * 200), "of int64"),
    ],
)
def test_counts_of_opinions_are_all_there_and_true(received, likes, said):
    file = received / "catalog.parquet"
    table = pq.read_table(file)
    for name, values in likes.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, file)
    with pytest.raises(FileError, match=said):
        Dataset(received)
