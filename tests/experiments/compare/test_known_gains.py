"""What stated gains are worth: measured on synthetic sessions, quoted in reports."""

import json

import pytest
from musicbox_experiments import drawing
from musicbox_experiments.compare import calibrate_gain, known_gains
from musicbox_experiments.compare.calibrate_gain import CalibrateGainConfig
from musicbox_experiments.listeners import fit_listener
from musicbox_experiments.listeners.fit_listener import FitListenerConfig

from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.training_parts import PARTS, open_part
from musicbox_env.synthetic.generator import SyntheticConfig, synthesize

QUICK = {"members": 1, "max_epochs": 1, "memory": 4, "head": 7, "progress": False}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The command on few sessions; its data and listeners are there already."""
    out = tmp_path_factory.mktemp("runs") / "gains"
    data = synthesize(SyntheticConfig(sessions=300, tracks=120, seed=4), out / "data-300")
    for part in PARTS:
        for seed, end in ((0, ""), (1, "-seed-1")):
            file = out / "300-folds" / "listeners" / f"learned-{part[-1].upper()}{end}.npz"
            folder = open_part(Dataset(data), part).folder
            fit_listener.run(FitListenerConfig(data=folder, out=file, seed=seed, **QUICK))
    config = CalibrateGainConfig(
        sessions=(300,),
        agents=("logged", "best-rate", "linucb"),
        seeds=2,
        train_steps=64,
        evaluation_sessions=40,
        out=out,
        workers=1,
    )
    calibrate_gain.run(config)
    return out / known_gains.FILE


def test_stated_gains_less_true_ones_are_the_excess(measured):
    rows = known_gains.rows(measured)
    assert [(row["sessions"], row["fit_on"]) for row in rows] == [(300, "folds"), (300, "shared")]
    for row in rows:
        assert set(row["agents"]) == {"best-rate", "linucb"}
        for of in row["agents"].values():
            excess = of["stated"]["value"] - of["true"]["value"]
            assert of["excess"]["value"] == pytest.approx(excess)
            assert of["excess"]["low"] <= of["excess"]["value"] <= of["excess"]["high"]
        assert -1 <= row["order"]["low"] <= row["order"]["value"] <= row["order"]["high"] <= 1


def test_agents_of_the_second_way_see_all_of_training(measured):
    checkpoint = "train_a/agents/best-rate/seed-0/best/agent.json"
    parts = [
        json.loads((measured.parent / f"300-{way}" / checkpoint).read_text())["part"]
        for way in ("folds", "shared")
    ]
    assert parts == ["train_a", "train"]


def test_a_report_quotes_the_nearest_size(measured, synthetic, tmp_path):
    [strict, shared] = known_gains.rows(measured)
    sizes = [{**strict, "sessions": size} for size in (10, 1_000, 10**7)]
    file = tmp_path / "known.json"
    file.write_text(json.dumps({"rows": [*sizes, shared]}))
    found = known_gains.gains_known(synthetic, "folds", file)
    assert found["sessions"] == 1_000
    text = known_gains.describe(found)
    assert "1,000 synthetic sessions" in text
    assert "share no play" in text
    assert known_gains.gains_known(synthetic, "folds", tmp_path / "none.json") is None
    assert drawing.png(known_gains.picture([*sizes, shared])).startswith(b"\x89PNG")
