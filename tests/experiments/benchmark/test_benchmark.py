"""Figures are what their runs say, absent peers are named, and everything is written."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.benchmark import benchmark
from musicbox_experiments.benchmark import sections as benchmark_sections
from musicbox_experiments.benchmark.measure import (
    Found,
    Point,
    Record,
    Setting,
    against_limit,
    compare,
    skipped,
    speed,
)
from musicbox_experiments.benchmark.worlds import grown, random_dataset

from musicbox_env.data.dataset import Dataset


def test_ratio_is_the_median_of_the_runs_and_turns_are_taken():
    order, ours, theirs = [], iter([10.0, 30.0, 20.0]), iter([10.0, 10.0, 20.0])

    def take(who, values):
        order.append(who)
        return next(values)

    record = compare(
        "s",
        "n",
        "x/s",
        lambda: take("ours", ours),
        lambda: take("theirs", theirs),
        runs=3,
        bar=2.0,
    )
    assert order == ["ours", "theirs"] * 3
    assert (record.ours, record.theirs, record.ratio) == (20.0, 10.0, 1.0)
    assert record.spread == (1.0, 3.0)
    assert record.reached is False


def test_costs_are_better_where_they_are_less():
    record = against_limit("s", "memory", "MiB", lambda: 50.0, 200.0, runs=2)
    assert record.ratio == 4.0
    assert record.reached


def test_speed_is_in_units_of_processor_time():
    def a_fiftieth_of_a_second():
        began = time.process_time()
        while time.process_time() < began + 0.02:
            pass

    assert 25 < speed(a_fiftieth_of_a_second) <= 50
    assert speed(a_fiftieth_of_a_second, 1_000) > 25_000


def test_peers_that_are_not_there_are_named_not_measured(tmp_path):
    setting = Setting(1, False, None, tmp_path, lambda _: None)
    assert "--peers" in setting.peer("sardine", "x")
    here = Setting(1, False, Path(sys.executable), tmp_path, lambda _: None)
    assert "No module named 'sardine'" in here.peer("sardine", "x")


def test_everything_is_written_and_short_figures_are_told(tmp_path, monkeypatch, capsys):
    found = Found(
        [
            compare("s", "fast", "x/s", lambda: 4.0, lambda: 2.0, runs=2, bar=1.0),
            compare("s", "slow", "x/s", lambda: 1.0, lambda: 2.0, runs=2, bar=1.0, note="why"),
            Record("s", "only reported", "s", 0.5),
            skipped("s", "absent", "not installed"),
        ],
        [Point("ours", "tracks", n, n / 1e6) for n in (10, 100)],
    )
    monkeypatch.setattr(benchmark, "SECTIONS", {"environment": lambda setting: found})
    benchmark.run(benchmark.BenchmarkConfig(only=("environment",), out=tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    of = {name: line for line in lines for name in ("fast", "slow", "absent") if name in line}
    assert "reached" in next(line for line in lines if line.startswith("fast"))
    assert "SHORT" in next(line for line in lines if line.startswith("slow"))
    assert "not installed" in of["absent"]
    content = json.loads((tmp_path / "out/benchmark.json").read_text())
    first = content["records"][0]
    assert {"name", "ours", "theirs", "ratio", "bar", "runs"} <= first.keys()
    assert first["runs"] == [{"ours": 4.0, "theirs": 2.0, "ratio": 2.0}] * 2
    assert (tmp_path / "out/benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_sections_are_refused():
    with pytest.raises(ValueError, match="did you mean 'retrieval'"):
        benchmark.BenchmarkConfig(only=("retreival",))
    with pytest.raises(FileNotFoundError, match="no Python"):
        benchmark.BenchmarkConfig(peers=Path("/nowhere/python"))


def test_worlds_are_of_the_size_asked_for_and_kept(tmp_path):
    folder = random_dataset(tmp_path / "world", 50, 300, dim=8)
    dataset = Dataset(folder)
    assert (dataset.sessions.num_sessions, len(dataset.catalog)) == (50, 300)
    assert dataset.embedding("hybrid").shape == (300, 8)
    before = (folder / "dataset.json").stat().st_mtime_ns
    random_dataset(folder, 50, 300)
    assert (folder / "dataset.json").stat().st_mtime_ns == before
    rows = grown(dataset.embedding("hybrid"), 1_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    nearest = (rows @ dataset.embedding("hybrid").T).max(axis=1)
    assert nearest.mean() > 0.9


def test_numpy_in_tiles_and_torch_are_fair_rivals():
    rng = np.random.default_rng(0)
    items = rng.standard_normal((40_000, 8), dtype=np.float32)
    queries = rng.standard_normal((70, 8), dtype=np.float32)
    exact = np.argsort(-(queries @ items.T), axis=1)[:, :3]
    np.testing.assert_array_equal(benchmark_sections._numpy_top_k(queries, items, 3), exact)
    parts = benchmark_sections._torch_top_k(queries, items, 3)
    np.testing.assert_array_equal(np.concatenate([p.indices.numpy() for p in parts]), exact)
