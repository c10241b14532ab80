from dataclasses import replace

import numpy as np
import pytest

from musicbox_env.schema import is_skip
from musicbox_env.synthetic.law import ListenerState, ListeningLaw

LAW = ListeningLaw()


def logistic(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-x))


def test_skip_logit_is_the_documented_sum() -> None:
    levels = [4, 0, 3, 1]  # kept, skipped, kept, skipped
    quality, affinity, propensity = 0.2, 0.5, -0.1
    running = 0.5
    for skipped in (0, 1, 0, 1):
        running = 0.75 * running + 0.25 * skipped
    expected = (
        LAW.position[4]
        + LAW.previous_skip * 0.5
        + LAW.running_skip * (running - 0.5)
        + propensity
        + LAW.context_type[3]
        + LAW.shuffle[1]
        - quality
        - LAW.taste * (affinity - LAW.affinity_center)
        + LAW.repeat
    )
    found = LAW.skip_logit(
        LAW.after(np.array([levels])),
        LAW.session_logit(np.array([propensity]), np.array([3]), np.array([1])),
        LAW.track_logit(np.array([quality]), np.array([affinity]), np.array([True])),
    )
    assert found == pytest.approx([expected])


def test_first_play_has_no_history() -> None:
    no_song = LAW.track_logit(0.0, np.full(3, LAW.affinity_center))
    found = LAW.skip_logit(ListenerState.begin(3), 0.0, no_song)
    assert found == pytest.approx([LAW.position[0]] * 3)


def test_unknown_context_and_shuffle_add_nothing() -> None:
    propensity = np.array([0.3, -0.2])
    unknown = np.array([-1, -1], dtype=np.int8)
    assert LAW.session_logit(propensity, unknown, unknown) == pytest.approx(propensity)


def test_candidates_are_scored_as_single_songs() -> None:
    rng = np.random.default_rng(0)
    n, m = 4, 7
    state = LAW.after(rng.integers(-1, 5, size=(n, 6)))
    session = rng.normal(size=n)
    songs = LAW.track_logit(
        rng.normal(size=(n, m)), rng.normal(size=(n, m)), rng.random((n, m)) < 0.5
    )
    together = LAW.skip_logit(state, session, songs)
    for j in range(m):
        assert together[:, j] == pytest.approx(LAW.skip_logit(state, session, songs[:, j]))


def test_update_is_pure_and_ignores_songs_not_heard() -> None:
    state = ListenerState.begin(3)
    after = LAW.update(state, np.array([0, 4, -1], dtype=np.int8))
    assert state.heard.tolist() == [0, 0, 0]
    assert after.heard.tolist() == [1, 1, 0]
    assert after.previous.tolist() == [1.0, 0.0, 0.5]
    assert after.running.tolist() == [0.625, 0.375, 0.5]


def test_after_skips_padding_on_either_side() -> None:
    plain = LAW.after(np.array([[0, 4, 2]]))
    padded = LAW.after(np.array([[-1, 0, 4, 2, -1]]))
    assert padded.running == pytest.approx(plain.running)
    assert padded.heard.tolist() == [3]
    assert plain.at(np.array([0])).previous.tolist() == [0.0]


def test_places_beyond_the_last_are_as_the_last() -> None:
    late = replace(ListenerState.begin(1), heard=np.array([500]))
    last = replace(ListenerState.begin(1), heard=np.array([19]))
    assert LAW.history_logit(late) == pytest.approx(LAW.history_logit(last))


def test_level_probabilities_sum_to_one_and_hold_the_skip_probability() -> None:
    logit = np.linspace(-6, 6, 25).reshape(5, 5)
    levels = LAW.level_probabilities(logit)
    assert levels.shape == (5, 5, 5)
    assert (levels >= 0).all()
    assert levels.sum(axis=-1) == pytest.approx(np.ones((5, 5)))
    assert levels[..., :2].sum(axis=-1) == pytest.approx(logistic(logit))


def test_drawn_levels_follow_the_probabilities() -> None:
    even = (np.arange(20_000) + 0.5) / 20_000
    for logit in (-1.3, 0.0, 2.1):
        drawn = LAW.draw_levels(np.full(even.shape, logit), even)
        counted = np.bincount(drawn, minlength=5) / len(even)
        assert counted == pytest.approx(LAW.level_probabilities(logit), abs=1e-4)
        assert is_skip(drawn).mean() == pytest.approx(logistic(logit), abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"level_cuts": (0.1, 0.5, 0.6)},
        {"level_cuts": (-0.5, 0.6, 0.5)},
        {"context_type": (0.0,)},
        {"running_weight": 1.0},
        {"quality_limit": 0.0},
        {"position": ()},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ListeningLaw(**wrong)
