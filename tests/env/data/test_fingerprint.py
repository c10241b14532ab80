"""A fingerprint follows the content of a dataset and nothing else."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.fingerprint import fingerprints
from musicbox_env.schema import PLAY_COLUMNS


@pytest.fixture
def copy(synthetic_folder, tmp_path):
    return shutil.copytree(synthetic_folder, tmp_path / "other/name")


def test_it_does_not_depend_on_the_folder(synthetic, copy):
    assert Dataset(copy).identity == synthetic.identity
    assert synthetic.identity["tracks"] == 200


def test_a_dataset_without_one_has_the_same(synthetic, copy):
    """As those that were made before fingerprints were written."""
    about = {name: v for name, v in synthetic.about.items() if "fingerprint" not in name}
    assert len(about) == len(synthetic.about) - 2
    (copy / "dataset.json").write_text(json.dumps(about))
    assert Dataset(copy).identity == synthetic.identity


@pytest.mark.parametrize(
    "name", [*(f"plays/{column}" for column in PLAY_COLUMNS), "sessions/offsets", "sessions/split"]
)
def test_every_array_counts(synthetic, copy, name):
    array = np.load(copy / f"{name}.npy")
    array[len(array) // 2] += 1
    np.save(copy / f"{name}.npy", array)
    found = fingerprints(copy)
    assert found["fingerprint"] != synthetic.identity["fingerprint"]
    assert found["catalog_fingerprint"] == synthetic.identity["catalog_fingerprint"]


def test_a_column_that_only_some_logs_give_counts(synthetic, copy):
    np.save(copy / "plays/source.npy", np.zeros(synthetic.sessions.num_plays, np.int8))
    assert fingerprints(copy)["fingerprint"] != synthetic.identity["fingerprint"]


@pytest.mark.parametrize("name", ["track_id", "plays_a", "tempo"])
def test_every_column_of_the_catalog_counts(synthetic, copy, name):
    table = pq.read_table(copy / "catalog.parquet")
    place, values = table.column_names.index(name), table[name].to_pylist()
    values[:2] = values[1::-1] if name == "track_id" else [values[0] + 1, values[1]]
    table = table.set_column(place, name, pa.array(values, table[name].type))
    pq.write_table(table, copy / "catalog.parquet")
    found, known = fingerprints(copy), synthetic.identity
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
