"""Folders are emptied and replaced only where nothing but MusicBox's own files lies in them."""

import pytest

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.folders import DATASET, remove
from musicbox_env.data.writing import staged_folder
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize, write_raw

SMALL = SyntheticConfig(sessions=20, tracks=100)
FOREIGN = ["thesis.txt", "music/song.csv", ".git/HEAD"]
PLACES = ["data", "data.partial", "data.replaced.partial"]


def put(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")


def make(out, **options):
    return synthesize(SMALL, out, embeddings=False, **options)


def require_left(tmp_path, place, file, named):
    """A user's file in a dataset, or beside it, is named, and nothing is changed."""
    make(tmp_path / "data")
    put(tmp_path / place / file)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match=rf"{place} holds {named}.*Move"):
        make(tmp_path / "data", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / place / file).read_text() == "mine"


@pytest.mark.parametrize(
    ("place", "file"),
    [(place, file) for place in PLACES for file in FOREIGN] + [("data", "plays/notes.docx")],
)
def test_a_folder_with_a_file_of_the_user_is_left_as_it_is(tmp_path, place, file):
    require_left(tmp_path, place, file, file.partition("/")[0])


@pytest.mark.parametrize(
    "file",
    ["plays/thesis.csv", "plays/thesis", "plays/my/photo.png", "sessions/a.npy", "truth/b.json"],
)
@pytest.mark.parametrize("place", PLACES)
def test_what_could_be_musicbox_s_elsewhere_is_none_of_its_here(tmp_path, place, file):
    require_left(tmp_path, place, file, file)


def test_files_among_the_parts_of_a_stopped_job_stay(tmp_path):
    put(tmp_path / "data.partial/parts/thesis.txt")
    with pytest.raises(FileExistsError, match=r"holds parts/thesis\.txt"):
        make(tmp_path / "data")
    assert (tmp_path / "data.partial/parts/thesis.txt").read_text() == "mine"


def test_a_link_among_the_plays_is_somebody_s(tmp_path):
    put(tmp_path / "mine/a.npy")
    (make(tmp_path / "data") / "plays/link").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="holds plays/link"):
        make(tmp_path / "data", overwrite=True)


def test_what_has_the_names_of_a_dataset_but_is_none_is_left(tmp_path):
    put(tmp_path / "data/plays/track.npy")
    with pytest.raises(FileExistsError, match=r"is no dataset folder \(no dataset\.json\)"):
        make(tmp_path / "data", overwrite=True)
    put(tmp_path / "raw/tracks.csv")
    with pytest.raises(FileExistsError, match="is no folder of raw logs"):
        write_raw(SMALL, tmp_path / "raw", overwrite=True)
    assert (tmp_path / "raw/tracks.csv").read_text() == "mine"


def test_raw_logs_are_not_replaced_by_a_dataset_nor_the_other_way_round(tmp_path):
    raw, data = tmp_path / "raw", make(tmp_path / "data")
    write_raw(SMALL, raw)
    with pytest.raises(FileExistsError, match=r"raw holds sessions\.csv\.gz"):
        make(raw, overwrite=True)
    with pytest.raises(FileExistsError, match=r"data holds catalog\.parquet"):
        write_raw(SMALL, data, overwrite=True)
    write_raw(SMALL, raw, overwrite=True)


def test_an_empty_folder_and_locks_of_killed_processes_are_no_obstacle(tmp_path):
    (tmp_path / "data.partial").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data.partial/.x.lock").touch()
    assert Dataset(make(tmp_path / "data", overwrite=True)).sessions.num_sessions == 20


def test_a_link_to_a_dataset_stays_and_its_target_is_replaced(tmp_path):
    target, link = make(tmp_path / "data"), tmp_path / "link"
    link.symlink_to(target)
    with staged_folder(link, overwrite=True, kind=DATASET) as folder:
        assert folder == tmp_path / "data.partial"
    assert link.is_symlink()
    assert not any(target.iterdir())
    assert sorted(f.name for f in tmp_path.iterdir()) == ["data", "link"]


@pytest.mark.parametrize("name", ["link", "folder"])
def test_what_links_point_to_is_not_removed(tmp_path, name):
    put(tmp_path / "target/file")
    (tmp_path / "folder").mkdir()
    for link in (tmp_path / "link", tmp_path / "folder/deep"):
        link.symlink_to(tmp_path / "target")
    remove(tmp_path / name)
    assert not (tmp_path / name).is_symlink()
    assert not (tmp_path / name).exists()
    assert (tmp_path / "target/file").read_text() == "mine"
