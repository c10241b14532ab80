"""What the order of songs is worth, at the exact law."""

import numpy as np
import pytest
from musicbox_agents import make_agent
from musicbox_experiments.evaluate.order import shuffled_skips, worth_of_order
from musicbox_experiments.evaluate.rollout import Rollout, roll_out

from musicbox_env.data.dataset import Dataset
from musicbox_env.listeners import GroundTruthListener, History
from musicbox_env.listeners.ground_truth import GroundTruthState
from musicbox_env.schema import num_shown

SESSIONS = 60


def played(dataset: Dataset, name: str) -> Rollout:
    sessions = dataset.sessions.playable("test")[:SESSIONS]
    options = {"data": str(dataset.folder), "horizon": 30}
    names = {"listener": "ground_truth", "label": name, "evaluator": "ground_truth"}
    return roll_out(make_agent(name, dataset), options, sessions, **names, seed=0, training_seed=0)


@pytest.fixture(scope="module")
def skyline(worn: Dataset) -> Rollout:
    return played(worn, "skyline")


def test_an_order_that_reads_wear_beats_a_random_one(worn: Dataset, skyline: Rollout) -> None:
    found = worth_of_order({"skyline": {0: skyline}}, worn, resamples=200)["skyline"]
    assert found["difference"]["high"] < 0
    assert found["shuffled"]["low"] <= found["shuffled"]["value"] <= found["shuffled"]["high"]


def test_where_nothing_wears_out_a_random_order_is_as_good(synthetic: Dataset) -> None:
    found = worth_of_order({"skyline": {0: played(synthetic, "skyline")}}, synthetic, resamples=200)
    difference = found["skyline"]["difference"]
    assert difference["low"] < 0 < difference["high"]


def test_every_song_is_heard_in_some_order(worn: Dataset, skyline: Rollout) -> None:
    """Songs that were not heard stay unheard; one song alone has one order."""
    slates, levels = skyline.slates.copy(), skyline.levels.copy()
    slates[:, 1:], levels[:, 1:] = -1, -1
    slates[:, 0, 1:], levels[:, 0, 1:] = -1, -1
    one = Rollout(**{**vars(skyline), "slates": slates, "levels": levels})
    listener = GroundTruthListener(worn)
    parts = shuffled_skips(one, listener, np.random.default_rng(0), draws=200)
    assert (parts.denominator == 1).all()
    state, history = _begun(listener, one)
    rows = np.arange(SESSIONS)
    chances = listener.level_probabilities(
        state, history, rows, slates[:, 0, :1].astype(np.int64), np.full((SESSIONS, 1), -1)
    )
    expected = chances[:, 0, :2].sum(axis=1)
    assert np.abs(parts.numerator - expected).max() < 5 * np.sqrt(0.25 / 200)


def _begun(listener: GroundTruthListener, rollout: Rollout) -> tuple[GroundTruthState, History]:
    sessions = rollout.sessions
    shown = num_shown(listener.dataset.sessions.lengths(sessions))
    history = History.logged(listener.dataset, sessions, shown, 60)
    return listener.begin(history), history
