"""Compiled dynamics against the same said plainly, and against what they were before."""

import hashlib

import gymnasium as gym
import numpy as np
from handmade import write_sessions

import musicbox_env
from musicbox_env.rng import DRAWS_PER_SONG, uniform
from musicbox_env.simulator import kernels


def test_forbidden_songs_are_replaced_by_the_most_popular_that_are_allowed():
    rng = np.random.default_rng(0)
    barred = rng.integers(-1, 12, (200, 6)).astype(np.int32)
    slates = rng.integers(0, 12, (200, 3))
    given = slates.copy()
    playing = np.ones(200, np.bool_)
    replaced = kernels.allow_slates(np.arange(200), playing, barred, False, slates)
    for i in range(200):
        forbidden = set(barred[i].tolist())
        right = [
            song not in forbidden and song not in given[i, :place]
            for place, song in enumerate(given[i])
        ]
        kept = {song for song, ok in zip(given[i].tolist(), right, strict=True) if ok}
        popular = iter([song for song in range(20) if song not in forbidden | kept])
        expected = [
            song if ok else next(popular) for song, ok in zip(given[i].tolist(), right, strict=True)
        ]
        assert slates[i].tolist() == expected
        assert replaced[i] == right.count(False)


def test_slates_are_taken_at_their_word_where_songs_may_be_repeated():
    slates = np.array([[7, 7, 3], [99, -5, 0]])
    playing, nothing = np.array([True, False]), np.full((2, 5), -1, np.int32)
    replaced = kernels.allow_slates(np.arange(2), playing, nothing, True, slates)
    assert slates.tolist() == [[7, 7, 3], [-1, -1, -1]]
    assert replaced.tolist() == [0, 0]


def prepare(remaining, logged, held, slates, plays, rows):
    keys, count = np.arange(len(logged), dtype=np.uint64), np.full(len(logged), 5)
    return kernels.prepare_slates(rows, keys, count, (logged, held), remaining, slates, plays)


def test_a_slate_takes_each_logged_play_once():
    logged = np.array([[4, 5, 4, 5, -1]], np.int32)
    held = np.array([[False, True, True, True, False]])
    slates, plays = np.array([[5, 4, 5, 4, 5, -1]]), np.full((1, 6), -1)
    prepare(np.array([9]), logged, held, slates, plays, np.array([0]))
    assert plays.tolist() == [[1, 2, 3, -1, -1, -1]]
    assert not held.any()


def test_a_play_that_was_chosen_is_taken_and_no_other_of_its_track():
    logged, held = np.array([[4, 5, 4]], np.int32), np.ones((1, 3), np.bool_)
    slates, plays = np.array([[4, 5]]), np.array([[2, -1]])
    prepare(np.array([9]), logged, held, slates, plays, np.array([0]))
    assert plays.tolist() == [[2, 1]]
    assert held.tolist() == [[True, False, False]]


def test_slates_are_heard_as_far_as_sessions_go():
    slates = np.array([[7, -1, 8, 9], [1, 2, 3, 4], [1, 2, 3, 4]])
    remaining, rows = np.array([99, 2, 0, 4]), np.array([1, 2, 3])
    logged, held = np.full((4, 1), -1, np.int32), np.zeros((4, 1), np.bool_)
    uniforms = prepare(remaining, logged, held, slates, np.full_like(slates, -1), rows)
    assert slates.tolist() == [[7, -1, 8, -1], [-1] * 4, [1, 2, 3, 4]]
    assert remaining.tolist() == [99, 0, 0, 0]
    heard = slates >= 0
    before = np.cumsum(heard, axis=1) - heard
    drawn = uniform(rows.astype(np.uint64)[:, None], DRAWS_PER_SONG * (5 + before))
    np.testing.assert_array_equal(uniforms[heard], drawn[heard])


TRACE = "38c6ff31304a8861602c3f52b0398593100041e1f2beb022d86ff91cac9f4420"
"""Of everything below as numpy alone gave it, before any of it was compiled."""


def test_a_seeded_run_gives_what_it_gave_before(tmp_path):
    rng = np.random.default_rng(0)
    sessions = [
        [(f"t{rng.integers(40):02d}", int(rng.integers(5))) for _ in range(rng.integers(10, 21))]
        for _ in range(60)
    ]
    # Axes and their opposites: cosines are -1, 0 and 1, which no machine rounds.
    axes = np.concatenate([np.eye(8), -np.eye(8)])
    vectors = axes[rng.integers(0, 16, len({t for s in sessions for t, _ in s}))]
    write_sessions(tmp_path / "data", sessions, {"hybrid": vectors})
    digest = hashlib.sha256()
    for candidates in ("catalog", "session"):
        env = gym.make_vec(
            musicbox_env.ENV_ID,
            num_envs=16,
            vectorization_mode="vector_entry_point",
            data=str(tmp_path / "data"),
            action="slate",
            observation="ids",
            embedding="hybrid",
            listener="replay",
            candidates=candidates,
        )
        observation, info = env.reset(seed=3)
        env.action_space.seed(4)
        for _ in range(25):
            observation, reward, terminated, _, info = env.step(env.action_space.sample())
            for part in (
                observation["tracks"],
                observation["levels"],
                np.round(reward, 6),
                terminated,
                info["slate"],
                info["slate_levels"],
                info["logged"],
                info["replaced"],
                info["session"],
            ):
                digest.update(np.ascontiguousarray(part).astype("<f8").tobytes())
    assert digest.hexdigest() == TRACE
