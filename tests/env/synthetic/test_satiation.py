"""Wear-out: by brute force, centred, in files, and the same however the listener is queried."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_synthetic import SMALL

from musicbox_env.data.checks import FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import GroundTruthListener, History, Listener, skip_probability
from musicbox_env.synthetic.satiation import SATIATION_LEVELS, Satiation, satiation_of
from musicbox_env.synthetic.truth import GroundTruth
from musicbox_env.synthetic.world import SyntheticConfig, SyntheticWorld

SHAPES = [Satiation(1.0), Satiation(2.0, 0.0), Satiation(0.5, 0.9, 3), Satiation(2.0, 0.7, 1, 0.1)]
RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((30, 5))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)


def by_hand(satiation: Satiation, heard: list[int], song: int) -> float:
    """The equation of the module, a song heard at a time."""
    total = 0.0
    for age, other in enumerate(reversed(heard)):
        if age >= satiation.lag and other != song:
            cosine = float(VECTORS[other] @ VECTORS[song])
            total += satiation.decay ** (age - satiation.lag) * max(0, cosine - satiation.threshold)
    return total


@pytest.mark.parametrize("satiation", SHAPES)
def test_wear_is_the_documented_sum(satiation: Satiation) -> None:
    heard = RNG.integers(0, 30, (6, 9))
    heard[0], heard[1, 4:], heard[2, :5] = -1, -1, -1
    songs = RNG.integers(0, 30, (6, 4))
    songs[3, 0] = heard[3, 8]
    found = satiation.wear(heard, songs, VECTORS)
    together = satiation.wear(heard, songs[:1], VECTORS)
    in_order = satiation.wear_in_order(heard, songs, VECTORS)
    for i in range(6):
        mine = [int(song) for song in heard[i] if song >= 0]
        for j in range(4):
            assert found[i, j] == pytest.approx(by_hand(satiation, mine, songs[i, j]), abs=1e-5)
            expected = by_hand(satiation, mine, songs[0, j])
            assert together[i, j] == pytest.approx(expected, abs=1e-5)
            expected = by_hand(satiation, mine + songs[i, :j].tolist(), songs[i, j])
            assert in_order[i, j] == pytest.approx(expected, abs=1e-5)
    assert found.max() > 0


@pytest.mark.parametrize("name", ["default", "high", "late"])
def test_the_term_is_0_for_the_average_logged_play_at_each_place(name: str) -> None:
    world = SyntheticWorld(SyntheticConfig(1024, 400, 3, satiation=name))
    songs = next(world.batches()).columns["track"]
    term = world.satiation.logit(
        world.satiation.wear_in_order(songs[:, :0], songs, world.tracks.vectors), np.arange(20)
    )
    assert 0.1 < term.std() < 0.6
    assert np.abs(term.mean(axis=0)).max() < 4 * term.std() / np.sqrt(len(songs))
    late = world.satiation.logit(1.0, np.array([19, 20, 500]))
    assert (
        late[0]
        == late[1]
        == late[2]
        == pytest.approx(world.satiation.strength * (1 - world.satiation.center[-1]))
    )


def test_only_levels_and_what_follows_from_them_know_of_wear() -> None:
    plain, worn = (
        next(SyntheticWorld(SyntheticConfig(800, 400, 3, satiation=name)).batches())
        for name in ("none", "high")
    )
    for name in ("track", "context_type", "shuffle"):
        np.testing.assert_array_equal(plain.columns[name], worn.columns[name])
    np.testing.assert_array_equal(plain.taste, worn.taste)
    assert (plain.columns["level"] != worn.columns["level"]).any()


def test_satiation_by_name_and_by_numbers() -> None:
    assert satiation_of("none") is satiation_of("0") is satiation_of(0.0) is None
    assert satiation_of(1) == satiation_of("1.0,.8") == SATIATION_LEVELS["default"]
    assert satiation_of("2,0.9,6") == SATIATION_LEVELS["late"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hihg", "high"),
        ("HIGH", "did you mean 'high'"),
        ("2;0.9", "STRENGTH,DECAY,LAG"),
        ("1,2,3,4", "STRENGTH,DECAY,LAG"),
        ("nan", "STRENGTH,DECAY,LAG"),
        ("-1", "strength .* -1"),
        ("1e308,0,50", "from 1e-06 to 100"),
        ("0,7", r"decay .* in \[0, 1\)"),
        ("1,1", r"decay .* in \[0, 1\)"),
        ("1,.5,2.5", "lag .* whole number"),
        ("1,.5,51", "lag .* whole number"),
        ("90,.9,2", r"at most (\S+): \1,0.9,2\."),
    ],
)
def test_satiation_that_cannot_be_is_refused(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticWorld(SyntheticConfig(10, 400, satiation=value))


def test_files_of_a_world_without_wear_know_of_none(dataset: Dataset) -> None:
    assert GroundTruth.open(dataset).satiation is None
    law = json.loads((dataset.folder / "truth/law.json").read_text())
    assert set(law) == {"law", "choice"}
    assert "satiation" not in dataset.about["synthetic"]


def test_truth_holds_the_satiation_and_is_checked(worn: Dataset, tmp_path: Path) -> None:
    assert worn.about["synthetic"]["satiation"] == "late"
    found = GroundTruth.open(worn).satiation
    assert found is not None
    assert (found.strength, found.decay, found.lag) == (2.0, 0.9, 6)
    assert len(found.center) == 20
    assert found.center[:7] == (0.0,) * 7
    received = tmp_path / "received"
    shutil.copytree(worn.folder, received)
    file = received / "truth/law.json"
    content = json.loads(file.read_text())
    for name, value in (("lag", 1.5), ("decay", 1.0), ("center", ["x"]), ("strength", None)):
        bad = {**content, "satiation": {**content["satiation"], name: value}}
        file.write_text(json.dumps(bad))
        with pytest.raises(FileError, match=r"law\.json.*satiation"):
            GroundTruth.open(Dataset(received))


def test_listener_adds_wear_however_it_is_queried(worn: Dataset) -> None:
    """Whole slates at once as song by song, and the law's other terms plus the documented one."""
    listener = GroundTruthListener(worn)
    rng, n, rows = np.random.default_rng(5), 40, np.arange(40)
    heard = [History.logged(worn, rows, np.full(n, 4), 40) for _ in range(2)]
    states = [listener.begin(history) for history in heard]
    responses = listener.simulate_response, Listener.simulate_response.__get__(listener)
    for _ in range(4):
        slates, uniforms = rng.integers(0, 200, (n, 3)), rng.random((n, 3))
        slates[0, 1] = -1
        given = rows, slates, np.full((n, 3), -1), uniforms
        levels = [
            respond(state, history, *given)
            for respond, state, history in zip(responses, states, heard, strict=True)
        ]
        np.testing.assert_array_equal(*levels)
    tracks = rng.integers(0, 200, (n, 6))
    asked = states[0], heard[0], rows, tracks, np.full(tracks.shape, -1)
    with_wear = skip_probability(listener.level_probabilities(*asked))
    satiation = listener.truth.satiation
    plain = GroundTruthListener(worn)
    plain.truth = replace(plain.truth, satiation=None)
    without = skip_probability(plain.level_probabilities(*asked))
    term = satiation.logit(
        satiation.wear(heard[0].tracks, tracks, np.asarray(listener.truth.track_vectors)),
        heard[0].count[:, None],
    )
    difference = np.log(with_wear / (1 - with_wear)) - np.log(without / (1 - without))
    np.testing.assert_allclose(difference, term, atol=1e-9)
    assert np.abs(term).max() > 0.5
    assert plain.ranking_space(states[0], rows).exact
    assert not listener.ranking_space(states[0], rows).exact
    assert plain.outlook(states[0], heard[0], rows, tracks) is None


def test_small_world_is_of_no_satiation() -> None:
    assert SMALL.satiation == "none"
    assert SyntheticWorld(SMALL).satiation is None
