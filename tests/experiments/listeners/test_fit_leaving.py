"""Fitting when listeners leave: known hazards come back, what is worth nothing gains nothing."""

import json
import shutil

import numpy as np
import pytest
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.listeners.fit_leaving import (
    FitLeavingConfig,
    Moments,
    fit,
    gains,
    log_likelihood,
    run,
    training_moments,
)
from worlds import planted_world

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners.leaving import LeavingModel

TRUTH = LeavingModel(
    first=10,
    position=tuple(np.linspace(-2.0, -3.0, 10)),
    last=(-1.5, -0.5, -0.5, 0.0, 0.0),
)


def moments_of(model, n, seed):
    """Sessions of up to 20 songs at random levels, whose listeners leave by a model."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 5, (n, 20)).astype(np.int8)
    session, count, left = [], [], []
    there = np.arange(n)
    for heard in range(10, 20):
        leaves = rng.random(len(there)) < model.chances(levels[there], np.full(len(there), heard))
        session.append(there)
        count.append(np.full(len(there), heard))
        left.append(leaves)
        there = there[~leaves]
    session, count, left = (np.concatenate(part) for part in (session, count, left))
    return Moments(session, levels[session], count, left, n, 10, 19)


def test_known_hazards_come_back():
    found = fit(moments_of(TRUTH, 30_000, 0))
    np.testing.assert_allclose(found.position, TRUTH.position, atol=0.25)
    np.testing.assert_allclose(found.last, TRUTH.last, atol=0.2)
    np.testing.assert_allclose(found.before, 0, atol=0.2)
    assert found.skip_rate == pytest.approx(0, abs=0.3)


def test_only_what_matters_gains():
    train, evaluated = (moments_of(TRUTH, n, seed) for n, seed in ((4_000, 1), (2_000, 2)))
    resampling = Resampling(2_000, rng=np.random.default_rng(0), resamples=200)
    found = dict(gains(train, evaluated, resampling))
    assert found["level of the song just heard"].low > 10
    assert found["share skipped of all before"].low < 2
    assert found["all three"].value == pytest.approx(
        found["level of the song just heard"].value, abs=8
    )


def test_the_likelihood_written_out():
    moments = moments_of(TRUTH, 50, 3)
    expected = np.zeros(50)
    for session, levels, count, left in zip(
        moments.session, moments.levels, moments.count, moments.left, strict=True
    ):
        chance = TRUTH.chances(levels[None], np.array([count]))[0]
        expected[session] += np.log(chance if left else 1 - chance)
    np.testing.assert_allclose(log_likelihood(TRUTH, moments), expected)


def test_moments_of_logged_sessions(synthetic):
    """Sessions of full length never leave; the others do once, after their last song."""
    sessions = synthetic.sessions.sessions_in("test")
    moments = Moments.of(synthetic, sessions, 10)
    lengths = synthetic.sessions.lengths(sessions)
    assert moments.left.sum() == (lengths < 20).sum()
    np.testing.assert_array_equal(
        np.bincount(moments.session, minlength=len(sessions)), np.minimum(lengths, 19) - 9
    )
    np.testing.assert_array_equal(moments.count[moments.left], lengths[lengths < 20])


def test_synthetic_sessions_leave_by_position_alone(synthetic_folder, tmp_path, capsys):
    """The generator draws lengths whatever was skipped; the command finds nothing else."""
    out = tmp_path / "leaving.json"
    assert run(FitLeavingConfig(synthetic_folder, out=out, resamples=50)) == out
    printed = capsys.readouterr().out
    assert "held-out sessions" in printed
    assert "all three" in printed
    model = LeavingModel.load(out, Dataset(synthetic_folder))
    assert model.first == 10
    assert len(model.position) == 10


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="resamples is 0"):
        FitLeavingConfig(resamples=0)


def test_windows_of_histories_tell_nothing_of_leaving(synthetic_folder, tmp_path):
    folder = tmp_path / "history"
    shutil.copytree(synthetic_folder, folder)
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(about | {"history": {"listeners": 1}}))
    with pytest.raises(ValueError, match="divided into sessions"):
        training_moments(Dataset(folder))


def test_sessions_of_one_length_tell_nothing_of_leaving(tmp_path):
    dataset = planted_world(tmp_path / "data")
    with pytest.raises(ValueError, match="nobody is seen to leave"):
        training_moments(dataset)
