"""Embeddings find planted structure, are tied to catalog rows, and are the same every time."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from altered import forget_identity
from worlds import genre_of, is_cold, planted_world

from musicbox_env.data.dataset import EMBEDDINGS, Dataset
from musicbox_env.retrieval.embeddings import (
    PRIOR_SESSIONS,
    SharedSessions,
    embedding_without,
    fit_embeddings,
    fit_hybrid,
    shared_sessions,
)
from musicbox_env.retrieval.held_out import held_out_check
from musicbox_env.retrieval.spaces import embedding_space, rate_column

DIM = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    dataset = planted_world(tmp_path_factory.mktemp("planted"), genres=3)
    fit_embeddings(dataset.folder, dim=DIM)
    return Dataset(dataset.folder)


@pytest.fixture(scope="module")
def featureless(tmp_path_factory):
    dataset = planted_world(tmp_path_factory.mktemp("featureless"), features=False)
    reports = fit_embeddings(dataset.folder, dim=DIM)
    return Dataset(dataset.folder), reports


def separation(vectors, genre):
    """Mean cosine within genres and between them."""
    cosine = vectors @ vectors.T
    same = genre[:, None] == genre
    other = ~np.eye(len(genre), dtype=bool)
    return cosine[same & other].mean(), cosine[~same].mean()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_rows_are_unit_vectors_of_the_catalog(world, name):
    vectors = world.embedding(name)
    assert vectors.shape == (len(world.catalog), DIM)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "gap"), [("content", 0.7), ("colisten", 0.7), ("hybrid", 0.8)])
def test_genres_separate(world, name, gap):
    played = world.catalog.plays() > 0
    within, between = separation(world.embedding(name)[played], genre_of(world)[played])
    assert within - between > gap
    # Without the common mean, other genres are not similar at all.
    assert between < 0.1


@pytest.mark.parametrize("name", ["content", "hybrid"])
def test_a_cold_track_lies_in_its_genre(world, name):
    vectors, genre, cold = world.embedding(name), genre_of(world), is_cold(world)
    played = world.catalog.plays() > 0
    centres = np.stack([vectors[played & (genre == g)].mean(axis=0) for g in range(3)])
    np.testing.assert_array_equal((vectors[cold] @ centres.T).argmax(axis=1), genre[cold])


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_unknown_track_is_similar_to_none(world, name):
    vectors, blank = world.embedding(name), genre_of(world) < 0
    report = json.loads((world.folder / f"embeddings/{name}.json").read_text())
    unknown = blank | (is_cold(world) if name == "colisten" else False)
    assert report["tracks_in_blank_direction"] == unknown.sum()
    assert (vectors[unknown] == vectors[blank][0]).all()
    similarity = vectors[~unknown] @ vectors[blank][0]
    # No other direction is less similar to the tracks that are known.
    strengths = np.linalg.eigvalsh(vectors[~unknown].T @ vectors[~unknown])
    assert np.square(similarity).sum() == pytest.approx(max(strengths[0], 0), abs=1e-3)


def test_without_features_hybrid_is_colisten(featureless):
    dataset, reports = featureless
    assert reports["content"] == {"skipped": "the dataset has no track features that vary"}
    assert dataset.embedding_names == ("hybrid", "colisten")
    np.testing.assert_array_equal(dataset.embedding("hybrid"), dataset.embedding("colisten"))
    within, between = separation(dataset.embedding("hybrid"), genre_of(dataset))
    assert within - between > 0.7


@pytest.mark.parametrize("some", [slice(0, 0), slice(None, None, 5)])
def test_shared_sessions_by_hand(world, some):
    """The matrix written out, pair by pair, and its eigenvectors from a dense solver."""
    log, number = world.sessions, len(world.catalog)
    train = log.sessions_in("train")
    without = train[some]
    pairs = np.zeros((number, number))
    for session in log.padded("track", np.setdiff1d(train, without)):
        songs = np.unique(session[session >= 0])
        for one in songs:
            for other in songs:
                if one != other:
                    pairs[one, other] += 1 / (len(songs) - 1)
    of_song = pairs.sum(axis=1)
    damping = 1 / np.sqrt(of_song + PRIOR_SESSIONS)
    matrix = damping[:, None] * (pairs - np.outer(of_song, of_song) / of_song.sum()) * damping
    strengths, directions = np.linalg.eigh(matrix)
    strengths, directions = strengths[::-1], directions[:, ::-1]
    two = 2  # three genres differ in two directions; the others are noise, close to each other
    scale = np.sqrt(strengths[:two] - strengths[two])
    expected = damping[:, None] * directions[:, :two] * scale

    found = shared_sessions(world, two, seed=0, without=without)
    np.testing.assert_allclose(found.sessions, of_song, rtol=1e-5)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, expected @ expected.T, atol=1e-4)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_session_that_isleft_out_brings_its_songs_no_nearer(world, name):
    """`content` knows no session to begin with."""
    log = world.sessions
    train = log.sessions_in("train")
    near = {}
    for without in (train[:0], train[:40]):
        vectors = embedding_without(world, name, without)
        songs = [log.frame(s)["track"].unique() for s in train[:40]]
        near[len(without)] = np.mean([(vectors[s] @ vectors[s].T).mean() for s in songs])
    if name == "content":
        assert near[40] == near[0]
    else:
        assert near[40] < near[0]


def test_sessions_read_in_blocks_are_the_same(world, monkeypatch):
    whole = shared_sessions(world, 2, seed=0)
    monkeypatch.setattr("musicbox_env.retrieval.embeddings.SESSIONS_A_BLOCK", 7)
    blocks = shared_sessions(world, 2, seed=0)
    np.testing.assert_allclose(blocks.sessions, whole.sessions)
    np.testing.assert_allclose(
        blocks.vectors @ blocks.vectors.T, whole.vectors @ whole.vectors.T, atol=1e-4
    )


def test_dimensions_beyond_the_catalog_stay_empty(world):
    shared = shared_sessions(world, 2 * len(world.catalog), seed=0)
    assert shared.vectors.shape == (len(world.catalog), 2 * len(world.catalog))
    assert not shared.vectors[:, len(world.catalog) :].any()
    assert np.isfinite(shared.vectors).all()


def noisy_songs(features, sessions, seed):
    """Damped vectors of songs whose places follow from their features, up to chance."""
    rng = np.random.default_rng(seed)
    places = features @ rng.standard_normal((features.shape[1], DIM)).astype(np.float32)
    seen = places + 3 * rng.standard_normal(places.shape) / np.sqrt(sessions)[:, None]
    damped = sessions[:, None] / (sessions[:, None] + PRIOR_SESSIONS) * seen
    return places, SharedSessions(damped.astype(np.float32), sessions.astype(np.float32))


def test_songs_of_many_sessions_stay_and_those_of_few_go_where_features_put_them():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((500, 2)).astype(np.float32)
    sessions = rng.choice([1, 100_000], 500)
    places, shared = noisy_songs(features, sessions, 2)
    hybrid = fit_hybrid(features, shared).vectors
    rare = sessions == 1

    def cosine(a, b):
        return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    assert np.median(cosine(shared.vectors[rare], places[rare])) < 0.5
    assert np.median(cosine(hybrid[rare], places[rare])) > 0.95
    assert np.median(cosine(hybrid[~rare], shared.vectors[~rare])) > 0.999


def test_without_features_nothing_is_predicted():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, 3)).astype(np.float32)
    sessions = rng.integers(1, 50, 40)
    _, shared = noisy_songs(features, sessions, 3)
    features[:2] = 0
    hybrid = fit_hybrid(features, shared).vectors
    for track in range(2):
        direction = shared.vectors[track] / np.linalg.norm(shared.vectors[track])
        np.testing.assert_allclose(hybrid[track], direction, atol=1e-5)


def test_what_is_asked_for_and_cannot_be_fitted_is_an_error(featureless):
    dataset, _ = featureless
    with pytest.raises(ValueError, match="no track features"):
        fit_embeddings(dataset.folder, names=["content"], dim=DIM)
    with pytest.raises(ValueError, match="did you mean 'hybrid'"):
        fit_embeddings(dataset.folder, names=["hybird"])
    with pytest.raises(ValueError, match="dim is 1"):
        fit_embeddings(dataset.folder, dim=1)


def test_same_seed_same_embedding_in_any_process(world, tmp_path):
    folder = tmp_path / "again"
    planted_world(folder, genres=3)
    imports = "from musicbox_env.retrieval.embeddings import fit_embeddings as f"
    code = f"{imports}; f({str(folder)!r}, dim={DIM})"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    for name in EMBEDDINGS:
        assert _hash(folder, name) == _hash(world.folder, name)


def _hash(folder, name):
    return hashlib.sha256((folder / f"embeddings/{name}.npy").read_bytes()).hexdigest()


def test_fitted_on_training_sessions_alone(world, tmp_path):
    altered = planted_world(tmp_path / "altered", genres=3)
    log = altered.sessions
    plays = np.load(altered.folder / "plays/track.npy")
    evaluated = np.concatenate([log.plays_of(log.sessions_in(s)) for s in ("validation", "test")])
    plays[evaluated] = np.random.default_rng(0).permutation(plays[evaluated])
    np.save(altered.folder / "plays/track.npy", plays)
    forget_identity(altered.folder)
    fit_embeddings(altered.folder, dim=DIM)
    for name in EMBEDDINGS:
        assert _hash(altered.folder, name) == _hash(world.folder, name)


def test_held_out_check_by_hand(world):
    """Every figure counted again, one left-out song at a time."""
    vectors = world.embedding("hybrid")
    report = held_out_check(vectors, world, seed=3)
    plays, log = world.catalog.plays(), world.sessions
    chosen = np.random.default_rng(3).permutation(log.sessions_in("validation"))
    assert report["sessions"] == len(chosen)

    expected = {"": [], "popularity": []}
    sessions = [set(row[row >= 0].tolist()) for row in log.padded("track", chosen)]
    for heard, target in zip(sessions, _targets(world, 3), strict=True):
        others = sorted(heard - {target})
        compared = np.setdiff1d(np.arange(len(plays)), [*others, target])
        for key, score in (("", vectors @ vectors[others].mean(axis=0)), ("popularity", plays)):
            margin = 1e-6 * (key == "")
            above = score[compared] > score[target] + margin
            ties = np.abs(score[compared] - score[target]) <= margin
            counts = above + ties / 2
            share = counts.mean(), (counts @ plays[compared]) / plays[compared].sum()
            expected[key].append((counts.sum() < len(plays) / 100, *share))
    for key, rows in expected.items():
        found = report[key] if key else report
        names = ("hit_rate_1_percent", "mean_percentile", "mean_percentile_of_plays")
        values = [found[name]["value"] for name in names]
        np.testing.assert_allclose(values, np.mean(rows, axis=0), rtol=1e-5)


def _targets(world, seed):
    from musicbox_env.retrieval.held_out import left_out

    targets, others = left_out(world.sessions, "validation", np.random.default_rng(seed))
    assert not (others == targets[:, None]).any()
    return targets.tolist()


def test_held_out_check_tells_sense_from_nonsense(world):
    genre = genre_of(world)
    noise = np.random.default_rng(0).standard_normal((len(genre), DIM)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    nonsense = held_out_check(noise, world)["mean_percentile_of_plays"]
    assert nonsense["low"] < 0.5 < nonsense["high"]
    for name in EMBEDDINGS:
        report = held_out_check(world.embedding(name), world)
        # A third of the plays shares the genre: the best possible is 1/6 and a little.
        assert report["mean_percentile_of_plays"]["high"] < 0.35
        popularity = report["popularity"]["mean_percentile_of_plays"]
        assert popularity["low"] < 0.5 < popularity["high"]


def test_report_lies_beside_the_vectors(world):
    for name in EMBEDDINGS:
        report = json.loads((world.folder / f"embeddings/{name}.json").read_text())
        assert report["fitted_on"] == "train"
        assert report["dim"] == DIM
        assert report["held_out"]["split"] == "validation"


def test_space_with_rate(world):
    space = embedding_space(world, "hybrid+rate")
    assert space.shape == (len(world.catalog), DIM + 1)
    assert space.dtype == np.float32
    assert space.flags.c_contiguous
    np.testing.assert_array_equal(space[:, :-1], embedding_space(world, "hybrid"))
    rate, played = space[:, -1], world.catalog.plays() > 0
    listened = 1 - world.catalog.skip_rate()
    logit = np.log(listened / (1 - listened))
    z = (logit - logit[played].mean()) / logit[played].std()
    np.testing.assert_allclose(rate, np.clip(z / 3, -1, 1), atol=1e-6)
    assert np.corrcoef(rate[played], listened[played])[0, 1] > 0.9


def test_rate_says_nothing_where_no_song_is_ever_skipped(tmp_path):
    dataset = planted_world(tmp_path / "kept", genres=1, sessions=50)
    assert not dataset.catalog.skips().any()
    assert (rate_column(dataset.catalog) == 0).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hybrid+rates", r"did you mean 'hybrid\+rate'"),
        ("hybird", "did you mean 'hybrid'"),
        ("hybrid+", "Known: 'hybrid'"),
        ("", r"Known: 'hybrid', 'hybrid\+rate'"),
    ],
)
def test_unknown_space(world, spec, message):
    with pytest.raises(ValueError, match=message):
        embedding_space(world, spec)


def test_space_that_was_never_fitted(featureless, tmp_path):
    dataset, _ = featureless
    with pytest.raises(ValueError, match=r"No embedding 'content'.*Known: 'hybrid'"):
        embedding_space(dataset, "content")
    with pytest.raises(ValueError, match=r"has no embeddings; fit them"):
        embedding_space(planted_world(tmp_path / "bare", sessions=20), "hybrid")


def test_sessions_of_one_song_teach_nothing(tmp_path):
    dataset = planted_world(tmp_path / "one", sessions=40, tracks=2, genres=2, features=False)
    plays = np.load(dataset.folder / "plays/track.npy")
    np.save(dataset.folder / "plays/track.npy", np.zeros_like(plays))
    forget_identity(dataset.folder)
    reports = fit_embeddings(dataset.folder)
    assert "no training session holds two different songs" in reports["hybrid"]["skipped"]


@pytest.mark.slow
def test_on_synthetic_sessions_hybrid_is_best(tmp_path):
    from musicbox_env.synthetic.generator import SyntheticConfig, synthesize

    synthesize(SyntheticConfig(), tmp_path / "data")
    values = {}
    for name in EMBEDDINGS:
        report = json.loads((tmp_path / f"data/embeddings/{name}.json").read_text())
        values[name] = report["held_out"]["mean_percentile_of_plays"]
        assert values[name]["high"] < 0.46
    assert values["hybrid"]["value"] < min(values["content"]["value"], values["colisten"]["value"])
