"""Agents know nothing of the plays that their evaluator knows, and the other way round."""

import json
from pathlib import Path

import numpy as np
import pytest
from divided import CHANGES, divided_world
from musicbox_agents import load_agent
from musicbox_experiments.compare import compare, evaluate
from musicbox_experiments.compare.config import CompareConfig
from musicbox_experiments.data.sources import Source
from musicbox_experiments.evaluate.rollout import Rollout, roll_out
from musicbox_experiments.listeners import fit_listener
from musicbox_experiments.listeners.fit_listener import FitListenerConfig
from musicbox_experiments.serve import recommend
from musicbox_experiments.train.jobs import jobs_for, train, trained
from musicbox_experiments.train.simulators import Listeners, directions_for
from musicbox_experiments.train.variants import parse_settings

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.training_parts import PARTS, open_part, rows_in
from musicbox_env.listeners import make_listener
from musicbox_env.listeners.files import read_fit
from musicbox_env.listeners.learned.listener import plays_known

SMALL = (
    *("ddpg.warmup_updates=10", "ddpg.num_envs=8", "ddpg.learning_starts=16"),
    *("linucb.num_envs=8",),
)
AGENTS = ("popularity", "best-rate", "item-knn", "session-knn", "linucb", "ddpg", "bc")
QUICK = {"members": 1, "max_epochs": 1, "memory": 4, "head": 7, "progress": False}


def changes(fast):
    """All changes, all but one as slow ones."""
    return [
        name if name == fast else pytest.param(name, marks=pytest.mark.slow) for name in CHANGES
    ]


def fitted(part, file, seed=0):
    """A listener of a part, of no use but quickly fitted."""
    return str(fit_listener.run(FitListenerConfig(data=part.folder, out=file, seed=seed, **QUICK)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return divided_world(tmp_path_factory.mktemp("world") / "data")


def made_of(part, folder):
    """Everything that learned something from a part: listeners and agents, and what they choose."""
    own, picking = (fitted(part, folder / f"{seed}.npz", seed) for seed in (0, 1))
    listeners = Listeners(own, "own", picking, "picking", {})
    found = {"listeners": [contents(own), contents(picking)]}
    jobs = jobs_for(
        AGENTS,
        1,
        settings=parse_settings(SMALL),
        options={"data": str(part.folder), "split": "train", "reward": None},
        steps=40,
        out=folder,
        listeners=listeners,
        validation_sessions=5,
    )
    sessions = part.sessions.playable("test")[:8]
    for job in jobs:
        train(job)
        agent = trained(job)
        options = {"data": str(part.folder), "split": "test"}
        slates = roll_out(agent, options, sessions, listener="replay").slates
        found[job.agent] = [{k: v.tobytes() for k, v in agent.arrays().items()}, slates.tobytes()]
    return found


def contents(file):
    about, arrays = read_fit(Path(file))
    return json.dumps(about, sort_keys=True), {k: v.tobytes() for k, v in arrays.items()}


@pytest.fixture(scope="module")
def before(world, tmp_path_factory):
    return made_of(open_part(world, "train_a"), tmp_path_factory.mktemp("before"))


@pytest.mark.parametrize("change", changes("relabelled"))
def test_what_is_made_of_a_part_is_the_same_whatever_the_other_holds(before, tmp_path, change):
    other = divided_world(tmp_path / "data", CHANGES[change])
    assert made_of(open_part(other, "train_a"), tmp_path / "run") == before


def test_what_is_made_of_a_part_depends_on_its_own_plays(before, tmp_path):
    other = divided_world(tmp_path / "data", CHANGES["relabelled"], "train_a")
    after = made_of(open_part(other, "train_a"), tmp_path / "run")
    # Popularity and the songs of sessions are what they were; whatever reads labels is not.
    assert {name for name in before if before[name] != after[name]} >= {
        *("listeners", "best-rate", "session-knn", "linucb", "ddpg", "bc")
    }


@pytest.fixture(scope="module")
def evaluator(world, tmp_path_factory):
    return fitted(open_part(world, "train_b"), tmp_path_factory.mktemp("evaluator") / "B.npz")


@pytest.mark.parametrize("change", changes("renamed"))
def test_an_evaluator_is_the_same_whatever_the_agents_part_holds(
    world, evaluator, tmp_path, change
):
    """It also answers the same in the dataset of the agents, whose tracks have other numbers."""
    other = divided_world(tmp_path / "data", CHANGES[change], "train_a")
    files = [evaluator, fitted(open_part(other, "train_b"), tmp_path / "B.npz")]
    assert contents(files[0]) == contents(files[1])
    tables = []
    for one, file in zip((world, other), files, strict=True):
        agents = open_part(one, "train_a")
        listener = make_listener(file, agents)
        order = np.argsort(agents.catalog.track_ids)
        tables.append([part[order] for part in listener.table.arrays])
        plays = one.catalog.plays("train_b")[rows_in(agents, agents.whole, "tracks")]
        np.testing.assert_array_equal(plays_known(listener), plays)
    for mine, theirs in zip(*tables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """A comparison in both directions; its listeners are there already."""
    out = tmp_path_factory.mktemp("runs") / "both"
    for part in PARTS:
        for seed, end in ((0, ""), (1, "-seed-1")):
            file = out / "listeners" / f"learned-{part[-1].upper()}{end}.npz"
            fitted(open_part(world, part), file, seed)
    config = CompareConfig(
        source=Source(data=world.folder),
        agents=("logged", "popularity", "best-rate", "linucb"),
        seeds=2,
        train_steps=40,
        listener="learned",
        both_directions=True,
        agent_settings=("linucb.num_envs=8",),
        out=out,
        workers=1,
    )
    compare.run(config)
    return config


def test_both_directions_are_trained_evaluated_and_pooled(world, finished):
    summary = json.loads((finished.out / "summary.json").read_text())
    assert summary["sources"] == ["A teaches, B evaluates", "B teaches, A evaluates"]
    names = ["learned-other-fold", "pessimistic-other-fold", "replay", "learned-own-fold"]
    assert list(summary["evaluators"]) == names
    test = world.sessions.playable("test")
    assert summary["evaluators"]["learned-other-fold"]["sessions"] == len(test)
    arms = {part: open_part(world, part) for part in PARTS}
    totals = np.zeros(2)
    for part, dataset in arms.items():
        folder = finished.out / part
        for seed in (0, 1):
            agent = json.loads((folder / f"agents/linucb/seed-{seed}/best/agent.json").read_text())
            assert agent["part"] == part
        kept = Rollout.load(folder / "rollouts" / "learned-other-fold-linucb-0.npz")
        np.testing.assert_array_equal(kept.sessions, dataset.sessions.playable("test"))
        totals += [((kept.levels >= 0) & (kept.levels < 2)).sum(), kept.heard.sum()]
    of = summary["evaluators"]["learned-other-fold"]["agents"]["linucb"]
    assert of["metrics"]["skip_rate"]["by_seed"]["0"] == pytest.approx(totals[0] / totals[1])
    by_source = [of["by_source"][name]["difference"] for name in summary["sources"]]
    gain = of["differences"]["skip_rate"]
    assert min(by_source) - 0.02 < gain["value"] < max(by_source) + 0.02
    assert gain["low"] <= min(gain["value"], np.mean(by_source)) <= gain["high"]
    report = (finished.out / "report.html").read_text()
    assert "share no play" in report
    assert "What the evaluator knows" in report


def test_songs_are_told_apart_by_what_the_evaluator_heard(world, finished):
    summary = json.loads((finished.out / "summary.json").read_text())
    assert "replay" not in summary["knowledge"]
    of = summary["knowledge"]["learned-other-fold"]
    for agent in finished.agents:
        known, some, none = (of[agent][k]["share"] for k in ("heard_20", "heard_5", "never_heard"))
        assert 0 <= known["value"] <= some["value"] <= 1 - none["value"]
    shares, numbers = np.zeros(2), np.zeros(2)
    for i, part in enumerate(PARTS):
        dataset = open_part(world, part)
        kept = Rollout.load(finished.out / part / "rollouts/learned-other-fold-popularity-0.npz")
        other = world.catalog.plays(PARTS[1 - i])[rows_in(dataset, world, "tracks")]
        songs = kept.slates[kept.heard]
        shares[i], numbers[i] = (other[songs] >= 20).sum(), len(songs)
    expected = shares.sum() / numbers.sum()
    assert of["popularity"]["heard_20"]["share"]["value"] == pytest.approx(expected)
    assert of["logged"]["held"]["share"]["value"] == 1.0
    assert of["popularity"]["held"]["share"]["value"] < 1.0


def test_an_agent_of_a_part_is_used_with_its_part_alone(world, finished):
    checkpoint = finished.out / "train_a" / "agents" / "linucb" / "seed-0" / "best"
    assert load_agent(checkpoint, open_part(world, "train_a")).name == "linucb"
    for wrong in (world, open_part(world, "train_b")):
        with pytest.raises(ValueError, match="made of the part 'train_a'"):
            load_agent(checkpoint, wrong)
    heard = f"{world.catalog.track_ids[0]}:full,{world.catalog.track_ids[1]}:skipped"
    songs = recommend.recommend(
        recommend.RecommendConfig(run=finished.out, heard=heard, agent="linucb")
    )
    assert len(set(songs)) == 3
    assert set(songs) <= set(world.catalog.track_ids)


def test_evaluate_takes_the_listener_of_the_other_part(finished, capsys):
    evaluate.run(evaluate.EvaluateConfig(run=finished.out / "train_b", sessions=10, split="test"))
    assert "learned-other-fold" in capsys.readouterr().out
    with pytest.raises(ValueError, match="several runs in one"):
        evaluate.run(evaluate.EvaluateConfig(run=finished.out))


def test_what_is_fitted_on_all_is_evaluated_by_no_learned_listener(world):
    assert [d.agents for d in directions_for("learned", (), world, "all")] == ["train"]
    assert directions_for("learned", (), world, "all")[0].evaluator is None
    with pytest.raises(ValueError, match="cannot evaluate them"):
        directions_for("learned", ("learned",), world, "all")
    shared = directions_for("learned", (), world, "shared", both=True)
    assert [(d.agents, d.listener, d.evaluator) for d in shared] == [
        ("train", "train_a", "train_b"),
        ("train", "train_b", "train_a"),
    ]
    assert directions_for("replay", (), world, "folds")[0].agents == "train"
    assert directions_for("replay", ("pessimistic",), world, "folds")[0].agents == "train_a"


def test_deployed_agents_see_all_and_the_report_says_so(world, tmp_path):
    for seed, end in ((0, ""), (1, "-seed-1")):
        fitted(Dataset(world.folder), tmp_path / "run" / "listeners" / f"learned{end}.npz", seed)
    config = CompareConfig(
        source=Source(data=world.folder),
        agents=("logged", "best-rate"),
        listener="learned",
        fit_on="all",
        out=tmp_path / "run",
        workers=1,
    )
    compare.run(config)
    summary = json.loads((config.out / "summary.json").read_text())
    assert list(summary["evaluators"]) == ["replay"]
    assert any("fitted on all of training" in note for note in summary["notes"])
    about = json.loads((config.out / "agents/best-rate/seed-0/best/agent.json").read_text())
    assert about["part"] == "train"
