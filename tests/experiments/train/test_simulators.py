"""Listeners that train, pick checkpoints and evaluate: never one learned listener for all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.cluster.tasks import Where
from musicbox_experiments.evaluate.metrics import skip_rate
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.listeners import fit_listener
from musicbox_experiments.train.jobs import jobs_for, read_training, train, trained
from musicbox_experiments.train.simulators import (
    choose_listeners,
    directions_for,
    fit_missing,
    pessimistic,
    require_choice,
)

from musicbox_env.listeners import make_listener
from musicbox_env.listeners.files import read_fit
from musicbox_env.simulator.assets import open_dataset
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A dataset of few sessions."""
    folder = tmp_path_factory.mktemp("small") / "data"
    synthesize(SyntheticConfig(sessions=200, tracks=120, seed=2), folder)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def learned(small, tmp_path_factory):
    """Listeners of no use, but quickly fitted."""
    [direction] = directions_for("learned", (), small, "folds")
    out, fit = tmp_path_factory.mktemp("run"), fit_listener.run
    quick = {"members": 1, "max_epochs": 1, "memory": 4, "head": 7, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_listener, "run", lambda config: fit(replace(config, **quick)))
        fit_missing("learned", [(small, out, direction)], Where(workers=1))
        return choose_listeners("learned", (), small, out, direction)


def test_learned_listeners_of_three_roles_are_three(learned):
    own = "learned-own-fold"
    assert (learned.training_name, learned.picking_name) == (own, f"{own}-seed-1")
    others = ["learned-other-fold", "pessimistic-other-fold"]
    assert list(learned.evaluators) == ["ground_truth", *others, "replay", own]
    assert learned.picking not in learned.evaluators.values()
    about, weights = read_fit_of(learned.training)
    again, others = read_fit_of(learned.picking)
    assert about["part"]["name"] == again["part"]["name"] == "train_a"
    different = [not np.array_equal(weights[name], others[name]) for name in weights]
    assert sum(different) > len(different) / 2
    evaluator, _ = read_fit_of(learned.evaluators["learned-other-fold"])
    assert evaluator["part"]["name"] == "train_b"
    careful, _ = read_fit_of(learned.evaluators["pessimistic-other-fold"])
    assert (careful["part"]["name"], careful["pessimism"]) == ("train_b", 1.0)


def read_fit_of(file):
    return read_fit(Path(file))


def test_the_exact_law_trains_picks_and_evaluates(small, tmp_path):
    listeners = choose_listeners("auto", (), small, tmp_path)
    assert listeners.training == listeners.picking == "ground_truth"
    assert list(listeners.evaluators) == ["ground_truth", "replay"]
    assert not list(tmp_path.iterdir())


def test_the_picking_listener_picks(learned, small, tmp_path):
    """The curve of a training is of the picking listener, and not of that of the training."""
    options = {"data": str(small.folder), "split": "train", "reward": None}
    [job] = jobs_for(
        ["linucb"],
        1,
        settings={},
        options=options,
        steps=60,
        out=tmp_path,
        listeners=learned,
        validation_sessions=15,
    )
    train(job)
    about = read_training(tmp_path / "agents/linucb/seed-0")
    assert about["options"]["listener"] == learned.training
    assert about["validation_listener"] == learned.picking
    rows = (tmp_path / "agents/linucb/seed-0/curve.csv").read_text().splitlines()[1:]
    best = min(float(row.split(",")[1]) for row in rows)
    agent = trained(job)
    sessions = agent.dataset.sessions.playable("validation")[:15]
    picked, trained_with = (
        roll_out(agent, {**options, "split": "validation"}, sessions, listener=listener)
        for listener in (learned.picking, learned.training)
    )
    assert skip_rate(picked).mean == pytest.approx(best)
    assert not np.array_equal(picked.levels, trained_with.levels)


def test_pessimism_is_that_of_the_variant_alone(learned, small, tmp_path):
    options = {"data": str(small.folder), "split": "train", "reward": None}
    jobs = jobs_for(
        ["ddpg", "ddpg+pessimistic"],
        1,
        settings={},
        options=options,
        steps=1,
        out=tmp_path,
        listeners=learned,
    )
    plain, careful = (make_listener(job.options["listener"], small) for job in jobs)
    assert (plain.pessimism, careful.pessimism) == (0.0, 1.0)
    with pytest.raises(ValueError, match="--listener learned"):
        pessimistic("ground_truth", 1.0)


def test_modes_of_the_similarity_listener_can_be_named(small, tmp_path):
    listeners = choose_listeners("similarity-grouped_cosine", ("replay",), small, tmp_path)
    assert listeners.picking == listeners.training
    listener = make_listener(listeners.training, small)
    assert listener.config.mode == "grouped_cosine"
    with pytest.raises(ValueError, match="did you mean 'grouped_cosine'"):
        require_choice("similarity-grouped_cosin")


@pytest.mark.parametrize("listener", ["fits/mine.npz", "similarity", "ground_truth"])
def test_the_listener_learned_with_evaluates_too(small, tmp_path, listener):
    chosen = choose_listeners(listener, ("ground_truth", "replay"), small, tmp_path)
    assert chosen.training == listener
    assert chosen.evaluators[chosen.training_name] == listener
    assert {"ground_truth", "replay"} <= set(chosen.evaluators)


def test_two_evaluators_of_one_name_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"a/l\.npz and b/l\.npz would both be called 'l'"):
        choose_listeners("replay", ("a/l.npz", "b/l.npz"), small, tmp_path)
