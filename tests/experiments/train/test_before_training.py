"""What is refused or said before anything is fitted or trained, and how far a training is."""

import pytest
from musicbox_experiments.cli import main
from musicbox_experiments.cluster.tasks import Where
from musicbox_experiments.train import jobs
from musicbox_experiments.train.jobs import TrainingJob, train_all, untrained
from worlds import planted_world

from musicbox_env.progress import tqdm


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A dataset without the law behind it."""
    return str(planted_world(tmp_path_factory.mktemp("planted") / "data", sessions=200).folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--agents", "logged", "ddpg", "--evaluator", "replay", "ground_truth"],
        ["compare", "--agents", "logged", "ddpg", "--listener", "ground_truth"],
        ["compare", "--agents", "logged", "ddpg", "bayes"],
        ["train", "--listener", "ground_truth"],
        ["train", "--agent", "bayes"],
    ],
)
def test_the_exact_law_is_refused_where_there_is_none(arguments, logs, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--data", logs, "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert "the exact law of synthetic sessions" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("**/*.npz"))
    assert not list((tmp_path / "run").glob("**/agents"))


@pytest.mark.parametrize("agent", ["logged", "popularity", "best-rate"])
def test_an_agent_that_asks_no_listener_is_trained_without_one(agent, logs, tmp_path, capsys):
    main(["train", "--data", logs, "--agent", agent, "--out", str(tmp_path)])
    assert (tmp_path / "agents" / agent / "seed-0" / "training.json").is_file()
    assert not (tmp_path / "listeners").exists()
    assert "Fitting" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("agent", "settings", "steps", "said"),
    [
        ("ddpg", {}, 511, True),
        ("ddpg", {}, 512, False),
        ("ddpg+mine", {"learning_starts": 8}, 64, False),
        ("ddpg@rerank=30", {}, 64, True),
        ("sb3-ddpg", {}, 99, True),
        ("popularity", {}, 1, False),
    ],
)
def test_a_training_too_short_to_learn_is_said(agent, settings, steps, said):
    sentences = untrained([TrainingJob(agent, 0, settings, {}, steps, "folder")] * 2)
    assert len(sentences) == int(said)
    if said:
        assert "how it starts, and not what training gives" in sentences[0]
        assert f"--train-steps is {steps}" in sentences[0]


@pytest.mark.parametrize(("steps", "sessions"), [(20, 8), (33, 8), (5, 16)])
def test_the_bar_ends_at_its_total(steps, sessions, synthetic_folder, tmp_path, monkeypatch):
    bars = []

    class Kept(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            bars.append(self)

    monkeypatch.setattr(jobs, "tqdm", Kept)
    settings = {"num_envs": sessions, "warmup_updates": 1, "learning_starts": 1, "log_sessions": 20}
    options = {"data": str(synthetic_folder), "listener": "replay", "split": "train"}
    train_all(
        [TrainingJob("ddpg", 0, settings, options, steps, str(tmp_path / "job"), 4)],
        Where(workers=1),
    )
    assert [(bar.n, bar.total) for bar in bars] == [(steps, steps)]


@pytest.mark.parametrize("command", ["compare", "tune --agent ddpg", "train --agent ddpg"])
def test_a_refusal_leaves_no_folder_and_keeps_one_that_is_there(command, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = [*command.split(), "--data", str(tmp_path / "nothing"), "--out", str(out)]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "is not a dataset folder" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    (out / "notes").write_text("mine")
    with pytest.raises(SystemExit):
        main(arguments)
    assert (out / "notes").read_text() == "mine"
