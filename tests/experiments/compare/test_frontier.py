"""The frontier of skips against variety, from trained agents under other settings of acting."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from musicbox_agents import load_agent
from musicbox_experiments.compare import frontier
from musicbox_experiments.compare.frontier import FrontierConfig
from musicbox_experiments.data.sampling import picking_sessions
from musicbox_experiments.evaluate.metrics import Rollout, effective_catalog_size, exposure
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.train.jobs import jobs_for, train_all
from musicbox_experiments.train.simulators import Listeners

from musicbox_env.rewards import RewardConfig

SMALL = {
    "hidden": 8,
    "num_envs": 16,
    "log_sessions": 40,
    "warmup_updates": 20,
    "learning_starts": 16,
    "rerank": 6,
}


@pytest.fixture(scope="module")
def finished(synthetic_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    jobs = jobs_for(
        ["logged", "popularity", "ddpg", "skyline"],
        2,
        settings={"ddpg": SMALL},
        options={"data": str(synthetic_folder), "split": "train", "reward": asdict(RewardConfig())},
        steps=40,
        out=folder,
        listeners=Listeners("ground_truth", "law", "ground_truth", "law", {}),
        validation_sessions=20,
    )
    train_all(jobs, workers=1)
    return folder


@pytest.fixture(scope="module")
def drawn(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("frontier")
    frontier.run(FrontierConfig(finished, ("rerank=0", "rerank=40"), out=out))
    return out


def points(folder):
    return {p["label"]: p for p in json.loads((folder / "frontier.json").read_text())["points"]}


def test_every_setting_and_every_other_agent_is_a_point(drawn):
    found = points(drawn)
    assert list(found)[:3] == ["ddpg", "ddpg@rerank=0", "ddpg@rerank=40"]
    assert set(found) == {*list(found)[:3], "logged", "popularity", "skyline"}
    assert found["ddpg@rerank=40"]["changed"] == {"rerank": 40}
    assert [found[label]["bound"] for label in ("skyline", "logged")] == [True, False]
    assert len(found["ddpg@rerank=0"]["by_seed"]["skip_rate"]) == 2
    assert (drawn / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_point_is_the_checkpoint_acting_otherwise(drawn, finished, synthetic, synthetic_folder):
    """The same figures as when the checkpoint is loaded and rolled out by hand."""
    kept = Rollout.load(drawn / "rollouts" / "ground_truth-ddpg@rerank=40-1.npz")
    checkpoint = finished / "agents" / "ddpg" / "seed-1" / "best"
    agent = load_agent(checkpoint, synthetic, changed={"rerank": 40})
    made = roll_out(
        agent,
        {"data": str(synthetic_folder), "split": "validation"},
        kept.sessions,
        listener="ground_truth",
    )
    np.testing.assert_array_equal(made.slates, kept.slates)
    np.testing.assert_array_equal(made.levels, kept.levels)
    untouched = Rollout.load(drawn / "rollouts" / "ground_truth-ddpg-1.npz")
    assert not np.array_equal(untouched.slates, kept.slates)
    point = points(drawn)["ddpg@rerank=40"]
    assert point["by_seed"]["effective_catalog_size"][1] == pytest.approx(
        effective_catalog_size(exposure(made, len(synthetic.catalog)))
    )
    before, after = (
        np.array(points(drawn)[label]["by_seed"]["skip_rate"]) for label in ("ddpg", point["label"])
    )
    assert point["change"]["skip_rate"]["value"] == pytest.approx((after - before).mean())


def test_sessions_that_picked_the_checkpoint_evaluator_none(drawn, synthetic):
    kept = Rollout.load(drawn / "rollouts" / "ground_truth-ddpg-0.npz")
    assert not set(kept.sessions) & set(picking_sessions(synthetic, 20))
    assert set(kept.sessions) <= set(synthetic.sessions.sessions_in("validation"))


def test_where_most_sessions_picked_the_checkpoint_all_evaluator_and_it_says_so(
    finished, synthetic, tmp_path, tmp_path_factory
):
    """As in a comparison on few sessions, which lets all of them pick."""
    run = tmp_path_factory.mktemp("copied")
    shutil.copytree(finished, run, dirs_exist_ok=True)
    shutil.rmtree(run / "agents" / "skyline")
    for file in run.glob("agents/*/seed-*/training.json"):
        about = json.loads(file.read_text())
        file.write_text(json.dumps({**about, "validation_sessions": 500}))
    frontier.run(FrontierConfig(run, ("rerank=3",), beside=(), out=tmp_path / "out"))
    about = json.loads((tmp_path / "out" / "frontier.json").read_text())
    playable = len(synthetic.sessions.playable("validation"))
    assert about["sessions"] == about["sessions_that_picked_checkpoints"] == playable


def test_on_the_frontier_is_who_is_not_beaten_in_both(drawn):
    """By brute force over all pairs of points."""
    found = [p for p in points(drawn).values() if not p["bound"]]
    for point in found:
        beaten = any(
            other["skip_rate"]["value"] <= point["skip_rate"]["value"]
            and other["effective_catalog_size"]["value"] >= point["effective_catalog_size"]["value"]
            and other["by_seed"] != point["by_seed"]
            for other in found
        )
        assert point["on_frontier"] == (not beaten)
    assert any(point["on_frontier"] for point in found)


def test_settings_of_learning_cannot_be_changed_afterwards(finished, synthetic):
    with pytest.raises(ValueError, match="setting of how a trained ddpg acts 'gamma'"):
        FrontierConfig(finished, ("rerank=3,gamma=0.9",))
    with pytest.raises(ValueError, match="did you mean 'rerank'"):
        FrontierConfig(finished, ("rerak=3",))
    checkpoint = finished / "agents" / "ddpg" / "seed-0" / "best"
    with pytest.raises(ValueError, match="hidden"):
        load_agent(checkpoint, synthetic, changed={"hidden": 9})


def test_unknown_agents_are_refused_with_a_suggestion(finished):
    with pytest.raises(ValueError, match="did you mean 'ddpg'"):
        frontier.run(FrontierConfig(finished, ("rerank=3",), agent="ddpg+x"))
