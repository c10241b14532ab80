"""What `musicbox describe` prints of notes."""

import json
import shutil

import pytest
from musicbox_experiments.data.describe import describe

from musicbox_env.data.dataset import Dataset


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (["One, two.", "And a third."], "remarks:\n  One, two.\n  And a third."),
        (["a", "b"], "remarks: a, b"),
        (["Only this sentence."], "remarks:\n  Only this sentence."),
        ([1, 2], "remarks: 1, 2"),
    ],
)
def test_sentences_stand_on_lines_of_their_own(value, shown, synthetic_folder, tmp_path):
    folder = shutil.copytree(synthetic_folder, tmp_path / "data")
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**about, "remarks": value}))
    assert shown in describe(Dataset(folder), top=1)
