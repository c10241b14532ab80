"""What callers may hand to the simulator beside actions, and options that reach kernels."""

import dataclasses
import re

import gymnasium as gym
import numpy as np
import pytest
from scipy.sparse import csr_array

import musicbox_env
from musicbox_env.errors import is_message
from musicbox_env.listeners import LearnedListener, ReplayListener, SimilarityListener
from musicbox_env.listeners.learned.listener import BUNDLED, Calibration, FittedNetwork
from musicbox_env.simulator.assets import EnvAssets
from musicbox_env.simulator.config import SessionConfig
from musicbox_env.simulator.dynamics import Simulator
from musicbox_env.simulator.observations import CONTEXT_SIZE
from musicbox_env.vector_env import MusicSessionVectorEnv

N = 4


def make_many(folder, **options):
    return gym.make_vec(
        musicbox_env.ENV_ID,
        N,
        vectorization_mode="vector_entry_point",
        data=str(folder),
        **{"listener": "replay", "candidates": "catalog", **options},
    )


@pytest.fixture(scope="module")
def assets(synthetic_folder):
    config = SessionConfig(data=str(synthetic_folder), listener="replay", candidates="catalog")
    return EnvAssets(config)


@pytest.fixture
def simulator(assets):
    made = Simulator(assets, N)
    made.begin(np.arange(N), assets.pool[:N], np.arange(N).astype(np.uint64))
    return made


def itself():
    action = []
    action.append(action)
    return action


class Hostile:
    """Fails in its own way when it is asked for an array."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no array here")


STRANGE = {
    "masked": np.ma.masked_array(np.zeros(3, np.int64), [0, 1, 0]),
    "sparse": csr_array((1, 3)),
    "a set": {1, 2, 3},
    "a dictionary": {"slate": [1, 2, 3]},
    "a generator": (i for i in range(3)),
    "itself": itself(),
    "ragged": [[1], [2, 3], 4],
    "None": None,
    "text": "123",
    "bytes": b"123",
    "numbers beyond 64 bits": [2**70, 1, 2],
    "hostile": Hostile(),
    "arrays of objects": [np.array([None]), 1, 2],
    "a long double of infinity": np.full(3, np.inf, np.longdouble),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("action", ["proto", "proto_list", "slate"])
def test_what_is_no_action_is_refused_by_every_face(synthetic_folder, action, strange):
    one = gym.make(musicbox_env.ENV_ID, data=str(synthetic_folder), action=action).unwrapped
    many = make_many(synthetic_folder, action=action)
    given = STRANGE[strange]
    for env, size in ((one, 1), (many, N)):
        env.reset(seed=0)
        remaining = env.unwrapped.simulator.remaining.copy()
        for actions in (given, [given] * size):
            with pytest.raises(ValueError, match=r"expected|needs a value"):
                env.step(actions)
            with pytest.raises(ValueError, match=r"expected|needs a value"):
                env.unwrapped.simulator.step(np.arange(size), actions)
        np.testing.assert_array_equal(env.unwrapped.simulator.remaining, remaining)


ODD = {
    **{"a list": ["replay"], "a dictionary": {"a": 1}, "None": None, "not a number": np.nan},
    **{"bytes": b"replay", "a huge number": 10**9999, "an array": np.array(["proto", "slate"])},
    **{
        "a set": {1},
        "text": "x" * 10_000,
        "null": "a\0b",
        "a surrogate": "\ud800",
        "a fraction": 1.5,
    },
    **{"true": True, "a masked array": np.ma.masked_array([1, 2], [0, 1]), "itself": itself()},
}
FREE = "data", "listener", "candidates", "horizon", "leaving", "reward"
RIGHT = {"None": FREE, "true": ("repeats",)}
OPTIONS = [option.name for option in dataclasses.fields(SessionConfig)]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_says_what_came_and_what_was_expected(synthetic_folder, option, odd):
    if option in RIGHT.get(odd, ()):
        return
    options = {"data": str(synthetic_folder), option: ODD[odd]}
    with pytest.raises((ValueError, KeyError, OSError)) as refused:
        EnvAssets(SessionConfig.from_keywords(options))
    said = str(refused.value)
    assert is_message(refused.value) or isinstance(refused.value, OSError), repr(refused.value)
    assert re.search(
        r"expected|must be|[Uu]nknown|No embedding|no dataset|File name too long", said
    )
    assert len(said) < 600 or odd == "text"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("weight", ["listen", "gamma_position"])
def test_every_weight_of_the_reward_is_a_number(weight, odd):
    if (weight, odd) == ("listen", "a fraction"):
        return
    with pytest.raises(ValueError, match=rf"{weight} is .* must be") as refused:
        SessionConfig.from_keywords({"reward": {weight: ODD[odd]}})
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "odd", [*(name for name in ODD if name not in RIGHT), "negative", "too few", "of text"]
)
def test_seeds_are_whole_numbers(synthetic_folder, odd):
    more = {"negative": -1, "too few": [1, 2], "of text": ["1"] * N, "a huge number": -(10**9999)}
    seed = more[odd] if odd in more else ODD[odd]
    for given in (seed, [seed] * N):
        with pytest.raises(ValueError, match=r"seed.*expected|seeds for"):
            make_many(synthetic_folder).reset(seed=given)


@pytest.mark.parametrize("option", ["max_episode_steps", "autoreset_mode", "render_mode"])
@pytest.mark.parametrize("odd", [name for name in ODD if name != "None"])
def test_options_of_the_vector_environment_say_what_was_expected(synthetic_folder, option, odd):
    with pytest.raises(ValueError, match=r"must be a whole|[Uu]nknown (autoreset|render)_mode"):
        MusicSessionVectorEnv(N, data=str(synthetic_folder), **{option: ODD[odd]})


@pytest.mark.parametrize(
    "session", [[[0, 1], [2]], {0, 1}, np.ma.masked_array([0, 1, 2, 3], [1, 0, 0, 0]), [True] * N]
)
def test_what_are_no_sessions_is_refused_by_both_shells(synthetic_folder, session):
    one = gym.make(musicbox_env.ENV_ID, data=str(synthetic_folder)).unwrapped
    for env in (one, make_many(synthetic_folder)):
        with pytest.raises(ValueError, match="expected"):
            env.reset(options={"session": session})


@pytest.mark.parametrize("options", [[("session", 3)], "session", 3, ["session"]])
def test_options_of_reset_are_a_dictionary(synthetic_folder, options):
    one = gym.make(musicbox_env.ENV_ID, data=str(synthetic_folder)).unwrapped
    for env in (one, make_many(synthetic_folder)):
        with pytest.raises(ValueError, match="expected a dictionary"):
            env.reset(options=options)


@pytest.mark.parametrize(
    "refused",
    [
        {"options": {"session": 9_999}},
        {"options": {"session": 9_999}, "seed": 7},
        {"options": {"sesion": 0}},
        {"seed": -1},
    ],
)
@pytest.mark.parametrize("shell", ["one", "many"])
def test_a_refused_reset_changes_nothing(synthetic_folder, shell, refused):
    if shell == "one":
        env = gym.make(musicbox_env.ENV_ID, data=str(synthetic_folder)).unwrapped
    else:
        env = make_many(synthetic_folder)
        if refused.get("options") == {"session": 9_999}:
            refused = {**refused, "options": {"session": [0, 1, 2, 9_999]}}
    env.reset(seed=0)
    expected = env.reset()[1]["session"]
    env.reset(seed=0)
    with pytest.raises((ValueError, gym.error.Error)):
        env.reset(**refused)
    np.testing.assert_array_equal(env.reset()[1]["session"], expected)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_the_first_reset_begins_every_session(synthetic_folder, mode):
    env = make_many(synthetic_folder, autoreset_mode=mode)
    some = {"reset_mask": np.array([True, False, True, False])}
    with pytest.raises(gym.error.ResetNeeded, match="begins every session"):
        env.reset(seed=0, options=some)
    env.reset(seed=0)
    assert (env.reset(options=some)[1]["session"] >= 0).all()


def test_nothing_is_drawn_before_reset(synthetic_folder):
    options = {"data": str(synthetic_folder), "render_mode": "ansi"}
    one = gym.make(musicbox_env.ENV_ID, **options).unwrapped
    for env in (one, make_many(synthetic_folder, render_mode="ansi")):
        with pytest.raises(gym.error.ResetNeeded, match="before render"):
            env.render()
        env.reset(seed=0)
        assert env.render()


@pytest.mark.parametrize(
    "mask",
    [
        *([[True], [True, False]], [1] * N, True, np.ones(N + 1, bool)),
        np.ma.masked_array([True] * N, [True, False, False, False]),
    ],
)
def test_a_mask_is_a_flag_for_each(synthetic_folder, mask):
    with pytest.raises(ValueError, match="reset_mask"):
        make_many(synthetic_folder).reset(options={"reset_mask": mask})


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, True, "4", None, 10**12, 10**400, [1]])
def test_there_is_a_whole_number_of_sessions(assets, num_envs):
    with pytest.raises(ValueError, match="num_envs is"):
        Simulator(assets, num_envs)


def test_sessions_fit_into_memory(synthetic_folder, assets):
    with pytest.raises(ValueError, match=r"10,000,000: that takes .* GB of memory"):
        MusicSessionVectorEnv(10_000_000, data=str(synthetic_folder), history_length=10_000)
    with pytest.raises(ValueError, match=r"10,000,000: that takes .* GB of memory"):
        Simulator(assets, 10_000_000, capacity=10_000_000)


def test_there_is_room_for_every_session(assets):
    with pytest.raises(ValueError, match="capacity is 5; it must be a whole number of 20"):
        Simulator(assets, N, capacity=5)


@pytest.mark.parametrize("sessions", [[0, 1, 2, 600], [0, 1, 2, -1], [0, 1, 2], [2**40] * N])
def test_sessions_that_begin_are_in_the_log(simulator, sessions):
    before = {name: array.copy() for name, array in simulator.arrays().items()}
    with pytest.raises(ValueError, match="sessions in the log"):
        simulator.begin(np.arange(N), np.array(sessions), np.zeros(N, np.uint64))
    for name, array in simulator.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("rows", [[N], [-1], [2**40], [0, 1, N]])
def test_rows_are_in_the_batch(simulator, assets, rows):
    rows = np.array(rows)
    with pytest.raises(ValueError, match="in the batch"):
        simulator.begin(rows, assets.pool[: len(rows)], np.zeros(len(rows), np.uint64))
    with pytest.raises(ValueError, match="in the batch"):
        simulator.observe(rows)
    with pytest.raises(ValueError, match="rows are from"):
        simulator.skip_probabilities(rows, np.zeros((1, 1), np.int64))


def test_candidates_are_in_the_catalog(simulator):
    for track in (200, -2, 2**40):
        with pytest.raises(ValueError, match="expected -1 to 199"):
            simulator.skip_probabilities(np.arange(N), np.array([[3, track]]))


@pytest.mark.parametrize(
    ("tracks", "levels", "message"),
    [
        ([200], [1], "tracks are from 200"),
        ([-1], [1], "tracks are from -1"),
        ([3], [5], "levels are from 5"),
        ([3], [-1], "levels are from -1"),
        ([3, 4], [1], "shapes"),
        ([[3]], [[1]], "shapes"),
        ([3.0], [1], "float64"),
    ],
)
def test_a_history_that_is_shown_can_be(simulator, tracks, levels, message):
    with pytest.raises(ValueError, match=message):
        simulator.show(0, np.array(tracks), np.array(levels), np.zeros(CONTEXT_SIZE, np.float32))
    for context in (np.zeros(3), np.full(CONTEXT_SIZE, np.nan)):
        with pytest.raises(ValueError, match="context"):
            simulator.show(0, np.array([3]), np.array([1]), context)


def test_a_state_that_none_can_have_is_refused(simulator):
    good = {name: array.copy() for name, array in simulator.arrays().items()}
    simulator.restore(good)
    for name, array in good.items():
        others = [array[:-1], array.astype(np.complex64), array[..., None]]
        if array.dtype.kind == "i":
            others += [np.full_like(array, 2**30 if array.itemsize > 1 else 100)]
            others += [np.full_like(array, -2)]
        if array.dtype.kind == "f":
            others += [np.full_like(array, np.nan)]
        for other in others:
            with pytest.raises(ValueError, match=r"The state's .*"):
                simulator.restore({**good, name: other})
        with pytest.raises(ValueError, match=f"{name} is nothing"):
            simulator.restore({n: a for n, a in good.items() if n != name})
    too_many = {**good, "remaining": np.full_like(good["remaining"], 20)}
    with pytest.raises(ValueError, match="heard and remaining"):
        simulator.restore(too_many)


@pytest.mark.parametrize(
    "options",
    [
        *({name: 2**62} for name in ("slate_size", "history_length", "horizon")),
        *({"horizon": 0}, {"slate_size": 3.0}, {"repeats": "no"}, {"embedding": 5}),
        *({"split": ["train"]}, {"action": None}, {"retrieval": 1}, {"reward": {"listen": 1e300}}),
        *({"reward": {"graded": True}}, {"reward": {"novelty": float("nan")}}),
    ],
)
def test_options_of_another_type_or_beyond_all_bounds_are_refused(synthetic_folder, options):
    with pytest.raises(ValueError, match=next(iter(options)) if "reward" not in options else "Rew"):
        gym.make(musicbox_env.ENV_ID, data=str(synthetic_folder), **options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 0.0])
def test_settings_of_listeners_are_finite(synthetic, bad):
    for name in ("temperature", "persistence"):
        with pytest.raises(ValueError, match=name):
            ReplayListener(synthetic, **{name: bad})
    for name in ("k", "memory", "list_size", "shortlist", "decay"):
        with pytest.raises(ValueError, match=name):
            SimilarityListener(synthetic, **{name: bad})
    if not np.isfinite(bad):
        with pytest.raises(ValueError, match="pessimism"):
            LearnedListener(synthetic, pessimism=bad)


def test_weights_handed_over_have_the_shapes_that_kernels_read():
    fit = FittedNetwork.load(BUNDLED)
    for field in dataclasses.fields(fit.network):
        weights = getattr(fit.network, field.name)
        for bad in (weights[..., :-1], weights[None], weights[:0], weights * np.nan):
            with pytest.raises(ValueError, match="learned listener"):
                dataclasses.replace(fit.network, **{field.name: bad})
    usual = fit.calibration.usual
    for bad in (usual[:-1], (*usual, 1.0), (float("nan"), *usual[1:])):
        with pytest.raises(ValueError, match="usual of a calibration"):
            Calibration(fit.calibration.song, fit.calibration.simulated, bad)
