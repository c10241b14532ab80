"""Sessions, listeners and a context for tests of the simulator validation report."""

import numpy as np
import pytest
from musicbox_experiments.evaluate.resampling import Resampling
from musicbox_experiments.trust.boosting import BoostingBaseline
from musicbox_experiments.trust.context import Context
from musicbox_experiments.trust.queries import Log

from musicbox_env.listeners import GroundTruthListener, Listener, NoState
from musicbox_env.schema import NUM_LEVELS


@pytest.fixture(scope="module")
def log(synthetic):
    return Log.of(synthetic, synthetic.sessions.sessions_in("test"))


@pytest.fixture(scope="module")
def truth(synthetic):
    return GroundTruthListener(synthetic)


class Constant(Listener[NoState]):
    """Answers always alike."""

    def __init__(self, chances):
        self.chances = np.asarray(chances, float)

    def level_probabilities(self, state, history, rows, tracks, plays):
        return np.broadcast_to(self.chances, (*tracks.shape, NUM_LEVELS)).copy()


@pytest.fixture(scope="session")
def constant():
    """A kind of listener: made with its level probabilities."""
    return Constant


@pytest.fixture(scope="session")
def make_context():
    def make(log, training, samples=3, resamples=60):
        rng = np.random.default_rng(0)
        resampling = Resampling(len(log.sessions), rng=rng, resamples=resamples)
        boosting = {"train": BoostingBaseline.of_split(log, training, "train", 0)}
        return Context(log, resampling, boosting, samples, 20, 0)

    return make


@pytest.fixture
def context(synthetic, log, make_context):
    return make_context(log, Log.of(synthetic, synthetic.sessions.sessions_in("train")))
