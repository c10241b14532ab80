"""Logged sessions as a Minari data set: written, loaded, and replayed to the same."""

import sys

import minari
import numpy as np
import pytest
from musicbox_experiments.cli import main
from musicbox_experiments.data import export
from musicbox_experiments.data.export import ExportConfig

from musicbox_env.retrieval.spaces import embedding_space
from musicbox_env.schema import is_skip

SESSIONS = 40


@pytest.fixture
def exported(synthetic, tmp_path, monkeypatch):
    """Export some sessions, in several batches, and load them."""
    monkeypatch.setattr(export, "BATCH", 16)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def run(**options):
        config = ExportConfig(
            data=synthetic.folder, minari=True, out=tmp_path, sessions=SESSIONS, **options
        )
        export.run(config)
        return minari.load_dataset(config.dataset_id)

    return run


def sessions_of(loaded):
    return [int(m["options"]["session"]) for m in loaded.storage.get_episode_metadata(range(40))]


def test_episodes_are_what_the_log_holds(exported, synthetic):
    loaded = exported(action="slate", observation="ids")
    sessions = sessions_of(loaded)
    assert len(loaded) == len(set(sessions)) == SESSIONS
    assert np.isin(sessions, synthetic.sessions.sessions_in("train")).all()
    repeats = 0
    for session, episode in zip(sessions, loaded, strict=True):
        plays = synthetic.sessions.frame(session)
        shown = len(plays) // 2
        rest = plays.iloc[shown:]
        repeats += rest["track"].duplicated().any()
        slates, levels = episode.infos["slate"][1:], episode.infos["slate_levels"][1:]
        assert slates[slates >= 0].tolist() == rest["track"].tolist()
        assert levels[levels >= 0].tolist() == rest["level"].tolist()
        np.testing.assert_array_equal(episode.actions[slates >= 0], rest["track"])
        expected = (~is_skip(levels) & (levels >= 0)) @ 0.9 ** np.arange(3)
        np.testing.assert_allclose(episode.rewards, expected)
        assert episode.terminations.tolist() == [False] * (len(slates) - 1) + [True]
        assert not episode.truncations.any()
        tracks = episode.observations["tracks"]
        assert (
            tracks[0][tracks[0] >= 0].tolist()
            == plays["track"][max(shown - 10, 0) : shown].tolist()
        )
        assert tracks[-1].tolist() == plays["track"][-10:].tolist()
    assert repeats > 3, "no session here could tell whether labels of repeats are kept in order"


@pytest.mark.parametrize("observation", ["embedding", "ids"])
def test_the_recovered_environment_replays_every_episode(exported, observation):
    loaded = exported(action="slate", observation=observation)
    env = loaded.recover_environment()
    for session, episode in zip(sessions_of(loaded), loaded, strict=True):
        shown, _ = env.reset(options={"session": session})
        for step, action in enumerate(episode.actions):
            for name, part in shown.items():
                np.testing.assert_array_equal(part, episode.observations[name][step])
                assert part.dtype == episode.observations[name].dtype
            shown, reward, terminated, truncated, _ = env.step(action)
            assert reward == pytest.approx(episode.rewards[step])
            assert (terminated, truncated) == (episode.terminations[step], False)
        for name, part in shown.items():
            np.testing.assert_array_equal(part, episode.observations[name][-1])


def test_flat_observations_are_the_parts_side_by_side(exported):
    flat = exported(observation="flat", dataset_id="flat-v0")
    parts = exported(observation="embedding", dataset_id="parts-v0")
    assert sessions_of(flat) == sessions_of(parts)
    assert flat.observation_space == flat.recover_environment().observation_space
    for vector, episode in zip(flat, parts, strict=True):
        beside = [episode.observations[name] for name in ("history", "levels", "mask", "context")]
        np.testing.assert_array_equal(vector.observations, np.concatenate(beside, axis=1))
        assert vector.observations.dtype == np.float32
        np.testing.assert_array_equal(vector.rewards, episode.rewards)


def test_proto_actions_are_the_mean_of_the_songs_played(exported, synthetic):
    loaded = exported()
    space = embedding_space(synthetic, loaded.env_spec.kwargs["embedding"])
    assert loaded.action_space == loaded.recover_environment().action_space
    for episode in loaded:
        assert episode.actions.dtype == np.float32
        for action, slate in zip(episode.actions, episode.infos["slate"][1:], strict=True):
            np.testing.assert_allclose(action, space[slate[slate >= 0]].mean(axis=0), atol=1e-6)
            assert loaded.action_space.contains(action)


def test_the_environment_to_evaluate_in_imputes_nothing(exported):
    loaded = exported()
    env = loaded.recover_environment(eval_env=True)
    assert env.observation_space == loaded.observation_space
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        _, _, terminated, _, info = env.step(env.action_space.sample())
        assert info["logged"][info["slate"] >= 0].all()
        if terminated:
            env.reset()


def test_other_splits_only_when_asked(exported, synthetic):
    sessions = sessions_of(exported(split="validation"))
    assert np.isin(sessions, synthetic.sessions.sessions_in("validation")).all()


def test_an_interrupted_export_is_begun_anew_and_a_finished_one_kept(exported, tmp_path):
    left = tmp_path / "musicbox-logged-v0.partial/data"
    left.mkdir(parents=True)
    (left / "metadata.json").write_text("{}")
    assert len(exported()) == SESSIONS
    with pytest.raises(FileExistsError, match="--overwrite"):
        exported()
    assert exported(action="slate", overwrite=True).env_spec.kwargs["action"] == "slate"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--minari"),
        (["--minari", "--dataset-id", "mine"], "NAME-vNUMBER"),
        (["--minari", "--action", "slat"], "did you mean 'slate'"),
        (["--minari", "--split", "tst"], "did you mean 'test'"),
        (["--minari", "--sessions", "0"], "sessions is 0"),
    ],
)
def test_mistakes_are_told(synthetic, options, says, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["export", str(synthetic.folder), *options])
    assert says in capsys.readouterr().err


def test_without_minari_it_says_what_to_install(synthetic, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari.dataset.minari_storage", None)
    with pytest.raises(SystemExit):
        main(["export", str(synthetic.folder), "--minari", "--out", str(tmp_path)])
    assert 'minari]"' in capsys.readouterr().err
