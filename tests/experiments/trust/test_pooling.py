"""Means of simulator validation reports over test folds of the same sessions."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from musicbox_experiments.cli import main
from musicbox_experiments.trust.records import Record, pooled, read_report
from musicbox_experiments.trust.trust import TrustConfig, run

from musicbox_env.data.splits import SplitConfig

NEXT = ("learned", "next play")
AUC = Record(*NEXT, "auc", 0.8)


def write(folder, *records, fold=0, split=None):
    split = SplitConfig(test_fold=fold).about() if split is None else split
    folder.mkdir()
    held = {"split": split, "figures": [asdict(record) for record in records]}
    (folder / "trust.json").write_text(json.dumps(held))
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
        write(tmp_path / "b", shared[1], unknown[1], exact[1], fold=3),
    ]
    run(TrustConfig(pool=tuple(folders), out=tmp_path / "out"))
    report = read_report(tmp_path / "out")
    found = report.figures
    kept = SplitConfig().about()
    del kept["test_fold"]
    assert report.split == {**kept, "test_folds": [0, 3]}
    assert set(found) == {(*NEXT, m) for m in ("auc", "brier", "accuracy")}
    auc = found[*NEXT, "auc"]
    assert (auc.value, auc.reference) == (pytest.approx(0.82), pytest.approx(0.81))
    assert auc.high - auc.low == pytest.approx(np.hypot(0.2, 0.08) / 2)
    assert found[*NEXT, "brier"].value is None
    assert found[*NEXT, "accuracy"] == Record(*NEXT, "accuracy", 0.6)
    printed = capsys.readouterr().out
    assert "Means of 2 test folds" in printed
    assert "0.820 [0.766, 0.874]" in printed


def told(reports, out, capsys):
    """What a refused --pool says."""
    with pytest.raises(SystemExit):
        main(["trust", "--pool", *map(str, reports), "--out", str(out)])
    assert not out.exists()
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_mistakes_are_told(tmp_path, capsys):
    some = write(tmp_path / "some", AUC)
    other = write(tmp_path / "other", Record("similarity", "next play", "auc", 0.8), fold=1)
    files = {"bad": '{"split": {}, "figures": [{"listener": 1}]}', "old": "[]", "odd": "{}"}
    for name, text in (files | {"word": '{"split": "hash", "figures": []}'}).items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "trust.json").write_text(text)
    for reports, message in (
        ([some], "expected two different folders"),
        ([some, some], "expected two different folders"),
        ([some, tmp_path / "nowhere"], "musicbox trust --out"),
        *(([some, tmp_path / name], "is not a list of figures and their") for name in files),
        ([some, tmp_path / "old"], "names no split"),
        ([some, tmp_path / "word"], "its split is 'hash'"),
        ([some, other], "no figure in common"),
    ):
        assert message in told(reports, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (SplitConfig(split="time", gap="3d").about(), "b is a report on a split by time"),
        (
            SplitConfig(split="time", train_until="2024-01-01", test_from="2024-02-01").about(),
            "b is a report on a split by time",
        ),
        (SplitConfig().about(), "are both reports on test fold 0"),
        (SplitConfig(seed=7, test_fold=1).about(), "expected test folds of one split"),
        (
            SplitConfig(train=0.6, test=0.3, test_fold=1).about(),
            "expected test folds of one split",
        ),
        ({**SplitConfig().about(), "test_fold": None}, "b is not a report on one test fold"),
        ({}, "b is not a report on one test fold"),
    ],
)
def test_only_test_folds_of_one_split_are_averaged(tmp_path, capsys, split, message):
    reports = [write(tmp_path / "a", AUC), write(tmp_path / "b", AUC, split=split)]
    assert message in told(reports, tmp_path / "out", capsys)


def test_means_of_means_are_refused(tmp_path, capsys):
    folds = [write(tmp_path / str(fold), AUC, fold=fold) for fold in range(3)]
    run(TrustConfig(pool=tuple(folds[:2]), out=tmp_path / "two"))
    message = told([tmp_path / "two", folds[2]], tmp_path / "out", capsys)
    assert "two is not a report on one test fold" in message
