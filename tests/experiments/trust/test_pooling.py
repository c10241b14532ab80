"""Means of simulator validation reports over test folds of the same sessions."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from musicbox_experiments.cli import main
from musicbox_experiments.trust.records import Record, pooled, read_records
from musicbox_experiments.trust.trust import TrustConfig, run

NEXT = ("learned", "next play")


def write(folder, *records):
    folder.mkdir()
    (folder / "trust.json").write_text(json.dumps([asdict(record) for record in records]))
    return folder


def keyed(*records):
    return {(r.listener, r.protocol, r.metric): r for r in records}


def test_intervals_of_means_hold_the_truth_as_often_as_they_say():
    """Figures of five reports, each with its own error: the truth .3 in 95 of 100 intervals."""
    rng, held, trials = np.random.default_rng(0), 0, 2000
    for _ in range(trials):
        errors = rng.uniform(0.01, 0.03, 5)
        values = rng.normal(0.3, errors)
        reports = [
            keyed(Record(*NEXT, "auc", v, v - 1.96 * e, v + 1.96 * e))
            for v, e in zip(values, errors, strict=True)
        ]
        (mean,) = pooled(reports)
        assert mean.value == pytest.approx(values.mean())
        held += mean.low < 0.3 < mean.high
    assert held / trials == pytest.approx(0.95, abs=0.015)


def test_only_shared_figures_are_averaged(tmp_path, capsys):
    shared = [Record(*NEXT, "auc", 0.8, 0.7, 0.9, 0.82), Record(*NEXT, "auc", 0.84, 0.8, 0.88, 0.8)]
    unknown = [Record(*NEXT, "brier", None), Record(*NEXT, "brier", 0.2, 0.1, 0.3)]
    exact = [Record(*NEXT, "accuracy", 0.5), Record(*NEXT, "accuracy", 0.7)]
    folders = [
        write(tmp_path / "a", shared[0], unknown[0], exact[0], Record(*NEXT, "log_loss", 0.5)),
        write(tmp_path / "b", shared[1], unknown[1], exact[1]),
    ]
    run(TrustConfig(pool=tuple(folders), out=tmp_path / "out"))
    found = read_records(tmp_path / "out")
    assert set(found) == {(*NEXT, m) for m in ("auc", "brier", "accuracy")}
    auc = found[*NEXT, "auc"]
    assert (auc.value, auc.reference) == (pytest.approx(0.82), pytest.approx(0.81))
    assert auc.high - auc.low == pytest.approx(np.hypot(0.2, 0.08) / 2)
    assert found[*NEXT, "brier"].value is None
    assert found[*NEXT, "accuracy"] == Record(*NEXT, "accuracy", 0.6)
    told = capsys.readouterr().out
    assert "Means of 2 test folds" in told
    assert "0.820 [0.766, 0.874]" in told


def test_mistakes_are_told(tmp_path, capsys):
    some = write(tmp_path / "some", Record(*NEXT, "auc", 0.8))
    other = write(tmp_path / "other", Record("similarity", "next play", "auc", 0.8))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "trust.json").write_text('[{"listener": 1}]')
    for reports, message in (
        ([some], "expected two different folders"),
        ([some, some], "expected two different folders"),
        ([some, tmp_path / "nowhere"], "musicbox trust --out"),
        ([some, tmp_path / "bad"], "is not a list of figures"),
        ([some, other], "no figure in common"),
    ):
        with pytest.raises(SystemExit):
            main(["trust", "--pool", *map(str, reports), "--out", str(tmp_path / "out")])
        assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
