"""Compiled dynamics against the same said plainly, and against what they were before."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from handmade import write_sessions

import musicbox_env
from musicbox_env import kernels
from musicbox_env import rng as draws
from musicbox_env.listeners import (
    GroundTruthListener,
    History,
    LearnedListener,
    Listener,
    ReplayListener,
    put_rows,
)
from musicbox_env.schema import is_skip


def test_forbidden_songs_are_replaced_by_the_most_popular_that_are_allowed():
    rng = np.random.default_rng(0)
    barred = rng.integers(-1, 12, (200, 6)).astype(np.int32)
    slates = rng.integers(0, 12, (200, 3))
    given = slates.copy()
    replaced, playing = np.empty(200, np.int64), np.ones(200, np.bool_)
    kernels.allow_slates(playing, barred, False, slates, replaced)
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
    replaced, playing = np.full(2, 9), np.array([True, False])
    kernels.allow_slates(playing, np.full((2, 5), -1, np.int32), True, slates, replaced)
    assert slates.tolist() == [[7, 7, 3], [-1, -1, -1]]
    assert replaced.tolist() == [0, 0]


def line_up(remaining, logged, held, slates, plays, rows):
    keys, count = np.arange(len(logged), dtype=np.uint64), np.full(len(logged), 5)
    uniforms = np.empty(slates.shape)
    kernels.line_up(rows, keys, count, logged, remaining, held, slates, plays, uniforms)
    return uniforms


def test_a_slate_takes_each_logged_play_once():
    logged = np.array([[4, 5, 4, 5, -1]], np.int32)
    held = np.array([[False, True, True, True, False]])
    slates, plays = np.array([[5, 4, 5, 4, 5, -1]]), np.full((1, 6), -1)
    line_up(np.array([9]), logged, held, slates, plays, np.array([0]))
    assert plays.tolist() == [[1, 2, 3, -1, -1, -1]]
    assert not held.any()


def test_a_play_that_was_chosen_is_taken_and_no_other_of_its_track():
    logged, held = np.array([[4, 5, 4]], np.int32), np.ones((1, 3), np.bool_)
    slates, plays = np.array([[4, 5]]), np.array([[2, -1]])
    line_up(np.array([9]), logged, held, slates, plays, np.array([0]))
    assert plays.tolist() == [[2, 1]]
    assert held.tolist() == [[True, False, False]]


def test_slates_are_heard_as_far_as_sessions_go():
    slates = np.array([[7, -1, 8, 9], [1, 2, 3, 4], [1, 2, 3, 4]])
    remaining, rows = np.array([99, 2, 0, 4]), np.array([1, 2, 3])
    logged, held = np.full((4, 1), -1, np.int32), np.zeros((4, 1), np.bool_)
    uniforms = line_up(remaining, logged, held, slates, np.full_like(slates, -1), rows)
    assert slates.tolist() == [[7, -1, 8, -1], [-1] * 4, [1, 2, 3, 4]]
    assert remaining.tolist() == [99, 0, 0, 0]
    heard = slates >= 0
    before = np.cumsum(heard, axis=1) - heard
    drawn = draws.uniform(rows.astype(np.uint64)[:, None], draws.DRAWS_PER_SONG * (5 + before))
    np.testing.assert_array_equal(uniforms[heard], drawn[heard])


@pytest.mark.parametrize("everyone", [True, False])
def test_sessions_begun_in_place_are_those_begun_anew(synthetic, everyone):
    listener, sessions = ReplayListener(synthetic), np.arange(300)
    history = History.logged(synthetic, sessions, synthetic.sessions.num_shown(sessions), 40)
    rows = sessions if everyone else np.arange(5, 300, 7)
    fast, plain = listener.begin(history), listener.begin(history)
    others = History.logged(synthetic, rows + 300, synthetic.sessions.num_shown(rows + 300), 40)
    put_rows(history, rows, others)
    listener.begin_rows(fast, history, rows)
    Listener.begin_rows(listener, plain, history, rows)
    for field in fields(plain):
        name = field.name
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name))
    width = fast.levels.shape[1]
    logged = synthetic.sessions.padded("level", history.session, width)
    np.testing.assert_array_equal(fast.levels, logged)
    tracks = synthetic.sessions.padded("track", history.session, width)
    embedding = synthetic.embedding(synthetic.embedding_names[0])
    expected = np.where(tracks[..., None] >= 0, embedding[tracks], 0)
    np.testing.assert_array_equal(fast.vectors, expected)
    last = history.levels[sessions, history.count - 1]
    np.testing.assert_array_equal(fast.skipped, is_skip(last))


@pytest.mark.parametrize("listener", [ReplayListener, GroundTruthListener, LearnedListener])
@pytest.mark.parametrize("everyone", [True, False])
def test_slates_heard_at_once_are_heard_as_one_by_one(synthetic, listener, everyone):
    listener = listener(synthetic)
    sessions = np.arange(400)
    shown = synthetic.sessions.num_shown(sessions)
    rows = np.arange(400) if everyone else np.arange(3, 400, 3)
    rng = np.random.default_rng(0)
    results = []
    slates = rng.integers(-1, 200, (2, len(rows), 4))
    slates[:, ::2, 3] = slates[:, ::2, 1]  # the same song twice
    plays = np.where(rng.random(slates.shape) < 0.2, 4, -1)
    uniforms = rng.random(slates.shape)
    for kind in (type(listener), Listener):
        history = History.logged(synthetic, sessions, shown, 40)
        state = listener.begin(history)
        results.append(
            [
                kind.simulate_response(listener, state, history, rows, *slate)
                for slate in zip(slates, plays, uniforms, strict=True)
            ]
        )
        results[-1] += [history.tracks, history.levels, history.count]
    for fast, plain in zip(*results, strict=True):
        np.testing.assert_array_equal(fast, plain)


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
                info["levels"],
                info["logged"],
                info["replaced"],
                info["session"],
            ):
                digest.update(np.ascontiguousarray(part).astype("<f8").tobytes())
    assert digest.hexdigest() == TRACE


@pytest.mark.parametrize("candidates", [1, 2, 3, 4, 7])
def test_donors_are_as_like_as_their_cosines_say(candidates):
    """Candidates are compared three at a time, which must not show; sessions differ in length."""
    rng = np.random.default_rng(candidates)
    embedding = rng.standard_normal((50, 9)).astype(np.float32)
    donors = rng.integers(0, 50, (30, 6))
    levels = np.where(np.arange(6) < rng.integers(1, 7, (30, 1)), 2, -1).astype(np.int8)
    rows, tracks = rng.permutation(30)[:20], rng.integers(0, 50, (20, candidates))
    found = kernels.likeness_to_donors(rows, tracks, embedding, embedding[donors], levels, 0.5)
    exact = np.einsum("mcd,mwd->mcw", embedding[tracks], embedding[donors[rows]], dtype=np.float64)
    expected = np.where(levels[rows][:, None] >= 0, exact / 0.5, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_are_exact_and_the_same_wherever_an_item_stands(kind):
    rng = np.random.default_rng(0)
    items = rng.standard_normal((40, 33)).astype(kind)
    points = rng.standard_normal((7, 33)).astype(np.float32)
    rows = rng.integers(-1, 40, (7, 11))
    found = kernels.score_exactly(points, items, rows)
    exact = np.einsum("qd,qmd->qm", points, items[rows], dtype=np.float64)
    np.testing.assert_allclose(found, np.where(rows >= 0, exact, -np.inf), rtol=1e-6, atol=1e-6)
    for place in range(11):
        alone = kernels.score_exactly(points[2:3], items[rows[2:3, place]], np.zeros((1, 1), int))
        assert rows[2, place] < 0 or alone[0, 0] == found[2, place]
    norms = np.square(items[rows].astype(np.float64)).sum(axis=2).max(axis=1)
    np.testing.assert_allclose(kernels.largest_norms(items, rows), norms, rtol=1e-6)


def test_a_play_whose_level_is_hidden_is_no_donor_and_those_after_it_are():
    weights = np.array([[[1.0, 2.0, 4.0, 8.0, 16.0]]], np.float32)
    levels = np.array([[0, 4, -1, 3, -1]], np.int8)
    chances, nowhere = np.empty((1, 1, 5)), np.full((1, 1), -1)
    kernels.replay_probabilities(weights, levels, np.array([True]), 10.0, nowhere, chances)
    expected = np.array([1.0, 0.0, 0.0, 8.0, 20.0])
    np.testing.assert_allclose(chances[0, 0], expected / 29)


@pytest.mark.parametrize(
    ("file", "rule", "other"),
    [
        ("kernels.py", "return 0 <= level < SKIP_THRESHOLD\n", "return level < 1\n"),
        ("schema.py", "SKIP_THRESHOLD: Final = int(Level.MOST)\n", "SKIP_THRESHOLD: Final = 1\n"),
    ],
    ids=["kernel", "constant"],
)
def test_machine_code_of_another_version_is_not_used(file, rule, other, tmp_path):
    """A kernel follows when another file changes: one whose kernel it calls, or a constant's."""
    package = tmp_path / "musicbox_env"
    of_code = shutil.ignore_patterns("__pycache__", "fitted")
    shutil.copytree(Path(musicbox_env.__file__).parent, package, ignore=of_code)
    source = (package / file).read_text()
    assert source.count(rule) == 1
    assert _skips_of_another_file(tmp_path) == 2
    (package / file).write_text(source.replace(rule, other))
    assert _skips_of_another_file(tmp_path) == 1


def _skips_of_another_file(folder):
    """Skips among levels 0, 1, 4 as a kernel of `features` counts them, in a fresh process."""
    code = (
        "import numpy as np; from musicbox_env.listeners.learned.features import add_songs\n"
        "one, no_vectors = np.zeros(3, np.int64), np.zeros((1, 0), 'f')\n"
        "songs = np.zeros((1, 3, 0), 'f'), np.zeros((1, 3), 'f'), no_vectors\n"
        "levels = np.zeros((1, 12), 'f'), np.zeros((1, 4))\n"
        "add_songs(one, one, np.array([0, 1, 4]), no_vectors, (*songs, *levels))\n"
        "print(int(songs[1][0, 2]))"
    )
    here = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=here,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(ran.stdout)
