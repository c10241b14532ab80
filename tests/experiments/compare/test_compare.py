"""The main job on a small world: trained, evaluated, reported, resumed, reproduced."""

import csv
import json
import os
import shutil
import socket
from dataclasses import replace

import make_yambda
import numpy as np
import pyarrow.parquet as pq
import pytest
from make_yambda import YambdaConfig
from musicbox_agents import load_agent, make_agent
from musicbox_experiments.cluster.tasks import Where
from musicbox_experiments.compare import compare, evaluate
from musicbox_experiments.compare.compare import CompareConfig
from musicbox_experiments.data.sources import Source
from musicbox_experiments.evaluate.metrics import Rollout
from musicbox_experiments.evaluate.reranking import rerank
from musicbox_experiments.evaluate.rollout import roll_out
from musicbox_experiments.serve import recommend
from musicbox_experiments.train import train
from musicbox_experiments.train.jobs import finished_jobs, train_all
from musicbox_experiments.train.variants import parse_settings
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from musicbox_env.data.dataset import Dataset
from musicbox_env.data.splits import SplitConfig
from musicbox_env.ingest.pipeline import IngestConfig, ingest
from musicbox_env.locks import InUseError, held
from musicbox_env.rewards import RewardConfig
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize

SMALL_DDPG = ("ddpg.warmup_updates=20", "ddpg.num_envs=16", "ddpg.learning_starts=32")


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory):
    return CompareConfig(
        source=Source(data=synthetic_folder),
        agents=("logged", "popularity", "ddpg"),
        seeds=2,
        train_steps=160,
        evaluation_sessions=60,
        agent_settings=SMALL_DDPG,
        out=tmp_path_factory.mktemp("runs") / "small",
        workers=1,
    )


@pytest.fixture(scope="module")
def finished(config):
    compare.run(config)
    return config.out


def results(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_leaves_everything_where_one_looks_for_it(finished):
    for name in ("report.html", "results.csv", "summary.json", "config.json"):
        assert (finished / name).stat().st_size > 100
    assert len(list(finished.glob("*.png"))) >= 4
    for seed in (0, 1):
        training = finished / "agents" / "ddpg" / f"seed-{seed}"
        assert (training / "best" / "agent.json").is_file()
        curve = (training / "curve.csv").read_text().splitlines()
        assert curve[0].startswith("steps,validation_skip_rate")
        assert len(curve) > 5
    agents = {(row["agent"], row["seed"]) for row in results(finished)}
    assert agents == {("logged", "0"), ("popularity", "0"), ("ddpg", "0"), ("ddpg", "1")}


def test_tensorboard_shows_the_curve(finished):
    """Read by TensorBoard's own reader; no name holds that of the machine."""
    training = finished / "agents/ddpg/seed-0"
    with (training / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(training / "tensorboard"))
    events.Reload()
    for name in ("validation_skip_rate", "critic_loss"):
        expected = [(int(float(row["steps"])), float(row[name])) for row in rows if row[name]]
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(step, pytest.approx(value)) for step, value in expected]
    assert not [
        file for file in finished.rglob("*") if socket.gethostname() in file.name.split(".")
    ]


def test_nothing_in_a_run_is_pickled(finished):
    endings = {file.suffix for file in finished.rglob("*") if file.is_file()}
    assert not endings & {".pkl", ".pickle", ".pt", ".pth", ".zip"}
    for file in finished.rglob("*.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            assert arrays.files


@pytest.mark.slow
def test_same_command_gives_the_same_results_side_by_side(config, finished, tmp_path):
    again = replace(config, out=tmp_path / "again", workers=2)
    compare.run(again)
    assert results(again.out) == results(finished)
    assert contents(again.out) == contents(finished)


def contents(folder):
    """Every file of a run but for wall times, and for those that name the run's folder."""
    aside = {"timing.json", "config.json", "summary.json", "report.html"}
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in aside
    }


def test_killed_run_goes_on_where_it_stopped(config, finished, tmp_path):
    """What a kill leaves: one training done, one without its last file, no evaluation."""
    out = tmp_path / "killed"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "rollouts")
    for name in ("report.html", "results.csv", "summary.json"):
        (out / name).unlink()
    (out / "agents" / "ddpg" / "seed-1" / "training.json").unlink()
    about = out / "config.json"
    content = json.loads(about.read_text())
    about.write_text(json.dumps({**content, "out": str(out)}))
    kept = out / "agents" / "ddpg" / "seed-0" / "training.json"
    before = kept.stat().st_mtime_ns
    compare.run(replace(config, out=out))
    assert kept.stat().st_mtime_ns == before
    assert results(out) == results(finished)


def test_other_options_in_the_same_folder_are_refused(config, finished):
    with pytest.raises(FileExistsError, match="train_steps"):
        compare.run(replace(config, train_steps=99))


@pytest.fixture
def moved(config, finished, tmp_path):
    """A finished run and its data, both copied; how to replace these by others of that size."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(config.source.data, data)
    shutil.copytree(finished, out)
    for file in out.rglob("*.json"):
        text = file.read_text().replace(str(finished), str(out))
        text = text.replace(str(config.source.data), str(data))
        relative = os.path.relpath(config.source.data, finished / "agents/ddpg/seed-0")
        file.write_text(text.replace(relative, os.path.relpath(data, out / "agents/ddpg/seed-0")))
    return replace(config, source=Source(data=data), out=out)


def test_other_data_under_the_same_path_are_refused(moved, monkeypatch):
    data, out = moved.source.data, moved.out
    compare.run(moved)  # it was copied whole
    synthesize(SyntheticConfig(sessions=600, tracks=200, seed=2), data, overwrite=True)
    both = r"was made on a dataset of 200 tracks.*fingerprint .*, and .*data holds 200 tracks.*"
    with pytest.raises(ValueError, match=f"The run in .*{both}--out"):
        compare.run(moved)
    with pytest.raises(ValueError, match=f"The run in .*{both}back"):
        evaluate.run(evaluate.EvaluateConfig(run=out))
    with pytest.raises(ValueError, match=f"The agent in .*{both}train it again"):
        recommend.recommend(recommend.RecommendConfig(run=out, heard="t_00000001:full"))
    (out / "made_on.json").unlink()
    with pytest.raises(ValueError, match="on a dataset that it does not name"):
        compare.run(moved)
    with pytest.raises(ValueError, match=f"The training in .*{both}Remove it"):
        train_all(finished_jobs(out), Where(workers=1))
    monkeypatch.setattr(compare, "write_report", refuse)
    with pytest.raises(InterruptedError):
        compare.run(replace(moved, overwrite=True, agents=("logged",), agent_settings=()))
    assert json.loads((out / "made_on.json").read_text()) == Dataset(data).identity


def refuse(*_):
    raise InterruptedError


def test_a_folder_at_work_is_refused(config, finished):
    for work in (
        lambda: compare.run(replace(config, out=finished)),
        lambda: evaluate.run(evaluate.EvaluateConfig(run=finished)),
        lambda: train.run(train.TrainConfig(source=config.source, out=finished)),
    ):
        with held(finished), pytest.raises(InUseError, match="is in use by"):
            work()


def test_recommends_songs_that_were_not_heard(finished, synthetic):
    ids = synthetic.catalog.track_ids
    heard = ",".join(f"{ids[row]}:{level}" for row, level in ((0, "full"), (5, "skipped"), (9, 2)))
    config = recommend.RecommendConfig(run=finished, heard=heard)
    songs = recommend.recommend(config)
    assert len(set(songs)) == 3
    assert not set(songs) & {ids[0], ids[5], ids[9]}
    assert set(songs) <= set(ids)
    assert recommend.recommend(config) == songs
    popular = recommend.recommend(replace(config, hour=8, context="radio", agent="popularity"))
    assert popular == [ids[row] for row in (1, 2, 3)]


def test_all_songs_heard_are_barred_however_many(finished, synthetic):
    ids = synthetic.catalog.track_ids
    heard = ",".join(f"{track}:full" for track in ids[:60])
    for agent in ("ddpg", "popularity"):
        config = recommend.RecommendConfig(run=finished, heard=heard, agent=agent)
        songs = recommend.recommend(config)
        assert len(set(songs)) == 3
        assert not set(songs) & set(ids[:60])
    too_many = ",".join(f"{track}:full" for track in ids[:-2])
    with pytest.raises(ValueError, match="no slate of 3 songs is left"):
        recommend.recommend(replace(config, heard=too_many))


def test_recommend_names_what_it_does_not_know(finished):
    with pytest.raises(ValueError, match="premium is 5"):
        recommend.RecommendConfig(run=finished, heard="t:full", premium=5)
    config = recommend.RecommendConfig(run=finished, heard="t_nowhere:full")
    with pytest.raises(KeyError, match="t_nowhere"):
        recommend.recommend(config)
    with pytest.raises(FileNotFoundError, match="did you mean 'ddpg'"):
        recommend.recommend(replace(config, agent="dpg"))
    with pytest.raises(FileNotFoundError, match="seed 7"):
        recommend.recommend(replace(config, seed=7))


def test_evaluate_rolls_a_run_out_again(finished, capsys):
    evaluate.run(evaluate.EvaluateConfig(run=finished, sessions=30))
    shown = capsys.readouterr().out
    assert "30 validation sessions" in shown
    assert shown.count("ddpg") == 4


@pytest.fixture(scope="module")
def acting(synthetic_folder, tmp_path_factory):
    """Trainings that other labels act with, evaluated on validation sessions."""
    config = CompareConfig(
        source=Source(data=synthetic_folder),
        agents=("logged", "ddpg", "ddpg@rerank=0"),
        seeds=2,
        train_steps=40,
        split="validation",
        evaluation_sessions=30,
        agent_settings=(*SMALL_DDPG, "ddpg.log_sessions=40"),
        out=tmp_path_factory.mktemp("runs") / "acting",
        workers=1,
    )
    compare.run(config)
    return config


def test_labels_that_act_otherwise_train_nothing(acting, synthetic):
    """The same songs as those of the checkpoint, loaded and rolled out by hand."""
    assert {folder.name for folder in (acting.out / "agents").iterdir()} == {"logged", "ddpg"}
    kept = Rollout.load(acting.out / "rollouts" / "ground_truth-ddpg@rerank=0-1.npz")
    checkpoint = acting.out / "agents" / "ddpg" / "seed-1" / "best"
    agent = load_agent(checkpoint, synthetic, changed={"rerank": 0})
    options = {"data": str(synthetic.folder), "split": "validation"}
    made = roll_out(agent, options, kept.sessions, listener="ground_truth")
    np.testing.assert_array_equal(made.slates, kept.slates)
    untouched = Rollout.load(acting.out / "rollouts" / "ground_truth-ddpg-1.npz")
    assert not np.array_equal(untouched.slates, kept.slates)
    summary = json.loads((acting.out / "summary.json").read_text())
    assert "ddpg@rerank=0" in summary["evaluators"]["ground_truth"]["against"]["ddpg"]
    assert summary["descriptions"]["ddpg@rerank=0"].startswith("The trainings of ddpg")


def test_sessions_that_picked_checkpoints_evaluate_nothing(acting, synthetic):
    validation = synthetic.sessions.playable("validation")
    training = json.loads((acting.out / "agents/ddpg/seed-0/training.json").read_text())
    picking = validation[: training["validation_sessions"]]
    assert len(picking) == len(validation) // 2
    kept = Rollout.load(acting.out / "rollouts" / "ground_truth-logged-0.npz").sessions
    assert set(kept) <= set(validation) - set(picking)


def test_more_agents_and_seeds_add_to_a_run(acting):
    kept = acting.out / "agents/ddpg/seed-0/training.json"
    before = kept.stat().st_mtime_ns
    agents = (*acting.agents, "ddpg@quality_weight=1")
    compare.run(replace(acting, agents=agents, seeds=3))
    assert kept.stat().st_mtime_ns == before
    summary = json.loads((acting.out / "summary.json").read_text())
    at = summary["evaluators"]["ground_truth"]["agents"]
    assert list(at) == list(agents)
    assert at["ddpg@quality_weight=1"]["seeds"] == [0, 1, 2]


def test_trainings_under_other_settings_are_not_mixed_in(acting):
    with pytest.raises(FileExistsError, match="hidden"):
        compare.run(replace(acting, agent_settings=(*acting.agent_settings, "ddpg.hidden=7")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agents": ("logged", "ddpg@gamma=0.9")}, "setting of how a trained ddpg acts 'gamma'"),
        ({"agents": ("logged", "ddpg@rerak=3")}, "did you mean 'rerank'"),
        ({"agents": ("logged", "ddpg@rerank")}, "expected AGENT.NAME=VALUE"),
        ({"against": "dppg"}, "did you mean 'ddpg'"),
    ],
)
def test_labels_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**options)


def test_settings_are_read_as_json():
    parsed = parse_settings(["ddpg.gamma=0.5", "ddpg.start=cloned", "sb3-ddpg.net_arch=[8, 8]"])
    assert parsed == {
        "ddpg": {"gamma": 0.5, "start": "cloned"},
        "sb3-ddpg": {"net_arch": [8, 8]},
    }


def test_agents_are_evaluated_with_the_same_random_numbers(synthetic, synthetic_folder):
    """Two agents that recommend alike are heard alike, however the sessions are batched."""
    options = {"data": str(synthetic_folder), "split": "test"}
    sessions = synthetic.sessions.sessions_in("test")[:50]
    agent = make_agent("popularity", synthetic)
    whole = roll_out(agent, options, sessions, listener="ground_truth")
    parts = [
        roll_out(make_agent("popularity", synthetic), options, part, listener="ground_truth")
        for part in (sessions[:17], sessions[17:])
    ]
    for name in ("slates", "levels"):
        joined = [np.full((50, 4, 3), -1), 0]
        for part in parts:
            rows = getattr(part, name)
            joined[0][joined[1] : joined[1] + len(rows), : rows.shape[1]] = rows
            joined[1] += len(rows)
        full = getattr(whole, name)
        np.testing.assert_array_equal(joined[0][:, : full.shape[1]], full)


def test_reranking_counts_real_labels_against_a_random_choice(synthetic, synthetic_folder):
    sessions = synthetic.sessions.sessions_in("test")[:40]
    options = {"data": str(synthetic_folder), "split": "test"}
    result = rerank(make_agent("popularity", synthetic), options, sessions)
    for i, session in enumerate(sessions):
        plays = synthetic.sessions.frame(session)
        rest = plays.iloc[len(plays) // 2 :]
        first = rest.sort_values("track", kind="stable").iloc[:3]
        if rest["track"].duplicated().any():
            continue
        assert result.numerator[i] == (first["level"] < 2).sum()
        assert result.denominator[i] == pytest.approx(3 * (rest["level"] < 2).mean())


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        (("logged", "random", "random"), "random twice"),
        (("logged", "ddpg@rerank=-1"), "at least 0"),
        (("logged", "ddpg@rerank=x"), "whole number"),
    ],
)
def test_labels_that_cannot_be_evaluated_are_refused_before_training(agents, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(agents=agents)


def test_a_rollout_of_another_agent_is_made_anew(config, tmp_path):
    run = tmp_path / "run"
    options = train.TrainConfig(
        source=config.source,
        agent="linucb",
        train_steps=32,
        seeds=2,
        listener="replay",
        out=run,
        workers=1,
    )
    train.run(options)
    again = evaluate.EvaluateConfig(run=run, evaluator=("replay",), sessions=20)

    def evaluated(seed):
        evaluate.run(again)
        return next(run.rglob(f"rollouts/replay-linucb-{seed}.npz")).read_bytes()

    first = evaluated(0)
    assert evaluated(0) == first
    shutil.copy(*(run / f"agents/linucb/seed-{seed}/best/weights.npz" for seed in (1, 0)))
    assert evaluated(0) != first


def test_a_training_with_other_options_is_refused(config, tmp_path):
    options = train.TrainConfig(
        source=config.source, agent="linucb", train_steps=16, listener="replay", out=tmp_path
    )
    train.run(options)
    for changed in ({"train_steps": 32}, {"reward": RewardConfig(listen=0, novelty=1)}):
        with pytest.raises(FileExistsError, match=r"other options \((steps|reward)\)"):
            train.run(replace(options, **changed))


def test_the_report_says_how_sessions_were_split_and_who_chose_their_songs(tmp_path):
    plays = make_yambda.plays(YambdaConfig(listeners=8, plays=4_000, tracks=200))
    pq.write_table(plays.table, tmp_path / "listens.parquet")
    split = SplitConfig(split="time", gap="1h")
    source = (str(tmp_path / "listens.parquet"),)
    data = ingest(IngestConfig(source, tmp_path / "data", split=split, progress=False))
    config = CompareConfig(
        source=Source(data=data),
        agents=("logged", "random"),
        listener="replay",
        out=tmp_path / "run",
        workers=1,
    )
    compare.run(config)
    report = (config.out / "report.html").read_text()
    log = Dataset(data).sessions
    assert "split by time, with a gap of 1h" in report
    assert f"{100 * log.column('source').mean():.1f} % of the plays were recommended" in report
