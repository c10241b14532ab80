"""Files go to other machines and come back as they were."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from musicbox_experiments.cluster import shipping
from musicbox_experiments.cluster.tasks import Task


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICBOX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for name, content in {"dataset.json": "{}", "plays/track.npy": "12", "parts/a/x": "3"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def contents(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_text() for file in files}


def test_a_folder_is_got_once_and_is_the_same(data, monkeypatch):
    monkeypatch.setattr(shipping, "CHUNK", 1)
    store, got = [], []

    def put(piece):
        store.append(piece)
        return len(store) - 1

    def get(number):
        got.append(number)
        return store[number]

    parcel = shipping.packed(data, shipping.fingerprint(data), put)
    assert shipping.received(parcel, get)
    assert not shipping.received(parcel, get)
    assert sorted(got) == list(range(len(store))) == [0, 1, 2, 3]
    place = shipping.cached(parcel.fingerprint) / "content"
    assert contents(place) == {"dataset.json": "{}", "plays/track.npy": "12"}
    assert shipping.fingerprint(place) == parcel.fingerprint


def test_fingerprints_tell_contents_names_and_absence_apart(data, tmp_path):
    before = shipping.fingerprint(data)
    (data / "plays/track.npy").write_text("13")
    changed = shipping.fingerprint(data)
    (data / "plays/track.npy").rename(data / "plays/level.npy")
    found = {before, changed, shipping.fingerprint(data), shipping.fingerprint(tmp_path / "none")}
    assert len(found) == 4
    assert "" in found


@dataclass(frozen=True)
class Job:
    folder: str
    options: dict
    others: tuple[Path, ...]


def test_paths_are_put_below_a_root_and_nothing_else():
    job = Job("/runs/a/agents", {"data": "/data/mine", "/runs/a": 1}, (Path("/runs/ab"), Path("x")))
    moved = shipping.moved(job, [Path("/runs/a"), Path("/data/mine")], Path("/node"))
    assert moved == Job(
        "/node/runs/a/agents",
        {"data": "/node/data/mine", "/node/runs/a": 1},
        (Path("/runs/ab"), Path("x")),
    )


def test_an_unfinished_task_finds_what_it_left_and_a_finished_one_nothing(data, tmp_path):
    reads = {data: shipping.fingerprint(data)}
    task, out = Task("Making", print, ("x",)), tmp_path / "run/agents"

    def stop_in_the_middle():
        with shipping.own_root(task, reads) as root:
            place = shipping.below(root, out)
            place.mkdir(parents=True)
            (place / "half").write_text("made")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    with shipping.own_root(task, reads) as root:
        assert (shipping.below(root, data) / "plays/track.npy").read_text() == "12"
        made = shipping.made_files(root, [out])
    assert made == {str(out / "half"): b"made"}
    with shipping.own_root(task, reads) as again:
        assert again == root
        assert not shipping.made_files(again, [out])


def test_what_comes_back_replaces_what_a_stopped_run_left(tmp_path):
    makes, beside = tmp_path / "run/seed-0", tmp_path / "run/rollouts"
    for file in (makes / "begun.json", beside / "other.npz"):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    files = {str(makes / "training.json"): b"done", str(beside / "own.npz"): b"rolled"}
    shipping.put_back(files, makes)
    assert contents(tmp_path / "run") == {
        "seed-0/training.json": "done",
        "rollouts/other.npz": "before",
        "rollouts/own.npz": "rolled",
    }
