"""Made-up names of synthetic songs: one each, found and shown, and stored nowhere."""

import pyarrow.parquet as pq
import pytest

from musicbox_env.data.made_up import made_up_name


def test_every_synthetic_track_has_a_name_of_its_own():
    names = [made_up_name(f"t_{number:08d}") for number in range(50_000)]
    assert None not in names
    assert len(set(names)) == len(names)
    beyond = made_up_name("t_01327104")  # as many names as there are, and one more
    assert beyond.startswith(made_up_name("t_00000000"))
    assert beyond != made_up_name("t_00000000")


@pytest.mark.parametrize(
    "track_id",
    ["t_0479f24c-27d2-46d6-a00c-7ec928f2b539", "4uLU6hMCjMI75M1A2tKUQC", "t_123", "T_00000001", ""],
)
def test_other_tracks_have_none(track_id):
    assert made_up_name(track_id) is None


def test_a_catalog_shows_and_finds_them(synthetic):
    catalog = synthetic.catalog
    assert catalog.shows_titles
    assert not catalog.has_titles
    assert catalog.titles[5] == made_up_name(catalog.track_ids[5])
    named = [str(catalog.titles[5]).upper(), str(catalog.track_ids[9])]
    assert catalog.find(named).tolist() == [5, 9]
    with pytest.raises(KeyError, match="No song 'Nobody - Nothing'"):
        catalog.find(["Nobody - Nothing"])


def test_they_stand_in_no_file(synthetic):
    names = pq.read_schema(synthetic.folder / "catalog.parquet").names
    assert not {"title", "artist"} & set(names)
