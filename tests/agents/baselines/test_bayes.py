import numpy as np
import pytest
from handmade import KEPT, SESSIONS, SKIPPED, observe, write_sessions
from musicbox_agents import make_agent
from scipy.special import expit

from musicbox_env.schema import is_skip
from musicbox_env.synthetic.truth import GroundTruth


@pytest.mark.parametrize("use_levels", [False, True])
def test_posterior_is_prior_times_likelihood(synthetic, use_levels):
    agent = make_agent("bayes", synthetic, settings={"use_levels": use_levels, "plausible": 10**6})
    truth = GroundTruth.open(synthetic)
    history = [(3, SKIPPED), (8, KEPT), (3, KEPT), (40, SKIPPED)]
    observation = observe(history)
    observation["context"][0, 3] = 1.0  # shuffle
    observation["context"][0, 4 + 3] = 1.0  # radio
    sessions = synthetic.sessions.sessions_in("train")
    vectors, kappa, law = truth.track_vectors, truth.choice.kappa, truth.law
    weights = []
    for taste, propensity in zip(
        truth.session_taste[sessions], truth.session_propensity[sessions], strict=True
    ):
        choice = truth.track_weight * np.exp(kappa * vectors @ taste)
        choice /= choice.sum()
        likelihood = choice[3] * choice[8] * choice[40]
        previous = running = 0.5
        for place, (track, level) in enumerate(history):
            logit = law.position[place]
            logit += law.previous_skip * (previous - 0.5) + law.running_skip * (running - 0.5)
            logit += propensity + law.context_type[3] + law.shuffle[1] - agent.quality[track]
            logit -= law.taste * (vectors[track] @ taste - law.affinity_center)
            logit += law.repeat * (place == 2)
            skipped = float(is_skip(level))
            if use_levels:
                likelihood *= expit(logit) if skipped else 1 - expit(logit)
            previous = skipped
            running = law.running_weight * running + (1 - law.running_weight) * skipped
        weights.append(likelihood)
    weights = np.array(weights) / np.sum(weights)
    batch = {**observation, "shown": np.array([4])}
    expected = weights @ truth.session_taste[sessions]
    np.testing.assert_allclose(agent.posterior_taste(batch)[0], expected, atol=1e-4)
    score = law.taste * vectors @ expected + agent.quality
    score[[3, 8, 40]] = -np.inf
    assert agent.predict(observation)[0][0].tolist() == np.argsort(-score)[:3].tolist()


def test_songs_recommended_do_not_tell_the_taste_by_being_played(synthetic):
    agent = make_agent("bayes", synthetic, settings={"use_levels": False})
    shown = observe([(3, KEPT), (8, KEPT)])
    _, state = agent.predict(shown)
    assert state.tolist() == [2]
    longer = observe([(3, KEPT), (8, KEPT), (100, KEPT), (101, KEPT)])
    told = {**longer, "shown": np.array([2])}
    untold = {**longer, "shown": np.array([4])}
    first = agent.posterior_taste({**shown, "shown": np.array([2])})
    np.testing.assert_allclose(agent.posterior_taste(told), first, atol=1e-6)
    assert not np.allclose(agent.posterior_taste(untold), first, atol=1e-3)
    _, state = agent.predict(longer, state, np.array([False]))
    assert state.tolist() == [2]
    _, state = agent.predict(shown, np.array([7]), np.array([True]))
    assert state.tolist() == [2]


def test_finds_the_taste_behind_the_songs_played(synthetic):
    agent = make_agent("bayes", synthetic)
    truth, log = agent.truth, synthetic.sessions
    sessions = log.sessions_in("test")
    plays = [
        list(zip(frame["track"], frame["level"], strict=True)) for frame in map(log.frame, sessions)
    ]
    batch = observe(*plays)
    shown = (batch["tracks"] >= 0).sum(axis=1)
    posterior = agent.posterior_taste({**batch, "shown": shown})
    tastes = truth.session_taste[sessions]
    prior = truth.session_taste[log.sessions_in("train")].mean(axis=0)
    assert ((posterior - tastes) ** 2).sum() < 0.8 * ((prior - tastes) ** 2).sum()


def test_needs_a_known_law(tmp_path):
    dataset = write_sessions(tmp_path / "d", SESSIONS)
    with pytest.raises(FileNotFoundError, match="no ground truth"):
        make_agent("bayes", dataset)
