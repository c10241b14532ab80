import numpy as np
from scipy.stats import kstest

from musicbox_env.rng import choose, new_key, uniform


def test_is_splitmix64():
    """Outputs of the reference implementation for seed 1234567, the usual test vector."""
    reference = np.array(
        [
            6457827717110365317,
            3203168211198807973,
            9817491932198370423,
            4593380528125082431,
            16408922859458223821,
        ],
        dtype=np.uint64,
    )
    key = np.full(5, 1234567, np.uint64)
    np.testing.assert_array_equal(
        uniform(key, np.arange(5)), (reference >> np.uint64(11)).astype(float) * 2.0**-53
    )


def test_a_batch_draws_what_each_session_would_alone():
    rng = np.random.default_rng(0)
    keys = np.array([new_key(rng) for _ in range(50)], np.uint64)
    counters = rng.integers(0, 60, 50)
    alone = [uniform(keys[i : i + 1], counters[i : i + 1])[0] for i in range(50)]
    np.testing.assert_array_equal(uniform(keys, counters), alone)


def test_numbers_are_uniform_along_keys_and_along_counters():
    rng = np.random.default_rng(1)
    keys = np.array([new_key(rng) for _ in range(20_000)], np.uint64)
    for sample in (uniform(keys, 3), uniform(keys[:1], np.arange(20_000))):
        assert kstest(sample, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.03
        assert sample.min() >= 0
        assert sample.max() < 1


def test_choice_is_even_over_all_things():
    rng = np.random.default_rng(2)
    keys = np.array([new_key(rng) for _ in range(20_000)], np.uint64)
    chosen = choose(keys, 7)
    assert chosen.min() == 0
    assert chosen.max() == 6
    assert np.ptp(np.bincount(chosen)) < 6 * np.sqrt(20_000 / 7)
