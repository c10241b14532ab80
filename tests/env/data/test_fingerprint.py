"""A fingerprint follows the content of a dataset and nothing else."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicbox_env.data.catalog import Catalog
from musicbox_env.data.checks import FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.data.fingerprint import fingerprints
from musicbox_env.data.sessions import SessionLog
from musicbox_env.schema import PLAY_COLUMNS
from musicbox_env.simulator.assets import open_dataset


def found_in(folder):
    return fingerprints(Catalog(folder).check(), SessionLog(folder))


def refused(folder):
    """Of a folder whose files are others than those that its identity was computed of."""
    with pytest.raises(FileError, match=r"dataset\.json: (catalog_)?fingerprint is .*again"):
        Dataset(folder)
    return True


def with_catalog(folder, **columns):
    table = pq.read_table(folder / "catalog.parquet")
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, values)
    pq.write_table(table, folder / "catalog.parquet")


@pytest.fixture
def copy(synthetic_folder, tmp_path):
    return shutil.copytree(synthetic_folder, tmp_path / "other/name")


def test_it_does_not_depend_on_the_folder(synthetic, copy):
    assert Dataset(copy).identity == synthetic.identity
    assert synthetic.identity["tracks"] == 200


def test_a_dataset_without_one_has_the_same(synthetic, copy):
    """As those that were made before fingerprints were written."""
    about = {name: v for name, v in synthetic.about.items() if name != "identity"}
    assert len(about) == len(synthetic.about) - 1
    (copy / "dataset.json").write_text(json.dumps(about))
    assert Dataset(copy).identity == synthetic.identity


@pytest.mark.parametrize(
    "name", [*(f"plays/{column}" for column in PLAY_COLUMNS), "sessions/offsets", "sessions/split"]
)
def test_every_array_counts(synthetic, copy, name):
    array = np.load(copy / f"{name}.npy")
    array[len(array) // 2] += 1
    np.save(copy / f"{name}.npy", array)
    found = found_in(copy)
    assert found["fingerprint"] != synthetic.identity["fingerprint"]
    assert found["catalog_fingerprint"] == synthetic.identity["catalog_fingerprint"]


def test_a_column_that_only_some_logs_give_counts(synthetic, copy):
    np.save(copy / "plays/source.npy", np.zeros(synthetic.sessions.num_plays, np.int8))
    assert found_in(copy)["fingerprint"] != synthetic.identity["fingerprint"]
    assert refused(copy)


@pytest.mark.parametrize("name", ["track_id", "plays_a", "tempo"])
def test_every_column_of_the_catalog_counts(synthetic, copy, name):
    table = pq.read_table(copy / "catalog.parquet")
    place, values = table.column_names.index(name), table[name].to_pylist()
    values[:2] = values[1::-1] if name == "track_id" else [values[0] + 1, values[1]]
    table = table.set_column(place, name, pa.array(values, table[name].type))
    pq.write_table(table, copy / "catalog.parquet")
    found, known = found_in(copy), synthetic.identity
    assert refused(copy)
    assert found["fingerprint"] != known["fingerprint"]
    same = found["catalog_fingerprint"] == known["catalog_fingerprint"]
    assert same == (name != "track_id")


def test_other_sessions_of_a_catalog_are_told_from_another_catalog(synthetic):
    others = {**synthetic.identity, "fingerprint": "0" * 32, "sessions": 7}
    synthetic.require_same_catalog(others, "It", "Mend it.")
    with pytest.raises(ValueError, match=r"It was made on a dataset of 200 tracks, 7 sessions.*00"):
        synthetic.require_same(others, "It", "Mend it.")
    for unknown in (None, {}, "?", {**others, "catalog_fingerprint": "0"}):
        with pytest.raises(ValueError, match=r"^It was made on .*data holds 200.*\. Mend it\.$"):
            synthetic.require_same_catalog(unknown, "It", "Mend it.")


@pytest.mark.parametrize("name", ["level", "hour", "track", "date"])
def test_replaced_plays_under_the_same_fingerprint_are_refused(copy, name):
    """All values are in range, and ``dataset.json`` is that of the other plays."""
    array = np.load(copy / f"plays/{name}.npy")
    array[0], array[1:] = array[-1], array[:-1].copy()
    np.save(copy / f"plays/{name}.npy", array)
    assert refused(copy)


def test_another_split_under_the_same_fingerprint_is_refused(copy):
    split = np.load(copy / "sessions/split.npy")
    np.save(copy / "sessions/split.npy", split[::-1].copy())
    assert refused(copy)


@pytest.mark.parametrize(
    "identity", [{}, {"fingerprint": "0" * 32}, {"fingerprint": None, "catalog_fingerprint": 7}]
)
def test_a_fingerprint_that_is_stated_is_true_or_computed(synthetic, copy, identity):
    about = {**synthetic.about, "identity": identity}
    (copy / "dataset.json").write_text(json.dumps(about))
    if identity:
        assert refused(copy)
    else:
        assert Dataset(copy).identity == synthetic.identity


def test_what_a_sender_adds_to_an_identity_replaces_nothing(synthetic, copy):
    identity = {**synthetic.about["identity"], "tracks": 9, "more": 1}
    (copy / "dataset.json").write_text(json.dumps({**synthetic.about, "identity": identity}))
    assert Dataset(copy).identity == synthetic.identity


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["a\0b", "c"], ["a", "b\0c"]),
        (["ab", "c"], ["a", "bc"]),
        ([["a", "b"], []], [["a"], ["b"]]),
        ([["a"], None], [["a"], []]),
        ([1, 2], [5e-324, 1e-323]),  # the same bits
        ([[f"{n}" for n in range(2000)], []], [[f"{n % 1990}" for n in range(2000)], []]),
    ],
)
def test_columns_that_are_written_alike_are_told_apart(copy, first, second):
    found = []
    for values in (first, second):
        rest = [values[1]] * 198
        name = "other_ids" if isinstance(values[0], list) else "title"
        columns = {"artist": pa.array(["x"] * 200)}
        if not isinstance(values[0], str | list):
            name, columns = "tempo", {}
        with_catalog(copy, **columns, **{name: pa.array([*values, *rest])})
        found.append(found_in(copy)["fingerprint"])
    assert found[0] != found[1]


def test_how_numpy_prints_does_not_count(copy):
    with_catalog(copy, other_ids=pa.array([["a", "b"]] * 200))
    first = found_in(copy)
    with np.printoptions(threshold=1, legacy="1.13"):
        assert found_in(copy) == first


@pytest.mark.parametrize(
    "name", ["plays/level.npy", "sessions/offsets.npy", "sessions/ids.parquet", "catalog.parquet"]
)
def test_a_file_that_was_cut_since_it_was_opened_is_refused(copy, name):
    dataset = open_dataset(copy)
    assert open_dataset(copy) is dataset
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=name.rpartition("/")[2]):
        open_dataset(copy)
