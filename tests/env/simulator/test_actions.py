"""What may be an action, and a session to begin: the same for one session and for many."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

import musicbox_env
from musicbox_env.simulator.actions import checked_actions
from musicbox_env.simulator.config import ACTIONS, CANDIDATES

NUM_ENVS = 4
TRACKS = 200
MOST = 1 + 0.9 + 0.9**2
"""Reward of a slate of three songs of which none is skipped."""
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
FLOATS = (np.float16, np.float32, np.float64)
OTHERS = (np.bool_, np.complex64, "U8", "S8", object, "M8[s]", "V4")
SHAPES = [
    shape
    for ndim in range(4)
    for shape in itertools.product((0, 1, 2, 3, 4, 5, 12, 1000), repeat=ndim)
    if np.prod(shape) <= 12_000
]


@pytest.fixture(scope="module")
def shells(synthetic_folder):
    """The single and the vector environment of each kind of action, begun."""
    made = {}
    for action, candidates in itertools.product(ACTIONS, CANDIDATES):
        chosen = dict(action=action, candidates=candidates, listener="replay")
        options = dict(data=str(synthetic_folder), **chosen)
        one = gym.make(musicbox_env.ENV_ID, **options).unwrapped
        many = gym.make_vec(
            musicbox_env.ENV_ID, NUM_ENVS, vectorization_mode="vector_entry_point", **options
        )
        made[action, candidates] = {"one": one, "many": many}
    return made


def begun(shells, action, shell, candidates="catalog"):
    env = shells[action, candidates][shell]
    env.reset(seed=0)
    return env


def good(env, dtype=None):
    """An action that the space holds."""
    env.action_space.seed(0)
    return env.action_space.sample() if dtype is None else env.action_space.sample().astype(dtype)


def refused(env, action, says):
    with pytest.raises(ValueError, match=says):
        env.step(action)


EVERY = list(itertools.product(ACTIONS, ("one", "many")))


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize(("action", "shell"), EVERY)
def test_every_other_shape_is_refused(shells, action, shell, candidates):
    env = begun(shells, action, shell, candidates)
    right = env.action_space.shape
    dtype = env.action_space.dtype
    for shape in {*SHAPES, (*right, 1), (1, *right), right[::-1], (*right[:-1], right[-1] + 1)}:
        if shape != right:
            refused(env, np.zeros(shape, dtype), rf"shape \(.*expected \(.*{right[-1]},?\)")


@pytest.mark.parametrize(("action", "shell"), EVERY)
def test_types_that_are_no_numbers_are_refused(shells, action, shell):
    env = begun(shells, action, shell)
    for dtype in OTHERS + (FLOATS if action == "slate" else ()):
        refused(env, np.zeros(env.action_space.shape, dtype), "holds .* values; expected")
    refused(env, np.full(env.action_space.shape, None), "holds object values")
    refused(env, np.full(env.action_space.shape, "0.5"), "holds <U3 values")
    for nothing in (None, "slate", {}, {1, 2, 3}, object()):
        refused(env, nothing, "shape")
    refused(env, [[1, 2], [3]] * 2, "make no array|shape")


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize(("action", "shell"), EVERY)
def test_what_is_accepted_earns_no_more_than_the_most(shells, action, shell, candidates):
    env = begun(shells, action, shell, candidates)
    sample = good(env)
    wide = np.zeros((*sample.shape[:-1], 2 * sample.shape[-1]), sample.dtype)
    wide[..., ::2] = sample
    forms = [sample, sample.tolist(), wide[..., ::2], np.asfortranarray(sample), sample[..., ::-1]]
    forms += [np.zeros(sample.shape, dtype) for dtype in INTEGERS]
    if action != "slate":
        forms += [np.zeros(sample.shape, dtype) for dtype in FLOATS]
        forms += [np.full(sample.shape, 1e6), np.full(sample.shape, -3.0)]
    for form in forms:
        before = np.array(form)
        _, reward, _, _, info = env.step(form)
        np.testing.assert_array_equal(np.array(form), before, "the caller's action was changed")
        assert info["slate"].shape[-1] == 3
        assert np.all(np.asarray(reward) <= MOST + 1e-9)
        assert np.all(np.asarray(reward) >= 0)
        env.reset(seed=0)


@pytest.mark.parametrize(("action", "shell"), EVERY)
def test_lists_and_strides_mean_what_the_array_means(shells, action, shell):
    env = begun(shells, action, shell)
    sample = good(env)
    slate = env.step(sample)[4]["slate"]
    for form in (sample.tolist(), np.asfortranarray(sample), np.repeat(sample, 2, -1)[..., ::2]):
        env.reset(seed=0)
        np.testing.assert_array_equal(env.step(form)[4]["slate"], slate)


@pytest.mark.parametrize("shell", ["one", "many"])
@pytest.mark.parametrize("action", ["proto", "proto_list"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_points_must_be_finite(shells, action, shell, bad):
    env = begun(shells, action, shell)
    points = good(env, np.float64)
    points.flat[-1] = bad
    refused(env, points, "NaN or infinity")


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("shell", ["one", "many"])
@pytest.mark.parametrize("bad", [-1, TRACKS, np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_slates_must_name_tracks(shells, shell, bad, candidates):
    env = begun(shells, "slate", shell, candidates)
    slate = good(env, np.int64)
    slate.flat[-1] = bad
    refused(env, slate, "expected indices from 0 to 199")
    beyond = good(env, np.uint64)
    beyond.flat[0] = np.iinfo(np.uint64).max
    refused(env, beyond, "expected indices from 0 to 199")


@pytest.mark.parametrize("bad", [np.nan, -7])
def test_values_of_sessions_that_are_over_are_not_looked_at(shells, bad):
    action = "proto" if np.isnan(bad) else "slate"
    space = shells[action, "catalog"]["one"].action_space
    actions = np.stack([space.sample(), np.full(space.shape, bad, space.dtype)])
    checked = checked_actions(actions, space, np.array([True, False]))
    np.testing.assert_array_equal(checked[0], actions[0])
    with pytest.raises(ValueError, match="NaN or infinity" if action == "proto" else "to 199"):
        checked_actions(actions, space, np.array([True, True]))


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (-1, "not in the log"),
        (600, "not in the log"),
        ([3], r"shape \(1,\); expected one index"),
        ([3, 4], r"shape \(2,\); expected one index"),
        (np.zeros((1, 1), int), r"shape \(1, 1\); expected one index"),
        ([[1, 2], [3]], "makes no array"),
        (2.0, "float64 values"),
        (True, "bool values"),
        ("7", "values; expected integer"),
    ],
)
def test_a_session_is_one_index(shells, session, says):
    env = shells["slate", "catalog"]["one"]
    with pytest.raises(ValueError, match=says):
        env.reset(options={"session": session})


@pytest.mark.parametrize(
    ("sessions", "says"),
    [
        (3, r"shape \(\); expected \(4,\)"),
        ([1, 2, 3], r"shape \(3,\); expected \(4,\)"),
        (np.zeros((4, 1), int), r"shape \(4, 1\); expected \(4,\)"),
        (np.zeros(0, int), r"shape \(0,\); expected \(4,\)"),
        ([0, 1, 2, -1], "Session -1 is not in the log"),
        ([0, 1, 2, 600], "Session 600 is not in the log"),
        ([0, 1, 2, 3.0], "float64 values"),
        ([True] * 4, "bool values"),
        (["0"] * 4, "values; expected integer"),
        ([None] * 4, "object values"),
    ],
)
def test_sessions_are_an_index_for_each(shells, sessions, says):
    env = shells["slate", "catalog"]["many"]
    with pytest.raises(ValueError, match=says):
        env.reset(seed=0, options={"session": sessions})


def test_sessions_are_named_in_any_form(shells, synthetic):
    lengths = synthetic.sessions.lengths(np.arange(synthetic.sessions.num_sessions))
    named = np.flatnonzero(lengths >= 2)[:NUM_ENVS]
    one, many = (shells["slate", "catalog"][shell] for shell in ("one", "many"))
    for form in (named, named.tolist(), tuple(named), named.astype(np.uint16)):
        assert many.reset(seed=0, options={"session": form})[1]["session"].tolist() == list(named)
    for form in (named[1], int(named[1]), np.array(named[1])):
        assert one.reset(seed=0, options={"session": form})[1]["session"] == named[1]
    mask = np.array([False, True, False, True])
    swapped = {"reset_mask": mask, "session": named[[3, 1]]}
    info = many.reset(options=swapped)[1]
    assert info["session"].tolist() == named[[0, 3, 2, 1]].tolist()
