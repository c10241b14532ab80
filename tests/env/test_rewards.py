import itertools

import numpy as np
import pytest

from musicbox_env.rewards import (
    TERMS,
    RewardConfig,
    discounts,
    reward_terms,
    slate_diversity,
    song_rewards,
    total_reward,
)


def test_terms_equal_their_definitions_song_by_song():
    rng = np.random.default_rng(0)
    config = RewardConfig(listen=1.0, graded=0.5, diversity=0.3, novelty=0.2, gamma_position=0.8)
    levels = rng.integers(-1, 5, (40, 3)).astype(np.int8)
    vectors = rng.normal(size=(40, 3, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    surprise = rng.random((40, 3))
    terms = reward_terms(config, levels, vectors, surprise)
    total = total_reward(config, terms)
    for row in range(40):
        heard = [k for k in range(3) if levels[row, k] >= 0]
        listen = sum(0.8**k for k in heard if levels[row, k] >= 2)
        graded = sum(0.8**k * levels[row, k] / 4 for k in heard)
        cosines = [vectors[row, a] @ vectors[row, b] for a, b in itertools.combinations(heard, 2)]
        diversity = 1 - np.mean(cosines) if cosines else 0.0
        novelty = np.mean([surprise[row, k] for k in heard]) if heard else 0.0
        expected = dict(listen=listen, graded=graded, diversity=diversity, novelty=novelty)
        for name in TERMS:
            assert terms[name][row] == pytest.approx(expected[name], abs=1e-6)
        weighted = listen + 0.5 * graded + 0.3 * diversity + 0.2 * novelty
        assert total[row] == pytest.approx(weighted, abs=1e-6)


def test_songs_earn_by_their_level_and_sum_to_the_reward_of_the_slate():
    config = RewardConfig(listen=0.7, graded=0.5, diversity=0.3, novelty=0.2, gamma_position=0.8)
    levels = np.array([[0, 1, 2], [3, 4, -1], [-1, -1, -1]], np.int8)
    songs = song_rewards(config, levels)
    by_hand = [0, 0.5 / 4, 0.7 + 0.5 * 2 / 4], [0.7 + 0.5 * 3 / 4, 0.7 + 0.5, 0], [0, 0, 0]
    np.testing.assert_allclose(songs, by_hand)
    rng = np.random.default_rng(0)
    terms = reward_terms(config, levels, rng.normal(size=(3, 3, 6)), rng.random((3, 3)))
    of_slates = 0.3 * terms["diversity"] + 0.2 * terms["novelty"]
    summed = songs @ discounts(0.8, 3) + of_slates
    np.testing.assert_allclose(summed, total_reward(config, terms))


def test_default_reward_is_the_discounted_number_of_songs_not_skipped():
    config = RewardConfig()
    terms = reward_terms(config, np.array([[0, 2, 4], [4, 1, -1]], np.int8), None, None)
    np.testing.assert_allclose(total_reward(config, terms), [0.9 + 0.81, 1.0])


def test_diversity_of_equal_and_of_orthogonal_songs():
    same = np.array([[[1, 0], [1, 0]]], np.float32)
    crossed = np.array([[[1, 0], [0, 1]]], np.float32)
    both = np.ones((1, 2), np.bool_)
    assert slate_diversity(same, both) == pytest.approx(0)
    assert slate_diversity(crossed, both) == pytest.approx(1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gamma_positon": 0.5}, "did you mean 'gamma_position'"),
        ({"gamma_position": 1.5}, "must be in"),
        ({"listen": float("nan")}, "finite"),
        ({"novelty": "much"}, "finite"),
    ],
)
def test_bad_settings_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        RewardConfig.from_mapping(settings)
