from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from musicbox_experiments.evaluate.first_musicbox import first_musicbox_figures
from musicbox_experiments.evaluate.metrics import (
    METRICS,
    CatalogStats,
    PerSession,
    coverage,
    diversity,
    effective_catalog_size,
    exposure,
    features_known,
    gini,
    imputed,
    measure,
    neighbours,
    novelty,
    per_session,
    popularity,
    session_return,
    skip_rate,
)
from musicbox_experiments.evaluate.reranking import reranking
from musicbox_experiments.evaluate.rollout import Rollout

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.data.writing import PlayBlock, write_dataset
from musicbox_env.schema import DIVERSITY_FEATURES

NUM_TRACKS = 9


def rollout_of(slates: npt.ArrayLike, levels: npt.ArrayLike, **changes: object) -> Rollout:
    slates = np.asarray(slates, dtype=np.int32)
    fields = {
        "agent": "toy",
        "seed": 0,
        "evaluator": "nobody",
        "sessions": np.arange(len(slates)),
        "slates": slates,
        "levels": np.asarray(levels, dtype=np.int8),
        "logged": np.zeros(slates.shape, dtype=np.bool_),
        "returns": np.zeros(len(slates)),
    }
    return Rollout(**{**fields, **changes})


@pytest.fixture
def world() -> CatalogStats:
    rng = np.random.default_rng(5)
    features = rng.uniform(0.05, 1, size=(NUM_TRACKS, len(DIVERSITY_FEATURES)))
    features[3] = np.nan
    features[4, 2] = np.nan
    return CatalogStats(
        features=features,
        embedding=rng.normal(size=(NUM_TRACKS, 4)),
        plays=np.array([40, 20, 10, 8, 4, 2, 1, 1, 0]),
    )


@pytest.fixture
def rollout() -> Rollout:
    """Five sessions of three slates of three songs; the last slate is heard in part."""
    rng = np.random.default_rng(6)
    slates = np.stack([rng.permutation(NUM_TRACKS).reshape(3, 3) for _ in range(5)]).astype(
        np.int32
    )
    levels = rng.integers(0, 5, size=slates.shape).astype(np.int8)
    for session, heard in enumerate((9, 8, 7, 6, 5)):
        levels[session].reshape(-1)[heard:] = -1
    slates[levels < 0] = -1
    return rollout_of(
        slates,
        levels,
        logged=rng.random(slates.shape) < 0.5,
        returns=rng.normal(size=5),
    )


def heard_songs(rollout: Rollout) -> list[tuple[int, int, int, int, int]]:
    """All (session, step, place, track, level) that were heard, by plain loops."""
    found = []
    for n in range(rollout.slates.shape[0]):
        for t in range(rollout.slates.shape[1]):
            for k in range(rollout.slates.shape[2]):
                if rollout.levels[n, t, k] != -1:
                    song = int(rollout.slates[n, t, k]), int(rollout.levels[n, t, k])
                    found.append((n, t, k, *song))
    return found


def brute_force_diversity(rollout: Rollout, vectors: npt.NDArray) -> float:
    values = []
    for session in rollout.slates:
        for slate in session:
            known = [v for v in slate if v >= 0 and not np.isnan(vectors[v]).any()]
            if len(known) < 2:
                continue
            cosines = [
                vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
                for a, b in combinations(known, 2)
            ]
            values.append(1 - np.mean(cosines))
    return float(np.mean(values))


def test_means_over_songs_against_loops(rollout: Rollout, world: CatalogStats) -> None:
    songs = heard_songs(rollout)
    assert len(songs) == 35
    smoothed = (world.plays + 1) / (world.plays.sum() + NUM_TRACKS)
    assert skip_rate(rollout).mean == pytest.approx(np.mean([s[4] in (0, 1) for s in songs]))
    assert popularity(rollout, world).mean == pytest.approx(
        np.mean([world.plays[s[3]] for s in songs])
    )
    assert novelty(rollout, world).mean == pytest.approx(
        np.mean([-np.log2(smoothed[s[3]]) for s in songs])
    )
    assert imputed(rollout).mean == pytest.approx(
        np.mean([not rollout.logged[s[:3]] for s in songs])
    )
    assert features_known(rollout, world).mean == pytest.approx(
        np.mean([s[3] not in (3, 4) for s in songs])
    )
    assert session_return(rollout).mean == pytest.approx(rollout.returns.mean())


def test_diversity_against_all_pairs(rollout: Rollout, world: CatalogStats) -> None:
    for vectors in (world.features, world.embedding):
        assert diversity(rollout.slates, vectors).mean == pytest.approx(
            brute_force_diversity(rollout, vectors)
        )


def test_diversity_of_known_slates() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    for slate, expected in (
        ([0, 2, 2], 0.0),  # parallel vectors of different length
        ([0, 1, 3], 1.0),  # orthogonal; a zero vector has no direction and is left out
        ([0, 4, 3], 2.0),  # opposite
        ([0, 1, 2], 2 / 3),
    ):
        assert diversity(np.array([[slate]]), vectors).mean == pytest.approx(expected)


def test_a_slate_without_a_pair_counts_nowhere() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]])
    alone = np.array([[[0, 1], [0, -1]]])
    assert diversity(alone, vectors).denominator.tolist() == [1.0]
    assert np.isnan(diversity(np.array([[[0, -1]]]), vectors).mean)


def test_novelty_counts_bits() -> None:
    """Seven plays over nine songs smooth to sixteenths: one play is three bits, none is four."""
    world = CatalogStats(
        features=np.ones((9, 8)), embedding=np.ones((9, 1)), plays=np.array([1] * 7 + [0] * 2)
    )
    assert novelty(rollout_of([[[0, 8]]], [[[4, 4]]]), world).mean == pytest.approx(3.5)


@pytest.mark.parametrize("num_tracks", [1, 2, 7, 100])
def test_equal_exposure(num_tracks: int) -> None:
    counts = np.full(num_tracks, 3)
    assert coverage(counts) == 1.0
    assert effective_catalog_size(counts) == pytest.approx(num_tracks)
    assert gini(counts) == pytest.approx(0.0)


@pytest.mark.parametrize("num_tracks", [1, 2, 7, 100])
def test_exposure_of_a_single_song(num_tracks: int) -> None:
    counts = np.zeros(num_tracks, dtype=int)
    counts[num_tracks // 2] = 12
    assert coverage(counts) == pytest.approx(1 / num_tracks)
    assert effective_catalog_size(counts) == pytest.approx(1.0)
    assert gini(counts) == pytest.approx((num_tracks - 1) / num_tracks)


def test_gini_against_mean_absolute_difference() -> None:
    counts = np.random.default_rng(0).poisson(2.0, size=60)
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))


def test_exposure_ignores_what_was_not_heard(rollout: Rollout) -> None:
    counts = exposure(rollout, NUM_TRACKS)
    expected = np.zeros(NUM_TRACKS, dtype=int)
    for song in heard_songs(rollout):
        expected[song[3]] += 1
    assert counts.tolist() == expected.tolist()


def test_nothing_heard_is_nan_and_no_warning(world: CatalogStats) -> None:
    silent = rollout_of([[[-1, -1]]], [[[-1, -1]]])
    values = measure(silent, world)
    assert values["coverage"] == 0.0
    for name in set(METRICS) - {"coverage", "return"}:
        assert np.isnan(values[name]), name


def test_measure_names_every_metric_in_order(rollout: Rollout, world: CatalogStats) -> None:
    values = measure(rollout, world)
    assert list(values) == list(METRICS)
    parts = per_session(rollout, world)
    assert set(parts) == {name for name, metric in METRICS.items() if metric.per_session}
    for name, part in parts.items():
        assert part.numerator.shape == rollout.sessions.shape
        assert values[name] == pytest.approx(part.numerator.sum() / part.denominator.sum())
    for name, metric in METRICS.items():
        assert metric.limits[0] <= values[name] <= metric.limits[1]


def test_reranking_expects_what_all_random_choices_average() -> None:
    rng = np.random.default_rng(1)
    candidates = rng.integers(0, 5, size=(4, 6)).astype(np.int8)
    candidates[2, 5:] = -1
    chosen = candidates[:, [1, 4, 0]]
    slates = np.zeros((4, 2, 3), dtype=np.int32)
    levels = np.stack([chosen, np.zeros_like(chosen)], axis=1)
    result = reranking(
        rollout_of(slates, levels, logged=np.ones((4, 2, 3), dtype=np.bool_)), candidates
    )
    for session, row in enumerate(candidates):
        plays = row[row >= 0]
        every = [sum(level < 2 for level in choice) for choice in combinations(plays, 3)]
        assert result.denominator[session] == pytest.approx(np.mean(every))
        assert result.numerator[session] == sum(level < 2 for level in chosen[session])


def test_reranking_refuses_imputed_labels_and_missing_candidates() -> None:
    toy = rollout_of([[[0, 1, 2]]], [[[0, 4, 4]]])
    with pytest.raises(ValueError, match='candidates="session"'):
        reranking(toy, np.zeros((1, 5), dtype=np.int8))
    real = rollout_of([[[0, 1, 2]]], [[[0, 4, 4]]], logged=np.ones((1, 1, 3), dtype=np.bool_))
    with pytest.raises(ValueError, match="at least as many plays"):
        reranking(real, np.array([[0, 4, -1]], dtype=np.int8))


def test_first_musicbox_figures_by_hand(tmp_path: Path) -> None:
    """Two sessions of four plays over the tracks 0 to 3; the catalog keeps most played first."""
    tracks = np.array([0, 1, 0, 2, 0, 1, 0, 3])
    levels = np.array([0, 4, 4, 4, 0, 0, 1, 4], dtype=np.int8)
    write_dataset(
        tmp_path,
        [
            PlayBlock(
                session_ids=np.array(["a", "b"], dtype=object),
                lengths=np.array([4, 4]),
                vocabulary=np.array(["t0", "t1", "t2", "t3"], dtype=object),
                columns={"track": tracks, "level": levels},
            )
        ],
        features=None,
        split=SplitConfig(train=1.0, validation=0.0, test=0.0),
        about={},
    )
    log = Dataset(tmp_path).sessions
    features = np.eye(4, 8)
    world = CatalogStats(features=features, embedding=features, plays=np.ones(4, dtype=int))
    figures = first_musicbox_figures(
        rollout_of([[[0, 1]], [[2, 1]]], np.full((2, 1, 2), 4)), world, log
    )
    # Session a: track 0 skipped in one of two plays, track 1 kept. b: 2 is not there, 1 skipped.
    assert figures["skip_rate"] == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert figures["share_in_session"] == pytest.approx(3 / 4)
    assert figures["skip_rate_all_data"] == pytest.approx(4 / 8)
    assert figures["diversity_percent"] == pytest.approx(100.0)
    assert figures["diversity_percent_sessions"] == pytest.approx(100.0)


def test_a_rollout_survives_its_file(rollout: Rollout, tmp_path: Path) -> None:
    rollout.save(tmp_path / "toy.npz")
    found = Rollout.load(tmp_path / "toy.npz")
    assert (found.agent, found.seed, found.evaluator) == ("toy", 0, "nobody")
    for name in ("sessions", "slates", "levels", "logged", "returns"):
        before, after = getattr(rollout, name), getattr(found, name)
        assert after.dtype == before.dtype
        assert np.array_equal(before, after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slates": np.zeros((2, 3), dtype=np.int32)}, "slates has shape"),
        ({"levels": np.zeros((1, 1, 2), dtype=np.int8)}, "levels has shape"),
        ({"returns": np.zeros(3)}, "returns has shape"),
        ({"sessions": np.arange(2), "returns": np.zeros(2)}, "1 rows for 2 sessions"),
        ({"levels": np.full((1, 1, 3), -1, dtype=np.int8)}, "disagree"),
    ],
)
def test_a_rollout_refuses_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(rollout_of([[[0, 1, 2]]], [[[0, 4, 4]]]), **changes)


def test_parts_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match="the denominator"):
        PerSession(np.zeros(3), np.zeros(2))


def test_neighbours_are_songs_heard_one_after_the_other() -> None:
    """Pairs go on from slate to slate; those with a song not heard or not known count nowhere."""
    vectors = np.array([[1.0, 0], [0, 2], [3, 3], [np.nan, 0]])
    slates = np.array([[[0, 2], [1, -1]], [[0, 3], [0, 0]]], np.int32)
    parts = neighbours(slates, vectors)
    np.testing.assert_allclose(parts.numerator, [2 * np.sqrt(0.5), 1.0])
    assert parts.denominator.tolist() == [2, 1]
