"""Every command once from a fresh folder, with its default paths or relative ones."""

from pathlib import Path

import minari
import pytest
from musicbox_experiments.cli import COMMANDS, main

FEW = ["--train-steps", "60", "--workers", "1"]
RUNS = {
    "synthesize": (["--sessions", "400", "--tracks", "300", "--out", "syn"], "syn/dataset.json"),
    "describe": (["syn"], None),
    "export": (["syn", "--minari", "--sessions", "20"], "runs/minari/musicbox-logged-v0"),
    "fit-listener": (["syn", "--max-epochs", "1", "--members", "1"], "syn/listeners/learned.npz"),
    "fit-leaving": (["syn", "--resamples", "10"], "syn/leaving.json"),
    "train": (["--data", "syn", *FEW], "runs/train"),
    "compare": (
        ["--data", "syn", "--agents", "logged", "ddpg", "--seeds", "1", *FEW],
        "runs/compare/report.html",
    ),
    "evaluate": (["runs/compare", "--sessions", "30"], None),
    "recommend": (["runs/compare", "--heard", "t_00000001:full,t_00000002:skipped"], None),
    "trust": (
        [
            *("syn", "--listener", "ground_truth", "--sessions", "30", "--training-sessions", "60"),
            *("--evaluated-sessions", "20", "--samples", "2", "--draws", "5", "--resamples", "10"),
        ],
        "runs/trust",
    ),
    "ingest": (["raw/sessions.csv.gz", "--tracks", "raw/tracks.csv", "--out", "d"], "d"),
    "calibrate-gain": (
        [
            *("--sessions", "300", "--tracks", "200", "--agents", "logged", "best-rate"),
            *("--seeds", "1", "--listener-sessions", "100", "--evaluation-sessions", "40"),
            *FEW,
        ],
        "runs/gains",
    ),
    "benchmark": (["--only", "statistics", "--runs", "1"], "runs/benchmark/benchmark.json"),
}
"""Arguments of each command, which name nothing but what they must, and what it leaves."""


@pytest.mark.slow
def test_every_command_from_a_fresh_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert set(RUNS) == set(COMMANDS)
    main(["synthesize", "--sessions", "400", "--tracks", "300", "--raw", "raw"])
    for command, (arguments, left) in RUNS.items():
        main([command, *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err, command
        assert left is None or Path(left).exists(), command


@pytest.mark.parametrize("out", ["runs/minari", "here", "../there/./deep/er"])
def test_an_export_goes_to_any_relative_folder(synthetic, tmp_path, monkeypatch, out):
    start = tmp_path / "start"
    start.mkdir()
    monkeypatch.chdir(start)
    main(["export", str(synthetic.folder), "--minari", "--sessions", "4", "--out", out])
    monkeypatch.setenv("MINARI_DATASETS_PATH", out)
    assert len(minari.load_dataset("musicbox-logged-v0")) == 4
