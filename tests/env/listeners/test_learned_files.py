"""Where a learned listener comes from: its own fit, the bundled one, or a refusal."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
from worlds import next_plays

from musicbox_env.data.checks import FileError
from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import LearnedListener, make_listener, require_listener
from musicbox_env.listeners.files import read_fit, write_fit
from musicbox_env.listeners.learned.features import TRACK_INPUTS, WEAR_INPUTS
from musicbox_env.listeners.learned.listener import BUNDLED, INPUTS, Calibration, FittedNetwork


def test_an_own_fit_comes_before_the_bundled_one(synthetic_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(synthetic_folder, folder)
    fit = FittedNetwork.load(BUNDLED)
    calibration = Calibration((1, 1), (1, 3), fit.calibration.usual)
    file = folder / "listeners" / "learned.npz"
    about = {**fit.about, "fitted_on": Dataset(folder).identity}
    FittedNetwork(fit.network, calibration, about).save(file)
    assert make_listener("learned", Dataset(folder)).fit.calibration.simulated == (1, 3)
    FittedNetwork(fit.network, calibration, fit.about).save(file)
    with pytest.raises(ValueError, match="made on a dataset that it does not name"):
        make_listener("learned", Dataset(folder))


def test_a_dataset_without_a_fit_is_told_how_to_get_one(synthetic_folder, tmp_path):
    folder = tmp_path / "logs"
    shutil.copytree(synthetic_folder, folder)
    about = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(about.replace('"taste": "default"', '"taste": "high"'))
    with pytest.raises(FileNotFoundError, match="musicbox fit-listener"):
        make_listener("learned", Dataset(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [("lerned", "did you mean 'learned'"), ("fit.npy", "path of a fitted one")],
)
def test_unknown_listeners_are_refused(synthetic, name, message):
    with pytest.raises(ValueError, match=message):
        make_listener(name, synthetic)
    with pytest.raises(ValueError, match=message):
        require_listener(name)


def test_files_that_are_none_are_refused(synthetic, tmp_path):
    with pytest.raises(FileNotFoundError, match="fit-listener"):
        make_listener(str(tmp_path / "missing.npz"), synthetic)
    junk = tmp_path / "junk.npz"
    junk.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="that `musicbox fit-listener` wrote"):
        make_listener(str(junk), synthetic)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, about=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="that `musicbox fit-listener` wrote"):
        make_listener(str(pickled), synthetic)
    other = tmp_path / "other.npz"
    write_fit(other, {"listener": "learned", "inputs": {"track": ["weather"]}}, {})
    with pytest.raises(ValueError, match="other inputs"):
        make_listener(str(other), synthetic)


def reading_wear(fit):
    """The same network with inputs of wear, which count nothing."""
    wear = np.zeros((fit.network.members, len(WEAR_INPUTS), 1), np.float32)
    wider = {
        name: np.insert(getattr(fit.network, name), [before] * len(WEAR_INPUTS), wear, axis=1)
        for name, before in (
            ("play_units", 6 + len(TRACK_INPUTS)),
            ("track_units", len(TRACK_INPUTS)),
            ("track_outputs", len(TRACK_INPUTS)),
        )
    }
    usual = (*fit.calibration.usual, *wear[0, :, 0])
    calibration = dataclasses.replace(fit.calibration, usual=usual)
    return FittedNetwork(dataclasses.replace(fit.network, **wider), calibration, fit.about)


def test_inputs_of_wear_that_count_nothing_change_nothing(synthetic):
    plain = FittedNetwork.load(BUNDLED)
    assert not plain.network.reads_wear
    wider = reading_wear(plain)
    assert wider.network.reads_wear
    one, other = (
        next_plays(LearnedListener(synthetic, fit), np.arange(20)) for fit in (plain, wider)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_file_has_the_inputs_of_its_network(tmp_path):
    plain, file = FittedNetwork.load(BUNDLED), tmp_path / "fit.npz"
    wider = reading_wear(plain)
    wider.save(file)
    assert FittedNetwork.load(file).inputs == wider.inputs
    about, arrays = read_fit(file)
    short = {**about["calibration"], "usual": plain.calibration.usual}
    for changed in ({"inputs": INPUTS}, {"calibration": short}):
        write_fit(file, {**about, **changed}, arrays)
        with pytest.raises(FileError, match="it the listener again"):
            FittedNetwork.load(file)


def test_answers_need_no_torch(synthetic_folder):
    """In a process of its own: opening and asking must not import torch."""
    code = (
        "import sys, gymnasium, musicbox_env\n"
        f"env = gymnasium.make('MusicSession-v0', data={str(synthetic_folder)!r}, "
        "listener='learned')\n"
        "env.reset(seed=0); env.step(env.action_space.sample())\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
