"""Queries to listeners: the true past, imputed plays, and free runs."""

import numpy as np
import pytest
from altered import copy_to_alter
from musicbox_experiments.trust import queries
from musicbox_experiments.trust.queries import ImputingReplay, Log, Targets, without_answers

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import History, ReplayListener, sample_levels, skip_probability
from musicbox_env.schema import UNKNOWN, is_skip


def test_next_plays_are_queried_with_the_true_past(truth, log):
    found = queries.predict(truth, log, Targets.next_plays(log))
    assert np.isnan(found[:, 0]).all()
    assert np.array_equal(np.isfinite(found[:, 1:]), log.heard[:, 1:])
    for row, place in ((0, 1), (3, 7), (5, int(log.lengths[5]) - 1)):
        history = History.logged(log.dataset, log.sessions[[row]], np.array([place]), log.width)
        track, play = log.tracks[[row], place][:, None], np.array([[place]])
        chances = truth.level_probabilities(
            truth.begin(history), history, np.array([0]), track, play
        )
        assert found[row, place] == pytest.approx(skip_probability(chances)[0, 0])


def test_levels_alone_are_the_whole_past_where_the_context_never_changes(truth, log):
    """The law reads levels and the context of the last shown play, and nothing else."""
    column = log.dataset.sessions.padded
    alike = [
        (np.where(log.heard, c, c[:, :1]) == c[:, :1]).all(axis=1)
        for c in (column(name, log.sessions, log.width) for name in ("context_type", "shuffle"))
    ]
    same = alike[0] & alike[1]
    assert same.sum() > 20
    full, levels = (
        queries.predict(truth, log, Targets.next_plays(log)),
        queries.predict_next_from_levels(truth, log),
    )
    np.testing.assert_allclose(levels[same], full[same])


def test_a_tested_replay_listener_does_not_know_the_answer(
    synthetic_folder, synthetic, log, tmp_path
):
    """Every label at one place changes: what is asked about that place must not, the rest must."""
    place, changed = 6, tmp_path / "changed"
    copy_to_alter(synthetic_folder, changed)
    column = np.lib.format.open_memmap(changed / "plays" / "level.npy", mode="r+")
    at = np.asarray(synthetic.sessions.offsets[:-1]) + place
    column[at] = np.where(is_skip(column[at]), 4, 0)
    column.flush()
    answers = [
        queries.predict(
            without_answers(ReplayListener(each.dataset)), each, Targets.next_plays(each)
        )
        for each in (log, Log.of(Dataset(changed), log.sessions))
    ]
    np.testing.assert_array_equal(answers[0][:, place], answers[1][:, place])
    assert not np.allclose(answers[0][:, place + 1], answers[1][:, place + 1])
    asked = np.isfinite(answers[0])
    # Its own labels known, nearly every answer would be on the right side.
    assert ((answers[0][asked] >= 0.5) == is_skip(log.levels)[asked]).mean() < 0.8


def test_imputing_is_unchanged_for_songs_that_the_session_does_not_hold(synthetic, log):
    plain, examined = ReplayListener(synthetic), ImputingReplay(synthetic)
    history = log.history(np.arange(8), log.shown[:8])
    tracks, nowhere = np.tile(np.arange(5), (8, 1)), np.full((8, 5), UNKNOWN)
    answers = [
        listener.level_probabilities(
            listener.begin(history), history, np.arange(8), tracks, nowhere
        )
        for listener in (plain, examined)
    ]
    np.testing.assert_array_equal(*answers)


def test_a_listener_that_looks_the_answer_up_is_refused(constant):
    class Cheat(constant):
        answers_from_log = True

    with pytest.raises(ValueError, match="Cheat answers from the log"):
        without_answers(Cheat([1, 0, 0, 0, 0]))


def test_free_runs_keep_the_shown_half_and_draw_the_rest(log, constant):
    chances = [0.2, 0.3, 0.1, 0.1, 0.3]
    levels, probability = queries.run_free(
        constant(chances), log, samples=40, rng=np.random.default_rng(0)
    )
    shown = np.arange(log.width) < log.shown[:, None]
    assert (levels[:, shown] == log.levels[shown]).all()
    assert np.array_equal(levels[0] >= 0, log.heard)
    drawn = levels[:, log.second_half].ravel()
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), chances, atol=0.01)
    assert np.array_equal(np.isfinite(probability[0]), log.second_half)


def test_free_runs_equal_one_session_at_a_time(truth, log):
    part = log.part(np.arange(3))
    levels, _ = queries.run_free(truth, part, samples=1, rng=np.random.default_rng(3))
    uniforms = np.random.default_rng(3).random((3, log.width))
    for row in range(3):
        history = part.history(np.array([row]), part.shown[[row]])
        state, only = truth.begin(history), np.array([0])
        for place in range(part.shown[row], part.lengths[row]):
            track = part.tracks[[row], place].astype(np.int64)
            chances = truth.level_probabilities(
                state, history, only, track[:, None], np.array([[place]])
            )[:, 0]
            level = sample_levels(chances, uniforms[[row], place])
            assert level[0] == levels[0, row, place]
            truth.update_state(state, history, only, track, level)
            history.record(only, track, level)


def test_samples_of_a_session_are_spread_evenly(log, constant):
    """Of 40 samples of a chance of .3, 12 are skipped at every single place."""
    chances = [0.1, 0.2, 0.1, 0.1, 0.5]
    levels, _ = queries.run_free(constant(chances), log, samples=40, rng=np.random.default_rng(2))
    for skipped in (is_skip(levels), levels == 0):
        counts = skipped.sum(axis=0)[log.second_half]
        assert (counts == counts[0]).all()
    assert is_skip(levels).sum(axis=0)[log.second_half][0] == 12
    again, _ = queries.run_free(constant(chances), log, samples=40, rng=np.random.default_rng(2))
    assert np.array_equal(again, levels)
    orders = is_skip(levels)[:, log.second_half].T
    assert len(np.unique(orders, axis=0)) > 0.9 * len(orders), "each place has an order of its own"
