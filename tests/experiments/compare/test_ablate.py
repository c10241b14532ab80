"""The ablation: every option of the page has its row, pairs differ in it alone."""

import json
import re
from dataclasses import asdict, fields, replace

import musicbox_agents.ddpg.agent
import numpy as np
import pytest
from musicbox_agents.ddpg.agent import DDPGAgent, DDPGSettings
from musicbox_experiments.compare import ablate
from musicbox_experiments.compare.ablate import AblateConfig
from musicbox_experiments.compare.ablation import Effect, effects, pairs, sides_of
from musicbox_experiments.compare.ablation_report import write_ablation
from musicbox_experiments.data.sources import Source
from musicbox_experiments.evaluate.metrics import CatalogStats, Rollout
from musicbox_experiments.train.departures import departures, published


def numbers_of_the_page():
    return {
        int(n)
        for n in re.findall(r"^ ?(\d+)\. ", musicbox_agents.ddpg.agent.__doc__, flags=re.MULTILINE)
    }


def test_every_number_of_the_page_has_a_row():
    assert len(numbers_of_the_page()) > 15
    assert {option.number for option in departures()} == numbers_of_the_page()


def test_every_setting_exists_and_differs_between_the_sides():
    names = {field.name for field in fields(DDPGSettings)}
    for option in departures():
        assert {*option.published, *option.needs} <= names
        assert set(option.published) == set(option.taken)
        assert option.published != option.taken, option.name


def test_options_are_told_from_the_defaults():
    here = {o.name: o for o in departures(DDPGSettings(gamma=0.9, neighbours=7, rerank=3))}
    assert (here["short-sight"].in_defaults, here["short-sight"].taken) == (False, {"gamma": 0.0})
    assert (here["neighbours"].in_defaults, here["neighbours"].taken) == (True, {"neighbours": 7})
    assert here["rerank"].taken == {"rerank": 3}
    given = {"gamma": 0.9}
    around = pairs(departures(DDPGSettings(gamma=0.9)), given)
    short = next(p for p in around if p.departure.name == "short-sight" and p.base == "default")
    assert (short.absent.label, short.present.label) == ("ddpg", "ddpg+with-short-sight")
    assert all("gamma" in pair.absent.settings for pair in around)


def test_no_two_options_concern_the_same_setting():
    concerned = [name for option in departures() for name in option.published]
    assert len(concerned) == len(set(concerned))


def test_sides_of_a_pair_differ_in_the_option_alone():
    everything = published(departures())
    for pair in pairs(departures()):
        absent, present = (
            asdict(DDPGSettings.from_mapping(side.settings)) for side in (pair.absent, pair.present)
        )
        option = pair.departure
        different = {name for name in absent if absent[name] != present[name]}
        assert different == {n for n in option.published if option.published[n] != option.taken[n]}
        start = {} if pair.base == "default" else everything
        expected = asdict(DDPGSettings.from_mapping({**start, **option.needs, **option.published}))
        assert absent == expected


def test_labels_stand_for_one_agent_each():
    sides = sides_of(pairs(departures()))
    complete = [DDPGSettings.from_mapping(settings) for settings in sides.values()]
    assert len(set(complete)) == len(sides)
    assert DDPGSettings.from_mapping(sides["ddpg"]) == DDPGSettings()
    assert DDPGSettings.from_mapping(sides["ddpg+published"]) == DDPGSettings.from_mapping(
        published(departures())
    )


@pytest.mark.parametrize("label", list(sides_of(pairs(departures()))))
def test_every_side_can_be_made(label, synthetic):
    settings = DDPGSettings.from_mapping(sides_of(pairs(departures()))[label])
    agent = DDPGAgent(synthetic, settings=settings)
    assert agent.env_options["embedding"].startswith("hybrid")


def toy_rollout(label, seed, skips, slates):
    """Ten sessions of one slate of three."""
    levels = np.where(skips, 0, 4).astype(np.int8)
    return Rollout(
        agent=label,
        seed=seed,
        evaluator="toy",
        sessions=np.arange(10),
        slates=slates.astype(np.int32),
        levels=levels,
        logged=np.zeros(levels.shape, bool),
        returns=np.zeros(10),
    )


def toy_effects():
    """Whoever has the rate is skipped once in three and plays one slate, else twice and many."""
    pair = next(p for p in pairs(departures()) if p.departure.name == "rate")
    few = np.tile(np.arange(3), (10, 1, 1))
    many = np.arange(30).reshape(10, 1, 3)
    once, twice = (np.tile(np.arange(3) < n, (10, 1, 1)) for n in (1, 2))
    rollouts = {
        pair.present.label: [toy_rollout("with", s, once, few) for s in range(3)],
        pair.absent.label: [toy_rollout("without", s, twice, many) for s in range(3)],
    }
    world = CatalogStats(np.zeros((30, 8)), np.ones((30, 2)), np.ones(30, int))
    return effects([pair], rollouts, world, resamples=50)


def test_effects_of_a_toy_are_known():
    [effect] = toy_effects()
    assert isinstance(effect, Effect)
    assert effect.skip_rate.value == pytest.approx(-1 / 3)
    assert effect.skip_rate.low == pytest.approx(-1 / 3)
    assert effect.effective_catalog_size.value == pytest.approx(3 - 30)
    assert effect.skip_rate.seeds == 3


def test_outcome_is_written_as_table_page_picture_and_records(tmp_path):
    about = {
        "command": "musicbox ablate",
        "evaluator": "toy",
        "trained_with": "toy",
        "picked_by": "toy",
        "split": "validation",
        "sessions": 10,
        "seeds": 3,
        "train_steps": 1,
    }
    table = write_ablation(tmp_path, toy_effects(), about)
    assert "rate*" in table
    assert "-33.3 [-33.3, -33.3]" in table
    assert "1 of 1 intervals" in table
    page = (tmp_path / "ablate.md").read_text()
    assert "| 3 | rate* | -33.3 [-33.3, -33.3] | -27 [-27, -27] | 33.3 % | 66.7 % |" in page
    [record] = json.loads((tmp_path / "ablate.json").read_text())["effects"]
    assert record["settings"] == {
        "absent": {"embedding": "hybrid"},
        "present": {"embedding": None},
    }
    assert (tmp_path / "ablate-default.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_options_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'rerank'"):
        AblateConfig(only=("rerak",))
    assert AblateConfig(only=("13", "rate")).only == ("13", "rate")


@pytest.fixture(scope="module")
def config(synthetic_folder, tmp_path_factory):
    return AblateConfig(
        source=Source(data=synthetic_folder),
        only=("short-sight", "smoothing"),
        base=("default",),
        seeds=2,
        train_steps=40,
        evaluation_sessions=20,
        agent_settings=(
            "ddpg.warmup_updates=5",
            "ddpg.log_sessions=40",
            "ddpg.num_envs=16",
            "ddpg.learning_starts=16",
        ),
        out=tmp_path_factory.mktemp("runs") / "ablate",
        workers=1,
    )


@pytest.fixture(scope="module")
def finished(config):
    ablate.run(config)
    return config.out


def records(folder):
    return json.loads((folder / "ablate.json").read_text())


def test_run_evaluates_on_validation_sessions_that_picked_nothing(finished, synthetic):
    about = records(finished)
    assert about["split"] == "validation"
    assert [effect["option"] for effect in about["effects"]] == ["short-sight", "smoothing"]
    [rollout, *_] = sorted((finished / "rollouts").glob("*.npz"))
    evaluated = set(Rollout.load(rollout).sessions.tolist())
    validation = synthetic.sessions.sessions_in("validation")
    training = json.loads((finished / "agents/ddpg/seed-0/training.json").read_text())
    picking = set(validation[: training["validation_sessions"]].tolist())
    assert evaluated <= set(validation.tolist()) - picking
    assert len(picking) == len(validation) // 2


def test_shared_agents_are_trained_once(finished):
    trained = {folder.name for folder in (finished / "agents").iterdir()}
    assert trained == {"ddpg", "ddpg+without-short-sight", "ddpg+with-smoothing"}


def test_another_call_adds_to_what_is_there(config, finished):
    kept = finished / "agents/ddpg/seed-0/training.json"
    before = kept.stat().st_mtime_ns
    lost = finished / "rollouts" / "ground_truth-ddpg-1.npz"
    content = Rollout.load(lost)
    lost.unlink()
    ablate.run(replace(config, only=("7",), seeds=3))
    assert kept.stat().st_mtime_ns == before
    np.testing.assert_array_equal(Rollout.load(lost).levels, content.levels)
    about = records(finished)
    assert [effect["option"] for effect in about["effects"]] == ["short-sight"]
    assert about["effects"][0]["effect"]["skip_rate"]["seeds"] == 3
    with pytest.raises(FileExistsError, match="train_steps"):
        ablate.run(replace(config, train_steps=41))


def test_trainings_under_other_defaults_are_not_mixed_in(config, finished):
    file = finished / "agents/ddpg/seed-0/best/agent.json"
    content = file.read_text()
    about = json.loads(content)
    about["settings"]["hidden"] = 7
    file.write_text(json.dumps(about))
    with pytest.raises(FileExistsError, match="hidden"):
        ablate.run(config)
    file.write_text(content)
