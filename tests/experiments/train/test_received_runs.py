"""Runs that came from elsewhere: what their files cause is said with the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from musicbox_experiments.cli import USER_ERROR, main
from musicbox_experiments.compare.evaluation import Evaluation, evaluate_one
from musicbox_experiments.evaluate.rollout import Rollout
from musicbox_experiments.serve.recommend import RecommendConfig, recommend
from musicbox_experiments.train.folder import MADE_ON
from musicbox_experiments.train.jobs import TrainingJob, curve, finished_jobs, seconds, train

from musicbox_env.data.writing import write_json
from musicbox_env.errors import InputError

HEARD = "t_00000001:full"


@pytest.fixture(scope="module")
def made(synthetic, tmp_path_factory):
    """A run of an agent that need not learn, with a curve as if it had."""
    run = tmp_path_factory.mktemp("run") / "run"
    folder = run / "agents/popularity/seed-0"
    options = {"data": str(synthetic.folder), "split": "train", "listener": "replay"}
    options["reward"] = {"listen": 1.0}
    train(TrainingJob("popularity", 0, {}, options, 10, str(folder)))
    write_json(run / MADE_ON, synthetic.identity)
    (folder / "curve.csv").write_text("steps,validation_skip_rate\n10,0.5\n")
    return run


@pytest.fixture
def run(made, synthetic, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")
    about = json.loads((made / "agents/popularity/seed-0/training.json").read_text())
    about["options"]["data"] = str(synthetic.folder)
    write_json(run / "agents/popularity/seed-0/training.json", about)
    return run


def training_of(run):
    return run / "agents/popularity/seed-0/training.json"


def asked(run):
    return recommend(RecommendConfig(run=run, heard=HEARD, agent="popularity"))


def test_a_run_as_it_was_made(run):
    assert len(asked(run)) == 3
    (job,) = finished_jobs(run)
    assert curve(job) == [(10, 0.5)]
    assert seconds(job) >= 0


@pytest.mark.parametrize("name", ["validation_listener", "listener", "data"])
@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_paths_that_no_system_takes_are_refused_by_file(run, name, path):
    about = json.loads(training_of(run).read_text())
    (about if name in about else about["options"])[name] = path
    training_of(run).write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"training\.json"):
        finished_jobs(run)


ODD = (None, -1, "x", {}, [], True, 10**30, {"a": {}}, 0.5)


def test_every_field_of_a_training_is_checked(run):
    file = training_of(run)
    about = json.loads(file.read_text())
    places = [(name,) for name in about] + [("options", name) for name in about["options"]]
    refused = []
    for place in places:
        for odd in ODD[place == ("options", "data") :]:  # None is the bundled dataset
            changed = json.loads(json.dumps(about))
            inner = changed if len(place) == 1 else changed["options"]
            inner[place[-1]] = odd
            file.write_text(json.dumps(changed))
            try:
                finished_jobs(run)
                asked(run)
            except (InputError, FileNotFoundError) as error:
                refused.append(str(error))
    assert len(refused) > 60
    assert not [s for s in refused if file.name not in s and "x is not a dataset" not in s]


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", "[" * 9_000, '{"options": {}}'])
def test_a_training_of_another_shape_is_named(run, content):
    training_of(run).write_text(content)
    with pytest.raises(InputError, match=r"training\.json: .* train anew"):
        finished_jobs(run)


@pytest.mark.parametrize("name", ["seed-x", "seed-", "seed--1", "seed-0.5", "seed-0 copy"])
def test_a_folder_that_is_named_after_no_seed_is_refused_by_name(run, name, capsys):
    folder = training_of(run).parent
    shutil.copytree(folder, folder.with_name(name))
    for ask in (finished_jobs, asked):
        with pytest.raises(InputError, match=rf"training\.json: it lies in '{name}'; expected"):
            ask(run)
    with pytest.raises(SystemExit) as end:
        main(["recommend", str(run), "--heard", HEARD, "--agent", "popularity"])
    assert end.value.code == USER_ERROR
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["", "steps\n3\n", "steps,validation_skip_rate\n-1,0.5\n", "steps,validation_skip_rate\nx,1\n",
     "steps,validation_skip_rate\ninf,0.5\n", "steps,validation_skip_rate\nnan,0.5\n",
     "steps,validation_skip_rate\n1,2,3\n", "validation_skip_rate\n0.5\n", "\0\n1\n", "\udcff"],
)  # fmt: skip
def test_a_curve_of_something_else_is_named(run, content):
    file = training_of(run).with_name("curve.csv")
    file.write_bytes(content.encode(errors="surrogateescape"))
    (job,) = finished_jobs(run)
    if not content:
        assert curve(job) == []
        return
    for ask in (curve, lambda job: asked(run)):
        with pytest.raises(InputError, match=r"curve\.csv: .*Train the agent again"):
            ask(job)


@pytest.mark.parametrize("content", ["{}", "[]", '{"seconds": "x"}', '{"seconds": NaN}', "{"])
def test_a_time_that_is_none_is_named(run, content):
    (job,) = finished_jobs(run)
    training_of(run).with_name("timing.json").write_text(content)
    with pytest.raises(InputError, match=r"timing\.json: .*Delete it"):
        seconds(job)


# Roll-outs


@pytest.fixture
def evaluated(run, synthetic, tmp_path):
    """The evaluation of the run's agent, its files being there."""
    (job,) = finished_jobs(run)
    options = {"data": str(synthetic.folder), "split": "test"}
    sessions = synthetic.sessions.playable("test")[:20]
    by = Evaluation({"replay": "replay"}, options, sessions, tmp_path / "rollouts", 0)
    evaluate_one(job, by)
    return job, by


def stored(file):
    with np.load(file) as content:
        return dict(content)


SPOILT = {
    "sessions": lambda a: a[::-1],
    "slates": lambda a: np.where(a >= 0, 10**6, a).astype(a.dtype),
    "levels": lambda a: np.where(a >= 0, 99, a).astype(a.dtype),
    "logged": lambda a: a.astype(float),
    "returns": lambda a: np.full_like(a, np.nan),
    "agent": lambda a: np.array("skyline"),
    "seed": lambda a: np.array("x"),
    "evaluator": lambda a: np.array([1.0]),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_tampered_roll_out_is_named(evaluated, name):
    job, by = evaluated
    file = by.folder / "replay-popularity-0.npz"
    arrays = stored(file)
    np.savez(file, **{**arrays, name: SPOILT[name](arrays[name])})
    with pytest.raises(InputError, match=r"replay-popularity-0\.npz: .*Delete the file"):
        evaluate_one(job, by)


@pytest.mark.parametrize("name", ["slates", "levels", "logged", "returns", "sessions"])
def test_a_roll_out_of_other_types_shapes_or_members_is_named(evaluated, name):
    _, by = evaluated
    file = by.folder / "replay-popularity-0.npz"
    arrays = stored(file)
    array = arrays[name]
    for other in (array[:-1], array[None], array.astype("U4"), array.astype(complex), array[0]):
        np.savez(file, **{**arrays, name: other})
        with pytest.raises(InputError, match=r"replay-popularity-0\.npz"):
            Rollout.load(file)
    for others in ({n: a for n, a in arrays.items() if n != name}, {**arrays, "more": array}):
        np.savez(file, **others)
        with pytest.raises(InputError, match=r"replay-popularity-0\.npz"):
            Rollout.load(file)
    for content in (b"", b"PK\x03\x04", file.read_bytes()[:-99], b"\x80\x04K\x01."):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"replay-popularity-0\.npz"):
            Rollout.load(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tampered_re_ranking_is_named(evaluated, value):
    job, by = evaluated
    (file,) = Path(by.folder).glob("rerank-*.npz")
    arrays = stored(file)
    for spoilt in (
        {**arrays, "numerator": np.full_like(arrays["numerator"], value)},
        {name: array[:-1] for name, array in arrays.items()},
        {name: array.astype("U5") for name, array in arrays.items()},
    ):
        np.savez(file, **spoilt)
        with pytest.raises(InputError, match=r"rerank-popularity-0\.npz"):
            evaluate_one(job, by)
