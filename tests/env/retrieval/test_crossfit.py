"""Cross-fitted embeddings: no session is in the fit that it is seen in."""

import shutil

import numpy as np
import pytest
from handmade import write_sessions

from musicbox_env.data.dataset import Dataset
from musicbox_env.retrieval import crossfit
from musicbox_env.retrieval.crossfit import PARTS, crossfitted, parts_of
from musicbox_env.retrieval.embeddings import embedding_without


@pytest.fixture
def own(synthetic, tmp_path):
    """A copy that may be written to."""
    shutil.copytree(synthetic.folder, tmp_path / "data", ignore=shutil.ignore_patterns("spaces"))
    return Dataset(tmp_path / "data")


def test_every_training_session_is_in_one_part_of_equal_size(synthetic):
    parts, train = parts_of(synthetic), synthetic.sessions.sessions_in("train")
    assert (np.delete(parts, train) == -1).all()
    counts = np.bincount(parts[train])
    assert len(counts) == PARTS
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("fits", [PARTS, 2])
def test_songs_lie_to_each_other_as_in_a_fit_without_the_part(own, monkeypatch, fits):
    """Whatever basis that has; and parts that share a fit are all left out of it."""
    monkeypatch.setattr(crossfit, "FITS", ((10**9, fits),))
    spaces = crossfitted(own, "hybrid")
    assert len(spaces) == fits
    parts = parts_of(own)
    for part in (0, 3):
        left_out = np.flatnonzero((parts >= 0) & (parts % fits == part % fits))
        assert (parts[left_out] == part).any()
        alone = embedding_without(own, "hybrid", left_out)
        found = spaces[part % fits]
        np.testing.assert_allclose(found @ found.T, alone @ alone.T, atol=1e-4)


def test_bases_are_turned_onto_the_whole(own):
    """So that what is learned of a direction in one holds in the others."""
    whole, plays = own.embedding("colisten"), own.catalog.plays()
    parts = parts_of(own)
    for fit, space in enumerate(crossfitted(own, "colisten")):
        alone = embedding_without(own, "colisten", np.flatnonzero(parts == fit))
        turned, not_turned = (np.average((v * whole).sum(1), weights=plays) for v in (space, alone))
        assert turned > 0.5
        assert turned > not_turned + 0.1


def test_a_sessions_songs_lie_no_nearer_than_those_of_a_new_one(own):
    """Songs of one session: near in the fit that knows it, less so in that without it."""
    log, train = own.sessions, own.sessions.sessions_in("train")
    whole, spaces, parts = own.embedding("hybrid"), crossfitted(own, "hybrid"), parts_of(own)

    def near(session, space):
        vectors = space[log.frame(session)["track"].unique()]
        return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].mean()

    inside = np.mean([near(s, whole) for s in train])
    outside = np.mean([near(s, spaces[parts[s]]) for s in train])
    new = np.mean([near(s, whole) for s in log.sessions_in("test")])
    assert inside > new
    assert abs(outside - new) < abs(inside - new) / 2


def test_it_is_written_once_and_anew_for_another_embedding(own):
    first = np.array(crossfitted(own, "hybrid"))
    files = sorted((own.folder / "spaces").iterdir())
    assert len(files) == PARTS
    written = [file.stat().st_mtime_ns for file in files]
    files[3].unlink()  # a run that was killed goes on with what is there
    np.testing.assert_array_equal(crossfitted(own, "hybrid"), first)
    again = [file.stat().st_mtime_ns for file in files]
    assert [i for i in range(PARTS) if again[i] != written[i]] == [3]
    source = own.folder / "embeddings" / "hybrid.npy"
    np.save(source, -np.load(source))
    np.testing.assert_allclose(crossfitted(own, "hybrid"), -first, atol=1e-5)


def test_a_file_of_another_embedding_is_made_anew(own):
    """Even one that seems newer: copies may keep their time."""
    expected = np.array(crossfitted(own, "hybrid"))
    file = next((own.folder / "spaces").iterdir())
    np.save(file, np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(crossfitted(own, "hybrid"), expected)


def test_nothing_left_to_fit_on_says_nothing(tmp_path):
    """The only session that is trained on."""
    whole = {"colisten": np.eye(2, 4)}
    dataset = write_sessions(tmp_path / "d", [[("a", 4), ("b", 4)]], whole)
    spaces = crossfitted(dataset, "colisten")
    assert not spaces[parts_of(dataset)[0] % len(spaces)].any()


def test_a_folder_that_may_only_be_read_will_do(own):
    expected = np.array(crossfitted(own, "hybrid"))
    shutil.rmtree(own.folder / "spaces")
    (own.folder / "spaces").write_text("not a folder")
    np.testing.assert_array_equal(crossfitted(own, "hybrid"), expected)


def test_content_knows_no_session(own):
    spaces = crossfitted(own, "content")
    np.testing.assert_array_equal(spaces, [own.embedding("content")])
