"""The Python API: the page's examples run, and commands find what they left."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from make_histories import archive_files, make_history, write_zip
from musicbox_experiments import api
from musicbox_experiments.cli import main

from musicbox_env.data.dataset import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
SMALL = {  # what the page leaves at sizes that take minutes
    "open_dataset()": "open_dataset(FOLDER)",
    "steps=4_000": "steps=40, agent_settings=('ddpg.warmup_updates=9',)",
    '"ddpg"))': '"ddpg"), seeds=1, train_steps=40, evaluation_sessions=40, workers=1, '
    "agent_settings=('ddpg.warmup_updates=9',))",
}


@pytest.fixture(scope="module")
def ran(synthetic_folder, tmp_path_factory):
    """What the page's examples leave, run in a folder of their own."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S))
    for text, small in SMALL.items():
        assert text in code
        code = code.replace(text, small)
    here, found = tmp_path_factory.mktemp("notebook"), {"FOLDER": str(synthetic_folder)}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(here)
        exec(code, found)
    return here, found


def test_the_examples_of_the_page_run(ran):
    here, found = ran
    table = found["comparison"].table
    assert list(table.index.names) == ["evaluator", "agent"]
    assert set(table.loc["ground_truth"].index) == {"logged", "best-rate", "ddpg"}
    rates = table.loc["ground_truth", "skip_rate"]
    assert rates.is_monotonic_increasing
    assert ((table["skip_rate_low"] <= table["skip_rate"]) | table["skip_rate_low"].isna()).all()
    assert (here / "skip_rate.png").is_file()
    assert found["comparison"].report == Path("runs/compare/report.html")
    assert all(
        isinstance(f, matplotlib.figure.Figure) for f in found["comparison"].figures.values()
    )


def test_evaluate_gives_what_the_comparison_gives_of_the_same_sessions(ran, synthetic):
    _, found = ran
    agents = [api.make_agent(name, synthetic) for name in ("logged", "best-rate")]
    table = api.evaluate(agents, synthetic, evaluator="replay", sessions=40)
    compared = found["comparison"].table.loc["replay"]
    for row in table.itertuples():
        assert row.skip_rate == pytest.approx(compared.loc[row.agent, "skip_rate"])
    assert list(table["skip_rate"]) == sorted(table["skip_rate"])


def test_a_command_finds_what_python_trained(ran, monkeypatch, capsys):
    here, found = ran
    monkeypatch.chdir(here)
    heard = "t_00000003:full,t_00000017:skipped"
    main(["recommend", "runs/train", "--heard", heard])
    shown = capsys.readouterr().out.splitlines()
    songs = api.recommend(found["agent"], heard, found["data"])
    assert shown == [f"{song.title}  ({song.track_id})" for song in songs.itertuples()]


def test_an_agent_of_a_run_is_opened(ran, synthetic, monkeypatch):
    here, found = ran
    monkeypatch.chdir(here)
    heard = "t_00000003:full,t_00000017:skipped"
    songs = api.recommend(api.open_agent("runs/train"), heard, synthetic)
    pd.testing.assert_frame_equal(songs, api.recommend(found["agent"], heard, synthetic))
    with pytest.raises(FileNotFoundError, match="best-rate"):
        api.open_agent("runs/train", "best-rate")


def test_data_are_made_and_opened_in_one_step(tmp_path, synthetic):
    made = api.synthesize(tmp_path / "world", sessions=60, tracks=100)
    assert isinstance(made, Dataset)
    assert made.sessions.num_sessions == 60
    with pytest.raises(FileExistsError, match="exists already"):
        api.synthesize(tmp_path / "world")
    rows = pd.DataFrame({"session_id": ["a"]})
    rows.to_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="session_position"):
        api.ingest(tmp_path / "none.csv", out=tmp_path / "ingested")
    assert api.open_dataset(synthetic) is synthetic


def test_options_are_named_as_on_the_command_line(tmp_path):
    history = archive_files(make_history(60, tracks=200, days=90, seed=3))
    write_zip(history, tmp_path / "history.zip")
    options = {"timezone": "Europe/Berlin", "split": "time", "min_plays": 12, "embeddings": False}
    data = api.ingest(tmp_path / "history.zip", out=tmp_path / "data", **options, progress=False)
    assert data.about["split"]["kind"] == "time"
    assert np.diff(data.sessions.offsets).min() >= 12
    assert not any("Hours of the day" in note for note in data.about["history"]["notes"])


@pytest.mark.slow
def test_a_script_that_workers_would_begin_anew_is_told_how_to_mend_it(synthetic_folder, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from musicbox_experiments import api\n"
        f"api.compare({str(synthetic_folder)!r}, ('logged', 'linucb'), workers=2, seeds=2,\n"
        "            train_steps=40, evaluation_sessions=40)\n"
    )
    ended = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "A worker process imports this script" in ended.stderr
    assert 'needs `if __name__ == "__main__":`' in ended.stderr.splitlines()[-1]


def test_what_cannot_be_is_refused(synthetic, tmp_path):
    with pytest.raises(ValueError, match="Unknown agent"):
        api.make_agent("dppg", synthetic)
    with pytest.raises(TypeError, match="no option 'sed'; did you mean 'seed'"):
        api.ingest("plays.csv", out=tmp_path / "data", sed=3)
    with pytest.raises(ValueError, match="must be a finite number"):
        api.make_agent("ddpg", synthetic, gamma="abc")
    with pytest.raises(ValueError, match="must name `logged`"):
        api.compare(synthetic, agents=["ddpg"], out=tmp_path)
    with pytest.raises(TypeError, match="trian_steps"):
        api.compare(synthetic, trian_steps=3, out=tmp_path)
    with pytest.raises(TypeError, match="did you mean 'sessions'"):
        api.synthesize(tmp_path / "world", sesions=3)
    with pytest.raises(ValueError, match="Unknown listener 'replai'; did you mean 'replay'"):
        api.train("ddpg", synthetic, listener="replai", out=tmp_path / "run", workers=1)


@pytest.mark.parametrize("value", ["3", float("nan"), 2.5, None])
@pytest.mark.parametrize("name", ["sessions", "tracks", "seed"])
def test_a_world_of_what_is_no_whole_number_is_refused(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is .*; it must be a whole number"):
        api.synthesize(tmp_path / "world", **{name: value})


@pytest.mark.parametrize("given", ["best-rate", ["best-rate"], None, 5])
def test_what_is_no_agent_is_told_how_one_is_made(given, synthetic):
    with pytest.raises(TypeError, match=r"is no agent; expected .* make_agent"):
        api.evaluate(given, synthetic)
    with pytest.raises(TypeError, match="is no agent"):
        api.recommend(given, "t_00000003:full", synthetic)


def test_agents_of_another_catalog_are_refused_where_their_songs_would_be_others(
    synthetic, tmp_path
):
    other = api.synthesize(tmp_path / "world", sessions=60, tracks=100, seed=5)
    agent = api.make_agent("popularity", other)
    for use in (
        lambda: api.evaluate(agent, synthetic, sessions=5),
        lambda: api.evaluate([api.make_agent("popularity", synthetic), agent], synthetic),
        lambda: api.recommend(agent, "t_00000003:full", synthetic),
    ):
        with pytest.raises(
            ValueError, match=r"The agent popularity was made on .*Pass the dataset"
        ):
            use()


@pytest.mark.parametrize(
    "options", [{"sessions": n} for n in (0, -1, 2.5, "5", float("nan"))] + [{"seed": -1}]
)
def test_numbers_that_cannot_be_are_refused_by_evaluate(options, synthetic):
    agent = api.make_agent("popularity", synthetic)
    with pytest.raises(ValueError, match="must be a whole number"):
        api.evaluate(agent, synthetic, **options)
    with pytest.raises(ValueError, match="no agent to evaluate"):
        api.evaluate([], synthetic)


@pytest.mark.parametrize("given", ["logged", None, ["logged", 5]])
def test_names_that_are_no_list_of_texts_are_refused(given, synthetic, tmp_path):
    with pytest.raises(TypeError, match="expected texts in a list or tuple"):
        api.compare(synthetic, given, out=tmp_path / "run")
    with pytest.raises(TypeError, match=r"agent_settings is .*; expected texts"):
        api.train("ddpg", synthetic, out=tmp_path / "run", agent_settings=given)
