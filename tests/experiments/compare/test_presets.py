"""Presets of the comparison, and the worlds that they are about."""

import json
import re
from dataclasses import replace

import pytest
from musicbox_agents import make_agent
from musicbox_experiments import cli
from musicbox_experiments.compare import compare
from musicbox_experiments.compare.compare import CompareConfig
from musicbox_experiments.compare.presets import PRESETS, options_of, preset_in
from musicbox_experiments.data.sources import Filters, Source
from musicbox_experiments.train.variants import (
    VARIANTS,
    about,
    agent_of,
    class_of,
    parse_settings,
    require_label,
    settings_of,
)

from musicbox_env.data.dataset import Dataset
from musicbox_env.synthetic.generator import SyntheticConfig, write_raw


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_configuration(name):
    config = CompareConfig(**options_of(name))
    assert config.preset == name
    assert config.out.name == name


@pytest.mark.parametrize("name", PRESETS)
def test_every_label_of_a_preset_has_settings_of_its_agent(name):
    options = PRESETS[name].options
    given = parse_settings(options.get("agent_settings", ()))
    for label in options["agents"]:
        settings = class_of(label).Settings.from_mapping(settings_of(label, given))
        assert (label in given) <= (settings != class_of(label).Settings())


def parsed(monkeypatch, arguments):
    """The configuration that a command line of `musicbox compare` leads to."""
    found = []
    monkeypatch.setattr(compare, "run", found.append)
    cli.run_command("compare", arguments)
    return found[0]


def test_explicit_options_win_over_a_preset(monkeypatch):
    paper = parsed(monkeypatch, ["--preset", "paper"])
    assert (paper.seeds, "bayes" in paper.agents) == (10, True)
    other = parsed(monkeypatch, ["--seeds", "2", "--preset=paper", "--agents", "logged", "ddpg"])
    assert other == replace(paper, seeds=2, agents=("logged", "ddpg"))
    # Also where the explicit value is the one that holds without a preset.
    assert parsed(monkeypatch, ["--preset", "paper", "--seeds", "3"]).seeds == 3
    high = parsed(monkeypatch, ["--preset", "high-taste"])
    assert replace(high, preset="paper", source=Source(), out=paper.out) == paper
    assert high.source.taste == "high"


@pytest.mark.parametrize("named", [["--data", "small"], ["--data=small"], ["--sessions", "a.csv"]])
def test_sessions_take_the_place_of_the_world_of_a_preset(monkeypatch, named):
    order = parsed(monkeypatch, ["--preset", "order-late", *named])
    assert (order.horizon, order.source.satiation) == (60, "none")
    assert not order.source.synthetic
    with pytest.raises(SystemExit):
        parsed(monkeypatch, ["--preset", "order-late", "--satiation", "late", *named])


def test_settings_are_added_to_those_of_a_preset_and_win(monkeypatch):
    order = parsed(monkeypatch, ["--preset", "order"])
    mine = ["ddpg+list.history_length=40", "sb3-ddpg.gamma=0.5", "ddpg+list.gamma=0.2"]
    given = parsed(monkeypatch, ["--preset", "order", "--agent-settings", *mine])
    settings = parse_settings(order.agent_settings)
    assert parse_settings(given.agent_settings) == {
        **settings,
        "sb3-ddpg": {"gamma": 0.5},
        "ddpg+list": {**settings["ddpg+list"], "history_length": 40, "gamma": 0.2},
    }
    assert CompareConfig(preset="order", agents=given.agents, agent_settings=tuple(mine)) == (
        CompareConfig(preset="order", agents=given.agents, agent_settings=given.agent_settings)
    )


def test_no_preset_is_the_plain_command(monkeypatch):
    assert parsed(monkeypatch, []) == CompareConfig()
    assert preset_in(["--seeds", "3"]) is None


def test_unknown_presets_are_refused_with_a_suggestion(capsys):
    with pytest.raises(SystemExit):
        cli.run_command("compare", ["--preset", "papr"])
    assert "did you mean 'paper'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="did you mean 'first'"):
        CompareConfig(preset="frist")


def test_real_needs_sessions(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.run_command("compare", ["--preset", "real", "--out", str(tmp_path)])
    assert "--sessions" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_first_is_the_first_musicbox_on_raw_logs(tmp_path, capsys):
    """Its filters, its agent and its listener are in force, and its two figures come out."""
    raw = tmp_path / "raw"
    write_raw(SyntheticConfig(sessions=900, tracks=400, seed=3), raw)
    logs = Source(
        sessions=(str(raw / "sessions.csv.gz"),),
        tracks=(str(raw / "tracks.csv"),),
        filters=PRESETS["first"].options["source"].filters,
    )
    config = CompareConfig(
        **{
            **options_of("first"),
            "source": logs,
            "agents": ("logged", "popularity", "lird+first"),
            "seeds": 1,
            "train_steps": 100,
            "evaluation_sessions": 40,
            "out": tmp_path / "run",
            "workers": 1,
        }
    )
    compare.run(config)
    data = Dataset(config.out / "dataset")
    assert data.about["filters"]["session_length"]["exactly"] == 20
    popularity = data.catalog.features(["us_popularity_estimate"])[:, 0]
    assert popularity.min() >= 95
    agent = json.loads((config.out / "agents/lird+first/seed-0/best/agent.json").read_text())
    assert agent["agent"] == "lird"
    expected = {"history_length": 10, "slate_size": 3, "gamma": 0.99, "actor_rate": 5e-5}
    assert expected.items() <= agent["settings"].items()
    training = json.loads((config.out / "agents/lird+first/seed-0/training.json").read_text())
    assert training["options"]["horizon"] == 150
    assert training["options"]["listener"].endswith("similarity-grouped_cosine.npz")
    summary = json.loads((config.out / "summary.json").read_text())
    assert set(summary["first_musicbox"]) == {"logged", "popularity", "lird+first"}
    assert summary["config"]["preset"] == "first"
    assert list(summary["evaluators"]) == ["replay", "similarity-grouped_cosine"]
    figures = summary["first_musicbox"]["logged"]
    page = (config.out / "report.html").read_text()
    (shown,) = re.findall(r"first MusicBox's two figures</h2>.*?</table>", page, re.S)
    cells = re.findall(r"<span>([^<]*)</span>", shown.partition("logged")[2])
    assert cells[:2] == [f"{100 * figures['skip_rate']:.1f} %", "100.00 %"]
    assert f"{100 * figures['skip_rate_all_data']:.1f} %" in shown
    assert "preset first" in page


def test_filters_make_raw_logs_of_the_synthetic_world(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "musicbox_experiments.data.sources.SyntheticConfig",
        lambda **knobs: SyntheticConfig(sessions=300, tracks=150, **knobs),
    )
    data = Source(filters=Filters(session_length=20)).resolve(tmp_path)
    lengths = Dataset(data).sessions
    assert set(lengths.lengths(lengths.sessions_in("train")).tolist()) == {20}


def test_taste_is_that_of_a_world_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICBOX_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "musicbox_experiments.data.sources.SyntheticConfig",
        lambda **knobs: SyntheticConfig(sessions=300, tracks=150, **knobs),
    )
    folder = Source(taste="high").resolve(tmp_path / "run")
    assert Dataset(folder).about["synthetic"]["taste"] == "high"
    assert Source(taste="high").resolve(tmp_path / "other") == folder
    assert len(list(tmp_path.glob("synthetic-*"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taste": "hihg"}, "did you mean 'high'"),
        ({"taste": "high", "sessions": ("x.csv",)}, "--taste belongs to synthetic"),
        ({"data": "somewhere", "filters": Filters(max_rows=9)}, "belong to raw logs"),
    ],
)
def test_sources_that_contradict_themselves_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Source(**options)


@pytest.mark.parametrize("label", VARIANTS)
def test_every_documented_variant_can_be_made(label, synthetic):
    agent = make_agent(agent_of(label), synthetic, settings=settings_of(label, {}))
    untouched = make_agent(agent_of(label), synthetic)
    assert (agent.settings != untouched.settings) != bool(VARIANTS[label].pessimism)
    assert about(label, {}) == VARIANTS[label].about


def test_settings_of_its_own_are_named_in_what_is_said_of_a_variant():
    given = parse_settings(["planner+blind.reach=nothing", "planner+blind.candidates=9"])
    said = about("planner+blind", given)
    assert said.startswith(about("planner", given))
    assert said.endswith(" With settings of its own: reach=nothing, candidates=9.")
    assert about("planner", given) == about("planner", {})


def test_given_settings_win_over_those_of_a_variant():
    given = {"sb3-ddpg+tuned": {"gamma": 0.3}, "ddpg+mine": {"hidden": 8}}
    tuned = settings_of("sb3-ddpg+tuned", given)
    assert tuned == {**VARIANTS["sb3-ddpg+tuned"].settings, "gamma": 0.3}
    assert settings_of("ddpg+mine", given) == {"hidden": 8}
    assert settings_of("ddpg", given) == {}


def test_a_variant_without_settings_is_refused():
    with pytest.raises(ValueError, match=r"did you mean 'sb3-ddpg\+tuned'"):
        require_label("sb3-ddpg+tunde", {})
    with pytest.raises(ValueError, match="did you mean 'ddpg'"):
        require_label("ddgp+mine", {"ddgp+mine": {"gamma": 0}})
    require_label("ddpg+mine", {"ddpg+mine": {"gamma": 0}})
    with pytest.raises(ValueError, match="did you mean 'gamma'"):
        require_label("ddpg", {"ddpg": {"gama": 0}})
    with pytest.raises(ValueError, match="gamma is 2"):
        require_label("ddpg@rerank=30", {"ddpg": {"gamma": 2}})
    with pytest.raises(ValueError, match="cannot act with reach=song"):
        require_label("ddpg@reach=song", {})


def test_variants_stand_beside_the_untouched_agent(synthetic_folder, tmp_path):
    config = CompareConfig(
        source=Source(data=synthetic_folder),
        agents=("logged", "item-knn", "item-knn+kept"),
        agent_settings=("item-knn+kept.kept_only=true",),
        evaluator=("replay",),
        evaluation_sessions=40,
        out=tmp_path / "run",
    )
    compare.run(config)
    agents = json.loads((config.out / "summary.json").read_text())["evaluators"]["replay"]["agents"]
    assert list(agents) == ["logged", "item-knn", "item-knn+kept"]
    rates = [agents[a]["metrics"]["novelty"]["value"] for a in agents]
    assert len(set(rates)) == 3
