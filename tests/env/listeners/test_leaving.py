"""When listeners leave: the hazard written out, and sessions that end by it."""

import json
import shutil

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.special import expit
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import musicbox_env
from musicbox_env.data.dataset import Dataset
from musicbox_env.ingest.training_parts import open_part
from musicbox_env.listeners.leaving import LeavingModel
from musicbox_env.synthetic.published import session_lengths

MODEL = LeavingModel(
    first=10,
    position=(-1.0, -1.5, -0.8),
    last=(-1.6, -0.6, -0.5, -0.4, 0.0),
    before=(0.1, 0.0, 0.2, 0.3, -0.1),
    skip_rate=0.7,
)
NEVER = LeavingModel(first=2, position=(-800.0,))


@pytest.fixture
def saved(synthetic, tmp_path):
    file = tmp_path / "leaving.json"
    MODEL.save(file, {"fitted_on": synthetic.identity, "left": 3})
    return str(file)


def make(folder, **options):
    options = {"listener": "replay", "candidates": "catalog", **options}
    return gym.make(musicbox_env.ENV_ID, data=str(folder), **options)


def make_vector(folder, num_envs, mode="Disabled", **options):
    return gym.make_vec(
        musicbox_env.ENV_ID,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        data=str(folder),
        **{"listener": "replay", "candidates": "catalog", **options},
    )


def test_the_hazard_written_out():
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 5, (40, 30)).astype(np.int8)
    count = rng.integers(2, 31, 40)
    got = MODEL.chances(levels, count)
    for i in range(40):
        heard = [int(level) for level in levels[i, : count[i]]]
        if len(heard) < 10:
            assert got[i] == 0
            continue
        earlier = [level < 2 for level in heard[:-1]]
        hazard = MODEL.position[min(len(heard) - 10, 2)]
        hazard += MODEL.last[heard[-1]] + MODEL.before[heard[-2]]
        hazard += 0.7 * (sum(earlier) / len(earlier) - 0.5)
        assert got[i] == pytest.approx(expit(hazard))
    assert (got > 0).any()
    assert (got == 0).any()


def test_published_hazards_give_the_published_lengths():
    lengths, shares = session_lengths()
    model = LeavingModel.published()
    there, found = 1.0, []
    for count in range(2, 20):
        chance = model.chances(np.zeros((1, 20), np.int8), np.array([count]))[0]
        found.append(there * chance)
        there *= 1 - chance
    np.testing.assert_allclose(found[:8], 0)
    np.testing.assert_allclose([*found[8:], there], shares, rtol=1e-9)
    assert lengths[0] == 10


def test_files_keep_the_model(saved, synthetic, tmp_path):
    assert LeavingModel.load(tmp_path / "leaving.json", synthetic) == MODEL
    assert json.loads((tmp_path / "leaving.json").read_text())["left"] == 3


@pytest.mark.parametrize("about", [{}, {"fitted_on": None}, {"fitted_on": {"sessions": 3}}])
def test_a_model_of_another_dataset_is_refused(synthetic, tmp_path, about):
    file = tmp_path / "leaving.json"
    MODEL.save(file, about)
    with pytest.raises(
        ValueError, match=r"The leaving model .*leaving\.json was made on .*fit-lea"
    ):
        make(synthetic.folder, leaving=str(file))
    other = {**synthetic.identity, "catalog_fingerprint": "0" * 32, "plays": 7}
    MODEL.save(file, {"fitted_on": other})
    with pytest.raises(ValueError, match=r"of 200 tracks, 600 sessions, 7 plays .*fit-leaving"):
        make(synthetic.folder, leaving=str(file))


def test_a_model_of_the_whole_is_one_of_its_parts(synthetic, saved, tmp_path):
    folder = shutil.copytree(synthetic.folder, tmp_path / "data")
    part = open_part(Dataset(folder), "train_a")
    assert LeavingModel.load(tmp_path / "leaving.json", part) == MODEL


@pytest.mark.parametrize("listener", ["replay", "similarity", "learned", "ground_truth"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_batched_equals_single_through_leaving(synthetic_folder, saved, listener, mode):
    mode = gym.vector.AutoresetMode(mode)
    options = dict(listener=listener, action="slate", leaving=saved, horizon=14)
    single = gym.vector.SyncVectorEnv(
        [lambda: make(synthetic_folder, **options)] * 6, autoreset_mode=mode
    )
    vector = make_vector(synthetic_folder, 6, mode, **options)
    for env in (single, vector):
        env.reset(seed=4)
    vector.action_space.seed(5)
    ended = {True: 0, False: 0}
    for _ in range(40):
        actions = vector.action_space.sample()
        a, b = single.step(actions), vector.step(actions)
        for left, right in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(left, right)
        for name in ("slate", "slate_levels", "logged", "left"):
            np.testing.assert_array_equal(a[4][name], b[4][name])
        for name, part in a[0].items():
            np.testing.assert_array_equal(part, b[0][name])
        ended[True] += a[2].sum()
        ended[False] += a[3].sum()
    assert min(ended.values()) > 3


@pytest.mark.parametrize("listener", ["replay", "similarity", "learned", "ground_truth"])
@pytest.mark.parametrize("candidates", ["catalog", "session"])
def test_where_nobody_leaves_all_is_as_without(
    synthetic, synthetic_folder, tmp_path, listener, candidates
):
    """Slates heard song by song, with leaving asked in between, and slates heard at once."""
    file = tmp_path / "never.json"
    NEVER.save(file, {"fitted_on": synthetic.identity})
    options = dict(listener=listener, candidates=candidates)
    envs = [make_vector(synthetic_folder, 30, leaving=name, **options) for name in (None, file)]
    for env in envs:
        env.reset(seed=1)
    envs[0].action_space.seed(2)
    for _ in range(4):
        actions = envs[0].action_space.sample()
        (_, *one, info), (_, *other, its_info) = (env.step(actions) for env in envs)
        for left, right in zip((*one, *info.values()), (*other, *its_info.values()), strict=True):
            np.testing.assert_array_equal(left, right)


def left_after(folder, leaving, **options):
    """Songs heard and levels of sessions played on at random, and which of them left."""
    n = 1_500
    env = make_vector(folder, n, listener="ground_truth", leaving=leaving, **options)
    rng = np.random.default_rng(0)
    lengths = env.assets.dataset.sessions.lengths(np.arange(600))
    env.reset(seed=9, options={"session": rng.choice(np.flatnonzero(lengths == 20), n)})
    env.action_space.seed(0)
    while True:
        _, _, terminated, truncated, info = env.step(env.action_space.sample())
        if (terminated | truncated).all():
            break
    history = env.simulator.history
    return history.count.copy(), history.levels.copy(), info["left"]


def test_sessions_leave_as_often_as_the_model_says(synthetic_folder, saved):
    """By position and by the level of the last song, within four standard errors."""
    count, levels, left = left_after(synthetic_folder, saved, horizon=16, action="slate")
    assert (count[~left] == 26).all()
    assert (count[left] <= 26).all()
    moments = []
    for heard in range(11, 27):
        there = np.flatnonzero(count >= heard)
        chances = MODEL.chances(levels[there], np.full(len(there), heard))
        leaves = left[there] & (count[there] == heard)
        moments.append((levels[there, heard - 1], chances, leaves))
        assert_alike(leaves, chances)
    last, chances, leaves = (np.concatenate(part) for part in zip(*moments, strict=True))
    for level in range(5):
        assert_alike(leaves[last == level], chances[last == level])
    assert leaves[last == 4].mean() > 2 * leaves[last == 0].mean()


def assert_alike(happened, chances):
    error = np.sqrt((chances * (1 - chances)).sum()) + 1e-9
    assert abs(happened.sum() - chances.sum()) < 4 * error


@pytest.mark.parametrize("candidates", ["catalog", "session"])
def test_passes_both_environment_checkers(synthetic_folder, candidates):
    options = {"leaving": "published", "candidates": candidates}
    check_env(make(synthetic_folder, **options).unwrapped, skip_render_check=True)
    sb3_check_env(make(synthetic_folder, **options).unwrapped, warn=True)


def test_what_comes_after_leaving_is_not_heard(synthetic, synthetic_folder, tmp_path):
    """Everybody leaves after the eleventh song: the first of the slate after ten shown ones."""
    file = tmp_path / "soon.json"
    of = {"fitted_on": synthetic.identity}
    LeavingModel(first=11, position=(800.0,)).save(file, of)
    env = make(synthetic_folder, leaving=str(file), action="slate", horizon=9, repeats=True)
    lengths = env.unwrapped.assets.dataset.sessions.lengths(np.arange(600))
    session = int(np.flatnonzero(lengths == 20)[0])
    env.reset(seed=0, options={"session": session})
    _, reward, terminated, truncated, info = env.step(np.array([5, 6, 7]))
    assert (terminated, truncated, info["left"]) == (True, False, True)
    np.testing.assert_array_equal(info["slate"][1:], -1)
    np.testing.assert_array_equal(info["slate_levels"][1:], -1)
    assert info["slate"][0] == 5
    assert reward == float(info["slate_levels"][0] >= 2)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([5, 6, 7]))
    _, info = env.reset(seed=1)
    assert info["left"] is False


def test_without_a_horizon_the_log_ends_sessions_too(synthetic_folder):
    count, _, left = left_after(synthetic_folder, "published")
    assert left.any()
    assert (~left).any()
    assert (count[~left] == 20).all()


def test_the_keyword_is_plain_text(synthetic_folder, saved):
    env = make(synthetic_folder, leaving=saved)
    assert env.unwrapped.config.keywords()["leaving"] == saved
    assert json.loads(json.dumps(env.spec.kwargs))["leaving"] == saved


@pytest.mark.parametrize(
    ("leaving", "error", "message"),
    [
        ("publisht", ValueError, "did you mean 'published'"),
        ("fitted", FileNotFoundError, "musicbox fit-leaving"),
        ("missing.json", FileNotFoundError, "musicbox fit-leaving"),
    ],
)
def test_unknown_models_are_refused(synthetic_folder, leaving, error, message):
    with pytest.raises(error, match=message):
        make(synthetic_folder, leaving=leaving)


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"format_version": 9}'])
def test_files_that_are_none_are_refused(synthetic, tmp_path, content):
    file = tmp_path / "leaving.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"leaving.json: .*that `musicbox fit-leaving` wrote"):
        LeavingModel.load(file, synthetic)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first": 1, "position": (0.0,)}, "first is 1"),
        ({"first": 10, "position": ()}, "at least one position"),
        ({"first": 10, "position": (0.0,), "last": (1.0,)}, "expected 5"),
        ({"first": 10, "position": (float("nan"),)}, "NaN"),
    ],
)
def test_models_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LeavingModel(**values)
