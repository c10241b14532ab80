"""Parts of training: datasets of their own that hold nothing of the other half."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from divided import CHANGES, IDS, PLAYS, SESSIONS, divided_world, split_of_each

from musicbox_env.data.checks import FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.training_parts import (
    AS_MANY,
    ORGANIC,
    OTHER,
    PARTS,
    open_part,
    rows_in,
)
from musicbox_env.listeners import ReplayListener
from musicbox_env.retrieval.spaces import embedding_space


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return divided_world(tmp_path_factory.mktemp("divided") / "data")


def files_of(dataset):
    """Hash of each file that agents and listeners may read, spaces included."""
    embedding_space(dataset, dataset.default_embedding)
    return {
        str(file.relative_to(dataset.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(dataset.folder.rglob("*"))
        if file.is_file() and "source" not in file.parts
    }


@pytest.mark.parametrize("change", CHANGES)
def test_plays_of_the_other_part_change_no_byte(whole, tmp_path, change):
    other = divided_world(tmp_path / "data", CHANGES[change])
    assert files_of(open_part(other, "train_a")) == files_of(open_part(whole, "train_a"))
    assert files_of(open_part(other, "train_b")) != files_of(open_part(whole, "train_b"))


def test_a_part_holds_its_fold_half_of_validation_and_all_of_test(whole):
    splits, found = split_of_each(), {}
    for part in PARTS:
        dataset = open_part(whole, part)
        ids = dataset.sessions.session_ids
        found[part] = {
            name: set(ids[dataset.sessions.sessions_in(name)])
            for name in ("train_a", "train_b", "train", "validation", "test")
        }
        assert found[part]["train"] == {i for i, s in zip(IDS, splits, strict=True) if s == part}
        assert 0.3 < len(found[part]["train_a"]) / len(found[part]["train"]) < 0.7
        assert dataset.part == part
        assert dataset.whole.folder == whole.folder.resolve()
    a, b = found.values()
    assert a["test"] == b["test"] == {i for i, s in zip(IDS, splits, strict=True) if s == "test"}
    validation = {i for i, s in zip(IDS, splits, strict=True) if s == "validation"}
    assert a["validation"] | b["validation"] == validation
    assert not a["validation"] & b["validation"]
    assert min(len(a["validation"]), len(b["validation"])) > len(validation) // 4


def test_validation_sessions_can_be_evaluated(whole):
    parts = [open_part(whole, part, "validation") for part in PARTS]
    ids = [
        [set(p.sessions.session_ids[p.sessions.sessions_in(s)]) for s in ("validation", "test")]
        for p in parts
    ]
    (own_a, evaluated), (own_b, same) = ids
    assert evaluated == same
    assert len(own_a) + len(own_b) + len(evaluated) == len(own_a | own_b | evaluated)
    validation = whole.sessions.session_ids[whole.sessions.sessions_in("validation")]
    assert own_a | own_b | evaluated == set(validation)


def test_the_catalog_is_whole_in_the_order_of_the_part(whole):
    for part in PARTS:
        catalog = open_part(whole, part).catalog
        rows = whole.catalog.index_of(list(catalog.track_ids))
        assert sorted(rows) == list(range(len(whole.catalog)))
        np.testing.assert_array_equal(catalog.plays(), whole.catalog.plays(part)[rows])
        np.testing.assert_array_equal(catalog.skips(), whole.catalog.skips(part)[rows])
        assert (np.diff(catalog.plays()) <= 0).all()
        np.testing.assert_array_equal(catalog.features(), whole.catalog.features()[rows])


def test_rows_are_found_in_the_other_part(whole):
    a, b = (open_part(whole, part) for part in PARTS)
    tracks, sessions = rows_in(a, b, "tracks"), rows_in(a, b, "sessions")
    np.testing.assert_array_equal(b.catalog.track_ids[tracks], a.catalog.track_ids)
    shared = sessions >= 0
    np.testing.assert_array_equal(
        b.sessions.session_ids[sessions[shared]], a.sessions.session_ids[shared]
    )
    np.testing.assert_array_equal(np.flatnonzero(shared), a.sessions.sessions_in("test"))
    np.testing.assert_array_equal(rows_in(a, a, "tracks"), np.arange(len(a.catalog)))


def test_a_part_is_made_once_and_anew_where_the_data_changed(tmp_path):
    whole = divided_world(tmp_path / "data")
    part = open_part(whole, "train_a")
    made = (part.folder / "dataset.json").stat().st_mtime_ns
    assert (open_part(part, "train_a").folder / "dataset.json").stat().st_mtime_ns == made
    assert open_part(part, "train_b").part == OTHER["train_a"]
    assert open_part(part, "train").folder == whole.folder.resolve()
    assert sorted(f.name for f in (whole.folder / "parts").iterdir()) == ["train_a", "train_b"]
    whole.folder.rename(tmp_path / "old")
    changed = divided_world(tmp_path / "data", CHANGES["relabelled"], "train_a")
    (tmp_path / "old" / "parts").rename(changed.folder / "parts")
    again = open_part(changed, "train_a")
    rows = changed.catalog.index_of(list(again.catalog.track_ids))
    np.testing.assert_array_equal(again.catalog.skips(), changed.catalog.skips("train_a")[rows])


@pytest.fixture(scope="module")
def flagged(tmp_path_factory):
    """Half of the plays are recommended, and two sessions hold no other."""
    rng = np.random.default_rng(8)
    source = rng.integers(0, 2, SESSIONS * PLAYS).astype(np.int8)
    source[: 2 * PLAYS] = 1
    return divided_world(tmp_path_factory.mktemp("flagged") / "data", source=source)


def test_parts_keep_who_chose_a_song(whole, flagged):
    for part in PARTS:
        dataset = open_part(flagged, part)
        rows = flagged.sessions.plays_of(dataset.rows_of_whole("sessions"))
        np.testing.assert_array_equal(
            dataset.sessions.column("source"), flagged.sessions.column("source")[rows]
        )
        assert "source" not in open_part(whole, part).sessions.column_names


def test_the_organic_part_knows_no_recommended_play(flagged):
    organic = open_part(flagged, ORGANIC)
    log, whole = organic.sessions, flagged.sessions
    plays = {name: [] for name in ("train", "validation", "test")}
    for name, found in plays.items():
        sessions = log.sessions_in(name)
        source = log.padded("source", sessions)
        of_whole = organic.rows_of_whole("sessions")[sessions]
        assert set(of_whole) <= set(whole.sessions_in(name))
        found += [source[source >= 0].mean(), len(sessions) - len(whole.sessions_in(name))]
        for mine, theirs in zip(sessions, of_whole, strict=True):
            rows = np.arange(*whole.offsets[theirs : theirs + 2])
            rows = rows if name == "test" else rows[whole.column("source")[rows] == 0]
            own = slice(*log.offsets[mine : mine + 2])
            songs = flagged.catalog.track_ids[whole.column("track")[rows]]
            np.testing.assert_array_equal(
                organic.catalog.track_ids[log.column("track")[own]], songs
            )
            np.testing.assert_array_equal(log.column("level")[own], whole.column("level")[rows])
    assert plays["train"][0] == plays["validation"][0] == 0
    assert 0.3 < plays["test"][0] < 0.7
    none_left = np.isin([0, 1], whole.sessions_in("test"), invert=True).sum()
    assert sum(lost for _, lost in plays.values()) == -none_left
    assert organic.catalog.plays().sum() == log.lengths(log.sessions_in("train")).sum()


def test_the_control_of_the_organic_part_has_as_many_plays_of_each_session(flagged):
    organic, control = (open_part(flagged, part) for part in (ORGANIC, AS_MANY))
    np.testing.assert_array_equal(control.sessions.offsets, organic.sessions.offsets)
    np.testing.assert_array_equal(control.sessions.split, organic.sessions.split)
    train = control.sessions.sessions_in("train")
    source = control.sessions.padded("source", train)
    assert source[source >= 0].mean() == pytest.approx(0.5, abs=0.1)
    of_whole = control.rows_of_whole("sessions")
    for number in train[:50]:
        own, whole = (
            [log.column(name)[slice(*log.offsets[row : row + 2])] for name in ("track", "level")]
            for log, row in ((control.sessions, number), (flagged.sessions, of_whole[number]))
        )
        mine = zip(control.catalog.track_ids[own[0]], own[1], strict=True)
        theirs = zip(flagged.catalog.track_ids[whole[0]], whole[1], strict=True)
        left = iter(theirs)
        assert all(play in left for play in mine), "in the order of the log"


def test_the_organic_part_needs_to_know_who_chose(whole):
    with pytest.raises(ValueError, match="does not say which plays were recommended"):
        open_part(whole, ORGANIC)


def test_unknown_parts_are_refused(whole):
    with pytest.raises(ValueError, match="did you mean 'train_a'"):
        open_part(whole, "train-a")
    with pytest.raises(ValueError, match="split to evaluate on 'train'"):
        open_part(whole, "train_a", "train")


def test_a_replay_listener_keeps_its_settings_when_sent_to_a_worker(whole):
    listener = ReplayListener(whole, temperature=0.9, persistence=3.0)
    again = pickle.loads(pickle.dumps(listener))
    assert (again.temperature, again.persistence) == (0.9, 3.0)
    assert again.dataset.folder == whole.folder


# Parts that came from elsewhere


def forge(part, **files):
    """Replace files of a part, and state the fingerprint that they have."""
    for name, content in files.items():
        np.save(part.folder / f"{name.replace('__', '/')}.npy", content)
    about = {k: v for k, v in part.about.items() if k != "identity"}
    (part.folder / "dataset.json").write_text(json.dumps(about))


FORGED = {
    "plays": lambda part, _: {"plays__level": part.sessions.column("level")[::-1]},
    "splits": lambda part, _: {"sessions__split": part.sessions.split[::-1]},
    "rows of sessions": lambda part, _: {"source__sessions": part.rows_of_whole("sessions") + 1},
    "rows of tracks": lambda part, _: {"source__tracks": part.rows_of_whole("tracks")[::-1]},
    "an embedding taken over": lambda part, own: {"embeddings__mine": own[::-1]},
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_part_with_the_right_digest_and_other_content_is_made_again(tmp_path, forged):
    whole = divided_world(tmp_path / "data")
    vectors = np.array(whole.embedding("hybrid"))
    np.save(whole.folder / "embeddings/mine.npy", vectors)
    whole = Dataset(whole.folder)
    part = open_part(whole, "train_a")
    before, own = files_of(part), np.array(part.embedding("mine"))
    forge(part, **{k: np.array(v) for k, v in FORGED[forged](part, own).items()})
    again = open_part(Dataset(whole.folder), "train_a")
    assert files_of(again) == before
    np.testing.assert_array_equal(again.rows_of_whole("sessions"), part.rows_of_whole("sessions"))


def test_an_embedding_that_was_replaced_makes_parts_again(tmp_path):
    whole = divided_world(tmp_path / "data")
    vectors = np.array(whole.embedding("hybrid"))
    np.save(whole.folder / "embeddings/mine.npy", vectors)
    open_part(Dataset(whole.folder), "train_a")
    np.save(whole.folder / "embeddings/mine.npy", vectors[::-1])
    again = open_part(Dataset(whole.folder), "train_a")
    np.testing.assert_array_equal(
        again.embedding("mine"), vectors[::-1][again.rows_of_whole("tracks")]
    )


@pytest.mark.parametrize("what", ["sessions", "tracks"])
def test_rows_of_others_are_refused(tmp_path, what):
    part = open_part(divided_world(tmp_path / "data"), "train_a")
    rows = part.rows_of_whole(what).copy()
    for other in (rows[::-1], np.full_like(rows, rows[0]), np.roll(rows, 1), rows - rows.min() - 1):
        np.save(part.folder / f"source/{what}.npy", other)
        with pytest.raises(FileError, match=rf"{what}\.npy: "):
            Dataset(part.folder).rows_of_whole(what)


@pytest.mark.parametrize("name", ["parts", "parts/train_a"])
def test_a_file_in_the_place_of_a_part_is_left_alone(tmp_path, name):
    whole = divided_world(tmp_path / "data")
    file = whole.folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{name} is a file, .* Move the file away"):
        open_part(whole, "train_a")
    assert file.read_text() == "mine"
    assert not list(tmp_path.rglob("*.partial"))
