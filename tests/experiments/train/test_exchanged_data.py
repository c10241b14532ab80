"""Data that are exchanged while a run is at work are refused, whatever the catalog says."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.compare import evaluation as evaluating
from musicbox_experiments.compare.evaluation import Evaluation, evaluate_one
from musicbox_experiments.data.sources import Source
from musicbox_experiments.train.jobs import train, trained
from musicbox_experiments.train.train import TrainConfig, planned

from musicbox_env.data.dataset import IDENTITY, Dataset

REFUSED = "What this run has made so far was made on a dataset of .* Bring the data"


@pytest.fixture
def data(synthetic_folder, tmp_path):
    return shutil.copytree(synthetic_folder, tmp_path / "data")


@pytest.fixture
def job(data, tmp_path):
    config = TrainConfig(
        source=Source(data=data), agent="linucb", train_steps=30, out=tmp_path / "run"
    )
    (job,) = planned(config)
    return replace(job, validation_sessions=4)


def exchange(data):
    """The same catalog and sessions, heard another way by those of the test split."""
    dataset, file = Dataset(data), data / "plays/level.npy"
    in_test = np.repeat(dataset.sessions.split == 3, np.diff(dataset.sessions.offsets))
    levels = np.load(file)
    assert in_test.any()
    np.save(data / "new.npy", np.where(in_test, 4 - levels, levels).astype(levels.dtype))
    os.replace(data / "new.npy", file)
    about = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**about, IDENTITY: {}}))
    old, new = dataset.identity, Dataset(data).identity
    assert old["catalog_fingerprint"] == new["catalog_fingerprint"]
    assert old != new


def evaluation(job):
    sessions = Dataset(job.options["data"]).sessions.sessions_in("test")[:4]
    options = {**job.options, "split": "test"}
    return Evaluation({"replay": "replay"}, options, sessions, Path(job.folder) / "rollouts", 0)


def test_a_training_on_other_data_than_the_run_began_with_does_not_begin(data, job):
    exchange(data)
    with pytest.raises(ValueError, match=REFUSED):
        train(job)
    assert not Path(job.folder).exists()


def test_a_training_whose_data_are_exchanged_meanwhile_is_not_done(data, job):
    exchanged = []

    def progress(steps):
        if not exchanged:
            exchanged.append(exchange(data))

    with pytest.raises(ValueError, match=REFUSED):
        train(job, progress=progress)
    assert exchanged
    assert not job.done


def test_an_evaluation_on_other_data_is_not_kept(data, job):
    train(job)
    evaluate_one(job, evaluation(job))
    by = evaluation(job)
    shutil.rmtree(by.folder)
    exchange(data)
    for act in (lambda: trained(job), lambda: evaluate_one(job, by)):
        with pytest.raises(ValueError, match=REFUSED):
            act()
    assert not by.folder.exists()
    record = json.loads((Path(job.folder) / "training.json").read_text())
    assert record["dataset"]["fingerprint"] == job.dataset["fingerprint"]


@pytest.mark.parametrize("work", ["roll_out", "rerank"])
def test_an_evaluation_whose_data_are_exchanged_meanwhile_is_not_kept(data, job, monkeypatch, work):
    train(job)
    done = getattr(evaluating, work)

    def then_exchange(*given, **options):
        made = done(*given, **options)
        exchange(data)
        return made

    monkeypatch.setattr(evaluating, work, then_exchange)
    by = evaluation(job)
    with pytest.raises(ValueError, match=REFUSED):
        evaluate_one(job, by)
    kept = {file.name for file in by.folder.glob("*.npz")}
    assert kept == ({"replay-linucb-0.npz"} if work == "rerank" else set())
