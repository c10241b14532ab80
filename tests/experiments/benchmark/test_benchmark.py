"""Rows are measured in turns, absent peers are named, and everything is written."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from allocating import allocate
from musicbox_experiments.benchmark import agents, benchmark
from musicbox_experiments.benchmark.measure import (
    Context,
    NotMeasured,
    Row,
    in_new_process,
    measure,
    speed,
)
from musicbox_experiments.benchmark.retrieval import numpy_top_k, torch_top_k
from musicbox_experiments.benchmark.worlds import grown, random_dataset

from musicbox_env.data.dataset import Dataset


def test_ratio_is_the_median_of_the_runs_and_turns_are_taken():
    order, ours, theirs = [], iter([10.0, 30.0, 20.0]), iter([10.0, 10.0, 20.0])

    def take(who, values):
        order.append(who)
        return next(values)

    row = Row("n", "x/s", lambda: take("ours", ours), {"p": lambda: take("theirs", theirs)}, 2.0)
    result = measure(row, runs=3, section="s")
    assert order == ["ours", "theirs"] * 3
    assert [result[name] for name in ("ours", "theirs", "ratio")] == [20.0, 10.0, 1.0]
    assert [run["ratio"] for run in result["runs"]] == [1.0, 3.0, 1.0]
    assert result["reached"] is False


def test_the_best_peer_counts_and_costs_are_better_where_they_are_less():
    result = measure(Row("memory", "MiB", 50.0, {"limit": 200.0}, 1.0), runs=2, section="s")
    assert (result["ratio"], result["reached"], len(result["runs"])) == (4.0, True, 1)
    for unit, best, ratio in (("MiB", "small", 0.5), ("calls/s", "large", 0.5)):
        peers = {"small": 2.0 if unit == "MiB" else 1.0, "large": 8.0}
        [run] = measure(Row("n", unit, 4.0, peers), runs=1, section="s")["runs"]
        assert (run["peer"], run["ratio"]) == (best, ratio)


def test_speed_is_in_units_of_processor_time():
    def a_fiftieth_of_a_second():
        began = time.process_time()
        while time.process_time() < began + 0.02:
            pass

    assert 25 < speed(a_fiftieth_of_a_second) <= 50
    assert speed(a_fiftieth_of_a_second, 1_000) > 25_000


def test_a_new_process_reports_its_own_time_and_peak():
    found = in_new_process(allocate, 400)
    assert found["sum"] == 400 << 17
    assert found["peak"] > 400
    assert 0 < found["seconds"] < 5
    assert found["clock"] > 0


def test_peers_that_are_not_there_are_named_not_measured(tmp_path):
    for python, message in ((None, "--peers"), (Path(sys.executable), "No module named 'sardine'")):
        context = Context(full=False, peers=python, folder=tmp_path)
        row = Row("n", "x/s", 1.0, {"sardine": lambda c=context: c.peer("sardine", "x")}, 2.0)
        result = measure(row, runs=1, section="s")
        assert (result["ours"], result["ratio"], result["reached"]) == (1.0, None, None)
        assert message in result["notes"][0]
        assert result["notes"][0].startswith("sardine ")


def absent() -> float:
    raise NotMeasured("not installed")


def test_everything_is_written_and_missed_targets_are_marked(tmp_path, monkeypatch, capsys):
    rows = [
        Row("fast", "x/s", lambda: 4.0, {"peer": lambda: 2.0}, 1.0),
        Row("slow", "x/s", lambda: 1.0, {"peer": 2.0}, 1.0, "why"),
        Row("only reported", "s", 0.5),
        Row("absent", "s", absent),
    ]
    monkeypatch.setattr(benchmark, "SECTIONS", {"environment": lambda _: iter(rows)})
    benchmark.run(benchmark.BenchmarkConfig(only=("environment",), runs=2, out=tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()

    def line(name):
        return next(line for line in lines if line.startswith(name))

    assert line("fast").endswith("reached")
    assert line("slow").endswith("SHORT")
    assert line("absent").endswith("not measured")
    assert {"  slow: why", "  absent: not installed"} <= set(lines)
    content = json.loads((tmp_path / "out/benchmark.json").read_text())
    first = content["results"][0]
    assert {"name", "ours", "theirs", "ratio", "target", "reached", "runs"} <= first.keys()
    assert first["runs"] == [{"ours": 4.0, "theirs": 2.0, "ratio": 2.0, "peer": "peer"}] * 2
    assert "SHORT" in (tmp_path / "out/benchmark.txt").read_text()


def test_unknown_sections_are_refused():
    with pytest.raises(ValueError, match="did you mean 'retrieval'"):
        benchmark.BenchmarkConfig(only=("retreival",))
    with pytest.raises(FileNotFoundError, match="no Python"):
        benchmark.BenchmarkConfig(peers=Path("/nowhere/python"))


def test_worlds_are_of_the_size_asked_for_and_kept(tmp_path):
    folder = random_dataset(tmp_path / "world", 50, 3_000, dim=8)
    dataset = Dataset(folder)
    assert (dataset.sessions.num_sessions, len(dataset.catalog)) == (50, 3_000)
    assert dataset.embedding("hybrid").shape == (3_000, 8)
    before = (folder / "dataset.json").stat().st_mtime_ns
    random_dataset(folder, 50, 3_000)
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
    np.testing.assert_array_equal(numpy_top_k(queries, items, 3), exact)
    np.testing.assert_array_equal(torch_top_k(queries, items, 3), exact)


def test_a_training_that_does_not_close_the_gap_reports_how_far_it_came(monkeypatch):
    monkeypatch.setattr(agents, "SESSIONS_OF_A_CHECK", 50)
    small = {"warmup_updates": 0, "log_sessions": 10, "start": "random"}
    with pytest.raises(NotMeasured, match=r"seed 3 not reached: closed -?\d+% in \d+ s"):
        agents.seconds_to_close("ddpg", small, iter([3]), 64)


def test_an_agent_trains_and_recommends_on_a_folder(tmp_path):
    folder = random_dataset(tmp_path / "world", 200, 300)
    trained = agents.train_at_large(str(folder), tmp_path / "agent", 64)
    acting = agents.recommend_at_large(str(folder), tmp_path / "agent")
    assert trained["slate"] > 0
    assert acting["slate"] > 0
    assert 0 < agents.transition_bytes() < 200
