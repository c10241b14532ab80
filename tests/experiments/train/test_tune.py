"""A search for settings: what it tries, that it goes on, and what it prints enters a comparison."""

import json
import shlex
from dataclasses import replace

import optuna
import pytest
from musicbox_agents import agent_class
from musicbox_experiments.cli import main
from musicbox_experiments.compare.config import CompareConfig
from musicbox_experiments.data.sources import Source
from musicbox_experiments.train import tune
from musicbox_experiments.train.search_space import defaults_in, space_of
from musicbox_experiments.train.variants import parse_settings
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SMALL = ("ddpg.warmup_updates=20", "ddpg.num_envs=16", "ddpg.learning_starts=32")

NAMES = ("gamma", "actor_rate", "average_critic")


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory):
    return tune.TuneConfig(
        source=Source(data=synthetic_folder),
        trials=7,
        train_steps=96,
        search=("gamma=0.0..0.9", "actor_rate=1e-5..1e-2:log", "average_critic=true,false"),
        agent_settings=SMALL,
        out=tmp_path_factory.mktemp("tuned") / "search",
        workers=1,
    )


@pytest.fixture(scope="module")
def made(config):
    tune.run(config)
    return config.out


def tried(study):
    """Settings, state and values of the trials that ended."""
    ended = [trial for trial in study.trials if trial.state != optuna.trial.TrialState.FAIL]
    return [
        (trial.user_attrs["settings"], trial.state.name, trial.value, trial.intermediate_values)
        for trial in ended
    ]


def test_the_first_trial_has_the_defaults_and_the_best_is_kept(config, made):
    study = tune.search(config)
    trials = tried(study)
    assert len(trials) == config.trials
    assert trials[0][0] == {"gamma": 0.0, "actor_rate": 3e-4, "average_critic": True}
    best = json.loads((made / "best.json").read_text())
    assert best["validation_skip_rate"] == min(t[2] for t in trials if t[1] == "COMPLETE")
    assert best["settings"] in [settings for settings, *_ in trials]
    for name in ("history.png", "importance.png"):
        assert (made / name).read_bytes().startswith(b"\x89PNG")


def test_values_are_of_validation_sessions_alone(config, made):
    """Each value is the lowest of its training's own validation curve."""
    lowest = {}
    for folder in made.glob("trials/*/seed-0"):
        has = json.loads((folder / "best/agent.json").read_text())["settings"]
        rates = [float(row.split(",")[1]) for row in (folder / "curve.csv").read_text().split()[1:]]
        lowest[json.dumps([has[name] for name in NAMES])] = min(rates)
    for settings, _, value, at_rungs in tried(tune.search(config)):
        of_curve = lowest[json.dumps([settings[name] for name in NAMES])]
        assert of_curve == (at_rungs[max(at_rungs)] if value is None else value)


def test_a_search_that_was_stopped_tries_what_it_would_have(config, made, tmp_path, monkeypatch):
    stopped = replace(config, out=tmp_path / "stopped")
    passed, train = [], tune.train

    def train_until_stopped(job, **options):
        if len(passed) == 7:
            raise KeyboardInterrupt
        passed.append(job)
        train(job, **options)

    monkeypatch.setattr(tune, "train", train_until_stopped)
    with pytest.raises(KeyboardInterrupt):
        tune.run(stopped)
    monkeypatch.undo()
    tune.run(stopped)
    assert tried(tune.search(stopped)) == tried(tune.search(config))


def test_what_it_prints_enters_a_comparison(config, made, capsys):
    tune.run(config)
    printed = capsys.readouterr().out.splitlines()
    command = shlex.split(printed[-1])
    given = command[command.index("--agent-settings") + 1 : command.index("--out")]
    assert given[: len(SMALL)] == list(SMALL)
    assert f"--agent-settings {' '.join(given[len(SMALL) :])}" in printed
    CompareConfig(agents=("logged", "ddpg", "ddpg+tuned"), agent_settings=tuple(given))
    best = json.loads((made / "best.json").read_text())["settings"]
    tuned = parse_settings(given)["ddpg+tuned"]
    assert tuned == {**parse_settings(SMALL)["ddpg"], **best}


def test_ranges(tmp_path):
    space = space_of(agent_class("ddpg"), ["gamma=0.0..0.5", "hidden=8..64:log", "rerank=0,30"])
    assert space == {
        "gamma": FloatDistribution(0.0, 0.5),
        "hidden": IntDistribution(8, 64, log=True),
        "rerank": CategoricalDistribution([0, 30]),
    }
    assert defaults_in(agent_class("ddpg"), space) == {"gamma": 0.0, "hidden": 32}
    usual = space_of(agent_class("ddpg"), ())
    assert set(defaults_in(agent_class("ddpg"), usual)) == set(usual)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--search", "gama=0..1"], "gama"),
        (["--search", "gamma"], "expected NAME=LOW..HIGH or NAME=A,B,C"),
        (["--search", "gamma=1..0"], "the lower one first"),
        (["--search", "tau=0..1:log"], "both above 0 for a logarithmic range"),
        (["--search", "gamma=0.5"], "two values or more"),
        (["--agent", "popularity"], "popularity does not learn"),
        (["--trials", "0"], "trials is 0"),
        (["--cluster", "here"], "--cluster is 'here'"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tune", *options])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert message in " ".join(told.replace("│", " ").split())
    assert "Traceback" not in told
